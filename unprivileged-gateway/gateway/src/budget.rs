//! The byte budget: how much memory records in flight may use, all parts of the gateway together.
//!
//! Like a cloakroom with numbered hooks. Each department owns some hooks ([`Share`]); a guest who brings more coats than his
//! department has hooks left may use anybody's free ones, but only one such guest at a time. Nobody hangs a coat before he has a
//! hook, and nobody waits longer than his patience, so two guests with half their coats hung can never wait for each other for
//! ever. The algorithm: one mutex over the counts and a queue; growing permits stand before new ones, because what they hold is
//! only freed when they finish. Weakness: a guarantee can be short for the moment that the one borrower needs; and bytes are
//! counted where we hold them, not where the allocator rounds them up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Who holds bytes. Each share is guaranteed a part of the budget; what is left over (10 %) belongs to whoever borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Requests being read, inflated, checked, and waiting for their sync.
    Ingest,
    /// Frames that wait for a commit.
    Commit,
    /// Batches on their way to destinations.
    ReadAhead,
    /// Bodies of scraped targets.
    Scrape,
    /// Gossip and control.
    Cluster,
}

impl Share {
    pub const ALL: [Share; 5] = [Share::Ingest, Share::Commit, Share::ReadAhead, Share::Scrape, Share::Cluster];

    pub const fn name(self) -> &'static str {
        match self {
            Share::Ingest => "ingest",
            Share::Commit => "commit",
            Share::ReadAhead => "read_ahead",
            Share::Scrape => "scrape",
            Share::Cluster => "cluster",
        }
    }

    /// Guaranteed part of the budget, in percent.
    const fn percent(self) -> u64 {
        match self {
            Share::Ingest => 25,
            Share::Commit => 15,
            Share::ReadAhead => 30,
            Share::Scrape => 15,
            Share::Cluster => 5,
        }
    }
}

/// There was no room in time; the sender still holds the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// Others hold the memory; trying again later helps.
    #[error("no room in the memory budget for {wanted} more bytes within {patience_ms} ms ({used} of {limit} in use)")]
    Busy { wanted: u64, patience_ms: u64, used: u64, limit: u64 },
    /// It would not fit even if nobody else were there.
    #[error("{wanted} bytes do not fit in a memory budget of {limit}; raise memory.budget")]
    Never { wanted: u64, limit: u64 },
}

/// A handle on the one budget of the process; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: [u64; Share::ALL.len()],
    /// The permit that took more than its share's guarantee. Only one: what it needs to finish is then always bounded.
    borrower: Option<(Share, u64)>,
    next_id: u64,
    queue: VecDeque<Ask>,
    /// Readers that wait at the gate for any room at all.
    gate: Vec<Waker>,
}

/// A place in the queue.
struct Ask {
    share: Share,
    permit: u64,
    bytes: u64,
    granted: Arc<Notify>,
}

impl Budget {
    /// `limit` in bytes.
    pub fn new(limit: u64) -> Budget {
        Budget(Arc::new(Inner { limit, state: Mutex::default() }))
    }

    /// Bytes that may be held at once.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes held now, all shares together.
    pub fn used(&self) -> u64 {
        self.0.state().used.iter().sum()
    }

    /// Bytes held now by one share.
    pub fn used_by(&self, share: Share) -> u64 {
        self.0.state().used[share as usize]
    }

    /// An empty permit: costs nothing, grows as bytes come.
    pub fn permit(&self, share: Share) -> Permit {
        let mut state = self.0.state();
        state.next_id += 1;
        Permit { inner: self.0.clone(), share, id: state.next_id, bytes: 0 }
    }

    /// A permit for `bytes`, waiting at most `patience` for others to give back.
    pub async fn take(&self, share: Share, bytes: u64, patience: Duration) -> Result<Permit, Short> {
        let mut permit = self.permit(share);
        permit.grow(bytes, patience).await?;
        Ok(permit)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The counts are plain numbers changed in one step each: a panic elsewhere cannot leave them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges the bytes if they fit now.
    fn charge(&self, state: &mut State, share: Share, permit: u64, bytes: u64) -> bool {
        let total: u64 = state.used.iter().sum();
        if total.saturating_add(bytes) > self.limit {
            return false;
        }
        if state.used[share as usize] + bytes > self.guarantee(share) {
            if state.borrower.is_some_and(|(_, borrower)| borrower != permit) {
                return false;
            }
            state.borrower = Some((share, permit));
        }
        state.used[share as usize] += bytes;
        true
    }

    fn guarantee(&self, share: Share) -> u64 {
        self.limit * share.percent() / 100
    }

    /// Serves the queue in order; the first that does not fit stops those of its own share, so that a large ask is not starved
    /// by a stream of small ones.
    fn serve_queue(&self, state: &mut State) {
        let mut blocked = [false; Share::ALL.len()];
        let mut at = 0;
        while let Some(ask) = state.queue.get(at) {
            let (share, permit, bytes, granted) = (ask.share, ask.permit, ask.bytes, ask.granted.clone());
            if !blocked[share as usize] && self.charge(state, share, permit, bytes) {
                state.queue.remove(at);
                granted.notify_one();
            } else {
                blocked[share as usize] = true;
                at += 1;
            }
        }
    }

    fn give_back(&self, share: Share, bytes: u64, finished: Option<u64>) {
        let mut state = self.state();
        let used = &mut state.used[share as usize];
        *used = used.saturating_sub(bytes);
        let repaid = *used <= self.guarantee(share);
        if state.borrower.is_some_and(|(lent_to, id)| lent_to == share && (repaid || finished == Some(id))) {
            state.borrower = None;
        }
        self.serve_queue(&mut state);
        let woken = std::mem::take(&mut state.gate);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Bytes that may be held until it is dropped.
pub struct Permit {
    inner: Arc<Inner>,
    share: Share,
    id: u64,
    bytes: u64,
}

impl Permit {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Room for `more` bytes, waiting at most `patience`. On an error the permit is unchanged. Safe to cancel.
    pub async fn grow(&mut self, more: u64, patience: Duration) -> Result<(), Short> {
        if self.bytes.saturating_add(more) > self.inner.limit {
            return Err(Short::Never { wanted: self.bytes.saturating_add(more), limit: self.inner.limit });
        }
        if self.try_grow(more) {
            return Ok(());
        }
        let place = self.queue(more);
        if tokio::time::timeout_at(Instant::now() + patience, place.granted.notified()).await.is_ok() {
            place.keep();
            self.bytes += more;
            return Ok(());
        }
        drop(place);
        Err(self.short(more, patience))
    }

    /// Why there is no room, in numbers.
    pub fn short(&self, wanted: u64, patience: Duration) -> Short {
        let used = self.inner.state().used.iter().sum();
        Short::Busy { wanted, patience_ms: patience.as_millis() as u64, used, limit: self.inner.limit }
    }

    /// Room for `more` bytes if it is there now and nobody stands in line for it.
    pub fn try_grow(&mut self, more: u64) -> bool {
        let mut state = self.inner.state();
        let line = state.queue.iter().any(|ask| ask.share == self.share && (self.bytes == 0 || ask.permit == self.id));
        let fits = !line && self.inner.charge(&mut state, self.share, self.id, more);
        if fits {
            self.bytes += more;
        }
        fits
    }

    /// Gives back all but `bytes`; does nothing if it holds fewer.
    pub fn shrink_to(&mut self, bytes: u64) {
        if let Some(surplus @ 1..) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.inner.give_back(self.share, surplus, None);
        }
    }

    /// True if there is room for at least one more byte; otherwise the task is woken when some comes free.
    ///
    /// Asked in the very poll that takes a chunk off a socket, and followed by [`Permit::owe`] in the same poll: what is read
    /// without a declared length overshoots the budget by at most one chunk a worker thread.
    pub fn gate_is_open(&self, context: &mut Context<'_>) -> bool {
        let mut state = self.inner.state();
        let full = state.used.iter().sum::<u64>() >= self.inner.limit;
        let lent = state.borrower.is_some_and(|(_, borrower)| borrower != self.id);
        let open = !full && (!lent || state.used[self.share as usize] < self.inner.guarantee(self.share));
        if !open && !state.gate.iter().any(|waker| waker.will_wake(context.waker())) {
            state.gate.push(context.waker().clone());
        }
        open
    }

    /// Charges bytes that are already here.
    pub fn owe(&mut self, bytes: u64) {
        let mut state = self.inner.state();
        state.used[self.share as usize] += bytes;
        if state.borrower.is_none() && state.used[self.share as usize] > self.inner.guarantee(self.share) {
            state.borrower = Some((self.share, self.id));
        }
        self.bytes += bytes;
    }

    fn queue(&self, bytes: u64) -> Place {
        let granted = Arc::new(Notify::new());
        let ask = Ask { share: self.share, permit: self.id, bytes, granted: granted.clone() };
        let mut state = self.inner.state();
        // Half-read requests go first: they hold bytes that only their completion frees.
        let at = if self.bytes > 0 {
            state.queue.iter().take_while(|a| a.share != self.share).count()
        } else {
            state.queue.len()
        };
        state.queue.insert(at, ask);
        self.inner.serve_queue(&mut state);
        drop(state);
        Place { inner: self.inner.clone(), share: self.share, bytes, granted, kept: false }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.give_back(self.share, self.bytes, Some(self.id));
    }
}

/// A place in the queue that gives up cleanly: whoever waits may be cancelled at any moment, before or after the grant.
struct Place {
    inner: Arc<Inner>,
    share: Share,
    bytes: u64,
    granted: Arc<Notify>,
    kept: bool,
}

impl Place {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut state = self.inner.state();
        match state.queue.iter().position(|ask| Arc::ptr_eq(&ask.granted, &self.granted)) {
            Some(at) => {
                state.queue.remove(at);
                // Whoever stood behind may fit where this one did not.
                self.inner.serve_queue(&mut state);
            }
            None => {
                drop(state);
                self.inner.give_back(self.share, self.bytes, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::timeout;

    const MIB: u64 = 1 << 20;
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn one_request_may_borrow_free_budget_and_a_second_waits_for_it() -> Result<(), Short> {
        let budget = Budget::new(64 * MIB);
        let _first = budget.take(Share::Ingest, 15 * MIB, SHORT).await?;
        let borrower = budget.take(Share::Ingest, 20 * MIB, SHORT).await?;
        let second = budget.take(Share::Ingest, 2 * MIB, SHORT).await;
        assert!(matches!(second, Err(Short::Busy { .. })));
        let _others = budget.take(Share::Scrape, 5 * MIB, SHORT).await?;
        assert_eq!((budget.used(), budget.used_by(Share::Ingest)), (40 * MIB, 35 * MIB));
        drop(borrower);
        let _second = budget.take(Share::Ingest, 2 * MIB, SHORT).await?;
        Ok(())
    }

    #[tokio::test]
    async fn what_can_never_fit_is_said_at_once() {
        let budget = Budget::new(MIB);
        let never = timeout(SHORT, budget.take(Share::Ingest, 2 * MIB, LONG)).await;
        assert!(matches!(never, Ok(Err(Short::Never { .. }))));
    }

    #[tokio::test]
    async fn a_waiting_ask_is_served_when_bytes_come_back() -> Result<(), Short> {
        let budget = Budget::new(8 * MIB);
        let mut holder = budget.take(Share::Ingest, 8 * MIB, SHORT).await?;
        let mut waiting = pin!(budget.take(Share::Commit, MIB, LONG));
        assert!(timeout(SHORT, waiting.as_mut()).await.is_err());
        holder.shrink_to(7 * MIB);
        assert_eq!(waiting.await?.bytes(), MIB);
        assert_eq!(budget.used(), 7 * MIB);
        Ok(())
    }

    #[tokio::test]
    async fn whoever_waits_may_be_cancelled_before_and_after_the_grant() -> Result<(), Short> {
        let budget = Budget::new(8 * MIB);
        let holder = budget.take(Share::Ingest, 8 * MIB, SHORT).await?;
        {
            let mut before = pin!(budget.take(Share::Ingest, MIB, LONG));
            assert!(timeout(SHORT, before.as_mut()).await.is_err());
        }
        let mut after = Box::pin(budget.take(Share::Ingest, MIB, LONG));
        assert!(timeout(SHORT, after.as_mut()).await.is_err());
        drop(holder); // grants, but the one who waits is never polled again
        assert_eq!(budget.used(), MIB);
        drop(after);
        assert_eq!(budget.used(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn two_half_read_requests_cannot_wait_for_each_other_for_ever() -> Result<(), Short> {
        let budget = Budget::new(8 * MIB);
        let mut left = budget.take(Share::Ingest, 2 * MIB, SHORT).await?;
        let mut right = budget.take(Share::Ingest, 4 * MIB, SHORT).await?;
        let (left, right) = tokio::join!(left.grow(4 * MIB, SHORT), right.grow(4 * MIB, SHORT));
        assert!(left.is_err() && right.is_err(), "both are refused in time: {left:?} {right:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_half_read_request_goes_before_a_new_one() -> Result<(), Short> {
        let budget = Budget::new(8 * MIB);
        let blocker = budget.take(Share::ReadAhead, 5 * MIB, SHORT).await?;
        let mut half = budget.take(Share::Ingest, 2 * MIB, SHORT).await?;
        let mut new = pin!(budget.take(Share::Ingest, 2 * MIB, LONG));
        assert!(timeout(SHORT, new.as_mut()).await.is_err());
        {
            let mut growing = pin!(half.grow(4 * MIB, LONG));
            assert!(timeout(SHORT, growing.as_mut()).await.is_err());
            drop(blocker);
            growing.await?;
        }
        assert!(timeout(SHORT, new.as_mut()).await.is_err(), "there is one borrower");
        drop(half);
        new.await?;
        Ok(())
    }

    #[tokio::test]
    async fn random_use_stays_within_the_limit_and_ends_at_zero() {
        let budget = Budget::new(10_000);
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..40 {
            let budget = budget.clone();
            tasks.spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..50 {
                    let share = Share::ALL[random.usize(..Share::ALL.len())];
                    let mut permit = budget.permit(share);
                    for _ in 0..random.usize(..4) {
                        let patience = Duration::from_micros(random.u64(..300));
                        let _ = permit.grow(random.u64(..3000), patience).await;
                        assert!(budget.used() <= budget.limit());
                        if random.bool() {
                            permit.shrink_to(random.u64(..2000));
                        }
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            assert!(done.is_ok());
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_gate_closes_at_the_limit_and_wakes_who_waits() -> Result<(), Short> {
        let budget = Budget::new(8 * MIB);
        let mut reader = budget.permit(Share::Ingest);
        let holder = budget.take(Share::ReadAhead, 8 * MIB, SHORT).await?;
        let mut gate = pin!(std::future::poll_fn(|context| match reader.gate_is_open(context) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }));
        assert!(timeout(SHORT, gate.as_mut()).await.is_err());
        drop(holder);
        assert!(timeout(LONG, gate.as_mut()).await.is_ok());
        reader.owe(9 * MIB);
        assert_eq!(budget.used(), 9 * MIB);
        drop(reader);
        assert_eq!(budget.used(), 0);
        Ok(())
    }
}
