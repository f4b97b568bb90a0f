//! Opening what a process executes: the one thing SYS_PTRACE is kept for.
//!
//! Like fetching a book from somebody else's library by its shelf mark: the mark is theirs, so it is followed inside their building
//! (`/proc/PID/root` with RESOLVE_IN_ROOT; an absolute link must not lead into ours). The running executable itself comes from
//! `/proc/PID/exe`, which needs no path and works when it was deleted. Only regular files of a bearable size are taken, never
//! waited for. The weakness: a library below a folder that the probe's user may not enter is not found; it has no table then.

use super::maps::Mapped;
use crate::parser::FILE_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What makes a file the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
}

impl Key {
    /// The vdso has no inode.
    pub(super) const VDSO: Key = Key { device: 0, inode: 0, size: 0, changed_ns: 0 };

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn of(meta: &std::fs::Metadata) -> Key {
        let changed_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Key { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed_ns }
    }
}

/// Why a file is not opened; the text is a metric label.
pub(super) type Refused = &'static str;

/// A process's files, seen from here.
#[derive(Debug)]
pub(super) struct Opener {
    root: File,
    exe_link: PathBuf,
    exe: Option<PathBuf>,
}

impl Opener {
    /// Errors: the process is gone, or SYS_PTRACE is missing.
    pub(super) fn new(proc: &Path) -> Result<Opener, Refused> {
        let flags = (OFlag::O_PATH | OFlag::O_DIRECTORY).bits();
        let root = OpenOptions::new().read(true).custom_flags(flags).open(proc.join("root")).map_err(|e| reason(&e))?;
        let exe_link = proc.join("exe");
        Ok(Opener { root, exe: std::fs::read_link(&exe_link).ok(), exe_link })
    }

    /// Opens the file of a mapping.
    pub(super) fn open(&self, mapped: &Mapped) -> Result<(File, Key), Refused> {
        let is_exe = self.exe.as_ref().is_some_and(|e| {
            let shown = e.as_os_str().as_bytes();
            shown.strip_suffix(b" (deleted)").unwrap_or(shown) == mapped.path
        });
        let file = if is_exe {
            let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
            OpenOptions::new().read(true).custom_flags(flags).open(&self.exe_link).map_err(|e| reason(&e))?
        } else if mapped.deleted {
            return Err("deleted");
        } else {
            let how = OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            File::from(openat2(&self.root, &mapped.path[..], how).map_err(|e| errno_reason(Some(e)))?)
        };
        let meta = file.metadata().map_err(|e| reason(&e))?;
        if !meta.is_file() {
            return Err("no_regular_file");
        }
        if meta.size() > FILE_BYTES_MAX {
            return Err("too_large");
        }
        // Same device and another inode: the path names another file than the one that is mapped. (Overlay and btrfs show
        // other device numbers here than there, so an unequal device says nothing.)
        let device = nix::sys::stat::makedev(u64::from(mapped.device.0), u64::from(mapped.device.1));
        if !is_exe && meta.dev() == device && meta.ino() != mapped.inode {
            return Err("replaced");
        }
        Ok((file, Key::of(&meta)))
    }
}

fn reason(e: &std::io::Error) -> Refused {
    errno_reason(e.raw_os_error().map(Errno::from_raw))
}

fn errno_reason(errno: Option<Errno>) -> Refused {
    match errno {
        Some(Errno::EACCES | Errno::EPERM) => "no_permission",
        Some(Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR) => "gone",
        Some(Errno::ELOOP | Errno::EXDEV) => "link",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(path: &Path) -> Mapped {
        Mapped {
            start: 1,
            end: 2,
            offset: 0,
            inode: 0,
            device: (0, 0),
            path: path.as_os_str().as_bytes().to_vec(),
            deleted: false,
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let opener = Opener::new(Path::new("/proc/self")).expect("our own root");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(opener.open(&mapped(&pipe)).unwrap_err(), "no_regular_file");
        assert_eq!(opener.open(&mapped(folder.path())).unwrap_err(), "no_regular_file");
        assert_eq!(opener.open(&mapped(Path::new("/dev/null"))).unwrap_err(), "no_regular_file");
        assert_eq!(opener.open(&mapped(&folder.path().join("nothing"))).unwrap_err(), "gone");
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("written");
        let (_, first) = opener.open(&mapped(&file)).expect("opened");
        std::fs::write(&file, "xy").expect("written");
        assert_ne!(opener.open(&mapped(&file)).expect("opened").1, first, "another size is another file");
        let exe = std::fs::read_link("/proc/self/exe").expect("exe");
        let (_, key) = opener.open(&mapped(&exe)).expect("this program");
        assert_eq!(key, Key::of(&std::fs::metadata("/proc/self/exe").expect("exe")));
        let mut gone = mapped(&file);
        gone.deleted = true;
        assert_eq!(opener.open(&gone).unwrap_err(), "deleted");
        let meta = std::fs::metadata(&file).expect("meta");
        let mut other = mapped(&file);
        other.device = (nix::sys::stat::major(meta.dev()) as u32, nix::sys::stat::minor(meta.dev()) as u32);
        other.inode = meta.ino() + 1;
        assert_eq!(opener.open(&other).unwrap_err(), "replaced");
    }

    #[test]
    fn a_link_is_followed_inside_the_processs_root_and_not_in_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).expect("linked");
        let root =
            OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(folder.path()).expect("opened");
        let opener = Opener { root, exe_link: "/proc/self/exe".into(), exe: None };
        assert_eq!(opener.open(&mapped(Path::new("/link"))).unwrap_err(), "gone");
        assert_eq!(opener.open(&mapped(Path::new("/../../../../etc/hostname"))).unwrap_err(), "gone");
    }
}
