//! Headless Chromium, driven by chromedriver.

use super::PATIENCE;
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
use tempfile::TempDir;

/// A browser with a fresh profile of its own.
pub(crate) struct Browser {
    driver: Child,
    pub(crate) client: Client,
    _profile: TempDir,
}

/// How the browser loads pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Loads a page completely.
    Whole,
    /// Returns while the page still loads: for pages that stream.
    AtOnce,
    /// As [`AtOnce`](Manner::AtOnce), and scripts are not run.
    WithoutScripts,
}

impl Browser {
    pub(crate) async fn open() -> Browser {
        Browser::open_as(Manner::Whole).await
    }

    pub(crate) async fn open_as(manner: Manner) -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: run scripts/setup tests");
        let lines = BufReader::new(driver.stdout.take().expect("stdout is piped")).lines();
        let started = lines
            .map_while(Result::ok)
            .find(|line| line.contains("started successfully on port"));
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
        let scripts = if manner == Manner::WithoutScripts {
            2
        } else {
            1
        };
        let preferences = json!({ "profile.managed_default_content_settings.javascript": scripts });
        let loading = if manner == Manner::Whole {
            "normal"
        } else {
            "none"
        };
        let capabilities = json!({ "pageLoadStrategy": loading, "goog:chromeOptions": { "args": arguments, "prefs": preferences } });
        let capabilities = capabilities.as_object().expect("an object").clone();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await;
        let client = client.expect("chromium is installed: run scripts/setup tests");
        let patience = TimeoutConfiguration::new(Some(PATIENCE), Some(PATIENCE), None);
        client
            .update_timeouts(patience)
            .await
            .expect("chromedriver accepts time limits");
        Browser {
            driver,
            client,
            _profile: profile,
        }
    }

    /// Waits until the element's text contains `text`, by an observer in the page.
    pub(crate) async fn sees(&self, element: &str, text: &str) {
        const WATCH: &str = "const [id, text, done] = arguments; \
            const watcher = new MutationObserver(look); \
            function look() { if (document.getElementById(id).innerText.includes(text)) { watcher.disconnect(); done(true) } } \
            watcher.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true }); look()";
        let seen = tokio::time::timeout(
            PATIENCE,
            self.client
                .execute_async(WATCH, vec![json!(element), json!(text)]),
        )
        .await;
        if !matches!(seen, Ok(Ok(_))) {
            let page = self.client.source().await.unwrap_or_default();
            panic!("#{element} never said {text:?}: {seen:?}\n{page}");
        }
    }

    /// Waits until the page has the element.
    pub(crate) async fn has(&self, css: &str) {
        let found = self
            .client
            .wait()
            .at_most(PATIENCE)
            .for_element(Locator::Css(css))
            .await;
        if let Err(error) = found {
            panic!(
                "the page has no {css}: {error}\n{}",
                self.client.source().await.unwrap_or_default()
            );
        }
    }

    /// Returns the current text of an element.
    pub(crate) async fn text(&self, element: &str) -> String {
        let element = self
            .client
            .find(Locator::Id(element))
            .await
            .expect("the page has the element");
        element.text().await.expect("it is there")
    }

    /// Returns the result of a script.
    pub(crate) async fn run(&self, script: &str) -> serde_json::Value {
        self.client
            .execute(script, vec![])
            .await
            .expect("the script runs")
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    /// Opens another tab with this URL; returns its handle.
    pub(crate) async fn open_tab(&self, url: &str) -> WindowHandle {
        let tab = self
            .client
            .new_window(true)
            .await
            .expect("the browser opens tabs")
            .handle;
        self.look_at(&tab).await;
        self.goto(url).await;
        tab
    }

    pub(crate) async fn look_at(&self, tab: &WindowHandle) {
        self.client
            .switch_to_window(tab.clone())
            .await
            .expect("the tab is there");
    }

    pub(crate) async fn tab(&self) -> WindowHandle {
        self.client.window().await.expect("there is a tab")
    }

    pub(crate) async fn write(&self, element: &str, text: &str) {
        let element = self
            .client
            .find(Locator::Id(element))
            .await
            .expect("the page has the element");
        element.clear().await.expect("it can be written to");
        element.send_keys(text).await.expect("it can be written to");
    }

    pub(crate) async fn click(&self, element: &str) {
        let element = self
            .client
            .find(Locator::Id(element))
            .await
            .expect("the page has the element");
        element.click().await.expect("it can be clicked");
    }

    /// Drags the mouse from each of these points to the next.
    pub(crate) async fn draw<const N: usize>(&self, points: [(f64, f64); N]) {
        let move_to = |(x, y)| PointerAction::MoveTo {
            duration: None,
            x,
            y,
        };
        let drag = points[1..].iter().fold(
            MouseActions::new("mouse".into())
                .then(move_to(points[0]))
                .then(PointerAction::Down {
                    button: MOUSE_BUTTON_LEFT,
                }),
            |drag, point| drag.then(move_to(*point)),
        );
        let drag = drag.then(PointerAction::Up {
            button: MOUSE_BUTTON_LEFT,
        });
        self.client
            .perform_actions(drag)
            .await
            .expect("the mouse moves");
    }

    /// Waits until something is drawn on the canvas. Each frame of the browser checks it.
    pub(crate) async fn shows_ink(&self) {
        const LOOK: &str = "const [done] = arguments; const board = document.querySelector('canvas'); \
            function look() { \
              const pixels = board.width ? board.getContext('2d').getImageData(0, 0, board.width, board.height).data : []; \
              if (pixels.some((part) => part > 0)) done(true); else requestAnimationFrame(look) \
            } look()";
        let seen = tokio::time::timeout(PATIENCE, self.client.execute_async(LOOK, vec![])).await;
        assert!(matches!(seen, Ok(Ok(_))), "nothing was drawn: {seen:?}");
    }

    /// Saves a screenshot for a person in the folder that TIDEGATE_SCREENSHOTS names.
    pub(crate) async fn screenshot(&self, name: &str) {
        if let Ok(folder) = std::env::var("TIDEGATE_SCREENSHOTS") {
            let picture = self
                .client
                .screenshot()
                .await
                .expect("the browser takes a picture");
            std::fs::write(PathBuf::from(folder).join(name), picture)
                .expect("the folder can be written to");
        }
    }

    pub(crate) async fn close(mut self) {
        _ = self.client.clone().close().await;
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
