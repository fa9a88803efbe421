//! The pages of the examples in a real browser: headless Chromium, driven by chromedriver.

mod support;

use support::{Tidegate, browser::Browser, component, workspace};

/// The example that has pages.
fn serve(example: &str) -> Tidegate {
    serve_at("127.0.0.1:0", example, &[])
}

fn serve_at(address: &str, example: &str, args: &[&str]) -> Tidegate {
    let assets = workspace().join("examples").join(example).join("assets");
    Tidegate::serve_at(
        address,
        &component(example),
        &[&["--assets", assets.to_str().expect("a plain path")], args].concat(),
    )
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

    browser
        .client
        .close_window()
        .await
        .expect("a tab can be closed");
    browser.look_at(&anns).await;
    browser.sees("log", "Bob has left").await;
    browser.close().await;
    let stopped = server.stop();
    assert_eq!(
        (stopped.counter("connections"), stopped.counter("faults")),
        (2, 0)
    );
    // Two joins, two messages and two leaves. Ann received all but her own leave, and Bob received
    // all from his join to his leave.
    assert_eq!(
        (
            stopped.counter("publications"),
            stopped.counter("deliveries")
        ),
        (6, 8)
    );
}

#[tokio::test]
async fn a_price_published_in_one_tab_appears_in_another() {
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
    assert_eq!(
        (
            stopped.counter("publications"),
            stopped.counter("deliveries"),
            stopped.counter("faults")
        ),
        (3, 6, 0)
    );
}

#[tokio::test]
async fn a_room_keeps_the_messages_of_two_tabs_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
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
async fn a_drawing_appears_in_other_tabs_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = |address: &str| serve_at(address, "board", &["--data", data.to_str().unwrap()]);
    let server = start("127.0.0.1:0");
    let browser = Browser::open().await;
    let (page, anns) = (server.url("/#sea"), browser.tab().await);
    browser.goto(&page).await;
    browser.sees("status", "connected").await;
    let bobs = browser.open_tab(&page).await;
    browser.sees("status", "connected").await;
    browser
        .draw([
            (200.0, 160.0),
            (300.0, 290.0),
            (400.0, 150.0),
            (500.0, 300.0),
            (590.0, 170.0),
        ])
        .await;
    browser.look_at(&anns).await;
    browser.shows_ink().await;
    browser
        .draw([(210.0, 320.0), (390.0, 350.0), (560.0, 310.0)])
        .await;
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
