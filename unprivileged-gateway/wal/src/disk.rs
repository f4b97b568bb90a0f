//! The disk, seen through a keyhole: one flat folder, and files that are read, written, synced and nothing more.
//!
//! Everything the log does to a disk passes through these two traits, so that a test can be the disk. [`RealDisk`] is
//! the thin one over the operating system; `forgetful::ForgetfulDisk` loses whatever was not synced. The weakness of a
//! small trait is that it promises little: nothing is durable before `sync_data` (bytes) and `sync_dir` (names).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One flat folder of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files in the folder, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file; an existing one is truncated. The name is durable after [`Disk::sync_dir`] only.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomic replacement, durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable: creations, renames, removals.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Reads at most `into.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it, or reports an error after an unknown part of it was written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`. After an error the kernel may have thrown the bytes away: never retried on the same file.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves blocks so that the file can hold `len` bytes.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    pub(crate) path: PathBuf,
}

impl RealDisk {
    /// Opens the folder, creating it (and syncing its parent) when it is missing.
    pub fn open(path: &Path) -> io::Result<RealDisk> {
        if !path.is_dir() {
            // What is kept in here is other people's telemetry: its owner alone may look. A folder that exists keeps its mode.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(RealDisk { path: path.into() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        // A folder that was mounted read-only can still be read and sent from.
        let file = OpenOptions::new().read(true).write(true).open(&path).or_else(|_| File::open(&path))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

pub(crate) struct RealFile {
    pub(crate) file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        nix::fcntl::posix_fallocate(&self.file, 0, len).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_folder_reads_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(&dir.path().join("logs")).unwrap();
        let file = disk.create("a").unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        let mut back = [9; 16];
        assert_eq!(disk.open("b").unwrap().read_at(&mut back, 0).unwrap(), 8);
        assert_eq!(&back[..8], b"\0\0\0hello");
        assert_eq!(disk.list().unwrap(), ["b"]);
        file.allocate(4096).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
