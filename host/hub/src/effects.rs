//! What others will see of a room's events: collected while they run, done in their order when they are durable.

use crate::{
    AutoResponse, Close, Conn, ConnId, Followed, Hub, LimitError, Limits, Message, Position, Positions, Publication, RoomId, SendError,
    connections::{check_close, check_tags},
    history::{self, Missed},
    hub::Subscribed,
    topics::check_name,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// The effects of some events.
#[derive(Default)]
pub(crate) struct Effects {
    in_order: Vec<Effect>,
    /// What was changed of connections: read before it is done.
    drafts: BTreeMap<ConnId, Draft>,
    /// Connections that came, and none for those that went.
    members: BTreeMap<ConnId, Option<Arc<Conn>>>,
}

enum Effect {
    Join(Arc<Conn>),
    Leave(Arc<Conn>),
    Send(Arc<Conn>, Message),
    Close(Arc<Conn>, Close),
    Follow(Arc<Conn>, String, Position),
    Unfollow(Arc<Conn>, String),
    Publish(String, Publication),
    Broadcast(Arc<Publication>),
    AutoRespond(Option<AutoResponse>),
    Subscribe(Box<Subscription>),
}

/// A feed that is about to be opened.
struct Subscription {
    topics: Vec<String>,
    since: Option<Positions>,
    /// Of the room's own topic.
    missed: (Followed, Missed),
    slot: Arc<Slot>,
}

struct Draft {
    conn: Arc<Conn>,
    attachment: Option<Bytes>,
    tags: Option<Vec<String>>,
    bytes: usize,
    messages: usize,
    closed: bool,
}

/// Where a feed of a room is found once the event that admitted it is durable.
#[derive(Default)]
pub struct Slot(Mutex<Option<Result<Subscribed, LimitError>>>);

impl Slot {
    /// The feed, once.
    pub fn take(&self) -> Option<Result<Subscribed, LimitError>> {
        self.0.lock().expect("nothing panics while it holds a slot").take()
    }
}

impl Effects {
    /// The connection is one of the room's from here on, and hears what is broadcast.
    pub(crate) fn join(&mut self, conn: Arc<Conn>) {
        self.members.insert(conn.id(), Some(conn.clone()));
        self.in_order.push(Effect::Join(conn));
    }

    /// It is none of the room's any more.
    pub(crate) fn leave(&mut self, conn: Arc<Conn>) {
        self.members.insert(conn.id(), None);
        self.in_order.push(Effect::Leave(conn));
    }

    /// `earlier`: what the room's earlier events sent to it.
    pub(crate) fn send(&mut self, conn: &Arc<Conn>, message: Message, limits: &Limits, earlier: &Effects) -> Result<(), SendError> {
        if message.len() > limits.message_bytes_max {
            return Err(SendError::TooLarge);
        }
        let ([bytes, messages], closed) = earlier.pending(conn.id());
        let draft = self.draft(conn);
        if closed || draft.closed || conn.outbox().is_closed() {
            return Err(SendError::Closed);
        }
        if !conn.outbox().has_room(bytes + draft.bytes, messages + draft.messages, message.len()) {
            return Err(SendError::Full);
        }
        draft.bytes += message.len();
        draft.messages += 1;
        self.in_order.push(Effect::Send(conn.clone(), message));
        Ok(())
    }

    pub(crate) fn close(&mut self, conn: &Arc<Conn>, code: u16, reason: &str) -> Result<(), LimitError> {
        check_close(code, reason)?;
        self.draft(conn).closed = true;
        self.in_order.push(Effect::Close(conn.clone(), Close::new(code, reason)));
        Ok(())
    }

    pub(crate) fn set_attachment(&mut self, conn: &Arc<Conn>, value: Bytes, limits: &Limits) -> Result<(), LimitError> {
        if value.len() > limits.attachment_bytes_max {
            return Err(LimitError::TooLarge);
        }
        self.draft(conn).attachment = Some(value);
        Ok(())
    }

    pub(crate) fn set_tags(&mut self, conn: &Arc<Conn>, tags: Vec<String>, limits: &Limits) -> Result<(), LimitError> {
        check_tags(&tags, limits)?;
        self.draft(conn).tags = Some(tags);
        Ok(())
    }

    /// From there on. Whether a connection may follow one more is found out when it is done: until then nobody knows what it follows.
    pub(crate) fn follow(&mut self, conn: &Arc<Conn>, topic: &str, from: Position) {
        self.in_order.push(Effect::Follow(conn.clone(), topic.to_owned(), from));
    }

    pub(crate) fn unfollow(&mut self, conn: &Arc<Conn>, topic: &str) {
        self.in_order.push(Effect::Unfollow(conn.clone(), topic.to_owned()));
    }

    pub(crate) fn publish(&mut self, topic: &str, publication: Publication, limits: &Limits) -> Result<(), LimitError> {
        check_name(topic, limits)?;
        publication.check(limits)?;
        self.in_order.push(Effect::Publish(topic.to_owned(), publication));
        Ok(())
    }

    /// It was checked, and has its number.
    pub(crate) fn broadcast(&mut self, publication: Publication) {
        self.in_order.push(Effect::Broadcast(Arc::new(publication)));
    }

    /// What was broadcast and has a number.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.in_order.iter().filter_map(|effect| match effect {
            Effect::Broadcast(publication) if !publication.transient => Some(publication),
            _ => None,
        })
    }

    /// The log's slots that change with what was broadcast.
    pub(crate) fn log(&self, now: u64, limits: &Limits) -> Vec<(u32, Bytes)> {
        let slot = |publication: &Publication| (publication.sequence % limits.history_messages_max as u64) as u32;
        let latest = self.numbered().count().saturating_sub(limits.history_messages_max);
        let latest = self.numbered().skip(latest);
        latest.filter_map(|publication| Some((slot(publication), history::encode(publication, now, limits)?))).collect()
    }

    /// Whether so much more could be sent to the connection.
    pub(crate) fn has_room(&self, conn: &Conn, bytes: usize, messages: usize, earlier: &Effects) -> bool {
        let [own, earlier] = [self, earlier].map(|effects| effects.pending(conn.id()).0);
        conn.outbox().has_room(bytes + own[0] + earlier[0], messages + own[1] + earlier[1], 0)
    }

    pub(crate) fn auto_respond(&mut self, response: Option<AutoResponse>) {
        self.in_order.push(Effect::AutoRespond(response));
    }

    pub(crate) fn subscribe(&mut self, topics: Vec<String>, since: Option<Positions>, missed: (Followed, Missed)) -> Arc<Slot> {
        let slot = Arc::<Slot>::default();
        self.in_order.push(Effect::Subscribe(Box::new(Subscription { topics, since, missed, slot: slot.clone() })));
        slot
    }

    /// The attachment that was set, if any was.
    pub(crate) fn attachment(&self, id: ConnId) -> Option<Bytes> {
        self.drafts.get(&id)?.attachment.clone()
    }

    /// The tags that were set, if any were.
    pub(crate) fn tags(&self, id: ConnId) -> Option<Vec<String>> {
        self.drafts.get(&id)?.tags.clone()
    }

    /// Bytes that will be sent to it.
    pub(crate) fn queued(&self, id: ConnId) -> usize {
        self.drafts.get(&id).map_or(0, |draft| draft.bytes)
    }

    /// What was changed of the room's connections: came, went, or by their tags.
    pub(crate) fn amend(&self, ids: &mut BTreeSet<ConnId>, tag: Option<&str>) {
        for (id, member) in &self.members {
            match member {
                None => _ = ids.remove(id),
                Some(conn) if tag.is_none_or(|tag| conn.tags().iter().any(|own| own == tag)) => _ = ids.insert(*id),
                Some(_) => {}
            }
        }
        let is_here = |id| !matches!(self.members.get(id), Some(None));
        for (id, draft) in self.drafts.iter().filter(|(id, draft)| draft.conn.room().is_some() && is_here(*id)) {
            if let (Some(tag), Some(tags)) = (tag, &draft.tags) {
                match tags.iter().any(|own| own == tag) {
                    true => _ = ids.insert(*id),
                    false => _ = ids.remove(id),
                }
            }
        }
    }

    /// Whether the connection came or went; nothing if neither.
    pub(crate) fn member(&self, id: ConnId) -> Option<Option<Arc<Conn>>> {
        self.members.get(&id).cloned()
    }

    /// What is left if the event undoes itself: that connections came or went is not its doing.
    pub(crate) fn members_only(self) -> Effects {
        let in_order = self.in_order.into_iter().filter(|effect| matches!(effect, Effect::Join(_) | Effect::Leave(_))).collect();
        Effects { in_order, drafts: BTreeMap::new(), members: self.members }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.drafts.is_empty()
    }

    /// Adds what was done later.
    pub(crate) fn absorb(&mut self, later: Effects) {
        self.in_order.extend(later.in_order);
        self.members.extend(later.members);
        for (id, draft) in later.drafts {
            match self.drafts.get_mut(&id) {
                None => _ = self.drafts.insert(id, draft),
                Some(earlier) => earlier.absorb(draft),
            }
        }
    }

    /// Does it all.
    pub(crate) fn release(self, hub: &Arc<Hub>, room: &RoomId) {
        for draft in self.drafts.into_values() {
            // Both were checked when they were set.
            draft.attachment.map(|value| draft.conn.set_attachment(value));
            draft.tags.map(|tags| draft.conn.set_tags(tags));
        }
        for effect in self.in_order {
            match effect {
                Effect::Join(conn) => conn.join(),
                Effect::Leave(conn) => conn.part(),
                Effect::Send(conn, message) => {
                    if conn.send(message) == Err(SendError::Full) {
                        // What others published to it meanwhile took its place: it must not miss a message unnoticed.
                        conn.outbox().close(Close::new(1013, "too slow for what it is sent"));
                    }
                }
                Effect::Close(conn, close) => conn.outbox().close(close),
                Effect::Follow(conn, topic, from) => match conn.follow(&topic, Some(from)) {
                    Ok(Followed { gap: false, .. }) => {}
                    Ok(_) => conn.outbox().close(Close::new(1013, "too slow for what it follows")),
                    Err(_) => conn.outbox().close(Close::new(1011, "it follows too many topics")),
                },
                Effect::Unfollow(conn, topic) => conn.unfollow(&topic),
                // Refused only if there are too many topics: then nobody follows this one.
                Effect::Publish(topic, publication) => _ = hub.publish(&topic, publication),
                Effect::Broadcast(publication) => _ = hub.broadcast(room, &publication),
                Effect::AutoRespond(response) => hub.connections().automatic_of(room).set(response),
                Effect::Subscribe(subscription) => {
                    let Subscription { topics, since, missed, slot } = *subscription;
                    let subscribed = hub.subscribe_in(topics, since.as_ref(), room, missed);
                    *slot.0.lock().expect("nothing panics while it holds a slot") = Some(subscribed);
                }
            }
        }
    }

    fn draft(&mut self, conn: &Arc<Conn>) -> &mut Draft {
        let fresh = || Draft { conn: conn.clone(), attachment: None, tags: None, bytes: 0, messages: 0, closed: false };
        self.drafts.entry(conn.id()).or_insert_with(fresh)
    }

    /// Bytes and messages on their way to it, and whether it will be closed.
    fn pending(&self, id: ConnId) -> ([usize; 2], bool) {
        self.drafts.get(&id).map_or_else(Default::default, |draft| ([draft.bytes, draft.messages], draft.closed))
    }
}

impl Draft {
    fn absorb(&mut self, later: Draft) {
        self.attachment = later.attachment.or(self.attachment.take());
        self.tags = later.tags.or(self.tags.take());
        self.bytes += later.bytes;
        self.messages += later.messages;
        self.closed |= later.closed;
    }
}
