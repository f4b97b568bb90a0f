use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

const SECOND: u64 = 1_000_000_000;
const T0: u64 = 1_700_000_000 * SECOND;

fn any(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(value), ..KeyValue::default() }
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn record(at: u64, severity: i32, body: &str) -> LogRecord {
    LogRecord { time_unix_nano: at, severity_number: severity, body: any(body), ..LogRecord::default() }
}

fn request(resource: &[(&str, &str)], records: Vec<LogRecord>) -> Vec<u8> {
    let scope = InstrumentationScope { attributes: attributes(&[("scope.kind", "lib")]), ..Default::default() };
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() }];
    let resource = Some(Resource { attributes: attributes(resource), ..Resource::default() });
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn sidecar(at: u64) -> Sidecar {
    Sidecar { received_at: at, ..Sidecar::default() }
}

fn view() -> View {
    View::new(64 << 20, Duration::from_secs(900))
}

/// Three services, three levels, one trace.
fn shop() -> View {
    let view = view();
    let mut failed = record(T0 + SECOND, 17, "payment FAILED: Timeout");
    failed.trace_id = vec![0xab; 16];
    failed.span_id = vec![0xcd; 8];
    failed.attributes = attributes(&[("http.route", "/pay"), ("k8s.pod.uid", "record")]);
    let payment = [("service.name", "payment"), ("k8s.namespace.name", "shop"), ("k8s.pod.uid", "resource")];
    view.logs(1, &sidecar(T0), &request(&payment, vec![record(T0, 9, "started"), failed])).unwrap();
    let front = [("service.name", "front"), ("service.namespace", "web")];
    let lines = (2..5).map(|i| record(T0 + i * SECOND, 13, &format!("slow query {i}"))).collect();
    view.logs(2, &sidecar(T0 + SECOND), &request(&front, lines)).unwrap();
    view
}

fn ask(view: &View, filter: LogFilter) -> LogsAnswer {
    view.search(&LogQuery { filter, limit: 100, before: None })
}

fn texts(answer: &LogsAnswer) -> Vec<&str> {
    answer.lines.iter().map(|line| line.line.as_str()).collect()
}

#[test]
fn lines_carry_the_labels_and_metadata_that_loki_would_get() {
    let answer = ask(&shop(), LogFilter { q: "payment failed".to_owned(), ..LogFilter::default() });
    let line = &answer.lines[0];
    let pairs = |map: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        map.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(pairs(&line.labels), ["exporter=OTLP", "job=payment", "namespace=shop", "service_name=payment"]);
    let metadata = ["detected_level=error", "http_route=/pay", "k8s_pod_uid=record", "scope_kind=lib"];
    assert_eq!(pairs(&line.metadata), metadata);
    assert_eq!((line.level.as_str(), line.service.as_str()), ("error", "payment"));
    assert_eq!((line.trace_id.as_str(), line.span_id.as_str()), ("ab".repeat(16).as_str(), "cd".repeat(8).as_str()));
    let front = ask(&shop(), LogFilter { services: vec!["front".to_owned()], ..LogFilter::default() });
    assert_eq!(front.lines[0].labels["job"], "web/front");
}

#[test]
fn severity_is_repeated_only_where_the_level_does_not_say_it() {
    let view = view();
    let texted = |number, text: &str| LogRecord { severity_text: text.to_owned(), ..record(T0, number, "x") };
    let records = vec![texted(9, "INFO"), texted(10, "Info"), texted(17, "SEVERE"), texted(0, "Notice"), texted(0, "")];
    view.logs(1, &sidecar(T0), &request(&[], records)).unwrap();
    let answer = ask(&view, LogFilter::default());
    let said = |line: &ShownLine| {
        let get = |name: &str| line.metadata.get(name).cloned().unwrap_or_default();
        (line.level.clone(), get("severity_text"), get("severity_number"))
    };
    let said: Vec<_> = answer.lines.iter().rev().map(said).collect();
    let expected =
        [("info", "", ""), ("info", "", "10"), ("error", "SEVERE", ""), ("unknown", "Notice", ""), ("unknown", "", "")];
    assert_eq!(said, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[test]
fn enrichment_never_overwrites_what_the_sender_wrote() {
    let view = view();
    let enrichment = [("k8s.pod.name", "from-us"), ("k8s.namespace.name", "shop")];
    let enrichment = enrichment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sidecar = Sidecar { received_at: T0, enrichment, ..Sidecar::default() };
    view.logs(1, &sidecar, &request(&[("k8s.pod.name", "theirs")], vec![record(T0, 9, "x")])).unwrap();
    let line = ask(&view, LogFilter::default()).lines.remove(0);
    assert_eq!((line.labels["pod"].as_str(), line.labels["namespace"].as_str()), ("theirs", "shop"));
}

#[test]
fn every_filter_narrows_and_all_hold_together() {
    let view = shop();
    let newest_first = ask(&view, LogFilter::default());
    assert_eq!(
        texts(&newest_first),
        ["slow query 4", "slow query 3", "slow query 2", "payment FAILED: Timeout", "started"]
    );
    let level = LogFilter { levels: vec!["error".to_owned(), "info".to_owned()], ..LogFilter::default() };
    assert_eq!(ask(&view, level.clone()).matched, 2);
    let trace = LogFilter { trace_id: "AB".repeat(16), ..LogFilter::default() };
    assert_eq!(texts(&ask(&view, trace)), ["payment FAILED: Timeout"]);
    assert_eq!(ask(&view, LogFilter { trace_id: "no id".to_owned(), ..LogFilter::default() }).matched, 0);
    let pair = |name: &str, value: &str| LogFilter {
        pairs: vec![(name.to_owned(), value.to_owned())],
        ..LogFilter::default()
    };
    assert_eq!(ask(&view, pair("k8s_pod_uid", "record")).matched, 1);
    assert_eq!(ask(&view, pair("k8s_pod_uid", "resource")).matched, 1, "the other line of that resource");
    assert_eq!(ask(&view, pair("namespace", "shop")).matched, 2);
    assert_eq!(ask(&view, pair("detected_level", "warn")).matched, 3);
    let by_id = LogFilter { q: "CDCD".to_owned(), ..LogFilter::default() };
    assert_eq!(texts(&ask(&view, by_id)), ["payment FAILED: Timeout"]);
    let ms = |at: u64| Some(at / 1_000_000);
    let time = LogFilter { from_ms: ms(T0 + SECOND), to_ms: ms(T0 + 2 * SECOND), ..level };
    let answer = ask(&view, time);
    assert_eq!((answer.total, answer.matched), (2, 1));
}

#[test]
fn a_facet_counts_past_its_own_filter_and_the_histogram_counts_what_matched() {
    let filter = LogFilter { services: vec!["payment".to_owned()], ..LogFilter::default() };
    let answer = ask(&shop(), filter);
    assert_eq!(answer.facets.service, [("payment".to_owned(), 2), ("front".to_owned(), 3)].into());
    assert_eq!(answer.facets.level, [("error".to_owned(), 1), ("info".to_owned(), 1)].into());
    let counted: u64 = answer.histogram.levels.values().flatten().sum();
    assert_eq!(counted, answer.matched);
    assert_eq!(answer.histogram.levels["error"][1], 1);
}

#[test]
fn pages_by_id_give_every_line_once_even_while_lines_arrive() {
    let view = view();
    let many = |from: u64, to: u64| (from..to).map(|i| record(T0, 9, &i.to_string())).collect::<Vec<_>>();
    view.logs(7, &sidecar(T0), &request(&[], many(0, 700))).unwrap();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let answer = view.search(&LogQuery { limit: 90, before, ..LogQuery::default() });
        let Some(last) = answer.lines.last() else { break };
        before = LineId::parse(&last.id);
        assert!(before.is_some() && seen.len() < 700);
        seen.extend(answer.lines.iter().map(|line| line.line.parse::<u64>().unwrap()));
        view.logs(8 + seen.len() as u64, &sidecar(T0), &request(&[], many(9000, 9010))).unwrap();
    }
    seen.reverse();
    assert_eq!(seen, (0..700).collect::<Vec<_>>());
    for bad in ["", "7", "+00000000000000000000007", "é"] {
        assert_eq!(LineId::parse(bad), None);
    }
}

#[test]
fn a_frame_shown_twice_counts_once() {
    let view = shop();
    let bytes = view.stats().bytes;
    assert_eq!(view.logs(2, &sidecar(T0), &request(&[], vec![record(T0, 9, "again")])).unwrap(), 0);
    assert_eq!(view.stats().bytes, bytes);
}

#[test]
fn the_oldest_go_first_and_every_byte_is_given_back() {
    let view = View::new(200_000, Duration::from_secs(900));
    for seq in 0..200 {
        let records = (0..10).map(|i| record(T0, 9, &format!("{seq} {i} {}", "x".repeat(100)))).collect();
        view.logs(seq, &sidecar(T0 + seq), &request(&[("service.name", "s")], records)).unwrap();
        assert!(view.stats().bytes <= 200_000);
    }
    let stats = view.stats();
    assert_eq!(stats.lines + stats.lines_evicted, 2000);
    assert!(stats.bytes > 150_000 && stats.lines_evicted > 0);
    let answer = view.search(&LogQuery { limit: 1000, ..LogQuery::default() });
    assert!(answer.lines[0].line.starts_with("199 9 "));
    assert_eq!(answer.covers.evicted, stats.lines_evicted);
    assert_eq!(answer.lines.len() as u64, stats.lines);
    view.expire(T0 + 3600 * SECOND);
    let empty = view.stats();
    assert_eq!((empty.bytes, empty.lines, empty.covers), (0, 0, None));
    assert_eq!(empty.lines_evicted, stats.lines_evicted, "the window is no eviction");
}

#[test]
fn one_signal_cannot_push_the_other_out() {
    let view = View::new(400_000, Duration::from_secs(900));
    for i in 0..200_u64 {
        view.traces(i, &sidecar(T0 + i), &spans(vec![span(i as u8 + 1, 1, 0, 0, 10)])).unwrap();
    }
    let traces = view.stats().traces;
    for seq in 0..300 {
        let records = vec![record(T0, 9, &"x".repeat(10_000))];
        view.logs(seq, &sidecar(T0 + 1000 + seq), &request(&[], records)).unwrap();
    }
    let stats = view.stats();
    assert!(stats.bytes <= 400_000 && stats.lines > 0);
    assert!(stats.traces > traces / 4, "{} of {traces} left", stats.traces);
}

#[test]
fn a_line_longer_than_the_whole_view_is_let_go_and_counted() {
    let view = View::new(4096, Duration::from_secs(900));
    view.logs(1, &sidecar(T0), &request(&[], vec![record(T0, 9, &"x".repeat(10_000))])).unwrap();
    let stats = view.stats();
    assert_eq!((stats.bytes, stats.lines, stats.lines_evicted), (0, 0, 1));
}

#[test]
fn bytes_that_are_no_request_change_nothing() {
    let view = shop();
    let before = view.stats();
    let error = view.logs(9, &sidecar(T0), &[0xff; 40]).unwrap_err();
    assert!(error.to_string().contains("frame 9 of logs"));
    assert!(view.traces(9, &sidecar(T0), &[0x0a, 0x7f]).is_err());
    assert_eq!(view.stats(), before);
}

#[tokio::test]
async fn a_tail_gets_matching_lines_and_counts_what_it_missed() {
    let view = view();
    let filter = LogFilter { levels: vec!["error".to_owned()], ..LogFilter::default() };
    let mut tail = view.tail(filter);
    let records = vec![record(T0, 9, "fine"), record(T0, 17, "bad")];
    view.logs(0, &sidecar(T0), &request(&[], records)).unwrap();
    let got = tail.next().await.unwrap();
    assert_eq!((got.lines.len(), got.lines[0].line.as_str(), got.skipped), (1, "bad", 0));
    for seq in 1..=TAIL_CHUNKS as u64 + 5 {
        view.logs(seq, &sidecar(T0), &request(&[], vec![record(T0, 17, "x"), record(T0, 9, "y")])).unwrap();
    }
    let got = tail.next().await.unwrap();
    assert_eq!((got.lines.len(), got.skipped), (1, 10));
}

fn span(trace: u8, id: u8, parent: u8, from_ms: u64, to_ms: u64) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: format!("span {id}"),
        kind: 2,
        start_time_unix_nano: T0 + from_ms * 1_000_000,
        end_time_unix_nano: T0 + to_ms * 1_000_000,
        ..Span::default()
    }
}

fn spans(spans: Vec<Span>) -> Vec<u8> {
    let of = |service: &str, spans: Vec<Span>| ResourceSpans {
        resource: Some(Resource { attributes: attributes(&[("service.name", service)]), ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    let (roots, others): (Vec<Span>, Vec<Span>) = spans.into_iter().partition(|s| s.parent_span_id.is_empty());
    let resource_spans = vec![of("front", roots), of("back", others)];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Trace 1: 100 ms, its root last. Trace 2: 10 ms and failed. Trace 3: 500 ms.
fn traced() -> View {
    let view = view();
    view.traces(1, &sidecar(T0), &spans(vec![span(1, 3, 2, 20, 30), span(2, 1, 0, 200, 210)])).unwrap();
    view.traces(2, &sidecar(T0), &spans(vec![span(1, 2, 1, 10, 90), span(3, 1, 0, 0, 500)])).unwrap();
    let mut failed = span(2, 2, 1, 202, 204);
    failed.status = Some(Status { code: 2, message: "refused".to_owned() });
    view.traces(3, &sidecar(T0), &spans(vec![span(1, 1, 0, 0, 100), failed])).unwrap();
    view
}

fn ids(answer: &TracesAnswer) -> Vec<&str> {
    answer.traces.iter().map(|row| &row.trace_id[..2]).collect()
}

#[test]
fn spans_in_any_order_make_one_trace_named_by_its_root() {
    let detail = traced().trace(&"01".repeat(16)).unwrap();
    let order: Vec<&str> = detail.spans.iter().map(|span| &*span.name).collect();
    assert_eq!(order, ["span 1", "span 2", "span 3"]);
    assert_eq!((&*detail.spans[0].service, &*detail.spans[1].parent_id), ("front", "0101010101010101"));
    let answer = traced().list_traces(&TraceQuery { limit: 10, ..TraceQuery::default() });
    let row = answer.traces.iter().find(|row| row.trace_id.starts_with("01")).unwrap();
    assert_eq!((row.name.as_str(), &*row.service, row.spans, row.duration_ms), ("span 1", "front", 3, 100.0));
    assert!(traced().trace(&"09".repeat(16)).is_none() && traced().trace("x").is_none());
}

#[test]
fn traces_are_listed_newest_slowest_failed_and_by_service() {
    let view = traced();
    let query = TraceQuery { limit: 10, ..TraceQuery::default() };
    assert_eq!(ids(&view.list_traces(&query))[0], "02");
    let slowest = TraceQuery { order: TraceOrder::Slowest, limit: 2, ..TraceQuery::default() };
    let answer = view.list_traces(&slowest);
    assert_eq!((ids(&answer), answer.total, answer.matched), (vec!["03", "01"], 3, 3));
    let failed = TraceQuery { failed: true, ..query.clone() };
    assert_eq!(ids(&view.list_traces(&failed)), ["02"]);
    let back = TraceQuery { service: "back".to_owned(), min_ms: 50.0, ..query.clone() };
    assert_eq!(ids(&view.list_traces(&back)), ["01"]);
    let q = TraceQuery { q: "0303".to_owned(), ..query };
    assert_eq!(ids(&view.list_traces(&q)), ["03"]);
    assert_eq!(view.stats().traces_seen, 3);
}

#[test]
fn a_trace_knows_how_many_held_lines_speak_of_it() {
    let view = traced();
    let line = LogRecord { trace_id: vec![1; 16], ..record(T0, 9, "in the trace") };
    view.logs(1, &sidecar(T0), &request(&[], vec![line, record(T0, 9, "not")])).unwrap();
    assert_eq!(view.trace(&"01".repeat(16)).unwrap().logs, 1);
}

#[test]
fn traces_give_every_byte_back_too() {
    let view = View::new(100_000, Duration::from_secs(900));
    for i in 0..2000_u64 {
        let mut one = span(0, 1, 0, 0, 10);
        one.trace_id = (u128::from(i) + 1).to_be_bytes().to_vec();
        view.traces(i, &sidecar(T0 + i), &spans(vec![one])).unwrap();
        assert!(view.stats().bytes <= 100_000);
    }
    let stats = view.stats();
    assert_eq!(stats.traces + stats.spans_evicted, 2000);
    view.expire(T0 + 3600 * SECOND);
    assert_eq!((view.stats().bytes, view.stats().traces), (0, 0));
}

#[test]
fn an_endless_trace_is_cut_and_spans_without_an_id_are_left_out() {
    let view = view();
    let many = (0..SPANS_MAX + 7).map(|_| span(1, 1, 0, 0, 1)).collect();
    view.traces(1, &sidecar(T0), &spans(many)).unwrap();
    view.traces(2, &sidecar(T0), &spans(vec![Span { trace_id: vec![1, 2], ..span(1, 1, 0, 0, 1) }])).unwrap();
    let stats = view.stats();
    assert_eq!((stats.traces, stats.spans_evicted), (1, 7));
}

/// The messages of Loki's push API, as far as this test reads them.
mod push {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) streams: Vec<Stream>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stream {
        #[prost(string, tag = "1")]
        pub(super) labels: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(string, tag = "2")]
        pub(super) line: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<Pair>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pair {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
}

fn typed(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// One of every type.
fn values() -> Vec<Any> {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    let number = |value| AnyValue { value: Some(Any::DoubleValue(value)) };
    let list = || Any::ArrayValue(ArrayValue { values: vec![number(2.0), number(0.5), AnyValue { value: None }] });
    let bytes = Any::BytesValue(vec![1, 2, 255, 0]);
    let pairs = vec![typed("z", Any::BoolValue(true)), typed("a\"b", list()), typed("b", bytes)];
    vec![
        Any::StringValue("text <&> \"quoted\"".to_owned()),
        Any::BoolValue(false),
        Any::IntValue(i64::MIN),
        Any::DoubleValue(1e21),
        Any::DoubleValue(0.1),
        Any::DoubleValue(f64::NEG_INFINITY),
        Any::BytesValue(b"hello".to_vec()),
        list(),
        Any::KvlistValue(KeyValueList { values: pairs }),
    ]
}

/// Lines with every level and way of saying it, every type of value, names to clean, repeated names.
fn varied() -> Vec<u8> {
    let values = values();
    let texts = ["", "INFO", "Information", "warning", "Notice", "CRITICAL", "größe"];
    let mut records = Vec::new();
    for (i, body) in values.iter().enumerate() {
        for number in [0, 1, 2, 9, 12, 13, 24, 25] {
            records.push(LogRecord {
                time_unix_nano: T0 + records.len() as u64,
                severity_number: number,
                severity_text: texts[(i + number as usize) % texts.len()].to_owned(),
                body: Some(AnyValue { value: Some(body.clone()) }),
                attributes: vec![
                    typed("http.größe-1", values[(i + 1) % values.len()].clone()),
                    attribute("scope.kind", "record"),
                    typed("twice", Any::IntValue(1)),
                    typed("twice", Any::IntValue(2)),
                    attribute("", "nameless"),
                ],
                event_name: if i % 2 == 0 { String::new() } else { "paid".to_owned() },
                ..LogRecord::default()
            });
        }
    }
    let resource = [("service.name", "pay"), ("service.namespace", "shop"), ("k8s.pod.name", "p"), ("host.name", "h")];
    let mut request = ExportLogsServiceRequest::decode(&*request(&resource, records)).unwrap();
    let scope = request.resource_logs[0].scope_logs[0].scope.as_mut().unwrap();
    (scope.name, scope.version) = ("lib".to_owned(), "1.2".to_owned());
    request.encode_to_vec()
}

#[test]
fn the_page_shows_the_labels_lines_and_metadata_that_loki_is_sent() {
    let (raw, sidecar) = (varied(), sidecar(T0));
    let mut encoder = model::loki::Encoder::new(model::loki::Options::default());
    let added = encoder.add(1, &sidecar, &raw);
    assert!(added.offenders.is_empty() && added.malformed.is_none());
    let mut sent = Vec::new();
    for push in encoder.finish(1, &|_| true) {
        let body = snap::raw::Decoder::new().decompress_vec(&push.body).unwrap();
        for stream in push::Request::decode(&*body).unwrap().streams {
            for entry in stream.entries {
                let pairs = entry.metadata.into_iter().map(|pair| (pair.name, pair.value));
                let metadata: std::collections::BTreeMap<String, String> = pairs.collect();
                sent.push((stream.labels.clone(), entry.line, metadata));
            }
        }
    }
    let view = view();
    view.logs(1, &sidecar, &raw).unwrap();
    let answer = view.search(&LogQuery { limit: LINES_MAX, ..LogQuery::default() });
    assert_eq!((answer.lines.len(), answer.lines.is_empty()), (sent.len(), false));
    for (line, (labels, text, metadata)) in answer.lines.iter().rev().zip(sent) {
        let shown: Vec<String> = line.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        assert_eq!(format!("{{{}}}", shown.join(", ")), labels);
        assert_eq!((&line.line, &line.metadata), (&text, &metadata), "severity {}", line.level);
    }
}
