//! What a restart knows: reading the ship's log backwards from the last page on which everything was still written down.
//!
//! Cover pages say where earlier segments end. The newest whole snapshot is the state; frames and state records behind
//! it are replayed. Below a stated synced offset a hole is damage; above the last one lies the tail, which nobody may
//! see before it has been copied and synced again. Only the last segment is read, so that a restart costs the same
//! whatever the backlog. The weakness: damage in older segments is found by whoever reads them, not here.

use crate::disk::{Disk, DiskFile};
use crate::group::{POINT_EVERY_BYTES, Point};
use crate::origin::Seen;
use crate::record::{self, HEADER_BYTES, Header, kind};
use crate::scan::{self, Found, Scanner};
use crate::segment::{self, SegmentHeader, Understood};
use crate::state::{self, DestinationId, State};
use crate::stats::Waiting;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Name of the segment that is being written by a recovery.
pub(crate) const TEMPORARY: &str = "new.tmp";
const PAGE_READ_BYTES: usize = 8 * 1024;
/// Ranges listed in a report; more are counted.
const RANGES_MAX: usize = 1_000;

/// Seqs `from..to` that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// First.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
}

/// In what condition the state was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateFound {
    /// A new log.
    #[default]
    Empty,
    /// The newest snapshot, and everything behind it.
    Whole,
    /// An older snapshot, or something behind it was unreadable: unknown destinations start at the oldest frame.
    Hurt,
    /// None: every destination starts at the oldest frame.
    Lost,
}

/// What recovery found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// In what condition the state was.
    pub state: StateFound,
    /// Segments held before this start.
    pub segments: usize,
    /// Frames above the last stated synced offset, copied into the new segment.
    pub tail_frames: u64,
    /// Unreadable in the tail: may have been acknowledged. The numbers are not given again.
    pub torn: Vec<SeqRange>,
    /// Unreadable below a synced offset, as far as recovery had to read.
    pub damaged: Vec<SeqRange>,
    /// Unreadable bytes behind `torn` and `damaged`.
    pub unreadable_bytes: u64,
    /// Registered destinations with what waits for them.
    pub waiting: Vec<(DestinationId, Waiting)>,
    /// Why nothing is accepted, if so.
    pub closed: Option<String>,
}

/// A segment as the log and its readers know it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) n: u64,
    /// `None`: neither cover page nor marker can be read.
    pub(crate) nonce: Option<u64>,
    /// Where to begin reading.
    pub(crate) data_at: u64,
    /// Readers see nothing past it.
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
    pub(crate) first_seq: u64,
    /// Behind the last seq it may hold.
    pub(crate) upper: u64,
    pub(crate) items_before: u64,
    pub(crate) bytes_before: u64,
    pub(crate) first_time: u64,
    pub(crate) last_time: u64,
    pub(crate) points: Vec<Point>,
}

/// A record of the tail, to be copied.
pub(crate) struct TailRecord {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) at: u64,
    pub(crate) header: Header,
    /// What it says has been seen of a source. It counts once the record is known to be synced, or has been copied.
    pub(crate) seen: Option<Seen>,
}

/// Everything a start knows before it writes.
#[derive(Default)]
pub(crate) struct Image {
    pub(crate) state: State,
    pub(crate) segments: Vec<Segment>,
    /// Numbers of files that a power cut brought back after they were deleted.
    pub(crate) ghosts: Vec<u64>,
    /// Segments below whose synced end a whole snapshot stands: the base, as far as anybody has looked.
    pub(crate) clean: Vec<u64>,
    /// Highest segment number ever seen.
    pub(crate) newest: u64,
    pub(crate) tail: Vec<TailRecord>,
    pub(crate) frozen: Option<String>,
    pub(crate) report: Recovery,
}

pub(crate) struct Page {
    pub(crate) n: u64,
    file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) nonce: Option<u64>,
    pub(crate) data_at: u64,
}

/// Reads the folder; writes nothing except the removal of a leftover temporary file.
pub(crate) fn run(disk: &dyn Disk) -> io::Result<Image> {
    let names = disk.list()?;
    if names.iter().any(|n| n == TEMPORARY) {
        // A leftover of a recovery that never came to its end: nothing in it was ever shown to anybody.
        let _ = disk.remove(TEMPORARY);
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment::number(n)).collect();
    numbers.sort_unstable();
    let mut image = Image { newest: numbers.last().copied().unwrap_or(0), ..Image::default() };
    let mut pages = Vec::new();
    let mut ends = BTreeMap::new();
    for n in &numbers {
        pages.push(open_page(disk, *n, &mut ends)?);
    }
    drop_ghosts(&mut pages, &mut image);
    image.report.segments = pages.len();
    let base = find_base(&pages, &ends);
    let mut walk = Walk { state: State { next_seq: 1, ..State::default() }, ..Walk::default() };
    for (i, page) in pages.iter().enumerate() {
        if let Some(h) = page.header.as_ref().filter(|h| h.understood() != Understood::Fully) {
            image.frozen.get_or_insert(format!(
                "segment {} was written by a later version (masks {:#x}, {:#x}): run that version",
                segment::name(page.n),
                h.read_safe,
                h.must_understand
            ));
        }
        let stated = ends.get(&page.n).copied();
        let known = base.is_some_and(|b| page.n < b) && stated.is_some();
        let s = if known { untouched(page, stated.unwrap_or(0)) } else { walk.segment(page, stated, base, i) };
        image.segments.push(s);
    }
    finish(&mut image, walk, base, &pages);
    Ok(image)
}

pub(crate) fn open_page(disk: &dyn Disk, n: u64, ends: &mut BTreeMap<u64, u64>) -> io::Result<Page> {
    let file = disk.open(&segment::name(n))?;
    let bytes = file.len()?;
    let mut head = scan::read(&*file, 0, PAGE_READ_BYTES);
    if let Some(len) = SegmentHeader::whole_len(&head).filter(|len| *len > head.len()) {
        head = scan::read(&*file, 0, len);
    }
    let mut page = Page { n, file, bytes, header: None, nonce: None, data_at: 0 };
    match SegmentHeader::read(&head).filter(|(h, _)| h.segment == n) {
        Some((header, len)) => {
            ends.extend(header.ends.iter().map(|(k, v)| (*k, *v)));
            page.nonce = (header.understood() != Understood::Not).then_some(header.nonce);
            page.data_at = len;
            page.header = Some(header);
        }
        None => {
            // The page is gone: a marker further on still knows the nonce and where the segment before ends.
            let mut at = 0;
            while at < bytes && page.nonce.is_none() {
                let b = scan::read(&*page.file, at, scan::WINDOW_BYTES);
                if let Some(m) = segment::find_marker(&b, at, n, None) {
                    page.nonce = Some(m.nonce);
                    if m.previous != 0 {
                        ends.insert(m.previous, m.previous_end);
                    }
                }
                if b.len() < scan::WINDOW_BYTES {
                    break;
                }
                at += (b.len() - record::MARKER_BYTES + 1) as u64;
            }
        }
    }
    Ok(page)
}

/// A cover page names every earlier segment that was held; one it does not name had been deleted.
fn drop_ghosts(pages: &mut Vec<Page>, image: &mut Image) {
    let Some((newest, held)) = pages.iter().rev().find_map(|p| Some((p.n, p.header.as_ref()?.ends.clone()))) else {
        return;
    };
    pages.retain(|p| {
        let ghost = p.n < newest && !held.contains_key(&p.n);
        if ghost {
            image.ghosts.push(p.n);
        }
        !ghost
    });
}

/// The newest segment with a whole snapshot below its own stated end.
fn find_base(pages: &[Page], ends: &BTreeMap<u64, u64>) -> Option<u64> {
    pages.iter().rev().find(|p| snapshot(p, ends.get(&p.n).copied()).is_some()).map(|p| p.n)
}

fn snapshot(page: &Page, stated: Option<u64>) -> Option<State> {
    let end = stated.unwrap_or(page.bytes);
    let mut scanner = Scanner::new(page.file.clone(), page.n, page.nonce?, page.data_at, end);
    // At most: what is left of the page, a marker, a torn marker, the snapshot.
    for _ in 0..4 {
        match scanner.next() {
            Found::Record(r) if r.header.kind == kind::SNAPSHOT => return State::read(&r.payload),
            Found::Record(_) | Found::End => return None,
            Found::Marker(_) | Found::Bad { .. } => {}
        }
    }
    None
}

/// A segment that recovery has no reason to read.
fn untouched(page: &Page, end: u64) -> Segment {
    let h = page.header.as_ref();
    Segment {
        n: page.n,
        nonce: page.nonce,
        data_at: page.data_at,
        end,
        file_bytes: page.bytes,
        first_seq: h.map_or(0, |h| h.first_seq),
        upper: 0,
        items_before: h.map_or(0, |h| h.items_before),
        bytes_before: h.map_or(0, |h| h.bytes_before),
        first_time: h.map_or(0, |h| h.first_time),
        last_time: 0,
        points: Vec::new(),
    }
}

/// A stretch that could not be read, and the seqs that are missing around it.
struct Hole {
    at: u64,
    bytes: u64,
    from: u64,
    /// `None`: nothing readable follows in this segment.
    to: Option<u64>,
}

#[derive(Default)]
struct Walk {
    state: State,
    tail: Vec<TailRecord>,
    torn: Vec<SeqRange>,
    damaged: Vec<SeqRange>,
    unreadable: u64,
    /// Trailing holes: (seq before the hole, bytes, in the tail).
    open: Vec<(u64, u64, bool)>,
    frames_seen: bool,
    first_walked: Option<usize>,
    /// Behind the snapshot that was taken as the base.
    snapshot_end: u64,
    /// Segment -> behind its last whole record, the tail included.
    whole_ends: BTreeMap<u64, u64>,
}

impl Walk {
    fn segment(&mut self, page: &Page, stated: Option<u64>, base: Option<u64>, index: usize) -> Segment {
        self.first_walked.get_or_insert(index);
        let born = page.header.as_ref().map_or(0, |h| h.born);
        let end = stated.unwrap_or(page.bytes.max(born));
        let mut s = untouched(page, end);
        let Some(nonce) = page.nonce else {
            if page.bytes > 0 && end > 0 {
                self.open.push((self.state.next_seq, page.bytes, true));
                self.unreadable += page.bytes;
            }
            s.end = stated.unwrap_or(0);
            return s;
        };
        let replay = base.is_none_or(|b| page.n >= b);
        let mut scanner = Scanner::new(page.file.clone(), page.n, nonce, page.data_at, end);
        let mut expect = if page.header.is_some() { s.first_seq } else { 0 };
        let (mut holes, mut synced): (Vec<Hole>, u64) = (Vec::new(), born);
        let first_tail = self.tail.len();
        loop {
            match scanner.next() {
                Found::End => break,
                Found::Marker(m) => {
                    synced = synced.max(m.synced);
                    close_hole(&mut holes, m.next_seq);
                    expect = expect.max(m.next_seq);
                    if s.first_seq == 0 {
                        (s.first_seq, s.items_before) = (m.next_seq, m.items_before);
                    }
                }
                Found::Bad { from, to } => {
                    holes.push(Hole { at: from, bytes: to - from, from: expect, to: None });
                }
                Found::Record(r) => {
                    self.whole_ends.insert(page.n, scanner.at);
                    synced = synced.max(r.header.synced);
                    close_hole(&mut holes, r.header.seq);
                    if r.header.kind == kind::FRAME {
                        self.frames_seen = true;
                        note_point(&mut s, r.at, &r.header);
                        expect = r.header.seq + 1;
                        s.upper = s.upper.max(expect);
                    }
                    if replay {
                        self.replay(page, &r, base);
                    }
                    if r.header.kind != kind::SNAPSHOT {
                        let seen = seen_in(&r).filter(|_| replay);
                        let (file, header) = (page.file.clone(), r.header.clone());
                        self.tail.push(TailRecord { file, at: r.at, header, seen });
                    }
                }
            }
            self.forget_synced(first_tail, stated.unwrap_or(synced));
        }
        let synced = stated.unwrap_or(synced);
        self.forget_synced(first_tail, synced);
        self.sort_holes(holes, synced);
        self.look_beyond(page, nonce, end);
        s.end = synced.min(end);
        s
    }

    /// The tail is what lies above the last stated synced offset of this segment.
    fn forget_synced(&mut self, first: usize, synced: u64) {
        let keep = self.tail[first..].iter().position(|t| t.at >= synced).map_or(self.tail.len(), |i| first + i);
        for synced in self.tail.drain(first..keep) {
            if let Some(seen) = synced.seen {
                seen.apply(&mut self.state.marks);
            }
        }
    }

    fn replay(&mut self, page: &Page, r: &scan::Whole, base: Option<u64>) {
        let h = &r.header;
        match h.kind {
            kind::SNAPSHOT if Some(page.n) == base => {
                self.snapshot_end = r.at + h.record_bytes() as u64;
                if let Some(s) = State::read(&r.payload) {
                    self.state = s;
                }
            }
            kind::FRAME => {
                let (items, bytes) = (u64::from(h.items), u64::from(h.payload_len));
                self.count(h.seq + 1, h.items_before + items, h.bytes_before + bytes);
            }
            kind::DESTINATION => {
                self.state.replay_destination(&r.payload);
            }
            kind::CURSOR => {
                self.state.replay_cursor(&r.payload);
            }
            _ => {}
        }
        self.count(h.seq, h.items_before, h.bytes_before);
    }

    /// What a record says came before it did come before it, readable or not: a hole in the tail keeps its numbers and
    /// its items, so that readers report them.
    fn count(&mut self, next_seq: u64, items: u64, bytes: u64) {
        let s = &mut self.state;
        (s.next_seq, s.items, s.bytes) = (s.next_seq.max(next_seq), s.items.max(items), s.bytes.max(bytes));
    }

    /// What a failed sync left behind a segment's end is not read, but its numbers are not given again.
    fn look_beyond(&mut self, page: &Page, nonce: u64, end: u64) {
        let mut scanner = Scanner::new(page.file.clone(), page.n, nonce, end, page.bytes);
        loop {
            match scanner.next() {
                Found::End => return,
                Found::Record(r) if r.header.kind == kind::FRAME => {
                    self.state.next_seq = self.state.next_seq.max(r.header.seq + 1);
                }
                Found::Record(_) | Found::Marker(_) | Found::Bad { .. } => {}
            }
        }
    }

    fn sort_holes(&mut self, holes: Vec<Hole>, synced: u64) {
        for hole in holes {
            let in_tail = hole.at >= synced;
            self.unreadable += hole.bytes;
            match hole.to {
                Some(to) if to > hole.from => {
                    let list = if in_tail { &mut self.torn } else { &mut self.damaged };
                    list.push(SeqRange { from: hole.from, to });
                }
                Some(_) => {}
                None => self.open.push((hole.from, hole.bytes, in_tail)),
            }
        }
    }
}

/// What a frame's origin or a gap says has been seen.
fn seen_in(r: &scan::Whole) -> Option<Seen> {
    match r.header.kind {
        kind::FRAME => {
            let (origin, _) = record::read_ext(&r.ext)?;
            origin.map(|origin| Seen::of(&origin, r.header.appended_at))
        }
        kind::GAP => state::read_gap(&r.payload, r.header.appended_at),
        _ => None,
    }
}

fn close_hole(holes: &mut [Hole], seq: u64) {
    for hole in holes.iter_mut().rev() {
        if hole.to.is_some() {
            break;
        }
        hole.to = Some(seq);
    }
}

fn note_point(s: &mut Segment, at: u64, h: &Header) {
    s.last_time = s.last_time.max(h.appended_at);
    if s.points.last().is_none_or(|p| at - p.offset >= POINT_EVERY_BYTES) {
        let (items_before, bytes_before) = (h.items_before, h.bytes_before);
        s.points.push(Point { seq: h.seq, offset: at, items_before, bytes_before, appended_at: h.appended_at });
    }
}

fn finish(image: &mut Image, mut walk: Walk, base: Option<u64>, pages: &[Page]) {
    let cursors: Vec<_> = walk.state.destinations.values().map(|d| d.cursor).collect();
    for c in cursors {
        walk.count(c.seq, c.items, c.bytes);
    }
    // As many numbers as the unreadable bytes could have held are never given again.
    let held: u64 = walk.open.iter().map(|(_, bytes, _)| bytes / HEADER_BYTES as u64 + 1).sum();
    walk.state.next_seq += held;
    let (mut torn, mut damaged) = (std::mem::take(&mut walk.torn), std::mem::take(&mut walk.damaged));
    for (from, _, in_tail) in &walk.open {
        let list = if *in_tail { &mut torn } else { &mut damaged };
        list.push(SeqRange { from: (*from).max(1), to: walk.state.next_seq });
    }
    if image.frozen.is_some() {
        // Nothing can be copied, and nothing will ever be written: the tail is read where it lies.
        walk.forget_synced(0, u64::MAX);
        for s in &mut image.segments {
            s.end = s.end.max(walk.whole_ends.get(&s.n).copied().unwrap_or(0));
        }
    }
    // Frames in seq order, each once; state records keep their order behind them.
    let (mut frames, others): (Vec<_>, Vec<_>) = walk.tail.into_iter().partition(|t| t.header.kind == kind::FRAME);
    frames.sort_by_key(|t| t.header.seq);
    frames.dedup_by_key(|t| t.header.seq);
    image.report.tail_frames = frames.len() as u64;
    image.tail = frames.into_iter().chain(others).collect();
    bound_upper(&mut image.segments, walk.first_walked, &walk.state);
    image.clean =
        image.segments.iter().filter(|s| Some(s.n) == base && s.end >= walk.snapshot_end).map(|s| s.n).collect();
    let newest = pages.last().map(|p| p.n);
    image.report.state = match base {
        _ if pages.is_empty() => StateFound::Empty,
        None if walk.frames_seen || walk.unreadable > 0 => StateFound::Lost,
        None => StateFound::Empty,
        Some(_) if walk.unreadable > 0 || base != newest => StateFound::Hurt,
        Some(_) => StateFound::Whole,
    };
    torn.truncate(RANGES_MAX);
    damaged.truncate(RANGES_MAX);
    (image.report.torn, image.report.damaged, image.report.unreadable_bytes) = (torn, damaged, walk.unreadable);
    image.state = walk.state;
}

/// An unread segment holds nothing at or above its successor's first seq; one whose page is lost is taken to be empty
/// and to stand right before its successor.
fn bound_upper(segments: &mut [Segment], first_walked: Option<usize>, state: &State) {
    let walked = first_walked.unwrap_or(segments.len());
    let mut next = (state.next_seq, state.items, state.bytes);
    for (i, s) in segments.iter_mut().enumerate().rev() {
        if i < walked || s.nonce.is_none() {
            s.upper = s.upper.max(next.0);
        }
        if s.first_seq == 0 {
            (s.first_seq, s.items_before, s.bytes_before) = next;
        }
        s.upper = s.upper.max(s.first_seq);
        next = (s.first_seq, s.items_before, s.bytes_before);
    }
}
