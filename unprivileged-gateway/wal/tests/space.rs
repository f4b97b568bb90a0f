//! Room: who may hold it, and who gives way.

mod sim;

use sim::{Dice, fid_of, payload};
use std::sync::Arc;
use wal::forgetful::ForgetfulDisk;
use wal::*;

const MINUTE: u64 = 60_000_000_000;

fn open(disk: &ForgetfulDisk, name: &str, space: &Arc<Space>, retain_ns: u64) -> Log {
    let mut dice = Dice(1);
    let epoch = Epoch { counter: 1, random: 1 };
    let options = LogOptions {
        segment_bytes: 16_384,
        retain_ns,
        tail_bytes: 20_000,
        ..LogOptions::new(name, NodeId([1; 16]), epoch, space.clone(), Box::new(move || dice.next()))
    };
    Log::open(Arc::new(disk.clone()), options, 1).unwrap().0
}

fn destination(kind: &str, name: &str) -> Destination {
    Destination { kind: kind.into(), name: name.into(), ..Destination::default() }
}

fn append(log: &Log, fid: u64) -> Result<u64, Refused> {
    let body = payload(fid, 3000);
    let frame = NewFrame { parts: &[&body], items: 1, appended_at: fid, ..NewFrame::default() };
    log.append(frame).map(|a| match a {
        Appended::New { seq } => seq,
        other => panic!("{other:?}"),
    })
}

#[test]
fn the_local_view_gives_way_before_anybody_is_refused() {
    let space = Space::new(1 << 20, &["logs"]);
    let log = open(&ForgetfulDisk::new(1), "logs", &space, 0);
    let (sink, view) = (destination("loki", "a"), destination("view", "local"));
    log.register(&[sink.clone(), view.clone()], 1).unwrap();
    let mut reader = log.reader(1);
    assert_eq!(append(&log, 1).unwrap(), 1);
    let _ = log.commit(2).unwrap();
    assert_eq!(reader.read(1).unwrap().frames.len(), 1);
    for fid in 2..=1000 {
        append(&log, fid).expect("the view holds nothing that a sink has taken");
        log.advance(&sink.id(), fid, 1, fid);
        let _ = log.commit(2).unwrap();
    }
    assert!(log.stats().deleted > 10 && space.pressure("logs").fraction < 1.0, "{:?}", log.stats());
    // The view's reader is told what it missed, and goes on.
    let batch = reader.read(1 << 20).unwrap();
    let [skipped] = batch.skipped[..] else { panic!("{:?}", batch.skipped) };
    assert_eq!((skipped.from, skipped.why), (2, Why::Deleted));
    let first = &batch.frames[0];
    assert_eq!((skipped.to, skipped.items), (first.seq, first.seq - 2));
    assert_eq!(fid_of(&first.payload), Some(first.seq));
}

#[test]
fn delivered_segments_are_retained_while_there_is_room_and_no_longer() {
    let space = Space::new(1 << 20, &["logs"]);
    let log = open(&ForgetfulDisk::new(1), "logs", &space, 10 * MINUTE);
    let sink = destination("loki", "a");
    log.register(std::slice::from_ref(&sink), 1).unwrap();
    let take = |fid: u64, now: u64| {
        append(&log, fid).unwrap();
        let _ = log.commit(now).unwrap();
        log.advance(&sink.id(), fid + 1, 1, fid);
        let _ = log.commit(now).unwrap();
    };
    for fid in 1..=40 {
        take(fid, MINUTE);
    }
    assert_eq!(log.stats().deleted, 0, "all of it is younger than ten minutes");
    take(41, 12 * MINUTE);
    assert!(log.stats().deleted > 3);
    for fid in 42..=500 {
        take(fid, 12 * MINUTE);
    }
    assert!(space.pressure("logs").fraction < 0.9, "{:?}", log.stats());
}

#[test]
fn a_log_that_nobody_empties_leaves_its_neighbour_its_share() {
    let space = Space::new(4 << 20, &["logs", "traces", QUARANTINE]);
    let (logs, traces) =
        (open(&ForgetfulDisk::new(1), "logs", &space, 0), open(&ForgetfulDisk::new(2), "traces", &space, 0));
    for log in [&logs, &traces] {
        log.register(&[destination("otlp", "a")], 1).unwrap();
    }
    let fill = |log: &Log| {
        let mut n = 0;
        while append(log, n).is_ok() {
            let _ = log.commit(2).unwrap();
            n += 1;
        }
        n * 3000
    };
    let taken = fill(&traces);
    assert!(taken > 2 << 20, "a lonely log uses the shared part: {taken}");
    assert_eq!(space.pressure("logs").level, Level::Ok);
    let left = fill(&logs);
    // The promised eighth is 524,288 bytes of segments; headers, markers and snapshots have their part of it.
    assert!(left > 450_000, "the promised eighth is there: {left}");
}

#[test]
fn nothing_is_deleted_before_the_registrations_of_this_start_are_synced() {
    let (disk, space) = (ForgetfulDisk::new(1), Space::new(1 << 30, &["logs"]));
    let sink = destination("loki", "a");
    let wanted = std::slice::from_ref(&sink);
    let log = open(&disk, "logs", &space, 0);
    log.register(wanted, 1).unwrap();
    for fid in 1..=40 {
        append(&log, fid).unwrap();
        let _ = log.commit(2).unwrap();
    }
    log.advance(&sink.id(), 41, 40, 40);
    // Writes the cursor and looks for nothing to delete.
    log.register(wanted, 3).unwrap();
    assert_eq!(log.stats().deleted, 0);
    drop(log);
    let log = open(&disk, "logs", &space, 0);
    let held = log.stats().segments;
    let _ = log.commit(4).unwrap();
    assert_eq!((log.stats().deleted, log.stats().segments), (0, held));
    log.register(wanted, 5).unwrap();
    let _ = log.commit(6).unwrap();
    assert!(log.stats().deleted > 5, "{:?}", log.stats());
}
