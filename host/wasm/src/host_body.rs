//! Bodies that the host feeds: of a client's request, and of an outbound response. A guest of `wasi:http` 0.3 may pass one on as its own
//! answer without reading it; that answer then goes on without the guest. `wasi:http` does not say whether a body is such a one, so
//! these bodies count how often they are polled: a poll that comes through to one of them shows what is inside.

use std::cell::Cell;

thread_local! {
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// A body that the host feeds is polled.
pub(crate) fn note_poll() {
    POLLS.set(POLLS.get().wrapping_add(1));
}

/// Returns what `poll` returns, and whether it polled a body that the host feeds.
pub(crate) fn watch<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    let before = POLLS.get();
    let outcome = poll();
    (outcome, POLLS.get() != before)
}
