//! A native test decodes a request's path as the host does, with the same guards, the same
//! refusals, and the same path for the app.

use tidegate::{prelude::*, testing};

fn app() -> App {
    App::new()
        .guard("/files/secret/*", async |_: Request| {
            Err::<Pass, _>(Error::status(403, "guarded"))
        })
        .get("/files/{*path}", async |req: Request| told(&req, "path"))
        .get("/one/{name}", async |req: Request| told(&req, "name"))
        .stream("/stream/{name}", async |req: Request, reply: Reply| {
            reply.send(told(&req, "name")?).await
        })
        .page("/page/{name}", shown())
}

fn told(req: &Request, name: &str) -> Result<String> {
    Ok(format!(
        "{} {name}={}",
        req.uri(),
        req.param::<String>(name)?
    ))
}

const PATH: Loader<String> = Loader::new("path");

fn shown() -> Page {
    Page::new(|_, _| Response::html("<!doctype html><body>"))
        .loader(PATH, async |req: &Request, sink: &mut Sink<String>| {
            sink.send(&told(req, "name")?).await
        })
}

#[test]
fn a_path_has_one_reading() {
    let mut server = testing::serve(app());
    let cases = [
        ("/files/a/b", 200, "/files/a/b path=a/b"),
        (
            "/files//a/x/../%62/?q=//#top",
            200,
            "/files/a/b/?q=// path=a/b",
        ),
        ("/one/a%2fb", 200, "/one/a%2Fb name=a/b"),
        ("/stream/./%61%5cb?q", 200, "/stream/a%5Cb?q name=a\\b"),
        ("/files/secret/x", 403, "guarded"),
        ("/files/a/..//%73ecret", 403, "guarded"),
        ("/files/secret%2Fx", 400, "encoded slash"),
        ("/files/a%5Cb", 400, "encoded slash"),
        ("/one/..%2Ffiles%2Fsecret", 400, "encoded slash"),
        ("/__tidegate%2Fhealth", 400, "encoded slash"),
        ("/nowhere%2F", 400, "encoded slash"),
        ("/files/a\\b", 400, "backslash"),
        ("/files/%zz", 400, "percent-encoding"),
    ];
    for (path, status, text) in cases {
        let reply = server.get(path);
        assert!(
            reply.status() == status && reply.text().contains(text),
            "{path}: {} {}",
            reply.status(),
            reply.text()
        );
    }
}

#[test]
fn a_loader_is_guarded_as_the_path_that_its_parameters_make() {
    let mut server = testing::serve(app());
    let loaded = server.load("/page/{name}", PATH, &[("name", "a/b ~")]);
    assert_eq!(loaded.values::<String>(), ["/page/a%2Fb%20~ name=a/b ~"]);
    assert_eq!(
        server
            .load("/page/{name}", PATH, &[("name", "../files/secret")])
            .error(),
        Some((400, AMBIGUOUS))
    );
    assert_eq!(
        server
            .load("/page/{name}", PATH, &[("name", "..")])
            .error()
            .map(|(status, _)| status),
        Some(404)
    );
}

const AMBIGUOUS: &str =
    "an encoded slash or backslash may stand only in a single parameter of the path";
