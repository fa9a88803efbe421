//! The cases that every engine must pass, on any medium.

use crate::{
    name::RoomId,
    realtime::history::Position,
    rooms::storage::{Alarm, Batch, Commit, Engine, EngineError, LogHead, Range, RoomRecord},
};
use bytes::Bytes;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Runs every case on an engine that is empty. `run` waits for a commit.
///
/// ```
/// use tidegate_hub::testing::{MemoryEngine, suite};
/// suite(&MemoryEngine::default(), |mut commit| {
///     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
///     match commit.as_mut().poll(&mut cx) {
///         std::task::Poll::Ready(outcome) => outcome,
///         std::task::Poll::Pending => unreachable!("memory is there at once"),
///     }
/// });
/// ```
pub fn suite(engine: &dyn Engine, run: impl Fn(Commit) -> Result<(), EngineError>) {
    let suite = Suite { engine, run };
    suite.what_was_committed_is_read_and_nothing_else();
    suite.ranges_are_in_the_order_of_bytes_and_within_their_bounds();
    suite.rooms_never_see_each_other();
    suite.a_clear_goes_before_the_writes_of_its_batch();
    suite.sizes_and_alarms_are_kept_until_the_room_is_forgotten();
    suite.a_log_has_the_latest_of_each_slot_and_outlives_a_clear();
    suite.commits_that_are_under_way_together_all_happen();
}

struct Suite<'a, R> {
    engine: &'a dyn Engine,
    run: R,
}

fn room(class: &str, name: &str) -> RoomId {
    RoomId::new(class, name).expect("a room")
}

fn batch(room: &RoomId, writes: &[(&str, Option<&str>)]) -> Batch {
    let writes = writes
        .iter()
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                value.map(|value| Bytes::from(value.to_owned())),
            )
        })
        .collect();
    Batch {
        writes,
        ..Batch::new(
            room.clone(),
            RoomRecord {
                bytes: 1,
                ..RoomRecord::default()
            },
        )
    }
}

impl<R: Fn(Commit) -> Result<(), EngineError>> Suite<'_, R> {
    fn commit(&self, batch: Batch) {
        (self.run)(self.engine.commit(batch)).expect("a commit");
    }

    fn keys(&self, room: &RoomId, range: Range<'_>) -> Vec<String> {
        self.engine
            .range(room, &range)
            .expect("a range")
            .into_iter()
            .map(|(key, _)| key)
            .collect()
    }

    fn what_was_committed_is_read_and_nothing_else(&self) {
        let tea = room("first", "tea");
        assert_eq!(self.engine.get(&tea, "a"), Ok(None));
        let large = "x".repeat(2 << 20);
        let steps: [(&str, Option<&str>); 5] = [
            ("a", Some("1")),
            ("a", Some("2")),
            ("a", Some("")),
            ("a", None),
            ("a", Some(&large)),
        ];
        for (key, value) in steps {
            self.commit(batch(&tea, &[(key, value)]));
            assert_eq!(
                self.engine.get(&tea, key),
                Ok(value.map(|value| Bytes::from(value.to_owned())))
            );
        }
        self.commit(batch(&tea, &[("never there", None)]));
        assert_eq!(self.keys(&tea, Range::all(9)), ["a"]);
    }

    fn ranges_are_in_the_order_of_bytes_and_within_their_bounds(&self) {
        let tea = room("second", "tea");
        let keys = [
            "a",
            "a\0",
            "a/1",
            "a/10",
            "a/2",
            "b",
            "é",
            "\u{ffff}",
            "\u{10000}",
        ];
        self.commit(batch(&tea, &keys.map(|key| (key, Some("x")))));
        let range = |start, end, reverse, limit| Range {
            start,
            end,
            reverse,
            limit,
        };
        let cases = [
            (Range::all(99), &keys[..]),
            (Range::all(0), &[]),
            (Range::all(2), &keys[..2]),
            (
                range(Included("a/1"), Excluded("b"), false, 99),
                &keys[2..5],
            ),
            (
                range(Excluded("a/1"), Included("b"), false, 99),
                &keys[3..6],
            ),
            (range(Included("c"), Unbounded, false, 99), &keys[6..]),
            (range(Unbounded, Excluded("a"), false, 99), &[]),
            (range(Included("c"), Excluded("d"), false, 99), &[]),
        ];
        for (range, expected) in cases {
            assert_eq!(self.keys(&tea, range), expected, "{range:?}");
        }
        let last = self.keys(&tea, range(Unbounded, Excluded("b"), true, 2));
        assert_eq!(last, ["a/2", "a/10"]);
    }

    fn rooms_never_see_each_other(&self) {
        let rooms = [
            room("third", "a"),
            room("third", "ab"),
            room("third", ""),
            room("thir", "da"),
            room("third-a", ""),
        ];
        for (index, room) in rooms.iter().enumerate() {
            self.commit(batch(
                room,
                &[("key", Some(&index.to_string())), ("zz", Some("last"))],
            ));
        }
        for (index, room) in rooms.iter().enumerate() {
            assert_eq!(
                self.engine.get(room, "key"),
                Ok(Some(index.to_string().into())),
                "{room}"
            );
            assert_eq!(self.keys(room, Range::all(9)), ["key", "zz"], "{room}");
        }
    }

    fn a_clear_goes_before_the_writes_of_its_batch(&self) {
        let [tea, milk] = [room("fourth", "tea"), room("fourth", "milk")];
        for room in [&tea, &milk] {
            self.commit(batch(room, &[("a", Some("1")), ("b", Some("1"))]));
        }
        self.commit(Batch {
            clear: true,
            ..batch(&tea, &[("b", Some("2")), ("c", Some("2"))])
        });
        assert_eq!(
            (
                self.keys(&tea, Range::all(9)),
                self.keys(&milk, Range::all(9))
            ),
            (
                vec!["b".into(), "c".into()],
                vec!["a".into(), "b".to_string()]
            )
        );
        assert_eq!(self.engine.get(&tea, "a"), Ok(None));
        self.commit(Batch {
            clear: true,
            stored: RoomRecord::default(),
            ..batch(&tea, &[])
        });
        self.commit(batch(&tea, &[("d", Some("3"))]));
        assert_eq!(self.keys(&tea, Range::all(9)), ["d"]);
    }

    fn sizes_and_alarms_are_kept_until_the_room_is_forgotten(&self) {
        let [tea, milk] = [room("fifth", "tea"), room("fifth", "milk")];
        let stored = |bytes, at: Option<u64>| RoomRecord {
            bytes,
            alarm: at.map(|at| Alarm { at, attempt: 2 }),
            history: None,
        };
        let listed = || {
            let mut alarms = self.engine.alarms().expect("alarms");
            alarms.sort_by(|(one, _), (other, _)| one.cmp(other));
            alarms
                .into_iter()
                .map(|(room, alarm)| (room, alarm.at))
                .collect::<Vec<_>>()
        };
        assert_eq!(self.engine.stored(&tea), Ok(RoomRecord::default()));
        let steps = [
            (&tea, stored(0, Some(5)), vec![(tea.clone(), 5)]),
            (
                &milk,
                stored(3, Some(u64::MAX)),
                vec![(milk.clone(), u64::MAX), (tea.clone(), 5)],
            ),
            (
                &tea,
                stored(0, Some(6)),
                vec![(milk.clone(), u64::MAX), (tea.clone(), 6)],
            ),
            (&milk, stored(3, None), vec![(tea.clone(), 6)]),
            (&tea, RoomRecord::default(), vec![]),
        ];
        for (room, stored, alarms) in steps {
            self.commit(Batch {
                stored,
                ..batch(room, &[])
            });
            assert_eq!((self.engine.stored(room), listed()), (Ok(stored), alarms));
        }
    }

    fn a_log_has_the_latest_of_each_slot_and_outlives_a_clear(&self) {
        let (tea, rum) = (room("sixth", "tea"), room("sixth", "rum"));
        let logged = |sequence| LogHead {
            position: Position { epoch: 9, sequence },
            expires: u64::MAX,
        };
        let log = |slots: &[(u32, &'static str)]| {
            slots
                .iter()
                .map(|(slot, text)| (*slot, Bytes::from_static(text.as_bytes())))
                .collect()
        };
        let read = || {
            let mut log = self.engine.log(&tea).expect("a log");
            log.sort();
            log
        };
        let stored = |bytes, sequence| RoomRecord {
            bytes,
            alarm: None,
            history: Some(logged(sequence)),
        };
        self.commit(Batch {
            log: log(&[(1, "a"), (2, "b")]),
            stored: stored(2, 2),
            ..batch(&tea, &[("k", Some("v"))])
        });
        self.commit(Batch {
            log: log(&[(1, "c"), (300, "d")]),
            stored: stored(2, 4),
            ..batch(&tea, &[])
        });
        assert_eq!(
            (read(), self.engine.log(&rum)),
            (vec!["b".into(), "c".into(), "d".into()], Ok(vec![]))
        );
        self.commit(Batch {
            clear: true,
            log: log(&[(2, "e")]),
            stored: stored(0, 5),
            ..batch(&tea, &[])
        });
        assert_eq!(
            (read(), self.engine.get(&tea, "k")),
            (vec!["c".into(), "d".into(), "e".into()], Ok(None))
        );
        assert_eq!(self.engine.stored(&tea), Ok(stored(0, 5)));
        self.commit(Batch {
            stored: RoomRecord::default(),
            ..batch(&tea, &[])
        });
        self.commit(Batch {
            log: log(&[(7, "f")]),
            stored: stored(0, 1),
            ..batch(&tea, &[])
        });
        assert_eq!(
            read(),
            [Bytes::from_static(b"f")],
            "it was forgotten with its room"
        );
        self.commit(Batch {
            stored: RoomRecord::default(),
            ..batch(&tea, &[])
        });
    }

    fn commits_that_are_under_way_together_all_happen(&self) {
        let rooms: Vec<RoomId> = (0..50)
            .map(|number| room("sixth", &number.to_string()))
            .collect();
        for round in 0..20 {
            let value = round.to_string();
            let commits: Vec<Commit> = rooms
                .iter()
                .map(|room| self.engine.commit(batch(room, &[("n", Some(&value))])))
                .collect();
            commits
                .into_iter()
                .for_each(|commit| (self.run)(commit).expect("a commit"));
            for room in &rooms {
                assert_eq!(self.engine.get(room, "n"), Ok(Some(value.clone().into())));
            }
        }
    }
}
