//! The files that the probe has open, by its numbers, and the chunks that their bytes become.
//!
//! A coat-check: the probe hands over a description once and from then on says a number. Weakness: the description is the probe's
//! word; a path is shown and makes labels, and is never opened here.

use crate::seam::{Offered, Signal, Source};
use bytes::Bytes;
use ipc::{Closed, Opened, Root};
use model::envelope::{FileRef, Kind, Sidecar};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use wal::{FileKey, Origin, Stream};

/// Files that may be open at once: what the probe keeps positions of.
const FILES_MAX: usize = 65_536;
/// All their paths together. Unit: bytes.
const PATHS_BYTES_MAX: usize = 16 << 20;
/// Linux allows no longer path. Unit: bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// A file, as it was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    /// `pods`, or the name of the file source.
    pub(super) root: String,
    /// UTF-8, what is not is written as `\xNN`.
    pub(super) path: String,
    pub(super) key: FileKey,
}

impl LogFile {
    pub(super) fn stream(&self) -> Stream {
        Stream::File(self.key)
    }

    fn place(&self, offset: u64, end: Option<String>) -> FileRef {
        FileRef {
            root: self.root.clone(),
            path: self.path.clone(),
            id: self.key.id,
            generation: self.key.generation,
            offset,
            end,
        }
    }

    /// A chunk of it, ready for the log.
    pub(super) fn chunk(&self, known: &Known, offset: u64, bytes: Bytes) -> Offered {
        let lines = bytes.iter().filter(|b| **b == b'\n').count().max(1);
        let len = bytes.len() as u64;
        let origin = Origin::LogBytes { file: self.key, offset, len };
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        offered(known, self.place(offset, None), lines, bytes, Some(origin))
    }

    /// The chunk that says that nothing follows; it holds no bytes and no record.
    pub(super) fn last(&self, known: &Known, closed: &Closed) -> Offered {
        offered(known, self.place(closed.end, Some(closed.reason.clone())), 0, Bytes::new(), None)
    }
}

/// What is known of every chunk of a connection.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The host, as the probe names it.
    pub(super) host: String,
    /// Unix nanoseconds, of this frame.
    pub(super) received_at: u64,
}

/// Who sent it, in sidecars.
pub(super) const PEER: &str = "probe";

fn offered(known: &Known, file: FileRef, items: u32, bytes: Bytes, origin: Option<Origin>) -> Offered {
    Offered {
        signal: Signal::Logs,
        kind: Kind::LogChunk,
        items,
        sidecar: Sidecar {
            received_at: known.received_at,
            peer: PEER.into(),
            enrichment: vec![("host.name".into(), known.host.clone())],
            file: Some(file),
        },
        body: vec![bytes],
        source: Source::Probe,
        origin,
    }
}

/// The coat-check.
#[derive(Default)]
pub(super) struct Files {
    open: HashMap<u32, Arc<LogFile>>,
    path_bytes: usize,
}

impl Files {
    /// A file was announced; the same number again may only bring a new path. Errors: a text for the log, the connection has no meaning.
    pub(super) fn open(&mut self, opened: &Opened) -> Result<Arc<LogFile>, String> {
        if opened.path.len() > PATH_BYTES_MAX {
            return Err(format!("file {} has a path of {} bytes", opened.file, opened.path.len()));
        }
        let root = match &opened.root {
            Root::Pods => "pods".to_owned(),
            Root::Files { name } => name.clone(),
        };
        let key = FileKey { id: opened.id, generation: opened.generation };
        let file = Arc::new(LogFile { root, path: shown(&opened.path), key });
        match self.open.get(&opened.file) {
            Some(known) if known.key != key => {
                return Err(format!("file number {} was given to a second file", opened.file));
            }
            Some(known) => self.path_bytes -= known.path.len() + known.root.len(),
            None if self.open.len() >= FILES_MAX => return Err(format!("more than {FILES_MAX} open files")),
            None => {}
        }
        self.path_bytes += file.path.len() + file.root.len();
        if self.path_bytes > PATHS_BYTES_MAX {
            return Err("the paths of open files take more than 16 MiB".into());
        }
        self.open.insert(opened.file, file.clone());
        Ok(file)
    }

    pub(super) fn get(&self, number: u32) -> Result<Arc<LogFile>, String> {
        self.open.get(&number).cloned().ok_or_else(|| format!("file number {number} was not announced"))
    }

    pub(super) fn close(&mut self, number: u32) -> Result<Arc<LogFile>, String> {
        let file = self.open.remove(&number).ok_or_else(|| format!("file number {number} was not announced"))?;
        self.path_bytes -= file.path.len() + file.root.len();
        Ok(file)
    }
}

/// A path for people and labels.
fn shown(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for piece in path.utf8_chunks() {
        out.push_str(piece.valid());
        for byte in piece.invalid() {
            // Writing into a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod unit {
    use super::*;

    pub(crate) fn opened(file: u32, id: u8, path: &[u8]) -> Opened {
        Opened {
            file,
            root: Root::Pods,
            path: path.into(),
            id: [id; 16],
            generation: 0,
            device: 1,
            inode: 2,
            length: 0,
            position: 0,
            rotated: false,
        }
    }

    #[test]
    fn a_path_of_any_bytes_becomes_text_that_can_be_told_apart() {
        assert_eq!(shown(b"ns_pod_uid/app/0.log"), "ns_pod_uid/app/0.log");
        assert_eq!(shown(b"a\xff\xfeb"), "a\\xff\\xfeb");
    }

    #[test]
    fn a_number_means_one_file_until_it_is_closed() {
        let mut files = Files::default();
        assert!(files.get(3).is_err() && files.close(3).is_err());
        files.open(&opened(3, 1, b"a")).unwrap();
        assert_eq!(files.open(&opened(3, 1, b"a.1")).unwrap().path, "a.1", "a rotated file has a new name");
        assert!(files.open(&opened(3, 2, b"b")).is_err());
        files.close(3).unwrap();
        assert_eq!(files.path_bytes, 0);
        files.open(&opened(3, 2, b"b")).unwrap();
        assert!(files.open(&opened(4, 3, &[b'x'; 5000])).is_err());
    }

    #[test]
    fn paths_are_bounded_all_together() {
        let mut files = Files::default();
        let told = (0..10_000).find_map(|n| files.open(&opened(n, 1, &[0xff; 4096])).err());
        assert!(told.is_some_and(|t| t.contains("16 MiB")));
    }
}
