//! One signal's log: a conveyor belt with a scale at its head and any number of takers along it.
//!
//! `append` lays a frame on the current tray ([`crate::group`]) and never touches the disk. `commit` carries the tray
//! to the segment with one write and one sync, and only what it returns allows an acknowledgement. Readers see nothing
//! past the synced end. Locks are taken in the order committer, intake, registry, shown. The weakness: one lock guards
//! the tray, so that copying and summing a payload is done by one thread at a time.

use crate::commit::{Committer, Synced};
use crate::disk::Disk;
use crate::group::{Group, Totals};
use crate::origin::{Mark, Marks, NodeId, Origin, Seen, Stream};
use crate::record::{self, Codec, Epoch, Header, PAYLOAD_BYTES_MAX, kind};
use crate::recover::Recovery;
use crate::shown::Shown;
use crate::space::Space;
use crate::state::{Cursor, DestinationId, Registered};
use crate::stats::{Stats, Waiting};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Appended and not yet committed: more than this is refused, whatever the disk is doing.
pub const PENDING_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// A segment that holds frames is rolled at this age.
pub const ROLL_AGE_NS: u64 = 60 * 1_000_000_000;
/// Recent commits kept in memory for readers, unless the options say otherwise.
pub const TAIL_BYTES: usize = 8 << 20;

/// What a log is made of.
pub struct LogOptions {
    /// "logs", "traces", ..., "quarantine": known to [`Space`].
    pub name: String,
    /// Whose log.
    pub node: NodeId,
    /// Which start.
    pub epoch: Epoch,
    /// The byte cap shared with the other logs.
    pub space: Arc<Space>,
    /// A segment is rolled when it is larger than this.
    pub segment_bytes: u64,
    /// Fresh random numbers: segment nonces, destination uids.
    pub nonce: Box<dyn FnMut() -> u64 + Send>,
    /// Recent commits kept in memory for readers.
    pub tail_bytes: usize,
    /// Delivered segments are kept this long while there is room, nanoseconds.
    pub retain_ns: u64,
    /// Destination kinds whose segments are deleted under pressure although they have not read them.
    pub yielding: Vec<String>,
}

impl LogOptions {
    /// Sizes from the space, nothing retained, the local view yields.
    pub fn new(
        name: &str,
        node: NodeId,
        epoch: Epoch,
        space: Arc<Space>,
        nonce: Box<dyn FnMut() -> u64 + Send>,
    ) -> Self {
        LogOptions {
            name: name.into(),
            node,
            epoch,
            segment_bytes: space.segment_bytes(),
            space,
            nonce,
            tail_bytes: TAIL_BYTES,
            retain_ns: 0,
            yielding: vec!["view".into()],
        }
    }
}

/// A frame to be appended.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewFrame<'a> {
    /// The payload as stored, in pieces.
    pub parts: &'a [&'a [u8]],
    /// Records inside.
    pub items: u32,
    /// How the payload is stored.
    pub codec: Codec,
    /// Its length once decoded.
    pub raw_len: u32,
    /// Nodes it has passed.
    pub hops: u8,
    /// Where it comes from, if it has a number there.
    pub origin: Option<&'a Origin>,
    /// Destinations that need it no more.
    pub done: &'a [DestinationId],
    /// Unix nanoseconds.
    pub appended_at: u64,
    /// The frame that this one must not overtake: if that was refused, so is this. 0: none.
    pub after: u64,
}

/// What became of a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On the tray under this number; acknowledge when it is synced.
    New {
        /// Its number.
        seq: u64,
    },
    /// All of it is held already: discard it, and acknowledge when this seq is synced (0: already is).
    Held {
        /// See [`Log::outcome`].
        seq: u64,
    },
    /// Something before it is missing: the sender goes back to this number, or declares a gap.
    Rewind {
        /// End of the contiguous part.
        to: u64,
    },
    /// Part of it is held: offer the bytes of this range of the source alone, then what follows.
    Trim {
        /// First source byte that is new.
        from: u64,
        /// Behind the last.
        to: u64,
    },
}

/// Why a frame was not taken. The sender still holds it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// No room under the cap.
    #[error("log {log} is full ({:.0} % of its share of storage.max): waits for destinations to take what is held", fraction * 100.0)]
    Full {
        /// Which log.
        log: String,
        /// See [`crate::Pressure`].
        fraction: f64,
    },
    /// Intake is closed.
    #[error("log {log} takes nothing at the moment: {why}")]
    Closed {
        /// Which log.
        log: String,
        /// What happened.
        why: String,
    },
    /// The frame it follows was refused: the sender goes back to that one.
    #[error("log {log} refused frame {after}, which this one follows: the sender goes back to it")]
    Overtakes {
        /// Which log.
        log: String,
        /// See [`NewFrame::after`].
        after: u64,
    },
    /// Never fits.
    #[error("a frame of {bytes} bytes is too large for log {log} (limit {max}): send smaller batches")]
    TooLarge {
        /// Which log.
        log: String,
        /// Payload bytes offered.
        bytes: usize,
        /// Payload bytes possible.
        max: usize,
    },
}

/// What may be said about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Wait.
    Pending,
    /// Acknowledge.
    Synced,
    /// Refuse: the sender still holds it.
    Refused,
}

/// What the next commit would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pending {
    /// On the tray, headers included.
    pub bytes: usize,
    /// On the tray.
    pub frames: u64,
    /// Cursors have moved since they were written.
    pub cursors: bool,
}

/// Why a log cannot be opened at all. A log on a failing disk does open, with its intake closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be listed, or a segment not opened.
    #[error("log {log} cannot be read: {source}: check the disk and the permissions of its folder")]
    Unreadable {
        /// Which log.
        log: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A thread-safe handle; clones share one log.
#[derive(Clone)]
pub struct Log(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) space: Arc<Space>,
    pub(crate) segment_bytes: u64,
    pub(crate) tail_bytes: usize,
    pub(crate) retain_ns: u64,
    pub(crate) yielding: Vec<String>,
    pub(crate) payload_max: usize,
    pub(crate) committer: Mutex<Committer>,
    pub(crate) intake: Mutex<Intake>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) shown: Mutex<Shown>,
    /// All frames below it are synced or refused.
    pub(crate) synced_seq: AtomicU64,
    /// Shortens walks; may be missing, may lie.
    pub(crate) index: Mutex<Option<Arc<crate::Index>>>,
    /// A frame was refused for want of room: the next commit tries to make some.
    pub(crate) starved: AtomicBool,
}

/// The head of the belt.
pub(crate) struct Intake {
    pub(crate) group: Group,
    pub(crate) totals: Totals,
    pub(crate) marks: Marks,
    pub(crate) closed: Option<String>,
    /// Written trays that nobody reads any more.
    pub(crate) spares: Vec<BytesMut>,
}

/// Who reads.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) by_uid: BTreeMap<u64, Registered>,
    /// Tombstones that are not yet synced: still asked before anything is deleted.
    pub(crate) leaving: Vec<Registered>,
}

impl Registry {
    pub(crate) fn find(&self, id: &DestinationId) -> Option<&Registered> {
        self.by_uid.values().find(|d| d.id() == *id)
    }
    pub(crate) fn find_mut(&mut self, id: &DestinationId) -> Option<&mut Registered> {
        self.by_uid.values_mut().find(|d| d.id() == *id)
    }
}

/// A lock that a panicking thread left behind is taken all the same: the committer aborts the process on a panic, and
/// nothing else leaves these structures half-changed.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Reads the folder, copies the tail, begins a segment. On a disk that cannot be written it opens with its intake
    /// closed: what is held can be read, sent and deleted.
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions, now: u64) -> Result<(Log, Recovery), OpenError> {
        let log = options.name.clone();
        crate::start::open(disk, options, now).map_err(|source| OpenError::Unreadable { log, source })
    }

    /// Lays a frame on the tray. Copies once; never waits for the disk.
    pub fn append(&self, frame: NewFrame<'_>) -> Result<Appended, Refused> {
        let inner = &*self.0;
        let payload: usize = frame.parts.iter().map(|p| p.len()).sum();
        if payload > inner.payload_max || frame.parts.len() > u16::MAX as usize {
            return Err(Refused::TooLarge { log: inner.name.clone(), bytes: payload, max: inner.payload_max });
        }
        let mut intake = lock(&inner.intake);
        if let Some(why) = &intake.closed {
            return Err(Refused::Closed { log: inner.name.clone(), why: why.clone() });
        }
        // Under the intake's lock, which a closing intake holds while it refuses: in between, nothing can slip through.
        if frame.after > 0 && lock(&inner.shown).has_refused(frame.after) {
            return Err(Refused::Overtakes { log: inner.name.clone(), after: frame.after });
        }
        if let Some(origin) = frame.origin
            && let Some(answer) = known(&intake.marks, origin, || inner.shown_covers(origin), intake.totals.next_seq)
        {
            return Ok(answer);
        }
        let ext = record::write_ext(frame.origin, frame.done);
        if ext.len() > u16::MAX as usize {
            return Err(Refused::TooLarge { log: inner.name.clone(), bytes: ext.len(), max: u16::MAX as usize });
        }
        inner.has_room(&intake, Group::cost(ext.len(), payload))?;
        let totals = intake.totals;
        let header = Header {
            kind: kind::FRAME,
            version: record::VERSION,
            codec: frame.codec,
            hops: frame.hops,
            payload_len: payload as u32,
            ext_len: ext.len() as u16,
            synced: 0,
            seq: totals.next_seq,
            epoch: inner.epoch,
            items: frame.items,
            raw_len: frame.raw_len,
            appended_at: frame.appended_at,
            items_before: totals.items,
            bytes_before: totals.bytes,
            hash: 0,
            payload_crc: 0,
        };
        intake.group.push(&header, &ext, frame.parts, &totals, true);
        if let Some(origin) = frame.origin {
            let seen = Seen::of(origin, frame.appended_at);
            seen.apply(&mut intake.marks);
            intake.group.seen.push(seen);
        }
        intake.totals.next_seq += 1;
        intake.totals.items += u64::from(frame.items);
        intake.totals.bytes += payload as u64;
        Ok(Appended::New { seq: totals.next_seq })
    }

    /// "logs", "traces", ..., "quarantine".
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the next commit would write.
    pub fn pending(&self) -> Pending {
        let (bytes, frames) = {
            let intake = lock(&self.0.intake);
            (intake.group.buf.len(), intake.group.frames)
        };
        let cursors = lock(&self.0.registry).by_uid.values().any(Registered::is_dirty);
        Pending { bytes, frames, cursors }
    }

    /// What may be said about a number now. 0 is synced: see [`Appended::Held`].
    pub fn outcome(&self, seq: u64) -> Outcome {
        // The end is read first: a number below it whose refusal is not yet listed cannot exist, because refusals are
        // listed before the end moves over them.
        if seq >= self.0.synced_seq.load(Acquire) {
            return Outcome::Pending;
        }
        if lock(&self.0.shown).has_refused(seq) { Outcome::Refused } else { Outcome::Synced }
    }

    /// One write and one sync for everything on the tray, the moved cursors and whatever else is due; rolls and deletes
    /// segments. Touches no disk when there is nothing to do. One caller at a time; appends go on meanwhile.
    pub fn commit(&self, now: u64) -> Result<Synced, crate::CommitFailed> {
        self.0.commit(now)
    }

    /// The cursor of a registered destination.
    pub fn cursor(&self, d: &DestinationId) -> Option<Cursor> {
        lock(&self.0.registry).find(d).map(|r| r.cursor)
    }

    /// Moves a cursor in memory: `seq` is the lowest unfinished one, `items` were finished since the last call. It rides
    /// in the next commit. A cursor never goes back and never passes what is synced.
    pub fn advance(&self, d: &DestinationId, seq: u64, items: u64, sent_upto: u64) {
        let mut registry = lock(&self.0.registry);
        let Some(r) = registry.find_mut(d) else { return };
        let shown = lock(&self.0.shown);
        let seq = seq.min(shown.totals.next_seq);
        r.cursor.sent_upto = r.cursor.sent_upto.max(sent_upto);
        if seq <= r.cursor.seq {
            return;
        }
        let (items, bytes) = match shown.place(seq) {
            Some(p) => (p.items_before, p.bytes_before),
            None => shown.estimate(&r.cursor, items),
        };
        let (items, bytes) = (items.max(r.cursor.items), bytes.max(r.cursor.bytes));
        r.cursor = Cursor { seq, items, bytes, sent_upto: r.cursor.sent_upto };
    }

    /// What waits for a destination; nothing for an unknown one.
    pub fn waiting(&self, d: &DestinationId) -> Waiting {
        let registry = lock(&self.0.registry);
        registry.find(d).map_or(Waiting::default(), |r| lock(&self.0.shown).waiting(&r.cursor))
    }

    /// What has been appended of a stream: intake trims against it.
    pub fn mark(&self, stream: &Stream) -> Option<Mark> {
        lock(&self.0.intake).marks.get(stream).cloned()
    }

    /// What is synced of a stream: all that may be acknowledged.
    pub fn mark_synced(&self, stream: &Stream) -> Option<Mark> {
        lock(&self.0.shown).marks.get(stream).cloned()
    }

    /// The sender says where a stream begins: what lies before the first thing held is then missing, not unknown.
    pub fn begin_stream(&self, stream: &Stream, first: u64) {
        lock(&self.0.intake).marks.entry(stream.clone()).or_default().begin(first);
        lock(&self.0.shown).marks.entry(stream.clone()).or_default().begin(first);
    }

    /// Forgets streams that their senders no longer list. Takes effect with the next snapshot.
    pub fn forget_streams(&self, keep: &dyn Fn(&Stream) -> bool) {
        let mut intake = lock(&self.0.intake);
        let pending: Vec<Stream> = intake.group.seen.iter().map(|s| s.stream.clone()).collect();
        let stays = |s: &Stream| keep(s) || pending.contains(s);
        intake.marks.retain(|s, _| stays(s));
        lock(&self.0.shown).marks.retain(|s, _| stays(s));
    }

    /// The sender declares that it cannot supply `[from, to)` of a stream. Stored in order with the frames, so that the
    /// mark moves over the gap only together with its record.
    pub fn gap(&self, stream: &Stream, from: u64, to: u64, reason: &str, now: u64) -> Result<(), Refused> {
        let inner = &*self.0;
        let mut intake = lock(&inner.intake);
        if let Some(why) = &intake.closed {
            return Err(Refused::Closed { log: inner.name.clone(), why: why.clone() });
        }
        let seen = Seen { stream: stream.clone(), from, to, at: now, text: reason.chars().take(200).collect() };
        let payload = crate::state::gap_payload(&seen);
        let totals = intake.totals;
        intake.group.push_state(kind::GAP, &payload, inner.epoch, &totals, now);
        let seen = Seen { text: String::new(), ..seen };
        seen.apply(&mut intake.marks);
        intake.group.seen.push(seen);
        Ok(())
    }

    /// Cursors and segment table on a line, for a test that failed.
    #[cfg(feature = "testing")]
    pub fn describe(&self) -> String {
        let registry = lock(&self.0.registry);
        let shown = lock(&self.0.shown);
        let cursors: Vec<String> =
            registry.by_uid.values().map(|r| format!("{} {:?} synced {:?}", r.id(), r.cursor, r.synced)).collect();
        let segment = |s: &crate::recover::Segment| {
            format!("[{} seq {}..{} to {} of {}]", s.n, s.first_seq, s.upper, s.end, s.file_bytes)
        };
        let segments: Vec<String> = shown.segments.iter().map(segment).collect();
        format!("{cursors:?} {:?} {segments:?} closed {:?} refused {:?}", shown.totals, shown.closed, shown.refused)
    }

    /// The log at a glance.
    pub fn stats(&self) -> Stats {
        let inner = &*self.0;
        let next_seq = lock(&inner.intake).totals.next_seq;
        let registry = lock(&inner.registry);
        let shown = lock(&inner.shown);
        let destinations = registry.by_uid.values().map(|r| shown.destination(r)).collect();
        Stats {
            bytes: shown.bytes(),
            segments: shown.segments.len(),
            next_seq,
            synced_seq: inner.synced_seq.load(Acquire),
            items: shown.totals.items,
            oldest_seq: shown.segments.first().map_or(next_seq, |s| s.first_seq),
            closed: shown.closed.clone(),
            damage: shown.damage.clone(),
            destinations,
            pressure: inner.space.pressure(&inner.name),
            commits: shown.commits,
            rolls: shown.rolls,
            deleted: shown.deleted,
            failures: shown.failures,
        }
    }
}

/// What intake answers to a stamped frame without storing it. `None`: it is new.
fn known(marks: &Marks, origin: &Origin, synced: impl Fn() -> bool, next_seq: u64) -> Option<Appended> {
    let (stream, from, to) = origin.range();
    let mark = marks.get(&stream)?;
    if mark.covers(from, to) {
        // Held as appended: it is acknowledged with whatever is on the tray now, or at once.
        return Some(Appended::Held { seq: if synced() { 0 } else { next_seq.saturating_sub(1) } });
    }
    match origin {
        Origin::Hop { .. } => mark.contiguous_end().filter(|end| from > *end).map(|to| Appended::Rewind { to }),
        Origin::LogBytes { .. } => {
            let (a, b) = mark.trim(from, to);
            ((a, b) != (from, to)).then_some(Appended::Trim { from: a, to: b })
        }
        Origin::Stack { .. } | Origin::Journal { .. } => None,
    }
}

impl Inner {
    fn shown_covers(&self, origin: &Origin) -> bool {
        let (stream, from, to) = origin.range();
        lock(&self.shown).marks.get(&stream).is_some_and(|m| m.covers(from, to))
    }

    fn has_room(&self, intake: &Intake, cost: u64) -> Result<(), Refused> {
        let held = intake.group.buf.len();
        if held + cost as usize > PENDING_BYTES_MAX {
            let why = format!("{held} bytes wait for the disk, which is slower than the senders");
            return Err(Refused::Closed { log: self.name.clone(), why });
        }
        if self.space.fits(&self.name, held as u64 + cost) {
            return Ok(());
        }
        self.starved.store(true, Release);
        let fraction = self.space.pressure_with(&self.name, held as u64).fraction;
        Err(Refused::Full { log: self.name.clone(), fraction })
    }
}
