//! Presence: who is in a room. The host keeps it with the connections, so that it survives sleep, and nobody has to be forgotten.

use crate::{Conn, Cx, Error, Message, Publication, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// By this tag those who joined are found.
const TAG: &str = "present";

/// Who is in the room whose event runs, by [`Cx::presence`]. What others see of a connection is its [state](Conn::state).
///
/// A connection that [`join`](Presence::join)s gets a snapshot with everybody in it, itself included, and then hears who comes,
/// changes and goes. Events of a room come one after the other, and what one of them tells is told as a whole or not at all: between
/// the snapshot and what follows it nobody is missed, and nobody comes twice. When a connection ends, everybody else is told before
/// [`Room::close`](crate::Room::close) is called, and whatever becomes of that.
///
/// These are text messages with JSON in them, to connections and feeds alike. An `id` is the [connection's](Conn::id); a person
/// with two windows is there twice.
///
/// | when | message |
/// |---|---|
/// | to whoever joins | `{"kind":"snapshot","self":"1","members":[{"id":"1","meta":{"name":"Ann"}}]}` |
/// | to the others | `{"kind":"join","id":"1","meta":{"name":"Ann"}}` |
/// | to all, after a change | `{"kind":"update","id":"1","meta":{"name":"Ann","busy":true}}` |
/// | to all, at the end | `{"kind":"leave","id":"1","meta":{"name":"Ann","busy":true}}` |
///
/// A snapshot is one message, and so has at most 1 MiB: 8,000 members with metas of 100 bytes.
///
/// ```
/// use serde_json::json;
/// use tidegate::{prelude::*, testing};
///
/// #[derive(Default)]
/// struct Tea;
///
/// impl Room for Tea {
///     async fn open(&mut self, cx: &Cx, conn: &Conn, req: &Request) -> Result {
///         let name: String = req.query("name")?;
///         cx.presence().join(conn, &json!({ "name": name }))
///     }
/// }
///
/// let mut server = testing::serve(App::new().room::<Tea>("/rooms/{name}"));
/// let ann = server.connect("/rooms/tea?name=Ann");
/// server.sleep("/rooms/tea");
/// let bob = server.connect("/rooms/tea?name=Bob");
/// let told: serde_json::Value = server.received(bob)[0].json().unwrap();
/// assert_eq!((&told["members"][0]["meta"]["name"], &told["members"][1]["id"]), (&json!("Ann"), &told["self"]));
/// server.disconnect(bob);
/// let kinds: Vec<serde_json::Value> = server.received(ann).iter().map(|message| message.json().unwrap()).collect();
/// assert_eq!((&kinds[1]["kind"], &kinds[2]["kind"], kinds.len()), (&json!("join"), &json!("leave"), 3));
/// ```
#[derive(Clone, Copy)]
pub struct Presence<'a>(&'a Cx);

/// Somebody who is in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member<T> {
    /// The connection's, for [`Cx::find`].
    pub id: String,
    /// What it joined with, or was updated to.
    pub meta: T,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Notice {
    Snapshot {
        #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
        me: Option<String>,
        members: Vec<Member<Value>>,
    },
    Join(Member<Value>),
    Update(Member<Value>),
    Leave(Member<Value>),
}

impl Cx {
    /// Who is in the room.
    pub fn presence(&self) -> Presence<'_> {
        Presence(self)
    }
}

impl Presence<'_> {
    /// The connection is there: it gets a snapshot, the others are told. `meta` becomes its [state](Conn::set_state), at most 16 KiB
    /// of JSON; what nobody may see has its place elsewhere, in tags or in the room's storage. It also gets the tag `present`, one
    /// of its 10, to be kept when you set others. Joining again is an [`update`](Presence::update).
    pub fn join(&self, conn: &Conn, meta: &impl Serialize) -> Result {
        if is_present(conn) {
            return self.update(conn, meta);
        }
        conn.set_state(meta)?;
        conn.set_tags(conn.tags().into_iter().chain([TAG.to_owned()]))?;
        conn.send(Message::from_json(&Notice::Snapshot {
            me: Some(conn.id()),
            members: self.members(),
        })?)?;
        self.tell(Publication::new(Message::from_json(&Notice::Join(member(conn)))?).except(conn))
    }

    /// What others see of the connection has changed: all are told, itself included. Fails if it has not joined.
    pub fn update(&self, conn: &Conn, meta: &impl Serialize) -> Result {
        if !is_present(conn) {
            return Err(Error::fault("only who has joined can be updated"));
        }
        conn.set_state(meta)?;
        self.tell(Publication::new(Message::from_json(&Notice::Update(
            member(conn),
        ))?))
    }

    /// The connection goes, and stays open: all are told, itself included. Nothing happens if it is not there.
    pub fn leave(&self, conn: &Conn) -> Result {
        self.part(conn).map(drop)
    }

    /// As [`leave`](Presence::leave); whether it was there.
    pub(crate) fn part(&self, conn: &Conn) -> Result<bool> {
        if !is_present(conn) {
            return Ok(false);
        }
        conn.set_tags(conn.tags().into_iter().filter(|tag| tag != TAG))?;
        self.tell(Publication::new(Message::from_json(&Notice::Leave(
            member(conn),
        ))?))?;
        Ok(true)
    }

    /// Everybody who is there, in the order of their opening. Fails if a meta is no `T`.
    pub fn list<T: DeserializeOwned>(&self) -> Result<Vec<Member<T>>> {
        let members = self.members().into_iter();
        members
            .map(|Member { id, meta }| {
                Ok(Member {
                    id,
                    meta: serde_json::from_value(meta)?,
                })
            })
            .collect()
    }

    /// A snapshot without `self`, as JSON: for a feed's first event, or an answer to a request.
    pub fn snapshot(&self) -> Result<String> {
        Ok(serde_json::to_string(&Notice::Snapshot {
            me: None,
            members: self.members(),
        })?)
    }

    /// Who comes back gets a snapshot: what was told meanwhile is of no use.
    fn tell(&self, notice: Publication) -> Result {
        self.0.broadcast(notice.transient())
    }

    fn members(&self) -> Vec<Member<Value>> {
        self.0.connections_tagged(TAG).iter().map(member).collect()
    }
}

fn is_present(conn: &Conn) -> bool {
    conn.tags().iter().any(|tag| tag == TAG)
}

/// As the connection's state has it. That may have been set to what is no JSON: then nobody sees it.
fn member(conn: &Conn) -> Member<Value> {
    Member {
        id: conn.id(),
        meta: conn.state().ok().flatten().unwrap_or_default(),
    }
}
