//! POST to a page: an action with its form, answered as HTML, as JSON, or as a stream of its
//! progress.
//!
//! `act` checks the form's kind and finds the action by its name. The name is in the form, so a
//! multipart form is read up to it before the action starts; the rest is read as the action asks
//! for it. `RunningAction` owns the action and yields its progress and then its outcome.
//!
//! Invariant: an action runs at most once for each request, and its outcome is the last event. If
//! the form breaks off because of its client, the client is at fault, whatever the action returned.
//!
//! `form` reads the form, `json` checks the values, and `show` renders the page again after a
//! refused action.

use super::{
    PageContext, PageRequest, Pieces,
    form::{self, ClientFault, FormKind, FormLimits, FormReader, FormRefusal},
    json, show, streamed_answer, whole_answer,
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

/// Format of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseFormat {
    /// A redirection or the page again, for forms without JavaScript.
    Html,
    Json,
    /// The progress as events, then the outcome as JSON.
    Events,
}

const RESPONSE_FORMATS: [(&str, ResponseFormat); 3] = [
    ("text/html", ResponseFormat::Html),
    ("application/json", ResponseFormat::Json),
    ("text/event-stream", ResponseFormat::Events),
];

/// Runs the action that the form names. `collect` reads a small body whole, or refuses it.
pub(crate) async fn act(
    page_request: PageRequest,
    body: RequestBody,
    share: Share,
    collect: impl AsyncFnOnce(RequestBody) -> Result<Bytes, HttpAnswer>,
) -> Result<HttpAnswer, Fault> {
    let headers = &page_request.request.headers;
    let Some(format) = media::pick(headers, &RESPONSE_FORMATS) else {
        return Ok(answer::text(
            StatusCode::NOT_ACCEPTABLE,
            "an action answers with text/html, application/json or text/event-stream",
        ));
    };
    let (action, form) = match read_form(&page_request, body, share, collect).await {
        Ok(form) => form,
        Err(answer) => return Ok(answer),
    };
    let (index, page) = page_request.context.page();
    if !page.actions.contains(&action) {
        return Ok(answer::text(
            StatusCode::NOT_FOUND,
            "the page has no such action",
        ));
    }
    let deadline = Instant::now() + page_request.context.server.hub.limits().upload_within;
    let client_fault = form.client_fault();
    let started = page_request.context.version.app.pages().act(
        index,
        &action,
        &page_request.request,
        Box::new(form),
    );
    let run = timeout_at(deadline, started)
        .await
        .unwrap_or(Err(Fault::Wall));
    let running = RunningAction {
        context: page_request.context.clone(),
        deadline,
        client_fault,
        run: Some(run),
    };
    match format {
        ResponseFormat::Events => Ok(event_stream_of(running)),
        ResponseFormat::Json => {
            let (status, envelope) = encode_outcome(&page_request.context, running.finish().await);
            Ok(whole_answer(status, "application/json", envelope))
        }
        ResponseFormat::Html => match running.finish().await? {
            Ok(ActionOutcome::Success { .. }) => {
                redirect(StatusCode::SEE_OTHER, &page_request.request.path)
            }
            Ok(ActionOutcome::Redirect { status, location }) => redirect(status, &location),
            Ok(ActionOutcome::Deny(denial)) => {
                show::show(page_request, Some((action, denial))).await
            }
            Err(HandlerError { status, message }) => Ok(answer::text(status, &message)),
        },
    }
}

async fn read_form(
    page_request: &PageRequest,
    body: RequestBody,
    share: Share,
    collect: impl AsyncFnOnce(RequestBody) -> Result<Bytes, HttpAnswer>,
) -> Result<(String, FormReader), HttpAnswer> {
    let refuse = |refusal| match refusal {
        FormRefusal::NoMemory => answer::out_of_memory(),
        FormRefusal::Invalid(status, text) => answer::text(status, &text),
    };
    let kind = FormKind::of(&page_request.request.headers).map_err(refuse)?;
    let limits = page_request.context.server.hub.limits();
    match kind {
        FormKind::Multipart(boundary) => {
            let form_limits = FormLimits {
                bytes_max: limits.upload_bytes_max,
                held_max: limits.body_bytes_max,
                within: limits.upload_within,
            };
            form::read_parts(boundary, body, form_limits, share)
                .await
                .map_err(refuse)
        }
        FormKind::Whole(encoding) => {
            form::read_whole(encoding, &collect(body).await?, share).map_err(refuse)
        }
    }
}

/// A running action.
struct RunningAction {
    context: Arc<PageContext>,
    deadline: Instant,
    client_fault: ClientFault,
    /// `None` when the action has ended.
    run: Option<Result<Box<dyn ActionRun>, Fault>>,
}

/// Outcome of an action, an error of its handler, or a fault.
type ActionResult = Result<Result<ActionOutcome, HandlerError>, Fault>;

/// Next event of an action.
enum ActionEvent {
    /// Progress as JSON.
    Progress(String),
    Ended(Result<ActionOutcome, HandlerError>),
}

impl RunningAction {
    async fn finish(mut self) -> ActionResult {
        loop {
            if let ActionEvent::Ended(ended) = self.next_event().await? {
                return Ok(ended);
            }
        }
    }

    async fn next_event(&mut self) -> Result<ActionEvent, Fault> {
        match self.step().await {
            Ok(ActionEvent::Progress(json)) => Ok(ActionEvent::Progress(json)),
            // The client is at fault, whatever the action returned.
            ended => match self.client_fault.get() {
                Some(problem) => Ok(ActionEvent::Ended(Err(problem))),
                None => ended,
            },
        }
    }

    async fn step(&mut self) -> Result<ActionEvent, Fault> {
        let mut run = self
            .run
            .take()
            .unwrap_or_else(|| Err(Fault::Host("the action has ended".into())))?;
        let (deadline, bytes_max) = (
            self.deadline,
            self.context.server.hub.limits().message_bytes_max,
        );
        let update = async {
            loop {
                match run.next().await? {
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
                self.run = Some(Ok(run));
                Ok(ActionEvent::Progress(json::checked(json, bytes_max)?))
            }
            ActionStep::Done(ended) => Ok(ActionEvent::Ended(self.check(ended, bytes_max)?)),
            ActionStep::Later(_) => unreachable!("it was waited for"),
        }
    }

    /// Checks the outcome against the contract.
    fn check(
        &self,
        ended: Result<ActionOutcome, HandlerError>,
        bytes_max: usize,
    ) -> Result<Result<ActionOutcome, HandlerError>, Fault> {
        if let Ok(outcome) = &ended {
            contract::check_outcome(outcome, self.context.page().1, bytes_max)?;
        }
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
fn encode_outcome(context: &PageContext, result: ActionResult) -> (StatusCode, String) {
    let ended = result.unwrap_or_else(|fault| {
        Err(HandlerError {
            status: fault.status(),
            message: context.report_fault(&fault),
        })
    });
    (envelope::status(&ended), envelope::encode(&ended))
}

/// Returns a stream of each progress as an event, then the outcome.
fn event_stream_of(running: RunningAction) -> HttpAnswer {
    let beat_every = running.context.server.hub.limits().comment_every;
    let pieces = unfold(Some(running), |running| async {
        let mut running = running?;
        Some(match running.next_event().await {
            Ok(ActionEvent::Progress(json)) => (
                event_stream::event(None, Some("progress"), &json),
                Some(running),
            ),
            Ok(ActionEvent::Ended(ended)) => (outcome_event(&running.context, Ok(ended)), None),
            Err(fault) => (outcome_event(&running.context, Err(fault)), None),
        })
    });
    // This body is not `Held`: the rest of its form may still come through hyper.
    let answer = streamed_answer(
        "text/event-stream",
        AnswerBody::Stream(Pieces::stream(pieces)),
    );
    heartbeats::add(answer, beat_every)
}

fn outcome_event(context: &PageContext, result: ActionResult) -> Bytes {
    event_stream::event(None, Some("outcome"), &encode_outcome(context, result).1)
}
