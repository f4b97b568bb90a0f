//! The store: one write-ahead log a signal, and the one way in.
//!
//! Image: a row of letter boxes, each emptied by its own postman. Whoever drops a letter waits at the box until the postman has
//! locked it away; one walk serves everybody who stood there. [`Store::offer`] copies a request into its log's open group and
//! waits; the log's [`commit`] thread writes and syncs the group once and wakes all who were in it.
//!
//! Weakness: a disk whose sync never returns holds its waiters. What they may pile up meanwhile is bounded by
//! `offer::PENDING_MAX`; beyond it the senders are told to keep their data.

mod accounts;
mod commit;
mod index;
mod ledger;
mod offer;
pub mod operator;
pub mod payload;
pub mod quarantine;
pub mod report;

pub use accounts::{VIEW, destinations_of};
pub use commit::Committer;
pub use ledger::{Health, Ledger};
pub use offer::{Laid, PUSH_REFUSED_FROM, Receipt, SCRAPE_SKIPPED_FROM, Taken};
pub use quarantine::{QuarantineItem, Quarantined};

use crate::config::Config;
use crate::seam::Signal;
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wal::{DestinationId, Folder, FolderError, Log, LogOptions, Space};

/// Recent commits kept in memory for readers that keep up, a log. Unit: bytes.
const TAIL_BYTES: usize = 4 << 20;
/// How long a start waits for a process that is just ending to release the folder.
const LET_GO: Duration = Duration::from_secs(1);
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
