//! Loads, sinks and verdicts in one line each.

use crate::gateway::Setup;
use loadgen::judge::{Verdict, judge_patiently};
use loadgen::ledger::Ledger;
use loadgen::run::{Options, Summary, run};
use loadgen::sink::fault::Fault;
use loadgen::sink::{self, Sink};
use loadgen::{Endpoint, Protocol, Signal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// A sink that received nothing new for this long has received all it will.
const PATIENCE: Duration = Duration::from_secs(10);

/// All doors open on free ports, the last 20,000 records kept.
pub async fn sink() -> Sink {
    sink_at(None).await
}

/// The same with Loki's door on a chosen port: a backend that comes late.
pub async fn sink_at(loki: Option<SocketAddr>) -> Sink {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let options = sink::Options {
        loki: loki.or(any),
        otlp_grpc: any,
        otlp_http: any,
        pyroscope: any,
        control: any,
        keep: 20_000,
        fault: Fault::default(),
    };
    Sink::start(options).await.expect("free loopback ports")
}

/// A load towards a gateway, with sender numbers that no other load of this process has.
pub struct Load {
    pub options: Options,
    out: PathBuf,
}

impl Load {
    pub fn new(setup: &Setup, protocol: Protocol, signal: Signal) -> Load {
        static SENDERS: AtomicU32 = AtomicU32::new(1);
        let address = if protocol == Protocol::Grpc { setup.grpc } else { setup.otlp_http };
        let mut options = Options::new(Endpoint { protocol, address }, signal);
        options.first_sender = SENDERS.fetch_add(64, Relaxed);
        let out = setup.scratch.path().join(format!("ledger-{}.json", options.first_sender));
        options.out = Some(out.clone());
        Load { options, out }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Load {
        change(&mut self.options);
        self
    }

    pub fn records(self, n: u64) -> Load {
        self.with(|o| (o.records, o.duration) = (Some(n), Duration::from_secs(120)))
    }

    pub fn rate(self, rate: f64, seconds: f64) -> Load {
        self.with(|o| (o.rate, o.duration) = (Some(rate), Duration::from_secs_f64(seconds)))
    }

    /// To the end.
    pub async fn send(self) -> Sent {
        let (_stop, stopping) = watch::channel(false);
        let summary = run(self.options, stopping).await.expect("a whole ledger");
        Sent { summary, ledger: Ledger::read(&self.out).expect("our own ledger") }
    }

    /// Beside what the scene does meanwhile.
    pub fn begin(self) -> Sending {
        let (stop, stopping) = watch::channel(false);
        let out = self.out;
        Sending { task: tokio::spawn(run(self.options, stopping)), stop, out }
    }
}

pub struct Sending {
    task: tokio::task::JoinHandle<std::io::Result<Summary>>,
    stop: watch::Sender<bool>,
    out: PathBuf,
}

impl Sending {
    pub async fn stop(self) -> Sent {
        let _ = self.stop.send(true);
        self.end().await
    }

    pub async fn end(self) -> Sent {
        let summary = self.task.await.expect("no panic").expect("a whole ledger");
        Sent { summary, ledger: Ledger::read(&self.out).expect("our own ledger") }
    }
}

pub struct Sent {
    pub summary: Summary,
    pub ledger: Ledger,
}

impl Sent {
    /// Waits until nothing is missing at the sink, or nothing new comes any more.
    pub fn verdict(&self, sink: &Sink) -> Verdict {
        let judged = || judge_patiently(&self.ledger, PATIENCE, || Ok(sink.report(true)));
        tokio::task::block_in_place(judged).expect("a report that can be judged")
    }

    /// All that was acknowledged is there, once, and nothing else of ours.
    pub fn assert_complete_and_once(&self, sink: &Sink) -> Verdict {
        let v = self.verdict(sink);
        assert_eq!((v.lost, v.duplicated, v.stored_though_refused), (0, 0, 0), "{v:?}");
        assert!(v.acked > 0, "nothing was acknowledged: {:?}", self.summary);
        v
    }
}
