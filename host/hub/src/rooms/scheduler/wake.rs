//! Events of a turn in the instance of their room, which wakes for them.

use super::{report, turn::Turn};
use crate::{
    app::{RoomAnswer, RoomEvent},
    contract,
    fault::Fault,
    realtime::{feed::Feed, history::Positions},
    rooms::{
        pending_feed::PendingFeed, room::PostError, slot::RoomInstance, transaction::Transaction,
        version::Version,
    },
};
use std::sync::Arc;

impl Turn<'_> {
    /// Runs one event. If messages that run together trap, those before the first one that traps
    /// alone are kept, unless they flushed: then it is not known which of them are durable.
    pub(super) async fn handle(
        &mut self,
        event: RoomEvent,
    ) -> (Result<RoomAnswer, Fault>, Option<Arc<PendingFeed>>) {
        match event {
            // It is rare, and boxed like the other calls here: the future of each turn is small,
            // because it is moved when the turn starts.
            RoomEvent::Alarm(_) => (Box::pin(self.run_alarm()).await, None),
            RoomEvent::Messages(conn, messages) if messages.len() > 1 => {
                let flushes = self.transaction.flushes();
                let together = self
                    .call(RoomEvent::Messages(conn.clone(), messages.clone()))
                    .await;
                let has_app_failed = together.as_ref().is_err_and(|fault| !fault.is_of_host());
                if !has_app_failed || self.transaction.flushes() != flushes {
                    return (together, None);
                }
                for message in messages {
                    let alone =
                        Box::pin(self.call(RoomEvent::Messages(conn.clone(), vec![message]))).await;
                    if alone.is_err() {
                        return (alone, None);
                    }
                }
                (Ok(RoomAnswer::Done), None)
            }
            RoomEvent::Subscribe(request, last) => {
                let since = last.as_deref().map(Positions::parse);
                match Box::pin(self.call(RoomEvent::Subscribe(request, last))).await {
                    Ok(RoomAnswer::Feed(Ok(feed))) => open_feed(&self.transaction, feed, since),
                    outcome => (outcome, None),
                }
            }
            event => (self.call(event).await, None),
        }
    }

    /// Runs the event of an alarm. A try counts only if the app has failed.
    async fn run_alarm(&mut self) -> Result<RoomAnswer, Fault> {
        let (room, now) = (&self.live.id, self.rooms.hub.now());
        let alarm = self.transaction.alarm().map_err(Fault::from)?;
        // The alarm may have been moved or removed while it waited for its turn. It may also have
        // been due then, before the clock was set back.
        let Some(alarm) = alarm.filter(|alarm| {
            alarm.at <= now.wall || self.rooms.hub.alarms().is_called(room, *alarm)
        }) else {
            return Ok(RoomAnswer::Done);
        };
        let outcome = match self.ensure_awake().await {
            Ok(()) => {
                self.transaction.set_alarm(None);
                self.transaction.keep();
                self.call(RoomEvent::Alarm(alarm.attempt)).await
            }
            Err(fault) => Err(fault),
        };
        match &outcome {
            Ok(_) => {}
            Err(fault) if fault.is_of_host() => {
                self.transaction.restore_alarm(alarm);
                tracing::warn!(%room, "its alarm has to wait: {fault}");
            }
            Err(fault) => {
                let again = if self.transaction.retry_alarm(alarm, now.wall) {
                    "it is tried again"
                } else {
                    "it was the last try"
                };
                let event = format!("attempt {} of its alarm failed, {again}", alarm.attempt);
                report(&self.rooms.hub, room, &event, fault);
            }
        }
        outcome
    }

    /// Calls the room's instance with the event, and keeps its changes if it ends well.
    async fn call(&mut self, event: RoomEvent) -> Result<RoomAnswer, Fault> {
        self.ensure_awake().await?;
        let transaction = &self.transaction;
        match &event {
            RoomEvent::Open(conn, _) => transaction.join(conn.clone()),
            RoomEvent::Close(conn, _) => transaction.leave(conn.clone()),
            _ => {}
        }
        self.called = true;
        let awake = self.instance.as_mut().expect("it was woken");
        let outcome = awake
            .instance
            .call(event, transaction)
            .await
            .and_then(|answer| self.check_answer(answer));
        match &outcome {
            Ok(_) => transaction.keep(),
            Err(_) => {
                // A flush that the call gave up must be over before the event's own changes are
                // discarded.
                transaction.finish().await;
                transaction.discard();
                *self.instance = None;
            }
        }
        outcome
    }

    /// Gives the room an instance of the version that is served.
    async fn ensure_awake(&mut self) -> Result<(), Fault> {
        if let Some(fault) = &self.unreachable {
            return Err(fault.clone());
        }
        let version = self.version_for()?;
        if self
            .instance
            .as_ref()
            .is_some_and(|awake| Arc::ptr_eq(&awake.version, &version))
        {
            return Ok(());
        }
        *self.instance = None; // before there is another one
        let woken = Box::pin(self.wake(version)).await;
        *self.instance =
            Some(woken.inspect_err(|fault| {
                self.unreachable = fault.is_of_host().then(|| fault.clone())
            })?);
        Ok(())
    }

    /// Returns the version that is served. If that has no rooms of this class, it is the version
    /// that the event was posted by: a connection that is closed because its route is gone still
    /// gets its last event.
    fn version_for(&self) -> Result<Arc<Version>, Fault> {
        let current = self
            .rooms
            .current()
            .ok_or_else(|| Fault::Host("no version of the app is served yet".into()))?;
        let is_known = |version: &Arc<Version>| version.has_class(self.live.id.class());
        if self
            .instance
            .as_ref()
            .is_some_and(|awake| Arc::ptr_eq(&awake.version, &current))
            || is_known(&current)
        {
            return Ok(current);
        }
        Ok(self.version.clone().filter(is_known).unwrap_or(current))
    }

    /// Replaces an answer that is too long by a fault, before any effect is released.
    fn check_answer(&self, answer: RoomAnswer) -> Result<RoomAnswer, Fault> {
        let (weight, limits) = (answer.weight(), self.rooms.hub.limits());
        if let RoomAnswer::Called(_) = &answer {
            contract::check_call_answer(weight, limits.call_bytes_max)?;
        }
        match limits.room_event_bytes_max {
            max if weight > max => Err(Fault::Answer(format!(
                "{weight} bytes in the answer to one event: at most {max}"
            ))),
            _ => Ok(answer),
        }
    }

    /// Gives the room an instance of this version.
    async fn wake(&mut self, version: Arc<Version>) -> Result<RoomInstance, Fault> {
        if let Err(PostError::Closed(wait)) = self.live.room().check_open(self.rooms.now()) {
            return Err(Fault::Closed(wait));
        }
        self.rooms.evict_idle();
        let (rooms, transaction) = (self.rooms, &self.transaction);
        let woken = async {
            let mut instance = version.app.instance().await?;
            rooms.hub.counters().wakes.add(1);
            instance.call(RoomEvent::Wake, transaction).await?;
            Ok(RoomInstance { instance, version })
        };
        let woken = woken.await;
        match &woken {
            Ok(_) => self.transaction.keep(),
            Err(_) => self.transaction.discard(),
        }
        // A fault of the host, such as no free instance, is not the room's.
        if !woken.as_ref().is_err_and(Fault::is_of_host) {
            self.live
                .room()
                .handle_wake(woken.is_ok(), self.rooms.now());
            if woken.is_err() {
                self.rooms.remember_failing(&self.live.id);
            }
        }
        woken
    }
}

/// Opens a feed, which begins with the event that admitted it.
fn open_feed(
    transaction: &Transaction,
    mut feed: Feed,
    since: Option<Positions>,
) -> (Result<RoomAnswer, Fault>, Option<Arc<PendingFeed>>) {
    match transaction.subscribe(std::mem::take(&mut feed.topics), since) {
        Ok(slot) => {
            transaction.keep();
            (Ok(RoomAnswer::Feed(Ok(feed))), Some(slot))
        }
        Err(error) => (Err(error.into()), None),
    }
}
