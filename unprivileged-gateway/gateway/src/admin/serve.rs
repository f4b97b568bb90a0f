//! The listener of port 12345: HTTP/1.1, few connections, no patience with silence.
//!
//! A small shop with a doorkeeper: so many inside at once, who does not state his business is shown out, and so is who stands at
//! the counter and takes nothing. Weakness: beyond [`CONNECTIONS_MAX`] a new visitor is turned away rather than queued.

use super::Admin;
use super::gate::Connection;
use crate::tls;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

/// Open connections, event streams included.
pub const CONNECTIONS_MAX: usize = 256;
/// Request line and headers, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Time for a TLS handshake, and for a request's headers, silence between two requests included.
const SPEAK: Duration = Duration::from_secs(10);
/// Time for a client to take the next bytes of an answer.
const TAKE: Duration = Duration::from_secs(30);
/// Time for open requests at the end.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept: no descriptors left is not cured by trying at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then gives open requests [`DRAIN`]; event streams end at once.
pub(super) async fn serve(
    admin: Admin,
    listener: TcpListener,
    tls: Option<Arc<tls::Server>>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok((socket, peer)), Ok(place)) => {
                connections.spawn(connection(admin.router.clone(), socket, tls.clone(), closed.clone(), place));
                tracing::trace!(%peer, "page connection");
            }
            (Ok((_, peer)), Err(_)) => {
                tracing::debug!(%peer, "turned away: {CONNECTIONS_MAX} connections to the page are open")
            }
            (Err(error), _) => {
                tracing::warn!(%error, "http.listen: a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    admin.app.ended.send_replace(true);
    let _ = closing.send(true);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    router: Router,
    socket: TcpStream,
    tls: Option<Arc<tls::Server>>,
    closed: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let Ok(local) = socket.local_addr() else { return };
    // Small answers must not wait for more.
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else {
        return talk(router, socket, Connection { local, tls: false, certified: false }, closed).await;
    };
    if let Ok(Ok(stream)) = timeout(SPEAK, tls.accept(socket)).await {
        let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        talk(router, stream, Connection { local, tls: true, certified }, closed).await;
    }
}

async fn talk(
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: Connection,
    mut closed: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(from);
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SPEAK).max_buf_size(HEADER_BYTES_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(Patient::new(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut closed) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "page connection ended");
    }
}

/// Waits for the word that the listener closes.
async fn told(closed: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// A stream whose writes fail once the other side has taken nothing for [`TAKE`].
struct Patient<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S) -> Patient<S> {
        Patient { stream, stalled: None }
    }

    /// A write that is pending starts the clock, one that went through stops it.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let clock = self.stalled.get_or_insert_with(|| Box::pin(sleep(TAKE)));
        ready!(clock.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, shut)
    }
}
