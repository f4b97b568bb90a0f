//! Where a frame came from, and what has been seen of that source: a stamp in the same checksummed record as the frame.
//!
//! A [`Stream`] is a numbered source (an epoch of another node, a file, a probe start, a journal). A [`Mark`] is what is
//! held of it: the contiguous end plus the islands beyond it, normally none. Intake trims against marks; nothing can be
//! stored twice because the stamp and the frame live or die together. The weakness: a stream forgotten (a file not seen
//! for 7 days, more than 65,536 of them) is read anew.

use crate::record::Epoch;
use crate::wire::{Put, Take};
use std::collections::BTreeMap;

/// A random 128-bit name of one storage folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeId(pub [u8; 16]);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A file as the probe knows it; the generation rises when it is truncated or replaced in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Opaque to the log.
    pub id: [u8; 16],
    /// Counted by the probe.
    pub generation: u32,
}

/// The stamp of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A frame of another node, by hop or by hand-over.
    Hop {
        /// Whose log.
        node: NodeId,
        /// Which of its starts.
        epoch: Epoch,
        /// Its number there.
        seq: u64,
    },
    /// Bytes of a log file.
    LogBytes {
        /// Which file.
        file: FileKey,
        /// First byte in the source.
        offset: u64,
        /// Bytes in the source (not of the payload).
        len: u64,
    },
    /// A window of stacks.
    Stack {
        /// Random name of the probe's start.
        start: [u8; 16],
        /// Number within it.
        seq: u64,
    },
    /// An entry of the system journal.
    Journal {
        /// Which journal (its sequence-number id).
        journal: [u8; 16],
        /// Number within it.
        seq: u64,
        /// The journal's own cursor text, to resume at; at most 255 bytes.
        cursor: String,
    },
}

/// A source of numbered things.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// One start of another node.
    Hop(NodeId, Epoch),
    /// One generation of a file.
    File(FileKey),
    /// One start of the probe.
    Stack([u8; 16]),
    /// One journal.
    Journal([u8; 16]),
}

const CURSOR_TEXT_MAX: usize = 255;

impl Origin {
    /// Its stream and the half-open range it covers there.
    pub fn range(&self) -> (Stream, u64, u64) {
        match self {
            Origin::Hop { node, epoch, seq } => (Stream::Hop(*node, *epoch), *seq, seq.saturating_add(1)),
            Origin::LogBytes { file, offset, len } => (Stream::File(*file), *offset, offset.saturating_add(*len)),
            Origin::Stack { start, seq } => (Stream::Stack(*start), *seq, seq.saturating_add(1)),
            Origin::Journal { journal, seq, .. } => (Stream::Journal(*journal), *seq, seq.saturating_add(1)),
        }
    }

    /// Text worth remembering with the mark: the journal's cursor.
    pub(crate) fn text(&self) -> &str {
        match self {
            Origin::Journal { cursor, .. } => cursor,
            _ => "",
        }
    }

    pub(crate) fn write(origin: Option<&Origin>, to: &mut Vec<u8>) {
        match origin {
            None => to.u8(0),
            Some(Origin::Hop { node, epoch, seq }) => {
                to.u8(1);
                to.put(&node.0);
                to.u64(epoch.counter);
                to.u64(epoch.random);
                to.u64(*seq);
            }
            Some(Origin::LogBytes { file, offset, len }) => {
                to.u8(2);
                to.put(&file.id);
                to.u32(file.generation);
                to.u64(*offset);
                to.u64(*len);
            }
            Some(Origin::Stack { start, seq }) => {
                to.u8(3);
                to.put(start);
                to.u64(*seq);
            }
            Some(Origin::Journal { journal, seq, cursor }) => {
                to.u8(4);
                to.put(journal);
                to.u64(*seq);
                to.text(&cursor.as_bytes()[..cursor.len().min(CURSOR_TEXT_MAX)]);
            }
        }
    }

    pub(crate) fn read(t: &mut Take<'_>) -> Option<Option<Origin>> {
        Some(match t.u8()? {
            0 => None,
            1 => Some(Origin::Hop { node: NodeId(t.array()?), epoch: read_epoch(t)?, seq: t.u64()? }),
            2 => Some(Origin::LogBytes { file: read_file(t)?, offset: t.u64()?, len: t.u64()? }),
            3 => Some(Origin::Stack { start: t.array()?, seq: t.u64()? }),
            4 => Some(Origin::Journal { journal: t.array()?, seq: t.u64()?, cursor: t.string()? }),
            _ => return None,
        })
    }
}

fn read_epoch(t: &mut Take<'_>) -> Option<Epoch> {
    Some(Epoch { counter: t.u64()?, random: t.u64()? })
}

fn read_file(t: &mut Take<'_>) -> Option<FileKey> {
    Some(FileKey { id: t.array()?, generation: t.u32()? })
}

impl Stream {
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Stream::Hop(node, epoch) => {
                to.u8(1);
                to.put(&node.0);
                to.u64(epoch.counter);
                to.u64(epoch.random);
            }
            Stream::File(file) => {
                to.u8(2);
                to.put(&file.id);
                to.u32(file.generation);
            }
            Stream::Stack(start) => {
                to.u8(3);
                to.put(start);
            }
            Stream::Journal(journal) => {
                to.u8(4);
                to.put(journal);
            }
        }
    }

    pub(crate) fn read(t: &mut Take<'_>) -> Option<Stream> {
        Some(match t.u8()? {
            1 => Stream::Hop(NodeId(t.array()?), read_epoch(t)?),
            2 => Stream::File(read_file(t)?),
            3 => Stream::Stack(t.array()?),
            4 => Stream::Journal(t.array()?),
            _ => return None,
        })
    }
}

/// What is held of a stream: disjoint half-open ranges, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mark {
    /// The first is the contiguous part, the others are islands.
    pub ranges: Vec<(u64, u64)>,
    /// When the stream was last appended to, unix nanoseconds.
    pub touched_at: u64,
    /// The journal cursor of the highest entry held.
    pub text: String,
}

impl Mark {
    /// End of the contiguous part: where a sender goes on.
    pub fn contiguous_end(&self) -> Option<u64> {
        self.ranges.first().map(|r| r.1)
    }
    /// Whether all of `[from, to)` is held.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.ranges.iter().any(|&(a, b)| a <= from && to <= b)
    }
    /// The stream begins at `first`: an empty contiguous part, if what is held begins later.
    pub(crate) fn begin(&mut self, first: u64) {
        if self.ranges.first().is_none_or(|r| first < r.0) {
            self.ranges.insert(0, (first, first));
        }
    }
    /// Adds `[from, to)`; touching ranges become one.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        let at = self.ranges.partition_point(|r| r.1 < from);
        let mut upto = at;
        while let Some(&(a, b)) = self.ranges.get(upto).filter(|r| r.0 <= to) {
            (from, to) = (from.min(a), to.max(b));
            upto += 1;
        }
        self.ranges.splice(at..upto, [(from, to)]);
    }
    /// What of `[from, to)` is new: the first missing piece of it.
    pub(crate) fn trim(&self, mut from: u64, mut to: u64) -> (u64, u64) {
        for &(a, b) in &self.ranges {
            if a <= from && from < b {
                from = b;
            }
        }
        for &(a, _) in &self.ranges {
            if a >= from {
                to = to.min(a);
                break;
            }
        }
        (from, to.max(from))
    }
}

/// Marks of all streams.
pub(crate) type Marks = BTreeMap<Stream, Mark>;

/// One thing seen, to be applied to marks.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Stream,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) at: u64,
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn of(origin: &Origin, at: u64) -> Seen {
        let (stream, from, to) = origin.range();
        Seen { stream, from, to, at, text: origin.text().to_string() }
    }
    pub(crate) fn apply(&self, marks: &mut Marks) {
        let mark = marks.entry(self.stream.clone()).or_default();
        let highest = mark.ranges.last().is_none_or(|r| r.1 <= self.to);
        mark.add(self.from, self.to);
        mark.touched_at = mark.touched_at.max(self.at);
        if highest && !self.text.is_empty() {
            mark.text.clone_from(&self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_islands_apart_until_they_touch() {
        let mut m = Mark::default();
        m.add(0, 10);
        m.add(20, 30);
        assert_eq!(m.contiguous_end(), Some(10));
        assert!(m.covers(22, 30) && !m.covers(9, 21));
        assert_eq!(m.trim(5, 40), (10, 20));
        assert_eq!(m.trim(25, 40), (30, 40));
        m.add(10, 20);
        assert_eq!(m.ranges, [(0, 30)]);
        m.add(40, 40);
        assert_eq!(m.ranges, [(0, 30)]);
        m.add(28, 50);
        m.add(60, 70);
        m.add(0, 100);
        assert_eq!(m.ranges, [(0, 100)]);
    }

    #[test]
    fn every_origin_reads_back() {
        let epoch = Epoch { counter: 1, random: 2 };
        for o in [
            Origin::Hop { node: NodeId([1; 16]), epoch, seq: 9 },
            Origin::LogBytes { file: FileKey { id: [2; 16], generation: 3 }, offset: 4, len: 5 },
            Origin::Stack { start: [6; 16], seq: 7 },
            Origin::Journal { journal: [8; 16], seq: 9, cursor: "s=1;i=2".into() },
        ] {
            let mut b = Vec::new();
            Origin::write(Some(&o), &mut b);
            assert_eq!(Origin::read(&mut Take(&b)), Some(Some(o.clone())));
            for cut in 0..b.len() {
                assert_eq!(Origin::read(&mut Take(&b[..cut])), None);
            }
            let mut b = Vec::new();
            o.range().0.write(&mut b);
            assert_eq!(Stream::read(&mut Take(&b)), Some(o.range().0));
        }
    }
}
