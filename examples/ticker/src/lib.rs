//! Two event streams: one that the host holds and anyone may publish to, one that the app writes
//! itself.

use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .feed("/prices", |_| {
            Feed::follow("prices").first_event("open", "the market is open")
        })
        .post("/prices", post_price)
        .stream("/ticks", ticks)
}

/// Takes `{"name": "tea", "price": 12.5}` and returns the price's number.
/// Followers receive the body unchanged.
async fn post_price(req: Request) -> Result<(u16, String)> {
    let price: serde_json::Value = req.json()?;
    if !price["name"].is_string() || !price["price"].is_number() {
        return Err(Error::bad_request(
            r#"{"name": "tea", "price": 12.5}, please"#,
        ));
    }
    let number = Publication::new(price.to_string())
        .event("price")
        .publish("prices")?;
    Ok((201, number.to_string()))
}

/// Counts on from what the client had last. It ends when the client goes away: then `send` fails.
async fn ticks(req: Request, reply: Reply) -> Result {
    let last: u64 = req
        .last_event_id()
        .and_then(|id| id.parse().ok())
        .unwrap_or(0);
    let mut events = reply.events()?;
    for n in last + 1.. {
        events
            .send(
                Event::data(format!("tick {n}"))
                    .event("tick")
                    .id(n.to_string()),
            )
            .await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

#[test]
fn a_price_reaches_every_follower() {
    let mut server = tidegate::testing::serve(app());
    let feed = server.subscribe("/prices");
    assert_eq!(
        server
            .post("/prices", r#"{"name": "tea", "price": 12.5}"#)
            .status(),
        201
    );
    assert_eq!(server.post("/prices", "tea for two").status(), 400);
    assert_eq!(
        server.events(feed),
        ["the market is open", r#"{"name":"tea","price":12.5}"#]
    );
}

#[test]
fn ticks_resume_at_their_number() {
    let mut server = tidegate::testing::serve(app());
    let again = tidegate::testing::Connect::to("/ticks").header("last-event-id", "41");
    assert_eq!(
        server.stream(again).take(2).events(),
        ["tick 42", "tick 43"]
    );
}
