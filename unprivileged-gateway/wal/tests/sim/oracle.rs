//! What must hold, asked of the log as anybody could ask it.

use super::{Check, Sim, fid_of};
use std::collections::BTreeMap;
use wal::*;

impl Sim {
    // ---- the oracle ------------------------------------------------------------------------------------------------

    /// Everything that must hold now.
    pub fn check(&mut self) -> Check {
        let log = self.log();
        if !log.is_writable() {
            // A tail that could not be copied is shown to nobody; the next start shows it.
            return Ok(());
        }
        let (now, holes) = self.see(&log)?;
        for (slot, t) in self.takers.iter().enumerate() {
            let Some(id) = &t.id else { continue };
            let Some(cursor) = log.cursor(id).or_else(|| log.cursor(&DestinationId::new("sink", "a2"))) else {
                continue;
            };
            for fid in &self.acked {
                let w = &self.frames[fid];
                let held = now.get(fid).is_some_and(|seq| *seq >= cursor.seq);
                if w.seq >= t.from && !t.delivered.contains_key(fid) && !held {
                    return Err(format!(
                        "I1 frame {fid} (seq {}) was acknowledged and is nowhere for {id} (slot {slot}, cursor {})",
                        w.seq, cursor.seq
                    ));
                }
            }
            let items: u64 = now.iter().filter(|(_, s)| **s >= cursor.seq).map(|(f, _)| fid_items(*f)).sum();
            // What a torn tail took counts as waiting until the destination is told that it is gone. A cursor that was
            // registered inside such a hole counts some of it.
            let after: u64 = holes.iter().filter(|h| h.from >= cursor.seq).map(|h| h.items).sum();
            let around: u64 = holes.iter().filter(|h| h.to > cursor.seq).map(|h| h.items).sum();
            let told = log.waiting(&log_id(&log, id)).items;
            if !(items + after..=items + around).contains(&told) && !self.rot {
                return Err(format!("I8 {id}: {} records wait, {told} are reported", items + after));
            }
        }
        self.nothing_was_let_go(&now)?;
        if self.tally.duplicates > self.tally.duplicates_allowed {
            return Err(format!(
                "I4 {} duplicates, {} within the bound",
                self.tally.duplicates, self.tally.duplicates_allowed
            ));
        }
        Ok(())
    }

    /// What a sender was told is held, it holds no more: it must have been stored.
    fn nothing_was_let_go(&self, now: &BTreeMap<u64, u64>) -> Check {
        let delivered = |fid: &u64| self.takers.iter().any(|t| t.delivered.contains_key(fid));
        let seen = |fid: &u64| now.contains_key(fid) || self.visible.values().any(|f| f == fid);
        let stored = |fid: &u64| self.acked.contains(fid) || seen(fid) || delivered(fid);
        let hops = self.hop_fids.range(..self.hop_released).map(|(_, f)| f);
        let chunks = self.file_fids.range(..self.file_released).map(|(_, f)| f);
        match hops.chain(chunks).find(|fid| !stored(fid)) {
            Some(fid) => Err(format!("I1 piece {fid} was let go by its sender and was never stored")),
            None => Ok(()),
        }
    }

    /// A torn tail may take what was never acknowledged, and nothing else.
    pub(super) fn may_be_missing(&self, skipped: &[Skipped], owed_from: u64) -> Check {
        for s in skipped.iter().filter(|_| !self.rot) {
            let acked = self.acked.iter().find(|f| (s.from.max(owed_from)..s.to).contains(&self.frames[*f].seq));
            if let Some(fid) = acked {
                return Err(format!("I1 frame {fid} was acknowledged, yet {s:?}"));
            }
        }
        Ok(())
    }

    /// Reads everything that can be read: frame -> seq, and the holes.
    fn see(&mut self, log: &Log) -> Result<(BTreeMap<u64, u64>, Vec<Skipped>), String> {
        let mut holes = Vec::new();
        let floor = log.stats().destinations.iter().map(|d| d.cursor.seq).min().unwrap_or(u64::MAX);
        let mut reader = log.reader(0);
        let mut now = BTreeMap::new();
        let mut ranges: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        loop {
            let batch = reader.read(3000).map_err(|e| e.to_string())?;
            // A power cut may bring back some of the segments that were deleted, and not others.
            self.may_be_missing(&batch.skipped, floor)?;
            holes.extend(batch.skipped.iter().copied());
            if batch.frames.is_empty() && batch.skipped.is_empty() {
                return Ok((now, holes));
            }
            for f in batch.frames {
                let fid = fid_of(&f.payload).ok_or_else(|| format!("seq {} holds what nobody wrote", f.seq))?;
                if *self.visible.entry(f.seq).or_insert(fid) != fid {
                    return Err(format!("I7 seq {} names frame {} and frame {fid}", f.seq, self.visible[&f.seq]));
                }
                if let Some(o) = &f.origin {
                    let (stream, from, _) = o.range();
                    let key = (u8::from(matches!(stream, Stream::File(_))), from);
                    if let Some(other) = ranges.insert(key, f.seq) {
                        return Err(format!("I2 {o:?} is stored as seq {other} and as seq {}", f.seq));
                    }
                }
                now.insert(fid, f.seq);
            }
        }
    }
}

fn fid_items(fid: u64) -> u64 {
    fid % 5 + 1
}

fn log_id(log: &Log, id: &DestinationId) -> DestinationId {
    if log.cursor(id).is_some() { id.clone() } else { DestinationId::new("sink", "a2") }
}
