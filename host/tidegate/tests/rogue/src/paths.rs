//! Every consumer of a path answers with the path and the parameters that it received.

use tidegate::prelude::*;

pub(crate) fn register(app: App) -> App {
    app.guard("/paths/secret/*", async |_: Request| {
        Err::<Pass, _>(Error::status(403, "guarded"))
    })
    .guard("/paths/noted/*", async |req: Request| {
        Ok::<_, Error>(Pass::new().header("x-guard", req.uri()))
    })
    .get("/paths/{*rest}", async |req: Request| {
        describe(&req, "rest")
    })
    .get("/paths/noted/{name}", async |req: Request| {
        describe(&req, "name")
    })
    .get("/paths/one/{name}", async |req: Request| {
        describe(&req, "name")
    })
    .get("/paths/one/{name}/tail", async |req: Request| {
        describe(&req, "name")
    })
    .stream(
        "/paths/stream/{name}",
        async |req: Request, reply: Reply| reply.send(describe(&req, "name")?).await,
    )
    .stream(
        "/paths/streams/{*rest}",
        async |req: Request, reply: Reply| reply.send(describe(&req, "rest")?).await,
    )
    .room::<Named>("/paths/rooms/{name}")
    .page("/paths/page/{name}", shown())
}

fn describe(req: &Request, name: &str) -> Result<String> {
    Ok(format!(
        "{} {name}={}",
        req.uri(),
        req.param::<String>(name)?
    ))
}

#[derive(Default)]
struct Named;

impl Room for Named {
    async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
        Ok(Response::text(format!("{} room={}", req.uri(), cx.name())))
    }
}

const PATH: Loader<String> = Loader::new("path");

fn shown() -> Page {
    let render = |req: &Request, _: &View| -> Result<Response> {
        Ok(Response::html(format!(
            "<!doctype html><body>{}</body>",
            describe(req, "name")?
        )))
    };
    Page::new(render)
        .loader(PATH, async |req: &Request, sink: &mut Sink<String>| {
            sink.send(&describe(req, "name")?).await
        })
        .action("stay", async |_: &Request, _: &mut Form| Done::success(&()))
}
