//! The gateway's own spans: commits of the log and pushes to backends, a few a second.
//!
//! A traffic counter by the roadside that photographs a few cars a minute and most accidents: of each second the first commit of each
//! log and the first push to each destination, and beyond them those that were slow or failed, all within small numbers. A push whose last record lies in a
//! photographed commit becomes that commit's child, so that a waterfall shows a record's way from the disk to the backend.
//!
//! The photographs go to the local view in memory and never into a log. So no commit and no push is ever caused by a span, and
//! there is nothing to keep out of a circle. Weakness: they are gone after a restart, and a backend never gets them.

use super::destination::{DestinationInfo, Request, Wire, lock};
use crate::seam::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode,
};
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The service under which the local view shows them.
pub const SERVICE: &str = "bulkhead-gateway";
/// Logs and destinations of which one span a second is kept, whatever it was.
const NAMES_PER_SECOND: usize = 8;
/// Slow and failed commits and pushes that are kept beyond those, each second.
const NOTABLE_PER_SECOND: u32 = 4;
/// A commit that takes longer is worth a look. Seconds.
const SLOW_COMMIT_S: f64 = 0.1;
/// A push that takes longer is worth a look. Seconds.
const SLOW_PUSH_S: f64 = 1.0;
/// Spans that wait for the view; further ones are left out.
const WAITING_MAX: usize = 256;
/// Commits that a later push may become a child of.
const PARENTS_MAX: usize = 64;

/// One write-and-sync of one log.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// [`Signal::name`] or the quarantine's.
    pub log: &'static str,
    pub seconds: f64,
    pub frames: u64,
    pub bytes: u64,
    /// All frames below this number are synced.
    pub below: u64,
    pub ok: bool,
}

#[derive(Default)]
pub(super) struct Spans {
    on: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    waiting: Vec<Span>,
    /// Newest last.
    parents: VecDeque<Parent>,
    /// What was kept in this second of the clock: names of spans, and how many notable ones.
    second: u64,
    names: Vec<String>,
    notable: u32,
}

struct Parent {
    log: &'static str,
    first: u64,
    below: u64,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
}

impl Spans {
    /// From now on spans are kept; before, and without a local view, nothing is.
    pub(super) fn turn_on(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn commit(&self, commit: &Commit, now_ns: u64) {
        if !self.is_on() {
            return;
        }
        let mut held = lock(&self.held);
        let name = format!("commit {}", commit.log);
        if !held.keeps(&name, !commit.ok || commit.seconds >= SLOW_COMMIT_S, now_ns) {
            return;
        }
        let mut span = new_span(name, SpanKind::Internal, commit.seconds, now_ns);
        let first = commit.below.saturating_sub(commit.frames);
        span.attributes = vec![
            text("bulkhead.log", commit.log),
            number("bulkhead.frames", commit.frames),
            number("bulkhead.bytes", commit.bytes),
            number("bulkhead.seq.first", first),
        ];
        if !commit.ok {
            span.status = Some(failure("the log could not be written; its senders keep what was not acknowledged"));
        }
        let parent = Parent {
            log: commit.log,
            first,
            below: commit.below,
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
        };
        if held.parents.len() == PARENTS_MAX {
            held.parents.pop_front();
        }
        held.parents.push_back(parent);
        held.waiting.push(span);
    }

    pub(super) fn push(&self, to: &DestinationInfo, request: &Request, now_ns: u64) {
        if !self.is_on() {
            return;
        }
        let stored = match to.wire {
            Wire::OtlpGrpc => request.status == 0,
            _ => (200..300).contains(&request.status),
        };
        let mut held = lock(&self.held);
        let name = format!("push {}", to.label());
        if !held.keeps(&name, !stored || request.seconds >= SLOW_PUSH_S, now_ns) {
            return;
        }
        let mut span = new_span(name, SpanKind::Client, request.seconds, now_ns);
        if let Some(parent) = held.parent(request.signal, request.last_seq) {
            span.trace_id = parent.trace_id.clone();
            span.parent_span_id = parent.span_id.clone();
        }
        span.attributes = vec![
            text("bulkhead.destination", &to.label()),
            text("bulkhead.signal", request.signal.name()),
            number("bulkhead.records", request.items),
            number("bulkhead.bytes", request.bytes),
            text("server.address", &to.host),
        ];
        let code = match to.wire {
            Wire::OtlpGrpc => "rpc.grpc.status_code",
            _ => "http.response.status_code",
        };
        match request.status {
            -1 => span.status = Some(failure("no answer")),
            status => span.attributes.push(whole(code, i64::from(status))),
        }
        if !stored && request.status != -1 {
            span.status = Some(failure(&format!("answered {}", request.status)));
        }
        held.waiting.push(span);
    }

    /// What was kept since the last call, as an OTLP request and its number of spans; `None`: nothing.
    pub(super) fn take(&self, node: &str) -> Option<(Vec<u8>, u32)> {
        let spans = std::mem::take(&mut lock(&self.held).waiting);
        if spans.is_empty() {
            return None;
        }
        let count = spans.len() as u32;
        let scope = InstrumentationScope { name: "bulkhead".to_owned(), ..InstrumentationScope::default() };
        let attributes = vec![
            text("service.name", SERVICE),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", node),
        ];
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        Some((ExportTraceServiceRequest { resource_spans }.encode_to_vec(), count))
    }
}

impl Held {
    /// Is there room for one more span of this name in this second?
    fn keeps(&mut self, name: &str, notable: bool, now_ns: u64) -> bool {
        let second = now_ns / 1_000_000_000;
        if second != self.second {
            (self.second, self.notable) = (second, 0);
            self.names.clear();
        }
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        if self.names.len() < NAMES_PER_SECOND && !self.names.iter().any(|kept| kept == name) {
            self.names.push(name.to_owned());
            return true;
        }
        let room = notable && self.notable < NOTABLE_PER_SECOND;
        self.notable += u32::from(room);
        room
    }

    fn parent(&self, signal: Signal, seq: u64) -> Option<&Parent> {
        let holds = |parent: &&Parent| parent.log == signal.name() && (parent.first..parent.below).contains(&seq);
        self.parents.iter().rev().find(holds)
    }
}

/// A span of this length that ends now, the root of a trace of its own.
fn new_span(name: String, kind: SpanKind, seconds: f64, now_ns: u64) -> Span {
    let length = (seconds.max(0.0) * 1e9) as u64;
    Span {
        // All zero is no id; one in 2^64 is not worth a branch, a set bit is free.
        trace_id: (fastrand::u128(..) | 1).to_be_bytes().to_vec(),
        span_id: (fastrand::u64(..) | 1).to_be_bytes().to_vec(),
        name,
        kind: kind as i32,
        start_time_unix_nano: now_ns.saturating_sub(length),
        end_time_unix_nano: now_ns,
        ..Span::default()
    }
}

fn failure(message: &str) -> Status {
    Status { message: message.to_owned(), code: StatusCode::Error as i32 }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    whole(key, i64::try_from(value).unwrap_or(i64::MAX))
}

fn whole(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn on() -> Spans {
        let spans = Spans::default();
        spans.turn_on();
        spans
    }

    fn commit(seconds: f64, below: u64) -> Commit {
        Commit { log: "logs", seconds, frames: 3, bytes: 900, below, ok: true }
    }

    fn request(status: i32, last_seq: u64) -> Request {
        Request { signal: Signal::Logs, status, seconds: 0.02, bytes: 500, items: 9, age_s: None, last_seq }
    }

    fn loki() -> DestinationInfo {
        DestinationInfo {
            kind: "loki".to_owned(),
            name: "logs".to_owned(),
            wire: Wire::LokiPush,
            signals: vec![Signal::Logs],
            url: "http://127.0.0.1:3100".to_owned(),
            host: "127.0.0.1:3100".to_owned(),
            tenant: String::new(),
        }
    }

    fn taken(spans: &Spans) -> Vec<Span> {
        let Some((raw, count)) = spans.take("n1") else { return Vec::new() };
        let request = ExportTraceServiceRequest::decode(&raw[..]).unwrap();
        assert_eq!(model::otlp::check(model::otlp::Request::Traces, &raw).unwrap().items, count);
        request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }

    #[test]
    fn a_push_is_the_child_of_the_commit_that_holds_its_last_record() {
        let spans = on();
        spans.commit(&commit(0.004, 10), NOW);
        spans.push(&loki(), &request(204, 9), NOW + 1_000_000_000);
        spans.push(&loki(), &request(204, 10), NOW + 2_000_000_000);
        let taken = taken(&spans);
        let [commit, child, stranger] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((commit.name.as_str(), child.name.as_str()), ("commit logs", "push loki/logs"));
        assert_eq!((&child.trace_id, &child.parent_span_id), (&commit.trace_id, &commit.span_id));
        assert!(stranger.parent_span_id.is_empty() && stranger.trace_id != commit.trace_id);
        assert_eq!(commit.end_time_unix_nano - commit.start_time_unix_nano, 4_000_000);
        let has = |span: &Span, key: &str, value: i64| {
            let wanted = Some(Value::IntValue(value));
            span.attributes.iter().any(|a| a.key == key && a.value.as_ref().and_then(|v| v.value.clone()) == wanted)
        };
        assert!(has(child, "bulkhead.bytes", 500) && has(child, "bulkhead.records", 9));
        assert!(has(child, "http.response.status_code", 204) && child.status.is_none());
    }

    #[test]
    fn a_second_keeps_a_few_and_beyond_them_only_what_is_slow_or_failed() {
        let spans = on();
        (0..1000).for_each(|i| spans.commit(&commit(0.001, 10 + i), NOW));
        (0..1000).for_each(|i| spans.commit(&Commit { log: "traces", ..commit(0.001, 10 + i) }, NOW));
        assert_eq!(taken(&spans).len(), 2, "one a log");
        (0..1000).for_each(|i| spans.commit(&commit(0.5, 10 + i), NOW));
        assert_eq!(taken(&spans).len(), 4);
        (0..1000).for_each(|_| spans.push(&loki(), &request(503, 0), NOW));
        let failed = taken(&spans);
        assert_eq!(failed.len(), 1, "the first push, though the notable ones are used up");
        assert!(failed[0].status.as_ref().is_some_and(|status| status.code == 2 && status.message == "answered 503"));
        spans.commit(&commit(0.001, 10), NOW + 1_000_000_000);
        assert_eq!(taken(&spans).len(), 1, "the next second begins anew");
    }

    #[test]
    fn nothing_is_kept_unless_somebody_shows_it_and_never_more_than_there_is_room_for() {
        let spans = Spans::default();
        spans.commit(&commit(0.001, 10), NOW);
        assert!(spans.take("n1").is_none());
        spans.turn_on();
        (0..10_000).for_each(|second| spans.commit(&commit(0.001, 10), NOW + second * 1_000_000_000));
        assert_eq!(taken(&spans).len(), WAITING_MAX);
        assert_eq!(lock(&spans.held).parents.len(), PARENTS_MAX);
    }
}
