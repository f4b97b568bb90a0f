//! Traces put together from spans that arrive in any order.
//!
//! Pigeon holes, one a trace id: whatever arrives goes into its hole, and the label on the front (root, length, errors) is
//! corrected at each arrival, so that a list needs no look inside. The hole that was opened first is emptied first. Weakness: a
//! trace that lives longer than the window loses its first spans with the rest, and its late ones open a new hole.

use super::span::{HeldSpan, Origin, origin_bytes};
use super::text::Needle;
use super::{Covers, line::ALLOCATION_BYTES};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Traces of one answer.
pub const TRACES_MAX: usize = 1000;
/// Spans kept of one trace; further ones are counted as evicted.
pub const SPANS_MAX: usize = 10_000;
/// Services named of one trace.
const SERVICES_MAX: usize = 64;
/// Services named in one answer.
const SERVICES_LISTED_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceOrder {
    #[default]
    Newest,
    Slowest,
}

/// Which traces; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct TraceQuery {
    /// A service that took part.
    pub service: String,
    /// Found in the root's name, the id or a service's name, in any case.
    pub q: String,
    /// Only traces with a failed span.
    pub failed: bool,
    pub min_ms: f64,
    pub order: TraceOrder,
    /// At most [`TRACES_MAX`].
    pub limit: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct TracesAnswer {
    pub covers: Covers,
    /// Traces held, whatever was asked.
    pub total: u64,
    pub matched: u64,
    pub services: Vec<Arc<str>>,
    pub traces: Vec<TraceRow>,
}

#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct TraceRow {
    pub trace_id: String,
    pub service: Arc<str>,
    pub name: String,
    pub start_ms: f64,
    pub duration_ms: f64,
    pub spans: usize,
    pub errors: usize,
    pub services: Vec<Arc<str>>,
}

#[derive(Debug, Serialize)]
pub struct TraceDetail {
    pub trace_id: String,
    /// By start time.
    pub spans: Vec<ShownSpan>,
    /// Held log lines that carry this trace id.
    pub logs: u64,
}

#[derive(Debug, Serialize)]
pub struct ShownSpan {
    pub span_id: Box<str>,
    pub parent_id: Box<str>,
    pub service: Arc<str>,
    pub name: Box<str>,
    pub kind: &'static str,
    pub start_ns: String,
    pub end_ns: String,
    pub status: &'static str,
    pub status_message: Box<str>,
    pub scope: Arc<str>,
    pub attributes: Box<RawValue>,
    pub resource: Box<RawValue>,
    pub events: Box<RawValue>,
}

struct Trace {
    /// When its first span came, unix nanoseconds.
    received_at: u64,
    spans: Vec<HeldSpan>,
    bytes: usize,
    start: u64,
    end: u64,
    errors: usize,
    services: Vec<Arc<str>>,
    /// Index of the span that names the trace.
    root: usize,
}

/// All pigeon holes.
#[derive(Default)]
pub(super) struct Traces {
    held: HashMap<[u8; 16], Trace>,
    by_arrival: BTreeMap<u64, [u8; 16]>,
    pub(super) bytes: usize,
    next: u64,
    newest_at: u64,
    pub(super) evicted: u64,
    pub(super) last_seq: Option<u64>,
}

impl Traces {
    /// Takes the spans of one request; gives the number of traces not seen before.
    pub(super) fn push(&mut self, spans: Vec<HeldSpan>, received_at: u64) -> u64 {
        self.newest_at = self.newest_at.max(received_at);
        let before = self.next;
        // A resource is paid for once a trace and request.
        let mut paid: BTreeSet<([u8; 16], *const Origin)> = BTreeSet::new();
        for span in spans {
            let shared = match paid.insert((span.trace_id, Arc::as_ptr(&span.origin))) {
                true => origin_bytes(&span.origin),
                false => 0,
            };
            self.add(span, shared, received_at);
        }
        self.next - before
    }

    fn add(&mut self, span: HeldSpan, shared: usize, received_at: u64) {
        let trace = self.held.entry(span.trace_id).or_insert_with(|| {
            let order = self.next;
            self.next += 1;
            self.by_arrival.insert(order, span.trace_id);
            let trace = Trace::new(received_at);
            self.bytes += trace.bytes;
            trace
        });
        if trace.spans.len() >= SPANS_MAX {
            self.evicted += 1;
            return;
        }
        self.bytes -= trace.bytes;
        trace.add(span, shared);
        self.bytes += trace.bytes;
    }

    /// Lets the trace go whose first span came first; gives its number of spans.
    pub(super) fn pop(&mut self) -> u64 {
        let Some((_, id)) = self.by_arrival.pop_first() else { return 0 };
        let Some(trace) = self.held.remove(&id) else { return 0 };
        self.bytes -= trace.bytes;
        trace.spans.len() as u64
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        let (_, id) = self.by_arrival.first_key_value()?;
        self.held.get(id).map(|trace| trace.received_at)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn seen(&self) -> u64 {
        self.next
    }

    pub(super) fn covers(&self) -> Covers {
        let to_ms = if self.held.is_empty() { 0 } else { self.newest_at / 1_000_000 };
        Covers { from_ms: self.oldest().unwrap_or(0) / 1_000_000, to_ms, evicted: self.evicted }
    }

    pub(super) fn list(&self, query: &TraceQuery) -> TracesAnswer {
        let needle = Needle::new(&query.q);
        let mut services = BTreeSet::new();
        let mut rows = Vec::new();
        for id in self.by_arrival.values().rev() {
            let Some(trace) = self.held.get(id) else { continue };
            if services.len() < SERVICES_LISTED_MAX {
                services.extend(trace.services.iter().cloned());
            }
            if trace.matches(id, query, &needle) {
                rows.push((id, trace));
            }
        }
        match query.order {
            TraceOrder::Newest => rows.sort_by_key(|(_, trace)| std::cmp::Reverse(trace.start)),
            TraceOrder::Slowest => rows.sort_by_key(|(_, trace)| std::cmp::Reverse(trace.end - trace.start)),
        }
        let matched = rows.len() as u64;
        let limit = query.limit.min(TRACES_MAX);
        TracesAnswer {
            covers: self.covers(),
            total: self.held.len() as u64,
            matched,
            services: services.into_iter().collect(),
            traces: rows.into_iter().take(limit).map(|(id, trace)| trace.row(id)).collect(),
        }
    }

    /// The spans of one trace by start time; `logs` is left at 0.
    pub(super) fn detail(&self, id: &[u8; 16]) -> Option<TraceDetail> {
        let trace = self.held.get(id)?;
        let mut spans: Vec<&HeldSpan> = trace.spans.iter().collect();
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
        let spans = spans.into_iter().map(shown).collect();
        Some(TraceDetail { trace_id: super::value::hex(id), spans, logs: 0 })
    }
}

impl Trace {
    fn new(received_at: u64) -> Trace {
        let bytes = size_of::<Trace>() + 2 * size_of::<[u8; 16]>() + 4 * ALLOCATION_BYTES;
        let (start, end) = (u64::MAX, 0);
        Trace { received_at, spans: Vec::new(), bytes, start, end, errors: 0, services: Vec::new(), root: 0 }
    }

    fn add(&mut self, span: HeldSpan, shared: usize) {
        self.bytes += span.bytes() + shared;
        self.start = self.start.min(span.start);
        self.end = self.end.max(span.end);
        self.errors += usize::from(span.status == "error");
        if self.services.len() < SERVICES_MAX && !self.services.contains(&span.origin.service) {
            self.services.push(span.origin.service.clone());
            self.bytes += size_of::<Arc<str>>();
        }
        // A span without a parent names the trace; until one comes, the earliest does.
        let rank = |span: &HeldSpan| (!span.parent_id.is_empty(), span.start);
        if self.spans.get(self.root).is_none_or(|root| rank(&span) < rank(root)) {
            self.root = self.spans.len();
        }
        // Exact growth, so that no spare room goes unaccounted.
        if self.spans.len() == self.spans.capacity() {
            let more = (self.spans.len() / 4).max(1);
            self.spans.reserve_exact(more);
            self.bytes += more * size_of::<HeldSpan>();
        }
        self.spans.push(span);
    }

    fn duration_ms(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e6
    }

    fn root(&self) -> (&str, Arc<str>) {
        self.spans.get(self.root).map_or(("", "".into()), |span| (&span.name, span.origin.service.clone()))
    }

    fn matches(&self, id: &[u8; 16], query: &TraceQuery, needle: &Needle) -> bool {
        let service = query.service.is_empty() || self.services.iter().any(|name| **name == *query.service);
        let text = || {
            needle.is_in(self.root().0)
                || needle.is_in(&super::value::hex(id))
                || self.services.iter().any(|name| needle.is_in(name))
        };
        service && (!query.failed || self.errors > 0) && self.duration_ms() >= query.min_ms && text()
    }

    fn row(&self, id: &[u8; 16]) -> TraceRow {
        let (name, service) = self.root();
        TraceRow {
            trace_id: super::value::hex(id),
            service,
            name: name.to_owned(),
            start_ms: self.start as f64 / 1e6,
            duration_ms: self.duration_ms(),
            spans: self.spans.len(),
            errors: self.errors,
            services: self.services.clone(),
        }
    }
}

fn shown(span: &HeldSpan) -> ShownSpan {
    ShownSpan {
        span_id: span.span_id.clone(),
        parent_id: span.parent_id.clone(),
        service: span.origin.service.clone(),
        name: span.name.clone(),
        kind: span.kind,
        start_ns: span.start.to_string(),
        end_ns: span.end.to_string(),
        status: span.status,
        status_message: span.status_message.clone(),
        scope: span.scope.clone(),
        attributes: span.attributes.clone(),
        resource: span.origin.resource.clone(),
        events: span.events.clone(),
    }
}
