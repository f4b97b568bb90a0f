//! The doors against real sockets on loopback, with a fake intake behind them.

mod grpc;
mod hostile;
mod http;
mod lifetime;
mod pressure;
mod tls;

use super::counters::{Answered, Counters};
use super::*;
use crate::seam::{Offered, Refusal, Signal};
use ::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::sync::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(super) type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What the intake was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Got {
    pub(super) signal: Signal,
    pub(super) source: Source,
    pub(super) items: u32,
    pub(super) peer: String,
    pub(super) body: Bytes,
}

/// An intake that keeps what it gets, can be told to refuse, and can be told to wait.
#[derive(Clone)]
pub(super) struct Fake(Arc<Inner>);

struct Inner {
    serves: Vec<Signal>,
    refusal: Mutex<Option<Refusal>>,
    got: Mutex<Vec<Got>>,
    /// Offers that have come in, answered or not.
    pub(super) offers: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Fake {
    pub(super) fn serving(serves: &[Signal]) -> Fake {
        Fake(Arc::new(Inner {
            serves: serves.to_vec(),
            refusal: Mutex::default(),
            got: Mutex::default(),
            offers: watch::channel(0).0,
            open: watch::channel(true).0,
        }))
    }

    pub(super) fn new() -> Fake {
        Fake::serving(&[Signal::Logs, Signal::Traces])
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        *self.0.refusal.lock().unwrap() = Some(refusal);
    }

    /// From now on every offer waits, until `open(true)`.
    pub(super) fn open(&self, open: bool) {
        self.0.open.send_replace(open);
    }

    pub(super) fn got(&self) -> Vec<Got> {
        self.0.got.lock().unwrap().clone()
    }

    pub(super) fn offers(&self) -> watch::Receiver<usize> {
        self.0.offers.subscribe()
    }
}

impl Intake for Fake {
    fn serves(&self, signal: Signal) -> bool {
        self.0.serves.contains(&signal)
    }

    async fn accept(&self, offered: Offered) -> Result<(), Refusal> {
        self.0.offers.send_modify(|offers| *offers += 1);
        let mut open = self.0.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
        if let Some(refusal) = self.0.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let Offered { signal, source, items, sidecar, body, .. } = offered;
        let body = Bytes::from(body.concat());
        self.0.got.lock().unwrap().push(Got { signal, source, items, peer: sidecar.peer, body });
        Ok(())
    }
}

/// Counts that a test can read.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) accepted: Mutex<u64>,
    pub(super) refused: Mutex<Vec<(&'static str, u32)>>,
    pub(super) calls: Mutex<Vec<Answered>>,
    pub(super) turned_away: Mutex<Vec<&'static str>>,
    pub(super) open: watch::Sender<i64>,
}

impl Counters for Tally {
    fn connections(&self, _: Source, change: i64) {
        self.open.send_modify(|open| *open += change);
    }
    fn turned_away(&self, _: Source, why: &'static str) {
        self.turned_away.lock().unwrap().push(why);
    }
    fn accepted(&self, _: Source, _: Signal, records: u32, _: u64) {
        *self.accepted.lock().unwrap() += u64::from(records);
    }
    fn refused(&self, _: Source, _: Option<Signal>, reason: &'static str, records: u32) {
        self.refused.lock().unwrap().push((reason, records));
    }
    fn answered(&self, call: Answered) {
        self.calls.lock().unwrap().push(call);
    }
}

/// A running pair of doors.
pub(super) struct Doors {
    pub(super) intake: Fake,
    pub(super) tally: Arc<Tally>,
    pub(super) budget: Budget,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) served: JoinHandle<()>,
}

pub(super) fn config() -> config::Otlp {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config::Otlp { grpc: any, http: any, ..Default::default() }
}

pub(super) fn open_with(config: config::Otlp, hosts: &[&str], budget: u64, intake: Fake) -> Doors {
    let tally = Arc::new(Tally::default());
    let budget = Budget::new(budget);
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let bound = Otlp::bind(&config, &hosts, budget.clone(), tally.clone()).unwrap();
    let LocalAddrs { grpc: Some(grpc), http: Some(http) } = bound.local_addrs() else { panic!("both doors") };
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(bound.serve(intake.clone(), async move {
        let _ = stopped.await;
    }));
    Doors { intake, tally, budget, grpc, http, stop: Some(stop), served }
}

pub(super) fn open_doors() -> Doors {
    open_with(config(), &[], 64 << 20, Fake::new())
}

/// Waits for a state that is told by no event of ours (a permit given back); fails rather than hangs.
pub(super) async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 5 s");
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: text(value), ..Default::default() }
}

/// A request of `records` log records, each with a body of `size` bytes.
pub(super) fn logs(records: usize, size: usize) -> ExportLogsServiceRequest {
    let record = |n: usize| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + n as u64,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: text(&"x".repeat(size)),
        attributes: vec![attribute("n", &n.to_string())],
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        ..Default::default()
    };
    let scope = InstrumentationScope { name: "test".into(), ..Default::default() };
    let resource = Resource { attributes: vec![attribute("service.name", "shop")], ..Default::default() };
    let records = (0..records).map(record).collect();
    let scopes = vec![ScopeLogs { scope: Some(scope), log_records: records, ..Default::default() }];
    let resources = vec![ResourceLogs { resource: Some(resource), scope_logs: scopes, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: resources }
}

pub(super) fn traces(spans: usize) -> ExportTraceServiceRequest {
    let span = |n: usize| Span {
        trace_id: vec![1; 16],
        span_id: vec![n as u8; 8],
        name: "GET /".into(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Default::default()
    };
    let scopes = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans: scopes, ..Default::default() }] }
}

/// A connection that sends at once what it is given.
pub(super) async fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// One HTTP/1.1 request on a connection of its own.
pub(super) async fn send(
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let socket = dial(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    read(sender.send_request(request).await?).await
}

pub(super) async fn read(
    response: Response<hyper::body::Incoming>,
) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = response.into_parts();
    Ok((parts.status, parts.headers, body.collect().await?.to_bytes()))
}

/// A POST with the content type of protobuf; more headers in `headers`.
pub(super) fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header(header::HOST, "localhost");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

pub(super) fn snappy_stream(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.into_inner().unwrap()
}

pub(super) fn lz4(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
