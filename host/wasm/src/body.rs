//! Bodies between the hub's words and those of `wasi:http`.

use crate::instances::Account;
use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tidegate_hub::{Body, BodyError, Fault, Frame, Hub, app::Stream};
use tokio::{runtime::Handle, time::timeout};
use wasmtime_wasi_http::{Error, WasiBody};

/// A client's body for a guest.
pub(crate) struct Incoming {
    body: Body,
    cut_off: CutOff,
}

/// Whether a client's body broke off: a guest that passes that on in its answer has done nothing wrong.
#[derive(Clone, Default)]
pub(crate) struct CutOff(Arc<AtomicBool>);

impl Incoming {
    pub(crate) fn new(body: Body) -> Incoming {
        Incoming { body, cut_off: CutOff::default() }
    }

    pub(crate) fn cut_off(&self) -> CutOff {
        self.cut_off.clone()
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
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
        self.body.length().map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Work of a guest after the head of its answer.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// A guest's body for a client. `rest` runs in the task that reads the body; if it fails, the body ends with an error. If `rest` has not
/// finished when the body ends or is dropped, it goes on in a task of its own for at most `after_answer_max`.
pub(crate) fn outgoing(body: WasiBody, hub: Arc<Hub>, account: Arc<Account>, rest: Option<Rest>, cut_off: CutOff) -> Body {
    let unread = body.size_hint().exact();
    Box::pin(Outgoing { body, hub, account, rest, fault: None, unread, cut_off })
}

struct Outgoing {
    body: WasiBody,
    hub: Arc<Hub>,
    account: Arc<Account>,
    rest: Option<Rest>,
    /// How `rest` failed.
    fault: Option<Fault>,
    /// Bytes that its client has not read, if its length is known: an answer of which none is left has ended well.
    unread: Option<u64>,
    /// The request's `CutOff`.
    cut_off: CutOff,
}

/// The guest failed behind the head of its answer: there is nobody to give an id to.
fn tell(hub: &Hub, fault: &str) {
    hub.counters().faults.add(1);
    tracing::error!("a streamed answer broke off: {fault}");
}

impl Outgoing {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            let outcome = ready!(rest.as_mut().poll(cx));
            self.rest = None;
            self.fault = outcome.err();
        }
        Poll::Ready(())
    }

    fn broken(&mut self, told: String) -> Poll<Option<Result<Frame, BodyError>>> {
        tell(&self.hub, &told);
        Poll::Ready(Some(Err(BodyError(told))))
    }
}

impl Outgoing {
    /// Lets the rest go on without a reader. If the answer has `ended`, the rest is the guest's own work, and has its time. If its
    /// client left before, nothing waits for the rest, so it ends as soon as a call waits for an instance.
    fn detach(&mut self, ended: bool) {
        let (Some(rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) else { return };
        let (hub, account) = (self.hub.clone(), self.account.clone());
        runtime.spawn(async move {
            let within = hub.limits().after_answer_max;
            let wanted = async {
                match ended {
                    false => account.wanted().await,
                    true => pending().await,
                }
            };
            let mut wanted = pin!(wanted);
            let mut rest = pin!(timeout(within, rest));
            let outcome = poll_fn(|cx| match rest.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => wanted.as_mut().poll(cx).map(|()| None),
            });
            match outcome.await {
                Some(Ok(Err(fault))) => tell(&hub, &fault.to_string()),
                Some(Err(_)) if ended => tracing::warn!("an instance was ended: its work after an answer took longer than {within:?}"),
                Some(Ok(Ok(())) | Err(_)) | None => {}
            }
        });
    }
}

/// If its client is gone, what the guest writes from now on fails, and so it soon ends, or is ended.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(fault) = self.fault.take() {
            tell(&self.hub, &fault.to_string());
        }
        self.detach(self.unread == Some(0));
    }
}

impl Stream for Outgoing {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let outgoing = &mut *self;
        _ = outgoing.poll_rest(cx);
        match ready!(Pin::new(&mut outgoing.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(bytes) => {
                    outgoing.unread = outgoing.unread.map(|unread| unread.saturating_sub(bytes.len() as u64));
                    Frame::Data(bytes)
                }
                Err(frame) => Frame::Trailers(frame.into_trailers().unwrap_or_default()),
            }))),
            // The guest's own end says why, now or when this is dropped; where there is none, the body's error has to do.
            Some(Err(error)) => match outgoing.fault.take() {
                Some(fault) => outgoing.broken(fault.to_string()),
                None if outgoing.rest.is_some() || outgoing.cut_off.0.load(Relaxed) => {
                    Poll::Ready(Some(Err(BodyError(format!("{error:?}")))))
                }
                None => outgoing.broken(format!("the guest's body: {error:?}")),
            },
            // A trap right after the last byte is still a broken answer. The client does not wait for later work of the guest.
            None => match outgoing.fault.take() {
                Some(fault) => outgoing.broken(fault.to_string()),
                None => {
                    outgoing.detach(true);
                    Poll::Ready(None)
                }
            },
        }
    }

    fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}
