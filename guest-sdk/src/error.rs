//! Errors of handlers: a refusal goes to the client, a fault to the operator's log.

use crate::{Response, SendError, stream::Gone};
use std::{error::Error as StdError, fmt};

/// Result of a handler: a value, or an [`Error`].
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// A refusal with a response for the client, or a fault whose cause only the operator sees.
///
/// By `?`, any `std::error::Error` becomes a fault: the client receives 500 and a fixed text, and
/// the operator finds the chain of causes on standard error. Errors of the client are made by
/// [`bad_request`](Error::bad_request), [`status`](Error::status) and similar functions, and by
/// invalid parts of a [`Request`](crate::Request).
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// async fn half(req: Request) -> Result<String> {
///     let n: u32 = req.param("n")?; // "x" is the client's 400
///     if n % 2 == 1 {
///         return Err(Error::status(422, "an even number, please"));
///     }
///     let same: u32 = n.to_string().parse()?; // would be our 500
///     Ok((same / 2).to_string())
/// }
///
/// let mut server = testing::serve(App::new().get("/half/{n}", half));
/// assert_eq!(server.get("/half/8").text(), "4");
/// assert_eq!(server.get("/half/7").text(), "an even number, please");
/// assert_eq!(server.get("/half/x").status(), 400);
/// ```
pub struct Error(Box<ErrorKind>);

enum ErrorKind {
    /// Response for the client.
    Answer(Response),
    /// Cause for the operator.
    Fault(Box<dyn StdError>),
}

/// Text that the client receives for a fault.
const FAULT_TEXT: &str = "internal error";

/// Maximum length of the reason in a close frame, in bytes (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

impl Error {
    /// Returns an error with this status and text for the client.
    pub fn status(status: u16, text: impl Into<String>) -> Error {
        Error::from(Response::text(text).with_status(status))
    }

    /// Returns a 400: the client sent an invalid value.
    pub fn bad_request(text: impl Into<String>) -> Error {
        Error::status(400, text)
    }

    /// Returns a 404: the resource does not exist.
    pub fn not_found(text: impl Into<String>) -> Error {
        Error::status(404, text)
    }

    /// Returns a fault of the app: the client receives 500 and a fixed text, the operator receives
    /// `cause`. It takes a text, or a value that is not a `std::error::Error`, such as that of
    /// anyhow: `.map_err(Error::fault)?`.
    pub fn fault(cause: impl Into<Box<dyn StdError>>) -> Error {
        Error(Box::new(ErrorKind::Fault(cause.into())))
    }

    /// Adds a header to the answer, such as `www-authenticate`. The answer to a fault does not
    /// change.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Error {
        if let ErrorKind::Answer(response) = *self.0 {
            *self.0 = ErrorKind::Answer(response.header(name, value));
        }
        self
    }

    /// Returns the cause of a fault if it has this type, for example [`SendError`] or
    /// [`LimitError`](crate::LimitError).
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &*self.0 {
            ErrorKind::Fault(cause) => cause.downcast_ref(),
            ErrorKind::Answer(_) => None,
        }
    }

    /// Returns the text for the operator.
    pub(crate) fn description(&self) -> String {
        match &*self.0 {
            ErrorKind::Answer(response) => format!(
                "{} {}",
                response.status,
                String::from_utf8_lossy(&response.body)
            ),
            ErrorKind::Fault(cause) => Chain(&**cause).to_string(),
        }
    }

    /// Returns the response. Logs a fault with its `place`.
    pub(crate) fn answer(self, place: fmt::Arguments<'_>) -> Response {
        match *self.0 {
            ErrorKind::Answer(response) => response,
            ErrorKind::Fault(cause) => {
                report(place, &*cause);
                Response::text(FAULT_TEXT).with_status(500)
            }
        }
    }

    /// Returns status and text for a caller. Logs a fault with its `place`.
    pub(crate) fn refusal(self, place: fmt::Arguments<'_>) -> (u16, String) {
        let response = self.answer(place);
        (
            response.status,
            String::from_utf8_lossy(&response.body).into_owned(),
        )
    }

    /// Returns the close code and reason for a connection whose handler failed; `None` if the
    /// connection is closing already.
    pub(crate) fn close(&self, place: fmt::Arguments<'_>) -> Option<(u16, &str)> {
        match &*self.0 {
            ErrorKind::Answer(response) if response.status < 500 => {
                Some((1008, reason(&response.body)))
            }
            ErrorKind::Answer(response) => Some((1011, reason(&response.body))),
            ErrorKind::Fault(cause) => match cause.downcast_ref() {
                Some(SendError::Closed) => None,
                Some(SendError::Full) => Some((1013, "too slow")),
                _ => {
                    report(place, &**cause);
                    Some((1011, FAULT_TEXT))
                }
            },
        }
    }

    /// True if the client disconnected while it received the response. That is not a fault.
    pub(crate) fn is_gone(&self) -> bool {
        self.downcast_ref::<Gone>().is_some()
    }
}

/// Returns the longest prefix of the text that fits into a close frame.
fn reason(text: &[u8]) -> &str {
    let text = std::str::from_utf8(text).unwrap_or_default();
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

/// Writes to standard error for the operator. The host shows it with its request.
fn report(place: fmt::Arguments<'_>, cause: &dyn StdError) {
    eprintln!("{place}: {}", Chain(cause));
}

/// An error and its causes on one line.
struct Chain<'a>(&'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: StdError + 'static> From<E> for Error {
    fn from(cause: E) -> Error {
        Error::fault(cause)
    }
}

impl From<Response> for Error {
    /// Answers with this response, for example a redirection.
    fn from(response: Response) -> Error {
        Error(Box::new(ErrorKind::Answer(response)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ErrorKind::Answer(response) => write!(
                f,
                "{}: {}",
                response.status,
                String::from_utf8_lossy(&response.body)
            ),
            ErrorKind::Fault(cause) => write!(f, "{}", Chain(&**cause)),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_masked_and_a_refusal_is_not() {
        let fault = Error::from(std::fmt::Error);
        assert!(fault.downcast_ref::<std::fmt::Error>().is_some());
        let masked = fault.answer(format_args!("test"));
        assert_eq!((masked.status, masked.body), (500, FAULT_TEXT.into()));
        let refused = Error::status(401, "token required")
            .header("www-authenticate", "Bearer")
            .answer(format_args!("test"));
        assert_eq!(
            (refused.status, refused.body.as_slice()),
            (401, &b"token required"[..])
        );
        assert!(
            refused
                .headers
                .contains(&("www-authenticate".into(), b"Bearer".into()))
        );
    }

    #[test]
    fn a_connection_ends_with_the_code_for_what_went_wrong() {
        let long = "é".repeat(100);
        let cases = [
            (
                Error::bad_request("a number, please"),
                Some((1008, "a number, please")),
            ),
            (Error::bad_request(long.clone()), Some((1008, &long[..122]))),
            (Error::status(503, "later"), Some((1011, "later"))),
            (SendError::Closed.into(), None),
            (SendError::Full.into(), Some((1013, "too slow"))),
            (SendError::TooLarge.into(), Some((1011, FAULT_TEXT))),
            (Error::fault("secret"), Some((1011, FAULT_TEXT))),
        ];
        for (error, expected) in cases {
            assert_eq!(error.close(format_args!("test")), expected, "{error}");
        }
    }
}
