//! Forms as clients write them: multipart by RFC 7578 and 2046, JSON, and invalid forms.

use crate::support::{Tidegate, client::Raw, component};
use serde_json::{Value, json};

/// The boundary of most forms here.
const B: &str = "----WebKitFormBoundaryABC";

const DISPOSITION: &str = "content-disposition: form-data; ";

/// Sends a form and returns status and body.
async fn post(
    server: &Tidegate,
    path: &str,
    kind: &str,
    accept: &str,
    body: &[u8],
) -> (u16, String) {
    let request = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let request = request
        .post(server.url(path))
        .header("content-type", kind)
        .header("accept", accept);
    let answer = request.body(body.to_vec()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Returns the action's value, or the status of the refusal.
async fn value(server: &Tidegate, kind: &str, body: &[u8]) -> Result<Value, u16> {
    let (status, text) = post(server, "/form", kind, "application/json", body).await;
    if status != 200 {
        return Err(status);
    }
    let envelope: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    Ok(envelope["value"].clone())
}

/// Returns a form of the action and one more part, whose head begins with `head`.
fn form(boundary: &str, head: &str, content: &str) -> String {
    let action = format!("--{boundary}\r\n{DISPOSITION}name=\"__action\"\r\n\r\nlist\r\n");
    format!("{action}--{boundary}\r\n{head}\r\n\r\n{content}\r\n--{boundary}--\r\n")
}

#[tokio::test]
async fn part_names_are_parsed_as_browsers_write_them() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let field = |name: &str| Ok(json!([[name, null, null, "x"]]));
    let file = |name: &str, filename: &str| Ok(json!([[name, filename, null, "x"]]));
    let cases = [
        ("name=\"a\"", field("a")),
        ("name=a", field("a")),
        ("name=\"\"", field("")),
        ("name=\"a;b\"", field("a;b")),
        ("name=\"a%22b\"", field("a\"b")),
        ("name=\"a%0D%0Ab\"", field("a\r\nb")),
        ("name=\"my filename=x\"", field("my filename=x")),
        ("name=\"füld\"", field("füld")),
        ("name=\"a\\\"", field("a\\")),
        ("name=\"constructor\"", field("constructor")),
        ("name=\"f\"; filename=\"a.txt\"", file("f", "a.txt")),
        ("name=\"f\"; filename=\"a;b.txt\"", file("f", "a;b.txt")),
        ("name=\"f\"; filename=\"a%22b.txt\"", file("f", "a\"b.txt")),
        ("name=\"f\"; filename=\"a\\\"b.txt\"", file("f", "a\"b.txt")),
        ("name=\"f\"; filename=\"dir\\\"", file("f", "dir\\")),
        (
            "name=\"f\"; filename=\"C:\\docs\\a.txt\"",
            file("f", "C:\\docs\\a.txt"),
        ),
        (
            "name=\"f\"; filename=\"dir\\\"; size=\"1\"",
            file("f", "dir\\"),
        ),
        (
            "filename=\"a name=b.txt\"; name=\"f\"",
            file("f", "a name=b.txt"),
        ),
        ("name=\"f\"; filename=\"日本.txt\"", file("f", "日本.txt")),
        ("name=\"f\"; filename=\"..\\..\\x\"", file("f", "..\\..\\x")),
        ("name=\"f\"; filename=\"\"", file("f", "")),
        ("NAME=\"f\"; FileName=\"a.txt\"", file("f", "a.txt")),
        ("name = \"f\" ; filename = \"a.txt\" ;", file("f", "a.txt")),
        (
            "name=\"f\"; filename*=UTF-8''%C3%A4.txt",
            file("f", "ä.txt"),
        ),
        (
            "name=\"f\"; filename*=utf-8'de'%C3%A4.txt; filename=\"a.txt\"",
            file("f", "ä.txt"),
        ),
        (
            "name=\"f\"; filename*=ISO-8859-1''%E4.txt",
            file("f", "ä.txt"),
        ),
        ("filename=\"a.txt\"", Err(400)),
        ("name=\"a\"; name=\"b\"", Err(400)),
        ("name=\"f\"; filename=\"a\"; filename=\"b\"", Err(400)),
        ("name=\"a", Err(400)),
        ("name=\"a\"b\"", Err(400)),
        ("name=\"a\" filename=\"b\"", Err(400)),
        ("name", Err(400)),
        ("name=\"f\"; filename*=UTF-8''%E4.txt", Err(400)),
        ("name=\"f\"; filename*=nothing", Err(400)),
        ("name=\"f\"; filename*=UTF-8''50%.txt", Err(400)),
        (
            "name=\"f\"; filename*=UTF-8''%zz; filename=\"a.txt\"",
            Err(400),
        ),
    ];
    let kind = format!("multipart/form-data; boundary={B}");
    for (parameters, expected) in cases {
        let body = form(B, &format!("{DISPOSITION}{parameters}"), "x");
        assert_eq!(
            value(&server, &kind, body.as_bytes()).await,
            expected,
            "{parameters}"
        );
    }
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn multipart_bodies_are_parsed_as_rfc_2046_defines() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let kind = format!("multipart/form-data; boundary={B}");
    let head = format!("{DISPOSITION}name=\"a\"");
    let one = |text: &str| Ok(json!([["a", null, null, text]]));
    let plain = form(B, &head, "1");
    let action = format!("--{B}\r\n{DISPOSITION}name=\"__action\"\r\n\r\nlist\r\n");
    let cases = [
        ("plain", plain.clone(), one("1")),
        (
            "a preamble",
            format!("For mail readers\r\n{plain}"),
            one("1"),
        ),
        (
            "a line's end before the first boundary",
            format!("\r\n{plain}"),
            one("1"),
        ),
        (
            "padding",
            plain.replace(&format!("--{B}\r\n"), &format!("--{B} \t \r\n")),
            one("1"),
        ),
        (
            "no line's end after the last boundary",
            plain.trim_end().to_owned(),
            one("1"),
        ),
        (
            "an epilogue",
            format!("{plain}trailing words\r\n"),
            one("1"),
        ),
        (
            "line's ends of its own",
            form(B, &head, "\r\n1\r\n"),
            one("\r\n1\r\n"),
        ),
        ("nothing in it", form(B, &head, ""), one("")),
        (
            "what looks like a boundary",
            form(B, &head, &format!("1\r\n-{B}\r\n--{}\r\n2", &B[..9])),
            one(&format!("1\r\n-{B}\r\n--{}\r\n2", &B[..9])),
        ),
        (
            "headers of no meaning",
            form(
                B,
                &format!("x-a: b\r\n{head}\r\ncontent-transfer-encoding: binary"),
                "1",
            ),
            one("1"),
        ),
        (
            "a content type",
            form(
                B,
                &format!("{head}\r\nContent-Type: text/plain; charset=UTF-8"),
                "1",
            ),
            Ok(json!([["a", null, "text/plain; charset=UTF-8", "1"]])),
        ),
        (
            "the action twice",
            format!("{action}{}", form(B, &head, "1")),
            one("1"),
        ),
        (
            "a boundary in the middle of a line first",
            format!("x{plain}"),
            Err(400),
        ),
        ("only line feeds", plain.replace("\r\n", "\n"), Err(400)),
        ("no head", form(B, "", "1"), Err(400)),
        (
            "another disposition",
            form(B, "content-disposition: attachment; name=\"a\"", "1"),
            Err(400),
        ),
        (
            "no disposition",
            form(B, "content-type: text/plain", "1"),
            Err(400),
        ),
        (
            "two dispositions",
            form(B, &format!("{head}\r\n{DISPOSITION}name=\"b\""), "1"),
            Err(400),
        ),
        (
            "two types",
            form(
                B,
                &format!("{head}\r\ncontent-type: text/plain\r\nContent-Type: text/html"),
                "1",
            ),
            Err(400),
        ),
        (
            "a head that is none",
            form(B, &format!("{head}\r\nno colon"), "1"),
            Err(400),
        ),
        (
            "no last boundary",
            plain.replace(&format!("--{B}--\r\n"), ""),
            Err(400),
        ),
        (
            "a part that breaks off in its head",
            format!("{action}--{B}\r\n{head}"),
            Err(400),
        ),
        (
            "a part that breaks off in its content",
            format!("{action}--{B}\r\n{head}\r\n\r\nx"),
            Err(400),
        ),
        (
            "text after a boundary",
            format!("{action}--{B}x\r\n{head}\r\n\r\n1\r\n--{B}--\r\n"),
            Err(400),
        ),
        ("another boundary", form("other", &head, "1"), Err(400)),
        ("nothing", String::new(), Err(400)),
        ("no part", format!("--{B}--\r\n"), Err(400)),
        (
            "no action",
            format!("--{B}\r\n{head}\r\n\r\n1\r\n--{B}--\r\n"),
            Err(400),
        ),
    ];
    for (case, body, expected) in cases {
        assert_eq!(
            value(&server, &kind, body.as_bytes()).await,
            expected,
            "{case}"
        );
    }
    let boundaries = [
        (format!("multipart/form-data; boundary=\"{B}\""), B, Ok(())),
        (
            format!("Multipart/Form-Data; charset=utf-8; BOUNDARY={B}"),
            B,
            Ok(()),
        ),
        (
            format!("multipart/form-data; boundary={B}; charset=utf-8"),
            B,
            Ok(()),
        ),
        (
            "multipart/form-data; boundary=----=_Part_1.2".into(),
            "----=_Part_1.2",
            Ok(()),
        ),
        (
            "multipart/form-data; boundary====123===".into(),
            "===123===",
            Ok(()),
        ),
        (
            "multipart/form-data; boundary=\"=_a:b?c\"".into(),
            "=_a:b?c",
            Ok(()),
        ),
        ("multipart/form-data".into(), B, Err(400)),
        ("multipart/form-data; boundary=".into(), "", Err(400)),
        ("multipart/form-data; boundary=\"a".into(), "a", Err(400)),
        (
            format!("multipart/form-data; boundary={}", "b".repeat(71)),
            &*"b".repeat(71),
            Err(400),
        ),
        ("multipart/mixed; boundary=b".into(), "b", Err(415)),
        ("text/plain".into(), B, Err(415)),
    ];
    for (kind, boundary, expected) in boundaries {
        let got = value(&server, &kind, form(boundary, &head, "1").as_bytes()).await;
        assert_eq!(
            got,
            expected.map(|()| json!([["a", null, null, "1"]])),
            "{kind}"
        );
    }
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_malformed_form_is_answered_with_400_before_and_during_its_action() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let kind = format!("multipart/form-data; boundary={B}");
    let part = |name: &str, value: &str| {
        format!("--{B}\r\n{DISPOSITION}name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let broken = [
        format!("--{B}\r\n{DISPOSITION}filename=\"x\"\r\n\r\n1\r\n"),
        format!("--{B}\r\nno head\r\n\r\n1\r\n"),
        format!(
            "--{B}\r\n{0}name=\"x\"\r\n{0}name=\"x\"\r\n\r\n1\r\n",
            DISPOSITION
        ),
        format!("--{B}?\r\n"),
    ];
    for broken in &broken {
        for action in ["list", "read", "swallow"] {
            for accept in ["text/html", "application/json"] {
                let (action, name) = (part("__action", action), part("name", "a"));
                for body in [
                    format!("{broken}{action}{name}--{B}--\r\n"),
                    format!("{action}{name}{broken}--{B}--\r\n"),
                ] {
                    let (status, text) =
                        post(&server, "/form", &kind, accept, body.as_bytes()).await;
                    assert_eq!(status, 400, "{accept} {body}: {text}");
                }
            }
            let body = format!("{}{broken}--{B}--\r\n", part("__action", action));
            let (_, events) = post(
                &server,
                "/form",
                &kind,
                "text/event-stream",
                body.as_bytes(),
            )
            .await;
            assert!(
                events.contains("\"outcome\":\"error\",\"status\":400}"),
                "{events}"
            );
        }
    }
    // A form that its action does not read is not parsed.
    let body = format!("{}{}--{B}--\r\n", part("__action", "leave"), broken[0]);
    assert_eq!(
        value(&server, &kind, body.as_bytes()).await,
        Ok(json!("not read"))
    );
    // A client that disconnects in the middle is no fault of the app.
    let head = format!(
        "POST /form HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 100000\r\n\r\n"
    );
    let mut raw = Raw::send(
        server.address(),
        &format!("{head}{}{}", part("__action", "read"), "x".repeat(70_000)),
    )
    .await;
    raw.write("x").await;
    drop(raw);
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn every_encoding_of_a_form_is_parsed_into_a_type() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let multipart = format!("multipart/form-data; boundary={B}");
    let part = |head: &str, value: &str| format!("--{B}\r\n{DISPOSITION}{head}\r\n\r\n{value}\r\n");
    let unused = part(
        "name=\"f\"; filename=\"\"\r\ncontent-type: application/octet-stream",
        "",
    );
    let read = part("name=\"__action\"", "read");
    let json = "application/json";
    let cases = [
        (
            json,
            r#"{"__action":"read","name":"a","id":12345678901234567890123}"#.to_owned(),
            Ok(json!(["a", "12345678901234567890123"])),
        ),
        (
            json,
            r#"{"id":340282366920938463463374607431768211455,"name":"a","__action":"read"}"#.into(),
            Ok(json!(["a", "340282366920938463463374607431768211455"])),
        ),
        (
            json,
            "\u{feff}{\"__action\":\"read\",\"name\":\"a\"}".into(),
            Ok(json!(["a", null])),
        ),
        (
            json,
            r#"{"__action":"read","name":"a","__proto__":{"x":1}}"#.into(),
            Ok(json!(["a", null])),
        ),
        (json, r#"{"__action":"read","name":1}"#.into(), Err(422)),
        (
            json,
            r#"{"__action":"read","name":"a","name":"b"}"#.into(),
            Err(422),
        ),
        (
            json,
            r#"{"__action":"read","__action":"list","name":"a"}"#.into(),
            Err(400),
        ),
        (json, r#"{"name":"a"}"#.into(), Err(400)),
        (json, r#"{"__action":"read","name":"a""#.into(), Err(400)),
        (json, r#"[{"__action":"read","name":"a"}]"#.into(), Err(400)),
        (json, r#"{"__action":"read","name":"a"}{}"#.into(), Err(400)),
        (
            json,
            "{\"__action\":\"read\",\"name\":\"\u{1}\"}".into(),
            Err(400),
        ),
        (
            "application/x-www-form-urlencoded",
            "__action=read&name=a+b%2Bc".into(),
            Ok(json!(["a b+c", null])),
        ),
        (
            "application/x-www-form-urlencoded;charset=UTF-8",
            "name=a&__action=read&__action=list".into(),
            Ok(json!(["a", null])),
        ),
        (
            "application/x-www-form-urlencoded",
            "__action=read&id=7".into(),
            Err(422),
        ),
        (
            &multipart,
            format!("{read}{}--{B}--\r\n", part("name=\"name\"", "a")),
            Ok(json!(["a", null])),
        ),
        (
            &multipart,
            format!("{read}{unused}{}--{B}--\r\n", part("name=\"name\"", "a")),
            Ok(json!(["a", null])),
        ),
        (
            &multipart,
            format!(
                "{read}{}--{B}--\r\n",
                part("name=\"f\"; filename=\"x\"", "")
            ),
            Err(400),
        ),
        (
            &multipart,
            format!(
                "{read}{}--{B}--\r\n",
                part("name=\"f\"; filename=\"\"", "not empty")
            ),
            Err(400),
        ),
    ];
    for (kind, body, expected) in cases {
        assert_eq!(
            value(&server, kind, body.as_bytes()).await,
            expected,
            "{kind} {body}"
        );
    }
    // If the app reads the raw text, an invalid value is the client's error.
    let raw = [
        (
            r#"{"__action":"raw","n":12345678901234567890123}"#,
            r#"{"n":12345678901234567890123}"#,
        ),
        (
            r#"{ "b" : 1.10, "__action" : "raw", "a" : [ 1e400, -0 ] }"#,
            r#"{"b":1.10,"a":[ 1e400, -0 ]}"#,
        ),
        (
            r#"{"__action":"raw","a":1,"a":2,"__proto__":{"x":"\u00e9"}}"#,
            r#"{"a":1,"a":2,"__proto__":{"x":"\u00e9"}}"#,
        ),
        (r#"{"__action":"raw"}"#, "{}"),
    ];
    for (body, expected) in raw {
        assert_eq!(
            value(&server, json, body.as_bytes()).await,
            Ok(json!(expected)),
            "{body}"
        );
    }
    let bytes = b"{\"__action\":\"read\",\"name\":\"\xff\"}";
    assert_eq!(value(&server, json, bytes).await, Err(400), "no UTF-8");
    assert_eq!(server.stop().counter("faults"), 0);
}

#[tokio::test]
async fn a_page_without_a_referrer_may_send_its_forms() {
    let server = Tidegate::serve(&component("rogue"), &[]);
    let cases = [
        ("origin: null\r\nsec-fetch-site: same-origin", 200),
        ("origin: null\r\nsec-fetch-site: same-site", 403),
        ("origin: null\r\nsec-fetch-site: cross-site", 403),
        ("origin: null", 403),
        (
            "origin: http://evil.example\r\nsec-fetch-site: same-origin",
            403,
        ),
        ("sec-fetch-site: same-origin", 200),
        ("x: y", 200),
    ];
    for (headers, status) in cases {
        let body = "__action=leave";
        let head = format!(
            "accept: application/json\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}",
            body.len()
        );
        let request = format!(
            "POST /form HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n{headers}\r\n\r\n{body}"
        );
        let answer = Raw::send(server.address(), &request).await.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}: {answer}"
        );
    }
    server.stop();
}
