//! Which records a destination is finished with: the arithmetic of its cursor.
//!
//! Image: parcels on a belt. Each batch has a place on the belt; pieces of it are signed for in any order; the cursor stands
//! behind the last batch of which every piece is signed for. Counts move with the cursor and never before it, so that the ledger
//! adds up at any moment. A line of a file that is still open holds the cursor at the batch in which it began ([`Belt::needs`]), though
//! nothing more of that batch is to be sent. Weakness: one unfinished batch holds the count of all that is finished behind it.

use crate::telemetry::Loss;
use std::collections::{BTreeMap, VecDeque};

/// Batches from which on finished ones are put together.
const SQUEEZE_FROM: usize = 256;

/// What became of the records of a batch. Unit: records; `bytes` as sent over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Filled in by [`Belt::step`]: what is left of the batch when the other fates are taken off.
    pub sent: u64,
    pub quarantined: BTreeMap<&'static str, Loss>,
    pub damaged: u64,
    /// Not for this destination: it takes nothing new (`intake: false`).
    pub dropped: u64,
    /// Lines whose end was cut off; they are among the others.
    pub cut: u64,
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
        self.cut += other.cut;
        self.bytes += other.bytes;
        for (reason, loss) in other.quarantined {
            let total = self.quarantined.entry(reason).or_default();
            total.records += loss.records;
            total.bytes += loss.bytes;
        }
    }
}

/// A step of the cursor: everything below `seq` is finished, everything below `sent_upto` has been sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub seq: u64,
    pub sent_upto: u64,
    pub items: u64,
    pub counts: Counts,
}

struct Batch {
    id: u64,
    end: u64,
    items: u64,
    open: u32,
    /// The first frame that is read again after a stop behind this batch; the batch's end if nothing is open there.
    needs: u64,
    counts: Counts,
}

/// The belt.
#[derive(Default)]
pub struct Belt {
    batches: VecDeque<Batch>,
    next_id: u64,
    sent_upto: u64,
}

impl Belt {
    /// A batch of `items` records that ends before `end`, with one open piece. Returns its id.
    pub fn place(&mut self, end: u64, items: u64) -> u64 {
        self.next_id += 1;
        self.batches.push_back(Batch { id: self.next_id, end, items, open: 1, needs: end, counts: Counts::default() });
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

    /// Behind batch `id`, lines are open that began in frame `seq`: the cursor must not pass it while that is so.
    pub fn needs(&mut self, id: u64, seq: u64) {
        if let Some(b) = self.batches.iter_mut().find(|b| b.id == id) {
            b.needs = b.needs.min(seq);
        }
    }

    /// Moves over everything at the front that is finished and not needed for a line that is open behind it.
    pub fn step(&mut self) -> Option<Step> {
        let finished = self.batches.iter().take_while(|b| b.open == 0).count();
        let last = self.batches.get(finished.checked_sub(1)?)?;
        let (needs, sent_upto) = (last.needs, last.end);
        let mut step = Step { sent_upto, ..Step::default() };
        while self.batches.front().is_some_and(|b| b.open == 0 && b.end <= needs) {
            let Some(b) = self.batches.pop_front() else { break };
            step.seq = b.end;
            step.items += b.items;
            step.counts += b.settled();
        }
        self.squeeze();
        let moved = step.seq > 0 || sent_upto > self.sent_upto;
        self.sent_upto = self.sent_upto.max(sent_upto);
        moved.then_some(step)
    }

    /// Finished batches that a line still needs become one if there are many: only their sum is of interest, and the belt stays short.
    fn squeeze(&mut self) {
        if self.batches.len() < SQUEEZE_FROM {
            return;
        }
        while let [a, b, ..] = self.batches.make_contiguous()
            && a.open == 0
            && b.open == 0
        {
            b.counts += std::mem::take(&mut a.counts);
            b.items += a.items;
            self.batches.pop_front();
        }
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
    fn an_open_line_holds_the_cursor_but_not_what_is_sent() {
        let mut belt = Belt::default();
        let ids: Vec<u64> = (1..=3).map(|i| belt.place(i * 10, 5)).collect();
        belt.needs(ids[1], 13);
        belt.needs(ids[2], 25);
        belt.finish(ids[0], Counts::default());
        belt.finish(ids[1], Counts::default());
        let step = belt.step().expect("the first batch can go");
        assert_eq!((step.seq, step.sent_upto, step.items), (10, 20, 5));
        assert_eq!(belt.step(), None, "nothing has moved since");
        belt.finish(ids[2], Counts::default());
        let step = belt.step().expect("the line that began in 13 is closed");
        assert_eq!((step.seq, step.sent_upto, step.items), (20, 30, 5));
        let last = belt.place(40, 5);
        belt.finish(last, Counts::default());
        let step = belt.step().expect("nothing is open any more");
        assert_eq!((step.seq, step.sent_upto, step.items), (40, 40, 10));
    }

    #[test]
    fn many_batches_behind_an_open_line_take_little_room_and_lose_no_count() {
        let mut belt = Belt::default();
        for i in 1..=2_000 {
            let id = belt.place(i * 10, 3);
            belt.needs(id, 5);
            belt.finish(id, Counts::quarantined("refused", 1, 1));
            let step = belt.step().expect("more is sent");
            assert_eq!((step.seq, step.sent_upto), (0, i * 10));
            assert!(belt.len() <= SQUEEZE_FROM);
        }
        let last = belt.place(20_010, 3);
        belt.finish(last, Counts::default());
        let step = belt.step().expect("the line is closed");
        assert_eq!((step.seq, step.items), (20_010, 6_003));
        assert_eq!((step.counts.sent, step.counts.quarantined["refused"].records), (4_003, 2_000));
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
