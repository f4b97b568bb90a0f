//! One file that is held open: what it is, how far it was read, whether more can come.
//!
//! A tape on its spool: the descriptor holds it whatever happens to its name, so a rename or a removal changes nothing but what
//! follows after the end. Bytes leave in whole lines ([`Tracked::read`]); what has no newline yet stays on the tape until one
//! comes, or the file is final, or the line is longer than [`PIECE_BYTES`].
//!
//! The weakness: a file that is shortened and grows beyond the old place between two looks, beginning as before, goes on in
//! the middle. Its first line would have to be the same to the byte.

use super::identity::{Place, identify};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Bytes handed over at once. Larger chunks cost no fewer system calls worth speaking of and make turns longer; smaller ones
/// cost a frame each (header, envelope, checksum, a look at the marks): at 256 KiB that is below a thousandth.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// A line longer than this leaves in pieces; up to here it is whole.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// What the bytes belong to once the file is known.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// The file's number at the door.
    pub(super) number: u32,
    pub(super) id: [u8; 16],
    pub(super) generation: u32,
    /// The next byte to be handed over.
    pub(super) at: u64,
}

/// A file.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) place: usize,
    /// Beneath its root; as last seen.
    pub(super) path: Vec<u8>,
    file: File,
    pub(super) spot: Place,
    /// What it is read in turn with: a container's successive files.
    pub(super) group: Vec<u8>,
    /// When it was found, by count, and at which walk.
    pub(super) order: u64,
    pub(super) walk: u64,
    pub(super) stream: Option<Stream>,
    pub(super) size: u64,
    /// Unix nanoseconds.
    pub(super) changed: i128,
    links: u64,
    /// Size at which there was no whole line behind `at`.
    stuck_at: Option<u64>,
    /// The stream it was until it was rewritten: if it begins as before, its generation rises.
    pub(super) was: Option<[u8; 16]>,
    /// Since when it has no name, and since when another file continues it. Monotonic milliseconds.
    pub(super) gone_since: Option<u64>,
    pub(super) next_since: Option<u64>,
    /// Monotonic milliseconds: when its size was last seen to change, and when it was last read.
    pub(super) grew: u64,
    pub(super) read: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    Grew,
    /// Shorter than what was read, or it begins otherwise.
    Rewritten,
}

impl Tracked {
    pub(super) fn new(place: usize, path: Vec<u8>, group: Vec<u8>, file: File, now: u64) -> io::Result<Tracked> {
        let spot = Place::of(&file)?;
        let mut tracked = Tracked {
            place,
            path,
            file,
            spot,
            group,
            order: 0,
            walk: 0,
            stream: None,
            size: 0,
            changed: 0,
            links: 1,
            stuck_at: None,
            was: None,
            gone_since: None,
            next_since: None,
            grew: now,
            read: now,
        };
        tracked.stat()?;
        Ok(tracked)
    }

    /// Returns size and time of change as they were known before.
    fn stat(&mut self) -> io::Result<(u64, i128)> {
        let meta = self.file.metadata()?;
        let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        self.links = meta.nlink();
        Ok((std::mem::replace(&mut self.size, meta.len()), std::mem::replace(&mut self.changed, changed)))
    }

    /// Bytes that are there and not handed over.
    pub(super) fn left(&self) -> u64 {
        self.size.saturating_sub(self.stream.as_ref().map_or(0, |s| s.at))
    }

    /// Whether reading may give something.
    pub(super) fn is_ready(&self) -> bool {
        self.stream.is_some() && self.left() > 0 && self.stuck_at != Some(self.size)
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.links == 0
    }

    /// Asks the file how it is. `now`: monotonic milliseconds.
    pub(super) fn look(&mut self, now: u64) -> io::Result<Look> {
        let before = self.stat()?;
        if self.size != before.0 {
            self.grew = now;
        }
        let Some(stream) = &self.stream else { return Ok(Look::Grew) };
        if self.size < stream.at {
            return Ok(Look::Rewritten);
        }
        if (self.size, self.changed) == before {
            return Ok(Look::Same);
        }
        match identify(&self.file, &self.spot, true)? {
            Some(id) if id == stream.id => Ok(Look::Grew),
            // A file that was final when it got its print may have a longer first line now; it is another stream then.
            _ => Ok(Look::Rewritten),
        }
    }

    /// Which file it is; none while its first line is not whole and it is not final.
    pub(super) fn identify(&self, last: bool) -> io::Result<Option<[u8; 16]>> {
        identify(&self.file, &self.spot, last)
    }

    /// The next bytes: whole lines, or a piece of a long one, or what is left of a final file. None: nothing yet.
    pub(super) fn read(&mut self, last: bool) -> io::Result<Option<Vec<u8>>> {
        let Some(at) = self.stream.as_ref().map(|s| s.at) else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut want = CHUNK_BYTES;
        loop {
            let whole = fill(&self.file, at, &mut bytes, want)?;
            if let Some(end) = bytes.iter().rposition(|&b| b == b'\n') {
                bytes.truncate(end + 1);
                break;
            }
            if !whole && (!last || bytes.is_empty()) {
                // The file ends within a line.
                self.stuck_at = Some(self.size);
                return Ok(None);
            }
            if want >= PIECE_BYTES || !whole {
                break;
            }
            want = PIECE_BYTES;
        }
        self.stuck_at = None;
        if let Some(stream) = &mut self.stream {
            stream.at += bytes.len() as u64;
        }
        Ok(Some(bytes))
    }

    /// Forgets how far it was read: what it is now is found out anew.
    pub(super) fn forget(&mut self) {
        self.stuck_at = None;
        self.was = self.stream.take().map(|s| s.id);
    }

    /// What is held back may be read although it has no end: the file is final.
    pub(super) fn unstick(&mut self) {
        self.stuck_at = None;
    }
}

/// Reads on until `bytes` holds `want`; false: the file ends before.
fn fill(file: &File, at: u64, bytes: &mut Vec<u8>, want: usize) -> io::Result<bool> {
    let mut len = bytes.len();
    bytes.resize(want, 0);
    while len < want {
        match file.read_at(&mut bytes[len..], at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(len);
    Ok(len == want)
}
