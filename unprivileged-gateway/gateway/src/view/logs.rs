//! The last minutes of log lines, and questions about them.
//!
//! A conveyor belt with a window: chunks come in on one side, fall off the other, and a reader photographs the belt and takes its
//! time with the photograph. Nothing is indexed; a whole belt of 64 MiB is walked for each question. Weakness: that walk takes
//! tens of milliseconds, which is right for a page and wrong for a dashboard; that is what Loki is for.

use super::line::{Chunk, Group, Line};
use super::{Covers, text::Needle};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Lines of one answer.
pub const LINES_MAX: usize = 1000;
/// JSON bytes of one answer's lines, roughly; fewer lines are given rather than more bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Values of one facet that are counted by name.
const FACET_VALUES_MAX: usize = 200;
/// Columns of the histogram.
const COLUMNS: u64 = 90;

/// Which lines; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// Found anywhere in the line, its trace id or its span id, in any case.
    pub q: String,
    /// Any of these; empty means all.
    pub levels: Vec<String>,
    pub services: Vec<String>,
    /// Hex; empty means all.
    pub trace_id: String,
    /// Label or metadata name and its exact value; all must hold.
    pub pairs: Vec<(String, String)>,
    /// Unix milliseconds of the line's own time, both ends included.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
}

/// A question of the page.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    pub filter: LogFilter,
    /// At most [`LINES_MAX`].
    pub limit: usize,
    /// Only lines that came before this one.
    pub before: Option<LineId>,
}

/// Names a line for good: WAL frame and place in it. Printed as 24 hex digits, so that text order is arrival order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId {
    seq: u64,
    index: u32,
}

impl LineId {
    /// Errors: anything that [`LineId::to_text`] would not write.
    pub fn parse(text: &str) -> Option<LineId> {
        if text.len() != 24 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (seq, index) = text.split_at(16);
        Some(LineId { seq: u64::from_str_radix(seq, 16).ok()?, index: u32::from_str_radix(index, 16).ok()? })
    }

    fn to_text(self) -> String {
        format!("{:016x}{:08x}", self.seq, self.index)
    }
}

#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct ShownLine {
    pub id: String,
    pub ts_ns: String,
    pub level: String,
    pub service: String,
    pub line: String,
    pub labels: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub trace_id: String,
    pub span_id: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct LogsAnswer {
    pub covers: Covers,
    /// Lines in the asked time.
    pub total: u64,
    /// Of these, lines that pass the whole filter.
    pub matched: u64,
    pub facets: Facets,
    pub histogram: Histogram,
    /// Newest arrival first.
    pub lines: Vec<ShownLine>,
}

/// Counts by value. Each facet counts the lines that pass all filters but its own, so that the other choices stay visible.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facets {
    pub level: BTreeMap<String, u64>,
    pub service: BTreeMap<String, u64>,
}

/// Matched lines by level over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Histogram {
    pub t0_ms: u64,
    pub step_ms: u64,
    pub levels: BTreeMap<String, Vec<u64>>,
}

/// The belt.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) chunks: VecDeque<Arc<Chunk>>,
    pub(super) bytes: usize,
    pub(super) lines: u64,
    pub(super) seen: u64,
    pub(super) evicted: u64,
    pub(super) last_seq: Option<u64>,
}

impl Logs {
    pub(super) fn push(&mut self, chunk: Arc<Chunk>) {
        self.bytes += chunk.bytes;
        self.lines += chunk.lines.len() as u64;
        self.seen += chunk.lines.len() as u64;
        self.chunks.push_back(chunk);
    }

    /// Lets the oldest chunk go; gives its number of lines.
    pub(super) fn pop(&mut self) -> u64 {
        let Some(chunk) = self.chunks.pop_front() else { return 0 };
        self.bytes -= chunk.bytes;
        self.lines -= chunk.lines.len() as u64;
        chunk.lines.len() as u64
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.received_at)
    }

    pub(super) fn covers(&self) -> Covers {
        let ms = |chunk: Option<&Arc<Chunk>>| chunk.map_or(0, |chunk| chunk.received_at / 1_000_000);
        Covers { from_ms: ms(self.chunks.front()), to_ms: ms(self.chunks.back()), evicted: self.evicted }
    }
}

/// A filter made ready for many lines.
pub(super) struct Sieve<'a> {
    filter: &'a LogFilter,
    needle: Needle,
    trace_id: Option<[u8; 16]>,
    from: u64,
    to: u64,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(filter: &'a LogFilter) -> Sieve<'a> {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        Sieve {
            filter,
            needle: Needle::new(&filter.q),
            trace_id: super::text::trace_id(&filter.trace_id),
            from: filter.from_ms.map_or(0, ns),
            to: filter.to_ms.map_or(u64::MAX, |ms| ns(ms).saturating_add(999_999)),
        }
    }

    fn in_time(&self, line: &Line) -> bool {
        (self.from..=self.to).contains(&line.at)
    }

    fn level(&self, line: &Line) -> bool {
        self.filter.levels.is_empty() || self.filter.levels.iter().any(|level| level == line.level)
    }

    fn service(&self, group: &Group) -> bool {
        self.filter.services.is_empty() || self.filter.services.contains(&group.service)
    }

    /// Everything but time, level and service.
    fn rest(&self, group: &Group, line: &Line) -> bool {
        let trace = self.filter.trace_id.is_empty() || self.trace_id.is_some_and(|id| id == line.trace_id);
        let pairs = || self.filter.pairs.iter().all(|(name, value)| has(group, line, name, value));
        let text = || {
            self.needle.is_in(&line.line)
                || (self.needle.is_hex()
                    && (self.needle.is_in(&line.trace_hex()) || self.needle.is_in(&line.span_hex())))
        };
        trace && pairs() && text()
    }

    pub(super) fn passes(&self, group: &Group, line: &Line) -> bool {
        self.in_time(line) && self.level(line) && self.service(group) && self.rest(group, line)
    }
}

/// The record wins over scope and resource, metadata over labels.
fn has(group: &Group, line: &Line, name: &str, value: &str) -> bool {
    match name {
        "trace_id" => return line.trace_hex() == value,
        "span_id" => return line.span_hex() == value,
        _ => {}
    }
    let own = line.metadata.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value);
    own.or_else(|| group.metadata.get(name)).or_else(|| group.labels.get(name)).is_some_and(|held| held == value)
}

pub(super) fn shown(chunk: &Chunk, place: usize) -> Option<ShownLine> {
    let line = chunk.lines.get(place)?;
    let mut metadata = chunk.group.metadata.clone();
    metadata.extend(line.metadata.iter().cloned());
    Some(ShownLine {
        id: id_of(chunk, place).to_text(),
        ts_ns: line.at.to_string(),
        level: line.level.to_string(),
        service: chunk.group.service.clone(),
        line: line.line.to_string(),
        labels: chunk.group.labels.clone(),
        metadata,
        trace_id: line.trace_hex(),
        span_id: line.span_hex(),
    })
}

fn id_of(chunk: &Chunk, place: usize) -> LineId {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    LineId { seq: chunk.seq, index: chunk.first_index.saturating_add(place) }
}

/// Answers from a photograph of the belt. Takes milliseconds per MiB: not for a task that must stay quick.
pub(super) fn search(chunks: &VecDeque<Arc<Chunk>>, covers: Covers, query: &LogQuery) -> LogsAnswer {
    let sieve = Sieve::new(&query.filter);
    let mut answer = LogsAnswer {
        covers,
        total: 0,
        matched: 0,
        facets: Facets::default(),
        histogram: frame(chunks, &query.filter, covers),
        lines: Vec::new(),
    };
    let mut bytes = 0;
    for chunk in chunks.iter().rev() {
        let service = sieve.service(&chunk.group);
        for (place, line) in chunk.lines.iter().enumerate().rev() {
            if !sieve.in_time(line) {
                continue;
            }
            answer.total += 1;
            let level = sieve.level(line);
            if !(level || service) || !sieve.rest(&chunk.group, line) {
                continue;
            }
            if service {
                count(&mut answer.facets.level, line.level);
            }
            if level {
                count(&mut answer.facets.service, &chunk.group.service);
            }
            if !(level && service) {
                continue;
            }
            answer.matched += 1;
            answer.histogram.add(line.level, line.at);
            let wanted = query.before.is_none_or(|before| id_of(chunk, place) < before);
            if wanted && answer.lines.len() < query.limit.min(LINES_MAX) && bytes < ANSWER_BYTES_MAX {
                bytes += line.line.len() + chunk.bytes / chunk.lines.len().max(1);
                answer.lines.extend(shown(chunk, place));
            }
        }
    }
    answer
}

fn count(facet: &mut BTreeMap<String, u64>, value: &str) {
    if let Some(count) = facet.get_mut(value) {
        *count += 1;
    } else if facet.len() < FACET_VALUES_MAX {
        facet.insert(value.to_owned(), 1);
    }
}

/// An empty histogram over the asked time, or over the time that is held where nothing was asked.
fn frame(chunks: &VecDeque<Arc<Chunk>>, filter: &LogFilter, covers: Covers) -> Histogram {
    if chunks.is_empty() {
        return Histogram { step_ms: 1000, ..Histogram::default() };
    }
    let from = filter.from_ms.unwrap_or(covers.from_ms).max(covers.from_ms.saturating_sub(super::DAY_MS));
    let to = filter.to_ms.unwrap_or(covers.to_ms).min(covers.to_ms.saturating_add(super::DAY_MS)).max(from);
    const STEPS_MS: [u64; 9] = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];
    let step_ms = STEPS_MS.into_iter().find(|step| (to - from) / step < COLUMNS).unwrap_or(STEPS_MS[8]);
    Histogram { t0_ms: from / step_ms * step_ms, step_ms, levels: BTreeMap::new() }
}

impl Histogram {
    fn add(&mut self, level: &str, at: u64) {
        let Some(since) = (at / 1_000_000).checked_sub(self.t0_ms) else { return };
        let column = since / self.step_ms.max(1);
        if column > COLUMNS {
            return;
        }
        if !self.levels.contains_key(level) {
            if self.levels.len() >= FACET_VALUES_MAX {
                return;
            }
            self.levels.insert(level.to_owned(), vec![0; COLUMNS as usize + 1]);
        }
        if let Some(count) = self.levels.get_mut(level).and_then(|counts| counts.get_mut(column as usize)) {
            *count += 1;
        }
    }
}
