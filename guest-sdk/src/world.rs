//! The boundary between handlers and the host: the component's imports and exports in wasm, a hub
//! in memory natively. Both implementations have the same names, so all other code is shared.

#[cfg(target_family = "wasm")]
mod guest;
#[cfg(not(target_family = "wasm"))]
mod native;

#[cfg(target_family = "wasm")]
pub use guest::AppExports;
#[cfg(target_family = "wasm")]
pub(crate) use guest::{
    Form, Handle, Incoming, Outgoing, Wait, call, find, idle, ids, now, publish, rollback,
    room_alarm, room_broadcast, room_clear, room_delete, room_entries, room_flush, room_get,
    room_position, room_put, room_set_alarm, set_auto_response, wait,
};
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{
    Form, Handle, Incoming, Outgoing, Recording, Wait, call, enter, find, idle, ids, inward, now,
    outward, pass, publish, rollback, room_alarm, room_broadcast, room_clear, room_delete,
    room_entries, room_flush, room_get, room_position, room_put, room_set_alarm, set_auto_response,
    set_caller, set_now, wait,
};
