//! The carrier: takes the tray, writes it once, syncs it once, and only then says "it is safe".
//!
//! A failed write or sync is final for its segment. What had not been acknowledged is laid anew, under the same
//! numbers, for the next segment, whose cover page says where the failed one ends. Two failures in a row close the
//! intake; reading, sending and deleting go on. Rolling, snapshots and deletion happen here too, between two trays. The
//! weakness: one thread does all of it, so a slow deletion delays the next group. A panic in here would leave a log
//! that believes more than the disk knows, so it ends the process on purpose.

use crate::disk::DiskFile;
use crate::group::{Group, Place, Totals};
use crate::log::{Inner, Intake, Log, Registry, lock};
use crate::record::kind;
use crate::recover::Segment;
use crate::segment::{self, SegmentHeader};
use crate::state::{self, Cursor};
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

/// Rolling by age stops while this many segments are held, so that cover pages stay small in a year-long outage.
pub(crate) const AGED_SEGMENTS_MAX: usize = 1_024;
/// Written trays kept for the next groups.
const SPARES_MAX: usize = 2;
/// Ranges of refused numbers remembered; the oldest are forgotten first, when nobody can still be waiting for them.
const REFUSED_MAX: usize = 4_096;
/// Name of the file that holds the reserve.
pub(crate) const RESERVE: &str = "reserve";

/// Proof that everything below `seq` is on the disk, or refused: the only thing that allows an acknowledgement. It is
/// made in one place, behind the sync of data and of the directory.
#[derive(Debug)]
#[must_use = "acknowledgements are issued from this value"]
pub struct Synced {
    seq: u64,
    frames: u64,
    bytes: u64,
    wrote: bool,
    _only_here: (),
}

impl Synced {
    /// All frames below this number are synced or refused: see [`Log::outcome`].
    pub fn below(&self) -> u64 {
        self.seq
    }
    /// Frames in this group.
    pub fn frames(&self) -> u64 {
        self.frames
    }
    /// Bytes written for this group.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Whether the disk was touched at all.
    pub fn wrote(&self) -> bool {
        self.wrote
    }
}

/// The group could not be made durable; its frames are refused and intake is closed. Cursors stay in memory.
#[derive(Debug, thiserror::Error)]
#[error(
    "log {log} cannot be written: {why}: what is held can still be read and sent; intake opens again once the disk takes data"
)]
pub struct CommitFailed {
    /// Which log.
    pub log: String,
    /// What happened.
    pub why: String,
}

/// What only the carrier touches.
pub(crate) struct Committer {
    pub(crate) nonce: Box<dyn FnMut() -> u64 + Send>,
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    pub(crate) place: Place,
    /// What is written and synced of the current segment.
    pub(crate) end: u64,
    pub(crate) opened_at: u64,
    pub(crate) holds_frames: bool,
    pub(crate) newest: u64,
    pub(crate) dir_dirty: bool,
    /// A segment's removal is not yet synced.
    pub(crate) removal_pending: bool,
    /// Segments whose snapshot is synced, ascending.
    pub(crate) clean: Vec<u64>,
    /// This start's registrations are synced: deletion may begin.
    pub(crate) ready: bool,
    /// Unknown destinations start at the oldest frame.
    pub(crate) oldest_for_all: bool,
    /// Two failures in a row: nothing is written until `reopen`.
    pub(crate) dead: Option<String>,
    /// A later version's segment: nothing is ever written or deleted.
    pub(crate) frozen: bool,
    /// A delivered segment could not be removed: rolling would free nothing.
    pub(crate) stuck: bool,
    /// The disk is full: the reserve is in use.
    pub(crate) reserve_used: bool,
    pub(crate) reserve_bytes: u64,
    /// State records to be written with the next group: kind, payload.
    pub(crate) notes: Vec<(u8, Vec<u8>)>,
    pub(crate) ghosts: Vec<u64>,
}

/// A tray on its way.
struct Load {
    group: Group,
    totals: Totals,
    cursors: Vec<(u64, Cursor)>,
    /// A new segment begins with it.
    begun: Option<Segment>,
}

/// A panic in the carrier ends the process.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Inner {
    pub(crate) fn commit(&self, now: u64) -> Result<Synced, CommitFailed> {
        let _guard = AbortOnPanic;
        let mut c = lock(&self.committer);
        let result = self.commit_locked(&mut c, now);
        self.delete(&mut c, now);
        self.make_room(&mut c, now);
        result
    }

    /// The group, without deletions.
    pub(crate) fn commit_locked(&self, c: &mut Committer, now: u64) -> Result<Synced, CommitFailed> {
        if let Some(why) = &c.dead {
            return Err(CommitFailed { log: self.name.clone(), why: why.clone() });
        }
        let roll = self.roll_due(c, now);
        self.write_group(c, now, roll)
    }

    fn roll_due(&self, c: &Committer, now: u64) -> bool {
        let aged = now.saturating_sub(c.opened_at) >= crate::log::ROLL_AGE_NS
            && lock(&self.shown).segments.len() < AGED_SEGMENTS_MAX;
        c.holds_frames && (c.end >= self.segment_bytes || aged)
    }

    pub(crate) fn write_group(&self, c: &mut Committer, now: u64, roll: bool) -> Result<Synced, CommitFailed> {
        let load = match self.load(c, now, roll, None) {
            Ok(None) => {
                let seq = self.synced_seq.load(Acquire);
                return Ok(Synced { seq, frames: 0, bytes: 0, wrote: false, _only_here: () });
            }
            Ok(Some(load)) => load,
            Err(e) => return self.failed(c, None, e, now),
        };
        match self.carry(c, &load) {
            Ok(()) => Ok(self.publish(c, load, now)),
            Err(e) => self.failed(c, Some(load), e, now),
        }
    }

    /// Takes the tray. `None`: nothing is due. `failed` is a tray whose segment failed; it goes first.
    fn load(&self, c: &mut Committer, now: u64, roll: bool, failed: Option<&Group>) -> io::Result<Option<Load>> {
        let mut begun = None;
        let place = if roll { self.begin(c)? } else { c.place };
        let mut intake = lock(&self.intake);
        let mut registry = lock(&self.registry);
        let totals = intake.totals;
        if roll {
            let mut group = self.cover(&mut intake, &mut registry, &place, now, &mut begun);
            if let Some(failed) = failed {
                group.adopt(failed);
            }
            group.adopt(&intake.group);
            intake.group = group;
        }
        let cursors: Vec<(u64, Cursor)> =
            registry.by_uid.values().filter(|d| d.is_dirty()).map(|d| (d.uid, d.cursor)).collect();
        let group = &mut intake.group;
        if group.buf.is_empty() && c.notes.is_empty() && cursors.is_empty() {
            return Ok(None);
        }
        for (kind, payload) in &c.notes {
            group.push_state(*kind, payload, self.epoch, &totals, now);
        }
        if !roll {
            // A snapshot holds them already.
            let written =
                cursors.iter().filter(|(uid, _)| registry.by_uid.get(uid).is_some_and(|d| d.synced.is_some()));
            for (uid, cursor) in written {
                group.push_state(kind::CURSOR, &state::cursor_payload(*uid, cursor), self.epoch, &totals, now);
            }
        }
        group.state_synced(if roll { 0 } else { c.end });
        let spare = intake.spares.pop().unwrap_or_default();
        let next = intake.group.follower(spare);
        let group = std::mem::replace(&mut intake.group, next);
        Ok(Some(Load { group, totals, cursors, begun }))
    }

    /// A new segment's file and number. Its bytes come with the group.
    fn begin(&self, c: &mut Committer) -> io::Result<Place> {
        c.newest += 1;
        let file = self.disk.create(&segment::name(c.newest))?;
        let (previous, previous_end) = lock(&self.shown).segments.last().map_or((0, 0), |s| (s.n, s.end));
        c.file = Some(file);
        c.dir_dirty = true;
        c.place = Place { segment: c.newest, nonce: (c.nonce)(), previous, previous_end };
        c.end = 0;
        Ok(c.place)
    }

    /// A tray that begins with cover page and snapshot. The snapshot holds only marks of synced frames.
    fn cover(
        &self,
        intake: &mut Intake,
        registry: &mut Registry,
        place: &Place,
        now: u64,
        begun: &mut Option<Segment>,
    ) -> Group {
        let mut shown = lock(&self.shown);
        state::prune(&mut shown.marks, now);
        state::prune(&mut intake.marks, now);
        let (buf, segment) = cover_page(self, place, &shown.segments, intake.totals.next_seq, shown.totals, now);
        *begun = Some(segment);
        let mut group = Group::new(*place, 0, 0, buf);
        // Numbers that were given are never given again, so the next one is the intake's; the counts are of what is synced.
        let totals = Totals { next_seq: intake.totals.next_seq, ..shown.totals };
        let payload = state::snapshot(&totals, &registry.by_uid, &shown.marks);
        group.push_state(kind::SNAPSHOT, &payload, self.epoch, &shown.totals, now);
        group.records_at = group.buf.len();
        group
    }

    /// One write, one sync; the directory too, if a name is new.
    fn carry(&self, c: &mut Committer, load: &Load) -> io::Result<()> {
        let file = c.file.as_ref().ok_or_else(|| io::Error::other("no segment is open"))?;
        file.write_all_at(&load.group.buf, load.group.base)?;
        file.sync_data()?;
        if c.dir_dirty {
            self.disk.sync_dir()?;
            (c.dir_dirty, c.removal_pending) = (false, false);
        }
        Ok(())
    }

    /// The one place that makes a proof of sync.
    fn publish(&self, c: &mut Committer, load: Load, now: u64) -> Synced {
        let Load { group, totals, cursors, begun } = load;
        c.end = group.end();
        c.notes.clear();
        if begun.is_some() {
            c.opened_at = now;
            c.holds_frames = false;
            c.clean.push(c.place.segment);
        }
        if group.frames > 0 && !c.holds_frames {
            // Age counts from the first frame: a segment that waited empty is not old.
            (c.opened_at, c.holds_frames) = (now, true);
        }
        let mut registry = lock(&self.registry);
        registry.leaving.clear();
        for (uid, cursor) in cursors {
            if let Some(d) = registry.by_uid.get_mut(&uid) {
                d.synced = Some(cursor);
            }
        }
        drop(registry);
        let mut shown = lock(&self.shown);
        shown.rolls += u64::from(begun.is_some());
        shown.commits += 1;
        shown.segments.extend(begun);
        for seen in &group.seen {
            seen.apply(&mut shown.marks);
        }
        shown.totals = totals;
        if let Some(s) = shown.segments.last_mut() {
            (s.end, s.file_bytes, s.upper) = (c.end, c.end, totals.next_seq);
            s.points.extend_from_slice(&group.points);
            s.last_time = now;
        }
        let (frames, bytes) = (group.frames, group.buf.len() as u64);
        let spares = shown.keep(group, totals.next_seq, self.tail_bytes);
        self.space.set_used(&self.name, shown.bytes());
        drop(shown);
        self.synced_seq.store(totals.next_seq, Release);
        if !spares.is_empty() {
            let mut intake = lock(&self.intake);
            intake.spares.extend(spares);
            intake.spares.truncate(SPARES_MAX);
        }
        Synced { seq: totals.next_seq, frames, bytes, wrote: true, _only_here: () }
    }

    /// The segment ends where it was synced last. Once more in the next one; then the intake closes.
    fn failed(
        &self,
        c: &mut Committer,
        load: Option<Load>,
        error: io::Error,
        now: u64,
    ) -> Result<Synced, CommitFailed> {
        tracing::warn!(log = self.name, segment = segment::name(c.newest), %error, "a write or sync failed: the segment ends here");
        self.end_segment(c, load.as_ref());
        let full = is_full(&error);
        if full {
            self.release_reserve(c);
        }
        let again = self.load(c, now, true, load.as_ref().map(|l| &l.group));
        let second = match again {
            Ok(Some(again)) => match self.carry(c, &again) {
                Ok(()) => {
                    let synced = self.publish(c, again, now);
                    if full {
                        self.close(c, format!("the disk is full ({error})"), false);
                    }
                    return Ok(synced);
                }
                Err(e) => {
                    self.end_segment(c, Some(&again));
                    e
                }
            },
            Ok(None) => io::Error::other("nothing to write"),
            Err(e) => e,
        };
        let why = format!("two writes in a row failed ({error}; then {second})");
        self.close(c, why.clone(), true);
        Err(CommitFailed { log: self.name.clone(), why })
    }

    /// Fixes the end of the current segment, and lists one that never got as far as being shown.
    fn end_segment(&self, c: &mut Committer, load: Option<&Load>) {
        let mut shown = lock(&self.shown);
        shown.failures += 1;
        let file_bytes = c.file.as_ref().and_then(|f| f.len().ok()).unwrap_or(c.end);
        if shown.segments.last().is_none_or(|s| s.n != c.place.segment)
            && let Some(begun) = load.and_then(|l| l.begun.clone())
        {
            shown.segments.push(Segment { end: 0, upper: begun.first_seq, ..begun });
        }
        if let Some(s) = shown.segments.last_mut().filter(|s| s.n == c.place.segment) {
            s.file_bytes = file_bytes;
        }
        let bytes = shown.bytes();
        self.space.set_used(&self.name, bytes);
    }

    /// Intake closes: what was not synced is refused, marks go back to what is synced. Numbers never go back.
    pub(crate) fn close(&self, c: &mut Committer, why: String, dead: bool) {
        tracing::error!(log = self.name, why, "intake is closed");
        let mut intake = lock(&self.intake);
        let mut shown = lock(&self.shown);
        let (from, next) = (shown.totals.next_seq, intake.totals.next_seq);
        if from < next && dead {
            shown.refused.push((from, next));
            if shown.refused.len() > REFUSED_MAX {
                shown.refused.remove(0);
            }
            shown.totals.next_seq = next;
            self.synced_seq.store(next, Release);
        }
        if dead {
            intake.marks = shown.marks.clone();
            intake.totals = shown.totals;
            intake.group = Group::new(c.place, c.end, c.end, BytesMut::new());
            c.dead = Some(why.clone());
        }
        shown.closed = Some(why.clone());
        intake.closed = Some(why);
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The first bytes of a segment and its entry in the table.
pub(crate) fn cover_page(
    inner: &Inner,
    place: &Place,
    held: &[Segment],
    upper: u64,
    totals: Totals,
    now: u64,
) -> (BytesMut, Segment) {
    let page = SegmentHeader {
        ignore_safe: 0,
        read_safe: 0,
        must_understand: 0,
        node: inner.node,
        nonce: place.nonce,
        segment: place.segment,
        epoch: inner.epoch,
        first_seq: totals.next_seq,
        items_before: totals.items,
        bytes_before: totals.bytes,
        first_time: now,
        log: inner.name.clone(),
        born: 0,
        ends: held.iter().map(|s| (s.n, s.end)).collect(),
    };
    let bytes = page.bytes();
    let segment = Segment {
        n: place.segment,
        nonce: Some(place.nonce),
        data_at: bytes.len() as u64,
        end: 0,
        file_bytes: 0,
        first_seq: totals.next_seq,
        upper,
        items_before: totals.items,
        bytes_before: totals.bytes,
        first_time: now,
        last_time: now,
        points: Vec::new(),
    };
    (BytesMut::from(&bytes[..]), segment)
}

impl Log {
    /// Whether commits reach the disk at the moment.
    pub fn is_writable(&self) -> bool {
        lock(&self.0.committer).dead.is_none()
    }
}
