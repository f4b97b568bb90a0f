//! From one end of a log to the other: several fingers on the shelves, so that every book is read in its order, and once.
//!
//! Normally one segment follows the other. Where the end of a segment that failed is no longer known, two of them may
//! hold the same frames; then both are read side by side, lowest seq first. A segment is opened only when it may hold a
//! lower seq than all that are open, so that few windows are in memory at a time.

use super::{CoverPage, LogView, Span};
use crate::reader::Frame;
use crate::record::{self, Epoch, Header, kind};
use crate::scan::{self, Scanner, Whole};
use crate::state::{Cursor, DestinationId, Registered, State};
use crate::wire::Take;

/// A stretch of a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which of [`LogView::segments`].
    pub segment: usize,
    /// Name of the file.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
    /// Below a synced offset: what stood there was acknowledged. Otherwise it may have been.
    pub was_synced: bool,
    /// What is wrong.
    pub why: String,
}

/// What a whole record says.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A frame.
    Frame(Box<Frame>),
    /// The live state at the head of a segment.
    Snapshot {
        /// The next frame's number then.
        next_seq: u64,
        /// Registered destinations.
        destinations: usize,
        /// Sources whose end is remembered.
        streams: usize,
    },
    /// A destination is registered, renamed or given up.
    Destination {
        /// "add", "change", "delete".
        what: &'static str,
        /// "kind/name".
        id: DestinationId,
        /// With it.
        cursor: Cursor,
    },
    /// A destination has moved.
    Cursor {
        /// Its constant number.
        uid: u64,
        /// To here.
        cursor: Cursor,
    },
    /// A sender declared that it cannot supply a range.
    Gap {
        /// First.
        from: u64,
        /// Behind the last.
        to: u64,
        /// In the sender's words.
        reason: String,
    },
    /// A kind of record that this version does not know.
    Unknown {
        /// Its number.
        kind: u8,
    },
}

/// A whole record and where it stands.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Which of [`LogView::segments`].
    pub segment: usize,
    /// Name of the file.
    pub file: String,
    /// Its first byte.
    pub at: u64,
    /// Header, extension and payload.
    pub bytes: u64,
    /// The start that wrote it.
    pub epoch: Epoch,
    /// What it says.
    pub entry: Entry,
}

/// One step of a [`Walk`].
#[derive(Clone, Debug)]
pub enum Found {
    /// A whole record. Frames come in seq order, each once.
    Record(Placed),
    /// What could not be read.
    Unreadable(Unreadable),
}

/// Every record of a log, and every stretch that is none.
pub struct Walk<'a> {
    view: &'a LogView,
    /// Frames below it are left out.
    from: u64,
    /// The next frame has at least this number.
    next: u64,
    repeated: u64,
    next_span: usize,
    open: Vec<Source>,
}

/// An open segment; `head` is its next frame.
struct Source {
    segment: usize,
    scanner: Scanner,
    head: Option<Box<Whole>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(view: &'a LogView, from: u64) -> Walk<'a> {
        let next_span = view.spans.iter().position(|s| s.upper > from).unwrap_or(view.spans.len());
        let next_span = if from == 0 { 0 } else { next_span };
        Walk { view, from, next: from, repeated: 0, next_span, open: Vec::new() }
    }

    /// Frames that were met again and left out.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Opens the next segment. `Some`: nothing of it can be read.
    fn open_next(&mut self) -> Option<Found> {
        let segment = self.next_span;
        self.next_span += 1;
        let span = self.view.spans.get(segment)?;
        let all = |why: String| {
            let found = Unreadable {
                segment,
                file: span.info.file.clone(),
                from: 0,
                to: span.info.end,
                was_synced: span.info.synced > 0,
                why,
            };
            (span.info.end > 0).then_some(Found::Unreadable(found))
        };
        let Some(nonce) = span.nonce else {
            return all(match span.info.cover {
                CoverPage::Later => "written by a later version, which forbids reading it".into(),
                _ => "neither its cover page nor a sync marker can be read".into(),
            });
        };
        let file = match self.view.disk.open(&span.info.file) {
            Ok(file) => file,
            // Delivered and deleted since the look began.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => return all(format!("cannot be opened: {e}")),
        };
        let scanner = Scanner::new(file, span.n, nonce, span.data_at, span.info.end);
        self.open.push(Source { segment, scanner, head: None });
        None
    }

    /// One step of an open segment that has no frame at hand.
    fn step(&mut self, i: usize) -> Option<Found> {
        let source = &mut self.open[i];
        let (segment, span) = (source.segment, &self.view.spans[source.segment]);
        match source.scanner.next() {
            scan::Found::End => {
                self.open.remove(i);
                None
            }
            scan::Found::Marker(_) => None,
            scan::Found::Bad { from, to } => Some(bad(segment, span, from, to, "checksum or length is wrong")),
            scan::Found::Record(r) if r.header.kind == kind::FRAME => {
                if r.header.seq >= self.next.max(1) {
                    source.head = Some(r);
                } else if r.header.seq >= self.from {
                    self.repeated += 1;
                }
                None
            }
            scan::Found::Record(r) => Some(placed(segment, span, &r)),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(i) = self.open.iter().position(|s| s.head.is_none()) {
                match self.step(i) {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            let seq = |s: &Source| s.head.as_ref().map_or(u64::MAX, |r| r.header.seq);
            let lowest = self.open.iter().enumerate().map(|(i, s)| (seq(s), i)).min();
            let waits = self.view.spans.get(self.next_span);
            if waits.is_some_and(|span| lowest.is_none_or(|(seq, _)| span.info.first_seq <= seq)) {
                match self.open_next() {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            let (_, i) = lowest?;
            let source = &mut self.open[i];
            let Some(r) = source.head.take() else { continue };
            if r.header.seq < self.next {
                self.repeated += 1;
                continue;
            }
            self.next = r.header.seq + 1;
            return Some(placed(source.segment, &self.view.spans[source.segment], &r));
        }
    }
}

fn bad(segment: usize, span: &Span, from: u64, to: u64, why: &str) -> Found {
    let was_synced = from < span.info.synced;
    Found::Unreadable(Unreadable { segment, file: span.info.file.clone(), from, to, was_synced, why: why.into() })
}

fn placed(segment: usize, span: &Span, r: &Whole) -> Found {
    let bytes = r.header.record_bytes() as u64;
    match decode(r) {
        Ok(entry) => Found::Record(Placed {
            segment,
            file: span.info.file.clone(),
            at: r.at,
            bytes,
            epoch: r.header.epoch,
            entry,
        }),
        Err(why) => bad(segment, span, r.at, r.at + bytes, why),
    }
}

/// The checksums were right; so whatever is wrong here was written that way.
fn decode(r: &Whole) -> Result<Entry, &'static str> {
    let h = &r.header;
    let entry = match h.kind {
        kind::FRAME => return frame(h, r).map(|f| Entry::Frame(Box::new(f))),
        kind::SNAPSHOT => State::read(&r.payload).map(|s| Entry::Snapshot {
            next_seq: s.next_seq,
            destinations: s.destinations.len(),
            streams: s.marks.len(),
        }),
        kind::DESTINATION => destination(&r.payload),
        kind::CURSOR => {
            let mut t = Take(&r.payload);
            t.u64().zip(Cursor::read(&mut t)).map(|(uid, cursor)| Entry::Cursor { uid, cursor })
        }
        kind::GAP => gap(&r.payload),
        kind => Some(Entry::Unknown { kind }),
    };
    entry.ok_or("its checksum is right, but it is not what such a record holds")
}

fn frame(h: &Header, r: &Whole) -> Result<Frame, &'static str> {
    let (origin, done) = record::read_ext(&r.ext).ok_or("its origin or done set cannot be read")?;
    if xxhash_rust::xxh3::xxh3_128(&r.payload) != h.hash {
        return Err("its checksum is right, but not the hash of its content");
    }
    Ok(Frame {
        seq: h.seq,
        epoch: h.epoch,
        items: h.items,
        codec: h.codec,
        raw_len: h.raw_len,
        hops: h.hops,
        appended_at: h.appended_at,
        origin,
        done,
        items_before: h.items_before,
        hash: h.hash,
        payload: r.payload.clone(),
    })
}

fn destination(payload: &[u8]) -> Option<Entry> {
    let mut t = Take(payload);
    let what = match t.u8()? {
        1 => "add",
        2 => "change",
        3 => "delete",
        _ => return None,
    };
    let d = Registered::read(&mut t)?;
    Some(Entry::Destination { what, id: d.id(), cursor: d.cursor })
}

fn gap(payload: &[u8]) -> Option<Entry> {
    let mut t = Take(payload);
    crate::origin::Stream::read(&mut t)?;
    Some(Entry::Gap { from: t.u64()?, to: t.u64()?, reason: t.string()? })
}
