//! Calls from routes and rooms into rooms, as events of the called room.

use super::Rooms;
use crate::{
    app::{Fault, RoomAnswer, RoomEvent},
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
                    .map_err(call_error)?,
            ))
        };
        let begun = begin();
        Box::pin(async move {
            let (_wait, outcome) = begun?;
            match outcome.await {
                Ok(Ok(RoomAnswer::Called(answer))) => {
                    answer.map_err(|(status, text)| CallError::Refused(status, text))
                }
                Ok(Err(fault)) => Err(call_error(fault)),
                _ => Err(CallError::Failed),
            }
        })
    }
}

/// Returns the error that a caller gets for a fault. The text of the fault is only in the log.
fn call_error(fault: Fault) -> CallError {
    match fault {
        Fault::Busy | Fault::Shortage | Fault::Closed(_) | Fault::Unavailable(_) => CallError::Busy,
        _ => CallError::Failed,
    }
}
