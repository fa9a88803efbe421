//! An app of closures and a storage in memory, for tests of whoever calls apps and rooms.

mod memory;
mod suite;

pub use memory::Memory;
pub use suite::suite;

use crate::{
    Accept, App, Attempt, Body, Call, CloseInfo, Conn, Decision, Fault, Feed, Loader, Message,
    Pages, Passed, Request, Response, Streamed, Transaction, Verdict,
    app::{Instance, RoomAnswer, RoomEvent},
    page::{Form, Outcome, Problem, Shell, Step, Update, View},
};
use bytes::Bytes;
use std::sync::Arc;

type Answer<In, Out> = Box<dyn Fn(In) -> Result<Out, Fault> + Send + Sync>;

/// What a room does with an event.
pub type RoomScript = dyn Fn(RoomEvent, &Transaction) -> Result<RoomAnswer, Fault> + Send + Sync;

/// Guest code without a guest. Every handler can be replaced; the default passes guards, answers
/// 200 with the path, accepts upgrades, sends messages back and follows nothing.
///
/// ```
/// use tidegate_hub::{testing::FakeApp, Fault};
/// let app = FakeApp { handle: Box::new(|_| Err(Fault::Cpu)), ..FakeApp::default() };
/// ```
pub struct FakeApp {
    /// Guard index and request.
    pub check: Answer<(u32, Request), Verdict>,
    /// Request and body.
    pub handle: Answer<(Request, Bytes), Response>,
    /// Request and body; the answer's body is the whole answer.
    pub stream: Box<dyn Fn(Request, Body) -> Result<Streamed, Fault> + Send + Sync>,
    /// Request and offered subprotocols.
    pub upgrade: Answer<(Request, Vec<String>), Decision>,
    /// Whether `on-upgrade` never comes to its end.
    pub undecided: bool,
    /// A connection that opened.
    pub open: Answer<(Arc<Conn>, Request), ()>,
    /// Messages of a connection.
    pub messages: Answer<(Arc<Conn>, Vec<Message>), ()>,
    /// A connection that ended.
    pub close: Answer<(Arc<Conn>, CloseInfo), ()>,
    /// Request and last event id.
    pub subscribe: Answer<(Request, Option<String>), Result<Feed, Response>>,
    /// Whether there is an instance for a room.
    pub instance: Answer<(), ()>,
    /// An event of a room, and what it may use.
    pub room: Arc<RoomScript>,
    /// Name of a loader and request; what it gives, one after the other, and from then on that it has ended.
    pub load: Answer<(String, Request), Vec<Loaded>>,
    /// Request and view.
    pub render: Answer<(Request, View), Shell>,
    /// Name of an action and request, and its form; how far it comes.
    pub act: Arc<ActionScript>,
}

/// What a loader gives when it is asked, or a moment in which it never answers.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// At once.
    Step(Result<Step, Problem>),
    /// Never.
    Stuck,
    /// Never, and it holds this.
    Held(Arc<dyn std::any::Any + Send + Sync>),
    /// It faults.
    Fault(Fault),
}

/// What an action does with its form.
pub type ActionScript =
    dyn Fn(String, Request, Box<dyn Form>) -> Call<'static, Vec<Update>> + Send + Sync;

impl Default for FakeApp {
    fn default() -> FakeApp {
        FakeApp {
            check: Box::new(|_| Ok(Verdict::Pass(Passed::default()))),
            handle: Box::new(|(request, _)| {
                Ok(Response {
                    status: 200,
                    headers: vec![],
                    body: request.path.into(),
                })
            }),
            stream: Box::new(|_, body| {
                Ok(Streamed {
                    status: 200,
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
                        status: 200,
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
                    status: 200,
                    headers: vec![],
                    html: request.path,
                })
            }),
            act: Arc::new(|name, _, _| {
                let outcome = Outcome::Success {
                    value: format!("{name:?}"),
                    stale: vec![],
                };
                ready(Ok(vec![Update::Done(Ok(outcome))]))
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

    fn stream<'a>(&'a self, request: &'a Request, body: Body) -> Call<'a, Streamed> {
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

    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseInfo) -> Call<'static, ()> {
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
    ) -> Call<'a, Box<dyn Loader>> {
        let steps = (self.load)((loader.to_owned(), request.clone()));
        ready(steps.map(|steps| Box::new(FakeLoader(steps.into_iter())) as Box<dyn Loader>))
    }

    fn render<'a>(&'a self, _: u32, request: &'a Request, view: &'a View) -> Call<'a, Shell> {
        ready((self.render)((request.clone(), view.clone())))
    }

    fn act<'a>(
        &'a self,
        _: u32,
        action: &'a str,
        request: &'a Request,
        form: Box<dyn Form>,
    ) -> Call<'a, Box<dyn Attempt>> {
        let script = (self.act)(action.to_owned(), request.clone(), form);
        ready(Ok(Box::new(FakeAttempt {
            script: Some(script),
            updates: Vec::new().into_iter(),
        }) as Box<dyn Attempt>))
    }
}

struct FakeLoader(std::vec::IntoIter<Loaded>);

impl Loader for FakeLoader {
    fn next(&mut self) -> Call<'_, Result<Step, Problem>> {
        match self.0.next() {
            Some(Loaded::Step(step)) => ready(Ok(step)),
            Some(Loaded::Stuck) => Box::pin(std::future::pending()),
            Some(Loaded::Held(held)) => Box::pin(async move {
                std::future::pending::<()>().await;
                drop(held);
                unreachable!("it never ends")
            }),
            Some(Loaded::Fault(fault)) => ready(Err(fault)),
            None => ready(Ok(Ok(Step::End))),
        }
    }
}

struct FakeAttempt {
    script: Option<Call<'static, Vec<Update>>>,
    updates: std::vec::IntoIter<Update>,
}

impl Attempt for FakeAttempt {
    fn next(&mut self) -> Call<'_, Update> {
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
