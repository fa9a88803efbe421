//! One HTTP/1.1 answer: its status and where its body ends. Nothing here knows sockets.
//!
//! ```
//! use tidegate_bench::answer::Answer;
//!
//! let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
//! let answer = Answer::parse(wire).unwrap().expect("it is whole");
//! assert_eq!((answer.status, answer.body_bytes, answer.wire_bytes), (200, 5, wire.len()));
//! ```

use anyhow::{Context as _, Result, anyhow, bail};
use httparse::{EMPTY_HEADER, Header, Response, Status};

const HEADERS_MAX: usize = 32;

/// The properties of an answer that the load generator checks.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body's length, without the framing of chunks.
    pub body_bytes: usize,
    /// The length of it all on the wire.
    pub wire_bytes: usize,
}

impl Answer {
    /// The answer at the start of `wire`, or `None` when more bytes are needed.
    pub fn parse(wire: &[u8]) -> Result<Option<Self>> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut response = Response::new(&mut headers);
        let Status::Complete(head_bytes) = response.parse(wire).context("not an HTTP answer")?
        else {
            return Ok(None);
        };
        let status = response.code.unwrap_or_default();
        let body = match length_of(response.headers)? {
            Length::Known(length) => whole(&wire[head_bytes..], length),
            Length::Chunked => chunks(&wire[head_bytes..])?,
        };
        Ok(body.map(|body| Self {
            status,
            body_bytes: body.bytes,
            wire_bytes: head_bytes + body.wire_bytes,
        }))
    }
}

enum Length {
    Known(usize),
    Chunked,
}

struct Body {
    bytes: usize,
    wire_bytes: usize,
}

fn length_of(headers: &[Header<'_>]) -> Result<Length> {
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            return Ok(Length::Known(std::str::from_utf8(header.value)?.parse()?));
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Length::Chunked);
        }
    }
    bail!("an answer on a kept connection must have a length")
}

fn whole(rest: &[u8], length: usize) -> Option<Body> {
    (rest.len() >= length).then_some(Body {
        bytes: length,
        wire_bytes: length,
    })
}

/// Adds up chunks without trailers, which no server under test sends.
fn chunks(rest: &[u8]) -> Result<Option<Body>> {
    const LINE_END: usize = 2;
    let mut body = Body {
        bytes: 0,
        wire_bytes: 0,
    };
    loop {
        let Some(left) = rest.get(body.wire_bytes..) else {
            return Ok(None);
        };
        let size = httparse::parse_chunk_size(left).map_err(|_| anyhow!("a chunk has no size"))?;
        let Status::Complete((line_bytes, size)) = size else {
            return Ok(None);
        };
        let size = usize::try_from(size)?;
        body.bytes += size;
        body.wire_bytes += line_bytes + size + LINE_END;
        if size == 0 {
            return Ok((rest.len() >= body.wire_bytes).then_some(body));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";

    #[test]
    fn chunks_are_added_up() {
        let answer = Answer::parse(CHUNKED).unwrap().unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 200,
                body_bytes: 6,
                wire_bytes: CHUNKED.len()
            }
        );
    }

    #[test]
    fn an_incomplete_answer_needs_more_bytes() {
        let sized = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        for wire in [CHUNKED, sized] {
            for cut in 0..wire.len() {
                assert_eq!(Answer::parse(&wire[..cut]).unwrap(), None, "{cut} bytes");
            }
            assert!(Answer::parse(wire).unwrap().is_some());
        }
    }

    #[test]
    fn a_body_without_a_length_is_an_error() {
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\nhello").is_err());
    }
}
