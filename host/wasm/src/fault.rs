//! The outcomes of a call without a result, by the action that its caller has to take.

use crate::{
    meter::{Evicted, OverBudget},
    state::State,
};
use rustix::io::Errno;
use tidegate_hub::Fault;
use wasmtime::{PoolConcurrencyLimitError, Store};

/// A value of the guest that the contract does not allow carries its fault. A trap is for want of memory if memory was denied in the same event.
pub(crate) fn fault(error: &wasmtime::Error, store: &Store<State>) -> Fault {
    if let Some(failure) = &store.data().failure {
        failure.clone()
    } else if let Some(fault) = error.downcast_ref::<Fault>() {
        fault.clone()
    } else if error.is::<OverBudget>() {
        Fault::Cpu
    } else if is_full(error) {
        Fault::Busy
    } else if store.data().memory.is_short || error.is::<Evicted>() {
        Fault::Shortage
    } else if store.data().memory.denied {
        Fault::Memory
    } else {
        Fault::Trap(told(error))
    }
}

/// Whether the host has no room for more: the engine's pool has no slot left of some kind (instances, memories, tables or stacks), or
/// the system has no memory or mappings left.
pub(crate) fn is_full(error: &wasmtime::Error) -> bool {
    let is_system = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<Errno>().is_some_and(|error| {
            [Errno::NOMEM, Errno::AGAIN, Errno::MFILE, Errno::NFILE].contains(error)
        })
    };
    error.is::<PoolConcurrencyLimitError>() || error.chain().any(is_system)
}

/// The error and its causes in one line, so that the log has it beside the id that the client was given.
/// The innermost cause goes first: what led to it (a backtrace of the guest's functions) may be long.
pub(crate) fn told(error: &wasmtime::Error) -> String {
    let mut chain: Vec<String> = error
        .chain()
        .map(|cause| words(&cause.to_string()))
        .collect();
    chain.reverse();
    let mut told = chain.join("; ");
    if told.len() > TOLD_BYTES_MAX {
        told.truncate(told.floor_char_boundary(TOLD_BYTES_MAX));
        told.push('…');
    }
    told
}

/// Bytes of an error that a log line has: a guest may choose a part of it.
const TOLD_BYTES_MAX: usize = 16 << 10;

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_room_is_told_from_a_guest_that_fails() {
        let mapping = |error: Errno| {
            wasmtime::Error::from(error)
                .context("mmap failed")
                .context("an instance could not be made")
        };
        assert!(
            is_full(&mapping(Errno::NOMEM))
                && is_full(&mapping(Errno::AGAIN))
                && !is_full(&mapping(Errno::INVAL))
        );
        assert!(!is_full(&wasmtime::format_err!("wasm trap: unreachable")));
    }

    #[test]
    fn an_error_is_told_in_one_line_with_its_innermost_cause_first() {
        let error = wasmtime::format_err!("wasm trap: unreachable")
            .context("while executing:\n  0: a!b\n  1: a!c");
        assert_eq!(
            told(&error),
            "wasm trap: unreachable; while executing: 0: a!b 1: a!c"
        );
    }
}
