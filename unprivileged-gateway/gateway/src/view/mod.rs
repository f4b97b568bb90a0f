//! The local view: the last minutes of logs and traces in memory, for the page of this one machine.
//!
//! A shop window: goods from the store behind it, only the newest, and nothing is lost when the window is cleared, because the
//! store has it. Frames come in log order from a reader of the log; [`View::logs`] and [`View::traces`] decode them, count every
//! byte they keep, and let the oldest go when `max` bytes or the `window` are passed. Neither of the two signals may push the
//! other below a quarter of the room. Weakness: bytes are counted from sizes and lengths, so the allocator's own slack is only
//! estimated.

mod line;
mod logs;
mod span;
mod text;
mod traces;
mod value;

pub use logs::{Facets, Histogram, LINES_MAX, LineId, LogFilter, LogQuery, LogsAnswer, ShownLine};
pub use traces::{SPANS_MAX, ShownSpan, TRACES_MAX, TraceDetail, TraceOrder, TraceQuery, TraceRow, TracesAnswer};

use line::Chunk;
use logs::{Logs, Sieve};
use model::envelope::Sidecar;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use traces::Traces;

pub(crate) const DAY_MS: u64 = 24 * 3600 * 1000;
/// Chunks that a tail may fall behind before lines are skipped for it.
const TAIL_CHUNKS: usize = 1024;

/// The time that the view can speak about, by receipt; both zero while it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Covers {
    pub from_ms: u64,
    pub to_ms: u64,
    /// Lines, or spans, let go for want of room; those that left with the window are not counted.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewStats {
    pub bytes: u64,
    pub max_bytes: u64,
    pub lines: u64,
    pub traces: u64,
    pub lines_evicted: u64,
    pub spans_evicted: u64,
    /// Over both signals; `None` while it is empty.
    pub covers: Option<Covers>,
    /// Traces ever begun, for "how many are new".
    pub traces_seen: u64,
}

/// The bytes were no OTLP request. They were checked before they went to the disk, so this means damage or a bug.
#[derive(Debug, thiserror::Error)]
#[error("frame {seq} of {signal} is not an OTLP request: {source}; it is left out of the local view")]
pub struct NotShown {
    pub seq: u64,
    pub signal: &'static str,
    pub source: prost::DecodeError,
}

/// Cheap to clone; all clones are one view.
#[derive(Clone)]
pub struct View(Arc<Inner>);

struct Inner {
    max: usize,
    window: u64,
    held: Mutex<Held>,
    tail: broadcast::Sender<Arc<Chunk>>,
}

#[derive(Default)]
struct Held {
    logs: Logs,
    traces: Traces,
}

impl View {
    /// `max` in bytes.
    pub fn new(max: u64, window: Duration) -> View {
        let (tail, _) = broadcast::channel(TAIL_CHUNKS);
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        View(Arc::new(Inner { max: usize::try_from(max).unwrap_or(usize::MAX), window, held: Mutex::default(), tail }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows one frame of the logs' log; gives its number of lines. A frame at or below the last one is already shown (0).
    /// Errors: [`NotShown`]; the view is unchanged.
    pub fn logs(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        let seen = {
            let logs = &self.held().logs;
            if logs.last_seq.is_some_and(|last| seq <= last) {
                return Ok(0);
            }
            logs.seen
        };
        let chunks =
            line::decode(seq, sidecar, raw, seen).map_err(|source| NotShown { seq, signal: "logs", source })?;
        let lines = chunks.iter().map(|chunk| chunk.lines.len() as u64).sum();
        let mut held = self.held();
        held.logs.last_seq = Some(seq);
        for chunk in chunks.into_iter().map(Arc::new) {
            // Nobody listening is no error.
            let _ = self.0.tail.send(chunk.clone());
            held.logs.push(chunk);
        }
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        Ok(lines)
    }

    /// Shows one frame of the traces' log; gives its number of spans. Otherwise as [`View::logs`].
    pub fn traces(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        if self.held().traces.last_seq.is_some_and(|last| seq <= last) {
            return Ok(0);
        }
        let spans = span::decode(sidecar, raw).map_err(|source| NotShown { seq, signal: "traces", source })?;
        let count = spans.len() as u64;
        let mut held = self.held();
        held.traces.last_seq = Some(seq);
        held.traces.push(spans, sidecar.received_at);
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        Ok(count)
    }

    /// Lets go what is older than the window; to be called now and then, so that silence clears the view too. `now`: unix ns.
    pub fn expire(&self, now: u64) {
        self.held().expire(now.saturating_sub(self.0.window));
    }

    /// Walks all held lines, some milliseconds a MiB: call it where waiting is allowed. The view stays open to others meanwhile.
    pub fn search(&self, query: &LogQuery) -> LogsAnswer {
        let (chunks, covers) = {
            let held = self.held();
            (held.logs.chunks.clone(), held.logs.covers())
        };
        logs::search(&chunks, covers, query)
    }

    pub fn list_traces(&self, query: &TraceQuery) -> TracesAnswer {
        self.held().traces.list(query)
    }

    /// `id` in hex. `None`: not held, or no trace id.
    pub fn trace(&self, id: &str) -> Option<TraceDetail> {
        let id = text::trace_id(id)?;
        let (detail, chunks) = {
            let held = self.held();
            (held.traces.detail(&id), held.logs.chunks.clone())
        };
        let lines = chunks.iter().flat_map(|chunk| chunk.lines.iter());
        let logs = lines.filter(|line| line.trace_id == id).count() as u64;
        detail.map(|detail| TraceDetail { logs, ..detail })
    }

    pub fn stats(&self) -> ViewStats {
        let held = self.held();
        let sides = [held.logs.covers(), held.traces.covers()];
        let filled = sides.iter().filter(|covers| covers.to_ms > 0);
        let covers = filled.copied().reduce(|a, b| Covers {
            from_ms: a.from_ms.min(b.from_ms),
            to_ms: a.to_ms.max(b.to_ms),
            evicted: a.evicted + b.evicted,
        });
        ViewStats {
            bytes: (held.logs.bytes + held.traces.bytes) as u64,
            max_bytes: self.0.max as u64,
            lines: held.logs.lines,
            traces: held.traces.len() as u64,
            lines_evicted: held.logs.evicted,
            spans_evicted: held.traces.evicted,
            covers,
            traces_seen: held.traces.seen(),
        }
    }

    /// Lines that pass `filter` from now on.
    pub fn tail(&self, filter: LogFilter) -> Tail {
        let held = self.held();
        let (chunks, next) = (self.0.tail.subscribe(), held.logs.seen);
        Tail { chunks, next, filter }
    }
}

impl Held {
    /// Oldest first, but neither signal below a quarter of the room for the other's sake.
    fn make_room(&mut self, max: usize) {
        let most = max / 4 * 3;
        while self.logs.bytes + self.traces.bytes > max {
            let logs_first = match (self.logs.oldest(), self.traces.oldest()) {
                (None, None) => return,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(_), Some(_)) if self.logs.bytes > most => true,
                (Some(_), Some(_)) if self.traces.bytes > most => false,
                (Some(logs), Some(traces)) => logs <= traces,
            };
            if logs_first {
                self.logs.evicted += self.logs.pop();
            } else {
                self.traces.evicted += self.traces.pop();
            }
        }
    }

    fn expire(&mut self, before: u64) {
        while self.logs.oldest().is_some_and(|at| at < before) {
            self.logs.pop();
        }
        while self.traces.oldest().is_some_and(|at| at < before) {
            self.traces.pop();
        }
    }
}

/// New lines as they come, for one reader.
pub struct Tail {
    chunks: broadcast::Receiver<Arc<Chunk>>,
    /// Number of the line that comes next, if none is missed.
    next: u64,
    filter: LogFilter,
}

/// What came since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tailed {
    /// Oldest first.
    pub lines: Vec<ShownLine>,
    /// Lines that the reader was too slow for, whether they would have passed the filter or not.
    pub skipped: u64,
}

impl Tail {
    /// Waits for the next chunk; its matching lines may be none. `None`: the view is gone.
    pub async fn next(&mut self) -> Option<Tailed> {
        loop {
            match self.chunks.recv().await {
                Ok(chunk) => return Some(self.take(&chunk)),
                // What was missed shows in the number of the next chunk.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn take(&mut self, chunk: &Chunk) -> Tailed {
        let skipped = chunk.first_number.saturating_sub(self.next);
        self.next = chunk.first_number + chunk.lines.len() as u64;
        let sieve = Sieve::new(&self.filter);
        let passing = chunk.lines.iter().enumerate().filter(|(_, line)| sieve.passes(&chunk.group, line));
        Tailed { lines: passing.filter_map(|(place, _)| logs::shown(chunk, place)).collect(), skipped }
    }
}

#[cfg(test)]
mod tests;
