//! The disk wall: keeps what rooms have to keep, in one store for all of them.
//!
//! Nothing here knows apps, sockets or quotas: batches come from the hub, and are durable or
//! refused.
//!
//! ```
//! # let directory = tempfile::tempdir().unwrap();
//! use tidegate_disk::Storage;
//! use tidegate_hub::{Engine as _, RoomId};
//!
//! let storage = Storage::open(&directory.path().join("data")).unwrap();
//! assert_eq!(storage.get(&RoomId::new("chat", "tea").unwrap(), "cups"), Ok(None));
//! ```

mod clock;
mod directory;
mod doubt;
mod generation;
mod guarded;
mod journal;
mod maintenance;
mod open_error;
mod row;
mod rows;
mod space;
mod storage;
mod tables;
mod writer;

pub use maintenance::VerifyReport;
pub use open_error::OpenError;
pub use storage::Storage;
