//! Which socket route a connection came by. The contract's events don't say it, so where there are
//! several routes, the SDK keeps the answer in front of the app's own attachment.

use crate::App;
use std::cell::Cell;

thread_local! {
    static SOCKETS: Cell<Sockets> = const { Cell::new(Sockets { first: 0, count: 0 }) };
}

#[derive(Clone, Copy)]
struct Sockets {
    first: u32,
    count: usize,
}

/// Bytes of a mark.
const LENGTH: usize = 2;

/// Notes the socket routes of the app that this instance serves.
pub(super) fn note(app: &App) {
    let is_socket = |index: &u32| app.routes[*index as usize].handler.is_socket();
    let mut sockets = (0..app.routes.len() as u32).filter(is_socket);
    let first = sockets.next();
    let count = first.iter().count() + sockets.count();
    SOCKETS.set(Sockets { first: first.unwrap_or_default(), count });
}

/// Whether there is more than one socket route.
pub(super) fn is_needed() -> bool {
    SOCKETS.get().count > 1
}

/// The socket route, where there is one.
pub(super) fn only_route() -> u32 {
    SOCKETS.get().first
}

/// The attachment as the host keeps it.
pub(super) fn write(route: u32, mut attachment: Vec<u8>) -> Vec<u8> {
    if is_needed() {
        attachment.splice(0..0, (route as u16).to_le_bytes());
    }
    attachment
}

/// Route and attachment, of what the host kept.
pub(super) fn read(mut kept: Vec<u8>) -> (u32, Vec<u8>) {
    match kept.first_chunk::<LENGTH>() {
        Some(mark) if is_needed() => {
            let route = u16::from_le_bytes(*mark).into();
            kept.drain(..LENGTH);
            (route, kept)
        }
        _ => (only_route(), kept),
    }
}
