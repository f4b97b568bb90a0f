//! Export requests printed once and numbered with a stamp, like tickets.
//!
//! A request is built with the OTLP structs, encoded, and searched for its placeholders; what is left per send is overwriting a few
//! fixed-width places: the sender and sequence in the body (or in a span's attribute), the time, the trace and span id. So the
//! generator costs little beside the system it measures. Weakness: the texts repeat after [`VARIANTS`] requests, which flatters
//! compressors a little, for everyone alike.

use crate::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Different texts before they repeat.
pub const VARIANTS: usize = 16;
/// Resources in a request, as in performance.md 3.
const RESOURCES: usize = 4;
/// Spans that share a trace.
const SPANS_A_TRACE: u64 = 4;

/// `bh:` + 8 hex digits of sender + `:` + 12 hex digits of sequence.
const MARK: &[u8; 3] = b"bh:";
pub const ID_LEN: usize = 3 + 8 + 1 + 12;
const BLANK_ID: &str = "bh:ffffffff:ffffffffffff";
const BLANK_START: u64 = 0x7e57_0001_7e57_0001;
const BLANK_END: u64 = 0x7e57_0002_7e57_0002;
const BLANK_TRACE: [u8; 16] = *b"\xf5TRACE-ID-BLANK\xf5";
const BLANK_SPAN: [u8; 8] = *b"\xf5SPANID\xf5";

/// Finds `(sender, sequence)` in a line, at its start or anywhere in it.
pub fn find_id(text: &[u8]) -> Option<(u32, u64)> {
    if let Some(id) = read_id(text) {
        return Some(id);
    }
    let marks = text.windows(MARK.len()).enumerate().filter(|(_, w)| w == MARK);
    marks.map(|(at, _)| at).find_map(|at| read_id(&text[at..]))
}

fn read_id(text: &[u8]) -> Option<(u32, u64)> {
    let id = text.get(..ID_LEN)?;
    if &id[..3] != MARK || id[11] != b':' {
        return None;
    }
    Some((hex(&id[3..11])? as u32, hex(&id[12..])?))
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |v, d| {
        let four = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => return None,
        };
        Some(v << 4 | u64::from(four))
    })
}

fn put_hex(slot: &mut [u8], mut value: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// What a request should look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub signal: Signal,
    /// Records a request, at least 1.
    pub batch: usize,
    /// Length of a log body in bytes, at least [`ID_LEN`].
    pub body_bytes: usize,
}

/// Where the placeholders of one record lie.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    id: usize,
    start: usize,
    end: Option<usize>,
    trace: Option<usize>,
    span: Option<usize>,
}

/// One encoded request and its places.
#[derive(Clone, Debug)]
pub struct Template {
    pub bytes: Vec<u8>,
    places: Vec<Places>,
}

impl Template {
    pub fn build(shape: Shape, variant: usize) -> Template {
        let bytes = match shape.signal {
            Signal::Logs => logs(shape, variant).encode_to_vec(),
            Signal::Traces => traces(shape, variant).encode_to_vec(),
        };
        let found = |pattern: &[u8]| -> Vec<usize> {
            bytes.windows(pattern.len()).enumerate().filter(|(_, w)| *w == pattern).map(|(at, _)| at).collect()
        };
        let (ids, starts, ends) =
            (found(BLANK_ID.as_bytes()), found(&BLANK_START.to_le_bytes()), found(&BLANK_END.to_le_bytes()));
        let (traces, spans) = (found(&BLANK_TRACE), found(&BLANK_SPAN));
        assert!(
            ids.len() == shape.batch && starts.len() == shape.batch,
            "placeholders of our own making are all found"
        );
        let places = ids.into_iter().zip(starts).enumerate().map(|(i, (id, start))| Places {
            id,
            start,
            end: ends.get(i).copied(),
            trace: traces.get(i).copied(),
            span: spans.get(i).copied(),
        });
        Template { places: places.collect(), bytes }
    }

    pub fn records(&self) -> u64 {
        self.places.len() as u64
    }

    /// Stamps `from, from + 1, ...` and the time, in Unix nanoseconds, into `target`: `bytes` behind `offset` bytes of framing.
    pub fn stamp(&self, target: &mut [u8], offset: usize, sender: u32, from: u64, now_ns: u64) {
        for (i, place) in self.places.iter().enumerate() {
            let seq = from + i as u64;
            let id = offset + place.id;
            put_hex(&mut target[id + 3..id + 11], u64::from(sender));
            put_hex(&mut target[id + 12..id + ID_LEN], seq);
            let mut put =
                |at: usize, bytes: &[u8]| target[offset + at..offset + at + bytes.len()].copy_from_slice(bytes);
            put(place.start, &(now_ns + i as u64).to_le_bytes());
            if let Some(at) = place.end {
                put(at, &(now_ns + 1_000_000 + (seq % 50) * 200_000).to_le_bytes());
            }
            if let Some(at) = place.trace {
                put(at, &u64::from(sender).to_be_bytes());
                put(at + 8, &(seq / SPANS_A_TRACE + 1).to_be_bytes());
            }
            if let Some(at) = place.span {
                put(at, &(u64::from(sender) << 40 | (seq + 1) & 0xff_ffff_ffff).to_be_bytes());
            }
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(any_value::Value::StringValue(value.to_owned()));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..Default::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(any_value::Value::IntValue(value));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..Default::default() }
}

fn resource(i: usize) -> Resource {
    let names = ["checkout", "cart", "payment", "frontend"];
    let attributes = vec![
        text("service.name", names[i % names.len()]),
        text("service.namespace", "shop"),
        text("k8s.pod.name", &format!("{}-7d9f8b6c5-{i:05}", names[i % names.len()])),
        text("host.name", &format!("node-{i}")),
    ];
    Resource { attributes, ..Default::default() }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "loadgen".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    })
}

/// Splits `batch` records over the resources, the first ones taking what does not divide.
fn shares(batch: usize) -> Vec<usize> {
    let resources = RESOURCES.min(batch).max(1);
    (0..resources).map(|r| batch / resources + usize::from(r < batch % resources)).collect()
}

/// A text like an access log's, different from record to record and from variant to variant.
fn body(shape: Shape, variant: usize, i: usize) -> String {
    const PATHS: [&str; 5] = ["/api/v1/cart", "/api/v1/orders", "/healthz", "/static/app.js", "/api/v1/search?q=lamp"];
    let mix = (variant * 7919 + i * 104_729) % 65_521;
    let mut line = format!(
        "{BLANK_ID} GET {} {} {}us upstream=10.2.{}.{}",
        PATHS[mix % 5],
        200 + mix % 3,
        mix,
        mix % 200,
        mix % 251
    );
    while line.len() < shape.body_bytes {
        line.push_str(" request finished without retry");
    }
    line.truncate(shape.body_bytes.max(ID_LEN)); // ASCII by construction
    line
}

fn logs(shape: Shape, variant: usize) -> ExportLogsServiceRequest {
    let mut i = 0usize;
    let mut record = || {
        i += 1;
        LogRecord {
            time_unix_nano: BLANK_START,
            severity_number: if i.is_multiple_of(20) { 17 } else { 9 },
            severity_text: if i.is_multiple_of(20) { "ERROR" } else { "INFO" }.into(),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(body(shape, variant, i))) }),
            attributes: vec![text("http.method", "GET"), number("thread.id", (i % 64) as i64)],
            ..Default::default()
        }
    };
    let resource_logs = shares(shape.batch).into_iter().enumerate().map(|(r, share)| ResourceLogs {
        resource: Some(resource(r)),
        scope_logs: vec![ScopeLogs {
            scope: scope(),
            log_records: (0..share).map(|_| record()).collect(),
            ..Default::default()
        }],
        ..Default::default()
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn traces(shape: Shape, variant: usize) -> ExportTraceServiceRequest {
    let mut i = variant;
    let mut span = || {
        i += 1;
        Span {
            trace_id: BLANK_TRACE.to_vec(),
            span_id: BLANK_SPAN.to_vec(),
            name: ["GET /api/v1/cart", "SELECT orders", "charge card"][i % 3].into(),
            kind: 1 + (i % 3) as i32,
            start_time_unix_nano: BLANK_START,
            end_time_unix_nano: BLANK_END,
            attributes: vec![
                text("load.id", BLANK_ID),
                text("http.method", "GET"),
                number("thread.id", (i % 64) as i64),
            ],
            status: Some(Status { code: if i.is_multiple_of(20) { 2 } else { 0 }, message: String::new() }),
            ..Default::default()
        }
    };
    let resource_spans = shares(shape.batch).into_iter().enumerate().map(|(r, share)| ResourceSpans {
        resource: Some(resource(r)),
        scope_spans: vec![ScopeSpans {
            scope: scope(),
            spans: (0..share).map(|_| span()).collect(),
            ..Default::default()
        }],
        ..Default::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stamped_record_carries_its_own_number() {
        for (batch, body_bytes) in [(1, 24), (7, 95), (1000, 95), (3, 1024)] {
            let template = Template::build(Shape { signal: Signal::Logs, batch, body_bytes }, 3);
            let mut bytes = template.bytes.clone();
            template.stamp(&mut bytes, 0, 0xabc, 5_000, 1);
            let request = ExportLogsServiceRequest::decode(&bytes[..]).expect("our own encoding");
            let lines = request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records);
            let lines = lines.map(|r| match r.body.as_ref().and_then(|b| b.value.as_ref()) {
                Some(any_value::Value::StringValue(s)) => (s.len(), find_id(s.as_bytes())),
                _ => (0, None),
            });
            let wanted = (0..batch as u64).map(|i| (body_bytes, Some((0xabc, 5_000 + i))));
            assert_eq!(lines.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        }
    }

    #[test]
    fn spans_get_ids_that_are_unique_and_group_by_trace() {
        let template = Template::build(Shape { signal: Signal::Traces, batch: 9, body_bytes: 95 }, 0);
        let mut framed = vec![0; 5];
        framed.extend_from_slice(&template.bytes);
        template.stamp(&mut framed, 5, 2, 0, 1);
        let request = ExportTraceServiceRequest::decode(&framed[5..]).expect("our own encoding");
        let spans: Vec<_> = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
        let ids: std::collections::BTreeSet<_> = spans.iter().map(|s| &s.span_id).collect();
        let traces: std::collections::BTreeSet<_> = spans.iter().map(|s| &s.trace_id).collect();
        assert_eq!((spans.len(), ids.len(), traces.len()), (9, 9, 3));
        assert!(spans.iter().all(|s| s.end_time_unix_nano > s.start_time_unix_nano));
    }

    #[test]
    fn a_number_is_found_inside_a_line_and_not_in_look_alikes() {
        assert_eq!(find_id(br#"{"body":"bh:0000002a:0000000000ff x"}"#), Some((42, 255)));
        assert_eq!(find_id(b"bh:bh:0000002a:0000000000ff"), Some((42, 255)));
        assert_eq!(find_id(b"bh:0000002a:0000000000f"), None);
        assert_eq!(find_id(b"bh:0000002A:0000000000ff"), None);
    }
}
