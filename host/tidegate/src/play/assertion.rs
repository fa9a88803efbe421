//! The expectations of a script, compared with answers and events; a mismatch is described.

use super::{
    StepResult, WITHIN,
    participant::{ClientEvent, Participant},
    settle, within,
};
use crate::{
    hex,
    script::{Assertion, Expected, Pairs},
};
use serde_json::Value;
use tidegate_edge::client::{HttpResponse, StreamEvent};
use tidegate_hub::Message;
use tokio::time::timeout;

/// Compares an answer with the expected status, headers and body.
pub(super) async fn check_answer(
    mut answer: HttpResponse,
    status: Option<u16>,
    checks: &[Assertion],
    headers: &Pairs,
) -> StepResult {
    let (got, mut body) = (answer.status, Vec::new());
    while let Some(piece) = within(answer.next_piece())
        .await?
        .map_err(|error| error.to_string())?
    {
        body.extend_from_slice(&piece);
    }
    let shown = shown(&body);
    match status {
        Some(status) if got.as_u16() != status => {
            return Err(format!("answered {got} instead of {status}: {shown}"));
        }
        None if !got.is_success() => return Err(format!("answered {got}: {shown}")),
        _ => {}
    }
    for (name, value) in headers {
        let actual = answer
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if actual.as_ref() != Some(value) {
            return Err(format!(
                "the header {name} is {actual:?} instead of {value:?}"
            ));
        }
    }
    let unmet = checks.iter().find_map(|check| unmet(check, &body, None));
    unmet.map_or(Ok(()), |expected| {
        Err(format!("answered {shown} instead of {expected}"))
    })
}

/// Waits for the next event of a participant, and compares it.
pub(super) async fn expect(
    client: &str,
    participant: &mut Participant,
    what: &Expected,
) -> StepResult {
    if *what == Expected::Nothing {
        settle().await;
        return match participant.events.try_recv() {
            Ok(event) => Err(format!(
                "{client} received {}, but nothing was expected",
                describe(&event)
            )),
            Err(_) => Ok(()),
        };
    }
    let expected = match what {
        Expected::Message(checks) => checks
            .iter()
            .map(describe_check)
            .collect::<Vec<_>>()
            .join(" and "),
        Expected::Closed(code, _) => format!("the close {code}"),
        Expected::Ended => "the end of the feed".into(),
        Expected::Nothing => unreachable!("the branch above returns"),
    };
    let event = match timeout(WITHIN, participant.events.recv()).await {
        Ok(Some(event)) => event,
        Ok(None) => {
            return Err(format!(
                "{client} is disconnected, but {expected} was expected"
            ));
        }
        Err(_) => {
            return Err(format!(
                "{client} received nothing in {} s, but {expected} was expected",
                WITHIN.as_secs()
            ));
        }
    };
    let fits = match (what, &event) {
        (Expected::Message(checks), ClientEvent::Message(message)) => {
            let (Message::Text(_) | Message::Binary(_)) = message;
            checks
                .iter()
                .all(|check| unmet(check, bytes(message), None).is_none())
        }
        (Expected::Message(checks), ClientEvent::Event(event)) => checks
            .iter()
            .all(|check| unmet(check, event.data.as_bytes(), event.name.as_deref()).is_none()),
        (Expected::Closed(code, reason), ClientEvent::Closed(close)) => {
            close.code == *code
                && reason
                    .as_ref()
                    .is_none_or(|reason| close.reason.contains(&**reason))
        }
        (Expected::Ended, ClientEvent::Ended) => true,
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!(
            "{client} received {} instead of {expected}",
            describe(&event)
        ))
    }
}

/// Returns the description of the assertion if it does not hold.
fn unmet(check: &Assertion, bytes: &[u8], event: Option<&str>) -> Option<String> {
    let text = std::str::from_utf8(bytes);
    let fits = match check {
        Assertion::Text(wanted) => text == Ok(wanted),
        Assertion::Contains(part) => text.is_ok_and(|text| text.contains(&**part)),
        Assertion::Json(wanted) => serde_json::from_slice(bytes).is_ok_and(|had| has(&had, wanted)),
        Assertion::Binary(wanted) => bytes == wanted,
        Assertion::Event(wanted) => event == Some(wanted),
    };
    (!fits).then(|| describe_check(check))
}

fn describe_check(check: &Assertion) -> String {
    match check {
        Assertion::Text(text) => format!("{text:?}"),
        Assertion::Contains(part) => format!("a text with {part:?}"),
        Assertion::Json(json) => json.to_string(),
        Assertion::Binary(bytes) => hex::write(bytes),
        Assertion::Event(name) => format!("an event {name:?}"),
    }
}

/// True if `had` equals `wanted`, except that objects in `had` may have further members.
fn has(had: &Value, wanted: &Value) -> bool {
    match (had, wanted) {
        (Value::Object(had), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| had.get(name).is_some_and(|had| has(had, wanted))),
        (Value::Array(had), Value::Array(wanted)) => {
            had.len() == wanted.len()
                && had.iter().zip(wanted).all(|(had, wanted)| has(had, wanted))
        }
        (Value::Number(had), Value::Number(wanted)) => had.as_f64() == wanted.as_f64(),
        (had, wanted) => had == wanted,
    }
}

fn describe(event: &ClientEvent) -> String {
    match event {
        ClientEvent::Message(message) => shown(bytes(message)),
        ClientEvent::Event(StreamEvent {
            name: Some(name),
            data,
        }) => format!("the event {name:?} with {data:?}"),
        ClientEvent::Event(StreamEvent { name: None, data }) => format!("{data:?}"),
        ClientEvent::Closed(close) if close.reason.is_empty() => {
            format!("the close {}", close.code)
        }
        ClientEvent::Closed(close) => format!("the close {} ({})", close.code, close.reason),
        ClientEvent::Ended => "the end of the feed".into(),
    }
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => hex::write(bytes),
    }
}

fn bytes(message: &Message) -> &[u8] {
    match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
    }
}
