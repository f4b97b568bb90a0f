//! Walking along a segment on disk: stepping stones, and what to do where one is missing.
//!
//! Every step is checked. A stone that is rotten is stepped over by its stated length if the next one lines up there,
//! otherwise the walk goes on at the next sync marker. The walker names every stretch it could not read; it never
//! stops and never panics. The weakness: between a lost length and the next marker up to 64 KiB of whole records are
//! passed over with the bad one.

use crate::disk::DiskFile;
use crate::record::{self, HEADER_BYTES, Header, MARKER_BYTES, MARKER_MAGIC, Marker};
use crate::segment;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes read from disk at a time.
pub(crate) const WINDOW_BYTES: usize = 256 * 1024;
/// A failing read is repeated in pieces of this size; the bad ones read as zeros and fail their checksum.
const SECTOR_BYTES: usize = 4096;

/// One step.
#[derive(Debug)]
pub(crate) enum Found {
    Record(Box<Whole>),
    Marker(Marker),
    /// Unreadable from..to.
    Bad {
        from: u64,
        to: u64,
    },
    End,
}

/// A whole record at `at`.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) at: u64,
    pub(crate) header: Header,
    pub(crate) ext: Bytes,
    pub(crate) payload: Bytes,
}

pub(crate) struct Scanner {
    file: Arc<dyn DiskFile>,
    segment: u64,
    nonce: u64,
    pub(crate) at: u64,
    pub(crate) end: u64,
    window: Bytes,
    window_at: u64,
}

impl Scanner {
    pub(crate) fn new(file: Arc<dyn DiskFile>, segment: u64, nonce: u64, at: u64, end: u64) -> Scanner {
        Scanner { file, segment, nonce, at, end, window: Bytes::new(), window_at: 0 }
    }

    pub(crate) fn next(&mut self) -> Found {
        if self.at >= self.end {
            return Found::End;
        }
        let at = self.at;
        if let Some(marker) = self.marker_at(at) {
            self.at += MARKER_BYTES as u64;
            return Found::Marker(marker);
        }
        let Some(header) = self.header_at(at) else { return self.resync(at) };
        let next = at + header.record_bytes() as u64;
        if next > self.end {
            return self.resync(at);
        }
        let ext = self.get(at + HEADER_BYTES as u64, header.ext_len as usize).unwrap_or_default();
        let payload = self.get(at + header.payload_at() as u64, header.payload_len as usize).unwrap_or_default();
        let whole = payload.len() == header.payload_len as usize;
        if !whole || !record::check_payload(&header, &payload, self.nonce, at) {
            self.at = if self.lines_up(next) { next } else { self.next_marker(at + 1) };
            return Found::Bad { from: at, to: self.at };
        }
        self.at = next;
        Found::Record(Box::new(Whole { at, header, ext, payload }))
    }

    /// Whether the frame `seq` stands at `at`.
    pub(crate) fn stands(&mut self, at: u64, seq: u64) -> bool {
        self.header_at(at).is_some_and(|h| h.kind == record::kind::FRAME && h.seq == seq)
    }

    fn marker_at(&mut self, at: u64) -> Option<Marker> {
        let b = self.get(at, MARKER_BYTES)?;
        if b[..8] != MARKER_MAGIC {
            return None;
        }
        Marker::read(&b).filter(|m| m.nonce == self.nonce && m.offset == at && m.segment == self.segment)
    }

    fn header_at(&mut self, at: u64) -> Option<Header> {
        let shape = record::peek(&self.get(at, HEADER_BYTES)?)?;
        let b = self.get(at, shape.payload_at())?;
        record::check_header(&b, self.nonce, at)
    }

    /// Whether something whole starts at `at`, or the readable part ends there.
    fn lines_up(&mut self, at: u64) -> bool {
        at == self.end || (at < self.end && (self.marker_at(at).is_some() || self.header_at(at).is_some()))
    }

    /// The header at `at` is unreadable: over it, by its length if that can be trusted, else to the next marker.
    fn resync(&mut self, at: u64) -> Found {
        let stated = self.get(at, HEADER_BYTES).and_then(|b| record::peek(&b)).map(|h| at + h.record_bytes() as u64);
        let to = match stated {
            Some(next) if next < self.end && self.lines_up(next) => next,
            _ => self.next_marker(at + 1),
        };
        self.at = to;
        Found::Bad { from: at, to }
    }

    /// Offset of the next sync marker at or behind `from`, or the end.
    fn next_marker(&mut self, from: u64) -> u64 {
        let mut at = from;
        while at < self.end {
            let n = (WINDOW_BYTES as u64).min(self.end - at) as usize;
            let Some(b) = self.get_some(at, n) else { return self.end };
            if let Some(m) = segment::find_marker(&b, at, self.segment, Some(self.nonce)) {
                return m.offset;
            }
            if b.len() < MARKER_BYTES || at + b.len() as u64 >= self.end {
                return self.end;
            }
            at += (b.len() - MARKER_BYTES + 1) as u64;
        }
        self.end
    }

    fn get(&mut self, at: u64, len: usize) -> Option<Bytes> {
        if at + len as u64 > self.end {
            return None;
        }
        self.get_some(at, len).filter(|b| b.len() == len)
    }

    /// Up to `len` bytes at `at`; fewer where the file is shorter than it should be.
    fn get_some(&mut self, at: u64, len: usize) -> Option<Bytes> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            let want = len.max(WINDOW_BYTES).min(usize::try_from(self.end - at).unwrap_or(usize::MAX));
            self.window = read(&*self.file, at, want);
            self.window_at = at;
        }
        let from = (at - self.window_at) as usize;
        let to = (from + len).min(self.window.len());
        (from < to || len == 0).then(|| self.window.slice(from.min(to)..to))
    }
}

/// Reads what can be read; sectors that the disk refuses come back as zeros.
pub(crate) fn read(file: &dyn DiskFile, at: u64, len: usize) -> Bytes {
    let mut b = vec![0; len];
    match file.read_at(&mut b, at) {
        Ok(n) => b.truncate(n),
        Err(_) => {
            let length = file.len().unwrap_or(0).saturating_sub(at);
            b.truncate(len.min(usize::try_from(length).unwrap_or(usize::MAX)));
            for (i, piece) in b.chunks_mut(SECTOR_BYTES).enumerate() {
                if file.read_at(piece, at + (i * SECTOR_BYTES) as u64).is_err() {
                    piece.fill(0);
                }
            }
        }
    }
    Bytes::from(b)
}
