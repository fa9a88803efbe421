//! The pages of the examples in a real browser: headless Chromium, driven by chromedriver.

mod support;

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;
use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use support::{PATIENCE, Tidegate, component};
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
        let builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let mut builder = builder;
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await;
        Browser { driver, client: client.expect("chromium is installed: run scripts/setup tests"), _profile: profile }
    }

    /// Waits until the element's text has `text` in it.
    async fn sees(&self, element: &str, text: &str) {
        let has = format!(
            "const [id, text, done] = arguments; const look = () => {{ const e = document.getElementById(id); \
             if (e && e.innerText.includes(text)) done(true); else setTimeout(look, 20) }}; look()"
        );
        let seen = self.client.execute_async(&has, vec![json!(element), json!(text)]);
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        if !matches!(seen, Ok(Ok(_))) {
            let page = self.client.source().await.unwrap_or_default();
            panic!("#{element} never said {text:?}: {page}");
        }
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

fn serve(example: &str) -> Tidegate {
    let assets = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example).join("assets");
    Tidegate::serve(&component(example), &["--assets", assets.to_str().expect("a plain path")])
}
