//! A gateway that lives in the test: it keeps what it is given by file, trims what it holds, and says so when told to.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]

use ipc::{Closed, Opened, Root, Status};
use nix::sys::eventfd::{EfdFlags, EventFd};
use probe::pod_log::{Door, Logs, Options};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One generation of one file.
pub type Key = ([u8; 16], u32);

/// What came, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Opened(Opened),
    Bytes { key: Key, offset: u64, bytes: Vec<u8> },
    Closed { key: Key, end: u64, reason: String },
}

#[derive(Default)]
pub struct Held {
    /// New bytes only; what was held already is trimmed.
    pub events: Vec<Event>,
    pub open: BTreeMap<u32, Opened>,
    /// All bytes of a stream, which must come without a gap.
    pub streams: BTreeMap<Key, Vec<u8>>,
    pub trimmed: u64,
    pub status: Status,
    durable: Vec<(u32, u64)>,
    waiting: Vec<(u32, u64)>,
    numbers: BTreeMap<u32, Key>,
}

/// The gateway. Cloning shares.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    held: Mutex<Held>,
    changed: Condvar,
    durable: EventFd,
    stop: EventFd,
    stopping: AtomicBool,
    /// Receipts are given at once.
    prompt: AtomicBool,
}

impl Desk {
    pub fn new() -> Desk {
        let event = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).expect("an event");
        Desk(Arc::new(Inner {
            held: Mutex::default(),
            changed: Condvar::new(),
            durable: event(),
            stop: event(),
            stopping: AtomicBool::new(false),
            prompt: AtomicBool::new(true),
        }))
    }

    /// The same gateway for the next start of the probe: what it holds stays, numbers begin anew.
    pub fn reconnect(&self) -> Desk {
        let next = Desk::new();
        {
            let (mut new, old) = (next.0.held.lock().unwrap(), self.0.held.lock().unwrap());
            new.events = old.events.clone();
            new.streams = old.streams.clone();
            new.trimmed = old.trimmed;
        }
        next
    }

    /// Receipts only when [`Desk::sign`] is called.
    pub fn slow(self) -> Desk {
        self.0.prompt.store(false, Ordering::SeqCst);
        self
    }

    /// Signs for everything that came.
    pub fn sign(&self) {
        let mut held = self.0.held.lock().unwrap();
        let waiting = std::mem::take(&mut held.waiting);
        held.durable.extend(waiting);
        drop(held);
        let _ = self.0.durable.write(1);
    }

    pub fn with<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.0.held.lock().unwrap())
    }

    /// Waits until `holds`; panics with what there is when it never does.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Held) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut held = self.0.held.lock().unwrap();
        while !holds(&held) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what}: not after {PATIENCE:?}; last events: {:?}; status {:?}",
                held.events.iter().rev().take(4).collect::<Vec<_>>(),
                held.status
            );
            held = self.0.changed.wait_timeout(held, left).unwrap().0;
        }
    }

    /// Text of all streams of a path, in the order in which they came.
    pub fn text(&self, path: &str) -> String {
        self.with(|held| {
            let of = |key: &Key| held.path_of(key) == path.as_bytes();
            let bytes = held.events.iter().filter_map(|e| match e {
                Event::Bytes { key, bytes, .. } if of(key) => Some(&bytes[..]),
                _ => None,
            });
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
        })
    }

    pub fn until_text(&self, path: &str, text: &str) {
        let all = || self.text(path);
        let end = Instant::now() + PATIENCE;
        while all() != text {
            assert!(Instant::now() < end, "{path}: {:?} instead of {text:?}", all());
            let held = self.0.held.lock().unwrap();
            drop(self.0.changed.wait_timeout(held, Duration::from_millis(100)).unwrap());
        }
    }

    pub fn refused(&self, reason: &str) -> u64 {
        let of = |counts: &[ipc::Count]| counts.iter().find(|c| c.name == reason).map_or(0, |c| c.value);
        self.with(|held| of(&held.status.files_refused))
    }

    pub fn until_refused(&self, reason: &str, count: u64) {
        self.until(reason, |held| held.status.files_refused.iter().any(|c| c.name == reason && c.value == count));
    }

    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        let _ = self.0.stop.write(1);
    }
}

impl Held {
    /// The first name under which a stream was announced.
    pub fn path_of(&self, key: &Key) -> Vec<u8> {
        let opened = self.events.iter().find_map(|e| match e {
            Event::Opened(o) if (o.id, o.generation) == *key => Some(o.path.clone()),
            _ => None,
        });
        opened.unwrap_or_default()
    }

    pub fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.events.iter().filter_map(|e| match e {
            Event::Opened(o) => Some(o),
            _ => None,
        })
    }

    pub fn closed(&self) -> Vec<(String, String)> {
        let of = |e: &Event| match e {
            Event::Closed { key, reason, .. } => {
                Some((String::from_utf8_lossy(&self.path_of(key)).into_owned(), reason.clone()))
            }
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
}

impl Door for Desk {
    fn opened(&self, opened: Opened) {
        let mut held = self.0.held.lock().unwrap();
        let key = (opened.id, opened.generation);
        assert!(held.numbers.insert(opened.file, key).is_none(), "number {} is used twice", opened.file);
        let have = held.streams.entry(key).or_default().len() as u64;
        assert!(opened.position <= have, "reading begins beyond what is safe: {opened:?}, held {have}");
        held.open.insert(opened.file, opened.clone());
        held.events.push(Event::Opened(opened));
        self.0.changed.notify_all();
    }

    fn closed(&self, closed: Closed) {
        let mut held = self.0.held.lock().unwrap();
        assert!(held.open.remove(&closed.file).is_some(), "{closed:?} was not open");
        let key = held.numbers[&closed.file];
        held.events.push(Event::Closed { key, end: closed.end, reason: closed.reason });
        self.0.changed.notify_all();
    }

    fn log_bytes(&self, file: u32, offset: u64, bytes: Vec<u8>) -> bool {
        if self.0.stopping.load(Ordering::SeqCst) {
            return false;
        }
        let mut held = self.0.held.lock().unwrap();
        assert!(held.open.contains_key(&file), "bytes of a file that is not open");
        assert!(!bytes.is_empty() && bytes.len() <= 1 << 20, "{} bytes", bytes.len());
        let key = held.numbers[&file];
        let end = offset + bytes.len() as u64;
        let stream = held.streams.get_mut(&key).expect("announced");
        let have = stream.len() as u64;
        assert!(offset <= have, "a gap: {have} held, {offset} comes");
        let known = usize::try_from((have - offset).min(bytes.len() as u64)).unwrap();
        assert!(stream[offset as usize..][..known] == bytes[..known], "other bytes under the same numbers");
        stream.extend_from_slice(&bytes[known..]);
        held.trimmed += known as u64;
        if known < bytes.len() {
            held.events.push(Event::Bytes { key, offset: have, bytes: bytes[known..].to_vec() });
        }
        held.waiting.push((file, end));
        drop(held);
        self.0.changed.notify_all();
        if self.0.prompt.load(Ordering::SeqCst) {
            self.sign();
        }
        true
    }

    fn take_durable(&self) -> Vec<(u32, u64)> {
        let _ = self.0.durable.read();
        std::mem::take(&mut self.0.held.lock().unwrap().durable)
    }

    fn durable_fd(&self) -> BorrowedFd<'_> {
        self.0.durable.as_fd()
    }

    fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    fn stop_fd(&self) -> BorrowedFd<'_> {
        self.0.stop.as_fd()
    }

    fn status(&self, change: &mut dyn FnMut(&mut Status)) {
        change(&mut self.0.held.lock().unwrap().status);
        self.0.changed.notify_all();
    }
}

/// A probe's log part on a thread.
pub struct Reader {
    pub desk: Desk,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn start(desk: &Desk, options: &Options) -> Reader {
        let (logs, door) = (Logs::open(options).expect("roots"), desk.clone());
        let thread = std::thread::spawn(move || logs.run(&door));
        Reader { desk: desk.clone(), thread: Some(thread) }
    }

    /// Ends it as a stop does; panics if it panicked.
    pub fn stop(mut self) {
        self.desk.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader's own assertions hold");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.desk.stop();
    }
}

pub const POD: &str = "shop_cart_0d1c2b3a-0000-4000-8000-00000000abcd";

/// A folder with a pods' root, plain files and a state folder.
pub struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Node {
        let node = Node { folder: tempfile::tempdir().expect("a folder") };
        for name in ["pods", "plain", "state"] {
            std::fs::create_dir(node.path(name)).expect("a folder");
        }
        std::fs::create_dir_all(node.container()).expect("a container");
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn container(&self) -> PathBuf {
        self.path("pods").join(POD).join("web")
    }

    /// As the probe names it.
    pub fn shown(&self, file: &str) -> String {
        format!("{POD}/web/{file}")
    }

    pub fn options(&self) -> Options {
        Options {
            roots: vec![self.path("pods")],
            files: vec![("sys".into(), format!("{}/*.log", self.path("plain").display()))],
            state: self.path("state"),
        }
    }
}

/// Appends to a file as a writer does that opened it once.
pub fn append(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

pub fn root_name(root: &Root) -> &str {
    match root {
        Root::Pods => "pods",
        Root::Files { name } => name,
    }
}
