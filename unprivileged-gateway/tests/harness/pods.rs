//! A kubelet and its container runtime, as far as a log reader can tell: numbered CRI lines in `<root>/<ns>_<pod>_<uid>/<name>/N.log`.
//!
//! A state machine a container, driven by one thread: write a few lines (some cut into partials), now and then rename `N.log` to
//! `N.log.<stamp>` and go on in a new file (sometimes twice at once), now and then restart as `N+1.log`. Nothing is deleted, so
//! whatever is missing at the end is the reader's fault. Weakness: compression of old files is not played.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two looks of the thread at its containers.
const BEAT: Duration = Duration::from_millis(10);
/// Lines between two renames, of a container.
const ROTATE_EVERY: u64 = 700;
/// Lines between two restarts, of a container.
const RESTART_EVERY: u64 = 2_600;

/// One container: where it writes, and how far it is.
struct Container {
    folder: PathBuf,
    sender: u32,
    seq: u64,
    restarts: u32,
    rotations: u64,
    file: File,
}

impl Container {
    fn new(root: &Path, sender: u32) -> Container {
        let folder = root.join(format!("shop_cart-{sender}_6f2c7d1e-0000-4000-8000-{sender:012x}/web"));
        fs::create_dir_all(&folder).expect("a container's folder");
        let file = File::create(folder.join("0.log")).expect("0.log");
        Container { folder, sender, seq: 0, restarts: 0, rotations: 0, file }
    }

    fn write(&mut self, lines: u64) {
        let mut text = String::new();
        for _ in 0..lines {
            let (stream, id) = (["stdout", "stderr"][usize::from(self.seq.is_multiple_of(7))], self.seq);
            let mark = format!("bh:{:08x}:{id:012x} item {id} was put into the cart", self.sender);
            if id.is_multiple_of(13) {
                let (head, tail) = mark.split_at(30);
                let _ = writeln!(text, "{} {stream} P {head}", stamp());
                let _ = writeln!(text, "{} {stream} F {tail}", stamp());
            } else {
                let _ = writeln!(text, "{} {stream} F {mark}", stamp());
            }
            self.seq += 1;
        }
        self.file.write_all(text.as_bytes()).expect("a disk with room");
        if self.seq % RESTART_EVERY < lines {
            self.restarts += 1;
            self.file = File::create(self.current()).expect("the next container's file");
        } else if self.seq % ROTATE_EVERY < lines {
            // Every third time twice between two looks of any reader.
            for _ in 0..if self.rotations.is_multiple_of(3) { 2 } else { 1 } {
                self.rotate();
            }
        }
    }

    fn current(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.restarts))
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let old = self.folder.join(format!("{}.log.20261125-{:06}", self.restarts, self.rotations));
        fs::rename(self.current(), old).expect("a rename within a folder");
        self.file = File::create(self.current()).expect("a new file under the old name");
        let id = self.seq;
        let line = format!("{} stdout F bh:{:08x}:{id:012x} first of the next file\n", stamp(), self.sender);
        self.file.write_all(line.as_bytes()).expect("a disk with room");
        self.seq += 1;
    }
}

/// RFC 3339 with nanoseconds, UTC.
fn stamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    // Civil date from days since 1970-01-01: the usual arithmetic with eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (d, m) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let y = year + era * 400 + u64::from(m <= 2);
    let (h, min, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{:09}Z", now.subsec_nanos())
}

/// Containers that write until they are told to stop.
pub struct Pods {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(u32, u64)>>>,
}

impl Pods {
    /// `senders`: one container each; together about `rate` lines a second.
    pub fn start(root: &Path, senders: std::ops::Range<u32>, rate: u64) -> Pods {
        let stop = Arc::new(AtomicBool::new(false));
        let mut containers: Vec<Container> = senders.map(|s| Container::new(root, s)).collect();
        let a_beat = (rate * BEAT.as_millis() as u64 / 1_000 / containers.len() as u64).max(1);
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Relaxed) {
                    containers.iter_mut().for_each(|c| c.write(a_beat));
                    std::thread::sleep(BEAT);
                }
                containers.iter().map(|c| (c.sender, c.seq)).collect()
            }
        });
        Pods { stop, thread: Some(thread) }
    }

    /// Ends the writing; gives sender and number of lines of each container.
    pub fn stop(mut self) -> Vec<(u32, u64)> {
        self.stop.store(true, Relaxed);
        self.thread.take().expect("stopped once").join().expect("the containers wrote")
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
