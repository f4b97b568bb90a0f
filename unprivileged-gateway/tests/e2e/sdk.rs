//! OpenTelemetry's own SDKs as senders: nothing of ours on the sending side, values compared at the backends.

use crate::shared;
use e2e::gateway::Setup;
use e2e::load::sink;
use e2e::{skip, tool, wait_for};
use loadgen::sink::Sink;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const RECORDS: usize = 70;
/// interface.md, "Labels and names": resource attributes that become stream labels.
const LABELS: [(&str, &str); 2] = [("service.name", "service_name"), ("service.namespace", "service_namespace")];

struct Scene {
    setup: Setup,
    sink: Sink,
    _gateway: e2e::gateway::Gateway,
}

async fn scene() -> Scene {
    let sink = sink().await;
    let setup = Setup::default().loki("logs", sink.loki, "").otlp(
        "tempo",
        sink.otlp_grpc,
        "protocol: grpc, signals: [ traces ], compression: gzip",
    );
    let gateway = setup.start();
    Scene { setup, sink, _gateway: gateway }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_is_delivered_value_by_value() {
    let _stage = shared().await;
    for protocol in ["grpc", "http"] {
        let scene = scene().await;
        let endpoint = match protocol {
            "grpc" => scene.setup.grpc.to_string(),
            _ => format!("http://{}", scene.setup.otlp_http),
        };
        match tokio::task::block_in_place(|| tool::python(protocol, &endpoint, RECORDS)) {
            Ok(sent) => compare(&sent, &scene.sink),
            Err(why) => return skip("the_python_sdk_is_delivered_value_by_value", &why),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_sdk_is_delivered_value_by_value() {
    let _stage = shared().await;
    for form in ["json", "proto"] {
        let scene = scene().await;
        let endpoint = format!("http://{}", scene.setup.otlp_http);
        match tokio::task::block_in_place(|| tool::javascript(form, &endpoint, RECORDS)) {
            Ok(sent) => compare(&sent, &scene.sink),
            Err(why) => return skip("the_javascript_sdk_is_delivered_value_by_value", &why),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn compare(sent: &Value, sink: &Sink) {
    let (logs, spans) = (list(&sent["logs"]), list(&sent["spans"]));
    assert_eq!((logs.len(), spans.len()), (RECORDS, 2 * RECORDS));
    let records = |door: &str| sink.report(false).doors.get(door).map_or(0, |d| d.records);
    wait_for("all lines and spans at the backends", Duration::from_secs(20), || {
        (records("loki") >= RECORDS as u64 && records("otlp/grpc") >= 2 * RECORDS as u64).then_some(())
    });
    let kept = sink.recent();
    let lines: Vec<&Value> = kept.iter().filter(|r| r["lane"] == "loki").collect();
    assert_eq!(lines.len(), RECORDS, "each line once");
    for log in logs {
        compare_log(log, &sent["resource"], &lines);
    }
    let received = spans_of(&kept);
    assert_eq!(received.len(), 2 * RECORDS, "each span once");
    for span in spans {
        let found = received.get(text(&span["span_id"])).unwrap_or_else(|| panic!("span {span} did not arrive"));
        compare_span(span, found, &sent["resource"]);
    }
}

/// A body's string form: strings as they are, anything else as JSON or as its digits.
fn same_line(body: &Value, line: &str) -> bool {
    match body {
        Value::String(s) => s == line,
        other => serde_json::from_str::<Value>(line).is_ok_and(|l| &l == other),
    }
}

fn compare_log(log: &Value, resource: &Value, lines: &[&Value]) {
    let metadata = |line: &Value| -> BTreeMap<String, String> {
        let pairs = list(&line["metadata"]).iter();
        pairs.map(|p| (text(&p[0]).to_owned(), text(&p[1]).to_owned())).collect()
    };
    let number = log["attributes"]["number"].to_string();
    let line = lines.iter().find(|l| metadata(l).get("number") == Some(&number));
    let line = line.unwrap_or_else(|| panic!("no line for {log}"));
    assert!(same_line(&log["body"], text(&line["line"])), "sent {}, arrived {}", log["body"], line["line"]);
    assert_eq!(line["ts_ns"], log["ts_ns"]);
    let metadata = metadata(line);
    let is = |name: &str| metadata.get(name).map(String::as_str);
    assert_eq!(is("http_route"), Some(text(&log["attributes"]["http.route"])), "{metadata:?}");
    assert_eq!(is("flag"), Some(log["attributes"]["flag"].to_string().as_str()), "{metadata:?}");
    assert_eq!((is("trace_id"), is("span_id")), (Some(text(&log["trace_id"])), Some(text(&log["span_id"]))));
    assert_eq!(is("deployment_environment"), Some(text(&resource["deployment.environment"])), "{metadata:?}");
    let level = match log["severity_number"].as_u64().unwrap_or(0) {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        _ => "fatal",
    };
    assert_eq!(is("detected_level"), Some(level), "{metadata:?}");
    for (attribute, label) in LABELS {
        let wanted = format!("{label}=\"{}\"", text(&resource[attribute]));
        assert!(text(&line["labels"]).contains(&wanted), "{wanted} in {}", line["labels"]);
    }
}

/// Spans by id, each with the resource it came under.
fn spans_of(kept: &[Value]) -> BTreeMap<String, (Value, Value)> {
    let requests =
        kept.iter().filter(|r| r["lane"] == "otlp_traces").flat_map(|r| list(&r["request"]["resourceSpans"]));
    let mut spans = BTreeMap::new();
    for resource in requests {
        for span in list(&resource["scopeSpans"]).iter().flat_map(|s| list(&s["spans"])) {
            let twice = spans.insert(text(&span["spanId"]).to_owned(), (span.clone(), resource["resource"].clone()));
            assert!(twice.is_none(), "span {} came twice", span["spanId"]);
        }
    }
    spans
}

/// OTLP's key-value list as plain JSON.
fn plain(attributes: &Value) -> BTreeMap<String, Value> {
    list(attributes).iter().map(|kv| (text(&kv["key"]).to_owned(), plain_value(&kv["value"]))).collect()
}

fn plain_value(any: &Value) -> Value {
    let Some((kind, value)) = any.as_object().and_then(|o| o.iter().next()) else { return Value::Null };
    match kind.as_str() {
        // 64-bit integers are strings in OTLP's JSON.
        "intValue" => text(value).parse::<i64>().map_or(value.clone(), Value::from),
        "arrayValue" => list(&value["values"]).iter().map(plain_value).collect(),
        _ => value.clone(),
    }
}

fn compare_span(sent: &Value, (span, resource): &(Value, Value), sent_resource: &Value) {
    for (ours, theirs) in [("trace_id", "traceId"), ("parent_id", "parentSpanId"), ("name", "name")] {
        assert_eq!(text(&sent[ours]), text(&span[theirs]), "{ours} of {span:#}");
    }
    assert_eq!(sent["kind"], span["kind"], "{span:#}");
    assert_eq!(sent["status"].as_u64().unwrap_or(0), span["status"]["code"].as_u64().unwrap_or(0), "{span:#}");
    let attributes = plain(&span["attributes"]);
    for (name, value) in sent["attributes"].as_object().into_iter().flatten() {
        // 0.0 and 1.0 may come back as whole numbers of another JSON kind.
        let same =
            attributes.get(name).is_some_and(|v| v == value || v.as_f64().is_some() && v.as_f64() == value.as_f64());
        assert!(same, "{name}: sent {value}, arrived {:?}", attributes.get(name));
    }
    let events: Vec<&str> = list(&span["events"]).iter().map(|e| text(&e["name"])).collect();
    assert_eq!(list(&sent["events"]).iter().map(text).collect::<Vec<_>>(), events);
    let resource = plain(&resource["attributes"]);
    for (name, value) in sent_resource.as_object().into_iter().flatten() {
        assert_eq!(resource.get(name), Some(value), "resource attributes go out as received");
    }
}
