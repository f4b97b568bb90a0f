//! `gateway demo`: a small shop that does not exist, speaking real OTLP over HTTP.
//!
//! Image: a shop window with three dolls. `frontend` calls `cart`, which calls `payment`; some payments are slow, a few fail, and each
//! call leaves spans and log lines that carry its trace id. Numbers come from a seeded generator, so two runs look alike.
//! It is an ordinary client: what it sends goes through the same door as everybody's.

use crate::config::ClientTls;
use crate::destination::http::builder;
use anyhow::{Context, bail};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode,
};
use prost::Message;
use std::time::Duration;

/// Calls that the shop has already served when the window opens, spread over the last two minutes.
const HISTORY: u64 = 60;
const HISTORY_SPAN_NS: u64 = 120_000_000_000;
/// A visitor comes this often.
const PACE: Duration = Duration::from_millis(500);

const SERVICES: [&str; 3] = ["frontend", "cart", "payment"];

/// Sends until Ctrl-C. Errors: the endpoint cannot be reached or refuses; the message names it.
pub async fn run(endpoint: &str) -> anyhow::Result<()> {
    let base = endpoint.trim_end_matches('/');
    if !base.starts_with("http://") && !base.starts_with("https://") {
        bail!("--endpoint {endpoint}: give the OTLP/HTTP address as a URL, like http://127.0.0.1:4318");
    }
    let client = builder(base, &ClientTls::default())?.timeout(Duration::from_secs(10)).build()?;
    let mut random = fastrand::Rng::with_seed(97);
    let now = crate::store::now_ns();
    let mut history = Shop::default();
    for i in 0..HISTORY {
        history.call(&mut random, now - HISTORY_SPAN_NS + i * (HISTORY_SPAN_NS / HISTORY));
    }
    history.send(&client, base).await?;
    println!("demo: {HISTORY} calls of the last two minutes sent to {base}; two more a second until Ctrl-C");
    let mut pace = tokio::time::interval(PACE);
    loop {
        tokio::select! {
            _ = pace.tick() => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let mut shop = Shop::default();
        shop.call(&mut random, crate::store::now_ns());
        shop.send(&client, base).await?;
    }
}

/// Spans and lines by service, waiting to be sent.
#[derive(Default)]
struct Shop {
    spans: [Vec<Span>; 3],
    lines: [Vec<LogRecord>; 3],
}

impl Shop {
    /// One visitor buys something.
    fn call(&mut self, random: &mut fastrand::Rng, at: u64) {
        let trace: Vec<u8> = (0..16).map(|_| random.u8(..)).collect();
        let ids: Vec<Vec<u8>> = (0..3).map(|_| (0..8).map(|_| random.u8(..)).collect()).collect();
        let fails = random.u8(..) < 12;
        let pay_ms = if random.u8(..) < 25 { random.u64(400..900) } else { random.u64(8..60) };
        let (cart_ms, front_ms) = (pay_ms + random.u64(3..20), pay_ms + random.u64(24..40));
        let order = random.u32(10_000..99_999);
        let names = ["POST /checkout", "cart.checkout", "payment.charge"];
        let kinds = [SpanKind::Server, SpanKind::Server, SpanKind::Client];
        let starts = [at, at + 2_000_000, at + 4_000_000];
        for (i, ms) in [front_ms, cart_ms, pay_ms].into_iter().enumerate() {
            let failed = fails && i != 1;
            let status = failed.then(|| Status { code: StatusCode::Error.into(), message: "card declined".into() });
            self.spans[i].push(Span {
                trace_id: trace.clone(),
                span_id: ids[i].clone(),
                parent_span_id: if i == 0 { Vec::new() } else { ids[i - 1].clone() },
                name: names[i].into(),
                kind: kinds[i].into(),
                start_time_unix_nano: starts[i],
                end_time_unix_nano: starts[i] + ms * 1_000_000,
                attributes: vec![
                    text("shop.order", &order.to_string()),
                    number("http.response.status_code", if failed { 402 } else { 200 }),
                ],
                status,
                ..Span::default()
            });
        }
        let mut line = |service: usize, level: i32, after_ms: u64, body: String| {
            self.lines[service].push(LogRecord {
                time_unix_nano: starts[service] + after_ms * 1_000_000,
                severity_number: level,
                severity_text: match level {
                    17 => "ERROR",
                    13 => "WARN",
                    5 => "DEBUG",
                    _ => "INFO",
                }
                .into(),
                body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
                attributes: vec![text("shop.order", &order.to_string())],
                trace_id: trace.clone(),
                span_id: ids[service].clone(),
                ..LogRecord::default()
            });
        };
        line(0, 9, 1, format!("checkout of order {order} started"));
        line(1, 5, 1, format!("order {order}: 3 items priced"));
        match (fails, pay_ms >= 400) {
            (true, _) => line(2, 17, pay_ms, format!("order {order}: card declined by the issuer")),
            (false, true) => line(2, 13, pay_ms, format!("order {order}: the bank took {pay_ms} ms")),
            (false, false) => line(2, 9, pay_ms, format!("order {order} charged in {pay_ms} ms")),
        }
        let done = if fails { "was not paid" } else { "is on its way" };
        line(0, if fails { 13 } else { 9 }, front_ms, format!("order {order} {done} ({front_ms} ms)"));
    }

    async fn send(&mut self, client: &reqwest::Client, base: &str) -> anyhow::Result<()> {
        let scope =
            || Some(InstrumentationScope { name: "shop".into(), version: "1.0.0".into(), ..Default::default() });
        let traces = ExportTraceServiceRequest {
            resource_spans: (0..3)
                .map(|i| ResourceSpans {
                    resource: resource(i),
                    scope_spans: vec![ScopeSpans {
                        scope: scope(),
                        spans: std::mem::take(&mut self.spans[i]),
                        ..Default::default()
                    }],
                    ..Default::default()
                })
                .collect(),
        };
        let logs = ExportLogsServiceRequest {
            resource_logs: (0..3)
                .map(|i| ResourceLogs {
                    resource: resource(i),
                    scope_logs: vec![ScopeLogs {
                        scope: scope(),
                        log_records: std::mem::take(&mut self.lines[i]),
                        ..Default::default()
                    }],
                    ..Default::default()
                })
                .collect(),
        };
        post(client, &format!("{base}/v1/traces"), traces.encode_to_vec()).await?;
        post(client, &format!("{base}/v1/logs"), logs.encode_to_vec()).await
    }
}

fn resource(service: usize) -> Option<Resource> {
    let attributes = vec![text("service.name", SERVICES[service]), text("service.namespace", "demo")];
    Some(Resource { attributes, ..Default::default() })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let response = client
        .post(url)
        .header("content-type", "application/x-protobuf")
        .body(body)
        .send()
        .await
        .with_context(|| format!("{url} cannot be reached: is a gateway running there? (`gateway` starts one)"))?;
    if !response.status().is_success() {
        bail!("{url} answered {}: {}", response.status(), response.text().await.unwrap_or_default());
    }
    Ok(())
}
