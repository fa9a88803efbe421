//! Publish and follow: a publication is made once and shared by every follower's outbox.

use crate::{ConnId, LimitError, Limits, Outbox, Overflow, Publication, TopicPolicy};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

/// All topics by name. One without followers is kept for its numbers until there are too many.
pub struct Topics {
    limits: Limits,
    policy: TopicPolicy,
    seed: u64,
    /// Held only to look a topic up; each topic has its own lock for its followers.
    topics: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<String, Arc<Topic>>,
    made: u64,
}

struct Topic {
    epoch: u64,
    overflow: Overflow,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    sequence: u64,
    /// In the order of their opening, which is about their order in memory: with thousands of followers,
    /// a walk through them costs half as many cache misses as one in a hash's order.
    by_id: BTreeMap<ConnId, Arc<Outbox>>,
}

impl Topics {
    pub(crate) fn new(limits: Limits, policy: TopicPolicy, seed: u64) -> Topics {
        Topics { limits, policy, seed, topics: Mutex::default() }
    }

    pub(crate) fn follow(&self, name: &str, id: ConnId, outbox: &Arc<Outbox>) -> Result<(), LimitError> {
        // Under the names' lock, so that a sweep can't take the topic away in between.
        let mut names = self.names();
        let topic = self.topic(&mut names, name)?;
        topic.followers().by_id.insert(id, outbox.clone());
        Ok(())
    }

    pub(crate) fn unfollow(&self, name: &str, id: ConnId) {
        let names = self.names();
        if let Some(topic) = names.by_name.get(name) {
            topic.followers().by_id.remove(&id);
        }
    }

    /// The publication's number, and how many outboxes took it.
    pub(crate) fn publish(&self, name: &str, mut publication: Publication) -> Result<(u64, u64), LimitError> {
        publication.check(&self.limits)?;
        let topic = self.topic(&mut self.names(), name)?;
        let mut followers = topic.followers();
        followers.sequence += 1;
        publication.epoch = topic.epoch;
        publication.sequence = followers.sequence;
        let publication = Arc::new(publication);
        let others = followers.by_id.iter().filter(|(id, _)| Some(**id) != publication.except);
        let taken = others.filter(|(_, outbox)| outbox.deliver(&publication, topic.overflow)).count();
        Ok((publication.sequence, taken as u64))
    }

    fn topic(&self, names: &mut Names, name: &str) -> Result<Arc<Topic>, LimitError> {
        if let Some(topic) = names.by_name.get(name) {
            return Ok(topic.clone());
        }
        check_name(name, &self.limits)?;
        if names.by_name.len() >= self.limits.topics_max {
            names.by_name.retain(|_, topic| !topic.followers().by_id.is_empty());
            if names.by_name.len() >= self.limits.topics_max {
                return Err(LimitError::TooMany);
            }
        }
        names.made += 1;
        let topic = Arc::new(Topic {
            epoch: self.seed.wrapping_add(names.made),
            overflow: self.policy.overflow(name),
            followers: Mutex::default(),
        });
        names.by_name.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.topics.lock().expect("nothing panics while it holds the topics")
    }
}

impl Topic {
    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().expect("nothing panics while it holds a topic")
    }
}

pub(crate) fn check_name(name: &str, limits: &Limits) -> Result<(), LimitError> {
    if name.len() > limits.topic_bytes_max {
        return Err(LimitError::TooLarge);
    }
    if name.is_empty() { Err(LimitError::NotValid) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accept, Hub, Message, Opened, Outgoing};
    use std::collections::VecDeque;

    fn hub(limits: Limits) -> Arc<Hub> {
        Hub::new(limits, TopicPolicy { drop_oldest: vec!["prices/*".into()] }, 7)
    }

    fn heard(conn: &Opened) -> Vec<String> {
        let mut batch = VecDeque::new();
        conn.outbox().take(&mut batch);
        let text = |outgoing: &Outgoing| match outgoing {
            Outgoing::Publication(p) => format!("{} {}", p.sequence, String::from_utf8_lossy(p.message.bytes())),
            other => format!("{other:?}"),
        };
        batch.iter().map(text).collect()
    }

    fn say(hub: &Arc<Hub>, topic: &str, text: &str) -> u64 {
        hub.publish(topic, Publication::new(Message::text(text.to_owned()))).unwrap()
    }

    #[test]
    fn a_publication_reaches_every_follower_in_order_and_nobody_else() {
        let hub = hub(Limits::default());
        let [ann, bob, eve] = [(); 3].map(|()| hub.open(Accept::default()).unwrap());
        ann.follow("tea").unwrap();
        bob.follow("tea").unwrap();
        eve.follow("milk").unwrap();
        assert_eq!((say(&hub, "tea", "a"), say(&hub, "tea", "b")), (1, 2));
        bob.unfollow("tea");
        assert_eq!(say(&hub, "tea", "c"), 3);
        assert_eq!((heard(&ann), heard(&bob)), (vec!["1 a".into(), "2 b".into(), "3 c".into()], vec!["1 a".into(), "2 b".to_string()]));
        assert!(heard(&eve).is_empty());
        assert_eq!(hub.counters().deliveries.get(), 5);
    }

    #[test]
    fn the_one_left_out_hears_nothing() {
        let hub = hub(Limits::default());
        let [ann, bob] = [(); 2].map(|()| hub.open(Accept::default()).unwrap());
        ann.follow("tea").unwrap();
        bob.follow("tea").unwrap();
        let except = Some(ann.id());
        hub.publish("tea", Publication { except, ..Publication::new(Message::text("psst")) }).unwrap();
        assert_eq!((heard(&ann).len(), heard(&bob).len()), (0, 1));
    }

    #[test]
    fn one_allocation_serves_all_followers() {
        let hub = hub(Limits::default());
        let conns: Vec<Opened> = (0..3).map(|_| hub.open(Accept::default()).unwrap()).collect();
        conns.iter().for_each(|conn| conn.follow("tea").unwrap());
        say(&hub, "tea", "once");
        let taken: Vec<Arc<Publication>> = conns
            .iter()
            .map(|conn| {
                let mut batch = VecDeque::new();
                conn.outbox().take(&mut batch);
                let Some(Outgoing::Publication(publication)) = batch.pop_front() else { panic!("nothing came") };
                publication
            })
            .collect();
        assert!(Arc::ptr_eq(&taken[0], &taken[1]) && Arc::ptr_eq(&taken[1], &taken[2]));
    }

    #[test]
    fn a_line_break_in_an_event_name_is_refused() {
        let hub = hub(Limits::default());
        for event in ["a\nb", "a\rb", "a\0b"] {
            let publication = Publication { event: Some(event.into()), ..Publication::new(Message::text("x")) };
            assert_eq!(hub.publish("tea", publication), Err(LimitError::NotValid));
        }
    }

    #[test]
    fn topics_that_nobody_follows_give_way_to_new_ones_and_followed_ones_stay() {
        let hub = hub(Limits { topics_max: 2, ..Limits::default() });
        let ann = hub.open(Accept::default()).unwrap();
        ann.follow("kept").unwrap();
        for topic in ["a", "b", "c"] {
            assert_eq!(say(&hub, topic, "x"), 1);
        }
        assert_eq!((say(&hub, "kept", "one"), say(&hub, "kept", "two")), (1, 2));
        ann.follow("also").unwrap();
        assert_eq!(ann.follow("too many"), Err(LimitError::TooMany));
    }

    #[test]
    fn a_topic_has_the_policy_that_its_name_or_prefix_was_given() {
        let policy = TopicPolicy { drop_oldest: vec!["prices/*".into(), "clock".into()] };
        let cases = [
            ("prices/eur", Overflow::DropOldest),
            ("prices", Overflow::Close),
            ("clock", Overflow::DropOldest),
            ("clocks", Overflow::Close),
        ];
        for (topic, overflow) in cases {
            assert_eq!(policy.overflow(topic), overflow, "{topic}");
        }
    }
}
