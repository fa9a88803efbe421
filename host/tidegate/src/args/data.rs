//! Arguments of `tidegate data`.

use super::room;
use clap::{Args as Group, Subcommand};
use std::path::PathBuf;
use tidegate_hub::RoomId;

/// Arguments of `tidegate data`.
#[derive(Group)]
pub(crate) struct DataArgs {
    /// Data directory of rooms, the --data of `serve`
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "tidegate-data"
    )]
    pub(crate) data: PathBuf,
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// Subcommand of `tidegate data`.
#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// List rooms, their sizes and alarms
    Rooms {
        /// Only rooms of this class
        #[arg(long)]
        class: Option<String>,
        /// Print one JSON object per room
        #[arg(long)]
        json: bool,
    },
    /// Write one room as JSON lines to stdout
    Export {
        #[arg(value_name = "CLASS/NAME", value_parser = room)]
        room: RoomId,
    },
    /// Read rooms as JSON lines from stdin; each replaces the room with its name
    Import,
    /// Delete one room and all its data
    Delete {
        #[arg(value_name = "CLASS/NAME", value_parser = room)]
        room: RoomId,
    },
    /// Read all data and compare it with its checksums and sizes; exit code 1 after a mismatch
    Verify,
    /// Reclaim the space of overwritten and deleted entries
    Compact,
    /// Copy a consistent snapshot to a new directory, also while a server has the data open
    Backup {
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
}
