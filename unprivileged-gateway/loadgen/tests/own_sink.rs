//! The load tool against its own sinks: before it may judge anything, it must see through a liar.

use loadgen::judge::{Verdict, judge, lane_of};
use loadgen::ledger::Ledger;
use loadgen::run::{Options, Summary, run};
use loadgen::sink::fault::{Fault, Nonsense};
use loadgen::sink::{self, Sink};
use loadgen::{Compression, Endpoint, Protocol, Signal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const ANY: &str = "127.0.0.1:0";

async fn sink(fault: Fault) -> Sink {
    let any = Some(ANY.parse().expect("an address"));
    let options =
        sink::Options { otlp_grpc: any, otlp_http: any, loki: any, pyroscope: None, control: any, keep: 0, fault };
    Sink::start(options).await.expect("free loopback ports")
}

fn endpoint(protocol: Protocol, address: Option<SocketAddr>) -> Endpoint {
    Endpoint { protocol, address: address.expect("an open door") }
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        Scratch(tempfile::tempdir().expect("a temporary folder"))
    }
    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger.json")
    }
}

async fn send(mut options: Options, scratch: &Scratch) -> (Summary, Ledger) {
    options.out = Some(scratch.ledger());
    let (_stop, stopping) = watch::channel(false);
    let summary = run(options, stopping).await.expect("a whole ledger");
    (summary, Ledger::read(&scratch.ledger()).expect("our own ledger"))
}

fn verdict(ledger: &Ledger, sink: &Sink) -> Verdict {
    let report = sink.report(true);
    judge(ledger, &report, lane_of(ledger.signal.expect("a signal"), &report)).expect("a report that can be judged")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_forgets_exactly_137_records_is_found_out() {
    let (sink, scratch) = (sink(Fault { lose: 137, ..Fault::default() }).await, Scratch::new());
    let mut options = Options::new(endpoint(Protocol::Grpc, sink.otlp_grpc), Signal::Logs);
    options.records = Some(20_000);
    let (summary, ledger) = send(options, &scratch).await;
    let verdict = verdict(&ledger, &sink);
    assert_eq!((summary.acked, verdict.acked, verdict.lost, verdict.duplicated), (20_000, 20_000, 137, 0));
    assert!(!verdict.lost_runs.is_empty());

    // The same through the binary: integers on stdout, exit code 3.
    let control = format!("http://{}", sink.control.expect("a control port"));
    let ledger = scratch.ledger();
    let judged = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("judge").arg("--ledger").arg(ledger).args(["--report", &control]).output()
    });
    let judged = judged.await.expect("no panic").expect("the binary runs");
    let text = String::from_utf8_lossy(&judged.stdout);
    assert!(text.contains("\"lost\": 137") && judged.status.code() == Some(3), "{text} {:?}", judged.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_signal_and_compression_arrives_whole_and_once() {
    let doors = [(Protocol::Grpc, 1), (Protocol::Http, 3)];
    for (protocol, connections) in doors {
        for signal in [Signal::Logs, Signal::Traces] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let (sink, scratch) = (sink(Fault::default()).await, Scratch::new());
                let address = if protocol == Protocol::Grpc { sink.otlp_grpc } else { sink.otlp_http };
                let mut options = Options::new(endpoint(protocol, address), signal);
                options.records = Some(3_000);
                options.batch = 70;
                (options.compression, options.connections) = (compression, connections);
                let (summary, ledger) = send(options, &scratch).await;
                let v = verdict(&ledger, &sink);
                let sent = 43 * 70; // the first multiple of the batch at or above 3,000
                assert_eq!(
                    (v.acked, v.unique_at_sink, v.lost, v.duplicated),
                    (sent, sent, 0, 0),
                    "{protocol:?} {signal:?}"
                );
                assert_eq!((summary.calls_broken, summary.calls_refused), (0, 0));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_keep_their_code_and_retry_info_and_nothing_of_them_counts_as_acked() {
    for (protocol, code) in [(Protocol::Grpc, 8), (Protocol::Http, 429)] {
        let fault = Fault { status: Some(429), ratio: Some(0.5), retry_after_s: Some(2), ..Fault::default() };
        let (sink, scratch) = (sink(fault).await, Scratch::new());
        let address = if protocol == Protocol::Grpc { sink.otlp_grpc } else { sink.otlp_http };
        let mut options = Options::new(endpoint(protocol, address), Signal::Logs);
        (options.rate, options.records) = (Some(50_000.0), Some(4_000));
        let (summary, ledger) = send(options, &scratch).await;
        let v = verdict(&ledger, &sink);
        assert_eq!((v.acked, v.refused, v.lost, v.stored_though_refused), (2_000, 2_000, 0, 0));
        assert_eq!(summary.refusals_by_code.get(&code), Some(&20));
        assert!(ledger.refusals.iter().all(|r| r.retry_after_ms == Some(2_000)), "{:?}", ledger.refusals);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_kept_although_its_call_was_refused_or_broken_is_named() {
    for (nonsense, status) in [(None, Some(503)), (Some(Nonsense::Close), None)] {
        let fault = Fault { status, nonsense, stores: true, ratio: Some(0.5), ..Fault::default() };
        let (sink, scratch) = (sink(fault).await, Scratch::new());
        let mut options = Options::new(endpoint(Protocol::Http, sink.otlp_http), Signal::Logs);
        (options.rate, options.records, options.connections) = (Some(50_000.0), Some(4_000), 1);
        let (_, ledger) = send(options, &scratch).await;
        let v = verdict(&ledger, &sink);
        assert_eq!((v.acked, v.lost, v.unique_at_sink), (2_000, 0, 4_000));
        let expected = if status.is_some() { (2_000, 0) } else { (0, 2_000) };
        assert_eq!((v.stored_though_refused, v.stored_in_the_dark), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_receiver_cannot_hide_its_delay_from_an_open_loop() {
    let (sink, scratch) = (sink(Fault { stall: true, for_s: Some(0.6), ..Fault::default() }).await, Scratch::new());
    let mut options = Options::new(endpoint(Protocol::Grpc, sink.otlp_grpc), Signal::Logs);
    (options.rate, options.records, options.connections, options.in_flight) = (Some(20_000.0), Some(16_000), 1, 1);
    let (summary, ledger) = send(options, &scratch).await;
    // One call in flight meets the stall; all that were due meanwhile count their wait too.
    assert!(summary.acked_latency_us.p50 > 50_000, "{:?}", summary.acked_latency_us);
    assert_eq!((verdict(&ledger, &sink).lost, summary.acked), (0, 16_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_comes_late_is_waited_for() {
    let spot = std::net::TcpListener::bind(ANY).expect("a free port");
    let address = spot.local_addr().expect("its address");
    drop(spot);
    let scratch = Scratch::new();
    let mut options = Options::new(endpoint(Protocol::Grpc, Some(address)), Signal::Logs);
    options.records = Some(1_000);
    options.duration = Duration::from_secs(20);
    options.out = Some(scratch.ledger());
    let (_stop, stopping) = watch::channel(false);
    let sending = tokio::spawn(run(options, stopping));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sink =
        Sink::start(sink::Options { otlp_grpc: Some(address), ..sink::Options::default() }).await.expect("the port");
    let summary = sending.await.expect("no panic").expect("a ledger");
    assert!(summary.connects_failed > 0 && summary.acked == 1_000 && summary.calls_broken == 0, "{summary:?}");
    assert_eq!(sink.report(false).unique, 1_000);
}

#[tokio::test]
async fn other_machines_are_refused_as_targets_and_as_addresses_to_listen_on() {
    assert!("grpc://192.0.2.1:4317".parse::<Endpoint>().is_err_and(|e| e.contains("not on loopback")));
    let open = sink::Options { loki: Some("0.0.0.0:0".parse().expect("an address")), ..sink::Options::default() };
    assert!(Sink::start(open).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_push_are_malformed_and_the_sink_lives_on() {
    let sink = sink(Fault::default()).await;
    let client = |path: &'static str, at: Option<SocketAddr>, body: Vec<u8>| {
        tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut socket = std::net::TcpStream::connect(at.expect("a door")).expect("a listener");
            write!(
                socket,
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .and_then(|()| socket.write_all(&body))
            .expect("a reader");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("an answer");
            answer
        })
    };
    for body in [
        vec![],
        vec![0xff; 50],
        b"hello".to_vec(),
        snap::raw::Encoder::new().compress_vec(b"\x0a\x05abc").expect("snappy"),
    ] {
        let answer = client("/loki/api/v1/push", sink.loki, body).await.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(sink.report(false).doors["loki"].malformed, 4);
}

#[tokio::test]
async fn nonsense_answers_come_and_go() {
    let sink = sink(Fault { nonsense: Some(Nonsense::Close), ..Fault::default() }).await;
    let mut options = Options::new(endpoint(Protocol::Http, sink.otlp_http), Signal::Logs);
    (options.records, options.connections) = (Some(500), 1);
    let (_stop, stopping) = watch::channel(false);
    let begun = Instant::now();
    let summary = run(options.clone(), stopping.clone()).await.expect("no ledger asked for");
    assert_eq!((summary.calls_broken, summary.acked), (5, 0), "{summary:?}");
    sink.fault(Fault::default());
    options.first_sender = 9;
    assert_eq!(run(options, stopping).await.expect("no ledger asked for").acked, 500);
    assert!(begun.elapsed() < Duration::from_secs(10));
}
