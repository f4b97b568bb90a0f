//! Opening a log file without being led anywhere else.
//!
//! A blindfolded guest on a rope: the rope is a descriptor of the root, every step is felt for before weight is put on it, and
//! no step leaves the rope's reach. [`Root::open_file`] asks the kernel (`openat2`) to resolve beneath the root and to follow no
//! link of any kind, looks at what is there without opening it, opens it without waiting, and looks again at what it got.
//!
//! The weakness: a hard link into a plain file's folder is followed, since nobody can tell it from the file; below a pod
//! root a file with a second name is refused.

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Names of one directory that are looked at; a directory with more is somebody's attack or accident.
pub(super) const NAMES_MAX: usize = 16_384;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Refusal {
    /// A symbolic link, as the file or on the way to it.
    Link,
    Fifo,
    Socket,
    Device,
    Directory,
    /// The file has a second name.
    HardLink,
    /// The way leads out of the root.
    Outside,
    Denied,
    /// It was gone, or the system said something else.
    Other,
}

impl Refusal {
    /// As it is counted.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Refusal::Link => "link",
            Refusal::Fifo => "fifo",
            Refusal::Socket => "socket",
            Refusal::Device => "device",
            Refusal::Directory => "directory",
            Refusal::HardLink => "hard_link",
            Refusal::Outside => "outside",
            Refusal::Denied => "denied",
            Refusal::Other => "other",
        }
    }
}

/// What an attempt to open gave.
#[derive(Debug)]
pub(super) enum Attempt {
    Open(File, FileStat),
    Refused(Refusal),
    /// It is not there any more; nothing to count.
    Gone,
}

/// A directory that nothing beneath it leads out of.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Links in the path of the root itself are followed: the operator wrote it.
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Root { fd })
    }

    fn resolve(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        // EAGAIN: somebody renamed a directory while the kernel was walking; it could not prove the way and asks us to try again.
        let attempt = || openat2(self.fd.as_fd(), path, how);
        (0..RETRIES).map(|_| attempt()).find(|r| !matches!(r, Err(Errno::EAGAIN))).unwrap_or(Err(Errno::EAGAIN))
    }

    /// Names in a directory beneath the root, and which of them are directories (or may be). `true`: there were more.
    pub(super) fn list(&self, dir: &[u8]) -> Result<(Vec<Name>, bool), Refusal> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        let fd = self.resolve(dir, flags).map_err(refusal)?;
        let mut dir = Dir::from_fd(fd).map_err(refusal)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let Ok(entry) = entry else { break };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() >= NAMES_MAX {
                return Ok((names, true));
            }
            let kind = match entry.file_type() {
                Some(Type::Directory) => Entry::Directory,
                None => Entry::Unknown,
                Some(_) => Entry::Other,
            };
            names.push((name.to_vec(), kind));
        }
        Ok((names, false))
    }

    /// What is at a path, without opening it. `None`: nothing.
    pub(super) fn look(&self, path: &[u8]) -> Result<Option<FileStat>, Refusal> {
        match self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => fstat(&fd).map(Some).map_err(refusal),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(refusal(e)),
        }
    }

    /// Opens a regular file beneath the root for reading; never waits, never follows.
    pub(super) fn open_file(&self, path: &[u8], lone: bool) -> Attempt {
        match self.look(path) {
            Ok(Some(stat)) => {
                if let Some(refusal) = unfit(&stat, lone) {
                    return Attempt::Refused(refusal);
                }
            }
            Ok(None) => return Attempt::Gone,
            Err(refusal) => return Attempt::Refused(refusal),
        }
        self.open_unseen(path, lone)
    }

    /// The second half of [`Root::open_file`]: whatever was put there after the look is met here.
    pub(super) fn open_unseen(&self, path: &[u8], lone: bool) -> Attempt {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
        let fd = match self.resolve(path, flags) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Attempt::Gone,
            // A socket cannot be opened, nor a device without a driver.
            Err(Errno::ENXIO | Errno::ENODEV) => return Attempt::Refused(Refusal::Device),
            Err(e) => return Attempt::Refused(refusal(e)),
        };
        match fstat(&fd) {
            Ok(stat) => match unfit(&stat, lone) {
                None => Attempt::Open(File::from(fd), stat),
                Some(refusal) => Attempt::Refused(refusal),
            },
            Err(e) => Attempt::Refused(refusal(e)),
        }
    }
}

/// How often a walk that the kernel could not prove is repeated.
const RETRIES: usize = 8;

/// A name in a directory.
pub(super) type Name = (Vec<u8>, Entry);

/// What a name in a directory stands for, as far as the directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    Other,
    Unknown,
}

fn refusal(e: Errno) -> Refusal {
    match e {
        Errno::ELOOP => Refusal::Link,
        Errno::EXDEV => Refusal::Outside,
        Errno::EACCES | Errno::EPERM => Refusal::Denied,
        _ => Refusal::Other,
    }
}

/// Why what is there is not read; none: it is.
pub(super) fn unfit(stat: &FileStat, lone: bool) -> Option<Refusal> {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFREG if lone && stat.st_nlink > 1 => Some(Refusal::HardLink),
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some(Refusal::Link),
        SFlag::S_IFIFO => Some(Refusal::Fifo),
        SFlag::S_IFSOCK => Some(Refusal::Socket),
        SFlag::S_IFDIR => Some(Refusal::Directory),
        _ => Some(Refusal::Device),
    }
}
