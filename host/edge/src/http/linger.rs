//! The end of a connection whose client may still be sending.
//!
//! If a socket is closed while bytes wait in it or are on their way, the kernel answers them with a
//! reset, and the client's kernel then drops an answer that its program has not read yet. So the
//! close has two stages (RFC 9112 section 9.6): the host ends its sending direction, and then reads
//! and drops the client's bytes until the client ends its own direction. Both the time and the
//! number of bytes are bounded. The connection keeps its seat in the meantime and does not hold a
//! drain.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

/// Maximum time without a byte of the client. A silent client has its answer, and keeps the
/// connection open for no purpose.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Number of bytes that are dropped in one read. The buffer is on the stack: a connection that is
/// being closed holds none.
const DROP_BYTES: usize = 16 << 10;

/// Ends our direction, and drops bytes of the client until it ends its own, for at most this time
/// and about this number of bytes.
pub(crate) async fn close(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    within: Duration,
    bytes_max: usize,
) {
    if poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx))
        .await
        .is_err()
    {
        return;
    }
    _ = timeout(within, async {
        let mut dropped = 0;
        while dropped < bytes_max
            && let Ok(Ok(bytes)) = timeout(SILENCE_MAX, poll_fn(|cx| poll_drop(&mut io, cx))).await
            && bytes > 0
        {
            dropped += bytes;
        }
    })
    .await;
}

/// Reads and drops some bytes. Returns their number, or zero at the end.
pub(crate) fn poll_drop(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut bytes = [MaybeUninit::uninit(); DROP_BYTES];
    let mut buffer = ReadBuf::uninit(&mut bytes);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
