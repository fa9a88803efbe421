//! A server on a machine whose faults a test turns on and off while it runs, by the preloaded
//! library `faulty`.

use super::{Build, Tidegate, component_of, tidegate};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// A fault of the library, as in its `control.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    /// Error of each `accept4`; 0 for none.
    Accept = 3,
    /// Milliseconds by which the wall clock is ahead of the machine's.
    Clock = 4,
}

/// Distance from the number of a fault to the number that counts its injections.
const INJECTED: u64 = 8;
const BYTES: usize = 128;

pub(crate) struct Machine {
    pub(crate) server: Tidegate,
    control: File,
}

impl Machine {
    pub(crate) fn serve(component: &Path, args: &[&str]) -> Machine {
        let dir = tempfile::tempdir().expect("a directory");
        let (control, data) = (dir.path().join("control"), dir.path().join("data"));
        fs::write(&control, [0; BYTES]).expect("a file for the faults");
        let mut command = tidegate();
        command
            .arg("serve")
            .arg(component)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args(args);
        command
            .env("LD_PRELOAD", component_of(Build::Library, "faulty"))
            .env("FAULTY_CONTROL", &control)
            .env("FAULTY_DIR", &data);
        let control = File::options()
            .read(true)
            .write(true)
            .open(control)
            .expect("it was just written");
        let mut server = Tidegate::spawn(command);
        server.data = Some(dir);
        Machine { server, control }
    }

    pub(crate) fn set(&self, number: Number, value: i64) {
        self.control
            .write_all_at(&value.to_ne_bytes(), 8 * number as u64)
            .expect("the file is there");
    }

    /// Returns the number of calls that have failed so far.
    pub(crate) fn injected(&self, number: Number) -> u64 {
        let mut bytes = [0; 8];
        self.control
            .read_exact_at(&mut bytes, 8 * (number as u64 + INJECTED))
            .expect("the file is there");
        u64::from_ne_bytes(bytes)
    }
}
