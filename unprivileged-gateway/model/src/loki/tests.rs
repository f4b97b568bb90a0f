use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

#[test]
fn a_request_becomes_a_push() {
    let any = |s: &str| Some(AnyValue { value: Some(V::StringValue(s.into())) });
    let kv = |k: &str, v: &str| KeyValue { key: k.into(), value: any(v), ..Default::default() };
    let record = LogRecord {
        time_unix_nano: 1_000_000_007,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: any("hello"),
        attributes: vec![kv("http.method", "GET")],
        ..Default::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![kv("service.name", "cart"), kv("host.name", "h")],
                ..Default::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope { name: "lib".into(), ..Default::default() }),
                log_records: vec![record],
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
    .encode_to_vec();
    let mut e = Encoder::new(Options::default());
    let added = e.add(1, &Sidecar::default(), &request);
    assert_eq!(added.entries, 1, "{added:?}");
    let pushes = e.finish(2, &|_| true);
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].streams, [r#"{exporter="OTLP", job="cart", service_name="cart"}"#]);
    let raw = snap::raw::Decoder::new().decompress_vec(&pushes[0].body).unwrap();
    println!("{}", String::from_utf8_lossy(&raw));
}
