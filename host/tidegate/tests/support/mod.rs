//! Support of the black-box tests: the binary as a child process, and the components that it
//! serves.
//!
//! ```ignore
//! mod support;
//! use support::{Tidegate, component};
//!
//! #[tokio::test]
//! async fn an_echo_comes_back() {
//!     let server = Tidegate::serve(&component("echo"), &[]);
//!     let (socket, _) = tokio_tungstenite::connect_async(server.ws("/echo")).await.unwrap();
//!     // …
//!     assert_eq!(server.stop().counter("connections"), 1);
//! }
//! ```

// Each test binary uses another part of this module.
#![allow(dead_code)]

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod fixture;
pub(crate) mod machine;

use rustix::process::{Pid, Signal, kill_process};
use std::{
    borrow::BorrowMut,
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Maximum wait for anything in a test: far more than it needs, so that only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a command for the binary, without the environment variables that would change its
/// behaviour. `TIDEGATE_BINARY` names another binary to be tested.
pub(crate) fn tidegate() -> Command {
    let binary =
        env::var_os("TIDEGATE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let mut command = Command::new(binary);
    command
        .env_remove("TIDEGATE_LOG")
        .env("TIDEGATE_CACHE_DIR", target_dir().join("tidegate-cache"))
        .stdin(Stdio::null());
    command
}

/// Runs the binary until it exits without a signal.
pub(crate) fn run(args: &[&str]) -> Output {
    tidegate().args(args).output().expect("the binary starts")
}

/// Checks that `serve` refuses a settings file of this content, and that the error contains this
/// text.
pub(crate) fn assert_settings_refused(settings: &str, expected: &str) {
    let dir = tempfile::tempdir().expect("a directory for settings");
    let config = dir.path().join("tidegate.toml");
    std::fs::write(&config, settings).expect("settings are written");
    let output = tidegate()
        .args(["serve", "none.wasm", "--config"])
        .arg(&config)
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && stderr.contains(expected),
        "{settings}\n{stderr}"
    );
}

/// Runs `serve` with the rogue app and this data directory until it exits.
pub(crate) fn serve_to_its_end(data: &Path) -> Output {
    let mut command = tidegate();
    command
        .arg("serve")
        .arg(component("rogue"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data);
    command.output().expect("the binary starts")
}

/// A running `tidegate serve` on a free port. Dropping it drains it.
pub(crate) struct Tidegate {
    child: Child,
    log: Arc<Log>,
    url: String,
    /// Directory of the rooms' data, unless the arguments name one.
    data: Option<tempfile::TempDir>,
}

/// The end of a server.
pub(crate) struct Stopped {
    /// Exit status of the process.
    pub(crate) status: ExitStatus,
    /// Everything that it wrote to stderr.
    pub(crate) stderr: String,
}

/// Lines of stderr as they arrive; a wait for a line is bounded and does not poll.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Tidegate {
    /// Serves a component with these arguments after `--listen 127.0.0.1:0`, and waits until it
    /// listens.
    pub(crate) fn serve(component: &Path, args: &[&str]) -> Tidegate {
        Tidegate::serve_at("127.0.0.1:0", component, args)
    }

    /// As [`serve`](Tidegate::serve), at the address of an earlier server.
    pub(crate) fn serve_at(address: &str, component: &Path, args: &[&str]) -> Tidegate {
        let mut command = tidegate();
        command
            .arg("serve")
            .arg(component)
            .args(["--listen", address])
            .args(args);
        if args.contains(&"--data") {
            return Tidegate::spawn(command);
        }
        // The rooms keep their data for as long as this value lives.
        let data = tempfile::tempdir().expect("a directory for rooms");
        let mut server = Tidegate::spawn(command.arg("--data").arg(data.path().join("data")));
        server.data = Some(data);
        server
    }

    /// Starts a command that ends up as `tidegate serve`, if [`serve`](Tidegate::serve) has no
    /// parameter for it.
    pub(crate) fn spawn(command: impl BorrowMut<Command>) -> Tidegate {
        Tidegate::try_spawn(command).unwrap_or_else(|log| panic!("it does not listen:\n{log}"))
    }

    /// As [`spawn`](Tidegate::spawn), or returns its stderr.
    pub(crate) fn try_spawn(command: impl BorrowMut<Command>) -> Result<Tidegate, String> {
        Tidegate::begin(command).listening()
    }

    /// Starts a command that may be slow to listen.
    pub(crate) fn begin(mut command: impl BorrowMut<Command>) -> Tidegate {
        let mut child = command
            .borrow_mut()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        thread::spawn({
            let log = log.clone();
            move || log.read(stderr)
        });
        Tidegate {
            child,
            log,
            url: String::new(),
            data: None,
        }
    }

    /// Waits until it listens; if it ends instead, returns its stderr.
    pub(crate) fn listening(mut self) -> Result<Tidegate, String> {
        let line = self.log.wait_for("http://")?;
        let url = line
            .split(['"', ' '])
            .find(|word| word.starts_with("http://"));
        self.url = url.expect("the line has the URL").to_owned();
        Ok(self)
    }

    /// Returns "http://127.0.0.1:PORT" with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Returns "ws://127.0.0.1:PORT" with this path.
    pub(crate) fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address())
    }

    /// Returns "127.0.0.1:PORT", for raw bytes and for `Host`.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("it is an http URL")
    }

    /// Returns the process id, for figures from /proc.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of stderr, past ones included, contains this text; returns the whole
    /// line.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.log
            .wait_for(text)
            .unwrap_or_else(|log| panic!("no line with {text:?} in\n{log}"))
    }

    /// Returns everything on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.log.text()
    }

    /// Returns the directory of the rooms' data, unless the arguments named one.
    pub(crate) fn data(&self) -> PathBuf {
        self.data
            .as_ref()
            .expect("the arguments named no directory")
            .path()
            .join("data")
    }

    /// Runs `tidegate reload` for this server; returns its stdout, or its stderr as the error.
    pub(crate) fn reload(&self, args: &[&str]) -> Result<String, String> {
        let output = tidegate()
            .arg("reload")
            .arg("--data")
            .arg(self.data())
            .args(args)
            .output()
            .expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("it is text");
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// Sends a signal without waiting.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has an id");
        // The process may have ended already, which the next wait reports.
        _ = kill_process(pid, signal);
    }

    /// Drains it by SIGTERM, and waits for its end.
    pub(crate) fn stop(self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for an end that has another cause.
    pub(crate) fn wait(mut self) -> Stopped {
        let ended = self.log.wait_for_end();
        if !ended {
            _ = self.child.kill();
        }
        let status = self.child.wait().expect("it is our child");
        assert!(
            ended,
            "the server did not end in {PATIENCE:?}\n{}",
            self.log.text()
        );
        Stopped {
            status,
            stderr: self.log.text(),
        }
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        // In a test that has already failed, a slow end gives no more information.
        if thread::panicking() || !self.log.wait_for_end() {
            _ = self.child.kill();
        }
        _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stderr of {}\n{}---", self.url, self.log.text());
        }
    }
}

impl Stopped {
    /// Returns a number of the last line: "requests", "connections", "feeds", "guest_calls",
    /// "faults", "publications", "deliveries".
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.counters();
        *counters
            .get(name)
            .unwrap_or_else(|| panic!("no counter {name} in\n{}", self.stderr))
    }

    /// Returns all numbers of the last line by name.
    pub(crate) fn counters(&self) -> HashMap<&str, u64> {
        let line = self
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("stopped: "))
            .unwrap_or_default();
        let pair = |pair: &'_ str| -> Option<(usize, u64)> {
            let at = pair.find('=')?;
            Some((at, pair[at + 1..].parse().ok()?))
        };
        line.split(' ')
            .filter_map(|text| pair(text).map(|(at, count)| (&text[..at], count)))
            .collect()
    }
}

impl Log {
    fn read(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            self.lock()
                .0
                .push(String::from_utf8_lossy(&line).into_owned());
            self.grown.notify_all();
        }
        self.lock().1 = true;
        self.grown.notify_all();
    }

    fn wait_for(&self, text: &str) -> Result<String, String> {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let waiting = self
            .grown
            .wait_timeout_while(self.lock(), PATIENCE, |(lines, ended)| {
                !*ended && found(lines).is_none()
            });
        let (lines, _) = &*waiting.unwrap_or_else(PoisonError::into_inner).0;
        found(lines).ok_or_else(|| lines.join("\n"))
    }

    fn wait_for_end(&self) -> bool {
        let waiting = self
            .grown
            .wait_timeout_while(self.lock(), PATIENCE, |(_, ended)| !*ended);
        waiting.unwrap_or_else(PoisonError::into_inner).0.1
    }

    fn text(&self) -> String {
        self.lock()
            .0
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a package is built as a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Build {
    /// `cargo build --target wasm32-wasip2`
    Cargo,
    /// `cargo component build`
    CargoComponent,
    /// `cargo build`: a library to preload instead of a component.
    Library,
}

/// Both ways that the README shows.
pub(crate) const BUILDS: [Build; 2] = [Build::Cargo, Build::CargoComponent];

/// Returns the component of an example or another package of the workspace, by the package's name.
///
/// Builds it, which takes a moment if nothing changed. With `TIDEGATE_APPS=DIR` it is taken from
/// that directory.
pub(crate) fn component(package: &str) -> PathBuf {
    if let Some(dir) = env::var_os("TIDEGATE_APPS").filter(|dir| !dir.is_empty()) {
        let path = workspace().join(dir).join(file(package));
        assert!(path.is_file(), "TIDEGATE_APPS has no {}", path.display());
        return path;
    }
    component_of(Build::Cargo, package)
}

/// As [`component`], built in this way.
pub(crate) fn component_of(build: Build, package: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<(Build, String), PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let key = (build, package.to_owned());
    if let Some(path) = built.get(&key) {
        return path.clone();
    }
    build.run(package);
    let path = target_dir()
        .join(build.target())
        .join("release")
        .join(build.file(package));
    assert!(
        path.is_file(),
        "{package} was built, but not as {}",
        path.display()
    );
    built.insert(key, path.clone());
    path
}

fn file(package: &str) -> String {
    format!("{}.wasm", package.replace('-', "_"))
}

impl Build {
    /// Returns the part of the target directory that has the component.
    fn target(self) -> &'static str {
        match self {
            Build::Cargo => "wasm32-wasip2",
            Build::CargoComponent => "wasm32-wasip1",
            Build::Library => "",
        }
    }

    fn file(self, package: &str) -> String {
        match self {
            Build::Library => format!("lib{package}.so"),
            Build::Cargo | Build::CargoComponent => file(package),
        }
    }

    /// Builds a package. Cargo's own lock prevents test binaries that run at the same time from
    /// building twice.
    fn run(self, package: &str) {
        let mut cargo = Command::new(env!("CARGO"));
        match self {
            Build::Cargo => cargo.args(["build", "--target", self.target()]),
            Build::CargoComponent => cargo.args(["component", "build"]),
            Build::Library => cargo.arg("build"),
        };
        cargo
            .args(["--quiet", "--release", "--package", package])
            .arg("--target-dir")
            .arg(target_dir())
            .current_dir(workspace());
        // The flags of the tests (a sanitizer, coverage) are not for a guest.
        let output = cargo
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .expect("cargo starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{package} can't be built for {} ({self:?}):\n{errors}",
            self.target()
        );
    }
}

/// Returns the root of the repository.
pub(crate) fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("this crate lies in the workspace")
}

/// Returns Cargo's target directory. It respects CARGO_TARGET_DIR and the like, because Cargo
/// itself sets the path of its `tmp`.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("it lies in the target directory")
        .to_owned()
}
