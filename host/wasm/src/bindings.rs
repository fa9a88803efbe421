//! The code that wasmtime generates from `wit/`: traits of the imports, and the types of both sides.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "app",
    imports: {
        "tidegate:app/room.flush": async | trappable,
        "tidegate:app/rooms.call": async | trappable,
        "tidegate:app/forms.[method]form.next": async | trappable,
        "tidegate:app/forms.[method]form.read": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "tidegate:app/websockets.connection": crate::connection::Connection,
        "tidegate:app/forms.form": crate::form::FormResource,
    },
    require_store_data_send: true,
});
