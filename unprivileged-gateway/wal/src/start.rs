//! Beginning, and beginning again: the same stairs whether the process is new or the disk has come back.
//!
//! Recovery reads; this file writes what it found into a new segment (cover page, snapshot, the copied tail) under a
//! temporary name, syncs it, renames it, syncs the directory. Until then nothing of the tail is shown to anybody. If
//! the disk takes no data, the log opens all the same with its intake closed.

use crate::commit::{AbortOnPanic, Committer, cover_page};
use crate::disk::Disk;
use crate::group::{Group, Place, Totals};
use crate::log::{Inner, Intake, Log, LogOptions, Registry, lock};
use crate::record::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, kind};
use crate::recover::{self, Image, Recovery, Segment, StateFound, TEMPORARY};
use crate::scan;
use crate::segment::{self, SegmentHeader};
use crate::shown::Shown;
use crate::state::State;
use bytes::BytesMut;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

/// The tail is copied in pieces of about this size.
const COPY_BYTES: usize = 4 << 20;

/// Empty log around options; everything in it comes from [`restart`].
pub(crate) fn open(disk: Arc<dyn Disk>, options: LogOptions, now: u64) -> io::Result<(Log, Recovery)> {
    let capacity = usize::try_from(options.space.capacity(&options.name)).unwrap_or(usize::MAX);
    let inner = Inner {
        disk,
        node: options.node,
        epoch: options.epoch,
        segment_bytes: options.segment_bytes,
        tail_bytes: options.tail_bytes,
        retain_ns: options.retain_ns,
        yielding: options.yielding,
        payload_max: PAYLOAD_BYTES_MAX.min(capacity / 2),
        committer: Mutex::new(Committer {
            nonce: options.nonce,
            file: None,
            place: Place::default(),
            end: 0,
            opened_at: now,
            holds_frames: false,
            newest: 0,
            dir_dirty: true,
            removal_pending: false,
            clean: Vec::new(),
            ready: false,
            oldest_for_all: false,
            dead: None,
            frozen: false,
            stuck: false,
            reserve_used: false,
            reserve_bytes: options.space.reserve_bytes(),
            notes: Vec::new(),
            ghosts: Vec::new(),
        }),
        intake: Mutex::new(Intake {
            group: Group::default(),
            totals: Totals::default(),
            marks: Default::default(),
            closed: None,
            spares: Vec::new(),
        }),
        registry: Mutex::new(Registry::default()),
        shown: Mutex::new(Shown::default()),
        synced_seq: AtomicU64::new(0),
        index: Mutex::new(None),
        starved: AtomicBool::new(false),
        space: options.space,
        name: options.name,
    };
    let mut c = lock(&inner.committer);
    let recovery = inner.restart(&mut c, now)?;
    drop(c);
    Ok((Log(Arc::new(inner)), recovery))
}

impl Log {
    /// Once the disk takes data again: recovery's own function, keeping what memory knows better (cursors). Numbers
    /// that were refused stay refused. Fails, and changes nothing, while the disk still refuses.
    pub fn reopen(&self, now: u64) -> Result<(), crate::CommitFailed> {
        let _guard = AbortOnPanic;
        let inner = &*self.0;
        let mut c = lock(&inner.committer);
        let failed = |why: String| crate::CommitFailed { log: inner.name.clone(), why };
        if c.dead.is_none() && !c.frozen {
            if c.reserve_used && !inner.take_reserve(&mut c) {
                return Err(failed("the disk is full: the reserve cannot be allocated".into()));
            }
            lock(&inner.intake).closed = None;
            lock(&inner.shown).closed = None;
            return Ok(());
        }
        let recovery = inner.restart(&mut c, now).map_err(|e| failed(e.to_string()))?;
        match recovery.closed {
            Some(why) => Err(failed(why)),
            None => Ok(()),
        }
    }
}

impl Inner {
    pub(crate) fn restart(&self, c: &mut Committer, now: u64) -> io::Result<Recovery> {
        let mut image = recover::run(&*self.disk)?;
        let mut report = image.report.clone();
        c.frozen = image.frozen.is_some();
        c.ghosts.clone_from(&image.ghosts);
        c.oldest_for_all |= matches!(report.state, StateFound::Hurt | StateFound::Lost);
        c.clean = image.clean.clone();
        let first = c.newest == 0;
        c.newest = c.newest.max(image.newest);
        let began = match &image.frozen {
            Some(why) => Err(io::Error::other(why.clone())),
            None => {
                let mut with_tail = image.state.clone();
                image.tail.iter().filter_map(|t| t.seen.as_ref()).for_each(|seen| seen.apply(&mut with_tail.marks));
                self.begin_with_tail(c, &image, &with_tail, now).inspect(|_| image.state = with_tail)
            }
        };
        let closed = match began {
            Ok(segment) => {
                c.dead = None;
                self.take_over(c, image, Some(segment));
                (!self.take_reserve(c)).then(|| "the disk is full: the reserve cannot be allocated".to_string())
            }
            Err(e) => {
                let why = match c.frozen {
                    true => e.to_string(),
                    false => format!("no segment can be begun ({e})"),
                };
                c.dead = Some(why.clone());
                if first {
                    self.take_over(c, image, None);
                }
                Some(why)
            }
        };
        lock(&self.intake).closed.clone_from(&closed);
        let registry = lock(&self.registry);
        let mut shown = lock(&self.shown);
        shown.closed.clone_from(&closed);
        report.waiting = registry.by_uid.values().map(|r| (r.id(), shown.waiting(&r.cursor))).collect();
        report.closed = closed;
        Ok(report)
    }

    /// Cover page, snapshot and tail, durable before anybody sees them.
    fn begin_with_tail(&self, c: &mut Committer, image: &Image, state: &State, now: u64) -> io::Result<Segment> {
        let n = c.newest + 1;
        let last = image.segments.last();
        let (previous, previous_end) = last.map_or((0, 0), |s| (s.n, s.end));
        let place = Place { segment: n, nonce: (c.nonce)(), previous, previous_end };
        let first = image.tail.iter().find(|t| t.header.kind == kind::FRAME).map(|t| &t.header);
        let after = Totals { next_seq: state.next_seq, items: state.items, bytes: state.bytes };
        let before = first.map_or(after, |h| Totals { next_seq: h.seq, items: h.items_before, bytes: h.bytes_before });
        let (buf, mut segment) = cover_page(self, &place, &image.segments, state.next_seq, before, now);
        let page = SegmentHeader::read(&buf).map(|(page, _)| page);
        let file = self.disk.create(TEMPORARY)?;
        let mut group = Group::new(place, 0, 0, buf);
        group.push_state(kind::SNAPSHOT, &state.snapshot(), self.epoch, &before, now);
        for t in &image.tail {
            // Read once by recovery, so whole then; should the disk have changed its mind, the record is left out and
            // its seq is missing, which readers report.
            let len = t.header.record_bytes();
            let b = scan::read(&*t.file, t.at, len);
            if b.len() < len {
                continue;
            }
            let h = &t.header;
            let (ext, payload) = (&b[HEADER_BYTES..h.payload_at()], &b[h.payload_at()..]);
            let totals = Totals { next_seq: h.seq, items: h.items_before, bytes: h.bytes_before };
            group.push(h, ext, &[payload], &totals, false);
            if group.buf.len() >= COPY_BYTES {
                file.write_all_at(&group.buf, group.base)?;
                segment.points.extend_from_slice(&group.points);
                group = group.follower(BytesMut::new());
            }
        }
        file.write_all_at(&group.buf, group.base)?;
        if let Some(page) = page {
            // Said last, because only now it is known; the name comes after the sync, so whoever reads it may rely on it.
            file.write_all_at(&SegmentHeader { born: group.end(), ..page }.bytes(), 0)?;
        }
        file.sync_data()?;
        self.disk.rename(TEMPORARY, &segment::name(n))?;
        self.disk.sync_dir()?;
        segment.points.extend_from_slice(&group.points);
        segment.end = group.end();
        segment.file_bytes = segment.end;
        segment.upper = state.next_seq;
        (c.newest, c.place, c.end, c.file) = (n, place, segment.end, Some(file));
        c.clean.push(n);
        (c.opened_at, c.dir_dirty, c.holds_frames) = (now, false, first.is_some());
        Ok(segment)
    }

    /// Memory becomes what the disk says; cursors that memory knows to be further stay there.
    fn take_over(&self, c: &mut Committer, image: Image, begun: Option<Segment>) {
        let mut intake = lock(&self.intake);
        let mut registry = lock(&self.registry);
        let mut shown = lock(&self.shown);
        let Image { mut state, segments, tail, .. } = image;
        state.next_seq = state.next_seq.max(intake.totals.next_seq);
        let totals = Totals { next_seq: state.next_seq, items: state.items, bytes: state.bytes };
        // A tail that could not be copied is not shown.
        let hidden = tail.iter().map(|t| &t.header).find(|h| h.kind == kind::FRAME && begun.is_none());
        let visible =
            hidden.map_or(totals, |h| Totals { next_seq: h.seq, items: h.items_before, bytes: h.bytes_before });
        let old = std::mem::take(&mut registry.by_uid);
        for (uid, mut d) in state.destinations {
            d.synced = Some(d.cursor);
            if let Some(known) = old.get(&uid) {
                d.configured = known.configured;
                if known.cursor.seq > d.cursor.seq {
                    d.cursor = known.cursor;
                }
            }
            registry.by_uid.insert(uid, d);
        }
        for (uid, d) in old {
            registry.by_uid.entry(uid).or_insert(d);
        }
        intake.totals = totals;
        intake.marks = state.marks.clone();
        intake.group = Group::new(c.place, c.end, c.end, BytesMut::new());
        shown.marks = state.marks;
        shown.totals = visible;
        shown.segments = segments;
        shown.segments.extend(begun);
        shown.chunks.clear();
        shown.chunk_bytes = 0;
        shown.notes.clear();
        shown.rolls += 1;
        let bytes = shown.bytes();
        self.space.set_used(&self.name, bytes);
        self.synced_seq.store(visible.next_seq, Release);
    }
}

/// Kept beside [`record`] so that the largest copy is bounded by the largest record.
const _: () = assert!(COPY_BYTES < record::PAYLOAD_BYTES_MAX);
