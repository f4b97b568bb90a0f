//! Which file it is, whatever it is called: no memory is needed to know it again.
//!
//! A fingerprint taken from where it lies (device, inode), when it was born, and how it begins. The same file gives the same
//! print after a rename, a restart and a lost positions file; a reused inode gives another, since it was born later or begins
//! otherwise. The weakness: on a filesystem without birth times, an inode that is reused for a file with the same first line
//! (up to 1,024 bytes) is taken for the old one until it is found shorter than its position.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::UNIX_EPOCH;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a file's beginning that are looked at, if its first line is not shorter.
pub(super) const HEAD_BYTES: usize = 1024;

/// Where it lies and when it was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Unix nanoseconds; 0 where the filesystem does not say.
    pub(super) born: u64,
}

impl Place {
    pub(super) fn of(file: &File) -> io::Result<Place> {
        let meta = file.metadata()?;
        let born = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|at| u64::try_from(at.as_nanos()).ok()).unwrap_or(0);
        Ok(Place { device: meta.dev(), inode: meta.ino(), born })
    }
}

/// The fingerprint as of now. `None`: there is no whole first line yet, nor [`HEAD_BYTES`] of one, and the file may grow.
pub(super) fn identify(file: &File, place: &Place, last: bool) -> io::Result<Option<[u8; 16]>> {
    let mut head = [0; HEAD_BYTES];
    let mut len = 0;
    while len < HEAD_BYTES {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let head = &head[..len];
    let line = match head.iter().position(|&b| b == b'\n') {
        Some(end) => &head[..=end],
        None if len == HEAD_BYTES || last && len > 0 => head,
        None => return Ok(None),
    };
    Ok(Some(print(place, line)))
}

fn print(place: &Place, line: &[u8]) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(24 + line.len());
    for number in [place.device, place.inode, place.born] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(line);
    xxh3_128(&bytes).to_le_bytes()
}
