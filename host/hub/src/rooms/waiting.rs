//! The table of rooms that wait for the answer of another room. It shows every circle before it
//! closes.

use crate::{name::RoomId, rooms::calls::CallError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Each waiting room, and the room that it waits for.
#[derive(Default)]
pub(crate) struct WaitingRooms(Mutex<HashMap<RoomId, RoomId>>);

/// Marks that a room's event waits for the answer of another room.
pub(crate) struct WaitGuard {
    rooms: Arc<WaitingRooms>,
    caller: RoomId,
}

impl WaitingRooms {
    /// Notes that the caller waits for the room. Fails if that would be a cycle.
    pub(crate) fn begin(
        self: &Arc<WaitingRooms>,
        caller: &RoomId,
        room: &RoomId,
    ) -> Result<WaitGuard, CallError> {
        let mut waits = self.waits();
        let mut next = Some(room);
        while let Some(room) = next {
            if room == caller {
                return Err(CallError::Cycle);
            }
            next = waits.get(room);
        }
        waits.insert(caller.clone(), room.clone());
        Ok(WaitGuard {
            rooms: self.clone(),
            caller: caller.clone(),
        })
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<RoomId, RoomId>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the table of waits")
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.rooms.waits().remove(&self.caller);
    }
}
