//! The room's own topic: broadcasts, their numbers, and clients that resume.

use super::{State, Transaction};
use crate::{
    effect::{Effect, EffectError},
    limits::LimitError,
    realtime::{
        connections::Conn,
        history::{self, Position, Positions, Replay, StartPoint},
        outgoing::Close,
        publication::Publication,
    },
    rooms::{effects, pending_feed::PendingFeed, storage::EngineError},
};
use std::sync::Arc;

impl Transaction {
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
