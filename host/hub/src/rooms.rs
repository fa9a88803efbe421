//! Rooms: topics with storage, of which each has one live instance and one event at a time.
//!
//! - `router` leads the events of one version of the app to its rooms.
//! - `scheduler` owns all rooms: it queues events, runs turns, wakes instances and lets them sleep.
//!   Its tables are `slot` (a room and its events), `awake` (the order of idle rooms), `failing`
//!   and `waiting` (rooms that wait for the answer of another).
//! - `room` is the state machine of one room: asleep, running or awake; `inbox` is its queue.
//! - `transaction` collects the changes of the events of a turn, and commits them at once;
//!   `overlay` holds the writes, `effects` the visible effects, `pending_feed` the feeds among
//!   them, and `allowance` bounds one event.
//! - `version` is the code and the manifest that rooms wake as.
//! - `storage` is the trait that a store implements; `alarms` is the index of stored alarms.
//! - `calls` are requests from routes and rooms to rooms.

pub(crate) mod alarms;
pub(crate) mod allowance;
pub(crate) mod awake;
pub mod calls;
pub(crate) mod effects;
pub(crate) mod failing;
pub(crate) mod inbox;
pub(crate) mod overlay;
pub(crate) mod pending_feed;
pub(crate) mod room;
pub mod router;
pub mod scheduler;
pub(crate) mod slot;
pub mod storage;
pub mod transaction;
pub(crate) mod version;
pub(crate) mod waiting;
