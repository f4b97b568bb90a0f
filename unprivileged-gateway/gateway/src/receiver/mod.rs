//! OTLP in, over gRPC and over HTTP/1.1.
//!
//! Like a harbour: ships of two kinds, one customs hall. A request's bytes are let in as far as the memory budget has room
//! ([`body`]), unpacked under a limit ([`inflate`]), translated if they are JSON ([`json`]), checked as a whole ([`call`]) and handed
//! to the intake as they came; the answer is given once they are on the disk. Where a request waits: in the sender's window until
//! there is room, then in the intake. Weakness: both doors share one budget, so a flood at one is felt at the other.

pub mod answer;
mod auth;
pub mod bind;
mod body;
mod call;
mod connection;
pub mod counters;
mod grpc;
mod http;
mod inflate;
pub(crate) mod json;
mod preface;
mod watch;

#[cfg(test)]
mod tests;

pub use bind::BindError;
pub use call::HEADER_BYTES_MAX;
pub use connection::{CONNECTIONS_MAX, DRAIN};

use crate::budget::Budget;
use crate::config::{self, Auth};
use crate::seam::{Intake, Source};
use crate::tls;
use bind::listen;
use call::Shared;
use connection::{Door, Lobby};
use counters::Counters;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

/// Configuration keys of the two doors, as errors name them.
const GRPC_KEY: &str = "receive.otlp.grpc";
const HTTP_KEY: &str = "receive.otlp.http";

/// The OTLP doors. Start with [`Otlp::bind`].
pub struct Otlp;

/// Doors that are open but not yet served: connections wait in the kernel.
pub struct Bound {
    doors: Vec<Door>,
    auth: Auth,
    origins: Vec<String>,
    max_request: usize,
    budget: Budget,
    counters: Arc<dyn Counters>,
}

/// The addresses really listened on; they differ from the configured ones where the port was 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddrs {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

impl Otlp {
    /// Opens the configured doors. Must run inside a tokio runtime.
    ///
    /// `hosts` is `http.hosts`: pages of these hosts may send. Errors: a port that is taken, a certificate that does not load, a
    /// door off loopback without auth; the caller exits 69.
    pub fn bind(
        config: &config::Otlp,
        hosts: &[String],
        budget: Budget,
        counters: Arc<dyn Counters>,
    ) -> Result<Bound, BindError> {
        if config.auth == Auth::Mtls && config.tls.as_ref().is_none_or(|tls| tls.client_ca_file.is_none()) {
            return Err(BindError::NoClientCa);
        }
        let mut doors = Vec::new();
        for (key, source, address, alpn) in [
            (GRPC_KEY, Source::OtlpGrpc, config.grpc, tls::ALPN_HTTP2),
            (HTTP_KEY, Source::OtlpHttp, config.http, tls::ALPN_HTTP1),
        ] {
            let Some(address) = address else { continue };
            if config.auth == Auth::Unset && !address.ip().to_canonical().is_loopback() {
                return Err(BindError::Unprotected { key, address });
            }
            let tls = config.tls.as_ref().map(|files| tls::Server::load(files, &[alpn])).transpose()?;
            let listener = listen(key, address)?;
            doors.push(Door { listener, source, tls, max_age: config.max_connection_age });
        }
        Ok(Bound {
            doors,
            auth: config.auth.clone(),
            origins: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            max_request: usize::try_from(config.max_request).unwrap_or(usize::MAX),
            budget,
            counters,
        })
    }
}

impl Bound {
    pub fn local_addrs(&self) -> LocalAddrs {
        let of = |source| {
            self.doors.iter().find(|door| door.source == source).and_then(|door| door.listener.local_addr().ok())
        };
        LocalAddrs { grpc: of(Source::OtlpGrpc), http: of(Source::OtlpHttp) }
    }

    /// Answers calls until `shutdown` resolves; then accepts no more, and gives calls in flight [`DRAIN`] to finish.
    pub async fn serve<I: Intake>(self, intake: I, shutdown: impl Future<Output = ()>) {
        let lobby = Lobby::new(self.budget.limit());
        let shared = Arc::new(Shared {
            intake,
            budget: self.budget,
            counters: self.counters,
            gate: auth::Gate::new(self.auth),
            max_request: self.max_request,
            origins: self.origins,
        });
        let (stop, stopped) = signal::channel(false);
        let mut watchers = JoinSet::new();
        let mut doors = JoinSet::new();
        for door in self.doors {
            if let Some(tls) = door.tls.clone() {
                watchers.spawn(tls.watch());
            }
            doors.spawn(connection::serve(door, lobby.clone(), shared.clone(), stopped.clone()));
        }
        shutdown.await;
        let _ = stop.send(true);
        while doors.join_next().await.is_some() {}
    }
}
