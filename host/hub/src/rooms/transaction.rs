//! The transaction of a room: the changes of its events since the last commit.
//!
//! It has two layers. The event that runs writes to `event`; when the event ends well, `keep` adds
//! it to `kept`, and after a fault `discard` drops it. Reads see both layers above the stored
//! state. A commit takes all of `kept`: writes go to the storage as one batch, and the effects
//! (messages, publications, closes, feeds) are released when the batch is durable. If it fails,
//! none of them happens.
//!
//! A flush is a commit in the middle of an event. The running commit belongs to the transaction and
//! not to the future that waits for it, because a guest's call may be given up while it flushes:
//! the next event must not run before it is known what is durable. `finish` is the only place where
//! a commit becomes known as durable.
//!
//! Every write and effect of an event is weighed before it is staged, so that one event cannot fill
//! the memory: `room_event_bytes_max` bounds the event, the budget of the process bounds all of
//! them.

pub use crate::rooms::effects::PendingFeed;
use crate::{
    budget::{Charge, Kind},
    effect::{Effect, EffectError, EffectOutcome},
    hub::Hub,
    limits::{ALARM_ATTEMPTS_MAX, IDS_PAGE_MAX, LimitError},
    name::{ConnId, RoomId},
    realtime::{
        connections::Conn,
        history::{self, Position, Positions, Replay, StartPoint},
        outbox::Close,
        publication::Publication,
    },
    rooms::{
        alarms::pause,
        calls::RoomCall,
        effects::{self, Allowance, Effects},
        overlay::{self, Overlay},
        storage::{
            Alarm, Batch, Commit, Engine, EngineError, LogHead, Range, RoomRecord, prefix_end,
        },
    },
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    fmt,
    future::poll_fn,
    mem,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, ready},
};

/// The changes of a room since its last commit. Events that ended well are kept; the running event
/// may still be discarded. Reads see both. A clone shares the state.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_hub::{Hub, Limits, RoomId, Transaction, testing::Memory};
/// let hub = Hub::new(Limits::default(), Default::default(), 1);
/// let tea = Transaction::new(hub, Arc::new(Memory::default()), RoomId::new("chat", "tea").unwrap());
/// tea.put("cups", "2".into()).unwrap();
/// assert_eq!(tea.get("cups").unwrap(), Some("2".into()));
/// tea.discard();
/// assert_eq!(tea.get("cups").unwrap(), None);
/// ```
#[derive(Clone)]
pub struct Transaction {
    hub: Arc<Hub>,
    engine: Arc<dyn Engine>,
    room: RoomId,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The stored record, once it was read.
    stored: Option<RoomRecord>,
    /// Position of the room's topic without the kept events, once it was asked for.
    base: Option<Position>,
    kept: Staged,
    event: Staged,
    flushes: u64,
    /// Reservation for the bytes of `kept` and `event`.
    charge: Charge,
    /// The commit that has started and whose outcome has not been taken yet.
    committing: Option<PendingCommit>,
    /// Number of commits that have started. The writes and effects in `kept` belong to the next
    /// one.
    commits: u64,
    /// Failed commits by their number.
    failed: Vec<(u64, EngineError)>,
}

/// A commit in progress, and the changes that follow from it. It belongs to the transaction, not to
/// the call that began it: a guest's flush may be given up because the event takes too long, and
/// the next event must not run before it is known which state is durable.
struct PendingCommit {
    commit: Commit,
    /// The record after the commit, if it succeeds.
    stored: RoomRecord,
    changes_alarm: bool,
    effects: Effects,
}

/// Changes of some events.
#[derive(Default)]
struct Staged {
    overlay: Overlay,
    /// Number of bytes that the overlay adds to the room's size.
    bytes: i64,
    alarm: Option<Option<Alarm>>,
    effects: Effects,
    /// Number of broadcasts that have a number.
    numbered: u64,
    /// Connections that joined with the running event.
    joined: Vec<ConnId>,
    /// Number of bytes of memory that all changes here take until the commit.
    weight: usize,
}

/// An error of a room's write (WIT `room.storage-error`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// The key is empty or longer than this many bytes.
    Key(usize),
    /// The value is longer than this many bytes.
    Value(usize),
    /// The room would hold more than this many bytes.
    Room(usize),
    /// One event would write and send more than this many bytes: call `flush` in between. It is
    /// also the error if memory is short.
    Event(usize),
    /// The engine failed. This ends the event.
    Engine(EngineError),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Key(max) => write!(f, "a key has 1 to {max} bytes"),
            StorageError::Value(max) => write!(f, "a value has at most {max} bytes"),
            StorageError::Room(max) => write!(f, "a room holds at most {max} bytes"),
            StorageError::Event(max) => write!(f, "one event writes and sends at most {max} bytes"),
            StorageError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StorageError {}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> StorageError {
        StorageError::Engine(error)
    }
}

/// Reads and writes of the storage.
impl Transaction {
    /// Returns a transaction without changes.
    pub fn new(hub: Arc<Hub>, engine: Arc<dyn Engine>, room: RoomId) -> Transaction {
        let (stored, base, kept, event, flushes, committing, commits, failed) = Default::default();
        let charge = Charge::new(Kind::Transaction);
        let state = State {
            stored,
            base,
            kept,
            event,
            flushes,
            charge,
            committing,
            commits,
            failed,
        };
        Transaction {
            hub,
            engine,
            room,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns the room.
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
        self.value(&self.state(), key)
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: Bytes) -> Result<(), StorageError> {
        let limits = self.hub.limits();
        if key.is_empty() || key.len() > limits.room_key_bytes_max {
            return Err(StorageError::Key(limits.room_key_bytes_max));
        }
        if value.len() > limits.room_value_bytes_max {
            return Err(StorageError::Value(limits.room_value_bytes_max));
        }
        let (mut state, size) = (self.state(), key.len() + value.len());
        let before = self
            .value(&state, key)?
            .map_or(0, |old| key.len() + old.len());
        let grown = size as i64 - before as i64;
        if grown > 0 && self.bytes(&mut state)? + grown > limits.room_bytes_max as i64 {
            return Err(StorageError::Room(limits.room_bytes_max));
        }
        self.write(&mut state, key, Some(value))?;
        state.event.bytes += grown;
        Ok(())
    }

    /// Deletes a key. Returns true if it existed. Fails if the event exceeds its bound.
    pub fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let mut state = self.state();
        let Some(old) = self.value(&state, key)? else {
            return Ok(false);
        };
        self.write(&mut state, key, None)?;
        state.event.bytes -= (key.len() + old.len()) as i64;
        Ok(true)
    }

    /// Deletes all keys. The alarm stays.
    pub fn clear(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        state.event.bytes -= self.bytes(&mut state)?;
        state.event.weight -= state.event.overlay.weight();
        state.event.overlay.clear();
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), StorageError> {
        let (more, less) = state.event.overlay.cost(key, value.as_ref());
        let (mut allowance, ..) = self.allowance(state);
        let refused = |_| StorageError::Event(self.hub.limits().room_event_bytes_max);
        allowance.admit(more, less).map_err(refused)?;
        state.event.overlay.insert(key, value);
        Ok(())
    }

    /// Returns the bound of the running event, its effects, and the effects of the events before
    /// it.
    fn allowance<'a>(
        &'a self,
        state: &'a mut State,
    ) -> (Allowance<'a>, &'a mut Effects, &'a Effects) {
        let State {
            kept,
            event,
            charge,
            ..
        } = state;
        let (max, budget) = (self.hub.limits().room_event_bytes_max, self.hub.budget());
        (
            Allowance {
                weight: &mut event.weight,
                kept: kept.weight,
                max,
                budget,
                charge,
            },
            &mut event.effects,
            &kept.effects,
        )
    }

    /// Returns a page of entries in the order of their keys. It ends at the range's limit, at 1,000
    /// entries, or with the entry that makes it 1 MiB. It is empty only if there are no entries.
    pub fn entries(&self, range: Range<'_>) -> Result<Vec<(String, Bytes)>, EngineError> {
        let state = self.state();
        overlay::page(
            &*self.engine,
            &self.room,
            [&state.kept.overlay, &state.event.overlay],
            range,
        )
    }

    /// As [`entries`](Transaction::entries), for keys that begin with `prefix` (WIT `room.query`),
    /// from `start` to `end`.
    pub fn query(
        &self,
        prefix: &str,
        start: Option<&str>,
        end: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, EngineError> {
        let behind = prefix_end(prefix);
        let end = [end, behind.as_deref()].into_iter().flatten().min();
        let start = Bound::Included(start.map_or(prefix, |start| start.max(prefix)));
        self.entries(Range {
            start,
            end: end.map_or(Bound::Unbounded, Bound::Excluded),
            reverse,
            limit,
        })
    }

    /// Returns the room's alarm.
    pub fn alarm(&self) -> Result<Option<Alarm>, EngineError> {
        let mut state = self.state();
        match state.event.alarm.or(state.kept.alarm) {
            Some(alarm) => Ok(alarm),
            None => Ok(self.stored(&mut state)?.alarm),
        }
    }

    /// Sets the alarm to a Unix time in milliseconds, or removes it.
    pub fn set_alarm(&self, at: Option<u64>) {
        self.state().event.alarm = Some(at.map(|at| Alarm { at, attempt: 1 }));
    }

    fn value(&self, state: &State, key: &str) -> Result<Option<Bytes>, EngineError> {
        match state
            .event
            .overlay
            .find(key)
            .or_else(|| state.kept.overlay.find(key))
        {
            Some(value) => Ok(value),
            None => self.engine.get(&self.room, key),
        }
    }

    /// Returns the room's size with all changes.
    fn bytes(&self, state: &mut State) -> Result<i64, EngineError> {
        Ok(self.stored(state)?.bytes as i64 + state.kept.bytes + state.event.bytes)
    }

    fn stored(&self, state: &mut State) -> Result<RoomRecord, EngineError> {
        match state.stored {
            Some(stored) => Ok(stored),
            None => Ok(*state.stored.insert(self.engine.stored(&self.room)?)),
        }
    }
}

/// Effects that others can see.
impl Transaction {
    /// Calls another room, which sees no change of this event.
    pub fn call(&self, class: &str, name: &str, payload: Bytes) -> RoomCall {
        self.hub.call(Some(&self.room), class, name, payload)
    }

    /// Returns a connection of this room by its id.
    pub fn find(&self, id: ConnId) -> Option<Arc<Conn>> {
        let state = self.state();
        let member = state
            .event
            .effects
            .member(id)
            .or_else(|| state.kept.effects.member(id));
        member.unwrap_or_else(|| self.hub.connections().member(&self.room, id))
    }

    /// Returns a page of ids of the room's connections in the order of their opening (WIT
    /// `websockets.ids`).
    pub fn ids(&self, tag: Option<&str>, after: Option<ConnId>, limit: usize) -> Vec<ConnId> {
        let state = self.state();
        let limit = limit.min(IDS_PAGE_MAX);
        // Read so many that the page is full even after the connections that left are removed.
        let with_spare = limit + state.kept.effects.amends_max() + state.event.effects.amends_max();
        let mut ids: BTreeSet<ConnId> = self
            .hub
            .connections()
            .members(&self.room, tag, after, with_spare);
        state.kept.effects.amend(&mut ids, tag);
        state.event.effects.amend(&mut ids, tag);
        ids.into_iter()
            .filter(|id| after.is_none_or(|after| *id > after))
            .take(limit)
            .collect()
    }

    /// Stages an effect of the running event. It happens when the event's commit is durable.
    pub fn stage(&self, mut effect: Effect) -> Result<EffectOutcome, EffectError> {
        if effect.is_void(self.hub.limits()) {
            return Ok(EffectOutcome::Done);
        }
        let outcome = effect.prepare(&self.hub)?;
        let mut state = self.state();
        let (mut allowance, effects, earlier) = self.allowance(&mut state);
        effects.stage(effect, earlier, &mut allowance)?;
        Ok(outcome)
    }

    /// Returns the bytes queued for a connection, those of this room's events included.
    pub fn queued(&self, conn: &Conn) -> usize {
        let state = self.state();
        conn.outbox().queued()
            + state.kept.effects.queued(conn.id())
            + state.event.effects.queued(conn.id())
    }

    /// Returns the connection's attachment.
    pub fn attachment(&self, conn: &Conn) -> Bytes {
        let state = self.state();
        let set = state
            .event
            .effects
            .attachment(conn.id())
            .or_else(|| state.kept.effects.attachment(conn.id()));
        set.unwrap_or_else(|| conn.attachment())
    }

    /// Returns the connection's tags.
    pub fn tags(&self, conn: &Conn) -> Vec<String> {
        let state = self.state();
        let set = state
            .event
            .effects
            .tags(conn.id())
            .or_else(|| state.kept.effects.tags(conn.id()));
        set.unwrap_or_else(|| conn.tags())
    }

    /// Publishes to the room's own topic, which its connections and feeds follow. Returns the
    /// number of the publication, or 0 if it is transient.
    pub fn broadcast(
        &self,
        mut publication: Publication,
    ) -> Result<Result<u64, LimitError>, EngineError> {
        let mut state = self.state();
        let is_numbered = !publication.transient;
        if is_numbered {
            let Position { epoch, sequence } = self.place(&mut state)?;
            (publication.epoch, publication.sequence) = (epoch, sequence + 1);
        }
        let (sequence, checked) = (publication.sequence, publication.check(self.hub.limits()));
        let charged = checked.and_then(|()| Ok(publication.charge(self.hub.budget())?));
        let (mut allowance, effects, _) = self.allowance(&mut state);
        if let Err(error) = charged.and_then(|()| effects.broadcast(publication, &mut allowance)) {
            return Ok(Err(error));
        }
        state.event.numbered += u64::from(is_numbered);
        Ok(Ok(sequence))
    }

    /// Returns the position of the room's topic after the broadcasts of this event so far.
    pub fn position(&self) -> Result<Position, EngineError> {
        self.place(&mut self.state())
    }

    /// Sends the broadcasts after `since` to a connection that joins with this event, up to the
    /// moment when it joined. Fails as not valid for any other connection.
    pub fn resume(
        &self,
        conn: &Arc<Conn>,
        since: Position,
    ) -> Result<Result<StartPoint, LimitError>, EngineError> {
        let mut state = self.state();
        if !state.event.joined.contains(&conn.id()) {
            return Ok(Err(LimitError::NotValid));
        }
        let base = self.base(&mut state)?;
        let came = Position {
            sequence: base.sequence + state.kept.numbered,
            ..base
        };
        let (start, missed) = self.missed(&state, Some(since), came)?;
        let bytes = missed
            .iter()
            .map(|publication| publication.message.len())
            .sum::<usize>();
        let (mut allowance, effects, earlier) = self.allowance(&mut state);
        if !effects.has_room(conn, bytes, missed.len(), earlier)
            || !allowance.has_room(effects::sends_weight(bytes, missed.len()))
        {
            return Ok(Ok(StartPoint {
                position: came,
                has_gap: true,
            }));
        }
        for publication in missed {
            // A connection that closes already gets nothing. One that memory is short for must not
            // miss a message in the middle.
            let send = Effect::Send(conn.clone(), publication.message.clone());
            let sent = effects.stage(send, earlier, &mut allowance);
            if matches!(sent, Err(EffectError::Full | EffectError::TooMany)) {
                let close = Close::new(1013, "the server is short of memory");
                _ = effects.stage(Effect::Close(conn.clone(), close), earlier, &mut allowance);
            }
        }
        Ok(Ok(start))
    }

    /// Adds the connection to the room with this event.
    pub fn join(&self, conn: Arc<Conn>) {
        let mut state = self.state();
        state.event.joined.push(conn.id());
        let (mut allowance, effects, _) = self.allowance(&mut state);
        effects.join(conn, &mut allowance);
    }

    /// Removes the connection from the room.
    pub fn leave(&self, conn: Arc<Conn>) {
        let mut state = self.state();
        let (mut allowance, effects, _) = self.allowance(&mut state);
        effects.leave(conn, &mut allowance);
    }

    /// Opens a feed. It gets the broadcasts of the room from this event on or from its earlier
    /// position, and the publications of the topics that it follows.
    pub fn subscribe(
        &self,
        topics: Vec<String>,
        since: Option<Positions>,
    ) -> Result<Arc<PendingFeed>, EngineError> {
        let mut state = self.state();
        let here = self.place(&mut state)?;
        let was = since.as_ref().map(|since| since.within(here));
        let missed = self.missed(&state, was, here)?;
        let (mut allowance, effects, _) = self.allowance(&mut state);
        Ok(effects.subscribe(topics, since, missed, &mut allowance))
    }

    /// Returns the position of the room's topic after the broadcasts so far.
    fn place(&self, state: &mut State) -> Result<Position, EngineError> {
        let base = self.base(state)?;
        Ok(Position {
            sequence: base.sequence + state.kept.numbered + state.event.numbered,
            ..base
        })
    }

    fn base(&self, state: &mut State) -> Result<Position, EngineError> {
        if let Some(base) = state.base {
            return Ok(base);
        }
        let base = match self.stored(state)?.history {
            Some(logged) => logged.position,
            // Fails only if there are too many topics: then the broadcast reaches no client.
            None => self.hub.room_position(&self.room).unwrap_or(Position {
                epoch: 0,
                sequence: 0,
            }),
        };
        Ok(*state.base.insert(base))
    }

    /// Returns the broadcasts after `since` and up to `here`.
    fn missed(
        &self,
        state: &State,
        since: Option<Position>,
        here: Position,
    ) -> Result<(StartPoint, Replay), EngineError> {
        let mut log = Ok(Vec::new());
        let resumed = history::resume(since, here, |sequence| {
            log = self.engine.log(&self.room);
            let (now, limits) = (self.hub.now().wall, self.hub.limits());
            let stored = log
                .iter()
                .flatten()
                .filter_map(|bytes| history::decode(bytes, here.epoch, now, limits));
            let recent = [&state.kept, &state.event]
                .into_iter()
                .flat_map(|part| part.effects.numbered().cloned());
            let mut missed: Replay = stored.chain(recent).collect();
            missed.retain(|publication| {
                (sequence + 1..=here.sequence).contains(&publication.sequence)
            });
            missed.sort_by_key(|publication| publication.sequence);
            missed
        });
        log.map(|_| resumed)
    }
}

/// End of an event.
impl Transaction {
    /// Keeps the changes of the running event, which has ended well.
    pub fn keep(&self) {
        self.state().keep();
    }

    /// Discards the changes of the running event.
    pub fn discard(&self) {
        self.state().event = Staged::default();
    }

    /// Undoes the changes of the running event. Connections that joined or left with it stay so
    /// (WIT `room.rollback`).
    pub fn rollback(&self) {
        let mut state = self.state();
        let Staged {
            effects, joined, ..
        } = mem::take(&mut state.event);
        let effects = effects.members_only();
        state.event = Staged {
            weight: effects.weight(),
            effects,
            joined,
            ..Staged::default()
        };
    }

    /// Returns true if the kept changes and the answers that wait for the commit are so large that
    /// it is time to commit.
    pub(crate) fn is_heavy(&self, answers: usize) -> bool {
        self.state().kept.weight + answers >= self.hub.limits().room_event_bytes_max
    }

    /// Handles a failure of the alarm's handler: the alarm is set for another try, or removed after
    /// its last one. Returns true if it is tried again.
    pub fn retry_alarm(&self, alarm: Alarm, now: u64) -> bool {
        let again = alarm.attempt < ALARM_ATTEMPTS_MAX;
        let next = Alarm {
            at: now + pause(alarm.attempt + 1),
            attempt: alarm.attempt + 1,
        };
        self.state().kept.alarm = Some(again.then_some(next));
        again
    }

    /// Restores the alarm, because its handler could not be called, which is no fault of the app.
    pub(crate) fn restore_alarm(&self, alarm: Alarm) {
        let mut state = self.state();
        let is_stored = state
            .stored
            .is_some_and(|stored| stored.alarm == Some(alarm));
        state.kept.alarm = (!is_stored).then_some(Some(alarm));
    }

    /// Returns the durable alarm.
    pub(crate) fn stored_alarm(&self) -> Result<Option<Alarm>, EngineError> {
        Ok(self.stored(&mut self.state())?.alarm)
    }

    /// Returns the number of flushes. An event that flushed must not run again, because a part of
    /// it is durable.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Commits the changes of this event so far and of everything before it; then others see them
    /// (WIT `room.flush`).
    pub async fn flush(&self) -> Result<(), EngineError> {
        self.state().flushes += 1;
        self.keep();
        self.commit().await
    }

    /// Commits the kept changes, then releases their effects. After an error none of them has
    /// happened.
    pub async fn commit(&self) -> Result<(), EngineError> {
        self.finish().await;
        let number = self.state().commits;
        self.begin();
        self.finish().await;
        self.outcome(number)
    }

    /// Returns the number of the commit that will contain the kept changes.
    pub(crate) fn number(&self) -> u64 {
        self.state().commits
    }

    /// Returns true if nothing was kept since the last commit.
    pub(crate) fn is_clean(&self) -> bool {
        let Staged {
            overlay,
            alarm,
            effects,
            numbered,
            ..
        } = &self.state().kept;
        overlay.is_empty() && alarm.is_none() && effects.is_empty() && *numbered == 0
    }

    /// Returns the outcome of the commit with this number, which must have ended.
    pub(crate) fn outcome(&self, number: u64) -> Result<(), EngineError> {
        let failed = self
            .state()
            .failed
            .iter()
            .find(|(failed, _)| *failed == number)
            .map(|(_, error)| error.clone());
        failed.map_or(Ok(()), Err)
    }

    /// Starts to commit the kept changes. If nothing has to be stored, the effects are released at
    /// once.
    fn begin(&self) {
        let now = self.hub.now().wall;
        let mut state = self.state();
        let Staged {
            overlay,
            bytes,
            alarm,
            effects,
            numbered,
            ..
        } = mem::take(&mut state.kept);
        let base = state.base.take();
        let logged = base
            .filter(|_| numbered > 0 && self.hub.limits().history_messages_max > 0)
            .map(|base| LogHead {
                position: Position {
                    sequence: base.sequence + numbered,
                    ..base
                },
                expires: now + self.hub.limits().history_age_max.as_millis() as u64,
            });
        state.commits += 1;
        if overlay.is_empty() && alarm.is_none() && logged.is_none() {
            drop(state);
            effects.release(&self.hub, &self.room);
            self.refit(&mut self.state());
            return;
        }
        let before = match self.stored(&mut state) {
            Ok(before) => before,
            Err(error) => return self.handle_failure(&mut state, error, alarm.is_some()),
        };
        let bytes = before.bytes.saturating_add_signed(bytes);
        let stored = RoomRecord {
            bytes,
            alarm: alarm.unwrap_or(before.alarm),
            history: logged.or(before.history),
        };
        let log = logged.map_or_else(Vec::new, |_| effects.log(now, self.hub.limits()));
        let batch = Batch {
            room: self.room.clone(),
            clear: overlay.clear,
            writes: overlay.writes,
            log,
            stored,
        };
        let changes_alarm = stored.alarm != before.alarm;
        state.committing = Some(PendingCommit {
            commit: self.engine.commit(batch),
            stored,
            changes_alarm,
            effects,
        });
    }

    /// Waits for the running commit, if there is one. This is the only place where a commit becomes
    /// known as durable: it updates the index of alarms and releases the effects.
    pub(crate) async fn finish(&self) {
        let done = poll_fn(|cx| {
            let mut state = self.state();
            let Some(committing) = &mut state.committing else {
                return Poll::Ready(None);
            };
            let outcome = ready!(committing.commit.as_mut().poll(cx));
            Poll::Ready(
                state
                    .committing
                    .take()
                    .map(|committing| (outcome, committing)),
            )
        });
        let Some((
            outcome,
            PendingCommit {
                stored,
                changes_alarm,
                effects,
                ..
            },
        )) = done.await
        else {
            return;
        };
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                state.stored = Some(stored);
                drop(state);
                self.hub.counters().commits.add(1);
                self.hub
                    .alarms()
                    .commit(&self.room, stored.alarm, self.hub.now());
                effects.release(&self.hub, &self.room);
                self.refit(&mut self.state());
            }
            Err(error) => self.handle_failure(&mut state, error, changes_alarm),
        }
    }

    fn handle_failure(&self, state: &mut State, error: EngineError, changes_alarm: bool) {
        let number = state.commits - 1;
        state.failed.push((number, error));
        // Read the stored state again, because the engine may not know the outcome of the commit.
        state.stored = None;
        if changes_alarm {
            self.hub.alarms().mark_unknown(&self.room, self.hub.now());
        }
        self.refit(state);
    }

    /// Gives back the memory that was reserved for the changes of a commit.
    fn refit(&self, state: &mut State) {
        let weight = state.kept.weight + state.event.weight;
        // A smaller reservation is never refused.
        _ = state.charge.fit(self.hub.budget(), weight);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds a transaction")
    }
}

impl State {
    fn keep(&mut self) {
        let Staged {
            overlay,
            bytes,
            alarm,
            effects,
            numbered,
            weight,
            ..
        } = mem::take(&mut self.event);
        self.kept.weight += weight;
        self.kept.numbered += numbered;
        self.kept.overlay.absorb(overlay);
        self.kept.bytes += bytes;
        self.kept.alarm = alarm.or(self.kept.alarm);
        self.kept.effects.absorb(effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Accept,
        limits::Limits,
        message::Message,
        name::RoomId,
        realtime::{
            auto_response::AutoResponse, connections::ConnectionGuard, publication::TopicPolicy,
        },
        testing::Memory,
    };

    const MAX: usize = 64 << 10;

    fn room(limits: Limits) -> (Arc<Hub>, Transaction, ConnectionGuard) {
        let hub = Hub::new(
            Limits {
                room_event_bytes_max: MAX,
                ..limits
            },
            TopicPolicy::default(),
            1,
        );
        let id = RoomId::new("chat", "tea").unwrap();
        let conn = hub
            .open(Accept {
                room: Some(id.clone()),
                ..Accept::default()
            })
            .unwrap();
        (
            hub.clone(),
            Transaction::new(hub, Arc::new(Memory::default()), id),
            conn,
        )
    }

    /// Runs the n-th call of an operation. Returns true if it was admitted.
    type Verb = fn(&Transaction, &Arc<Conn>, usize) -> bool;

    fn does(room: &Transaction, effect: Effect) -> bool {
        room.stage(effect).is_ok()
    }

    /// Every operation of an event. In the first list each one takes memory until the commit; in
    /// the second only the last one counts.
    const ADDED: &[(&str, Verb)] = &[
        ("send", |room, conn, _| {
            does(room, Effect::Send(conn.clone(), Message::text("")))
        }),
        ("follow", |room, conn, _| {
            does(room, Effect::Follow(conn.clone(), "t".into(), None))
        }),
        ("unfollow", |room, conn, _| {
            does(room, Effect::Unfollow(conn.clone(), "t".into()))
        }),
        ("publish", |room, _, _| {
            let publication = Publication::new(Message::text(""));
            does(room, Effect::Publish("t".into(), publication))
        }),
        ("broadcast", |room, _, _| {
            room.broadcast(Publication::new(Message::text("")))
                .unwrap()
                .is_ok()
        }),
        ("broadcast, transient", |room, _, _| {
            room.broadcast(Publication {
                transient: true,
                ..Publication::new(Message::text(""))
            })
            .unwrap()
            .is_ok()
        }),
        ("put", |room, _, n| {
            room.put(&n.to_string(), Bytes::new()).is_ok()
        }),
        ("put and delete", |room, _, n| {
            room.put(&n.to_string(), Bytes::new()).is_ok() && room.delete(&n.to_string()).is_ok()
        }),
    ];
    const REPLACED: &[(&str, Verb)] = &[
        ("close", |room, conn, n| {
            let close = Close::new(4000, &"r".repeat(n % 100));
            does(room, Effect::Close(conn.clone(), close))
        }),
        ("attachment", |room, conn, n| {
            let value = vec![0; 1000 + n % 3].into();
            does(room, Effect::SetAttachment(conn.clone(), value))
        }),
        ("tags", |room, conn, n| {
            let tags = vec!["t".repeat(100 + n % 3)];
            does(room, Effect::SetTags(conn.clone(), tags))
        }),
        ("auto-response", |room, _, n| {
            let response = AutoResponse::new("p".repeat(2000), n.to_string()).unwrap();
            does(room, Effect::SetAutoResponse(Some(response)))
        }),
        ("auto-response, none", |room, _, _| {
            does(room, Effect::SetAutoResponse(None))
        }),
        ("alarm", |room, _, n| {
            room.set_alarm(Some(n as u64));
            true
        }),
        ("put", |room, _, _| {
            room.put("same", vec![0; 1000].into()).is_ok()
        }),
        ("delete", |room, _, _| {
            room.put("same", Bytes::new()).is_ok() && room.delete("same").is_ok()
        }),
        ("clear", |room, _, n| {
            room.put(&n.to_string(), vec![0; 1000].into()).is_ok() && room.clear().is_ok()
        }),
    ];

    #[test]
    fn whatever_an_event_does_again_and_again_has_a_weight_or_replaces_itself() {
        let limits = Limits {
            outbox_messages_max: usize::MAX,
            ..Limits::default()
        };
        for (name, verb) in ADDED {
            let (_hub, room, conn) = room(limits.clone());
            let admitted = (0..MAX).take_while(|n| verb(&room, &conn, *n)).count();
            assert!(
                admitted > 50 && admitted < MAX / size_of::<(String, Option<Bytes>)>(),
                "{name}: {admitted}"
            );
            assert!(room.state().event.weight <= MAX, "{name}");
        }
        for (name, verb) in REPLACED {
            let (_hub, room, conn) = room(limits.clone());
            assert!((0..MAX).all(|n| verb(&room, &conn, n)), "{name}");
            let weight = room.state().event.weight;
            assert!(weight < 5000, "{name}: {weight}");
        }
    }

    #[test]
    fn an_event_has_the_weight_of_what_it_holds_and_none_once_it_is_undone() {
        let (_hub, room, conn) = room(Limits::default());
        let verbs = [ADDED, REPLACED].concat();
        assert!(
            verbs
                .iter()
                .all(|(_, verb)| verb(&room, &conn, 1) || room.find(conn.id()).is_none())
        );
        let weight = || room.state().event.weight;
        let (all, of_effects) = (weight(), { room.state().event.effects.weight() });
        assert!(all > of_effects && of_effects > 0);
        room.keep();
        let kept = { room.state().kept.weight };
        assert_eq!((weight(), kept), (0, all));
        assert!(ADDED[3].1(&room, &conn, 1));
        room.rollback();
        assert_eq!(weight(), 0);
        room.join(conn.clone());
        let joined = weight();
        assert!(ADDED[3].1(&room, &conn, 1));
        room.rollback();
        assert_eq!(weight(), joined, "that it came is not undone");
    }

    #[test]
    fn what_events_do_counts_in_the_budget_of_the_process_until_it_is_undone() {
        let (hub, room, _conn) = room(Limits {
            memory_max: 400 << 10,
            room_event_bytes_max: MAX,
            ..Limits::default()
        });
        let fill = |room: &Transaction| {
            (0..)
                .take_while(|n| room.put(&n.to_string(), vec![0; 10_000].into()).is_ok())
                .count()
        };
        let mut turns = 0;
        while fill(&room) > 0 {
            room.keep();
            turns += 1;
            assert!(turns < 100, "the budget refuses nothing");
        }
        let reserved = hub.budget().reserved();
        assert!(reserved > 200 << 10 && reserved <= 340 << 10, "{reserved}");
        drop(room);
        assert_eq!(hub.budget().reserved(), 0);
    }
}
