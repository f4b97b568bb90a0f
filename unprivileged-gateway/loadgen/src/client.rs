//! The sending end of an OTLP connection, on hyper alone: gRPC over HTTP/2 with prior knowledge, or OTLP/HTTP over HTTP/1.1.
//!
//! A request is a ready-made byte string and an answer is one of three words; nothing is decoded but the status. A connection that
//! broke is opened again by whoever needs it next. Weakness: no TLS, because the load tool only talks to loopback.

use crate::ledger::{Outcome, Refusal};
use crate::wire::{self, Value, messages};
use crate::{Compression, Protocol, Signal};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// An answer's body, bytes: a status message, never more.
const ANSWER_MAX: usize = 64 << 10;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub signal: Signal,
    pub compression: Compression,
}

/// One connection that comes back when it breaks. Calls over gRPC share it, calls over HTTP/1.1 take turns.
pub(crate) struct Line {
    target: Target,
    held: Mutex<Option<Channel>>,
}

pub(crate) enum Channel {
    Grpc(http2::SendRequest<Full<Bytes>>),
    Http(http1::SendRequest<Full<Bytes>>),
}

impl Line {
    pub(crate) fn new(target: Target) -> Line {
        Line { target, held: Mutex::new(None) }
    }

    /// An open channel; connects for as long as it takes, so the caller brings the end of its patience.
    pub(crate) async fn channel(&self, failed: impl Fn(&io::Error)) -> Channel {
        loop {
            let mut held = self.held.lock().await;
            if let Some(channel) = alive(held.take()).await {
                *held = channel.share();
                return channel;
            }
            match connect(&self.target).await {
                Ok(channel) => {
                    *held = channel.share();
                    return channel;
                }
                Err(e) => failed(&e),
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Hands an HTTP/1.1 channel back after its call.
    pub(crate) async fn put_back(&self, channel: Channel) {
        if matches!(channel, Channel::Http(_)) {
            *self.held.lock().await = Some(channel);
        }
    }
}

/// The channel, if its connection still takes calls.
async fn alive(channel: Option<Channel>) -> Option<Channel> {
    let mut channel = channel?;
    let ready = match &mut channel {
        Channel::Grpc(send) => send.ready().await,
        Channel::Http(send) => send.ready().await,
    };
    ready.is_ok().then_some(channel)
}

async fn connect(target: &Target) -> io::Result<Channel> {
    let socket = TcpStream::connect(target.address).await?;
    socket.set_nodelay(true)?;
    let io = TokioIo::new(socket);
    match target.protocol {
        Protocol::Grpc => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20).max_frame_size(1 << 20);
            let (send, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Channel::Grpc(send))
        }
        Protocol::Http => {
            let (send, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Channel::Http(send))
        }
    }
}

impl Channel {
    /// A handle for the next caller while this call is in flight; HTTP/1.1 has none.
    fn share(&self) -> Option<Channel> {
        match self {
            Channel::Grpc(send) => Some(Channel::Grpc(send.clone())),
            Channel::Http(_) => None,
        }
    }

    /// One export call. `body` holds the gRPC frame, or the HTTP body.
    pub(crate) async fn export(&mut self, target: &Target, body: Bytes, timeout: Duration) -> Outcome {
        let request = request(target, body);
        let call = async {
            match self {
                Channel::Grpc(send) => send.send_request(request).await,
                Channel::Http(send) => send.send_request(request).await,
            }
        };
        let answered = async {
            match call.await {
                Ok(response) => read(target.protocol, response).await,
                Err(e) => Outcome::Broken(chain(&e)),
            }
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Broken("deadline".into()),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

fn request(target: &Target, body: Bytes) -> Request<Full<Bytes>> {
    let encoding = match target.compression {
        Compression::None => None,
        Compression::Gzip => Some(HeaderValue::from_static("gzip")),
        Compression::Zstd => Some(HeaderValue::from_static("zstd")),
    };
    let path = match (target.protocol, target.signal) {
        (Protocol::Grpc, Signal::Logs) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        (Protocol::Grpc, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        (Protocol::Http, Signal::Logs) => "/v1/logs",
        (Protocol::Http, Signal::Traces) => "/v1/traces",
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = http::Method::POST;
    let headers = request.headers_mut();
    if target.protocol == Protocol::Grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        encoding.map(|e| headers.insert("grpc-encoding", e));
        let uri = http::Uri::builder().scheme("http").authority(target.address.to_string()).path_and_query(path);
        *request.uri_mut() = uri.build().unwrap_or_default();
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        encoding.map(|e| headers.insert(header::CONTENT_ENCODING, e));
        if let Ok(host) = HeaderValue::from_str(&target.address.to_string()) {
            headers.insert(header::HOST, host);
        }
        *request.uri_mut() = http::Uri::from_static(path);
    }
    request
}

async fn read(protocol: Protocol, response: Response<Incoming>) -> Outcome {
    let (parts, body) = response.into_parts();
    let collected = match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(collected) => collected,
        Err(e) => return Outcome::Broken(format!("the answer broke off: {e}")),
    };
    match protocol {
        Protocol::Grpc => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            grpc_outcome(parts.status, &parts.headers, &trailers)
        }
        Protocol::Http if parts.status.is_success() => Outcome::Acked,
        Protocol::Http => {
            let after =
                parts.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
            let text = collected.to_bytes();
            let message = messages(&text, 2).next().and_then(Result::ok).unwrap_or(&text);
            Outcome::Refused(Refusal {
                code: parts.status.as_u16(),
                message: String::from_utf8_lossy(message).into_owned(),
                retry_after_ms: after.map(|s: u64| s.saturating_mul(1_000)),
            })
        }
    }
}

fn grpc_outcome(status: StatusCode, headers: &HeaderMap, trailers: &HeaderMap) -> Outcome {
    let find = |name: &str| trailers.get(name).or_else(|| headers.get(name));
    let Some(code) = find("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u16>().ok()) else {
        return Outcome::Broken(format!("HTTP {status} without grpc-status"));
    };
    if code == 0 {
        return Outcome::Acked;
    }
    let details = find("grpc-status-details-bin").and_then(|v| wire::base64_decode(v.as_bytes()));
    Outcome::Refused(Refusal {
        code,
        message: find("grpc-message").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default(),
        retry_after_ms: details.and_then(|d| retry_delay_ms(&d)),
    })
}

/// The delay of the `RetryInfo` among the details of a `google.rpc.Status`.
fn retry_delay_ms(status: &[u8]) -> Option<u64> {
    messages(status, 3).filter_map(Result::ok).find_map(|any| {
        let url = messages(any, 1).next()?.ok()?;
        if !url.ends_with(b"google.rpc.RetryInfo") {
            return None;
        }
        let info = messages(any, 2).next()?.ok()?;
        let delay = messages(info, 1).next().unwrap_or(Ok(&[])).ok()?;
        let mut ms = 0u64;
        for field in wire::Fields(delay) {
            match field.ok()? {
                (1, Value::Int(seconds)) => ms = ms.saturating_add(seconds.saturating_mul(1_000)),
                (2, Value::Int(nanos)) => ms = ms.saturating_add(nanos / 1_000_000),
                _ => {}
            }
        }
        Some(ms)
    })
}
