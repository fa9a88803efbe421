//! A dashboard: askama renders it, a live loader streams the load of a machine into it, and a
//! WebSocket beside it takes notes.

use askama::Template;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    let dashboard = Page::new(render).loader(LOAD, load);
    App::new().page("/", dashboard).socket("/notes", Notes)
}

const LOAD: Loader<Reading> = Loader::live("load").awaited();

/// One reading.
#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    second: u32,
    percent: u32,
}

#[derive(Template)]
#[template(path = "dash.html")]
struct Screen<'a> {
    nonce: &'a str,
    reading: Reading,
}

async fn load(_: &Request, sink: &mut Sink<Reading>) -> Result {
    for second in 0.. {
        sink.send(&Reading {
            second,
            percent: (second * 37 + 20) % 100,
        })
        .await?;
        sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

fn render(_: &Request, view: &View) -> Result<Response> {
    let reading = view.value(LOAD)?.unwrap_or(Reading {
        second: 0,
        percent: 0,
    });
    let page = Screen {
        nonce: view.nonce(),
        reading,
    }
    .render()?;
    Ok(Response::html(page).header("content-security-policy", view.strict_policy()))
}

/// Notes, which all visitors see.
struct Notes;

impl Socket for Notes {
    async fn open(&self, conn: &Conn, _: &Request) -> Result {
        conn.follow("notes")
    }

    async fn message(&self, _: &Conn, note: Message) -> Result {
        publish("notes", note)
    }
}

#[test]
fn the_dashboard_begins_with_a_reading_and_shares_notes() {
    let mut server = tidegate::testing::serve(app());
    assert!(
        server
            .get("/")
            .text()
            .contains("<b id=\"percent\" data-slot=\"load.percent\">20</b>")
    );
    let readings: Vec<Reading> = server.load_some("/", LOAD, &[], 3).values();
    assert_eq!(
        readings
            .iter()
            .map(|reading| reading.percent)
            .collect::<Vec<_>>(),
        [20, 57, 94]
    );
    let (ann, bob) = (server.connect("/notes"), server.connect("/notes"));
    server.send(ann, "fan is loud");
    server.expect(bob, "fan is loud");
}
