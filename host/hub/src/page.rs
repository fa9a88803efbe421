//! Values of pages: values of loaders, shells, forms, and outcomes of actions.

use crate::request::Header;
use bytes::Bytes;
use http::StatusCode;
use std::{fmt, future::Future, pin::Pin, time::Duration};

/// Error of a loader or an action, for the client (WIT `pages.problem`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    /// Status from 400 to 599: [`error_status`](crate::contract::error_status).
    pub status: StatusCode,
    /// Message of one line.
    pub message: String,
}

/// Step of a loader (WIT `pages.step`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderStep {
    /// A value as JSON text, which is not checked yet.
    Value(String),
    /// No value before this time has passed.
    Later(Duration),
    /// The end of the values.
    End,
}

/// State of a loader when the shell was due (WIT `pages.first`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderState {
    /// It had a value, as JSON text.
    Value(String),
    /// It failed.
    Failed(HandlerError),
    /// It had no value yet.
    Pending,
}

/// A form that was refused (WIT `pages.denial`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormDenial {
    /// Status from 400 to 499: [`denial_status`](crate::contract::denial_status).
    pub status: StatusCode,
    /// Message for people.
    pub message: String,
    /// Errors by field.
    pub errors: Vec<(String, String)>,
    /// The values that were sent, by field.
    pub values: Vec<(String, String)>,
}

/// Input of the rendering of a page (WIT `pages.view`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderInput {
    /// State of each loader, by its name.
    pub first: Vec<(String, LoaderState)>,
    /// Nonce of the response.
    pub nonce: String,
    /// The action that was refused, with its denial.
    pub denied: Option<(String, FormDenial)>,
}

impl RenderInput {
    /// Returns the status of the page: that of the refused action, unless the app chose another one
    /// than 200.
    pub fn status_of(&self, shell: &Shell) -> StatusCode {
        match &self.denied {
            Some((_, denial)) if shell.status == StatusCode::OK => denial.status,
            _ => shell.status,
        }
    }
}

/// A rendered page, into which values may still be streamed (WIT `pages.shell`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// Status from 200 to 599: [`status`](crate::contract::status).
    pub status: StatusCode,
    /// Headers of the app.
    pub headers: Vec<Header>,
    /// HTML of the whole page.
    pub html: String,
}

/// Step of an action (WIT `pages.update`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionStep {
    /// Progress for the client, as JSON text, which is not checked yet.
    Progress(String),
    /// No step before this time has passed.
    Later(Duration),
    /// The action has ended.
    Done(Result<ActionOutcome, HandlerError>),
}

/// Outcome of an action (WIT `pages.outcome`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The action succeeded.
    Success {
        /// Value as JSON text, which is not checked yet.
        value: String,
        /// Names of the loaders whose values have changed.
        stale: Vec<String>,
    },
    /// The client goes to another location.
    Redirect {
        /// Status: 301, 302, 303, 307 or 308: [`redirect_status`](crate::contract::redirect_status).
        status: StatusCode,
        /// A URL or a part of one.
        location: String,
    },
    /// The form was refused.
    Deny(FormDenial),
}

/// The head of a field of a form (WIT `forms.field`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Name in the form.
    pub name: String,
    /// Name of the file, if the field is one.
    pub filename: Option<String>,
    /// Content type that the client sent.
    pub content_type: Option<String>,
}

/// Reason why the rest of a form cannot be read (WIT `forms.form-error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// The client went away, or sent no valid form.
    Broken,
    /// The form is larger than its limit.
    TooLarge,
    /// The form came later than its limit.
    TooSlow,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FormError::Broken => "the form broke off, or is none",
            FormError::TooLarge => "the form is too large",
            FormError::TooSlow => "the form took too long",
        })
    }
}

impl std::error::Error for FormError {}

/// A piece of a form that is still to come.
pub type FormPiece<'a, T> = Pin<Box<dyn Future<Output = Result<Option<T>, FormError>> + Send + 'a>>;

/// A form that is read as it arrives. The host does not buffer the rest, which stays with the
/// client.
pub trait Form: Send {
    /// WIT `forms.form.json`.
    fn json(&self) -> Option<&str>;
    /// WIT `forms.form.next`.
    fn next(&mut self) -> FormPiece<'_, Field>;
    /// WIT `forms.form.read`.
    fn read(&mut self) -> FormPiece<'_, Bytes>;
}
