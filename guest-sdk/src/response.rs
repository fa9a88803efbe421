//! Answers: all types that a handler may return for a request.

use crate::{Error, Result};
use serde::Serialize;

/// A whole answer. An invalid status or header is a fault of the app: 500.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// let app = App::new()
///     .get("/page", async |_| Response::html("<h1>tide</h1>"))
///     .get("/old", async |_| Response::redirect("/page"))
///     .get("/made", async |_| (201, "made"))
///     .get("/list", async |_| Json([1, 2]))
///     .get("/none", async |_| None::<String>);
/// let mut server = testing::serve(app);
/// assert_eq!(server.get("/page").header("content-type"), Some("text/html; charset=utf-8"));
/// assert_eq!(server.get("/old").status(), 303);
/// assert_eq!(server.get("/made").status(), 201);
/// assert_eq!(server.get("/list").text(), "[1,2]");
/// assert_eq!(server.get("/none").status(), 404);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Creates an answer without headers and body. The status is 200 to 599.
    pub fn new(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Creates a 200 with a text.
    pub fn text(text: impl Into<String>) -> Response {
        Response::typed("text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// Creates a 200 with an HTML page.
    pub fn html(html: impl Into<String>) -> Response {
        Response::typed("text/html; charset=utf-8", html.into().into_bytes())
    }

    /// Creates a 200 with bytes of unknown type.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Response {
        Response::typed("application/octet-stream", bytes.into())
    }

    /// Creates a 200 with a value as JSON. Fails if the value has no JSON form (a map with keys
    /// that are not strings).
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub fn json(value: &impl Serialize) -> Result<Response> {
        Ok(Response::typed(
            "application/json",
            serde_json::to_vec(value)?,
        ))
    }

    /// Creates a 303, which redirects by GET.
    pub fn redirect(location: &str) -> Response {
        Response::new(303).header("location", location)
    }

    /// Replaces the status, 200 to 599.
    pub fn with_status(mut self, status: u16) -> Response {
        self.status = status;
        self
    }

    /// Adds a header. `content-type` is replaced; the host drops framing and hop-by-hop headers.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Response {
        let name = name.to_ascii_lowercase();
        if name == "content-type" {
            self.headers.retain(|(other, _)| *other != name);
        }
        self.headers.push((name, value.as_ref().to_vec()));
        self
    }

    fn typed(content_type: &str, body: Vec<u8>) -> Response {
        Response {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.as_bytes().to_vec())],
            body,
        }
    }
}

/// Results of a request handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an answer",
    label = "what this handler returns can't be an answer",
    note = "answers are: `&str`, `String`, `Vec<u8>`, `Json<T>`, `()`, `Response`, `(u16, answer)`, `Option<answer>` and `Result<answer>`"
)]
pub trait IntoResponse {
    /// Converts into the answer, or into another answer.
    fn into_response(self) -> Result<Response>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response> {
        Ok(self)
    }
}

impl IntoResponse for &str {
    fn into_response(self) -> Result<Response> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Result<Response> {
        Ok(Response::bytes(self))
    }
}

impl IntoResponse for &[u8] {
    fn into_response(self) -> Result<Response> {
        Ok(Response::bytes(self))
    }
}

/// A 204, without content.
impl IntoResponse for () {
    fn into_response(self) -> Result<Response> {
        Ok(Response::new(204))
    }
}

/// Any answer with this status.
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Result<Response> {
        Ok(self.1.into_response()?.with_status(self.0))
    }
}

/// `None` is a 404.
impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Result<Response> {
        self.ok_or_else(|| Error::not_found("not found"))?
            .into_response()
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for std::result::Result<T, E> {
    fn into_response(self) -> Result<Response> {
        self.map_err(Into::into)?.into_response()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Result<Response> {
        Err(self)
    }
}

/// A value as JSON in an answer. [`Request::json`](crate::Request::json) reads JSON from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Result<Response> {
        Response::json(&self.0)
    }
}
