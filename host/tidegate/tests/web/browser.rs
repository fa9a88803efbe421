//! Forms, streamed values and silence in headless Chromium.

use crate::support::{
    Tidegate,
    browser::{Browser, Manner},
    client::soon,
    component,
};
use fantoccini::Locator;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;

fn serve(args: &[&str]) -> Tidegate {
    Tidegate::serve(&component("rogue"), args)
}

/// Selects these files in the file input.
async fn choose(browser: &Browser, files: &[&std::path::Path]) {
    let paths: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let input = browser.client.find(Locator::Id("file")).await.unwrap();
    input.send_keys(&paths.join("\n")).await.unwrap();
}

/// Returns the text of an element, with all of its spaces.
async fn text_of(browser: &Browser, id: &str) -> String {
    let text = browser
        .run(&format!(
            "return document.getElementById('{id}').textContent"
        ))
        .await;
    text.as_str().unwrap().to_owned()
}

/// Waits until the browser has this URL.
async fn until_at(browser: &Browser, url: &str) {
    let at = async { while browser.client.current_url().await.unwrap().as_str() != url {} };
    soon(url, at).await;
}

/// Names of fields that every form, or every object, has as a property.
const ODD_NAMES: [&str; 9] = [
    "constructor",
    "__proto__",
    "elements",
    "getAttribute",
    "querySelectorAll",
    "dataset",
    "submit",
    "method",
    "toString",
];

#[tokio::test]
async fn a_form_sends_the_same_fields_with_scripts_and_without() {
    let server = serve(&[]);
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "semi;colon 100%.txt",
        "quote\"d.txt",
        "ends with \\",
        "füld 日本.txt",
    ];
    let files = names.map(|name| dir.path().join(name));
    files
        .iter()
        .for_each(|file| fs::write(file, "text\n").unwrap());
    let browser = Browser::open().await;
    for path in [
        "/form?plain=yes",
        "/form",
        "/form?plain=yes&referrer=no",
        "/form?referrer=no",
    ] {
        for chosen in [&files[..0], &files[..]] {
            browser.goto(&server.url(path)).await;
            if !chosen.is_empty() {
                choose(
                    &browser,
                    &chosen
                        .iter()
                        .map(std::path::PathBuf::as_path)
                        .collect::<Vec<_>>(),
                )
                .await;
            }
            browser.click("go").await;
            // The test runs with and without another page in between.
            browser.has("#out:not(:empty)").await;
            let got: Value = serde_json::from_str(&text_of(&browser, "out").await).unwrap();
            let mut expected = vec![json!(["te\"xt", null, null, "one\r\ntwo"])];
            expected.extend(ODD_NAMES.map(|name| json!([name, null, null, "x"])));
            match chosen {
                [] => expected.push(json!(["file", "", "application/octet-stream", ""])),
                _ => expected.extend(names.map(|name| {
                    let kind = if name.ends_with(".txt") {
                        "text/plain"
                    } else {
                        "application/octet-stream"
                    };
                    json!(["file", name, kind, "text\n"])
                })),
            }
            expected.push(json!(["button", null, null, "pressed"]));
            assert_eq!(got, Value::Array(expected), "{path}");
        }
    }
    // The form has no file type, so the script sends it as text.
    browser.goto(&server.url("/form")).await;
    browser
        .run("document.getElementById('file').remove()")
        .await;
    browser.click("go").await;
    browser.has("#out:not(:empty)").await;
    assert!(
        text_of(&browser, "out")
            .await
            .starts_with(r#"[["te\"xt",null,null,"one\r\ntwo"],"#),
        "lines end as a browser ends them"
    );
    browser.screenshot("form.png").await;
    browser.close().await;
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn field_errors_mark_only_their_fields() {
    let server = serve(&[]);
    let browser = Browser::open().await;
    browser.goto(&server.url("/form")).await;
    browser.click("go").await;
    browser.sees("error", "a field's own error").await;
    assert_eq!(text_of(&browser, "none").await, "", "an error of no field");
    let invalid = "return [...document.querySelectorAll('#form [aria-invalid=true]')].map((field) => field.name)";
    assert_eq!(browser.run(invalid).await, json!(["constructor"]));
    assert_eq!(
        browser
            .run("return document.querySelector('#form[aria-busy=false]') !== null")
            .await,
        true
    );
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn a_guard_redirects_an_enhanced_form_like_a_plain_one() {
    let (server, other) = (serve(&[]), serve(&[]));
    let browser = Browser::open().await;
    for plain in ["plain=yes&", ""] {
        for to in [
            other.url("/calm?from=form"),
            server.url("/calm#part"),
            server.url("/form?plain=yes"),
        ] {
            let query = form_query(&to);
            let page = server.url(&format!("/away/form?{plain}{query}"));
            browser.goto(&page).await;
            for _ in 0..2 {
                browser.has("#go").await;
                browser.click("go").await;
                until_at(&browser, &to).await;
                // The restored page can send its form again.
                browser.client.back().await.unwrap();
                until_at(&browser, &page).await;
            }
        }
    }
    browser.close().await;
    assert_eq!(server.stop().counter("faults"), 0);
}

fn form_query(to: &str) -> String {
    format!(
        "to={}",
        to.replace('%', "%25")
            .replace('&', "%26")
            .replace('#', "%23")
    )
}

#[tokio::test]
async fn a_form_works_after_its_page_returns_from_the_back_forward_cache() {
    let server = serve(&[]);
    let browser = Browser::open().await;
    browser.goto(&server.url("/form?action=go")).await;
    browser
        .run("addEventListener('pageshow', (event) => { window.wasKept = event.persisted })")
        .await;
    for _ in 0..3 {
        browser.click("go").await;
        until_at(&browser, &server.url("/calm")).await;
        browser.client.back().await.unwrap();
        until_at(&browser, &server.url("/form?action=go")).await;
        browser.has("#form:not([aria-busy=true])").await;
        assert_eq!(
            browser.run("return window.wasKept").await,
            true,
            "the browser keeps the page"
        );
    }
    // The page was left while its form was being sent: it does not wait for the answer.
    browser.goto(&server.url("/form?action=slow")).await;
    browser.click("go").await;
    browser.has("#form[aria-busy=true]").await;
    browser.goto(&server.url("/calm")).await;
    browser.client.back().await.unwrap();
    browser.has("#form:not([aria-busy=true])").await;
    browser.click("go").await;
    browser.has("#form[aria-busy=true]").await;
    browser.sees("out", "too late").await;
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn streamed_values_equal_reloaded_values() {
    const LOOK: &str = "const done = arguments[0]; (async () => { \
        const { loader } = await import('/__tidegate/client.js'); \
        const seen = []; \
        for (const name of ['soon', 'late']) { \
            const it = loader(name), end = () => new Promise((end) => it.subscribe(({ status }) => status === 'done' && end())); \
            await end(); \
            const streamed = it.value; \
            await it.reload(); \
            for (const value of [streamed, it.value]) seen.push(JSON.stringify(value), Object.getPrototypeOf(value) === Object.prototype, \
                Object.is(value.zero, -0), value.big === 12345678901234567000, value.line.length); \
        } \
        seen.push(document.title); \
        done(seen); })()";
    let server = serve(&[]);
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/values")).await;
    browser.has("#end").await;
    let seen = soon("the values", browser.client.execute_async(LOOK, vec![]))
        .await
        .unwrap();
    let seen = seen.as_array().unwrap();
    let text = seen[0].as_str().unwrap();
    assert!(
        text.contains(r#""__proto__":{"admin":true}"#) && text.contains("</script>"),
        "{text}"
    );
    for value in seen[..20].chunks(5) {
        assert_eq!(
            value,
            [json!(text), json!(true), json!(true), json!(true), json!(5)],
            "the value is streamed and loaded again"
        );
    }
    assert_eq!(seen[20], "Values", "nothing of a value ran");
    assert_eq!(
        text_of(&browser, "end").await,
        "</script><script>document.title='run'</script>"
    );
    assert_eq!(
        text_of(&browser, "none").await,
        "nothing",
        "a value has no inherited properties"
    );
    browser.screenshot("values.png").await;
    browser.close().await;
    server.stop();
}

#[tokio::test]
async fn every_kind_of_stream_detects_silence() {
    const OPEN: &str = "const done = arguments[0]; (async () => { \
        const { events, loader, socket } = await import('/__tidegate/client.js'); \
        const now = window.now = { page: [], loader: [], events: [], socket: [], heard: [] }; \
        loader('live').subscribe(({ status }) => now.page.push(status)); \
        const other = loader('live', { page: '/live' }); \
        other.subscribe(({ status }) => now.loader.push(status)); \
        other.reload(); \
        events('/feed?topic=t', { onstatus: (status) => now.events.push(status), onevent: ({ data }) => now.heard.push(data) }); \
        const probed = socket('/socket', { probe: { text: 'ping', answer: 'pong', every: 300 }, onstatus: (status) => now.socket.push(status) }); \
        probed.send('automatic ping pong'); \
        done(); })()";
    const COUNT: &str =
        "return ['page', 'loader', 'events', 'socket'].map((kind) => window.now[kind].at(-1))";
    let server = serve(&["--limit", "comment_every=300ms"]);
    let browser = Browser::open_as(Manner::AtOnce).await;
    browser.goto(&server.url("/live")).await;
    browser
        .has("[data-loader=live][data-status=streaming]")
        .await;
    soon("the streams", browser.client.execute_async(OPEN, vec![]))
        .await
        .unwrap();
    let until = async |expected: [&str; 4]| {
        let reached = async { while browser.run(COUNT).await != json!(expected) {} };
        soon(expected, reached).await;
    };
    until(["streaming", "streaming", "open", "open"]).await;
    // The connections stay open and silent, as when a proxy or a network forgets them.
    server.signal(Signal::STOP);
    soon("all of them to notice", async {
        let noticed = "const { page, loader, events, socket } = window.now; \
            return page.at(-1) === 'error' && loader.at(-1) === 'error' && events.includes('waiting') && socket.includes('waiting')";
        while browser.run(noticed).await != true {}
    })
    .await;
    server.signal(Signal::CONT);
    until(["error", "error", "open", "open"]).await;
    reqwest::Client::new()
        .post(server.url("/publish/t"))
        .body("after it")
        .send()
        .await
        .unwrap();
    soon("the event", async {
        while browser
            .run("return window.now.heard.includes('after it')")
            .await
            != true
        {}
    })
    .await;
    browser.screenshot("silence.png").await;
    browser.close().await;
    server.stop();
}
