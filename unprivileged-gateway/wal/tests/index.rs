//! The index shortens the way and is never needed.

mod sim;

use sim::{Dice, fid_of, payload};
use std::sync::Arc;
use wal::*;

fn log(dir: &std::path::Path, start: u64) -> Log {
    let mut dice = Dice(start);
    let space = Space::new(1 << 30, &["logs"]);
    let epoch = Epoch { counter: start, random: start };
    let options = LogOptions {
        segment_bytes: 4 << 20,
        tail_bytes: 0,
        ..LogOptions::new("logs", NodeId([1; 16]), epoch, space, Box::new(move || dice.next()))
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&dir.join("logs")).unwrap());
    let (log, _) = Log::open(disk, options, 1).unwrap();
    log.register(&[Destination { kind: "sink".into(), name: "a".into(), ..Destination::default() }], 1).unwrap();
    log
}

fn fill(log: &Log, frames: u64) {
    for i in 0..frames {
        let body = payload(i, 20_000);
        let frame = NewFrame { parts: &[&body], items: 1, appended_at: 100 + i, ..NewFrame::default() };
        log.append(frame).unwrap();
        if i % 16 == 0 {
            let _ = log.commit(1).unwrap();
        }
    }
    let _ = log.commit(1).unwrap();
}

fn one(log: &Log, seq: u64) -> u64 {
    let frame = log.reader(seq).read(1).unwrap().frames.remove(0);
    assert_eq!(fid_of(&frame.payload), Some(seq - 1));
    frame.seq
}

#[test]
fn a_reader_far_behind_finds_its_place_through_the_index_and_without_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(&log(dir.path(), 1), 600);
    let log = log(dir.path(), 2);
    let path = dir.path().join("index");
    let index = Index::open(&path);
    assert!(index.is_fresh() && index.is_on());
    while index.feed(&log) > 0 {}
    index.attach(&log);
    for seq in [1, 2, 150, 151, 333, 600] {
        assert_eq!(one(&log, seq), seq);
    }
    let known = index.segments("logs");
    assert!(known.len() >= 2, "{known:?}");
    assert_eq!((known[0].first_seq, known[0].first_time), (1, 100));
    assert!(known.iter().all(|s| s.items == s.frames && s.bytes == s.frames * 20_016), "{known:?}");
    index.note("quarantine", 7, b"loki/a: too old");
    assert_eq!(index.notes("quarantine", 0, 10), [(7, b"loki/a: too old".to_vec())]);
    index.doubt("a test says so");
    assert!(index.notes("quarantine", 0, 10).is_empty() && index.segments("logs").is_empty());
    assert_eq!(one(&log, 333), 333);
}

#[test]
fn an_index_full_of_rubbish_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path(), 1);
    fill(&log, 300);
    let path = dir.path().join("index");
    drop(Index::open(&path));
    for entry in std::fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            std::fs::write(file, [0x5a; 3000]).unwrap();
        }
    }
    let index = Index::open(&path);
    index.attach(&log);
    while index.feed(&log) > 0 {}
    assert!(index.is_on());
    assert_eq!(one(&log, 77), 77);
}

#[test]
fn an_index_of_another_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(&log(a.path(), 1), 400);
    let first = log(a.path(), 2);
    let index = Index::open(&dir.path().join("index"));
    while index.feed(&first) > 0 {}
    // Same name, same segment numbers, other contents: the nonce tells them apart.
    fill(&log(b.path(), 3), 600);
    let second = log(b.path(), 4);
    index.attach(&second);
    for seq in [1, 100, 250, 599] {
        assert_eq!(one(&second, seq), seq);
    }
}
