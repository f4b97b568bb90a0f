//! Destinations come, go and change their names; what was promised to them stays.

use crate::shared;
use e2e::gateway::Setup;
use e2e::load::{Load, sink};
use e2e::wait_for;
use loadgen::sink::fault::Fault;
use loadgen::{Protocol, Signal};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_commented_out_with_a_backlog_gets_it_when_put_back() {
    let _stage = shared().await;
    let (a, b) = (sink().await, sink().await);
    let mut setup = Setup::default().loki("a", a.loki, "").loki("b", b.loki, "");
    let gateway = setup.start();
    a.fault(Fault { status: Some(503), ..Fault::default() });
    let first = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(3_000).send().await;
    first.assert_complete_and_once(&b);
    assert_eq!(gateway.terminate().0.code(), Some(0));

    let row = setup.loki.remove(0);
    let gateway = setup.start();
    let gone = gateway.destination("loki", "a");
    assert!(!gone.configured && gone.waiting >= 3_000, "named with its backlog although commented out: {gone:?}");
    let second = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(2_000).send().await;
    second.assert_complete_and_once(&b);
    assert_eq!(gateway.terminate().0.code(), Some(0));

    setup.loki.push(row);
    a.fault(Fault::default());
    let _gateway = setup.start();
    for sent in [&first, &second] {
        let v = sent.verdict(&a);
        assert_eq!((v.lost, v.duplicated), (0, 0), "{v:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_destination_goes_on_where_the_old_one_stopped() {
    let _stage = shared().await;
    let sink = sink().await;
    let mut setup = Setup::default().loki("old", sink.loki, "");
    let gateway = setup.start();
    let delivered = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(3_000).send().await;
    delivered.assert_complete_and_once(&sink);
    wait_for("the cursor at the end", Duration::from_secs(5), || {
        (gateway.destination("loki", "old").waiting == 0).then_some(())
    });
    sink.fault(Fault { status: Some(503), ..Fault::default() });
    let waiting = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(3_000).send().await;
    assert_eq!(gateway.terminate().0.code(), Some(0));

    setup.loki = vec![("new".into(), sink.loki.expect("an open door"), "was: old".into())];
    sink.fault(Fault::default());
    let gateway = setup.start();
    for sent in [&delivered, &waiting] {
        let v = sent.verdict(&sink);
        assert_eq!((v.lost, v.duplicated), (0, 0), "{v:?}");
    }
    let rows = gateway.status()["destinations"].as_array().cloned().unwrap_or_default();
    assert!(!rows.iter().any(|r| r["name"] == "old"), "the old name is gone: {rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_destination_starts_now_or_at_the_oldest_record_as_it_says() {
    let _stage = shared().await;
    let (old, now, oldest) = (sink().await, sink().await, sink().await);
    let setup = Setup::default().loki("old", old.loki, "");
    old.fault(Fault { status: Some(503), ..Fault::default() });
    let gateway = setup.start();
    let before = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(2_000).send().await;
    assert_eq!(gateway.terminate().0.code(), Some(0));
    let setup = setup.loki("now", now.loki, "from: now").loki("oldest", oldest.loki, "from: oldest");
    let _gateway = setup.start();
    let after = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(2_000).send().await;
    for sent in [&before, &after] {
        sent.assert_complete_and_once(&oldest);
    }
    after.assert_complete_and_once(&now);
    assert_eq!(now.report(false).unique, after.summary.acked);
}
