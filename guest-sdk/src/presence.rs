//! Presence: the members of a room. The host keeps them with the connections, so presence survives
//! a sleep, and a connection that ends is no longer a member.

use crate::{Conn, Cx, Error, Message, Publication, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The tag of connections that joined.
const TAG: &str = "present";

/// Members of the room whose event runs, by [`Cx::presence`]. Others see a connection's
/// [state](Conn::state).
///
/// A connection that [`join`](Presence::join)s receives a snapshot of all members, itself included,
/// and then a message for each member that joins, changes or leaves. Events of a room run one after
/// the other, and the messages of one event are sent together or not at all, so no member is
/// missing and none appears twice. When a connection ends, the others receive `leave` before
/// [`Room::close`](crate::Room::close) is called, also if that handler fails.
///
/// These are text messages with JSON, for connections and feeds. An `id` is the
/// [connection's](Conn::id), so a person with two windows is a member twice.
///
/// | when | message |
/// |---|---|
/// | to the connection that joins | `{"kind":"snapshot","self":"1","members":[{"id":"1","meta":{"name":"Ann"}}]}` |
/// | to the others | `{"kind":"join","id":"1","meta":{"name":"Ann"}}` |
/// | to all, after a change | `{"kind":"update","id":"1","meta":{"name":"Ann","busy":true}}` |
/// | to all, at the end | `{"kind":"leave","id":"1","meta":{"name":"Ann","busy":true}}` |
///
/// A snapshot is one message, and so has at most 1 MiB: 8,000 members with metas of 100 bytes.
///
/// # Examples
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
/// let snapshot: serde_json::Value = server.received(bob)[0].json().unwrap();
/// assert_eq!((&snapshot["members"][0]["meta"]["name"], &snapshot["members"][1]["id"]), (&json!("Ann"), &snapshot["self"]));
/// server.disconnect(bob);
/// let kinds: Vec<serde_json::Value> = server.received(ann).iter().map(|message| message.json().unwrap()).collect();
/// assert_eq!((&kinds[1]["kind"], &kinds[2]["kind"], kinds.len()), (&json!("join"), &json!("leave"), 3));
/// ```
#[derive(Clone, Copy)]
pub struct Presence<'a>(&'a Cx);

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member<T> {
    /// Id of the connection, for [`Cx::find`].
    pub id: String,
    /// Latest `meta` of the member.
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
    /// Returns the members of the room.
    pub fn presence(&self) -> Presence<'_> {
        Presence(self)
    }
}

impl Presence<'_> {
    /// Adds a connection: it receives a snapshot, the others a `join`. `meta` becomes its
    /// [state](Conn::set_state), which all members see. The connection also gets the tag `present`,
    /// one of its 10, which has to stay when you set others. Joining again is an
    /// [`update`](Presence::update).
    ///
    /// # Errors
    ///
    /// A [`LimitError`](crate::LimitError) is the cause if `meta` is too large or the connection
    /// has 10 tags already; a [`SendError`](crate::SendError) if the snapshot cannot be sent.
    ///
    /// # Limits
    ///
    /// `meta` has at most 16 KiB of JSON.
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

    /// Changes the `meta` of a member; all members receive it, itself included.
    ///
    /// # Errors
    ///
    /// Fails if the connection has not joined.
    pub fn update(&self, conn: &Conn, meta: &impl Serialize) -> Result {
        if !is_present(conn) {
            return Err(Error::fault(
                "only a connection that has joined can be updated",
            ));
        }
        conn.set_state(meta)?;
        self.tell(Publication::new(Message::from_json(&Notice::Update(
            member(conn),
        ))?))
    }

    /// Removes a member whose connection stays open; all members receive it, itself included. No
    /// change if it has not joined.
    ///
    /// # Errors
    ///
    /// A [`LimitError`](crate::LimitError) is the cause if the event exceeds its limits.
    pub fn leave(&self, conn: &Conn) -> Result {
        self.part(conn).map(drop)
    }

    /// Does the same as [`leave`](Presence::leave), and returns true if the connection was a
    /// member.
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

    /// Returns all members in the order in which their connections opened.
    ///
    /// # Errors
    ///
    /// A fault if a meta is not a `T`.
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

    /// Returns a snapshot without `self` as JSON, for a feed's first event or the answer to a
    /// request.
    pub fn snapshot(&self) -> String {
        serde_json::to_string(&Notice::Snapshot {
            me: None,
            members: self.members(),
        })
        .expect("the members are JSON values")
    }

    /// Transient: a client that reconnects receives a snapshot.
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

/// A member with the connection's state. A state that is not JSON counts as null.
fn member(conn: &Conn) -> Member<Value> {
    Member {
        id: conn.id(),
        meta: conn.state().ok().flatten().unwrap_or_default(),
    }
}
