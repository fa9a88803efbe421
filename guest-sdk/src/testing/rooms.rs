//! What a test does with the server's rooms: lets them sleep, moves their clock, fails their storage, looks into it.

use super::{Reply, Server};
use crate::App;
use std::time::Duration;
use tidegate_hub::{Engine as _, EngineError, LimitError, RoomId};
use tidegate_routing::{Path, RouteMatch, Wants};

/// Alarms that may come at one and the same time.
const ALARMS_MAX: usize = 1000;

/// Rooms.
impl Server {
    /// Puts the room of this path to sleep, as the host does after 10 seconds without an event: what it has in memory is gone,
    /// its connections stay, and the next event wakes it.
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
        let room = self.room_at(path);
        self.stage.rooms.borrow_mut().awake.remove(&room);
    }

    /// Lets so much time go by: alarms that become due in it are called in their order, those that fail again as often as the host
    /// does. Panics at the thousandth alarm of one and the same time.
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
        let until = self.stage.now() + time;
        let mut left = ALARMS_MAX;
        while let Some((due, room, alarm)) = self.stage.next_alarm(until) {
            left = if due > self.stage.now() {
                ALARMS_MAX
            } else {
                left - 1
            };
            assert!(
                left > 0,
                "{room} sets its alarm to the time that it is called at, again and again"
            );
            self.stage.set_now(due.max(self.stage.now()));
            self.stage.call_alarm(&room, alarm);
            self.settle();
        }
        self.stage.set_now(until);
    }

    /// The next event of a room that writes fails to become durable: it has not happened, and its client is told so.
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
        self.stage
            .rooms
            .borrow_mut()
            .memory
            .fail_next([EngineError::Io("the test asked for it".into())]);
    }

    /// Another version of the app takes the place of this one, as `tidegate reload` and `tidegate dev` do it: connections, feeds and what
    /// rooms keep stay, rooms wake anew, and WebSockets whose route is gone are closed with 1012. Panics, as [`serve`](super::serve)
    /// does, at a version that the host refuses.
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
        let router = super::router(&app);
        for client in &mut self.clients {
            let route = self
                .router
                .route(client.route)
                .expect("it was matched with it");
            match router.successor(route) {
                Some(index) => client.route = index,
                None => client.drop_dead(1012, "a new version of the app has no such route"),
            }
        }
        self.router = router;
        self.stage.set_app(app);
    }

    /// As if the host had been killed and started again: connections, feeds and everything in memory are gone, what rooms keep is
    /// there, and the clock is where it was.
    pub fn restart(&mut self) {
        self.stage.rooms.borrow_mut().awake.clear();
        self.stage.rooms.borrow_mut().deferred.clear();
        self.clients
            .iter_mut()
            .for_each(|client| client.drop_dead(1006, ""));
        self.listeners
            .iter_mut()
            .for_each(super::listener::Listener::drop_dead);
    }

    /// The value that the room of this path keeps under a key.
    pub fn stored(&self, path: &str, key: &str) -> Option<Vec<u8>> {
        let value = self
            .stage
            .rooms
            .borrow_mut()
            .memory
            .get(&self.room_at(path), key);
        value
            .expect("memory can be read")
            .map(|value| value.to_vec())
    }

    /// The room that this path leads to. Panics if it leads to none.
    fn room_at(&self, path: &str) -> RoomId {
        let parsed = Path::parse(path).unwrap_or_else(|_| panic!("{path:?} is no path"));
        let found = self.router.find("GET", Wants::WebSocket, &parsed);
        let RouteMatch::Route { index, params, .. } = found else {
            panic!("no route leads to {path:?}")
        };
        let room = self
            .room_of(index, &params)
            .unwrap_or_else(|reply| panic!("{path:?}: {reply:?}"));
        room.unwrap_or_else(|| panic!("{path:?} is no room's"))
    }

    /// The room of a route, if it has any; a 400 if no room can have this name.
    pub(super) fn room_of(
        &self,
        route: u32,
        params: &[(String, String)],
    ) -> Result<Option<RoomId>, Reply> {
        let Some(class) = self
            .router
            .route(route)
            .and_then(|route| route.room.as_deref())
        else {
            return Ok(None);
        };
        match RoomId::of_params(class, params.iter().map(|(_, value)| value.as_str())) {
            Ok(room) => Ok(Some(room)),
            Err(LimitError::TooLarge) => Err(Reply::of_host(400, "the room's name is too long")),
            Err(_) => Err(Reply::of_host(
                400,
                "the room's name has a control character",
            )),
        }
    }
}
