//! The postman of one log: a thread that turns waiting requests into one write and one `fdatasync`.
//!
//! Algorithm: sleep until something waits; a request that finds the disk idle is committed at once; while requests keep coming,
//! commits start at least `window` apart, or as soon as [`ENOUGH`] bytes wait, so that a busy log pays one sync for many requests.
//! Once a second it commits without requests too, which carries cursors that moved. A log whose intake is closed is reopened here.
//!
//! Weakness: the pace is per log, not per device; five logs on one disk may sync five times in a window.

use crate::store::now_ns;
use crate::telemetry::{Commit, Telemetry};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wal::Log;

/// A group this large is worth a sync of its own: larger ones bring writeback stalls, not savings. Unit: bytes.
const ENOUGH: usize = 1 << 20;
/// Cursors that moved are written at the latest after this time.
const IDLE_COMMIT: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to reopen a closed intake.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
const REOPEN_MAX: Duration = Duration::from_secs(10);

const IDLE: u8 = 0;
const GATHERING: u8 = 1;
const BUSY: u8 = 2;

struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    phase: AtomicU8,
    rounds: watch::Sender<u64>,
}

/// Handle to a log's commit thread. Dropping it does not stop the thread; [`Committer::stop`] does.
pub struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Errors: the operating system refuses a thread.
    pub fn start(name: &'static str, log: Log, window: Duration, telemetry: Telemetry) -> std::io::Result<Committer> {
        let shared = Arc::new(Shared {
            stop: Mutex::new(false),
            wake: Condvar::new(),
            phase: AtomicU8::new(BUSY),
            rounds: watch::Sender::new(0),
        });
        let worker = Worker { name, log, window, telemetry, shared: shared.clone() };
        let thread = std::thread::Builder::new().name(format!("wal-{name}")).spawn(move || {
            // After a panic in here nobody can say what is on the disk; recovery can (ADR 0012).
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run())).is_err() {
                std::process::abort();
            }
        })?;
        Ok(Committer { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Says that `waiting` bytes wait now. Costs a system call only if the thread sleeps and has reason to wake.
    pub fn nudge(&self, waiting: usize) {
        let phase = self.shared.phase.load(SeqCst);
        if phase == IDLE || phase == GATHERING && waiting >= ENOUGH {
            let _held = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_one();
        }
    }

    /// Changes after every commit, successful or not: then ask the log for the outcome.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.shared.rounds.subscribe()
    }

    /// Commits what waits, then ends the thread.
    pub fn stop(&self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It cannot have panicked: a panic in there ends the process.
            let _ = thread.join();
        }
    }
}

struct Worker {
    name: &'static str,
    log: Log,
    window: Duration,
    telemetry: Telemetry,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(self) {
        let mut last = Instant::now().checked_sub(self.window).unwrap_or_else(Instant::now);
        let (mut reopen, mut damage) = (Reopen::default(), BTreeMap::new());
        let mut looked = last;
        loop {
            let stopping = self.wait(last);
            last = Instant::now();
            // Asking the log costs a list of its destinations: once a second is often enough.
            if last.duration_since(looked) >= IDLE_COMMIT {
                looked = last;
                self.look_after(&mut reopen, &mut damage);
            }
            self.commit(last);
            self.shared.rounds.send_modify(|n| *n += 1);
            if stopping && self.log.pending().frames == 0 {
                return;
            }
        }
    }

    /// Counts damage that readers met since the last look, and tries to open an intake that has closed.
    fn look_after(&self, reopen: &mut Reopen, seen: &mut BTreeMap<&'static str, u64>) {
        let stats = self.log.stats();
        for (kind, count) in stats.damage {
            let before = seen.insert(kind, count).unwrap_or_default();
            if count > before {
                self.telemetry.damaged(self.name, kind, count - before);
            }
        }
        if stats.closed.is_some() {
            reopen.attempt(self.name, &self.log);
        }
    }

    fn commit(&self, started: Instant) {
        let had_frames = self.log.pending().frames > 0;
        match self.log.commit(now_ns()) {
            Ok(synced) if had_frames => {
                let seconds = started.elapsed().as_secs_f64();
                self.telemetry.committed(self.name, seconds);
                self.trace(seconds, Some(&synced));
            }
            Ok(_) => {}
            Err(e) => {
                self.trace(started.elapsed().as_secs_f64(), None);
                tracing::error!(log = self.name, error = %e, "commit failed; senders keep what was not acknowledged")
            }
        }
    }

    fn trace(&self, seconds: f64, synced: Option<&wal::Synced>) {
        let (frames, bytes, below) = synced.map_or((0, 0, 0), |s| (s.frames(), s.bytes(), s.below()));
        let commit = Commit { log: self.name, seconds, frames, bytes, below, ok: synced.is_some() };
        self.telemetry.traced(&commit, now_ns());
    }

    /// Returns when a commit is due; true when the thread is to end.
    fn wait(&self, last: Instant) -> bool {
        let mut stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.phase.store(IDLE, SeqCst);
        let idle_until = Instant::now() + IDLE_COMMIT;
        while !*stop && self.log.pending().frames == 0 {
            let Some(rest) = idle_until.checked_duration_since(Instant::now()) else { break };
            stop = self.shared.wake.wait_timeout(stop, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.shared.phase.store(GATHERING, SeqCst);
        while !*stop && self.log.pending().bytes < ENOUGH {
            let Some(rest) = (last + self.window).checked_duration_since(Instant::now()) else { break };
            if rest.is_zero() {
                break;
            }
            stop = self.shared.wake.wait_timeout(stop, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.shared.phase.store(BUSY, SeqCst);
        *stop
    }
}

/// When to try again to open an intake that two failed segments have closed.
struct Reopen {
    not_before: Instant,
    pause: Duration,
}

impl Default for Reopen {
    fn default() -> Self {
        Reopen { not_before: Instant::now(), pause: REOPEN_FIRST }
    }
}

impl Reopen {
    fn attempt(&mut self, name: &str, log: &Log) {
        if Instant::now() < self.not_before {
            return;
        }
        match log.reopen(now_ns()) {
            Ok(()) => {
                tracing::info!(log = name, "intake open again");
                *self = Reopen::default();
            }
            Err(e) => {
                tracing::warn!(log = name, error = %e, "intake stays closed; records on disk are still read and sent");
                self.pause = (self.pause * 2).min(REOPEN_MAX);
                self.not_before = Instant::now() + self.pause;
            }
        }
    }
}
