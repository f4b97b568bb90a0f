//! One destination, one signal: its account, and how it is doing.
//!
//! accepted = sent + waiting + quarantined + dropped + damaged, at any moment anybody looks: the cursor and the counts move under the
//! lock of the account ([`crate::telemetry::Destination`]), and a look takes the same lock, so no look falls between them. Counts
//! start at the recovered backlog and are not kept across restarts: `accepted` begins with what was waiting.

use crate::destination::pass::Step;
use crate::seam::Signal;
use crate::store::now_ns;
use crate::telemetry::{DestinationState, Held, LastError, LedgerSnapshot, Loss, Request, Settled, Waiting};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wal::{DestinationId, Log};

/// What the destination is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub state: DestinationState,
    pub last_error: Option<LastError>,
    /// Unix milliseconds.
    pub next_try_ms: Option<u64>,
}

/// The ledger of one destination for one signal.
pub struct Ledger {
    pub id: DestinationId,
    pub signal: Signal,
    /// Cumulative records of the log when counting began, less what was waiting then.
    base: u64,
    account: Arc<crate::telemetry::Destination>,
    health: Mutex<Health>,
}

impl Ledger {
    /// Begins with what waits for `id` in `log` now.
    pub fn new(id: DestinationId, signal: Signal, log: &Log, account: Arc<crate::telemetry::Destination>) -> Ledger {
        let stats = log.stats();
        let waiting = stats.destinations.iter().find(|d| d.id == id).map_or(0, |d| d.waiting.items);
        Ledger { id, signal, base: stats.items.saturating_sub(waiting), account, health: Mutex::default() }
    }

    /// The cursor passes a step; the counts go with it.
    pub fn pass(&self, log: &Log, step: &Step) {
        let quarantined: Vec<(&str, Loss)> =
            step.counts.quarantined.iter().map(|(reason, loss)| (*reason, *loss)).collect();
        // Operators said so: a destination with `intake: false` is drained, what comes meanwhile is for the others.
        let dropped = [("intake_off", step.counts.dropped)];
        let dropped = if step.counts.dropped > 0 { &dropped[..] } else { &[] };
        let settled = Settled {
            sent: step.counts.sent,
            sent_bytes: step.counts.bytes,
            quarantined: &quarantined,
            dropped,
            damaged: step.counts.damaged,
            cut: step.counts.cut,
        };
        self.account.settle(self.signal, &settled, || log.advance(&self.id, step.seq, step.items, step.sent_upto));
    }

    /// One consistent look.
    pub fn look(&self, log: &Log) -> LedgerSnapshot {
        self.account.read(self.signal, || {
            let stats = log.stats();
            let Some(d) = stats.destinations.into_iter().find(|d| d.id == self.id) else { return Held::default() };
            let age = d.waiting.oldest_appended_at.map_or(0, |at| now_ns().saturating_sub(at));
            Held {
                accepted: stats.items.saturating_sub(self.base),
                waiting: Waiting {
                    records: d.waiting.items,
                    bytes: d.waiting.bytes,
                    oldest_age_s: Duration::from_nanos(age).as_secs_f64(),
                },
            }
        })
    }

    pub fn account(&self) -> &Arc<crate::telemetry::Destination> {
        &self.account
    }

    /// One request has ended, whatever the outcome.
    pub fn requested(&self, request: Request) {
        self.account.request(request);
    }

    /// A try failed; the next one comes after `pause`.
    pub fn failed(&self, text: String, pause: Duration) {
        self.account.retried(self.signal);
        let now_ms = now_ns() / 1_000_000;
        let mut health = self.lock();
        health.state = DestinationState::Retrying;
        health.last_error = Some(LastError { at_ms: now_ms, text });
        health.next_try_ms = Some(now_ms + pause.as_millis() as u64);
    }

    pub fn succeeded(&self) {
        let mut health = self.lock();
        health.state = DestinationState::Ok;
        health.next_try_ms = None;
    }

    /// Nothing to send. What failed and waits stays a failure.
    pub fn idle(&self) {
        let mut health = self.lock();
        if health.state == DestinationState::Ok {
            health.state = DestinationState::Idle;
        }
    }

    pub fn health(&self) -> Health {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
