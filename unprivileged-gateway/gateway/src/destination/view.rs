//! The local view as a destination: one reader a signal that never fails, never waits and never holds back deletion.
//!
//! After a start it goes back to where its window begins, however far its cursor was: the page shows the last minutes again.
//! Image: turning a book back to the page that was open fifteen minutes ago; the place is found by halving, not by leafing.

use crate::config::{Config, LocalView};
use crate::destination::lines::{self, Chunk, Closing};
use crate::destination::pass::{Belt, Counts};
use crate::destination::run::BATCH_BYTES;
use crate::seam::Signal;
use crate::store::{Ledger, Store, VIEW, now_ns};
use crate::view::View;
use model::chunk::FileLabels;
use model::chunk::join::{Joiner, Line};
use model::envelope::{self, Kind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use wal::{DestinationId, Frame, Log, Why};

/// Silence clears the window too.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How much is read to learn the time at one place of the log. Unit: bytes.
const PROBE_BYTES: usize = 64 << 10;
/// Lines of a file's chunk that are shown at once.
const LINES_AT_A_TIME: usize = 4096;
/// Bytes of an open line that are kept for the page, which shows no more of it.
const LINE_BYTES_MAX: usize = 32 << 10;

/// Starts a reader for each signal that the view shows. Errors: a refused thread.
pub fn start(
    config: &Config,
    store: &Store,
    view: &View,
    stop: &watch::Receiver<bool>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let Some(settings) = &config.local_view else { return Ok(Vec::new()) };
    let id = DestinationId::new(VIEW.0, VIEW.1);
    let mut threads = Vec::new();
    for signal in Signal::ALL {
        let Some(served) = store.log(signal) else { continue };
        let Some(ledger) = served.ledgers.get(&id) else { continue };
        let feed = Feed {
            log: served.log.clone(),
            rounds: served.committer.rounds(),
            ledger: ledger.clone(),
            view: view.clone(),
            stop: stop.clone(),
            labels: lines::labels(config),
            joiner: lines::joiner(config, LINE_BYTES_MAX),
            closing: Closing::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let settings = settings.clone();
        let name = format!("view/{signal}");
        threads.push(std::thread::Builder::new().name(name).spawn(move || runtime.block_on(feed.run(settings)))?);
    }
    Ok(threads)
}

struct Feed {
    log: Log,
    rounds: watch::Receiver<u64>,
    ledger: Arc<Ledger>,
    view: View,
    stop: watch::Receiver<bool>,
    labels: Arc<FileLabels>,
    joiner: Joiner,
    closing: Closing,
}

impl Feed {
    async fn run(mut self, settings: LocalView) {
        let cursor = self.log.cursor(&self.ledger.id).map_or(0, |c| c.seq);
        let window = u64::try_from(settings.window.as_nanos()).unwrap_or(u64::MAX);
        let from = first_since(&self.log, now_ns().saturating_sub(window)).min(cursor);
        let mut reader = self.log.reader(from);
        let mut belt = Belt::default();
        while !*self.stop.borrow() {
            match reader.read(BATCH_BYTES) {
                Ok(batch) if batch.frames.is_empty() && batch.skipped.is_empty() => self.wait().await,
                Ok(batch) => {
                    for gap in batch.skipped.iter().filter(|gap| gap.from >= cursor) {
                        let id = belt.place(gap.to, gap.items);
                        // Segments that went because room was needed are passed unseen: the view yields, nothing is damaged.
                        let damaged = if gap.why == Why::Damaged { gap.items } else { 0 };
                        belt.finish(id, Counts::damaged(damaged));
                    }
                    for frame in &batch.frames {
                        self.show(frame);
                    }
                    // What lies below the cursor was counted before the restart.
                    let new = batch.frames.iter().filter(|f| f.seq >= cursor);
                    if let Some(last) = batch.frames.last().filter(|f| f.seq >= cursor) {
                        let id = belt.place(last.seq + 1, new.map(|f| u64::from(f.items)).sum());
                        belt.finish(id, Counts::default());
                    }
                    if let Some(step) = belt.step() {
                        self.ledger.pass(&self.log, &step);
                    }
                    self.ledger.succeeded();
                }
                Err(e) => {
                    tracing::warn!(error = %e, "the local view cannot read the log; trying again");
                    tokio::select! { _ = self.stop.changed() => {} () = tokio::time::sleep(Duration::from_secs(1)) => {} }
                }
            }
        }
    }

    fn show(&mut self, frame: &Frame) {
        let shown = match envelope::open(&frame.payload) {
            Ok((Kind::OtlpLogs, sidecar, raw)) => self.view.logs(frame.seq, &sidecar, raw),
            Ok((Kind::OtlpTraces, sidecar, raw)) => self.view.traces(frame.seq, &sidecar, raw),
            Ok((Kind::OtlpMetrics, sidecar, raw)) => self.view.otlp_metrics(frame.seq, &sidecar, raw),
            Ok((Kind::Series, sidecar, raw)) => self.view.series(frame.seq, &sidecar, raw),
            Ok((Kind::Pprof, sidecar, raw)) => self.view.profiles(frame.seq, &sidecar, raw),
            Ok((Kind::LogChunk, ..)) => return self.show_lines(frame),
            Ok(_) => return,
            Err(e) => return tracing::warn!(seq = frame.seq, error = %e, "left out of the local view"),
        };
        if let Err(e) = shown {
            tracing::warn!(error = %e, "left out of the local view");
        }
    }

    /// Lines that a chunk completes, some at a time: a chunk of empty lines is a hundred times larger as lines.
    fn show_lines(&mut self, frame: &Frame) {
        let Some(chunk) = Chunk::open(frame) else { return };
        let (received_at, mut place, mut first) = (chunk.sidecar.received_at, None, 0);
        loop {
            let mut shown = Vec::new();
            let more = chunk.walk(&mut self.joiner, &mut place, &mut |line| {
                let text = std::borrow::Cow::Owned(line.text.into_owned());
                shown.push(Line { text, ..line });
                shown.len() < LINES_AT_A_TIME
            });
            self.view.lines((frame.seq, first), received_at, &shown, &self.labels);
            first += shown.len() as u32;
            if !more {
                return;
            }
        }
    }

    async fn wait(&mut self) {
        self.ledger.idle();
        let closing = self.closing.due(&self.joiner);
        let silence = async {
            match closing {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.stop.changed() => {}
            _ = self.rounds.changed() => {}
            () = silence => self.closing.append(&self.log, now_ns()),
            () = tokio::time::sleep(EXPIRE_EVERY) => self.view.expire(now_ns()),
        }
    }
}

/// The first held frame that was appended at or after `since` (unix ns), found by halving: times grow with seqs, give or take a clock
/// that was set back, in which case the window begins a little early or late.
fn first_since(log: &Log, since: u64) -> u64 {
    let stats = log.stats();
    let (mut low, mut high) = (stats.oldest_seq, stats.synced_seq);
    while low < high {
        let middle = low + (high - low) / 2;
        let found =
            log.reader(middle).read(PROBE_BYTES).ok().and_then(|b| b.frames.first().map(|f| (f.seq, f.appended_at)));
        match found {
            Some((seq, at)) if at < since => low = seq.max(middle) + 1,
            Some(_) | None => high = middle,
        }
    }
    low
}
