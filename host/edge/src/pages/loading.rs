//! Loaders that run: what each has next, asked for only when somebody wants it.

use super::{Visit, Visited, json};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_hub::{
    Fault, LoaderRun, Request, contract,
    page::{HandlerError, LoaderStep},
};
use tidegate_routing::LoaderInfo;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

/// What a loader brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// JSON on one line.
    Value(String),
    /// It ended well.
    End,
    /// It ended otherwise.
    Failed(HandlerError),
    /// Its time was up.
    TimedOut,
}

impl Brought {
    /// For a client that wants to know what is wrong; none if nothing is.
    pub(super) fn problem(&self) -> Option<HandlerError> {
        match self {
            Brought::Value(_) | Brought::End => None,
            Brought::Failed(problem) => Some(problem.clone()),
            Brought::TimedOut => Some(HandlerError {
                status: 504,
                message: "it took too long".into(),
            }),
        }
    }
}

type Asked = Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>>;

/// The loader, and what it answered.
type Outcome = (Box<dyn LoaderRun>, Result<LoaderStep, HandlerError>);

/// One loader of a visit. Dropping it cancels the loader.
pub(super) struct Loading {
    name: String,
    visited: Arc<Visited>,
    /// None while its loader is live.
    deadline: Option<Instant>,
    stage: Stage,
}

enum Stage {
    /// Until it answers.
    Asked(Asked),
    /// Until it wants to be asked again, or its time is up.
    Sleeping(Box<dyn LoaderRun>, Pin<Box<Sleep>>),
    /// What it brought last was taken.
    Idle(Box<dyn LoaderRun>),
    Ended,
}

impl Loading {
    pub(super) fn begin(visit: &Visit, info: &LoaderInfo) -> Loading {
        let deadline = (!info.is_live)
            .then(|| Instant::now() + visit.visited.server.hub.limits().loader_within);
        let begun = begin(
            visit.visited.clone(),
            visit.request.clone(),
            info.name.clone(),
        );
        Loading {
            name: info.name.clone(),
            visited: visit.visited.clone(),
            deadline,
            stage: Stage::Asked(in_time(deadline, begun)),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Whether it goes on for as long as anybody wants it.
    pub(super) fn is_live(&self) -> bool {
        self.deadline.is_none()
    }

    /// Until when it surely brings nothing, by its own word.
    pub(super) fn sleeps_until(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Sleeping(_, sleep) => Some(sleep.deadline()),
            _ => None,
        }
    }

    /// What it brings next; nothing more behind an end. It is asked for it now, not before.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Brought> {
        loop {
            if let Stage::Sleeping(_, sleep) = &mut self.stage {
                ready!(sleep.as_mut().poll(cx));
            }
            self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Ended => return Poll::Pending,
                Stage::Idle(loader) | Stage::Sleeping(loader, _) => {
                    if self
                        .deadline
                        .is_some_and(|deadline| deadline <= Instant::now())
                    {
                        return Poll::Ready(failed(&self.visited, &Fault::Wall));
                    }
                    Stage::Asked(in_time(self.deadline, ask(loader)))
                }
                Stage::Asked(mut asked) => match asked.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.stage = Stage::Asked(asked);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((loader, Ok(LoaderStep::Later(wait))))) => {
                        Stage::Sleeping(loader, self.sleep(wait))
                    }
                    Poll::Ready(Ok((loader, Ok(LoaderStep::Value(text))))) => {
                        match json::checked(text, self.bytes_max()) {
                            Ok(json) => {
                                self.stage = Stage::Idle(loader);
                                return Poll::Ready(Brought::Value(json));
                            }
                            Err(fault) => return Poll::Ready(failed(&self.visited, &fault)),
                        }
                    }
                    Poll::Ready(Ok((_, Ok(LoaderStep::End)))) => return Poll::Ready(Brought::End),
                    Poll::Ready(Ok((_, Err(problem)))) => {
                        return Poll::Ready(refused(&self.visited, problem));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(failed(&self.visited, &fault)),
                },
            };
        }
    }

    fn sleep(&self, wait: Duration) -> Pin<Box<Sleep>> {
        let wake = Instant::now() + wait;
        Box::pin(sleep_until(
            self.deadline.map_or(wake, |deadline| deadline.min(wake)),
        ))
    }

    fn bytes_max(&self) -> usize {
        self.visited.server.hub.limits().message_bytes_max
    }
}

async fn begin(
    visited: Arc<Visited>,
    request: Arc<Request>,
    name: String,
) -> Result<Outcome, Fault> {
    let (index, _) = visited.page();
    let loader = visited
        .version
        .app
        .pages()
        .load(index, &name, &request)
        .await?;
    drop(request);
    ask(loader).await
}

async fn ask(mut loader: Box<dyn LoaderRun>) -> Result<Outcome, Fault> {
    let step = loader.next().await?;
    Ok((loader, step))
}

/// A loader that is asked when its time is up has taken too long.
fn in_time(
    deadline: Option<Instant>,
    asked: impl Future<Output = Result<Outcome, Fault>> + Send + 'static,
) -> Asked {
    match deadline {
        None => Box::pin(asked),
        Some(deadline) => Box::pin(async move {
            timeout_at(deadline, asked)
                .await
                .unwrap_or(Err(Fault::Wall))
        }),
    }
}

/// Its own error, if it is one that a client can be told.
fn refused(visited: &Visited, problem: HandlerError) -> Brought {
    match contract::check_problem(&problem) {
        Ok(()) => Brought::Failed(problem),
        Err(fault) => failed(visited, &fault),
    }
}

/// A busy loop is a loader that takes too long, too.
fn failed(visited: &Visited, fault: &Fault) -> Brought {
    let message = visited.told(fault);
    match fault {
        Fault::Cpu | Fault::Wall => Brought::TimedOut,
        Fault::Busy | Fault::Shortage | Fault::Unavailable(_) => Brought::Failed(HandlerError {
            status: 503,
            message,
        }),
        _ => Brought::Failed(HandlerError {
            status: 500,
            message,
        }),
    }
}
