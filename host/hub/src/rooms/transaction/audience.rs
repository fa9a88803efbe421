//! The connections of a room as the events of a transaction see them, and the effects on them.

use super::Transaction;
use crate::{
    effect::{Effect, EffectError, EffectOutcome},
    limits::IDS_PAGE_MAX,
    name::ConnId,
    realtime::connections::Conn,
    rooms::{calls::RoomCall, effects::Effects},
};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};

impl Transaction {
    /// Calls another room, which sees no change of this event.
    pub fn call(&self, class: &str, name: &str, payload: Bytes) -> RoomCall {
        self.hub.call(Some(&self.room), class, name, payload)
    }

    /// Returns a connection of this room by its id.
    pub fn find(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.latest(|effects| effects.member(id))
            .unwrap_or_else(|| self.hub.connections().member(&self.room, id))
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
        self.latest(|effects| effects.attachment(conn.id()))
            .unwrap_or_else(|| conn.attachment())
    }

    /// Returns the connection's tags.
    pub fn tags(&self, conn: &Conn) -> Vec<String> {
        self.latest(|effects| effects.tags(conn.id()))
            .unwrap_or_else(|| conn.tags())
    }

    /// Returns the value that the running event has staged, or the events before it.
    fn latest<T>(&self, staged: impl Fn(&Effects) -> Option<T>) -> Option<T> {
        let state = self.state();
        staged(&state.event.effects).or_else(|| staged(&state.kept.effects))
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
}
