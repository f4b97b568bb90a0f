//! The cover page of a segment file: whose it is, where it begins, and where every earlier one ends.
//!
//! A later cover page is the only authority on where an earlier segment ends: what a failed sync left beyond that is
//! never read again. If the page itself is unreadable, the sync markers inside still give the nonce, so that one bad
//! sector costs a page and not a segment. Drawn in `docs/wire.md`.

use crate::origin::NodeId;
use crate::record::{Epoch, MARKER_MAGIC, Marker};
use crate::wire::{Put, Take};
use std::collections::BTreeMap;

pub(crate) const MAGIC: [u8; 8] = *b"BULKWAL1";
pub(crate) const VERSION: u16 = 1;
/// Bytes before the list of stated ends.
pub(crate) const FIXED_BYTES: usize = 136;
/// More segments than this are never held: rolling by age stops long before (see `commit`).
pub(crate) const ENDS_MAX: usize = 1 << 16;
/// Bits of the three masks that this version knows. None are in use yet.
const READ_SAFE_KNOWN: u32 = 0;
const MUST_UNDERSTAND_KNOWN: u32 = 0;

/// The cover page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) ignore_safe: u32,
    pub(crate) read_safe: u32,
    pub(crate) must_understand: u32,
    pub(crate) node: NodeId,
    pub(crate) nonce: u64,
    pub(crate) segment: u64,
    pub(crate) epoch: Epoch,
    pub(crate) first_seq: u64,
    pub(crate) items_before: u64,
    pub(crate) bytes_before: u64,
    pub(crate) first_time: u64,
    /// Name of the log, cut at 16 bytes.
    pub(crate) log: String,
    /// Bytes that were synced before the file got its name: all that a recovery wrote, 0 for a rolled segment.
    pub(crate) born: u64,
    /// Segment number -> where it ends, for all earlier segments that are held.
    pub(crate) ends: BTreeMap<u64, u64>,
}

/// What a segment written by a later version allows us to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Understood {
    Fully,
    /// May be read, but nothing may be written or deleted.
    ReadOnly,
    /// May not even be read.
    Not,
}

impl SegmentHeader {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let len = FIXED_BYTES + self.ends.len() * 16 + 4;
        let mut b = Vec::with_capacity(len);
        b.put(&MAGIC);
        b.u16(VERSION);
        b.u16(0);
        b.u32(len as u32);
        b.u32(self.ignore_safe);
        b.u32(self.read_safe);
        b.u32(self.must_understand);
        b.u32(self.ends.len() as u32);
        b.put(&self.node.0);
        for v in [self.nonce, self.segment, self.epoch.counter, self.epoch.random] {
            b.u64(v);
        }
        for v in [self.first_seq, self.items_before, self.bytes_before, self.first_time] {
            b.u64(v);
        }
        let mut name = [0; 16];
        let n = self.log.len().min(16);
        name[..n].copy_from_slice(&self.log.as_bytes()[..n]);
        b.put(&name);
        b.u64(self.born);
        for (segment, end) in &self.ends {
            b.u64(*segment);
            b.u64(*end);
        }
        b.u32(crc32c::crc32c(&b));
        b
    }

    /// How many bytes the whole page has, from its first [`FIXED_BYTES`]. `None`: no page of ours.
    pub(crate) fn whole_len(b: &[u8]) -> Option<usize> {
        let b = b.get(..FIXED_BYTES)?;
        if b[..8] != MAGIC {
            return None;
        }
        let len = u32::from_le_bytes(b[12..16].try_into().ok()?) as usize;
        (FIXED_BYTES + 4..=FIXED_BYTES + 4 + ENDS_MAX * 16).contains(&len).then_some(len)
    }

    /// The page, if every byte of it is as written. Its length in bytes comes second.
    pub(crate) fn read(b: &[u8]) -> Option<(SegmentHeader, u64)> {
        let len = SegmentHeader::whole_len(b)?;
        let b = b.get(..len)?;
        if crc32c::crc32c(&b[..len - 4]).to_le_bytes() != b[len - 4..] {
            return None;
        }
        let mut t = Take(&b[16..]);
        let (ignore_safe, read_safe, must_understand, count) = (t.u32()?, t.u32()?, t.u32()?, t.u32()?);
        let node = NodeId(t.array()?);
        let (nonce, segment) = (t.u64()?, t.u64()?);
        let epoch = Epoch { counter: t.u64()?, random: t.u64()? };
        let (first_seq, items_before, bytes_before, first_time) = (t.u64()?, t.u64()?, t.u64()?, t.u64()?);
        let name: [u8; 16] = t.array()?;
        let used = name.iter().position(|c| *c == 0).unwrap_or(16);
        let log = String::from_utf8_lossy(&name[..used]).into_owned();
        let born = t.u64()?;
        let mut ends = BTreeMap::new();
        for _ in 0..count {
            ends.insert(t.u64()?, t.u64()?);
        }
        let header = SegmentHeader {
            ignore_safe,
            read_safe,
            must_understand,
            node,
            nonce,
            segment,
            epoch,
            first_seq,
            items_before,
            bytes_before,
            first_time,
            log,
            born,
            ends,
        };
        Some((header, len as u64))
    }

    pub(crate) fn understood(&self) -> Understood {
        if self.must_understand & !MUST_UNDERSTAND_KNOWN != 0 {
            Understood::Not
        } else if self.read_safe & !READ_SAFE_KNOWN != 0 {
            Understood::ReadOnly
        } else {
            Understood::Fully
        }
    }
}

/// File name of a segment: sorted by name is sorted by number.
pub(crate) fn name(segment: u64) -> String {
    format!("{segment:016x}.seg")
}

/// The number in a segment's file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(".seg").filter(|h| h.len() == 16)?;
    u64::from_str_radix(hex, 16).ok()
}

/// The nonce of a segment whose cover page is lost: the first marker that stands where it says it stands.
pub(crate) fn find_marker(bytes: &[u8], at: u64, segment: u64, nonce: Option<u64>) -> Option<Marker> {
    let mut from = 0;
    while let Some(i) = find(&bytes[from..], &MARKER_MAGIC) {
        let here = from + i;
        if let Some(m) = Marker::read(&bytes[here..])
            && m.offset == at + here as u64
            && m.segment == segment
            && nonce.is_none_or(|n| n == m.nonce)
        {
            return Some(m);
        }
        from = here + 1;
    }
    None
}

fn find(bytes: &[u8], what: &[u8; 8]) -> Option<usize> {
    bytes.windows(8).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_page_reads_back_or_not_at_all() {
        let h = SegmentHeader {
            ignore_safe: 1,
            read_safe: 0,
            must_understand: 0,
            node: NodeId([9; 16]),
            nonce: 1,
            segment: 2,
            epoch: Epoch { counter: 3, random: 4 },
            first_seq: 5,
            items_before: 6,
            bytes_before: 7,
            first_time: 8,
            log: "quarantine".into(),
            born: 9,
            ends: [(1, 100), (3, 300)].into(),
        };
        let b = h.bytes();
        assert_eq!(SegmentHeader::read(&b), Some((h.clone(), b.len() as u64)));
        assert_eq!(h.understood(), Understood::Fully);
        for bit in 0..b.len() * 8 {
            let mut bad = b.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::read(&bad), None);
        }
        for cut in 0..b.len() {
            assert_eq!(SegmentHeader::read(&b[..cut]), None);
        }
    }

    #[test]
    fn names_sort_as_numbers_do() {
        assert_eq!(number(&name(255)), Some(255));
        assert!(name(9) < name(10));
        assert_eq!(number("x.seg"), None);
        assert_eq!(number("new.tmp"), None);
    }
}
