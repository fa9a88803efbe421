//! Pages from outside: the bytes on the wire and their order, and their effect in a browser, with
//! scripts and without.

mod support;

use rustix::process::Signal;
use serde_json::json;
use support::{
    Tidegate,
    browser::{Browser, Manner},
    client::{Raw, soon},
    component, workspace,
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Returns the shop's count of the clients that watch a product.
async fn watchers(server: &Tidegate) -> String {
    reqwest::get(server.url("/watchers"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

/// Repeats the request until the count is `count`.
async fn until_watched_by(server: &Tidegate, count: &str) {
    soon("the count", async {
        while watchers(server).await != count {}
    })
    .await;
}

#[tokio::test]
async fn the_shell_is_sent_before_the_first_value_of_a_slow_loader() {
    let server = Tidegate::serve(&component("shop"), &[]);
    let mut page = Raw::send(server.address(), &get("/products/rope")).await;
    let shell = page.until("[\"value\",\"stock\",").await;
    assert!(
        shell.contains("<ul id=\"reviews\"></ul>") && shell.contains("data-slot=\"stock.left\">7<"),
        "{shell}"
    );
    let behind = page.until("[\"end\",\"reviews\"]").await;
    let reviews = behind.find("[\"value\",\"reviews\",").expect("they come");
    assert!(
        behind
            .find("[\"value\",\"stock\",")
            .expect("the stock goes on")
            < reviews,
        "{behind}"
    );
    // The stock streams for as long as a client reads, and ends when the client disconnects.
    until_watched_by(&server, "1").await;
    drop(page);
    until_watched_by(&server, "0").await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_loader_stream_ends_with_its_client() {
    let server = Tidegate::serve(&component("shop"), &[]);
    let query = json!({ "page": "/products/{id}", "loader": "stock", "params": { "id": "rope" } })
        .to_string();
    let post = format!(
        "POST /__loaders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{query}",
        query.len()
    );
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Raw::send(server.address(), &post).await;
        stream.until("\"round\":1}").await;
        streams.push(stream);
    }
    until_watched_by(&server, "3").await;
    drop(streams.pop());
    until_watched_by(&server, "2").await;
    drop(streams);
    until_watched_by(&server, "0").await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_strict_policy_admits_only_the_scripts_of_the_page() {
    let server = Tidegate::serve(&component("shop"), &[]);
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/products/rope")).await;
    browser.has("#reviews li").await;
    browser.sees("reviews", "worth every one of its 15 €").await;
    browser.sees("left", "5").await;
    browser
        .has("small[data-loader=stock][data-status=streaming]")
        .await;
    // The page was visible while its loader still fetched the reviews.
    let times = "return ['first-contentful-paint', 'reviews'].map((name) => performance.getEntriesByName(name)[0].startTime)";
    let times: Vec<f64> = serde_json::from_value(browser.run(times).await).unwrap();
    eprintln!(
        "painted after {:.0} ms, reviews after {:.0} ms",
        times[0], times[1]
    );
    assert!(times[0] < times[1], "{times:?}");
    let others = "const script = document.createElement('script'); script.textContent = 'window.intruder = 1'; document.body.append(script); \
        return [window.intruder ?? null, document.querySelectorAll('body script').length]";
    // One script is the page's module, the other is the intruder: no script remains that streamed
    // values in.
    assert_eq!(browser.run(others).await, json!([null, 2]));
    browser.screenshot("shop.png").await;
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn a_form_is_sent_without_a_reload_while_the_page_still_streams() {
    let server = Tidegate::serve(&component("shop"), &[]);
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/products/rope")).await;
    browser.has("small[data-status=streaming]").await;
    browser.run("window.same = true").await;
    browser.write("amount", "99").await;
    browser.write("email", "ann@example.org").await;
    browser.click("buy").await;
    browser.sees("amount-error", "from 1 to 10").await;
    browser.screenshot("shop-denied.png").await;
    browser.write("amount", "2").await;
    browser.click("buy").await;
    browser.sees("outcome", "Thank you: 2 for 30 €").await;
    assert_eq!(browser.text("amount-error").await, "");
    // The action marks the stock as stale: the page requests it again, and streams it without a
    // reload.
    browser
        .has("small[data-loader=stock][data-status=streaming]")
        .await;
    until_watched_by(&server, "2").await;
    assert_eq!(browser.run("return window.same").await, true);
    browser.screenshot("shop-bought.png").await;
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn without_scripts_a_page_holds_its_first_values_and_its_form_works() {
    // Time for the first values on a busy machine.
    let server = Tidegate::serve(&component("shop"), &["--limit", "first_within=20s"]);
    let browser = Browser::open_as(Manner::WithoutScripts).await;
    browser.goto(&server.url("/products/rope")).await;
    browser.has("#buy").await;
    assert_eq!(
        (
            browser.text("left").await.as_str(),
            browser.text("amount-error").await.as_str()
        ),
        ("7", "")
    );
    browser.write("amount", "99").await;
    browser.write("email", "ann@example.org").await;
    browser.click("buy").await;
    // The page is shown again, with the errors and the values that were sent.
    browser.has("#amount[value='99']").await;
    browser.has("#email[value='ann@example.org']").await;
    assert_eq!(
        (
            browser.text("amount-error").await.as_str(),
            browser.text("outcome").await.as_str()
        ),
        ("from 1 to 10", "please look again")
    );
    browser.screenshot("shop-without-scripts.png").await;
    browser.write("amount", "2").await;
    browser.click("buy").await;
    // The form redirects to the page, so that a reload does not buy twice.
    browser.has("#amount[value='1']").await;
    assert_eq!(
        browser.client.current_url().await.unwrap().as_str(),
        server.url("/products/rope")
    );
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn navigation_to_another_page_ends_the_loaders_of_the_last_one() {
    let server = Tidegate::serve(&component("shop"), &[]);
    let browser = Browser::open_as(Manner::AtOnce).await;
    for product in ["rope", "lantern"] {
        browser
            .goto(&server.url(&format!("/products/{product}")))
            .await;
        browser.has("small[data-status=streaming]").await;
        until_watched_by(&server, "1").await;
    }
    browser.goto(&server.url("/")).await;
    until_watched_by(&server, "0").await;
    browser.close().await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_killed_stream_is_shown_as_broken_and_a_socket_reconnects() {
    let serve = |address: &str| Tidegate::serve_at(address, &component("dash"), &[]);
    let server = serve("127.0.0.1:0");
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/")).await;
    browser.has("#status").await;
    browser.sees("status", "streaming").await;
    browser.sees("second", "3").await;
    browser.sees("socket", "open").await;
    browser.write("note", "the fan is loud").await;
    browser.click("add").await;
    browser.sees("notes", "the fan is loud").await;
    browser.screenshot("dash.png").await;

    let address = server.address().to_owned();
    server.signal(Signal::KILL);
    server.wait();
    browser.sees("status", "error: the stream broke off").await;
    browser.screenshot("dash-broken.png").await;
    let server = serve(&address);
    browser.sees("socket", "open").await;
    browser.write("note", "and again").await;
    browser.click("add").await;
    browser.sees("notes", "and again").await;
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn a_drain_ends_a_page_cleanly() {
    let server = Tidegate::serve(&component("dash"), &[]);
    let mut page = Raw::send(server.address(), &get("/")).await;
    page.until("[\"value\",\"load\",").await;
    server.signal(Signal::TERM);
    let rest = page.rest().await;
    assert!(
        rest.contains("[\"error\",\"load\",503,\"the server is going away\"],[\"done\"]")
            && rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
    assert_eq!(server.wait().status.code(), Some(0));
}

#[tokio::test]
async fn the_browser_client_passes_its_own_tests() {
    let server = Tidegate::serve(&component("hello"), &[]);
    let browser = Browser::open().await;
    browser.goto(&server.url("/__tidegate/health")).await;
    let wrong = soon(
        "the checks",
        browser
            .client
            .execute_async(include_str!("client.js"), vec![]),
    )
    .await
    .unwrap();
    assert_eq!(wrong, json!([]));
    browser.close().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_loader() {
    let server = Tidegate::serve(&component("rogue"), &["--wall", "10m"]);
    let flood = || async {
        let query = json!({ "page": "/flood", "loader": "flood" }).to_string();
        let head = "POST /__loaders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: application/x-ndjson\r\n";
        Raw::send(
            server.address(),
            &format!("{head}content-length: {}\r\n\r\n{query}", query.len()),
        )
        .await
    };
    let (mut slow, mut swift) = (flood().await, flood().await);
    slow.until("{\"value\":[0,").await;
    swift.until("{\"value\":[9,").await;
    let peak = most_memory(&server);
    // While one client gets 64 MiB, the other gets only the bytes that the sockets buffer, and the
    // server keeps nothing for it.
    swift.until("{\"value\":[1024,").await;
    let grown = most_memory(&server).saturating_sub(peak);
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");
    // A client that reads on gets each next value, without a gap.
    for number in 1..200 {
        slow.until(&format!("{{\"value\":[{number},")).await;
    }
    drop((slow, swift));
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn preact_renders_the_values_of_a_loader() {
    let assets = workspace().join("examples/dash/assets");
    assert!(
        assets.join("node_modules/preact").is_dir(),
        "Preact is there: run scripts/setup tests"
    );
    let server = Tidegate::serve(
        &component("dash"),
        &["--assets", assets.to_str().expect("a plain path")],
    );
    let browser = Browser::open().await;
    browser.goto(&server.url("/panel.html")).await;
    browser.has("#percent").await;
    browser.sees("percent", "94 %").await;
    browser.sees("status", "streaming").await;
    browser.screenshot("panel.png").await;
    server.signal(Signal::KILL);
    server.wait();
    browser.sees("status", "error: ").await;
    browser.has("#again").await;
    browser.close().await;
}

#[tokio::test]
async fn a_faulty_loader_is_reported_and_leaves_the_others_running() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let ask = |loader: &str, accept: &str| {
        let query = json!({ "page": "/page", "loader": loader }).to_string();
        let request = reqwest::Client::new()
            .post(server.url("/__loaders"))
            .header("content-type", "application/json");
        request
            .header("accept", accept.to_owned())
            .body(query)
            .send()
    };
    let cases = [
        ("spin", 504, "it took too long"),
        ("panic", 500, MASKED),
        ("eat", 500, MASKED),
        ("fail", 500, "internal error"),
        ("calm", 200, "\"calm\""),
    ];
    for (loader, status, text) in cases {
        let (json, events) = tokio::join!(
            ask(loader, "application/json"),
            ask(loader, "text/event-stream")
        );
        let (json, events) = (json.unwrap(), events.unwrap());
        assert_eq!(
            (json.status().as_u16(), events.status().as_u16()),
            (status, 200),
            "{loader}"
        );
        let (json, events) = (json.text().await.unwrap(), events.text().await.unwrap());
        let ended = match status {
            504 => "event: timeout\ndata: {}\n\n",
            200 => "event: end\ndata: {}\n\n",
            _ => "event: error\ndata: {\"message\":\"internal error",
        };
        assert!(
            json.contains(text) && events.contains(ended),
            "{loader}: {json} {events}"
        );
        assert!(
            ![&json, &events].iter().any(|body| body.contains("secret")),
            "{json} {events}"
        );
    }
    let page = reqwest::get(server.url("/page"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let marks = [
        "[\"timeout\",\"spin\"]",
        "[\"error\",\"panic\",500,",
        "[\"error\",\"eat\",500,",
        "[\"error\",\"fail\",500,",
    ];
    for mark in marks.into_iter().chain([
        "[\"value\",\"calm\",\"calm\"]",
        "[\"end\",\"calm\"]",
        "[\"done\"]",
    ]) {
        assert!(
            page.contains(mark) && !page.contains("secret"),
            "{mark} in {page}"
        );
    }
    server.stop();
}

const MASKED: &str = "internal error (id ";

#[tokio::test]
async fn a_faulty_action_is_reported_in_the_format_of_the_client() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    for (action, status) in [("spin", 500), ("panic", 500), ("eat", 500), ("fail", 500)] {
        for accept in ["text/html", "application/json"] {
            let request = reqwest::Client::new()
                .post(server.url("/page"))
                .header("accept", accept);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = request
                .body(format!("__action={action}"))
                .send()
                .await
                .unwrap();
            let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(got, status, "{action} {accept}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
    server.stop();
}

#[tokio::test]
async fn an_upload_is_streamed_and_not_stored() {
    const BYTES: usize = 64 << 20;
    let server = Tidegate::serve(&component("rogue"), &["--cpu", "30s"]);
    let part = |name: &str, more: &str| {
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\n")
    };
    let before = format!(
        "{}weigh\r\n{}",
        part("__action", ""),
        part("file", "; filename=\"x\"")
    );
    let head = format!(
        "POST /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: text/event-stream\r\ncontent-type: multipart/form-data; boundary=B\r\n\
         content-length: {}\r\n\r\n{before}",
        before.len() + BYTES + "\r\n--B--\r\n".len()
    );
    let mut upload = Raw::send(server.address(), &head).await;
    let piece = vec![7; 1 << 20];
    upload.write(&piece).await;
    let peak = most_memory(&server);
    for _ in 1..BYTES >> 20 {
        upload.write(&piece).await;
    }
    upload.write("\r\n--B--\r\n").await;
    let answer = upload.rest().await;
    let weights = format!("[[\"file\",{BYTES}]]");
    assert!(
        answer.contains(&format!("event: progress\ndata: {weights}\n\n")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!(
            "event: outcome\ndata: {{\"outcome\":\"success\",\"stale\":[],\"value\":{weights}}}"
        )),
        "{answer}"
    );
    let grown = most_memory(&server).saturating_sub(peak);
    assert!(grown < BYTES / 4, "the server grew by {grown} bytes");
    assert_eq!(server.stop().counter("faults"), 0);
}

/// Returns the peak memory of the server, in bytes.
fn most_memory(server: &Tidegate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}
