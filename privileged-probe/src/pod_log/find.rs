//! Which files there are: one walk over all roots.
//!
//! A census: every door is knocked at, nobody is asked in. Nothing is opened but directories, and every name is a string of
//! bytes and no more than that. The weakness: a walk costs a look a file; it is done when a directory changes, and every
//! few seconds for whatever was missed.

use super::beneath::{Entry, Refusal, Root};
use super::glob::{Glob, fits};
use nix::sys::stat::FileStat;
use std::io;
use std::path::{Path, PathBuf};

/// Files of one walk.
const FOUND_MAX: usize = 65_536;
/// Directories of one walk.
const DIRS_MAX: usize = 65_536;

/// One `--log-root` or one `--files`.
#[derive(Debug)]
pub(super) struct Place {
    /// The NAME of plain files; none: pods.
    pub(super) name: Option<String>,
    path: PathBuf,
    levels: Vec<Vec<u8>>,
    /// None while the directory is not there.
    pub(super) root: Option<Root>,
}

/// A file that was seen.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: usize,
    /// Beneath the root.
    pub(super) path: Vec<u8>,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Unix nanoseconds.
    pub(super) changed: i128,
}

/// What a walk gave.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) files: Vec<Found>,
    /// Directories whose changes matter, beneath which root.
    pub(super) dirs: Vec<(usize, Vec<u8>)>,
    /// Paths that are not read, and why.
    pub(super) refused: Vec<(usize, Vec<u8>, Refusal)>,
    /// There was more than is looked at.
    pub(super) cut: bool,
}

impl Place {
    pub(super) fn pods(path: &Path) -> Place {
        let levels = vec![b"*".to_vec(), b"*".to_vec(), b"*".to_vec()];
        Place { name: None, path: path.to_owned(), levels, root: None }
    }

    pub(super) fn files(name: &str, glob: Glob) -> Place {
        Place { name: Some(name.to_owned()), path: glob.root, levels: glob.levels, root: None }
    }

    pub(super) fn is_pods(&self) -> bool {
        self.name.is_none()
    }

    /// Opens the root if it is not open. Errors: it is not there, or not a directory, or not allowed.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.root.is_none() {
            self.root = Some(Root::open(&self.path)?);
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where inotify can watch a directory.
    pub(super) fn absolute(&self, dir: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        if dir.is_empty() { self.path.clone() } else { self.path.join(std::ffi::OsStr::from_bytes(dir)) }
    }

    fn wants(&self, level: usize, name: &[u8]) -> bool {
        let Some(pattern) = self.levels.get(level) else { return false };
        match (self.is_pods(), level + 1 == self.levels.len()) {
            (true, true) => log_base(name).is_some() && !name.ends_with(b".tmp"),
            // A folder of a pod may begin with a dot as far as we know; it is named `invalid` later.
            (true, false) => true,
            (false, _) => fits(pattern, name),
        }
    }
}

/// `7.log` of `7.log`, `7.log.20260101-101010`, `7.log.20260101-101010.gz`. None: no log of a container.
pub(super) fn log_base(name: &[u8]) -> Option<&[u8]> {
    let digits = name.iter().take_while(|b| b.is_ascii_digit()).count();
    let end = digits + 4;
    let fits = digits > 0 && name.get(digits..end) == Some(b".log");
    let ends = name.len() == end || name.get(end) == Some(&b'.');
    name.get(..end).filter(|_| fits && ends)
}

/// Walks all places whose roots are open.
pub(super) fn census(places: &[Place]) -> Census {
    let mut census = Census::default();
    for (i, place) in places.iter().enumerate() {
        if place.root.is_some() {
            walk(&mut census, i, place);
        }
    }
    census
}

fn walk(census: &mut Census, index: usize, place: &Place) {
    let Some(root) = &place.root else { return };
    let mut dirs: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
    while let Some((dir, level)) = dirs.pop() {
        if census.dirs.len() >= DIRS_MAX {
            census.cut = true;
            return;
        }
        let (names, more) = match root.list(&dir) {
            Ok(listed) => listed,
            // Gone between two looks is no refusal.
            Err(Refusal::Other) => continue,
            Err(refusal) => {
                census.refused.push((index, dir, refusal));
                continue;
            }
        };
        census.cut |= more;
        let last = level + 1 == place.levels.len();
        for (name, entry) in names {
            if !place.wants(level, &name)
                || !last && entry == Entry::Other && !is_link(root, &dir, &name, census, index)
            {
                continue;
            }
            let path = join(&dir, &name);
            if last {
                file(census, index, root, path, place.is_pods());
            } else {
                dirs.push((path, level + 1));
            }
        }
        census.dirs.push((index, dir));
    }
}

/// A link where a folder should be is refused by name; other things that are no folders do not matter.
fn is_link(root: &Root, dir: &[u8], name: &[u8], census: &mut Census, index: usize) -> bool {
    let path = join(dir, name);
    if let Err(Refusal::Link) = root.list(&path) {
        census.refused.push((index, path, Refusal::Link));
    }
    false
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn file(census: &mut Census, index: usize, root: &Root, path: Vec<u8>, lone: bool) {
    if census.files.len() >= FOUND_MAX {
        census.cut = true;
        return;
    }
    match root.look(&path) {
        Ok(Some(stat)) => match super::beneath::unfit(&stat, lone) {
            None => census.files.push(found(index, path, &stat)),
            // A folder where a file could be is common and means nothing.
            Some(Refusal::Directory) if !lone => {}
            Some(refusal) => census.refused.push((index, path, refusal)),
        },
        Ok(None) => {}
        Err(refusal) => census.refused.push((index, path, refusal)),
    }
}

fn found(place: usize, path: Vec<u8>, stat: &FileStat) -> Found {
    let changed = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Found { place, path, device: stat.st_dev, inode: stat.st_ino, size, changed }
}
