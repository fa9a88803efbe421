//! Waiting: timers, and the streamed bodies of `wasi:http`.

use crate::{
    Error, Request, Response, Result,
    request::RequestHead,
    stream::{Body, Gone, Reply},
    task,
};
use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use wasip2::{
    clocks::monotonic_clock::subscribe_duration,
    http::types::{
        Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
        ResponseOutparam, Scheme,
    },
    io::{
        poll::{Pollable, poll},
        streams::{InputStream, OutputStream, StreamError},
    },
};

/// Maximum number of bytes in one read of a body.
const PIECE_BYTES_MAX: u64 = 64 << 10;

thread_local! {
    /// Pollables that futures of this instance wait for, with their wakers.
    static WAITING: RefCell<Vec<(Rc<Awaited>, Waker)>> = const { RefCell::new(Vec::new()) };
}

/// A pollable of the host.
struct Awaited {
    pollable: Pollable,
    /// Time at which a timer is ready; `None` if it is not a timer.
    until: Option<Instant>,
}

/// A future that is ready when the host reports it.
pub(crate) struct Wait(Rc<Awaited>);

impl Wait {
    fn new(pollable: Pollable) -> Wait {
        Wait(Rc::new(Awaited {
            pollable,
            until: None,
        }))
    }

    pub(crate) fn timer(duration: Duration) -> Wait {
        let pollable = subscribe_duration(duration.as_nanos().try_into().unwrap_or(u64::MAX));
        Wait(Rc::new(Awaited {
            pollable,
            until: Instant::now().checked_add(duration),
        }))
    }

    fn forget(&self) {
        WAITING.with_borrow_mut(|waiting| {
            waiting.retain(|(awaited, _)| !Rc::ptr_eq(awaited, &self.0))
        });
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.0.pollable.ready() {
            return Poll::Ready(());
        }
        WAITING.with_borrow_mut(|waiting| waiting.push((self.0.clone(), cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Blocks until one of the pollables is ready, and wakes its future.
pub(crate) fn wait() {
    let waiting = WAITING.with_borrow(|waiting| waiting.clone());
    assert!(
        !waiting.is_empty(),
        "a handler awaits something that nothing brings"
    );
    let pollables: Vec<&Pollable> = waiting
        .iter()
        .map(|(awaited, _)| &awaited.pollable)
        .collect();
    for index in poll(&pollables) {
        waiting[index as usize].1.wake_by_ref();
    }
}

/// Returns the time until the next timer, if the instance waits only for timers.
pub(crate) fn idle() -> Option<Duration> {
    WAITING.with_borrow(|waiting| {
        let timers: Option<Vec<Instant>> =
            waiting.iter().map(|(awaited, _)| awaited.until).collect();
        Some(
            timers?
                .into_iter()
                .min()?
                .saturating_duration_since(Instant::now()),
        )
    })
}

/// Body of a request, read piece by piece.
pub(crate) struct Incoming {
    // Declared before its body: the host requires that the child is dropped first.
    stream: InputStream,
    _body: IncomingBody,
}

impl Incoming {
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self.stream.read(PIECE_BYTES_MAX) {
                Ok(piece) if piece.is_empty() => Wait::new(self.stream.subscribe()).await,
                Ok(piece) => return Ok(Some(piece)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(_)) => return Err(Gone.into()),
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// Output of an answer. It breaks off if it is dropped before it is finished.
#[derive(Clone)]
pub(crate) struct Outgoing(Rc<RefCell<OutgoingState>>);

enum OutgoingState {
    Fresh(ResponseOutparam),
    Started {
        stream: OutputStream,
        body: OutgoingBody,
    },
    Done,
}

impl Outgoing {
    pub(crate) fn new(outparam: ResponseOutparam) -> Outgoing {
        Outgoing(Rc::new(RefCell::new(OutgoingState::Fresh(outparam))))
    }

    pub(crate) fn is_started(&self) -> bool {
        !matches!(*self.0.borrow(), OutgoingState::Fresh(_))
    }

    pub(crate) fn start(&self, head: &Response) -> Result {
        let response = self::head(head)?;
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, OutgoingState::Done) {
            OutgoingState::Fresh(outparam) => {
                let body = response
                    .body()
                    .expect("a new answer has a body to be written");
                let stream = body.write().expect("a new body has a stream to be written");
                ResponseOutparam::set(outparam, Ok(response));
                *state = OutgoingState::Started { stream, body };
                Ok(())
            }
            other => {
                *state = other;
                Err(Error::fault("the answer has begun already"))
            }
        }
    }

    pub(crate) async fn write(&self, mut bytes: &[u8]) -> Result {
        while !bytes.is_empty() {
            let wait = match self.write_some(&mut bytes)? {
                Some(wait) => wait,
                None => continue,
            };
            wait.await;
        }
        self.on_stream(OutputStream::flush)
    }

    /// Writes the bytes that the host accepts at once. If it accepts none, returns the future to
    /// wait for.
    fn write_some(&self, bytes: &mut &[u8]) -> Result<Option<Wait>> {
        self.on_stream(|stream| {
            let room = stream.check_write()?;
            if room == 0 {
                return Ok(Some(Wait::new(stream.subscribe())));
            }
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            stream.write(now)?;
            *bytes = later;
            Ok(None)
        })
    }

    fn on_stream<T>(&self, act: impl FnOnce(&OutputStream) -> Result<T, StreamError>) -> Result<T> {
        match &*self.0.borrow() {
            OutgoingState::Started { stream, .. } => act(stream).map_err(|_| Gone.into()),
            _ => Err(Gone.into()),
        }
    }

    pub(crate) fn finish(&self) {
        if let OutgoingState::Started { stream, body } = self.0.replace(OutgoingState::Done) {
            drop(stream);
            // A client that is gone by now misses nothing.
            _ = OutgoingBody::finish(body, None);
        }
    }
}

/// Converts the head of an answer for `wasi:http`. Headers that the host forbids are left out.
fn head(response: &Response) -> Result<OutgoingResponse> {
    let fields = Fields::new();
    for (name, value) in &response.headers {
        _ = fields.append(name, value);
    }
    let head = OutgoingResponse::new(fields);
    match head.set_status_code(response.status) {
        Ok(()) => Ok(head),
        Err(()) => Err(Error::fault(format!(
            "{} is no status of an answer",
            response.status
        ))),
    }
}

/// Sends a whole answer.
pub(super) fn answer(outgoing: Outgoing, response: Response) {
    if task::run(Reply::new(outgoing.clone()).send(response)).is_ok() {
        outgoing.finish();
    }
}

/// Reads a request of `wasi:http`, which has no route, parameters, context and peer.
pub(super) fn read(incoming: IncomingRequest) -> Request {
    let head = RequestHead {
        method: method(incoming.method()),
        scheme: scheme(incoming.scheme()),
        authority: incoming.authority().unwrap_or_default(),
        path: incoming.path_with_query().unwrap_or_else(|| "/".to_owned()),
        headers: incoming.headers().entries(),
        params: Vec::new(),
        peer: String::new(),
        route: 0,
        context: Vec::new(),
    };
    let body = incoming.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    Request {
        head,
        body: Body::of_pieces(Incoming {
            stream,
            _body: body,
        }),
    }
}

fn method(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

fn scheme(scheme: Option<Scheme>) -> String {
    match scheme {
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(name)) => name,
        Some(Scheme::Http) | None => "http".to_owned(),
    }
}
