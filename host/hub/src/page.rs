//! What pages are made of: values of loaders, shells, forms, and what became of an action.

use crate::request::Header;
use bytes::Bytes;
use std::{fmt, future::Future, pin::Pin, time::Duration};

/// Why a loader or an action has nothing to give, for the client (WIT `pages.problem`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    /// 400 to 599.
    pub status: u16,
    /// One line.
    pub message: String,
}

/// What a loader has (WIT `pages.step`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderStep {
    /// A value, as JSON text: not yet checked.
    Value(String),
    /// Nothing before so much time has gone.
    Later(Duration),
    /// Nothing more.
    End,
}

/// What a loader had when the shell was due (WIT `pages.first`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderState {
    /// A value, as JSON text.
    Value(String),
    /// It failed.
    Failed(HandlerError),
    /// Nothing yet.
    Pending,
}

/// A form that was refused (WIT `pages.denial`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormDenial {
    /// 400 to 499.
    pub status: u16,
    /// For people.
    pub message: String,
    /// What is wrong, by field.
    pub errors: Vec<(String, String)>,
    /// What was sent, by field.
    pub values: Vec<(String, String)>,
}

/// What a page is rendered of (WIT `pages.view`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderInput {
    /// Of each loader, by its name.
    pub first: Vec<(String, LoaderState)>,
    /// Of the answer.
    pub nonce: String,
    /// The action that was refused.
    pub denied: Option<(String, FormDenial)>,
}

/// A rendered page, into which values may still be streamed (WIT `pages.shell`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// 200 to 599.
    pub status: u16,
    /// The app's.
    pub headers: Vec<Header>,
    /// The whole page.
    pub html: String,
}

/// How far an action is (WIT `pages.update`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionStep {
    /// For clients that look on, as JSON text: not yet checked.
    Progress(String),
    /// Nothing before so much time has gone.
    Later(Duration),
    /// It has ended.
    Done(Result<ActionOutcome, HandlerError>),
}

/// What became of an action (WIT `pages.outcome`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// Done.
    Success {
        /// As JSON text: not yet checked.
        value: String,
        /// Loaders whose values have changed by it.
        stale: Vec<String>,
    },
    /// Elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A URL or a part of one.
        location: String,
    },
    /// Refused.
    Deny(FormDenial),
}

/// The beginning of a field of a form (WIT `forms.field`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// As the form has it.
    pub name: String,
    /// Of a file.
    pub filename: Option<String>,
    /// As the client says.
    pub content_type: Option<String>,
}

/// Why there is no more of a form (WIT `forms.form-error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// The client went away, or what it sent is no form.
    Broken,
    /// More than the limit.
    TooLarge,
    /// Later than the limit.
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
pub type Piece<'a, T> = Pin<Box<dyn Future<Output = Result<Option<T>, FormError>> + Send + 'a>>;

/// A form as it comes. What is not read of it stays with the client.
pub trait Form: Send {
    /// WIT `forms.form.json`.
    fn json(&self) -> Option<&str>;
    /// WIT `forms.form.next`.
    fn next(&mut self) -> Piece<'_, Field>;
    /// WIT `forms.form.read`.
    fn read(&mut self) -> Piece<'_, Bytes>;
}
