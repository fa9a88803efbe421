//! The guest wall: loads a component, keeps its instances, and answers the hub's calls with them.
//!
//! Nothing here knows a socket: requests and connections come and go as the hub's values.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidegate_hub::{Hub, Limits};
//! let loaded = tidegate_wasm::load("app.wasm".as_ref(), Default::default()).await?;
//! println!("{:?}", loaded.manifest());
//! let instances = tidegate_wasm::Instances::new(100);
//! let app = loaded.start(Hub::new(Limits::default(), Default::default(), 1), &instances);
//! # Ok(()) }
//! ```

mod bindings;
mod body;
mod cache;
mod call;
mod clock;
mod connection;
mod contract;
mod exports;
mod fault;
mod form;
mod guest;
mod host_body;
mod http02;
mod http03;
mod import;
mod instances;
mod load;
mod load_error;
mod meter;
mod outbound;
mod pages;
mod permits;
mod pool;
mod precompiled;
mod room;
mod runtime;
mod state;
mod stdio;
mod streamed;
mod turns;

pub use clock::Clock;
pub use guest::Guest;
pub use instances::Instances;
pub use load::{CodeOrigin, Compilation, LoadedApp, UngrantedImport, compile, load};
pub use load_error::{LoadError, UNGRANTED};
pub use outbound::{CertificateAuthority, Grant, OutboundOptions, OwnAddresses};

use std::{path::PathBuf, time::Duration};

/// Grants and limits of an app. It is a plain struct: change the fields of the default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory of one instance.
    pub memory_bytes_max: usize,
    /// Instances at a time, in use or idle, of all versions of the app together. Streams, loaders, actions and rooms have shares of them
    /// (see `instances.rs`); a call that finds none waits for 5 s, then fails as busy.
    pub instances_max: usize,
    /// Computing for one event; for a streamed request, between two waits.
    pub cpu_max: Duration,
    /// One event from its beginning to its end; for a streamed request, to the head of the answer.
    pub wall_max: Duration,
    /// Bytes that all instances together may print in a second; more lines are left out of the log and counted.
    pub output_rate: usize,
    /// Bytes that one instance may print in a second.
    pub instance_output_rate: usize,
    /// Size of the component's file.
    pub component_bytes_max: u64,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Directories.
    pub dirs: Vec<Dir>,
    /// Requests that it may send.
    pub outbound: OutboundOptions,
    /// Where compiled code is kept.
    pub cache: Option<PathBuf>,
    /// Whether an instance of a component without a manifest serves more than one request, one after the other; such
    /// components are made for hosts that make a new one each time.
    pub reuse_foreign: bool,
    /// True if Winch compiles, in a third of the time and to slower code, for development. Cranelift
    /// compiles components that Winch cannot.
    pub quick: bool,
    /// The app's wall clock, where that is not the time of day.
    pub clock: Option<Clock>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory_bytes_max: 64 << 20,
            instances_max: 2000,
            cpu_max: Duration::from_secs(1),
            wall_max: Duration::from_secs(30),
            output_rate: 1 << 20,
            instance_output_rate: 256 << 10,
            component_bytes_max: 256 << 20,
            env: Vec::new(),
            dirs: Vec::new(),
            outbound: OutboundOptions::default(),
            cache: None,
            reuse_foreign: false,
            quick: false,
            clock: None,
        }
    }
}

/// A directory that an app sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// Path on the host.
    pub host: PathBuf,
    /// Path in the app.
    pub guest: String,
    /// True if the app may change its files.
    pub writable: bool,
}
