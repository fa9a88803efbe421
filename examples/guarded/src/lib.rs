//! Guards: one adds a header to every answer, the other requires a token and passes the user's
//! name.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .guard("/*", sign)
        .guard("/private/*", known)
        .guard("/socket", known)
        .get("/", async |_| "open to everybody")
        .get("/private/name", async |req| {
            format!("you are {}", user(&req))
        })
        .socket("/socket", Greeter)
}

async fn sign(_: Request) -> Pass {
    Pass::new().header("x-served-by", "guarded")
}

/// The token comes as `authorization: Bearer ...`, or as `?token=...` from a browser's `new
/// WebSocket`.
async fn known(req: Request) -> Result<Pass> {
    let token = req.bearer().map(str::to_owned).or(req.query_opt("token")?);
    match token.as_deref() {
        Some("tide-ann") => Ok(Pass::new().context("user", "ann")),
        Some("tide-bob") => Ok(Pass::new().context("user", "bob")),
        _ => Err(Error::status(401, "a token, please").header("www-authenticate", "Bearer")),
    }
}

/// Returns the name that the guard passed. A client cannot forge it.
fn user(req: &Request) -> &str {
    req.context("user").unwrap_or("nobody")
}

struct Greeter;

impl Socket for Greeter {
    async fn open(&self, conn: &Conn, req: &Request) -> Result {
        conn.send(format!("hello {}", user(req)))
    }
}

#[test]
fn only_known_users_are_admitted() {
    let mut server = tidegate::testing::serve(app());
    assert_eq!(server.get("/").header("x-served-by"), Some("guarded"));
    let refused = server.get("/private/name");
    assert_eq!(
        (refused.status(), refused.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    let ann = server.request(
        "GET",
        "/private/name",
        &[("authorization", "Bearer tide-ann")],
        "",
    );
    assert_eq!(
        (ann.text(), ann.header("x-served-by")),
        ("you are ann", Some("guarded"))
    );
    assert_eq!(server.try_connect("/socket").unwrap_err().status(), 401);
    let bob = server.connect("/socket?token=tide-bob");
    assert_eq!(server.received(bob), ["hello bob"]);
}
