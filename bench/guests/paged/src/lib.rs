//! Pages to be measured: the same one without loaders, with a slow one, and with one that brings
//! the time of its yield again and again.

use std::time::{Duration, Instant, SystemTime};
use tidegate::prelude::*;

tidegate::serve!(app);

fn app() -> App {
    App::new()
        .page("/plain", page())
        .page("/slow", page().loader(Loader::new("slow"), slow))
        .page("/busy", page().loader(Loader::new("busy").deferred(), busy))
        .page(
            "/live/{ms}",
            page().loader(Loader::live("live").awaited(), live),
        )
}

const HTML: &str = "<!doctype html><html><head><title>measured</title></head><body><h1>measured</h1></body></html>";

fn page() -> Page {
    Page::new(|_, _| Response::html(HTML))
}

async fn slow(_: &Request, sink: &mut Sink<str>) -> Result {
    sleep(Duration::from_millis(300)).await;
    sink.send("at last").await
}

async fn busy(_: &Request, sink: &mut Sink<str>) -> Result {
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {}
    sink.send("at last").await
}

async fn live(req: &Request, sink: &mut Sink<u64>) -> Result {
    let ms: u64 = req.param("ms")?;
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        sink.send(&(now.as_micros() as u64)).await?;
        sleep(Duration::from_millis(ms)).await;
    }
}

#[test]
fn each_page_is_served() {
    let mut server = tidegate::testing::serve(app());
    for path in ["/plain", "/slow", "/busy", "/live/1000"] {
        assert_eq!(server.get(path).status(), 200, "{path}");
    }
    assert_eq!(
        server
            .load_some("/live/{ms}", "live", &[("ms", "1000")], 3)
            .took(),
        Duration::from_secs(2)
    );
}
