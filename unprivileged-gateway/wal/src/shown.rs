//! What readers may see: the shop window. Everything in it is synced; nothing else ever gets there.
//!
//! The segment table, totals and marks of what is synced, and the last written groups, kept in memory up to a limit so
//! that a reader that keeps up never touches the disk. Places that readers have passed are noted, so that a cursor's
//! bytes and age are exact where somebody looked and estimated elsewhere.

use crate::group::{Group, Point, Totals};
use crate::origin::Marks;
use crate::recover::Segment;
use crate::state::{Cursor, Registered};
use crate::stats::{DestinationStats, Waiting};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Places remembered for readers that are behind.
const NOTES_MAX: usize = 4_096;
/// A tray larger than this is not used again.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// A group that fills less than one part in this many of its tray is copied out of it.
const COPY_OUT: usize = 4;

/// A written group, kept for readers.
pub(crate) struct Chunk {
    pub(crate) base: u64,
    pub(crate) records_at: usize,
    pub(crate) first_seq: u64,
    pub(crate) next_seq: u64,
    /// Memory held by `bytes`.
    pub(crate) capacity: usize,
    pub(crate) bytes: Bytes,
}

/// What readers may see.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) segments: Vec<Segment>,
    pub(crate) chunks: VecDeque<Arc<Chunk>>,
    pub(crate) chunk_bytes: usize,
    /// Totals over what is synced.
    pub(crate) totals: Totals,
    pub(crate) marks: Marks,
    pub(crate) refused: Vec<(u64, u64)>,
    pub(crate) damage: BTreeMap<&'static str, u64>,
    /// Exact places that readers have passed: seq -> place.
    pub(crate) notes: BTreeMap<u64, Point>,
    pub(crate) closed: Option<String>,
    pub(crate) commits: u64,
    pub(crate) rolls: u64,
    pub(crate) deleted: u64,
    pub(crate) failures: u64,
}

impl Shown {
    /// Whether a number was given and then refused.
    pub(crate) fn has_refused(&self, seq: u64) -> bool {
        self.refused.iter().any(|&(a, b)| a <= seq && seq < b)
    }

    /// Bytes of all segment files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.file_bytes).sum()
    }

    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.damage.entry(kind).or_default() += 1;
    }

    pub(crate) fn note(&mut self, p: Point) {
        self.notes.insert(p.seq, p);
        if self.notes.len() > NOTES_MAX {
            self.notes.pop_first();
        }
    }

    /// The exact place of a frame, if it is known without reading the disk.
    pub(crate) fn place(&self, seq: u64) -> Option<Point> {
        if seq >= self.totals.next_seq {
            let Totals { next_seq, items, bytes } = self.totals;
            return Some(Point { seq: next_seq, offset: 0, items_before: items, bytes_before: bytes, appended_at: 0 });
        }
        if let Some(p) = self.notes.get(&seq) {
            return Some(*p);
        }
        let chunk = self.chunks.iter().find(|c| c.first_seq <= seq && seq < c.next_seq)?;
        crate::reader::frames_of(chunk).find(|(_, h)| h.seq >= seq).map(|(at, h)| Point {
            seq,
            offset: chunk.base + at as u64,
            items_before: h.items_before,
            bytes_before: h.bytes_before,
            appended_at: h.appended_at,
        })
    }

    /// Items and bytes behind a cursor that moves by `items` to a place nobody knows exactly.
    pub(crate) fn estimate(&self, cursor: &Cursor, items: u64) -> (u64, u64) {
        let items = (cursor.items + items).min(self.totals.items);
        let (left, all) = (items - cursor.items.min(items), self.totals.items.saturating_sub(cursor.items).max(1));
        let bytes = self.totals.bytes.saturating_sub(cursor.bytes);
        (items, cursor.bytes + (u128::from(bytes) * u128::from(left) / u128::from(all)) as u64)
    }

    pub(crate) fn waiting(&self, cursor: &Cursor) -> Waiting {
        if cursor.seq >= self.totals.next_seq {
            return Waiting::default();
        }
        let items = self.totals.items.saturating_sub(cursor.items);
        let bytes = self.totals.bytes.saturating_sub(cursor.bytes);
        let oldest_appended_at = self.time_at(cursor.seq).filter(|_| items > 0 || bytes > 0);
        Waiting { items, bytes, oldest_appended_at }
    }

    /// When the frame was appended, or one a little before it.
    fn time_at(&self, seq: u64) -> Option<u64> {
        if let Some(p) = self.place(seq) {
            return Some(p.appended_at);
        }
        let s = self.segments.iter().rev().find(|s| s.first_seq <= seq).or(self.segments.first())?;
        let noted = self.notes.range(..=seq).next_back().map(|(_, p)| p).filter(|p| p.seq >= s.first_seq);
        let point = s.points.iter().rev().find(|p| p.seq <= seq);
        let times = [Some(s.first_time), noted.map(|p| p.appended_at), point.map(|p| p.appended_at)];
        times.into_iter().flatten().max()
    }

    pub(crate) fn destination(&self, r: &Registered) -> DestinationStats {
        let synced = r.synced.map_or(0, |c| c.seq);
        let older = self.segments.len().saturating_sub(1);
        let holds_segments =
            self.segments[..older].iter().filter(|s| s.upper > synced && s.upper > s.first_seq).count();
        DestinationStats {
            id: r.id(),
            configured: r.configured,
            registered_at: r.registered_at,
            cursor: r.cursor,
            waiting: self.waiting(&r.cursor),
            holds_segments,
        }
    }

    /// Keeps a written group for readers, within the limit. Returns trays that nobody reads any more.
    pub(crate) fn keep(&mut self, group: Group, next_seq: u64, limit: usize) -> Vec<BytesMut> {
        let mut spares = Vec::new();
        if group.frames == 0 {
            return spares;
        }
        let (first_seq, base, records_at) = (group.first_seq, group.base, group.records_at);
        let bytes = if group.buf.len() * COPY_OUT < group.buf.capacity() {
            // A small group in a large tray would hold the tray's memory.
            let copy = Bytes::copy_from_slice(&group.buf);
            spares.extend(emptied(group.buf));
            copy
        } else {
            group.buf.freeze()
        };
        // The tray may be up to this much larger than what lies on it.
        let capacity = bytes.len();
        self.chunk_bytes += capacity;
        self.chunks.push_back(Arc::new(Chunk { base, records_at, first_seq, next_seq, capacity, bytes }));
        while self.chunk_bytes > limit {
            let Some(old) = self.chunks.pop_front() else { break };
            self.chunk_bytes -= old.capacity;
            if let Some(Ok(buf)) = Arc::into_inner(old).map(|c| c.bytes.try_into_mut()) {
                spares.extend(emptied(buf));
            }
        }
        spares
    }
}

/// A tray to be used again, unless it is a very large one.
fn emptied(mut buf: BytesMut) -> Option<BytesMut> {
    buf.clear();
    (buf.capacity() <= SPARE_BYTES_MAX).then_some(buf)
}
