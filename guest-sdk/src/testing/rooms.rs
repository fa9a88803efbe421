//! Control of a test over the server's rooms: sleep, clock, storage failures and stored values.

use super::Server;
use crate::App;
use std::time::Duration;
use tidegate_hub::{CloseEvent, Engine as _, EngineError, RoomId};
use tidegate_routing::{Path, RouteMatch, Wants};

/// Maximum number of alarms at the same time.
const ALARMS_MAX: usize = 1000;

/// Rooms.
impl Server {
    /// Puts the room of this path to sleep, as the host does after 10 seconds without an event. Its
    /// values in memory are dropped, its connections stay, and the next event wakes it.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// #[derive(Default)]
    /// struct Forgetful(u32);
    ///
    /// impl Room for Forgetful {
    ///     async fn message(&mut self, _: &Cx, conn: &Conn, _: Message) -> Result {
    ///         self.0 += 1;
    ///         conn.send(self.0.to_string())
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Forgetful>("/{name}"));
    /// let ann = server.connect("/tea");
    /// server.send(ann, "x");
    /// server.sleep("/tea");
    /// server.send(ann, "x");
    /// assert_eq!(server.received(ann), ["1", "1"]);
    /// ```
    pub fn sleep(&mut self, path: &str) {
        self.host.rooms.sleep(&self.room_at(path));
    }

    /// Moves the clock forward. Alarms that become due are called in order, and failed ones are
    /// repeated as often as by the host. Panics at the thousandth alarm of the same time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{prelude::*, testing};
    ///
    /// #[derive(Default)]
    /// struct Egg;
    ///
    /// impl Room for Egg {
    ///     async fn open(&mut self, cx: &Cx, _: &Conn, _: &Request) -> Result {
    ///         cx.alarm_in(Duration::from_secs(300));
    ///         Ok(())
    ///     }
    ///     async fn alarm(&mut self, cx: &Cx) -> Result {
    ///         cx.broadcast("done")
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Egg>("/eggs/{name}"));
    /// let ann = server.connect("/eggs/soft");
    /// server.advance(Duration::from_secs(299));
    /// assert!(server.received(ann).is_empty());
    /// server.advance(Duration::from_secs(1));
    /// assert_eq!(server.received(ann), ["done"]);
    /// ```
    pub fn advance(&mut self, time: Duration) {
        let until = self.host.wall() + time.as_millis() as u64;
        let (mut wall, mut left) = (self.host.wall(), ALARMS_MAX);
        while self.host.advance_to(until) {
            self.settle();
            left = if self.host.wall() > wall {
                ALARMS_MAX
            } else {
                left - 1
            };
            wall = self.host.wall();
            assert!(
                left > 0,
                "a room sets its alarm to the time that it is called at, again and again"
            );
        }
        self.settle();
    }

    /// Makes the commit of the next event that writes fail: the event has no effect, and its client
    /// receives the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// #[derive(Default)]
    /// struct Note;
    ///
    /// impl Room for Note {
    ///     async fn request(&mut self, cx: &Cx, req: Request) -> Result<Response> {
    ///         cx.put("note", req.bytes())?;
    ///         Ok(Response::text("kept"))
    ///     }
    /// }
    ///
    /// let mut server = testing::serve(App::new().room::<Note>("/note"));
    /// server.fail_next_commit();
    /// assert_eq!((server.post("/note", "tea").status(), server.stored("/note", "note")), (500, None));
    /// server.post("/note", "tea");
    /// server.restart();
    /// assert_eq!(server.stored("/note", "note").unwrap(), b"tea");
    /// ```
    pub fn fail_next_commit(&mut self) {
        self.host
            .memory
            .fail_next([EngineError::Io("the test asked for it".into())]);
    }

    /// Replaces the app by another version, as `tidegate reload` and `tidegate dev` do.
    /// Connections, feeds and stored values stay, rooms wake again, and WebSockets without a route
    /// are closed with 1012. Panics, as [`serve`](super::serve) does, if the host would refuse the
    /// version.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidegate::{prelude::*, testing};
    ///
    /// let mut server = testing::serve(App::new().socket("/", async |conn: Conn, _| conn.send("one")));
    /// let ann = server.connect("/");
    /// server.reload(App::new().get("/new", async |_| "new").socket("/", async |conn: Conn, _| conn.send("two")));
    /// server.send(ann, "x");
    /// server.expect(ann, "two");
    /// server.reload(App::new().get("/new", async |_| "new"));
    /// assert_eq!(server.closed(ann).unwrap().0, 1012);
    /// ```
    pub fn reload(&mut self, app: App) {
        let (router, manifest) = super::checked(&app);
        for at in 0..self.clients.len() {
            let route = self.clients[at]
                .opened
                .as_ref()
                .and_then(|opened| opened.route());
            // The last event goes to the version that had the route.
            if route.is_some_and(|route| !router.has_successor(route)) {
                let info = CloseEvent {
                    code: 1012,
                    reason: "a new version of the app has no such route".to_owned(),
                    was_clean: true,
                    is_peer_initiated: false,
                };
                self.end(at, info);
            }
        }
        self.host.reload(app, router, manifest);
        self.settle();
    }

    /// Kills the host and starts it again: connections, feeds and everything in memory are gone,
    /// stored values remain, and the clock keeps its time.
    pub fn restart(&mut self) {
        self.clients
            .iter_mut()
            .for_each(|client| client.drop_dead(1006, ""));
        self.listeners
            .iter_mut()
            .for_each(super::listener::FeedClient::drop_dead);
        self.host.restart();
    }

    /// Returns the stored value of a key in the room of this path.
    pub fn stored(&self, path: &str, key: &str) -> Option<Vec<u8>> {
        let value = self.host.memory.get(&self.room_at(path), key);
        value
            .expect("memory can be read")
            .map(|value| value.to_vec())
    }

    /// Returns the room of this path. Panics if there is none.
    fn room_at(&self, path: &str) -> RoomId {
        let parsed = Path::parse(path).unwrap_or_else(|_| panic!("{path:?} is no path"));
        let found = self.host.router.find("GET", Wants::WebSocket, &parsed);
        let RouteMatch::Route { index, params, .. } = found else {
            panic!("no route leads to {path:?}")
        };
        let route = self.host.router.route(index);
        let class = route.and_then(|route| route.room.as_deref());
        let class = class.unwrap_or_else(|| panic!("{path:?} is no room's"));
        RoomId::of_params(class, params.iter().map(|(_, value)| value.as_str()))
            .unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }
}
