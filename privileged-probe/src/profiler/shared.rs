//! What the profiler's three threads share: the open window, the wish list, the programs.
//!
//! Like the counter between kitchen and dining room: small, and nobody stands at it for long. Drain puts samples into the window and
//! wishes onto the list; scan takes wishes and leaves programs; fold takes the window and reads programs. Each part has its own
//! lock, held for a copy at most. The weakness: a wish that finds the list full is lost; the next sample wishes again.

use super::cgroup::Home;
use super::files::Card;
use super::window::{Who, Window};
use ipc::stacks::End;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most wishes waiting.
const WISHES_MAX: usize = 4096;
/// Most control groups remembered by inode.
const HOMES_MAX: usize = 8192;

/// One executable mapping of a program.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) offset: u64,
    /// Path as the process sees it; empty for memory without a file.
    pub(super) path: String,
    /// The file and the bias of its addresses here, where both are known.
    pub(super) code: Option<(Arc<Card>, u64)>,
}

/// A process as long as it runs one program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Its executable mappings, sorted.
    pub(super) parts: Vec<Part>,
    /// Container and pod.
    pub(super) home: Home,
}

impl Program {
    /// The mapping around a run-time address and its number.
    pub(super) fn part(&self, address: u64) -> Option<(usize, &Part)> {
        let at = self.parts.partition_point(|p| p.end <= address);
        self.parts.get(at).filter(|p| p.start <= address).map(|p| (at, p))
    }
}

/// Somebody was sampled whose mappings are not known, or no longer right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) space: u64,
    /// Inode of the control group, as a key for [`Shared::homes`].
    pub(super) cgroup: u64,
}

#[derive(Debug)]
struct Kept {
    program: Arc<Program>,
    gone: Option<Instant>,
}

/// The counter.
#[derive(Debug, Default)]
pub(super) struct Shared {
    window: Mutex<Window>,
    wishes: Mutex<HashMap<u32, Wish>>,
    wished: Condvar,
    programs: Mutex<HashMap<Who, Kept>>,
    homes: Mutex<HashMap<u64, Home>>,
    /// Stacks by end reason, since the start.
    ends: [AtomicU64; End::ALL.len()],
    /// Records of the ring that could not be read; a bug of ours.
    pub(super) malformed: AtomicU64,
    /// Rows in use.
    pub(super) rows_used: AtomicU64,
    /// Executables that were not looked at, by reason, since the start.
    pub(super) refused: Mutex<HashMap<&'static str, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }

    pub(super) fn count_end(&self, end: u16) {
        if let Some(cell) = self.ends.get(usize::from(end)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reason and number, reasons never seen included.
    pub(super) fn ends(&self) -> impl Iterator<Item = (End, u64)> + '_ {
        End::ALL.iter().zip(&self.ends).map(|(end, cell)| (*end, cell.load(Ordering::Relaxed)))
    }

    pub(super) fn refuse(&self, reason: &'static str) {
        *lock(&self.refused).entry(reason).or_default() += 1;
    }

    pub(super) fn wish(&self, tgid: u32, wish: Wish) {
        let mut wishes = lock(&self.wishes);
        if wishes.len() < WISHES_MAX || wishes.contains_key(&tgid) {
            wishes.insert(tgid, wish);
            self.wished.notify_one();
        }
    }

    /// All wishes; waits for one, at most this long.
    pub(super) fn take_wishes(&self, at_most: Duration) -> HashMap<u32, Wish> {
        let wishes = lock(&self.wishes);
        let (mut wishes, _) =
            self.wished.wait_timeout_while(wishes, at_most, |w| w.is_empty()).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut wishes)
    }

    pub(super) fn put_program(&self, who: Who, cgroup: u64, program: Arc<Program>) {
        let mut homes = lock(&self.homes);
        if homes.len() >= HOMES_MAX {
            homes.clear();
        }
        homes.insert(cgroup, program.home.clone());
        drop(homes);
        lock(&self.programs).insert(who, Kept { program, gone: None });
    }

    /// The process ended or runs another program; its mappings are kept until its last window was folded.
    pub(super) fn program_gone(&self, who: Who) {
        if let Some(kept) = lock(&self.programs).get_mut(&who) {
            kept.gone.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn program(&self, who: Who) -> Option<Arc<Program>> {
        lock(&self.programs).get(&who).map(|k| k.program.clone())
    }

    /// Where processes of this control group live, for one that was gone before it could be looked at.
    pub(super) fn home(&self, cgroup: u64) -> Option<Home> {
        lock(&self.homes).get(&cgroup).cloned()
    }

    /// Forgets programs that were gone before `then`.
    pub(super) fn forget(&self, then: Instant) {
        lock(&self.programs).retain(|_, k| k.gone.is_none_or(|gone| gone >= then));
    }

    /// Programs that run.
    pub(super) fn running(&self) -> u64 {
        lock(&self.programs).values().filter(|k| k.gone.is_none()).count() as u64
    }
}
