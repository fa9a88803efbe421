//! Pages on the wire: every status, every form of an answer, and the ends of loaders and forms,
//! with an app of closures.

mod support;

use bytes::Bytes;
use http::StatusCode;
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};
use support::{PATIENCE, Served, guarded, report_channel};
use tidegate_edge::{Config, DevChannel, Origins};
use tidegate_hub::{
    Fault, Limits, Pass, Request, Response, Verdict, contract,
    page::{
        ActionOutcome, ActionStep, FormDenial, HandlerError, LoaderState, LoaderStep, RenderInput,
        Shell,
    },
    testing::{FakeApp, LoadReply},
};
use tidegate_routing::{FirstValue, LoaderInfo, Manifest, Page, Route, Target};

/// A duration that has to pass in a test. It is the time for first values.
const SHORT: Duration = Duration::from_millis(30);

fn loader(name: &str) -> LoaderInfo {
    LoaderInfo {
        name: name.into(),
        ..LoaderInfo::default()
    }
}

fn manifest() -> Manifest {
    let live = LoaderInfo {
        is_live: true,
        ..loader("live")
    };
    let names = [
        "one", "two", "none", "fails", "busy", "traps", "loops", "stuck", "no-json", "large", "odd",
    ];
    let loaders = names.into_iter().map(loader).chain([live]).collect();
    let actions = [
        "ok",
        "away",
        "deny",
        "problem",
        "trap",
        "progress",
        "stuck",
        "bad-status",
        "bad-stale",
        "echo",
    ];
    let page = |pattern: &str, loaders| Page {
        pattern: pattern.into(),
        loaders,
        ..Page::default()
    };
    let shop = Page {
        actions: actions.map(str::to_owned).to_vec(),
        ..page("/shop/{id}", Vec::new())
    };
    let pages = vec![
        page("/plain", Vec::new()),
        shop,
        page("/all/{id}", loaders),
        page("/some", vec![loader("one"), loader("two"), loader("none")]),
        page("/slow", vec![loader("one"), loader("stuck")]),
        page(
            "/waits",
            vec![LoaderInfo {
                first_value: FirstValue::Awaited,
                ..loader("later")
            }],
        ),
        page(
            "/live",
            vec![LoaderInfo {
                is_live: true,
                ..loader("live")
            }],
        ),
        Page {
            is_fallback: true,
            ..page("/{*rest}", Vec::new())
        },
    ];
    Manifest {
        routes: vec![
            Route::new("DELETE", "/shop/{id}", Target::Http),
            Route::new("GET", "/all/known", Target::Http),
        ],
        guards: vec![],
        pages,
    }
}

fn value(json: &str) -> LoadReply {
    LoadReply::Step(Ok(LoaderStep::Value(json.into())))
}

fn steps(name: &str) -> Vec<LoadReply> {
    let problem = |status| match contract::error_status(status) {
        Ok(status) => LoadReply::Step(Err(HandlerError {
            status,
            message: "no more tea".into(),
        })),
        Err(fault) => LoadReply::Fault(fault),
    };
    match name {
        "one" => vec![value("{\"n\":\n1}")],
        "two" => vec![value("1"), value("\"</script>\"")],
        "fails" => vec![value("1"), problem(404)],
        "busy" => vec![LoadReply::Fault(Fault::Busy)],
        "traps" => vec![LoadReply::Fault(Fault::Trap("secret".into()))],
        "loops" => vec![LoadReply::Fault(Fault::Cpu)],
        "stuck" => vec![LoadReply::Stuck],
        "no-json" => vec![value("{")],
        "large" => vec![value(&format!("\"{}\"", "x".repeat(2000)))],
        "odd" => vec![problem(200)],
        "later" => vec![
            LoadReply::Step(Ok(LoaderStep::Later(4 * SHORT))),
            value("7"),
        ],
        "live" => vec![value("1"), LoadReply::Stuck],
        _ => vec![],
    }
}

fn updates(action: &str) -> Result<Vec<ActionStep>, Fault> {
    let done = |outcome| vec![ActionStep::Done(Ok(outcome))];
    let success = |stale: &[&str]| ActionOutcome::Success {
        value: "[1]".into(),
        stale: stale.iter().map(ToString::to_string).collect(),
    };
    Ok(match action {
        "ok" => done(success(&[])),
        "away" => done(ActionOutcome::Redirect {
            status: StatusCode::SEE_OTHER,
            location: "/plain".into(),
        }),
        "deny" => done(ActionOutcome::Deny(FormDenial {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: "look again".into(),
            errors: vec![("n".into(), "a number".into())],
            values: vec![("n".into(), "x".into())],
        })),
        "problem" => vec![ActionStep::Done(Err(HandlerError {
            status: StatusCode::CONFLICT,
            message: "sold out".into(),
        }))],
        "trap" => return Err(Fault::Trap("secret".into())),
        "progress" => vec![
            ActionStep::Progress("50".into()),
            ActionStep::Later(Duration::from_millis(1)),
            ActionStep::Done(Ok(success(&[]))),
        ],
        "stuck" => vec![ActionStep::Later(Duration::from_secs(3600))],
        "bad-status" => done(ActionOutcome::Redirect {
            status: contract::redirect_status(200)?,
            location: "/".into(),
        }),
        "bad-stale" => done(success(&["nothing"])),
        other => panic!("{other}"),
    })
}

fn render((request, view): (Request, RenderInput)) -> Result<Shell, Fault> {
    let first: Vec<String> = view
        .first
        .iter()
        .map(|(name, first)| match first {
            LoaderState::Value(json) => format!("{name}={json}"),
            LoaderState::Failed(problem) => format!("{name}!{}", problem.status.as_u16()),
            LoaderState::Pending => format!("{name}?"),
        })
        .collect();
    let denied = view.denied.map(|(action, denial)| {
        format!(
            "{action} {} {:?} {:?}",
            denial.message, denial.errors, denial.values
        )
    });
    let html = format!(
        "<p>{} {}</p><i>{}</i></body>",
        request.path,
        first.join(" "),
        denied.unwrap_or_default()
    );
    let mut headers = vec![("x-nonce".into(), Bytes::from(view.nonce))];
    if request.path.contains("etag") {
        headers.push(("etag".into(), "\"v1\"".into()));
        headers.push(("content-security-policy".into(), "script-src 'self'".into()));
    }
    if request.path.contains("dated") {
        headers.push(("date".into(), "Thu, 01 Jan 1970 00:00:00 GMT".into()));
    }
    let status = if request.path.contains("empty") {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::OK
    };
    Ok(Shell {
        status,
        headers,
        html,
    })
}

fn app() -> FakeApp {
    FakeApp {
        load: Box::new(|(name, _)| Ok(steps(&name))),
        render: Box::new(render),
        act: Arc::new(|action, _, mut form| {
            Box::pin(async move {
                if action != "echo" {
                    return updates(&action);
                }
                let mut all = form
                    .json()
                    .map(str::to_owned)
                    .into_iter()
                    .collect::<Vec<_>>();
                loop {
                    match form.next().await {
                        Ok(Some(field)) => {
                            let mut bytes = 0;
                            let error = loop {
                                match form.read().await {
                                    Ok(Some(piece)) => bytes += piece.len(),
                                    Ok(None) => break None,
                                    Err(error) => break Some(error),
                                }
                            };
                            all.push(format!(
                                "{} {} {} {error:?}",
                                field.name,
                                field.filename.unwrap_or_default(),
                                bytes
                            ));
                            if error.is_some() {
                                break;
                            }
                        }
                        Ok(None) => break,
                        Err(error) => all.push(format!("{error:?}")),
                    }
                }
                let value = format!("{:?}", all.join("; "));
                Ok(vec![ActionStep::Done(Ok(ActionOutcome::Success {
                    value,
                    stale: vec![],
                }))])
            })
        }),
        ..FakeApp::default()
    }
}

/// Limits whose deadlines no test crosses, however busy the machine is.
fn limits() -> Limits {
    Limits {
        first_within: SHORT,
        loader_within: PATIENCE,
        upload_within: PATIENCE,
        upload_bytes_max: 20_000,
        body_bytes_max: 2_000,
        message_bytes_max: 1_000,
        ..Limits::default()
    }
}

fn served() -> Served {
    Served::new(app(), manifest(), limits(), Config::default())
}

/// A server whose loaders, forms and bodies have to be quick. A step that is not meant to be late
/// must not depend on the time that it takes.
fn served_with_short_deadlines() -> Served {
    let limits = Limits {
        loader_within: 5 * SHORT,
        upload_within: 10 * SHORT,
        ..limits()
    };
    let config = Config {
        body_within: 10 * SHORT,
        ..Config::default()
    };
    Served::new(app(), manifest(), limits, config)
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Returns the body of a chunked answer.
fn unchunked(answer: &str) -> String {
    let (mut rest, mut whole) = (body(answer), String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole += &after[..size];
        rest = &after[size + 2..];
    }
    panic!("it broke off: {answer}")
}

#[test]
fn a_single_loader_is_answered_with_its_exact_status() {
    let served = served();
    let json = "content-type: application/json\r\n";
    let events = "content-type: application/json\r\naccept: text/event-stream\r\n";
    let lines = "content-type: application/json; charset=utf-8\r\naccept: application/x-ndjson\r\n";
    let ask =
        |name: &str| format!(r#"{{"page":"/all/{{id}}","loader":"{name}","params":{{"id":"7"}}}}"#);
    let cases: Vec<(&str, String, &str, &str)> = vec![
        // headers, body, status, text of the answer
        (json, ask("one"), "200", "{\"n\": 1}"),
        (json, ask("two"), "200", "1"),
        (json, ask("none"), "204", ""),
        (json, ask("live"), "200", "1"),
        (json, ask("fails"), "200", "1"),
        (json, ask("busy"), "503", "internal error (id "),
        (json, ask("traps"), "500", "internal error (id "),
        (
            json,
            ask("loops"),
            "504",
            "{\"error\":{\"message\":\"it took too long\",\"status\":504}}",
        ),
        (json, ask("stuck"), "504", "it took too long"),
        (json, ask("no-json"), "500", "internal error (id "),
        (json, ask("large"), "500", "internal error (id "),
        (json, ask("odd"), "500", "internal error (id "),
        (
            events,
            ask("two"),
            "200",
            "data: 1\n\ndata: \"</script>\"\n\nevent: end\ndata: {}\n\n",
        ),
        (events, ask("none"), "200", "event: end\ndata: {}\n\n"),
        (
            events,
            ask("fails"),
            "200",
            "data: 1\n\nevent: error\ndata: {\"message\":\"no more tea\",\"status\":404}\n\n",
        ),
        (events, ask("stuck"), "200", "event: timeout\ndata: {}\n\n"),
        (events, ask("loops"), "200", "event: timeout\ndata: {}\n\n"),
        (
            lines,
            ask("one"),
            "200",
            "{\"value\":{\"n\": 1}}\n{\"end\":{}}\n",
        ),
        (lines, ask("stuck"), "200", "{\"timeout\":{}}\n"),
        (
            lines,
            ask("fails"),
            "200",
            "{\"value\":1}\n{\"error\":{\"message\":\"no more tea\",\"status\":404}}\n",
        ),
        (json, ask("nothing"), "404", "the page has no such loader"),
        (
            json,
            r#"{"page":"/nowhere","loader":"one"}"#.into(),
            "404",
            "there is no such page",
        ),
        (
            json,
            r#"{"page":"/all/7","loader":"one"}"#.into(),
            "404",
            "there is no such page",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":"known"}}"#.into(),
            "404",
            "it is another page",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":".."}}"#.into(),
            "404",
            "it is another page",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":"a\u0000"}}"#.into(),
            "400",
            "control character",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one"}"#.into(),
            "400",
            "the parameter \\\"id\\\" is missing",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":"7","x":"1"}}"#.into(),
            "400",
            "no parameter \\\"x\\\"",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":7}}"#.into(),
            "400",
            "expected a string",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":"7"},"search":"a b"}"#.into(),
            "400",
            "is not a query",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","params":{"id":"7"},"search":"?a=%20b"}"#.into(),
            "200",
            "1",
        ),
        (
            json,
            r#"{"page":"/all/{id}"}"#.into(),
            "400",
            "missing field `loader`",
        ),
        (
            json,
            r#"{"page":"/all/{id}","loader":"one","url":"/x"}"#.into(),
            "400",
            "unknown field `url`",
        ),
        (json, "tea".into(), "400", "expected"),
        (json, String::new(), "400", "EOF"),
        (
            json,
            format!("{:3000}", ""),
            "413",
            "larger than 2000 bytes",
        ),
        ("", ask("one"), "415", "application/json"),
        (
            "content-type: text/plain\r\n",
            ask("one"),
            "415",
            "application/json",
        ),
        (
            "content-type: application/json\r\naccept: text/html\r\n",
            ask("one"),
            "406",
            "text/event-stream",
        ),
        (
            "content-type: application/json\r\norigin: http://evil.example\r\n",
            ask("one"),
            "403",
            "origin",
        ),
        (
            "content-type: application/json\r\norigin: http://test\r\n",
            ask("one"),
            "200",
            "1",
        ),
    ];
    let impatient = served_with_short_deadlines();
    for (headers, call, expected, text) in &cases {
        let server = match call.contains("stuck") {
            true => &impatient,
            false => &served,
        };
        let answer = server.ask(&post("/__loaders", headers, call));
        assert_eq!(status(&answer), *expected, "{headers}{call}\n{answer}");
        assert!(!answer.contains("secret"), "{answer}");
        match answer.contains("transfer-encoding: chunked") {
            true => assert_eq!(unchunked(&answer), *text, "{headers}{call}"),
            false => assert!(body(&answer).contains(text), "{headers}{call}\n{answer}"),
        }
    }
    let get = served.get("/__loaders");
    assert!(
        status(&get) == "405" && get.contains("allow: POST\r\n"),
        "{get}"
    );
    assert_eq!(
        status(&served.ask(&post("//%5f_loaders/", json, &ask("one")))),
        "200",
        "however it is spelled"
    );
    assert_eq!(status(&served.get("/__loaders/more")), "404");
}

#[test]
fn an_action_is_answered_in_the_format_that_the_client_accepts() {
    let served = served();
    let (html, json, events, any) = (
        "accept: text/html\r\n",
        "accept: application/json\r\n",
        "accept: text/event-stream\r\n",
        "accept: */*\r\n",
    );
    let deny =
        r#"{"errors":{"n":"a number"},"message":"look again","outcome":"deny","status":422}"#;
    let success = r#"{"outcome":"success","stale":[],"value":[1]}"#;
    let cases: Vec<(&str, &str, &str, String)> = vec![
        // action, accept, status, text of the whole answer
        ("ok", html, "303", "location: /shop/7?tab=1\r\n".into()),
        ("ok", any, "303", "location: /shop/7?tab=1\r\n".into()),
        ("ok", "", "303", "location: /shop/7?tab=1\r\n".into()),
        ("ok", json, "200", success.into()),
        ("ok", events, "200", format!("event: outcome\ndata: {success}\n\n")),
        ("away", html, "303", "location: /plain\r\n".into()),
        ("away", json, "200", r#"{"location":"/plain","outcome":"redirect","status":303}"#.into()),
        ("deny", html, "422", r#"<p>/shop/7?tab=1 </p><i>deny look again [("n", "a number")] [("n", "x")]</i></body>"#.into()),
        ("deny", json, "422", deny.into()),
        ("deny", events, "200", format!("event: outcome\ndata: {deny}\n\n")),
        ("problem", html, "409", "sold out".into()),
        ("problem", json, "409", r#"{"message":"sold out","outcome":"error","status":409}"#.into()),
        ("trap", html, "500", "internal error (id ".into()),
        ("trap", json, "500", "internal error (id ".into()),
        ("trap", events, "200", "event: outcome\ndata: {\"message\":\"internal error (id ".into()),
        ("progress", html, "303", "location: /shop/7".into()),
        ("progress", json, "200", success.into()),
        ("progress", events, "200", format!("event: progress\ndata: 50\n\nevent: outcome\ndata: {success}\n\n")),
        ("stuck", html, "504", "took too long".into()),
        ("stuck", json, "504", "internal error (id ".into()),
        ("bad-status", html, "500", "internal error".into()),
        ("bad-stale", json, "500", "internal error".into()),
        ("nothing", html, "404", "no such action".into()),
        ("ok", "accept: image/png\r\n", "406", "text/html, application/json or text/event-stream".into()),
    ];
    let impatient = served_with_short_deadlines();
    for (action, accept, expected, text) in cases {
        let form = format!("content-type: application/x-www-form-urlencoded\r\n{accept}");
        let server = match action {
            "stuck" => &impatient,
            _ => &served,
        };
        let answer = server.ask(&post(
            "/shop/7?tab=1",
            &form,
            &format!("n=1&__action={action}"),
        ));
        assert_eq!(status(&answer), expected, "{action} {accept}\n{answer}");
        let is_chunked = answer.contains("transfer-encoding: chunked");
        let got = if is_chunked {
            unchunked(&answer)
        } else {
            answer
        };
        assert!(
            got.contains(&text) && !got.contains("secret"),
            "{action} {accept}\n{got}"
        );
    }
}

#[test]
fn each_kind_of_form_is_read_and_an_invalid_form_is_refused() {
    let served = served();
    let part = |name: &str, file: Option<&str>, content: &str| {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    let echo = part("__action", None, "echo");
    let big = |bytes: usize| part("f", Some("a.bin"), &"x".repeat(bytes));
    let (url, json, multi) = (
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data; boundary=B",
    );
    let cases: Vec<(&str, String, &str, &str)> = vec![
        (
            url,
            "a=1&__action=echo&a=%20".into(),
            "200",
            "a  1 None; a  1 None",
        ),
        (url, "a=1".into(), "400", "names no action"),
        (
            json,
            r#"{"__action":"echo","n":[1]}"#.into(),
            "200",
            "{\\\\\\\"n\\\\\\\":[1]}",
        ),
        (json, "[]".into(), "400", "no JSON object"),
        (
            json,
            format!("{:3000}", ""),
            "413",
            "larger than 2000 bytes",
        ),
        (
            multi,
            format!("{echo}{}--B--\r\n", part("a", None, "1")),
            "200",
            "a  1 None",
        ),
        (
            multi,
            format!("{}{echo}{}--B--\r\n", part("a", None, "1"), big(15_000)),
            "200",
            "a  1 None; f a.bin 15000 None",
        ),
        (
            multi,
            format!("{echo}{}--B--\r\n", big(30_000)),
            "200",
            "Some(TooLarge)",
        ),
        (
            multi,
            format!("{}{echo}--B--\r\n", big(3_000)),
            "413",
            "put the field __action before files",
        ),
        (
            multi,
            format!("{}--B--\r\n", big(100)),
            "400",
            "names no action",
        ),
        (multi, "tea".into(), "400", "broke off, or is none"),
        (url, "a&".repeat(999), "400", "names no action"),
        (
            multi,
            part("a", None, "").repeat(30) + "--B--\r\n",
            "400",
            "names no action",
        ),
        (
            multi,
            part(&"n".repeat(150), None, "").repeat(20) + "--B--\r\n",
            "413",
            "put the field __action before files",
        ),
        (
            multi,
            format!("{echo}{}", &big(100)[..80]),
            "400",
            "broke off, or is none",
        ),
        (
            "multipart/form-data",
            echo.clone(),
            "400",
            "no valid boundary",
        ),
        (
            "text/plain",
            "a".into(),
            "415",
            "application/x-www-form-urlencoded",
        ),
    ];
    for (kind, form, expected, text) in cases {
        let answer = served.ask(&post(
            "/shop/7",
            &format!("content-type: {kind}\r\naccept: application/json\r\n"),
            &form,
        ));
        assert_eq!(
            status(&answer),
            expected,
            "{kind} {}\n{answer}",
            &form[..form.len().min(300)]
        );
        assert!(
            answer.contains(text) || answer.replace("\\\"", "\\\\\\\"").contains(text),
            "{kind}\n{answer}"
        );
    }
    // This form never ends.
    let head = "POST /shop/7 HTTP/1.1\r\nhost: test\r\naccept: application/json\r\ncontent-length: 1500\r\ncontent-type: ";
    let never_named = (
        format!("{head}{multi}\r\n\r\n{echo}"),
        "408",
        "took too long",
    );
    // No action starts for this form, although it names one.
    let named = (
        format!("{head}{multi}\r\n\r\n{echo}{}", &big(100)[..90]),
        "408",
        "took too long",
    );
    let never_sent = (format!("{head}{url}\r\n\r\na=1"), "408", "took too long");
    let served = served_with_short_deadlines();
    for (sent, expected, text) in [never_named, named, never_sent] {
        let mut raw = served.raw();
        raw.send(sent.as_bytes());
        assert_eq!(status(&raw.head()), expected, "{sent}");
        raw.until(text);
    }
}

#[test]
fn a_form_without_a_part_is_refused_before_it_is_gathered() {
    let served = Served::new(
        app(),
        manifest(),
        Limits {
            upload_bytes_max: 10 << 20,
            ..limits()
        },
        Config::default(),
    );
    let head = "POST /shop/7 HTTP/1.1\r\nhost: test\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 5000000\r\n\r\n";
    for begun in [
        "--B\r\ncontent-disposition: form-data; name=\"",
        "no boundary at all ",
    ] {
        let mut raw = served.raw();
        raw.send(format!("{head}{begun}{}", "n".repeat(1 << 20)).as_bytes());
        assert_eq!(status(&raw.head()), "413", "{begun}");
    }
}

#[test]
fn a_page_answers_each_method() {
    let served = served();
    let ask = |method: &str, path: &str, headers: &str| {
        served.ask(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"))
    };
    let cases = [
        ("GET", "/plain", "", "200", "<p>/plain </p>"),
        (
            "HEAD",
            "/plain",
            "",
            "200",
            "content-type: text/html; charset=utf-8\r\n",
        ),
        (
            "GET",
            "/plain",
            "",
            "200",
            "cache-control: private, no-cache\r\n",
        ),
        ("PUT", "/plain", "", "405", "allow: GET, HEAD\r\n"),
        ("POST", "/plain", "", "405", "allow: GET, HEAD\r\n"),
        (
            "PUT",
            "/shop/7",
            "",
            "405",
            "allow: DELETE, GET, HEAD, POST\r\n",
        ),
        ("DELETE", "/shop/7", "", "200", "/shop/7"),
        (
            "POST",
            "/shop/7",
            "origin: http://evil.example\r\n",
            "403",
            "this origin may not send forms here",
        ),
        (
            "POST",
            "/shop/7",
            "origin: http://test\r\n",
            "415",
            "multipart/form-data",
        ),
        (
            "GET",
            "/nowhere/at/all",
            "",
            "200",
            "<p>/nowhere/at/all </p>",
        ),
        ("GET", "/__nowhere", "", "404", "nothing is here"),
        (
            "GET",
            "/plain?etag",
            "if-none-match: W/\"v1\"\r\n",
            "304",
            "etag: \"v1\"\r\n",
        ),
        (
            "HEAD",
            "/plain?etag",
            "if-none-match: \"v1\"\r\n",
            "304",
            "etag: \"v1\"\r\n",
        ),
        (
            "GET",
            "/plain?etag",
            "if-none-match: \"v0\"\r\n",
            "200",
            "content-security-policy: script-src 'self'\r\n",
        ),
        ("GET", "/plain", "if-none-match: \"v1\"\r\n", "200", "<p>"),
    ];
    for (method, path, headers, expected, text) in cases {
        let answer = ask(method, path, headers);
        assert_eq!(
            status(&answer),
            expected,
            "{method} {path} {headers}\n{answer}"
        );
        assert!(answer.contains(text), "{method} {path} {headers}\n{answer}");
        if method == "HEAD" || expected == "304" {
            assert!(
                answer.ends_with("\r\n\r\n")
                    && !(expected == "304" && answer.contains("security-policy")),
                "{answer}"
            );
        }
    }
}

#[test]
fn the_shell_has_the_values_that_are_ready_and_later_values_follow() {
    let served = served();
    let page = served.get("/some");
    let nonce = page
        .lines()
        .find_map(|line| line.strip_prefix("x-nonce: "))
        .unwrap();
    assert_eq!(nonce.len(), 32);
    let text = unchunked(&page);
    assert!(
        text.starts_with("<p>/some one={\"n\": 1} two=1 none?</p><i></i><script nonce=\""),
        "{text}"
    );
    assert!(text.ends_with("</script>\n</body>"), "{text}");
    let scripts: Vec<&str> = text
        .match_indices("<script")
        .map(|(at, _)| &text[at..])
        .collect();
    assert!(
        scripts
            .iter()
            .all(|script| script.starts_with(&format!("<script nonce=\"{nonce}\">"))),
        "{text}"
    );
    let marks = [
        r#"["page",{"beat":15000,"loaders":["one","two","none"],"page":"/some","params":{},"search":""}]"#,
        r#"["value","one",{"n": 1}]"#,
    ];
    assert!(marks.iter().all(|mark| text.contains(mark)), "{text}");
    for mark in [
        r#"["value","two",1]"#,
        r#"["end","none"]"#,
        r#"["end","one"]"#,
        r#"["value","two","\x3c/script>"]"#,
        r#"["end","two"]"#,
    ] {
        assert!(text.contains(mark), "{mark} in {text}");
    }
    assert!(
        text.rfind(r#"["done"]"#) > text.rfind(r#"["end","#),
        "the end of all comes last: {text}"
    );

    let mut slow = served.raw();
    slow.send(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    slow.until("<p>/slow one={\"n\": 1} stuck?</p>");
    let waits = unchunked(&served.get("/waits"));
    assert!(
        waits.starts_with("<p>/waits later=7</p>") && waits.contains(r#"["end","later"]"#),
        "{waits}"
    );
    let head = served.ask("HEAD /slow HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    assert!(
        status(&head) == "200" && head.ends_with("\r\n\r\n") && !head.contains("content-length: 0"),
        "{head}"
    );
}

#[test]
fn errors_of_loaders_come_as_marks_without_the_text_of_faults() {
    let served = served_with_short_deadlines();
    let mut raw = served.raw();
    raw.send(b"GET /all/7?x=%3C HTTP/1.1\r\nhost: test\r\n\r\n");
    let text = raw.until(r#"["timeout","stuck"]"#);
    for mark in [
        r#"["error","busy",503,"internal error (id "#,
        r#"["error","traps",500,"#,
        r#"["timeout","loops"]"#,
        r#""search":"?x=%3C""#,
    ] {
        assert!(
            text.contains(mark) && !text.contains("secret"),
            "{mark} in {text}"
        );
    }
}

#[test]
fn a_streaming_page_follows_its_status_and_has_one_date() {
    let served = served_with_short_deadlines();
    let empty = served.get("/slow?empty");
    assert!(
        empty.starts_with("HTTP/1.1 204 ")
            && !empty.contains("transfer-encoding")
            && empty.ends_with("\r\n\r\n"),
        "{empty}"
    );
    let dated = served.get("/slow?dated");
    assert_eq!(
        dated.to_lowercase().matches("\r\ndate: ").count(),
        1,
        "{dated}"
    );
    assert!(
        !dated.contains("1970") && unchunked(&dated).contains("</body>"),
        "the time is the host's: {dated}"
    );
}

#[test]
fn a_streaming_page_sends_heartbeats_and_ends_with_the_server() {
    let limits = Limits {
        comment_every: Duration::from_millis(30),
        ..limits()
    };
    let mut served = Served::new(app(), manifest(), limits, Config::default());
    let mut page = served.raw();
    page.send(b"GET /live HTTP/1.1\r\nhost: test\r\n\r\n");
    page.until(r#"["beat"]]'))("#);
    let mut events = served.raw();
    let asked = r#"{"page":"/live","loader":"live"}"#;
    events.send(
        post(
            "/__loaders",
            "content-type: application/json\r\naccept: text/event-stream\r\n",
            asked,
        )
        .as_bytes(),
    );
    events.until("data: 1\n\n");
    events.until(":\n\n");
    served.stop();
    page.until(r#"["error","live",503,"the server is going away"],["done"]]'))("#);
    assert!(page.rest().contains("</body>"));
    assert!(
        events.rest().contains(
            "event: error\ndata: {\"message\":\"the server is going away\",\"status\":503}"
        )
    );
    assert!(served.drained().in_time);
}

#[test]
fn the_loaders_of_a_page_are_cancelled_when_its_client_leaves() {
    struct Held(mpsc::Sender<String>);
    impl Drop for Held {
        fn drop(&mut self) {
            _ = self.0.send("dropped".into());
        }
    }
    let (report, next_report) = report_channel();
    let load = move |(_, request): (String, Request)| {
        let held = Arc::new(Held(report.clone()));
        _ = report.send(format!("began {}", request.path));
        // A task that requests the next step holds a clone of this one.
        Ok(vec![value("1"), LoadReply::Held(held)])
    };
    let served = Served::new(
        FakeApp {
            load: Box::new(load),
            ..app()
        },
        manifest(),
        limits(),
        Config::default(),
    );
    let mut page = served.raw();
    page.send(b"GET /live HTTP/1.1\r\nhost: test\r\n\r\n");
    page.until(r#"["value","live",1]"#);
    assert_eq!(next_report(), "began /live");
    drop(page);
    assert_eq!(next_report(), "dropped");
}

#[test]
fn the_guards_of_a_page_run_for_its_loaders_whatever_url_is_sent() {
    let (report, next_report) = report_channel();
    let check = move |(guard, request): (u32, Request)| {
        _ = report.send(format!("{guard} {} {}", request.method, request.path));
        match request.headers.contains_key("x-key") {
            true => Ok(Verdict::Pass(Pass {
                headers: vec![("x-by".into(), "guard".into())],
                context: vec![("user".into(), "ann".into())],
            })),
            false => Ok(Verdict::Answer(Response {
                status: StatusCode::FORBIDDEN,
                ..Response::default()
            })),
        }
    };
    let load = |(_, request): (String, Request)| {
        Ok(vec![value(
            &serde_json::to_string(&request.context).unwrap(),
        )])
    };
    let app = FakeApp {
        check: Box::new(check),
        load: Box::new(load),
        ..app()
    };
    let served = Served::new(
        app,
        guarded(manifest(), &["/all/secret", "/__loaders", "/other/*"]),
        limits(),
        Config::default(),
    );
    let json = "content-type: application/json\r\n";
    let ask = |id: &str, key: &str| {
        let asked = format!(r#"{{"page":"/all/{{id}}","loader":"one","params":{{"id":"{id}"}}}}"#);
        served.ask(&post(
            "/__loaders",
            &format!("{json}{key}referer: http://test/other\r\n"),
            &asked,
        ))
    };
    assert_eq!(status(&ask("secret", "")), "403");
    assert_eq!(next_report(), "0 GET /all/secret");
    let through = ask("secret", "x-key: 1\r\n");
    assert!(
        status(&through) == "200"
            && through.contains("x-by: guard")
            && body(&through) == r#"[["user","ann"],["user","ann"]]"#,
        "{through}"
    );
    assert_eq!(
        [next_report(), next_report()],
        ["0 GET /all/secret", "1 GET /all/secret"]
    );
    assert_eq!(status(&ask("7", "")), "403");
    assert_eq!(
        next_report(),
        "1 GET /all/7",
        "a guard of /__loaders covers them all"
    );
}

#[test]
fn forms_are_accepted_from_the_configured_origins() {
    let form = |origin: &str| {
        post(
            "/shop/7",
            &format!("content-type: application/x-www-form-urlencoded\r\n{origin}"),
            "__action=ok",
        )
    };
    let list = Config {
        origins: Origins::List(vec!["https://a.example".into()]),
        require_origin: true,
        ..Config::default()
    };
    let served = Served::new(app(), manifest(), limits(), list);
    for (origin, expected) in [
        ("origin: https://a.example\r\n", "303"),
        ("origin: http://test\r\n", "403"),
        ("", "403"),
        ("origin: null\r\n", "403"),
    ] {
        assert_eq!(status(&served.ask(&form(origin))), expected, "{origin}");
    }
}

#[test]
fn in_development_the_fault_of_a_loader_is_shown_whole() {
    let config = Config {
        dev: Some(Arc::<DevChannel>::default()),
        ..Config::default()
    };
    let served = Served::new(app(), manifest(), limits(), config);
    let asked = r#"{"page":"/all/{id}","loader":"traps","params":{"id":"7"}}"#;
    let shown = served.ask(&post(
        "/__loaders",
        "content-type: application/json\r\n",
        asked,
    ));
    assert!(
        status(&shown) == "500" && shown.contains("secret"),
        "{shown}"
    );
}

#[test]
fn the_client_script_is_small_and_served_without_guards() {
    let served = Served::usual(FakeApp::default());
    let script = served.get("/__tidegate/client.js");
    assert!(
        script.contains("text/javascript") && script.contains("export function loader("),
        "{script}"
    );
    let types = served.get("/__tidegate/client.d.ts");
    let functions = |text: &str| -> Vec<String> {
        let named = text.lines().filter_map(|line| {
            line.strip_prefix("export function ")?
                .split(['(', '<'])
                .next()
                .map(str::to_owned)
        });
        named.collect()
    };
    assert_eq!(functions(&script), functions(&types));
    assert_eq!(functions(&types), ["loader", "enhance", "socket", "events"]);
    let mut gzip = std::process::Command::new("gzip")
        .args([
            "-9",
            "-c",
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/pages/client.js"),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gzip is in every Debian");
    let mut packed = Vec::new();
    std::io::Read::read_to_end(gzip.stdout.as_mut().unwrap(), &mut packed).unwrap();
    assert!(
        gzip.wait().unwrap().success() && (1..=7 << 10).contains(&packed.len()),
        "{} bytes",
        packed.len()
    );
}
