//! Reading a log with clean hands: a coroner's look, behind glass.
//!
//! [`Inspection`] opens a storage folder that nobody holds, [`LogView::live`] looks at a log that this process holds. Neither
//! writes a byte: no epoch is counted, no tail copied, no leftover removed; the disk they read through cannot write. What
//! recovery would make of the folder is asked of recovery itself; every record is then read and checked ([`Walk`]).
//! Segment by segment, so that memory does not grow with the backlog. The weakness: the lock is probed, not kept, so a
//! process that starts meanwhile may change the folder under the reader's eyes; [`Inspection::still_free`] tells.

mod verify;
mod walk;

pub use verify::{STRETCHES_MAX, SegmentCheck, Verified};
pub use walk::{Entry, Found, Placed, Unreadable, Walk};

use crate::disk::{Disk, DiskFile, RealDisk, RealFile};
use crate::folder::{self, Folder, FolderError};
use crate::log::{Log, lock};
use crate::origin::NodeId;
use crate::record::Epoch;
use crate::recover::{self, Image, Page, StateFound};
use crate::segment::{self, Understood};
use crate::state::{Cursor, DestinationId, OnRemove, Registered};
use crate::stats::Waiting;
use crate::wire::Take;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a folder cannot be looked at. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A process holds it: ask that one.
    #[error("storage folder {} is in use by process {}: ask that process, or stop it first", path.display(),
        holder_pid.map_or("(unknown)".to_string(), |p| p.to_string()))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// As written in the lock file.
        holder_pid: Option<u32>,
    },
    /// There is no such folder.
    #[error("there is no storage folder {}: check storage.path, or --storage", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The folder or a file in it cannot be read.
    #[error("{} cannot be read: {source}: run this as the user that runs the gateway", path.display())]
    Unreadable {
        /// The folder or the file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Who has a storage folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The lock is free.
    Nobody,
    /// The pid as written in the lock file.
    Process(Option<u32>),
}

/// Asks the lock and lets it go at once. A process that starts in that instant may be told that the folder is in use.
pub fn holder(path: &Path) -> Result<Holder, InspectError> {
    let name = path.join("lock");
    let file = match File::open(&name) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_dir() => return Ok(Holder::Nobody),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(InspectError::Missing { path: path.into() }),
        Err(source) => return Err(InspectError::Unreadable { path: name, source }),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(Holder::Nobody),
        Err((file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            Ok(Holder::Process(text.trim().parse().ok()))
        }
        Err((_, e)) => Err(InspectError::Unreadable { path: name, source: e.into() }),
    }
}

/// A storage folder that nobody holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The folder.
    pub path: PathBuf,
    /// Its identity; `None`: not there, or damaged (then a problem says so).
    pub node: Option<NodeId>,
    /// The last start.
    pub epoch: Option<Epoch>,
    /// What is wrong with files beside the logs, a sentence each.
    pub problems: Vec<String>,
    /// Names of the logs: signals first, quarantine last.
    pub logs: Vec<String>,
}

impl Inspection {
    /// Looks around. Errors: somebody holds the folder; it is missing; it cannot be read.
    pub fn open(path: &Path) -> Result<Inspection, InspectError> {
        match holder(path)? {
            Holder::Nobody => Inspection::look(path),
            Holder::Process(holder_pid) => Err(InspectError::InUse { path: path.into(), holder_pid }),
        }
    }

    /// Looks around in a folder that this process holds, for logs that it has not opened. For open ones: [`LogView::live`].
    pub fn held(folder: &Folder) -> Result<Inspection, InspectError> {
        Inspection::look(folder.path())
    }

    fn look(path: &Path) -> Result<Inspection, InspectError> {
        let mut seen =
            Inspection { path: path.into(), node: None, epoch: None, problems: Vec::new(), logs: Vec::new() };
        let mut note = |found: Result<Option<[u8; 16]>, FolderError>| match found {
            Ok(bytes) => bytes,
            Err(e) => {
                seen.problems.push(e.to_string());
                None
            }
        };
        let node = note(folder::load(path, "identity", folder::IDENTITY_MAGIC)).map(NodeId);
        let epoch = note(folder::load(path, "epoch", folder::EPOCH_MAGIC)).and_then(|b| {
            let mut t = Take(&b);
            Some(Epoch { counter: t.u64()?, random: t.u64()? })
        });
        (seen.node, seen.epoch) = (node, epoch);
        seen.logs = logs_in(path).map_err(|source| InspectError::Unreadable { path: path.into(), source })?;
        Ok(seen)
    }

    /// Whether still nobody holds the folder.
    pub fn still_free(&self) -> Result<(), InspectError> {
        match holder(&self.path)? {
            Holder::Nobody => Ok(()),
            Holder::Process(holder_pid) => Err(InspectError::InUse { path: self.path.clone(), holder_pid }),
        }
    }

    /// One of [`Inspection::logs`]: cover pages and the last segment are read now, the rest by [`LogView::walk`].
    pub fn log(&self, name: &str) -> Result<LogView, InspectError> {
        let path = self.path.join(name);
        let disk = Arc::new(ReadOnlyDisk { path: path.clone() });
        LogView::of_folder(name, disk).map_err(|source| InspectError::Unreadable { path, source })
    }
}

/// Sub-folders that hold segments.
fn logs_in(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let holds = ReadOnlyDisk { path: entry.path() }.list()?.iter().any(|file| segment::number(file).is_some());
        if holds {
            names.push(name);
        }
    }
    const ORDER: [&str; 4] = ["logs", "traces", "metrics", "profiles"];
    let place = |name: &String| match ORDER.iter().position(|known| known == name) {
        Some(i) => i,
        None => ORDER.len() + usize::from(name == crate::space::QUARANTINE),
    };
    names.sort_by(|a, b| place(a).cmp(&place(b)).then(a.cmp(b)));
    Ok(names)
}

/// A folder whose files are opened for reading only; everything else is refused.
struct ReadOnlyDisk {
    path: PathBuf,
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this is an inspection: nothing is written")
}

impl Disk for ReadOnlyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        RealDisk { path: self.path.clone() }.list()
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(refused())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile { file: File::open(self.path.join(name))? }))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(refused())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(refused())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Err(refused())
    }
}

/// In what condition a cover page was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoverPage {
    /// Every byte as written.
    Whole,
    /// Unreadable; a sync marker inside the file still told how to read the rest.
    Lost,
    /// Unreadable, and no marker either: nothing of the segment can be read.
    Unknown,
    /// Written by a later version that forbids reading.
    Later,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Name below the log's folder.
    pub file: String,
    /// Of the file.
    pub bytes: u64,
    /// Where it ends for readers; what lies beyond was left by a failed write and is never read.
    pub end: u64,
    /// Below it everything was synced, as far as the file or its successors say.
    pub synced: u64,
    /// Its cover page.
    pub cover: CoverPage,
    /// The start that began it.
    pub epoch: Option<Epoch>,
    /// Whose it is.
    pub node: Option<NodeId>,
    /// The first frame has at least this number.
    pub first_seq: u64,
    /// When it was begun, unix nanoseconds.
    pub first_time: u64,
    /// Records before it, of all frames ever appended.
    pub items_before: u64,
}

/// A registered destination, as the disk knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationView {
    /// "kind/name".
    pub id: DestinationId,
    /// Unix nanoseconds.
    pub registered_at: u64,
    /// What becomes of its backlog when it leaves the configuration.
    pub on_remove: OnRemove,
    /// How far it is.
    pub cursor: Cursor,
    /// What waits for it.
    pub waiting: Waiting,
}

/// A log, to be looked at.
pub struct LogView {
    /// Its name.
    pub name: String,
    /// In what condition the state was found.
    pub state: StateFound,
    /// The number that the next frame would get.
    pub next_seq: u64,
    /// Records of all frames ever appended, and their payload bytes.
    pub items: u64,
    /// See `items`.
    pub payload_bytes: u64,
    /// Files that a power cut brought back after they were deleted; never read, removed by the next start.
    pub ghosts: Vec<String>,
    /// Why nothing is accepted, now or at the next start.
    pub frozen: Option<String>,
    disk: Arc<dyn Disk>,
    spans: Vec<Span>,
    registered: Vec<Registered>,
}

/// What is to be read of a segment.
struct Span {
    n: u64,
    nonce: Option<u64>,
    data_at: u64,
    /// Behind the last seq it may hold.
    upper: u64,
    info: SegmentInfo,
}

impl LogView {
    fn of_folder(name: &str, disk: Arc<dyn Disk>) -> io::Result<LogView> {
        // The leftover that recovery would remove stays: this disk removes nothing.
        let image = recover::run(&*disk)?;
        let mut ends = BTreeMap::new();
        let mut spans = Vec::new();
        let mut pages = Vec::new();
        for s in &image.segments {
            pages.push(recover::open_page(&*disk, s.n, &mut ends)?);
        }
        for (page, s) in pages.iter().zip(&image.segments) {
            let stated = ends.get(&page.n).copied();
            let end = stated.unwrap_or(page.bytes);
            let synced = if stated.is_some() { end } else { s.end.min(end) };
            spans.push(Span::new(page, s, end, synced));
        }
        let Image { state, report, ghosts, frozen, .. } = image;
        Ok(LogView {
            name: name.into(),
            state: report.state,
            next_seq: state.next_seq,
            items: state.items,
            payload_bytes: state.bytes,
            ghosts: ghosts.into_iter().map(segment::name).collect(),
            frozen,
            disk,
            spans,
            registered: state.destinations.into_values().collect(),
        })
    }

    /// A log that this process holds, as far as it is synced now. What is deleted meanwhile is passed over.
    pub fn live(log: &Log) -> io::Result<LogView> {
        let inner = &*log.0;
        let registered = lock(&inner.registry).by_uid.values().cloned().collect();
        let (segments, totals, closed) = {
            let shown = lock(&inner.shown);
            (shown.segments.clone(), shown.totals, shown.closed.clone())
        };
        let (mut spans, mut ends) = (Vec::new(), BTreeMap::new());
        for s in &segments {
            match recover::open_page(&*inner.disk, s.n, &mut ends) {
                Ok(page) => spans.push(Span::new(&page, s, s.end, s.end)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(LogView {
            name: inner.name.clone(),
            state: StateFound::Whole,
            next_seq: totals.next_seq,
            items: totals.items,
            payload_bytes: totals.bytes,
            ghosts: Vec::new(),
            frozen: closed,
            disk: inner.disk.clone(),
            spans,
            registered,
        })
    }

    /// Its segment files, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentInfo> {
        self.spans.iter().map(|s| &s.info)
    }

    /// Everybody who is registered. Reads one frame a destination, for the age of what waits.
    pub fn destinations(&self) -> Vec<DestinationView> {
        let view = |r: &Registered| DestinationView {
            id: r.id(),
            registered_at: r.registered_at,
            on_remove: r.on_remove,
            cursor: r.cursor,
            waiting: self.waiting(&r.cursor),
        };
        self.registered.iter().map(view).collect()
    }

    fn waiting(&self, cursor: &Cursor) -> Waiting {
        if cursor.seq >= self.next_seq {
            return Waiting::default();
        }
        let (items, bytes) = (self.items.saturating_sub(cursor.items), self.payload_bytes.saturating_sub(cursor.bytes));
        let frame = |found| match found {
            Found::Record(Placed { entry: Entry::Frame(frame), .. }) => Some(frame.appended_at),
            _ => None,
        };
        let oldest_appended_at = (items > 0 || bytes > 0).then(|| self.walk(cursor.seq).find_map(frame)).flatten();
        Waiting { items, bytes, oldest_appended_at }
    }

    /// Every record from the segment on that holds frame `from` (0: all); frames below `from` are left out.
    pub fn walk(&self, from: u64) -> Walk<'_> {
        Walk::new(self, from)
    }
}

impl Span {
    fn new(page: &Page, s: &recover::Segment, end: u64, synced: u64) -> Span {
        let cover = match (&page.header, page.nonce) {
            (Some(h), _) if h.understood() == Understood::Not => CoverPage::Later,
            (Some(_), _) => CoverPage::Whole,
            (None, Some(_)) => CoverPage::Lost,
            (None, None) => CoverPage::Unknown,
        };
        let info = SegmentInfo {
            file: segment::name(page.n),
            bytes: page.bytes,
            end,
            synced,
            cover,
            epoch: page.header.as_ref().map(|h| h.epoch),
            node: page.header.as_ref().map(|h| h.node),
            first_seq: s.first_seq,
            first_time: s.first_time,
            items_before: s.items_before,
        };
        Span { n: page.n, nonce: page.nonce, data_at: page.data_at, upper: s.upper, info }
    }
}

impl Default for SegmentInfo {
    fn default() -> SegmentInfo {
        SegmentInfo {
            file: String::new(),
            bytes: 0,
            end: 0,
            synced: 0,
            cover: CoverPage::Unknown,
            epoch: None,
            node: None,
            first_seq: 0,
            first_time: 0,
            items_before: 0,
        }
    }
}
