//! Forms, read field by field or as a whole into a type, and outcomes of actions.

use crate::{Error, Loader, Result, value_slot::ValueSlot, world};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// The form of an action. The host does not buffer its files: read them piece by piece.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing, testing::Upload};
///
/// async fn weigh(_: &Request, form: &mut Form) -> Result<Done> {
///     let mut bytes = 0;
///     while let Some(field) = form.next().await? {
///         if field.filename().is_none() {
///             return Ok(Done::deny(422, "files, please").field(field.name(), "no file"));
///         }
///         while let Some(piece) = form.piece().await? {
///             bytes += piece.len();
///         }
///     }
///     Ok(Done::redirect(&format!("/weighed?bytes={bytes}")))
/// }
///
/// fn render(_: &Request, view: &View) -> Response {
///     Response::html(format!("<em>{}</em>", view.field_error("note").unwrap_or_default()))
/// }
///
/// let scale = Page::new(render).action("weigh", weigh);
/// let mut server = testing::serve(App::new().page("/scale", scale));
/// let stone = Upload { name: "stone".into(), filename: "stone.jpg".into(), bytes: vec![7; 500] };
/// assert_eq!(server.upload("/scale", "weigh", &[], &[stone]).header("location"), Some("/weighed?bytes=500"));
/// let refused = server.upload("/scale", "weigh", &[("note", "heavy")], &[]);
/// assert_eq!((refused.status(), refused.text()), (422, "<em>no file</em>"));
/// ```
pub struct Form {
    form: world::Form,
    progress: ValueSlot,
    /// Text fields read so far, for the page that shows the form again.
    values: Vec<(String, String)>,
}

/// Maximum size of the text in all fields together, in bytes, if the form is read as a whole.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Head of a form's field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
    pub(crate) content_type: Option<String>,
}

impl Field {
    /// Returns the field's name in the form.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name that the client gives a file. It is not safe as a path. It is empty if no
    /// file was chosen.
    pub fn filename(&self) -> Option<&str> {
        self.filename.as_deref()
    }

    /// Returns the content type that the client gives.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

impl Form {
    pub(crate) fn new(form: world::Form, progress: ValueSlot) -> Form {
        Form {
            form,
            progress,
            values: Vec::new(),
        }
    }

    /// Reads the form as a `T`: from the text of its fields, or from its JSON. An invalid value is
    /// a 422 with a message at its field. A file is an error: read the fields before it by
    /// [`next`](Form::next). An empty file input is skipped.
    ///
    /// # Errors
    ///
    /// A [denial](Done::deny) with 422 for fields that are not a `T`; 400 for a file, 413 for more
    /// than 1 MiB of text; and the errors of [`next`](Form::next).
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        if let Some(json) = self.form.json() {
            let mut reader = serde_json::Deserializer::from_str(&json);
            return serde_path_to_error::deserialize(&mut reader)
                .map_err(|error| misfit(&error.path().to_string(), &error.inner().to_string()));
        }
        let mut bytes = 0;
        while let Some(field) = self.next().await? {
            if let Some(filename) = &field.filename {
                // A file input without a chosen file (WHATWG HTML, constructing the entry list).
                if filename.is_empty() && self.piece().await?.is_none() {
                    continue;
                }
                return Err(Error::status(400, "this form has no files"));
            }
            let value = self.text(TEXT_BYTES_MAX - bytes).await?;
            bytes += value.len();
            self.values.push((field.name, value));
        }
        let pairs = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.values)
            .finish();
        let reader = serde_html_form::Deserializer::new(form_urlencoded::parse(pairs.as_bytes()));
        match serde_path_to_error::deserialize(reader) {
            Ok(value) => Ok(value),
            Err(error) => Err(misfit(
                &error.path().to_string(),
                &error.inner().to_string(),
            )),
        }
    }

    /// Returns the form as the client wrote it, if it was sent as JSON: the text of an object
    /// without its member `__action`. Numbers keep all their digits; a [`serde_json::Value`] would
    /// keep 64 bits of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let set = async |_: &Request, form: &mut Form| Done::success(&form.json());
    /// let counter = Page::new(|_, _| Response::html("<p>a counter</p>")).action("set", set);
    /// let mut server = testing::serve(App::new().page("/counter", counter));
    /// let head = [("content-type", "application/json"), ("accept", "application/json")];
    /// let reply = server.request("POST", "/counter", &head, r#"{"__action":"set","n":12345678901234567890123}"#);
    /// assert!(reply.text().contains(r#"{\"n\":12345678901234567890123}"#), "{}", reply.text());
    /// ```
    pub fn json(&self) -> Option<String> {
        self.form.json()
    }

    /// Returns the next field in the client's order, or `None` after the last. The unread rest of
    /// the field before it is skipped.
    ///
    /// # Errors
    ///
    /// 408 if the form comes too slowly, 413 if it is larger than the host's limit, 400 if it is
    /// not a valid form or breaks off. The client receives that status whatever the action returns.
    pub async fn next(&mut self) -> Result<Option<Field>> {
        self.form.next().await
    }

    /// Returns the next bytes of the field that [`next`](Form::next) returned, never empty; `None`
    /// at its end.
    ///
    /// # Errors
    ///
    /// As for [`next`](Form::next).
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        self.form.read().await
    }

    /// Returns the rest of the field as text. If it is larger than `bytes_max`, the client receives
    /// 413; if it is not UTF-8, 400.
    ///
    /// # Errors
    ///
    /// 413 and 400 as above; otherwise as for [`next`](Form::next).
    pub async fn text(&mut self, bytes_max: usize) -> Result<String> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if bytes.len() + piece.len() > bytes_max {
                return Err(Error::status(
                    413,
                    format!("at most {bytes_max} bytes, please"),
                ));
            }
            bytes.extend(piece);
        }
        String::from_utf8(bytes).map_err(|_| Error::bad_request("a field is not UTF-8"))
    }

    /// Sends progress to a client that accepts an event stream; others do not receive it.
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub async fn progress(&mut self, value: &(impl Serialize + ?Sized)) -> Result {
        self.progress.give(value).await
    }

    /// Adds the form's values to a denial.
    pub(crate) fn with_values(self, done: Result<Done>) -> Result<Done> {
        let done = match done {
            Err(error) => match error.downcast_ref::<Denied>() {
                Some(denied) => Done::Deny(denied.clone()),
                None => return Err(error),
            },
            Ok(done) => done,
        };
        Ok(match done {
            Done::Deny(denied) if denied.values.is_empty() => Done::Deny(Denied {
                values: self.values,
                ..denied
            }),
            done => done,
        })
    }
}

/// Returns the deserializer's message at the invalid field.
fn misfit(path: &str, why: &str) -> Error {
    let missing = why
        .split('`')
        .nth(1)
        .filter(|_| why.starts_with("missing field"));
    let (field, why) = match missing {
        Some(field) => (field, "this field is missing"),
        None => (
            if path == "." { "" } else { path },
            why.split(" at line ").next().unwrap_or(why),
        ),
    };
    Done::deny(422, "please look again")
        .field(field, why)
        .into()
}

/// Outcome of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Success with a value as JSON, and the loaders whose values have changed. [`Done::success`]
    /// creates it.
    #[doc(hidden)]
    Success(String, Vec<String>),
    /// Redirection. [`Done::redirect`] creates it.
    #[doc(hidden)]
    Redirect(u16, String),
    /// Denial. [`Done::deny`] creates it.
    #[doc(hidden)]
    Deny(Denied),
}

impl Done {
    /// Reports success. Without JavaScript, the browser is redirected to the page (303), so that a
    /// reload does not send the form again.
    ///
    /// # Errors
    ///
    /// A fault if the value is not one of JSON.
    pub fn success(value: &impl Serialize) -> Result<Done> {
        Ok(Done::Success(serde_json::to_string(value)?, Vec::new()))
    }

    /// Reports that the values of this loader have changed: the browser loads them again. It has no
    /// effect unless this is a success.
    pub fn stale<T: ?Sized>(mut self, loader: Loader<T>) -> Done {
        if let Done::Success(_, stale) = &mut self {
            stale.push(loader.name().to_owned());
        }
        self
    }

    /// Redirects to another location by GET (303).
    pub fn redirect(location: &str) -> Done {
        Done::Redirect(303, location.to_owned())
    }

    /// Refuses the form with a status of 400 to 499 and a text for people. Without JavaScript the
    /// page is shown again.
    pub fn deny(status: u16, message: impl Into<String>) -> Done {
        Done::Deny(Denied {
            status,
            message: message.into(),
            ..Denied::default()
        })
    }

    /// Adds a message at a field. It has no effect unless this is a refusal.
    pub fn field(mut self, name: &str, why: impl Into<String>) -> Done {
        if let Done::Deny(denied) = &mut self {
            denied.errors.push((name.to_owned(), why.into()));
        }
        self
    }
}

/// A refusal as the cause in an [`Error`]: `return Err(Done::deny(…).into())`, or by `?` the
/// invalid part of a [`Form`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct Denied {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) errors: Vec<(String, String)>,
    pub(crate) values: Vec<(String, String)>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)?;
        self.errors
            .iter()
            .try_for_each(|(field, why)| write!(f, "; {field}: {why}"))
    }
}

impl std::error::Error for Denied {}

impl From<Done> for Error {
    fn from(done: Done) -> Error {
        match done {
            Done::Deny(denied) => Error::fault(denied),
            other => Error::fault(format!("only a refusal can be an error, not {other:?}")),
        }
    }
}
