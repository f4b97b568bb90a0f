//! Which records a destination is finished with: the arithmetic of its cursor.
//!
//! Image: parcels on a belt. Each batch has a place on the belt; pieces of it are signed for in any order; the cursor stands
//! behind the last batch of which every piece is signed for. Counts move with the cursor and never before it, so that the ledger
//! adds up at any moment. Weakness: one unfinished batch holds the count of all that is finished behind it.

use crate::telemetry::Loss;
use std::collections::{BTreeMap, VecDeque};

/// What became of the records of a batch. Unit: records; `bytes` as sent over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Filled in by [`Belt::step`]: what is left of the batch when the other fates are taken off.
    pub sent: u64,
    pub quarantined: BTreeMap<&'static str, Loss>,
    pub damaged: u64,
    /// Not for this destination: it takes nothing new (`intake: false`).
    pub dropped: u64,
    pub bytes: u64,
}

impl Counts {
    pub fn sent(bytes: u64) -> Counts {
        Counts { bytes, ..Counts::default() }
    }

    pub fn damaged(records: u64) -> Counts {
        Counts { damaged: records, ..Counts::default() }
    }

    pub fn dropped(records: u64) -> Counts {
        Counts { dropped: records, ..Counts::default() }
    }

    pub fn quarantined(reason: &'static str, records: u64, bytes: u64) -> Counts {
        Counts { quarantined: [(reason, Loss { records, bytes })].into(), ..Counts::default() }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.sent += other.sent;
        self.damaged += other.damaged;
        self.dropped += other.dropped;
        self.bytes += other.bytes;
        for (reason, loss) in other.quarantined {
            let total = self.quarantined.entry(reason).or_default();
            total.records += loss.records;
            total.bytes += loss.bytes;
        }
    }
}

/// A step of the cursor: everything below `seq` is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub seq: u64,
    pub items: u64,
    pub counts: Counts,
}

struct Batch {
    id: u64,
    end: u64,
    items: u64,
    open: u32,
    counts: Counts,
}

/// The belt.
#[derive(Default)]
pub struct Belt {
    batches: VecDeque<Batch>,
    next_id: u64,
}

impl Belt {
    /// A batch of `items` records that ends before `end`, with one open piece. Returns its id.
    pub fn place(&mut self, end: u64, items: u64) -> u64 {
        self.next_id += 1;
        self.batches.push_back(Batch { id: self.next_id, end, items, open: 1, counts: Counts::default() });
        self.next_id
    }

    /// One piece of batch `id` is finished. Unknown ids are ignored: the batch has already been passed.
    pub fn finish(&mut self, id: u64, counts: Counts) {
        if let Some(b) = self.batches.iter_mut().find(|b| b.id == id) {
            b.open = b.open.saturating_sub(1);
            b.counts += counts;
        }
    }

    /// One more piece of batch `id` stays open.
    pub fn hold(&mut self, id: u64) {
        if let Some(b) = self.batches.iter_mut().find(|b| b.id == id) {
            b.open += 1;
        }
    }

    /// A piece that was never held open by itself.
    pub fn count(&mut self, id: u64, counts: Counts) {
        self.hold(id);
        self.finish(id, counts);
    }

    /// Moves over everything at the front that is finished.
    pub fn step(&mut self) -> Option<Step> {
        let mut step: Option<Step> = None;
        while self.batches.front().is_some_and(|b| b.open == 0) {
            let Some(b) = self.batches.pop_front() else { break };
            let s = step.get_or_insert(Step { seq: b.end, items: 0, counts: Counts::default() });
            s.seq = b.end;
            s.items += b.items;
            s.counts += b.settled();
        }
        step
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

impl Batch {
    /// Pieces are counted in entries, a batch in records, and a request that a backend stored in part counts whole: the fates other
    /// than `sent` never add up to more than the batch, and `sent` is the rest.
    fn settled(self) -> Counts {
        let mut left = self.items;
        let mut counts = self.counts;
        counts.damaged = counts.damaged.min(left);
        left -= counts.damaged;
        counts.dropped = counts.dropped.min(left);
        left -= counts.dropped;
        for loss in counts.quarantined.values_mut() {
            loss.records = loss.records.min(left);
            left -= loss.records;
        }
        counts.sent = left;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_waits_for_the_slowest_piece() {
        let mut belt = Belt::default();
        let a = belt.place(10, 100);
        let b = belt.place(20, 50);
        belt.hold(a);
        belt.finish(b, Counts::sent(1));
        belt.finish(a, Counts::sent(1));
        assert_eq!(belt.step(), None, "one piece of the first batch is still open");
        belt.finish(a, Counts::quarantined("refused", 10, 7));
        let step = belt.step().expect("both batches are finished");
        assert_eq!((step.seq, step.items), (20, 150));
        assert_eq!((step.counts.sent, step.counts.bytes), (140, 2));
        assert_eq!(step.counts.quarantined["refused"], Loss { records: 10, bytes: 7 });
        assert!(belt.is_empty());
    }

    #[test]
    fn what_is_passed_always_adds_up_to_the_records_of_the_batch() {
        let mut belt = Belt::default();
        let a = belt.place(5, 3);
        belt.count(a, Counts::damaged(1));
        belt.count(a, Counts::dropped(1));
        belt.finish(a, Counts::quarantined("refused", 9, 0));
        let step = belt.step().expect("finished");
        let quarantined: u64 = step.counts.quarantined.values().map(|l| l.records).sum();
        assert_eq!(
            (step.counts.sent, quarantined, step.counts.dropped, step.counts.damaged, step.items),
            (0, 1, 1, 1, 3)
        );
    }
}
