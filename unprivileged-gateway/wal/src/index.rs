//! The card catalogue beside the shelves: it shortens the walk to a book, and burning it costs nothing but walking.
//!
//! sled holds what can be read from the segments again: (log, segment, seq) to offset at every MiB, times and counts per
//! segment, and short notes (the quarantine list). Nothing here is believed without looking: a place counts only when
//! the record that stands there carries the seq. Any error, any panic inside sled, any card that lies: the whole thing is
//! thrown away and written anew from the segments. It has no background flusher and a small cache; the log works without
//! it. The weakness: after it is burnt, the first reader far behind walks up to one segment. ADR 0013 has the evidence.

use crate::group::{POINT_EVERY_BYTES, Point};
use crate::log::{Log, lock};
use crate::record::{Header, kind};
use crate::recover::Segment;
use crate::scan::{Found, Scanner};
use crate::segment;
use crate::wire::{Put, Take};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

/// sled's cache, bytes.
const CACHE_BYTES: u64 = 4 << 20;
/// A note longer than this is refused: sled puts large values into files that it never syncs.
pub const NOTE_BYTES_MAX: usize = 4096;
/// Burnt this often in one process, it stays burnt.
const REBUILDS_MAX: u64 = 8;

/// What is known about one segment without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Number of the file.
    pub segment: u64,
    /// First seq, and behind the last.
    pub first_seq: u64,
    /// Behind the last seq.
    pub upper: u64,
    /// Append times of the first and last frame, unix nanoseconds.
    pub first_time: u64,
    /// Of the last frame.
    pub last_time: u64,
    /// Frames that can be read.
    pub frames: u64,
    /// Records in them.
    pub items: u64,
    /// Payload bytes of them.
    pub bytes: u64,
}

/// The index of all logs of a folder.
pub struct Index {
    path: PathBuf,
    db: Mutex<Option<sled::Db>>,
    fresh: AtomicBool,
    rebuilds: AtomicU64,
    /// (log, segment) -> offset up to which places are written.
    fed: Mutex<BTreeMap<(String, u64), u64>>,
}

impl Index {
    /// Opens the index, or begins a new one if it is missing or in any doubt. Never fails: at worst there is no index.
    pub fn open(path: &Path) -> Arc<Index> {
        let index = Index {
            path: path.into(),
            db: Mutex::new(None),
            fresh: AtomicBool::new(!path.exists()),
            rebuilds: AtomicU64::new(0),
            fed: Mutex::default(),
        };
        let opened = open_db(path).or_else(|| {
            index.fresh.store(true, Release);
            burn(path);
            open_db(path)
        });
        *lock(&index.db) = opened;
        Arc::new(index)
    }

    /// Readers of this log look places up here from now on.
    pub fn attach(self: &Arc<Self>, log: &Log) {
        *lock(&log.0.index) = Some(self.clone());
    }

    /// Whether it was begun empty, at the start or since: notes have to be written again.
    pub fn is_fresh(&self) -> bool {
        self.fresh.load(Acquire)
    }

    /// How often it was thrown away in this process.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Acquire)
    }

    /// Whether there is an index at all.
    pub fn is_on(&self) -> bool {
        lock(&self.db).is_some()
    }

    /// Throws everything away and begins anew.
    pub fn doubt(&self, why: &str) {
        let mut db = lock(&self.db);
        let n = self.rebuilds.fetch_add(1, AcqRel);
        tracing::warn!(path = %self.path.display(), why, "the index is thrown away and built again from the segments");
        // sled's own threads may still hold files of it; its destructor may panic as well as anything else in there.
        let old = db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        burn(&self.path);
        lock(&self.fed).clear();
        self.fresh.store(true, Release);
        *db = if n < REBUILDS_MAX { open_db(&self.path) } else { None };
    }

    /// Brings the index up to date with what is synced, reading at most one older segment. Returns how many are left to
    /// read. To be called now and then, off the commit thread, after the log is ready.
    pub fn feed(&self, log: &Log) -> usize {
        let name = log.0.name.clone();
        let segments = lock(&log.0.shown).segments.clone();
        self.forget_deleted(&name, segments.first().map_or(0, |s| s.n));
        let mut left = 0_usize;
        for s in &segments {
            let Some(nonce) = s.nonce.filter(|_| s.upper > s.first_seq) else { continue };
            let walked = !s.points.is_empty();
            if walked {
                self.write_points(&name, s, nonce, &s.points);
            } else if self.summary(&name, s.n, nonce).is_none() {
                left += 1;
                if left == 1 {
                    self.walk(log, &name, s, nonce);
                }
            }
        }
        left.saturating_sub(1)
    }

    /// What is known of the segments of a log, oldest first.
    pub fn segments(&self, log: &str) -> Vec<SegmentSummary> {
        let prefix = key(b's', log, &[]);
        let rows = self.with(|db| db.scan_prefix(&prefix).collect::<sled::Result<Vec<_>>>()).unwrap_or_default();
        rows.iter().filter_map(|(k, v)| read_summary(&prefix, k, v)).collect()
    }

    /// A short note under a seq of a log, for instance what the quarantine list says of a frame.
    pub fn note(&self, log: &str, seq: u64, note: &[u8]) {
        if note.len() <= NOTE_BYTES_MAX {
            let key = key(b'n', log, &[seq]);
            let value = sealed(&key, note);
            self.with(|db| db.insert(&key, value));
        }
    }

    /// Notes with seq at or above `from`, at most `limit`.
    pub fn notes(&self, log: &str, from: u64, limit: usize) -> Vec<(u64, Vec<u8>)> {
        let (first, last) = (key(b'n', log, &[from]), key(b'n', log, &[u64::MAX]));
        let rows = self.with(|db| db.range(first..last).take(limit).collect::<sled::Result<Vec<_>>>());
        let rows = rows.unwrap_or_default();
        rows.iter().filter_map(|(k, v)| Some((last_number(k)?, unsealed(k, v)?.to_vec()))).collect()
    }

    /// A place at or before `seq` in a segment, unchecked.
    pub(crate) fn place(&self, log: &str, segment: u64, nonce: u64, seq: u64) -> Option<Point> {
        let (first, last) = (key(b'p', log, &[segment, nonce, 0]), key(b'p', log, &[segment, nonce, seq]));
        let (k, v) = self.with(|db| db.range(first..=last).next_back().transpose())??;
        let mut t = Take(unsealed(&k, &v)?);
        Some(Point {
            seq: last_number(&k)?,
            offset: t.u64()?,
            items_before: t.u64()?,
            bytes_before: t.u64()?,
            appended_at: t.u64()?,
        })
    }

    fn summary(&self, log: &str, segment: u64, nonce: u64) -> Option<SegmentSummary> {
        let prefix = key(b's', log, &[]);
        let k = key(b's', log, &[segment, nonce]);
        let v = self.with(|db| db.get(&k))??;
        read_summary(&prefix, &k, &v)
    }

    fn write_points(&self, log: &str, s: &Segment, nonce: u64, points: &[Point]) {
        let fed = lock(&self.fed).get(&(log.to_string(), s.n)).copied().unwrap_or(0);
        let mut batch = sled::Batch::default();
        let mut last = None;
        for p in points.iter().filter(|p| p.offset >= fed) {
            let k = key(b'p', log, &[s.n, nonce, p.seq]);
            let mut v = Vec::new();
            for n in [p.offset, p.items_before, p.bytes_before, p.appended_at] {
                v.u64(n);
            }
            batch.insert(k.clone(), sealed(&k, &v));
            last = Some(p.offset + 1);
        }
        if let Some(upto) = last
            && self.with(|db| db.apply_batch(batch)).is_some()
        {
            lock(&self.fed).insert((log.to_string(), s.n), upto);
        }
    }

    /// Reads one segment from end to end.
    fn walk(&self, log: &Log, name: &str, s: &Segment, nonce: u64) {
        let Ok(file) = log.0.disk.open(&segment::name(s.n)) else { return };
        let mut scanner = Scanner::new(file, s.n, nonce, s.data_at, s.end);
        let mut points: Vec<Point> = Vec::new();
        let (first_seq, upper) = (s.first_seq, s.upper);
        let mut sum = SegmentSummary {
            segment: s.n,
            first_seq,
            upper,
            first_time: 0,
            last_time: 0,
            frames: 0,
            items: 0,
            bytes: 0,
        };
        loop {
            match scanner.next() {
                Found::End => break,
                Found::Record(r) if r.header.kind == kind::FRAME => count(&mut sum, &mut points, r.at, &r.header),
                Found::Record(_) | Found::Marker(_) | Found::Bad { .. } => {}
            }
        }
        self.write_points(name, s, nonce, &points);
        let k = key(b's', name, &[s.n, nonce]);
        let mut v = Vec::new();
        for n in [sum.first_seq, sum.upper, sum.first_time, sum.last_time, sum.frames, sum.items, sum.bytes] {
            v.u64(n);
        }
        let v = sealed(&k, &v);
        self.with(|db| db.insert(&k, v));
    }

    fn forget_deleted(&self, log: &str, oldest: u64) {
        for kind in [b's', b'p'] {
            let (first, last) = (key(kind, log, &[0]), key(kind, log, &[oldest]));
            self.with(|db| {
                for k in db.range(first..last).keys() {
                    db.remove(k?)?;
                }
                Ok(())
            });
        }
    }

    /// The one door to sled. A panic or an error in there costs the index, never the caller.
    fn with<T>(&self, f: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        let db = lock(&self.db).clone()?;
        match catch_unwind(AssertUnwindSafe(|| f(&db))) {
            Ok(Ok(v)) => return Some(v),
            Ok(Err(e)) => {
                drop(db);
                self.doubt(&e.to_string());
            }
            Err(_) => {
                drop(db);
                self.doubt("sled panicked");
            }
        }
        None
    }
}

fn open_db(path: &Path) -> Option<sled::Db> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.mode(sled::Mode::LowSpace).open())) {
        Ok(Ok(db)) => Some(db),
        Ok(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "the index does not open");
            None
        }
        Err(_) => None,
    }
}

fn burn(path: &Path) {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = gone
        && path.exists()
    {
        tracing::warn!(path = %path.display(), %error, "the old index cannot be removed");
    }
}

fn count(sum: &mut SegmentSummary, points: &mut Vec<Point>, at: u64, h: &Header) {
    if sum.frames == 0 {
        (sum.first_seq, sum.first_time) = (h.seq, h.appended_at);
    }
    sum.frames += 1;
    sum.items += u64::from(h.items);
    sum.bytes += u64::from(h.payload_len);
    sum.last_time = h.appended_at;
    if points.last().is_none_or(|p| at - p.offset >= POINT_EVERY_BYTES) {
        let (items_before, bytes_before) = (h.items_before, h.bytes_before);
        points.push(Point { seq: h.seq, offset: at, items_before, bytes_before, appended_at: h.appended_at });
    }
}

/// kind, log name, zero, big-endian numbers: sorted as it reads.
fn key(kind: u8, log: &str, numbers: &[u64]) -> Vec<u8> {
    let mut k = vec![kind];
    k.extend_from_slice(log.as_bytes());
    k.push(0);
    for n in numbers {
        k.extend_from_slice(&n.to_be_bytes());
    }
    k
}

fn last_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

/// A value with a checksum over key and value: sled has none that survives its own recovery.
fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut v = value.to_vec();
    v.u32(crc32c::crc32c_append(crc32c::crc32c(key), value));
    v
}

fn unsealed<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = sealed.split_last_chunk::<4>()?;
    (crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes() == *sum).then_some(value)
}

fn read_summary(prefix: &[u8], k: &[u8], v: &[u8]) -> Option<SegmentSummary> {
    let segment = u64::from_be_bytes(*k.strip_prefix(prefix)?.first_chunk()?);
    let mut t = Take(unsealed(k, v)?);
    Some(SegmentSummary {
        segment,
        first_seq: t.u64()?,
        upper: t.u64()?,
        first_time: t.u64()?,
        last_time: t.u64()?,
        frames: t.u64()?,
        items: t.u64()?,
        bytes: t.u64()?,
    })
}
