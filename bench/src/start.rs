//! Start: how long from the spawn of a server to its first good answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::answer::Answer;
use crate::outcome::{Figure, Outcome, median};
use crate::request::request;
use crate::server::{ANY_PORT, Command, Server};

const RETRY_EVERY: Duration = Duration::from_millis(1);
const START_MAX: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Starts the server `times`, after one start that fills its caches.
pub fn run(times: usize, command: &Command, path: &str, core: usize) -> Result<Outcome> {
    first_answer(command, path, core)?;
    let mut taken_ms = Vec::new();
    for _ in 0..times {
        taken_ms.push(first_answer(command, path, core)?.as_secs_f64() * 1e3);
    }
    let middle = median(&mut taken_ms);
    let slowest = taken_ms.iter().copied().fold(0.0, f64::max);
    Ok(Outcome(vec![
        Figure::new("slowest ms", slowest),
        Figure::cost("ms to the first answer", middle),
    ]))
}

fn first_answer(command: &Command, path: &str, core: usize) -> Result<Duration> {
    let port = free_port()?;
    let began = Instant::now();
    let mut server = Server::spawn_at(command, core, port)?;
    while !answers(server.address, path)? {
        server.check_running()?;
        ensure!(began.elapsed() < START_MAX, "no answer after {START_MAX:?}");
        thread::sleep(RETRY_EVERY);
    }
    Ok(began.elapsed())
}

/// Returns a free port, which the server takes a moment later.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(ANY_PORT)?.local_addr()?.port())
}

/// Returns true if the server answers; a refused connection is no error.
fn answers(address: SocketAddr, path: &str) -> Result<bool> {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return Ok(false);
    };
    stream.set_read_timeout(Some(START_MAX))?;
    stream.write_all(request(address, path).as_bytes())?;
    let answer = read_answer(&mut stream)?;
    ensure!(
        answer.status == 200,
        "the first answer was {}",
        answer.status
    );
    Ok(true)
}

fn read_answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut wire = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(
            count > 0 && wire.len() < ANSWER_BYTES_MAX,
            "the first answer has no end"
        );
        wire.extend_from_slice(&chunk[..count]);
        if let Some(answer) = Answer::parse(&wire)? {
            return Ok(answer);
        }
    }
}
