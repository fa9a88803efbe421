//! When rooms are to be called: one queue for all of them, so that a sleeping alarm costs no task.

use crate::RoomId;
use std::collections::{BTreeSet, HashMap};

/// The next alarm of each room that has one. Times are Unix milliseconds.
#[derive(Default)]
pub(crate) struct Alarms {
    due: BTreeSet<(u64, RoomId)>,
    by_room: HashMap<RoomId, u64>,
}

impl Alarms {
    /// Sets, moves or takes away the room's alarm.
    pub(crate) fn set(&mut self, room: &RoomId, at: Option<u64>) {
        if let Some(before) = self.by_room.remove(room) {
            self.due.remove(&(before, room.clone()));
        }
        if let Some(at) = at {
            self.by_room.insert(room.clone(), at);
            self.due.insert((at, room.clone()));
        }
    }

    /// Sets the alarm of a room that has none.
    pub(crate) fn set_again(&mut self, room: &RoomId, at: u64) {
        if !self.by_room.contains_key(room) {
            self.set(room, Some(at));
        }
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest that is due.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<RoomId> {
        let (at, room) = self.due.first().filter(|(at, _)| *at <= now).cloned()?;
        self.due.remove(&(at, room.clone()));
        self.by_room.remove(&room);
        Some(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_in_their_order_and_a_moved_one_comes_once() {
        let [tea, milk, rum] = ["tea", "milk", "rum"].map(|name| RoomId::new("chat", name).unwrap());
        let mut alarms = Alarms::default();
        for (room, at) in [(&tea, Some(5)), (&milk, Some(3)), (&rum, Some(1)), (&tea, Some(2)), (&rum, None)] {
            alarms.set(room, at);
        }
        assert_eq!((alarms.take_due(1), alarms.next()), (None, Some(2)));
        assert_eq!([alarms.take_due(9), alarms.take_due(9), alarms.take_due(9)], [Some(tea), Some(milk), None]);
    }
}
