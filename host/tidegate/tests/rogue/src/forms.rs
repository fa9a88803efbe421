//! Forms of every kind, and a page whose values have to arrive as they are.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::prelude::*;

pub(crate) fn register(app: App) -> App {
    app.page("/form", Forms)
        .page("/away/form", Forms)
        .guard("/away/*", away)
        .page("/values", Values)
        .page("/live", Live)
}

/// `?to=` is where a form is sent, as by a guard that asks for a sign-in.
async fn away(request: Request) -> Result<Pass> {
    match (request.method(), request.query_opt::<String>("to")?) {
        ("POST", Some(to)) => Err(Error::status(303, "sign in").header("location", to)),
        _ => Ok(Pass::new()),
    }
}

pub(crate) struct Forms;

#[derive(Deserialize)]
struct Order {
    name: String,
    id: Option<u128>,
}

impl Page for Forms {
    const ACTIONS: &[&str] = &[
        "list", "show", "read", "raw", "swallow", "leave", "slow", "go",
    ];

    async fn act(&self, action: &str, _: &Request, form: &mut Form) -> Result<Done> {
        match action {
            "list" => Done::success(&fields(form).await?),
            // As a refusal, so that the page shows it with scripts and without.
            "show" => Ok(Done::deny(422, fields(form).await?.to_string())
                .field("constructor", "a field's own error")),
            "read" => {
                let Order { name, id } = form.read().await?;
                Done::success(&(name, id.map(|id| id.to_string())))
            }
            "raw" => Done::success(&form.json()),
            // Takes whatever the form is for its end.
            "swallow" => {
                while let Ok(Some(_)) = form.next().await {}
                Done::success(&"read")
            }
            "leave" => Done::success(&"not read"),
            "slow" => {
                sleep(Duration::from_secs(3)).await;
                Ok(Done::deny(422, "too late"))
            }
            _ => Ok(Done::redirect("/calm")),
        }
    }

    /// `?referrer=no`: the page keeps its address to itself. `?plain=yes`: no script. `?action=`: of its form.
    fn render(&self, request: &Request, view: &View) -> Result<Response> {
        let has = |name: &str| Ok::<_, Error>(request.query_opt::<String>(name)?.is_some());
        let referrer = if has("referrer")? {
            "<meta name=\"referrer\" content=\"no-referrer\">"
        } else {
            ""
        };
        let (enhance, script) = if has("plain")? {
            ("", String::new())
        } else {
            ("data-enhance", view.script())
        };
        let action = request
            .query_opt::<String>("action")?
            .unwrap_or_else(|| "show".into());
        let message = escaped(view.message().unwrap_or_default());
        let mut inputs = String::new();
        // Properties of every form element, and of every object.
        for name in [
            "constructor",
            "__proto__",
            "elements",
            "getAttribute",
            "querySelectorAll",
            "dataset",
            "submit",
            "method",
            "toString",
        ] {
            inputs += &format!("<input name=\"{name}\" value=\"x\">");
        }
        Ok(Response::html(format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{referrer}<title>Form</title></head><body>\
             <form id=\"form\" method=\"post\" enctype=\"multipart/form-data\" {enhance}>\
             <input type=\"hidden\" name=\"__action\" value=\"{action}\"><textarea id=\"text\" name=\"te&quot;xt\">one\ntwo</textarea>{inputs}\
             <input id=\"file\" type=\"file\" name=\"file\" multiple><button id=\"go\" name=\"button\" value=\"pressed\">Send</button>\
             <p id=\"out\" data-error=\"\">{message}</p><p id=\"error\" data-error=\"constructor\"></p><p id=\"none\" data-error=\"toString\"></p>\
             </form>{script}</body></html>"
        )))
    }
}

/// Name, file name, content type and text of each field.
async fn fields(form: &mut Form) -> Result<Value> {
    let mut fields = Vec::new();
    while let Some(field) = form.next().await? {
        let mut bytes = Vec::new();
        while let Some(piece) = form.piece().await? {
            bytes.extend(piece);
        }
        fields.push(json!([
            field.name(),
            field.filename(),
            field.content_type(),
            String::from_utf8_lossy(&bytes)
        ]));
    }
    Ok(Value::Array(fields))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// JSON that is another value as JavaScript, or ends a script.
const ODD: &str = r#"{"__proto__":{"admin":true},"constructor":{"prototype":1},"big":12345678901234567890,"zero":-0.0,"e":1e-7,
    "end":"</script><script>document.title='run'</script>","comment":"<!--<script>","quotes":"'\"\\'\n`${1}","line":"a\u2028b\u2029c",
    "nul":"\u0000","\u00e9":"\ud834\udd1e"}"#;

struct Values;

impl Page for Values {
    const LOADERS: &[Loader] = &[Loader::new("soon"), Loader::new("late").deferred()];

    async fn load(&self, _: &str, _: &Request, sink: &mut Sink) -> Result {
        let odd: Value = serde_json::from_str(ODD)?;
        sink.send(&odd).await
    }

    fn render(&self, _: &Request, view: &View) -> Result<Response> {
        let script = view.script();
        Ok(Response::html(format!(
            "<!doctype html><html lang=\"en\"><head><title>Values</title></head><body><p id=\"end\" data-slot=\"late.end\"></p>\
             <p id=\"none\" data-slot=\"late.toString.name\">nothing</p>{script}</body></html>"
        )))
    }
}

/// A page whose loader has one value and goes on in silence.
struct Live;

impl Page for Live {
    const LOADERS: &[Loader] = &[Loader::live("live")];

    async fn load(&self, _: &str, _: &Request, sink: &mut Sink) -> Result {
        sink.send(&1).await?;
        loop {
            sleep(Duration::from_secs(3600)).await;
        }
    }

    fn render(&self, _: &Request, view: &View) -> Result<Response> {
        let script = view.script();
        Ok(Response::html(format!(
            "<!doctype html><html lang=\"en\"><head><title>Live</title></head><body><p data-loader=\"live\">live</p>{script}</body></html>"
        )))
    }
}
