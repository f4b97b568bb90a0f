//! Chunks in, whole lines out: what a file's bytes say once they lie in a row.
//!
//! A mosaic layer with a small tray. Stones come in boxes; most lines are whole within one box and never touch the tray. What
//! begins in one box and ends in another waits in the tray: at most [`OPEN_NS`] of receive time, at most [`OPEN_FRAMES`]
//! frames, at most so many bytes, the oldest leaving first. A container's piece tagged `P` waits in the same way for its `F`,
//! each of its two outputs on its own, across a rotation too.
//!
//! Nothing here knows a clock: time passes when a frame says so ([`Joiner::pass`]), so the same frames give the same lines
//! whenever they are read. Whoever reads on after a stop must begin at [`Joiner::needs`], not at the frame behind the last.
//! Weakness: a line that was closed unfinished comes out in pieces, and a reader that begins in the middle of an endless one
//! cuts it elsewhere.

use super::Source;
use crate::cri::{self, Stream};
use crate::envelope::FileRef;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long a line may stay open, by receive time. Unit: nanoseconds.
pub const OPEN_NS: u64 = 5_000_000_000;
/// How many frames a line may stay open, whatever their times: what must be read again after a stop is bounded by it.
pub const OPEN_FRAMES: u64 = 65_536;
/// What an open piece takes beside its bytes, generously: key, source, map.
const OPEN_OVERHEAD_BYTES: usize = 1_024;
/// When room is needed, this share of it is made at once, so that making room is rare. Unit: 1/4.
const MAKE_ROOM_TO: usize = 3;

/// One frame of file bytes.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub seq: u64,
    /// Unix nanoseconds.
    pub received_at: u64,
    pub file: &'a FileRef,
    /// As known at receipt.
    pub enrichment: &'a [(String, String)],
    pub raw: &'a [u8],
}

/// A line without its line feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    pub source: Arc<Source>,
    /// Unix nanoseconds: the runtime's time of the last piece, else receive time + the line's number in its chunk.
    pub at: u64,
    pub stream: Option<Stream>,
    pub text: Cow<'a, [u8]>,
    /// What was longer than the tray keeps is gone from its end.
    pub cut: bool,
}

/// The tray. Cloning it is cheap: what waits is shared until it changes.
#[derive(Clone)]
pub struct Joiner {
    /// Bytes of an open line that are kept.
    line_bytes: usize,
    /// Bytes that all open lines together may take.
    room: usize,
    open: BTreeMap<String, Arc<Open>>,
    bytes: usize,
    ready: VecDeque<Line<'static>>,
}

/// What waits of one container or file.
#[derive(Clone)]
struct Open {
    source: Arc<Source>,
    /// Where in the file the next byte should come from.
    next: u64,
    /// A line whose end has not been read.
    raw: Option<Held>,
    /// Lines of which more pieces follow, by output.
    parts: [Option<Held>; 2],
    /// The file has ended and another one continues it.
    handed: bool,
}

#[derive(Clone)]
struct Held {
    /// The frame in which it began.
    seq: u64,
    received_at: u64,
    /// Of its last piece.
    at: u64,
    bytes: Vec<u8>,
    cut: bool,
}

impl Held {
    fn new((seq, received_at): (u64, u64)) -> Held {
        Held { seq, received_at, at: 0, bytes: Vec::new(), cut: false }
    }

    /// Returns how much longer it became.
    fn add(&mut self, bytes: &[u8], max: usize, at: u64) -> usize {
        let room = max.saturating_sub(self.bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(kept);
        self.cut |= kept.len() < bytes.len();
        self.at = at;
        kept.len()
    }
}

impl Open {
    fn held(&self) -> impl Iterator<Item = &Held> {
        self.raw.iter().chain(self.parts.iter().flatten())
    }

    fn is_empty(&self) -> bool {
        self.held().next().is_none()
    }

    fn bytes(&self) -> usize {
        self.held().map(|held| OPEN_OVERHEAD_BYTES + held.bytes.len()).sum()
    }
}

/// How far a frame has been read; [`Joiner::next`] goes on from here.
#[derive(Clone, Debug)]
pub struct Walk {
    source: Arc<Source>,
    key: String,
    /// In the frame's bytes.
    at: usize,
    line: u64,
    ended: bool,
}

impl Joiner {
    /// `line_bytes`: of an open line, this much is kept. `room`: of all open lines together. Unit: bytes.
    pub fn new(line_bytes: usize, room: usize) -> Joiner {
        Joiner { line_bytes, room, open: BTreeMap::new(), bytes: 0, ready: VecDeque::new() }
    }

    /// An empty one of the same kind.
    pub fn fresh(&self) -> Joiner {
        Joiner::new(self.line_bytes, self.room)
    }

    /// The first frame that must be read again for what waits now; none if nothing waits.
    pub fn needs(&self) -> Option<u64> {
        self.open.values().flat_map(|open| open.held()).map(|held| held.seq).min()
    }

    /// When the oldest open line began. Unix nanoseconds of receipt.
    pub fn oldest(&self) -> Option<u64> {
        self.open.values().flat_map(|open| open.held()).map(|held| held.received_at).min()
    }

    /// Time has passed: closes what has been open for too long. Fetch the lines with [`Joiner::closed`].
    pub fn pass(&mut self, seq: u64, received_at: u64) {
        let late = |held: &Held| {
            received_at.saturating_sub(held.received_at) >= OPEN_NS || seq.saturating_sub(held.seq) >= OPEN_FRAMES
        };
        if self.open.is_empty() || !self.open.values().any(|open| open.held().any(late)) {
            return;
        }
        let keys: Vec<String> =
            self.open.iter().filter(|(_, o)| o.held().any(late)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.close(&key, &late);
        }
    }

    /// A line that was closed without its end, oldest first.
    pub fn closed(&mut self) -> Option<Line<'static>> {
        self.ready.pop_front()
    }

    /// Begins with a frame.
    pub fn begin(&mut self, piece: &Piece<'_>) -> Walk {
        self.pass(piece.seq, piece.received_at);
        let source = Arc::new(Source::new(piece.file, piece.enrichment));
        let key = source.key(piece.file);
        let stays = self.open.get(&key).is_none_or(|open| {
            // The same file where it stopped, or the one that a rotation put in its place.
            (open.source.is(piece.file) && open.next == piece.file.offset && !open.handed)
                || (open.handed && !open.source.is(piece.file) && piece.file.offset == 0)
                || self.is_told_again(piece, open)
        });
        if !stays {
            self.close(&key, &|_| true);
        }
        Walk { source, key, at: 0, line: 0, ended: false }
    }

    /// The end of an earlier file that is said once more, after a probe's restart: nothing of it is open.
    fn is_told_again(&self, piece: &Piece<'_>, open: &Open) -> bool {
        piece.raw.is_empty() && !open.source.is(piece.file)
    }

    /// The next line of the frame, or of what it closes. None: the frame is read.
    pub fn next<'a>(&mut self, piece: &Piece<'a>, walk: &mut Walk) -> Option<Line<'a>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            let rest = piece.raw.get(walk.at..).unwrap_or_default();
            let at = piece.received_at.saturating_add(walk.line);
            if rest.is_empty() {
                if walk.ended {
                    return None;
                }
                walk.ended = true;
                self.end(piece, walk);
                continue;
            }
            let Some(end) = rest.iter().position(|&b| b == b'\n') else {
                walk.at = piece.raw.len();
                self.wait(walk, Slot::Raw, (piece.seq, piece.received_at), rest, at);
                continue;
            };
            walk.at += end + 1;
            walk.line += 1;
            let line = rest.get(..end).unwrap_or_default();
            let whole = match self.take(&walk.key, Slot::Raw) {
                None => Whole { bytes: Cow::Borrowed(line), at, cut: false, began: (piece.seq, piece.received_at) },
                Some(mut held) => {
                    held.add(line, self.line_bytes, at);
                    let began = (held.seq, held.received_at);
                    Whole { bytes: Cow::Owned(held.bytes), at, cut: held.cut, began }
                }
            };
            if let Some(line) = self.whole(walk, whole) {
                return Some(line);
            }
        }
    }

    /// A line that has its end. None: it is a piece of one that goes on.
    fn whole<'a>(&mut self, walk: &Walk, mut whole: Whole<'a>) -> Option<Line<'a>> {
        if whole.bytes.last() == Some(&b'\r') {
            whole.bytes = slice(whole.bytes, |b| &b[..b.len() - 1]);
        }
        let source = walk.source.clone();
        let record = if source.is_pods() { cri::parse(&whole.bytes) } else { None };
        let Some(record) = record else {
            return Some(Line { source, at: whole.at, stream: None, text: whole.bytes, cut: whole.cut });
        };
        let (at, stream, partial) = (record.at.unwrap_or(whole.at), record.stream, record.partial);
        let behind = whole.bytes.len() - record.content.len();
        let slot = Slot::Part(stream);
        if partial {
            self.wait(walk, slot, whole.began, &whole.bytes[behind..], at);
            if whole.cut
                && let Some(held) = self.held_mut(&walk.key, slot)
            {
                held.cut = true;
            }
            return None;
        }
        let content = slice(whole.bytes, |b| &b[behind..]);
        let (text, cut) = match self.take(&walk.key, slot) {
            None => (content, whole.cut),
            Some(mut held) => {
                held.add(&content, self.line_bytes, at);
                (Cow::Owned(held.bytes), held.cut || whole.cut)
            }
        };
        Some(Line { source, at, stream: Some(stream), text, cut })
    }

    /// Lays bytes on the tray. `began`: frame and receive time of their first one.
    fn wait(&mut self, walk: &Walk, slot: Slot, began: (u64, u64), bytes: &[u8], at: u64) {
        let fresh = || Open { source: walk.source.clone(), next: 0, raw: None, parts: [None, None], handed: false };
        let open = Arc::make_mut(self.open.entry(walk.key.clone()).or_insert_with(|| Arc::new(fresh())));
        (open.source, open.handed) = (walk.source.clone(), false);
        let place = slot.of(open);
        let before = place.as_ref().map_or(0, |_| OPEN_OVERHEAD_BYTES);
        let held = place.get_or_insert_with(|| Held::new(began));
        self.bytes += OPEN_OVERHEAD_BYTES - before + held.add(bytes, self.line_bytes, at);
        if self.bytes > self.room {
            self.make_room();
        }
    }

    fn held_mut(&mut self, key: &str, slot: Slot) -> Option<&mut Held> {
        slot.of(Arc::make_mut(self.open.get_mut(key)?)).as_mut()
    }

    fn take(&mut self, key: &str, slot: Slot) -> Option<Held> {
        let entry = self.open.get_mut(key)?;
        slot.of_ref(entry)?;
        let open = Arc::make_mut(entry);
        let held = slot.of(open).take()?;
        if open.is_empty() {
            self.open.remove(key);
        }
        self.bytes = self.bytes.saturating_sub(OPEN_OVERHEAD_BYTES + held.bytes.len());
        Some(held)
    }

    /// The frame is read: notes where the file goes on, and closes what will not.
    fn end(&mut self, piece: &Piece<'_>, walk: &Walk) {
        if self.open.get(&walk.key).is_some_and(|open| self.is_told_again(piece, open)) {
            return;
        }
        let reason = piece.file.end.as_deref();
        if let Some("rotated") = reason {
            // An unfinished line of the old file stays unfinished; a container's half record is continued in the new one.
            self.close_slot(&walk.key, Slot::Raw);
        } else if reason.is_some_and(|reason| reason != "evicted") {
            self.close(&walk.key, &|_| true);
        }
        if let Some(open) = self.open.get_mut(&walk.key) {
            let open = Arc::make_mut(open);
            open.next = piece.file.offset.saturating_add(piece.raw.len() as u64);
            open.handed = reason == Some("rotated");
            open.source = walk.source.clone();
        }
    }

    /// Closes what `which` names of one entry, the rest of a line before the lines it belongs to.
    fn close(&mut self, key: &str, which: &dyn Fn(&Held) -> bool) {
        for slot in [Slot::Raw, Slot::Part(Stream::Stdout), Slot::Part(Stream::Stderr)] {
            if self.open.get(key).and_then(|open| slot.of_ref(open)).is_some_and(which) {
                self.close_slot(key, slot);
            }
        }
    }

    fn close_slot(&mut self, key: &str, slot: Slot) {
        let Some(source) = self.open.get(key).map(|open| open.source.clone()) else { return };
        let Some(held) = self.take(key, slot) else { return };
        let stream = match slot {
            Slot::Part(stream) => Some(stream),
            Slot::Raw => None,
        };
        let record = if slot == Slot::Raw && source.is_pods() { cri::parse(&held.bytes) } else { None };
        let Some(record) = record else {
            let text = Cow::Owned(held.bytes);
            return self.ready.push_back(Line { source, at: held.at, stream, text, cut: held.cut });
        };
        // Half a record: what is there of its content belongs to the line that its output has open.
        let (at, part) = (record.at.unwrap_or(held.at), Slot::Part(record.stream));
        let (mut bytes, mut cut) = self.take(key, part).map_or((Vec::new(), false), |part| (part.bytes, part.cut));
        bytes.extend_from_slice(record.content);
        cut |= held.cut || bytes.len() > self.line_bytes;
        bytes.truncate(self.line_bytes);
        self.ready.push_back(Line { source, at, stream: Some(record.stream), text: Cow::Owned(bytes), cut });
    }

    #[cold]
    fn make_room(&mut self) {
        let mut ages: Vec<(u64, u64, String)> = Vec::new();
        for (key, open) in &self.open {
            ages.extend(open.held().map(|held| (held.seq, held.received_at, key.clone())));
        }
        ages.sort();
        for (seq, _, key) in ages {
            if self.bytes <= self.room / 4 * MAKE_ROOM_TO {
                break;
            }
            self.close(&key, &|held| held.seq <= seq);
        }
        debug_assert_eq!(self.bytes, self.open.values().map(|open| open.bytes()).sum::<usize>());
    }
}

/// Where on the tray.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Raw,
    Part(Stream),
}

impl Slot {
    fn of(self, open: &mut Open) -> &mut Option<Held> {
        match self {
            Slot::Raw => &mut open.raw,
            Slot::Part(stream) => &mut open.parts[stream as usize],
        }
    }

    fn of_ref(self, open: &Open) -> Option<&Held> {
        match self {
            Slot::Raw => open.raw.as_ref(),
            Slot::Part(stream) => open.parts[stream as usize].as_ref(),
        }
    }
}

struct Whole<'a> {
    bytes: Cow<'a, [u8]>,
    at: u64,
    cut: bool,
    /// Frame and receive time of its first byte.
    began: (u64, u64),
}

/// A part of bytes, borrowed if they were.
fn slice(bytes: Cow<'_, [u8]>, part: impl for<'b> Fn(&'b [u8]) -> &'b [u8]) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(part(bytes)),
        Cow::Owned(bytes) => Cow::Owned(part(&bytes).to_vec()),
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
