//! What the page shows beyond logs and traces of others: this host's numbers, the gateway's own, its own spans, metrics as OTLP.

use crate::shared;
use e2e::gateway::{Gateway, Setup};
use e2e::load::{Load, sink};
use e2e::{http, wait_for};
use loadgen::{Protocol, Signal};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn ask(setup: &Setup, path: &str) -> Value {
    let answer = http::get(setup.http, path).expect("the admin port answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// The times of the points of the first series of an answer.
fn times(answer: &Value) -> Vec<i64> {
    let points = answer["series"][0]["points"].as_array().cloned().unwrap_or_default();
    points.iter().filter_map(|point| point[0].as_i64()).collect()
}

/// Points of `up` of one job, once there are at least `n`.
fn ups(setup: &Setup, job: &str, n: usize) -> Vec<i64> {
    let path = format!("/api/v1/query_range?query=up%7Bjob=%22{job}%22%7D&max_points=2000");
    wait_for("points of `up`", PATIENCE, || Some(times(&ask(setup, &path))).filter(|times| times.len() >= n))
}

fn scraping() -> Setup {
    let extra = "scrape: { self: { interval: 1s }, host: { interval: 1s } }\nlocal_view: {}\n".to_owned();
    Setup { extra, ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_and_the_gateway_are_charted_and_a_kill_leaves_no_hole_behind_it() {
    let _stage = shared().await;
    let setup = scraping();
    let gateway = setup.start();
    let before = [ups(&setup, "host", 3), ups(&setup, "bulkhead", 3)];
    let names = ask(&setup, "/api/v1/series?limit=2000");
    let names: Vec<&str> = names["names"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    for name in ["node_load1", "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "bulkhead_wal_bytes"] {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    let rate = ask(&setup, "/api/v1/query_range?query=node_context_switches_total&rate=1");
    assert!(rate["series"][0]["points"][0][1].as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    assert_eq!(
        (rate["type"].as_str(), rate["series"][0]["labels"]["instance"].as_str()),
        (Some("counter"), Some("e2e"))
    );
    gateway.kill();
    let _gateway: Gateway = setup.start();
    for (job, before) in ["host", "bulkhead"].into_iter().zip(before) {
        let after = ups(&setup, job, before.len() + 1);
        assert!(before.iter().all(|at| after.contains(at)), "{job}: {before:?} is not within {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_records_way_from_the_disk_to_the_backend_is_a_trace_that_no_backend_gets() {
    let _stage = shared().await;
    let sink = sink().await;
    let setup = scraping().loki("logs", sink.loki, "").otlp("tempo", sink.otlp_grpc, "signals: [ traces ]");
    let gateway = setup.start();
    let logs = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(10).send().await;
    let traces = Load::new(&setup, Protocol::Grpc, Signal::Traces).records(10).send().await;
    logs.assert_complete_and_once(&sink);
    let sent = traces.assert_complete_and_once(&sink).acked;
    for push in ["push loki/logs", "push otlp/tempo"] {
        let spans = wait_for("a commit with its push", PATIENCE, || {
            let list = ask(&setup, "/api/v1/traces?service=bulkhead-gateway&q=commit&limit=1000");
            let rows = list["traces"].as_array()?.iter().filter(|row| row["spans"] == 2 || row["spans"] == 3);
            let mut details =
                rows.map(|row| ask(&setup, &format!("/api/v1/traces/{}", row["trace_id"].as_str().unwrap())));
            details.find_map(|detail| {
                let spans = detail["spans"].as_array()?.clone();
                spans.iter().any(|span| span["name"] == push).then_some(spans)
            })
        });
        let child = spans.iter().find(|span| span["name"] == push).unwrap();
        let parent = spans.iter().find(|span| span["span_id"] == child["parent_id"]).expect("its commit");
        let signal = if push.contains("loki") { "logs" } else { "traces" };
        assert_eq!(parent["name"], format!("commit {signal}"));
        assert!(child["start_ns"].as_str() >= parent["start_ns"].as_str(), "{spans:?}");
    }
    // The spans were shown for seconds by now; had they gone into the log, Tempo would have them too.
    let tempo = gateway.destination("otlp", "tempo");
    assert_eq!((tempo.accepted, tempo.dropped), (sent, 0), "{tempo:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_sent_as_otlp_are_charted_under_the_names_that_prometheus_gives_them() {
    let _stage = shared().await;
    let setup = Setup { extra: "local_view: {}\n".to_owned(), ..Setup::default() };
    let gateway = setup.start();
    let now_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for (second, value) in [(1, 10), (2, 16), (3, 4)] {
        let at = now_ns - (10 - second) * 1_000_000_000;
        let request = serde_json::json!({ "resourceMetrics": [{
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
            "scopeMetrics": [{ "metrics": [{
                "name": "http.requests", "unit": "{request}", "description": "Requests served.",
                "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [{
                    "timeUnixNano": at.to_string(), "asInt": value.to_string(),
                    "attributes": [{ "key": "http.method", "value": { "stringValue": "GET" } }],
                }] },
            }] }],
        }] });
        let headers = [("content-type", "application/json")];
        let answer = http::request(setup.otlp_http, "POST", "/v1/metrics", &headers, request.to_string().as_bytes());
        assert_eq!(answer.expect("the door answers").status, 200);
    }
    let path = "/api/v1/query_range?query=http_requests_total%7Bhttp_method=%22GET%22%7D&rate=1";
    let answer = wait_for("two rates", PATIENCE, || Some(ask(&setup, path)).filter(|answer| times(answer).len() == 2));
    assert_eq!(
        (answer["type"].as_str(), answer["series"][0]["labels"]["job"].as_str()),
        (Some("counter"), Some("shop"))
    );
    let rates: Vec<f64> =
        answer["series"][0]["points"].as_array().unwrap().iter().filter_map(|point| point[1].as_f64()).collect();
    // After the reset the count begins anew.
    assert_eq!(rates, [6.0, 4.0]);
    let view = gateway.destination("view", "local");
    assert!(view.adds_up() && view.sent == 3, "{view:?}");
}
