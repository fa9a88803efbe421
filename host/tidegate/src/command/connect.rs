//! `tidegate connect`: a WebSocket in the terminal, one line per message.

use crate::{args::ConnectArgs, assemble, command_error::CommandError, hex};
use anyhow::{Context as _, anyhow};
use std::{
    io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin, stdout},
    thread,
    time::{Duration, Instant},
};
use tidegate_edge::client::{ClientError, ServerEvent, WebSocketClient};
use tidegate_hub::{Close, Message};
use tokio::{sync::mpsc, time::timeout};

/// Time without a message after which the server is pinged. Two unanswered pings end the
/// connection.
const PING_AFTER: Duration = Duration::from_secs(30);

/// Time for the server's half of the close handshake.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Sends and receives until one side closes. A close code of the server other than 1000, 1001 or
/// 1005 is an error.
pub(crate) fn run(args: &ConnectArgs) -> Result<(), CommandError> {
    assemble::runtime()?.block_on(async {
        let client = WebSocketClient::connect(&args.url, &args.header, &args.protocol)
            .await
            .map_err(|error| match error {
                ClientError::Url(_) | ClientError::Header(_) => CommandError::usage(error),
                error => anyhow!("{}: {error}", args.url).into(),
            })?;
        match args.bench {
            Some(count) => bench(client, count).await,
            None => talk(client, args.binary).await,
        }
    })
}

async fn talk(mut client: WebSocketClient, binary: bool) -> Result<(), CommandError> {
    let protocol = client
        .protocol()
        .map_or_else(String::new, |protocol| format!(", subprotocol {protocol}"));
    note(&format!("connected{protocol}; Ctrl-D closes"));
    let (sender, mut lines) = mpsc::unbounded_channel();
    thread::spawn(move || {
        stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .all(|line| sender.send(line).is_ok())
    });
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => match message(&line, binary) {
                    Ok(message) => client.send(message).await.context("the message was not sent")?,
                    Err(why) => note(why),
                },
                None => {
                    client.close(Close::new(1000, "")).await;
                    let outcome = timeout(CLOSE_WITHIN, receive_rest(&mut client)).await;
                    return Ok(outcome.unwrap_or_else(|_| Err(anyhow!("the server did not answer the close")))?);
                }
            },
            received = client.receive_or_ping(PING_AFTER) => match received {
                ServerEvent::Message(message) => show(&message)?,
                ServerEvent::Closed(close) => return Ok(end(&close)?),
            },
        }
    }
}

/// Shows messages until the server closes, after stdin has ended.
async fn receive_rest(client: &mut WebSocketClient) -> Result<(), anyhow::Error> {
    loop {
        match client.receive().await {
            ServerEvent::Message(message) => show(&message)?,
            ServerEvent::Closed(close) => return end(&close),
        }
    }
}

fn end(close: &Close) -> Result<(), anyhow::Error> {
    let reason = match close.code {
        1006 if close.reason.is_empty() => "the connection was lost".to_owned(),
        1006 => format!("the connection was lost: {}", close.reason),
        code if close.reason.is_empty() => format!("closed with {code}"),
        code => format!("closed with {code}: {}", close.reason),
    };
    match close.code {
        1000 | 1001 | 1005 => {
            note(&reason);
            Ok(())
        }
        _ => Err(anyhow!("{reason}")),
    }
}

/// Converts a line to a message: text, or bytes in hex.
fn message(line: &str, binary: bool) -> Result<Message, &'static str> {
    if !binary {
        return Ok(Message::text(line.to_owned()));
    }
    hex::read(line)
        .map(|bytes| Message::Binary(bytes.into()))
        .ok_or("not sent: with --binary each line is hex, as in 00ff2a")
}

/// Prints a message: text unchanged, bytes in hex. On a terminal a mark sets it apart from typed
/// lines.
fn show(message: &Message) -> Result<(), anyhow::Error> {
    let mark = if stdin().is_terminal() && stdout().is_terminal() {
        "< "
    } else {
        ""
    };
    let mut stdout = stdout().lock();
    match message {
        Message::Text(text) => writeln!(stdout, "{mark}{text}")?,
        Message::Binary(bytes) => writeln!(stdout, "{mark}{}", hex::write(bytes))?,
    }
    Ok(stdout.flush()?)
}

fn note(text: &str) {
    _ = writeln!(stderr(), "{text}");
}

/// Sends `count` messages, each after the answer to the previous one, and prints the latency.
async fn bench(mut client: WebSocketClient, count: u32) -> Result<(), CommandError> {
    let text = "x".repeat(64);
    let mut times = Vec::with_capacity(count as usize);
    let began = Instant::now();
    for _ in 0..count.max(1) {
        let sent = Instant::now();
        client.send(Message::text(text.clone())).await?;
        match client.receive().await {
            ServerEvent::Message(_) => times.push(sent.elapsed()),
            ServerEvent::Closed(close) => {
                return end(&close).map_err(Into::into).and_then(|()| {
                    Err(anyhow!("the server closed the connection before the end").into())
                });
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    super::print(&format!(
        "{} round trips of 64 bytes: {:.0} per second, p50 {:.0} µs, p99 {:.0} µs, slowest {:.0} µs\n",
        times.len(),
        times.len() as f64 / took,
        at(0.5),
        at(0.99),
        at(1.0)
    ))?;
    client.close(Close::new(1000, "")).await;
    _ = timeout(CLOSE_WITHIN, client.receive()).await;
    Ok(())
}
