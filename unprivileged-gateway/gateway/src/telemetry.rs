//! The gateway's own numbers: counted once, shown three times.
//!
//! Like the meter in a house: the bill, the display and the meter man read the same dial. Receivers, store and destinations turn
//! the dials here; `/metrics`, `/api/v1/status` and the page print them together with one [`StatusSnapshot`] of the log. Alloy's
//! names are second labels on the same dials, never second dials. Weakness: a number that nobody registered in `families` or
//! `alloy` is counted and never seen; the golden test of names is the guard.

mod alloy;
mod buckets;
mod destination;
mod exposition;
mod families;
mod probe;
mod snapshot;
mod spans;

pub use destination::{Destination, DestinationInfo, Request, Settled, Wire};
pub use exposition::{Format, negotiate};
pub use probe::{Probe, ProbeGap};
pub use snapshot::{
    DestinationState, DestinationStatus, Held, LastError, LedgerSnapshot, LogStatus, Loss, MemoryStatus, QUARANTINE,
    Ready, StatusSnapshot, StatusSource, StorageState, StorageStatus, THRESHOLDS, Waiting,
};

pub use spans::{Commit, SERVICE as OWN_SERVICE};

use crate::seam::{Signal, Source};
pub(crate) use alloy::memory_bytes;
use destination::lock;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const SOURCES: [Source; 6] =
    [Source::OtlpGrpc, Source::OtlpHttp, Source::Probe, Source::Journal, Source::Host, Source::Own];

/// Reasons of refusal that exist at zero from the start: the log's own, then the doors'. Others appear with their first count.
pub const REFUSAL_REASONS: [&str; 11] = [
    "full",
    "closed",
    "disk_slow",
    "malformed",
    "too_large",
    "unsupported",
    "unserved",
    "auth",
    "origin",
    "budget",
    "slow",
];

/// Commit durations kept for the percentiles of the status.
const COMMITS_KEPT: usize = 1024;

/// The dials. Cheap to clone; all clones share the same numbers.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Default)]
struct Taken {
    items: AtomicU64,
    bytes: AtomicU64,
}

struct Inner {
    started_ms: u64,
    accepted: [[Taken; 4]; SOURCES.len()],
    refused: Mutex<BTreeMap<(Source, Signal, &'static str), u64>>,
    dropped: Mutex<BTreeMap<(Signal, String), u64>>,
    damaged: Mutex<BTreeMap<(&'static str, String), u64>>,
    commits: Mutex<Commits>,
    calls: Mutex<BTreeMap<(Source, Signal, String), Histogram>>,
    destinations: Mutex<Vec<Arc<Destination>>>,
    config: Mutex<ConfigLoad>,
    /// Rounds in which a part of the host could not be read, by collector and reason.
    host_unread: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    spans: Arc<spans::Spans>,
    probe: Probe,
}

/// The histogram keeps its count to itself, so it is kept here too, under the same lock.
#[derive(Default)]
struct Commits {
    by_log: BTreeMap<&'static str, Histogram>,
    count: u64,
    recent_s: VecDeque<f64>,
}

#[derive(Clone, Default)]
struct ConfigLoad {
    sha256: String,
    ok: bool,
    ok_at_s: f64,
    failures: u64,
}

/// How long a commit takes, over the last 1024 of all logs; `count` is since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CommitTimes {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What one source took of one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceTotals {
    pub source: Source,
    pub signal: Signal,
    pub accepted: u64,
    pub refused: u64,
    /// Raw OTLP bytes of what was accepted.
    pub bytes: u64,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry::new()
    }
}

impl Telemetry {
    /// All dials at zero; the process counts as started now.
    pub fn new() -> Telemetry {
        let mut refused = BTreeMap::new();
        for source in SOURCES {
            let signals = Signal::ALL.into_iter().filter(|signal| source.brings(*signal));
            for (signal, reason) in signals.flat_map(|s| REFUSAL_REASONS.map(|r| (s, r))) {
                refused.insert((source, signal, reason), 0);
            }
        }
        Telemetry(Arc::new(Inner {
            started_ms: unix_ms(),
            accepted: Default::default(),
            refused: Mutex::new(refused),
            dropped: Mutex::default(),
            damaged: Mutex::default(),
            commits: Mutex::default(),
            calls: Mutex::default(),
            destinations: Mutex::default(),
            config: Mutex::default(),
            host_unread: Mutex::default(),
            spans: Arc::default(),
            probe: Probe::default(),
        }))
    }

    /// Records that are synced and acknowledged. `bytes`: the raw request.
    pub fn accepted(&self, source: Source, signal: Signal, items: u64, bytes: u64) {
        let taken = &self.0.accepted[index_of(source)][signal as usize];
        taken.items.fetch_add(items, Ordering::Relaxed);
        taken.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that the sender still holds. A request that cannot be read counts as one record.
    pub fn refused(&self, source: Source, signal: Signal, reason: &'static str, items: u64) {
        *lock(&self.0.refused).entry((source, signal, reason)).or_default() += items;
    }

    /// Records that nobody holds, by the operator's rule or because the log refused a scrape, before any destination was involved.
    pub fn dropped(&self, signal: Signal, rule: &str, items: u64) {
        *lock(&self.0.dropped).entry((signal, rule.to_owned())).or_default() += items;
    }

    /// Finds of recovery or of a reader in one log ([`Signal::name`] or [`QUARANTINE`]), by kind.
    pub fn damaged(&self, log: &'static str, kind: &str, count: u64) {
        *lock(&self.0.damaged).entry((log, kind.to_owned())).or_default() += count;
    }

    /// A collector of the host's metrics found nothing to read this round.
    pub fn host_unread(&self, collector: &'static str, reason: &'static str) {
        *lock(&self.0.host_unread).entry((collector, reason)).or_default() += 1;
    }

    /// One write-and-sync of one log.
    pub fn committed(&self, log: &'static str, seconds: f64) {
        let mut commits = lock(&self.0.commits);
        commits.by_log.entry(log).or_insert_with(|| Histogram::new(buckets::COMMIT_S)).observe(seconds);
        commits.count += 1;
        if commits.recent_s.len() == COMMITS_KEPT {
            commits.recent_s.pop_front();
        }
        commits.recent_s.push_back(seconds);
    }

    /// The same commit for the gateway's own traces, successful or not. `now_ns`: its end, unix nanoseconds.
    pub fn traced(&self, commit: &Commit, now_ns: u64) {
        self.0.spans.commit(commit, now_ns);
    }

    /// From now on commits and pushes are sampled as spans; without it nothing is.
    pub fn trace(&self) {
        self.0.spans.turn_on();
    }

    /// The spans since the last call as an OTLP request, and how many; `None`: none.
    pub fn own_spans(&self, node: &str) -> Option<(Vec<u8>, u32)> {
        self.0.spans.take(node)
    }

    /// One call that a receiver answered; `status` is the gRPC code or the HTTP status as text.
    pub fn call(&self, source: Source, signal: Signal, status: &str, seconds: f64) {
        let new = || Histogram::new(buckets::CALL_MS);
        let key = (source, signal, status.to_owned());
        lock(&self.0.calls).entry(key).or_insert_with(new).observe(seconds * 1000.0);
    }

    /// Opens the account of a destination, all at zero. The same destination again gives the account that is already open; the
    /// same kind and name with another URL or other signals starts anew.
    pub fn register(&self, info: DestinationInfo) -> Arc<Destination> {
        let mut destinations = lock(&self.0.destinations);
        if let Some(known) = destinations.iter().find(|d| **d.info() == info) {
            return known.clone();
        }
        destinations.retain(|d| (&d.info().kind, &d.info().name) != (&info.kind, &info.name));
        let destination = Arc::new(Destination::new(info, self.0.spans.clone()));
        destinations.push(destination.clone());
        destination
    }

    /// A configuration took effect (`ok`), or was refused. `sha256`: hex, of what is running after this.
    pub fn config_loaded(&self, sha256: &str, ok: bool) {
        let mut config = lock(&self.0.config);
        config.sha256 = sha256.to_owned();
        config.ok = ok;
        if ok {
            config.ok_at_s = unix_ms() as f64 / 1000.0;
        } else {
            config.failures += 1;
        }
    }

    /// The dials of the probe.
    pub fn probe(&self) -> &Probe {
        &self.0.probe
    }

    /// Unix milliseconds.
    pub fn started_ms(&self) -> u64 {
        self.0.started_ms
    }

    pub fn accepted_items(&self, signal: Signal) -> u64 {
        self.sum_accepted(signal, |taken| &taken.items)
    }

    /// By reason, over all sources.
    pub fn refused_by_reason(&self, signal: Signal) -> BTreeMap<&'static str, u64> {
        let mut by_reason = BTreeMap::new();
        for ((_, _, reason), count) in lock(&self.0.refused).iter().filter(|((_, s, _), _)| *s == signal) {
            *by_reason.entry(*reason).or_default() += count;
        }
        by_reason
    }

    /// By rule: before the log, and at every destination of `snapshot`.
    pub fn dropped_by_rule(&self, signal: Signal, snapshot: &StatusSnapshot) -> BTreeMap<String, u64> {
        let mut by_rule = BTreeMap::new();
        for ((s, rule), count) in lock(&self.0.dropped).iter() {
            if *s == signal {
                *by_rule.entry(rule.clone()).or_default() += count;
            }
        }
        let ledgers = snapshot.destinations.iter().flat_map(|d| &d.ledgers).filter(|l| l.signal == signal);
        for (rule, count) in ledgers.flat_map(|ledger| &ledger.dropped) {
            *by_rule.entry(rule.clone()).or_default() += count;
        }
        by_rule
    }

    /// By kind, over all logs.
    pub fn damage_by_kind(&self) -> BTreeMap<String, u64> {
        let mut by_kind = BTreeMap::new();
        for ((_, kind), count) in lock(&self.0.damaged).iter() {
            *by_kind.entry(kind.clone()).or_default() += count;
        }
        by_kind
    }

    /// One row a source and signal that it can bring, those that never saw anything included; others once they have counted.
    pub fn sources(&self) -> Vec<SourceTotals> {
        let refused = lock(&self.0.refused);
        let refused_of = |source, signal| {
            refused.iter().filter(|((s, g, _), _)| (*s, *g) == (source, signal)).map(|(_, count)| count).sum()
        };
        let mut rows = Vec::new();
        for source in SOURCES {
            for signal in Signal::ALL {
                let taken = &self.0.accepted[index_of(source)][signal as usize];
                rows.push(SourceTotals {
                    source,
                    signal,
                    accepted: taken.items.load(Ordering::Relaxed),
                    refused: refused_of(source, signal),
                    bytes: taken.bytes.load(Ordering::Relaxed),
                });
            }
        }
        rows.retain(|row| row.source.brings(row.signal) || row.accepted + row.refused > 0);
        rows
    }

    pub fn commit_times(&self) -> CommitTimes {
        let commits = lock(&self.0.commits);
        let (count, mut recent) = (commits.count, commits.recent_s.iter().copied().collect::<Vec<f64>>());
        drop(commits);
        recent.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (recent.len() as f64 * share).ceil() as usize;
            recent.get(rank.saturating_sub(1)).map_or(0.0, |seconds| seconds * 1000.0)
        };
        CommitTimes { count, p50_ms: at(0.50), p99_ms: at(0.99) }
    }

    /// The body of `/metrics` in `format`. Errors: none in practice, the writer is memory.
    pub fn exposition(&self, format: Format, snapshot: &StatusSnapshot) -> Result<Vec<u8>, std::fmt::Error> {
        let mut families = families::own(self, snapshot);
        families.extend(alloy::parity(self, snapshot));
        exposition::encode(families, format)
    }

    fn sum_accepted(&self, signal: Signal, part: impl Fn(&Taken) -> &AtomicU64) -> u64 {
        SOURCES.iter().map(|s| part(&self.0.accepted[index_of(*s)][signal as usize]).load(Ordering::Relaxed)).sum()
    }
}

fn index_of(source: Source) -> usize {
    match source {
        Source::OtlpGrpc => 0,
        Source::OtlpHttp => 1,
        Source::Probe => 2,
        Source::Journal => 3,
        Source::Host => 4,
        Source::Own => 5,
    }
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
