//! The inbox of a room: its waiting events in the order of their arrival, with their number and bytes.

use std::collections::VecDeque;

/// Events in the order of their arrival, each with a number that only grows. A cancelled event
/// leaves an empty place.
pub(crate) struct Inbox<E> {
    events: VecDeque<InboxEntry<E>>,
    next: u64,
    /// Number of waiting events, without the empty places.
    count: usize,
    bytes: usize,
}

struct InboxEntry<E> {
    number: u64,
    bytes: usize,
    event: Option<E>,
}

/// Maximum number and bytes of the events that wait for a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboxMax {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl<E> Default for Inbox<E> {
    fn default() -> Inbox<E> {
        Inbox {
            events: VecDeque::new(),
            next: 0,
            count: 0,
            bytes: 0,
        }
    }
}

impl<E> Inbox<E> {
    /// Returns true if an event of this many bytes exceeds the maximum. An empty inbox takes one
    /// event of any size.
    pub(crate) fn is_full(&self, bytes: usize, max: InboxMax) -> bool {
        self.count >= max.events || (self.count > 0 && self.bytes + bytes > max.bytes)
    }

    /// Returns the bytes of the waiting events.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an event, and returns its number.
    pub(crate) fn push(&mut self, event: E, bytes: usize) -> u64 {
        let number = self.next;
        self.events.push_back(InboxEntry {
            number,
            bytes,
            event: Some(event),
        });
        (self.next, self.count, self.bytes) = (number + 1, self.count + 1, self.bytes + bytes);
        number
    }

    /// Removes the first event. Returns it with its bytes.
    pub(crate) fn pop(&mut self) -> Option<(E, usize)> {
        while let Some(InboxEntry { bytes, event, .. }) = self.events.pop_front() {
            if let Some(event) = event {
                (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
                return Some((event, bytes));
            }
        }
        // Free the capacity that a burst of events took.
        self.events = VecDeque::new();
        None
    }

    /// Removes the event with this number, if it still waits.
    pub(crate) fn take(&mut self, number: u64) -> Option<E> {
        let at = self
            .events
            .binary_search_by_key(&number, |waiting| waiting.number)
            .ok()?;
        let (event, bytes) = (self.events[at].event.take()?, self.events[at].bytes);
        (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
        // Empty places are less than half of all, so they need no bound of their own.
        if self.events.len() > 2 * self.count + 16 {
            self.events.retain(|waiting| waiting.event.is_some());
        }
        Some(event)
    }

    /// Removes the waiting events for which `is_it` returns true.
    pub(crate) fn take_where(&mut self, is_it: impl Fn(&E) -> bool) -> Vec<E> {
        let numbers: Vec<u64> = self
            .events
            .iter()
            .filter(|waiting| waiting.event.as_ref().is_some_and(&is_it))
            .map(|waiting| waiting.number)
            .collect();
        numbers
            .into_iter()
            .filter_map(|number| self.take(number))
            .collect()
    }

    /// Returns the number of places, the empty ones included.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.events.len()
    }
}
