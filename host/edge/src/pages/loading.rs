//! One running loader: its next value is requested only when a stream wants it.
//!
//! A `Loading` owns the loader's run; dropping it cancels the loader. Its stages are `Asked` (a
//! call of the app is in flight), `Sleeping` (the loader has returned a time until which it has
//! nothing), `Idle` (the last value was taken) and `Ended`.
//!
//! The stream polls `poll_next`, which makes at most one call at a time. A loader that is not live
//! has a deadline for all its steps together; a live loader has none.
//!
//! Invariant: nothing comes after an end or an error, and every value is checked JSON within the
//! limit of a message. A fault goes to the log, and the client receives an error without its text.

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
use tokio::time::{Instant, Sleep, sleep, timeout_at};

/// Next item of a loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// JSON on one line.
    Value(String),
    /// The loader ended successfully.
    End,
    /// The loader ended with an error.
    Failed(HandlerError),
    /// The deadline has passed.
    TimedOut,
}

impl Brought {
    /// Returns the problem for the client, or `None` if there is none.
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

/// The loader with its answer.
type Outcome = (Box<dyn LoaderRun>, Result<LoaderStep, HandlerError>);

/// A loader of a visit. Dropping it cancels the loader.
pub(super) struct Loading {
    name: String,
    visited: Arc<Visited>,
    /// `None` if the loader is live.
    deadline: Option<Instant>,
    stage: Stage,
}

enum Stage {
    /// A call of the loader is in flight.
    Asked(Asked),
    /// The loader waits until its time, or until the deadline.
    Sleeping(Box<dyn LoaderRun>, LoaderPause),
    /// The last value was taken.
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

    /// Returns true if the loader continues as long as its stream.
    pub(super) fn is_live(&self) -> bool {
        self.deadline.is_none()
    }

    /// Returns the time before which the loader brings nothing, as it has announced.
    pub(super) fn sleeps_until(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Sleeping(_, pause) => Some(pause.until),
            _ => None,
        }
    }

    /// Returns the next item, and stays pending after an end. The loader is asked for it now, not
    /// before.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Brought> {
        loop {
            if let Stage::Sleeping(_, pause) = &mut self.stage {
                let hub = &self.visited.server.hub;
                ready!(pause.poll(|| hub.now().monotonic, cx));
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
                        Stage::Sleeping(loader, self.pause(wait))
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

    fn pause(&self, wait: Duration) -> LoaderPause {
        let wait = match self.deadline {
            Some(deadline) => wait.min(deadline.saturating_duration_since(Instant::now())),
            None => wait,
        };
        LoaderPause::new(wait, LOOK, self.visited.server.hub.now().monotonic)
    }

    fn bytes_max(&self) -> usize {
        self.visited.server.hub.limits().message_bytes_max
    }
}

/// Maximum time between two looks of a pause at the hub's clock.
const LOOK: Duration = Duration::from_secs(1);

/// Maximum delay of the hub's clock.
const DELAY: Duration = Duration::from_secs(1);

/// The announced time without values. The runtime's timer stands still while the machine is
/// suspended, so the pause also ends when the hub's clock, which counts suspend, has passed its end.
struct LoaderPause {
    until: Instant,
    /// The same moment by the hub's clock in milliseconds, and [`DELAY`] more.
    hub_until: u64,
    look: Duration,
    timer: Pin<Box<Sleep>>,
}

impl LoaderPause {
    fn new(wait: Duration, look: Duration, hub_now: u64) -> LoaderPause {
        let until = Instant::now() + wait;
        let hub_wait = wait.saturating_add(DELAY).as_millis();
        LoaderPause {
            until,
            hub_until: hub_now.saturating_add(hub_wait.try_into().unwrap_or(u64::MAX)),
            look,
            timer: Box::pin(sleep(wait.min(look))),
        }
    }

    fn poll(&mut self, hub_now: impl Fn() -> u64, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.until || hub_now() >= self.hub_until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until.min(now + self.look));
        }
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

/// Limits the call by the deadline. At the deadline the loader has taken too long.
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

/// Returns the loader's own error, if a client may receive it.
fn refused(visited: &Visited, problem: HandlerError) -> Brought {
    match contract::check_problem(&problem) {
        Ok(()) => Brought::Failed(problem),
        Err(fault) => failed(visited, &fault),
    }
}

/// Logs a fault. A busy loop also counts as a loader that takes too long.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, future::poll_fn, pin::pin};
    use tokio::time::timeout;

    const HOUR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_pause_that_ends_during_a_suspend_is_over_soon_after_it() {
        let hub_now = Cell::new(5);
        let mut pause = LoaderPause::new(HOUR, SOON, hub_now.get());
        let mut end = pin!(poll_fn(|cx| pause.poll(|| hub_now.get(), cx)));
        for suspended in [Duration::ZERO, HOUR / 2] {
            hub_now.set(5 + suspended.as_millis() as u64);
            assert!(timeout(20 * SOON, end.as_mut()).await.is_err());
        }
        hub_now.set(5 + 2 * HOUR.as_millis() as u64);
        end.await;
    }

    #[tokio::test]
    async fn a_pause_without_a_suspend_ends_at_its_time() {
        let began = Instant::now();
        let mut pause = LoaderPause::new(20 * SOON, SOON, 5);
        poll_fn(|cx| pause.poll(|| 5, cx)).await;
        assert!(began.elapsed() >= 20 * SOON);
    }
}
