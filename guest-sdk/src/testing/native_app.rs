//! The app under test as the hub calls it: the hub's traits, implemented by the SDK's handlers.
//!
//! Handlers run to their end inside a call, and the clock moves without waiting, so every future
//! here is ready at once. A panic is a trap: the event ends with a fault, and the room's instance
//! is dropped. An app outside of rooms has no second instance here; its closures keep the values
//! that they captured.

use super::{tasks::Tasks, thread_bound::ThreadBound};
use crate::{
    App, CallError, Conn, Cx, Message, Upgrade,
    form::{Denied, Done},
    loader::{HandlerRun, RunStep},
    page::{FirstState, View},
    request::RequestHead,
    room::DynRoom,
    stream::Body,
    world::{self, Form, Handle, Incoming, Outgoing, Recording},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tidegate_hub::{
    self as hub, Accept, ActionRun, Call, CloseEvent, Decision, Fault, Feed, Hub, LoaderRun, Pass,
    Request, Response, RoomId, Scope, StreamingResponse, Transaction, Verdict,
    app::{Instance, Pages, RoomAnswer, RoomEvent},
    contract,
    page::{
        self, ActionOutcome, ActionStep, FormDenial, HandlerError, LoaderState, LoaderStep, Shell,
    },
};
use tidegate_routing::Manifest;

/// State of the server under test that every version of its app shares.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) hub: Arc<Hub>,
    pub(super) tasks: Tasks,
    /// Time of day, in Unix milliseconds.
    pub(super) wall: Arc<AtomicU64>,
    /// Number of pieces of a streamed answer after which its client leaves.
    pub(super) pieces_max: Arc<AtomicUsize>,
    /// Fault of a called room that violated the contract. Its caller only receives that the call
    /// failed.
    pub(super) broken: Arc<Mutex<Option<Fault>>>,
}

/// One version of the app.
pub(super) struct NativeApp {
    app: Arc<ThreadBound<App>>,
    manifest: Manifest,
    surroundings: Surroundings,
}

impl NativeApp {
    pub(super) fn new(
        app: Arc<ThreadBound<App>>,
        manifest: Manifest,
        surroundings: Surroundings,
    ) -> NativeApp {
        NativeApp {
            app,
            manifest,
            surroundings,
        }
    }

    /// Runs an event outside of rooms.
    fn event<'a, T: Send + 'a>(
        &self,
        handler: impl FnOnce(&App) -> Result<T, Fault>,
    ) -> Call<'a, T> {
        let app = self.app.get();
        ready(self.surroundings.event(|| handler(&app)).flatten())
    }

    /// Runs an event of a connection, with the index of its route in this version.
    fn socket_event(
        &self,
        conn: &Arc<hub::Conn>,
        handler: impl FnOnce(&App, u32, &Conn),
    ) -> Call<'static, ()> {
        let route = conn
            .route()
            .and_then(|route| self.manifest.successor(route));
        let handle = Handle(conn.clone());
        self.event(|app| {
            Conn::lend(handle, |conn| {
                if let Some(route) = route {
                    handler(app, route, conn);
                }
            });
            Ok(())
        })
    }
}

impl Surroundings {
    fn event<T>(&self, handler: impl FnOnce() -> T) -> Result<T, Fault> {
        self.enter(Scope::App(self.hub.clone()), handler)
    }

    fn enter<T>(&self, scope: Scope, handler: impl FnOnce() -> T) -> Result<T, Fault> {
        let tasks = self.tasks.clone();
        world::set_now(SystemTime::UNIX_EPOCH + Duration::from_millis(self.wall.load(Relaxed)));
        world::set_caller(Rc::new(move |scope, class, name, payload| {
            call_room(&tasks, &scope, class, name, payload)
        }));
        catch_unwind(AssertUnwindSafe(|| world::enter(scope, handler)))
            .map_err(|_| Fault::Trap("a handler panicked".to_owned()))
    }
}

fn call_room(
    tasks: &Tasks,
    scope: &Scope,
    class: &str,
    name: &str,
    payload: &[u8],
) -> Result<Vec<u8>, CallError> {
    let room = RoomId::new(class, name).map_err(|_| CallError::NoSuchRoom)?;
    let answer = scope.call(class, name, Bytes::copy_from_slice(payload));
    let answer = tasks.block_on(answer, Some(&room));
    match answer.expect("a room that is called has a task") {
        Ok(answer) => Ok(answer.to_vec()),
        Err(error) => Err(match error {
            hub::CallError::NotValid => CallError::NoSuchRoom,
            hub::CallError::TooLarge => CallError::TooLarge,
            hub::CallError::Cycle => CallError::Cycle,
            hub::CallError::Busy => CallError::Busy,
            hub::CallError::Failed => CallError::Failed,
            hub::CallError::Deadline => CallError::Timeout,
            hub::CallError::Refused(status, text) => CallError::Refused(status, text),
        }),
    }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, Fault>) -> Call<'a, T> {
    Box::pin(std::future::ready(outcome))
}

impl hub::App for NativeApp {
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict> {
        self.event(|app| match app.check(guard, whole(request, &[])) {
            Ok(pass) => Ok(Verdict::Pass(Pass {
                headers: headers(pass.headers),
                context: pass.context,
            })),
            Err(refusal) => response(refusal).map(Verdict::Answer),
        })
    }

    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response> {
        self.event(|app| response(app.handle(whole(request, &body))))
    }

    fn stream<'a>(
        &'a self,
        request: &'a Request,
        body: hub::BodyStream,
    ) -> Call<'a, StreamingResponse> {
        let outgoing = Outgoing::new(self.surroundings.pieces_max.load(Relaxed));
        let run = self.surroundings.event(|| {
            let app = self.app.get();
            // `wasi:http` does not carry route, peer and context: the app finds the route again.
            let again = app.find_stream(request.method.as_str(), &request.path);
            assert_eq!(
                again,
                Some((request.route, request.params.clone())),
                "guest and host agree on the route"
            );
            let mut head = head(request);
            head.peer.clear();
            head.context.clear();
            let body = Body::of_pieces(Incoming(body));
            app.stream_to(crate::Request { head, body }, outgoing.clone());
        });
        ready(match (run, streamed(outgoing.recorded())) {
            (_, Some(answer)) => answer,
            (Err(fault), None) => Err(fault),
            (Ok(()), None) => Err(Fault::Trap("the handler gave no answer".to_owned())),
        })
    }

    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision> {
        self.event(|app| decision(app.upgrade(upgrade(request, offered))))
    }

    fn open(self: Arc<Self>, conn: Arc<hub::Conn>, request: Request) -> Call<'static, ()> {
        self.socket_event(&conn, |app, _, conn| app.open(conn, whole(&request, &[])))
    }

    fn messages(
        self: Arc<Self>,
        conn: Arc<hub::Conn>,
        messages: Vec<hub::Message>,
    ) -> Call<'static, ()> {
        self.socket_event(&conn, |app, route, conn| {
            app.messages(route, conn, &mut messages.iter().map(world::inward));
        })
    }

    fn close(self: Arc<Self>, conn: Arc<hub::Conn>, info: CloseEvent) -> Call<'static, ()> {
        self.socket_event(&conn, |app, route, conn| {
            app.close(route, conn, close_info(info));
        })
    }

    fn subscribe<'a>(
        &'a self,
        request: &'a Request,
        _: Option<&'a str>,
    ) -> Call<'a, Result<Feed, Response>> {
        self.event(|app| feed(app.subscribe(whole(request, &[]))))
    }

    fn instance(&self) -> Call<'_, Box<dyn Instance>> {
        let instance: Box<dyn Instance> = Box::new(NativeRoom {
            app: self.app.clone(),
            surroundings: self.surroundings.clone(),
            room: ThreadBound::new(RefCell::new(None)),
        });
        ready(Ok(instance))
    }

    fn pages(&self) -> &dyn Pages {
        self
    }
}

/// An instance of a room.
struct NativeRoom {
    app: Arc<ThreadBound<App>>,
    surroundings: Surroundings,
    /// `None` before the room woke.
    room: ThreadBound<RefCell<Option<WokenRoom>>>,
}

type WokenRoom = (Cx, Box<dyn DynRoom>);

impl Instance for NativeRoom {
    fn call<'a>(
        &'a mut self,
        event: RoomEvent,
        transaction: &'a Transaction,
    ) -> Call<'a, RoomAnswer> {
        // The borrow starts with the poll: the handler may call another room, whose task is then
        // polled.
        Box::pin(async move {
            let scope = Scope::Room(transaction.clone());
            let answer = self.surroundings.enter(scope, || match event {
                RoomEvent::Wake => self.wake(transaction.room()),
                event => self.run(event),
            })??;
            if let RoomAnswer::Called(Ok(answer)) = &answer {
                self.check_call_answer(answer.len());
            }
            Ok(answer)
        })
    }
}

impl NativeRoom {
    fn wake(&self, room: &RoomId) -> Result<RoomAnswer, Fault> {
        let cx = Cx::new(room.class().to_owned(), room.name().to_owned());
        let made = self.app.get().make_room(room.class());
        let mut live = made.expect("routes are of classes that the app has");
        live.wake(&cx)
            .map_err(|why| Fault::Trap(format!("the room {room} could not wake: {why}")))?;
        *self.room.get().borrow_mut() = Some((cx, live));
        Ok(RoomAnswer::Done)
    }

    fn run(&self, event: RoomEvent) -> Result<RoomAnswer, Fault> {
        let room = self.room.get();
        let mut room = room.borrow_mut();
        let (cx, live) = room.as_mut().expect("it was woken");
        Ok(match event {
            RoomEvent::Wake => RoomAnswer::Done,
            RoomEvent::Handle(request, body) => {
                RoomAnswer::Response(response(live.request(cx, whole(&request, &body)))?)
            }
            RoomEvent::Upgrade(request, offered) => {
                RoomAnswer::Decision(decision(live.upgrade(cx, upgrade(&request, &offered)))?)
            }
            RoomEvent::Open(conn, request) => {
                let request = whole(&request, &[]);
                Conn::lend(Handle(conn), |conn| live.open(cx, conn, request));
                RoomAnswer::Done
            }
            RoomEvent::Messages(conn, messages) => {
                let messages: Vec<Message> = messages.iter().map(world::inward).collect();
                Conn::lend(Handle(conn), |conn| live.messages(cx, conn, messages));
                RoomAnswer::Done
            }
            RoomEvent::Close(conn, info) => {
                Conn::lend(Handle(conn), |conn| live.close(cx, conn, close_info(info)));
                RoomAnswer::Done
            }
            RoomEvent::Subscribe(request, _) => {
                RoomAnswer::Feed(feed(live.feed(cx, whole(&request, &[])))?)
            }
            RoomEvent::Alarm(attempt) => {
                live.alarm(cx, attempt);
                RoomAnswer::Done
            }
            RoomEvent::Call(payload) => {
                RoomAnswer::Called(live.call(cx, payload.to_vec()).map(Bytes::from))
            }
        })
    }

    fn check_call_answer(&self, bytes: usize) {
        let max = self.surroundings.hub.limits().call_bytes_max;
        if let Err(fault) = contract::check_call_answer(bytes, max) {
            let broken = &self.surroundings.broken;
            *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
    }
}

impl Pages for NativeApp {
    fn load<'a>(
        &'a self,
        page: u32,
        loader: &'a str,
        request: &'a Request,
    ) -> Call<'a, Box<dyn LoaderRun>> {
        let begun = self.surroundings.event(|| {
            let app = self.app.get();
            app.page_at(page)
                .load(loader.to_owned(), whole(request, &[]))
        });
        ready(
            begun.map(|run| -> Box<dyn LoaderRun> {
                Box::new(NativeRun::new(run, &self.surroundings))
            }),
        )
    }

    fn render<'a>(
        &'a self,
        page: u32,
        request: &'a Request,
        view: &'a page::RenderInput,
    ) -> Call<'a, Shell> {
        self.event(|app| {
            let rendered = app
                .page_at(page)
                .render(&whole(request, &[]), &native_view(view));
            Ok(Shell {
                status: contract::status(rendered.status)?,
                headers: headers(rendered.headers),
                html: String::from_utf8(rendered.body).expect("a page is text"),
            })
        })
    }

    fn act<'a>(
        &'a self,
        page: u32,
        action: &'a str,
        request: &'a Request,
        form: Box<dyn page::Form>,
    ) -> Call<'a, Box<dyn ActionRun>> {
        let begun = self.surroundings.event(|| {
            let app = self.app.get();
            app.page_at(page)
                .act(action.to_owned(), whole(request, &[]), Form(form))
        });
        ready(
            begun.map(|run| -> Box<dyn ActionRun> {
                Box::new(NativeRun::new(run, &self.surroundings))
            }),
        )
    }
}

/// A running loader or action.
struct NativeRun<T: 'static> {
    run: ThreadBound<RefCell<Option<HandlerRun<T>>>>,
    surroundings: Surroundings,
}

impl<T> NativeRun<T> {
    fn new(run: HandlerRun<T>, surroundings: &Surroundings) -> NativeRun<T> {
        NativeRun {
            run: ThreadBound::new(RefCell::new(Some(run))),
            surroundings: surroundings.clone(),
        }
    }

    fn step(&self) -> Result<RunStep<T>, Fault> {
        let run = self.run.get();
        let mut run = run.borrow_mut();
        let run = run.as_mut().expect("it is there until it is dropped");
        self.surroundings.event(|| run.next())
    }
}

impl<T> Drop for NativeRun<T> {
    /// The values of the run are also dropped within an event.
    fn drop(&mut self) {
        let run = self.run.get().take();
        _ = self.surroundings.event(|| drop(run));
    }
}

impl LoaderRun for NativeRun<()> {
    fn next(&mut self) -> Call<'_, Result<LoaderStep, HandlerError>> {
        ready(self.step().and_then(|step| {
            Ok(match step {
                RunStep::Value(json) => Ok(LoaderStep::Value(json)),
                RunStep::Later(wait) => Ok(LoaderStep::Later(wait)),
                RunStep::End(Ok(())) => Ok(LoaderStep::End),
                RunStep::End(Err(error)) => Err(handler_error(error)?),
            })
        }))
    }
}

impl ActionRun for NativeRun<Done> {
    fn next(&mut self) -> Call<'_, ActionStep> {
        ready(self.step().and_then(|step| {
            Ok(match step {
                RunStep::Value(json) => ActionStep::Progress(json),
                RunStep::Later(wait) => ActionStep::Later(wait),
                RunStep::End(Ok(done)) => ActionStep::Done(Ok(outcome(done)?)),
                RunStep::End(Err(error)) => ActionStep::Done(Err(handler_error(error)?)),
            })
        }))
    }
}

fn handler_error((status, message): (u16, String)) -> Result<HandlerError, Fault> {
    let status = contract::error_status(status)?;
    Ok(HandlerError { status, message })
}

fn head(request: &Request) -> RequestHead {
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    RequestHead {
        method: request.method.to_string(),
        scheme: request.scheme.to_owned(),
        authority: request.authority.clone(),
        path: request.path.clone(),
        headers: headers.collect(),
        params: request.params.clone(),
        peer: request.peer.clone(),
        route: request.route,
        context: request.context.clone(),
    }
}

fn whole(request: &Request, body: &[u8]) -> crate::Request {
    crate::Request {
        head: head(request),
        body: Body::of_bytes(body.to_vec()),
    }
}

fn upgrade(request: &Request, offered: &[String]) -> Upgrade {
    Upgrade {
        request: whole(request, &[]),
        offered: offered.to_vec(),
    }
}

fn headers(headers: Vec<(String, Vec<u8>)>) -> Vec<hub::Header> {
    headers
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

fn response(given: crate::Response) -> Result<Response, Fault> {
    Ok(Response {
        status: contract::status(given.status)?,
        headers: headers(given.headers),
        body: given.body.into(),
    })
}

fn decision(decided: Result<crate::Accept, crate::Response>) -> Result<Decision, Fault> {
    Ok(match decided {
        Err(refusal) => Decision::Reject(response(refusal)?),
        Ok(crate::Accept {
            close: Some((code, reason)),
            ..
        }) => Decision::AcceptThenClose(code, reason),
        Ok(accept) => Decision::Accept(Accept {
            protocol: accept.protocol,
            headers: headers(accept.headers),
            attachment: accept.attachment.into(),
            tags: accept.tags,
            ..Accept::default()
        }),
    })
}

fn feed(admitted: Result<crate::Feed, crate::Response>) -> Result<Result<Feed, Response>, Fault> {
    let feed = match admitted {
        Ok(feed) => feed,
        Err(refusal) => return Ok(Err(response(refusal)?)),
    };
    let first = feed
        .first
        .into_iter()
        .map(|(data, event)| hub::FeedEvent { data, event });
    Ok(Ok(Feed {
        topics: feed.topics,
        first: first.collect(),
        opened: None,
    }))
}

fn close_info(info: CloseEvent) -> crate::CloseEvent {
    crate::CloseEvent {
        code: info.code,
        reason: info.reason,
        was_clean: info.was_clean,
        is_peer_initiated: info.is_peer_initiated,
    }
}

fn native_view(view: &page::RenderInput) -> View {
    let first = view.first.iter().map(|(name, initial)| {
        let first = match initial {
            LoaderState::Value(json) => FirstState::Value(json.clone()),
            LoaderState::Failed(problem) => {
                FirstState::Failed(problem.status.as_u16(), problem.message.clone())
            }
            LoaderState::Pending => FirstState::Pending,
        };
        (name.clone(), first)
    });
    let denied = view.denied.clone().map(|(action, denial)| {
        let denied = Denied {
            status: denial.status.as_u16(),
            message: denial.message,
            errors: denial.errors,
            values: denial.values,
        };
        (action, denied)
    });
    View {
        first: first.collect(),
        nonce: view.nonce.clone(),
        denied,
    }
}

fn outcome(done: Done) -> Result<ActionOutcome, Fault> {
    Ok(match done {
        Done::Success(value, stale) => ActionOutcome::Success { value, stale },
        Done::Redirect(status, location) => ActionOutcome::Redirect {
            status: contract::redirect_status(status)?,
            location,
        },
        Done::Deny(denied) => ActionOutcome::Deny(FormDenial {
            status: contract::denial_status(denied.status)?,
            message: denied.message,
            errors: denied.errors,
            values: denied.values,
        }),
    })
}

/// Converts a streamed answer as `wasi:http` does: forbidden headers stay in the guest. Returns
/// `None` if the handler gave no head.
fn streamed(mut recording: Recording) -> Option<Result<StreamingResponse, Fault>> {
    let head = recording.head.take()?;
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    Some(
        contract::status(head.status).map(|status| StreamingResponse {
            status,
            headers,
            body: Box::pin(recording),
        }),
    )
}
