//! What a record costs on its way from OTLP bytes to a Loki push, beside a twin that decodes, owns and encodes.
//!
//!     cargo run --release -p model --example transcode_bench [ROUNDS]
//!
//! Payload of the performance notes (section 3): 1,000 records, 4 resources, bodies of 95 bytes, two attributes. The lanes
//! take turns in every round; each prints its best and its median round. CPU time is not read: on a busy machine look at the
//! ratio, which is taken round by round, and at the best.

#[path = "../tests/common/push.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod push;

use model::envelope::Sidecar;
use model::loki::{Encoder, Options};
use model::otlp::{Request, check};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

const RECORDS: usize = 1_000;
const RESOURCES: usize = 4;
/// Requests a round; a push is made of all of them, as the gateway would.
const REQUESTS: usize = 8;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(41);
    let payload = payload();
    let mut encoder = Encoder::new(Options::default());
    let sidecar = Sidecar::default();
    let mut bodies = [0; 2];
    let lanes: [(&str, &mut dyn FnMut() -> usize); 3] = [
        ("check (structural walk at the door)", &mut || {
            for _ in 0..REQUESTS {
                black_box(check(Request::Logs, black_box(&payload)).expect("legal"));
            }
            0
        }),
        ("walk (bytes to push, snappy included)", &mut || {
            for seq in 0..REQUESTS {
                black_box(encoder.add(seq as u64, &sidecar, black_box(&payload)));
            }
            let pushes = encoder.finish(1, &|_| true);
            pushes.iter().map(|p| p.raw_bytes).sum()
        }),
        ("twin (decode, own, encode, snappy)", &mut || conventional(black_box(&payload))),
    ];
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut run: Vec<_> = lanes.into_iter().collect();
    for round in 0..rounds + 2 {
        for (lane, (_, work)) in run.iter_mut().enumerate() {
            let start = Instant::now();
            let bytes = black_box(work());
            let ns = start.elapsed().as_nanos() as f64 / (RECORDS * REQUESTS) as f64;
            if lane > 0 {
                bodies[lane - 1] = bytes;
            }
            if round >= 2 {
                times[lane].push(ns);
            }
        }
    }
    let mut ratios: Vec<f64> = times[2].iter().zip(&times[1]).map(|(twin, walk)| twin / walk).collect();
    println!("{} bytes an OTLP record, {rounds} rounds of {REQUESTS} x {RECORDS} records", payload.len() / RECORDS);
    for ((name, _), times) in run.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{name:40} best {:7.1} ns, median {:7.1} ns a record", times[0], times[times.len() / 2]);
    }
    ratios.sort_by(f64::total_cmp);
    println!("twin / walk: median {:.1}", ratios[ratios.len() / 2]);
    let per_line = |bytes: usize| bytes / (RECORDS * REQUESTS);
    println!("bytes a line before compression: walk {}, twin {}", per_line(bodies[0]), per_line(bodies[1]));
}

fn payload() -> Vec<u8> {
    let string = |s: &str| Some(AnyValue { value: Some(V::StringValue(s.into())) });
    let kv = |k: &str, v: &str| KeyValue { key: k.into(), value: string(v), ..Default::default() };
    let words = ["request", "served", "from", "cache", "in", "milliseconds", "user", "checkout", "retry", "upstream"];
    let record = |i: usize| {
        let mut body = format!("{i:08} ");
        for n in 0.. {
            body.push_str(words[(i * 7 + n * 3 + i * n) % words.len()]);
            body.push(' ');
            if body.len() >= 95 {
                break;
            }
        }
        body.truncate(95);
        LogRecord {
            time_unix_nano: 1_760_000_000_000_000_000 + i as u64 * 1_001,
            observed_time_unix_nano: 1_760_000_000_000_000_500 + i as u64 * 1_001,
            severity_number: 9,
            severity_text: "INFO".into(),
            body: string(&body),
            attributes: vec![kv("http.method", "GET"), kv("http.route", "/cart")],
            ..Default::default()
        }
    };
    let resource = |r: usize| Resource {
        attributes: vec![
            kv("service.name", &format!("service-{r}")),
            kv("service.namespace", "shop"),
            kv("k8s.pod.name", &format!("service-{r}-5d9c7b-{r}x")),
            kv("host.name", "node-1"),
        ],
        ..Default::default()
    };
    let scope = InstrumentationScope { name: "app.logger".into(), ..Default::default() };
    let group = |r: usize| ResourceLogs {
        resource: Some(resource(r)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope.clone()),
            log_records: (0..RECORDS / RESOURCES).map(|i| record(i * RESOURCES + r)).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportLogsServiceRequest { resource_logs: (0..RESOURCES).map(group).collect() }.encode_to_vec()
}

/// The best conventional shape: owned structs, labels once per resource, strings moved where possible.
fn conventional(payload: &[u8]) -> usize {
    let mut streams: HashMap<String, Vec<push::Entry>> = HashMap::new();
    for _ in 0..REQUESTS {
        for group in ExportLogsServiceRequest::decode(payload).expect("legal").resource_logs {
            let attributes = group.resource.map(|r| r.attributes).unwrap_or_default();
            let mut labels = vec![("exporter".to_owned(), "OTLP".to_owned())];
            let mut shared = Vec::new();
            for kv in attributes {
                let value = text(kv.value);
                match kv.key.as_str() {
                    "service.name" => labels.push(("service_name".into(), value)),
                    "service.namespace" => labels.push(("service_namespace".into(), value)),
                    "k8s.pod.name" => labels.push(("pod".into(), value)),
                    _ => shared.push(push::Pair { name: clean(&kv.key), value }),
                }
            }
            labels.sort();
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            let entries = streams.entry(format!("{{{}}}", labels.join(", "))).or_default();
            for scope_logs in group.scope_logs {
                let name = scope_logs.scope.map(|s| s.name).unwrap_or_default();
                for record in scope_logs.log_records {
                    let mut metadata: Vec<push::Pair> = record
                        .attributes
                        .into_iter()
                        .map(|kv| push::Pair { name: clean(&kv.key), value: text(kv.value) })
                        .collect();
                    metadata.extend(shared.iter().cloned());
                    metadata.push(push::Pair { name: "scope_name".into(), value: name.clone() });
                    metadata
                        .push(push::Pair { name: "detected_level".into(), value: record.severity_text.to_lowercase() });
                    let t = record.time_unix_nano;
                    let timestamp =
                        push::Timestamp { seconds: (t / 1_000_000_000) as i64, nanos: (t % 1_000_000_000) as i32 };
                    entries.push(push::Entry { timestamp: Some(timestamp), line: text(record.body), metadata });
                }
            }
        }
    }
    let streams = streams.into_iter().map(|(labels, entries)| push::Stream { labels, entries }).collect();
    let raw = push::PushRequest { streams }.encode_to_vec();
    black_box(snap::raw::Encoder::new().compress_vec(&raw).expect("small enough"));
    raw.len()
}

fn text(any: Option<AnyValue>) -> String {
    match any.and_then(|a| a.value) {
        Some(V::StringValue(s)) => s,
        other => format!("{other:?}"),
    }
}

fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
