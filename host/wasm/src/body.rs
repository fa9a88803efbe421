//! Bodies between the hub's words and those of `wasi:http`.
//!
//! An answer's body is whole only if the guest itself ended it: 0.2 by `outgoing-body.finish`, 0.3 by closing the stream and resolving
//! the trailers. `wasi:http` alone can't say so afterwards, because a body whose instance is gone ends like one that was finished. So
//! when a guest's call has ended, its instance is kept until the body has been looked at once more ([`drain`]). No bytes can come after
//! that, and a body without an end has broken off.

use crate::{
    host_body,
    instances::InstanceAccount,
    pool::{Pool, PooledInstance},
};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as _, SizeHint};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
};
use tidegate_hub::{
    BodyError, BodyStream, Fault, FaultContext, Frame, Hub, Request, RequestId, app::Stream,
};
use tokio::{runtime::Handle, time::timeout};
use wasmtime_wasi_http::{Error, WasiBody};

/// A client's body for a guest.
pub(crate) struct IncomingBody {
    body: BodyStream,
    cut_off: CutOff,
}

/// Whether a client's body broke off: a guest that passes that on in its answer has done nothing wrong.
#[derive(Clone, Default)]
pub(crate) struct CutOff(Arc<AtomicBool>);

impl IncomingBody {
    pub(crate) fn new(body: BodyStream) -> IncomingBody {
        IncomingBody {
            body,
            cut_off: CutOff::default(),
        }
    }

    pub(crate) fn cut_off(&self) -> CutOff {
        self.cut_off.clone()
    }
}

impl http_body::Body for IncomingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        host_body::note_poll();
        self.body.as_mut().poll_frame(cx).map(|next| {
            next.map(|frame| match frame {
                Ok(Frame::Data(bytes)) => Ok(http_body::Frame::data(bytes)),
                Ok(Frame::Trailers(trailers)) => Ok(http_body::Frame::trailers(trailers)),
                Err(_) => {
                    self.cut_off.0.store(true, Relaxed);
                    Err(Error::ConnectionTerminated)
                }
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .length()
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// How a guest's call ended.
pub(crate) struct CallEnd {
    pub(crate) outcome: Result<(), Fault>,
    /// The instance of the call, and whether it may serve another request. None if there was none.
    pub(crate) instance: Option<(PooledInstance, bool)>,
}

impl CallEnd {
    /// There was no instance for the call.
    pub(crate) fn without_instance(fault: Fault) -> CallEnd {
        CallEnd {
            outcome: Err(fault),
            instance: None,
        }
    }
}

/// Work of a guest, until its call ends.
pub(crate) type RemainingWork = Pin<Box<dyn Future<Output = CallEnd> + Send>>;

/// The request that an answer belongs to.
pub(crate) struct AnswerContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) account: Arc<InstanceAccount>,
    /// For the log.
    pub(crate) id: RequestId,
    /// Path and query.
    pub(crate) target: String,
    /// Pattern of its route.
    pub(crate) route: Option<String>,
    pub(crate) is_head: bool,
    pub(crate) cut_off: CutOff,
}

impl AnswerContext {
    pub(crate) fn new(
        pool: &Pool,
        hub: &Arc<Hub>,
        request: &Request,
        cut_off: CutOff,
    ) -> AnswerContext {
        let route = pool.pattern(request.route).map(str::to_owned);
        let (hub, account) = (hub.clone(), pool.account().clone());
        AnswerContext {
            hub,
            account,
            id: request.id,
            target: request.path.clone(),
            route,
            is_head: request.method == Method::HEAD,
            cut_off,
        }
    }

    /// Reports a fault after the head of the answer.
    fn report(&self, event: &str, fault: &Fault) {
        let context = FaultContext {
            id: Some(self.id),
            request: Some(&self.target),
            route: self.route.as_deref(),
            event,
            ..FaultContext::default()
        };
        fault.report(self.hub.counters(), context);
    }
}

/// An answer's body while its client reads it. The guest's work runs in the task that reads. If it has not ended when the body ends or
/// is dropped, it goes on in a task of its own for at most `after_answer_max`.
pub(crate) struct Reader(Option<Box<OutgoingBody>>);

impl Reader {
    pub(crate) fn new(outgoing: OutgoingBody) -> Reader {
        Reader(Some(Box::new(outgoing)))
    }
}

impl Stream for Reader {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(outgoing) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let next = ready!(outgoing.poll_next(cx));
        // The client does not wait for later work of the guest.
        if next.is_none() {
            self.0.take().into_iter().for_each(OutgoingBody::detach);
        }
        Poll::Ready(next)
    }

    fn length(&self) -> Option<u64> {
        self.0.as_ref()?.promised
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(OutgoingBody::detach);
    }
}

/// A guest's body for a client, and the guest that writes it.
pub(crate) struct OutgoingBody {
    /// None once it has ended or broken off.
    body: Option<WasiBody>,
    /// Frames that were left in the body when the guest's call ended.
    frames: VecDeque<Frame>,
    /// Why the body breaks off after `frames`.
    failure: Option<BreakOffCause>,
    /// None once the guest's call has ended.
    rest: Option<RemainingWork>,
    /// Length of the body in bytes, as the answer's head has it or will have it.
    promised: Option<u64>,
    /// Bytes that were read.
    sent: u64,
    /// Whether the client left before it had the whole answer.
    has_left: bool,
    /// False if the answer has no content by its status or the request's method: then nothing of the body is sent, and it may break off.
    has_content: bool,
    origin: AnswerContext,
}

/// Why a body broke off.
enum BreakOffCause {
    Fault(Fault),
    /// It is not the guest's fault: the body of the request did, and the guest passed that on; or no content was to be sent.
    Excused,
}

impl OutgoingBody {
    /// `promised`: the length that the head of the answer has; `status`: its status.
    pub(crate) fn new(
        body: WasiBody,
        status: StatusCode,
        promised: Option<u64>,
        origin: AnswerContext,
    ) -> OutgoingBody {
        // RFC 9110 sections 6.4.1 and 15.3.6. The length is then that of another answer.
        let is_bodiless = matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
        let has_content = !origin.is_head && !is_bodiless;
        let promised = promised.or_else(|| body.size_hint().exact());
        OutgoingBody {
            body: Some(body),
            frames: VecDeque::new(),
            failure: None,
            rest: None,
            promised: promised.filter(|_| has_content),
            sent: 0,
            has_left: false,
            has_content,
            origin,
        }
    }

    /// The guest's call goes on.
    pub(crate) fn with_rest(mut self, rest: RemainingWork) -> OutgoingBody {
        self.rest = Some(rest);
        self
    }

    /// The guest's call has ended: takes what is left in the body, and finds out whether the body has an end.
    pub(crate) fn settle(mut self, CallEnd { outcome, instance }: CallEnd) -> OutgoingBody {
        self.end_rest(outcome, instance);
        self
    }

    fn end_rest(&mut self, outcome: Result<(), Fault>, instance: Option<(PooledInstance, bool)>) {
        let has_failed = outcome.is_err();
        let left = self
            .body
            .as_mut()
            .map_or(Remainder::End, |body| drain(body, &mut self.frames));
        // Without content, the client has the whole answer whatever is left of the body.
        let is_whole = matches!(left, Remainder::End) || !self.has_content;
        match (left, outcome) {
            (Remainder::Fed, Ok(())) => {}
            (Remainder::End, Ok(())) => self.body = None,
            (_, Err(fault)) if is_whole => {
                self.body = None;
                let event = if self.has_left {
                    "the app failed after its client had left"
                } else {
                    "the app failed after its answer"
                };
                self.origin.report(event, &fault);
            }
            (Remainder::Nothing, Ok(())) => self.fail(None),
            (Remainder::Error(error), Ok(())) => self.fail(Some(&error)),
            (_, Err(fault)) => {
                (self.body, self.failure) = (None, Some(BreakOffCause::Fault(fault)));
            }
        }
        // An instance that keeps something of this request would have it in the next one.
        if let Some((mut taken, true)) = instance
            && !has_failed
            && self.failure.is_none()
            && !taken.instance.store.data_mut().keeps_exchange()
        {
            taken.give_back();
        }
    }

    /// The guest broke its body off with this error, or never ended it.
    fn fail(&mut self, error: Option<&Error>) {
        self.body = None;
        if self.origin.cut_off.0.load(Relaxed) || !self.has_content {
            self.failure = Some(BreakOffCause::Excused);
            return;
        }
        let sent = self.sent + self.frames.iter().map(length).sum::<u64>();
        let what = match (error, self.promised) {
            (Some(Error::HttpResponseBodySize(Some(bytes))), Some(promised)) => {
                wrong_length(promised, *bytes)
            }
            (
                Some(Error::HttpResponseBodySize(_) | Error::HttpProtocolError) | None,
                Some(promised),
            ) if sent != promised => wrong_length(promised, sent),
            (Some(Error::HttpProtocolError), _) => {
                "it dropped its body without finishing it".into()
            }
            (Some(error), _) => format!("its body ended with the error {error:?}"),
            (None, _) => "it returned without finishing its body".into(),
        };
        self.failure = Some(BreakOffCause::Fault(Fault::Answer(what)));
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(rest) = &mut self.rest
            && let Poll::Ready(CallEnd { outcome, instance }) = rest.as_mut().poll(cx)
        {
            self.rest = None;
            self.end_rest(outcome, instance);
        }
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(self.pass(frame)));
        }
        if let Some(body) = &mut self.body {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(next)) => return Poll::Ready(Some(self.pass(frame(next)))),
                Some(Err(error)) => self.fail(Some(&error)),
                None => self.body = None,
            }
        }
        match (self.failure.take(), self.promised) {
            (Some(failure), _) => Poll::Ready(Some(Err(self.break_off(failure)))),
            (None, Some(promised)) if promised != self.sent => {
                Poll::Ready(Some(Err(self.break_off_at_wrong_length(promised))))
            }
            (None, _) => Poll::Ready(None),
        }
    }

    /// Passes a piece on, unless the body is now longer than the head says: a client would take the rest for the next answer.
    fn pass(&mut self, frame: Frame) -> Result<Frame, BodyError> {
        self.sent += length(&frame);
        match self.promised {
            Some(promised) if self.sent > promised => Err(self.break_off_at_wrong_length(promised)),
            _ => Ok(frame),
        }
    }

    fn break_off_at_wrong_length(&mut self, promised: u64) -> BodyError {
        self.break_off(BreakOffCause::Fault(Fault::Answer(wrong_length(
            promised, self.sent,
        ))))
    }

    fn break_off(&mut self, failure: BreakOffCause) -> BodyError {
        self.give_up();
        match failure {
            BreakOffCause::Fault(fault) => {
                self.origin.report("a streamed answer broke off", &fault);
                BodyError(fault.to_string())
            }
            BreakOffCause::Excused => BodyError("the body of the request broke off".into()),
        }
    }

    /// The client gets no more: the guest's writes fail from now on.
    fn give_up(&mut self) {
        (self.body, self.failure, self.promised, self.has_left) = (None, None, None, true);
        self.frames.clear();
    }

    /// The client reads no more. If it has the whole answer, what the guest still does is its own work, and has its time as far as
    /// instances are left for others ([`InstanceAccount::wanted`]). If it left before, nothing waits for the guest, which ends as soon as a call
    /// waits for an instance.
    fn detach(mut self: Box<Self>) {
        let has_ended = self.body.is_none() && self.frames.is_empty() && self.failure.is_none();
        if self.rest.is_some() {
            if self.has_content && !has_ended && self.promised != Some(self.sent) {
                self.give_up();
            }
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(self.go_on());
            }
        } else if self.body.is_none() {
            // A client sees neither that an answer of a certain length is longer, nor what it did not wait for. The log has it.
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(_)) = self.poll_next(&mut cx) {}
        }
    }

    /// Ends with the guest's call, or when its time is over. A body of a certain length is read on, to find out whether it is longer.
    async fn go_on(mut self: Box<Self>) {
        let (within, account) = (
            self.origin.hub.limits().after_answer_max,
            self.origin.account.clone(),
        );
        let has_left = self.has_left || !self.has_content;
        let mut wanted = pin!(account.wanted(!has_left));
        let ended = poll_fn(|cx| {
            while let Poll::Ready(Some(_)) = self.poll_next(cx) {}
            if self.rest.is_none() {
                Poll::Ready(true)
            } else {
                wanted.as_mut().poll(cx).map(|()| false)
            }
        });
        match timeout(within, ended).await {
            _ if has_left => {}
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                "work after an answer was ended, because a request waited for its instance"
            ),
            Err(_) => tracing::warn!(
                "an instance was ended: its work after an answer took longer than {within:?}"
            ),
        }
    }
}

/// The rest of the body of a guest whose call has ended.
enum Remainder {
    /// The last pieces, and an end.
    End,
    /// The last pieces, and no end.
    Nothing,
    Error(Error),
    /// The host feeds the body: the guest passed on one that it was given, which goes on without it.
    Fed,
}

/// Takes what is left. The guest does nothing meanwhile, so that is as much as the buffers between it and the body hold.
fn drain(body: &mut WasiBody, frames: &mut VecDeque<Frame>) -> Remainder {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let (next, is_fed) = host_body::watch(|| Pin::new(&mut *body).poll_frame(&mut cx));
        match next {
            Poll::Ready(None) => return Remainder::End,
            Poll::Ready(Some(Err(error))) => return Remainder::Error(error),
            Poll::Ready(Some(Ok(next))) => frames.push_back(frame(next)),
            Poll::Pending if !is_fed => return Remainder::Nothing,
            Poll::Pending => {}
        }
        if is_fed {
            return Remainder::Fed;
        }
    }
}

fn frame(frame: http_body::Frame<Bytes>) -> Frame {
    match frame.into_data() {
        Ok(bytes) => Frame::Data(bytes),
        Err(frame) => Frame::Trailers(frame.into_trailers().unwrap_or_default()),
    }
}

fn length(frame: &Frame) -> u64 {
    match frame {
        Frame::Data(bytes) => bytes.len() as u64,
        Frame::Trailers(_) => 0,
    }
}

fn wrong_length(promised: u64, sent: u64) -> String {
    let (what, more) = if sent > promised {
        ("has", " or more")
    } else {
        ("ended after", "")
    };
    format!("its Content-Length is {promised}, but its body {what} {sent} bytes{more}")
}
