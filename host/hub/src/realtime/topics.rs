//! Topics: a publication is made once, and every follower's outbox shares it.
//!
//! `Topics` owns all topics of one kind by name: one table for the names that apps choose, one for
//! rooms. A topic holds its followers, its position (epoch and number of the latest publication)
//! and its history. The history of a room's topic is in the storage of the room instead.
//!
//! A topic without followers is listed in `unfollowed`: it is kept for its numbers and its history
//! until a new topic needs its place. The topic that was used least recently goes first.
//!
//! Locks: the lock of the names is taken first, to look a topic up or to add or remove a follower.
//! Each topic has a lock for its followers, under which a publication gets its number and enters
//! all outboxes; a publication to many followers does not hold the lock of the names.
//!
//! Invariant: a follower gets the publications of a topic in the order of their numbers. If its
//! outbox has no room for one, the topic's policy decides: the follower is closed, or loses
//! publications.
//!
//! Clients may choose names of topics, so their number is bounded by `topics_max`, and their
//! histories together by `history_bytes_max`. The module reads no clock: `tick` passes the time.

use crate::{
    budget::Budget,
    limits::{LimitError, Limits},
    name::{ConnId, RoomId},
    now::{Now, SharedNow},
    realtime::{
        history::{self, History, Position, Positions, Replay, StartPoint},
        outbox::Outbox,
        publication::{Overflow, Publication, TopicPolicy},
    },
};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Milliseconds between two searches for publications that are too old.
const SWEEP_EVERY: u64 = 10_000;

/// Histories have at most one part in this many of `memory_max`, even if `history_bytes_max` is
/// larger.
const HISTORY_PART: usize = 8;

/// The name of a topic: a text that an app chose, or a room.
pub trait TopicName: Eq + Hash {
    /// The name as a table keeps it.
    type Key: Borrow<Self> + Clone + Eq + Hash;
    /// Returns the name as a table keeps it.
    fn to_key(&self) -> Self::Key;
    /// Checks the name before its topic is made.
    fn check(&self, limits: &Limits) -> Result<(), LimitError>;
    /// Returns the topic's policy for followers that are too slow.
    fn overflow(&self, policy: &TopicPolicy) -> Overflow;
}

impl TopicName for str {
    type Key = Arc<str>;

    fn to_key(&self) -> Arc<str> {
        self.into()
    }

    fn check(&self, limits: &Limits) -> Result<(), LimitError> {
        check_name(self, limits)
    }

    fn overflow(&self, policy: &TopicPolicy) -> Overflow {
        policy.overflow(self)
    }
}

impl TopicName for RoomId {
    type Key = RoomId;

    fn to_key(&self) -> RoomId {
        self.clone()
    }

    /// Checks nothing: class and name of a room were checked when the id was created.
    fn check(&self, _: &Limits) -> Result<(), LimitError> {
        Ok(())
    }

    fn overflow(&self, policy: &TopicPolicy) -> Overflow {
        policy.overflow(&self.to_string())
    }
}

/// All topics by name. A topic without followers is kept for its numbers and its history until
/// there are too many; then the one that was used least recently is removed for a new one.
pub struct Topics<N: TopicName + ?Sized> {
    limits: Limits,
    policy: TopicPolicy,
    seed: u64,
    /// Time of the last tick.
    now: SharedNow,
    /// Time of the last check for publications that are too old, in monotonic milliseconds.
    swept: AtomicU64,
    /// Number of bytes that all topics keep.
    kept: Arc<AtomicUsize>,
    budget: Arc<Budget>,
    /// Not held while a publication is delivered. Each topic has its own lock for its followers.
    topics: Mutex<Names<N>>,
}

struct Names<N: TopicName + ?Sized> {
    by_name: HashMap<N::Key, Arc<Topic>>,
    /// Topics that may be removed, in the order in which they were made or lost their last
    /// follower. A topic that has a follower again stays here until its turn, so that a follow
    /// costs nothing. No topic is here twice.
    unfollowed: VecDeque<UnfollowedTopic<N::Key>>,
    /// Number of topics that were made so far: the clock by which their use is compared.
    made: u64,
}

struct UnfollowedTopic<K> {
    name: K,
    /// Number of topics that had been made when this one was listed.
    at: u64,
}

/// Number of topics that one new topic may pass over because they have had a publication since they
/// were listed. They are kept and listed again.
const SECOND_CHANCES_MAX: usize = 64;

struct Topic {
    overflow: Overflow,
    /// True if its name is in [`Names::unfollowed`]. It changes under the lock of the names.
    is_listed: AtomicBool,
    /// Number of topics that had been made at the last publication to it.
    used_at: AtomicU64,
    followers: Mutex<Followers>,
}

struct Followers {
    position: Position,
    history: History,
    /// In the order of their opening, which is about their order in memory. With thousands of
    /// followers, a walk through them costs half as many cache misses as one in the order of a
    /// hash.
    by_id: BTreeMap<ConnId, Arc<Outbox>>,
}

impl<N: TopicName + ?Sized> Topics<N> {
    pub(crate) fn new(
        mut limits: Limits,
        policy: TopicPolicy,
        budget: Arc<Budget>,
        seed: u64,
    ) -> Topics<N> {
        if limits.memory_max > 0 {
            limits.history_bytes_max = limits
                .history_bytes_max
                .min(limits.memory_max / HISTORY_PART);
        }
        let (now, swept, kept, topics) = Default::default();
        Topics {
            limits,
            policy,
            seed,
            now,
            swept,
            kept,
            budget,
            topics,
        }
    }

    /// Removes the histories of all topics. A client that comes back gets a gap.
    pub(crate) fn shed(&self) {
        if self.kept.load(Ordering::Relaxed) > 0 {
            self.all()
                .iter()
                .for_each(|topic| topic.followers().history.clear());
        }
    }

    fn all(&self) -> Vec<Arc<Topic>> {
        self.names().by_name.values().cloned().collect()
    }

    /// Advances the time to `now`, and removes publications that are too old.
    pub(crate) fn tick(&self, now: Now) {
        self.now.set(now);
        if self.kept.load(Ordering::Relaxed) == 0
            || now.monotonic < self.swept.load(Ordering::Relaxed) + SWEEP_EVERY
        {
            return;
        }
        self.swept.store(now.monotonic, Ordering::Relaxed);
        for topic in self.all() {
            topic.followers().history.expire(now.wall, &self.limits);
        }
    }

    /// Returns the time of the last tick.
    pub(crate) fn now(&self) -> Now {
        self.now.get()
    }

    /// Adds a follower. With `since`, the missed publications are sent first. Returns their number
    /// too.
    pub(crate) fn follow(
        &self,
        name: &N,
        id: ConnId,
        outbox: &Arc<Outbox>,
        since: Option<&Positions>,
    ) -> Result<(StartPoint, u64), LimitError> {
        // Under the lock of the names, so that no sweep removes the topic in between.
        let mut names = self.names();
        let topic = self.topic(&mut names, name)?;
        let mut followers = topic.followers();
        let (start, missed) = followers.resume(since, self.now().wall, &self.limits);
        Ok(followers.subscribe(id, outbox, start, missed, topic.overflow))
    }

    /// As [`follow`](Topics::follow), for a topic whose history is kept elsewhere.
    pub(crate) fn follow_with(
        &self,
        name: &N,
        id: ConnId,
        outbox: &Arc<Outbox>,
        (start, missed): (StartPoint, Replay),
    ) -> Result<(StartPoint, u64), LimitError> {
        let mut names = self.names();
        let topic = self.topic(&mut names, name)?;
        let start = topic
            .followers()
            .subscribe(id, outbox, start, missed, topic.overflow);
        Ok(start)
    }

    /// Returns how [`follow`](Topics::follow) would begin now.
    pub(crate) fn check(
        &self,
        name: &N,
        since: Option<Position>,
    ) -> Result<StartPoint, LimitError> {
        let topic = self.topic(&mut self.names(), name)?;
        let since = since.map(|since| Positions(vec![since]));
        let (start, _) = topic
            .followers()
            .resume(since.as_ref(), self.now().wall, &self.limits);
        Ok(start)
    }

    /// Returns the position of the topic.
    pub(crate) fn position(&self, name: &N) -> Result<Position, LimitError> {
        Ok(self.topic(&mut self.names(), name)?.followers().position)
    }

    pub(crate) fn unfollow(&self, name: &N, id: ConnId) {
        let mut names = self.names();
        if let Some(topic) = names.by_name.get(name).cloned() {
            let is_empty = {
                let mut followers = topic.followers();
                followers.by_id.remove(&id);
                followers.by_id.is_empty()
            };
            if is_empty {
                names.list(name, &topic);
            }
        }
    }

    /// Returns the number of the publication, and the number of outboxes that took it.
    pub(crate) fn publish(
        &self,
        name: &N,
        mut publication: Publication,
    ) -> Result<(u64, u64), LimitError> {
        publication.check(&self.limits)?;
        publication.charge(&self.budget)?;
        let topic = {
            let mut names = self.names();
            let topic = self.topic(&mut names, name)?;
            topic.used_at.store(names.made, Ordering::Relaxed);
            topic
        };
        let mut followers = topic.followers();
        if publication.transient {
            return Ok((0, followers.deliver(&Arc::new(publication), topic.overflow)));
        }
        followers.position.sequence += 1;
        publication.epoch = followers.position.epoch;
        publication.sequence = followers.position.sequence;
        let publication = Arc::new(publication);
        if self.limits.history_messages_max > 0 {
            let now = self.now().wall;
            followers.history.expire(now, &self.limits);
            followers.history.push(&publication, now, &self.limits);
        }
        Ok((
            publication.sequence,
            followers.deliver(&publication, topic.overflow),
        ))
    }

    /// As [`publish`](Topics::publish), for a publication that has its number already, in a topic
    /// whose history is kept elsewhere.
    pub(crate) fn deliver(
        &self,
        name: &N,
        publication: &Arc<Publication>,
    ) -> Result<u64, LimitError> {
        let topic = self.topic(&mut self.names(), name)?;
        let mut followers = topic.followers();
        if !publication.transient {
            followers.position = Position {
                epoch: publication.epoch,
                sequence: publication.sequence,
            };
        }
        Ok(followers.deliver(publication, topic.overflow))
    }

    fn topic(&self, names: &mut Names<N>, name: &N) -> Result<Arc<Topic>, LimitError> {
        if let Some(topic) = names.by_name.get(name) {
            return Ok(topic.clone());
        }
        name.check(&self.limits)?;
        if names.by_name.len() >= self.limits.topics_max && !names.forget_one() {
            return Err(LimitError::TooMany);
        }
        names.made += 1;
        let position = Position {
            epoch: self.seed.wrapping_add(names.made),
            sequence: 0,
        };
        let followers = Followers {
            position,
            history: History::new(self.kept.clone()),
            by_id: BTreeMap::new(),
        };
        let (overflow, followers) = (name.overflow(&self.policy), Mutex::new(followers));
        let topic = Arc::new(Topic {
            overflow,
            is_listed: AtomicBool::new(false),
            used_at: AtomicU64::new(0),
            followers,
        });
        names.by_name.insert(name.to_key(), topic.clone());
        names.list(name, &topic);
        Ok(topic)
    }

    fn names(&self) -> MutexGuard<'_, Names<N>> {
        self.topics
            .lock()
            .expect("nothing panics while it holds the topics")
    }
}

impl<N: TopicName + ?Sized> Default for Names<N> {
    fn default() -> Names<N> {
        Names {
            by_name: HashMap::new(),
            unfollowed: VecDeque::new(),
            made: 0,
        }
    }
}

impl<N: TopicName + ?Sized> Names<N> {
    /// Lists a topic that has no follower: it may be removed when its turn comes.
    fn list(&mut self, name: &N, topic: &Topic) {
        if !topic.is_listed.swap(true, Ordering::Relaxed) {
            self.unfollowed.push_back(UnfollowedTopic {
                name: name.to_key(),
                at: self.made,
            });
        }
    }

    /// Removes one topic. Returns false if all have followers. Each name that is passed over leaves
    /// the queue, or has had a publication since it was listed; so the amortized cost is low.
    fn forget_one(&mut self) -> bool {
        let mut chances = SECOND_CHANCES_MAX;
        while let Some(UnfollowedTopic { name, at }) = self.unfollowed.pop_front() {
            let Some(topic) = self.by_name.get(name.borrow()) else {
                continue;
            };
            if !topic.followers().by_id.is_empty() {
                topic.is_listed.store(false, Ordering::Relaxed);
            } else if chances > 0 && topic.used_at.load(Ordering::Relaxed) > at {
                chances -= 1;
                self.unfollowed.push_back(UnfollowedTopic {
                    name,
                    at: self.made,
                });
            } else {
                self.by_name.remove(name.borrow());
                return true;
            }
        }
        false
    }
}

impl Topic {
    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers
            .lock()
            .expect("nothing panics while it holds a topic")
    }
}

impl Followers {
    fn resume(
        &mut self,
        since: Option<&Positions>,
        now: u64,
        limits: &Limits,
    ) -> (StartPoint, Replay) {
        let here = self.position;
        let since = since.map(|since| since.within(here));
        self.history.expire(now, limits);
        history::resume(since, here, |sequence| self.history.after(sequence))
    }

    /// Adds a follower, and sends it the publications that it missed. If there is no room for them,
    /// that is a gap. Returns the number of those that were sent.
    fn subscribe(
        &mut self,
        id: ConnId,
        outbox: &Arc<Outbox>,
        mut start: StartPoint,
        missed: Replay,
        overflow: Overflow,
    ) -> (StartPoint, u64) {
        let bytes = missed
            .iter()
            .map(|publication| publication.message.len())
            .sum();
        let fits = missed.is_empty() || outbox.has_room(bytes, missed.len() - 1, 0);
        if fits {
            missed
                .iter()
                .for_each(|publication| _ = outbox.deliver(publication, overflow));
        } else {
            start = StartPoint {
                position: self.position,
                has_gap: true,
            };
        }
        self.by_id.insert(id, outbox.clone());
        (start, if fits { missed.len() as u64 } else { 0 })
    }

    /// Returns the number of followers that took it.
    fn deliver(&self, publication: &Arc<Publication>, overflow: Overflow) -> u64 {
        let others = self
            .by_id
            .iter()
            .filter(|(id, _)| Some(**id) != publication.except);
        others
            .filter(|(_, outbox)| outbox.deliver(publication, overflow))
            .count() as u64
    }
}

pub(crate) fn check_name(name: &str, limits: &Limits) -> Result<(), LimitError> {
    if name.len() > limits.topic_bytes_max {
        return Err(LimitError::TooLarge);
    }
    if name.is_empty() {
        Err(LimitError::NotValid)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
