//! Forms as they arrive. Fields of `multipart/form-data` are passed on piece by piece; other kinds
//! are small and read whole.
//!
//! Owner: the action's `FormReader` owns the parser with the request's body, and its share of the memory.
//! It reads when the action asks for the next field, so the client is slowed to the action's pace.
//!
//! States: first the beginning of the body is read, so that a client which sends nothing starts no
//! action. Then fields are kept in memory until one names the action, up to a limit. After that
//! each piece goes to the action.
//!
//! Invariant: the first reason why the form ends early is the one that counts. `RemainingParts` keeps it,
//! because the app reads the form and the host answers for it.
//!
//! `multipart` finds the fields, `part` reads their heads.

use super::{
    multipart::{Multipart, body_error},
    part,
};
use crate::http::request_body::RequestBody;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tidegate_hub::{
    budget::{OutOfMemory, Share},
    form::{self, ACTION_FIELD, FIELD_BYTES, FormEncoding, WholeForm},
    limits::{FORM_BEGUN_BYTES, FORM_FIELDS_MAX},
    page::{self, Field, FormError, FormPiece, HandlerError},
};
use tokio::time::{Instant, timeout_at};

/// Memory that a small form takes while it is parsed, per byte: values in JSON are not parsed.
const WHOLE_FACTOR: usize = 2;

/// Reason for the refusal of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FormRefusal {
    /// Status and text for the client.
    Invalid(StatusCode, String),
    /// The server is short of memory.
    NoMemory,
}

fn refusal(status: StatusCode, text: impl Into<String>) -> FormRefusal {
    FormRefusal::Invalid(status, text.into())
}

impl From<OutOfMemory> for FormRefusal {
    fn from(_: OutOfMemory) -> FormRefusal {
        FormRefusal::NoMemory
    }
}

impl From<FormError> for FormRefusal {
    fn from(error: FormError) -> FormRefusal {
        refusal(status(error), error.to_string())
    }
}

impl From<HandlerError> for FormRefusal {
    fn from(problem: HandlerError) -> FormRefusal {
        FormRefusal::Invalid(problem.status, problem.message)
    }
}

fn status(error: FormError) -> StatusCode {
    match error {
        FormError::Broken => StatusCode::BAD_REQUEST,
        FormError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FormError::TooSlow => StatusCode::REQUEST_TIMEOUT,
    }
}

/// Kinds of forms that the host reads.
pub(super) enum FormKind {
    /// A small form, read whole.
    Whole(FormEncoding),
    /// A multipart form with its boundary.
    Multipart(String),
}

impl FormKind {
    pub(super) fn of(headers: &http::HeaderMap) -> Result<FormKind, FormRefusal> {
        match crate::http::media::content_type(headers).as_deref() {
            Some("application/x-www-form-urlencoded") => {
                Ok(FormKind::Whole(FormEncoding::UrlEncoded))
            }
            Some("application/json") => Ok(FormKind::Whole(FormEncoding::Json)),
            Some("multipart/form-data") => {
                let boundary = headers
                    .get(http::header::CONTENT_TYPE)
                    .and_then(|value| part::boundary(value.as_bytes()));
                boundary.map(FormKind::Multipart).ok_or_else(|| {
                    refusal(
                        StatusCode::BAD_REQUEST,
                        "the content type has no valid boundary (RFC 2046 section 5.1.1)",
                    )
                })
            }
            _ => Err(refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a form is multipart/form-data, application/x-www-form-urlencoded or application/json",
            )),
        }
    }
}

/// Returns the action that a small form names, and the form. Its memory is reserved in `share`.
pub(super) fn read_whole(
    encoding: FormEncoding,
    body: &[u8],
    mut share: Share,
) -> Result<(String, FormReader), FormRefusal> {
    share.fit(WHOLE_FACTOR * body.len())?;
    let (action, buffered) = WholeForm::read(encoding, body)?;
    share.fit(buffered.weight())?;
    let form = FormReader {
        buffered,
        remaining: None,
        _share: share,
    };
    Ok((action, form))
}

/// Reads a multipart form up to the name of its action. The fields before it are kept in memory, at
/// most `held_max` bytes, which `share` reserves.
pub(super) async fn read_parts(
    boundary: String,
    body: RequestBody,
    limits: FormLimits,
    mut share: Share,
) -> Result<(String, FormReader), FormRefusal> {
    let mut remaining = RemainingParts::begin(&boundary, body, limits, &mut share).await?;
    let begun = share.bytes();
    let (mut fields, mut held) = (VecDeque::new(), 0);
    while let Some(field) = remaining.next_field().await? {
        let mut whole = Vec::new();
        held += field.name.len() + field.filename.as_ref().map_or(0, String::len);
        while held <= limits.held_max
            && let Some(piece) = remaining.read_value().await?
        {
            held += piece.len();
            // The buffer of a field grows to at most twice its length.
            share.fit(begun + 2 * held + FIELD_BYTES * fields.len())?;
            whole.extend_from_slice(&piece);
        }
        if held > limits.held_max {
            return Err(refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "put the field {ACTION_FIELD} before files: {} bytes came before it",
                    limits.held_max
                ),
            ));
        }
        if field.name == ACTION_FIELD {
            let action = String::from_utf8(whole).map_err(|_| form::no_action())?;
            return Ok((
                action,
                FormReader {
                    buffered: WholeForm::of_fields(fields),
                    remaining: Some(remaining),
                    _share: share,
                },
            ));
        }
        fields.push_back((field, whole.into()));
        if fields.len() > FORM_FIELDS_MAX {
            return Err(form::too_many_fields().into());
        }
    }
    Err(form::no_action().into())
}

/// Limits of a form that is read piece by piece.
#[derive(Clone, Copy)]
pub(super) struct FormLimits {
    pub(super) bytes_max: usize,
    pub(super) held_max: usize,
    pub(super) within: Duration,
}

/// A form whose action is known.
pub(super) struct FormReader {
    /// Fields that are in memory.
    buffered: WholeForm,
    remaining: Option<RemainingParts>,
    /// Memory of the whole form.
    _share: Share,
}

/// Shows whether the client of a form is at fault, even while another owner reads the form.
#[derive(Clone, Default)]
pub(super) struct ClientFault(Option<Arc<OnceLock<FormError>>>);

impl ClientFault {
    /// Returns the reason why the form can't be read to its end, if its client is too slow or sent
    /// no valid form.
    pub(super) fn get(&self) -> Option<HandlerError> {
        let cause = self
            .0
            .as_ref()?
            .get()
            .filter(|cause| **cause != FormError::TooLarge)?;
        Some(HandlerError {
            status: status(*cause),
            message: cause.to_string(),
        })
    }
}

impl FormReader {
    pub(super) fn client_fault(&self) -> ClientFault {
        ClientFault(self.remaining.as_ref().map(|parts| parts.failure.clone()))
    }
}

impl page::Form for FormReader {
    fn json(&self) -> Option<&str> {
        page::Form::json(&self.buffered)
    }

    fn next(&mut self) -> FormPiece<'_, Field> {
        Box::pin(async {
            if let Some(field) = self.buffered.next_field() {
                return Ok(Some(field));
            }
            let Some(remaining) = &mut self.remaining else {
                return Ok(None);
            };
            loop {
                match remaining.next_field().await? {
                    Some(field) if field.name == ACTION_FIELD => {}
                    next => return Ok(next),
                }
            }
        })
    }

    fn read(&mut self) -> FormPiece<'_, Bytes> {
        Box::pin(async {
            match &mut self.remaining {
                Some(remaining) if !self.buffered.is_in_field() => remaining.read_value().await,
                _ => Ok(self.buffered.take_value()),
            }
        })
    }
}

/// Parts that are still to be read.
struct RemainingParts {
    parts: Multipart<RequestBody>,
    deadline: Instant,
    /// Reason why the form ends early.
    failure: Arc<OnceLock<FormError>>,
}

impl RemainingParts {
    /// Reads the beginning of the form, so that no action starts for a client that sends almost
    /// nothing.
    async fn begin(
        boundary: &str,
        mut body: RequestBody,
        limits: FormLimits,
        share: &mut Share,
    ) -> Result<RemainingParts, FormRefusal> {
        let deadline = Instant::now() + limits.within;
        let begun = timeout_at(deadline, read_beginning(&mut body, share))
            .await
            .unwrap_or(Err(FormError::TooSlow.into()))?;
        Ok(RemainingParts {
            parts: Multipart::new(boundary, begun, body, limits.bytes_max),
            deadline,
            failure: Arc::default(),
        })
    }

    async fn next_field(&mut self) -> Result<Option<Field>, FormError> {
        self.in_time(async |parts| parts.next_part().await).await
    }

    async fn read_value(&mut self) -> Result<Option<Bytes>, FormError> {
        self.in_time(async |parts| parts.read_content().await).await
    }

    /// Takes a step of the parser before the deadline. The first error is also that of all later
    /// steps.
    async fn in_time<T>(
        &mut self,
        step: impl AsyncFnOnce(&mut Multipart<RequestBody>) -> Result<T, FormError>,
    ) -> Result<T, FormError> {
        if let Some(failure) = self.failure.get() {
            return Err(*failure);
        }
        let outcome = timeout_at(self.deadline, step(&mut self.parts))
            .await
            .unwrap_or(Err(FormError::TooSlow));
        outcome.inspect_err(|error| _ = self.failure.set(*error))
    }
}

/// Reads [`FORM_BEGUN_BYTES`] of a body and the rest of their piece, or all of it. There is one
/// buffer, since the pieces of a slow client are small.
async fn read_beginning(body: &mut RequestBody, share: &mut Share) -> Result<Bytes, FormRefusal> {
    let mut begun = Vec::new();
    while begun.len() < FORM_BEGUN_BYTES
        && let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    {
        if let Ok(bytes) = frame.map_err(body_error)?.into_data() {
            // The buffer grows to at most twice its length.
            share.fit(2 * (begun.len() + bytes.len()))?;
            begun.extend_from_slice(&bytes);
        }
    }
    Ok(begun.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_hub::{
        Budget,
        budget::{MemoryAccount, MemoryKind},
    };

    fn share_of(bytes_max: usize) -> Share {
        Share::new(
            &MemoryAccount::new(&Arc::new(Budget::new(bytes_max))),
            MemoryKind::Request,
        )
    }

    fn status(refused: &FormRefusal) -> u16 {
        match refused {
            FormRefusal::Invalid(status, _) => status.as_u16(),
            FormRefusal::NoMemory => 503,
        }
    }

    #[test]
    fn a_small_form_for_which_there_is_no_memory_is_refused() {
        let body = format!("__action=buy&n={}", "1".repeat(100_000));
        for (bytes_max, fits) in [(2 << 20, true), (200 << 10, false)] {
            let read = read_whole(
                FormEncoding::UrlEncoded,
                body.as_bytes(),
                share_of(bytes_max),
            );
            assert_eq!(
                read.as_ref().map(drop).map_err(status),
                if fits { Ok(()) } else { Err(503) }
            );
        }
    }
}
