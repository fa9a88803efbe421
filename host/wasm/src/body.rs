//! Bodies between the hub's words and those of `wasi:http`.

use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_hub::{Body, BodyError, Fault, Frame, app::Stream};
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
pub(crate) fn outgoing(body: WasiBody, call: Option<JoinHandle<Result<(), Fault>>>) -> Body {
    Box::pin(Outgoing { body, call })
}

struct Outgoing {
    body: WasiBody,
    call: Option<JoinHandle<Result<(), Fault>>>,
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
                tracing::error!("a streamed answer broke off: {fault}");
                Poll::Ready(Some(Err(BodyError(fault.to_string()))))
            }
            Err(error) => Poll::Ready(Some(Err(BodyError(error.to_string())))),
        }
    }
}

/// The client is gone: what the guest writes from now on fails, and so it soon ends, or is ended.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let (Some(mut call), Ok(runtime)) = (self.call.take(), Handle::try_current()) {
            runtime.spawn(async move {
                if timeout(ENDS_WITHIN, &mut call).await.is_err() {
                    call.abort();
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
            Some(Err(error)) => Poll::Ready(Some(Err(BodyError(format!("the guest's body: {error:?}"))))),
            None => self.poll_end(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}
