//! The storage folder: one key on one hook. Whoever holds the lock owns the logs inside; the next one is told who has it.
//!
//! `lock` is held by `flock` and names its holder's pid, `identity` is a random 128-bit node id drawn once, `epoch`
//! counts starts. Identity and epoch are replaced atomically and synced before anything is accepted. The weakness:
//! `flock` does not reach across machines, so a folder on a shared file system must have one user only.

use crate::disk::RealDisk;
use crate::origin::NodeId;
use crate::record::Epoch;
use crate::wire::{Put, Take};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why a folder cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the lock.
    #[error("storage folder {} is in use by process {}: stop it or choose another storage.path", path.display(),
        holder_pid.map_or("(unknown)".to_string(), |p| p.to_string()))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// As written in the lock file.
        holder_pid: Option<u32>,
    },
    /// The folder cannot be created or written.
    #[error("storage folder {} cannot be written: {source}: check owner and permissions, or choose another storage.path", path.display())]
    Unwritable {
        /// The folder or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system forgets everything at a power cut.
    #[error("storage folder {} lies on {fs}, which is gone after a restart: choose a real disk, or allow volatile storage", path.display())]
    Volatile {
        /// The folder.
        path: PathBuf,
        /// Name of the file system.
        fs: &'static str,
    },
    /// A file of the folder is not what this program wrote.
    #[error("{} is damaged ({what}): restore it from a copy, or move the folder aside to start with an empty one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// How a folder may be opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct FolderOptions {
    /// Accept tmpfs and ramfs (tests, demonstrations).
    pub allow_volatile: bool,
}

/// The locked storage folder. The lock is released when it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    node: NodeId,
    epoch: Epoch,
    _lock: Flock<File>,
}

pub(crate) const IDENTITY_MAGIC: [u8; 4] = *b"BHid";
pub(crate) const EPOCH_MAGIC: [u8; 4] = *b"BHep";

impl Folder {
    /// Locks the folder (creating it), reads or draws the identity, counts the start. Refuses volatile file systems.
    pub fn open(path: &Path, random: &mut dyn FnMut() -> u64) -> Result<Folder, FolderError> {
        Folder::open_with(path, FolderOptions::default(), random)
    }

    /// The same, with options.
    pub fn open_with(
        path: &Path,
        options: FolderOptions,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Folder, FolderError> {
        let unwritable = |source| FolderError::Unwritable { path: path.into(), source };
        RealDisk::open(path).map_err(unwritable)?;
        if let Some(fs) = volatile(path).filter(|_| !options.allow_volatile) {
            return Err(FolderError::Volatile { path: path.into(), fs });
        }
        let lock = take_lock(path)?;
        let node = match load(path, "identity", IDENTITY_MAGIC)? {
            Some(b) => NodeId(b),
            None => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&random().to_le_bytes());
                id[8..].copy_from_slice(&random().to_le_bytes());
                store(path, "identity", IDENTITY_MAGIC, id).map_err(unwritable)?;
                NodeId(id)
            }
        };
        // A lost counter costs nothing: uniqueness comes from the random half.
        let last = load(path, "epoch", EPOCH_MAGIC).unwrap_or_default().unwrap_or_default();
        let mut t = Take(&last);
        let epoch = Epoch { counter: t.u64().unwrap_or(0).saturating_add(1), random: random() };
        let mut b = [0; 16];
        b[..8].copy_from_slice(&epoch.counter.to_le_bytes());
        b[8..].copy_from_slice(&epoch.random.to_le_bytes());
        store(path, "epoch", EPOCH_MAGIC, b).map_err(unwritable)?;
        Ok(Folder { path: path.into(), node, epoch, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Drawn once for this folder.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// Drawn for this start.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// The sub-folder of one log.
    pub fn disk(&self, log: &str) -> io::Result<RealDisk> {
        RealDisk::open(&self.path.join(log))
    }
}

fn take_lock(path: &Path) -> Result<Flock<File>, FolderError> {
    let file = path.join("lock");
    let unwritable = |source| FolderError::Unwritable { path: file.clone(), source };
    let handle =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file).map_err(unwritable)?;
    match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let pid = format!("{}\n", std::process::id());
            let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(pid.as_bytes()));
            written.map_err(unwritable)?;
            Ok(lock)
        }
        Err((mut handle, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let _ = Read::by_ref(&mut handle).take(32).read_to_string(&mut text);
            Err(FolderError::InUse { path: path.into(), holder_pid: text.trim().parse().ok() })
        }
        Err((_, e)) => Err(unwritable(e.into())),
    }
}

/// Name of a file system that lives in memory.
fn volatile(path: &Path) -> Option<&'static str> {
    // linux/magic.h; ramfs has no constant in nix.
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = statfs::statfs(path).ok()?.filesystem_type();
    if kind == statfs::TMPFS_MAGIC {
        return Some("tmpfs");
    }
    (kind.0 as u64 == RAMFS_MAGIC).then_some("ramfs")
}

/// magic, 16 bytes, CRC32C. `None`: not there yet.
pub(crate) fn load(path: &Path, name: &'static str, magic: [u8; 4]) -> Result<Option<[u8; 16]>, FolderError> {
    let path = path.join(name);
    let b = match std::fs::read(&path) {
        Ok(b) => b,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FolderError::Unwritable { path, source }),
    };
    let whole = b.len() == 24 && b[..4] == magic && crc32c::crc32c(&b[..20]).to_le_bytes() == b[20..];
    match b.get(4..20).and_then(|v| v.try_into().ok()).filter(|_| whole) {
        Some(v) => Ok(Some(v)),
        None => Err(FolderError::Corrupt { path, what: "wrong length, first bytes or checksum" }),
    }
}

fn store(path: &Path, name: &str, magic: [u8; 4], value: [u8; 16]) -> io::Result<()> {
    let mut b = Vec::new();
    b.put(&magic);
    b.put(&value);
    b.u32(crc32c::crc32c(&b));
    let temporary = path.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(&b)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path.join(name))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Folder, FolderError> {
        let mut n = 0;
        Folder::open_with(path, FolderOptions { allow_volatile: true }, &mut || {
            n += 7;
            n
        })
    }

    #[test]
    fn a_new_folder_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let folder = open(&path).unwrap();
        folder.disk("logs").unwrap();
        for made in [path.clone(), path.join("logs")] {
            assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
        }
    }

    #[test]
    fn a_second_opener_is_told_who_holds_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let second = open(dir.path()).unwrap_err();
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        let (node, epoch) = (first.node(), first.epoch());
        drop(first);
        let third = open(dir.path()).unwrap();
        assert_eq!(third.node(), node);
        assert_eq!(third.epoch().counter, epoch.counter + 1);
    }

    #[test]
    fn a_damaged_identity_is_named_and_a_damaged_epoch_is_drawn_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        std::fs::write(dir.path().join("epoch"), b"").unwrap();
        assert_eq!(open(dir.path()).unwrap().epoch().counter, 1);
        std::fs::write(dir.path().join("identity"), b"BHid").unwrap();
        let e = open(dir.path()).unwrap_err();
        assert!(matches!(e, FolderError::Corrupt { .. }) && e.to_string().contains("identity"), "{e}");
    }

    #[test]
    fn an_unwritable_path_is_named() {
        let e = open(Path::new("/proc/nowhere/storage")).unwrap_err();
        assert!(matches!(e, FolderError::Unwritable { .. }) && e.to_string().contains("/proc/nowhere"), "{e}");
    }

    #[test]
    fn memory_is_not_a_disk() {
        let shm = Path::new("/dev/shm");
        if volatile(shm).is_none() {
            eprintln!("skipped: /dev/shm is no tmpfs here");
            return;
        }
        let dir = tempfile::tempdir_in(shm).unwrap();
        let e = Folder::open(dir.path(), &mut || 1).unwrap_err();
        assert!(matches!(e, FolderError::Volatile { fs: "tmpfs", .. }), "{e}");
    }
}
