//! The native boundary, for `testing`: the real hub without wasm and network, and a clock that
//! moves without waiting.

mod form;
mod room;

use crate::{
    Error, LimitError, Message, Position, Publication, Response, Result, SendError, StartPoint,
    stream::Gone,
};
use bytes::Bytes;
pub(crate) use form::Form;
pub(crate) use room::{
    call, now, rollback, room_alarm, room_broadcast, room_clear, room_delete, room_entries,
    room_flush, room_get, room_position, room_put, room_set_alarm, set_caller, set_now,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    mem,
    ops::RangeInclusive,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tidegate_hub::{self as hub, Effect, EffectError, EffectOutcome};

/// Valid statuses of a response.
const STATUSES: RangeInclusive<u16> = 200..=599;

thread_local! {
    /// Scope of the handler that runs on this thread.
    static SCOPE: RefCell<Option<hub::Scope>> = const { RefCell::new(None) };
    /// Moves only when every future waits.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static TIMERS: RefCell<Vec<(Rc<Duration>, Waker)>> = const { RefCell::new(Vec::new()) };
}

/// Runs a handler for this app, or for this room.
pub(crate) fn enter<T>(scope: hub::Scope, handler: impl FnOnce() -> T) -> T {
    let _leave = Leave(SCOPE.replace(Some(scope)));
    handler()
}

/// Restores the scope at the end of a handler, even after a panic.
struct Leave(Option<hub::Scope>);

impl Drop for Leave {
    fn drop(&mut self) {
        SCOPE.set(self.0.take());
    }
}

fn scope() -> hub::Scope {
    let scope = SCOPE.with_borrow(Clone::clone);
    scope.expect("connections, topics and rooms are there inside of handlers: drive the app by `tidegate::testing::serve`")
}

/// Performs an effect of the handler, as an import of a component does.
fn perform(effect: Effect) -> Result<EffectOutcome, EffectError> {
    scope().perform(effect)
}

/// A connection of the hub.
pub(crate) struct Handle(pub(crate) Arc<hub::Conn>);

impl Handle {
    pub(crate) fn again(&self) -> Handle {
        Handle(self.0.clone())
    }

    pub(crate) fn id(&self) -> String {
        self.0.id().to_string()
    }

    pub(crate) fn protocol(&self) -> Option<String> {
        self.0.protocol().map(str::to_owned)
    }

    pub(crate) fn send(&self, message: Message) -> Result<(), EffectError> {
        perform(Effect::Send(self.0.clone(), outward(message))).map(drop)
    }

    pub(crate) fn ping(&self, payload: &[u8]) -> Result<(), EffectError> {
        perform(Effect::Ping(self.0.clone(), payload.to_vec().into())).map(drop)
    }

    pub(crate) fn buffered_amount(&self) -> u64 {
        scope().queued(&self.0) as u64
    }

    pub(crate) fn close(&self, code: u16, reason: &str) -> Result<(), EffectError> {
        let close = hub::Close::new(code, reason);
        perform(Effect::Close(self.0.clone(), close)).map(drop)
    }

    pub(crate) fn attachment(&self) -> Vec<u8> {
        scope().attachment(&self.0).to_vec()
    }

    pub(crate) fn set_attachment(&self, bytes: &[u8]) -> Result<(), EffectError> {
        perform(Effect::SetAttachment(self.0.clone(), bytes.to_vec().into())).map(drop)
    }

    pub(crate) fn follow(
        &self,
        topic: &str,
        since: Option<Position>,
    ) -> Result<StartPoint, EffectError> {
        let since = since.map(position);
        perform(Effect::Follow(self.0.clone(), topic.to_owned(), since))
            .map(|outcome| start_point(outcome.start()))
    }

    pub(crate) fn resume(&self, since: Position) -> Result<StartPoint, LimitError> {
        room::resume(&self.0, since)
    }

    pub(crate) fn unfollow(&self, topic: &str) {
        perform(Effect::Unfollow(self.0.clone(), topic.to_owned()))
            .expect("one event does more than the host lets it");
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        scope().tags(&self.0)
    }

    pub(crate) fn set_tags(&self, tags: &[String]) -> Result<(), EffectError> {
        perform(Effect::SetTags(self.0.clone(), tags.to_vec())).map(drop)
    }
}

pub(crate) fn find(id: &str) -> Option<Handle> {
    let id = id.parse().ok()?;
    scope().find(id).map(Handle)
}

pub(crate) fn ids(tag: Option<&str>, after: Option<&str>, limit: u32) -> Vec<String> {
    let after = after.and_then(|id| id.parse().ok());
    let ids = scope().ids(tag, after, limit as usize);
    ids.iter().map(ToString::to_string).collect()
}

pub(crate) fn set_auto_response(pair: Option<(&str, &str)>) -> Result<(), LimitError> {
    let response = pair
        .map(|(request, response)| hub::AutoResponse::new(request, response))
        .transpose()?;
    Ok(perform(Effect::SetAutoResponse(response)).map(drop)?)
}

pub(crate) fn publish(topic: &str, publication: Publication) -> Result<u64, LimitError> {
    let effect = Effect::Publish(topic.to_owned(), published(publication)?);
    Ok(perform(effect)?.sequence())
}

fn published(publication: Publication) -> Result<hub::Publication, LimitError> {
    let Publication {
        message,
        event,
        except,
        transient,
    } = publication;
    let except = except.map(|id| id.parse()).transpose()?;
    Ok(hub::Publication {
        event,
        except,
        transient,
        ..hub::Publication::new(outward(message))
    })
}

// These are functions, because `From` would show the host's types in the documentation.

pub(crate) fn outward(message: Message) -> hub::Message {
    match message {
        Message::Text(text) => hub::Message::text(text),
        Message::Binary(bytes) => hub::Message::binary(bytes),
    }
}

pub(crate) fn inward(message: &hub::Message) -> Message {
    match message {
        hub::Message::Text(text) => Message::Text(text.to_string()),
        hub::Message::Binary(bytes) => Message::Binary(bytes.to_vec()),
    }
}

fn position(position: Position) -> hub::Position {
    hub::Position {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

fn start_point(start: hub::StartPoint) -> StartPoint {
    let hub::Position { epoch, sequence } = start.position;
    StartPoint {
        position: Position { epoch, sequence },
        has_gap: start.has_gap,
    }
}

// Hidden, because the documentation of the SDK does not show the host's types.

#[doc(hidden)]
impl From<EffectError> for SendError {
    fn from(error: EffectError) -> SendError {
        match error {
            EffectError::Closed | EffectError::NotValid => SendError::Closed,
            EffectError::Full | EffectError::TooMany => SendError::Full,
            EffectError::TooLarge => SendError::TooLarge,
        }
    }
}

#[doc(hidden)]
impl From<EffectError> for LimitError {
    fn from(error: EffectError) -> LimitError {
        match error {
            EffectError::TooLarge => LimitError::TooLarge,
            EffectError::TooMany | EffectError::Full => LimitError::TooMany,
            EffectError::NotValid | EffectError::Closed => LimitError::Invalid,
        }
    }
}

#[doc(hidden)]
impl From<hub::LimitError> for LimitError {
    fn from(error: hub::LimitError) -> LimitError {
        EffectError::from(error).into()
    }
}

/// A future that is ready at this time.
pub(crate) struct Wait(Rc<Duration>);

impl Wait {
    pub(crate) fn timer(duration: Duration) -> Wait {
        Wait(Rc::new(NOW.get().saturating_add(duration)))
    }

    fn forget(&self) {
        TIMERS.with_borrow_mut(|timers| timers.retain(|(timer, _)| !Rc::ptr_eq(timer, &self.0)));
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if NOW.get() >= *self.0 {
            return Poll::Ready(());
        }
        TIMERS.with_borrow_mut(|timers| timers.push((self.0.clone(), cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Moves the clock to the next timer.
pub(crate) fn wait() {
    let next =
        TIMERS.with_borrow(|timers| timers.iter().min_by_key(|(due, _)| due.clone()).cloned());
    let (due, waker) = next.expect("a handler awaits something that nothing brings");
    NOW.set(*due);
    waker.wake();
}

/// Returns the time until the next timer, if any future waits.
pub(crate) fn idle() -> Option<Duration> {
    let next = TIMERS.with_borrow(|timers| timers.iter().map(|(due, _)| **due).min());
    Some(next?.saturating_sub(NOW.get()))
}

/// Moves the clock forward.
pub(crate) fn pass(duration: Duration) {
    NOW.set(NOW.get() + duration);
}

/// Body of a request, whose pieces are available already.
pub(crate) struct Incoming(pub(crate) hub::BodyStream);

impl Incoming {
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match poll_fn(|cx| self.0.as_mut().poll_frame(cx)).await {
            Some(Ok(hub::Frame::Data(bytes))) => Ok(Some(bytes.to_vec())),
            Some(Ok(hub::Frame::Trailers(_))) | None => Ok(None),
            Some(Err(_)) => Err(Gone.into()),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// Output of an answer into a recording.
#[derive(Clone)]
pub(crate) struct Outgoing(Rc<RefCell<Recording>>);

/// A body whose pieces are all known; for an answer, those that the client has received. Without an
/// end, an error follows them.
#[derive(Default)]
pub(crate) struct Recording {
    pub(crate) head: Option<Response>,
    pieces: VecDeque<Bytes>,
    is_finished: bool,
    /// Number of pieces after which the client leaves.
    pieces_max: usize,
}

impl Recording {
    /// Returns a body of these pieces.
    pub(crate) fn whole<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Recording {
        Recording {
            pieces: pieces.map(Bytes::copy_from_slice).collect(),
            is_finished: true,
            ..Recording::default()
        }
    }
}

impl hub::app::Stream for Recording {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hub::Frame, hub::BodyError>>> {
        Poll::Ready(match self.pieces.pop_front() {
            Some(bytes) => Some(Ok(hub::Frame::Data(bytes))),
            None if self.is_finished => None,
            None => Some(Err(hub::BodyError("it has no end".to_owned()))),
        })
    }
}

impl Outgoing {
    pub(crate) fn new(pieces_max: usize) -> Outgoing {
        Outgoing(Rc::new(RefCell::new(Recording {
            pieces_max,
            ..Recording::default()
        })))
    }

    pub(crate) fn recorded(self) -> Recording {
        mem::take(&mut self.0.borrow_mut())
    }

    pub(crate) fn is_started(&self) -> bool {
        self.0.borrow().head.is_some()
    }

    pub(crate) fn start(&self, head: &Response) -> Result {
        if self.is_started() {
            return Err(Error::fault("the answer has begun already"));
        }
        if !STATUSES.contains(&head.status) {
            return Err(Error::fault(format!(
                "{} is no status of an answer",
                head.status
            )));
        }
        self.0.borrow_mut().head = Some(head.clone());
        Ok(())
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result {
        let mut recording = self.0.borrow_mut();
        if recording.is_finished || recording.pieces.len() >= recording.pieces_max {
            return Err(Gone.into());
        }
        if !bytes.is_empty() {
            recording.pieces.push_back(Bytes::copy_from_slice(bytes));
        }
        Ok(())
    }

    pub(crate) fn finish(&self) {
        self.0.borrow_mut().is_finished = true;
    }
}
