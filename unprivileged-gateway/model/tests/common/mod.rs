//! Random requests, and random damage to them. Everything follows from one number, so a failing seed is the whole report.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod push;
pub(crate) mod reference;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{self as m, Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    pub(crate) fn many<T>(&mut self, max: usize, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }
    pub(crate) fn maybe<T>(&mut self, make: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        if self.one_in(3) { None } else { Some(make(self)) }
    }
    fn bytes(&mut self, max: usize) -> Vec<u8> {
        self.many(max, |d| d.roll() as u8)
    }
}

const KEYS: [&str; 26] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "host.name",
    "host_name",
    "http.method",
    "http/method",
    "größe",
    "größer.日",
    "",
    "_",
    "9",
    "trace_id",
    "span.id",
    "severity_text",
    "severity.number",
    "detected_level",
    "scope_name",
    "scope.version",
    "event_name",
    "level",
    "loki.attribute.labels",
    "loki.resource.labels",
];
const TEXTS: [&str; 14] = [
    "",
    "GET",
    "shop",
    "cart",
    "a \"quoted\" \\ value",
    "line\nbreak\ttab\u{1}\u{7f}",
    "é日本\u{1f600}",
    "zero\u{200b}width",
    "http.method, host.name",
    "loki",
    "a=1 b=\"x y\"",
    "<html>&\u{2028}",
    "null",
    "x",
];

pub(crate) fn text(d: &mut Dice) -> String {
    match d.below(12) {
        0 => "0123456789é".repeat(d.below(12)),
        _ => d.pick(&TEXTS).to_owned(),
    }
}

pub(crate) fn any_value(d: &mut Dice, depth: usize) -> AnyValue {
    let value = match d.below(if depth == 0 { 9 } else { 13 }) {
        0 => return AnyValue::default(),
        1 => V::BoolValue(d.one_in(2)),
        2 => V::IntValue(d.roll() as i64 >> d.below(64)),
        3 => V::DoubleValue(double(d)),
        4 => V::BytesValue(d.bytes(7)),
        5 if d.one_in(4) => V::StringValueStrindex(d.below(9) as i32),
        9 | 10 => V::ArrayValue(ArrayValue { values: d.many(4, |d| any_value(d, depth - 1)) }),
        11 | 12 => V::KvlistValue(KeyValueList { values: d.many(4, |d| key_value(d, depth - 1)) }),
        _ => V::StringValue(text(d)),
    };
    AnyValue { value: Some(value) }
}

fn double(d: &mut Dice) -> f64 {
    match d.below(4) {
        0 => d.pick(&[0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e21, 1e-7, 123.0, 0.1, f64::MAX, 5e-324]),
        1 => f64::from_bits(d.roll()),
        2 => d.below(10_000) as f64 / 100.0,
        _ => (d.roll() as i64 >> d.below(64)) as f64,
    }
}

pub(crate) fn key_value(d: &mut Dice, depth: usize) -> KeyValue {
    KeyValue {
        key: d.pick(&KEYS).to_owned(),
        value: if d.one_in(12) { None } else { Some(any_value(d, depth)) },
        key_strindex: if d.one_in(9) { 3 } else { 0 },
    }
}

fn attributes(d: &mut Dice, max: usize) -> Vec<KeyValue> {
    d.many(max, |d| key_value(d, 3))
}

pub(crate) fn resource(d: &mut Dice) -> Resource {
    let entity_refs = d.many(1, |d| EntityRef {
        schema_url: text(d),
        r#type: text(d),
        id_keys: d.many(2, text),
        description_keys: d.many(2, text),
    });
    Resource { attributes: attributes(d, 6), dropped_attributes_count: d.below(3) as u32, entity_refs }
}

pub(crate) fn scope(d: &mut Dice) -> InstrumentationScope {
    let name = if d.one_in(3) { String::new() } else { text(d) };
    InstrumentationScope { name, version: text(d), attributes: attributes(d, 3), dropped_attributes_count: 0 }
}

pub(crate) fn log_record(d: &mut Dice) -> LogRecord {
    let id = |d: &mut Dice, len: usize| match d.below(5) {
        0 => vec![],
        1 => vec![0; len],
        2 => d.bytes(20),
        _ => (0..len).map(|_| d.roll() as u8).collect(),
    };
    let time = |d: &mut Dice| if d.one_in(3) { 0 } else { d.roll() >> d.below(40) };
    LogRecord {
        time_unix_nano: time(d),
        observed_time_unix_nano: time(d),
        severity_number: if d.one_in(8) { d.roll() as i32 } else { d.below(26) as i32 },
        severity_text: d.pick(&["", "INFO", "Warning", "error", "notice", "Ünder", "fatal", "trc"]).to_owned(),
        body: d.maybe(|d| any_value(d, 4)),
        attributes: attributes(d, 8),
        dropped_attributes_count: d.below(2) as u32,
        flags: d.below(3) as u32,
        trace_id: id(d, 16),
        span_id: id(d, 8),
        event_name: d.pick(&["", "", "", "login"]).to_owned(),
    }
}

pub(crate) fn logs(d: &mut Dice) -> ExportLogsServiceRequest {
    let resource_logs = d.many(3, |d| ResourceLogs {
        resource: d.maybe(resource),
        scope_logs: d.many(3, |d| ScopeLogs {
            scope: d.maybe(scope),
            log_records: d.many(4, log_record),
            schema_url: text(d),
        }),
        schema_url: text(d),
    });
    ExportLogsServiceRequest { resource_logs }
}

pub(crate) fn traces(d: &mut Dice) -> ExportTraceServiceRequest {
    let resource_spans = d.many(3, |d| ResourceSpans {
        resource: d.maybe(resource),
        scope_spans: d.many(3, |d| ScopeSpans { scope: d.maybe(scope), spans: d.many(3, a_span), schema_url: text(d) }),
        schema_url: text(d),
    });
    ExportTraceServiceRequest { resource_spans }
}

fn a_span(d: &mut Dice) -> Span {
    Span {
        trace_id: d.bytes(20),
        span_id: d.bytes(10),
        trace_state: text(d),
        parent_span_id: d.bytes(10),
        flags: d.roll() as u32,
        name: text(d),
        kind: d.below(7) as i32 - 1,
        start_time_unix_nano: d.roll(),
        end_time_unix_nano: d.roll(),
        attributes: attributes(d, 4),
        dropped_attributes_count: d.roll() as u32,
        events: d.many(2, |d| span::Event {
            time_unix_nano: d.roll(),
            name: text(d),
            attributes: attributes(d, 2),
            dropped_attributes_count: 1,
        }),
        dropped_events_count: d.below(300) as u32,
        links: d.many(2, |d| span::Link {
            trace_id: d.bytes(16),
            span_id: d.bytes(8),
            trace_state: text(d),
            attributes: attributes(d, 2),
            dropped_attributes_count: 1,
            flags: 7,
        }),
        dropped_links_count: 2,
        status: d.maybe(|d| Status { message: text(d), code: d.below(4) as i32 }),
    }
}

pub(crate) fn metrics(d: &mut Dice) -> ExportMetricsServiceRequest {
    let resource_metrics = d.many(2, |d| ResourceMetrics {
        resource: d.maybe(resource),
        scope_metrics: d.many(2, |d| ScopeMetrics {
            scope: d.maybe(scope),
            metrics: d.many(4, metric),
            schema_url: text(d),
        }),
        schema_url: text(d),
    });
    ExportMetricsServiceRequest { resource_metrics }
}

fn metric(d: &mut Dice) -> Metric {
    use m::metric::Data;
    let data = match d.below(6) {
        0 => None,
        1 => Some(Data::Gauge(m::Gauge { data_points: d.many(3, number_point) })),
        2 => Some(Data::Sum(m::Sum {
            data_points: d.many(3, number_point),
            aggregation_temporality: 2,
            is_monotonic: d.one_in(2),
        })),
        3 => {
            Some(Data::Histogram(m::Histogram { data_points: d.many(3, histogram_point), aggregation_temporality: 1 }))
        }
        4 => Some(Data::ExponentialHistogram(m::ExponentialHistogram {
            data_points: d.many(3, exponential_point),
            aggregation_temporality: 1,
        })),
        _ => Some(Data::Summary(m::Summary { data_points: d.many(3, summary_point) })),
    };
    Metric { name: text(d), description: text(d), unit: text(d), metadata: attributes(d, 2), data }
}

fn exemplar(d: &mut Dice) -> m::Exemplar {
    m::Exemplar {
        filtered_attributes: attributes(d, 2),
        time_unix_nano: d.roll(),
        span_id: d.bytes(8),
        trace_id: d.bytes(16),
        value: d.maybe(|d| {
            if d.one_in(2) {
                m::exemplar::Value::AsDouble(double(d))
            } else {
                m::exemplar::Value::AsInt(d.roll() as i64)
            }
        }),
    }
}

fn number_point(d: &mut Dice) -> m::NumberDataPoint {
    use m::number_data_point::Value;
    m::NumberDataPoint {
        attributes: attributes(d, 3),
        start_time_unix_nano: d.roll(),
        time_unix_nano: d.roll(),
        exemplars: d.many(2, exemplar),
        flags: d.below(2) as u32,
        value: d.maybe(|d| if d.one_in(2) { Value::AsDouble(double(d)) } else { Value::AsInt(d.roll() as i64) }),
    }
}

fn histogram_point(d: &mut Dice) -> m::HistogramDataPoint {
    m::HistogramDataPoint {
        attributes: attributes(d, 3),
        start_time_unix_nano: d.roll(),
        time_unix_nano: d.roll(),
        count: d.roll(),
        sum: d.maybe(double),
        bucket_counts: d.many(4, Dice::roll),
        explicit_bounds: d.many(4, double),
        exemplars: d.many(1, exemplar),
        flags: 1,
        min: d.maybe(double),
        max: d.maybe(double),
    }
}

fn exponential_point(d: &mut Dice) -> m::ExponentialHistogramDataPoint {
    use m::exponential_histogram_data_point::Buckets;
    let buckets =
        |d: &mut Dice| Buckets { offset: d.roll() as i32, bucket_counts: d.many(5, |d| d.roll() >> d.below(64)) };
    m::ExponentialHistogramDataPoint {
        attributes: attributes(d, 2),
        start_time_unix_nano: d.roll(),
        time_unix_nano: d.roll(),
        count: 4,
        sum: d.maybe(double),
        scale: d.roll() as i32,
        zero_count: 1,
        positive: d.maybe(buckets),
        negative: d.maybe(buckets),
        flags: 0,
        exemplars: d.many(1, exemplar),
        min: d.maybe(double),
        max: d.maybe(double),
        zero_threshold: double(d),
    }
}

fn summary_point(d: &mut Dice) -> m::SummaryDataPoint {
    let quantile = |d: &mut Dice| m::summary_data_point::ValueAtQuantile { quantile: double(d), value: double(d) };
    m::SummaryDataPoint {
        attributes: attributes(d, 2),
        start_time_unix_nano: d.roll(),
        time_unix_nano: d.roll(),
        count: d.roll(),
        sum: double(d),
        quantile_values: d.many(3, quantile),
        flags: 3,
    }
}

/// Damages `bytes`; `other` is what splices are cut from.
pub(crate) fn damage(d: &mut Dice, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + d.below(3) {
        out = if d.one_in(4) { damage_bytes(d, &out, other) } else { damage_field(d, &out, other, 0) };
    }
    out
}

/// Damage that knows nothing of protobuf.
fn damage_bytes(d: &mut Dice, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = d.below(out.len() + 1);
    let end = (at + d.below(12)).min(out.len());
    match d.below(5) {
        0 => out.truncate(at),
        1 if !out.is_empty() => {
            let at = d.below(out.len());
            out[at] ^= 1 << d.below(8);
        }
        2 => drop(out.drain(at..end)),
        3 => drop(out.splice(at..at, d.bytes(12))),
        _ => {
            let from = d.below(other.len() + 1);
            let to = (from + d.below(40)).min(other.len());
            drop(out.splice(at..end, other[from..to].iter().copied()));
        }
    }
    out
}

/// One field of a message: number, wire type, content (without its length) and the whole.
type Field = (u32, u8, Vec<u8>, Vec<u8>);

fn fields(mut b: &[u8]) -> Option<Vec<Field>> {
    use model::wire;
    let mut found = Vec::new();
    while !b.is_empty() {
        let whole = b;
        let (number, wire) = wire::key(&mut b).ok()?;
        let content = if wire == wire::LEN {
            wire::bytes(&mut b).ok()?.to_vec()
        } else {
            wire::skip(&mut b, number, wire, 100).ok()?;
            vec![]
        };
        found.push((number, wire, content, whole[..whole.len() - b.len()].to_vec()));
    }
    Some(found)
}

fn put(number: u32, wire: u8, content: &[u8]) -> Vec<u8> {
    use model::wire;
    let mut out = Vec::new();
    wire::put_varint(&mut out, u64::from(number) << 3 | u64::from(wire));
    if wire == wire::LEN {
        wire::put_varint(&mut out, content.len() as u64);
    }
    out.extend_from_slice(content);
    out
}

/// Damage inside one field somewhere below, with all lengths around it put right again: this is what gets deep.
fn damage_field(d: &mut Dice, bytes: &[u8], other: &[u8], depth: usize) -> Vec<u8> {
    let Some(mut parts) = fields(bytes).filter(|f| !f.is_empty()) else { return damage_bytes(d, bytes, other) };
    let at = d.below(parts.len());
    let (number, wire, content, whole) = parts[at].clone();
    if wire == 2 && depth < 12 && !d.one_in(4) && fields(&content).is_some_and(|f| !f.is_empty()) {
        parts[at].3 = put(number, wire, &damage_field(d, &content, other, depth + 1));
        return parts.into_iter().flat_map(|p| p.3).collect();
    }
    let changed = match d.below(9) {
        0 => put(number, d.below(8) as u8, &content),
        1 => put(d.below(18) as u32, wire, if wire == 2 { &content } else { &[1, 0, 0, 0, 0, 0, 0, 0] }),
        2 => [&whole[..], &whole].concat(),
        3 => [&whole[..], &parts[d.below(parts.len())].3].concat(),
        4 => [&unknown(d, 0)[..], &whole].concat(),
        5 => put(number, 2, &d.bytes(6)),
        6 => put(number, 2, text(d).as_bytes()),
        7 => {
            let from = d.below(other.len() + 1);
            put(number, 2, &other[from..(from + d.below(30)).min(other.len())])
        }
        _ => {
            parts.swap(at, 0);
            return parts.into_iter().flat_map(|p| p.3).collect();
        }
    };
    parts[at].3 = changed;
    parts.into_iter().flat_map(|p| p.3).collect()
}

/// A field that OTLP does not know, of any wire type, groups included.
fn unknown(d: &mut Dice, depth: usize) -> Vec<u8> {
    let number = 17 + d.below(3_000) as u32;
    match d.below(6) {
        0 => put(number, 0, &[0x80, 0x01]),
        1 => put(number, 1, &[7; 8]),
        2 => put(number, 5, &[7; 4]),
        3 => put(number, 2, &d.bytes(9)),
        _ if depth > 4 => vec![],
        _ => {
            let inner: Vec<u8> = d.many(3, |d| unknown(d, depth + 1)).concat();
            let end = if d.one_in(9) { number + 1 } else { number };
            [put(number, 3, &inner), put(end, 4, &[])].concat()
        }
    }
}
