//! POST to a page: an action with its form, answered as HTML, as JSON, or as a stream of its
//! progress.
//!
//! `act` checks the form's kind and finds the action by its name. The name is in the form, so a
//! multipart form is read up to it before the action starts; the rest is read as the action asks
//! for it. `Run` owns the running action and yields its progress and then its outcome.
//!
//! Invariant: an action runs at most once for each request, and its outcome is the last event. If
//! the form breaks off because of its client, the client is at fault, whatever the action returned.
//!
//! `form` reads the form, `json` checks the values, and `show` renders the page again after a
//! refused action.

use super::{
    Pieces, Visit, Visited,
    form::{self, ClientFault, Form, Kind, Limits, Refused},
    json, show, streamed, whole,
};
use crate::{
    http::answer::{self, AnswerBody, HttpAnswer},
    http::media,
    http::request_body::RequestBody,
    sse::event_stream,
    sse::heartbeats,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;
use tidegate_hub::{
    ActionRun, Fault,
    budget::Share,
    contract, envelope,
    page::{ActionOutcome, ActionStep, HandlerError},
};
use tokio::time::{Instant, sleep, timeout_at};

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A redirection or the page again, for forms without JavaScript.
    Html,
    Json,
    /// The progress as events, then the outcome as JSON.
    Events,
}

const TOLD: [(&str, Told); 3] = [
    ("text/html", Told::Html),
    ("application/json", Told::Json),
    ("text/event-stream", Told::Events),
];

/// Runs the action that the form names. `collect` reads a small body whole, or refuses it.
pub(crate) async fn act(
    visit: Visit,
    body: RequestBody,
    share: Share,
    collect: impl AsyncFnOnce(RequestBody) -> Result<Bytes, HttpAnswer>,
) -> Result<HttpAnswer, Fault> {
    let headers = &visit.request.headers;
    let Some(told) = media::pick(headers, &TOLD) else {
        return Ok(answer::text(
            StatusCode::NOT_ACCEPTABLE,
            "an action answers with text/html, application/json or text/event-stream",
        ));
    };
    let (action, form) = match read(&visit, body, share, collect).await {
        Ok(read) => read,
        Err(answer) => return Ok(answer),
    };
    let (index, page) = visit.visited.page();
    if !page.actions.contains(&action) {
        return Ok(answer::text(
            StatusCode::NOT_FOUND,
            "the page has no such action",
        ));
    }
    let deadline = Instant::now() + visit.visited.server.hub.limits().upload_within;
    let client_fault = form.client_fault();
    let begun =
        visit
            .visited
            .version
            .app
            .pages()
            .act(index, &action, &visit.request, Box::new(form));
    let attempt = timeout_at(deadline, begun)
        .await
        .unwrap_or(Err(Fault::Wall));
    let run = Run {
        visited: visit.visited.clone(),
        deadline,
        client_fault,
        attempt: Some(attempt),
    };
    match told {
        Told::Events => Ok(events(run)),
        Told::Json => {
            let (status, envelope) = envelope(&visit.visited, run.end().await);
            Ok(whole(status, "application/json", envelope))
        }
        Told::Html => match run.end().await? {
            Ok(ActionOutcome::Success { .. }) => {
                redirect(StatusCode::SEE_OTHER, &visit.request.path)
            }
            Ok(ActionOutcome::Redirect { status, location }) => redirect(
                StatusCode::from_u16(status).expect("a checked status"),
                &location,
            ),
            Ok(ActionOutcome::Deny(denial)) => show::show(visit, Some((action, denial))).await,
            Err(HandlerError { status, message }) => Ok(answer::text(
                StatusCode::from_u16(status).expect("a checked status"),
                &message,
            )),
        },
    }
}

async fn read(
    visit: &Visit,
    body: RequestBody,
    share: Share,
    collect: impl AsyncFnOnce(RequestBody) -> Result<Bytes, HttpAnswer>,
) -> Result<(String, Form), HttpAnswer> {
    let refuse = |refused| match refused {
        Refused::NoMemory => answer::out_of_memory(),
        Refused::Bad(status, text) => answer::text(
            StatusCode::from_u16(status).expect("a status of ours"),
            &text,
        ),
    };
    let kind = Kind::of(&visit.request.headers).map_err(refuse)?;
    let limits = visit.visited.server.hub.limits();
    match kind {
        Kind::Multipart(boundary) => {
            let bounds = Limits {
                bytes_max: limits.upload_bytes_max,
                held_max: limits.body_bytes_max,
                within: limits.upload_within,
            };
            form::parts(boundary, body, bounds, share)
                .await
                .map_err(refuse)
        }
        Kind::Whole(encoding) => {
            form::whole(encoding, &collect(body).await?, share).map_err(refuse)
        }
    }
}

/// A running action.
struct Run {
    visited: Arc<Visited>,
    deadline: Instant,
    client_fault: ClientFault,
    /// `None` when the action has ended.
    attempt: Option<Result<Box<dyn ActionRun>, Fault>>,
}

/// Outcome of an action, an error of its handler, or a fault.
type Ended = Result<Result<ActionOutcome, HandlerError>, Fault>;

/// Next event of an action.
enum Heard {
    /// Progress as JSON.
    Progress(String),
    Ended(Result<ActionOutcome, HandlerError>),
}

impl Run {
    async fn end(mut self) -> Ended {
        loop {
            if let Heard::Ended(ended) = self.next().await? {
                return Ok(ended);
            }
        }
    }

    async fn next(&mut self) -> Result<Heard, Fault> {
        match self.ask().await {
            Ok(Heard::Progress(json)) => Ok(Heard::Progress(json)),
            // The client is at fault, whatever the action returned.
            ended => match self.client_fault.get() {
                Some(problem) => Ok(Heard::Ended(Err(problem))),
                None => ended,
            },
        }
    }

    async fn ask(&mut self) -> Result<Heard, Fault> {
        let mut attempt = self
            .attempt
            .take()
            .unwrap_or_else(|| Err(Fault::Host("the action has ended".into())))?;
        let (deadline, bytes_max) = (
            self.deadline,
            self.visited.server.hub.limits().message_bytes_max,
        );
        let update = async {
            loop {
                match attempt.next().await? {
                    ActionStep::Later(wait) => sleep(wait).await,
                    update => return Ok(update),
                }
            }
        };
        match timeout_at(deadline, update)
            .await
            .unwrap_or(Err(Fault::Wall))?
        {
            ActionStep::Progress(json) => {
                self.attempt = Some(Ok(attempt));
                Ok(Heard::Progress(json::checked(json, bytes_max)?))
            }
            ActionStep::Done(ended) => Ok(Heard::Ended(self.check(ended, bytes_max)?)),
            ActionStep::Later(_) => unreachable!("it was waited for"),
        }
    }

    /// Checks the outcome against the contract.
    fn check(
        &self,
        ended: Result<ActionOutcome, HandlerError>,
        bytes_max: usize,
    ) -> Result<Result<ActionOutcome, HandlerError>, Fault> {
        contract::check_end(&ended, self.visited.page().1, bytes_max)?;
        Ok(match ended {
            Ok(ActionOutcome::Success { value, stale }) => Ok(ActionOutcome::Success {
                value: json::checked(value, bytes_max)?,
                stale,
            }),
            ended => ended,
        })
    }
}

/// Returns a redirection that no cache keeps. It fails if the location is not a header value.
fn redirect(status: StatusCode, location: &str) -> Result<HttpAnswer, Fault> {
    let location = HeaderValue::from_str(location)
        .map_err(|_| Fault::Answer(format!("{location:?} is no location")))?;
    let mut answer = answer::text(status, "see the location");
    answer.headers_mut().insert(header::LOCATION, location);
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// Returns the outcome as status and JSON.
fn envelope(visited: &Visited, ended: Ended) -> (StatusCode, String) {
    let ended = ended.unwrap_or_else(|fault| {
        Err(HandlerError {
            status: fault.status(),
            message: visited.told(&fault),
        })
    });
    let status = StatusCode::from_u16(envelope::status(&ended)).expect("a checked status");
    (status, envelope::encode(&ended))
}

/// Returns a stream of each progress as an event, then the outcome.
fn events(run: Run) -> HttpAnswer {
    let beat_every = run.visited.server.hub.limits().comment_every;
    let pieces = unfold(Some(run), |run| async {
        let mut run = run?;
        Some(match run.next().await {
            Ok(Heard::Progress(json)) => (
                event_stream::event(None, Some("progress"), &json),
                Some(run),
            ),
            Ok(Heard::Ended(ended)) => (outcome(&run.visited, Ok(ended)), None),
            Err(fault) => (outcome(&run.visited, Err(fault)), None),
        })
    });
    // This body is not `Held`: the rest of its form may still come through hyper.
    let answer = streamed(
        "text/event-stream",
        AnswerBody::Stream(Pieces::stream(pieces)),
    );
    heartbeats::add(answer, beat_every)
}

fn outcome(visited: &Visited, ended: Ended) -> Bytes {
    event_stream::event(None, Some("outcome"), &envelope(visited, ended).1)
}
