//! An instance that stands for one room: it has it to itself, and its events act for the room's transaction.

use crate::{
    permits::{Permit, Use},
    pool::{GuestInstance, Pool},
    stdio::EventContext,
};
use std::sync::Arc;
use tidegate_hub::{
    Call, Fault, Hub, Scope, Transaction,
    app::{self, RoomAnswer, RoomEvent},
};

pub(crate) struct RoomGuest {
    instance: Box<GuestInstance>,
    pool: Arc<Pool>,
    hub: Arc<Hub>,
    /// Given back when the room sleeps.
    _permit: Permit,
}

impl RoomGuest {
    pub(crate) async fn new(pool: &Arc<Pool>, hub: &Arc<Hub>) -> Result<RoomGuest, Fault> {
        let permit = pool.account().permit(Use::Room).await?;
        Ok(RoomGuest {
            instance: pool.make().await?,
            pool: pool.clone(),
            hub: hub.clone(),
            _permit: permit,
        })
    }

    async fn event(
        &mut self,
        event: RoomEvent,
        transaction: &Transaction,
    ) -> Result<RoomAnswer, Fault> {
        self.instance.store.data_mut().scope = Some(Scope::Room(transaction.clone()));
        let room = transaction.room().clone();
        let mut about = EventContext {
            room: Some(room.clone()),
            ..EventContext::default()
        };
        match &event {
            RoomEvent::Open(conn, _) | RoomEvent::Messages(conn, _) | RoomEvent::Close(conn, _) => {
                about.conn = Some(conn.clone())
            }
            RoomEvent::Handle(request, _)
            | RoomEvent::Upgrade(request, _)
            | RoomEvent::Subscribe(request, _) => {
                about.route = Some(request.route);
            }
            RoomEvent::Wake | RoomEvent::Call(_) | RoomEvent::Alarm(_) => {}
        }
        let call = async move |instance: &mut GuestInstance| match event {
            RoomEvent::Wake => instance.wake(&room).await.map(|()| RoomAnswer::Done),
            RoomEvent::Handle(request, body) => instance
                .handle(&request, &body)
                .await
                .map(RoomAnswer::Response),
            RoomEvent::Upgrade(request, offered) => instance
                .upgrade(&request, &offered)
                .await
                .map(RoomAnswer::Decision),
            RoomEvent::Open(_, request) => instance.open(&request).await.map(|()| RoomAnswer::Done),
            RoomEvent::Messages(_, messages) => instance
                .messages(&messages)
                .await
                .map(|()| RoomAnswer::Done),
            RoomEvent::Close(_, info) => instance.close(&info).await.map(|()| RoomAnswer::Done),
            RoomEvent::Subscribe(request, last) => instance
                .subscribe(&request, last.as_deref())
                .await
                .map(RoomAnswer::Feed),
            RoomEvent::Call(payload) => instance.answer(&payload).await.map(RoomAnswer::Called),
            RoomEvent::Alarm(attempt) => instance.alarm(attempt).await.map(|()| RoomAnswer::Done),
        };
        self.instance
            .run(about, self.pool.options().wall_max, call)
            .await
    }
}

impl app::Instance for RoomGuest {
    fn call<'a>(
        &'a mut self,
        event: RoomEvent,
        transaction: &'a Transaction,
    ) -> Call<'a, RoomAnswer> {
        Box::pin(async move {
            self.hub.counters().guest_calls.add(1);
            let outcome = self.event(event, transaction).await;
            // The transaction is the event's: nothing of the instance has it any longer.
            self.instance.store.data_mut().scope = None;
            outcome
        })
    }
}
