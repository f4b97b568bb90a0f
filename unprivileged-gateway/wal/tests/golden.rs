//! The golden log of format version 1: two segments with every kind of record, and a torn tail.
//!
//! The files stay for ever; every later version must read them. `BULKHEAD_WRITE_GOLDEN=1 cargo test -p wal --test golden`
//! writes them, only ever for a version that has none. The decoder below is written from `docs/wire.md` alone and
//! shares no line with the crate.

mod sim;

use sim::Dice;
use std::path::PathBuf;
use std::sync::Arc;
use wal::forgetful::ForgetfulDisk;
use wal::*;

const T0: u64 = 1_760_000_000_000_000_000;
const EPOCH: Epoch = Epoch { counter: 3, random: 0x1122_3344_5566_7788 };
const PEER: Stream = Stream::Hop(NodeId([0xbb; 16]), Epoch { counter: 7, random: 9 });

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn open(disk: &ForgetfulDisk, epoch: Epoch) -> (Log, Recovery) {
    let mut dice = Dice(epoch.random);
    let space = Space::new(1 << 30, &["logs"]);
    let nonce = Box::new(move || dice.next());
    let options =
        LogOptions { segment_bytes: 2500, ..LogOptions::new("logs", NodeId([0xaa; 16]), epoch, space, nonce) };
    Log::open(Arc::new(disk.clone()), options, T0).unwrap()
}

fn sink(name: &str, was: Option<&str>, on_remove: OnRemove) -> Destination {
    Destination { kind: "loki".into(), name: name.into(), from: From::Now, was: was.map(str::to_string), on_remove }
}

fn origins() -> Vec<Option<Origin>> {
    vec![
        None,
        Some(Origin::Hop { node: NodeId([0xbb; 16]), epoch: Epoch { counter: 7, random: 9 }, seq: 40 }),
        Some(Origin::LogBytes { file: FileKey { id: [0xcc; 16], generation: 2 }, offset: 4096, len: 100 }),
        Some(Origin::Stack { start: [0xdd; 16], seq: 5 }),
        Some(Origin::Journal { journal: [0xee; 16], seq: 77, cursor: "s=ee;i=4d".into() }),
    ]
}

fn body(i: u64) -> Vec<u8> {
    (0..50 + i * 10).map(|k| (k * 7 + i) as u8).collect()
}

fn append(log: &Log, i: u64, origin: Option<&Origin>) -> u64 {
    let (bytes, done) = (body(i), [DestinationId::new("loki", "elsewhere")]);
    let lz4 = i % 2 == 1;
    let frame = NewFrame {
        parts: &[&bytes],
        items: i as u32 + 1,
        codec: if lz4 { Codec::Lz4 } else { Codec::Raw },
        raw_len: if lz4 { 1000 + i as u32 } else { bytes.len() as u32 },
        hops: i as u8,
        origin,
        done: if i == 1 { &done } else { &[] },
        appended_at: T0 + i,
        after: 0,
    };
    match log.append(frame).unwrap() {
        Appended::New { seq } => seq,
        other => panic!("{other:?}"),
    }
}

/// The tool: writes the log, then tears the last group.
fn write() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new(1);
    let (log, _) = open(&disk, EPOCH);
    log.register(&[sink("a", None, OnRemove::Keep), sink("gone", None, OnRemove::Discard)], T0).unwrap();
    for (i, origin) in origins().iter().enumerate() {
        append(&log, i as u64, origin.as_ref());
    }
    log.gap(&PEER, 41, 50, "the edge's disk was replaced", T0 + 6).unwrap();
    log.advance(&DestinationId::new("loki", "a"), 1, 0, 0);
    // The first group goes out with the registrations of the next configuration: a rename and a tombstone.
    log.register(&[sink("b", Some("a"), OnRemove::Keep)], T0 + 7).unwrap();
    log.advance(&DestinationId::new("loki", "b"), 3, 3, 4);
    append(&log, 5, None);
    let _ = log.commit(T0 + 8).unwrap();
    log.advance(&DestinationId::new("loki", "b"), 4, 3, 6);
    let _ = log.commit(T0 + 8).unwrap();
    append(&log, 6, None);
    append(&log, 7, None);
    let _ = log.commit(T0 + 9).unwrap();
    drop(log);
    // The power fails inside the last write: its second frame is half there, followed by zeros.
    let name = names(&disk).pop().unwrap();
    let mut bytes = disk.content(&name).unwrap();
    let at = bytes.windows(20).rposition(|w| w == &body(7)[..20]).unwrap();
    bytes[at + 30..].fill(0);
    disk.put(&name, &bytes);
    disk
}

fn names(disk: &ForgetfulDisk) -> Vec<String> {
    let mut names: Vec<String> = disk.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).collect();
    names.sort();
    names
}

fn golden() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new(1);
    for entry in std::fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        disk.put(entry.file_name().to_str().unwrap(), &std::fs::read(entry.path()).unwrap());
    }
    disk
}

#[test]
fn the_golden_log_reads_back_value_by_value() {
    let disk = golden();
    let (log, recovery) = open(&disk, Epoch { counter: 4, random: 4 });
    assert_eq!(recovery.state, StateFound::Hurt, "a torn tail is not forgotten");
    assert_eq!(recovery.tail_frames, 1, "of the torn group the whole frame is copied");
    assert!(recovery.torn.iter().any(|r| r.from == 8 && r.to > 8), "{recovery:?}");
    let mut reader = log.reader(1);
    let batch = reader.read(1 << 20).unwrap();
    assert_eq!(batch.frames.iter().map(|f| f.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    let mut items = 0;
    for (i, f) in batch.frames.iter().enumerate() {
        let lz4 = i % 2 == 1;
        assert_eq!(f.payload, body(i as u64));
        assert_eq!((f.epoch, f.items, f.hops, f.appended_at), (EPOCH, i as u32 + 1, i as u8, T0 + i as u64));
        assert_eq!(f.codec, if lz4 { Codec::Lz4 } else { Codec::Raw });
        assert_eq!(f.raw_len as usize, if lz4 { 1000 + i } else { f.payload.len() });
        assert_eq!(f.origin, origins().get(i).cloned().flatten());
        assert_eq!(f.is_done(&DestinationId::new("loki", "elsewhere")), i == 1);
        assert_eq!(f.items_before, items);
        items += u64::from(f.items);
    }
    let b = DestinationId::new("loki", "b");
    assert_eq!(log.cursor(&b).map(|c| (c.seq, c.items, c.sent_upto)), Some((4, 6, 6)), "the cursor of the last group");
    assert_eq!(log.stats().destinations.len(), 1, "the renamed one; the tombstone took the other");
    let held = |s: &Stream| log.mark_synced(s).unwrap();
    assert_eq!(held(&PEER).ranges, [(40, 50)], "a frame and a gap");
    assert_eq!(held(&Stream::File(FileKey { id: [0xcc; 16], generation: 2 })).ranges, [(4096, 4196)]);
    assert_eq!(held(&Stream::Stack([0xdd; 16])).ranges, [(5, 6)]);
    let journal = held(&Stream::Journal([0xee; 16]));
    assert_eq!((journal.ranges, journal.text.as_str()), (vec![(77, 78)], "s=ee;i=4d"));
}

/// Retired when version 2 comes: from then on only reading counts.
#[test]
fn the_writer_still_writes_the_golden_log_byte_for_byte() {
    let written = write();
    if std::env::var("BULKHEAD_WRITE_GOLDEN").is_ok() {
        for name in names(&written) {
            std::fs::write(folder().join(&name), written.content(&name).unwrap()).unwrap();
        }
    }
    let golden = golden();
    assert_eq!(names(&written), names(&golden));
    for name in names(&written) {
        assert!(written.content(&name) == golden.content(&name), "{name} differs from the golden one");
    }
}

// ---- a decoder from docs/wire.md -----------------------------------------------------------------------------------

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// Kinds of record in file order, 'm' for a marker; stops where nothing whole stands.
fn decode(b: &[u8]) -> (Vec<(char, u64)>, usize) {
    assert_eq!(&b[..8], b"BULKWAL1");
    let page = u32_at(b, 12) as usize;
    assert_eq!(crc32c::crc32c(&b[..page - 4]), u32_at(b, page - 4));
    assert_eq!(u32_at(b, 28) as usize * 16 + 140, page, "a list of stated ends, 16 bytes each");
    let (nonce, mut at, mut found) = (u64_at(b, 48), page, Vec::new());
    while at < b.len() {
        if b[at..].starts_with(b"BHsync1\n") {
            assert_eq!(crc32c::crc32c(&b[at..at + 76]), u32_at(b, at + 76));
            assert_eq!((u64_at(b, at + 8), u64_at(b, at + 24)), (nonce, at as u64));
            found.push(('m', u64_at(b, at + 40)));
            at += 80;
            continue;
        }
        if !b[at..].starts_with(b"BHr1") {
            break;
        }
        let (payload, ext) = (u32_at(b, at + 8) as usize, u32_at(b, at + 12) as usize & 0xffff);
        let seed = crc32c::crc32c_append(crc32c::crc32c(&nonce.to_le_bytes()), &(at as u64).to_le_bytes());
        let header = crc32c::crc32c_append(seed, &b[at..at + 100]);
        let header = crc32c::crc32c_append(header, &b[at + 104..at + 104 + ext]);
        assert_eq!(header, u32_at(b, at + 100));
        let body = at + 104 + ext;
        if body + payload > b.len() || crc32c::crc32c_append(seed, &b[body..body + payload]) != u32_at(b, at + 96) {
            break;
        }
        assert_eq!(xxhash_rust::xxh3::xxh3_128(&b[body..body + payload]).to_le_bytes(), b[at + 80..at + 96]);
        found.push(((b'0' + b[at + 4]) as char, u64_at(b, at + 24)));
        at = body + payload;
    }
    (found, at)
}

#[test]
fn the_golden_log_is_what_the_drawing_says() {
    let disk = golden();
    let names = names(&disk);
    let mut kinds = String::new();
    let mut seqs = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let bytes = disk.content(name).unwrap();
        let (found, end) = decode(&bytes);
        assert_eq!(end == bytes.len(), i + 1 < names.len(), "only the last one is torn");
        kinds.extend(found.iter().map(|f| f.0));
        kinds.push(' ');
        seqs.extend(found.iter().filter(|f| f.0 == '1').map(|f| f.1));
    }
    for kind in "m12345".chars() {
        assert!(kinds.contains(kind), "no record of kind {kind} in {kinds}");
    }
    assert_eq!(names.len(), 2);
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7], "in order, each once: {kinds}");
}
