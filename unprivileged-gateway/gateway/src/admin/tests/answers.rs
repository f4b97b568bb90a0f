//! What is answered: status, metrics, health, page, errors, queries.

use super::*;
use crate::telemetry::Format;
use model::envelope::Sidecar;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;

pub(super) fn request(severities: &[i32]) -> Vec<u8> {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
    let body = |i: usize| Some(AnyValue { value: Some(Value::StringValue(format!("line {i}"))) });
    let records = severities.iter().enumerate();
    let log_records = records
        .map(|(i, severity)| LogRecord { severity_number: *severity, body: body(i), ..LogRecord::default() })
        .collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
        .encode_to_vec()
}

pub(super) fn sidecar() -> Sidecar {
    Sidecar { received_at: unix_ms() * 1_000_000, ..Sidecar::default() }
}

/// Value of the one series that starts with `series`.
fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn status_and_metrics_show_the_same_numbers_and_the_ledger_adds_up() {
    let office = office().await;
    let status = office.get("/api/v1/status").await.json();
    let metrics = office.ask("GET /metrics", &[]).await.text();
    let destination = &status["destinations"][0];
    let at = |key: &str| destination.pointer(key).unwrap().as_u64().unwrap() as f64;
    let of = |name: &str| metric(&metrics, &format!("{name}{{signal=\"logs\",destination=\"loki/logs\""));
    let pairs = [
        ("/accepted", "bulkhead_destination_accepted_records_total"),
        ("/sent", "bulkhead_sent_records_total"),
        ("/waiting/records", "bulkhead_waiting_records"),
        ("/waiting/bytes", "bulkhead_waiting_bytes"),
        ("/quarantined", "bulkhead_quarantined_records_total"),
        ("/damaged", "bulkhead_destination_damaged_records_total"),
        ("/retries", "bulkhead_retries_total"),
    ];
    for (key, name) in pairs {
        assert_eq!(at(key), of(name), "{key}");
    }
    let sum = ["/sent", "/waiting/records", "/quarantined", "/dropped", "/damaged"].map(at).iter().sum::<f64>();
    assert_eq!(at("/accepted"), sum);
    let logs = &status["signals"]["logs"];
    assert_eq!(
        logs["accepted"].as_f64().unwrap(),
        metric(&metrics, "bulkhead_accepted_records_total{signal=\"logs\",source=\"otlp/grpc\"}")
    );
    let refused = "bulkhead_refused_records_total{signal=\"logs\",source=\"otlp/http\",reason=\"full\"}";
    assert_eq!(logs["refused"]["full"].as_f64().unwrap(), metric(&metrics, refused));
    assert_eq!(logs["bytes"].as_f64().unwrap(), metric(&metrics, "bulkhead_wal_bytes{signal=\"logs\"}"));
    assert_eq!(status["signals"]["traces"], serde_json::json!({ "served": false }));
    assert_eq!(status["storage"]["commit"]["p99_ms"], serde_json::Value::Null);
}

#[tokio::test]
async fn metrics_come_as_asked() {
    let office = office().await;
    let classic = office.ask("GET /metrics", &[]).await;
    assert_eq!(classic.header("content-type"), Some(Format::Classic.content_type()));
    let open = office.ask("GET /metrics", &["Accept: application/openmetrics-text;version=1.0.0"]).await;
    assert_eq!(open.header("content-type"), Some(Format::OpenMetrics.content_type()));
    assert!(open.text().ends_with("# EOF\n"));
    let accept = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let protobuf = office.ask("GET /metrics", &[accept]).await;
    assert_eq!(protobuf.header("content-type"), Some(Format::Protobuf.content_type()));
    let zipped = office.ask("GET /metrics", &["Accept-Encoding: deflate, gzip;q=1.0"]).await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(zipped.body.as_slice()), &mut text).unwrap();
    assert_eq!(metric(&text, "bulkhead_sent_records_total"), 7.0);
    assert_eq!(office.ask("GET /metrics", &["Accept-Encoding: gzip;q=0"]).await.header("content-encoding"), None);
}

#[tokio::test]
async fn ready_and_healthy_say_why_not() {
    let office = office().await;
    let ask = async |path: &str| {
        let reply = office.ask(&format!("GET {path}"), &[]).await;
        (reply.status, reply.text())
    };
    assert_eq!(ask("/-/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(ask("/-/live").await.0, 200);
    office.played.why.lock().unwrap().push("draining".to_owned());
    assert_eq!(ask("/-/ready").await, (503, "not ready: draining\n".to_owned()));
    *office.played.closed.lock().unwrap() = Some("the disk failed twice".to_owned());
    let (status, text) = ask("/-/healthy").await;
    assert_eq!((status, text.as_str()), (500, "unhealthy: log logs (the disk failed twice)\n"));
    assert_eq!(ask("/-/live").await.0, 200, "a closed log is no reason to be killed");
}

#[tokio::test]
async fn every_answer_carries_the_policy_and_no_page_is_cached_by_others() {
    let office = office().await;
    for path in ["/", "/api/v1/status", "/metrics", "/nothing", "/api/nothing"] {
        let reply = office.get(path).await;
        assert_eq!(reply.header("content-security-policy"), Some(CSP), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(reply.header("cache-control").is_some(), "{path}");
    }
    assert!(!CSP.contains("unsafe") && !CSP.contains("http") && !CSP.contains('*'));
}

#[tokio::test]
async fn the_page_names_only_files_that_are_here_and_hashed_ones_are_kept() {
    let office = office().await;
    let index = office.get("/").await;
    assert_eq!((index.status, index.header("cache-control")), (200, Some("no-cache")));
    assert!(index.header("etag").is_some());
    let html = index.text();
    let names: Vec<&str> = html.split('"').filter(|part| part.starts_with("assets/")).collect();
    for name in &names {
        let reply = office.get(&format!("/{name}")).await;
        assert_eq!(
            (reply.status, reply.header("cache-control")),
            (200, Some("private, max-age=31536000, immutable")),
            "{name}"
        );
        let etag = format!("If-None-Match: {}", reply.header("etag").unwrap());
        let again = office.ask(&format!("GET /{name}"), &[&etag, &format!("Authorization: Bearer {TOKEN}")]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
    }
    assert_eq!(office.get("/assets/../../Cargo.toml").await.status, 404);
}

#[tokio::test]
async fn errors_of_the_api_are_json_and_methods_are_told_apart() {
    let office = office().await;
    let key = format!("Authorization: Bearer {TOKEN}");
    for path in
        ["/api", "/api/", "/api/v1", "/api/v1/nothing", "/api/v2/status", "/api/v1/wal", "/api/v1/wal/quarantine/x"]
    {
        let reply = office.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()["error"].is_string(), "{path}");
    }
    let reply = office.ask("DELETE /api/v1/status", &[&key]).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET,HEAD")));
    assert!(reply.json()["error"].is_string());
    assert_eq!(office.ask("GET /api/v1/wal/verify", &[&key]).await.status, 405);
    assert_eq!(office.ask("POST /-/ready", &["Content-Length: 0"]).await.status, 405);
    assert_eq!(office.ask("POST /", &[&key, "Content-Length: 0"]).await.status, 405);
    for path in ["/", "/metrics", "/api/v1/status", "/-/live"] {
        let reply = office.ask(&format!("HEAD {path}"), &[&key]).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test]
async fn logs_and_traces_are_searched_over_http() {
    let office = office().await;
    let empty = office.get("/api/v1/logs").await.json();
    assert_eq!((empty["total"].as_u64(), empty["lines"].as_array().map(Vec::len)), (Some(0), Some(0)));
    office.view.logs(1, &sidecar(), &request(&[9, 17, 13])).unwrap();
    let answer = office.get("/api/v1/logs?level=error,warn&q=LINE&limit=1").await.json();
    assert_eq!((answer["matched"].as_u64(), answer["lines"][0]["line"].as_str()), (Some(2), Some("line 2")));
    let before = answer["lines"][0]["id"].as_str().unwrap();
    let older = office.get(&format!("/api/v1/logs?level=error,warn&before={before}")).await.json();
    assert_eq!(older["lines"][0]["line"], "line 1");
    assert_eq!(office.get("/api/v1/logs?label.exporter=OTLP").await.json()["matched"], 3);
    for bad in [
        "logs?before=x",
        "logs?limit=-1",
        "logs?from_ms=now",
        "traces?sort=x",
        "traces?status=ok",
        "history?window_s=x",
    ] {
        let reply = office.get(&format!("/api/v1/{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.json()["error"].is_string());
    }
    assert_eq!(office.get("/api/v1/traces").await.json()["total"], 0);
    assert_eq!(office.get(&format!("/api/v1/traces/{}", "0a".repeat(16))).await.status, 404);
}

#[tokio::test]
async fn no_query_string_panics_or_hangs() {
    let office = office().await;
    office.view.logs(1, &sidecar(), &request(&[9, 17])).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let words =
        ["q", "level", "limit", "from_ms", "to_ms", "before", "label.x", "trace_id", "min_ms", "sort", "window_s"];
    let bits = [
        "=",
        "&",
        "%",
        "%ff",
        "%00",
        "18446744073709551615",
        "-1",
        "1e999",
        "NaN",
        "%E2%82%AC",
        "abc",
        ",",
        "+",
        "inf",
    ];
    for path in ["logs", "traces", "history", "traces/x", "wal/quarantine"] {
        for _ in 0..60 {
            let query: String = (0..random.usize(..8))
                .map(|_| {
                    format!("{}={}{}", words[random.usize(..11)], bits[random.usize(..14)], bits[random.usize(..14)])
                })
                .collect::<Vec<_>>()
                .join("&");
            let reply = office.get(&format!("/api/v1/{path}?{query}")).await;
            assert!(matches!(reply.status, 200 | 400 | 404), "{path}?{query}: {}", reply.text());
        }
    }
}

/// Holds one quarantined record; counts what it was asked to forget.
struct OneDesk(Mutex<Vec<String>>);

impl WalDesk for OneDesk {
    fn stats(&self) -> Result<serde_json::Value, ApiError> {
        Ok(serde_json::json!({ "logs": {} }))
    }
    fn quarantine(&self, limit: usize, before: Option<u64>) -> Result<serde_json::Value, ApiError> {
        Ok(serde_json::json!({ "limit": limit, "before": before }))
    }
    fn quarantined(&self, id: u64) -> Result<serde_json::Value, ApiError> {
        if id == 7 { Ok(serde_json::json!({ "id": 7 })) } else { Err(ApiError::missing("no such record")) }
    }
    fn forget(&self, kind: &str, name: &str) -> Result<serde_json::Value, ApiError> {
        self.0.lock().unwrap().push(format!("{kind}/{name}"));
        Ok(serde_json::json!({ "records": 3 }))
    }
    fn verify(&self) -> Result<serde_json::Value, ApiError> {
        panic!("a bug in the desk")
    }
}

#[tokio::test]
async fn the_desk_is_asked_and_its_bugs_end_one_answer_only() {
    let desk = Arc::new(OneDesk(Mutex::default()));
    let office = office_with(Http::default(), desk.clone()).await;
    assert_eq!(office.get("/api/v1/wal/stats").await.status, 200);
    let page = office.get("/api/v1/wal/quarantine?limit=9999999&before=12").await.json();
    assert_eq!((page["limit"].as_u64(), page["before"].as_u64()), (Some(1000), Some(12)));
    assert_eq!(office.get("/api/v1/wal/quarantine/7").await.json()["id"], 7);
    assert_eq!(office.get("/api/v1/wal/quarantine/8").await.status, 404);
    let key = format!("Authorization: Bearer {TOKEN}");
    let post = async |path: &str| office.ask(&format!("POST /api/v1/wal/{path}"), &[&key, "Content-Length: 0"]).await;
    assert_eq!(post("forget/loki/old%20logs").await.json()["records"], 3);
    assert_eq!(*desk.0.lock().unwrap(), ["loki/old logs"]);
    let reply = post("verify").await;
    assert_eq!(reply.status, 500);
    assert!(reply.json()["error"].is_string());
    assert_eq!(office.ask("GET /-/live", &[]).await.status, 200);
}

#[tokio::test]
async fn the_configuration_is_shown() {
    assert_eq!(office().await.get("/api/v1/config").await.json()["yaml"], "node: {}\n");
}

#[tokio::test]
async fn series_and_their_points_come_in_the_shape_the_page_expects() {
    let office = office().await;
    let now = unix_ms() as i64;
    for (seq, (at_ms, value)) in [(now - 2000, 10.0), (now - 1000, 14.0), (now, 3.0)].into_iter().enumerate() {
        let mut writer = model::series::Writer::new(&[("job", "host"), ("instance", "n1")]);
        writer.family("node_cpu_seconds_total", model::series::Type::Counter, "Seconds the CPUs spent.");
        writer.sample("node_cpu_seconds_total", &[("cpu", "0")], value, at_ms);
        office.view.series(seq as u64 + 1, &sidecar(), &writer.finish()).unwrap();
    }
    let names = office.get("/api/v1/series?q=cpu&limit=10").await.json();
    assert!(names["covers"]["to_ms"].as_u64() > Some(0) && names["covers"]["evicted"] == 0);
    let row = serde_json::json!({
        "name": "node_cpu_seconds_total", "type": "counter", "help": "Seconds the CPUs spent.", "series": 1,
        "labels": { "cpu": ["0"], "instance": ["n1"], "job": ["host"] },
    });
    assert_eq!((names["total"].as_u64(), &names["names"]), (Some(1), &serde_json::json!([row])));
    let query = "query=node_cpu_seconds_total%7Bcpu%3D~%220%7C1%22%7D";
    let points = office.get(&format!("/api/v1/query_range?{query}&max_points=300")).await.json();
    let labels = serde_json::json!({ "cpu": "0", "instance": "n1", "job": "host" });
    let expected = [[now - 2000, 10], [now - 1000, 14], [now, 3]].map(|[at, value]| (at, value as f64));
    assert_eq!(points["series"], serde_json::json!([{ "labels": labels, "points": expected }]));
    let head = ["name", "type", "rate", "step_ms", "cut"].map(|key| points[key].to_string()).join(" ");
    assert_eq!(head, "\"node_cpu_seconds_total\" \"counter\" false 1000 0");
    let rates = office.get(&format!("/api/v1/query_range?{query}&rate=1&from_ms={}", now - 1500)).await.json();
    assert_eq!(rates["series"][0]["points"], serde_json::json!([[now - 1000, 4.0], [now, 3.0]]));
    for bad in ["query=", "query=rate(x[5m])", "query=x&rate=yes", "query=x%7Ba%3D~%22(%22%7D", "query=x&from_ms=y"] {
        let refused = office.get(&format!("/api/v1/query_range?{bad}")).await;
        assert_eq!(refused.status, 400, "{bad}: {}", refused.text());
    }
    assert_eq!(office.ask("GET /api/v1/series", &[]).await.status, 401);
}
