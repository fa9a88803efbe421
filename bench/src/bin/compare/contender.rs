//! A contender: a named server command, and what has to exist for it to run.

use std::env;
use std::path::{Path, PathBuf};

use tidegate_bench::scenario::Target;
use tidegate_bench::server::{ANY_PORT, Command, DATA};

use crate::arguments::Files;

/// One server of a match.
pub(crate) struct Contender {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How to run it and what to ask.
    pub(crate) target: Target,
    needs: Vec<PathBuf>,
}

impl Contender {
    /// A yardstick server.
    pub(crate) fn native(name: &'static str, yardstick: &str, files: &Files) -> Self {
        Self::native_with(name, yardstick, &[], files)
    }

    /// A yardstick server, with more options.
    pub(crate) fn native_with(
        name: &'static str,
        yardstick: &str,
        options: &[&str],
        files: &Files,
    ) -> Self {
        let command = [
            text(&files.native),
            yardstick.into(),
            "--listen".into(),
            ANY_PORT.into(),
        ];
        let command = command
            .into_iter()
            .chain(options.iter().map(ToString::to_string));
        Self {
            name,
            target: target(command, "/"),
            needs: vec![files.native.clone()],
        }
    }

    /// A Durable Object in workerd, on the local disk.
    pub(crate) fn workerd(name: &'static str, path: &str, files: &Files) -> Self {
        let program = in_path(&files.workerd);
        let command = [text(&files.workerd_serve), text(&program), DATA.into()];
        Self {
            name,
            target: target(command, path),
            needs: vec![program, files.workerd_serve.clone()],
        }
    }

    /// An app in Tidegate.
    pub(crate) fn tidegate(name: &'static str, app: &Path, path: &str, files: &Files) -> Self {
        Self::tidegate_with(name, &[], app, path, files)
    }

    /// An app in Tidegate, with more options.
    pub(crate) fn tidegate_with(
        name: &'static str,
        options: &[&str],
        app: &Path,
        path: &str,
        files: &Files,
    ) -> Self {
        let command = [
            text(&files.tidegate),
            "serve".into(),
            "--listen".into(),
            ANY_PORT.into(),
        ];
        let command = command
            .into_iter()
            .chain(options.iter().map(ToString::to_string))
            .chain([text(app)]);
        Self {
            name,
            target: target(command, path),
            needs: vec![files.tidegate.clone(), app.to_owned()],
        }
    }

    /// A `wasi:http` component in `wasmtime serve`, at its best: instances pooled and used again
    /// for ever, and compiled code cached. Its other defaults were not slower than what could
    /// replace them. It cannot do without
    /// `concurrency-support`: every request is then answered with 500.
    pub(crate) fn wasmtime(name: &'static str, component: &Path, files: &Files) -> Self {
        const OPTIONS: [&str; 10] = [
            "serve",
            "-Scli",
            "-Opooling-allocator=y",
            "-Ccache=y",
            "--no-logging-prefix",
            "--max-instance-reuse-count",
            "4294967295",
            "--idle-instance-timeout",
            "60s",
            "--addr",
        ];
        let program = in_path(&files.wasmtime);
        let options = OPTIONS.map(String::from);
        let command = [text(&program)]
            .into_iter()
            .chain(options)
            .chain([ANY_PORT.into(), text(component)]);
        Self {
            name,
            target: target(command, "/"),
            needs: vec![program, component.to_owned()],
        }
    }

    /// The first file that it lacks.
    pub(crate) fn missing(&self) -> Option<&Path> {
        self.needs
            .iter()
            .map(PathBuf::as_path)
            .find(|path| !path.is_file())
    }
}

fn target(command: impl IntoIterator<Item = String>, path: &str) -> Target {
    Target {
        command: Command(command.into_iter().collect()),
        path: path.to_owned(),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The program's file, if it is a bare name that PATH knows.
fn in_path(program: &Path) -> PathBuf {
    let directories = env::var_os("PATH").unwrap_or_default();
    let mut candidates = env::split_paths(&directories).map(|directory| directory.join(program));
    candidates
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| program.to_owned())
}
