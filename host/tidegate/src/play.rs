//! Plays a script's conversations with the real component: the real edge over pipes, rooms in memory, a clock that the script moves.

use crate::{
    assemble,
    command_error::CommandError,
    config::Config,
    deployment::{Deployment, Environment},
    hex,
    script::{Action, Assertion, Expected, Pairs, Payload, Test, TestStep},
};
use bytes::Bytes;
use serde_json::Value;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidegate_edge::{
    Hosts, Local,
    client::{Answer, Client, ClientError, Event, Received, request},
};
use tidegate_hub::{Close, EngineError, Message, Now, Publication, RoomId, testing::Memory};
use tidegate_routing::{RouteMatch, Wants};
use tidegate_wasm::Clock;
use tokio::{
    io::DuplexStream,
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
    time::timeout,
};

/// When every test begins, in Unix milliseconds: any time will do, but the same in each run.
const BEGIN: u64 = 2_000_000_000_000;
/// For whatever is expected, in real time: an app may wait for something that no script moves.
const WITHIN: Duration = Duration::from_secs(5);
/// So often everything that can go on commands, before nothing is said to move any more.
const TURNS: usize = 500;
/// Alarms of one and the same time: beyond it, one sets itself for ever.
const ALARMS_MAX: u32 = 1000;

/// What went wrong, and on which line.
pub(crate) struct StepFailure {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Plays one test against an app that nobody used before.
pub(crate) fn play(app: &Path, config: &Config, test: &Test) -> Result<(), StepFailure> {
    let Some(first) = test.steps.first() else {
        return Ok(());
    };
    let mut play = Play::new(app, config).map_err(|failure| StepFailure {
        line: first.line,
        what: failure.to_string(),
    })?;
    test.steps.iter().try_for_each(|TestStep { line, action }| {
        play.step(action)
            .map_err(|what| StepFailure { line: *line, what })
    })
}

/// An app that is served to nobody but the script's participants.
struct Play {
    app: PathBuf,
    config: Config,
    memory: Memory,
    clock: Clock,
    /// Of the version that runs; dropped with it, everything stops at once.
    run: TestRun,
}

struct TestRun {
    runtime: Runtime,
    deployment: Arc<Deployment>,
    local: Local,
    participants: HashMap<String, Participant>,
}

/// Somebody with a WebSocket or a feed.
struct Participant {
    events: UnboundedReceiver<ClientEvent>,
    /// None for feeds, and for those who went away.
    commands: Option<UnboundedSender<ClientCommand>>,
}

enum ClientCommand {
    Send(Message),
    Close(Close),
}

#[derive(Debug)]
enum ClientEvent {
    Message(Message),
    Event(Event),
    Closed(Close),
    Ended,
}

type StepResult<T = ()> = Result<T, String>;

impl Play {
    fn new(app: &Path, config: &Config) -> Result<Play, CommandError> {
        let (clock, memory) = (Clock::at(BEGIN), Memory::default());
        let mut config = config.clone();
        config.app.clock = Some(clock.clone());
        // A script names no host, and no network leads here.
        config.edge.hosts = Hosts::Any;
        let run = TestRun::begin(app, &config, &memory, &clock)?;
        Ok(Play {
            app: app.to_owned(),
            config,
            memory,
            clock,
            run,
        })
    }

    fn step(&mut self, action: &Action) -> StepResult {
        match action {
            Action::Restart => {
                // The old run ends before the new one begins.
                self.run
                    .participants
                    .values_mut()
                    .for_each(|participant| *participant = Participant::gone());
                let participants = std::mem::take(&mut self.run.participants);
                let run = TestRun::begin(&self.app, &self.config, &self.memory, &self.clock)
                    .map_err(|failure| failure.to_string())?;
                std::mem::replace(
                    &mut self.run,
                    TestRun {
                        participants,
                        ..run
                    },
                )
                .runtime
                .shutdown_background();
                Ok(())
            }
            Action::FailNextCommit => {
                self.memory
                    .fail_next([EngineError::Io("the script asked for it".into())]);
                Ok(())
            }
            Action::Advance { time } => self.run.advance(&self.clock, *time),
            Action::Reload { file } => {
                let done = self.run.reload(file.as_deref());
                self.app = file.clone().unwrap_or(std::mem::take(&mut self.app));
                done
            }
            action => {
                let TestRun {
                    runtime,
                    deployment,
                    local,
                    participants,
                } = &mut self.run;
                runtime.block_on(async {
                    let done = act(action, deployment, local, participants).await;
                    settle().await;
                    done
                })
            }
        }
    }
}

/// Lets everything go on that can.
async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

impl TestRun {
    fn begin(
        app: &Path,
        config: &Config,
        memory: &Memory,
        clock: &Clock,
    ) -> Result<TestRun, CommandError> {
        let runtime = assemble::runtime()?;
        let deployment = runtime.block_on(async {
            let (loaded, router) = assemble::load(app, config.app.clone()).await?;
            Deployment::new(
                app,
                config,
                Environment::Test(memory.clone(), clock.clone()),
                loaded,
                router,
            )
        })?;
        let local = Local::new(deployment.server().clone());
        Ok(TestRun {
            runtime,
            deployment,
            local,
            participants: HashMap::new(),
        })
    }

    fn reload(&self, file: Option<&Path>) -> StepResult {
        if let Some(file) = file {
            self.deployment.set_app(file);
        }
        self.runtime.block_on(async {
            self.deployment
                .reload()
                .await
                .map_err(|failure| failure.to_string())?;
            settle().await;
            Ok(())
        })
    }

    /// Alarms that become due are called at their time, and in their order.
    fn advance(&self, clock: &Clock, time: Duration) -> StepResult {
        let until = clock.now() + time.as_millis() as u64;
        let mut at_once = 0;
        loop {
            let next = self
                .deployment
                .rooms()
                .and_then(|rooms| rooms.next_alarm())
                .filter(|due| *due <= until);
            let now = next.unwrap_or(until).max(clock.now());
            at_once = if now > clock.now() { 0 } else { at_once + 1 };
            if at_once > ALARMS_MAX {
                return Err(
                    "an alarm sets itself to the time that it is called at, again and again".into(),
                );
            }
            clock.set(now);
            self.runtime.block_on(async {
                match self.deployment.rooms() {
                    Some(rooms) => rooms.tick(Now::at(now)),
                    None => self.deployment.hub().tick(Now::at(now)),
                }
                settle().await;
            });
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

async fn act(
    action: &Action,
    deployment: &Deployment,
    local: &Local,
    participants: &mut HashMap<String, Participant>,
) -> StepResult {
    match action {
        Action::Connect {
            who,
            to,
            headers,
            protocols,
            status,
            protocol,
        } => {
            let url = format!("ws://localhost{to}");
            let opened = within(Client::over(local.connect(), &url, headers, protocols)).await?;
            match opened {
                Ok(client) if *status == 101 => {
                    if client.protocol() != protocol.as_deref().or(client.protocol()) {
                        return Err(format!(
                            "the app chose the subprotocol {:?}",
                            client.protocol().unwrap_or_default()
                        ));
                    }
                    participants.insert(who.clone(), Participant::with_socket(client));
                    Ok(())
                }
                Ok(_) => Err(format!(
                    "{who} has a WebSocket, and was to be refused with {status}"
                )),
                Err(ClientError::Refused(refused, _)) if refused.as_u16() == *status => Ok(()),
                Err(error) => Err(format!("{who} has no WebSocket: {error}")),
            }
        }
        Action::Subscribe {
            who,
            to,
            headers,
            status,
        } => {
            let mut headers = headers.clone();
            headers.push(("accept".into(), "text/event-stream".into()));
            let answer = ask(local, "GET", to, &headers, &Payload::Text(String::new())).await?;
            if answer.status.as_u16() != *status {
                return Err(format!("{who} was answered {}", answer.status));
            }
            if *status == 200 {
                participants.insert(who.clone(), Participant::with_feed(answer));
            }
            Ok(())
        }
        Action::Send { who, payload } => {
            participant(participants, who)?.commands(who, ClientCommand::Send(message(payload)))
        }
        Action::Close { who, code, reason } => participant(participants, who)?
            .commands(who, ClientCommand::Close(Close::new(*code, reason))),
        Action::Disconnect { who } => participants
            .remove(who)
            .map(drop)
            .ok_or_else(|| nobody(who)),
        Action::Expect { who, what } => expect(who, participant(participants, who)?, what).await,
        Action::Request {
            method,
            path,
            headers,
            body,
            status,
            checks,
            answer,
        } => {
            let got = ask(local, method, path, headers, body).await?;
            check_answer(got, *status, checks, answer).await
        }
        Action::Publish {
            topic,
            payload,
            event,
        } => {
            let publication = Publication {
                event: event.as_deref().map(Into::into),
                ..Publication::new(message(payload))
            };
            deployment
                .hub()
                .publish(topic, publication)
                .map(drop)
                .map_err(|error| format!("not published: {error}"))
        }
        Action::Sleep { path } => {
            let room = room_at(deployment, path)?;
            let rooms = deployment.rooms().expect("a room's route brings rooms");
            if rooms.sleep(&room) {
                Ok(())
            } else {
                Err(format!("{room} is busy, and can't sleep"))
            }
        }
        Action::Advance { .. }
        | Action::Reload { .. }
        | Action::Restart
        | Action::FailNextCommit => {
            unreachable!("these are done to everybody")
        }
    }
}

/// Where the routes of the present version lead.
fn room_at(deployment: &Deployment, path: &str) -> StepResult<RoomId> {
    let parsed = tidegate_routing::Path::parse(path).map_err(|_| format!("{path:?} is no path"))?;
    let version = deployment.server().version();
    let rooms_of = |asked| match version.router.find("GET", asked, &parsed) {
        RouteMatch::Route { index, params, .. } => {
            Some((version.router.route(index)?.room.clone()?, params))
        }
        _ => None,
    };
    let found = [Wants::WebSocket, Wants::Events, Wants::Other]
        .into_iter()
        .find_map(rooms_of);
    let (class, params) = found.ok_or_else(|| format!("{path} leads to no room"))?;
    RoomId::of_params(&class, params.iter().map(|(_, value)| value.as_str()))
        .map_err(|error| format!("{path}: {error}"))
}

async fn ask(
    local: &Local,
    method: &str,
    path: &str,
    headers: &Pairs,
    body: &Payload,
) -> StepResult<Answer> {
    let mut head = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        head = head.header(name, value);
    }
    let body = match body {
        Payload::Text(text) => Bytes::from(text.clone()),
        Payload::Binary(bytes) => Bytes::from(bytes.clone()),
    };
    let head = head
        .body(body)
        .map_err(|error| format!("that is no request: {error}"))?;
    within(request(local.connect(), head))
        .await?
        .map_err(|error| error.to_string())
}

async fn check_answer(
    mut answer: Answer,
    status: Option<u16>,
    checks: &[Assertion],
    headers: &Pairs,
) -> StepResult {
    let (got, mut body) = (answer.status, Vec::new());
    while let Some(piece) = within(answer.piece())
        .await?
        .map_err(|error| error.to_string())?
    {
        body.extend_from_slice(&piece);
    }
    let shown = shown(&body);
    match status {
        Some(status) if got.as_u16() != status => {
            return Err(format!("answered {got} instead of {status}: {shown}"));
        }
        None if !got.is_success() => return Err(format!("answered {got}: {shown}")),
        _ => {}
    }
    for (name, value) in headers {
        let had = answer
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if had.as_ref() != Some(value) {
            return Err(format!("the header {name} is {had:?} instead of {value:?}"));
        }
    }
    let wrong = checks.iter().find_map(|check| differs(check, &body, None));
    wrong.map_or(Ok(()), |wanted| {
        Err(format!("answered {shown} instead of {wanted}"))
    })
}

async fn expect(who: &str, participant: &mut Participant, what: &Expected) -> StepResult {
    if *what == Expected::Nothing {
        settle().await;
        return match participant.events.try_recv() {
            Ok(events) => Err(format!(
                "{who} received {}, and no message was expected",
                describe(&events)
            )),
            Err(_) => Ok(()),
        };
    }
    let wanted = match what {
        Expected::Message(checks) => checks.iter().map(wanted).collect::<Vec<_>>().join(" and "),
        Expected::Closed(code, _) => format!("the close {code}"),
        Expected::Ended => "the end of the feed".into(),
        Expected::Nothing => unreachable!("it is looked at above"),
    };
    let events = match timeout(WITHIN, participant.events.recv()).await {
        Ok(Some(events)) => events,
        Ok(None) => return Err(format!("{who} is gone and cannot receive {wanted}")),
        Err(_) => {
            return Err(format!(
                "{who} received nothing in {} s instead of {wanted}",
                WITHIN.as_secs()
            ));
        }
    };
    let fits = match (what, &events) {
        (Expected::Message(checks), ClientEvent::Message(message)) => {
            let (Message::Text(_) | Message::Binary(_)) = message;
            checks
                .iter()
                .all(|check| differs(check, bytes(message), None).is_none())
        }
        (Expected::Message(checks), ClientEvent::Event(event)) => checks
            .iter()
            .all(|check| differs(check, event.data.as_bytes(), event.name.as_deref()).is_none()),
        (Expected::Closed(code, reason), ClientEvent::Closed(close)) => {
            close.code == *code
                && reason
                    .as_ref()
                    .is_none_or(|reason| close.reason.contains(&**reason))
        }
        (Expected::Ended, ClientEvent::Ended) => true,
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!(
            "{who} received {} instead of {wanted}",
            describe(&events)
        ))
    }
}

/// What was wanted, if it is something else.
fn differs(check: &Assertion, bytes: &[u8], event: Option<&str>) -> Option<String> {
    let text = std::str::from_utf8(bytes);
    let fits = match check {
        Assertion::Text(wanted) => text == Ok(wanted),
        Assertion::Contains(part) => text.is_ok_and(|text| text.contains(&**part)),
        Assertion::Json(wanted) => serde_json::from_slice(bytes).is_ok_and(|had| has(&had, wanted)),
        Assertion::Binary(wanted) => bytes == wanted,
        Assertion::Event(wanted) => event == Some(wanted),
    };
    (!fits).then(|| wanted(check))
}

fn wanted(check: &Assertion) -> String {
    match check {
        Assertion::Text(text) => format!("{text:?}"),
        Assertion::Contains(part) => format!("something with {part:?}"),
        Assertion::Json(json) => json.to_string(),
        Assertion::Binary(bytes) => hex::write(bytes),
        Assertion::Event(name) => format!("an event {name:?}"),
    }
}

/// Whether it has all that is wanted: an object may have more members.
fn has(had: &Value, wanted: &Value) -> bool {
    match (had, wanted) {
        (Value::Object(had), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| had.get(name).is_some_and(|had| has(had, wanted))),
        (Value::Array(had), Value::Array(wanted)) => {
            had.len() == wanted.len()
                && had.iter().zip(wanted).all(|(had, wanted)| has(had, wanted))
        }
        (Value::Number(had), Value::Number(wanted)) => had.as_f64() == wanted.as_f64(),
        (had, wanted) => had == wanted,
    }
}

fn describe(events: &ClientEvent) -> String {
    match events {
        ClientEvent::Message(message) => shown(bytes(message)),
        ClientEvent::Event(Event {
            name: Some(name),
            data,
        }) => format!("the event {name:?} with {data:?}"),
        ClientEvent::Event(Event { name: None, data }) => format!("{data:?}"),
        ClientEvent::Closed(close) if close.reason.is_empty() => {
            format!("the close {}", close.code)
        }
        ClientEvent::Closed(close) => format!("the close {} ({})", close.code, close.reason),
        ClientEvent::Ended => "the end of the feed".into(),
    }
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => hex::write(bytes),
    }
}

fn bytes(message: &Message) -> &[u8] {
    match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
    }
}

fn message(payload: &Payload) -> Message {
    match payload {
        Payload::Text(text) => Message::text(text.clone()),
        Payload::Binary(bytes) => Message::Binary(bytes.clone().into()),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> StepResult<T> {
    timeout(WITHIN, future)
        .await
        .map_err(|_| format!("no answer in {} s", WITHIN.as_secs()))
}

fn participant<'a>(
    participants: &'a mut HashMap<String, Participant>,
    who: &str,
) -> StepResult<&'a mut Participant> {
    participants.get_mut(who).ok_or_else(|| nobody(who))
}

fn nobody(who: &str) -> String {
    format!("nobody is called {who}: let them connect or subscribe first")
}

impl Participant {
    /// Whose connection broke off with the server.
    fn gone() -> Participant {
        let (hear, events) = unbounded_channel();
        _ = hear.send(ClientEvent::Closed(Close {
            code: 1006,
            reason: String::new(),
        }));
        Participant {
            events,
            commands: None,
        }
    }

    fn commands(&self, who: &str, commands: ClientCommand) -> StepResult {
        let done = self
            .commands
            .as_ref()
            .is_some_and(|way| way.send(commands).is_ok());
        if done {
            Ok(())
        } else {
            Err(format!("{who} has no WebSocket any more"))
        }
    }

    fn with_socket(mut client: Client<DuplexStream>) -> Participant {
        let (hear, events) = unbounded_channel();
        let (commands, mut done) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    commands = done.recv() => match commands {
                        Some(ClientCommand::Send(message)) => _ = client.send(message).await,
                        Some(ClientCommand::Close(close)) => client.close(close).await,
                        None => return,
                    },
                    received = client.receive() => match received {
                        Received::Message(message) => _ = hear.send(ClientEvent::Message(message)),
                        Received::Closed(close) => {
                            _ = hear.send(ClientEvent::Closed(close));
                            return;
                        }
                    },
                }
            }
        });
        Participant {
            events,
            commands: Some(commands),
        }
    }

    fn with_feed(mut answer: Answer) -> Participant {
        let (hear, events) = unbounded_channel();
        tokio::spawn(async move {
            let mut read = String::new();
            while let Ok(Some(piece)) = answer.piece().await {
                read += &String::from_utf8_lossy(&piece);
                while let Some(event) = Event::take(&mut read) {
                    if hear.send(ClientEvent::Event(event)).is_err() {
                        return;
                    }
                }
            }
            _ = hear.send(ClientEvent::Ended);
        });
        Participant {
            events,
            commands: None,
        }
    }
}
