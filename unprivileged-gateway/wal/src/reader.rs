//! A reader: somebody with a finger on a line of the ledger. Near the end of it he reads over the writer's shoulder, in
//! memory and without a copy; far behind he reads from the shelf, and checks every line.
//!
//! It sees nothing past the synced end, reads a seq once, and never stops at damage: what could not be read comes back
//! as a range of seqs in front of the frames that follow it. The weakness: a payload handed out keeps the whole group
//! it lies in alive.

use crate::disk::DiskFile;
use crate::group::Point;
use crate::log::{Inner, Log, lock};
use crate::origin::Origin;
use crate::record::{self, Codec, Epoch, HEADER_BYTES, Header, MARKER_BYTES, MARKER_MAGIC, kind};
use crate::recover::Segment;
use crate::scan::{Found, Scanner, Whole};
use crate::segment;
use crate::shown::{Chunk, Shown};
use crate::state::DestinationId;
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// A frame as it was appended.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number.
    pub seq: u64,
    /// The start that gave the number.
    pub epoch: Epoch,
    /// Records inside.
    pub items: u32,
    /// How the payload is stored.
    pub codec: Codec,
    /// Length once decoded.
    pub raw_len: u32,
    /// Nodes passed.
    pub hops: u8,
    /// Unix nanoseconds.
    pub appended_at: u64,
    /// Its stamp.
    pub origin: Option<Origin>,
    /// Destinations that need it no more ("kind/name").
    pub done: Vec<String>,
    /// Items of all frames before it.
    pub items_before: u64,
    /// XXH3-128 of the payload as stored.
    pub hash: u128,
    /// As stored.
    pub payload: Bytes,
}

impl Frame {
    /// Whether a destination is in the done set.
    pub fn is_done(&self, d: &DestinationId) -> bool {
        self.done.iter().any(|id| id == d.as_str())
    }
}

/// Why frames are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A checksum was wrong or bytes were gone.
    Damaged,
    /// The segment was deleted before this reader came to it.
    Deleted,
}

/// Frames that will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// First missing seq.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
    /// Records in them, where that is known.
    pub items: u64,
    /// Why.
    pub why: Why,
}

/// What one read gave. `skipped` lies before `frames`. Both empty: caught up with the synced end.
#[derive(Clone, Debug, Default)]
pub struct ReadBatch {
    /// In seq order, each seq once.
    pub frames: Vec<Frame>,
    /// Ranges that could not be read, in front of `frames`.
    pub skipped: Vec<Skipped>,
}

/// A segment could not be opened. The position is unchanged; try again later.
#[derive(Debug, thiserror::Error)]
#[error("log {log}: segment {segment} cannot be opened: {source}")]
pub struct ReadError {
    /// Which log.
    pub log: String,
    /// Which file.
    pub segment: String,
    /// What the system said.
    pub source: std::io::Error,
}

/// Reads a log from a seq on. Cheap to make; holds one file handle while it is behind.
pub struct Reader {
    inner: Arc<Inner>,
    next: u64,
    /// Items before `next`, once known.
    items: Option<u64>,
    disk: Option<OnDisk>,
    /// Unreadable bytes were passed since the last whole frame.
    hole: bool,
    kept: Option<Box<Whole>>,
    /// Segments opened since the last frame: none is opened twice for the same seq.
    tried: Vec<u64>,
    /// Where the last read of a group in memory stopped: the group's first seq, the next record in it.
    resume: (u64, usize),
}

struct OnDisk {
    segment: u64,
    scanner: Scanner,
    file: Arc<dyn DiskFile>,
    nonce: u64,
}

/// What to do at a reader's position.
enum Here {
    CaughtUp { next: u64, items: u64 },
    Memory(Arc<Chunk>),
    Disk(Shelf),
}

/// A place in a segment file.
struct Shelf {
    segment: u64,
    nonce: Option<u64>,
    at: u64,
    end: u64,
    known: Option<Point>,
}

impl Log {
    /// A reader that begins at `from` (a cursor's seq; 0 is the oldest frame held).
    pub fn reader(&self, from: u64) -> Reader {
        Reader {
            inner: self.0.clone(),
            next: from,
            items: None,
            disk: None,
            hole: false,
            kept: None,
            tried: Vec::new(),
            resume: (0, 0),
        }
    }
}

impl Reader {
    /// The seq that the next frame has at least.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Frames up to about `max_bytes` of payload, at least one if there is any.
    pub fn read(&mut self, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        let mut batch = ReadBatch::default();
        let mut room = max_bytes;
        loop {
            let more = match self.here() {
                Here::CaughtUp { next, items } => {
                    self.caught_up(next, items, &mut batch);
                    false
                }
                Here::Memory(chunk) => self.walk_memory(&chunk, &mut batch, &mut room),
                Here::Disk(shelf) => self.walk_disk(&shelf, &mut batch, &mut room)?,
            };
            if !more || room == 0 {
                break;
            }
        }
        Ok(batch)
    }

    fn here(&mut self) -> Here {
        let shown = lock(&self.inner.shown);
        if self.next == 0
            && let Some(oldest) = shown.segments.first()
        {
            (self.next, self.items) = (oldest.first_seq, Some(oldest.items_before));
        }
        if self.next >= shown.totals.next_seq {
            return Here::CaughtUp { next: shown.totals.next_seq, items: shown.totals.items };
        }
        // A chunk serves what it begins with or holds. The first one does not, when something older is on disk only.
        let i = shown.chunks.partition_point(|c| c.next_seq <= self.next);
        if let Some(chunk) = shown.chunks.get(i)
            && self.kept.is_none()
            && (i > 0 || chunk.first_seq <= self.next)
        {
            self.disk = None;
            return Here::Memory(chunk.clone());
        }
        self.disk_place(&shown)
    }

    fn disk_place(&self, shown: &Shown) -> Here {
        let s = &shown.segments;
        let current = self.disk.as_ref().and_then(|d| s.iter().find(|x| x.n == d.segment));
        if let (Some(disk), Some(x)) = (&self.disk, current)
            && (disk.scanner.at < x.end || self.kept.is_some())
        {
            return Here::Disk(Shelf {
                segment: x.n,
                nonce: Some(disk.nonce),
                at: disk.scanner.at,
                end: x.end,
                known: None,
            });
        }
        let behind = self.disk.as_ref().map_or(0, |d| d.segment);
        let fresh = |x: &&Segment| x.end > 0 && x.n != behind && !self.tried.contains(&x.n);
        let holds = s.iter().rev().filter(fresh).find(|x| x.first_seq <= self.next && self.next < x.upper);
        let next = || s.iter().filter(fresh).find(|x| x.n > behind && x.upper > self.next);
        let Some(x) = holds.or_else(next) else {
            return Here::CaughtUp { next: shown.totals.next_seq, items: shown.totals.items };
        };
        let point = x.points.iter().rev().find(|p| p.seq <= self.next);
        let at = point.map_or(x.data_at, |p| p.offset);
        Here::Disk(Shelf { segment: x.n, nonce: x.nonce, at, end: x.end, known: point.copied() })
    }

    /// Everything synced has been passed; if the end of it was unreadable, say so.
    fn caught_up(&mut self, next: u64, items: u64, batch: &mut ReadBatch) {
        if self.next < next && batch.frames.is_empty() {
            let lost = items.saturating_sub(self.items.unwrap_or(items));
            if self.hole || lost > 0 {
                self.skip(next, lost, batch);
            }
            (self.next, self.items, self.hole, self.disk) = (next, Some(items), false, None);
            self.tried.clear();
        }
    }

    fn skip(&self, to: u64, items: u64, batch: &mut ReadBatch) {
        let mut shown = lock(&self.inner.shown);
        let deleted = shown.segments.first().is_some_and(|s| to <= s.first_seq);
        let why = if deleted { Why::Deleted } else { Why::Damaged };
        shown.count(if deleted { "deleted" } else { "frames" });
        batch.skipped.push(Skipped { from: self.next, to, items, why });
    }

    fn walk_memory(&mut self, chunk: &Chunk, batch: &mut ReadBatch, room: &mut usize) -> bool {
        let from = if self.resume.0 == chunk.first_seq { self.resume.1 } else { chunk.records_at };
        for (at, h) in frames_from(chunk, from) {
            if h.seq < self.next {
                continue;
            }
            if !self.arrive(&h, batch) {
                return false;
            }
            self.resume = (chunk.first_seq, at + h.record_bytes());
            let ext = chunk.bytes.slice(at + HEADER_BYTES..at + h.payload_at());
            let payload = chunk.bytes.slice(at + h.payload_at()..at + h.record_bytes());
            self.take(h, &ext, payload, batch, room);
            if *room == 0 {
                break;
            }
        }
        if self.next < chunk.next_seq && *room > 0 {
            self.next = chunk.next_seq;
        }
        true
    }

    fn walk_disk(&mut self, shelf: &Shelf, batch: &mut ReadBatch, room: &mut usize) -> Result<bool, ReadError> {
        let &Shelf { segment, nonce, at, end, known } = shelf;
        let Some(nonce) = nonce else {
            // Neither page nor marker is readable: all of it is a hole; go on behind it.
            self.hole = true;
            lock(&self.inner.shown).count("segments");
            self.tried.push(segment);
            self.disk = Some(self.open(segment, 0, end, end)?);
            return Ok(true);
        };
        if self.disk.as_ref().is_none_or(|d| d.segment != segment) {
            let opened = self.open(segment, nonce, at, end);
            let gone = opened.as_ref().is_err_and(|e| e.source.kind() == ErrorKind::NotFound);
            if opened.is_ok() || gone {
                self.tried.push(segment);
            }
            if gone {
                // Deleted between the look at the table and now: what it held is reported with the frame that follows.
                return Ok(true);
            }
            let mut disk = opened?;
            let known = known.or_else(|| self.look_up(&mut disk));
            self.disk = Some(disk);
            if let Some(p) = known.filter(|p| p.seq == self.next) {
                self.items.get_or_insert(p.items_before);
            }
        }
        let (mut first, mut last) = (None, None);
        while *room > 0 {
            let Some(r) = self.step(end) else { break };
            if r.header.seq < self.next {
                // Read before, or below the place we were asked for.
                self.items = Some(self.items.unwrap_or(0).max(r.header.items_before + u64::from(r.header.items)));
                continue;
            }
            if !self.arrive(&r.header, batch) {
                self.kept = Some(r);
                return Ok(false);
            }
            first.get_or_insert_with(|| point(r.at, &r.header));
            let Whole { header, ext, payload, .. } = *r;
            let bytes_before = header.bytes_before + payload.len() as u64;
            let (seq, items_before) = (header.seq + 1, header.items_before + u64::from(header.items));
            last = Some(Point { seq, offset: 0, items_before, bytes_before, appended_at: header.appended_at });
            self.take(header, &ext, payload, batch, room);
        }
        let mut shown = lock(&self.inner.shown);
        first.into_iter().chain(last).for_each(|p| shown.note(p));
        Ok(true)
    }

    /// Asks the index for a nearer place, and believes it only when the frame stands there.
    fn look_up(&self, disk: &mut OnDisk) -> Option<Point> {
        let index = lock(&self.inner.index).clone()?;
        let p = index.place(&self.inner.name, disk.segment, disk.nonce, self.next)?;
        if p.offset >= disk.scanner.end {
            return None;
        }
        if !disk.scanner.stands(p.offset, p.seq) {
            index.doubt("a place does not hold the frame it names");
            return None;
        }
        disk.scanner.at = disk.scanner.at.max(p.offset);
        Some(p)
    }

    fn open(&self, segment: u64, nonce: u64, at: u64, end: u64) -> Result<OnDisk, ReadError> {
        let name = segment::name(segment);
        let file = self.inner.disk.open(&name).map_err(|source| ReadError {
            log: self.inner.name.clone(),
            segment: name.clone(),
            source,
        })?;
        let scanner = Scanner::new(file.clone(), segment, nonce, at, end);
        Ok(OnDisk { segment, scanner, file, nonce })
    }

    /// The next whole frame of the open segment; `None` at its end.
    fn step(&mut self, end: u64) -> Option<Box<Whole>> {
        if let Some(kept) = self.kept.take() {
            return Some(kept);
        }
        let disk = self.disk.as_mut()?;
        if disk.scanner.end < end {
            disk.scanner = Scanner::new(disk.file.clone(), disk.segment, disk.nonce, disk.scanner.at, end);
        }
        loop {
            match disk.scanner.next() {
                Found::End => return None,
                Found::Record(r) if r.header.kind == kind::FRAME => return Some(r),
                Found::Record(_) | Found::Marker(_) => {}
                Found::Bad { .. } => {
                    self.hole = true;
                    lock(&self.inner.shown).count("stretches");
                }
            }
        }
    }

    /// Looks at what lies between the last frame and this one. False: frames already in the batch go out first.
    fn arrive(&mut self, h: &Header, batch: &mut ReadBatch) -> bool {
        let lost = h.items_before.saturating_sub(self.items.unwrap_or(h.items_before));
        if h.seq > self.next && (self.hole || lost > 0) {
            if !batch.frames.is_empty() {
                return false;
            }
            self.skip(h.seq, lost, batch);
        }
        (self.hole, self.next, self.items) = (false, h.seq, Some(h.items_before));
        true
    }

    fn take(&mut self, h: Header, ext: &[u8], payload: Bytes, batch: &mut ReadBatch, room: &mut usize) {
        let (origin, done) = record::read_ext(ext).unwrap_or_default();
        *room = room.saturating_sub(payload.len().max(1));
        self.next = h.seq + 1;
        self.tried.clear();
        self.items = Some(h.items_before + u64::from(h.items));
        batch.frames.push(Frame {
            seq: h.seq,
            epoch: h.epoch,
            items: h.items,
            codec: h.codec,
            raw_len: h.raw_len,
            hops: h.hops,
            appended_at: h.appended_at,
            origin,
            done,
            items_before: h.items_before,
            hash: h.hash,
            payload,
        });
    }
}

fn point(offset: u64, h: &Header) -> Point {
    let (seq, items_before, bytes_before) = (h.seq, h.items_before, h.bytes_before);
    Point { seq, offset, items_before, bytes_before, appended_at: h.appended_at }
}

/// Frames of a written group, as our own hands laid them: not checked again. Index in the chunk, header.
pub(crate) fn frames_of(chunk: &Chunk) -> impl Iterator<Item = (usize, Header)> + '_ {
    frames_from(chunk, chunk.records_at)
}

fn frames_from(chunk: &Chunk, from: usize) -> impl Iterator<Item = (usize, Header)> + '_ {
    let (b, mut at) = (&chunk.bytes, from);
    std::iter::from_fn(move || {
        while at < b.len() {
            if b[at..].starts_with(&MARKER_MAGIC) {
                at += MARKER_BYTES;
                continue;
            }
            let header = record::peek(&b[at..])?;
            let here = at;
            at += header.record_bytes();
            if header.kind == kind::FRAME {
                return Some((here, header));
            }
        }
        None
    })
}
