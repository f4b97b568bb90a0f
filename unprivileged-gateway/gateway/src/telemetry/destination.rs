//! One destination's account: what left the log, and where it went.
//!
//! A cash book with one pen: whoever moves the cursor writes the line while holding the book, and whoever reads the sum asks the
//! log for the rest while holding it too. So a record is never seen in two places, nor in none. Weakness: the closure that moves
//! the cursor runs under the lock, so it must be memory work only.

use super::snapshot::{Held, LedgerSnapshot, Loss};
use crate::seam::Signal;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the records travel; decides which of Alloy's metric names a destination also appears under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    LokiPush,
    OtlpGrpc,
    OtlpHttp,
    PyroscopePush,
    /// Stays in this process (the local view) or is not known any more.
    None,
}

/// Who a destination is. Fixed from registration on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationInfo {
    /// The configuration key: `loki`, `otlp`, `pyroscope`, `view`.
    pub kind: String,
    pub name: String,
    pub wire: Wire,
    pub signals: Vec<Signal>,
    /// With secrets masked; empty if there is none.
    pub url: String,
    /// `host:port` of the URL.
    pub host: String,
    pub tenant: String,
}

impl DestinationInfo {
    /// One that is registered in a log but no longer configured.
    pub fn orphan(kind: &str, name: &str, signals: Vec<Signal>) -> DestinationInfo {
        DestinationInfo {
            kind: kind.to_owned(),
            name: name.to_owned(),
            wire: Wire::None,
            signals,
            url: String::new(),
            host: String::new(),
            tenant: String::new(),
        }
    }

    /// `kind/name`, the label `destination`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// Alloy's component id for the same job, if there is one.
    pub fn component_id(&self) -> Option<String> {
        match self.wire {
            Wire::LokiPush => Some(format!("loki.write.{}", self.name)),
            Wire::OtlpGrpc => Some(format!("otelcol.exporter.otlp.{}", self.name)),
            Wire::OtlpHttp => Some(format!("otelcol.exporter.otlphttp.{}", self.name)),
            Wire::PyroscopePush => Some(format!("pyroscope.write.{}", self.name)),
            Wire::None => None,
        }
    }
}

/// Records that have left the waiting state, in one step.
#[derive(Clone, Debug, Default)]
pub struct Settled<'a> {
    pub sent: u64,
    pub sent_bytes: u64,
    /// (reason, what).
    pub quarantined: &'a [(&'a str, Loss)],
    /// (rule, records).
    pub dropped: &'a [(&'a str, u64)],
    pub damaged: u64,
    /// Lines whose end was cut off to fit the backend's limit.
    pub cut: u64,
}

/// One finished request to a backend, whatever the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub signal: Signal,
    /// HTTP or gRPC status; -1 when there was no answer.
    pub status: i32,
    pub seconds: f64,
    /// Body as sent.
    pub bytes: u64,
    pub items: u64,
    /// Seconds from receipt to this request, of the oldest record in it.
    pub age_s: Option<f64>,
    /// Of the last frame in it; 0 where it is not known.
    pub last_seq: u64,
}

#[derive(Default)]
struct Account {
    sent: u64,
    sent_bytes: u64,
    quarantined: BTreeMap<String, Loss>,
    dropped: BTreeMap<String, u64>,
    damaged: u64,
    cut: u64,
    retries: u64,
}

/// Histograms of one destination; all clones share their numbers.
#[derive(Clone)]
pub(super) struct RequestSizes {
    pub(super) bytes: Histogram,
    pub(super) items: Histogram,
    pub(super) age_s: Histogram,
}

/// The account of one registered destination, one book a signal. Made by `Telemetry::register`.
pub struct Destination {
    info: std::sync::Arc<DestinationInfo>,
    accounts: BTreeMap<Signal, Mutex<Account>>,
    /// By signal and status; the unit is that of `new_duration`.
    pub(super) durations: Mutex<BTreeMap<(Signal, i32), Histogram>>,
    pub(super) sizes: RequestSizes,
    spans: std::sync::Arc<super::spans::Spans>,
}

/// A panic elsewhere must not stop the counting: each update leaves the account whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Destination {
    pub(super) fn new(info: DestinationInfo, spans: std::sync::Arc<super::spans::Spans>) -> Destination {
        let accounts = info.signals.iter().map(|signal| (*signal, Mutex::default())).collect();
        let sizes = RequestSizes {
            bytes: Histogram::new(super::buckets::REQUEST_BYTES),
            items: Histogram::new(super::buckets::BATCH_ITEMS),
            age_s: Histogram::new(super::buckets::PROPAGATION_S),
        };
        let info = std::sync::Arc::new(info);
        let destination = Destination { info, accounts, durations: Mutex::default(), sizes, spans };
        // The answer that says "stored" exists from the start, so that a rate has a first point.
        let stored = match destination.info.wire {
            Wire::LokiPush => Some(204),
            Wire::OtlpGrpc => Some(0),
            Wire::OtlpHttp | Wire::PyroscopePush => Some(200),
            Wire::None => None,
        };
        if let Some(stored) = stored {
            let keys = destination.info.signals.iter().map(|signal| (*signal, stored));
            lock(&destination.durations).extend(keys.map(|key| (key, destination.new_duration())));
        }
        destination
    }

    /// Alloy counts a Loki push in seconds and an OTLP call in milliseconds.
    fn new_duration(&self) -> Histogram {
        match self.info.wire {
            Wire::OtlpGrpc | Wire::OtlpHttp => Histogram::new(super::buckets::CALL_MS),
            Wire::LokiPush | Wire::PyroscopePush | Wire::None => Histogram::new(super::buckets::REQUEST_S),
        }
    }

    pub fn info(&self) -> &std::sync::Arc<DestinationInfo> {
        &self.info
    }

    /// Books what left the waiting state and runs `advance`, which moves the cursor in the log, as one step for every reader.
    /// `advance` is memory work only. A signal that was not registered runs `advance` and books nothing.
    pub fn settle<T>(&self, signal: Signal, settled: &Settled<'_>, advance: impl FnOnce() -> T) -> T {
        let Some(account) = self.accounts.get(&signal) else { return advance() };
        let mut account = lock(account);
        account.sent += settled.sent;
        account.sent_bytes += settled.sent_bytes;
        account.damaged += settled.damaged;
        account.cut += settled.cut;
        for (reason, loss) in settled.quarantined {
            let total = account.quarantined.entry((*reason).to_owned()).or_default();
            total.records += loss.records;
            total.bytes += loss.bytes;
        }
        for (rule, records) in settled.dropped {
            *account.dropped.entry((*rule).to_owned()).or_default() += records;
        }
        advance()
    }

    /// A request is about to be sent again.
    pub fn retried(&self, signal: Signal) {
        if let Some(account) = self.accounts.get(&signal) {
            lock(account).retries += 1;
        }
    }

    /// Notes duration and size of one request that has just ended.
    pub fn request(&self, request: Request) {
        let scale = if matches!(self.info.wire, Wire::OtlpGrpc | Wire::OtlpHttp) { 1000.0 } else { 1.0 };
        let key = (request.signal, request.status);
        lock(&self.durations).entry(key).or_insert_with(|| self.new_duration()).observe(request.seconds * scale);
        self.sizes.bytes.observe(request.bytes as f64);
        self.sizes.items.observe(request.items as f64);
        if let Some(age_s) = request.age_s {
            self.sizes.age_s.observe(age_s);
        }
        self.spans.push(&self.info, &request, crate::store::now_ns());
    }

    /// The account of `signal` now; `held` asks the log and runs under the same lock as [`Destination::settle`].
    pub fn read(&self, signal: Signal, held: impl FnOnce() -> Held) -> LedgerSnapshot {
        let mut ledger = LedgerSnapshot::new(signal);
        let fill = |ledger: &mut LedgerSnapshot, held: Held| {
            ledger.accepted = held.accepted;
            ledger.waiting = held.waiting;
        };
        let Some(account) = self.accounts.get(&signal) else {
            fill(&mut ledger, held());
            return ledger;
        };
        let account = lock(account);
        fill(&mut ledger, held());
        ledger.sent = account.sent;
        ledger.sent_bytes = account.sent_bytes;
        ledger.quarantined = account.quarantined.clone();
        ledger.dropped = account.dropped.clone();
        ledger.damaged = account.damaged;
        ledger.cut = account.cut;
        ledger.retries = account.retries;
        ledger
    }
}
