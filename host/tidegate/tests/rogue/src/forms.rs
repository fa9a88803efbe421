//! Forms of every kind, and a page whose values must arrive unchanged.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::prelude::*;

pub(crate) fn register(app: App) -> App {
    let values = Page::new(render_values)
        .loader(Loader::new("soon"), odd)
        .loader(Loader::new("late").deferred(), odd);
    let live = Page::new(render_live).loader(Loader::live("live"), one_value);
    app.page("/form", forms())
        .page("/away/form", forms())
        .guard("/away/*", away)
        .page("/values", values)
        .page("/live", live)
}

/// Redirects a form to `?to=`, as a guard does that requires a sign-in.
async fn away(request: Request) -> Result<Pass> {
    match (request.method(), request.query_opt::<String>("to")?) {
        ("POST", Some(to)) => Err(Error::status(303, "sign in").header("location", to)),
        _ => Ok(Pass::new()),
    }
}

#[derive(Deserialize)]
struct Order {
    name: String,
    id: Option<u128>,
}

fn forms() -> Page {
    Page::new(render_form)
        .action("list", async |_: &Request, form: &mut Form| {
            Done::success(&fields(form).await?)
        })
        // This is a refusal, so that the page shows it with scripts and without.
        .action("show", async |_: &Request, form: &mut Form| {
            Ok(Done::deny(422, fields(form).await?.to_string())
                .field("constructor", "a field's own error"))
        })
        .action("read", async |_: &Request, form: &mut Form| {
            let Order { name, id } = form.read().await?;
            Done::success(&(name, id.map(|id| id.to_string())))
        })
        .action("raw", async |_: &Request, form: &mut Form| {
            Done::success(&form.json())
        })
        // Takes an error for the end of the form.
        .action("swallow", async |_: &Request, form: &mut Form| {
            while let Ok(Some(_)) = form.next().await {}
            Done::success(&"read")
        })
        .action("leave", async |_: &Request, _: &mut Form| {
            Done::success(&"not read")
        })
        .action("slow", async |_: &Request, _: &mut Form| {
            sleep(Duration::from_secs(3)).await;
            Ok(Done::deny(422, "too late"))
        })
        .action("go", async |_: &Request, _: &mut Form| {
            Ok(Done::redirect("/calm"))
        })
}

/// With `?referrer=no`, the page sends no referrer. With `?plain=yes`, it has no script. `?action=`
/// is the action of its form.
fn render_form(request: &Request, view: &View) -> Result<Response> {
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
    // These are properties of every form element or of every object.
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

/// Returns name, file name, content type and text of each field.
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

/// JSON that JavaScript would read as another value, or that ends a script.
const ODD: &str = r#"{"__proto__":{"admin":true},"constructor":{"prototype":1},"big":12345678901234567890,"zero":-0.0,"e":1e-7,
    "end":"</script><script>document.title='run'</script>","comment":"<!--<script>","quotes":"'\"\\'\n`${1}","line":"a\u2028b\u2029c",
    "nul":"\u0000","\u00e9":"\ud834\udd1e"}"#;

async fn odd(_: &Request, sink: &mut Sink<Value>) -> Result {
    let odd: Value = serde_json::from_str(ODD)?;
    sink.send(&odd).await
}

fn render_values(_: &Request, view: &View) -> Result<Response> {
    let script = view.script();
    Ok(Response::html(format!(
        "<!doctype html><html lang=\"en\"><head><title>Values</title></head><body><p id=\"end\" data-slot=\"late.end\"></p>\
         <p id=\"none\" data-slot=\"late.toString.name\">nothing</p>{script}</body></html>"
    )))
}

/// Sends one value and no more.
async fn one_value(_: &Request, sink: &mut Sink<u32>) -> Result {
    sink.send(&1).await?;
    loop {
        sleep(Duration::from_secs(3600)).await;
    }
}

fn render_live(_: &Request, view: &View) -> Result<Response> {
    let script = view.script();
    Ok(Response::html(format!(
        "<!doctype html><html lang=\"en\"><head><title>Live</title></head><body><p data-loader=\"live\">live</p>{script}</body></html>"
    )))
}
