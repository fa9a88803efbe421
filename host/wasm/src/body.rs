//! Bodies between the hub's words and those of `wasi:http`.

use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_hub::{Body, BodyError, Fault, Frame, Hub, app::Stream};
use tokio::{runtime::Handle, time::timeout};
use wasmtime_wasi_http::{Error, WasiBody};

/// A client's body for a guest.
pub(crate) struct Incoming(pub(crate) Body);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        self.0.as_mut().poll_frame(cx).map(|next| {
            next.map(|frame| match frame {
                Ok(Frame::Data(bytes)) => Ok(http_body::Frame::data(bytes)),
                Ok(Frame::Trailers(trailers)) => Ok(http_body::Frame::trailers(trailers)),
                Err(_) => Err(Error::ConnectionTerminated),
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.0.length().map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// How long a guest may go on when nobody reads its answer any more.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What a guest still does behind the head of its answer.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// A guest's body for a client. `rest` runs in the task that reads the body; if it fails, the body has no good end.
pub(crate) fn outgoing(body: WasiBody, hub: Arc<Hub>, rest: Option<Rest>) -> Body {
    Box::pin(Outgoing { body, hub, rest, fault: None })
}

struct Outgoing {
    body: WasiBody,
    hub: Arc<Hub>,
    rest: Option<Rest>,
    /// How `rest` failed.
    fault: Option<Fault>,
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

/// The client is gone: what the guest writes from now on fails, and so it soon ends, or is ended.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(fault) = self.fault.take() {
            tell(&self.hub, &fault.to_string());
        }
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) {
            let hub = self.hub.clone();
            runtime.spawn(async move {
                if let Ok(Err(fault)) = timeout(ENDS_WITHIN, rest).await {
                    tell(&hub, &fault.to_string());
                }
            });
        }
    }
}

impl Stream for Outgoing {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let outgoing = &mut *self;
        let rest = outgoing.poll_rest(cx);
        match ready!(Pin::new(&mut outgoing.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(bytes) => Frame::Data(bytes),
                Err(frame) => Frame::Trailers(frame.into_trailers().unwrap_or_default()),
            }))),
            // The guest's own end says why, now or when this is dropped; where there is none, the body's error has to do.
            Some(Err(error)) => match outgoing.fault.take() {
                Some(fault) => outgoing.broken(fault.to_string()),
                None if outgoing.rest.is_some() => Poll::Ready(Some(Err(BodyError(format!("{error:?}"))))),
                None => outgoing.broken(format!("the guest's body: {error:?}")),
            },
            // A trap behind the last byte is still a broken answer.
            None => {
                ready!(rest);
                match outgoing.fault.take() {
                    Some(fault) => outgoing.broken(fault.to_string()),
                    None => Poll::Ready(None),
                }
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}
