//! A page whose loaders and actions misbehave as their names say, and some that work.

use crate::misbehave::misbehave;
use tidegate::prelude::*;

pub(crate) fn rogue() -> Page {
    let page = Page::new(|_, _| Response::html("<!doctype html><body>a page</body>"))
        .loader(
            Loader::new("calm"),
            async |_: &Request, sink: &mut Sink<str>| sink.send("calm").await,
        )
        .action("weigh", async |_: &Request, form: &mut Form| {
            weigh(form).await
        })
        .action("linger", async |_: &Request, form: &mut Form| {
            form.progress(&"begun").await?;
            misbehave("sleep").await?;
            Done::success(&())
        });
    ["panic", "spin", "eat", "fail"]
        .into_iter()
        .fold(page, |page, how| {
            page.loader(
                Loader::new(how),
                async move |_: &Request, _: &mut Sink<()>| misbehave(how).await,
            )
            .action(how, async move |_: &Request, _: &mut Form| {
                misbehave(how).await?;
                Done::success(&())
            })
        })
}

/// A page that cannot be rendered, with a loader that never brings a value.
pub(crate) fn broken() -> Page {
    Page::new(unrendered).loader(
        Loader::new("sleep").deferred(),
        async |_: &Request, _: &mut Sink<()>| misbehave("sleep").await,
    )
}

fn unrendered(_: &Request, _: &View) -> Response {
    panic!("it is not rendered")
}

/// Counts the bytes of each field, of any size.
async fn weigh(form: &mut Form) -> Result<Done> {
    let mut weights = Vec::new();
    while let Some(field) = form.next().await? {
        let mut bytes = 0;
        while let Some(piece) = form.piece().await? {
            bytes += piece.len();
        }
        weights.push((field.name().to_owned(), bytes));
        form.progress(&weights).await?;
    }
    Done::success(&weights)
}

/// A page whose loader stops only when the client no longer reads.
pub(crate) fn flood() -> Page {
    Page::new(|_, _| Response::html("<!doctype html><body>a flood</body>"))
        .loader(Loader::new("flood"), send_endlessly)
}

async fn send_endlessly(_: &Request, sink: &mut Sink<(u64, String)>) -> Result {
    let text = "x".repeat(64 << 10);
    for number in 0.. {
        sink.send(&(number, text.clone())).await?;
    }
    Ok(())
}
