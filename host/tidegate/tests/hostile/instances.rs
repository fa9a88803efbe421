//! An instance whose client has disconnected ends, and idle instances yield their place.

use crate::support::{
    Tidegate,
    client::{Raw, soon},
    component,
};
use futures_util::future::join_all;
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Number of instances of each server: enough for a share of everything.
const INSTANCES: usize = 8;

/// Arguments with which a call may last until its client disconnects.
const LONG_CALLS: [&str; 6] = [
    "--wall",
    "1h",
    "--limit",
    "after_answer_max=1h",
    "--drain",
    "0",
];

/// An app that streams answers, and its paths by their behaviour.
#[derive(Clone)]
struct App {
    component: &'static str,
    args: &'static [&'static str],
    /// Number of streams that it may have at a time.
    streams: usize,
    wait: &'static str,
    collect: &'static str,
    idle: &'static str,
    echo: &'static str,
    /// Answers, and continues to work afterwards.
    after: &'static str,
}

/// Returns each `wasi:http` and the own contract, with and without instances that serve more than
/// one request.
fn apps() -> Vec<App> {
    let foreign = |component, args| App {
        component,
        args,
        streams: INSTANCES,
        wait: "/wait",
        collect: "/collect",
        idle: "/idle",
        echo: "/echo",
        after: "/after",
    };
    let own = |args| App {
        component: "rogue",
        args,
        streams: 3,
        wait: "/stream/wait",
        collect: "/stream/collect",
        idle: "/stream/idle",
        echo: "/stream/echo",
        after: "/stream/after",
    };
    let reuse = &["--reuse-foreign"][..];
    let mut apps: Vec<App> = ["proxy02", "proxy03"]
        .into_iter()
        .flat_map(|name| [foreign(name, &[]), foreign(name, reuse)])
        .collect();
    // The last app blocks its whole instance. Without this, only 0.3 does so.
    apps.extend([&[][..], reuse].map(|args| App {
        wait: "/block",
        ..foreign("proxy03", args)
    }));
    apps.extend([own(&[]), own(reuse)]);
    apps
}

impl App {
    fn serve(&self, args: &[&str]) -> Tidegate {
        let instances = INSTANCES.to_string();
        let limits = ["--instances", &instances, "--workers", "2", "--log", "warn"];
        Tidegate::serve(
            &component(self.component),
            &[&limits, self.args, args].concat(),
        )
    }

    /// Returns the head of a request to `echo`, and the first piece of its body.
    fn begun_echo(&self) -> String {
        format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            self.echo
        )
    }

    /// Opens as many conversations at once as there may be streams. Each holds an instance until
    /// all have one.
    async fn assert_all_are_free(&self, server: &Tidegate, after: &str) {
        let head = self.begun_echo();
        let mut open = join_all((0..self.streams).map(|_| async {
            let mut raw = Raw::send(server.address(), &head).await;
            let answer = raw.until("\r\n\r\n").await;
            assert!(
                answer.starts_with("HTTP/1.1 200 "),
                "{} {:?} after {after}: {answer}",
                self.component,
                self.args
            );
            raw.until("first").await;
            raw
        }))
        .await;
        for raw in &mut open {
            raw.write("0\r\n\r\n").await;
            raw.until("0\r\n\r\n").await;
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Returns a request whose body is incomplete.
fn part(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\npart")
}

/// Sends this once for each possible stream, and waits for `until`.
async fn all(app: &App, server: &Tidegate, request: &str, until: &str) -> Vec<Raw> {
    let one = async || {
        let mut raw = Raw::send(server.address(), request).await;
        raw.until(until).await;
        raw
    };
    join_all((0..app.streams).map(|_| one())).await
}

#[tokio::test]
async fn a_timed_out_request_frees_its_instance() {
    for app in apps() {
        let server = app.serve(&["--wall", "1s"]);
        for request in [get(app.wait), part(app.wait), part(app.collect)] {
            let refused = all(&app, &server, &request, "HTTP/1.1 504 ").await;
            app.assert_all_are_free(&server, &request).await;
            drop(refused);
        }
    }
}

#[tokio::test]
async fn a_disconnected_client_frees_its_instance() {
    for app in apps() {
        let server = app.serve(&[
            "--wall",
            "1h",
            "--limit",
            "after_answer_max=1h",
            "--limit",
            "half_close_within=300ms",
            "--drain",
            "0",
        ]);
        for request in [get(app.idle), part(app.idle)] {
            drop(all(&app, &server, &request, "a first piece").await);
            app.assert_all_are_free(&server, &request).await;
        }
        // Nothing has to be awaited before the head; a later request is answered as well.
        for request in [get(app.wait), part(app.wait)] {
            let early =
                join_all((0..app.streams).map(|_| Raw::send(server.address(), &request))).await;
            drop(early);
            app.assert_all_are_free(&server, "no head").await;
        }
    }
}

#[tokio::test]
async fn an_instance_of_a_client_that_left_is_free_for_a_call_that_waits() {
    // The longest time for a client that may still wait for its answer, and no other bound.
    let args = [
        "--wall",
        "1h",
        "--limit",
        "after_answer_max=1h",
        "--limit",
        "half_close_within=1h",
        "--drain",
        "0",
    ];
    let rows = apps().into_iter().flat_map(|app| {
        [
            (get(app.idle), true),
            (part(app.idle), true),
            (get(app.wait), false),
        ]
        .map(|(request, has_head)| (app.clone(), request, has_head))
    });
    join_all(rows.map(async |(app, request, has_head)| {
        let server = app.serve(&args);
        if has_head {
            drop(all(&app, &server, &request, "a first piece").await);
        } else {
            drop(join_all((0..app.streams).map(|_| Raw::send(server.address(), &request))).await);
        }
        app.assert_all_are_free(&server, &request).await;
    }))
    .await;
}

#[tokio::test]
async fn a_client_that_pipelines_and_disconnects_frees_its_instance() {
    for app in apps() {
        let server = app.serve(&LONG_CALLS);
        for more in ["G", "GET /calm HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let request = get(app.idle) + more;
            all(&app, &server, &request, "a first piece")
                .await
                .into_iter()
                .for_each(Raw::reset);
            app.assert_all_are_free(&server, &request).await;
        }
    }
}

#[tokio::test]
async fn an_incomplete_request_body_is_not_an_app_fault() {
    for app in apps() {
        let server = app.serve(&[]);
        let request = app.begun_echo();
        drop(all(&app, &server, &request, "first").await);
        app.assert_all_are_free(&server, "broken bodies").await;
        let stopped = server.stop();
        assert_eq!(
            stopped.counter("faults"),
            0,
            "{} {:?}\n{}",
            app.component,
            app.args,
            stopped.stderr
        );
    }
}

#[tokio::test]
async fn work_after_an_answer_is_bounded_and_does_not_delay_it() {
    for app in apps() {
        let path = app.after;
        let server = app.serve(&["--wall", "1h", "--limit", "after_answer_max=500ms"]);
        let one = async || {
            let answer = soon(path, reqwest::get(server.url(path))).await.unwrap();
            assert_eq!(
                soon(path, answer.text()).await.unwrap(),
                "answered",
                "{}",
                app.component
            );
        };
        join_all((0..app.streams).map(|_| one())).await;
        app.assert_all_are_free(&server, "work after the answer")
            .await;
    }
}

#[tokio::test]
async fn work_after_answers_leaves_instances_to_waiting_requests() {
    for app in apps() {
        let server = app.serve(&LONG_CALLS);
        // There are more requests than instances, side by side and one after another.
        for _ in 0..3 {
            let answers = (0..INSTANCES).map(|_| text(&server, app.after));
            for answer in join_all(answers).await {
                assert_eq!(answer, "answered", "{} {:?}", app.component, app.args);
            }
        }
        let begun = app.begun_echo();
        // An eighth request continues its work.
        let others = join_all((1..app.streams).map(|_| async {
            let mut raw = Raw::send(server.address(), &begun).await;
            raw.until("first").await;
            raw
        }));
        drop(others.await);
        if app.component == "rogue" {
            assert_eq!(status(&server, "/calm").await, 200);
        }
        server.wait_for("because a request waited for its instance");
    }
}

async fn text(server: &Tidegate, path: &str) -> String {
    let answer = soon(path, reqwest::get(server.url(path))).await.unwrap();
    soon(path, answer.text()).await.unwrap()
}

async fn status(server: &Tidegate, path: &str) -> u16 {
    soon(path, reqwest::get(server.url(path)))
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// Uses all instances at once, each for one request of this path.
async fn burst(server: &Tidegate, path: &str) {
    let statuses = join_all((0..INSTANCES).map(|_| status(server, path))).await;
    assert!(
        statuses.iter().all(|status| [200, 204].contains(status)),
        "{path}: {statuses:?}"
    );
}

fn rogue(args: &[&str]) -> Tidegate {
    let instances = INSTANCES.to_string();
    Tidegate::serve(
        &component("rogue"),
        &[
            &["--instances", &instances, "--workers", "2", "--log", "warn"],
            args,
        ]
        .concat(),
    )
}

#[tokio::test]
async fn idle_instances_yield_to_rooms_and_streams() {
    let server = rogue(&[]);
    burst(&server, "/pause/300").await;
    for number in 0..3 * INSTANCES {
        assert_eq!(
            status(&server, &format!("/rooms/room-{number}")).await,
            200,
            "room {number}"
        );
        assert_eq!(
            status(&server, "/stream/collect").await,
            200,
            "beside room {number}"
        );
    }
    burst(&server, "/pause/300").await;
    // Instances of another version of the app count in the same account, and both yield to each
    // other.
    server.reload(&[]).unwrap();
    burst(&server, "/pause/300").await;
    assert_eq!(status(&server, "/rooms/another").await, 200);
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn streams_leave_a_share_of_instances_to_other_events() {
    let server = rogue(&["--wall", "1h", "--drain", "0"]);
    let app = apps()
        .into_iter()
        .find(|app| app.component == "rogue")
        .unwrap();
    let held = all(&app, &server, &get(app.idle), "a first piece").await;
    let refused = soon("busy", reqwest::get(server.url(app.idle)))
        .await
        .unwrap();
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "1")
    );
    let paths = [
        "/calm",
        "/guarded/calm",
        "/rooms/one",
        "/rooms/two",
        "/page",
    ];
    for path in paths {
        assert_eq!(
            status(&server, path).await,
            200,
            "{path} beside {} streams",
            held.len()
        );
    }
}

#[tokio::test]
async fn an_instance_that_grew_is_not_reused() {
    let server = rogue(&[]);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .unwrap()
            >> 10
    };
    burst(&server, "/pause/300").await;
    let before = resident();
    burst(&server, "/grow/40").await;
    // Eight instances would have 320 MiB; a slot of the pool keeps one.
    let small = async {
        while resident() > before + 80 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("to be small again", small).await;
    assert_eq!(status(&server, "/calm").await, 200);
}

/// Waits until all instances have sent a request, so that all are in use at once.
async fn requests(upstream: &TcpListener) -> Vec<TcpStream> {
    let mut asking = Vec::new();
    while asking.len() < INSTANCES {
        let (mut stream, _) = soon("a request", upstream.accept()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("its head", stream.read_u8()).await.unwrap());
        }
        asking.push(stream);
    }
    asking
}

#[tokio::test]
async fn a_silent_upstream_frees_its_instance() {
    for (guest, args) in [
        ("errand", &[][..]),
        ("errand03", &[]),
        ("errand03", &["--reuse-foreign"]),
    ] {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        let (instances, grant) = (INSTANCES.to_string(), format!("http://{address}"));
        let limits = [
            "--instances",
            &instances,
            "--wall",
            "1s",
            "--log",
            "warn",
            "--allow-outbound",
            &grant,
        ];
        let server = Tidegate::serve(&component(guest), &[&limits, args].concat());
        let path = format!("/fetch?scheme=http&authority={address}");
        let ask = async || join_all((0..INSTANCES).map(|_| status(&server, &path))).await;

        let (statuses, _silent) = tokio::join!(ask(), requests(&upstream));
        assert_eq!(statuses, [504; INSTANCES], "{guest} {args:?}");
        let answers = async {
            for mut stream in requests(&upstream).await {
                stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
                    )
                    .await
                    .unwrap();
            }
        };
        let (statuses, ()) = tokio::join!(ask(), answers);
        assert_eq!(
            statuses, [200; INSTANCES],
            "{guest} {args:?}: all instances are free again"
        );
    }
}
