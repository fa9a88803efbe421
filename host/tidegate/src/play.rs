//! Runs the tests of a script against the real component, for `tidegate test`.
//!
//! Each test has a server of its own, without a network: the real edge serves in-process pipes,
//! rooms are stored in memory, and the clock moves only by the steps of the script.
//!
//! Owner: [`Play`] holds the memory and the clock for the whole test, and one [`TestRun`] with
//! runtime, deployment and participants. The step `restart` replaces the run, as after a kill.
//!
//! Each participant (a WebSocket or a feed) is a task that queues received events; `expect` takes
//! the next one.
//!
//! Invariant: after each step all tasks have run until nothing more can proceed (`settle`), so a
//! result does not depend on the order of tasks. Only an app that waits for something outside of
//! the script needs real time, bounded by [`WITHIN`].
//!
//! `script` parses the steps; this module reads no TOML.

mod assertion;
mod participant;

use self::{
    assertion::{check_answer, expect},
    participant::{ClientCommand, Participant},
};
use crate::{
    assemble,
    command_error::CommandError,
    config::Config,
    deployment::{Deployment, Environment},
    script::{Action, Pairs, Payload, Test, TestStep},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidegate_edge::{
    Hosts, InProcess,
    client::{ClientError, HttpResponse, WebSocketClient, request},
};
use tidegate_hub::{Close, EngineError, Message, Now, Publication, RoomId, testing::MemoryEngine};
use tidegate_routing::{RouteMatch, Wants};
use tidegate_wasm::Clock;
use tokio::{runtime::Runtime, task::yield_now, time::timeout};

/// Start time of every test, in Unix milliseconds. It is arbitrary but constant, so that tests are
/// reproducible.
const BEGIN: u64 = 2_000_000_000_000;
/// Time for an expected event or answer, in real time, since an app may wait for something outside
/// of the script.
const WITHIN: Duration = Duration::from_secs(5);
/// Number of times that all tasks are polled before they count as idle.
const TURNS: usize = 500;
/// Number of alarms at the same time. Beyond it, an alarm counts as setting itself for ever.
const ALARMS_MAX: u32 = 1000;

/// A failed step, with its line.
pub(crate) struct StepFailure {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Runs one test against an app without state.
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

/// A running test.
struct Play {
    app: PathBuf,
    config: Config,
    memory: MemoryEngine,
    clock: Clock,
    /// The server. Dropping it stops all its tasks.
    run: TestRun,
}

/// A server from its start to its end or a restart.
struct TestRun {
    runtime: Runtime,
    deployment: Arc<Deployment>,
    local: InProcess,
    participants: HashMap<String, Participant>,
}

type StepResult<T = ()> = Result<T, String>;

impl Play {
    fn new(app: &Path, config: &Config) -> Result<Play, CommandError> {
        let (clock, memory) = (Clock::at(BEGIN), MemoryEngine::default());
        let mut config = config.clone();
        config.app.clock = Some(clock.clone());
        // Requests of a script have no host of their own, and no network reaches this server.
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
                // The old server must end before the new one starts, as after a kill.
                self.run
                    .participants
                    .values_mut()
                    .for_each(|participant| *participant = Participant::disconnected());
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

/// Polls all tasks until none can proceed.
async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

impl TestRun {
    fn begin(
        app: &Path,
        config: &Config,
        memory: &MemoryEngine,
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
        let local = InProcess::new(deployment.server().clone());
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

    /// Advances the clock, and delivers each alarm at its time, in order.
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
                return Err("an alarm sets itself again for the same time, without end".into());
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
    local: &InProcess,
    participants: &mut HashMap<String, Participant>,
) -> StepResult {
    match action {
        Action::Connect {
            client,
            to,
            headers,
            protocols,
            status,
            protocol,
        } => {
            let url = format!("ws://localhost{to}");
            let opened = within(WebSocketClient::over(
                local.connect(),
                &url,
                headers,
                protocols,
            ))
            .await?;
            match opened {
                Ok(socket) if *status == 101 => {
                    if socket.protocol() != protocol.as_deref().or(socket.protocol()) {
                        return Err(format!(
                            "the app chose the subprotocol {:?}",
                            socket.protocol().unwrap_or_default()
                        ));
                    }
                    participants.insert(client.clone(), Participant::with_socket(socket));
                    Ok(())
                }
                Ok(_) => Err(format!(
                    "{client} has a WebSocket, but {status} was expected"
                )),
                Err(ClientError::Refused(refused, _)) if refused.as_u16() == *status => Ok(()),
                Err(error) => Err(format!("{client} has no WebSocket: {error}")),
            }
        }
        Action::Subscribe {
            client,
            to,
            headers,
            status,
        } => {
            let mut headers = headers.clone();
            headers.push(("accept".into(), "text/event-stream".into()));
            let answer = ask(local, "GET", to, &headers, &Payload::Text(String::new())).await?;
            if answer.status.as_u16() != *status {
                return Err(format!("{client} received status {}", answer.status));
            }
            if *status == 200 {
                participants.insert(client.clone(), Participant::with_feed(answer));
            }
            Ok(())
        }
        Action::Send { client, payload } => participant(participants, client)?
            .command(client, ClientCommand::Send(message(payload))),
        Action::Close {
            client,
            code,
            reason,
        } => participant(participants, client)?
            .command(client, ClientCommand::Close(Close::new(*code, reason))),
        Action::Disconnect { client } => participants
            .remove(client)
            .map(drop)
            .ok_or_else(|| unknown_client(client)),
        Action::Expect { client, what } => {
            expect(client, participant(participants, client)?, what).await
        }
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
                Err(format!("{room} is busy and can't sleep"))
            }
        }
        Action::Advance { .. }
        | Action::Reload { .. }
        | Action::Restart
        | Action::FailNextCommit => {
            unreachable!("`Play::step` handles the steps of the whole server")
        }
    }
}

/// Returns the room at a path, by the routes of the current version.
fn room_at(deployment: &Deployment, path: &str) -> StepResult<RoomId> {
    let parsed =
        tidegate_routing::Path::parse(path).map_err(|_| format!("{path:?} is not a path"))?;
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
    let (class, params) = found.ok_or_else(|| format!("no room has the path {path}"))?;
    RoomId::of_params(&class, params.iter().map(|(_, value)| value.as_str()))
        .map_err(|error| format!("{path}: {error}"))
}

async fn ask(
    local: &InProcess,
    method: &str,
    path: &str,
    headers: &Pairs,
    body: &Payload,
) -> StepResult<HttpResponse> {
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
        .map_err(|error| format!("the request is invalid: {error}"))?;
    within(request(local.connect(), head))
        .await?
        .map_err(|error| error.to_string())
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
    client: &str,
) -> StepResult<&'a mut Participant> {
    participants
        .get_mut(client)
        .ok_or_else(|| unknown_client(client))
}

fn unknown_client(client: &str) -> String {
    format!("there is no client {client}: add a step that connects or subscribes it")
}
