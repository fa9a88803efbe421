//! Guards: app code that runs before the routes that it covers, and passes or answers a request.

use crate::{Error, Request, Result};

/// Lets a request pass, with headers for the response and context for later guards and the handler.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// async fn known(req: Request) -> Result<Pass> {
///     let name = req.bearer().ok_or_else(|| Error::status(401, "token required").header("www-authenticate", "Bearer"))?;
///     Ok(Pass::new().context("user", name).header("cache-control", "private"))
/// }
///
/// let app = App::new()
///     .guard("/my/*", known)
///     .get("/my/name", async |req| req.context("user").map(str::to_owned));
/// let mut server = testing::serve(app);
/// assert_eq!(server.get("/my/name").status(), 401);
/// let reply = server.request("GET", "/my/name", &[("authorization", "Bearer ann")], b"");
/// assert_eq!((reply.text(), reply.header("cache-control")), ("ann", Some("private")));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) context: Vec<(String, String)>,
}

impl Pass {
    /// Passes the request on.
    pub fn new() -> Pass {
        Pass::default()
    }

    /// Adds a header to the answer, including the 101 of an upgrade.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Pass {
        self.headers
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Adds to the context of the request for later guards and the handler. Clients cannot set it.
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Pass {
        self.context.push((name.into(), value.into()));
        self
    }
}

/// Results of a guard.
#[diagnostic::on_unimplemented(
    message = "a guard returns `Pass` or `Result<Pass>`, not `{Self}`",
    label = "this guard returns something else",
    note = "let the request through with `Pass::new()`; answer it with `Err(Error::status(401, \"...\"))` or `Err(response.into())`"
)]
pub trait IntoPass {
    /// Converts into a pass or another answer.
    fn into_pass(self) -> Result<Pass>;
}

impl IntoPass for Pass {
    fn into_pass(self) -> Result<Pass> {
        Ok(self)
    }
}

impl<E: Into<Error>> IntoPass for std::result::Result<Pass, E> {
    fn into_pass(self) -> Result<Pass> {
        self.map_err(Into::into)
    }
}

/// The handler of a guard, type-erased.
pub(crate) type RunGuard = Box<dyn Fn(Request) -> Result<Pass>>;
