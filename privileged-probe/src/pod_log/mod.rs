//! Log bytes: from files that anybody may write to, to the door, and nothing in between that reads what they say.
//!
//! A postal van that empties letter boxes: it knows where the boxes hang, takes what lies in them, and opens no letter. The
//! boxes are found by walking ([`find`]), heard with inotify and looked at once a second whether anything was heard or not
//! ([`watch`]); they are opened beneath their root only ([`beneath`]), known again by what they are rather than what they are
//! called ([`identity`]), read in turn ([`book`]), and ticked off when the other side has them on a disk ([`positions`]).
//!
//! Lines are cut here by their last newline and nothing else; records, partial lines and names are the gateway's (ADR 0003).
//! The weakness: what was rotated *and* compressed before it was read stays unread for now; it is counted (`gz_unread`).

mod beneath;
mod book;
mod find;
mod glob;
mod identity;
mod names;
mod positions;
mod tracked;
mod watch;

use crate::outbox::Outbox;
use book::Book;
use find::Place;
use glob::Glob;
use ipc::{Closed, Count, Opened, Status};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use positions::Positions;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use watch::{Heard, Watch};

/// Where a container runtime writes; the default root.
pub const PODS_ROOT: &str = "/var/log/pods";
/// A walk over all directories, heard or not. Unit: milliseconds.
const WALK_EVERY_MS: u64 = 5_000;
/// After something was heard of names, a walk follows within this time, and not more often. Unit: milliseconds.
const WALK_PACE_MS: u64 = 100;
/// A look at every open file, heard or not. Unit: milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;
/// After something was heard of bytes. A pace rather than at once: ten lines in one chunk cost as much as one. Unit: milliseconds.
const LOOK_PACE_MS: u64 = 50;
/// Positions are written at most this often, and at the latest so long after they changed. Unit: milliseconds.
const SAVE_EVERY_MS: u64 = 1_000;
/// Descriptors that the rest of the process needs.
const OTHER_FILES: u64 = 512;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--log-root`, as often as given. Empty: [`PODS_ROOT`], if it is there.
    pub roots: Vec<PathBuf>,
    /// `--files NAME=GLOB`, as often as given.
    pub files: Vec<(String, String)>,
    /// Where positions are kept.
    pub state: PathBuf,
}

/// Why log files are not read at all.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// A pattern is no pattern, a name no name.
    #[error("--files {name}: {why}")]
    Files {
        /// As given.
        name: String,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// Nothing to read was given and the default is not there.
    #[error("no log files: {PODS_ROOT} is not there; name some with --log-root DIR or --files NAME=GLOB")]
    Nothing,
}

/// What this module needs of whoever carries things away; [`Outbox`] is it.
pub trait Door {
    /// A file is known; its bytes follow.
    fn opened(&self, opened: Opened);
    /// No more of it.
    fn closed(&self, closed: Closed);
    /// Bytes from an offset on. False: stopping.
    fn log_bytes(&self, file: u32, offset: u64, bytes: Vec<u8>) -> bool;
    /// File numbers and ends of what has become safe since the last call.
    fn take_durable(&self) -> Vec<(u32, u64)>;
    /// Readable when something became safe.
    fn durable_fd(&self) -> BorrowedFd<'_>;
    /// Whether to end.
    fn stopping(&self) -> bool;
    /// Readable once stopping.
    fn stop_fd(&self) -> BorrowedFd<'_>;
    /// Changes the numbers that are shown.
    fn status(&self, change: &mut dyn FnMut(&mut Status));
}

impl Door for Outbox {
    fn opened(&self, opened: Opened) {
        Outbox::opened(self, opened);
    }
    fn closed(&self, closed: Closed) {
        Outbox::closed(self, closed);
    }
    fn log_bytes(&self, file: u32, offset: u64, bytes: Vec<u8>) -> bool {
        Outbox::log_bytes(self, file, offset, bytes)
    }
    fn take_durable(&self) -> Vec<(u32, u64)> {
        Outbox::take_durable(self)
    }
    fn durable_fd(&self) -> BorrowedFd<'_> {
        Outbox::durable_fd(self)
    }
    fn stopping(&self) -> bool {
        Outbox::stopping(self)
    }
    fn stop_fd(&self) -> BorrowedFd<'_> {
        Outbox::stop_fd(self)
    }
    fn status(&self, change: &mut dyn FnMut(&mut Status)) {
        Outbox::status(self, change);
    }
}

/// Two clocks, read once a round.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Milliseconds since this process cares.
    mono: u64,
    /// Unix nanoseconds.
    wall: i128,
}

impl Now {
    fn wall_s(self) -> u64 {
        u64::try_from(self.wall / 1_000_000_000).unwrap_or(0)
    }
}

/// The log files of this machine.
pub struct Logs {
    book: Book,
    watch: Watch,
    started: Instant,
}

impl Logs {
    /// Opens roots and positions; to be called while the rights to do so are held. A root that is not there is waited for.
    pub fn open(options: &Options) -> Result<Logs, LogsError> {
        let mut places: Vec<Place> = options.roots.iter().map(|root| Place::pods(root)).collect();
        if places.is_empty() && std::path::Path::new(PODS_ROOT).is_dir() {
            places.push(Place::pods(PODS_ROOT.as_ref()));
        }
        for (name, pattern) in &options.files {
            let bad = |why: String| LogsError::Files { name: name.clone(), why };
            if name.is_empty() || name == "pods" || name.len() > NAME_BYTES_MAX {
                return Err(bad(format!("a name has 1 to {NAME_BYTES_MAX} characters and is not \"pods\"")));
            }
            places.push(Place::files(name, Glob::parse(pattern).map_err(bad)?));
        }
        if places.is_empty() {
            return Err(LogsError::Nothing);
        }
        for place in &mut places {
            if let Err(e) = place.open() {
                tracing::warn!(root = %place.path().display(), error = %e, "a log root cannot be opened; waiting for it");
            }
        }
        let (positions, told) = Positions::load(&options.state, wall_ns_now_s());
        if let Some(told) = told {
            tracing::warn!("{told}");
        }
        Ok(Logs { book: Book::new(places, positions, files_max()), watch: Watch::new(), started: Instant::now() })
    }

    /// Reads until the door says stop. Whatever was not made safe is read again by the next start.
    pub fn run(mut self, door: &impl Door) {
        let mut pace = Pace::default();
        let mut heard = Heard { names: true, bytes: true };
        while !door.stopping() {
            let now = self.now();
            let more = heard;
            let news = self.watch.heard();
            heard = Heard { names: more.names || news.names, bytes: more.bytes || news.bytes };
            let busy = self.round(door, now, &mut heard, &mut pace);
            self.wait(door, heard, busy);
        }
        self.book.durable(door);
        if let Err(e) = self.book.positions.save() {
            tracing::error!(error = %e, "positions cannot be written; the last second is read again by the next start");
        }
    }

    /// One round. True: there is more to do at once.
    fn round(&mut self, door: &impl Door, now: Now, heard: &mut Heard, pace: &mut Pace) -> bool {
        self.book.durable(door);
        let mut look = pace.look.due(now, LOOK_EVERY_MS) || heard.bytes && pace.look.due(now, LOOK_PACE_MS);
        if pace.walk.due(now, WALK_EVERY_MS) || heard.names && pace.walk.due(now, WALK_PACE_MS) {
            heard.names = false;
            pace.walk.done(now);
            for place in &mut self.book.places {
                // One that is still missing is tried again at the next walk.
                let _ = place.open();
            }
            let mut census = find::census(&self.book.places);
            self.watch.set(&self.book.places, &std::mem::take(&mut census.dirs));
            self.book.take(census, door, now);
            heard.names |= self.book.wants_walk();
            look = true;
        }
        if look {
            heard.bytes = false;
            pace.look.done(now);
            self.book.look(door, now);
        }
        let mut busy = self.book.send(door, now);
        busy |= self.book.finish(door, now);
        if self.book.positions.is_dirty() && pace.save.due(now, SAVE_EVERY_MS) {
            pace.save.done(now);
            if let Err(e) = self.book.positions.save() {
                tracing::error!(error = %e, "positions cannot be written; files are read again from the last ones after a restart");
            }
        }
        if pace.status.due(now, LOOK_EVERY_MS) {
            pace.status.done(now);
            self.status(door);
        }
        busy
    }

    fn status(&self, door: &impl Door) {
        let counts = |counts: &book::Counts| -> Vec<Count> {
            counts.iter().map(|(name, value)| Count { name: (*name).to_owned(), value: *value }).collect()
        };
        let (book, refused) = (&self.book, self.watch.refused);
        door.status(&mut |status| {
            status.log.read = book.read;
            status.log.files_open = book.files_open() as u64;
            status.log.files_known = book.positions.len() as u64;
            // The profiler keeps its own in the same list.
            status.files_refused.retain(|c| c.name.starts_with("executable_"));
            status.files_refused.extend(counts(&book.refused));
            status.log_dropped = counts(&book.dropped);
            if refused > 0 {
                status.log_dropped.push(Count { name: "watches_refused".to_owned(), value: refused });
            }
        });
    }

    /// Sleeps until something is heard, became safe, or is due.
    fn wait(&self, door: &impl Door, heard: Heard, busy: bool) {
        let mut fds = vec![PollFd::new(door.stop_fd(), PollFlags::POLLIN)];
        if self.book.in_flight() > 0 {
            fds.push(PollFd::new(door.durable_fd(), PollFlags::POLLIN));
        }
        let pending = heard.names || heard.bytes;
        if let Some(fd) = self.watch.fd().filter(|_| !pending) {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let ms = match (busy, pending) {
            (true, _) => 0,
            (false, true) => LOOK_PACE_MS,
            (false, false) => LOOK_EVERY_MS,
        };
        let timeout = PollTimeout::try_from(Duration::from_millis(ms)).unwrap_or(PollTimeout::ZERO);
        // An interruption is a reason to look around as good as any.
        let _ = poll(&mut fds, timeout);
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Monotonic time begins above zero, so that "never" is not "just now".
        Now { mono: mono + WALK_EVERY_MS, wall: wall_ns() }
    }
}

/// Longest name of a set of plain files. Unit: bytes.
const NAME_BYTES_MAX: usize = 63;

/// When things were last done.
#[derive(Default)]
struct Pace {
    walk: Last,
    look: Last,
    save: Last,
    status: Last,
}

/// Monotonic milliseconds.
#[derive(Default)]
struct Last(u64);

impl Last {
    fn due(&self, now: Now, every: u64) -> bool {
        now.mono.saturating_sub(self.0) >= every
    }

    fn done(&mut self, now: Now) {
        self.0 = now.mono;
    }
}

fn wall_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128)
}

fn wall_ns_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Files that may be held open: as many as the system lets us, up to our own limit.
fn files_max() -> usize {
    let wanted = book::FILES_MAX as u64 + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return book::FILES_MAX };
    let limit = soft.max(wanted.min(hard));
    if limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_err() {
        return soft.saturating_sub(OTHER_FILES) as usize;
    }
    limit.saturating_sub(OTHER_FILES) as usize
}

/// System calls that reading log files needs once everything is open, and what for.
pub const SYSCALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_openat2, "log files and folders, beneath their roots only"),
    (libc::SYS_openat, "the positions file and its folder; a log root that appears later"),
    (libc::SYS_getdents64, "names in log folders"),
    (libc::SYS_lseek, "the C library's directory streams"),
    (libc::SYS_fcntl, "the C library's directory streams"),
    (libc::SYS_fstat, "what was opened"),
    (libc::SYS_newfstatat, "what was opened, in newer C libraries"),
    (libc::SYS_statx, "size, link count and birth time of a log file"),
    (libc::SYS_pread64, "bytes of log files"),
    (libc::SYS_read, "inotify and event descriptors"),
    (libc::SYS_write, "the positions file, event descriptors"),
    (libc::SYS_fsync, "the positions file and its folder"),
    (libc::SYS_rename, "the positions file into its place"),
    (libc::SYS_close, "descriptors"),
    (libc::SYS_inotify_add_watch, "folders that appeared"),
    (libc::SYS_inotify_rm_watch, "folders that went"),
    (libc::SYS_poll, "waiting"),
    (libc::SYS_ppoll, "waiting, in newer C libraries"),
    (libc::SYS_futex, "locks"),
    (libc::SYS_clock_gettime, "time, where the kernel gives it no faster way"),
    (libc::SYS_mmap, "memory for chunks"),
    (libc::SYS_munmap, "memory for chunks"),
    (libc::SYS_mremap, "memory for chunks"),
    (libc::SYS_madvise, "memory given back"),
    (libc::SYS_brk, "memory"),
];

/// For tests of races: opens one path beneath a root `times` times as the reader does; how often a file was opened, and how
/// often it was refused. Panics if what was opened is not the honest one.
#[doc(hidden)]
pub fn race(root: &std::path::Path, path: &[u8], times: u32) -> (u32, u32) {
    let Ok(root) = beneath::Root::open(root) else { return (0, 0) };
    let (mut opened, mut refused) = (0, 0);
    for i in 0..times {
        // Half of them without the first look: what was swapped in after it.
        let attempt = if i % 2 == 0 { root.open_file(path, true) } else { root.open_unseen(path, true) };
        match attempt {
            beneath::Attempt::Open(file, _) => {
                let mut text = String::new();
                let read = std::io::Read::read_to_string(&mut &file, &mut text);
                assert!(read.is_ok() && (text.is_empty() || text == "honest\n"), "{text:?}");
                opened += 1;
            }
            beneath::Attempt::Refused(_) => refused += 1,
            beneath::Attempt::Gone => {}
        }
    }
    (opened, refused)
}
