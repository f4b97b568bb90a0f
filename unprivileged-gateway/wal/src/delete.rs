//! Throwing out: a segment goes when everybody on the list has crossed it off, in ink.
//!
//! Deletion asks synced cursors and synced tombstones, wants two later snapshots on the disk, and takes segments oldest
//! first. Under pressure an active segment that is delivered is rolled so that it can go, `retain` and yielding
//! destinations are passed over, and a full disk's reserve is given up for cursors and deletions; intake opens again once
//! it is allocated anew. The weakness: one destination that never moves holds everything from its cursor on; status
//! names it.

use crate::commit::{Committer, RESERVE};
use crate::log::{Inner, lock};
use crate::segment;
use crate::space::Level;
use crate::state::Registered;
use std::io;
use std::sync::atomic::Ordering::*;

impl Inner {
    /// Whether segments were deleted.
    pub(crate) fn delete(&self, c: &mut Committer, now: u64) -> bool {
        if !c.ready || c.frozen {
            return false;
        }
        for ghost in std::mem::take(&mut c.ghosts) {
            let _ = self.disk.remove(&segment::name(ghost));
        }
        let mut any = false;
        while let Some(n) = self.deletable(c, now) {
            // One unsynced removal at a time: a power cut may then bring back the newest deleted segment, but never an
            // older one with a hole behind it.
            if c.removal_pending && self.disk.sync_dir().is_err() {
                break;
            }
            c.removal_pending = true;
            if let Err(error) = self.disk.remove(&segment::name(n))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(log = self.name, segment = segment::name(n), %error, "a delivered segment cannot be deleted");
                lock(&self.shown).count("undeletable");
                c.stuck = true;
                break;
            }
            let mut shown = lock(&self.shown);
            shown.segments.retain(|s| s.n != n);
            shown.deleted += 1;
            let bytes = shown.bytes();
            self.space.set_used(&self.name, bytes);
            c.clean.retain(|k| *k != n);
            (c.stuck, any) = (false, true);
        }
        any
    }

    /// The oldest segment, if two later snapshots are synced and every registered destination's *synced* cursor has
    /// passed it.
    fn deletable(&self, c: &Committer, now: u64) -> Option<u64> {
        let pressed = self.is_pressed();
        let registry = lock(&self.registry);
        let shown = lock(&self.shown);
        let keep = *c.clean.get(c.clean.len().checked_sub(2)?)?;
        let oldest = shown.segments.first().filter(|s| s.n < keep)?;
        let yields = |d: &Registered| pressed && self.yielding.contains(&d.kind);
        let asked = registry.by_uid.values().filter(|d| !yields(d)).chain(&registry.leaving);
        let passed = asked.map(|d| d.synced.map_or(0, |s| s.seq)).min().unwrap_or(u64::MAX);
        let retained = !pressed && self.retain_ns > 0 && oldest.last_time.max(oldest.first_time) + self.retain_ns > now;
        (oldest.upper <= passed && !retained).then_some(oldest.n)
    }

    fn is_pressed(&self) -> bool {
        self.starved.load(Acquire) || self.space.pressure(&self.name).level >= Level::High85
    }

    /// Under pressure: rolls a delivered active segment (twice, because two snapshots must stand behind what is
    /// deleted), and opens the intake again once the reserve is allocated.
    pub(crate) fn make_room(&self, c: &mut Committer, now: u64) {
        if c.frozen {
            return;
        }
        if c.dead.is_none() && c.ready && !c.stuck && self.is_pressed() {
            for _ in 0..2 {
                if !self.would_free(c) || self.write_group(c, now, true).is_err() {
                    break;
                }
                self.delete(c, now);
            }
        }
        self.starved.store(false, Release);
        if c.reserve_used && c.dead.is_none() && self.take_reserve(c) {
            lock(&self.intake).closed = None;
            lock(&self.shown).closed = None;
            tracing::info!(log = self.name, "the reserve is allocated again: intake is open");
        }
    }

    /// Whether a further snapshot would let something go that holds frames.
    fn would_free(&self, c: &Committer) -> bool {
        let registry = lock(&self.registry);
        let shown = lock(&self.shown);
        let yields = |d: &Registered| self.yielding.contains(&d.kind);
        let asked = registry.by_uid.values().filter(|d| !yields(d)).chain(&registry.leaving);
        let passed = asked.map(|d| d.synced.map_or(0, |s| s.seq)).min().unwrap_or(u64::MAX);
        let active = c.place.segment;
        let oldest = shown.segments.iter().find(|s| s.upper > s.first_seq);
        oldest.is_some_and(|s| s.upper <= passed && (s.n != active || c.holds_frames))
    }

    pub(crate) fn take_reserve(&self, c: &mut Committer) -> bool {
        let bytes = c.reserve_bytes;
        let taken = self.disk.create(RESERVE).and_then(|f| f.allocate(bytes).and_then(|()| f.sync_data()));
        if taken.is_err() {
            let _ = self.disk.remove(RESERVE);
        }
        c.reserve_used = taken.is_err();
        taken.is_ok()
    }

    pub(crate) fn release_reserve(&self, c: &mut Committer) {
        c.reserve_used = true;
        let _ = self.disk.remove(RESERVE);
    }
}
