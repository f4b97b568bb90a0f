//! The sum of a walk: what is there, and what ought to be.
//!
//! Every frame carries how many records were appended before it, so that a hole is counted in records even when nothing of
//! it can be read. The weakness: what was lost behind the last readable record leaves no trace but unreadable bytes.

use super::{CoverPage, Entry, Found, LogView, Placed, SegmentInfo, Unreadable};

/// Unreadable stretches listed in a [`Verified`]; more are counted.
pub const STRETCHES_MAX: usize = 1_000;

impl LogView {
    /// Reads every record of the log.
    pub fn verify(&self) -> Verified {
        let mut sum = Verified {
            segments: self
                .spans
                .iter()
                .map(|s| SegmentCheck { info: s.info.clone(), ..SegmentCheck::default() })
                .collect(),
            ..Verified::default()
        };
        let first = self.spans.first().map(|s| &s.info).filter(|s| s.cover == CoverPage::Whole);
        let mut expected = first.map(|s| s.items_before);
        let mut walk = self.walk(0);
        for found in &mut walk {
            match found {
                Found::Unreadable(u) => sum.unreadable(u),
                Found::Record(r) => sum.record(&r, &mut expected),
            }
        }
        sum.repeated = walk.repeated();
        if let Some(expected) = expected {
            sum.lost_items += self.items.saturating_sub(expected);
        }
        sum
    }
}

/// What was read of one segment.
#[derive(Clone, Debug, Default)]
pub struct SegmentCheck {
    /// The file.
    pub info: SegmentInfo,
    /// Whole records, state records included.
    pub records: u64,
    /// Frames among them, each seq once.
    pub frames: u64,
    /// Records in those.
    pub items: u64,
    /// Unreadable.
    pub unreadable_bytes: u64,
}

/// What reading every record of a log found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// By segment, oldest first.
    pub segments: Vec<SegmentCheck>,
    /// Frames, each seq once.
    pub frames: u64,
    /// Records in them.
    pub items: u64,
    /// Their payloads, as stored.
    pub payload_bytes: u64,
    /// Records that carry state.
    pub state_records: u64,
    /// Records of a kind that this version does not know; read past.
    pub unknown_records: u64,
    /// Frames met again, as a failed write leaves them; read once.
    pub repeated: u64,
    /// Number of the first and last frame.
    pub seqs: Option<(u64, u64)>,
    /// When the first and last frame were appended, unix nanoseconds.
    pub times: Option<(u64, u64)>,
    /// Records that were appended and cannot be read, by the running totals that every frame carries.
    pub lost_items: u64,
    /// Unreadable stretches, at most [`STRETCHES_MAX`].
    pub stretches: Vec<Unreadable>,
    /// How many there are.
    pub stretches_found: u64,
    /// Unreadable below a synced offset: was acknowledged.
    pub damaged_bytes: u64,
    /// Unreadable above the last stated one: may have been acknowledged.
    pub torn_bytes: u64,
}

impl Verified {
    /// Nothing is unreadable, nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.stretches_found == 0 && self.lost_items == 0
    }

    fn unreadable(&mut self, u: Unreadable) {
        let bytes = u.to - u.from;
        *(if u.was_synced { &mut self.damaged_bytes } else { &mut self.torn_bytes }) += bytes;
        self.segments[u.segment].unreadable_bytes += bytes;
        self.stretches_found += 1;
        if self.stretches.len() < STRETCHES_MAX {
            self.stretches.push(u);
        }
    }

    fn record(&mut self, r: &Placed, expected: &mut Option<u64>) {
        let segment = &mut self.segments[r.segment];
        segment.records += 1;
        match &r.entry {
            Entry::Frame(f) => {
                segment.frames += 1;
                segment.items += u64::from(f.items);
                self.frames += 1;
                self.items += u64::from(f.items);
                self.payload_bytes += f.payload.len() as u64;
                self.seqs = Some((self.seqs.map_or(f.seq, |(first, _)| first), f.seq));
                self.times = Some((self.times.map_or(f.appended_at, |(first, _)| first), f.appended_at));
                self.lost_items += f.items_before.saturating_sub(expected.unwrap_or(f.items_before));
                *expected = Some(f.items_before + u64::from(f.items));
            }
            Entry::Unknown { .. } => self.unknown_records += 1,
            _ => self.state_records += 1,
        }
    }
}
