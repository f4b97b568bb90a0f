//! What the encoder writes against what the interface says, computed once more by a slow reference.

mod common;

use common::push::{Pair, PushRequest, open};
use common::reference::{Expected, expect, of_entry};
use common::{Dice, damage, text};
use model::envelope::Sidecar;
use model::loki::{Added, Encoder, Limits, Line, Options, Place, Push};
use model::otlp::{Request, check};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

fn options(d: &mut Dice) -> Options {
    let tight = |d: &mut Dice, tight: usize, wide: usize| if d.one_in(4) { tight } else { wide };
    let limits = Limits {
        line_bytes: if d.one_in(2) { d.below(40) } else { 256 << 10 },
        label_names: tight(d, 4, 15),
        label_name_bytes: tight(d, 12, 1_024),
        label_value_bytes: tight(d, 12, 2_048),
        metadata_bytes: tight(d, 200, 64 << 10),
        metadata_entries: tight(d, 9, 128),
    };
    let external = [("cluster", "c1"), ("job", "outer"), ("zone", "\"z\"")];
    let external_labels = d.many(3, |d| d.pick(&external)).into_iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
    let external_labels: BTreeMap<String, String> = external_labels.collect();
    Options { external_labels: external_labels.into_iter().collect(), line: Line::Body, limits, ..Options::default() }
}

fn sidecar(d: &mut Dice) -> Sidecar {
    let keys = ["k8s.namespace.name", "k8s.pod.name", "host.name", "k8s.node.name", "service.name"];
    let enrichment = if d.one_in(2) { vec![] } else { d.many(3, |d| (d.pick(&keys).to_owned(), text(d))) };
    Sidecar { received_at: d.roll() >> 1, peer: "10.0.0.1:4".into(), enrichment, file: None }
}

fn streams(pushes: &[Push]) -> BTreeMap<String, Vec<common::reference::Line>> {
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for stream in pushes.iter().flat_map(|p| open(p).streams) {
        found.entry(stream.labels).or_default().extend(stream.entries.iter().map(of_entry));
    }
    found
}

fn found(added: Vec<Added>, pushes: &[Push]) -> Expected {
    let cut = added.iter().map(|a| a.cut).sum();
    let entries: u32 = added.iter().map(|a| a.entries).sum();
    assert_eq!(entries, pushes.iter().map(|p| p.entries).sum::<u32>());
    let offenders = added.into_iter().flat_map(|a| a.offenders);
    let text = |line: Vec<u8>| String::from_utf8(line).expect("UTF-8");
    let offenders = offenders.map(|o| (o.reason, o.labels.to_string(), text(o.line))).collect();
    Expected { streams: streams(pushes), offenders, cut }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whole requests, and damaged ones that prost still decodes: fields twice, out of order, unknown, in groups.
    #[test]
    fn what_is_pushed_is_what_the_interface_says(seed in any::<u64>()) {
        let d = &mut Dice(seed);
        let options = options(d);
        let mut encoder = Encoder::new(options.clone());
        let (mut added, mut expected) = (vec![], Expected::default());
        for seq in 0..1 + d.below(4) as u64 {
            let sidecar = sidecar(d);
            let mut bytes = common::logs(d).encode_to_vec();
            if d.one_in(2) {
                let other = common::logs(d).encode_to_vec();
                bytes = damage(d, &bytes, &other);
            }
            let decoded = ExportLogsServiceRequest::decode(&bytes[..]);
            prop_assert_eq!(decoded.is_ok(), check(Request::Logs, &bytes).is_ok());
            let Ok(decoded) = decoded else { continue };
            expect(&decoded, &sidecar, &options, &mut expected);
            let one = encoder.add(seq, &sidecar, &bytes);
            prop_assert_eq!(&one.malformed, &None);
            prop_assert!(one.next.is_none());
            prop_assert_eq!((one.entries + one.offenders.len() as u32) as usize, items(&decoded));
            added.push(one);
        }
        let pushes = encoder.finish(1, &|_| true);
        prop_assert_eq!(found(added, &pushes), expected);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_whatever_came_before(seed in any::<u64>()) {
        let d = &mut Dice(seed);
        let options = Options { line: d.pick(&[Line::Body, Line::AlloyJson]), ..options(d) };
        let (mut fresh, mut used) = (Encoder::new(options.clone()), Encoder::new(options));
        for _ in 0..3 {
            used.add(9, &sidecar(d), &common::logs(d).encode_to_vec());
            used.finish(d.below(3), &|_| true);
        }
        let batch: Vec<_> = (0..3).map(|seq| (seq, sidecar(d), common::logs(d).encode_to_vec())).collect();
        for (seq, sidecar, bytes) in &batch {
            used.add(*seq, sidecar, bytes);
            fresh.add(*seq, sidecar, bytes);
        }
        prop_assert_eq!(used.bytes(), fresh.bytes());
        let shards = 1 + d.below(4);
        let pushes = used.finish(shards, &|_| true);
        prop_assert_eq!(&pushes, &fresh.finish(shards, &|_| true));
        prop_assert!(used.is_empty() && used.bytes() == 0);

        // Another number of shards moves streams, not entries; and what is not kept can be made again.
        for (seq, sidecar, bytes) in &batch {
            fresh.add(*seq, sidecar, bytes);
            used.add(*seq, sidecar, bytes);
        }
        let odd = |labels: &str| labels.len() % 2 == 1;
        let (kept, left) = (fresh.finish(1, &odd), used.finish(1, &|labels| !odd(labels)));
        prop_assert_eq!(streams(&pushes), streams(&[kept, left].concat()));
    }

    #[test]
    fn a_request_can_be_taken_in_pieces(seed in any::<u64>(), until in 1usize..2_000) {
        let d = &mut Dice(seed);
        let options = options(d);
        let (sidecar, bytes) = (sidecar(d), common::logs(d).encode_to_vec());
        let mut encoder = Encoder::new(options);
        let whole = encoder.add(1, &sidecar, &bytes);
        let whole = found(vec![whole], &encoder.finish(1, &|_| true));
        let (mut place, mut added, mut pushes) = (Some(Place::default()), vec![], vec![]);
        while let Some(from) = place {
            let one = encoder.add_from(1, &sidecar, &bytes, from, until);
            place = one.next;
            prop_assert!(place.is_none() || place != Some(from), "no progress");
            added.push(one);
            pushes.extend(encoder.finish(1, &|_| true));
        }
        prop_assert_eq!(found(added, &pushes), whole);
    }

    #[test]
    fn no_bytes_make_the_encoder_panic_and_every_push_is_one(seed in any::<u64>()) {
        let d = &mut Dice(seed);
        let options = Options { line: d.pick(&[Line::Body, Line::AlloyJson]), ..options(d) };
        let mut encoder = Encoder::new(options);
        let (whole, other) = (common::logs(d).encode_to_vec(), common::metrics(d).encode_to_vec());
        for _ in 0..4 {
            let bytes = if d.one_in(3) { d.many(80, |d| d.roll() as u8) } else { damage(d, &whole, &other) };
            let (sidecar, until) = (sidecar(d), d.below(500));
            encoder.add_from(1, &sidecar, &bytes, Place::default(), until);
        }
        for push in encoder.finish(3, &|_| true) {
            prop_assert!(snap::raw::Decoder::new().decompress_vec(&push.body).is_ok());
        }
    }
}

fn items(request: &ExportLogsServiceRequest) -> usize {
    request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
}

/// What a table test needs of a push: the one entry's pairs, sorted.
fn only_entry(push: &PushRequest) -> (&str, &str, Vec<(&str, &str)>) {
    let [stream] = &push.streams[..] else { panic!("one stream") };
    let [entry] = &stream.entries[..] else { panic!("one entry") };
    let mut pairs: Vec<_> = entry.metadata.iter().map(|Pair { name, value }| (&name[..], &value[..])).collect();
    pairs.sort_unstable();
    (&stream.labels, &entry.line, pairs)
}

mod tables {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.into(), value: string(value), ..Default::default() }
    }

    fn string(s: &str) -> Option<AnyValue> {
        Some(AnyValue { value: Some(V::StringValue(s.into())) })
    }

    fn request(resource: Vec<KeyValue>, scope: InstrumentationScope, records: Vec<LogRecord>) -> Vec<u8> {
        let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records: records, ..Default::default() }];
        let resource = Some(Resource { attributes: resource, ..Default::default() });
        let resource_logs = vec![ResourceLogs { resource, scope_logs, ..Default::default() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    }

    fn push(options: Options, sidecar: &Sidecar, request: &[u8]) -> (Added, PushRequest) {
        let mut encoder = Encoder::new(options);
        let added = encoder.add(7, sidecar, request);
        let pushes = encoder.finish(1, &|_| true);
        (added, pushes.first().map(open).unwrap_or_default())
    }

    #[test]
    fn a_severity_costs_only_what_it_says() {
        type Case = (i32, &'static str, &'static [(&'static str, &'static str)]);
        let table: [Case; 14] = [
            (0, "", &[]),
            (9, "INFO", &[("detected_level", "info")]),
            (9, "", &[("detected_level", "info")]),
            (9, "Information", &[("detected_level", "info"), ("severity_text", "Information")]),
            (10, "info", &[("detected_level", "info"), ("severity_number", "10")]),
            (13, "WARNING", &[("detected_level", "warn"), ("severity_text", "WARNING")]),
            (13, "WARN", &[("detected_level", "warn")]),
            (17, "Error", &[("detected_level", "error")]),
            (21, "CRITICAL", &[("detected_level", "fatal"), ("severity_text", "CRITICAL")]),
            (24, "", &[("detected_level", "fatal"), ("severity_number", "24")]),
            (0, "WARNING", &[("detected_level", "warn"), ("severity_text", "WARNING")]),
            (0, "Critical", &[("detected_level", "critical")]),
            (0, "Notice", &[("detected_level", "unknown"), ("severity_text", "Notice")]),
            (99, "debug", &[("detected_level", "debug"), ("severity_number", "99")]),
        ];
        for (severity_number, severity_text, expected) in table {
            let record = LogRecord { severity_number, severity_text: severity_text.into(), ..Default::default() };
            let bytes = request(vec![], Default::default(), vec![record]);
            let (_, push) = push(Options::default(), &Sidecar::default(), &bytes);
            assert_eq!(only_entry(&push).2, expected, "{severity_number} {severity_text}");
        }
    }

    #[test]
    fn labels_come_from_the_resource_and_from_what_was_known_at_receipt() {
        let resource = vec![kv("service.name", "ca\"rt"), kv("k8s.pod.name", "own"), kv("host.name", "h1")];
        let bytes = request(resource, Default::default(), vec![LogRecord::default()]);
        let known = [("k8s.pod.name", "seen"), ("k8s.namespace.name", "shop"), ("k8s.node.name", "n1")];
        let enrichment = known.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let sidecar = Sidecar { received_at: 5, enrichment, ..Default::default() };
        let external_labels = vec![("cluster".into(), "c1".into()), ("exporter".into(), "x".into())];
        let (_, push) = push(Options { external_labels, ..Default::default() }, &sidecar, &bytes);
        let labels =
            r#"{cluster="c1", exporter="OTLP", job="ca\"rt", namespace="shop", pod="own", service_name="ca\"rt"}"#;
        assert_eq!(only_entry(&push), (labels, "", vec![("host_name", "h1"), ("k8s_node_name", "n1")]));
        assert_eq!(of_entry(&push.streams[0].entries[0]).nanoseconds, 5);
    }

    #[test]
    fn without_anything_there_is_still_one_label() {
        let bytes = request(vec![], Default::default(), vec![LogRecord::default()]);
        let (_, push) = push(Options::default(), &Sidecar::default(), &bytes);
        assert_eq!(only_entry(&push).0, r#"{exporter="OTLP"}"#);
    }

    #[test]
    fn of_names_that_clean_to_one_the_record_wins() {
        let scope = InstrumentationScope {
            name: "lib".into(),
            version: "1".into(),
            attributes: vec![kv("b", "scope"), kv("c", "scope"), kv("scope.name", "attribute")],
            ..Default::default()
        };
        let record = LogRecord {
            attributes: vec![kv("x.y", "first"), kv("c", "record"), kv("x/y", "last"), kv("trace.id", "attribute")],
            trace_id: vec![0xab; 16],
            ..Default::default()
        };
        let resource = vec![kv("a", "resource"), kv("b", "resource"), kv("c", "resource"), kv("a", "again")];
        let (_, push) = push(Options::default(), &Sidecar::default(), &request(resource, scope, vec![record]));
        let trace_id = "ab".repeat(16);
        let expected = [
            ("a", "again"),
            ("b", "scope"),
            ("c", "record"),
            ("scope_name", "lib"),
            ("scope_version", "1"),
            ("trace_id", &trace_id),
            ("x_y", "last"),
        ];
        assert_eq!(only_entry(&push).2, expected);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_says_so() {
        let record = |body: &str| LogRecord { body: string(body), ..Default::default() };
        let limits = Limits { line_bytes: 20, ..Default::default() };
        let options = Options { limits, ..Default::default() };
        for (body, line) in [
            ("12345678901234567890", "12345678901234567890"),
            ("123456789012345678901", "123456789012...[cut]"),
            ("12345678901é345678901", "12345678901...[cut]"),
        ] {
            let bytes = request(vec![], Default::default(), vec![record(body)]);
            let (added, push) = push(options.clone(), &Sidecar::default(), &bytes);
            assert_eq!((only_entry(&push).1, added.cut), (line, u32::from(line.contains("cut"))));
        }
        let (_, push) = push(
            Options::default(),
            &Sidecar::default(),
            &request(vec![], Default::default(), vec![record(&"x".repeat(1 << 20))]),
        );
        assert_eq!(only_entry(&push).1.len(), 256 << 10);
    }

    #[test]
    fn offenders_are_named_one_by_one_and_the_rest_goes_on() {
        let many = |n: usize| (0..n).map(|i| kv(&format!("k{i}"), "v")).collect::<Vec<_>>();
        let record = |attributes| LogRecord { attributes, body: string("line"), ..Default::default() };
        let records = vec![
            record(vec![]),
            record(many(129)),
            record(vec![kv("big", &"x".repeat(64 << 10))]),
            record(many(128)),
            record(many(100).into_iter().chain(many(100)).collect()),
        ];
        let bytes = request(vec![kv("service.name", "s")], Default::default(), records.clone());
        let (added, push) = push(Options::default(), &Sidecar::default(), &bytes);
        assert_eq!((added.entries, push.streams[0].entries.len()), (3, 3));
        let [many, large] = &added.offenders[..] else { panic!("two offenders") };
        assert_eq!(many.detail, "129 pairs of metadata, the limit is 128");
        assert_eq!((large.reason, &large.line[..], large.seq), ("structured_metadata_too_large", &b"line"[..], 7));
        let again = ExportLogsServiceRequest::decode(&large.request()[..]).unwrap();
        assert_eq!(again.resource_logs[0].scope_logs[0].log_records, records[2..3]);
        assert_eq!(again.resource_logs[0].resource.as_ref().unwrap().attributes, [kv("service.name", "s")]);
    }

    #[test]
    fn labels_over_a_limit_make_every_record_of_the_resource_an_offender() {
        let resource = vec![kv("service.name", &"n".repeat(2_049))];
        let bytes = request(resource, Default::default(), vec![LogRecord::default(); 3]);
        let (added, push) = push(Options::default(), &Sidecar::default(), &bytes);
        let reasons: Vec<_> = added.offenders.iter().map(|o| o.reason).collect();
        assert_eq!((reasons, push.streams.len()), (vec!["label_value_too_long"; 3], 0));
    }

    #[test]
    fn a_stream_larger_than_many_blocks_arrives_in_order() {
        let records: Vec<_> = (0..5_000)
            .map(|i| LogRecord { body: string(&format!("{i} {}", "pad".repeat(i % 97))), ..Default::default() })
            .collect();
        let bytes = request(vec![kv("service.name", "s")], Default::default(), records.clone());
        let (added, push) = push(Options::default(), &Sidecar::default(), &bytes);
        assert_eq!(added.entries, 5_000);
        let lines: Vec<_> = push.streams[0].entries.iter().map(|e| e.line.clone()).collect();
        let bodies = records.iter().map(|r| common::reference::text(r.body.as_ref().unwrap()));
        assert_eq!(lines, bodies.collect::<Vec<_>>());
    }

    fn alloy(resource: Vec<KeyValue>, record: LogRecord) -> (String, String) {
        let scope = InstrumentationScope { name: "lib".into(), version: "2".into(), ..Default::default() };
        let options = Options { line: Line::AlloyJson, ..Default::default() };
        let sidecar = Sidecar { enrichment: vec![("k8s.node.name".into(), "n<1>".into())], ..Default::default() };
        let (added, push) = push(options, &sidecar, &request(resource, scope, vec![record]));
        assert_eq!((added.entries, added.malformed), (1, None));
        let (labels, line, metadata) = only_entry(&push);
        assert_eq!(metadata, []);
        (labels.to_owned(), line.to_owned())
    }

    #[test]
    fn the_alloy_line_holds_everything_and_its_labels_are_alloys() {
        let resource = vec![
            kv("service.name", "cart"),
            kv("service.namespace", "shop"),
            kv("service.instance.id", "i1"),
            kv("loki.resource.labels", "host.name , missing"),
            kv("host.name", "h1"),
        ];
        let nested = V::KvlistValue(KeyValueList { values: vec![kv("id", "7"), kv("b", "<")] });
        let hint = V::ArrayValue(ArrayValue { values: vec![string("user.id").unwrap(), string("b").unwrap()] });
        let record = LogRecord {
            severity_number: 10,
            severity_text: "Info".into(),
            body: string("he<llo"),
            attributes: vec![
                KeyValue { key: "user".into(), value: Some(AnyValue { value: Some(nested) }), ..Default::default() },
                KeyValue {
                    key: "loki.attribute.labels".into(),
                    value: Some(AnyValue { value: Some(hint) }),
                    ..Default::default()
                },
                kv("b", "label"),
                kv("z", "1"),
                kv("a", "2"),
            ],
            trace_id: vec![1; 16],
            flags: 1,
            ..Default::default()
        };
        let (labels, line) = alloy(resource, record);
        let expected = r#"{b="label", exporter="OTLP", host_name="h1", instance="i1", job="shop/cart", level="INFO2", user_id="7"}"#;
        assert_eq!(labels, expected);
        let expected = concat!(
            r#"{"body":"he\u003cllo","traceid":"01010101010101010101010101010101","severity":"Info","flags":1,"#,
            r#""attributes":{"a":"2","user":{"b":"\u003c","id":"7"},"z":"1"},"#,
            r#""resources":{"k8s.node.name":"n\u003c1\u003e","service.instance.id":"i1","service.name":"cart","#,
            r#""service.namespace":"shop"},"instrumentation_scope":{"name":"lib","version":"2"}}"#
        );
        assert_eq!(line, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn a_level_attribute_is_the_alloy_label_if_there_is_a_severity() {
        let record = |severity_number| LogRecord {
            severity_number,
            attributes: vec![kv("level", "custom")],
            ..Default::default()
        };
        let (labels, line) = alloy(vec![], record(17));
        assert_eq!(labels, r#"{exporter="OTLP", level="custom"}"#);
        assert!(!line.contains("custom"));
        let (labels, line) = alloy(vec![], record(0));
        assert_eq!(labels, r#"{exporter="OTLP"}"#);
        assert!(line.contains(r#""attributes":{"level":"custom"}"#));
    }

    #[test]
    fn the_alloy_format_hint_is_followed() {
        let record = |format: &str, body: &str| LogRecord {
            body: string(body),
            severity_text: "warn".into(),
            attributes: vec![kv("loki.format", format), kv("n", "a b")],
            ..Default::default()
        };
        let tail = "severity=warn attribute_n=\"a b\" resource_k8s.node.name=n<1> instrumentation_scope_name=lib \
                    instrumentation_scope_version=2";
        assert_eq!(alloy(vec![], record("raw", "as it is")).1, "as it is");
        assert_eq!(alloy(vec![], record("logfmt", "x=1 severity=old")).1, format!("x=1 {tail}"));
        assert_eq!(alloy(vec![], record("logfmt", "it \"was\"")).1, format!("msg=\"it \\\"was\\\"\" {tail}"));
        assert!(alloy(vec![], record("unknown", "x")).1.starts_with(r#"{"body":"x""#));
    }
}
