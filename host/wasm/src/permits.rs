//! Permits to use instances, and the shares of the uses.
//!
//! Calls that hold an instance for as long as a client wishes take a permit of their share first ([`ShareSizes`]), so that they never
//! take all of them. Permits are always taken in the same order, from the share to the whole, so calls cannot deadlock.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Purpose for which an instance is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// One event: a plain route, a guard, an upgrade, a subscription, messages. Bounded by CPU and wall time.
    Event,
    /// `pages.render`.
    Render,
    /// A streamed request, for as long as its client reads.
    Stream,
    /// A run of a loader, for as long as the page wants its values.
    Loader,
    /// A run of an action, for as long as its form comes.
    Action,
    /// A room that is awake.
    Room,
}

/// How many instances each use may have at a time, in eighths of all (at least one). Each sum leaves something to the others, so
/// that with at least 8 instances a plain route always has an eighth, and rooms and what clients hold each have a quarter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShareSizes {
    render: usize,
    stream: usize,
    loader: usize,
    action: usize,
    /// Maximum of streams, loaders and actions together, which clients hold.
    clients: usize,
    room: usize,
    /// Maximum of clients and rooms together, which hold instances for longer than one event.
    held: usize,
}

impl ShareSizes {
    fn of(instances: usize) -> ShareSizes {
        let eighths = |count: usize| (instances * count / 8).max(1);
        ShareSizes {
            render: eighths(1),
            stream: eighths(3),
            loader: eighths(3),
            action: eighths(2),
            clients: eighths(4),
            room: eighths(4),
            held: eighths(6),
        }
    }
}

/// Semaphores of [`ShareSizes`].
pub(crate) struct Permits {
    all: Arc<Semaphore>,
    render: Arc<Semaphore>,
    stream: Arc<Semaphore>,
    loader: Arc<Semaphore>,
    action: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    room: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

impl Permits {
    pub(crate) fn new(instances: usize) -> Permits {
        let shares = ShareSizes::of(instances);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Permits {
            all: semaphore(instances),
            render: semaphore(shares.render),
            stream: semaphore(shares.stream),
            loader: semaphore(shares.loader),
            action: semaphore(shares.action),
            clients: semaphore(shares.clients),
            room: semaphore(shares.room),
            held: semaphore(shares.held),
        }
    }

    /// Returns the semaphores of the shares of which a use needs a permit before one of all, in the order in which they are taken.
    fn shares(&self, of: Use) -> impl Iterator<Item = &Arc<Semaphore>> {
        let clients = |share| [Some(share), Some(&self.clients), Some(&self.held)];
        let shares = match of {
            Use::Event => [None; 3],
            Use::Render => [Some(&self.render), None, None],
            Use::Stream => clients(&self.stream),
            Use::Loader => clients(&self.loader),
            Use::Action => clients(&self.action),
            Use::Room => [Some(&self.room), Some(&self.held), None],
        };
        shares.into_iter().flatten()
    }

    /// Returns a permit if there is one in every share now.
    pub(crate) fn try_take(&self, of: Use) -> Option<Permit> {
        let take = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_owned().ok();
        let shares = match of {
            Use::Event => Vec::new(),
            of => self.shares(of).map(take).collect::<Option<_>>()?,
        };
        Some(Permit {
            _all: take(&self.all)?,
            _shares: shares,
        })
    }

    /// Waits for one share after the other, and for one of all.
    pub(crate) async fn take(&self, of: Use) -> Permit {
        let mut shares = Vec::new();
        for share in self.shares(of) {
            shares.push(acquire(share).await);
        }
        Permit {
            _all: acquire(&self.all).await,
            _shares: shares,
        }
    }
}

pub(crate) const NEVER_CLOSED: &str = "these semaphores are never closed";

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect(NEVER_CLOSED)
}

/// The right to use one instance, in all shares that it counts in.
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    /// Empty for an event, which has no share: then nothing is allocated.
    _shares: Vec<OwnedSemaphorePermit>,
}
