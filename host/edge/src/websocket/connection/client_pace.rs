//! Pace of the client of a WebSocket: it has to send the rest of a message and to take its messages
//! at the minimum rate.

use super::{Connection, Reading};
use crate::{
    http::answer::ACCESS,
    http::pace::{ClientSocket, PaceMeter, PaceRule},
};
use tokio::time::Instant;

/// Pace of the client, in each direction.
#[derive(Default)]
pub(super) struct ClientPace {
    reading: PaceMeter,
    writing: PaceMeter,
    /// Time of the next check, if the host waits for the client.
    pub(super) due: Option<Instant>,
    pub(super) violation: Option<PaceViolation>,
}

#[derive(Clone, Copy)]
pub(super) enum PaceViolation {
    /// The rest of a message does not come.
    Upload,
    /// The client does not read the bytes that wait for it.
    Reader,
}

impl<Io: ClientSocket> Connection<Io> {
    /// Checks whether the host waits for the client, which is rare.
    #[inline]
    pub(super) fn check_pace(&mut self, has_time_passed: bool) {
        if self.pace.is_some() || self.is_blocked || self.wire.is_within_message() {
            self.update_pace(has_time_passed);
        }
    }

    /// Updates the meters. While their state stays the same, they are updated only when time has
    /// passed.
    fn update_pace(&mut self, has_time_passed: bool) {
        let is_open = !self.session.is_closing();
        let owes_bytes = is_open
            && matches!(self.reading, Reading::Frames)
            && !self.is_readable
            && self.wire.is_within_message()
            && self.session.wants_read();
        let blocks_writes = is_open && self.is_blocked;
        let noted = self.pace.as_ref().map_or((false, false), |pace| {
            (pace.reading.is_waiting(), pace.writing.is_waiting())
        });
        if (owes_bytes, blocks_writes) != noted
            || ((owes_bytes || blocks_writes) && has_time_passed)
        {
            self.note_pace(owes_bytes, blocks_writes);
        }
    }

    fn note_pace(&mut self, owes_bytes: bool, blocks_writes: bool) {
        let (config, now) = (&self.server.config, Instant::now());
        let pace = self.pace.get_or_insert_default();
        if owes_bytes || pace.reading.is_waiting() {
            let rule = PaceRule::new(config.read_within, config.bytes_per_second_min);
            if pace
                .reading
                .note(self.wire.received(), owes_bytes, rule, now)
            {
                pace.violation = Some(PaceViolation::Upload);
            }
            // Each message has its own time.
            if !self.wire.is_within_message() {
                pace.reading.reset();
            }
            pace.due = pace.reading.due(rule);
        }
        if blocks_writes || pace.writing.is_waiting() {
            let rule = PaceRule::new(config.write_within, config.bytes_per_second_min);
            if pace
                .writing
                .note(self.wire.acknowledged(), blocks_writes, rule, now)
            {
                pace.violation = Some(PaceViolation::Reader);
            }
            let due = pace.writing.due(rule);
            pace.due = if pace.reading.is_waiting() {
                pace.due.into_iter().chain(due).min()
            } else {
                due
            };
        }
        let clock = self.clock.as_ref().map(|clock| clock.deadline());
        self.is_clock_stale |= pace.violation.is_some()
            || pace
                .due
                .is_some_and(|due| clock.is_none_or(|clock| due < clock));
    }

    pub(super) fn give_up(&self, violation: PaceViolation) {
        let counters = self.server.hub.counters();
        let reason = match violation {
            PaceViolation::Upload => {
                counters.stalled_uploads.add(1);
                "it sent a message too slowly"
            }
            PaceViolation::Reader => {
                self.wire.abort();
                counters.stalled_readers.add(1);
                "it took its messages too slowly"
            }
        };
        tracing::debug!(target: ACCESS, connection = %self.conn.id(), "gave up a connection: {reason}");
    }
}
