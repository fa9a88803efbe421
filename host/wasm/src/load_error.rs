//! Everything that can be wrong with an app's file: what, under which code, and what to do about it.

use std::fmt;
use tidegate_hub::Fault;

/// Version of the contract `tidegate:app` that this host implements; it accepts components of any 0.2.x.
const CONTRACT: &str = "0.2.0";

/// The code of an import that is not there, or not granted.
pub const UNGRANTED: &str = "TG016";

/// Why a file is not served. Each is one line that says what to do next.
#[derive(Debug)]
pub enum LoadError {
    /// The file can't be read.
    Read(std::io::Error),
    /// Larger than `Options::component_bytes_max`.
    TooLarge(u64),
    /// Not WebAssembly at all.
    NotWasm,
    /// A core module, not a component.
    CoreModule,
    /// A component that exports nothing that a host of HTTP could call.
    OtherWorld,
    /// Built for another version of the contract, this one.
    Version(String),
    /// Made for a version of WASI that this host does not have, such as a release candidate.
    WasiVersion {
        /// "imports" or "exports".
        verb: &'static str,
        /// The interface with its version.
        name: String,
    },
    /// Imports an interface that this host does not have.
    Unknown(String),
    /// Not a valid component, or one that asks for what this host does not have.
    Invalid(wasmtime::Error),
    /// The app failed while it described itself.
    Describe(Fault),
    /// The compiled file can't be written.
    Write(std::io::Error),
    /// Compiled ahead, and altered since.
    Altered,
    /// Compiled ahead by another engine.
    OtherEngine,
    /// Compiled ahead, and others may write to it.
    Untrusted,
}

impl LoadError {
    /// Returns the permanent code, such as "TG013", which `tidegate explain` describes.
    pub fn code(&self) -> &'static str {
        match self {
            LoadError::Read(_) => "TG010",
            LoadError::Write(_) => "TG022",
            LoadError::TooLarge(_) => "TG011",
            LoadError::NotWasm => "TG012",
            LoadError::CoreModule => "TG013",
            LoadError::OtherWorld => "TG014",
            LoadError::Version(_) | LoadError::WasiVersion { .. } => "TG015",
            LoadError::Unknown(_) => UNGRANTED,
            LoadError::Invalid(_) => "TG017",
            LoadError::Describe(_) => "TG018",
            LoadError::Altered => "TG019",
            LoadError::OtherEngine => "TG020",
            LoadError::Untrusted => "TG021",
        }
    }

    /// Returns the problem, as a text that follows the file's name.
    pub fn what(&self) -> String {
        match self {
            LoadError::Read(error) => format!("can't be read: {error}"),
            LoadError::Write(error) => format!("was compiled, and that can't be written: {error}"),
            LoadError::TooLarge(max) => format!("is larger than {max} bytes"),
            LoadError::NotWasm => "is not WebAssembly".into(),
            LoadError::CoreModule => "is a core module, not a component".into(),
            LoadError::OtherWorld => {
                format!("is a component for another world: it exports neither tidegate:app/manifest@{CONTRACT} nor a wasi:http handler")
            }
            LoadError::Version(found) => {
                format!("was built for tidegate:app {found}, and this host implements {CONTRACT}")
            },
            LoadError::WasiVersion { verb, name } if name.contains('-') => {
                format!("{verb} {name}, a release candidate of WASI, and this host has WASI 0.2 and 0.3")
            }
            LoadError::WasiVersion { verb, name } => format!("{verb} {name}, and this host has WASI 0.2 and 0.3"),
            LoadError::Unknown(import) => format!("imports {import}, which this host does not have"),
            LoadError::Invalid(error) => format!("can't be loaded: {error:#}"),
            LoadError::Describe(fault) => format!("failed while it described its routes: {fault}"),
            LoadError::Altered => "was altered or damaged since it was compiled, so none of it is run".into(),
            LoadError::OtherEngine => "was compiled by another engine: another version of tidegate, or for another processor".into(),
            LoadError::Untrusted => "holds machine code, and others may write to it, so none of it is run".into(),
        }
    }

    /// Returns the next step, if there is one.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            LoadError::TooLarge(_) => "build it in release, or raise the limit",
            LoadError::NotWasm => "build the app with `cargo build --target wasm32-wasip2`",
            LoadError::CoreModule => {
                "build it with `cargo build --target wasm32-wasip2` or `cargo component build`"
            }
            LoadError::Version(_) => "build it again with version 0.2 of the SDK",
            LoadError::WasiVersion { .. } => "build it with a toolchain for a released version",
            LoadError::Unknown(_) => "leave out the dependency that imports it",
            LoadError::Altered | LoadError::OtherEngine => {
                "compile it again with `tidegate compile`"
            }
            LoadError::Untrusted => {
                "let it belong to root or to this user, and take away the others' right to write (chmod go-w)"
            }
            LoadError::Read(_)
            | LoadError::Write(_)
            | LoadError::OtherWorld
            | LoadError::Invalid(_)
            | LoadError::Describe(_) => {
                return None;
            }
        })
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.help().map_or(Ok(()), |help| write!(f, ": {help}"))
    }
}

impl std::error::Error for LoadError {}
