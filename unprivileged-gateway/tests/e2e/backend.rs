//! Backends as they are on a bad day: absent, slow, refusing, talking nonsense. Data waits; what cannot be taken is set aside.

use crate::{alone, shared};
use e2e::gateway::{Gateway, Setup};
use e2e::load::{Load, Sent, sink, sink_at};
use e2e::wait_for;
use loadgen::sink::Sink;
use loadgen::sink::fault::{Fault, Nonsense};
use loadgen::{Protocol, Signal};
use std::net::SocketAddr;
use std::time::Duration;

/// Reached by retries with growing pauses, on a machine that does other things too.
const SEEN: Duration = Duration::from_secs(30);

/// Records sent while a fault is on; the fault must have been met before it is cleared.
async fn under(fault: Fault) -> (Setup, Gateway, Sink, Sent) {
    let sink = sink().await;
    sink.fault(fault);
    let setup = Setup::default().loki("logs", sink.loki, "");
    let gateway = setup.start();
    let sent = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(5_000).send().await;
    assert_eq!((sent.summary.calls_refused, sent.summary.calls_broken), (0, 0), "{:?}", sent.summary);
    (setup, gateway, sink, sent)
}

fn faults_met(sink: &Sink) -> u64 {
    sink.report(false).doors.get("loki").map_or(0, |d| d.faulted.values().sum())
}

async fn waits_and_delivers(fault: Fault) {
    let name = format!("{fault:?}");
    let (_setup, gateway, sink, sent) = under(fault).await;
    wait_for("the fault was met twice", SEEN, || (faults_met(&sink) >= 2).then_some(()));
    let waiting = gateway.destination("loki", "logs");
    assert!(waiting.waiting == 5_000 && !waiting.last_error.is_empty() && waiting.adds_up(), "{name}: {waiting:?}");
    assert!(gateway.ready(), "a backend's trouble is not the gateway's: {name}");
    sink.fault(Fault::default());
    let v = sent.verdict(&sink);
    assert_eq!((v.lost, v.duplicated), (0, 0), "{name}: {v:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_answers_503_is_asked_again() {
    let _stage = shared().await;
    waits_and_delivers(Fault { status: Some(503), ..Fault::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_out_of_quota_is_asked_again() {
    let _stage = shared().await;
    waits_and_delivers(Fault { status: Some(429), ..Fault::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_not_taken_for_a_yes() {
    let _stage = shared().await;
    waits_and_delivers(Fault { nonsense: Some(Nonsense::OddStatus), ..Fault::default() }).await;
    waits_and_delivers(Fault { nonsense: Some(Nonsense::Close), ..Fault::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_on_the_way_costs_repeats_and_nothing_else() {
    let _stage = shared().await;
    let fault = Fault { nonsense: Some(Nonsense::Close), stores: true, ..Fault::default() };
    let (_setup, _gateway, sink, sent) = under(fault).await;
    wait_for("the fault was met", SEEN, || (faults_met(&sink) >= 1).then_some(()));
    sink.fault(Fault::default());
    wait_for("what had no answer comes again", SEEN, || (sink.report(false).duplicates > 0).then_some(()));
    let v = sent.verdict(&sink);
    assert!(v.lost == 0 && v.duplicated > 0, "{v:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_comes_late_gets_everything() {
    let _stage = shared().await;
    let late = SocketAddr::from(([127, 0, 0, 1], e2e::free_port()));
    let setup = Setup::default().loki("logs", Some(late), "");
    let gateway = setup.start();
    let sent = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(5_000).send().await;
    let waiting = gateway.destination("loki", "logs");
    assert_eq!((waiting.waiting, sent.summary.acked), (5_000, 5_000), "{waiting:?}");
    let sink = sink_at(Some(late)).await;
    sent.assert_complete_and_once(&sink);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_400_sets_the_batch_aside_and_the_rest_goes_on() {
    let _stage = shared().await;
    let (_setup, gateway, sink, sent) = under(Fault { status: Some(400), ..Fault::default() }).await;
    let aside = wait_for("something in quarantine", SEEN, || {
        Some(gateway.destination("loki", "logs")).filter(|d| d.quarantined > 0 && d.waiting == 0)
    });
    sink.fault(Fault::default());
    assert!(aside.adds_up(), "{aside:?}");
    let v = sent.verdict(&sink);
    assert_eq!(v.lost, aside.quarantined, "what the backend refused is in quarantine, nothing else is missing: {v:?}");
    let after = Load::new(&_setup, Protocol::Grpc, Signal::Logs).records(1_000).send().await;
    after.assert_complete_and_once(&sink);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_400_with_an_endless_body_is_read_with_a_cap() {
    let _stage = alone().await;
    let (_setup, mut gateway, sink, _sent) =
        under(Fault { nonsense: Some(Nonsense::Endless), ..Fault::default() }).await;
    wait_for("the fault was met", SEEN, || (faults_met(&sink) >= 1).then_some(()));
    tokio::time::sleep(Duration::from_secs(1)).await; // long enough for gigabytes, were they read
    let (now, peak) = gateway.memory();
    assert!(gateway.alive() && peak < 128 << 20, "{now} bytes now, {peak} at the peak");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_its_limit_does_not_hold_up_the_others() {
    let _stage = shared().await;
    let fault = Fault { status: Some(429), stream: Some("service_name=\"cart\"".into()), ..Fault::default() };
    let (_setup, gateway, sink, sent) = under(fault).await;
    // The load has four services in equal parts; three of them must arrive while the fourth is over its limit.
    wait_for("the other streams at the sink", SEEN, || (sink.report(false).unique >= 3_750).then_some(()));
    let row = gateway.destination("loki", "logs");
    assert!(row.adds_up() && row.quarantined == 0, "{row:?}");
    sink.fault(Fault::default());
    let v = sent.verdict(&sink);
    println!("one stream over its limit: {v:?}");
    assert_eq!(v.lost, 0, "{v:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_backend_is_not_felt_by_senders() {
    let _stage = alone().await;
    let sink = sink().await;
    sink.fault(Fault { stall: true, ..Fault::default() });
    let setup = Setup::default().loki("logs", sink.loki, "");
    let gateway = setup.start();
    let sent = Load::new(&setup, Protocol::Grpc, Signal::Logs).rate(5_000.0, 6.0).send().await;
    let s = &sent.summary;
    assert_eq!((s.calls_refused, s.calls_broken, s.late), (0, 0, 0), "{s:?}");
    assert!(s.acked_latency_us.p99 < 1_000_000, "{s:?}");
    sink.fault(Fault::default());
    let v = sent.verdict(&sink);
    assert_eq!((v.lost, v.stored_though_refused), (0, 0), "{v:?}");
    let peak = gateway.memory().1 >> 20;
    println!("stalled: ack p99 {} ms, peak {peak} MiB, {v:?}", s.acked_latency_us.p99 / 1_000);
    assert!(peak <= 128, "peak {peak} MiB");
}
