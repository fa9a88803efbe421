//! A page whose loaders and actions misbehave as their names say, and some that don't.

use crate::misbehave::misbehave;
use tidegate::prelude::*;

pub(crate) struct Rogue;

impl Page for Rogue {
    const LOADERS: &[Loader] = &[
        Loader::new("panic"),
        Loader::new("spin"),
        Loader::new("eat"),
        Loader::new("fail"),
        Loader::new("calm"),
    ];
    const ACTIONS: &[&str] = &["panic", "spin", "eat", "fail", "weigh", "linger"];

    async fn load(&self, loader: &str, _: &Request, sink: &mut Sink) -> Result {
        match loader {
            "calm" => sink.send("calm").await,
            how => misbehave(how).await,
        }
    }

    async fn act(&self, action: &str, _: &Request, form: &mut Form) -> Result<Done> {
        match action {
            "weigh" => weigh(form).await,
            "linger" => {
                form.progress(&"begun").await?;
                misbehave("sleep").await?;
                Done::success(&())
            }
            how => {
                misbehave(how).await?;
                Done::success(&())
            }
        }
    }

    fn render(&self, _: &Request, _: &View) -> Result<Response> {
        Ok(Response::html("<!doctype html><body>a page</body>"))
    }
}

/// The bytes of each field, however large.
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

/// A page whose loader never stops for want of anything but a reader.
pub(crate) struct Flood;

impl Page for Flood {
    const LOADERS: &[Loader] = &[Loader::new("flood")];

    async fn load(&self, _: &str, _: &Request, sink: &mut Sink) -> Result {
        let text = "x".repeat(64 << 10);
        for number in 0.. {
            sink.send(&(number, &text)).await?;
        }
        Ok(())
    }

    fn render(&self, _: &Request, _: &View) -> Result<Response> {
        Ok(Response::html("<!doctype html><body>a flood</body>"))
    }
}
