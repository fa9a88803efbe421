//! One running loader: its next value is requested only when a stream wants it.
//!
//! A `RunningLoader` owns the loader's run; dropping it cancels the loader. Its phases are `Called` (a
//! call of the app is in flight), `Sleeping` (the loader has returned a time until which it has
//! nothing), `Idle` (the last value was taken) and `Ended`.
//!
//! The stream polls `poll_next`, which makes at most one call at a time. A loader that is not live
//! has a deadline for all its steps together; a live loader has none.
//!
//! Invariant: nothing comes after an end or an error, and every value is checked JSON within the
//! limit of a message. A fault goes to the log, and the client receives an error without its text.

use super::{PageContext, PageRequest, json};
use http::StatusCode;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_hub::{
    Fault, LoaderRun, Request,
    page::{HandlerError, LoaderStep},
};
use tidegate_routing::LoaderInfo;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

/// Next event of a loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoaderEvent {
    /// JSON on one line.
    Value(String),
    /// The loader ended successfully.
    End,
    /// The loader ended with an error.
    Failed(HandlerError),
    /// The deadline has passed.
    TimedOut,
}

impl LoaderEvent {
    /// Returns the event of a loader that continues when the server shuts down.
    pub(super) fn shutdown() -> LoaderEvent {
        LoaderEvent::Failed(HandlerError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "the server is going away".into(),
        })
    }

    /// Returns the problem for the client, or `None` if there is none.
    pub(super) fn problem(&self) -> Option<HandlerError> {
        match self {
            LoaderEvent::Value(_) | LoaderEvent::End => None,
            LoaderEvent::Failed(problem) => Some(problem.clone()),
            LoaderEvent::TimedOut => Some(HandlerError {
                status: StatusCode::GATEWAY_TIMEOUT,
                message: "it took too long".into(),
            }),
        }
    }
}

/// A call of the app. Returns the loader with its step.
type StepCall = Pin<Box<dyn Future<Output = Result<LoaderStepResult, Fault>> + Send>>;

type LoaderStepResult = (Box<dyn LoaderRun>, Result<LoaderStep, HandlerError>);

/// A loader of a requested page. Dropping it cancels the loader.
pub(super) struct RunningLoader {
    name: String,
    context: Arc<PageContext>,
    /// `None` if the loader is live.
    deadline: Option<Instant>,
    phase: LoaderPhase,
}

enum LoaderPhase {
    /// A call of the loader is in flight.
    Called(StepCall),
    /// The loader waits until its time, or until the deadline.
    Sleeping(Box<dyn LoaderRun>, LoaderPause),
    /// The last value was taken.
    Idle(Box<dyn LoaderRun>),
    Ended,
}

impl RunningLoader {
    pub(super) fn start(page_request: &PageRequest, info: &LoaderInfo) -> RunningLoader {
        let deadline = (!info.is_live)
            .then(|| Instant::now() + page_request.context.server.hub.limits().loader_within);
        let call = start(
            page_request.context.clone(),
            page_request.request.clone(),
            info.name.clone(),
        );
        RunningLoader {
            name: info.name.clone(),
            context: page_request.context.clone(),
            deadline,
            phase: LoaderPhase::Called(in_time(deadline, call)),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, LoaderPhase::Ended)
    }

    /// Returns true if the loader continues as long as its stream.
    pub(super) fn is_live(&self) -> bool {
        self.deadline.is_none()
    }

    /// Returns the time before which the loader has nothing, as it has announced.
    pub(super) fn sleeps_until(&self) -> Option<Instant> {
        match &self.phase {
            LoaderPhase::Sleeping(_, pause) => Some(pause.until),
            _ => None,
        }
    }

    /// Returns the next event, and stays pending after an end. The loader is asked for it now, not
    /// before.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<LoaderEvent> {
        loop {
            if let LoaderPhase::Sleeping(_, pause) = &mut self.phase {
                let hub = &self.context.server.hub;
                ready!(pause.poll(|| hub.now().monotonic, cx));
            }
            self.phase = match std::mem::replace(&mut self.phase, LoaderPhase::Ended) {
                LoaderPhase::Ended => return Poll::Pending,
                LoaderPhase::Idle(loader) | LoaderPhase::Sleeping(loader, _) => {
                    if self
                        .deadline
                        .is_some_and(|deadline| deadline <= Instant::now())
                    {
                        return Poll::Ready(fault_event(&self.context, &Fault::Wall));
                    }
                    LoaderPhase::Called(in_time(self.deadline, next_step(loader)))
                }
                LoaderPhase::Called(mut call) => match call.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.phase = LoaderPhase::Called(call);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((loader, Ok(LoaderStep::Later(wait))))) => {
                        LoaderPhase::Sleeping(loader, self.pause(wait))
                    }
                    Poll::Ready(Ok((loader, Ok(LoaderStep::Value(text))))) => {
                        match json::checked(text, self.bytes_max()) {
                            Ok(json) => {
                                self.phase = LoaderPhase::Idle(loader);
                                return Poll::Ready(LoaderEvent::Value(json));
                            }
                            Err(fault) => return Poll::Ready(fault_event(&self.context, &fault)),
                        }
                    }
                    Poll::Ready(Ok((_, Ok(LoaderStep::End)))) => {
                        return Poll::Ready(LoaderEvent::End);
                    }
                    Poll::Ready(Ok((_, Err(problem)))) => {
                        return Poll::Ready(LoaderEvent::Failed(problem));
                    }
                    Poll::Ready(Err(fault)) => {
                        return Poll::Ready(fault_event(&self.context, &fault));
                    }
                },
            };
        }
    }

    fn pause(&self, wait: Duration) -> LoaderPause {
        let wait = match self.deadline {
            Some(deadline) => wait.min(deadline.saturating_duration_since(Instant::now())),
            None => wait,
        };
        LoaderPause::new(wait, LOOK, self.context.server.hub.now().monotonic)
    }

    fn bytes_max(&self) -> usize {
        self.context.server.hub.limits().message_bytes_max
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

async fn start(
    context: Arc<PageContext>,
    request: Arc<Request>,
    name: String,
) -> Result<LoaderStepResult, Fault> {
    let (index, _) = context.page();
    let loader = context
        .version
        .app
        .pages()
        .load(index, &name, &request)
        .await?;
    drop(request);
    next_step(loader).await
}

async fn next_step(mut loader: Box<dyn LoaderRun>) -> Result<LoaderStepResult, Fault> {
    let step = loader.next().await?;
    Ok((loader, step))
}

/// Limits the call by the deadline. At the deadline the loader has taken too long.
fn in_time(
    deadline: Option<Instant>,
    call: impl Future<Output = Result<LoaderStepResult, Fault>> + Send + 'static,
) -> StepCall {
    match deadline {
        None => Box::pin(call),
        Some(deadline) => {
            Box::pin(async move { timeout_at(deadline, call).await.unwrap_or(Err(Fault::Wall)) })
        }
    }
}

/// Reports a fault. A busy loop also counts as a loader that takes too long.
fn fault_event(context: &PageContext, fault: &Fault) -> LoaderEvent {
    let message = context.report_fault(fault);
    match fault {
        Fault::Cpu | Fault::Wall => LoaderEvent::TimedOut,
        fault => LoaderEvent::Failed(HandlerError {
            status: fault.status(),
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
