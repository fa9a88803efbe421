//! The host under test: the hub with its rooms, without network and wasm.
//!
//! It owns the clock. The time of day moves when the test moves it
//! ([`advance`](TestHost::advance)). The other clock, which delays the host's retries, also moves
//! when nothing else can happen. So a repeated event has finished when a call of the test returns.

use super::{
    client_response::within_contract,
    native_app::{NativeApp, Surroundings},
    tasks::Tasks,
    thread_bound::ThreadBound,
};
use crate::App;
use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tidegate_hub::{
    Fault, Hub, Limits, Now, RoomRouter, Rooms, TopicPolicy, testing::MemoryEngine,
};
use tidegate_routing::{Manifest, Router};

/// Start of the test's time, in Unix milliseconds: an arbitrary value, equal in each run.
const START: u64 = 2_000_000_000_000;

/// Milliseconds between two ticks of a waiting host.
const TICK: u64 = 250;

/// Maximum number of ticks to wait for an event.
const TICKS_MAX: usize = 1000;

pub(super) struct TestHost {
    pub(super) memory: MemoryEngine,
    surroundings: Surroundings,
    pub(super) rooms: Arc<Rooms>,
    pub(super) app: Arc<RoomRouter>,
    pub(super) router: Arc<Router>,
    native: Arc<ThreadBound<App>>,
    manifest: Manifest,
    now: Cell<Now>,
    /// Number of starts; it distinguishes the ids of one start from those of another.
    starts: u64,
}

impl TestHost {
    /// Serves the app on an empty storage.
    pub(super) fn start(app: App) -> TestHost {
        let (router, manifest) = super::checked(&app);
        let native = Arc::new(ThreadBound::new(app));
        TestHost::start_on(
            MemoryEngine::default(),
            native,
            Arc::new(router),
            manifest,
            Now::at(START),
            1,
        )
    }

    fn start_on(
        memory: MemoryEngine,
        native: Arc<ThreadBound<App>>,
        router: Arc<Router>,
        manifest: Manifest,
        now: Now,
        starts: u64,
    ) -> TestHost {
        let hub = Hub::new(Limits::default(), TopicPolicy::default(), starts);
        let tasks = Tasks::default();
        let storage = Arc::new(memory.clone());
        let rooms = Rooms::new(hub.clone(), storage, tasks.spawner(), now);
        let rooms = rooms.expect("memory can be read");
        let surroundings = Surroundings {
            hub,
            tasks,
            wall: Arc::new(AtomicU64::new(now.wall)),
            pieces_max: Arc::new(AtomicUsize::new(0)),
            broken: Arc::default(),
        };
        let app = route_to(&rooms, &native, &manifest, &surroundings);
        TestHost {
            memory,
            surroundings,
            rooms,
            app,
            router,
            native,
            manifest,
            now: Cell::new(now),
            starts,
        }
    }

    /// Kills the host, and starts it again with the same storage and app.
    pub(super) fn restart(&mut self) {
        *self = TestHost::start_on(
            self.memory.clone(),
            self.native.clone(),
            self.router.clone(),
            self.manifest.clone(),
            self.now.get(),
            self.starts + 1,
        );
    }

    /// Replaces the served version of the app.
    pub(super) fn reload(&mut self, app: App, router: Router, manifest: Manifest) {
        self.native = Arc::new(ThreadBound::new(app));
        self.app = route_to(&self.rooms, &self.native, &manifest, &self.surroundings);
        (self.router, self.manifest) = (Arc::new(router), manifest);
        self.surroundings.tasks.run();
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.surroundings.hub
    }

    pub(super) fn limits(&self) -> &Limits {
        self.surroundings.hub.limits()
    }

    /// Sets the number of pieces of a streamed answer after which clients leave.
    pub(super) fn set_pieces_max(&self, pieces_max: usize) {
        self.surroundings.pieces_max.store(pieces_max, Relaxed);
    }

    /// Runs a call of the app to its end. While the call waits for the host's next try, the host's
    /// clock moves. Fails the test if the app violates the contract.
    pub(super) fn call<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let mut call = pin!(call);
        for _ in 0..TICKS_MAX {
            if let Some(outcome) = self.surroundings.tasks.block_on(call.as_mut(), None) {
                // The room is idle only after its task has found that nothing waits.
                self.surroundings.tasks.run();
                self.check_calls();
                return outcome.inspect_err(|fault| {
                    assert!(!matches!(fault, Fault::Answer(_)), "{fault}");
                });
            }
            let now = self.now.get();
            self.tick(Now {
                monotonic: now.monotonic + TICK,
                ..now
            });
        }
        panic!("an event waits for what nothing brings")
    }

    /// Fails the test if a called room violated the contract.
    fn check_calls(&self) {
        let broken = &self.surroundings.broken;
        let broken = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        within_contract(broken.map_or(Ok(()), Err));
    }

    fn tick(&self, now: Now) {
        self.now.set(now);
        self.surroundings.wall.store(now.wall, Relaxed);
        self.rooms.tick(now);
    }

    /// Moves both clocks to the next alarm that is due within `until`, in Unix milliseconds, and
    /// calls it. If there is none, moves them to `until` and returns false.
    pub(super) fn advance_to(&self, until: u64) -> bool {
        let now = self.now.get();
        let next = self.rooms.next_alarm().filter(|next| *next <= until);
        let wall = next.unwrap_or(until).max(now.wall);
        self.tick(Now {
            monotonic: now.monotonic + (wall - now.wall),
            wall,
        });
        self.surroundings.tasks.run();
        self.check_calls();
        next.is_some()
    }

    /// Returns the time of day, in Unix milliseconds.
    pub(super) fn wall(&self) -> u64 {
        self.now.get().wall
    }
}

fn route_to(
    rooms: &Arc<Rooms>,
    native: &Arc<ThreadBound<App>>,
    manifest: &Manifest,
    surroundings: &Surroundings,
) -> Arc<RoomRouter> {
    let native = NativeApp::new(native.clone(), manifest.clone(), surroundings.clone());
    let app = RoomRouter::new(rooms.clone(), Arc::new(native), manifest.clone());
    app.serve();
    app
}
