//! The rooms whose last wake failed.

use crate::{limits::ROOMS_FAILING_MAX, name::RoomId};
use std::collections::VecDeque;

/// Rooms whose last wake failed, in the order of their first failure. Clients choose names of
/// rooms, so the length is bounded.
#[derive(Default)]
pub(crate) struct FailingRooms(VecDeque<RoomId>);

impl FailingRooms {
    /// Notes a failed wake. Returns the room that failed first if there are too many: its failures
    /// are forgotten.
    pub(crate) fn note(&mut self, room: &RoomId) -> Option<RoomId> {
        if self.0.contains(room) {
            return None;
        }
        self.0.push_back(room.clone());
        if self.0.len() > ROOMS_FAILING_MAX {
            self.0.pop_front()
        } else {
            None
        }
    }
}
