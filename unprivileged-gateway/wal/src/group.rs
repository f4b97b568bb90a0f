//! The tray on which a group of records is laid before one write and one sync carry it to the disk.
//!
//! A payload is copied onto the tray once and summed there. The committer takes the whole tray; the next one is filled
//! meanwhile. Should the write fail, what lies on it is laid anew for the next segment, because checksums belong to a
//! place. After the sync the tray stays in memory: readers that keep up eat from it.

use crate::origin::Seen;
use crate::record::{self, Header, MARKER_BYTES, MARKER_EVERY_BYTES, MARKER_MAGIC, Marker, kind};
use bytes::BytesMut;

/// A known place in a segment at least this often.
pub(crate) const POINT_EVERY_BYTES: u64 = 1 << 20;

/// The segment that a group is meant for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) nonce: u64,
    pub(crate) previous: u64,
    pub(crate) previous_end: u64,
}

/// Where a frame stands, and how much came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
    pub(crate) items_before: u64,
    pub(crate) bytes_before: u64,
    pub(crate) appended_at: u64,
}

/// Totals over all frames ever appended: what the next frame finds before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) next_seq: u64,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) place: Place,
    /// Offset in the segment of the first byte.
    pub(crate) base: u64,
    pub(crate) buf: BytesMut,
    /// Where records begin; before it lie cover page and snapshot of a new segment.
    pub(crate) records_at: usize,
    /// Offset of the segment that was synced when the group was begun.
    pub(crate) synced: u64,
    pub(crate) frames: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) first_time: u64,
    pub(crate) seen: Vec<Seen>,
    pub(crate) points: Vec<Point>,
    last_point: Option<u64>,
    last_marker: Option<u64>,
    first_marker: Option<usize>,
}

impl Group {
    /// An empty group for `place`, whose first byte will lie at `base`.
    pub(crate) fn new(place: Place, base: u64, synced: u64, buf: BytesMut) -> Group {
        Group { place, base, synced, buf, ..Group::default() }
    }

    /// The group that follows this one in the same segment.
    pub(crate) fn follower(&self, buf: BytesMut) -> Group {
        let last_point = self.points.last().map(|p| p.offset).or(self.last_point);
        Group { last_point, ..Group::new(self.place, self.end(), self.synced, buf) }
    }

    /// Offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.buf.len() as u64
    }

    /// Bytes that a frame of this size may add, markers included.
    pub(crate) fn cost(ext: usize, payload: usize) -> u64 {
        (2 * MARKER_BYTES + record::HEADER_BYTES + ext + payload) as u64
    }

    /// A sync marker where one is due before a record of `coming` bytes: first of all, and every 64 KiB.
    fn mark(&mut self, coming: usize, totals: &Totals) {
        let at = self.end();
        let due = self.last_marker.is_none_or(|m| at + coming as u64 - m > MARKER_EVERY_BYTES);
        if !due {
            return;
        }
        self.first_marker.get_or_insert(self.buf.len());
        self.last_marker = Some(at);
        let marker = Marker {
            nonce: self.place.nonce,
            segment: self.place.segment,
            offset: at,
            synced: self.synced,
            next_seq: totals.next_seq,
            items_before: totals.items,
            previous: self.place.previous,
            previous_end: self.place.previous_end,
        };
        self.buf.extend_from_slice(&marker.bytes());
    }

    /// Lays a record behind the others.
    pub(crate) fn push(&mut self, header: &Header, ext: &[u8], parts: &[&[u8]], totals: &Totals, rehash: bool) {
        let payload: usize = parts.iter().map(|p| p.len()).sum();
        self.mark(record::HEADER_BYTES + ext.len() + payload, totals);
        let at = self.end();
        if header.kind == kind::FRAME {
            if self.frames == 0 {
                (self.first_seq, self.first_time) = (header.seq, header.appended_at);
            }
            self.frames += 1;
            self.payload_bytes += payload as u64;
            let last = self.points.last().map(|p| p.offset).or(self.last_point);
            if last.is_none_or(|p| at - p >= POINT_EVERY_BYTES) {
                self.points.push(Point {
                    seq: header.seq,
                    offset: at,
                    items_before: header.items_before,
                    bytes_before: header.bytes_before,
                    appended_at: header.appended_at,
                });
            }
        }
        let header = Header { synced: self.synced, ..header.clone() };
        record::write(&mut self.buf, (self.place.nonce, at), &header, ext, parts, rehash);
    }

    /// A record of the log itself; it consumes no seq.
    pub(crate) fn push_state(&mut self, kind: u8, payload: &[u8], epoch: record::Epoch, totals: &Totals, now: u64) {
        let header = Header {
            kind,
            version: record::VERSION,
            codec: record::Codec::Raw,
            hops: 0,
            payload_len: 0,
            ext_len: 0,
            synced: self.synced,
            seq: totals.next_seq,
            epoch,
            items: 0,
            raw_len: payload.len() as u32,
            appended_at: now,
            items_before: totals.items,
            bytes_before: totals.bytes,
            hash: 0,
            payload_crc: 0,
        };
        self.push(&header, &[], &[payload], totals, true);
    }

    /// Lays frames and gaps of another group here, with the same seq, epoch and hash. State is written from memory
    /// instead, because memory knows better.
    pub(crate) fn adopt(&mut self, other: &Group) {
        let b = &other.buf;
        let mut at = other.records_at;
        while at < b.len() {
            if b[at..].starts_with(&MARKER_MAGIC) {
                at += MARKER_BYTES;
                continue;
            }
            // Our own bytes, never read from a disk: what does not parse here is a broken invariant.
            let header = record::peek(&b[at..]).expect("a group holds whole records and markers only");
            let (body, next) = (at + header.payload_at(), at + header.record_bytes());
            if matches!(header.kind, kind::FRAME | kind::GAP) {
                let totals = Totals { next_seq: header.seq, items: header.items_before, bytes: header.bytes_before };
                self.push(&header, &b[at + record::HEADER_BYTES..body], &[&b[body..next]], &totals, false);
            }
            at = next;
        }
        self.seen.extend(other.seen.iter().cloned());
    }

    /// States in the group's first marker what is synced now: the end of the group before it.
    pub(crate) fn state_synced(&mut self, synced: u64) {
        self.synced = synced;
        let Some(at) = self.first_marker else { return };
        let slot = &mut self.buf[at..at + MARKER_BYTES];
        if let Some(marker) = Marker::read(slot) {
            slot.copy_from_slice(&Marker { synced, ..marker }.bytes());
        }
    }
}
