//! Every consumer of a request's path decodes it in the same way.

use crate::support::{
    Tidegate,
    client::{Raw, Socket},
    component,
};
use std::fs;

/// Returns the whole answer to one request.
async fn ask(server: &Tidegate, request: &str) -> String {
    Raw::send(server.address(), request).await.rest().await
}

async fn get(server: &Tidegate, target: &str) -> String {
    ask(
        server,
        &format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await
}

/// Returns status and body.
fn parts(answer: &str) -> (u16, &str) {
    let status = answer
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status, body)
}

#[tokio::test]
async fn no_spelling_of_a_path_bypasses_a_guard() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let guarded = [
        "/paths/secret",
        "/paths/secret/",
        "/paths/secret/x",
        "/paths//secret/x",
        "//paths/secret/x",
        "/paths/./secret/x",
        "/paths/%2e/secret/x",
        "/paths/a/../secret/x",
        "/paths/a/%2e%2E/secret/x",
        "/paths/%73ecret/x",
        "/%70aths/secret/x?y",
        "/paths/secret/x#y",
        "/paths/secret/%2e%2e/secret",
        "http://x/paths/secret/x",
    ];
    for target in guarded {
        assert_eq!(
            parts(&get(&server, target).await),
            (403, "guarded"),
            "{target}"
        );
    }
    let refused = [
        "/paths/secret/x%2Fy",
        "/paths/secret%2Fx",
        "/paths/secret%2fx",
        "/paths/secret%5Cx",
        "/paths/secret%5cx",
        "/paths/secret\\x",
        "/paths\\secret/x",
        "/paths%2Fsecret/x",
        "/paths%2Fsecret%2Fx",
        "/paths/%2Fsecret/x",
        "/paths/%2fsecret",
        "/paths/secret%2F",
        "/paths/a%2F..%2Fsecret%2Fx",
        "/paths/a/..%2Fsecret",
        "/paths/a/..%5Csecret",
        "/paths/a/..\\secret",
        "/paths/one/..%2Fsecret",
        "/paths/one/..%2f..%2fpaths%2fsecret%2fx",
        "/paths/one/%2e%2e%5csecret",
        "/paths/%2e%2e%2fpaths/secret",
        "/paths/%00",
        "/paths/%ff",
        "/paths/%c0%af",
        "/paths/%2",
    ];
    for target in refused {
        assert_eq!(parts(&get(&server, target).await).0, 400, "{target}");
    }
    assert_eq!(
        server.stop().counter("guest_calls"),
        guarded.len() as u64,
        "a refused path reaches no guest code"
    );
}

#[tokio::test]
async fn an_app_receives_the_path_that_was_matched() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let cases = [
        ("/paths/a/b", "/paths/a/b rest=a/b"),
        (
            "/paths//a/.//x/../b/?q=a//b/../c#top",
            "/paths/a/b/?q=a//b/../c rest=a/b",
        ),
        (
            "/paths/%61%2db%20c/%e2%82%ac",
            "/paths/a-b%20c/%E2%82%AC rest=a-b c/€",
        ),
        ("/paths/a%252Fb", "/paths/a%252Fb rest=a%2Fb"),
        ("/paths/one/a%2fb", "/paths/one/a%2Fb name=a/b"),
        ("/paths/one/a%5cb%2F", "/paths/one/a%5Cb%2F name=a\\b/"),
        ("/paths/one/a%2Fb/tail", "/paths/one/a%2Fb/tail name=a/b"),
        ("/paths/stream/%61%2fb?q", "/paths/stream/a%2Fb?q name=a/b"),
        ("/paths/streams/./a//b/#c", "/paths/streams/a/b/ rest=a/b"),
        ("/paths/rooms//%61%2Fb", "/paths/rooms/a%2Fb room=a/b"),
        ("http://x/paths//a#b", "/paths/a rest=a"),
    ];
    for (target, expected) in cases {
        let answer = get(&server, target).await;
        assert!(
            parts(&answer).0 == 200 && answer.contains(expected),
            "{target} instead of {expected:?}\n{answer}"
        );
    }
    for target in [
        "/paths/one/a%2Fb/else",
        "/paths/streams/a%2Fb",
        "/paths/a/b%5C",
        "/paths/rooms/a/b%2Fc",
        "/nowhere%2F",
    ] {
        assert_eq!(parts(&get(&server, target).await).0, 400, "{target}");
    }
    let noted = get(&server, "/paths/./noted/%61%2fb?q#f").await;
    assert!(
        noted.contains("x-guard: /paths/noted/a%2Fb?q\r\n")
            && noted.ends_with("/paths/noted/a%2Fb?q name=a/b"),
        "{noted}"
    );
    // The log names the handled path, without a fragment.
    let failed = get(&server, "/do//panic?q#secret-fragment").await;
    assert_eq!(parts(&failed).0, 500);
    let stopped = server.stop();
    assert!(
        stopped.stderr.contains("/do/panic?q") && !stopped.stderr.contains("fragment"),
        "{}",
        stopped.stderr
    );
}

#[tokio::test]
async fn a_wasi_http_component_receives_the_path_that_was_matched() {
    for proxy in ["proxy02", "proxy03"] {
        let server = Tidegate::serve(&component(proxy), &[]);
        for (target, expected) in [
            ("/a//b/./c/../%64?e=//#f", "Method::Get /a/b/d?e=// for x"),
            ("/%7Ea/%2e%2E/b/", "Method::Get /b/ for x"),
            ("http://y:81/a#b", "Method::Get /a for y:81"),
            ("/a;b%3bc\"", "Method::Get /a;b%3Bc%22 for x"),
        ] {
            assert_eq!(
                parts(&get(&server, target).await),
                (200, expected),
                "{proxy} {target}"
            );
        }
        for target in ["/a%2Fb", "/a%5cb", "/a\\b", "/a/..%2fb"] {
            assert_eq!(
                parts(&get(&server, target).await).0,
                400,
                "{proxy} {target}"
            );
        }
    }
}

#[tokio::test]
async fn an_encoded_separator_is_refused_by_files_pages_and_host_endpoints() {
    let assets = tempfile::tempdir().unwrap();
    fs::create_dir(assets.path().join("css")).unwrap();
    for (name, text) in [("index.html", "index"), ("css/a b.css", "p{}")] {
        fs::write(assets.path().join(name), text).unwrap();
    }
    let server = Tidegate::serve(
        &component("rogue"),
        &["--assets", assets.path().to_str().unwrap()],
    );
    for (target, status, body) in [
        ("/css/a%20b.css", 200, "p{}"),
        ("//css/./%61%20b.css#x", 200, "p{}"),
        ("/css%2Fa%20b.css", 400, ""),
        ("/css%5Ca%20b.css", 400, ""),
        ("/css\\a%20b.css", 400, ""),
        ("/css/..%2Fcss/a%20b.css", 400, ""),
        ("/some/page", 200, "index"),
        ("/some%2Fpage", 400, ""),
        ("/__tidegate/%68ealth", 200, "ok\n"),
        ("/__tidegate%2Fhealth", 400, ""),
        ("/__tidegate/health%2F", 400, ""),
        ("/__tidegate/client.js%5C", 400, ""),
        ("/paths/page/%61%2Fb", 200, ""),
    ] {
        let answer = get(&server, target).await;
        let (given, text) = parts(&answer);
        assert!(
            given == status && text.ends_with(body),
            "{target}\n{answer}"
        );
    }
    let load = async |params: &str, search: &str| {
        let body = format!(
            "{{\"page\":\"/paths/page/{{name}}\",\"loader\":\"path\",\"params\":{params},\"search\":\"{search}\"}}"
        );
        let length = body.len();
        let head = "POST /__loaders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: application/json";
        ask(
            &server,
            &format!("{head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"),
        )
        .await
    };
    for (params, search, status, expected) in [
        (
            r#"{"name":"a/b"}"#,
            "q=1#secret",
            200,
            "\"/paths/page/a%2Fb?q=1 name=a/b\"",
        ),
        (
            r#"{"name":"é ~"}"#,
            "",
            200,
            "\"/paths/page/%C3%A9%20~ name=é ~\"",
        ),
        (r#"{"name":"../secret"}"#, "", 400, "encoded slash"),
        (r#"{"name":".."}"#, "", 404, "another page"),
    ] {
        let answer = load(params, search).await;
        assert!(
            parts(&answer).0 == status && answer.contains(expected),
            "{params} {search}\n{answer}"
        );
    }
    // The redirect of an action leads to the page's path, and to no other host.
    let form = "__action=stay";
    let head = "POST //paths//page/a%2Fb?q HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\naccept: text/html";
    let acted = ask(
        &server,
        &format!(
            "{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{form}",
            form.len()
        ),
    )
    .await;
    assert!(
        parts(&acted).0 == 303 && acted.contains("location: /paths/page/a%2Fb?q\r\n"),
        "{acted}"
    );
}

#[tokio::test]
async fn a_request_target_has_the_form_of_its_method() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let cases = [
        ("GET x HTTP/1.1\r\nhost: x", 400),
        ("GET x/y HTTP/1.1\r\nhost: x", 400),
        ("GET other:80 HTTP/1.1\r\nhost: x", 400),
        ("GET * HTTP/1.1\r\nhost: x", 400),
        ("GET #x HTTP/1.1\r\nhost: x", 400),
        ("GET ?x HTTP/1.1\r\nhost: x", 400),
        ("GET http://user@x/calm HTTP/1.1\r\nhost: x", 400),
        ("GET http://user:word@x/calm HTTP/1.1\r\nhost: x", 400),
        ("GET http://x:99999/calm HTTP/1.1\r\nhost: x", 400),
        ("GET http://x:port/calm HTTP/1.1\r\nhost: x", 400),
        ("GET http:///calm HTTP/1.1\r\nhost: x", 400),
        ("GET http://[::1/calm HTTP/1.1\r\nhost: x", 400),
        ("GET ftp://x/calm HTTP/1.1\r\nhost: x", 400),
        ("GET /calm HTTP/1.1\r\nhost: user@x", 400),
        ("GET /calm HTTP/1.1\r\nhost: x:99999", 400),
        ("GET /calm HTTP/1.1\r\nhost: x:80a", 400),
        ("GET /calm HTTP/1.1\r\nhost: x:-1", 400),
        ("GET /calm HTTP/1.1\r\nhost: [::zz]", 400),
        ("GET /calm HTTP/1.1\r\nhost: x/y", 400),
        ("GET /calm HTTP/1.1\r\nhost: x y", 400),
        ("GET /calm HTTP/1.1\r\nhost: x, y", 400),
        ("GET /calm HTTP/1.1\r\nhost: ", 400),
        ("GET /calm HTTP/1.1\r\nhost: x\r\nhost: x", 400),
        ("GET /calm HTTP/1.1", 400),
        ("GET http://x/calm HTTP/1.1", 400),
        ("CONNECT x:443 HTTP/1.1\r\nhost: x:443", 501),
        ("TRACE /calm HTTP/1.1\r\nhost: x", 501),
        ("OPTIONS * HTTP/1.1\r\nhost: x", 204),
        ("OPTIONS http://x HTTP/1.1\r\nhost: x", 404),
        ("GET http://y:81/calm HTTP/1.1\r\nhost: x", 200),
        ("GET HTTPS://Y/calm HTTP/1.1\r\nhost: x", 200),
        ("GET /calm HTTP/1.1\r\nhost: [::1]:80", 200),
        ("GET /calm HTTP/1.0", 200),
        ("GET //calm HTTP/1.1\r\nhost: x", 200),
        ("GET /calm#x HTTP/1.1\r\nhost: x", 200),
    ];
    for (head, status) in cases {
        let answer = ask(&server, &format!("{head}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(parts(&answer).0, status, "{head}\n{answer}");
    }
    let served = cases.iter().filter(|(_, status)| *status == 200).count() as u64;
    assert_eq!(server.stop().counter("guest_calls"), served);
}

#[tokio::test]
async fn an_origin_is_exactly_a_scheme_a_host_and_a_port() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let head = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let cases = [
        ("a.example", "https://a.example", 101),
        ("a.example", "https://A.example:443", 101),
        ("a.example:443", "https://a.example", 101),
        ("[::1]:8080", "http://[::1]:8080", 101),
        ("a.example", "https://a.example/", 403),
        ("a.example", "https://a.example/path", 403),
        ("a.example", "https://a.example?q", 403),
        ("a.example", "https://a.example#f", 403),
        ("a.example", "https://a.example@a.example", 403),
        ("a.example", "https://user:word@a.example", 403),
        ("a.example", "https://a.example:", 403),
        ("a.example", "https://a.example:x", 403),
        ("a.example", "https://a.example:65979", 403),
        ("a.example", "https://a.example, https://a.example", 403),
        ("a.example", "file://a.example", 403),
        ("a.example", "a.example", 403),
        ("a.example", "null", 403),
        ("a.example", "", 403),
        ("a.example", "http://a.example:443", 403),
    ];
    for (host, origin, status) in cases {
        let mut raw = Raw::send(
            server.address(),
            &format!("GET /socket HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\n{head}\r\n\r\n"),
        )
        .await;
        let answer = raw.until("\r\n\r\n").await;
        assert_eq!(parts(&answer).0, status, "{host} {origin:?}\n{answer}");
    }
    let mut socket = Socket::connect(server.ws("/rooms/a%2Fb")).await;
    assert_eq!(socket.ask("members").await, "1");
}
