//! The spawner of the hub's room scheduler under test: tasks wait in a queue until a test polls
//! them.
//!
//! A handler that calls a room runs inside a poll, and its answer must be available when it
//! returns. So [`block_on`](Tasks::block_on) is called again inside that poll. It then polls tasks
//! of the called room only: another task might call a room whose own task is further up the stack,
//! and would wait for it forever. The hub refuses such a call only if rooms wait in a circle.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tidegate_hub::{
    RoomId,
    rooms::scheduler::{RoomTask, Spawn},
};

/// Tasks of rooms that wait to be polled. A task that is being polled is not among them.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<VecDeque<(RoomId, RoomTask)>>>);

impl Tasks {
    pub(super) fn spawner(&self) -> Spawn {
        let tasks = self.clone();
        Box::new(move |room, task| tasks.queue().push_back((room.clone(), task)))
    }

    /// Polls tasks until none is left.
    pub(super) fn run(&self) {
        while self.poll_one(None) {}
    }

    /// Polls the future, and tasks, until it is ready. Returns `None` if it waits for something
    /// other than a task. With `room`, only tasks of that room are polled.
    pub(super) fn block_on<T>(
        &self,
        future: impl Future<Output = T>,
        room: Option<&RoomId>,
    ) -> Option<T> {
        let mut future = pin!(future);
        loop {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return Some(value);
            }
            if !self.poll_one(room) {
                return None;
            }
        }
    }

    /// Polls the first task once. Returns false if there is none.
    fn poll_one(&self, room: Option<&RoomId>) -> bool {
        let next = {
            let mut queue = self.queue();
            let at = queue
                .iter()
                .position(|(own, _)| room.is_none_or(|room| room == own));
            at.and_then(|at| queue.remove(at))
        };
        let Some((own, mut task)) = next else {
            return false;
        };
        // Storage is in memory and calls end inside the poll, so a pending task has only yielded to
        // the others.
        if task
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            self.queue().push_back((own, task));
        }
        true
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(RoomId, RoomTask)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
