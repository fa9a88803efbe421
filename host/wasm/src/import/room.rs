//! `tidegate:app/room`: storage, alarm and audience of the room whose event runs.

use crate::{
    bindings::tidegate::app::{
        room::{Host, Range, RoomId, StorageError},
        topics::Publication,
        types::{LimitError, Position, StartPoint},
    },
    connection::Connection,
    state::State,
};
use tidegate_hub::{EngineError, Fault, Transaction, rooms::transaction};
use wasmtime::{Result, bail, component::Resource};

impl State {
    fn transaction(&self) -> Result<&Transaction> {
        match self.scope()?.room() {
            Some(transaction) => Ok(transaction),
            None => bail!("a room's function was called outside of a room"),
        }
    }

    /// Ends the event if the storage failed: the guest has no answer to that.
    fn stored<T>(&mut self, outcome: Result<T, EngineError>) -> Result<T> {
        outcome.map_err(|error| {
            let text = error.to_string();
            self.failure = Some(Fault::from(error));
            wasmtime::format_err!("{text}")
        })
    }
}

impl Host for State {
    fn identity(&mut self) -> Result<Option<RoomId>> {
        let room = self.scope()?.room().map(Transaction::room);
        Ok(room.map(|room| RoomId {
            class: room.class().to_owned(),
            name: room.name().to_owned(),
        }))
    }

    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        let value = self.transaction()?.get(&key);
        Ok(self.stored(value)?.map(Into::into))
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> Result<Result<(), StorageError>> {
        use transaction::StorageError::{Engine, Event, Key, Room, Value};
        let refused = match self.transaction()?.put(&key, value.into()) {
            Ok(()) => return Ok(Ok(())),
            Err(Engine(error)) => return self.stored(Err(error)),
            Err(Key(max)) => StorageError::KeySize(max as u64),
            Err(Value(max)) => StorageError::ValueSize(max as u64),
            Err(Room(max)) => StorageError::RoomSize(max as u64),
            Err(Event(max)) => StorageError::EventSize(max as u64),
        };
        Ok(Err(refused))
    }

    fn delete(&mut self, key: String) -> Result<bool> {
        match self.transaction()?.delete(&key) {
            Ok(deleted) => Ok(deleted),
            Err(transaction::StorageError::Engine(error)) => self.stored(Err(error)),
            Err(error) => bail!("one event does more than it may: {error}"),
        }
    }

    fn entries(&mut self, range: Range) -> Result<Vec<(String, Vec<u8>)>> {
        let Range {
            prefix,
            start,
            end,
            reverse,
            limit,
        } = range;
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let entries =
            self.transaction()?
                .query(&prefix, start.as_deref(), end.as_deref(), reverse, limit);
        Ok(self
            .stored(entries)?
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect())
    }

    fn clear(&mut self) -> Result<()> {
        let cleared = self.transaction()?.clear();
        self.stored(cleared)
    }

    fn set_alarm(&mut self, time_ms: Option<u64>) -> Result<()> {
        self.transaction()?.set_alarm(time_ms);
        Ok(())
    }

    fn alarm(&mut self) -> Result<Option<u64>> {
        let alarm = self.transaction()?.alarm();
        Ok(self.stored(alarm)?.map(|alarm| alarm.at))
    }

    fn broadcast(&mut self, publication: Publication) -> Result<Result<u64, LimitError>> {
        let broadcast = match super::publication(publication) {
            Ok(publication) => self.transaction()?.broadcast(publication),
            Err(error) => return Ok(Err(error.into())),
        };
        Ok(self.stored(broadcast)?.map_err(Into::into))
    }

    fn topic_position(&mut self) -> Result<Position> {
        let position = self.transaction()?.position();
        Ok(self.stored(position)?.into())
    }

    fn resume(
        &mut self,
        connection: Resource<Connection>,
        since: Position,
    ) -> Result<Result<StartPoint, LimitError>> {
        let resumed = self
            .transaction()?
            .resume(self.conn(&connection)?, super::position(since));
        Ok(self.stored(resumed)?.map(Into::into).map_err(Into::into))
    }

    async fn flush(&mut self) -> Result<()> {
        let flushed = self.transaction()?.clone().flush().await;
        self.stored(flushed)
    }

    fn rollback(&mut self) -> Result<()> {
        self.transaction()?.rollback();
        Ok(())
    }
}
