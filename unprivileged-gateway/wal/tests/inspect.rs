//! Looking into a log without touching it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal::inspect::{Entry, Found, InspectError, Inspection, LogView, Placed};
use wal::*;

fn numbers(seed: u64) -> impl FnMut() -> u64 + Send {
    let mut n = seed;
    move || {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        n
    }
}

fn folder(path: &Path) -> Folder {
    Folder::open_with(path, FolderOptions { allow_volatile: true }, &mut numbers(7)).unwrap()
}

fn open(folder: &Folder, name: &str) -> Log {
    let space = Space::new(1 << 30, &["logs", "traces"]);
    let nonce = Box::new(numbers(folder.epoch().counter));
    let options =
        LogOptions { segment_bytes: 64 << 10, ..LogOptions::new(name, folder.node(), folder.epoch(), space, nonce) };
    Log::open(Arc::new(folder.disk(name).unwrap()), options, 0).unwrap().0
}

fn destination(name: &str) -> Destination {
    Destination { kind: "loki".into(), name: name.into(), ..Destination::default() }
}

fn payload(i: u64) -> Vec<u8> {
    (0..2000 + (i as usize * 37) % 3000).map(|k| (i as usize + k) as u8).collect()
}

/// 200 frames of three records each, in several segments; loki/a has ten of them.
fn fill(log: &Log) {
    log.register(&[destination("a")], 1).unwrap();
    for i in 1..=200 {
        let payload = payload(i);
        let frame = NewFrame { parts: &[&payload], items: 3, appended_at: 1000 + i, ..NewFrame::default() };
        log.append(frame).unwrap();
        if i % 3 == 0 {
            let _ = log.commit(2).unwrap();
        }
    }
    log.advance(&destination("a").id(), 11, 30, 0);
    let _ = log.commit(3).unwrap();
}

fn every_file(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        match path.is_dir() {
            true => {
                all.extend(every_file(&path));
                all.insert(path, (Vec::new(), modified));
            }
            false => drop(all.insert(path.clone(), (fs::read(path).unwrap(), modified))),
        }
    }
    all
}

fn frames(view: &LogView, from: u64) -> Vec<Frame> {
    let frame = |found| match found {
        Found::Record(Placed { entry: Entry::Frame(f), .. }) => Some(*f),
        _ => None,
    };
    view.walk(from).filter_map(frame).collect()
}

fn seqs(view: &LogView, from: u64) -> Vec<u64> {
    frames(view, from).iter().map(|f| f.seq).collect()
}

#[test]
fn everything_is_read_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    fill(&open(&held, "logs"));
    open(&held, "traces").register(&[], 1).unwrap();
    let (node, epoch) = (held.node(), held.epoch());
    drop(held);
    fs::write(dir.path().join("logs/new.tmp"), b"left by a recovery").unwrap();
    let before = every_file(dir.path());

    let seen = Inspection::open(dir.path()).unwrap();
    assert_eq!(
        (seen.node, seen.epoch, &*seen.logs),
        (Some(node), Some(epoch), &["logs".to_string(), "traces".into()][..])
    );
    let view = seen.log("logs").unwrap();
    assert!(view.segments().count() > 3);
    for (i, f) in frames(&view, 0).iter().enumerate() {
        let i = i as u64 + 1;
        assert_eq!((f.seq, f.items, f.appended_at), (i, 3, 1000 + i));
        assert!(f.payload == payload(i), "frame {i}");
    }
    assert_eq!(seqs(&view, 77), (77..=200).collect::<Vec<_>>());
    let a = &view.destinations()[0];
    assert_eq!((a.id.as_str(), a.cursor.seq, a.waiting.items), ("loki/a", 11, 570));
    assert_eq!(a.waiting.oldest_appended_at, Some(1011));
    assert_eq!(a.waiting.bytes, (11..=200).map(|i| payload(i).len() as u64).sum::<u64>());
    let sum = view.verify();
    assert!(sum.is_whole() && sum.state_records > 3, "{sum:?}");
    assert_eq!((sum.frames, sum.items, sum.seqs, sum.times), (200, 600, Some((1, 200)), Some((1001, 1200))));
    assert_eq!(seen.log("traces").unwrap().verify().frames, 0);
    seen.still_free().unwrap();
    assert_eq!(every_file(dir.path()), before, "not a byte, not a time of change");
}

#[test]
fn a_log_that_is_held_here_is_read_as_far_as_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    let log = open(&held, "logs");
    fill(&log);
    log.append(NewFrame { parts: &[b"not yet synced"], items: 1, ..NewFrame::default() }).unwrap();
    let view = LogView::live(&log).unwrap();
    assert_eq!(seqs(&view, 0), (1..=200).collect::<Vec<_>>());
    assert!(view.verify().is_whole());
    assert_eq!(view.destinations()[0].waiting, log.waiting(&destination("a").id()));
    // Segments that are delivered and deleted while somebody looks are passed over.
    log.advance(&destination("a").id(), 201, 570, 0);
    for _ in 0..3 {
        let _ = log.commit(61 * 1_000_000_000).unwrap();
        log.append(NewFrame { parts: &[b"new"], items: 1, ..NewFrame::default() }).unwrap();
        let _ = log.commit(2000 * 1_000_000_000).unwrap();
    }
    assert!(log.stats().deleted > 0);
    let sum = view.verify();
    assert!(sum.stretches.is_empty() && sum.frames < 200, "{sum:?}");
}

#[test]
fn a_held_folder_is_refused_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    match Inspection::open(dir.path()).unwrap_err() {
        InspectError::InUse { holder_pid, .. } => assert_eq!(holder_pid, Some(std::process::id())),
        other => panic!("{other}"),
    }
    drop(held);
    let seen = Inspection::open(dir.path()).unwrap();
    let again = folder(dir.path());
    assert!(seen.still_free().is_err(), "somebody came meanwhile, and was not kept out by the look");
    drop(again);
    let e = Inspection::open(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(e, InspectError::Missing { .. }) && !dir.path().join("nowhere").exists(), "{e}");
}

#[test]
fn damage_is_named_with_file_and_offset_and_the_rest_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    fill(&open(&held, "logs"));
    drop(held);
    let whole = Inspection::open(dir.path()).unwrap().log("logs").unwrap();
    let at = |seq: u64| {
        let found = whole.walk(0).find_map(|found| match found {
            Found::Record(p) => matches!(&p.entry, Entry::Frame(f) if f.seq == seq).then_some(p),
            _ => None,
        });
        found.unwrap()
    };
    let victim = at(50);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("logs").join(&victim.file)).unwrap();
    file.write_all_at(b"rust never sleeps", victim.at + victim.bytes - 40).unwrap();
    let torn = at(200);
    let last = fs::OpenOptions::new().write(true).open(dir.path().join("logs").join(&torn.file)).unwrap();
    last.set_len(torn.at + 1000).unwrap();
    fs::write(dir.path().join("identity"), b"?").unwrap();

    let seen = Inspection::open(dir.path()).unwrap();
    assert!(seen.node.is_none() && seen.problems[0].contains("identity"), "{:?}", seen.problems);
    let view = seen.log("logs").unwrap();
    assert_eq!(seqs(&view, 0), (1..200).filter(|seq| *seq != 50).collect::<Vec<_>>());
    let sum = view.verify();
    assert!(!sum.is_whole());
    let (a, b) = (&sum.stretches[0], &sum.stretches[1]);
    assert_eq!((&a.file, a.from, a.to, a.was_synced), (&victim.file, victim.at, victim.at + victim.bytes, true));
    assert_eq!((&b.file, b.from, b.was_synced), (&torn.file, torn.at, false));
    assert_eq!((sum.damaged_bytes, sum.torn_bytes), (victim.bytes, 1000));
    assert_eq!(sum.lost_items, 3, "of frame 50; nobody knows any more what the torn one held");
}

#[test]
fn a_lost_cover_page_costs_a_page_and_a_missing_segment_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    fill(&open(&held, "logs"));
    drop(held);
    let seen = Inspection::open(dir.path()).unwrap();
    let files: Vec<String> = seen.log("logs").unwrap().segments().map(|s| s.file.clone()).collect();
    let page = fs::OpenOptions::new().write(true).open(dir.path().join("logs").join(&files[2])).unwrap();
    page.write_all_at(&[0xff; 128], 0).unwrap();
    fs::remove_file(dir.path().join("logs").join(&files[4])).unwrap();
    let view = seen.log("logs").unwrap();
    let sum = view.verify();
    assert_eq!(sum.segments[2].info.cover, wal::inspect::CoverPage::Lost);
    assert!(sum.segments[2].frames > 0 && sum.stretches.iter().any(|s| s.file == files[2] && s.from == 0), "{sum:?}");
    assert_eq!(sum.lost_items, 600 - sum.items);
}

#[test]
fn frames_that_a_failed_segment_left_twice_are_read_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let held = folder(dir.path());
    fill(&open(&held, "logs"));
    drop(held);
    // A copy of a segment under the next free number: its records are not valid there, but nothing of it may disturb.
    let view = Inspection::open(dir.path()).unwrap().log("logs").unwrap();
    let last = view.segments().last().unwrap().file.clone();
    let next = format!("{:016x}.seg", u64::from_str_radix(&last[..16], 16).unwrap() + 1);
    fs::copy(dir.path().join("logs").join(&last), dir.path().join("logs").join(next)).unwrap();
    let view = Inspection::open(dir.path()).unwrap().log("logs").unwrap();
    assert_eq!(seqs(&view, 0), (1..=200).collect::<Vec<_>>());
    assert!(!view.verify().is_whole());
}
