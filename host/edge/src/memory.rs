//! Memory that one HTTP connection holds: the head and body of its request, and the answer until it is sent.
//!
//! A connection reserves what each of them takes when it is opened ([`admit`]), and more when its
//! reads are larger: the buffer that they make grow stays as long as the conversation. Other small
//! amounts are not counted. Large ones are reserved before they are held, and refused if there is
//! not enough memory. An account that grew large may be evicted; its connection then ends.

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};
use tidegate_hub::{
    self as hub, BodyError, Budget, Frame,
    app::Stream,
    budget::{Account, Charge, Kind, OutOfMemory, Share},
};

/// Beyond this something is counted at all; at least what is free for its kind.
const LARGE: usize = 16 << 10;
/// Bytes of a connection whose reads are small, for its state and buffers: 5 KiB before anything was
/// read, 13 KiB after an answer and 18 KiB in the middle of a head of 8 KiB, as measured.
const SOCKET_BYTES: usize = 20 << 10;
/// Reads up to this many bytes fit into the buffers that [`SOCKET_BYTES`] are for.
const READ_BYTES: usize = 8 << 10;
/// Bytes that a streamed answer holds besides its pieces: the buffers on both of its sides, and the guest that waits.
const STREAM_BYTES: usize = 128 << 10;

/// Reserves what an HTTP connection takes, as long as it is one: a WebSocket, or an answer that is
/// held, has given its buffers back.
pub(crate) fn admit(charge: &mut Charge, budget: &Arc<Budget>) -> Result<(), OutOfMemory> {
    charge.admit(budget, SOCKET_BYTES)
}

/// The account of one connection.
pub(crate) struct Memory {
    account: Arc<Account>,
    /// Bytes that were read since the last request was answered, until the head of the next one is whole.
    head_bytes: AtomicUsize,
    /// Size of the largest head or read for which the buffers' bytes are reserved.
    counted: AtomicUsize,
    buffers: Mutex<Share>,
    /// True if there was no memory for a head.
    is_refused: AtomicBool,
    /// True while a request is being handled: bytes read now belong to its body.
    is_handling: AtomicBool,
}

impl Memory {
    pub(crate) fn new(budget: &Arc<Budget>) -> Arc<Memory> {
        let account = Account::new(budget);
        let buffers = Mutex::new(Share::new(&account, Kind::Request));
        Arc::new(Memory {
            account,
            head_bytes: AtomicUsize::new(0),
            counted: AtomicUsize::new(READ_BYTES),
            buffers,
            is_refused: AtomicBool::new(false),
            is_handling: AtomicBool::new(false),
        })
    }

    /// Whether work that would hold memory for long is refused for now.
    pub(crate) fn is_scarce(&self) -> bool {
        self.account.budget().is_scarce()
    }

    /// Whether the connection is to end, for want of memory; `waker` is woken when that changes.
    pub(crate) fn is_evicted(&self, waker: &Waker) -> bool {
        if !self.account.is_large() {
            return false;
        }
        self.account.watch(waker);
        self.account.is_evicted()
    }

    /// Number of times that connections without a request were to be closed.
    pub(crate) fn hurries(&self) -> u64 {
        self.account.budget().hurries()
    }

    /// Whether the connection ends because there was no memory for a request's head.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// So many bytes have been read from the socket.
    pub(crate) fn handle_read(&self, bytes: usize) -> Result<(), OutOfMemory> {
        let is_handling = self.is_handling.load(Relaxed);
        let held = if is_handling {
            bytes
        } else {
            let bytes = self.head_bytes.load(Relaxed) + bytes;
            self.head_bytes.store(bytes, Relaxed);
            bytes
        };
        if held <= self.counted.load(Relaxed) {
            Ok(())
        } else {
            self.grow(held, is_handling)
        }
    }

    /// The buffers have grown. They grow by doubling, and the old one is there until its bytes are
    /// copied.
    #[cold]
    fn grow(&self, held: usize, is_handling: bool) -> Result<(), OutOfMemory> {
        let mut buffers = self
            .buffers
            .lock()
            .expect("nothing panics while it holds a share");
        if is_handling {
            // Its body is refused elsewhere, with an answer.
            buffers.force(2 * held);
        } else if let Err(error) = buffers.fit(2 * held) {
            self.is_refused.store(true, Relaxed);
            return Err(error);
        }
        self.counted.store(held, Relaxed);
        Ok(())
    }

    /// The head of a request is whole.
    pub(crate) fn begin_request(&self) {
        self.is_handling.store(true, Relaxed);
        self.head_bytes.store(0, Relaxed);
    }

    /// Marks the request as handled: bytes read from now on belong to the next one.
    pub(crate) fn end_request(&self) {
        self.is_handling.store(false, Relaxed);
    }

    /// Reads the whole body. Its memory stays reserved until the last clone is dropped. Returns `None` if there is not enough memory.
    pub(crate) async fn collect<B>(&self, body: B) -> Result<Option<Bytes>, B::Error>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let mut share = Share::new(&self.account, Kind::Request);
        let mut body = std::pin::pin!(body);
        let (mut pieces, mut bytes) = (Vec::<Bytes>::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else {
                continue;
            };
            bytes += piece.len();
            // Only what has come: a client that announces much and sends nothing holds nothing.
            if share.fit(bytes).is_err() {
                return Ok(None);
            }
            pieces.push(piece);
        }
        let whole = match pieces.len() {
            0 | 1 => pieces.pop().unwrap_or_default(),
            _ if share.fit(2 * bytes).is_err() => return Ok(None),
            _ => pieces.concat().into(),
        };
        drop(pieces);
        // Less than before is never refused.
        _ = share.fit(bytes);
        Ok(Some(held(whole, share)))
    }

    /// A share for the part of a form that is read before its action starts.
    pub(crate) fn form(&self) -> Share {
        Share::new(&self.account, Kind::Request)
    }

    /// The bytes of an answer, held as long as they wait for the client.
    pub(crate) fn answer(&self, bytes: Bytes) -> Result<Bytes, OutOfMemory> {
        if bytes.len() <= LARGE {
            return Ok(bytes);
        }
        let mut share = Share::new(&self.account, Kind::Response);
        share.fit(bytes.len())?;
        Ok(held(bytes, share))
    }

    /// The body of an answer that streams: its pieces are held as long as they wait for the client.
    /// `id`: of the request, in the log.
    pub(crate) fn stream(
        &self,
        body: hub::Body,
        id: Option<&HeaderValue>,
    ) -> Result<hub::Body, OutOfMemory> {
        let mut share = Share::new(&self.account, Kind::Response);
        share.fit(STREAM_BYTES)?;
        Ok(Box::pin(Streaming {
            body,
            share,
            base: STREAM_BYTES,
            id: id.cloned().map(Box::new),
        }))
    }

    /// As [`stream`](Memory::stream), of an answer that mostly waits and has nothing meanwhile.
    pub(crate) fn hold(&self, body: hub::Body, id: Option<&HeaderValue>) -> hub::Body {
        Box::pin(Streaming {
            body,
            share: Share::new(&self.account, Kind::Response),
            base: 0,
            id: id.cloned().map(Box::new),
        })
    }
}

/// The bytes, and what is reserved for them.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn held(bytes: Bytes, share: Share) -> Bytes {
    if bytes.len() <= LARGE {
        bytes
    } else {
        Bytes::from_owner(Held {
            bytes,
            _share: share,
        })
    }
}

struct Streaming {
    body: hub::Body,
    share: Share,
    /// Reserved as long as it streams.
    base: usize,
    /// Of the request, in the log.
    id: Option<Box<HeaderValue>>,
}

impl Stream for Streaming {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let this = &mut *self;
        let next = std::task::ready!(this.body.as_mut().poll_frame(cx));
        // Asked for another piece: the last one is about to leave.
        if let Some(Ok(Frame::Data(bytes))) = &next
            && let Err(error) = this.share.fit(this.base + bytes.len())
        {
            let id = this.id.as_ref().and_then(|id| id.to_str().ok());
            tracing::error!(id, "a streamed answer broke off: {error}");
            return Poll::Ready(Some(Err(BodyError(error.to_string()))));
        }
        Poll::Ready(next)
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}
