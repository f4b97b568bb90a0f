//! Small files of the kernel, read whole and within bounds.
//!
//! The caretaker's torch: it lights one meter at a time, and what it cannot light is named by one word out of a short list.
//! Weakness: a file is read in one go and only then understood; those of `/proc` are made at that moment, so that is also right.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes: `/proc/stat` of a machine with many interrupts is some hundred KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where `/proc` is.
#[derive(Clone, Debug)]
pub struct Root {
    proc: PathBuf,
}

impl Default for Root {
    fn default() -> Root {
        Root { proc: PathBuf::from("/proc") }
    }
}

/// Why a part is missing from a scrape; a label, so the set is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no such file: this kernel was built without it.
    Missing,
    /// This user may not read it.
    Denied,
    /// Reading failed.
    Failed,
    /// It does not look as the kernel's documentation says.
    Malformed,
    TooLarge,
    /// A file system did not answer in time; a dead network mount does that.
    Stuck,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Denied => "denied",
            Reason::Failed => "failed",
            Reason::Malformed => "malformed",
            Reason::TooLarge => "too_large",
            Reason::Stuck => "stuck",
        }
    }
}

/// A part that could not be read.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) what: String,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read ({}): {}", self.what, self.reason.name(), self.detail)
    }
}

impl Root {
    /// A tree that looks like `/proc`, for tests.
    pub fn at(proc: &Path) -> Root {
        Root { proc: proc.to_owned() }
    }

    /// The text of `/proc/NAME`; bytes that are no text are replaced.
    pub(super) fn read(&self, name: &str) -> Result<String, Unread> {
        let path = self.proc.join(name);
        let unread = |reason, detail: String| Unread { what: path.display().to_string(), reason, detail };
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
                Err(unread(Reason::TooLarge, format!("it has more than {FILE_BYTES_MAX} bytes")))
            }
            Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(unread(
                match error.kind() {
                    std::io::ErrorKind::NotFound => Reason::Missing,
                    std::io::ErrorKind::PermissionDenied => Reason::Denied,
                    _ => Reason::Failed,
                },
                error.to_string(),
            )),
        }
    }
}

/// What a collector says of a file that it does not understand.
pub(super) fn malformed(file: &str, expected: &str) -> Unread {
    Unread { what: format!("/proc/{file}"), reason: Reason::Malformed, detail: format!("no {expected} in it") }
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}
