//! How far each file is safe: the probe's only memory.
//!
//! A bookmark for every book, in one small drawer. The whole drawer is written anew ([`Positions::save`]: a temporary file,
//! synced, renamed over the old one), so that it is either yesterday's or today's. Losing it costs nothing but reading again:
//! the gateway knows by [`super::identity`] what it holds and trims it.
//!
//! Shape: one MessagePack map `{version, entries: [[id, generation, end, high, ended, seen, path]]}`, then a CRC32C of it, little-endian.
//! The weakness: one thing in it is not to be had again, the generation of a file that was shortened and begins as before.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files remembered.
pub(super) const ENTRIES_MAX: usize = 65_536;
/// How long a file is remembered that was not seen. Unit: seconds.
const KEPT_S: u64 = 7 * 24 * 3600;
/// Bytes of a path that are kept as a hint.
const PATH_BYTES_MAX: usize = 512;
/// A larger positions file is not ours. Unit: bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
const VERSION: u32 = 1;
const NAME: &str = "positions";

/// What is remembered of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) generation: u32,
    /// Everything below is safe.
    pub(super) end: u64,
    /// Everything below has been handed over by this start; at least `end`.
    pub(super) given: u64,
    /// The most that any start has handed over: a file that is shorter was shortened.
    pub(super) high: u64,
    /// It was read to its end and will not grow.
    pub(super) ended: bool,
    /// Unix seconds.
    pub(super) seen: u64,
    pub(super) path: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    entries: Vec<Entry>,
}

/// Id, generation, end, high, ended, seen, path.
type Entry = ([u8; 16], u32, u64, u64, bool, u64, Bytes);

/// Path bytes, which are no text.
#[derive(Serialize, Deserialize)]
struct Bytes(Vec<u8>);

/// All positions.
#[derive(Debug)]
pub(super) struct Positions {
    folder: PathBuf,
    entries: HashMap<[u8; 16], Position>,
    /// Paths of files that were read to their ends.
    ended: HashSet<Vec<u8>>,
    dirty: bool,
}

impl Positions {
    /// Reads them. A file that is damaged or not ours is set aside and told (`Err` beside the empty positions).
    pub(super) fn load(folder: &Path, now: u64) -> (Positions, Option<String>) {
        let mut positions =
            Positions { folder: folder.to_owned(), entries: HashMap::new(), ended: HashSet::new(), dirty: false };
        let path = folder.join(NAME);
        let stored = match read(&path) {
            Ok(stored) => stored,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return (positions, None),
            Err(e) => {
                let told = format!(
                    "positions in {} cannot be read: {e}; files are read from their beginning, and what the gateway holds is left out",
                    path.display()
                );
                let _ = fs::rename(&path, folder.join("positions.damaged"));
                return (positions, Some(told));
            }
        };
        for (id, generation, end, high, ended, seen, Bytes(path)) in stored.entries {
            if seen.saturating_add(KEPT_S) >= now {
                positions.entries.insert(id, Position { generation, end, given: end, high, ended, seen, path });
            }
        }
        positions.note_ended();
        (positions, None)
    }

    pub(super) fn get(&self, id: &[u8; 16]) -> Option<&Position> {
        self.entries.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether a file that had this path was read to its end, and all of it is safe.
    pub(super) fn has_ended(&self, path: &[u8]) -> bool {
        self.ended.contains(path)
    }

    /// Remembers a file under its id; the oldest is forgotten if there are too many.
    pub(super) fn put(&mut self, id: [u8; 16], position: Position) {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&id) {
            self.forget_oldest();
        }
        if position.ended {
            self.ended.insert(hint(&position.path));
        }
        self.entries.insert(id, Position { path: hint(&position.path), ..position });
        self.dirty = true;
    }

    /// Changes what is remembered; nothing happens for a file that is not.
    pub(super) fn change(&mut self, id: &[u8; 16], generation: u32, change: impl FnOnce(&mut Position)) {
        let Some(position) = self.entries.get_mut(id).filter(|p| p.generation == generation) else { return };
        let before = position.clone();
        change(position);
        position.path = hint(&position.path);
        if position.ended {
            self.ended.insert(position.path.clone());
        }
        self.dirty |= *position != before;
    }

    /// An eighth at once, so that a flood of files does not sort for each of them.
    fn forget_oldest(&mut self) {
        let mut seen: Vec<(u64, [u8; 16])> = self.entries.iter().map(|(id, p)| (p.seen, *id)).collect();
        seen.sort_unstable();
        for (_, id) in seen.into_iter().take(ENTRIES_MAX / 8) {
            self.entries.remove(&id);
        }
        self.note_ended();
    }

    fn note_ended(&mut self) {
        self.ended = self.entries.values().filter(|p| p.ended).map(|p| p.path.clone()).collect();
    }

    /// Writes them down; returns once they are on the disk.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let entries = self.entries.iter();
        let entries =
            entries.map(|(id, p)| (*id, p.generation, p.end, p.high, p.ended, p.seen, Bytes(p.path.clone()))).collect();
        let stored = Stored { version: VERSION, entries };
        let mut bytes = rmp_serde::to_vec_named(&stored).map_err(io::Error::other)?;
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let temporary = self.folder.join("positions.new");
        // Names of pods and files are nobody else's business.
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()?;
        self.dirty = false;
        Ok(())
    }
}

fn hint(path: &[u8]) -> Vec<u8> {
    path.get(..PATH_BYTES_MAX).unwrap_or(path).to_vec()
}

fn read(path: &Path) -> io::Result<Stored> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| invalid("shorter than its checksum"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(invalid("its checksum is wrong"));
    }
    let stored: Stored = rmp_serde::from_slice(body).map_err(|_| invalid("it is not the map it should be"))?;
    if stored.version != VERSION {
        return Err(invalid("it was written by another version"));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(end: u64, seen: u64) -> Position {
        Position {
            generation: 2,
            end,
            given: end,
            high: end + 1,
            ended: end > 5,
            seen,
            path: b"a/\xff\n0.log".to_vec(),
        }
    }

    #[test]
    fn what_is_saved_is_read_and_what_was_not_seen_for_a_week_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut positions, told) = Positions::load(folder.path(), 0);
        assert!(told.is_none() && !positions.is_dirty());
        positions.put([1; 16], position(7, 1_000_000));
        positions.put([2; 16], position(3, 10));
        assert!(positions.is_dirty());
        positions.save().expect("saved");
        assert!(!positions.is_dirty());
        let (read, told) = Positions::load(folder.path(), 1_000_000);
        assert_eq!((read.get(&[1; 16]), read.len(), told), (Some(&position(7, 1_000_000)), 1, None));
        assert!(read.has_ended(b"a/\xff\n0.log") && !read.has_ended(b"a"));
    }

    #[test]
    fn a_damaged_file_is_told_and_set_aside_at_any_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut positions, _) = Positions::load(folder.path(), 0);
        positions.put([1; 16], position(7, 0));
        positions.save().expect("saved");
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).expect("bytes");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).expect("written");
            let (read, told) = Positions::load(folder.path(), 0);
            assert!(told.is_some_and(|t| t.contains("positions")) && read.len() == 0, "byte {at}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn more_files_than_fit_push_out_those_not_seen_for_longest() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut positions, _) = Positions::load(folder.path(), 0);
        let id = |n: u64| ((u128::from(n)) << 64).to_le_bytes();
        for n in 0..ENTRIES_MAX as u64 + 1 {
            positions.put(id(n), position(1, n));
        }
        assert!(positions.len() <= ENTRIES_MAX);
        assert!(positions.get(&id(0)).is_none() && positions.get(&id(ENTRIES_MAX as u64)).is_some());
    }

    #[test]
    fn another_generation_is_not_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut positions, _) = Positions::load(folder.path(), 0);
        positions.put([1; 16], position(1, 0));
        positions.change(&[1; 16], 1, |p| p.end = 99);
        assert_eq!(positions.get(&[1; 16]).map(|p| p.end), Some(1));
        positions.change(&[1; 16], 2, |p| p.end = 99);
        assert_eq!(positions.get(&[1; 16]).map(|p| p.end), Some(99));
    }
}
