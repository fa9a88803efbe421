//! The work of an author: a new project, a live server, and changes to the project while a browser
//! and its WebSocket stay connected.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use support::{
    PATIENCE, Stopped, Tidegate,
    browser::{Browser, Manner},
    client::{Raw, Socket, soon},
    run, target_dir, tidegate,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
    time::timeout,
};

/// Runs one project at a time: the projects share Cargo's target directory, and one build would
/// block the other in the middle of a test.
static TURN: Mutex<()> = Mutex::const_new(());

/// A project in a directory that is the same in each run, so that Cargo has built its SDK before.
struct Project(PathBuf);

impl Project {
    fn new(name: &str, template: &str) -> Project {
        let parent = target_dir().join("tmp").join("author");
        fs::create_dir_all(&parent).unwrap();
        let dir = parent.join(name);
        _ = fs::remove_dir_all(&dir);
        let made = run(&["new", dir.to_str().unwrap(), "--template", template]);
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let project = Project(dir);
        // The first build is slow; the tests await only the builds after it.
        project.cargo(&["build", "--quiet", "--target", "wasm32-wasip2"]);
        project
    }

    fn command(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.0.parent().unwrap().join("target"));
        command
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    }

    fn cargo(&self, args: &[&str]) {
        let output = self
            .command(Command::new("cargo"))
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "cargo {args:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn dev(&self) -> Tidegate {
        Tidegate::spawn(
            self.command(tidegate())
                .args(["dev", "--listen", "127.0.0.1:0"]),
        )
    }

    /// Replaces one text by another in a file.
    fn edit(&self, file: &str, text: &str, with: &str) {
        let path = self.0.join(file);
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(text), "{text:?} is not in {file}");
        fs::write(path, before.replace(text, with)).unwrap();
    }
}

/// A script that returns the text of the overlay of `dev.js`, if the page shows one.
/// Waits for the overlay of build errors, and returns its text.
async fn overlay_text(browser: &Browser) -> String {
    const TEXT: &str = "return document.querySelector('tidegate-overlay').shadowRoot.textContent";
    until(
        browser,
        "an overlay",
        "document.querySelector('tidegate-overlay')",
    )
    .await;
    let text = browser.client.execute(TEXT, vec![]).await.unwrap();
    text.to_string()
}

async fn until_no_overlay(browser: &Browser) {
    until(
        browser,
        "no overlay",
        "!document.querySelector('tidegate-overlay')",
    )
    .await;
}

/// Waits until the script's result is true. If the page is reloaded meanwhile, the script runs
/// again.
async fn until(browser: &Browser, what: &str, script: &str) {
    let script = format!(
        "const done = arguments[0]; (function look() {{ if ({script}) done(true); else requestAnimationFrame(look) }})()"
    );
    let look = async { while browser.client.execute_async(&script, vec![]).await.is_err() {} };
    soon(what, look).await;
}

fn is_file(path: &Path) {
    assert!(path.is_file(), "no {}", path.display());
}

#[tokio::test]
async fn a_new_project_builds_both_ways_and_its_changes_keep_connections_open() {
    let _turn = TURN.lock().await;
    let project = Project::new("my-echo", "echo");
    project.cargo(&["test", "--quiet"]);
    project.cargo(&["component", "build", "--quiet", "--release"]);
    is_file(
        &project
            .0
            .parent()
            .unwrap()
            .join("target/wasm32-wasip1/release/my_echo.wasm"),
    );

    let server = project.dev();
    let mut socket = Socket::connect(server.ws("/echo")).await;
    assert_eq!(socket.ask("hi").await, "hi");
    let browser = Browser::open().await;
    browser.goto(&server.url("/")).await;
    browser.sees("status", "connected").await;
    browser
        .client
        .execute("window.before = document", vec![])
        .await
        .unwrap();

    // A new version answers on the open connection.
    project.edit(
        "src/lib.rs",
        "conn.send(msg)",
        "conn.send(msg)?;\n        conn.send(\"and again\")",
    );
    let report = server.wait_for("version 2: built in ");
    assert!(
        report.ends_with("2 WebSockets and 0 feeds kept"),
        "{report}"
    );
    assert_eq!(socket.ask("hi").await, "hi");
    assert_eq!(socket.text().await, "and again");
    browser.write("text", "heard").await;
    browser
        .client
        .execute("document.forms[0].requestSubmit()", vec![])
        .await
        .unwrap();
    browser.sees("log", "and again").await;

    // A project that doesn't build is reported, and the running version stays.
    project.edit("src/lib.rs", "and again\")", "and again\").nonsense()");
    let overlay = overlay_text(&browser).await;
    assert!(
        overlay.contains("error[E0599]: no method named `nonsense`")
            && overlay.contains("src/lib.rs:"),
        "{overlay}"
    );
    browser.screenshot("dev-overlay.png").await;
    server.wait_for("error[E0599]: no method named `nonsense`");
    assert_eq!(socket.ask("still").await, "still");
    assert_eq!(socket.text().await, "and again");
    project.edit("src/lib.rs", ".nonsense()", "");
    until_no_overlay(&browser).await;

    // A violated rule is reported as `check` reports it.
    project.edit(
        "src/lib.rs",
        "App::new()",
        "App::new().get(\"/__loaders\", async |_| \"\")",
    );
    let overlay = overlay_text(&browser).await;
    assert!(overlay.contains("/__loaders"), "{overlay}");
    project.edit("src/lib.rs", ".get(\"/__loaders\", async |_| \"\")", "");
    until_no_overlay(&browser).await;

    // Styles are replaced without a reload.
    project.edit(
        "assets/style.css",
        "body { margin: 0;",
        "body { margin: 0; outline-color: rgb(1, 2, 3);",
    );
    until(
        &browser,
        "the new style",
        "getComputedStyle(document.body).outlineColor === 'rgb(1, 2, 3)'",
    )
    .await;
    let stayed = browser
        .client
        .execute(
            "return window.before === document && document.getElementById('log').innerText",
            vec![],
        )
        .await;
    assert!(
        stayed
            .unwrap()
            .as_str()
            .is_some_and(|log| log.contains("and again")),
        "the page was reloaded"
    );

    // Any other file of the page causes a reload.
    project.edit(
        "assets/index.html",
        "<h1>Echo</h1>",
        "<h1 id=\"title\">My echo</h1>",
    );
    until(
        &browser,
        "the new page",
        "document.getElementById('title') && !window.before",
    )
    .await;
    browser.sees("status", "connected").await;
    browser.screenshot("echo.png").await;
    browser.close().await;

    socket.close().await;
    let Stopped { stderr, status } = server.stop();
    assert!(status.success() && !stderr.contains("panicked"), "{stderr}");
}

/// An app of one page, which streams for as long as a client reads it, under a strict policy.
const PAGE: &str = r#"
use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new().page("/", Page::new(render).loader(Loader::live("seconds"), seconds))
}

async fn seconds(_: &Request, sink: &mut Sink<u32>) -> Result {
    for second in 0.. {
        sink.send(&second).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn render(_: &Request, view: &View) -> Response {
    let page = format!("<!doctype html><head>{}</head><h1>the first</h1><p id=seconds data-slot=seconds></p>", view.script());
    Response::html(page).header("content-security-policy", view.strict_policy())
}
"#;

#[tokio::test]
async fn a_page_reloads_with_each_version_of_its_app() {
    let _turn = TURN.lock().await;
    let project = Project::new("my-page", "hello");
    fs::write(project.0.join("src/lib.rs"), PAGE).unwrap();
    let server = project.dev();
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/")).await;
    until(
        &browser,
        "a value",
        "document.getElementById('seconds')?.textContent === '1'",
    )
    .await;
    project.edit("src/lib.rs", "<h1>the first</h1>", "<h1>the second</h1>");
    until(
        &browser,
        "the new page",
        "document.querySelector('h1')?.textContent === 'the second'",
    )
    .await;
    until(
        &browser,
        "its first value",
        "document.getElementById('seconds')?.textContent",
    )
    .await;
    project.edit("src/lib.rs", "for second in 0..", "for second in nothing..");
    until(
        &browser,
        "an overlay",
        "document.querySelector('tidegate-overlay')",
    )
    .await;
    browser.close().await;
    assert!(server.stop().status.success());
}

#[tokio::test]
async fn a_trap_is_reported_with_source_line_event_and_attachment() {
    let _turn = TURN.lock().await;
    let project = Project::new("my-traps", "echo");
    project.edit(
        "src/lib.rs",
        "conn.send(msg)",
        "conn.set_attachment(b\"of Ann\")?;\n        panic!(\"no such thing\")",
    );
    let server = project.dev();
    let mut socket = Socket::connect(server.ws("/echo")).await;
    let mut other = Socket::connect(server.ws("/echo")).await;
    socket.send("the message").await;
    assert_eq!(socket.closed().await.0, 1011);
    let line = fs::read_to_string(project.0.join("src/lib.rs"))
        .unwrap()
        .lines()
        .position(|line| line.contains("panic!"))
        .unwrap()
        + 1;
    server.wait_for(&format!("src/lib.rs:{line}:"));
    server.wait_for("no such thing");
    let report = server.wait_for("the event that failed");
    for part in ["the message", "of Ann", "/echo"] {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
    project.edit("src/lib.rs", "panic!(\"no such thing\")", "conn.send(msg)");
    server.wait_for("version 2: ");
    assert_eq!(other.ask("hi").await, "hi");
    other.close().await;
}

#[tokio::test]
async fn a_project_that_fails_to_build_is_served_after_its_correction() {
    let _turn = TURN.lock().await;
    let project = Project::new("my-late", "hello");
    project.edit("src/lib.rs", "fn app()", "fn ap()");
    // The setting for production has no effect in `tidegate dev`.
    project.edit(
        "tidegate.toml",
        "# hosts = [\"example.org\"]",
        "hosts = \"*\"",
    );
    let server =
        Tidegate::begin(
            project
                .command(tidegate())
                .args(["dev", "--listen", "127.0.0.1:0"]),
        );
    server.wait_for("Nothing is served yet");
    project.edit("src/lib.rs", "fn ap()", "fn app()");
    let server = server.listening().unwrap_or_else(|log| panic!("{log}"));
    let answer = reqwest::get(server.url("/"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(answer, "hello");
    // A page of another site that rebinds its own name to this machine can read neither the app nor
    // the channel of its pages.
    let status = async |target: &str, host: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        Raw::send(server.address(), &head).await.until("\r\n").await
    };
    for target in [
        "/",
        "/__tidegate/dev",
        "/__tidegate/dev.js",
        "/__tidegate/client.js",
    ] {
        for host in ["evil.example", "example.org:8080", "localhost.evil.example"] {
            assert_eq!(
                status(target, host).await,
                "HTTP/1.1 421 Misdirected Request\r\n",
                "{target} of {host}"
            );
        }
        for host in [
            "localhost:8080",
            "talk.localhost",
            "127.0.0.1",
            "192.168.1.7:8080",
            "[::1]",
        ] {
            assert_eq!(
                status(target, host).await,
                "HTTP/1.1 200 OK\r\n",
                "{target} of {host}"
            );
        }
    }
    assert_eq!(
        status("/__tidegate/health", "evil.example").await,
        "HTTP/1.1 200 OK\r\n"
    );
    let stopped = server.stop();
    assert!(
        stopped.status.success() && !stopped.stderr.contains("any host"),
        "{}",
        stopped.stderr
    );
}

/// Forwards connections to a server, and counts the open event streams of `dev.js`.
struct Gate {
    url: String,
    streams: watch::Sender<usize>,
}

impl Gate {
    async fn before(server: &Tidegate) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Gate {
            url: format!("http://{}", listener.local_addr().unwrap()),
            streams: watch::Sender::new(0),
        };
        let (streams, server) = (gate.streams.clone(), server.address().to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server.clone(), streams.clone()));
            }
        });
        gate
    }

    /// Waits until the number of open event streams is `count`.
    async fn has(&self, count: usize, when: &str) {
        let mut streams = self.streams.subscribe();
        let seen = timeout(PATIENCE, streams.wait_for(|streams| *streams == count))
            .await
            .is_ok();
        assert!(
            seen,
            "{} event streams {when}, not {count}",
            *self.streams.borrow()
        );
    }
}

async fn forward(mut client: TcpStream, server: String, streams: watch::Sender<usize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut has_stream = false;
    let up = async {
        let mut bytes = [0; 65_536];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            if bytes.starts_with(b"GET /__tidegate/dev ") {
                has_stream = true;
                streams.send_modify(|streams| *streams += 1);
            }
            if to_server.write_all(&bytes[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
    if has_stream {
        streams.send_modify(|streams| *streams -= 1);
    }
}

#[tokio::test]
async fn a_page_holds_an_event_stream_only_while_it_is_visible() {
    const PAGES: usize = 9;
    let _turn = TURN.lock().await;
    let project = Project::new("my-pages", "hello");
    for page in 0..=PAGES {
        let script = "<script src=\"/__tidegate/dev.js\" data-reload=\"assets\"></script>";
        let restored = "<script>addEventListener('pageshow', (event) => window.isRestored = event.persisted)</script>";
        let link = format!(
            "<p id=\"page\">page {page}.</p><a id=\"next\" href=\"{}.html\">next</a>",
            page + 1
        );
        let html = format!(
            "<!doctype html>{script}{restored}<body>{link}{script}<script type=\"module\">import '/__tidegate/dev.js'</script>"
        );
        fs::write(project.0.join(format!("assets/{page}.html")), html).unwrap();
    }
    let server = project.dev();
    let gate = Gate::before(&server).await;
    let browser = Browser::open().await;
    let first = browser.tab().await;
    browser.goto(&format!("{}/0.html", gate.url)).await;
    for page in 0..PAGES {
        browser.sees("page", &format!("page {page}.")).await;
        gate.has(1, &format!("after {page} clicks")).await;
        browser.click("next").await;
    }
    let mut restored = 0;
    for page in (1..PAGES).rev() {
        browser.client.back().await.unwrap();
        browser.sees("page", &format!("page {page}.")).await;
        gate.has(1, &format!("after Back to page {page}")).await;
        restored += usize::from(browser.run("return window.isRestored").await == true);
    }
    assert!(
        restored >= 3,
        "the back/forward cache restored {restored} pages"
    );

    // The stream of a restored page works, and so does a stream that was closed and opened by a
    // script.
    project.edit("assets/1.html", "page 1.", "page one.");
    browser.sees("page", "page one.").await;
    browser
        .run("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pagehide'))")
        .await;
    gate.has(0, "after pagehide").await;
    browser
        .run("dispatchEvent(new Event('pageshow')); dispatchEvent(new Event('pageshow'))")
        .await;
    gate.has(1, "after pageshow").await;

    // There are more tabs than the browser has connections to one host; background tabs need none.
    for tab in 0..7 {
        browser.open_tab(&format!("{}/{tab}.html", gate.url)).await;
        gate.has(1, &format!("with {tab} tabs in the background"))
            .await;
    }
    browser.look_at(&first).await;
    browser.goto(&format!("{}/0.html", gate.url)).await;
    browser.sees("page", "page 0.").await;
    browser.close().await;
    gate.has(0, "after the browser's end").await;
    assert!(server.stop().status.success());
}

#[tokio::test]
async fn only_changes_of_the_project_cause_builds_and_each_causes_one() {
    const APP: &str = "use tidegate::prelude::*;\n\ntidegate::serve!(app);\n\nfn app() -> App {\n    App::new().get(\"/\", async |_| format!(\"{} one\", part::TEXT))\n}\n";
    let _turn = TURN.lock().await;
    let project = Project::new("my-changes", "hello");
    // A path dependency and a settings file, both outside the project.
    let beside = project.0.parent().unwrap().join("my-changes-part");
    fs::create_dir_all(beside.join("src")).unwrap();
    fs::write(
        beside.join("Cargo.toml"),
        "[package]\nname = \"part\"\nedition = \"2024\"\n\n[workspace]\n",
    )
    .unwrap();
    fs::write(
        beside.join("src/lib.rs"),
        "pub const TEXT: &str = \"first\";\n",
    )
    .unwrap();
    fs::write(beside.join("dev.toml"), "").unwrap();
    project.edit(
        "Cargo.toml",
        "[dependencies]",
        "[dependencies]\npart = { path = \"../my-changes-part\" }",
    );
    fs::write(project.0.join("src/lib.rs"), APP).unwrap();
    let config = [
        "--listen",
        "127.0.0.1:0",
        "--config",
        "../my-changes-part/dev.toml",
    ];
    let server = Tidegate::spawn(project.command(tidegate()).arg("dev").args(config));
    let text = async || {
        reqwest::get(server.url("/"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    assert_eq!(text().await, "first one");

    for file in [
        "tidegate-data/x",
        "target/x",
        "dev.log",
        "src/4913",
        "src/.lib.rs.swp",
        "src/lib.rs~",
        ".git/index",
    ] {
        let file = project.0.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "not a source").unwrap();
    }
    fs::set_permissions(
        project.0.join("src/lib.rs"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::write(project.0.join("src/lib.rs"), APP).unwrap();

    fs::write(
        beside.join("src/lib.rs"),
        "pub const TEXT: &str = \"second\";\n",
    )
    .unwrap();
    server.wait_for("version 2: built in ");
    assert_eq!(text().await, "second one");
    // Changes the file as a checkout of another branch does.
    fs::remove_dir_all(project.0.join("src")).unwrap();
    fs::create_dir(project.0.join("src")).unwrap();
    fs::write(project.0.join("src/lib.rs"), APP.replace("one", "two")).unwrap();
    server.wait_for("version 3: built in ");
    assert_eq!(text().await, "second two");
    fs::write(beside.join("dev.toml"), "[app]\n").unwrap();
    server.wait_for("Settings were read again");
    server.wait_for("version 4: built in ");
    let stopped = server.stop();
    let builds: Vec<&str> = stopped
        .stderr
        .lines()
        .filter(|line| line.contains("built in "))
        .collect();
    assert!(stopped.status.success() && builds.len() == 3, "{builds:?}");
}
