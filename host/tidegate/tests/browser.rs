//! The pages of the examples in a real browser: headless Chromium, driven by chromedriver.

mod support;

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource as _, MOUSE_BUTTON_LEFT, MouseActions, PointerAction},
    wd::{TimeoutConfiguration, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use support::{PATIENCE, Tidegate, component, workspace};
use tempfile::TempDir;

/// A browser of its own, with a profile that nothing else has used.
struct Browser {
    driver: Child,
    client: Client,
    _profile: TempDir,
}

impl Browser {
    async fn open() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: run scripts/setup tests");
        let lines = BufReader::new(driver.stdout.take().expect("stdout is piped")).lines();
        let started = lines.map_while(Result::ok).find(|line| line.contains("started successfully on port"));
        let started = started.expect("chromedriver says its port");
        let port: String = started.chars().filter(char::is_ascii_digit).collect();
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let capabilities = capabilities.as_object().expect("an object").clone();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await;
        let client = client.expect("chromium is installed: run scripts/setup tests");
        let patience = TimeoutConfiguration::new(Some(PATIENCE), Some(PATIENCE), None);
        client.update_timeouts(patience).await.expect("chromedriver takes time limits");
        Browser { driver, client, _profile: profile }
    }

    /// Waits until the element's text has `text` in it: the page itself says when it changes.
    async fn sees(&self, element: &str, text: &str) {
        const WATCH: &str = "const [id, text, done] = arguments; \
            const watcher = new MutationObserver(look); \
            function look() { if (document.getElementById(id).innerText.includes(text)) { watcher.disconnect(); done(true) } } \
            watcher.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true }); look()";
        let seen = tokio::time::timeout(PATIENCE, self.client.execute_async(WATCH, vec![json!(element), json!(text)])).await;
        if !matches!(seen, Ok(Ok(_))) {
            let page = self.client.source().await.unwrap_or_default();
            panic!("#{element} never said {text:?}: {seen:?}\n{page}");
        }
    }

    async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    /// Opens another tab and goes there; its handle.
    async fn open_tab(&self, url: &str) -> WindowHandle {
        let tab = self.client.new_window(true).await.expect("the browser opens tabs").handle;
        self.look_at(&tab).await;
        self.goto(url).await;
        tab
    }

    async fn look_at(&self, tab: &WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.expect("the tab is there");
    }

    async fn tab(&self) -> WindowHandle {
        self.client.window().await.expect("there is a tab")
    }

    async fn write(&self, element: &str, text: &str) {
        let element = self.client.find(Locator::Id(element)).await.expect("the page has the element");
        element.clear().await.expect("it can be written to");
        element.send_keys(text).await.expect("it can be written to");
    }

    async fn click(&self, element: &str) {
        let element = self.client.find(Locator::Id(element)).await.expect("the page has the element");
        element.click().await.expect("it can be clicked");
    }

    /// Drags the mouse from each of these places to the next.
    async fn draw<const N: usize>(&self, places: [(f64, f64); N]) {
        let move_to = |(x, y)| PointerAction::MoveTo { duration: None, x, y };
        let drag = places[1..].iter().fold(
            MouseActions::new("mouse".into()).then(move_to(places[0])).then(PointerAction::Down { button: MOUSE_BUTTON_LEFT }),
            |drag, place| drag.then(move_to(*place)),
        );
        let drag = drag.then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        self.client.perform_actions(drag).await.expect("the mouse moves");
    }

    /// Waits until something is drawn on the canvas: looked for with every picture that the browser makes.
    async fn shows_ink(&self) {
        const LOOK: &str = "const [done] = arguments; const board = document.querySelector('canvas'); \
            function look() { \
              const pixels = board.width ? board.getContext('2d').getImageData(0, 0, board.width, board.height).data : []; \
              if (pixels.some((part) => part > 0)) done(true); else requestAnimationFrame(look) \
            } look()";
        let seen = tokio::time::timeout(PATIENCE, self.client.execute_async(LOOK, vec![])).await;
        assert!(matches!(seen, Ok(Ok(_))), "nothing was drawn: {seen:?}");
    }

    /// A picture for whoever wants to look: in the folder that TIDEGATE_SCREENSHOTS names.
    async fn screenshot(&self, name: &str) {
        if let Ok(folder) = std::env::var("TIDEGATE_SCREENSHOTS") {
            let picture = self.client.screenshot().await.expect("the browser takes a picture");
            std::fs::write(PathBuf::from(folder).join(name), picture).expect("the folder can be written to");
        }
    }

    async fn close(mut self) {
        _ = self.client.clone().close().await;
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}

/// The example with its pages.
fn serve(example: &str) -> Tidegate {
    serve_at("127.0.0.1:0", example, &[])
}

fn serve_at(address: &str, example: &str, args: &[&str]) -> Tidegate {
    let assets = workspace().join("examples").join(example).join("assets");
    Tidegate::serve_at(address, &component(example), &[&["--assets", assets.to_str().expect("a plain path")], args].concat())
}

#[tokio::test]
async fn two_tabs_chat_through_a_topic() {
    let server = serve("lobby");
    let browser = Browser::open().await;
    let (page, anns) = (server.url("/"), browser.tab().await);
    browser.goto(&page).await;
    browser.write("name", "Ann").await;
    browser.click("enter").await;
    browser.sees("status", "here as Ann").await;
    browser.sees("log", "Ann is here").await;

    let bobs = browser.open_tab(&page).await;
    browser.write("name", "Bob").await;
    browser.click("enter").await;
    browser.sees("log", "Bob is here").await;
    browser.write("text", "Is it high tide yet? 🌊").await;
    browser.click("send").await;
    browser.sees("log", "Is it high tide yet? 🌊").await;

    browser.look_at(&anns).await;
    browser.sees("log", "Bob is here").await;
    browser.sees("log", "Is it high tide yet? 🌊").await;
    browser.write("text", "<b>Almost</b>, I think.").await;
    browser.click("send").await;
    browser.look_at(&bobs).await;
    browser.sees("log", "<b>Almost</b>, I think.").await;
    browser.screenshot("lobby.png").await;

    browser.client.close_window().await.expect("a tab can be closed");
    browser.look_at(&anns).await;
    browser.sees("log", "Bob has left").await;
    browser.close().await;
    let stopped = server.stop();
    assert_eq!((stopped.counter("connections"), stopped.counter("faults")), (2, 0));
    // Two joins, two messages, two leaves; Ann has heard all but her own leave, Bob all between his join and his leave.
    assert_eq!((stopped.counter("publications"), stopped.counter("deliveries")), (6, 8));
}

#[tokio::test]
async fn a_price_published_in_one_tab_is_seen_in_another_and_ticks_go_on() {
    let server = serve("ticker");
    let browser = Browser::open().await;
    let (page, first) = (server.url("/"), browser.tab().await);
    browser.goto(&page).await;
    browser.sees("status", "the market is open").await;
    browser.open_tab(&page).await;
    browser.sees("status", "the market is open").await;
    for (name, price) in [("tea", "12.5"), ("coffee", "9"), ("tea", "13.25")] {
        browser.write("name", name).await;
        browser.write("price", price).await;
        browser.click("post").await;
        browser.sees("feed", name).await;
    }
    browser.sees("answer", "published as number 3").await;
    browser.look_at(&first).await;
    browser.sees("feed", "13.25").await;
    browser.sees("feed", "▲ 0.75").await;
    browser.sees("ticks", "tick 2").await;
    browser.screenshot("ticker.png").await;
    browser.close().await;
    let stopped = server.stop();
    assert_eq!((stopped.counter("publications"), stopped.counter("deliveries"), stopped.counter("faults")), (3, 6, 0));
}

#[tokio::test]
async fn a_room_remembers_what_two_tabs_said_over_a_kill() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let start = |address: &str| serve_at(address, "chat", &["--data", data.to_str().unwrap()]);
    let server = start("127.0.0.1:0");
    let browser = Browser::open().await;
    let (page, anns) = (server.url("/#high tea"), browser.tab().await);
    let join = async |name: &str| {
        browser.write("name", name).await;
        browser.click("enter").await;
        browser.sees("status", &format!("here as {name}")).await;
    };
    let say = async |text: &str| {
        browser.write("text", text).await;
        browser.click("send").await;
        browser.sees("log", text).await;
    };
    browser.goto(&page).await;
    join("Ann").await;
    say("Is anybody here?").await;
    let bobs = browser.open_tab(&page).await;
    join("Bob").await;
    browser.sees("log", "Is anybody here?").await;
    browser.sees("people", "Ann").await;
    say("I am.").await;
    browser.look_at(&anns).await;
    browser.sees("log", "I am.").await;
    browser.sees("people", "Bob").await;
    browser.screenshot("chat.png").await;

    let address = server.address().to_owned();
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    browser.sees("status", "connection lost").await;
    let server = start(&address);
    for tab in [&anns, &bobs] {
        browser.look_at(tab).await;
        browser.sees("status", "here as").await;
        browser.sees("log", "Is anybody here?").await;
        browser.sees("log", "I am.").await;
    }
    say("And still here.").await;
    browser.close().await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn what_one_tab_draws_another_shows_and_a_restart_keeps() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let start = |address: &str| serve_at(address, "board", &["--data", data.to_str().unwrap()]);
    let server = start("127.0.0.1:0");
    let browser = Browser::open().await;
    let (page, anns) = (server.url("/#sea"), browser.tab().await);
    browser.goto(&page).await;
    browser.sees("status", "connected").await;
    let bobs = browser.open_tab(&page).await;
    browser.sees("status", "connected").await;
    browser.draw([(200.0, 160.0), (300.0, 290.0), (400.0, 150.0), (500.0, 300.0), (590.0, 170.0)]).await;
    browser.look_at(&anns).await;
    browser.shows_ink().await;
    browser.draw([(210.0, 320.0), (390.0, 350.0), (560.0, 310.0)]).await;
    browser.look_at(&bobs).await;
    browser.screenshot("board.png").await;

    let address = server.address().to_owned();
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    browser.sees("status", "connection lost").await;
    let server = start(&address);
    browser.sees("status", "connected").await;
    browser.shows_ink().await;
    browser.click("clear").await;
    browser.close().await;
    assert_eq!(server.stop().counter("faults"), 0);
}
