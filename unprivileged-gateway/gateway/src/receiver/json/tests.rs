//! The interpreter against the published descriptors, against another decoder, and against nonsense.

use super::schema::{ALL, Message as Table, Presence, Type};
use super::*;
use crate::receiver::tests::{logs, traces};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};
use prost::Message as _;
use std::collections::BTreeMap;

const MAX: usize = 16 << 20;

/// Just enough of `google/protobuf/descriptor.proto` to compare the tables with it.
mod descriptor {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Set {
        #[prost(message, repeated, tag = "1")]
        pub(super) file: Vec<File>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct File {
        #[prost(message, repeated, tag = "4")]
        pub(super) messages: Vec<Type>,
        #[prost(message, repeated, tag = "5")]
        pub(super) enums: Vec<Enum>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Type {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) fields: Vec<Field>,
        #[prost(message, repeated, tag = "3")]
        pub(super) messages: Vec<Type>,
        #[prost(message, repeated, tag = "4")]
        pub(super) enums: Vec<Enum>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Field {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(int32, tag = "3")]
        pub(super) number: i32,
        #[prost(int32, tag = "4")]
        pub(super) label: i32,
        #[prost(int32, tag = "5")]
        pub(super) kind: i32,
        #[prost(string, tag = "6")]
        pub(super) type_name: String,
        #[prost(int32, optional, tag = "9")]
        pub(super) oneof: Option<i32>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Enum {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) values: Vec<Member>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Member {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(int32, tag = "2")]
        pub(super) number: i32,
    }
}

/// `type` of `FieldDescriptorProto`.
fn number_of(kind: Type) -> i32 {
    match kind {
        Type::Double => 1,
        Type::Int64 => 3,
        Type::Uint64 => 4,
        Type::Int32 => 5,
        Type::Fixed64 => 6,
        Type::Fixed32 => 7,
        Type::Bool => 8,
        Type::Text => 9,
        Type::Message(_) => 11,
        Type::Base64 | Type::Id(_) => 12,
        Type::Uint32 => 13,
        Type::Enum(_) => 14,
        Type::Sfixed64 => 16,
        Type::Sint32 => 17,
    }
}

fn flat(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// Messages by flattened name, and the names of each enum's values.
type Published = (BTreeMap<String, Vec<descriptor::Type>>, BTreeMap<String, Vec<String>>);

fn published() -> Published {
    let set = descriptor::Set::decode(opentelemetry_proto::DESCRIPTORS).unwrap();
    let (mut messages, mut enums) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
    let mut waiting: Vec<_> = set.file.iter().flat_map(|file| file.messages.clone()).collect();
    let mut add = |one: &descriptor::Enum| {
        assert!(
            one.values.iter().enumerate().all(|(n, value)| value.number == n as i32) || one.name.ends_with("Flags")
        );
        enums.insert(one.name.clone(), one.values.iter().map(|value| value.name.clone()).collect());
    };
    set.file.iter().flat_map(|file| &file.enums).for_each(&mut add);
    while let Some(message) = waiting.pop() {
        message.enums.iter().for_each(&mut add);
        waiting.extend(message.messages.clone());
        messages.entry(flat(&message.name)).or_default().push(message);
    }
    (messages, enums)
}

fn agrees(table: &Table, with: &descriptor::Type, enums: &BTreeMap<String, Vec<String>>) -> bool {
    table.fields.len() == with.fields.len()
        && with.fields.iter().all(|field| {
            table.fields.iter().any(|ours| {
                let presence = match (field.label, field.oneof) {
                    (3, _) => Presence::Repeated,
                    (_, Some(_)) => Presence::Explicit,
                    _ => Presence::Plain,
                };
                let last = field.type_name.rsplit('.').next().unwrap_or_default();
                let inner = match ours.kind {
                    Type::Message(inner) => flat(inner.name) == flat(last),
                    Type::Enum(names) => enums.get(last).is_some_and(|theirs| theirs == names),
                    _ => true,
                };
                names(ours, &field.name)
                    && ours.number as i32 == field.number
                    && number_of(ours.kind) == field.kind
                    && ours.presence == presence
                    && inner
            })
        })
}

#[test]
fn the_tables_are_the_published_ones() {
    let (messages, enums) = published();
    for table in ALL {
        let candidates = messages.get(&flat(table.name));
        let found = candidates.is_some_and(|list| list.iter().any(|message| agrees(table, message, &enums)));
        assert!(found, "{} differs from what is published: {candidates:?}", table.name);
    }
}

fn logs_of(json: &str) -> Result<ExportLogsServiceRequest, Fault> {
    let bytes = to_protobuf(Signal::Logs, json.as_bytes(), MAX)?;
    Ok(ExportLogsServiceRequest::decode(&bytes[..]).unwrap())
}

fn record(json: &str) -> Result<opentelemetry_proto::tonic::logs::v1::LogRecord, Fault> {
    let logs = logs_of(&format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{json}]}}]}}]}}"#))?;
    Ok(logs.resource_logs[0].scope_logs[0].log_records[0].clone())
}

fn metrics_of(metric: &str) -> Result<ExportMetricsServiceRequest, Fault> {
    let json = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#);
    let bytes = to_protobuf(Signal::Metrics, json.as_bytes(), MAX)?;
    Ok(ExportMetricsServiceRequest::decode(&bytes[..]).unwrap())
}

#[test]
fn another_decoders_json_means_the_same_here() {
    for size in [0, 1, 100, 200, 20_000] {
        let request = logs(3, size);
        assert_eq!(logs_of(&serde_json::to_string(&request).unwrap()).unwrap(), request);
    }
    let request = traces(5);
    let bytes = to_protobuf(Signal::Traces, &serde_json::to_vec(&request).unwrap(), MAX).unwrap();
    assert_eq!(ExportTraceServiceRequest::decode(&bytes[..]).unwrap(), request);
    assert_eq!(bytes.len(), request.encoded_len(), "lengths are written in their shortest form");
}

#[test]
fn what_other_decoders_lose_is_kept() {
    let gauge = metrics_of(r#"{"name":"g","gauge":{"dataPoints":[{"asDouble":"NaN"},{"asInt":"0"}]}}"#).unwrap();
    let Some(Data::Gauge(gauge)) = &gauge.resource_metrics[0].scope_metrics[0].metrics[0].data else { panic!("gauge") };
    assert!(matches!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(v)) if v.is_nan()));
    assert_eq!(gauge.data_points[1].value, Some(number_data_point::Value::AsInt(0)));
    let sum = r#"{"sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true,"dataPoints":[{}]}}"#;
    let sum = metrics_of(sum).unwrap();
    let Some(Data::Sum(sum)) = &sum.resource_metrics[0].scope_metrics[0].metrics[0].data else { panic!("sum") };
    assert_eq!((sum.aggregation_temporality, sum.is_monotonic, sum.data_points.len()), (2, true, 1));
    let histogram = r#"{"histogram":{"dataPoints":[{"count":"6","sum":0,"bucketCounts":["1",0,5],"explicitBounds":[0,"Infinity"],"min":-1.5}]}}"#;
    let histogram = metrics_of(histogram).unwrap();
    let Some(Data::Histogram(h)) = &histogram.resource_metrics[0].scope_metrics[0].metrics[0].data else { panic!() };
    let point = &h.data_points[0];
    assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[1, 0, 5][..], &[0.0, f64::INFINITY][..]));
    assert_eq!((point.sum, point.min, point.max), (Some(0.0), Some(-1.5), None));
    let exponential =
        r#"{"exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-7,"bucketCounts":[300,0]}}]}}"#;
    let exponential = metrics_of(exponential).unwrap();
    let metric = &exponential.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::ExponentialHistogram(e)) = &metric.data else { panic!() };
    let positive = e.data_points[0].positive.as_ref().unwrap();
    assert_eq!((e.data_points[0].scale, positive.offset, &positive.bucket_counts[..]), (-3, -7, &[300, 0][..]));
}

#[test]
fn every_way_to_write_a_value_is_read() {
    let value = |json: &str| record(&format!(r#"{{"body":{json}}}"#)).unwrap().body.unwrap().value;
    assert_eq!(value(r#"{"intValue":"-5"}"#), Some(Value::IntValue(-5)));
    assert_eq!(value(r#"{"intValue":9223372036854775807}"#), Some(Value::IntValue(i64::MAX)));
    assert_eq!(value(r#"{"intValue":1e3}"#), Some(Value::IntValue(1000)));
    assert_eq!(value(r#"{"intValue":0}"#), Some(Value::IntValue(0)));
    assert_eq!(value(r#"{"doubleValue":"-Infinity"}"#), Some(Value::DoubleValue(f64::NEG_INFINITY)));
    assert_eq!(value(r#"{"double_value":3}"#), Some(Value::DoubleValue(3.0)));
    assert_eq!(value(r#"{"boolValue":false}"#), Some(Value::BoolValue(false)));
    assert_eq!(value(r#"{"stringValue":""}"#), Some(Value::StringValue(String::new())));
    assert_eq!(value(r#"{"stringValue":"\u00e9\ud83d\ude00\n"}"#), Some(Value::StringValue("é😀\n".into())));
    for text in ["+/8=", "-_8", "+/8"] {
        assert_eq!(value(&format!(r#"{{"bytesValue":"{text}"}}"#)), Some(Value::BytesValue(vec![0xfb, 0xff])));
    }
    assert!(
        matches!(value(r#"{"arrayValue":{"values":[{},{"intValue":1}]}}"#), Some(Value::ArrayValue(a)) if a.values.len() == 2)
    );
    assert_eq!(value("{}"), None);
    let record = record(
        r#"{"severityNumber":"SEVERITY_NUMBER_WARN","flags":1,"spanId":"","traceId":null,"unknown":{"a":[{"b":null}]},
            "attributes":[{"key":"k","value":null}],"time_unix_nano":7,"severityText":"W","eventName":"e"}"#,
    );
    let record = record.unwrap();
    assert_eq!((record.severity_number, record.flags, record.time_unix_nano), (13, 1, 7));
    assert_eq!((record.attributes[0].value.clone(), record.event_name.as_str()), (None, "e"));
}

#[test]
fn a_value_that_would_be_lost_is_refused() {
    for json in [
        r#"{"timeUnixNano":"soon"}"#,
        r#"{"timeUnixNano":-1}"#,
        r#"{"timeUnixNano":1.5}"#,
        r#"{"timeUnixNano":"18446744073709551616"}"#,
        r#"{"severityNumber":"LOUD"}"#,
        r#"{"severityNumber":2147483648}"#,
        r#"{"traceId":"abc"}"#,
        r#"{"traceId":"000102030405060708090a0b0c0d0e0g"}"#,
        r#"{"spanId":"000102030405060708"}"#,
        r#"{"body":"text"}"#,
        r#"{"body":{"boolValue":"true"}}"#,
        r#"{"body":{"bytesValue":"a"}}"#,
        r#"{"body":{"bytesValue":"a*bc"}}"#,
        r#"{"body":{"doubleValue":"nan"}}"#,
        r#"{"body":{"stringValue":5}}"#,
        r#"{"body":{"stringValue":"\ud800"}}"#,
        r#"{"attributes":{}}"#,
        r#"{"attributes":[null]}"#,
        r#"{"severityText":["a"]}"#,
        "3",
        "null",
    ] {
        assert!(matches!(record(json), Err(Fault::Malformed(_))), "{json}");
    }
}

#[test]
fn nesting_and_growth_are_bounded() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        record(&format!(r#"{{"body":{open}{close}}}"#))
    };
    assert!(nested(14).is_ok());
    assert!(matches!(nested(15), Err(Fault::Malformed(text)) if text.contains("nested deeper than 32")));
    assert!(matches!(nested(100_000), Err(Fault::Malformed(_))));
    let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let _ = record(&unknown); // either verdict is fine; the stack is not
    let zeros = format!(r#"{{"histogram":{{"dataPoints":[{{"bucketCounts":[{}]}}]}}}}"#, vec!["0"; 10_000].join(","));
    let grown = metrics_of(&zeros).unwrap().encoded_len() as u64;
    assert!(grown > zeros.len() as u64 * 3 && grown <= zeros.len() as u64 * GROWTH_MAX);
    let full = to_protobuf(
        Signal::Metrics,
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{zeros}]}}]}}]}}"#).as_bytes(),
        1000,
    );
    assert!(matches!(full, Err(Fault::TooLarge(_))));
}

/// Whatever is thrown at it, it answers; and what it takes is protobuf that another decoder reads.
#[test]
fn mutated_json_never_panics_and_never_makes_broken_protobuf() {
    let mut random = fastrand::Rng::with_seed(7);
    let whole = serde_json::to_vec(&logs(2, 10)).unwrap();
    let mut taken = 0;
    for _ in 0..4000 {
        let mut text = whole.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..text.len());
            match random.u8(..4) {
                0 => text[at] = random.u8(..),
                1 => text.truncate(at.max(1)),
                2 => drop(text.drain(at..(at + random.usize(1..9)).min(text.len()))),
                _ => text.insert(at, b"{}[]\",:0e-\\"[random.usize(..11)]),
            }
            if text.is_empty() {
                text.push(b'{');
            }
        }
        if let Ok(bytes) = to_protobuf(Signal::Logs, &text, MAX) {
            taken += 1;
            assert!(ExportLogsServiceRequest::decode(&bytes[..]).is_ok());
        }
    }
    assert!(taken > 100, "{taken}: the mutations were too coarse to mean anything");
}
