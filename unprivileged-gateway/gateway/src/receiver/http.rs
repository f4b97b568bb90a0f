//! OTLP over HTTP/1.1.
//!
//! Like a post office counter with printed answers: every case has one, in the sender's own encoding, and they are the answers
//! that senders already know from other receivers. Weakness: no CORS headers; a page elsewhere cannot send, on purpose.

use super::answer::{Fault, retry_after_seconds};
use super::body::Reader;
use super::call::{Call, SUCCESS, Shared};
use super::counters::reason;
use super::inflate::{Packing, inflate};
use super::json;
use crate::seam::{Intake, Signal, Source};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::Full;
use prost::Message;
use std::fmt::Display;
use std::net::IpAddr;

/// The two encodings of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn signal_of(path: &str) -> Option<Signal> {
    match path {
        "/v1/logs" => Some(Signal::Logs),
        "/v1/traces" => Some(Signal::Traces),
        "/v1/metrics" => Some(Signal::Metrics),
        _ => None,
    }
}

/// Answers one request; never fails, never panics on what the peer sent.
pub(super) async fn answer<I, B>(shared: &Shared<I>, peer: IpAddr, request: Request<B>) -> Response<Full<Bytes>>
where
    I: Intake,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let signal = signal_of(request.uri().path());
    let mut call = Call::start(shared, Source::OtlpHttp, signal);
    let response = match judge(shared, &request, signal, &call) {
        Err(response) => *response,
        Ok((signal, encoding)) => match export(shared, peer, request, signal, encoding, &mut call).await {
            Ok(()) => accepted(encoding),
            Err(fault) => {
                call.refused(&fault);
                refused(&fault, encoding)
            }
        },
    };
    call.answered(response.status().as_u16());
    response
}

/// All that can be said before the body is looked at.
fn judge<I: Intake, B>(
    shared: &Shared<I>,
    request: &Request<B>,
    signal: Option<Signal>,
    call: &Call<'_>,
) -> Result<(Signal, Encoding), Box<Response<Full<Bytes>>>> {
    let refuse = |reason, status, body| {
        call.refused_because(reason);
        Err(Box::new(text(status, body)))
    };
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && !origin_is_known(origin, &shared.origins)
    {
        let why = "403 this receiver takes no data from web pages of other hosts; list the page's host in http.hosts";
        return refuse(reason::ORIGIN, StatusCode::FORBIDDEN, why);
    }
    let Some(signal) = signal.filter(|signal| shared.intake.serves(*signal)) else {
        return refuse(reason::UNSERVED, StatusCode::NOT_FOUND, "404 page not found");
    };
    if let Err(fault) = shared.gate.admit(request.headers()) {
        call.refused(&fault);
        let mut response = refused(&fault, encoding_of(request.headers()).unwrap_or(Encoding::Json));
        if fault.http() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(shared.gate.scheme()));
        }
        return Err(Box::new(response));
    }
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed, supported: [POST]");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        call.refused_because(reason::UNSUPPORTED);
        return Err(Box::new(response));
    }
    match encoding_of(request.headers()) {
        Some(encoding) => Ok((signal, encoding)),
        None => refuse(
            reason::UNSUPPORTED,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
        ),
    }
}

/// True if the page's host was listed. `null` (a sandboxed page, a file) is nobody's host.
fn origin_is_known(origin: &HeaderValue, known: &[String]) -> bool {
    let host = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok()).and_then(|uri| {
        let host = uri.host()?.to_ascii_lowercase();
        Some((host, uri.authority()?.as_str().to_ascii_lowercase()))
    });
    host.is_some_and(|(host, authority)| known.iter().any(|known| *known == host || *known == authority))
}

/// By media type alone: parameters such as a charset do not matter.
fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next()?.trim();
    if kind.eq_ignore_ascii_case(PROTOBUF) {
        Some(Encoding::Protobuf)
    } else if kind.eq_ignore_ascii_case(JSON) {
        Some(Encoding::Json)
    } else {
        None
    }
}

async fn export<I, B>(
    shared: &Shared<I>,
    peer: IpAddr,
    request: Request<B>,
    signal: Signal,
    encoding: Encoding,
    call: &mut Call<'_>,
) -> Result<(), Fault>
where
    I: Intake,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let max = shared.max_request;
    let named = request.headers().get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    let packing = Packing::of_http(named)?;
    let declared = request.body().size_hint().exact();
    if let Some(length) = declared.filter(|length| *length > max as u64) {
        return Err(Fault::TooLarge(format!(
            "the body is {length} bytes, at most {max} are taken; send smaller batches"
        )));
    }
    let mut reader = Reader::new(request.into_body(), &shared.budget);
    let body = reader.gather(Bytes::new(), declared.map(|length| length as usize), max).await;
    call.wire_bytes = reader.taken;
    let mut body = body?;
    if let Some(packing) = packing {
        body = inflate(packing, body, max, &mut reader.meter).await?;
    }
    if encoding == Encoding::Json {
        let text = body.len() as u64;
        reader.meter.grow((text * json::GROWTH_MAX).min(max as u64)).await?;
        body = Bytes::from(json::to_protobuf(signal, &body, max)?);
    }
    shared.offer(Source::OtlpHttp, signal, peer, body, reader.meter).await
}

fn accepted(encoding: Encoding) -> Response<Full<Bytes>> {
    match encoding {
        Encoding::Protobuf => respond(StatusCode::OK, PROTOBUF, Bytes::from_static(&SUCCESS)),
        Encoding::Json => respond(StatusCode::OK, JSON, Bytes::from_static(br#"{"partialSuccess":{}}"#)),
    }
}

fn refused(fault: &Fault, encoding: Encoding) -> Response<Full<Bytes>> {
    let status = fault.rpc_status();
    let mut response = match encoding {
        Encoding::Protobuf => respond(fault.http(), PROTOBUF, Bytes::from(status.encode_to_vec())),
        Encoding::Json => respond(fault.http(), JSON, Bytes::from(status.json())),
    };
    if let Some(wait) = fault.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds(wait)));
    }
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain", Bytes::from_static(body.as_bytes()))
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
