//! The doors: HTTP/1.1 for Loki, OTLP and control, HTTP/2 for OTLP gRPC, written on hyper alone.
//!
//! A request is read to its end, meets the active fault, is decoded, recorded and answered, in that order: a fault delays or
//! replaces the answer, never the reading. Weakness: one task a connection on whatever runtime the caller gave.

use super::decode::{self, Decoded};
use super::fault::{Fault, Nonsense, Plan, loki_text};
use super::record::Lane;
use super::{Shared, control, profile};
use crate::wire::{self, Malformed};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request body as it comes, bytes.
const BODY_MAX: usize = 128 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Loki,
    OtlpGrpc,
    OtlpHttp,
    Pyroscope,
    Control,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Loki => "loki",
            Kind::OtlpGrpc => "otlp/grpc",
            Kind::OtlpHttp => "otlp/http",
            Kind::Pyroscope => "pyroscope",
            Kind::Control => "control",
        }
    }
}

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// No answer: the connection ends.
#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for HungUp {}

pub(super) async fn serve(listener: TcpListener, kind: Kind, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(connection(socket, kind, shared.clone()))),
                // Out of descriptors, most likely: give the closing ones a moment.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(socket: TcpStream, kind: Kind, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let io = TokioIo::new(socket);
    let service = service_fn(move |request| answer(request, kind, shared.clone()));
    // How a connection ends is the client's business; what counted is in the record.
    if kind == Kind::OtlpGrpc {
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2.initial_stream_window_size(8 << 20).initial_connection_window_size(24 << 20).max_frame_size(1 << 20);
        let _ = http2.serve_connection(io, service).await;
    } else {
        let mut http1 = hyper::server::conn::http1::Builder::new();
        let _ = http1.timer(TokioTimer::new()).serve_connection(io, service).await;
    }
}

async fn answer(request: Request<Incoming>, kind: Kind, shared: Arc<Shared>) -> Result<Answer, HungUp> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else { return Err(HungUp) };
    let body = body.to_bytes();
    if kind == Kind::Control {
        return Ok(control::answer(&parts.method, &parts.uri, &body, &shared));
    }
    if kind == Kind::Pyroscope {
        return profiles(&parts.method, parts.uri.path(), &body, &shared).await;
    }
    let Some(lane) = lane(kind, &parts.method, parts.uri.path()) else {
        return Ok(match kind {
            Kind::OtlpGrpc => grpc(12, "no such method here", None),
            _ => plain(StatusCode::NOT_FOUND, "no such path here\n"),
        });
    };
    shared.record().door(kind.name()).requests += 1;
    let wire_bytes = body.len() as u64;
    let decoded = open(kind, lane, &parts.headers, &body);
    drop(body);
    let request = match decoded {
        Ok(request) => request,
        Err(malformed) => {
            shared.record().door(kind.name()).malformed += 1;
            return Ok(refusal(kind, 400, &malformed.to_string(), None));
        }
    };
    match shared.faults.meet(kind.name(), &request.streams).await {
        Plan::Serve => {
            keep(&shared, kind, &request, wire_bytes, &|_| true);
            Ok(success(kind))
        }
        Plan::Fail(fault) => fail(&shared, kind, &request, wire_bytes, &fault),
    }
}

/// Pyroscope's push, Connect unary: an empty message, or a JSON error.
async fn profiles(method: &Method, path: &str, body: &Bytes, shared: &Shared) -> Result<Answer, HungUp> {
    let kind = Kind::Pyroscope;
    if method != Method::POST || path != "/push.v1.PusherService/Push" {
        return Ok(plain(StatusCode::NOT_FOUND, "no such path here\n"));
    }
    shared.record().door(kind.name()).requests += 1;
    let Ok(pushed) = profile::decode(body) else {
        shared.record().door(kind.name()).malformed += 1;
        return Ok(connect_error(400, "not a push.v1.PushRequest of gzip pprofs"));
    };
    let store = || {
        let mut record = shared.record();
        let door = record.door(kind.name());
        door.wire_bytes += body.len() as u64;
        door.records += pushed.len() as u64;
        record.profiles.add(pushed.clone());
    };
    match shared.faults.meet(kind.name(), &[]).await {
        Plan::Serve => {
            store();
            Ok(typed(StatusCode::OK, "application/proto", Vec::new()))
        }
        Plan::Fail(fault) => {
            if fault.stores {
                store();
            }
            let status = fault.status.unwrap_or(503);
            *shared.record().door(kind.name()).faulted.entry(status).or_default() += 1;
            match fault.nonsense {
                Some(Nonsense::Close) => Err(HungUp),
                _ => Ok(connect_error(status, fault.text.as_deref().unwrap_or("asked for by the test"))),
            }
        }
    }
}

fn connect_error(status: u16, text: &str) -> Answer {
    let code = match status {
        400 => "invalid_argument",
        429 => "resource_exhausted",
        _ => "unavailable",
    };
    let body = serde_json::json!({ "code": code, "message": text }).to_string();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    typed(status, "application/json", body.into_bytes())
}

/// Which records a path takes. `None`: not a path of this door.
fn lane(kind: Kind, method: &Method, path: &str) -> Option<Lane> {
    if method != Method::POST {
        return None;
    }
    match (kind, path) {
        (Kind::Loki, "/loki/api/v1/push" | "/api/prom/push") => Some(Lane::Loki),
        (Kind::OtlpHttp, "/v1/logs") => Some(Lane::OtlpLogs),
        (Kind::OtlpHttp, "/v1/traces") => Some(Lane::OtlpTraces),
        (Kind::OtlpGrpc, "/opentelemetry.proto.collector.logs.v1.LogsService/Export") => Some(Lane::OtlpLogs),
        (Kind::OtlpGrpc, "/opentelemetry.proto.collector.trace.v1.TraceService/Export") => Some(Lane::OtlpTraces),
        _ => None,
    }
}

fn open(kind: Kind, lane: Lane, headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Malformed> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    match kind {
        Kind::Loki => decode::loki(decode::decompress("snappy", body)?),
        Kind::OtlpGrpc => {
            let (compressed, length) = match body.split_at_checked(5).ok_or(Malformed)? {
                ([flag @ (0 | 1), a, b, c, d], rest) => (*flag == 1, (u32::from_be_bytes([*a, *b, *c, *d]), rest)),
                _ => return Err(Malformed),
            };
            let (length, message) = length;
            if message.len() != length as usize {
                return Err(Malformed);
            }
            let encoding = if compressed { header("grpc-encoding") } else { "" };
            decode::otlp(lane, false, decode::decompress(encoding, message)?)
        }
        _ => {
            let json = header("content-type").starts_with("application/json");
            decode::otlp(lane, json, decode::decompress(header("content-encoding"), body)?)
        }
    }
}

fn keep(shared: &Shared, kind: Kind, request: &Decoded, wire_bytes: u64, stored: &dyn Fn(&str) -> bool) {
    let mut record = shared.record();
    let door = record.door(kind.name());
    door.wire_bytes += wire_bytes;
    door.decoded_bytes += request.bytes.len() as u64;
    decode::store(&mut record, &shared.faults, kind.name(), request, stored);
}

fn fail(shared: &Shared, kind: Kind, request: &Decoded, wire_bytes: u64, fault: &Fault) -> Result<Answer, HungUp> {
    let named = fault.stream.as_ref().and_then(|s| request.streams.iter().find(|l| l.contains(s.as_str())));
    if fault.stores {
        keep(shared, kind, request, wire_bytes, &|_| true);
    } else if let Some(named) = named {
        keep(shared, kind, request, wire_bytes, &|labels| labels != named);
    }
    let status = fault.status.unwrap_or(match fault.nonsense {
        Some(Nonsense::Html) => 200,
        Some(Nonsense::OddStatus) => 599,
        Some(Nonsense::Endless) => 400,
        _ => 0,
    });
    *shared.record().door(kind.name()).faulted.entry(status).or_default() += 1;
    match fault.nonsense {
        Some(Nonsense::Close) => return Err(HungUp),
        Some(Nonsense::Html) => {
            let page = "<!DOCTYPE html><html><title>Sign in</title><body>Please sign in to continue.</body></html>";
            return Ok(typed(StatusCode::OK, "text/html; charset=utf-8", page.into()));
        }
        Some(Nonsense::Endless) => {
            let mut response = Response::new(Endless.boxed_unsync());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        }
        Some(Nonsense::OddStatus) | None => {}
    }
    let text = fault.text.clone().unwrap_or_else(|| loki_text(status, named.map(String::as_str)));
    Ok(refusal(kind, status, &text, fault.retry_after_s))
}

fn success(kind: Kind) -> Answer {
    match kind {
        Kind::Loki => plain(StatusCode::NO_CONTENT, ""),
        Kind::OtlpGrpc => grpc(0, "", None),
        _ => typed(StatusCode::OK, "application/x-protobuf", vec![0x0a, 0x00]),
    }
}

fn refusal(kind: Kind, status: u16, text: &str, retry_after_s: Option<u64>) -> Answer {
    if kind == Kind::OtlpGrpc {
        let code = match status {
            400 => 3,
            401 => 16,
            403 => 7,
            404 => 12,
            429 => 8,
            _ => 14,
        };
        return grpc(code, text, retry_after_s);
    }
    let mut response = plain(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text);
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn plain(status: StatusCode, text: &str) -> Answer {
    typed(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A unary gRPC answer: an empty message, or a status with nothing before it.
fn grpc(code: u16, text: &str, retry_after_s: Option<u64>) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(text) = HeaderValue::from_str(text.trim()) {
        trailers.insert("grpc-message", text);
    }
    if let Some(seconds) = retry_after_s {
        let details = HeaderValue::from_str(&wire::base64_encode(&retry_info(code, seconds)));
        details.map(|v| trailers.insert(HeaderName::from_static("grpc-status-details-bin"), v)).ok();
    }
    let mut response = if code == 0 {
        let body = Full::new(Bytes::from_static(&[0; 5]));
        Response::new(body.with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync())
    } else {
        let mut response = Response::new(Full::default().boxed_unsync());
        *response.headers_mut() = trailers;
        response
    };
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// `google.rpc.Status` with one `RetryInfo` in its details.
fn retry_info(code: u16, seconds: u64) -> Vec<u8> {
    let (mut duration, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    wire::put_int(&mut duration, 1, seconds);
    wire::put_bytes(&mut info, 1, &duration);
    wire::put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    wire::put_bytes(&mut any, 2, &info);
    wire::put_int(&mut status, 1, u64::from(code));
    wire::put_bytes(&mut status, 3, &any);
    status
}

/// A body without an end: 64 KiB of the same complaint, for as long as somebody reads.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 65_536] = [b'x'; 65_536];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE)))))
    }
}
