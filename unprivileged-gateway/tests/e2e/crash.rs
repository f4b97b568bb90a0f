//! `kill -9`, again and again, at moments nobody chose: what was acknowledged is at the backend in the end.

use crate::alone;
use e2e::gateway::{Gateway, Setup};
use e2e::load::{Load, Sending, Sent, sink};
use e2e::{rounds, wait_for};
use loadgen::sink::Sink;
use loadgen::sink::fault::Fault;
use loadgen::sink::record::Lane;
use loadgen::{Protocol, Signal};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// interface.md, "Times": ready within 2 s, whatever the backlog and after kill -9.
const READY_AFTER_KILL: Duration = Duration::from_secs(2);
/// interface.md, "Times": sent again after a crash, at most what was sent in the last second; plus what two pushes hold.
const AGAIN_S: f64 = 1.0;
const AGAIN_SLACK: u64 = 20_000;
/// Records a second of each signal.
const RATE: f64 = 4_000.0;

/// How many records a sink had received at past moments: the yardstick for duplicates.
struct Meter {
    samples: Arc<Mutex<Vec<(Instant, u64)>>>,
    task: tokio::task::JoinHandle<()>,
}

fn received(sink: &Sink) -> u64 {
    sink.report(false).doors.values().map(|d| d.records).sum()
}

impl Meter {
    fn start(sink: &Arc<Sink>) -> Meter {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (sink, samples) = (sink.clone(), samples.clone());
            async move {
                loop {
                    samples.lock().expect("no panic").push((Instant::now(), received(&sink)));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Meter { samples, task }
    }

    /// Records received within `window` before now.
    fn lately(&self, sink: &Sink, window: Duration) -> u64 {
        let samples = self.samples.lock().expect("no panic");
        let now = Instant::now();
        let before = samples.iter().rev().find(|s| now - s.0 >= window).map_or(0, |s| s.1);
        received(sink) - before
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn loads(setup: &Setup) -> Vec<Sending> {
    let pairs = [(Protocol::Grpc, Signal::Logs), (Protocol::Http, Signal::Traces)];
    let load = |(protocol, signal)| Load::new(setup, protocol, signal).rate(RATE, 600.0).with(|o| o.batch = 40).begin();
    pairs.map(load).into()
}

/// What the backend does during a round. The first rounds have none at all: no cursor was ever written.
fn weather(round: u32) -> (&'static str, Fault) {
    let fault = match round {
        0..3 => Fault { nonsense: Some(loadgen::sink::fault::Nonsense::Close), ..Fault::default() },
        _ => match round % 4 {
            0 => Fault { status: Some(503), ratio: Some(0.5), ..Fault::default() },
            1 => Fault { stall: true, ..Fault::default() },
            _ => Fault::default(),
        },
    };
    let name = ["503 half the time", "stalled", "well", "well"][(round % 4) as usize];
    (if round < 3 { "down from the start" } else { name }, fault)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let _stage = alone().await;
    let sink = Arc::new(sink().await);
    let mut setup = Setup::default().loki("logs", sink.loki, "").otlp(
        "tempo",
        sink.otlp_grpc,
        "protocol: grpc, signals: [ traces ]",
    );
    setup.storage_max = "128MiB".into(); // segments of 2 MiB: some kills fall into a roll
    let meter = Meter::start(&sink);
    let (mut sent, mut allowed, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    let kills = rounds("BULKHEAD_KILLS", 10);
    let mut gateway = setup.start();
    for round in 0..kills {
        let (name, fault) = weather(round);
        sink.fault(fault);
        let loads = loads(&setup);
        // Moments spread over a commit window and over a second of cursors, the same in every run.
        tokio::time::sleep(Duration::from_millis(250 + u64::from(round) * 617 % 1_300)).await;
        gateway.kill();
        allowed += meter.lately(&sink, Duration::from_secs_f64(AGAIN_S)) + AGAIN_SLACK;
        if round % 2 == 1 {
            let _ = std::fs::remove_dir_all(setup.storage.join("index")); // sled is a convenience, never needed
        }
        gateway = setup.spawn(&setup.command());
        let ready = gateway.wait_ready(e2e::gateway::READY_MAX);
        slowest = slowest.max(ready);
        for load in loads {
            sent.push(load.stop().await);
        }
        println!("round {round}: backend {name}, ready again after {} ms", ready.as_millis());
    }
    sink.fault(Fault::default());
    let duplicates = settle(&sent, &sink, &gateway);
    println!("{kills} kills, slowest ready {} ms, duplicates {duplicates}, allowed {allowed}", slowest.as_millis());
    assert!(
        duplicates <= allowed,
        "{duplicates} records twice, more than the {allowed} of the last second before each kill"
    );
    assert!(slowest <= READY_AFTER_KILL, "ready only after {slowest:?}");
    assert!(sink.missing(Lane::Loki, u32::MAX, 1) == 1, "a sender that never sent is missing");
}

/// Judges every load; gives the duplicates.
fn settle(sent: &[Sent], sink: &Sink, gateway: &Gateway) -> u64 {
    let mut duplicates = 0;
    let mut acked = 0;
    for one in sent {
        let v = one.verdict(sink);
        assert_eq!((v.lost, v.stored_though_refused), (0, 0), "{v:?}\n{:?}", one.summary);
        duplicates += v.duplicated;
        acked += v.acked;
    }
    assert!(acked > 0, "no load got through");
    for (kind, name) in [("loki", "logs"), ("otlp", "tempo")] {
        let ledger = wait_for("the ledger adds up with nothing waiting", Duration::from_secs(10), || {
            Some(gateway.destination(kind, name)).filter(|d| d.waiting == 0)
        });
        assert!(ledger.adds_up() && ledger.damaged == 0 && ledger.dropped == 0, "{ledger:?}");
    }
    duplicates
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_neither_delays_the_start_nor_fills_the_memory() {
    let _stage = alone().await;
    let sink = sink().await;
    sink.fault(Fault { stall: true, ..Fault::default() });
    let setup = Setup::default().loki("logs", sink.loki, "");
    let gateway = setup.start();
    let load = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(1_000_000).with(|o| o.batch = 1_000);
    let sent = load.send().await;
    assert_eq!(sent.summary.calls_refused, 0, "{:?}", sent.summary);
    gateway.kill();
    let mut gateway = setup.spawn(&setup.command());
    let ready = gateway.wait_ready(e2e::gateway::READY_MAX);
    let waiting = gateway.destination("loki", "logs");
    assert!(waiting.waiting >= sent.summary.acked && waiting.adds_up(), "{waiting:?}");
    sink.fault(Fault::default());
    let v = sent.verdict(&sink);
    let peak = gateway.memory().1 >> 20;
    println!("ready after {} ms with {} records waiting, peak {peak} MiB, {v:?}", ready.as_millis(), waiting.waiting);
    assert_eq!(v.lost, 0, "{v:?}");
    assert!(ready <= READY_AFTER_KILL, "ready only after {ready:?}");
    assert!(peak <= 128, "peak {peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_it_within_five_seconds_with_0_and_keeps_the_backlog() {
    let _stage = alone().await;
    let sink = sink().await;
    sink.fault(Fault { stall: true, ..Fault::default() });
    let setup = Setup::default().loki("logs", sink.loki, "");
    let gateway = setup.start();
    let load = Load::new(&setup, Protocol::Grpc, Signal::Logs).rate(10_000.0, 600.0).begin();
    wait_for("a backlog", Duration::from_secs(10), || {
        (gateway.destination("loki", "logs").waiting > 5_000).then_some(())
    });
    let (status, took) = gateway.terminate();
    let sent = load.stop().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "took {took:?}");
    sink.fault(Fault::default());
    let _gateway = setup.start();
    let v = sent.verdict(&sink);
    assert_eq!((v.lost, v.stored_though_refused), (0, 0), "{v:?}");
}
