//! `wasi:clocks/monotonic-clock`, 0.2 and 0.3, by a clock that counts suspend.

use crate::{
    clock::{self, monotonic},
    state::State,
};
use std::time::Duration;
use tokio::task::yield_now;
use wasmtime::{
    Result,
    component::{Accessor, HasData, HasSelf, Linker, Resource},
};
use wasmtime_wasi::{
    p2::{DynPollable, Pollable, bindings::clocks::monotonic_clock as clocks02, subscribe},
    p3::bindings::clocks::{monotonic_clock as clocks03, types},
};

/// Replaces the clocks of the library, which stand still during a suspend; those of 0.3 if
/// `concurrent`.
pub(super) fn add_to_linker(linker: &mut Linker<State>, concurrent: bool) -> Result<()> {
    linker.allow_shadowing(true);
    clocks02::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    if concurrent {
        clocks03::add_to_linker::<_, MonotonicClock>(linker, |state| state)?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// Resolution of the clock, in nanoseconds.
const RESOLUTION: u64 = 1;

/// Nanoseconds since the instance was made.
fn now(state: &State) -> u64 {
    let age = monotonic().saturating_sub(state.began);
    age.as_nanos() as u64
}

/// A wait of 0.2, as its `pollable`.
struct ClockWait {
    until: Duration,
    /// True if the next look yields first: a guest that polls with a wait of zero length in a loop
    /// would otherwise keep the runtime from looking at its sockets.
    has_to_yield: bool,
}

impl ClockWait {
    fn push(state: &mut State, duration: Duration) -> Result<Resource<DynPollable>> {
        let wait = state.table.push(ClockWait {
            until: monotonic().saturating_add(duration),
            has_to_yield: duration.is_zero(),
        })?;
        subscribe(&mut state.table, wait)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for ClockWait {
    async fn ready(&mut self) {
        if self.has_to_yield {
            self.has_to_yield = false;
            yield_now().await;
        }
        clock::sleep_until(self.until).await;
    }
}

impl clocks02::Host for State {
    fn now(&mut self) -> Result<u64> {
        Ok(now(self))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(RESOLUTION)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        let left = when.saturating_sub(now(self));
        ClockWait::push(self, Duration::from_nanos(left))
    }

    fn subscribe_duration(&mut self, duration: u64) -> Result<Resource<DynPollable>> {
        ClockWait::push(self, Duration::from_nanos(duration))
    }
}

/// The clock of 0.3, in the state of a store.
struct MonotonicClock;

impl HasData for MonotonicClock {
    type Data<'a> = &'a mut State;
}

impl clocks03::Host for State {
    fn now(&mut self) -> Result<clocks03::Mark> {
        Ok(now(self))
    }

    fn get_resolution(&mut self) -> Result<types::Duration> {
        Ok(RESOLUTION)
    }
}

impl<T> clocks03::HostWithStore<T> for MonotonicClock {
    async fn wait_until(store: &Accessor<T, Self>, when: clocks03::Mark) -> Result<()> {
        let left = store.with(|mut access| when.saturating_sub(now(access.get())));
        clock::sleep(Duration::from_nanos(left)).await;
        Ok(())
    }

    async fn wait_for(_: &Accessor<T, Self>, duration: types::Duration) -> Result<()> {
        clock::sleep(Duration::from_nanos(duration)).await;
        Ok(())
    }
}
