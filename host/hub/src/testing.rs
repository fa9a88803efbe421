//! An app of closures and a storage in memory, for tests of code that calls apps and rooms.

mod memory;
mod suite;

pub use memory::MemoryEngine;
pub use suite::suite;

use crate::{
    app::{
        ActionRun, App, BodyStream, Call, Instance, LoaderRun, Pages, RoomAnswer, RoomEvent,
        StreamingResponse,
    },
    event::{Accept, CloseEvent, Decision, Pass, Verdict},
    fault::Fault,
    message::Message,
    page::{ActionOutcome, ActionStep, Form, HandlerError, LoaderStep, RenderInput, Shell},
    realtime::{connections::Conn, feed::Feed},
    request::{Request, Response},
    rooms::transaction::Transaction,
};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

type Script<In, Out> = Box<dyn Fn(In) -> Result<Out, Fault> + Send + Sync>;

/// Handler of a room's events.
pub type RoomScript = dyn Fn(RoomEvent, &Transaction) -> Result<RoomAnswer, Fault> + Send + Sync;

/// Guest code without a guest. Every handler can be replaced; the default passes guards, answers
/// 200 with the path, accepts upgrades, sends messages back and follows nothing.
///
/// ```
/// use tidegate_hub::{Fault, testing::FakeApp};
/// let app = FakeApp { handle: Box::new(|_| Err(Fault::Cpu)), ..FakeApp::default() };
/// ```
pub struct FakeApp {
    /// `check`: guard index and request.
    pub check: Script<(u32, Request), Verdict>,
    /// `handle`: request and body.
    pub handle: Script<(Request, Bytes), Response>,
    /// `stream`: request and body. The returned body is the whole body of the response.
    pub stream: Box<dyn Fn(Request, BodyStream) -> Result<StreamingResponse, Fault> + Send + Sync>,
    /// `upgrade`: request and offered subprotocols.
    pub upgrade: Script<(Request, Vec<String>), Decision>,
    /// True if `on-upgrade` never ends.
    pub undecided: bool,
    /// `open`: a connection that opened.
    pub open: Script<(Arc<Conn>, Request), ()>,
    /// `messages`: messages of a connection.
    pub messages: Script<(Arc<Conn>, Vec<Message>), ()>,
    /// `close`: a connection that ended.
    pub close: Script<(Arc<Conn>, CloseEvent), ()>,
    /// `subscribe`: request and last event id.
    pub subscribe: Script<(Request, Option<String>), Result<Feed, Response>>,
    /// `instance`: an error if a room gets no instance.
    pub instance: Script<(), ()>,
    /// Handler of a room's events, with the room's transaction.
    pub room: Arc<RoomScript>,
    /// `load`: name of a loader and request. Returns its replies in their order; after them it has
    /// ended.
    pub load: Script<(String, Request), Vec<LoadReply>>,
    /// `render`: request and view.
    pub render: Script<(Request, RenderInput), Shell>,
    /// `act`: name of an action, request and form. Returns its steps.
    pub act: Arc<ActionScript>,
}

/// Reply of a loader.
#[derive(Clone, Debug)]
pub enum LoadReply {
    /// It has this step at once.
    Step(Result<LoaderStep, HandlerError>),
    /// It never has one.
    Stuck,
    /// It never has one, and holds this value.
    Held(Arc<dyn std::any::Any + Send + Sync>),
    /// It fails with this fault.
    Fault(Fault),
}

/// Handler of an action and its form.
pub type ActionScript =
    dyn Fn(String, Request, Box<dyn Form>) -> Call<'static, Vec<ActionStep>> + Send + Sync;

impl Default for FakeApp {
    fn default() -> FakeApp {
        FakeApp {
            check: Box::new(|_| Ok(Verdict::Pass(Pass::default()))),
            handle: Box::new(|(request, _)| {
                Ok(Response {
                    status: StatusCode::OK,
                    headers: vec![],
                    body: request.path.into(),
                })
            }),
            stream: Box::new(|_, body| {
                Ok(StreamingResponse {
                    status: StatusCode::OK,
                    headers: Default::default(),
                    body,
                })
            }),
            upgrade: Box::new(|_| Ok(Decision::Accept(Accept::default()))),
            undecided: false,
            open: Box::new(|_| Ok(())),
            messages: Box::new(|(conn, messages)| {
                messages
                    .into_iter()
                    .for_each(|message| _ = conn.send(message));
                Ok(())
            }),
            close: Box::new(|_| Ok(())),
            subscribe: Box::new(|_| Ok(Ok(Feed::default()))),
            instance: Box::new(|()| Ok(())),
            room: Arc::new(|event, _| {
                Ok(match event {
                    RoomEvent::Handle(request, _) => RoomAnswer::Response(Response {
                        status: StatusCode::OK,
                        headers: vec![],
                        body: request.path.into(),
                    }),
                    RoomEvent::Upgrade(..) => {
                        RoomAnswer::Decision(Decision::Accept(Accept::default()))
                    }
                    RoomEvent::Subscribe(..) => RoomAnswer::Feed(Ok(Feed::default())),
                    _ => RoomAnswer::Done,
                })
            }),
            load: Box::new(|_| Ok(Vec::new())),
            render: Box::new(|(request, _)| {
                Ok(Shell {
                    status: StatusCode::OK,
                    headers: vec![],
                    html: request.path,
                })
            }),
            act: Arc::new(|name, _, _| {
                let outcome = ActionOutcome::Success {
                    value: format!("{name:?}"),
                    stale: vec![],
                };
                ready(Ok(vec![ActionStep::Done(Ok(outcome))]))
            }),
        }
    }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, Fault>) -> Call<'a, T> {
    Box::pin(async { outcome })
}

impl App for FakeApp {
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict> {
        ready((self.check)((guard, request.clone())))
    }

    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response> {
        ready((self.handle)((request.clone(), body)))
    }

    fn stream<'a>(&'a self, request: &'a Request, body: BodyStream) -> Call<'a, StreamingResponse> {
        ready((self.stream)(request.clone(), body))
    }

    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision> {
        match self.undecided {
            true => Box::pin(std::future::pending()),
            false => ready((self.upgrade)((request.clone(), offered.to_vec()))),
        }
    }

    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()> {
        ready((self.open)((conn, request)))
    }

    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()> {
        ready((self.messages)((conn, messages)))
    }

    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseEvent) -> Call<'static, ()> {
        ready((self.close)((conn, info)))
    }

    fn subscribe<'a>(
        &'a self,
        request: &'a Request,
        last_event_id: Option<&'a str>,
    ) -> Call<'a, Result<Feed, Response>> {
        ready((self.subscribe)((
            request.clone(),
            last_event_id.map(str::to_owned),
        )))
    }

    fn instance(&self) -> Call<'_, Box<dyn Instance>> {
        ready(
            (self.instance)(())
                .map(|()| Box::new(FakeInstance(self.room.clone())) as Box<dyn Instance>),
        )
    }

    fn pages(&self) -> &dyn Pages {
        self
    }
}

struct FakeInstance(Arc<RoomScript>);

impl Instance for FakeInstance {
    fn call<'a>(
        &'a mut self,
        event: RoomEvent,
        transaction: &'a Transaction,
    ) -> Call<'a, RoomAnswer> {
        ready((self.0)(event, transaction))
    }
}

impl Pages for FakeApp {
    fn load<'a>(
        &'a self,
        _: u32,
        loader: &'a str,
        request: &'a Request,
    ) -> Call<'a, Box<dyn LoaderRun>> {
        let steps = (self.load)((loader.to_owned(), request.clone()));
        ready(steps.map(|steps| Box::new(FakeLoader(steps.into_iter())) as Box<dyn LoaderRun>))
    }

    fn render<'a>(
        &'a self,
        _: u32,
        request: &'a Request,
        view: &'a RenderInput,
    ) -> Call<'a, Shell> {
        ready((self.render)((request.clone(), view.clone())))
    }

    fn act<'a>(
        &'a self,
        _: u32,
        action: &'a str,
        request: &'a Request,
        form: Box<dyn Form>,
    ) -> Call<'a, Box<dyn ActionRun>> {
        let script = (self.act)(action.to_owned(), request.clone(), form);
        ready(Ok(Box::new(FakeAttempt {
            script: Some(script),
            updates: Vec::new().into_iter(),
        }) as Box<dyn ActionRun>))
    }
}

struct FakeLoader(std::vec::IntoIter<LoadReply>);

impl LoaderRun for FakeLoader {
    fn next(&mut self) -> Call<'_, Result<LoaderStep, HandlerError>> {
        match self.0.next() {
            Some(LoadReply::Step(step)) => ready(Ok(step)),
            Some(LoadReply::Stuck) => Box::pin(std::future::pending()),
            Some(LoadReply::Held(held)) => Box::pin(async move {
                std::future::pending::<()>().await;
                drop(held);
                unreachable!("it never ends")
            }),
            Some(LoadReply::Fault(fault)) => ready(Err(fault)),
            None => ready(Ok(Ok(LoaderStep::End))),
        }
    }
}

struct FakeAttempt {
    script: Option<Call<'static, Vec<ActionStep>>>,
    updates: std::vec::IntoIter<ActionStep>,
}

impl ActionRun for FakeAttempt {
    fn next(&mut self) -> Call<'_, ActionStep> {
        Box::pin(async {
            if let Some(script) = self.script.take() {
                self.updates = script.await?.into_iter();
            }
            self.updates
                .next()
                .ok_or_else(|| Fault::Answer("no more updates".into()))
        })
    }
}
