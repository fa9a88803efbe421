//! HTTP: an answer, a parameter, JSON in and out.

use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .get("/", async |_| "hello")
        .get("/users/{id}", show_user)
        .post("/sum", sum)
}

async fn show_user(req: Request) -> Result<String> {
    let id: u64 = req.param("id")?; // a bad id is the client's 400, not our 500
    Ok(format!("user {id}"))
}

/// Takes `[1, 2.5]`, gives `{"sum": 3.5}`.
async fn sum(req: Request) -> Result<Json<serde_json::Value>> {
    let numbers: Vec<f64> = req.json()?;
    Ok(Json(
        serde_json::json!({ "sum": numbers.iter().sum::<f64>() }),
    ))
}

#[test]
fn hello_greets_and_refuses_a_bad_id() {
    let mut server = tidegate::testing::serve(app());
    assert_eq!(server.get("/").text(), "hello");
    assert_eq!(server.get("/users/7").text(), "user 7");
    assert_eq!(server.get("/users/seven").status(), 400);
    assert_eq!(server.post("/sum", "[1, 2.5]").text(), r#"{"sum":3.5}"#);
    assert_eq!(server.post("/sum", "one and two").status(), 400);
}
