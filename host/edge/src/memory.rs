//! Memory that one HTTP connection holds: the head and body of its request, and the answer until it
//! is sent.
//!
//! A connection reserves a fixed amount when it is opened ([`admit`]), and more when its reads are
//! larger: a buffer that has grown stays until hyper gives the socket up. Other small amounts are
//! not counted. Large amounts are reserved before they are held, and refused if there is not enough
//! memory. An account that grew large may be evicted; its connection then ends.

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
    time::Duration,
};
use tidegate_hub::{
    self as hub, BodyError, Budget, Frame,
    app::Stream,
    budget::{Charge, MemoryAccount, MemoryKind, OutOfMemory, Share},
};
use tokio::time::{Instant, sleep};

/// Amounts up to this size are not counted. It is at least the free part of each kind.
const LARGE: usize = 16 << 10;
/// Bytes for the state and buffers of a connection with small reads: 5 KiB before the first read,
/// 13 KiB after an answer and 18 KiB in the middle of a head of 8 KiB, as measured.
const SOCKET_BYTES: usize = 20 << 10;
/// Size of the reads, in bytes, that the buffers in [`SOCKET_BYTES`] can take.
const READ_BYTES: usize = 8 << 10;
/// Number of bytes that a streamed answer holds besides its pieces: the buffers on both of its
/// sides, and the waiting guest.
const STREAM_BYTES: usize = 128 << 10;
/// Time for which a streamed answer waits for these bytes before it is refused (503), and the pause
/// between two tries.
const STREAM_WAIT: Duration = Duration::from_secs(2);
const STREAM_RETRY: Duration = Duration::from_millis(10);

/// Reserves the memory of an HTTP connection while it is one: a WebSocket or a held answer has
/// given its buffers back.
pub(crate) fn admit(charge: &mut Charge, budget: &Arc<Budget>) -> Result<(), OutOfMemory> {
    charge.admit(budget, SOCKET_BYTES)
}

/// The account of one connection.
pub(crate) struct ConnectionMemory {
    account: Arc<MemoryAccount>,
    /// Number of bytes read since the last answer, until the head of the next request is whole.
    head_bytes: AtomicUsize,
    /// Size of the largest head or read for which buffers are reserved.
    counted: AtomicUsize,
    buffers: Mutex<Share>,
    /// True if there was no memory for a head.
    is_refused: AtomicBool,
}

impl ConnectionMemory {
    pub(crate) fn new(budget: &Arc<Budget>) -> Arc<ConnectionMemory> {
        let account = MemoryAccount::new(budget);
        let buffers = Mutex::new(Share::new(&account, MemoryKind::Request));
        Arc::new(ConnectionMemory {
            account,
            head_bytes: AtomicUsize::new(0),
            counted: AtomicUsize::new(READ_BYTES),
            buffers,
            is_refused: AtomicBool::new(false),
        })
    }

    /// Returns true if work that would hold memory for long is refused now.
    pub(crate) fn is_scarce(&self) -> bool {
        self.account.budget().is_scarce()
    }

    /// Returns true if the connection has to end for lack of memory. A change wakes `waker`.
    pub(crate) fn is_evicted(&self, waker: &Waker) -> bool {
        if !self.account.is_large() {
            return false;
        }
        self.account.watch(waker);
        self.account.is_evicted()
    }

    /// Returns the number of times that connections without a request had to be closed.
    pub(crate) fn hurries(&self) -> u64 {
        self.account.budget().hurries()
    }

    /// Returns true if the connection ends because there was no memory for a request's head.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Counts bytes that were read from the socket: of a head, or, while a request is open
    /// (`is_open`), of its body, which may still arrive after the answer has begun.
    pub(crate) fn handle_read(&self, bytes: usize, is_open: bool) -> Result<(), OutOfMemory> {
        let held = if is_open {
            bytes
        } else {
            let bytes = self.head_bytes.load(Relaxed) + bytes;
            self.head_bytes.store(bytes, Relaxed);
            bytes
        };
        if held <= self.counted.load(Relaxed) {
            Ok(())
        } else {
            self.grow(held, is_open)
        }
    }

    /// Counts larger buffers. They grow by doubling, and the old one stays until its bytes are
    /// copied.
    #[cold]
    fn grow(&self, held: usize, is_open: bool) -> Result<(), OutOfMemory> {
        let mut buffers = self
            .buffers
            .lock()
            .expect("nothing panics while it holds a share");
        if is_open {
            // The body itself is refused elsewhere, with an answer. Its pieces are passed on without
            // a copy, so the buffer counts once.
            buffers.force(held);
        } else if let Err(error) = buffers.fit(2 * held) {
            self.is_refused.store(true, Relaxed);
            return Err(error);
        }
        self.counted.store(held, Relaxed);
        Ok(())
    }

    /// Notes that the head of a request is whole.
    pub(crate) fn begin_request(&self) {
        self.head_bytes.store(0, Relaxed);
    }

    /// Reads the whole body. Its memory stays reserved until the last clone is dropped. Returns
    /// `None` if there is not enough memory.
    pub(crate) async fn collect<B>(&self, body: B) -> Result<Option<Bytes>, B::Error>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let mut share = Share::new(&self.account, MemoryKind::Request);
        let mut body = std::pin::pin!(body);
        let (mut pieces, mut bytes) = (Vec::<Bytes>::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else {
                continue;
            };
            bytes += piece.len();
            // Only received bytes count: a client that announces much and sends nothing holds
            // nothing.
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
        // A smaller amount than before is never refused.
        _ = share.fit(bytes);
        Ok(Some(held(whole, share)))
    }

    /// Returns a share for the part of a form that is read before its action starts.
    pub(crate) fn form(&self) -> Share {
        Share::new(&self.account, MemoryKind::Request)
    }

    /// Reserves the bytes of an answer while they wait for the client.
    pub(crate) fn answer(&self, bytes: Bytes) -> Result<Bytes, OutOfMemory> {
        if bytes.len() <= LARGE {
            return Ok(bytes);
        }
        let mut share = Share::new(&self.account, MemoryKind::Response);
        share.fit(bytes.len())?;
        Ok(held(bytes, share))
    }

    /// Reserves the memory that a streamed answer holds besides its pieces.
    pub(crate) fn stream_share(&self) -> Result<Share, OutOfMemory> {
        let mut share = Share::new(&self.account, MemoryKind::Response);
        share.fit(STREAM_BYTES)?;
        Ok(share)
    }

    /// Does the same as [`stream_share`](ConnectionMemory::stream_share), and waits for up to
    /// [`STREAM_WAIT`] if memory is short: a burst of others is often over by then, and this answer
    /// holds nothing yet.
    pub(crate) async fn wait_for_stream_share(&self) -> Result<Share, OutOfMemory> {
        let until = Instant::now() + STREAM_WAIT;
        loop {
            sleep(STREAM_RETRY).await;
            let share = self.stream_share();
            if share.is_ok() || Instant::now() >= until {
                return share;
            }
        }
    }

    /// Does the same as [`stream`] for an answer that mostly waits and holds
    /// nothing while it does.
    pub(crate) fn hold(&self, body: hub::BodyStream, id: Option<&HeaderValue>) -> hub::BodyStream {
        Box::pin(ReservedStream {
            body,
            share: Share::new(&self.account, MemoryKind::Response),
            base: 0,
            id: id.cloned().map(Box::new),
        })
    }
}

/// Wraps the body of a streamed answer: its pieces are reserved while they wait for the client.
/// `id` is that of the request in the log.
pub(crate) fn stream(
    share: Share,
    body: hub::BodyStream,
    id: Option<&HeaderValue>,
) -> hub::BodyStream {
    Box::pin(ReservedStream {
        body,
        share,
        base: STREAM_BYTES,
        id: id.cloned().map(Box::new),
    })
}

/// Bytes with their reservation.
struct ReservedBytes {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn held(bytes: Bytes, share: Share) -> Bytes {
    if bytes.len() <= LARGE {
        bytes
    } else {
        Bytes::from_owner(ReservedBytes {
            bytes,
            _share: share,
        })
    }
}

struct ReservedStream {
    body: hub::BodyStream,
    share: Share,
    /// Number of bytes reserved while the answer streams.
    base: usize,
    /// Id of the request in the log.
    id: Option<Box<HeaderValue>>,
}

impl Stream for ReservedStream {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let this = &mut *self;
        let next = std::task::ready!(this.body.as_mut().poll_frame(cx));
        // The connection asks for another piece: the last one is about to leave.
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
