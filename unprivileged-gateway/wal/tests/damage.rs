//! Rot: any bit, any block, any missing end. Never a panic; everything else is still read; what is gone is named by seq.

mod sim;

use sim::{Dice, fid_of, payload};
use std::collections::BTreeSet;
use std::sync::Arc;
use wal::forgetful::ForgetfulDisk;
use wal::*;

const FRAMES: u64 = 120;

fn try_open(disk: &ForgetfulDisk, start: u64) -> (Log, Recovery) {
    let mut dice = Dice(start);
    let epoch = Epoch { counter: start, random: start };
    let options = LogOptions {
        segment_bytes: 40_000,
        tail_bytes: 0,
        ..LogOptions::new("logs", NodeId([1; 16]), epoch, Space::new(1 << 30, &["logs"]), Box::new(move || dice.next()))
    };
    Log::open(Arc::new(disk.clone()), options, 1).unwrap()
}

fn a() -> Destination {
    Destination { kind: "sink".into(), name: "a".into(), ..Destination::default() }
}

/// A few segments, and a closed log; the destination has taken the first ten frames.
fn written() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new(1);
    let (log, _) = try_open(&disk, 1);
    log.register(&[a()], 1).unwrap();
    for fid in 1..=FRAMES {
        let body = payload(fid, 200 + (fid * 131) % 2500);
        let frame = NewFrame { parts: &[&body], items: 2, appended_at: fid, ..NewFrame::default() };
        log.append(frame).unwrap();
        if fid % 4 == 0 {
            let _ = log.commit(2).unwrap();
        }
    }
    log.advance(&a().id(), 11, 20, 11);
    let _ = log.commit(3).unwrap();
    disk
}

struct Seen {
    fids: BTreeSet<u64>,
    named: Vec<(u64, u64)>,
    items_skipped: u64,
}

fn look(disk: &ForgetfulDisk) -> Seen {
    let (log, recovery) = try_open(disk, 2);
    log.register(&[a()], 4).unwrap();
    let mut named: Vec<_> = recovery.torn.iter().chain(&recovery.damaged).map(|r| (r.from, r.to)).collect();
    let mut reader = log.reader(1);
    let (mut fids, mut items_skipped, mut last) = (BTreeSet::new(), 0, 0);
    loop {
        let batch = reader.read(10_000).unwrap();
        named.extend(batch.skipped.iter().map(|s| (s.from, s.to)));
        items_skipped += batch.skipped.iter().map(|s| s.items).sum::<u64>();
        if batch.frames.is_empty() && batch.skipped.is_empty() {
            break;
        }
        for f in batch.frames {
            assert!(f.seq > last, "order");
            last = f.seq;
            assert_eq!(fid_of(&f.payload), Some(f.seq), "a frame that nobody wrote");
            fids.insert(f.seq);
        }
    }
    Seen { fids, named, items_skipped }
}

fn judge(seen: &Seen, lost_max: u64, what: &str) {
    let lost: Vec<u64> = (1..=FRAMES).filter(|f| !seen.fids.contains(f)).collect();
    for seq in &lost {
        assert!(
            seen.named.iter().any(|(a, b)| a <= seq && seq < b),
            "{what}: seq {seq} is gone and not named: {:?}",
            seen.named
        );
    }
    assert!(lost.len() as u64 <= lost_max, "{what}: {} frames lost", lost.len());
}

fn segments(disk: &ForgetfulDisk) -> Vec<(String, usize)> {
    let mut names: Vec<_> = disk.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).collect();
    names.sort();
    names.into_iter().map(|n| (n.clone(), disk.content(&n).unwrap().len())).collect()
}

#[test]
fn one_flipped_bit_costs_at_most_its_neighbourhood() {
    let disk = written();
    let files = segments(&disk);
    assert!(files.len() >= 4, "{files:?}");
    let mut dice = Dice(9);
    for round in 0..500 {
        let (name, len) = &files[dice.below(files.len() as u64) as usize];
        let (at, bit) = (dice.below(*len as u64) as usize, dice.below(8) as u8);
        let rotten = disk.fork();
        assert!(rotten.flip(name, at, bit));
        // A lost length costs up to 64 KiB, which is more than one of these segments holds.
        judge(&look(&rotten), 40, &format!("round {round}: {name} byte {at} bit {bit}"));
    }
}

#[test]
fn a_flipped_payload_bit_costs_one_frame_and_counts_its_items() {
    let disk = written();
    let (name, _) = &segments(&disk)[1];
    let content = disk.content(name).unwrap();
    // The payload of fid 40 begins with its number.
    let needle = 40u64.to_le_bytes();
    let body = payload(40, 200 + (40 * 131) % 2500);
    let at =
        content.windows(body.len()).position(|w| w == body).or_else(|| content.windows(8).position(|w| w == needle));
    let Some(at) = at else { panic!("fid 40 is not in {name}") };
    disk.flip(name, at + 20, 3);
    let seen = look(&disk);
    judge(&seen, 1, "payload");
    assert_eq!((seen.fids.len() as u64, seen.items_skipped), (FRAMES - 1, 2));
}

#[test]
fn a_lost_cover_page_loses_nothing() {
    let disk = written();
    for (name, _) in segments(&disk) {
        for at in [0, 9, 13, 40, 60, 130] {
            let rotten = disk.fork();
            rotten.flip(&name, at, 2);
            judge(&look(&rotten), 0, &format!("{name} byte {at}"));
        }
    }
}

#[test]
fn unreadable_blocks_cut_ends_and_missing_files_are_named() {
    let disk = written();
    let files = segments(&disk);
    for (name, len) in &files {
        for block in 0..len.div_ceil(4096) {
            let rotten = disk.fork();
            rotten.spoil(name, block);
            judge(&look(&rotten), 40, &format!("{name} block {block}"));
        }
        // Nothing states where the newest segment ends but what is in it: of a missing end only the rest of a record shows.
        let newest = Some(name) == files.last().map(|f| &f.0);
        for cut in [1, len / 3, len - 1].into_iter().filter(|_| !newest) {
            let rotten = disk.fork();
            let mut bytes = disk.content(name).unwrap();
            bytes.truncate(len - cut);
            rotten.put(name, &bytes);
            judge(&look(&rotten), 40, &format!("{name} without its last {cut} bytes"));
        }
    }
    let rotten = disk.fork();
    rotten.remove(&files[1].0).unwrap();
    judge(&look(&rotten), 40, "a missing file");
}

#[test]
fn many_flips_never_panic_and_rubbish_is_no_segment() {
    let disk = written();
    let files = segments(&disk);
    let mut dice = Dice(17);
    for _ in 0..60 {
        let rotten = disk.fork();
        for _ in 0..dice.below(40) {
            let (name, len) = &files[dice.below(files.len() as u64) as usize];
            rotten.flip(name, dice.below(*len as u64) as usize, dice.below(8) as u8);
        }
        let rubbish: Vec<u8> = (0..dice.below(5000)).map(|_| dice.next() as u8).collect();
        rotten.put("00000000000000ff.seg", &rubbish);
        rotten.put("new.tmp", &rubbish);
        judge(&look(&rotten), FRAMES, "many flips");
    }
}

#[test]
fn with_every_snapshot_gone_an_unknown_destination_starts_at_the_oldest_frame() {
    let disk = written();
    for (name, len) in segments(&disk) {
        // Every snapshot begins right behind page and marker.
        let page = u32::from_le_bytes(disk.content(&name).unwrap()[12..16].try_into().unwrap()) as usize;
        assert!(page + 200 < len && disk.flip(&name, page + 80 + 104 + 3, 0));
    }
    let (log, recovery) = try_open(&disk, 2);
    assert_eq!(recovery.state, StateFound::Lost);
    let b = Destination { name: "b".into(), ..a() };
    log.register(&[a(), b.clone()], 5).unwrap();
    assert_eq!(log.cursor(&a().id()).unwrap().seq, 11, "its registration and cursor records are still there");
    assert_eq!(log.cursor(&b.id()).unwrap().seq, 1, "from: now is not believed when the state is gone");
}

/// Deletion waits for two snapshots, so that one of them may rot.
#[test]
fn one_rotten_snapshot_forgets_nobody() {
    let disk = ForgetfulDisk::new(4);
    let (log, _) = try_open(&disk, 1);
    let b = Destination { name: "b".into(), ..a() };
    log.register(&[a(), b.clone()], 1).unwrap();
    for fid in 1..=150 {
        let body = payload(fid, 1500);
        log.append(NewFrame { parts: &[&body], items: 1, appended_at: fid, ..NewFrame::default() }).unwrap();
        let _ = log.commit(2).unwrap();
        for id in [a().id(), b.id()] {
            log.advance(&id, fid, 1, fid);
        }
        for (name, len) in segments(&disk) {
            let page = u32::from_le_bytes(disk.content(&name).unwrap()[12..16].try_into().unwrap()) as usize;
            let rotten = disk.fork();
            assert!(page + 200 < len && rotten.flip(&name, page + 80 + 104 + 3, 0));
            let (again, _) = try_open(&rotten, 2);
            for id in [a().id(), b.id()] {
                let cursor = again.cursor(&id);
                assert!(cursor.is_some(), "{id} is forgotten when the snapshot of {name} rots at frame {fid}");
                assert!(cursor.unwrap().seq + 2 >= fid, "{id} fell back to {cursor:?} at frame {fid}");
            }
        }
    }
    assert!(log.stats().deleted > 2);
}
