//! `tidegate:app/websockets`: an app's view of its connections.

use crate::{
    bindings::tidegate::app::{
        types::{LimitError, Message, Position, StartPoint},
        websockets::{self, Host, HostConnection, SendError},
    },
    connection::Connection,
    state::State,
};
use std::sync::Arc;
use tidegate_hub::{AutoResponse, Close, Conn, Effect, EffectError};
use wasmtime::{Result, bail, component::Resource};

impl State {
    pub(super) fn conn(&self, connection: &Resource<Connection>) -> Result<&Arc<Conn>> {
        let conn = match self.table.get(connection)? {
            Connection::OfEvent => self.event_conn.as_ref(),
            Connection::Found(conn) => Some(conn),
        };
        match conn {
            Some(conn) => Ok(conn),
            None => bail!("a connection outside of its event"),
        }
    }
}

impl Host for State {
    fn find(&mut self, id: String) -> Result<Option<Resource<Connection>>> {
        let Ok(id) = id.parse() else { return Ok(None) };
        match self.scope()?.find(id) {
            Some(conn) => Ok(Some(self.table.push(Connection::Found(conn))?)),
            None => Ok(None),
        }
    }

    fn ids(
        &mut self,
        tag: Option<String>,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let after = match after.map(|after| after.parse()) {
            Some(Err(_)) => return Ok(Vec::new()),
            after => after.and_then(Result::ok),
        };
        let ids = self.scope()?.ids(tag.as_deref(), after, limit as usize);
        Ok(ids.into_iter().map(|id| id.to_string()).collect())
    }

    fn set_auto_response(
        &mut self,
        pair: Option<websockets::AutoResponse>,
    ) -> Result<Result<(), LimitError>> {
        let response = pair
            .map(|pair| AutoResponse::new(pair.request, pair.response))
            .transpose();
        match response {
            Ok(response) => Ok(self.perform(Effect::SetAutoResponse(response))?.map(drop)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl HostConnection for State {
    fn id(&mut self, connection: Resource<Connection>) -> Result<String> {
        Ok(self.conn(&connection)?.id().to_string())
    }

    fn route(&mut self, connection: Resource<Connection>) -> Result<Option<u32>> {
        let Some(route) = self.conn(&connection)?.route() else {
            return Ok(None);
        };
        Ok(self
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.successor(route)))
    }

    fn protocol(&mut self, connection: Resource<Connection>) -> Result<Option<String>> {
        Ok(self.conn(&connection)?.protocol().map(str::to_owned))
    }

    fn send(
        &mut self,
        connection: Resource<Connection>,
        message: Message,
    ) -> Result<Result<(), SendError>> {
        let conn = self.conn(&connection)?.clone();
        let effect = Effect::Send(conn, super::message(message));
        Ok(self.perform(effect)?.map(drop))
    }

    fn ping(
        &mut self,
        connection: Resource<Connection>,
        payload: Vec<u8>,
    ) -> Result<Result<(), SendError>> {
        let conn = self.conn(&connection)?.clone();
        Ok(self.perform(Effect::Ping(conn, payload.into()))?.map(drop))
    }

    fn buffered_amount(&mut self, connection: Resource<Connection>) -> Result<u64> {
        Ok(self.scope()?.queued(self.conn(&connection)?) as u64)
    }

    fn close(
        &mut self,
        connection: Resource<Connection>,
        code: u16,
        reason: String,
    ) -> Result<Result<(), LimitError>> {
        let conn = self.conn(&connection)?.clone();
        let effect = Effect::Close(conn, Close { code, reason });
        Ok(self.perform(effect)?.map(drop))
    }

    fn attachment(&mut self, connection: Resource<Connection>) -> Result<Vec<u8>> {
        Ok(self.scope()?.attachment(self.conn(&connection)?).into())
    }

    fn set_attachment(
        &mut self,
        connection: Resource<Connection>,
        value: Vec<u8>,
    ) -> Result<Result<(), LimitError>> {
        let conn = self.conn(&connection)?.clone();
        let effect = Effect::SetAttachment(conn, value.into());
        Ok(self.perform(effect)?.map(drop))
    }

    fn follow(
        &mut self,
        connection: Resource<Connection>,
        topic: String,
        since: Option<Position>,
    ) -> Result<Result<StartPoint, LimitError>> {
        let conn = self.conn(&connection)?.clone();
        let effect = Effect::Follow(conn, topic, since.map(super::position));
        let followed = self.perform(effect)?;
        Ok(followed.map(|outcome| outcome.start().into()))
    }

    fn unfollow(&mut self, connection: Resource<Connection>, topic: String) -> Result<()> {
        let effect = Effect::Unfollow(self.conn(&connection)?.clone(), topic);
        match self.scope()?.perform(effect) {
            Ok(_) => Ok(()),
            Err(error) => bail!("one event does more than it may: {error}"),
        }
    }

    fn tags(&mut self, connection: Resource<Connection>) -> Result<Vec<String>> {
        Ok(self.scope()?.tags(self.conn(&connection)?))
    }

    fn set_tags(
        &mut self,
        connection: Resource<Connection>,
        tags: Vec<String>,
    ) -> Result<Result<(), LimitError>> {
        let conn = self.conn(&connection)?.clone();
        let effect = Effect::SetTags(conn, tags);
        Ok(self.perform(effect)?.map(drop))
    }

    fn drop(&mut self, connection: Resource<Connection>) -> Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl From<EffectError> for SendError {
    fn from(error: EffectError) -> SendError {
        match error {
            EffectError::Closed | EffectError::NotValid => SendError::Closed,
            EffectError::Full | EffectError::TooMany => SendError::Full,
            EffectError::TooLarge => SendError::TooLarge,
        }
    }
}
