//! One account of an app's instances, whichever version of the app they are of.
//!
//! An instance has a slot for as long as it exists, in use or idle: slots are what the engine's pool and the machine's memory
//! really hold. A permit is the right to use one. There are as many permits as slots, so a permit always leads to a slot: if all
//! slots are taken, one of them is an idle instance's, and that instance yields (`reserve`). An instance is dropped before its
//! permit is given back; otherwise another caller could have a permit and find no slot.
//!
//! `permits.rs` has the permits, and the shares of them that each use may have.

use crate::permits::{NEVER_CLOSED, Permit, Permits, Use};
use std::{
    future::{Future as _, pending, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Poll,
    time::Duration,
};
use tidegate_hub::Fault;
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};

/// How long a call waits for an instance when all that it may use are in use; then it is busy (503).
const WAIT: Duration = Duration::from_secs(5);
/// How long a permit's owner waits for the slot of an instance that is just being dropped.
const SLOT_RETRY: Duration = Duration::from_millis(1);

/// An instance's place in the account; given back when the instance is gone.
pub(crate) struct Slot(Arc<InstanceAccount>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}

/// Idle instances of one version, which yield their slots.
pub(crate) trait Idle: Send + Sync {
    /// Drops the one that has been idle longest; its slot.
    fn yield_slot(&self) -> Option<Slot>;
}

/// The account itself.
pub(crate) struct InstanceAccount {
    max: usize,
    permits: Permits,
    /// Slots that are taken.
    live: AtomicUsize,
    /// Linear memory of all instances.
    bytes: AtomicUsize,
    /// Idle instances of every version that still exists, the oldest version first.
    idle: Mutex<Vec<Weak<dyn Idle>>>,
    /// Number of calls that wait for a permit.
    waiting: AtomicUsize,
    /// Notified when another call waits.
    shortage: Notify,
    /// Held while the number of waiting calls and the claims change together.
    claiming: Mutex<()>,
    /// A permit for each of them, as long as no instance was given up for it: whatever takes the permit gives up its instance, the
    /// oldest work first. So as many are given up as calls wait, whichever call gets which.
    claims: Semaphore,
    /// Work after an answer that keeps its instance although calls wait.
    after: Semaphore,
}

/// A call waits for a permit.
struct WaitCount<'a>(&'a InstanceAccount);

impl<'a> WaitCount<'a> {
    fn new(account: &'a InstanceAccount) -> WaitCount<'a> {
        let _claiming = account.claiming();
        account.waiting.fetch_add(1, SeqCst);
        account.claims.add_permits(1);
        account.shortage.notify_waiters();
        WaitCount(account)
    }
}

impl Drop for WaitCount<'_> {
    fn drop(&mut self) {
        let _claiming = self.0.claiming();
        let waiting = self.0.waiting.fetch_sub(1, SeqCst) - 1;
        let claims = self.0.claims.available_permits();
        self.0.claims.forget_permits(claims.saturating_sub(waiting));
    }
}

impl InstanceAccount {
    pub(crate) fn new(max: usize) -> Arc<InstanceAccount> {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let [live, bytes] = [0; 2].map(AtomicUsize::new);
        Arc::new(InstanceAccount {
            max,
            permits: Permits::new(max),
            live,
            bytes,
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            shortage: Notify::new(),
            claiming: Mutex::default(),
            claims: Semaphore::new(0),
            after: Semaphore::new(max / 8),
        })
    }

    /// Registers idle instances that yield their places from now on.
    pub(crate) fn register(&self, idle: Weak<dyn Idle>) {
        let mut all = self
            .idle
            .lock()
            .expect("nothing panics while it holds the list");
        all.retain(|idle| idle.strong_count() > 0);
        all.push(idle);
    }

    /// Returns the right to use one instance. Waits for at most [`WAIT`] if this use has all that it may
    /// have.
    pub(crate) async fn permit(&self, of: Use) -> Result<Permit, Fault> {
        match self.permits.try_take(of) {
            Some(permit) => {
                self.replace_claim();
                Ok(permit)
            }
            // Boxed, because it is rare and would make the future of each event larger.
            None => Box::pin(self.wait(of)).await,
        }
    }

    async fn wait(&self, of: Use) -> Result<Permit, Fault> {
        let _waiting = WaitCount::new(self);
        timeout(WAIT, self.permits.take(of))
            .await
            .map_err(|_| Fault::Busy)
    }

    /// Completes while a call waits for a permit. Takes no claim: the work of a client that is then
    /// given up takes its own, once it is work after an answer.
    pub(crate) async fn shortage(&self) {
        loop {
            let mut notified = pin!(self.shortage.notified());
            // Enabled before the number is read, so that no call is missed.
            notified.as_mut().enable();
            if self.waiting.load(SeqCst) > 0 {
                return;
            }
            notified.await;
        }
    }

    /// Adds a claim if calls wait. A call that takes a permit without waiting may take the one of an
    /// instance that was given up for a waiting call, which is then not in the semaphore's queue yet.
    fn replace_claim(&self) {
        // The common case reads one word.
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let _claiming = self.claiming();
        if self.claims.available_permits() < self.waiting.load(SeqCst) {
            self.claims.add_permits(1);
        }
    }

    fn claiming(&self) -> MutexGuard<'_, ()> {
        self.claiming
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Ready when an instance that does nothing for a client is to be given up, because a call waits for one. `is_after`: it does work
    /// after a whole answer, which an eighth of all instances may go on with all the same.
    pub(crate) async fn wanted(&self, is_after: bool) {
        let kept = {
            let mut claimed = pin!(self.claims.acquire());
            let mut kept = pin!(self.after.acquire());
            let first = poll_fn(|cx| {
                if is_after && let Poll::Ready(kept) = kept.as_mut().poll(cx) {
                    return Poll::Ready(Some(kept));
                }
                claimed.as_mut().poll(cx).map(|claim| {
                    claim.expect(NEVER_CLOSED).forget();
                    None
                })
            });
            first.await
        };
        if let Some(kept) = kept {
            let _kept = kept.expect(NEVER_CLOSED);
            pending::<()>().await;
        }
    }

    /// A slot for the owner of a permit; an idle instance yields its own if there is no other.
    pub(crate) async fn reserve(self: &Arc<InstanceAccount>) -> Result<Slot, Fault> {
        let reserve = async {
            loop {
                if let Some(slot) = self.try_reserve() {
                    return slot;
                }
                sleep(SLOT_RETRY).await;
            }
        };
        match self.try_reserve() {
            Some(slot) => Ok(slot),
            None => timeout(WAIT, reserve).await.map_err(|_| Fault::Busy),
        }
    }

    fn try_reserve(self: &Arc<InstanceAccount>) -> Option<Slot> {
        match self.live.fetch_update(Relaxed, Relaxed, |live| {
            (live < self.max).then_some(live + 1)
        }) {
            Ok(_) => Some(Slot(self.clone())),
            Err(_) => self.idle().iter().find_map(|idle| idle.yield_slot()),
        }
    }

    fn idle(&self) -> Vec<Arc<dyn Idle>> {
        self.idle
            .lock()
            .expect("nothing panics while it holds the list")
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The memory of an instance has grown, or is gone.
    pub(crate) fn count_bytes(&self, added: isize) {
        self.bytes.fetch_add(added as usize, Relaxed);
    }
}

/// Account of the instances of one served app: of all its versions, in use or idle. Clones share the account.
#[derive(Clone)]
pub struct Instances(pub(crate) Arc<InstanceAccount>);

impl Instances {
    /// At most `max` instances at a time, at least one.
    pub fn new(max: usize) -> Instances {
        Instances(InstanceAccount::new(max))
    }

    /// Number of instances, in use or idle.
    pub fn count(&self) -> usize {
        self.0.live.load(Relaxed)
    }

    /// Bytes of linear memory that all instances have together, touched or not.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// Drops every idle instance, which gives its memory back to the system; how many there were.
    pub fn shed_idle(&self) -> usize {
        let mut shed = 0;
        for idle in self.0.idle() {
            while idle.yield_slot().is_some() {
                shed += 1;
            }
        }
        shed
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("count", &self.count())
            .field("bytes", &self.bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    const ALL: [Use; 6] = [
        Use::Event,
        Use::Render,
        Use::Stream,
        Use::Loader,
        Use::Action,
        Use::Room,
    ];

    /// Takes what is left for these uses, one after the other; how many each got.
    fn fill(account: &InstanceAccount, uses: &[Use], taken: &mut Vec<Permit>) -> Vec<usize> {
        let all_of = |of| std::iter::from_fn(move || account.permits.try_take(of));
        uses.iter()
            .map(|of| {
                let permits: Vec<Permit> = all_of(*of).collect();
                let count = permits.len();
                taken.extend(permits);
                count
            })
            .collect()
    }

    #[test]
    fn whatever_clients_and_rooms_hold_leaves_an_eighth_to_plain_routes_and_a_quarter_to_each_other()
     {
        for instances in [8, 16, 17, 100, 2000] {
            for first in [
                Use::Render,
                Use::Stream,
                Use::Loader,
                Use::Action,
                Use::Room,
            ] {
                let account = InstanceAccount::new(instances);
                let mut taken = Vec::new();
                let rest = ALL
                    .into_iter()
                    .filter(|of| *of != Use::Event && *of != first);
                let held: Vec<Use> = std::iter::once(first).chain(rest).collect();
                let counts = fill(&account, &held, &mut taken);
                assert!(
                    counts[0] >= 1 && counts[0] <= instances / 2,
                    "{instances} {first:?} {counts:?}"
                );
                let plain = fill(&account, &[Use::Event], &mut taken)[0];
                assert!(
                    plain >= instances / 8,
                    "{instances} after {first:?} {counts:?}: {plain} for plain routes"
                );
            }
            let account = InstanceAccount::new(instances);
            let mut taken = Vec::new();
            fill(
                &account,
                &[Use::Stream, Use::Loader, Use::Action],
                &mut taken,
            );
            assert!(
                fill(&account, &[Use::Room], &mut taken)[0] >= instances / 4,
                "{instances}: rooms beside clients"
            );
        }
    }

    #[test]
    fn every_use_has_an_instance_even_of_few() {
        for instances in 1..8 {
            for of in ALL {
                let account = InstanceAccount::new(instances);
                assert!(
                    account.permits.try_take(of).is_some(),
                    "{of:?} of {instances}"
                );
            }
        }
        let account = InstanceAccount::new(3);
        let mut taken = Vec::new();
        let held = fill(
            &account,
            &[
                Use::Stream,
                Use::Room,
                Use::Action,
                Use::Loader,
                Use::Render,
            ],
            &mut taken,
        );
        assert_eq!(
            (
                held.iter().sum::<usize>(),
                fill(&account, &[Use::Event], &mut taken)[0]
            ),
            (3, 0),
            "{held:?}"
        );
    }

    #[test]
    fn as_many_instances_are_given_up_as_calls_wait_and_an_eighth_is_kept() {
        let account = InstanceAccount::new(16);
        // The first four do work after an answer; the clients of the other two have left.
        let mut work: Vec<_> = (0..6)
            .map(|number| (number, Box::pin(account.wanted(number < 4))))
            .collect();
        let mut given_up = || {
            let mut cx = Context::from_waker(Waker::noop());
            let ended = work.extract_if(.., |(_, one)| one.as_mut().poll(&mut cx).is_ready());
            ended.map(|(number, _)| number).collect::<Vec<_>>()
        };
        assert_eq!(given_up(), [0; 0], "no call waits");
        let waiting = [(); 2].map(|()| WaitCount::new(&account));
        assert_eq!((given_up(), given_up()), (vec![2, 3], vec![]));
        let [one, other] = waiting;
        let third = WaitCount::new(&account);
        // Both have their instance; the third has not.
        drop((one, other));
        assert_eq!(given_up(), [4]);
        drop(third);
        let _many = [(); 9].map(|()| WaitCount::new(&account));
        assert_eq!(given_up(), [5]);
        // A later request gives up at once, and the work of the first two continues.
        let mut later = Box::pin(account.wanted(true));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(later.as_mut().poll(&mut cx).is_ready());
        assert_eq!(work.len(), 2);
    }

    #[tokio::test]
    async fn a_call_that_takes_the_permit_of_a_waiting_call_replaces_its_claim() {
        let account = InstanceAccount::new(2);
        let [first, second] = [account.permit(Use::Event), account.permit(Use::Event)];
        let (first, _second) = (first.await.unwrap(), second.await.unwrap());
        let mut work = [(); 2].map(|()| Box::pin(account.wanted(false)));
        let mut is_wanted = |index: usize| {
            let mut cx = Context::from_waker(Waker::noop());
            work[index].as_mut().poll(&mut cx).is_ready()
        };
        // A call waits, and an instance is given up for it before the call is in the queue.
        let _waiting = WaitCount::new(&account);
        assert!(is_wanted(0) && !is_wanted(1));
        drop(first);
        let other = timeout(Duration::ZERO, account.permit(Use::Event)).await;
        assert!(
            matches!(other, Ok(Ok(_))),
            "another call takes the permit at once"
        );
        assert!(is_wanted(1), "the waiting call gets the next one");
    }

    #[test]
    fn a_shortage_lasts_while_a_call_waits_and_takes_no_claim() {
        let account = InstanceAccount::new(16);
        let mut cx = Context::from_waker(Waker::noop());
        let mut early = Box::pin(account.shortage());
        assert!(early.as_mut().poll(&mut cx).is_pending());
        let waiting = WaitCount::new(&account);
        assert!(early.as_mut().poll(&mut cx).is_ready());
        let mut is_short = || {
            Box::pin(account.shortage())
                .as_mut()
                .poll(&mut cx)
                .is_ready()
        };
        assert!(is_short() && is_short());
        drop(waiting);
        assert!(!is_short());
    }

    struct Stack(Mutex<Vec<Slot>>);

    impl Idle for Stack {
        fn yield_slot(&self) -> Option<Slot> {
            self.0.lock().unwrap().pop()
        }
    }

    #[tokio::test]
    async fn an_idle_instance_of_any_version_yields_its_slot() {
        let instances = Instances::new(2);
        let stacks = [(); 2].map(|()| Arc::new(Stack(Mutex::default())));
        for stack in &stacks {
            let idle: Weak<Stack> = Arc::downgrade(stack);
            instances.0.register(idle);
            let slot = instances.0.reserve().await.unwrap();
            stack.0.lock().unwrap().push(slot);
        }
        let (_one, two) = (
            instances.0.reserve().await.unwrap(),
            instances.0.reserve().await.unwrap(),
        );
        assert_eq!((instances.count(), instances.shed_idle()), (2, 0));
        assert!(instances.0.try_reserve().is_none(), "none is idle");
        drop(two);
        assert!(instances.0.try_reserve().is_some());
    }
}
