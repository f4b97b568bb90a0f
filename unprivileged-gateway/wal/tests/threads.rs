//! Appenders, the committer and readers at the same time, on a real folder.

mod sim;

use sim::{Dice, fid_of, payload};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use wal::*;

const APPENDERS: u64 = 3;
const FRAMES: u64 = 1500;

fn open(dir: &std::path::Path, start: u64) -> Log {
    let mut dice = Dice(start);
    let epoch = Epoch { counter: start, random: start };
    let options = LogOptions {
        segment_bytes: 200_000,
        tail_bytes: 50_000,
        ..LogOptions::new("logs", NodeId([1; 16]), epoch, Space::new(1 << 30, &["logs"]), Box::new(move || dice.next()))
    };
    let (log, _) = Log::open(Arc::new(RealDisk::open(dir).unwrap()), options, 1).unwrap();
    let sink = |name: &str| Destination { kind: "sink".into(), name: name.into(), ..Destination::default() };
    log.register(&[sink("fast"), sink("slow")], 1).unwrap();
    log
}

/// Reads until every frame has come; advances in between. Returns what came, in order.
fn take_all(log: &Log, name: &str, bytes: usize) -> Vec<u64> {
    let id = DestinationId::new("sink", name);
    let mut reader = log.reader(log.cursor(&id).unwrap().seq);
    let (mut got, mut last) = (Vec::new(), 0);
    while (got.len() as u64) < APPENDERS * FRAMES {
        let batch = reader.read(bytes).unwrap();
        assert!(batch.skipped.is_empty(), "{:?}", batch.skipped);
        for f in &batch.frames {
            assert!(f.seq > last && log.outcome(f.seq) == Outcome::Synced, "seen before it was synced");
            last = f.seq;
            got.push(fid_of(&f.payload).expect("a frame that nobody wrote"));
        }
        match batch.frames.last() {
            Some(f) => log.advance(&id, f.seq + 1, batch.frames.iter().map(|f| u64::from(f.items)).sum(), f.seq + 1),
            None => std::thread::yield_now(),
        }
    }
    got
}

#[test]
fn every_frame_reaches_every_reader_once_and_in_order_while_all_run_together() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| {
            while !done.load(SeqCst) {
                let _ = log.commit(2).unwrap();
                std::thread::yield_now();
            }
        });
        let readers: Vec<_> = [("fast", 1 << 20), ("slow", 3000)]
            .map(|(name, bytes)| {
                scope.spawn({
                    let log = log.clone();
                    move || take_all(&log, name, bytes)
                })
            })
            .into();
        for appender in 0..APPENDERS {
            let log = log.clone();
            scope.spawn(move || {
                for i in 0..FRAMES {
                    let body = payload(appender << 32 | i, i % 900);
                    let frame = NewFrame { parts: &[&body], items: 1, appended_at: 1, ..NewFrame::default() };
                    log.append(frame).unwrap();
                }
            });
        }
        for reader in readers {
            let got = reader.join().unwrap();
            for appender in 0..APPENDERS {
                let mine: Vec<u64> = got.iter().filter(|f| *f >> 32 == appender).map(|f| f & 0xffff_ffff).collect();
                assert_eq!(mine, (0..FRAMES).collect::<Vec<_>>(), "append order is the only order");
            }
        }
        done.store(true, SeqCst);
        committer.join().unwrap();
    });
    let _ = log.commit(3).unwrap();
    assert_eq!(log.stats().items, APPENDERS * FRAMES);
    // How many segments the race began depends on the machine; a few more frames make sure that old ones go.
    for _ in 0..200 {
        if log.stats().deleted > 0 {
            break;
        }
        let body = payload(u64::MAX, 32 << 10);
        log.append(NewFrame { parts: &[&body], items: 1, appended_at: 1, ..NewFrame::default() }).unwrap();
        let _ = log.commit(3).unwrap();
        for name in ["fast", "slow"] {
            log.advance(&DestinationId::new("sink", name), log.stats().synced_seq, 1, log.stats().synced_seq);
        }
        let _ = log.commit(3).unwrap();
    }
    assert!(log.stats().deleted > 0, "{:?}", log.stats());
    drop(log);
    let log = open(dir.path(), 2);
    assert!(log.stats().destinations.iter().all(|d| d.waiting == Waiting::default()), "{:?}", log.stats());
}
