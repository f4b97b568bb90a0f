//! Recording sinks: a Loki, an OTLP gRPC, an OTLP HTTP and a Pyroscope backend that remember who arrived and misbehave on request.
//!
//! Like a customs post: every parcel is opened, its number written down once, and the barrier can be lowered at any time through a
//! small control port. Weakness: nothing is kept but numbers and counters (and the last `keep` records), so it answers "did all of
//! it arrive", not "what was in it an hour ago".

pub mod decode;
pub mod fault;
pub mod profile;
pub mod record;

mod control;
mod door;

use crate::presence;
use fault::{Fault, Faults};
use record::{Lane, Record, Report};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Where to listen; `None`: that door stays shut. Port 0 picks a free one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub loki: Option<SocketAddr>,
    pub otlp_grpc: Option<SocketAddr>,
    pub otlp_http: Option<SocketAddr>,
    pub pyroscope: Option<SocketAddr>,
    pub control: Option<SocketAddr>,
    /// Records kept in full for `GET /recent`.
    pub keep: usize,
    pub fault: Fault,
}

/// What the doors of one sink share.
#[derive(Default)]
pub(crate) struct Shared {
    record: Mutex<Record>,
    faults: Faults,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running sink. Dropping it closes its listeners and connections.
pub struct Sink {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    pub loki: Option<SocketAddr>,
    pub otlp_grpc: Option<SocketAddr>,
    pub otlp_http: Option<SocketAddr>,
    pub pyroscope: Option<SocketAddr>,
    pub control: Option<SocketAddr>,
}

impl Sink {
    /// Binds every door asked for. Errors: the address that could not be bound, or one that is not loopback.
    pub async fn start(options: Options) -> io::Result<Sink> {
        let record = Mutex::new(Record::new(options.keep));
        let shared = Arc::new(Shared { record, faults: Faults::default() });
        shared.faults.set(options.fault);
        let mut sink = Sink {
            shared,
            tasks: JoinSet::new(),
            loki: None,
            otlp_grpc: None,
            otlp_http: None,
            pyroscope: None,
            control: None,
        };
        sink.loki = sink.open(options.loki, door::Kind::Loki).await?;
        sink.otlp_grpc = sink.open(options.otlp_grpc, door::Kind::OtlpGrpc).await?;
        sink.otlp_http = sink.open(options.otlp_http, door::Kind::OtlpHttp).await?;
        sink.pyroscope = sink.open(options.pyroscope, door::Kind::Pyroscope).await?;
        sink.control = sink.open(options.control, door::Kind::Control).await?;
        Ok(sink)
    }

    async fn open(&mut self, at: Option<SocketAddr>, kind: door::Kind) -> io::Result<Option<SocketAddr>> {
        let Some(at) = at else { return Ok(None) };
        if !at.ip().is_loopback() {
            return Err(io::Error::other(format!(
                "{at} is not loopback: a sink takes data from anyone who can reach it"
            )));
        }
        let listener =
            TcpListener::bind(at).await.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {at}: {e}")))?;
        let bound = listener.local_addr()?;
        self.tasks.spawn(door::serve(listener, kind, self.shared.clone()));
        Ok(Some(bound))
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.faults.set(fault);
    }

    pub fn report(&self, runs: bool) -> Report {
        self.shared.record().report(runs)
    }

    pub fn recent(&self) -> Vec<serde_json::Value> {
        self.shared.record().kept().cloned().collect()
    }

    /// The profiles that came, by id.
    pub fn profiles(&self) -> profile::Profiles {
        self.shared.record().profiles.clone()
    }

    pub fn reset(&self) {
        self.shared.record().reset();
    }

    /// How many of `0..upto` of a sender are absent.
    pub fn missing(&self, lane: Lane, sender: u32, upto: u64) -> u64 {
        self.shared.record().presence(lane, sender).map_or(upto, |p| presence::count(&p.missing(upto)))
    }
}
