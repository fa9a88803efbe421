//! The on-close of each connection is delivered exactly once, no matter how long the host has to
//! wait.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use support::{Served, routes, usual, wait_until};
use tidegate_edge::Version;
use tidegate_hub::{Conn, Fault, testing::FakeApp};
use tidegate_routing::{Exports, Router, Target};

/// Number of deliveries of each connection's on-close.
type Delivered = Arc<Mutex<BTreeMap<String, usize>>>;

fn note(delivered: &Delivered, conn: &Conn) {
    *delivered
        .lock()
        .unwrap()
        .entry(conn.id().to_string())
        .or_default() += 1;
}

/// Returns an app whose on-close fails with this fault while the flag is set.
fn hindered(
    fault: Fault,
    hinders: &Arc<AtomicBool>,
    tries: &Arc<AtomicUsize>,
    delivered: &Delivered,
) -> FakeApp {
    let (hinders, tries, delivered) = (hinders.clone(), tries.clone(), delivered.clone());
    let close = move |(conn, _): (Arc<Conn>, _)| {
        tries.fetch_add(1, Ordering::Relaxed);
        if hinders.load(Ordering::Relaxed) {
            return Err(fault.clone());
        }
        note(&delivered, &conn);
        Ok(())
    };
    FakeApp {
        close: Box::new(close),
        ..FakeApp::default()
    }
}

#[test]
fn an_undeliverable_on_close_keeps_its_place_and_is_delivered_once_later() {
    for fault in [Fault::Busy, Fault::Host("as asked".into())] {
        let (hinders, tries, delivered) = (
            Arc::new(AtomicBool::new(true)),
            Arc::<AtomicUsize>::default(),
            Delivered::default(),
        );
        let served = Served::usual(hindered(fault.clone(), &hinders, &tries, &delivered));
        let clients: Vec<_> = (0..20).map(|_| served.websocket()).collect();
        wait_until("on-open", || served.hub.connections().owed_closes() == 20);
        drop(clients);
        wait_until("some tries", || tries.load(Ordering::Relaxed) > 10);
        assert_eq!(
            (
                served.hub.connections().count().0,
                served.hub.connections().owed_closes()
            ),
            (20, 20),
            "{fault}"
        );
        hinders.store(false, Ordering::Relaxed);
        wait_until("every on-close", || served.hub.connections().count().0 == 0);
        assert_eq!(
            delivered
                .lock()
                .unwrap()
                .values()
                .copied()
                .collect::<Vec<_>>(),
            [1; 20],
            "{fault}"
        );
    }
}

#[test]
fn an_on_close_that_fails_counts_as_delivered() {
    for fault in [
        Fault::Trap("as asked".into()),
        Fault::Cpu,
        Fault::Wall,
        Fault::Memory,
        Fault::Shortage,
        Fault::Answer("as asked".into()),
    ] {
        let (hinders, tries, delivered) = (
            Arc::new(AtomicBool::new(true)),
            Arc::<AtomicUsize>::default(),
            Delivered::default(),
        );
        let served = Served::usual(hindered(fault.clone(), &hinders, &tries, &delivered));
        drop(served.websocket());
        wait_until("its end", || {
            tries.load(Ordering::Relaxed) == 1 && served.hub.connections().count().0 == 0
        });
        // The next on-close is delivered once as well.
        hinders.store(false, Ordering::Relaxed);
        drop(served.websocket());
        wait_until("the next one", || delivered.lock().unwrap().len() == 1);
        assert_eq!(tries.load(Ordering::Relaxed), 2, "{fault}");
    }
}

#[test]
fn a_connection_has_an_on_close_exactly_if_its_on_open_was_called() {
    for (fault, owed) in [
        (Fault::Busy, 0),
        (Fault::Host("as asked".into()), 0),
        (Fault::Trap("as asked".into()), 1),
        (Fault::Wall, 1),
    ] {
        let delivered = Delivered::default();
        let (ends, fails) = (delivered.clone(), fault.clone());
        let app = FakeApp {
            open: Box::new(move |_| Err(fails.clone())),
            close: Box::new(move |(conn, _)| {
                note(&ends, &conn);
                Ok(())
            }),
            ..FakeApp::default()
        };
        let served = Served::usual(app);
        let mut raw = served.websocket();
        assert_eq!(raw.frame().0, 0x88, "{fault}");
        drop(raw);
        wait_until("its end", || served.hub.connections().count().0 == 0);
        assert_eq!(delivered.lock().unwrap().len(), owed, "{fault}");
    }
}

#[test]
fn the_on_close_of_a_removed_route_goes_to_the_last_version_with_that_route() {
    let (never, tries) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicUsize>::default(),
    );
    let [by_old, by_new] = [(); 2].map(|()| Delivered::default());
    let served = Served::usual(hindered(Fault::Busy, &never, &tries, &by_old));
    let gone = served.websocket();
    wait_until("on-open", || served.hub.connections().owed_closes() == 1);
    let version = |manifest| {
        let router = Router::new(&manifest, Exports::ALL).unwrap();
        Arc::new(Version {
            app: Arc::new(hindered(Fault::Busy, &never, &tries, &by_new)),
            router,
        })
    };
    assert_eq!(
        served
            .server
            .swap(version(routes(&[("GET", "/hello", Target::Http)])))
            .closed,
        1
    );
    drop(gone);
    wait_until("its end", || served.hub.connections().count().0 == 0);
    assert_eq!(
        (by_old.lock().unwrap().len(), by_new.lock().unwrap().len()),
        (1, 0)
    );
    // A version that has the route again gets the on-close of its own connections.
    served.server.swap(version(usual()));
    drop(served.websocket());
    wait_until("the next end", || by_new.lock().unwrap().len() == 1);
    assert_eq!(by_old.lock().unwrap().len(), 1);
}
