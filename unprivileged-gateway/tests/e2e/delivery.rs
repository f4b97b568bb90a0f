//! What comes in goes out: all of it, once, whichever door, form and compression.

use crate::shared;
use e2e::gateway::Setup;
use e2e::load::{Load, sink};
use e2e::wait_for;
use loadgen::{Compression, Protocol, Signal};
use std::time::Duration;

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_reach_loki_complete_and_once() {
    let _stage = shared().await;
    let sink = sink().await;
    let setup = Setup::default().loki("logs", sink.loki, "");
    let gateway = setup.start();
    let mut total = 0;
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for compression in COMPRESSIONS {
            let load = Load::new(&setup, protocol, Signal::Logs).records(10_000).with(|o| o.compression = compression);
            let sent = load.send().await;
            assert_eq!((sent.summary.calls_refused, sent.summary.calls_broken), (0, 0), "{:?}", sent.summary);
            total += sent.assert_complete_and_once(&sink).acked;
        }
    }
    let ledger = wait_for("every record counted as sent", Duration::from_secs(5), || {
        Some(gateway.destination("loki", "logs")).filter(|d| d.sent == total)
    });
    assert!(ledger.adds_up() && ledger.accepted == total, "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_reach_an_otlp_backend_complete_and_once() {
    let _stage = shared().await;
    for (out, more) in [(Protocol::Grpc, "protocol: grpc"), (Protocol::Http, "protocol: http")] {
        for packed in ["none", "gzip", "zstd"] {
            let sink = sink().await;
            let at = if out == Protocol::Grpc { sink.otlp_grpc } else { sink.otlp_http };
            let setup =
                Setup::default().otlp("tempo", at, &format!("{more}, signals: [ traces ], compression: {packed}"));
            let gateway = setup.start();
            let mut total = 0;
            for protocol in [Protocol::Grpc, Protocol::Http] {
                let sent = Load::new(&setup, protocol, Signal::Traces).records(4_000).send().await;
                total += sent.assert_complete_and_once(&sink).acked;
            }
            let ledger = wait_for("every span counted as sent", Duration::from_secs(5), || {
                Some(gateway.destination("otlp", "tempo")).filter(|d| d.sent == total)
            });
            assert!(ledger.adds_up(), "{ledger:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_destination_gets_every_record_of_its_signals() {
    let _stage = shared().await;
    let (one, two, three) = (sink().await, sink().await, sink().await);
    let setup = Setup::default().loki("one", one.loki, "").loki("two", two.loki, "").otlp(
        "both",
        three.otlp_grpc,
        "protocol: grpc, signals: [ logs, traces ]",
    );
    let gateway = setup.start();
    let logs = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(5_000).send().await;
    let traces = Load::new(&setup, Protocol::Http, Signal::Traces).records(5_000).send().await;
    for sink in [&one, &two, &three] {
        logs.assert_complete_and_once(sink);
    }
    traces.assert_complete_and_once(&three);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_without_a_destination_is_not_served() {
    let _stage = shared().await;
    let sink = sink().await;
    let setup = Setup::default().loki("logs", sink.loki, "");
    let _gateway = setup.start();
    for (protocol, code) in [(Protocol::Grpc, 12), (Protocol::Http, 404)] {
        let sent = Load::new(&setup, protocol, Signal::Traces).records(100).send().await;
        assert_eq!(sent.summary.refusals_by_code.keys().copied().collect::<Vec<_>>(), [code], "{:?}", sent.summary);
        assert_eq!(sent.summary.acked, 0);
    }
}
