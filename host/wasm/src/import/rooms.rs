//! `tidegate:app/rooms`: calls into rooms, with their deadline and their tries.

use crate::{
    bindings::tidegate::app::{
        rooms::{CallError, CallOptions, Host},
        types::HandlerError,
    },
    clock::{sleep, timeout},
    state::State,
};
use bytes::Bytes;
use std::time::Duration;
use tidegate_hub as hub;
use wasmtime::Result;

/// Maximum time of a call with all of its attempts, unless the caller sets another.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before the second attempt; doubled before each further one.
const RETRY: Duration = Duration::from_millis(50);

impl Host for State {
    async fn call(
        &mut self,
        class: String,
        name: String,
        payload: Vec<u8>,
        options: CallOptions,
    ) -> Result<Result<Vec<u8>, CallError>> {
        let scope = self.scope()?.clone();
        let timeout_max = options
            .timeout_ms
            .map_or(TIMEOUT, |millis| Duration::from_millis(millis.into()));
        let payload = Bytes::from(payload);
        let call = async {
            let (mut left, mut wait) = (options.attempts_max.unwrap_or(1), RETRY);
            loop {
                left = left.saturating_sub(1);
                match scope.call(&class, &name, payload.clone()).await {
                    Err(hub::CallError::Busy | hub::CallError::Failed) if left > 0 => {
                        sleep(wait).await
                    }
                    outcome => return outcome,
                }
                wait *= 2;
            }
        };
        let outcome = timeout(timeout_max, call)
            .await
            .unwrap_or(Err(hub::CallError::Deadline));
        Ok(outcome.map(Into::into).map_err(Into::into))
    }
}

impl From<hub::CallError> for CallError {
    fn from(error: hub::CallError) -> CallError {
        match error {
            hub::CallError::NotValid => CallError::NoSuchRoom,
            hub::CallError::TooLarge => CallError::TooLarge,
            hub::CallError::Cycle => CallError::Cycle,
            hub::CallError::Busy => CallError::Busy,
            hub::CallError::Failed => CallError::Failed,
            hub::CallError::Deadline => CallError::Timeout,
            hub::CallError::Refused(status, text) => CallError::Refused(HandlerError {
                status,
                message: text,
            }),
        }
    }
}
