//! Calls of the store, whose errors and panics become errors of ours.

use rustix::io::Errno;
use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tidegate_hub::EngineError;

/// Errors for the descriptor limit of the process (`EMFILE`) and of the machine (`ENFILE`).
const OUT_OF_DESCRIPTORS: [i32; 2] = [Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];

/// Runs it. The store panics at some of what it can't read: that is damage, not a fault of the
/// caller.
pub(crate) fn guarded<T>(call: impl FnOnce() -> fjall::Result<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome.map_err(|error| engine_error(&error)),
        Err(_) => Err(EngineError::Corrupt(
            "the store could not read what is on the disk".into(),
        )),
    }
}

fn engine_error(error: &fjall::Error) -> EngineError {
    let io = match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error),
        _ => None,
    };
    match (error, io) {
        (fjall::Error::Poisoned, _) => EngineError::Closed("an earlier write failed".into()),
        // Errors without a kind of their own.
        (_, Some(error))
            if error
                .raw_os_error()
                .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) =>
        {
            EngineError::Full(error.to_string())
        }
        (_, Some(error)) => match error.kind() {
            ErrorKind::OutOfMemory
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge => EngineError::Full(error.to_string()),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
                EngineError::Corrupt(error.to_string())
            }
            _ => EngineError::Io(error.to_string()),
        },
        _ => EngineError::Corrupt(error.to_string()),
    }
}
