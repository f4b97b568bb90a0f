//! Connections: letting them in, keeping them within bounds, and letting them go.
//!
//! Like the lobby of a bank: a limited number inside, a limited number from one address, a place to put down what they carry (a
//! connection's window) cut from one pool, and closing time announced before the door shuts. The algorithm: one task a
//! connection, selecting over its protocol, its age and the stop signal. Weakness: whoever opens connections from many addresses
//! can fill the lobby for as long as idle connections are allowed to stay.

use super::call::{HEADER_BYTES_MAX, Shared};
use super::watch::{Watch, Watched};
use super::{grpc, http, preface};
use crate::seam::{Intake, Source};
use crate::tls;
use ::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Open connections, both doors together.
pub const CONNECTIONS_MAX: usize = 1024;
/// Open connections from one address off loopback.
pub(super) const CONNECTIONS_PER_PEER_MAX: usize = 256;
/// Calls in flight on one gRPC connection.
pub(super) const STREAMS_MAX: u32 = 128;
/// Largest HTTP/2 frame, in bytes: one frame a request instead of ten was worth 45 % of the peak.
pub(super) const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Longest time for a TLS handshake, and for the first bytes of HTTP/2.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest time an HTTP/1.1 connection may be idle between two requests.
pub(super) const HTTP_IDLE: Duration = Duration::from_secs(75);
/// An HTTP/2 peer that is silent for this long is asked for a sign of life, and closed without one.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(60);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long calls in flight may take to finish once their connection is asked to close.
pub(super) const LAST_CALLS: Duration = Duration::from_secs(30);
/// The same when the whole gateway stops: it must be gone within 5 s.
pub const DRAIN: Duration = Duration::from_secs(3);
/// Spread of the connection age, in percent to either side, so that senders do not come back all at once.
pub(super) const AGE_JITTER_PERCENT: u64 = 10;
/// Pause after a failed accept (out of descriptors): trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of one request, by number.
const HEADERS_MAX: usize = 64;
/// Window of one HTTP/2 connection, read buffer of one HTTP/1.1 connection, in bytes: the most and the least.
const ROOM_MAX: u64 = 8 << 20;
const ROOM_MIN: u64 = 64 << 10;
const HTTP_ROOM_MAX: usize = 512 << 10;

/// What all connections of the gateway share.
pub(super) struct Lobby {
    places: Arc<Semaphore>,
    peers: Mutex<HashMap<IpAddr, usize>>,
    /// Bytes of windows that may still be handed out. A quarter of the budget, beside it: what the protocol holds unread.
    rooms: AtomicU64,
}

impl Lobby {
    pub(super) fn new(budget_bytes: u64) -> Arc<Lobby> {
        Arc::new(Lobby {
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            peers: Mutex::default(),
            rooms: AtomicU64::new(budget_bytes / 4),
        })
    }

    pub(super) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `peer`, with a quarter of the windows that are left; `None` if it has too many already.
    pub(super) fn enter(self: &Arc<Lobby>, peer: IpAddr, place: OwnedSemaphorePermit) -> Option<Guest> {
        let mut peers = self.peers();
        let open = peers.entry(peer).or_insert(0);
        if *open >= CONNECTIONS_PER_PEER_MAX && !peer.is_loopback() {
            return None;
        }
        *open += 1;
        drop(peers);
        let (mut room, mut borrowed) = (ROOM_MIN, 0);
        let _ = self.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            // The least is given even when the pool is empty; then nothing is taken from it, and nothing comes back.
            (room, borrowed) = match (free / 4).min(ROOM_MAX) {
                part @ ROOM_MIN.. => (part, part),
                _ => (ROOM_MIN, 0),
            };
            Some(free - borrowed)
        });
        Some(Guest { lobby: self.clone(), peer, room, borrowed, _place: place })
    }
}

/// One connection inside; leaves everything behind when dropped.
pub(super) struct Guest {
    lobby: Arc<Lobby>,
    peer: IpAddr,
    /// Bytes that this connection may hold unread.
    room: u64,
    borrowed: u64,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    pub(super) fn room(&self) -> u64 {
        self.room
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.lobby.rooms.fetch_add(self.borrowed, Ordering::Relaxed);
        let mut peers = self.lobby.peers();
        if let Some(open) = peers.get_mut(&self.peer) {
            *open -= 1;
            if *open == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

/// One listening address and how it speaks.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) source: Source,
    pub(super) tls: Option<Arc<tls::Server>>,
    pub(super) max_age: Duration,
}

/// Accepts until `stop` says so, then waits at most [`DRAIN`] for calls in flight.
pub(super) async fn serve<I: Intake>(
    door: Door,
    lobby: Arc<Lobby>,
    shared: Arc<Shared<I>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&door.listener, &lobby) => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Some((socket, guest)) = accepted else {
            shared.counters.turned_away(door.source, "too_many");
            continue;
        };
        connections.spawn(connection(socket, guest, &door, shared.clone(), stop.clone()));
    }
    drop(door.listener);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(listener: &TcpListener, lobby: &Arc<Lobby>) -> Option<(TcpStream, Guest)> {
    loop {
        // At the cap nothing is accepted: newcomers wait in the kernel's queue until someone leaves.
        let place = lobby.places().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((socket, peer)) => {
                let _ = socket.set_nodelay(true);
                return lobby.enter(peer.ip(), place).map(|guest| (socket, guest));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection<I: Intake>(
    socket: TcpStream,
    guest: Guest,
    door: &Door,
    shared: Arc<Shared<I>>,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<I> {
    let (source, tls, max_age) = (door.source, door.tls.clone(), door.max_age);
    async move {
        let life = Life { old_at: Instant::now() + jittered(max_age), stop };
        let _open = Open::new(&shared, source);
        let Some(tls) = tls else { return speak(socket, source, guest, &shared, life).await };
        match timeout(HANDSHAKE, tls.accept(socket)).await {
            Ok(Ok(stream)) => speak(stream, source, guest, &shared, life).await,
            _ => shared.counters.turned_away(source, "handshake"),
        }
    }
}

/// Counts a connection while it lives.
struct Open<'a, I> {
    shared: &'a Shared<I>,
    source: Source,
}

impl<'a, I> Open<'a, I> {
    fn new(shared: &'a Shared<I>, source: Source) -> Open<'a, I> {
        shared.counters.connections(source, 1);
        Open { shared, source }
    }
}

impl<I> Drop for Open<'_, I> {
    fn drop(&mut self) {
        self.shared.counters.connections(self.source, -1);
    }
}

fn jittered(age: Duration) -> Duration {
    let percent = 100 - AGE_JITTER_PERCENT + fastrand::u64(0..=2 * AGE_JITTER_PERCENT);
    age.saturating_mul(percent as u32) / 100
}

/// When a connection has to think of leaving.
struct Life {
    old_at: Instant,
    stop: watch::Receiver<bool>,
}

async fn speak<I: Intake, S>(stream: S, source: Source, guest: Guest, shared: &Arc<Shared<I>>, life: Life)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match source {
        Source::OtlpHttp => speak_http1(stream, guest, shared, life).await,
        _ => speak_http2(stream, guest, shared, life).await,
    }
}

async fn speak_http2<I: Intake, S>(stream: S, guest: Guest, shared: &Arc<Shared<I>>, mut life: Life)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(Some(stream)) = timeout(HANDSHAKE, preface::expect(stream)).await else {
        return shared.counters.turned_away(Source::OtlpGrpc, "handshake");
    };
    let (peer, window) = (guest.peer, guest.room() as u32);
    let calls = shared.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = calls.clone();
        async move { Ok::<_, Infallible>(grpc::answer(&shared, peer, request).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = sleep_until(life.old_at) => {}
        _ = life.stop.wait_for(|stop| *stop) => {}
    }
    // GOAWAY: the peer finishes what it has begun here and takes its next call to a new connection.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_CALLS, connection).await;
}

async fn speak_http1<I: Intake, S>(stream: S, guest: Guest, shared: &Arc<Shared<I>>, mut life: Life)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, old_at) = (guest.peer, life.old_at);
    let watch = Watch::new();
    let (calls, heads) = (shared.clone(), watch.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, heads) = (calls.clone(), heads.clone());
        async move {
            let _busy = heads.head_is_read();
            let mut response = http::answer(&shared, peer, request).await;
            if Instant::now() >= old_at {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Watched::new(stream, watch.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_IDLE)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size((guest.room() as usize).min(HTTP_ROOM_MAX));
    let mut connection = pin!(builder.serve_connection(io, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = watch.head_is_late() => return,
        _ = life.stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_CALLS, connection).await;
}
