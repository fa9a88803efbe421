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
use tidegate_hub::{self as hub, AutoResponse, Conn};
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
        let scope = self.scope()?;
        let response = pair
            .map(|pair| AutoResponse::new(pair.request, pair.response))
            .transpose();
        Ok(response
            .and_then(|response| scope.set_auto_response(response))
            .map_err(Into::into))
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
        let sent = self
            .scope()?
            .send(self.conn(&connection)?, super::message(message));
        Ok(sent.map_err(|error| match error {
            hub::SendError::Closed => SendError::Closed,
            hub::SendError::Full => SendError::Full,
            hub::SendError::TooLarge => SendError::TooLarge,
        }))
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
        Ok(self
            .scope()?
            .close(self.conn(&connection)?, code, &reason)
            .map_err(Into::into))
    }

    fn attachment(&mut self, connection: Resource<Connection>) -> Result<Vec<u8>> {
        Ok(self.scope()?.attachment(self.conn(&connection)?).into())
    }

    fn set_attachment(
        &mut self,
        connection: Resource<Connection>,
        value: Vec<u8>,
    ) -> Result<Result<(), LimitError>> {
        Ok(self
            .scope()?
            .set_attachment(self.conn(&connection)?, value.into())
            .map_err(Into::into))
    }

    fn follow(
        &mut self,
        connection: Resource<Connection>,
        topic: String,
        since: Option<Position>,
    ) -> Result<Result<StartPoint, LimitError>> {
        let followed =
            self.scope()?
                .follow(self.conn(&connection)?, &topic, since.map(super::position));
        Ok(followed.map(Into::into).map_err(Into::into))
    }

    fn unfollow(&mut self, connection: Resource<Connection>, topic: String) -> Result<()> {
        match self.scope()?.unfollow(self.conn(&connection)?, &topic) {
            Ok(()) => Ok(()),
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
        Ok(self
            .scope()?
            .set_tags(self.conn(&connection)?, tags)
            .map_err(Into::into))
    }

    fn drop(&mut self, connection: Resource<Connection>) -> Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}
