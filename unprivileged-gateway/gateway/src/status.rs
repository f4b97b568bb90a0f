//! One photograph of everything that is read rather than counted: logs, destinations, memory, readiness.

use crate::budget::Budget;
use crate::config::Config;
use crate::seam::Signal;
use crate::store::{QUARANTINE, SignalLog, Store, VIEW};
use crate::telemetry::{
    DestinationState, DestinationStatus, LogStatus, MemoryStatus, Ready, StatusSnapshot, StatusSource, StorageState,
    StorageStatus,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process is in its life; decides `/-/ready` together with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Starting = 0,
    Serving = 1,
    Draining = 2,
}

/// The photographer. Cheap to clone.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

struct Inner {
    store: Store,
    budget: Budget,
    path: String,
    max_bytes: u64,
    phase: AtomicU8,
}

impl Status {
    pub fn new(config: &Config, store: Store, budget: Budget) -> Status {
        Status(Arc::new(Inner {
            store,
            budget,
            path: config.storage.path.display().to_string(),
            max_bytes: config.storage.max,
            phase: AtomicU8::new(Phase::Starting as u8),
        }))
    }

    pub fn enter(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::SeqCst);
    }

    fn ready(&self, logs: &[LogStatus]) -> Ready {
        let mut why = Vec::new();
        match self.0.phase.load(Ordering::SeqCst) {
            p if p == Phase::Starting as u8 => why.push("starting: listeners are not bound yet".to_owned()),
            p if p == Phase::Draining as u8 => why.push("draining: this process is about to end".to_owned()),
            _ => {}
        }
        // Quarantine has no senders: closing it stops nobody from being served.
        for log in logs.iter().filter(|l| l.served && l.name != QUARANTINE) {
            if let Some(closed) = &log.closed {
                why.push(format!("the {} log in {} takes nothing: {closed}", log.name, self.0.path));
            } else if log.fill >= crate::store::PUSH_REFUSED_FROM {
                why.push(format!(
                    "the {} log in {} is {:.0} % full and refuses",
                    log.name,
                    self.0.path,
                    log.fill * 100.0
                ));
            }
        }
        Ready { why }
    }
}

impl StatusSource for Status {
    fn snapshot(&self) -> StatusSnapshot {
        let store = &self.0.store;
        let mut logs: Vec<LogStatus> = Signal::ALL
            .into_iter()
            .map(|signal| match store.log(signal) {
                Some(l) => log_status(signal.name(), &l.log, store),
                None => LogStatus { name: signal.name(), ..LogStatus::default() },
            })
            .collect();
        logs.push(log_status(QUARANTINE, store.quarantine().log(), store));
        let worst = |l: &LogStatus| match &l.closed {
            Some(_) => StorageState::Closed,
            None => StorageState::of_fill(l.fill),
        };
        let state = logs.iter().filter(|l| l.served && l.name != QUARANTINE).map(worst).max().unwrap_or_default();
        StatusSnapshot {
            ready: self.ready(&logs),
            storage: StorageStatus { path: self.0.path.clone(), max_bytes: self.0.max_bytes, state },
            memory: MemoryStatus { budget_bytes: self.0.budget.limit(), used_bytes: self.0.budget.used() },
            logs,
            destinations: destinations(store),
        }
    }
}

fn log_status(name: &'static str, log: &wal::Log, store: &Store) -> LogStatus {
    let stats = log.stats();
    let fill = stats.pressure.fraction;
    LogStatus {
        name,
        served: true,
        bytes: stats.bytes,
        segments: stats.segments as u64,
        guarantee_bytes: store.space().guarantee(name),
        capacity_bytes: store.space().capacity(name),
        fill,
        closed: stats.closed,
    }
}

/// One row a destination over all its signals, the worst state first.
fn destinations(store: &Store) -> Vec<DestinationStatus> {
    let mut rows: BTreeMap<String, DestinationStatus> = BTreeMap::new();
    for SignalLog { log, ledgers, .. } in store.logs() {
        let configured: BTreeMap<_, _> = log.stats().destinations.into_iter().map(|d| (d.id, d.configured)).collect();
        for (id, ledger) in ledgers {
            // Forgotten since the start: its account is closed.
            let Some(configured) = configured.get(id) else { continue };
            let health = ledger.health();
            let row = rows.entry(id.to_string()).or_insert_with(|| DestinationStatus {
                info: ledger.account().info().clone(),
                configured: *configured,
                state: DestinationState::Idle,
                last_error: None,
                next_try_ms: None,
                ledgers: Vec::new(),
            });
            row.ledgers.push(ledger.look(log));
            let state = if *configured { health.state } else { DestinationState::Removed };
            if rank(state) > rank(row.state) {
                row.state = state;
                row.next_try_ms = health.next_try_ms;
            }
            if health.last_error.as_ref().map(|e| e.at_ms) > row.last_error.as_ref().map(|e| e.at_ms) {
                row.last_error = health.last_error;
            }
        }
    }
    let mut rows: Vec<DestinationStatus> = rows.into_values().collect();
    rows.sort_by_key(|r| (r.info.kind == VIEW.0, r.info.label()));
    rows
}

fn rank(state: DestinationState) -> u8 {
    match state {
        DestinationState::Idle => 0,
        DestinationState::Ok => 1,
        DestinationState::Removed => 2,
        DestinationState::Retrying => 3,
        DestinationState::Stopped => 4,
    }
}
