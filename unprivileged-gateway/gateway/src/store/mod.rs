//! The store: one write-ahead log a signal, and the one way in.
//!
//! Image: a row of letter boxes, each emptied by its own postman. Whoever drops a letter waits at the box until the postman has
//! locked it away; one walk serves everybody who stood there. [`Store::accept`] copies a request into its log's open group and
//! waits; the log's [`commit`] thread writes and syncs the group once and wakes all who were in it.
//!
//! Weakness: a disk whose sync never returns holds its waiters. What they may pile up meanwhile is bounded by
//! [`PENDING_MAX`]; beyond it the senders are told to keep their data.

mod accounts;
mod commit;
mod index;
mod ledger;
pub mod operator;
pub mod payload;
pub mod quarantine;
pub mod report;

pub use accounts::{VIEW, destinations_of};
pub use commit::Committer;
pub use ledger::{Health, Ledger};
pub use quarantine::{QuarantineItem, Quarantined};

use crate::config::Config;
use crate::seam::{Intake, Offered, Refusal, RefusalClass, Signal};
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wal::{Appended, Codec, DestinationId, Folder, FolderError, Log, LogOptions, NewFrame, Outcome, Refused, Space};

/// Bytes that may wait for one log's next sync before senders are refused. Unit: bytes.
const PENDING_MAX: usize = 24 << 20;
/// Recent commits kept in memory for readers that keep up, a log. Unit: bytes.
const TAIL_BYTES: usize = 4 << 20;
/// What a sender is told to wait when the disk has no room or does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a start waits for a process that is just ending to release the folder.
const LET_GO: Duration = Duration::from_secs(1);
/// Share of a signal's space above which push clients are refused (DESIGN 4: 70 warn, 85 refuse push, 95 skip scrapes).
pub const PUSH_REFUSED_FROM: f64 = 0.85;
/// Name of the fifth log.
pub use wal::QUARANTINE;

/// Unix time in nanoseconds. The one place where the daemon's data path reads the wall clock.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Why the store could not be opened. The exit code is 74 for all of them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the {log} log in {path} cannot be opened: {source}")]
    Open { log: String, path: String, source: wal::OpenError },
    #[error("the {log} log could not write down its destinations: {source}")]
    Register { log: String, source: wal::CommitFailed },
    #[error("storage folder {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// One signal's log with its commit thread and the ledgers of its destinations.
pub struct SignalLog {
    pub signal: Signal,
    pub log: Log,
    pub committer: Committer,
    /// Of every registered destination, those that left the configuration included.
    pub ledgers: BTreeMap<DestinationId, Arc<Ledger>>,
    /// Destinations that take nothing new (`intake: false`): every frame is born done for them.
    draining: Vec<DestinationId>,
}

struct Inner {
    folder: Folder,
    space: Arc<Space>,
    logs: BTreeMap<Signal, SignalLog>,
    quarantine: Quarantined,
    librarian: index::Librarian,
    path: String,
}

/// A cheap handle to all logs.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl Store {
    /// Opens the folder, recovers every served log, writes down the destinations and starts the commit threads.
    ///
    /// Nothing is accepted before this start's registrations are synced (DESIGN 4, "Registration").
    pub fn open(config: &Config, telemetry: Telemetry) -> Result<Store, StoreError> {
        let path: &Path = &config.storage.path;
        let shown = path.display().to_string();
        let folder = folder(path)?;
        let served: Vec<Signal> = Signal::ALL.into_iter().filter(|s| serves(config, *s)).collect();
        let mut names: Vec<&str> = served.iter().map(|s| s.name()).collect();
        names.push(QUARANTINE);
        let space = Space::new(config.storage.max, &names);
        let open =
            |name: &'static str, retain: Duration| {
                let disk = folder.disk(name).map_err(|source| StoreError::Io { path: shown.clone(), source })?;
                let nonce = Box::new(|| fastrand::u64(..));
                let mut options = LogOptions::new(name, folder.node(), folder.epoch(), space.clone(), nonce);
                options.tail_bytes = TAIL_BYTES;
                options.retain_ns = u64::try_from(retain.as_nanos()).unwrap_or(u64::MAX);
                let (log, recovery) = Log::open(Arc::new(disk), options, now_ns())
                    .map_err(|source| StoreError::Open { log: name.into(), path: shown.clone(), source })?;
                report(name, &recovery, &telemetry);
                Ok::<Log, StoreError>(log)
            };
        let mut logs = BTreeMap::new();
        for signal in served {
            let log = open(signal.name(), retain(config, signal))?;
            logs.insert(signal, SignalLog::start(signal, log, config, &telemetry)?);
        }
        let log = open(QUARANTINE, Duration::ZERO)?;
        log.register(&[Quarantined::keeper()], now_ns())
            .map_err(|source| StoreError::Register { log: QUARANTINE.into(), source })?;
        let io = |source| StoreError::Io { path: shown.clone(), source };
        let quarantine = Quarantined::start(log, config.storage.commit_window, telemetry.clone()).map_err(io)?;
        let all = logs.values().map(|l: &SignalLog| l.log.clone()).chain([quarantine.log().clone()]).collect();
        let librarian = index::Librarian::start(path.to_owned(), all).map_err(io)?;
        Ok(Store(Arc::new(Inner { folder, space, logs, quarantine, librarian, path: shown })))
    }

    pub fn log(&self, signal: Signal) -> Option<&SignalLog> {
        self.0.logs.get(&signal)
    }

    pub fn logs(&self) -> impl Iterator<Item = &SignalLog> {
        self.0.logs.values()
    }

    pub fn space(&self) -> &Space {
        &self.0.space
    }

    pub fn quarantine(&self) -> &Quarantined {
        &self.0.quarantine
    }

    pub fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// Commits what waits and ends the commit threads. Call when nothing is accepted or sent any more.
    pub fn close(&self) {
        self.0.librarian.stop();
        self.0.logs.values().for_each(|l| l.committer.stop());
        self.0.quarantine.stop();
    }

    fn append(&self, l: &SignalLog, offered: &Offered) -> Result<u64, Refusal> {
        let pressure = self.0.space.pressure(l.signal.name());
        if pressure.fraction >= PUSH_REFUSED_FROM {
            return Err(full(l.signal, &self.0.path, pressure.fraction));
        }
        if l.log.pending().bytes > PENDING_MAX {
            return Err(Refusal {
                class: RefusalClass::Unavailable,
                reason: "disk_slow",
                message: format!(
                    "the disk under {} has not synced the {} log for a while; try again",
                    self.0.path, l.signal
                ),
                retry_after: Some(RETRY_AFTER),
            });
        }
        let header = model::envelope::header(offered.kind, &offered.sidecar);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(offered.body.len() + 1);
        parts.push(&header);
        parts.extend(offered.body.iter().map(|b| &b[..]));
        let raw_len = parts.iter().map(|p| p.len()).sum::<usize>() as u32;
        let frame = NewFrame {
            parts: &parts,
            items: offered.items,
            codec: Codec::Raw,
            raw_len,
            hops: 0,
            origin: offered.origin.as_ref(),
            done: &l.draining,
            appended_at: offered.sidecar.received_at,
        };
        match l.log.append(frame) {
            Ok(Appended::New { seq } | Appended::Held { seq }) => Ok(seq),
            // Only frames with an origin are trimmed or sent back, and these have none.
            Ok(other) => Err(unavailable("origin", format!("the {} log answered {other:?}", l.signal))),
            Err(Refused::Full { fraction, .. }) => Err(full(l.signal, &self.0.path, fraction)),
            Err(e @ Refused::TooLarge { .. }) => Err(Refusal {
                class: RefusalClass::Invalid,
                reason: "too_large",
                message: e.to_string(),
                retry_after: None,
            }),
            Err(e) => Err(unavailable("closed", e.to_string())),
        }
    }
}

impl Intake for Store {
    fn serves(&self, signal: Signal) -> bool {
        // Metrics and profiles come from this node's own readers; as OTLP nothing here could show or send them.
        matches!(signal, Signal::Logs | Signal::Traces) && self.0.logs.contains_key(&signal)
    }

    async fn accept(&self, offered: Offered) -> Result<(), Refusal> {
        match self.0.logs.get(&offered.signal) {
            Some(l) => self.store(l, offered).await,
            None => Err(unavailable(
                "unserved",
                format!("nothing here takes {}: configure a destination or the local view", offered.signal),
            )),
        }
    }
}

impl Store {
    /// Returns once the frame is synced.
    async fn store(&self, l: &SignalLog, offered: Offered) -> Result<(), Refusal> {
        let mut rounds = l.committer.rounds();
        let seq = self.append(l, &offered)?;
        // The bytes are in the group's buffer: what was received can go before the sync.
        drop(offered);
        l.committer.nudge(l.log.pending().bytes);
        loop {
            match l.log.outcome(seq) {
                Outcome::Synced => return Ok(()),
                Outcome::Refused => {
                    let why = l.log.stats().closed.unwrap_or_else(|| "a write or sync failed".into());
                    return Err(unavailable(
                        "disk_failed",
                        format!("the {} log in {} could not be written: {why}", l.signal, self.0.path),
                    ));
                }
                Outcome::Pending => drop(rounds.changed().await),
            }
        }
    }
}

impl SignalLog {
    fn start(signal: Signal, log: Log, config: &Config, telemetry: &Telemetry) -> Result<SignalLog, StoreError> {
        let wanted = destinations_of(config, signal);
        log.register(&wanted, now_ns()).map_err(|source| StoreError::Register { log: signal.name().into(), source })?;
        let ledgers = log
            .stats()
            .destinations
            .into_iter()
            .map(|d| {
                let account = telemetry.register(accounts::info_of(config, &d.id, signal));
                (d.id.clone(), Arc::new(Ledger::new(d.id, signal, &log, account)))
            })
            .collect();
        let committer = Committer::start(signal.name(), log.clone(), config.storage.commit_window, telemetry.clone())
            .map_err(|source| StoreError::Io { path: config.storage.path.display().to_string(), source })?;
        let draining = accounts::draining(config, signal);
        Ok(SignalLog { signal, log, committer, ledgers, draining })
    }
}

/// The folder, once its last owner has let go: the kernel takes a moment to end a process that was killed.
fn folder(path: &Path) -> Result<Folder, FolderError> {
    let begun = std::time::Instant::now();
    loop {
        match Folder::open(path, &mut || fastrand::u64(..)) {
            Err(FolderError::InUse { .. }) if begun.elapsed() < LET_GO => std::thread::sleep(LET_GO / 20),
            result => return result,
        }
    }
}

/// What recovery found, said once and counted.
fn report(name: &'static str, recovery: &wal::Recovery, telemetry: &Telemetry) {
    tracing::info!(
        log = name,
        segments = recovery.segments,
        tail_frames = recovery.tail_frames,
        state = ?recovery.state,
        "recovered"
    );
    for range in &recovery.torn {
        tracing::error!(
            log = name,
            from = range.from,
            to = range.to,
            "unreadable at the tail; it may have been acknowledged"
        );
        telemetry.damaged(name, "torn_tail_records", range.to.saturating_sub(range.from));
    }
    for range in &recovery.damaged {
        tracing::error!(
            log = name,
            from = range.from,
            to = range.to,
            "unreadable below a synced offset: acknowledged records are damaged"
        );
        telemetry.damaged(name, "damaged_records", range.to.saturating_sub(range.from));
    }
    if let Some(why) = &recovery.closed {
        tracing::error!(log = name, why, "intake is closed; records on disk are read and sent");
    }
}

/// A signal is served if something takes it: a destination, or the local view.
fn serves(config: &Config, signal: Signal) -> bool {
    !destinations_of(config, signal).is_empty()
}

/// How long delivered records stay. Without a destination the local view's window is what keeps them at all.
fn retain(config: &Config, signal: Signal) -> Duration {
    let asked = config.storage.retain.get(&signal).copied().unwrap_or_default();
    match &config.local_view {
        Some(view) if destinations_of(config, signal).iter().all(|d| d.kind == VIEW.0) => asked.max(view.window),
        _ => asked,
    }
}

fn full(signal: Signal, path: &str, fraction: f64) -> Refusal {
    Refusal {
        class: RefusalClass::Exhausted,
        reason: "full",
        message: format!(
            "the {signal} log in {path} is {:.0} % full: its destinations do not keep up; mend them or raise storage.max",
            fraction * 100.0
        ),
        retry_after: Some(RETRY_AFTER),
    }
}

fn unavailable(reason: &'static str, message: String) -> Refusal {
    Refusal { class: RefusalClass::Unavailable, reason, message, retry_after: Some(RETRY_AFTER) }
}
