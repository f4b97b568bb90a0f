//! What the log knows, as one photograph.
//!
//! Counters run on their own; how much waits, how full a log is and whether it is open are facts of the log. A photograph of all
//! of them is taken once a scrape, and page, `/api/v1/status` and `/metrics` are printed from that one negative. Weakness: two
//! scrapes a moment apart differ, so numbers are compared only within one photograph.

use super::destination::DestinationInfo;
use crate::seam::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whoever holds the logs and the destinations. Called at every scrape and once a second; it must not wait for the disk.
pub trait StatusSource: Send + Sync + 'static {
    fn snapshot(&self) -> StatusSnapshot;
}

/// Everything that is read rather than counted.
#[derive(Clone, Debug, Default)]
pub struct StatusSnapshot {
    pub ready: Ready,
    pub storage: StorageStatus,
    pub memory: MemoryStatus,
    /// One row a log that exists or could exist: the four signals, and `quarantine`.
    pub logs: Vec<LogStatus>,
    /// Every registered destination, those that left the configuration included, and the local view (kind `view`, name `local`).
    pub destinations: Vec<DestinationStatus>,
}

/// `/-/ready`: 200 only while `why` is empty. Each entry is a sentence.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    pub why: Vec<String>,
}

impl Ready {
    pub fn ok(&self) -> bool {
        self.why.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
pub struct StorageStatus {
    pub path: String,
    pub max_bytes: u64,
    pub state: StorageState,
}

/// The worst state of any served log. Thresholds: [`THRESHOLDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageState {
    #[default]
    Ok,
    Warn,
    High,
    Critical,
    Full,
    Closed,
}

/// Shares of a log's room at which it is called warn, high and critical (DESIGN 4 "Space").
pub const THRESHOLDS: [f64; 3] = [0.70, 0.85, 0.95];

impl StorageState {
    pub const fn name(self) -> &'static str {
        match self {
            StorageState::Ok => "ok",
            StorageState::Warn => "warn",
            StorageState::High => "high",
            StorageState::Critical => "critical",
            StorageState::Full => "full",
            StorageState::Closed => "closed",
        }
    }

    /// The state of a log that has used `fill` of its room; 1.0 and above is full.
    pub fn of_fill(fill: f64) -> StorageState {
        match fill {
            f if f >= 1.0 => StorageState::Full,
            f if f >= THRESHOLDS[2] => StorageState::Critical,
            f if f >= THRESHOLDS[1] => StorageState::High,
            f if f >= THRESHOLDS[0] => StorageState::Warn,
            _ => StorageState::Ok,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStatus {
    pub budget_bytes: u64,
    pub used_bytes: u64,
}

/// The name of the fifth log, beside the four of [`Signal::name`].
pub const QUARANTINE: &str = "quarantine";

/// One log of the folder.
#[derive(Clone, Debug, Default)]
pub struct LogStatus {
    /// A signal's name or [`QUARANTINE`].
    pub name: &'static str,
    /// False: neither destination nor view, so nothing is taken; the other fields are zero.
    pub served: bool,
    pub bytes: u64,
    pub segments: u64,
    /// What this log may always use.
    pub guarantee_bytes: u64,
    /// Guarantee plus what is free of the shared part now: the room that `fill` is a share of.
    pub capacity_bytes: u64,
    /// 0.0 to 1.0.
    pub fill: f64,
    /// Why intake is closed, as a sentence.
    pub closed: Option<String>,
}

/// What a destination is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestinationState {
    /// Sending, or ready to.
    Ok,
    /// The last request failed; the data waits.
    Retrying,
    /// Nothing to send.
    #[default]
    Idle,
    /// It will not go on by itself.
    Stopped,
    /// Registered, but no longer in the configuration.
    Removed,
}

impl DestinationState {
    pub const fn name(self) -> &'static str {
        match self {
            DestinationState::Ok => "ok",
            DestinationState::Retrying => "retrying",
            DestinationState::Idle => "idle",
            DestinationState::Stopped => "stopped",
            DestinationState::Removed => "removed",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastError {
    /// Unix milliseconds.
    pub at_ms: u64,
    pub text: String,
}

/// One destination. Its ledgers were each read under one lock, so that [`LedgerSnapshot::adds_up`].
#[derive(Clone, Debug)]
pub struct DestinationStatus {
    pub info: Arc<DestinationInfo>,
    pub configured: bool,
    pub state: DestinationState,
    pub last_error: Option<LastError>,
    /// Unix milliseconds.
    pub next_try_ms: Option<u64>,
    /// One a signal it takes.
    pub ledgers: Vec<LedgerSnapshot>,
}

/// What lies between a destination's cursor and the synced end of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waiting {
    pub records: u64,
    pub bytes: u64,
    /// Seconds since the oldest waiting record was appended; 0 when none waits.
    pub oldest_age_s: f64,
}

/// The log's own answer: what entered it for this destination, and what is still there. `accepted` starts at a restart with the
/// waiting count that recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    pub accepted: u64,
    pub waiting: Waiting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    pub records: u64,
    pub bytes: u64,
}

/// One destination's account of one signal. Units: records, unless named bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerSnapshot {
    pub signal: Signal,
    pub accepted: u64,
    pub sent: u64,
    /// As sent on the wire, so compressed.
    pub sent_bytes: u64,
    pub waiting: Waiting,
    /// By reason.
    pub quarantined: BTreeMap<String, Loss>,
    /// By rule.
    pub dropped: BTreeMap<String, u64>,
    pub damaged: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Lines sent without their end.
    pub cut: u64,
}

impl LedgerSnapshot {
    /// All zero.
    pub fn new(signal: Signal) -> LedgerSnapshot {
        LedgerSnapshot {
            signal,
            accepted: 0,
            sent: 0,
            sent_bytes: 0,
            waiting: Waiting::default(),
            quarantined: BTreeMap::new(),
            dropped: BTreeMap::new(),
            damaged: 0,
            retries: 0,
            cut: 0,
        }
    }

    pub fn quarantined_records(&self) -> u64 {
        self.quarantined.values().map(|loss| loss.records).sum()
    }

    pub fn dropped_records(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// The law of the ledger (DESIGN 5): every accepted record is in exactly one place.
    pub fn adds_up(&self) -> bool {
        let known =
            self.sent + self.waiting.records + self.quarantined_records() + self.dropped_records() + self.damaged;
        self.accepted == known
    }
}
