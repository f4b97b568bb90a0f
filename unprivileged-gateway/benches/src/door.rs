//! OTLP gRPC on hyper's HTTP/2, request bodies kept as the bytes that came.
//!
//! One thread does all of it, commit included. Tokio says when it has run out of work (`on_thread_park`): by then all that lay in
//! the sockets has been appended, so that is the moment to commit, inline. While the sync runs, the next group gathers in the
//! socket buffers. No channel, no second thread, no timer.

use crate::log::Writer;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

const REQUEST_MAX: usize = 16 << 20;
/// A group is committed at the latest at this size: larger ones bring writeback stalls, not savings.
const GROUP: usize = 1 << 20;

struct Group {
    writer: Writer,
    waiters: Vec<Waker>,
    commits: u64,
}

thread_local! { static GROUP_OF_THIS_DOOR: RefCell<Option<Group>> = const { RefCell::new(None) } }

fn with_group<R>(f: impl FnOnce(&mut Group) -> R) -> R {
    GROUP_OF_THIS_DOOR.with_borrow_mut(|g| f(g.as_mut().expect("set before the runtime starts")))
}

impl Group {
    fn commit(&mut self) {
        if self.writer.pending() == 0 {
            return;
        }
        if let Err(e) = self.writer.commit() {
            eprintln!("floor-twin: {e}"); // a failed sync must not be retried on the same file: this twin ends
            std::process::exit(74);
        }
        self.commits += 1;
        self.waiters.drain(..).for_each(Waker::wake);
    }

    fn append(&mut self, parts: &[Bytes], length: usize) -> u64 {
        if self.writer.pending() >= GROUP {
            self.commit();
        }
        self.writer.append(parts, length);
        self.commits
    }
}

/// Resolves when the bytes are on disk.
async fn accept(parts: Vec<Bytes>, length: usize) {
    if length == 0 {
        return;
    }
    let mine = with_group(|g| g.append(&parts, length));
    drop(parts); // copied into the group: the receive buffers are free before the sync
    poll_fn(|cx| {
        with_group(|g| {
            if g.commits > mine {
                return Poll::Ready(());
            }
            g.waiters.push(cx.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

pub(crate) fn run(at: SocketAddr, writer: Writer) -> io::Result<()> {
    GROUP_OF_THIS_DOOR.set(Some(Group { writer, waiters: Vec::new(), commits: 0 }));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().event_interval(256).on_thread_park(|| with_group(Group::commit)).build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(at).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            let _ = socket.set_nodelay(true);
            let mut http2 = http2::Builder::new(TokioExecutor::new());
            http2.initial_stream_window_size(8 << 20).initial_connection_window_size(24 << 20).max_frame_size(1 << 20);
            tokio::spawn(http2.serve_connection(TokioIo::new(socket), service_fn(call)));
        }
    })
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn call(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let served = request.uri().path() == "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let mut body = request.into_body();
    let (mut parts, mut length) = (Vec::with_capacity(1), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len();
            if length > REQUEST_MAX {
                return Ok(answer(8));
            }
            parts.push(data);
        }
    }
    if !served {
        return Ok(answer(12));
    }
    let Some(message) = unframe(&mut parts, length) else { return Ok(answer(13)) };
    accept(parts, message).await;
    Ok(answer(0))
}

/// Takes off the five bytes before a gRPC message; only one, uncompressed message is a logs request here.
fn unframe(parts: &mut Vec<Bytes>, length: usize) -> Option<usize> {
    if parts.first().is_some_and(|p| p.len() < 5) {
        let mut joined = BytesMut::with_capacity(length);
        parts.drain(..).for_each(|p| joined.extend_from_slice(&p));
        parts.push(joined.freeze());
    }
    let first = parts.first_mut().filter(|p| p.len() >= 5)?;
    let [flag, a, b, c, d] = first.split_to(5)[..].try_into().ok()?;
    (flag == 0 && u32::from_be_bytes([a, b, c, d]) as usize == length - 5).then_some(length - 5)
}

fn answer(status: u16) -> Answer {
    let body = Full::new(Bytes::from_static(&[0; 5])); // an empty, uncompressed message
    let trailers = async move {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from(status));
        Some(Ok(trailers))
    };
    let mut response = Response::new(body.with_trailers(trailers).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
