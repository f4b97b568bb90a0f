//! The log on a real folder: what goes in comes out, across rolls and restarts.

use std::sync::Arc;
use wal::*;

fn numbers(seed: u64) -> Box<dyn FnMut() -> u64 + Send> {
    let mut n = seed;
    Box::new(move || {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        n
    })
}

fn options(space: &Arc<Space>, start: u64) -> LogOptions {
    let epoch = Epoch { counter: start, random: start };
    LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::new("logs", NodeId([1; 16]), epoch, space.clone(), numbers(start))
    }
}

fn destination(name: &str) -> Destination {
    Destination { kind: "loki".into(), name: name.into(), ..Destination::default() }
}

fn append(log: &Log, i: u64, bytes: usize) -> u64 {
    let payload: Vec<u8> = (0..bytes).map(|k| (i as usize + k) as u8).collect();
    let parts: [&[u8]; 2] = [&payload[..bytes / 2], &payload[bytes / 2..]];
    let frame = NewFrame { parts: &parts, items: 3, appended_at: 1000 + i, ..NewFrame::default() };
    match log.append(frame).unwrap() {
        Appended::New { seq } => seq,
        other => panic!("{other:?}"),
    }
}

fn read_all(log: &Log, from: u64) -> Vec<Frame> {
    let mut reader = log.reader(from);
    let mut out = Vec::new();
    loop {
        let batch = reader.read(50_000).unwrap();
        assert!(batch.skipped.is_empty(), "{:?}", batch.skipped);
        if batch.frames.is_empty() {
            return out;
        }
        out.extend(batch.frames);
    }
}

#[test]
fn frames_come_back_in_order_across_rolls_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let space = Space::new(1 << 30, &["logs"]);
    let (log, recovery) = Log::open(disk.clone(), options(&space, 1), 0).unwrap();
    assert_eq!(recovery.state, StateFound::Empty);
    log.register(&[destination("a")], 1).unwrap();
    for i in 0..200 {
        let seq = append(&log, i, 1 + (i as usize * 37) % 5000);
        assert_eq!(seq, i + 1);
        assert_eq!(log.outcome(seq), Outcome::Pending);
        if i % 3 == 0 {
            assert!(log.commit(2).unwrap().below() > seq);
            assert_eq!(log.outcome(seq), Outcome::Synced);
        }
    }
    let _ = log.commit(3).unwrap();
    assert!(!log.commit(3).unwrap().wrote());
    let frames = read_all(&log, 0);
    assert_eq!(frames.iter().map(|f| f.seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    assert!(log.stats().segments > 3);
    let id = destination("a").id();
    assert_eq!(log.waiting(&id).items, 600);
    log.advance(&id, 101, 300, 0);
    let _ = log.commit(4).unwrap();
    assert_eq!((log.waiting(&id).items, log.waiting(&id).oldest_appended_at), (300, Some(1100)));
    drop(log);

    let (log, recovery) = Log::open(disk, options(&space, 2), 5).unwrap();
    assert_eq!(recovery.state, StateFound::Whole);
    assert_eq!(log.cursor(&id).unwrap().seq, 101);
    assert_eq!(log.waiting(&id).items, 300);
    log.register(&[destination("a")], 6).unwrap();
    let again = read_all(&log, 101);
    assert_eq!(again.iter().map(|f| f.seq).collect::<Vec<_>>(), (101..=200).collect::<Vec<_>>());
    for (a, b) in again.iter().zip(&frames[100..]) {
        assert_eq!((a.payload.clone(), a.items, a.epoch, a.hash), (b.payload.clone(), b.items, b.epoch, b.hash));
    }
    log.advance(&id, 201, 300, 0);
    for i in 200..300 {
        append(&log, i, 3000);
        let _ = log.commit(7).unwrap();
    }
    log.advance(&id, 301, 300, 0);
    let _ = log.commit(8).unwrap();
    let stats = log.stats();
    assert!(stats.segments <= 3 && stats.deleted > 3, "{stats:?}");
    assert_eq!(log.waiting(&id), Waiting::default());
}

#[test]
fn a_segment_with_frames_is_rolled_after_a_minute_and_an_empty_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let space = Space::new(1 << 30, &["logs"]);
    let (log, _) = Log::open(disk, options(&space, 1), 0).unwrap();
    log.register(&[destination("a")], 0).unwrap();
    let before = log.stats().segments;
    assert!(!log.commit(10 * ROLL_AGE_NS).unwrap().wrote());
    append(&log, 1, 10);
    let _ = log.commit(10 * ROLL_AGE_NS).unwrap();
    assert!(!log.commit(10 * ROLL_AGE_NS + 1).unwrap().wrote());
    assert_eq!(log.stats().segments, before);
    assert!(log.commit(11 * ROLL_AGE_NS + 1).unwrap().wrote());
    assert_eq!(log.stats().segments, before + 1);
}
