//! The thread that finds out what a sampled process executes.
//!
//! Like a librarian on call: somebody was seen with an unknown book; the librarian looks which, fetches it, has its contents listed
//! (by a parser, never by reading it here), and writes the shelf numbers where the kernel's walker finds them. Who runs the same
//! program as before is not asked again at once: the pause doubles from 100 ms to 10 s as long as nothing new is found. Every 5 s those who left are struck
//! off. The weakness: the first samples of a process are taken before the librarian is done.

use super::cgroup::{self, Home};
use super::files::Card;
use super::maps::{self, Mapped};
use super::open::{Key, Opener};
use super::rows::Table;
use super::shared::{Part, Program, Shared, Wish};
use super::vdso;
use super::window::Who;
use crate::nursery::{Desk, Loss, Nursery};
use crate::outbox::Outbox;
use crate::parser::{Answer, Layout, Question};
use aya::maps::{HashMap as BpfHash, MapData};
use ebpf_abi::{MAPPINGS_MAX, Mapping, PROCESS_BYTES, process_bytes};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause before the same program is looked at a second time; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often those who left are struck off.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the thread sleeps without a wish.
const SLEEP: Duration = Duration::from_millis(500);
/// How long answers are waited for, between two looks at the wish list.
const ANSWER_LOOK: Duration = Duration::from_millis(20);
/// Most files known at one time.
const CARDS_MAX: usize = 4096;

/// The process map, as bytes.
pub(super) type Processes = BpfHash<MapData, u32, [u8; PROCESS_BYTES]>;

struct Live {
    who: Who,
    next: Instant,
    pause: Duration,
}

/// A process that waits until its files are known.
struct Pending {
    who: Who,
    cgroup: u64,
    home: Home,
    files: Vec<(Mapped, Option<Key>)>,
}

/// A file nobody has asked about before.
struct Unknown {
    file: File,
    /// As its first process sees it.
    path: String,
    asked: bool,
}

struct Shelf {
    card: Arc<Card>,
    used: Instant,
}

/// Everything the thread owns.
pub(super) struct Scan {
    pub(super) processes: Processes,
    pub(super) table: Table,
    pub(super) tables: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) nursery: Arc<Nursery>,
    pub(super) files_open_max: usize,
    live: HashMap<u32, Live>,
    cards: HashMap<Key, Shelf>,
    pending: Vec<Pending>,
    /// Files that wait for a parser.
    unknown: HashMap<Key, Unknown>,
    desk: Desk<Key>,
    vdso: Option<File>,
}

impl Scan {
    pub(super) fn new(
        processes: Processes,
        table: Table,
        tables: bool,
        shared: Arc<Shared>,
        nursery: Arc<Nursery>,
        files_open_max: usize,
    ) -> Scan {
        let vdso = vdso::copy().inspect_err(|e| tracing::warn!("the vdso has no unwind rows: {e}")).ok();
        let (live, cards) = (HashMap::new(), HashMap::new());
        let (pending, unknown) = (Vec::new(), HashMap::new());
        let desk = Desk::default();
        Scan { processes, table, tables, shared, nursery, files_open_max, live, cards, pending, unknown, desk, vdso }
    }

    /// Runs until the outbox stops.
    pub(super) fn run(mut self, outbox: &Outbox) {
        let mut swept = Instant::now();
        while !outbox.stopping() {
            let patience = if self.desk.under_way() == 0 { SLEEP } else { Duration::ZERO };
            for (tgid, wish) in self.shared.clone().take_wishes(patience) {
                self.note(tgid, wish);
            }
            self.ask_some();
            self.take_answers();
            self.finish_ready();
            if swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
                swept = Instant::now();
            }
            self.shared.rows_used.store(u64::from(self.table.used()), Ordering::Relaxed);
        }
    }

    /// Takes up a wish, unless the same program was looked at a moment ago.
    fn note(&mut self, tgid: u32, wish: Wish) {
        let (who, now) = ((tgid, wish.space), Instant::now());
        let mut pause = PAUSE_FIRST;
        if let Some(live) = self.live.get(&tgid) {
            if live.who != who {
                self.shared.program_gone(live.who);
            } else if now < live.next {
                return;
            } else {
                pause = (live.pause * 2).min(PAUSE_MAX);
            }
        }
        self.pending.retain(|p| p.who.0 != tgid);
        self.live.insert(tgid, Live { who, next: now + pause, pause });
        if let Err(reason) = self.look(who, wish.cgroup) {
            self.shared.refuse(reason);
        }
    }

    /// Reads where the process has code and opens its files.
    fn look(&mut self, who: Who, cgroup: u64) -> Result<(), &'static str> {
        let proc = PathBuf::from(format!("/proc/{}", who.0));
        let file = File::open(proc.join("maps")).map_err(|_| "no_maps")?;
        let mapped = maps::executable(BufReader::new(file)).map_err(|_| "no_maps")?;
        let home = home(&proc);
        let keys = self.keys_of(&proc, &mapped);
        self.pending.push(Pending { who, cgroup, home, files: mapped.into_iter().zip(keys).collect() });
        Ok(())
    }

    /// Processes all of whose files are known get their tables.
    fn finish_ready(&mut self) {
        let unknown = &self.unknown;
        let ready = |p: &mut Pending| !p.files.iter().any(|(_, key)| key.is_some_and(|k| unknown.contains_key(&k)));
        let done: Vec<Pending> = self.pending.extract_if(.., ready).collect();
        for pending in done {
            self.finish(pending);
        }
    }

    fn finish(&mut self, pending: Pending) {
        let who = pending.who;
        self.note_news(&pending);
        let parts: Vec<Part> = pending
            .files
            .into_iter()
            .map(|(m, key)| {
                let card = key.and_then(|k| self.cards.get(&k)).map(|s| s.card.clone());
                let code = card.and_then(|c| c.bias(m.start, m.end, m.offset).map(|bias| (c, bias)));
                let path = String::from_utf8_lossy(&m.path).into_owned();
                Part { start: m.start, end: m.end, offset: m.offset, path, code }
            })
            .collect();
        if self.tables {
            let bytes = process_bytes(who.1, &self.mappings(&parts));
            if self.processes.insert(who.0, *bytes, 0).is_err() {
                self.shared.refuse("too_many_processes");
            }
        }
        self.shared.put_program(who, pending.cgroup, Arc::new(Program { parts, home: pending.home }));
    }

    /// Who maps more code (a just-in-time compiler that warms up) is looked at again soon.
    fn note_news(&mut self, pending: &Pending) {
        let Some(before) = self.shared.program(pending.who) else { return };
        let then = before.parts.iter().map(|p| (p.start, p.end));
        if !then.eq(pending.files.iter().map(|(m, _)| (m.start, m.end)))
            && let Some(live) = self.live.get_mut(&pending.who.0)
        {
            (live.pause, live.next) = (PAUSE_FIRST, Instant::now() + PAUSE_FIRST);
        }
    }

    /// What the kernel's walker is told; files before memory without a file when there is not room for all.
    fn mappings(&self, parts: &[Part]) -> Vec<Mapping> {
        let mut chosen: Vec<&Part> = parts.iter().collect();
        if chosen.len() > MAPPINGS_MAX {
            self.shared.refuse("too_many_mappings");
            chosen.sort_by_key(|p| p.code.is_none());
            chosen.truncate(MAPPINGS_MAX);
            chosen.sort_by_key(|p| p.start);
        }
        chosen
            .iter()
            .map(|p| {
                let (first_row, rows) = p.code.as_ref().map_or((0, 0), |(card, _)| card.rows);
                let bias = p.code.as_ref().map_or(0, |(_, bias)| *bias);
                Mapping { start: p.start, end: p.end, bias, first_row, rows }
            })
            .collect()
    }

    /// The file of each mapping, opened; those nobody has seen before wait for a parser.
    fn keys_of(&mut self, proc: &Path, mapped: &[Mapped]) -> Vec<Option<Key>> {
        let opener = Opener::new(proc).inspect_err(|reason| self.shared.refuse(reason)).ok();
        let mut keys: HashMap<&[u8], Option<Key>> = HashMap::new();
        for m in mapped.iter().filter(|m| !m.path.is_empty()) {
            if keys.contains_key(&m.path[..]) {
                continue;
            }
            let opened = match (m.path == vdso::PATH, &opener) {
                (true, _) => self.vdso.as_ref().and_then(|f| f.try_clone().ok()).map(|f| (f, Key::VDSO)).ok_or("error"),
                (false, Some(opener)) if m.path.starts_with(b"/") => opener.open(m),
                _ => Err("no_file"),
            };
            let key =
                opened.map(|(file, key)| self.known(key, file, &m.path)).map_err(|reason| self.shared.refuse(reason));
            keys.insert(&m.path, key.ok());
        }
        mapped.iter().map(|m| keys.get(&m.path[..]).copied().flatten()).collect()
    }

    fn known(&mut self, key: Key, file: File, path: &[u8]) -> Key {
        match self.cards.get_mut(&key) {
            Some(shelf) => {
                shelf.used = Instant::now();
                shelf.card.reopen(file);
            }
            None => {
                let path = String::from_utf8_lossy(path).into_owned();
                self.unknown.entry(key).or_insert(Unknown { file, path, asked: false });
            }
        }
        key
    }

    /// Asks about a few files, the smallest first: nobody waits for a compiler's 200 MiB because it came earlier.
    fn ask_some(&mut self) {
        while self.desk.has_room() {
            let idle = self.unknown.iter().filter(|(_, u)| !u.asked);
            let Some(key) = idle.map(|(key, _)| *key).min_by_key(Key::size) else { return };
            if let Some(unknown) = self.unknown.get_mut(&key) {
                unknown.asked = true;
                self.desk.ask(&self.nursery, key, &unknown.file, &Question::Layout);
            }
        }
    }

    fn take_answers(&mut self) {
        for (key, answer) in self.desk.wait(&self.nursery, ANSWER_LOOK) {
            let Some(Unknown { file, path, .. }) = self.unknown.remove(&key) else { continue };
            let layout = match answer {
                Ok(Answer::Layout(layout)) => layout,
                Ok(_) | Err(Loss::Died) => self.without(&path, "parser_died", "its parser died or was ended"),
                Err(Loss::Nothing(why)) => self.without(&path, "not_understood", &why),
                // The probe is about to end.
                Err(Loss::Gone) => continue,
            };
            self.shelve(key, file, path, layout);
        }
    }

    fn without(&self, path: &str, reason: &'static str, why: &str) -> Layout {
        tracing::info!(file = path, "no unwind rows and no names: {why}");
        self.shared.refuse(reason);
        Layout::default()
    }

    fn shelve(&mut self, key: Key, file: File, path: String, layout: Layout) {
        if layout.too_many_rows {
            tracing::warn!(file = path, "more unwind rows than one file may have: stacks in it follow frame pointers");
            self.shared.refuse("too_many_rows");
        }
        let rows = match self.tables {
            true => self.fill(&layout.rows),
            false => (0, 0),
        };
        let open = self.cards.values().filter(|s| s.card.file().is_some()).count();
        let known = !layout.segments.is_empty();
        let card = Card::new(key, path, &layout.build_id, layout.segments, rows, file);
        if !known {
            card.give_up();
            card.close();
        } else if open >= self.files_open_max {
            self.shared.refuse("too_many_files_open");
            card.close();
        }
        if self.cards.len() >= CARDS_MAX {
            self.evict_one();
        }
        self.cards.insert(key, Shelf { card: Arc::new(card), used: Instant::now() });
    }

    fn fill(&mut self, rows: &[ebpf_abi::Row]) -> super::rows::Range {
        loop {
            if let Some(range) = self.table.fill(rows) {
                return range;
            }
            if !self.evict_one() {
                tracing::warn!(rows = rows.len(), "the row table is full: a file's stacks follow frame pointers");
                self.shared.refuse("row_table_full");
                return (0, 0);
            }
        }
    }

    /// Lets go of the file that nobody has run for longest; `false` when all are in use.
    fn evict_one(&mut self) -> bool {
        let unused = self.cards.iter().filter(|(_, s)| Arc::strong_count(&s.card) == 1);
        let Some(key) = unused.min_by_key(|(_, s)| s.used).map(|(k, _)| *k) else { return false };
        if let Some(shelf) = self.cards.remove(&key) {
            self.table.release(shelf.card.rows);
        }
        true
    }

    /// Strikes off processes that ended, and closes files that nobody runs any more.
    fn sweep(&mut self) {
        let (shared, processes) = (&self.shared, &mut self.processes);
        self.live.retain(|tgid, live| {
            let lives = std::fs::symlink_metadata(format!("/proc/{tgid}")).is_ok();
            if !lives {
                // Not there when its program was never put in.
                let _ = processes.remove(tgid);
                shared.program_gone(live.who);
            }
            lives
        });
        for shelf in self.cards.values().filter(|s| Arc::strong_count(&s.card) == 1) {
            shelf.card.close();
        }
    }
}

fn home(proc: &Path) -> Home {
    let mut text = String::new();
    let read = File::open(proc.join("cgroup")).and_then(|f| f.take(cgroup::TEXT_BYTES_MAX).read_to_string(&mut text));
    read.map(|_| cgroup::home(&text)).unwrap_or_default()
}
