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
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
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

/// A guest's body for a client. `call`: what the guest is still doing; if that fails, the body has no good end.
pub(crate) fn outgoing(body: WasiBody, hub: Arc<Hub>, call: Option<JoinHandle<Result<(), Fault>>>) -> Body {
    Box::pin(Outgoing { body, hub, call })
}

struct Outgoing {
    body: WasiBody,
    hub: Arc<Hub>,
    call: Option<JoinHandle<Result<(), Fault>>>,
}

/// The guest failed behind the head of its answer: there is nobody to give an id to.
fn tell(hub: &Hub, fault: &str) {
    hub.counters().faults.add(1);
    tracing::error!("a streamed answer broke off: {fault}");
}

impl Outgoing {
    /// The guest's end, when its body has ended: a trap behind the last byte is still a broken answer.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(call).poll(cx));
        self.call = None;
        match outcome {
            Ok(Ok(())) => Poll::Ready(None),
            Ok(Err(fault)) => {
                tell(&self.hub, &fault.to_string());
                Poll::Ready(Some(Err(BodyError(fault.to_string()))))
            }
            Err(error) => Poll::Ready(Some(Err(BodyError(error.to_string())))),
        }
    }

    /// The guest's own end, which is awaited when this is dropped, says why; where there is none, the body's error has to do.
    fn broken(&self, error: &Error) -> BodyError {
        let told = format!("the guest's body: {error:?}");
        if self.call.is_none() {
            tell(&self.hub, &told);
        }
        BodyError(told)
    }
}

/// The client is gone: what the guest writes from now on fails, and so it soon ends, or is ended.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let (Some(mut call), Ok(runtime)) = (self.call.take(), Handle::try_current()) {
            let hub = self.hub.clone();
            runtime.spawn(async move {
                match timeout(ENDS_WITHIN, &mut call).await {
                    Ok(Ok(Err(fault))) => tell(&hub, &fault.to_string()),
                    Ok(_) => {}
                    Err(_) => call.abort(),
                }
            });
        }
    }
}

impl Stream for Outgoing {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(bytes) => Frame::Data(bytes),
                Err(frame) => Frame::Trailers(frame.into_trailers().unwrap_or_default()),
            }))),
            Some(Err(error)) => Poll::Ready(Some(Err(self.broken(&error)))),
            None => self.poll_end(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}
