//! Rooms: topics with storage, of which each has one live instance and one event at a time.
//!
//! - `router` leads the events of one version of the app to its rooms.
//! - `scheduler` owns all rooms: it queues events, runs turns, wakes instances and lets them sleep.
//! - `room` is the state machine of one room: asleep, running or awake, and its queue.
//! - `transaction` collects the changes of the events of a turn, and commits them at once;
//!   `overlay` holds the writes, `effects` holds the messages and other visible effects.
//! - `storage` is the trait that a store implements; `alarms` is the index of stored alarms.
//! - `calls` are requests from routes and rooms to rooms.

pub(crate) mod alarms;
pub mod calls;
pub(crate) mod effects;
pub(crate) mod overlay;
pub(crate) mod room;
pub mod router;
pub mod scheduler;
pub mod storage;
pub mod transaction;
