//! Parser of multipart bodies (RFC 2046 section 5.1.1): finds the parts of a form while it arrives.
//!
//! State: the buffer has the received bytes that were not returned yet, and `section` says where
//! they begin: in the preamble, at a delimiter, in the content of a part, or after the last part.
//! The parser asks for bytes only if the buffer does not suffice.
//!
//! Invariant: the buffer never holds more than a delimiter or a head of at most
//! [`PART_HEAD_BYTES_MAX`], and one piece of the body. Content is returned as it comes.
//!
//! This parser is ours because multer, the library for it, keeps one of several fields of a part's
//! head with the same name, so that it can't be known which one another reader would use. `part`
//! reads the heads. Deadlines are the caller's.

use super::part;
use crate::http::request_body::BodyFailure;
use bytes::{Bytes, BytesMut};
use http_body::Body;
use memchr::memmem::{self, Finder};
use std::{future::poll_fn, pin::Pin};
use tidegate_hub::{
    limits::PART_HEAD_BYTES_MAX,
    page::{Field, FormError},
};

/// Maximum number of bytes that are taken at a time from those that were read before the parser
/// started.
const PIECE_BYTES: usize = 8 << 10;

/// Converts an error of a request's body.
pub(super) fn body_error(failure: BodyFailure) -> FormError {
    match failure {
        BodyFailure::Late => FormError::TooSlow,
        BodyFailure::Broken(_) => FormError::Broken,
    }
}

/// Beginning of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Preamble,
    /// After a delimiter: the rest of its line, and a head, if it is not the last delimiter.
    DelimiterLine,
    Content,
    Epilogue,
}

/// A multipart body that is being read.
pub(super) struct Multipart<B> {
    body: B,
    /// Bytes of the body that were read before the parser started.
    begun: Bytes,
    /// Number of bytes that the rest of the body may have.
    bytes_left: usize,
    buffer: BytesMut,
    section: Section,
    /// A line end, two hyphens and the boundary.
    delimiter: Finder<'static>,
}

impl<B: Body<Data = Bytes, Error = BodyFailure> + Unpin> Multipart<B> {
    /// Creates a parser of `begun` and the rest of it in `body`, together at most `bytes_max`.
    pub(super) fn new(boundary: &str, begun: Bytes, body: B, bytes_max: usize) -> Multipart<B> {
        Multipart {
            body,
            begun,
            bytes_left: bytes_max,
            // A delimiter is at the beginning of a line, and so is the beginning of the body.
            buffer: BytesMut::from("\r\n"),
            section: Section::Preamble,
            delimiter: Finder::new(&format!("\r\n--{boundary}")).into_owned(),
        }
    }

    /// Returns the next part; `None` after the last one. Skips the rest of the part before it.
    ///
    /// # Errors
    /// Returns an error if the body is invalid, too long or too slow.
    pub(super) async fn next_part(&mut self) -> Result<Option<Field>, FormError> {
        while self.read_content().await?.is_some() {}
        if self.section == Section::Preamble {
            let delimiter = self.delimiter.clone();
            let at = self.find(&delimiter).await?;
            self.pass_delimiter(at);
        }
        if self.section == Section::Epilogue {
            return Ok(None);
        }
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        if self.buffer.starts_with(b"--") {
            self.section = Section::Epilogue;
            return Ok(None);
        }
        // An empty head follows the line of the delimiter at once.
        let end = self.find(&Finder::new("\r\n\r\n")).await? + 4;
        let bytes = self.buffer.split_to(end);
        self.section = Section::Content;
        let (padding, head) = memmem::find(&bytes, b"\r\n")
            .map(|line_end| (&bytes[..line_end], &bytes[line_end + 2..]))
            .ok_or(FormError::Broken)?;
        if !padding.iter().all(|byte| b" \t".contains(byte)) {
            return Err(FormError::Broken);
        }
        part::field(head).map(Some).ok_or(FormError::Broken)
    }

    /// Returns the next bytes of the part's content; `None` at its end, or outside of a part.
    ///
    /// # Errors
    /// Returns an error if the body is too long or too slow, or if it ends in the part.
    pub(super) async fn read_content(&mut self) -> Result<Option<Bytes>, FormError> {
        while self.section == Section::Content {
            let end = match self.delimiter.find(&self.buffer) {
                Some(0) => {
                    self.pass_delimiter(0);
                    break;
                }
                Some(at) => at,
                None => self.buffer.len() - self.possible_delimiter_bytes(),
            };
            if end > 0 {
                return Ok(Some(self.buffer.split_to(end).freeze()));
            }
            self.fill().await?;
        }
        Ok(None)
    }

    /// Drops the buffer up to the end of the delimiter at this index.
    fn pass_delimiter(&mut self, at: usize) {
        _ = self.buffer.split_to(at + self.delimiter.needle().len());
        self.section = Section::DelimiterLine;
    }

    /// Returns the number of bytes at the end of the buffer with which a delimiter may begin.
    fn possible_delimiter_bytes(&self) -> usize {
        // A boundary has no line end, so a delimiter can begin only at the last one.
        let begin = memchr::memrchr(b'\r', &self.buffer).unwrap_or(self.buffer.len());
        let end = &self.buffer[begin..];
        if self.delimiter.needle().starts_with(end) {
            end.len()
        } else {
            0
        }
    }

    /// Returns the index of the first occurrence.
    async fn find(&mut self, text: &Finder<'_>) -> Result<usize, FormError> {
        let mut searched = 0;
        loop {
            if let Some(at) = text.find(&self.buffer[searched..]) {
                return Ok(searched + at);
            }
            if self.buffer.len() > PART_HEAD_BYTES_MAX {
                return Err(FormError::TooLarge);
            }
            searched = (self.buffer.len() + 1).saturating_sub(text.needle().len());
            self.fill().await?;
        }
    }

    /// Adds a piece of the body to the buffer. The caller has to need one: the end of the body is an
    /// error.
    async fn fill(&mut self) -> Result<(), FormError> {
        let mut piece = self.begun.split_to(self.begun.len().min(PIECE_BYTES));
        while piece.is_empty() {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let frame = frame.ok_or(FormError::Broken)?.map_err(body_error)?;
            piece = frame.into_data().unwrap_or_default();
        }
        self.bytes_left = self
            .bytes_left
            .checked_sub(piece.len())
            .ok_or(FormError::TooLarge)?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;

    /// Names and contents of the parts, or the error.
    type Parts = Result<Vec<(String, String)>, FormError>;

    /// Parses a body that comes in these pieces; the first one was read before.
    async fn parse(pieces: &[&[u8]], bytes_max: usize) -> Parts {
        let frames: Vec<Result<Frame<Bytes>, BodyFailure>> = pieces[1..]
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let begun = Bytes::copy_from_slice(pieces[0]);
        let mut parser = Multipart::new("B", begun, body, bytes_max);
        let mut parts = Vec::new();
        while let Some(field) = parser.next_part().await? {
            let mut content = Vec::new();
            while let Some(piece) = parser.read_content().await? {
                assert!(!piece.is_empty());
                content.extend_from_slice(&piece);
            }
            parts.push((field.name, String::from_utf8(content).unwrap()));
        }
        assert_eq!(parser.next_part().await, Ok(None));
        Ok(parts)
    }

    const HEAD: &str = "content-disposition: form-data; name=";

    #[tokio::test]
    async fn a_body_has_the_same_parts_however_it_is_cut() {
        let parts = |parts: &[(&str, &str)]| {
            let owned = |(name, content): &(&str, &str)| (name.to_string(), content.to_string());
            Ok(parts.iter().map(owned).collect::<Vec<_>>())
        };
        let broken = Err(FormError::Broken);
        let cases: Vec<(String, Parts)> = vec![
            (
                format!("--B\r\n{HEAD}a\r\n\r\n1\r\n--B\r\n{HEAD}b\r\n\r\n\r\n--B--"),
                parts(&[("a", "1"), ("b", "")]),
            ),
            (
                format!("--B \t\r\n{HEAD}a\r\nx: y\r\n\r\n\r\n-\r\n--\r\r\n1\r\n--B--\r\nepilogue"),
                parts(&[("a", "\r\n-\r\n--\r\r\n1")]),
            ),
            (
                format!("preamble --B\r\n--\r\n--B\r\n{HEAD}a\r\n\r\n--B\r\n--B--"),
                parts(&[("a", "--B")]),
            ),
            ("--B--".into(), parts(&[])),
            (format!("--B\r\n{HEAD}a\r\n\r\n1\r\n--B"), broken.clone()),
            (format!("--B\r\n{HEAD}a\r\n\r\n1"), broken.clone()),
            (format!("--B\r\n{HEAD}a\r\n"), broken.clone()),
            (format!("--Bx\r\n{HEAD}a\r\n\r\n1\r\n--B--"), broken.clone()),
            ("--B\r\n\r\n1\r\n--B--".into(), broken.clone()),
            ("--B\r\n\r\n\r\n--B--".into(), broken.clone()),
            ("x--B--".into(), broken.clone()),
            (String::new(), broken),
        ];
        for (body, expected) in cases {
            let bytes = body.as_bytes();
            for at in 0..=bytes.len() {
                let got = parse(&[&bytes[..at], &bytes[at..]], bytes.len()).await;
                assert_eq!(got, expected, "{body:?} cut at {at}");
            }
            let each: Vec<&[u8]> = bytes.chunks(1).collect();
            if !each.is_empty() {
                assert_eq!(parse(&each, bytes.len()).await, expected, "{body:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_bounded_and_so_are_the_bytes_in_which_nothing_is_found() {
        let part = format!("--B\r\n{HEAD}a\r\n\r\n1\r\n--B--");
        let length = part.len();
        assert!(parse(&[part.as_bytes()], length).await.is_ok());
        let too_large = Err(FormError::TooLarge);
        assert_eq!(parse(&[part.as_bytes()], length - 1).await, too_large);
        let long = "n".repeat(PART_HEAD_BYTES_MAX + 1);
        for body in [long.clone(), format!("--B{long}"), format!("--B\r\n{long}")] {
            assert_eq!(parse(&[body.as_bytes()], 1 << 20).await, too_large);
        }
        let content = format!("--B\r\n{HEAD}a\r\n\r\n{long}{long}\r\n--B--");
        assert!(parse(&[content.as_bytes()], 1 << 20).await.is_ok());
    }
}
