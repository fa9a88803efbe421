//! A shop: pages rendered by maud, a slow loader, stock levels that keep coming, and a form that
//! works without JavaScript.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    let details = Page::new(details)
        .loader(REVIEWS, reviews)
        .loader(STOCK, stock)
        .action("buy", buy);
    App::new()
        .page("/", Page::new(shelf))
        .page("/products/{id}", details)
        .room::<Watchers>("/watchers")
}

const REVIEWS: Loader<Vec<String>> = Loader::new("reviews");
const STOCK: Loader<Stock> = Loader::live("stock");

const PRODUCTS: [(&str, &str, u32); 3] = [
    ("compass", "A compass", 40),
    ("lantern", "A storm lantern", 65),
    ("rope", "Ten metres of rope", 15),
];

fn product(id: &str) -> Result<(&'static str, u32)> {
    let found = PRODUCTS.iter().find(|(own, ..)| *own == id);
    found
        .map(|(_, name, price)| (*name, *price))
        .ok_or_else(|| Error::not_found("we don't sell that"))
}

fn shelf(_: &Request, view: &View) -> Result<Response> {
    let shelf = html! {
        h1 { "Harbour shop" }
        ul { @for (id, name, price) in PRODUCTS { li { a href={ "/products/" (id) } { (name) } " " (price) " €" } } }
    };
    Ok(framed("Harbour shop", &shelf, view))
}

/// The stock of a product, as a visitor reads it.
#[derive(Serialize, Deserialize)]
struct Stock {
    left: u32,
    round: u32,
}

#[derive(Deserialize)]
struct Order {
    amount: u32,
    email: String,
}

async fn reviews(req: &Request, sink: &mut Sink<Vec<String>>) -> Result {
    let (name, price) = product(&req.param::<String>("id")?)?;
    sleep(Duration::from_millis(800)).await; // another service that is slow
    sink.send(&vec![
        format!("{name}: worth every one of its {price} €"),
        "came on time".into(),
    ])
    .await
}

async fn stock(req: &Request, sink: &mut Sink<Stock>) -> Result {
    let (_, price) = product(&req.param::<String>("id")?)?;
    let _one = Watching::begin()?;
    for round in 0.. {
        sink.send(&Stock {
            left: 12 - (price + round) % 10,
            round,
        })
        .await?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn buy(req: &Request, form: &mut Form) -> Result<Done> {
    let (_, price) = product(&req.param::<String>("id")?)?;
    let Order { amount, email } = form.read().await?;
    match () {
        () if !(1..=10).contains(&amount) => {
            Ok(Done::deny(422, "please look again").field("amount", "from 1 to 10"))
        }
        () if !email.contains('@') => {
            Ok(Done::deny(422, "please look again").field("email", "an address, please"))
        }
        () => Ok(Done::success(&format!("{amount} for {} €", amount * price))?.stale(STOCK)),
    }
}

fn details(req: &Request, view: &View) -> Result<Response> {
    let Ok((name, price)) = product(&req.param::<String>("id")?) else {
        return Ok(framed(
            "Not here",
            &html! { h1 { "We don't sell that" } a href="/" { "All we have" } },
            view,
        )
        .with_status(404));
    };
    let (stock, reviews) = (view.value(STOCK)?, view.value(REVIEWS)?);
    let page = html! {
        p { a href="/" { "Harbour shop" } }
        h1 { (name) }
        p { (price) " € · " b id="left" data-slot="stock.left" { (stock.map_or("…".into(), |stock| stock.left.to_string())) }
            " left " small data-loader="stock" {} }
        form method="post" data-enhance novalidate {
            input type="hidden" name="__action" value="buy";
            label { "Amount " input id="amount" name="amount" inputmode="numeric" value=(if view.denied().is_some() { view.field("amount") } else { "1" }); }
            em id="amount-error" data-error="amount" { (view.field_error("amount").unwrap_or_default()) }
            label { "E-mail " input id="email" name="email" value=(view.field("email")); }
            em id="email-error" data-error="email" { (view.field_error("email").unwrap_or_default()) }
            button id="buy" { "Buy" }
            p id="outcome" role="status" data-error="" { (view.message().unwrap_or_default()) }
        }
        h2 { "Reviews" }
        ul id="reviews" { @for review in reviews.unwrap_or_default() { li { (review) } } }
        script type="module" async nonce=(view.nonce()) { (PreEscaped(SCRIPT)) }
    };
    Ok(framed(name, &page, view))
}

/// The one thing that slots can't do: a list.
const SCRIPT: &str = r#"
import { loader } from "/__tidegate/client.js";
loader("reviews").subscribe(({ status, value }) => {
  const list = document.getElementById("reviews");
  list.dataset.status = status;
  if (value) performance.mark("reviews"); // to measure how long it took
  if (value) list.replaceChildren(...value.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
});
document.addEventListener("tidegate:outcome", ({ detail }) => {
  if (detail.outcome === "success") document.getElementById("outcome").textContent = `Thank you: ${detail.value}`;
});
"#;

const STYLE: &str = "body{font:17px/1.5 system-ui;max-width:36rem;margin:2rem auto;padding:0 1rem;color:#1d2b36;background:#f6f8f9}\
h1{margin:.2em 0}a{color:#0b6b8a}form{display:grid;gap:.5rem;padding:1rem;background:#fff;border-radius:.5rem}label{display:grid;\
grid-template-columns:6rem 1fr}input,button{font:inherit;padding:.3rem .5rem}button{background:#0b6b8a;color:#fff;border:0;\
border-radius:.3rem}em{color:#a3262a;min-height:1em}[data-loader]{color:#6b7b86}[data-loader]::after{content:attr(data-status)}\
[data-status=error]{color:#a3262a}";

fn framed(title: &str, main: &Markup, view: &View) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta name="viewport" content="width=device-width"; title { (title) } style { (PreEscaped(STYLE)) } (PreEscaped(view.script())) }
            body { main { (main) } }
        }
    };
    Response::html(page.into_string()).header("content-security-policy", view.strict_policy())
}

/// A visitor of a product's page: counted from the start of the loader until it is dropped.
struct Watching;

impl Watching {
    fn begin() -> Result<Watching> {
        tidegate::room::<Watchers>("").call_json::<i64>(&1)?;
        Ok(Watching)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        _ = tidegate::room::<Watchers>("").call_json::<i64>(&-1);
    }
}

/// Number of visitors now. It is stored, so that it outlives a sleep. If the server is killed, the
/// visitors of that moment stay in the number.
#[derive(Default)]
struct Watchers(i64);

impl Room for Watchers {
    async fn wake(&mut self, cx: &Cx) -> Result {
        self.0 = cx.get_json("count")?.unwrap_or(0);
        Ok(())
    }

    async fn request(&mut self, _: &Cx, _: Request) -> Result<Response> {
        Ok(Response::text(self.0.to_string()))
    }

    async fn call(&mut self, cx: &Cx, payload: Vec<u8>) -> Result<Vec<u8>> {
        self.0 += serde_json::from_slice::<i64>(&payload)?;
        cx.put_json("count", &self.0)?;
        Ok(serde_json::to_vec(&self.0)?)
    }
}

#[cfg(test)]
mod test;
