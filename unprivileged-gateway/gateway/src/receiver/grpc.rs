//! OTLP over gRPC: one unary message in, an empty answer out.
//!
//! Like a letter slot: the five bytes on the envelope say how large the letter is, and one that is too large is not let in. The
//! framing of a unary call is read here rather than by a generated service, because that one takes the whole message into its
//! own buffer, and unpacks it, before anyone can be asked for memory; statuses, codes and their encoding are tonic's. Weakness:
//! only what OTLP needs of gRPC is here (unary, no compressed answers).

use super::answer::Fault;
use super::body::{Reader, STEP};
use super::call::{Call, SUCCESS, Shared};
use super::inflate::{GRPC_PACKINGS, Packing, inflate};
use crate::seam::{Intake, Signal, Source};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use std::convert::Infallible;
use std::fmt::Display;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};

/// Compressed-flag and length, before every message.
const PREFIX_BYTES: usize = 5;
/// The answer to everything accepted, prefix included.
static ANSWER: [u8; PREFIX_BYTES + SUCCESS.len()] = [0, 0, 0, 0, SUCCESS.len() as u8, SUCCESS[0], SUCCESS[1]];

/// The signal that a method exports.
fn signal_of(path: &str) -> Option<Signal> {
    match path {
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        _ => None,
    }
}

/// Answers one call; never fails, never panics on what the peer sent.
pub(super) async fn answer<I, B>(shared: &Shared<I>, peer: IpAddr, request: Request<B>) -> Response<Answer>
where
    I: Intake,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    if !is_grpc(&request) {
        return not_grpc();
    }
    let signal = signal_of(request.uri().path());
    let mut call = Call::start(shared, Source::OtlpGrpc, signal);
    let (code, response) = match export(shared, peer, request, &mut call).await {
        Ok(()) => (Code::Ok, Response::new(Answer::full())),
        Err(fault) => {
            call.refused(&fault);
            (fault.status().code(), refused(&fault))
        }
    };
    call.answered(code as u16);
    with_type(response)
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let rest = kind.strip_prefix(b"application/grpc".as_slice());
    request.method() == Method::POST && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What the gRPC specification asks for: plain HTTP, so that other clients understand it as well.
fn not_grpc() -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

fn with_type(mut response: Response<Answer>) -> Response<Answer> {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn refused(fault: &Fault) -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    if fault.status().add_header(response.headers_mut()).is_err() {
        // A message that is no header value; the code alone is.
        let _ = Status::new(fault.status().code(), "").add_header(response.headers_mut());
    }
    if let Fault::Compression(_) = fault {
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(GRPC_PACKINGS));
    }
    response
}

async fn export<I, B>(shared: &Shared<I>, peer: IpAddr, request: Request<B>, call: &mut Call<'_>) -> Result<(), Fault>
where
    I: Intake,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let served = call.signal.filter(|signal| shared.intake.serves(*signal));
    let signal = served.ok_or_else(|| match call.signal {
        Some(signal) => Fault::Unserved(format!("{signal} are not taken here: nothing is configured to receive them")),
        None => Fault::Unserved("unknown method".into()),
    })?;
    shared.gate.admit(request.headers())?;
    let named = request.headers().get("grpc-encoding").map_or("", |value| value.to_str().unwrap_or("?"));
    let packing = Packing::of_grpc(named)?;
    let mut reader = Reader::new(request.into_body(), &shared.budget);
    let message = message(&mut reader, packing, shared.max_request).await;
    call.wire_bytes = reader.taken;
    let message = message?;
    shared.offer(Source::OtlpGrpc, signal, peer, message, reader.meter).await
}

/// The one message of the call, unpacked.
async fn message<B>(reader: &mut Reader<B>, packing: Option<Packing>, max: usize) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (prefix, first) = prefix(reader).await?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > max {
        return Err(Fault::TooLarge(format!(
            "the message is {length} bytes, at most {max} are taken; send smaller batches"
        )));
    }
    reader.meter.reach(reader.taken + (length.saturating_sub(first.len()) as u64).min(STEP)).await?;
    if first.len() > length {
        return Err(Fault::Malformed("more than one message in a unary call".into()));
    }
    let message = reader.gather(first, Some(length), max).await?;
    if !reader.ends().await? {
        return Err(Fault::Malformed("more than one message in a unary call".into()));
    }
    match (prefix[0], packing) {
        (0, _) => Ok(message),
        (1, Some(packing)) => inflate(packing, message, max, &mut reader.meter).await,
        (1, None) => Err(Fault::Malformed("a compressed message without grpc-encoding".into())),
        _ => Err(Fault::Malformed("not a gRPC message: its first byte is neither 0 nor 1".into())),
    }
}

/// The five bytes before the message, and what came with them.
async fn prefix<B>(reader: &mut Reader<B>) -> Result<([u8; PREFIX_BYTES], Bytes), Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut got = Bytes::new();
    loop {
        if let Some(prefix) = got.first_chunk::<PREFIX_BYTES>() {
            return Ok((*prefix, got.slice(PREFIX_BYTES..)));
        }
        let Some(chunk) = reader.chunk().await? else {
            return Err(Fault::Malformed("the call ended before its message".into()));
        };
        got = match got.is_empty() {
            true => chunk,
            false => {
                let mut joined = BytesMut::from(&got[..]);
                joined.extend_from_slice(&chunk);
                joined.freeze()
            }
        };
    }
}

/// A response body: the answer and its trailers, or nothing (the status is then in the headers).
pub(super) struct Answer {
    message: Option<Bytes>,
    trailers: bool,
}

impl Answer {
    fn full() -> Answer {
        Answer { message: Some(Bytes::from_static(&ANSWER)), trailers: true }
    }

    fn empty() -> Answer {
        Answer { message: None, trailers: false }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        Poll::Ready(std::mem::take(&mut self.trailers).then(|| {
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            Ok(Frame::trailers(trailers))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.trailers
    }
}
