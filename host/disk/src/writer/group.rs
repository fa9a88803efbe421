//! The commits that share one fsync.

use super::{Order, OutcomeSender};
use std::collections::HashSet;
use tidegate_hub::Batch;
use tokio::sync::mpsc::Receiver;

/// Commits and bytes that one fsync is for, at most.
const GROUP_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 64 << 20;

/// Every commit that waits, up to a group's bounds; ends at an order to compact. There is no
/// waiting for more: while one group is on its way to the disk the next one gathers by itself.
pub(super) fn gather(
    first: (Batch, OutcomeSender),
    orders: &mut Receiver<Order>,
    compact: &mut Option<OutcomeSender>,
) -> Vec<(Batch, OutcomeSender)> {
    let mut bytes = weight(&first.0);
    let mut group = vec![first];
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        match orders.try_recv() {
            Ok(Order::Commit(batch, done)) => {
                bytes += weight(&batch);
                group.push((batch, done));
            }
            Ok(Order::Compact(done)) => {
                *compact = Some(done);
                break;
            }
            Err(_) => break,
        }
    }
    group
}

/// True for a batch that deletes, and writes nothing but the room's row.
pub(super) fn only_deletes(batch: &Batch) -> bool {
    let deletes = batch.clear || !batch.writes.is_empty();
    let writes = !batch.log.is_empty() || batch.writes.values().any(Option::is_some);
    deletes && !writes
}

/// The batches that only delete, and their numbers in the group. Left out are those after another
/// batch of their room, which they may depend on.
pub(super) fn independent_deletes(batches: Vec<Batch>) -> (Vec<usize>, Vec<Batch>) {
    let mut left_out = HashSet::new();
    let deletes = batches.into_iter().enumerate().filter(|(_, batch)| {
        let deletes = only_deletes(batch) && !left_out.contains(&batch.room);
        if !deletes {
            left_out.insert(batch.room.clone());
        }
        deletes
    });
    deletes.unzip()
}

/// About what it takes on the disk.
pub(super) fn weight(batch: &Batch) -> usize {
    let writes = batch
        .writes
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()) + 64);
    let log = batch
        .log
        .iter()
        .map(|(_, publication)| publication.len() + 64);
    writes.chain(log).sum::<usize>() + 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_hub::{RoomId, RoomRecord};

    #[test]
    fn deletes_are_written_without_writes_unless_they_may_depend_on_one() {
        let batch = |room: &str, value: Option<&'static [u8]>| {
            let room = RoomId::new("chat", room).unwrap();
            let writes = [("key".to_owned(), value.map(bytes::Bytes::from_static))];
            Batch {
                writes: writes.into(),
                ..Batch::new(room, RoomRecord::default())
            }
        };
        let clear = Batch {
            clear: true,
            ..batch("cleared", None)
        };
        let only_row = Batch {
            writes: [].into(),
            ..batch("row", None)
        };
        let group = vec![
            batch("one", None),
            batch("two", Some(b"value")),
            batch("one", None),
            batch("two", None),
            clear,
            only_row,
            batch("one", Some(b"value")),
            batch("one", None),
        ];
        let (numbers, deletes) = independent_deletes(group);
        assert_eq!(numbers, [0, 2, 4]);
        assert!(deletes.iter().all(only_deletes));
    }
}
