//! The system journal, through journalctl: a child that follows it, and a thread that puts what it prints into the log.
//!
//! A simultaneous interpreter and a stenographer: one speaks the journal's binary tongue (it is systemd's own, so it is always
//! right), the other writes down and says after each page where to go on. The place (the journal's cursor) lies in the same record of
//! the log as the entries ([`wal::Origin::Journal`]), so a start goes on behind exactly what is held. The first start of all begins
//! with the newest [`FIRST_ENTRIES`].
//!
//! Weakness: entries pass through JSON, some microseconds each. A journal that forgot the cursor (it was vacuumed) goes on with what
//! it has; journalctl then begins at the nearest entry.

mod entry;

use crate::config::{Config, Journal};
use crate::seam::{Offered, Signal, Source};
use crate::store::{Store, Taken, now_ns};
use crate::telemetry::Telemetry;
use entry::Entry;
use model::envelope::{Kind, Sidecar};
use prost::Message;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wal::{Origin, Stream};

/// Entries that the first start of all begins with.
const FIRST_ENTRIES: &str = "1000";
/// A longer line is left out and counted. Unit: bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// A frame is offered when it holds so much, or so many, or its first entry has waited so long.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_ENTRIES: usize = 1_000;
const LINGER: Duration = Duration::from_millis(200);
/// Lines between the reader and the writer: with their bound the memory is bounded.
const LINES_WAITING: usize = 8;
/// Pause before journalctl is started again: grows by two.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// How often the end is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of what journalctl says on its way out that are told.
const STDERR_BYTES_MAX: u64 = 2_048;

/// Starts the reader if the configuration asks for it and something takes logs. Errors: a refused thread.
pub fn start(
    config: &Config,
    store: &Store,
    telemetry: &Telemetry,
    stop: &watch::Receiver<bool>,
) -> std::io::Result<Option<JoinHandle<()>>> {
    let journal = config.logs.as_ref().and_then(|logs| logs.journal.clone());
    let Some(journal) = journal.filter(|_| store.log(Signal::Logs).is_some()) else { return Ok(None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = stream(&journal);
    let (store, telemetry, stop) = (store.clone(), telemetry.clone(), stop.clone());
    let keeper = Keeper { journal, stream, store, telemetry, stop, runtime };
    std::thread::Builder::new().name("journal".into()).spawn(move || keeper.run()).map(Some)
}

/// One journal is one stream of marks: another folder or another choice of units is read from its own beginning.
fn stream(journal: &Journal) -> [u8; 16] {
    let name = format!("{:?} {:?}", journal.directory, journal.units);
    xxhash_rust::xxh3::xxh3_128(name.as_bytes()).to_le_bytes()
}

struct Keeper {
    journal: Journal,
    stream: [u8; 16],
    store: Store,
    telemetry: Telemetry,
    stop: watch::Receiver<bool>,
    runtime: tokio::runtime::Runtime,
}

/// What the reader thread passes on.
enum Heard {
    Line(Vec<u8>),
    /// A line over the limit.
    TooLong,
}

impl Keeper {
    fn run(self) {
        let mut pause = AGAIN_FIRST;
        while !self.stopped() {
            let began = Instant::now();
            let why = match self.spawn() {
                Ok(child) => self.follow(child),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    "there is no journalctl: install systemd's tools, or remove `logs.journal`".to_owned()
                }
                Err(e) => format!("journalctl cannot be started: {e}"),
            };
            if self.stopped() {
                return;
            }
            if began.elapsed() > AGAIN_MAX {
                pause = AGAIN_FIRST;
            }
            tracing::warn!(again_in_s = pause.as_secs(), "the journal is not read: {why}");
            self.sleep(pause);
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    fn sleep(&self, how_long: Duration) {
        let end = Instant::now() + how_long;
        while !self.stopped() && Instant::now() < end {
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new("journalctl");
        command.args(["--all", "--output=json", "--follow", "--quiet"]);
        let mark = self.store.mark_synced(Signal::Logs, &Stream::Journal(self.stream)).map(|m| m.text);
        match mark.filter(|cursor| !cursor.is_empty()) {
            Some(cursor) => command.arg("--no-tail").arg(format!("--after-cursor={cursor}")),
            None => command.arg(format!("--lines={FIRST_ENTRIES}")),
        };
        if let Some(folder) = &self.journal.directory {
            command.arg("--directory").arg(folder);
        }
        command.args(self.journal.units.iter().map(|unit| format!("--unit={unit}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }

    /// Reads until the child ends or we do; gives the reason. The child does not outlive this call.
    fn follow(&self, mut child: Child) -> String {
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return "it has no output".into();
        };
        let (lines, heard) = sync_channel(LINES_WAITING);
        let reader = std::thread::Builder::new().name("journal-lines".into()).spawn(move || read(out, &lines));
        let complaint = std::thread::Builder::new().name("journal-errors".into()).spawn(move || {
            let mut text = String::new();
            let _ = err.take(STDERR_BYTES_MAX).read_to_string(&mut text);
            text
        });
        let ended = self.take(&heard);
        drop(heard);
        // It may be gone already; waited for it is in any case.
        let _ = child.kill();
        let status = child.wait();
        for thread in reader.into_iter() {
            let _ = thread.join();
        }
        let said = complaint.ok().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if let Err(why) = ended {
            return why;
        }
        let hint = if said.contains("ermission") || said.contains("not seeing messages") {
            "; add the gateway's user to the group systemd-journal (usermod -aG systemd-journal USER) and start it again"
        } else {
            ""
        };
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        format!("journalctl ended ({status}): {}{hint}", said.trim())
    }

    /// Puts lines into the log, batch by batch. `Err`: a reason to start over; `Ok`: the child's output ended, or we end.
    fn take(&self, heard: &Receiver<Heard>) -> Result<(), String> {
        let (mut batch, mut bytes, mut first): (Vec<Entry>, usize, Option<Instant>) = (Vec::new(), 0, None);
        loop {
            let wait = first.map_or(LOOK, |at| LINGER.saturating_sub(at.elapsed()));
            let ended = match heard.recv_timeout(wait) {
                Ok(Heard::Line(line)) => {
                    match Entry::parse(&line) {
                        Ok(entry) => {
                            bytes += entry.weight();
                            batch.push(entry);
                            first.get_or_insert_with(Instant::now);
                        }
                        Err(why) => self.unreadable(why),
                    }
                    false
                }
                Ok(Heard::TooLong) => {
                    self.unreadable("it is longer than 1 MiB");
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            let due = first.is_some_and(|at| at.elapsed() >= LINGER);
            if !batch.is_empty() && (ended || due || bytes >= BATCH_BYTES || batch.len() >= BATCH_ENTRIES) {
                self.store(&batch)?;
                batch.clear();
                (bytes, first) = (0, None);
            }
            if ended || self.stopped() {
                return Ok(());
            }
        }
    }

    fn unreadable(&self, why: &str) {
        self.telemetry.refused(Source::Journal, Signal::Logs, "unreadable", 1);
        tracing::warn!("an entry of the journal is left out: {why}; it stays in the journal");
    }

    /// Offers a batch until it is taken: the journal waits meanwhile. Errors: the log knows another place than we thought.
    fn store(&self, batch: &[Entry]) -> Result<(), String> {
        let body: bytes::Bytes = entry::request(batch).encode_to_vec().into();
        let (items, len) = (batch.len() as u32, body.len() as u64);
        let cursor = batch.last().map(|entry| entry.cursor.clone()).unwrap_or_default();
        let mut pause = AGAIN_FIRST;
        loop {
            let mark = self.store.mark_synced(Signal::Logs, &Stream::Journal(self.stream));
            let seq = mark.and_then(|m| m.contiguous_end()).unwrap_or(0);
            let offered = Offered {
                signal: Signal::Logs,
                kind: Kind::OtlpLogs,
                items,
                sidecar: Sidecar { received_at: now_ns(), peer: "journal".into(), ..Sidecar::default() },
                body: vec![body.clone()],
                source: Source::Journal,
                origin: Some(Origin::Journal { journal: self.stream, seq, cursor: cursor.clone() }),
            };
            match self.runtime.block_on(self.store.offer(offered)) {
                Ok(Taken::New) => {
                    self.telemetry.accepted(Source::Journal, Signal::Logs, u64::from(items), len);
                    return Ok(());
                }
                Ok(other) => {
                    return Err(format!("the log holds another place of the journal ({other:?}); going on from there"));
                }
                Err(refusal) => {
                    self.telemetry.refused(Source::Journal, Signal::Logs, refusal.reason, u64::from(items));
                    tracing::warn!(again_in_s = pause.as_secs(), "the journal waits: {refusal}");
                    self.sleep(refusal.retry_after.unwrap_or(pause));
                    pause = (pause * 2).min(AGAIN_MAX);
                    if self.stopped() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Passes lines on until the output ends or nobody listens. No line takes more than its limit, however long it is.
fn read(out: ChildStdout, lines: &SyncSender<Heard>) {
    let mut out = BufReader::new(out);
    loop {
        let mut line = Vec::new();
        match (&mut out).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && line.len() <= LINE_BYTES_MAX {
            // The output ended within a line: it comes again, whole.
            return;
        }
        let heard = if whole { Heard::Line(line) } else { Heard::TooLong };
        if !whole && skip_line(&mut out).is_err() || lines.send(heard).is_err() {
            return;
        }
    }
}

fn skip_line(out: &mut BufReader<ChildStdout>) -> std::io::Result<()> {
    loop {
        let held = out.fill_buf()?;
        let Some(end) = held.iter().position(|&b| b == b'\n') else {
            let len = held.len();
            if len == 0 {
                return Ok(());
            }
            out.consume(len);
            continue;
        };
        out.consume(end + 1);
        return Ok(());
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
