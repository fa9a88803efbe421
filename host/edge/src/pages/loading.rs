//! Loaders that run: what each has next, asked for only when somebody wants it.

use super::{Visit, json};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tidegate_hub::{
    Fault, Loader, LoaderInfo,
    page::{Problem, Step},
};
use tokio::time::{Instant, sleep, timeout_at};

/// What a loader brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// JSON on one line.
    Value(String),
    /// It ended well.
    End,
    /// It ended otherwise.
    Failed(Problem),
    /// Its time was up.
    TimedOut,
}

impl Brought {
    /// For a client that wants to know what is wrong; none if nothing is.
    pub(super) fn problem(&self) -> Option<Problem> {
        match self {
            Brought::Value(_) | Brought::End => None,
            Brought::Failed(problem) => Some(problem.clone()),
            Brought::TimedOut => Some(Problem { status: 504, message: "it took too long".into() }),
        }
    }
}

type Asked = Pin<Box<dyn Future<Output = (Option<Box<dyn Loader>>, Brought)> + Send>>;

/// One loader of a visit. Dropping it cancels the loader.
pub(super) struct Loading {
    name: String,
    visit: Visit,
    /// None while its loader is live.
    deadline: Option<Instant>,
    stage: Stage,
}

enum Stage {
    /// Until the next thing that it brings.
    Asked(Asked),
    /// The last thing was taken.
    Idle(Box<dyn Loader>),
    Ended,
}

impl Loading {
    pub(super) fn begin(visit: &Visit, info: &LoaderInfo) -> Loading {
        let deadline = (!info.live).then(|| Instant::now() + visit.server.hub.limits().loader_within);
        let (name, visit) = (info.name.clone(), visit.clone());
        let begun = begin(visit.clone(), name.clone());
        let stage = Stage::Asked(in_time(deadline, visit.clone(), begun));
        Loading { name, visit, deadline, stage }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Whether it can only end when it wants to.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What it brings next; nothing more behind an end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Brought> {
        if let Stage::Idle(_) = self.stage {
            let Stage::Idle(loader) = std::mem::replace(&mut self.stage, Stage::Ended) else { unreachable!("it was looked at") };
            self.stage = Stage::Asked(in_time(self.deadline, self.visit.clone(), ask(loader)));
        }
        let Stage::Asked(asked) = &mut self.stage else { return Poll::Pending };
        let (loader, brought) = std::task::ready!(asked.as_mut().poll(cx));
        self.stage = loader.map_or(Stage::Ended, Stage::Idle);
        Poll::Ready(brought)
    }
}

type Outcome = (Box<dyn Loader>, Result<Option<String>, Problem>);

async fn begin(visit: Visit, name: String) -> Result<Outcome, Fault> {
    let (index, _) = visit.page();
    ask(visit.version.app.pages().load(index, &name, &visit.request).await?).await
}

/// The loader and its next value, or its end.
async fn ask(mut loader: Box<dyn Loader>) -> Result<Outcome, Fault> {
    loop {
        let outcome = match loader.next().await? {
            Ok(Step::Value(json)) => Ok(Some(json)),
            Ok(Step::End) => Ok(None),
            Ok(Step::Later(wait)) => {
                sleep(wait).await;
                continue;
            }
            Err(problem) => Err(problem),
        };
        return Ok((loader, outcome));
    }
}

fn in_time(deadline: Option<Instant>, visit: Visit, asked: impl Future<Output = Result<Outcome, Fault>> + Send + 'static) -> Asked {
    Box::pin(async move {
        let outcome = match deadline {
            None => asked.await,
            Some(deadline) => match timeout_at(deadline, asked).await {
                Ok(outcome) => outcome,
                Err(_) => return (None, Brought::TimedOut),
            },
        };
        let checked = outcome.and_then(|(loader, outcome)| {
            Ok(match outcome {
                Ok(Some(text)) => (Some(loader), Brought::Value(json::checked(text, visit.server.hub.limits().message_bytes_max)?)),
                Ok(None) => (None, Brought::End),
                Err(problem) => (None, Brought::Failed(check(problem)?)),
            })
        });
        checked.unwrap_or_else(|fault| (None, failed(&visit, &fault)))
    })
}

fn check(problem: Problem) -> Result<Problem, Fault> {
    match problem.status {
        400..=599 => Ok(problem),
        status => Err(Fault::Answer(format!("{status} is no status of a problem: 400 to 599"))),
    }
}

/// A busy loop is a loader that takes too long, too.
fn failed(visit: &Visit, fault: &Fault) -> Brought {
    let message = visit.told(fault);
    match fault {
        Fault::Cpu | Fault::Wall => Brought::TimedOut,
        Fault::Busy => Brought::Failed(Problem { status: 503, message }),
        _ => Brought::Failed(Problem { status: 500, message }),
    }
}
