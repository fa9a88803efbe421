//! A server under test: a command line, run as a child on a core of its own until it is dropped.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::machine;
use crate::process::Process;

/// The argument that stands for an empty directory, which goes with the server.
pub const DATA: &str = "{data}";

/// The argument that asks for any free port; a scenario that needs to know the port first replaces
/// it.
pub const ANY_PORT: &str = "127.0.0.1:0";

const START_MAX: Duration = Duration::from_secs(60);
const ADDRESS_MARKS: [&str; 2] = ["http://127.0.0.1:", "listening on 127.0.0.1:"];

/// How to start a server: the program and its arguments.
#[derive(Clone, Debug)]
pub struct Command(pub Vec<String>);

impl Command {
    /// The same command, asking for this port where it asked for any.
    pub fn at_port(&self, port: u16) -> Result<Self> {
        ensure!(
            self.0.iter().any(|argument| argument == ANY_PORT),
            "the server command has to say {ANY_PORT}"
        );
        let address = format!("127.0.0.1:{port}");
        Ok(Self(
            self.0
                .iter()
                .map(|argument| argument.replace(ANY_PORT, &address))
                .collect(),
        ))
    }

    /// Starts it on `core`. A thread pins itself there for the spawn and the child inherits that,
    /// so nothing else (`taskset` would) runs between the spawn and the server.
    fn spawn(&self, core: usize, data: &str) -> Result<Child> {
        let (program, arguments) = self.0.split_first().context("no server command")?;
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace(DATA, data));
        let mut command = std::process::Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = thread::scope(|scope| {
            let spawner = scope.spawn(|| machine::pin(core).and_then(|()| Ok(command.spawn()?)));
            spawner.join().expect("the spawning thread does not panic")
        });
        spawned.with_context(|| format!("cannot start {program}"))
    }
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Processor time and memory of the server.
    pub process: Process,
    child: Child,
    _data: TempDir,
}

impl Server {
    /// Starts a server and waits until it has printed its address.
    pub fn start(command: &Command, core: usize) -> Result<Self> {
        let mut server = Self::spawn(command, core, 0)?;
        let port = server.await_port()?;
        server.address.set_port(port);
        Ok(server)
    }

    /// Starts a server on a known port and does not wait for it.
    pub fn spawn_at(command: &Command, core: usize, port: u16) -> Result<Self> {
        let mut server = Self::spawn(&command.at_port(port)?, core, port)?;
        let (lines, _) = mpsc::channel();
        server.drain(&lines)?;
        Ok(server)
    }

    fn spawn(command: &Command, core: usize, port: u16) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let child = command.spawn(core, &data.path().to_string_lossy())?;
        let process = Process::new(child.id())?;
        Ok(Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            process,
            child,
            _data: data,
        })
    }

    /// An error when the server has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the server ended with {ended:?}");
        Ok(())
    }

    fn await_port(&mut self) -> Result<u16> {
        let (lines, printed) = mpsc::channel();
        self.drain(&lines)?;
        drop(lines);
        let deadline = Instant::now() + START_MAX;
        let mut output = String::new();
        loop {
            match printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match port_in(&line) {
                    Some(port) => return Ok(port),
                    None => output.push_str(&format!("\n  {line}")),
                },
                Err(RecvTimeoutError::Timeout) => bail!("no address after {START_MAX:?}:{output}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("it ended before it listened:{output}")
                }
            }
        }
    }

    /// Reads on for as long as the server lives, or its writes would block.
    fn drain(&mut self, lines: &Sender<String>) -> Result<()> {
        let stdout = self.child.stdout.take().context("stdout is piped")?;
        let stderr = self.child.stderr.take().context("stderr is piped")?;
        forward(stdout, lines.clone());
        forward(stderr, lines.clone());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the child has ended already, which is what we want of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // The receiver is dropped when the address is known. The pipe is still read, so that
            // the server never blocks on it.
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

/// The port in the first address of a line, if it is one that can be connected to.
fn port_in(line: &str) -> Option<u16> {
    let (_, after) = ADDRESS_MARKS
        .iter()
        .find_map(|mark| line.split_once(mark))?;
    let digits = after
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_the_output_of_servers() {
        for (line, port) in [
            ("listening on 127.0.0.1:4001", Some(4001)),
            ("Serving HTTP on http://127.0.0.1:39881/", Some(39881)),
            (
                "\u{1b}[32m INFO\u{1b}[0m app.wasm at http://127.0.0.1:81 (admin off)",
                Some(81),
            ),
            ("asked for http://127.0.0.1:0", None),
            ("compiling", None),
        ] {
            assert_eq!(port_in(line), port, "{line}");
        }
    }

    #[test]
    fn any_port_is_replaced_by_the_given_one() {
        let command = Command(vec!["x".into(), "--listen".into(), ANY_PORT.into()]);
        assert_eq!(
            command.at_port(99).unwrap().0,
            ["x", "--listen", "127.0.0.1:99"]
        );
        assert!(Command(vec!["x".into()]).at_port(99).is_err());
    }

    #[test]
    fn a_server_that_exits_reports_its_last_output() {
        let command = Command(vec![
            "sh".into(),
            "-c".into(),
            "echo no such app >&2; exit 1".into(),
        ]);
        let error = Server::start(&command, 0).unwrap_err().to_string();
        assert!(error.contains("no such app"), "{error}");
    }

    #[test]
    fn the_server_listens_on_the_printed_address() {
        let command = Command(vec![
            "sh".into(),
            "-c".into(),
            "echo listening on 127.0.0.1:77; exec cat".into(),
        ]);
        // `cat` ends at once without input; the address is known all the same.
        assert_eq!(Server::start(&command, 0).unwrap().address.port(), 77);
    }
}
