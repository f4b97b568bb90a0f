//! A disk that fails or fills: nothing acknowledged is lost, nothing refused is acknowledged, and reading, sending and
//! deleting go on.

mod sim;

use sim::{Dice, fid_of, payload};
use std::sync::Arc;
use wal::forgetful::{Fault, ForgetfulDisk};
use wal::*;

fn open(disk: &ForgetfulDisk, space: &Arc<Space>, start: u64) -> (Log, Recovery) {
    let mut dice = Dice(start);
    let epoch = Epoch { counter: start, random: start };
    let options = LogOptions {
        segment_bytes: 8192,
        ..LogOptions::new("logs", NodeId([1; 16]), epoch, space.clone(), Box::new(move || dice.next()))
    };
    Log::open(Arc::new(disk.clone()), options, 1).unwrap()
}

fn a() -> Destination {
    Destination { kind: "sink".into(), name: "a".into(), ..Destination::default() }
}

fn append(log: &Log, fid: u64, bytes: u64) -> Result<u64, Refused> {
    let body = payload(fid, bytes);
    let frame = NewFrame { parts: &[&body], items: 1, appended_at: 1, ..NewFrame::default() };
    log.append(frame).map(|a| match a {
        Appended::New { seq } => seq,
        other => panic!("{other:?}"),
    })
}

fn read_fids(log: &Log, from: u64) -> Vec<u64> {
    let mut reader = log.reader(from);
    let mut out = Vec::new();
    loop {
        let batch = reader.read(1 << 20).unwrap();
        if batch.frames.is_empty() {
            return out;
        }
        out.extend(batch.frames.iter().map(|f| fid_of(&f.payload).unwrap()));
    }
}

#[test]
fn one_failed_sync_ends_the_segment_and_nobody_notices() {
    let disk = ForgetfulDisk::new(5);
    let (log, _) = open(&disk, &Space::new(1 << 30, &["logs"]), 1);
    log.register(&[a()], 1).unwrap();
    let first = append(&log, 1, 100).unwrap();
    let _ = log.commit(2).unwrap();
    let second = append(&log, 2, 100).unwrap();
    disk.arm(1, Fault::Fail); // the write passes, the sync fails
    let synced = log.commit(3).unwrap();
    assert!(synced.below() > second);
    assert_eq!((log.outcome(first), log.outcome(second)), (Outcome::Synced, Outcome::Synced));
    assert_eq!(log.stats().failures, 1);
    assert_eq!(read_fids(&log, 0), [1, 2]);
    drop(log);
    disk.power_cut();
    let (log, _) = open(&disk, &Space::new(1 << 30, &["logs"]), 2);
    assert_eq!(read_fids(&log, 0), [1, 2]);
}

#[test]
fn two_failures_in_a_row_close_the_intake_and_reads_go_on_until_it_reopens() {
    let disk = ForgetfulDisk::new(6);
    let (log, _) = open(&disk, &Space::new(1 << 30, &["logs"]), 1);
    log.register(&[a()], 1).unwrap();
    append(&log, 1, 100).unwrap();
    let _ = log.commit(2).unwrap();
    let lost = append(&log, 2, 100).unwrap();
    disk.set_read_only(true);
    assert!(log.commit(3).is_err());
    assert_eq!(log.outcome(lost), Outcome::Refused);
    let refused = append(&log, 3, 100).unwrap_err();
    assert!(matches!(refused, Refused::Closed { .. }), "{refused}");
    assert!(log.stats().closed.is_some() && !log.is_writable());
    assert_eq!(read_fids(&log, 0), [1]);
    log.advance(&a().id(), 2, 1, 2);
    assert_eq!(log.cursor(&a().id()).unwrap().seq, 2);
    assert!(log.reopen(4).is_err());
    disk.set_read_only(false);
    log.reopen(5).unwrap();
    log.register(&[a()], 5).unwrap();
    assert_eq!(log.cursor(&a().id()).unwrap().seq, 2, "memory knew better");
    let next = append(&log, 3, 100).unwrap();
    assert!(next > lost, "a number once given is never given again");
    let _ = log.commit(6).unwrap();
    assert_eq!(log.outcome(lost), Outcome::Refused);
    assert!(read_fids(&log, 2).ends_with(&[3]));
}

#[test]
fn a_frame_does_not_overtake_the_refused_one_it_follows() {
    let disk = ForgetfulDisk::new(8);
    let (log, _) = open(&disk, &Space::new(1 << 30, &["logs"]), 1);
    log.register(&[a()], 1).unwrap();
    let file = FileKey { id: [1; 16], generation: 0 };
    let piece = |fid: u64, after: u64| {
        let (body, origin) = (payload(fid, 100), Origin::LogBytes { file, offset: fid * 10, len: 10 });
        log.append(NewFrame {
            parts: &[&body],
            items: 1,
            appended_at: 1,
            origin: Some(&origin),
            after,
            ..NewFrame::default()
        })
    };
    let seq_of = |a: Result<Appended, Refused>| match a {
        Ok(Appended::New { seq }) => seq,
        other => panic!("{other:?}"),
    };
    let first = seq_of(piece(0, 0));
    let _ = log.commit(2).unwrap();
    let second = seq_of(piece(1, first));
    disk.set_read_only(true);
    assert!(log.commit(3).is_err());
    disk.set_read_only(false);
    log.reopen(4).unwrap();
    // The intake is open again before the sender has noticed: the third must wait for the second.
    assert_eq!(piece(2, second), Err(Refused::Overtakes { log: "logs".into(), after: second }));
    let again = seq_of(piece(1, first));
    seq_of(piece(2, again));
    let _ = log.commit(5).unwrap();
    assert_eq!(read_fids(&log, 0), [0, 1, 2]);
}

#[test]
fn a_full_disk_takes_cursors_and_gives_segments_back_and_opens_again_by_itself() {
    let disk = ForgetfulDisk::new(7);
    let space = Space::new(1 << 20, &["logs"]);
    let (log, _) = open(&disk, &space, 1);
    log.register(&[a()], 1).unwrap();
    let mut acked = 0;
    disk.set_capacity(Some(disk.used() + 60_000));
    for fid in 1.. {
        match append(&log, fid, 3000) {
            Ok(seq) => {
                if log.commit(2).is_ok() && log.outcome(seq) == Outcome::Synced {
                    acked = fid;
                }
            }
            Err(Refused::Closed { why, .. }) => {
                assert!(why.contains("full"), "{why}");
                break;
            }
            Err(e) => panic!("{e}"),
        }
        assert!(fid < 100, "the disk never fills");
    }
    assert!(log.is_writable() && log.stats().closed.is_some());
    assert_eq!(read_fids(&log, 0), (1..=acked).collect::<Vec<_>>());
    // The destination takes everything: cursors are written from the reserve, segments go, the reserve comes back.
    log.advance(&a().id(), acked + 1, acked, acked + 1);
    for second in 3..10 {
        let _ = log.commit(second * 1_000_000_000 * 61);
    }
    assert!(log.stats().closed.is_none(), "{:?}", log.stats());
    append(&log, acked + 1, 3000).unwrap();
    let _ = log.commit(100 * 61_000_000_000).unwrap();
}

#[test]
fn the_cap_refuses_and_delivered_segments_make_room() {
    let disk = ForgetfulDisk::new(8);
    let space = Space::new(1 << 20, &["logs"]);
    let (log, _) = open(&disk, &space, 1);
    log.register(&[a()], 1).unwrap();
    let mut fid = 0;
    let full = loop {
        fid += 1;
        match append(&log, fid, 3000) {
            Ok(_) => drop(log.commit(2).unwrap()),
            Err(e) => break e,
        }
    };
    assert!(matches!(full, Refused::Full { fraction, .. } if fraction > 0.95), "{full}");
    assert_eq!(space.pressure("logs").level, Level::Critical95.max(space.pressure("logs").level));
    let _ = log.commit(3).unwrap();
    assert!(append(&log, fid, 3000).is_err(), "nobody has taken anything");
    log.advance(&a().id(), fid, fid - 1, fid);
    let _ = log.commit(4).unwrap();
    assert!(log.stats().bytes < 10_000, "{:?}", log.stats());
    append(&log, fid, 3000).unwrap();
    let _ = log.commit(5).unwrap();
    assert_eq!(read_fids(&log, log.cursor(&a().id()).unwrap().seq), [fid]);
}

#[test]
fn a_frame_that_can_never_fit_is_named_too_large() {
    let disk = ForgetfulDisk::new(9);
    let (log, _) = open(&disk, &Space::new(1 << 20, &["logs"]), 1);
    let e = append(&log, 1, 700_000).unwrap_err();
    assert!(matches!(e, Refused::TooLarge { .. }), "{e}");
}

#[test]
fn nothing_is_deleted_for_a_destination_that_left_the_configuration_until_it_is_forgotten() {
    let disk = ForgetfulDisk::new(10);
    let (log, _) = open(&disk, &Space::new(1 << 30, &["logs"]), 1);
    let b = Destination { name: "b".into(), ..a() };
    log.register(&[a(), b.clone()], 1).unwrap();
    for fid in 1..=30 {
        append(&log, fid, 1000).unwrap();
        let _ = log.commit(2).unwrap();
    }
    log.register(&[a()], 3).unwrap();
    log.advance(&a().id(), 31, 30, 31);
    let _ = log.commit(4).unwrap();
    let stats = log.stats();
    let orphan = stats.destinations.iter().find(|d| d.id == b.id()).unwrap();
    assert!(!orphan.configured && orphan.holds_segments > 1 && orphan.waiting.items == 30, "{orphan:?}");
    assert_eq!(stats.deleted, 0);
    assert_eq!(log.forget(&b.id(), 5).unwrap(), Forgotten { items: 30, bytes: 30 * 1016 });
    let _ = log.commit(6).unwrap();
    assert!(log.stats().deleted > 1);
}

#[test]
fn a_log_of_a_later_version_is_read_and_left_alone() {
    let disk = ForgetfulDisk::new(11);
    let space = Space::new(1 << 30, &["logs"]);
    let (log, _) = open(&disk, &space, 1);
    log.register(&[a()], 1).unwrap();
    append(&log, 1, 100).unwrap();
    let _ = log.commit(2).unwrap();
    drop(log);
    drop(open(&disk, &space, 2));
    // The read-safe mask of the first segment gets a bit nobody knows; its checksum is made right again.
    let name = "0000000000000001.seg";
    let mut bytes = disk.content(name).unwrap();
    bytes[20] |= 1;
    let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[..len - 4]);
    bytes[len - 4..len].copy_from_slice(&crc.to_le_bytes());
    disk.put(name, &bytes);
    let before = disk.list().unwrap();
    let (log, recovery) = open(&disk, &space, 3);
    assert!(recovery.closed.unwrap().contains("later version"));
    assert_eq!(read_fids(&log, 0), [1]);
    assert!(log.register(&[a()], 3).is_err() && log.commit(4).is_err());
    assert_eq!(disk.list().unwrap(), before);
}
