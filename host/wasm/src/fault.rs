//! What became of a call that gave no result, for those who have to act on it.

use crate::{meter::OverBudget, state::State};
use tidegate_hub::Fault;
use wasmtime::Store;

/// A trap is for want of memory if memory was denied in the same event.
pub(crate) fn fault(error: &wasmtime::Error, store: &Store<State>) -> Fault {
    if error.is::<OverBudget>() {
        Fault::Cpu
    } else if store.data().memory.denied {
        Fault::Memory
    } else {
        Fault::Trap(format!("{error:?}"))
    }
}
