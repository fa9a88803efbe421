//! Calls from routes and rooms into rooms, as events of the called room.

use super::{Rooms, report};
use crate::{
    app::{RoomAnswer, RoomEvent},
    fault::Fault,
    hub::Hub,
    name::RoomId,
    rooms::{
        calls::{CallError, Callee, RoomCall},
        storage::EngineStatus,
    },
};
use bytes::Bytes;

impl Callee for Rooms {
    fn storage_status(&self) -> EngineStatus {
        self.engine.status()
    }

    fn call_room(&self, caller: Option<&RoomId>, room: RoomId, payload: Bytes) -> RoomCall {
        let begin = || {
            if !self.has_class(room.class()) {
                return Err(CallError::NotValid);
            }
            let wait = caller
                .map(|caller| self.waiting.begin(caller, &room))
                .transpose()?;
            Ok((
                wait,
                self.post(&room, RoomEvent::Call(payload), None)
                    .map_err(|fault| call_error(&self.hub, &room, &fault))?,
            ))
        };
        let (begun, hub) = (begin(), self.hub.clone());
        Box::pin(async move {
            let (_wait, outcome) = begun?;
            match outcome.await {
                Ok(Ok(RoomAnswer::Called(answer))) => {
                    answer.map_err(|(status, text)| CallError::Refused(status, text))
                }
                Ok(Err(fault)) => Err(call_error(&hub, &room, &fault)),
                _ => Err(CallError::Failed),
            }
        })
    }
}

/// Returns the error that a caller gets for a fault, and reports the fault unless the call was not
/// made: then the caller decides.
fn call_error(hub: &Hub, room: &RoomId, fault: &Fault) -> CallError {
    if let Fault::Busy | Fault::Closed(_) | Fault::Unavailable(_) = fault {
        return CallError::Busy;
    }
    report(hub, room, "a call of the room failed", fault);
    match fault {
        Fault::Shortage => CallError::Busy,
        _ => CallError::Failed,
    }
}
