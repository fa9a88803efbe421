//! The router of a version's events: to rooms where its routes say so, and to the app elsewhere.

use crate::{
    app::{App, BodyStream, Call, Instance, Pages, RoomAnswer, RoomEvent, StreamingResponse},
    event::{CloseEvent, Decision, Verdict},
    fault::Fault,
    limits::LimitError,
    message::Message,
    name::RoomId,
    realtime::{connections::Conn, feed::Feed},
    request::{Request, Response},
    rooms::{scheduler::Rooms, version::Version},
};
use bytes::Bytes;
use http::StatusCode;
use std::{future::Future, pin::Pin, sync::Arc};
use tidegate_routing::Manifest;

/// An app whose events go to rooms where its routes say so, and to the app itself elsewhere.
pub struct RoomRouter {
    rooms: Arc<Rooms>,
    version: Arc<Version>,
}

impl RoomRouter {
    /// Returns a router. It has no effect on the rooms before its version is
    /// [served](RoomRouter::serve).
    pub fn new(rooms: Arc<Rooms>, app: Arc<dyn App>, manifest: Manifest) -> Arc<RoomRouter> {
        Arc::new(RoomRouter {
            rooms,
            version: Arc::new(Version { app, manifest }),
        })
    }

    /// Serves this version: rooms wake as it from now on. In a room that is awake, the version
    /// before finishes the event in progress.
    pub fn serve(&self) {
        self.rooms.serve(self.version.clone());
    }

    /// Returns the room of a route's event; none if the route has none.
    fn room_of(&self, request: &Request) -> Option<Result<RoomId, LimitError>> {
        let class = self
            .version
            .manifest
            .routes
            .get(request.route as usize)?
            .room
            .as_deref()?;
        Some(RoomId::of_params(
            class,
            request.params.iter().map(|(_, value)| value.as_str()),
        ))
    }

    /// Hands the event to its room, and waits for the outcome.
    async fn ask(&self, room: &RoomId, event: RoomEvent) -> Result<RoomAnswer, Fault> {
        let outcome = self.rooms.post(room, event, Some(&self.version))?;
        outcome
            .await
            .unwrap_or_else(|_| Err(Fault::Host("the room's turn was given up".into())))
    }
}

impl App for RoomRouter {
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict> {
        self.version.app.check(guard, request)
    }

    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response> {
        let Some(room) = self.room_of(request) else {
            return self.version.app.handle(request, body);
        };
        Box::pin(async move {
            match room {
                Err(error) => Ok(no_room(error)),
                Ok(room) => match self
                    .ask(&room, RoomEvent::Handle(Box::new(request.clone()), body))
                    .await?
                {
                    RoomAnswer::Response(response) => Ok(response),
                    _ => Err(mistaken()),
                },
            }
        })
    }

    fn stream<'a>(&'a self, request: &'a Request, body: BodyStream) -> Call<'a, StreamingResponse> {
        self.version.app.stream(request, body)
    }

    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision> {
        let Some(room) = self.room_of(request) else {
            return self.version.app.upgrade(request, offered);
        };
        Box::pin(async move {
            let room = match room {
                Ok(room) => room,
                Err(error) => return Ok(Decision::Reject(no_room(error))),
            };
            match self
                .ask(
                    &room,
                    RoomEvent::Upgrade(Box::new(request.clone()), offered.to_vec()),
                )
                .await?
            {
                RoomAnswer::Decision(Decision::Accept(mut accept)) => {
                    accept.room = Some(room);
                    Ok(Decision::Accept(accept))
                }
                RoomAnswer::Decision(decision) => Ok(decision),
                _ => Err(mistaken()),
            }
        })
    }

    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()> {
        match conn.room().cloned() {
            None => self.version.app.clone().open(conn, request),
            Some(room) => Box::pin(async move {
                self.ask(&room, RoomEvent::Open(conn, Box::new(request)))
                    .await
                    .map(|_| ())
            }),
        }
    }

    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()> {
        match conn.room().cloned() {
            None => self.version.app.clone().messages(conn, messages),
            Some(room) => Box::pin(async move {
                self.ask(&room, RoomEvent::Messages(conn, messages))
                    .await
                    .map(|_| ())
            }),
        }
    }

    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseEvent) -> Call<'static, ()> {
        match conn.room().cloned() {
            None => self.version.app.clone().close(conn, info),
            Some(room) => Box::pin(async move {
                self.ask(&room, RoomEvent::Close(conn, info))
                    .await
                    .map(|_| ())
            }),
        }
    }

    fn subscribe<'a>(
        &'a self,
        request: &'a Request,
        last_event_id: Option<&'a str>,
    ) -> Call<'a, Result<Feed, Response>> {
        let Some(room) = self.room_of(request) else {
            return self.version.app.subscribe(request, last_event_id);
        };
        Box::pin(async move {
            let room = match room {
                Ok(room) => room,
                Err(error) => return Ok(Err(no_room(error))),
            };
            match self
                .ask(
                    &room,
                    RoomEvent::Subscribe(
                        Box::new(request.clone()),
                        last_event_id.map(str::to_owned),
                    ),
                )
                .await?
            {
                RoomAnswer::Feed(feed) => Ok(feed),
                _ => Err(mistaken()),
            }
        })
    }

    fn instance(&self) -> Call<'_, Box<dyn Instance>> {
        self.version.app.instance()
    }

    fn pages(&self) -> &dyn Pages {
        self.version.app.pages()
    }

    fn wait_for_shortage(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.version.app.wait_for_shortage()
    }
}

/// Returns the response for a path that cannot name a room.
fn no_room(error: LimitError) -> Response {
    let text = match error {
        LimitError::TooLarge => "the room's name is too long",
        _ => "the room's name has a control character",
    };
    let headers = vec![(
        "content-type".to_owned(),
        Bytes::from_static(b"text/plain; charset=utf-8"),
    )];
    Response {
        status: StatusCode::BAD_REQUEST,
        headers,
        body: format!("{text}\n").into(),
    }
}

/// Returns the fault of an answer whose kind does not match the event.
fn mistaken() -> Fault {
    Fault::Host("the room answered another event than it was asked".into())
}
