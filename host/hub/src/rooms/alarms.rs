//! Alarms: one index of the alarms of all rooms, so that the alarm of a sleeping room costs no
//! task.
//!
//! The hub owns the index; the scheduler asks it at each tick which rooms to call. For each room it
//! holds the alarm as it is stored, and the time of the next call.
//!
//! Only [`commit`](Alarms::commit) changes an alarm. It is called at the one place where a
//! transaction becomes durable, for every kind of commit. If the outcome of a commit is not known,
//! [`mark_unknown`](Alarms::mark_unknown) has the room called soon, and its event reads the
//! storage.
//!
//! A room waits by the wall clock, waits by the monotonic clock, or is `Called`. A call takes
//! nothing out of the index: the alarm stays `Called` until its event has ended, and is queued
//! again unless a commit has changed it. So no failure between the call and the commit loses an
//! alarm.
//!
//! The first try of an alarm has a time of day. Later tries, and tries that the host could not
//! make, have a pause. A wall clock that is set therefore changes no pause, and one that is set
//! back while an alarm waits for its room's turn loses no alarm.
//!
//! The module calls no room and reads no storage or clock.

use crate::{
    limits::{ALARM_RETRY, ALARMS_LATE, ALARMS_LATE_MAX},
    name::RoomId,
    now::Now,
    retry::Backoff,
    rooms::storage::Alarm,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

/// Invariant: each room of `by_room` is in exactly one queue, or in none while it is `Called`.
#[derive(Default)]
pub(crate) struct Alarms {
    by_room: HashMap<RoomId, Entry>,
    /// Rooms by Unix time in milliseconds.
    by_wall: BTreeSet<(u64, RoomId)>,
    /// Rooms by monotonic time in milliseconds.
    by_monotonic: BTreeSet<(u64, RoomId)>,
}

struct Entry {
    /// The stored alarm. `None` if a commit that would have changed it has failed, so that it has
    /// to be read from the storage.
    alarm: Option<Alarm>,
    due: NextCall,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NextCall {
    Wall(u64),
    Monotonic(u64),
    /// The room has the event, and its outcome is not known yet.
    Called,
}

impl Alarms {
    /// Notes that this alarm of the room is durable. If it is the same as before, nothing changes:
    /// a pause or a call in progress does not end.
    pub(crate) fn commit(&mut self, room: &RoomId, alarm: Option<Alarm>, now: Now) {
        if self.by_room.get(room).and_then(|entry| entry.alarm) != alarm {
            self.remove(room);
            if let Some(alarm) = alarm {
                self.insert(
                    room,
                    Entry {
                        alarm: Some(alarm),
                        due: due(alarm, now),
                        backoff: Backoff::default(),
                    },
                );
            }
        }
    }

    /// Notes that the storage had this alarm a moment ago. An alarm from a commit since then is
    /// newer, and stays.
    pub(crate) fn load(&mut self, room: &RoomId, alarm: Alarm, now: Now) {
        if !self.by_room.contains_key(room) {
            self.commit(room, Some(alarm), now);
        }
    }

    /// Notes that a commit that would have changed the room's alarm has failed. The room is called
    /// soon, to find out which alarm is stored.
    pub(crate) fn mark_unknown(&mut self, room: &RoomId, now: Now) {
        let soon = NextCall::Monotonic(now.monotonic + Backoff::default().pause());
        let mut entry = self.remove(room).unwrap_or(Entry {
            alarm: None,
            due: soon,
            backoff: Backoff::default(),
        });
        entry.alarm = None;
        // If the room has been called already, its event reads the storage.
        if entry.due != NextCall::Called {
            entry.due = soon;
        }
        self.insert(room, entry);
    }

    /// Queues the alarm that was called but did not reach the app, which is no fault of the app.
    /// The next try comes after a pause of at least `at_least`.
    pub(crate) fn postpone(&mut self, room: &RoomId, at_least: Duration, now: Now) {
        if let Some(mut entry) = self.remove(room) {
            entry.due = NextCall::Monotonic(
                now.monotonic + entry.backoff.pause().max(at_least.as_millis() as u64),
            );
            self.insert(room, entry);
        }
    }

    /// Notes that the event of the alarm that was called has ended, and which alarm is stored.
    pub(crate) fn finish(&mut self, room: &RoomId, stored: Option<Alarm>, now: Now) {
        if self
            .by_room
            .get(room)
            .is_some_and(|entry| entry.due == NextCall::Called || entry.alarm.is_none())
        {
            self.remove(room);
        }
        self.commit(room, stored, now);
    }

    /// Returns true if the room was called for exactly this alarm, which was due then.
    pub(crate) fn is_called(&self, room: &RoomId, alarm: Alarm) -> bool {
        self.by_room
            .get(room)
            .is_some_and(|entry| entry.due == NextCall::Called && entry.alarm == Some(alarm))
    }

    /// Returns the time of the next call in Unix milliseconds, as long as the wall clock is not
    /// set.
    pub(crate) fn next(&self, now: Now) -> Option<u64> {
        let paused = self
            .by_monotonic
            .first()
            .map(|(at, _)| now.wall + at.saturating_sub(now.monotonic));
        self.by_wall
            .first()
            .map(|(at, _)| *at)
            .into_iter()
            .chain(paused)
            .min()
    }

    /// Returns the rooms to call now: every alarm whose time has just come, and a few of those that
    /// are late or tried again, the longest overdue first. So the alarms that are overdue after a
    /// start, a suspend or a repair of the storage are spread over the next ticks.
    pub(crate) fn call_due(&mut self, now: Now) -> Vec<RoomId> {
        let late = now.wall.saturating_sub(ALARMS_LATE.as_millis() as u64);
        let overdue = self
            .by_wall
            .iter()
            .take_while(|(at, _)| *at < late && *at <= now.wall)
            .take(ALARMS_LATE_MAX);
        let in_time = self
            .by_wall
            .range((late, RoomId::least())..)
            .take_while(|(at, _)| *at <= now.wall);
        let again = self
            .by_monotonic
            .iter()
            .take_while(|(at, _)| *at <= now.monotonic)
            .take(ALARMS_LATE_MAX);
        let rooms: Vec<RoomId> = overdue
            .chain(in_time)
            .chain(again)
            .map(|(_, room)| room.clone())
            .collect();
        for room in &rooms {
            if let Some(entry) = self.remove(room) {
                self.insert(
                    room,
                    Entry {
                        due: NextCall::Called,
                        ..entry
                    },
                );
            }
        }
        rooms
    }

    fn insert(&mut self, room: &RoomId, entry: Entry) {
        match entry.due {
            NextCall::Wall(at) => _ = self.by_wall.insert((at, room.clone())),
            NextCall::Monotonic(at) => _ = self.by_monotonic.insert((at, room.clone())),
            NextCall::Called => {}
        }
        self.by_room.insert(room.clone(), entry);
    }

    fn remove(&mut self, room: &RoomId) -> Option<Entry> {
        let entry = self.by_room.remove(room)?;
        match entry.due {
            NextCall::Wall(at) => _ = self.by_wall.remove(&(at, room.clone())),
            NextCall::Monotonic(at) => _ = self.by_monotonic.remove(&(at, room.clone())),
            NextCall::Called => {}
        }
        Some(entry)
    }
}

/// Returns when the alarm is due. The pause before a later try keeps its length even if the wall
/// clock was set after the alarm was stored.
fn due(alarm: Alarm, now: Now) -> NextCall {
    match alarm.attempt {
        0 | 1 => NextCall::Wall(alarm.at),
        attempt => NextCall::Monotonic(
            now.monotonic + alarm.at.saturating_sub(now.wall).min(pause(attempt)),
        ),
    }
}

/// Returns the pause before this try in milliseconds, from the second try on.
pub(crate) fn pause(attempt: u32) -> u64 {
    (ALARM_RETRY.as_millis() as u64) << attempt.saturating_sub(2).min(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEA: usize = 0;
    const MILK: usize = 1;
    const RUM: usize = 2;

    fn rooms() -> [RoomId; 3] {
        ["tea", "milk", "rum"].map(|name| RoomId::new("chat", name).unwrap())
    }

    fn first(at: u64) -> Option<Alarm> {
        Some(Alarm { at, attempt: 1 })
    }

    #[test]
    fn alarms_come_in_their_order_and_a_moved_one_comes_once() {
        let (rooms, mut alarms) = (rooms(), Alarms::default());
        for (room, at) in [
            (TEA, first(5)),
            (MILK, first(3)),
            (RUM, first(1)),
            (TEA, first(2)),
            (RUM, None),
        ] {
            alarms.commit(&rooms[room], at, Now::at(0));
        }
        assert_eq!(
            (alarms.call_due(Now::at(1)), alarms.next(Now::at(1))),
            (vec![], Some(2))
        );
        assert_eq!(
            alarms.call_due(Now::at(9)),
            [rooms[TEA].clone(), rooms[MILK].clone()]
        );
        assert_eq!(alarms.call_due(Now::at(9)), [], "their events run");
    }

    #[test]
    fn an_alarm_that_was_called_is_there_until_a_commit_takes_it_away() {
        let ([tea, ..], mut alarms) = (rooms(), Alarms::default());
        alarms.commit(&tea, first(5), Now::at(0));
        assert_eq!(alarms.call_due(Now::at(5)).len(), 1);
        // Another event of the room commits in the meantime.
        alarms.commit(&tea, first(5), Now::at(6));
        assert!(alarms.is_called(&tea, first(5).unwrap()));
        alarms.finish(
            &tea,
            first(5),
            Now {
                monotonic: 7,
                wall: 1,
            },
        );
        assert_eq!(
            (
                alarms
                    .call_due(Now {
                        monotonic: 8,
                        wall: 4
                    })
                    .len(),
                alarms
                    .call_due(Now {
                        monotonic: 9,
                        wall: 5
                    })
                    .len()
            ),
            (0, 1)
        );
        alarms.commit(&tea, None, Now::at(10));
        alarms.finish(&tea, None, Now::at(10));
        assert_eq!(alarms.next(Now::at(10)), None);
    }

    #[test]
    fn an_alarm_that_is_loaded_gives_way_to_what_was_committed_or_is_in_doubt() {
        let ([tea, milk, rum], mut alarms) = (rooms(), Alarms::default());
        alarms.commit(&milk, first(3), Now::at(0));
        alarms.mark_unknown(&rum, Now::at(0));
        for room in [&tea, &milk, &rum] {
            alarms.load(
                room,
                Alarm {
                    at: 9000,
                    attempt: 1,
                },
                Now::at(0),
            );
        }
        assert_eq!(alarms.call_due(Now::at(3)), [milk]);
        assert_eq!(alarms.call_due(Now::at(8999)), [rum]);
        assert_eq!(alarms.call_due(Now::at(9000)), [tea]);
    }

    #[test]
    fn pauses_do_not_follow_the_wall_clock() {
        let ([tea, milk, rum], mut alarms) = (rooms(), Alarms::default());
        let hour = 3_600_000;
        alarms.commit(&tea, first(hour), Now::at(hour));
        alarms.call_due(Now::at(hour));
        alarms.postpone(&tea, Duration::ZERO, Now::at(hour));
        alarms.mark_unknown(&milk, Now::at(hour));
        alarms.commit(
            &rum,
            Some(Alarm {
                at: hour + 2000,
                attempt: 2,
            }),
            Now::at(hour),
        );
        for wall in [0, 9 * hour] {
            assert_eq!(
                alarms.call_due(Now {
                    monotonic: hour + 249,
                    wall
                }),
                []
            );
        }
        let back = |monotonic| Now {
            monotonic: hour + monotonic,
            wall: 0,
        };
        assert_eq!(alarms.call_due(back(250)), [milk, tea.clone()]);
        assert_eq!(
            (
                alarms.call_due(back(1999)).len(),
                alarms.call_due(back(2000))
            ),
            (0, vec![rum])
        );
        // Each further pause is longer.
        alarms.postpone(&tea, Duration::ZERO, back(2000));
        assert_eq!(
            (
                alarms.call_due(back(2499)).len(),
                alarms.call_due(back(2500))
            ),
            (0, vec![tea])
        );
    }

    #[test]
    fn a_later_try_found_at_the_start_waits_no_longer_than_its_pause() {
        let ([tea, ..], mut alarms) = (rooms(), Alarms::default());
        alarms.commit(
            &tea,
            Some(Alarm {
                at: 9_000_000,
                attempt: 3,
            }),
            Now {
                monotonic: 10,
                wall: 1_000,
            },
        );
        let at = |monotonic| Now {
            monotonic,
            wall: 1_000,
        };
        assert_eq!(
            (
                alarms.call_due(at(4009)).len(),
                alarms.call_due(at(4010)).len()
            ),
            (0, 1)
        );
    }

    #[test]
    fn those_that_are_late_are_spread_and_those_in_time_do_not_wait_for_them() {
        let ([tea, ..], mut alarms) = (rooms(), Alarms::default());
        for n in 0..25 {
            alarms.commit(
                &RoomId::new("late", &n.to_string()).unwrap(),
                first(n),
                Now::at(0),
            );
        }
        let now = Now::at(100_000);
        alarms.commit(&tea, first(now.wall), now);
        let called: Vec<usize> = (0..4).map(|_| alarms.call_due(now).len()).collect();
        assert_eq!(called, [ALARMS_LATE_MAX + 1, ALARMS_LATE_MAX, 5, 0]);
    }
}
