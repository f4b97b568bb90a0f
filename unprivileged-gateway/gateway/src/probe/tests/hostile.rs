//! A probe that has been taken over, or never was one.

use super::*;
use crate::probe::inbox::Inbox;
use crate::probe::session::{Desk, End as Over, run};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

fn desk(store: &Store, telemetry: &Telemetry) -> Desk {
    Desk {
        store: store.clone(),
        telemetry: telemetry.clone(),
        board: Board::new(Path::new("/none"), telemetry.clone()),
        node: "n".into(),
        sources: Default::default(),
        window: None,
        limits: Default::default(),
        said: Default::default(),
    }
}

/// What a session says to these bytes and a closed connection.
fn answer(store: &Store, telemetry: &Telemetry, budget: &Budget, bytes: &[u8]) -> (Over, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(bytes.len().max(4096));
        let (_stop, stopped) = watch::channel(false);
        theirs.write_all(bytes).await.expect("a pipe in memory");
        theirs.shutdown().await.expect("a pipe in memory");
        let budget = budget.clone();
        let mut desk = desk(store, telemetry);
        let session = run(&mut desk, |from| Inbox::new(from, budget), ours, stopped);
        tokio::time::timeout(PATIENCE, session).await.expect("the session ends")
    })
}

fn script() -> Vec<u8> {
    let mut out = Vec::new();
    let (head, table) = window(1, 3);
    let messages: [(u64, Message, Vec<u8>); 7] = [
        (0, Message::Hello(hello(1)), vec![]),
        (0, Message::Opened(opened(3, 1, 0)), vec![]),
        (1, Message::LogBytes(LogBytes { file: 3, offset: 0 }), b"one\ntwo\n".to_vec()),
        (1, Message::Stacks(head), table.encode()),
        (0, Message::Status(Box::default()), vec![]),
        (2, Message::LogBytes(LogBytes { file: 3, offset: 8 }), b"three\n".to_vec()),
        (0, Message::Closed(Closed { file: 3, end: 14, reason: "deleted".into() }), vec![]),
    ];
    for (seq, message, bulk) in messages {
        ipc::write_frame(&mut out, seq, &message, &bulk).expect("a vector grows");
    }
    out
}

#[test]
fn bytes_that_are_not_the_protocol_end_the_connection_and_nothing_else() {
    let house = House::new();
    let (store, telemetry) = house.store(&house.storage);
    let budget = Budget::new(16 << 20);
    let honest = script();
    assert_eq!(
        answer(&store, &telemetry, &budget, &honest),
        (Over::Gone("the probe closed the connection".into()), true)
    );
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
    );
    proptest!(config, |((altered, noise, hits, cut) in strategy)| {
        let bytes = match altered {
            true => {
                let mut bytes = honest.clone();
                for (at, value) in &hits {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
                bytes.truncate(cut.index(bytes.len()) + 1);
                bytes
            }
            false => noise,
        };
        let (end, _) = answer(&store, &telemetry, &budget, &bytes);
        prop_assert!(matches!(end, Over::Gone(_) | Over::Broken(_)), "{end:?}");
        prop_assert_eq!(budget.used(), 0);
    });
    store.close();
}

#[test]
fn frames_out_of_order_and_files_never_announced_are_not_believed() {
    let house = House::new();
    let (store, telemetry) = house.store(&house.storage);
    let budget = Budget::new(16 << 20);
    let bytes = |frames: &[(u64, Message)]| {
        let mut out = Vec::new();
        ipc::write_frame(&mut out, 0, &Message::Hello(hello(1)), b"").expect("a vector grows");
        for (seq, message) in frames {
            ipc::write_frame(&mut out, *seq, message, b"").expect("a vector grows");
        }
        out
    };
    let open = |file, id| Message::Opened(opened(file, id, 0));
    let piece = |file| Message::LogBytes(LogBytes { file, offset: 0 });
    let wild = Message::LogBytes(LogBytes { file: 1, offset: u64::MAX });
    let cases: [(&str, Vec<(u64, Message)>); 5] = [
        ("was not announced", vec![(1, piece(7))]),
        ("after frame 1", vec![(0, open(1, 1)), (1, piece(1)), (3, piece(1))]),
        ("after frame 5", vec![(5, Message::Stacks(window(1, 1).0)), (5, Message::Stacks(window(1, 1).0))]),
        ("second file", vec![(0, open(1, 1)), (0, open(1, 2))]),
        ("second Hello", vec![(0, Message::Hello(hello(1)))]),
    ];
    for (why, frames) in cases {
        let (end, greeted) = answer(&store, &telemetry, &budget, &bytes(&frames));
        assert!(greeted && matches!(&end, Over::Broken(text) if text.contains(why)), "{why}: {end:?}");
    }
    let mut far = bytes(&[(0, open(1, 1))]);
    ipc::write_frame(&mut far, 1, &wild, b"x\n").expect("a vector grows");
    assert!(matches!(answer(&store, &telemetry, &budget, &far).0, Over::Broken(_)));
    let mut late = Vec::new();
    ipc::write_frame(&mut late, 0, &Message::Status(Box::default()), b"").expect("a vector grows");
    assert!(matches!(answer(&store, &telemetry, &budget, &late), (Over::Broken(_), false)));
    let mut other = Vec::new();
    let newer = Hello { version: VERSION + 1, ..hello(1) };
    ipc::write_frame(&mut other, 0, &Message::Hello(newer), b"").expect("a vector grows");
    let (end, _) = answer(&store, &telemetry, &budget, &other);
    assert!(matches!(&end, Over::Broken(text) if text.contains("update both")), "{end:?}");
    store.close();
}

#[test]
fn a_rude_probe_is_asked_again_after_pauses_that_grow() {
    let (_house, mut probe, gateway) = street();
    let begun = Instant::now();
    for _ in 0..2 {
        let mut line = probe.accept();
        line.raw(&[b'?'; 64]);
        line.hung_up();
    }
    // The pause after the first rudeness has passed; an honest probe at the same place is served.
    let mut line = probe.greet(1);
    assert!(begun.elapsed() >= Duration::from_secs(3), "1 s and then 2 s: {:?}", begun.elapsed());
    line.open(1, 1, 0);
    line.bytes(1, 1, 0, "x\n");
    line.until(Index::Logs, 1);
    gateway.end();
}
