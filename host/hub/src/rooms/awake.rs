//! The index of awake rooms: their number, and the idle ones in the order of their last use.
//!
//! A room is awake while a task runs its events or its instance is kept. The maximum of awake rooms
//! puts the room to sleep that was idle longest. The index finds it without a look at the others,
//! so a wake costs the same with few rooms and with many.
//!
//! For the index a room is asleep, running or idle. An idle room has a ticket. Tickets only grow,
//! so their order is the order in which the rooms came to rest, and no clock is needed.
//!
//! The scheduler owns the index. Each function is called under the lock of the room that changes,
//! so both agree, with one exception: `evict` takes a room out before the caller has its lock. If
//! the room starts in between, `start` counts it again, and its ticket is no longer valid.

use std::collections::BTreeMap;

/// Number and order of the awake rooms. `R` is a handle of a room.
pub(crate) struct AwakeRooms<R> {
    /// Number of running and idle rooms.
    count: usize,
    idle: BTreeMap<Ticket, R>,
    next: u64,
}

/// The place of an idle room in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl<R> Default for AwakeRooms<R> {
    fn default() -> AwakeRooms<R> {
        AwakeRooms {
            count: 0,
            idle: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<R> AwakeRooms<R> {
    /// Notes that a room runs. `idle` is its ticket, if it was idle and not asleep.
    pub(crate) fn start(&mut self, idle: Option<Ticket>) {
        let is_counted = idle.is_some_and(|ticket| self.idle.remove(&ticket).is_some());
        self.count += usize::from(!is_counted);
    }

    /// Notes that a running room is idle, and returns its ticket.
    pub(crate) fn rest(&mut self, room: R) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.idle.insert(ticket, room);
        ticket
    }

    /// Notes that a running room has no instance, and sleeps.
    pub(crate) fn end(&mut self) {
        self.count -= 1;
    }

    /// Notes that an idle room sleeps.
    pub(crate) fn sleep(&mut self, ticket: Ticket) {
        if self.idle.remove(&ticket).is_some() {
            self.count -= 1;
        }
    }

    /// Takes out the room that was idle longest, if more than `max` rooms are awake. The caller
    /// puts it to sleep, unless it has another ticket by then.
    pub(crate) fn evict(&mut self, max: usize) -> Option<(Ticket, R)> {
        if self.count <= max {
            return None;
        }
        let evicted = self.idle.pop_first()?;
        self.count -= 1;
        Some(evicted)
    }

    /// Returns the number of awake rooms.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the index of rooms that were used in this order, with the tickets.
    fn used(rooms: &[char]) -> (AwakeRooms<char>, BTreeMap<char, Ticket>) {
        let (mut index, mut tickets) = (AwakeRooms::default(), BTreeMap::new());
        for room in rooms {
            index.start(tickets.remove(room));
            tickets.insert(*room, index.rest(*room));
        }
        (index, tickets)
    }

    fn evicted(index: &mut AwakeRooms<char>, max: usize) -> String {
        std::iter::from_fn(|| index.evict(max).map(|(_, room)| room)).collect()
    }

    #[test]
    fn the_room_that_was_idle_longest_is_evicted_first() {
        let cases: [(&[char], usize, &str); 5] = [
            (&['a', 'b', 'c'], 3, ""),
            (&['a', 'b', 'c'], 2, "a"),
            (&['a', 'b', 'c'], 0, "abc"),
            (&['a', 'b', 'c', 'a'], 1, "bc"),
            (&['a', 'b', 'a', 'c', 'b', 'a'], 0, "cba"),
        ];
        for (rooms, max, expected) in cases {
            let (mut index, _) = used(rooms);
            assert_eq!(evicted(&mut index, max), expected, "{rooms:?} to {max}");
        }
    }

    #[test]
    fn a_running_room_counts_and_is_not_evicted() {
        let (mut index, tickets) = used(&['a', 'b']);
        index.start(Some(tickets[&'a']));
        index.start(None);
        assert_eq!(index.count(), 3);
        assert_eq!(evicted(&mut index, 1), "b");
        assert_eq!(index.count(), 2, "two run");
        index.end();
        index.rest('a');
        assert_eq!(evicted(&mut index, 0), "a");
        assert_eq!(index.count(), 0);
    }

    #[test]
    fn a_room_that_starts_or_sleeps_while_it_is_evicted_is_counted_once() {
        let (mut index, _) = used(&['a', 'b']);
        let (ticket, _) = index.evict(1).unwrap();
        assert_eq!((index.evict(1), index.count()), (None, 1), "one is enough");
        index.start(Some(ticket));
        assert_eq!(index.count(), 2);
        index.rest('a');
        let (ticket, _) = index.evict(1).unwrap();
        index.sleep(ticket);
        assert_eq!(index.count(), 1);
    }

    #[test]
    fn many_rooms_leave_nothing_in_the_index_when_they_sleep() {
        let rooms: Vec<char> = ('a'..='z').cycle().take(1000).collect();
        let (mut index, tickets) = used(&rooms);
        assert_eq!((index.count(), index.idle.len()), (26, 26));
        tickets.into_values().for_each(|ticket| index.sleep(ticket));
        assert_eq!((index.count(), index.idle.len()), (0, 0));
    }
}
