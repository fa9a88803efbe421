//! Outcomes of actions as JSON, for clients that ask for it and for the end of a stream.

use crate::page::{ActionOutcome, FormDenial, HandlerError};
use http::StatusCode;
use serde_json::{Map, Value, json};

/// Returns the status of an answer that carries the envelope.
pub fn status(ended: &Result<ActionOutcome, HandlerError>) -> StatusCode {
    match ended {
        Ok(ActionOutcome::Success { .. } | ActionOutcome::Redirect { .. }) => StatusCode::OK,
        Ok(ActionOutcome::Deny(denial)) => denial.status,
        Err(problem) => problem.status,
    }
}

/// Returns the envelope. It contains the value of a success as the app wrote it.
///
/// ```
/// use tidegate_hub::{envelope, page::ActionOutcome};
///
/// let ended = Ok(ActionOutcome::Success { value: "1.0e2".into(), stale: vec!["cart".into()] });
/// assert_eq!(envelope::encode(&ended), r#"{"outcome":"success","stale":["cart"],"value":1.0e2}"#);
/// ```
pub fn encode(ended: &Result<ActionOutcome, HandlerError>) -> String {
    let envelope = match ended {
        Ok(ActionOutcome::Success { value, stale }) => {
            let stale = json!(stale);
            return format!(r#"{{"outcome":"success","stale":{stale},"value":{value}}}"#);
        }
        Ok(ActionOutcome::Redirect { status, location }) => {
            json!({ "outcome": "redirect", "status": status.as_u16(), "location": location })
        }
        Ok(ActionOutcome::Deny(FormDenial {
            status,
            message,
            errors,
            ..
        })) => {
            let errors: Map<String, Value> = errors
                .iter()
                .map(|(name, text)| (name.clone(), text.as_str().into()))
                .collect();
            json!({ "outcome": "deny", "status": status.as_u16(), "message": message, "errors": errors })
        }
        Err(HandlerError { status, message }) => {
            json!({ "outcome": "error", "status": status.as_u16(), "message": message })
        }
    };
    envelope.to_string()
}
