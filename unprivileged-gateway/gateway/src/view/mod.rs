//! The local view: the last minutes of every signal in memory, for the page of this one machine.
//!
//! A shop window: goods from the store behind it, only the newest, and nothing is lost when the window is cleared, because the
//! store has it. Frames come in log order from a reader of the log; [`View::logs`] and its sisters decode them, count every
//! byte they keep, and let the oldest go when `max` bytes or the `window` are passed. No signal may push another below a quarter
//! of the room. Weakness: bytes are counted from sizes and lengths, so the allocator's own slack is only
//! estimated.

mod line;
mod logs;
mod metrics;
mod otlp_metrics;
mod profiles;
mod span;
mod text;
mod traces;
mod value;

pub use logs::{Facets, Histogram, LINES_MAX, LineId, LogFilter, LogQuery, LogsAnswer, ShownLine};
pub use metrics::{
    BadSelector, NAMES_MAX, NameRow, NamesAnswer, POINTS_MAX, RangeAnswer, RangeQuery, RangeRow, SERIES_ANSWERED_MAX,
    Selector,
};
pub use profiles::{
    GROUPS_MAX, Group, NODES_MAX, PROCESSES_MAX, ProcessRow, ProcessesAnswer, ProfileAnswer, ProfileQuery, Timeline,
};
pub use traces::{SPANS_MAX, ShownSpan, TRACES_MAX, TraceDetail, TraceOrder, TraceQuery, TraceRow, TracesAnswer};

use line::Chunk;
use logs::{Logs, Sieve};
use metrics::Metrics;
use model::chunk::{FileLabels, join};
use model::envelope::Sidecar;
use profiles::Profiles;
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
    /// Lines, spans or samples let go for want of room; those that left with the window are not counted.
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
    pub series: u64,
    pub samples_evicted: u64,
    /// Windows of stacks held, and samples in those that were let go for want of room.
    pub profiles: u64,
    pub stacks_evicted: u64,
    /// Over all signals; `None` while it is empty.
    pub covers: Option<Covers>,
    /// Traces ever begun, for "how many are new".
    pub traces_seen: u64,
}

/// The bytes were not what their kind says. They were checked before they went to the disk, so this means damage or a bug.
#[derive(Debug, thiserror::Error)]
#[error("frame {seq} of {signal} cannot be read: {source}; it is left out of the local view")]
pub struct NotShown {
    pub seq: u64,
    pub signal: &'static str,
    pub source: Box<dyn std::error::Error + Send + Sync>,
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
    metrics: Metrics,
    profiles: Profiles,
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
            line::decode(seq, sidecar, raw, seen).map_err(|e| NotShown { seq, signal: "logs", source: e.into() })?;
        let lines = chunks.iter().map(|chunk| chunk.lines.len() as u64).sum();
        self.take_logs(seq, sidecar.received_at, chunks);
        Ok(lines)
    }

    /// Shows lines that a frame of file bytes has completed; `first` of them were shown before. Gives their number, 0 if the frame is
    /// shown already.
    pub fn lines(
        &self,
        (seq, first): (u64, u32),
        received_at: u64,
        lines: &[join::Line<'_>],
        labels: &FileLabels,
    ) -> u64 {
        let seen = {
            let logs = &self.held().logs;
            if first == 0 && logs.last_seq.is_some_and(|last| seq <= last) {
                return 0;
            }
            logs.seen
        };
        let chunks = line::of_files((seq, first), received_at, lines, labels, seen);
        self.take_logs(seq, received_at, chunks);
        lines.len() as u64
    }

    fn take_logs(&self, seq: u64, received_at: u64, chunks: Vec<Chunk>) {
        let mut held = self.held();
        held.logs.last_seq = Some(seq);
        for chunk in chunks.into_iter().map(Arc::new) {
            // Nobody listening is no error.
            let _ = self.0.tail.send(chunk.clone());
            held.logs.push(chunk);
        }
        held.make_room(self.0.max);
        held.expire(received_at.saturating_sub(self.0.window));
    }

    /// Shows one frame of the traces' log; gives its number of spans. Otherwise as [`View::logs`].
    pub fn traces(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        if self.held().traces.last_seq.is_some_and(|last| seq <= last) {
            return Ok(0);
        }
        let spans = span::decode(sidecar, raw).map_err(|e| NotShown { seq, signal: "traces", source: e.into() })?;
        let count = spans.len() as u64;
        let mut held = self.held();
        held.traces.last_seq = Some(seq);
        held.traces.push(spans, sidecar.received_at);
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        Ok(count)
    }

    /// Shows spans of the gateway itself, which no log holds. Errors: as [`View::traces`].
    pub fn own_traces(&self, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        let spans = span::decode(sidecar, raw).map_err(|e| NotShown { seq: 0, signal: "traces", source: e.into() })?;
        let count = spans.len() as u64;
        let mut held = self.held();
        held.traces.push(spans, sidecar.received_at);
        held.make_room(self.0.max);
        Ok(count)
    }

    /// Shows one frame of series of the metrics' log; gives its number of samples. Otherwise as [`View::logs`], but samples before
    /// the damage of a damaged frame stay.
    pub fn series(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        let mut held = self.held();
        if held.metrics.last_seq.is_some_and(|last| seq <= last) {
            return Ok(0);
        }
        held.metrics.last_seq = Some(seq);
        let taken = held.metrics.push(raw, sidecar.received_at);
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        taken.map_err(|e| NotShown { seq, signal: "metrics", source: e.into() })
    }

    /// Shows one frame of the profiles' log; gives its number of samples. Otherwise as [`View::logs`].
    pub fn profiles(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        if self.held().profiles.last_seq.is_some_and(|last| seq <= last) {
            return Ok(0);
        }
        let window = profiles::Window::read(sidecar, raw);
        let window = window.map_err(|e| NotShown { seq, signal: "profiles", source: e.into() })?;
        let samples = window.samples();
        let mut held = self.held();
        held.profiles.last_seq = Some(seq);
        held.profiles.push(window);
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        Ok(samples)
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

    /// The same for a frame of metrics that came as OTLP.
    pub fn otlp_metrics(&self, seq: u64, sidecar: &Sidecar, raw: &[u8]) -> Result<u64, NotShown> {
        if self.held().metrics.last_seq.is_some_and(|last| seq <= last) {
            return Ok(0);
        }
        let shown = |e: Box<dyn std::error::Error + Send + Sync>| NotShown { seq, signal: "metrics", source: e };
        let requests = otlp_metrics::decode(raw, sidecar.received_at).map_err(|e| shown(e.into()))?;
        let mut held = self.held();
        held.metrics.last_seq = Some(seq);
        let mut taken = 0;
        for request in &requests {
            taken += held.metrics.push(request, sidecar.received_at).map_err(|e| shown(e.into()))?;
        }
        held.make_room(self.0.max);
        held.expire(sidecar.received_at.saturating_sub(self.0.window));
        Ok(taken)
    }

    /// Names of series that hold `q` in name or help; at most `limit` and [`NAMES_MAX`].
    pub fn series_names(&self, q: &str, limit: usize) -> NamesAnswer {
        self.held().metrics.list(q, limit)
    }

    pub fn range(&self, query: &RangeQuery) -> RangeAnswer {
        self.held().metrics.range(query)
    }

    /// Who used the processors.
    pub fn processes(&self, query: &ProfileQuery) -> ProcessesAnswer {
        let (windows, covers) = self.windows(query);
        profiles::processes(&windows, covers)
    }

    /// In which functions. Opens every window that is asked for: call it where waiting is allowed.
    pub fn profile(&self, query: &ProfileQuery) -> ProfileAnswer {
        let (windows, covers) = self.windows(query);
        profiles::flame_graph(&windows, covers, query)
    }

    fn windows(&self, query: &ProfileQuery) -> (Vec<Arc<profiles::Window>>, Covers) {
        let held = self.held();
        (held.profiles.matching(query), held.profiles.covers())
    }

    pub fn stats(&self) -> ViewStats {
        let held = self.held();
        let sides = [held.logs.covers(), held.traces.covers(), held.metrics.covers(), held.profiles.covers()];
        let filled = sides.iter().filter(|covers| covers.to_ms > 0);
        let covers = filled.copied().reduce(|a, b| Covers {
            from_ms: a.from_ms.min(b.from_ms),
            to_ms: a.to_ms.max(b.to_ms),
            evicted: a.evicted + b.evicted,
        });
        ViewStats {
            bytes: held.bytes() as u64,
            max_bytes: self.0.max as u64,
            lines: held.logs.lines,
            traces: held.traces.len() as u64,
            lines_evicted: held.logs.evicted,
            spans_evicted: held.traces.evicted,
            series: held.metrics.series() as u64,
            samples_evicted: held.metrics.evicted,
            profiles: held.profiles.len() as u64,
            stacks_evicted: held.profiles.evicted,
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

/// What one signal holds, oldest first.
trait Shelf {
    fn bytes(&self) -> usize;
    /// When the oldest of it was received, unix nanoseconds; `None`: it is empty.
    fn oldest(&self) -> Option<u64>;
    /// Lets the oldest go.
    fn drop_oldest(&mut self);
    /// The same for want of room, which is counted.
    fn evict_oldest(&mut self);
}

/// The shelves share their words, so that a further one is a line here.
macro_rules! shelf {
    ($($shelf:ty),*) => {$(
        impl Shelf for $shelf {
            fn bytes(&self) -> usize {
                self.bytes
            }
            fn oldest(&self) -> Option<u64> {
                self.oldest()
            }
            fn drop_oldest(&mut self) {
                self.pop();
            }
            fn evict_oldest(&mut self) {
                self.evicted += self.pop();
            }
        }
    )*};
}
shelf!(Logs, Traces, Metrics, Profiles);

impl Held {
    fn shelves(&mut self) -> [&mut dyn Shelf; 4] {
        [&mut self.logs, &mut self.traces, &mut self.metrics, &mut self.profiles]
    }

    fn bytes(&self) -> usize {
        self.logs.bytes + self.traces.bytes + self.metrics.bytes + self.profiles.bytes
    }

    /// Oldest first, but no signal below a quarter of the room for another's sake.
    fn make_room(&mut self, max: usize) {
        while self.bytes() > max {
            // Four signals cannot all be within their quarter while the whole is full.
            let shelves = self.shelves().into_iter().filter(|shelf| shelf.bytes() > max / 4);
            let oldest = shelves.filter_map(|shelf| Some((shelf.oldest()?, shelf))).min_by_key(|(at, _)| *at);
            match oldest {
                Some((_, shelf)) => shelf.evict_oldest(),
                None => return,
            }
        }
    }

    fn expire(&mut self, before: u64) {
        for shelf in self.shelves() {
            while shelf.oldest().is_some_and(|at| at < before) {
                shelf.drop_oldest();
            }
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
