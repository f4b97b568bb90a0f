//! CPU profiles of every process: sampled in the kernel, unwound by table, folded by window.
//!
//! Like a traffic census: 97 times a second, on every CPU, one photograph of who drives and how they came there. The kernel side
//! takes it (`ebpf/programs/cpu.bpf.c`); here three threads share the rest ([`shared`]): [`drain`] empties the ring, [`scan`]
//! finds out what sampled processes execute and fills the row table, [`Clerk`] closes a window each 15 s, names what is in it
//! ([`fold`]) and hands it to the outbox. When the outbox fills, one sample in five is kept, then none, and that is counted.
//! After the drop everything here works on descriptors alone; opening new executables needs SYS_PTRACE and nothing else.
//! The weakness: no Python frames yet, no names for code made at run time, x86-64 only.

mod cgroup;
mod drain;
mod files;
mod fold;
mod load;
mod maps;
mod open;
mod rows;
mod scan;
mod shared;
mod vdso;
mod window;

use crate::nursery::Nursery;
use crate::outbox::Outbox;
use crate::vitals::unix_ns;
use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHash, MapData, PerCpuArray};
use ebpf_abi::{CONTROL_KEEP_ONE_OF, Counter, KERNEL_NAME_BYTES, ROWS_MAX};
use ipc::{Count, CpuCount, Feature};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shared::Shared;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Length of a window unless something else is said.
pub const WINDOW: Duration = Duration::from_secs(15);
/// Calls that the profiler's threads make after the drop, and why; the filter's list holds them all.
pub const SYSCALLS: &[(&str, &str)] = &[
    ("poll", "waiting for the stop, and for parsers"),
    ("futex", "locks, and waiting for wishes"),
    ("openat", "/proc/PID/maps, cgroup, root, exe"),
    ("openat2", "executables, inside their process's root"),
    ("readlink", "/proc/PID/exe"),
    ("statx", "executables; whether a process lives"),
    ("read", "/proc files; answers of parsers"),
    ("close", "all of these"),
    ("fcntl", "descriptors kept longer; pipes that do not block"),
    ("pipe2", "one for each question to a parser"),
    ("sendmsg", "a question and a read-only descriptor to the nursery"),
    ("bpf", "elements of maps: look up, update, delete; object info"),
    ("mmap", "memory"),
    ("clock_gettime", "time"),
];

/// How often the clerk looks up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most kernel names kept here.
const KERNEL_NAMES_MAX: usize = 65_536;
/// Open files the probe asks for; half of what it gets is for executables.
const OPEN_FILES_WANTED: u64 = 8192;
/// From this fill of the outbox on, one sample in [`THIN`] is kept.
const FILL_THIN: f64 = 0.5;
/// From this fill on, none is.
const FILL_STOP: f64 = 0.9;
/// 97 becomes 19.
const THIN: u64 = 5;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Samples a second and CPU.
    pub hz: u32,
    /// Unwind by `.eh_frame` rows; otherwise follow frame pointers only.
    pub tables: bool,
    /// Length of a window.
    pub window: Duration,
}

/// Something cannot be done here: what, why, and what would help.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}: {fix}")]
pub struct Off {
    /// Name of the feature, as in Hello.
    pub feature: &'static str,
    /// What happened.
    pub reason: String,
    /// What to do.
    pub fix: String,
}

/// A thread's work; returns when the outbox stops.
pub type Job = (&'static str, Box<dyn FnOnce(&Outbox) + Send>);

/// Loaded and attached; samples are taken from now on and wait in the ring.
pub struct Profiler {
    loaded: load::Loaded,
    options: Options,
    nursery: Arc<Nursery>,
    features: Vec<Feature>,
}

impl Profiler {
    /// Loads and attaches. Wants CAP_BPF and CAP_PERFMON; afterwards neither.
    pub fn load(options: &Options, nursery: Arc<Nursery>) -> Result<Profiler, Off> {
        let kernel = load::kernel().unwrap_or((0, 0));
        let loaded = load::load(options.hz, options.tables, kernel)?;
        let old = kernel < load::KERNEL_TABLES;
        let needs = format!("kernel {}.{}; 5.17 or later is needed", kernel.0, kernel.1);
        let tables = match (options.tables, old) {
            (false, _) => "switched off by configuration".to_owned(),
            (true, true) => needs.clone(),
            (true, false) => String::new(),
        };
        let names = if old { needs } else { String::new() };
        let feature = |name: &str, reason: String| Feature { name: name.into(), on: reason.is_empty(), reason };
        let features = vec![feature("cpu", String::new()), feature("tables", tables), feature("kernel_names", names)];
        Ok(Profiler { loaded, options: *options, nursery, features })
    }

    /// What works, for Hello.
    pub fn features(&self) -> Vec<Feature> {
        self.features.clone()
    }

    /// The work, one thread each. Start all of them after the drop and before the filter.
    pub fn jobs(self) -> Vec<Job> {
        let Profiler { loaded, options, nursery, features } = self;
        let shared = Arc::new(Shared::default());
        let tables = features.iter().any(|f| f.name == "tables" && f.on);
        let load::Loaded { ebpf, program, ring, counters, control, kernel_names, processes, table, cpus } = loaded;
        let open_max = open_files() / 2;
        let scan = scan::Scan::new(processes, table, tables, shared.clone(), nursery.clone(), open_max);
        let clerk = Clerk {
            ebpf,
            program,
            counters,
            control,
            kernel_names,
            names: HashMap::new(),
            cpus,
            options,
            nursery,
            keep_one_of: 1,
            window_full: 0,
            shared: shared.clone(),
        };
        vec![
            ("drain", Box::new(move |outbox| drain::run(ring, &shared, outbox))),
            ("scan", Box::new(move |outbox| scan.run(outbox))),
            ("fold", Box::new(move |outbox| clerk.run(outbox))),
        ]
    }
}

/// Raises the soft limit of open files as far as it goes; how many may be open.
fn open_files() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    let wanted = hard.min(OPEN_FILES_WANTED).max(soft);
    let got = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_or(soft, |()| wanted);
    usize::try_from(got).unwrap_or(256)
}

/// The thread that closes windows and keeps the numbers.
struct Clerk {
    /// Holds the clocks.
    ebpf: Ebpf,
    program: &'static str,
    counters: PerCpuArray<MapData, u64>,
    control: Array<MapData, u64>,
    kernel_names: BpfHash<MapData, u64, [u8; KERNEL_NAME_BYTES]>,
    names: HashMap<u64, Option<Arc<str>>>,
    cpus: Vec<u32>,
    options: Options,
    nursery: Arc<Nursery>,
    keep_one_of: u64,
    window_full: u64,
    shared: Arc<Shared>,
}

impl Clerk {
    fn run(mut self, outbox: &Outbox) {
        let mut begun = (Instant::now(), unix_ns());
        loop {
            let left = self.options.window.saturating_sub(begun.0.elapsed()).min(LOOK_EVERY);
            let mut fds = [PollFd::new(outbox.stop_fd(), PollFlags::POLLIN)];
            // Stopped, interrupted or time: all are looked at.
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            if outbox.stopping() {
                // The last window goes to the outbox too: the door may still be writing.
                self.close(begun, outbox);
                return;
            }
            if begun.0.elapsed() >= self.options.window {
                let now = (Instant::now(), unix_ns());
                self.close(begun, outbox);
                begun = now;
                self.thin(outbox.stacks_fill());
            }
            self.status(outbox);
        }
    }

    fn close(&mut self, begun: (Instant, u64), outbox: &Outbox) {
        let window = std::mem::take(&mut *self.shared.window());
        self.window_full += window.dropped;
        let span = fold::Span { from_ns: begun.1, to_ns: unix_ns(), hz: self.hz() };
        let (map, names) = (&self.kernel_names, &mut self.names);
        if names.len() > KERNEL_NAMES_MAX {
            names.clear();
        }
        let mut kernel = |address| names.entry(address).or_insert_with(|| kernel_name(map, address)).clone();
        for (stacks, bulk) in fold::fold(&window, span, &self.shared, &self.nursery, &mut kernel) {
            outbox.stacks(stacks, bulk);
        }
        self.shared.forget(begun.0);
    }

    /// The rate in force.
    fn hz(&self) -> u32 {
        match self.keep_one_of {
            0 => 0,
            n => self.options.hz / u32::try_from(n).unwrap_or(1),
        }
    }

    /// Takes fewer samples while nobody fetches them.
    fn thin(&mut self, fill: f64) {
        let wanted = keep_one_of(fill);
        if wanted != self.keep_one_of && self.control.set(CONTROL_KEEP_ONE_OF, wanted, 0).is_ok() {
            self.keep_one_of = wanted;
            tracing::info!(hz = self.hz(), "the outbox is {:.0} % full: sampling rate changed", fill * 100.0);
        }
    }

    fn counter(&self, which: Counter) -> Vec<u64> {
        self.counters.get(&(which as u32), 0).map(|v| v.iter().copied().collect()).unwrap_or_default()
    }

    fn status(&self, outbox: &Outbox) {
        let runs = self.counter(Counter::Runs);
        let total = |which| self.counter(which).iter().sum::<u64>();
        let count = |name: &str, value| Count { name: name.into(), value };
        let lost = vec![
            count("ring_full", total(Counter::Lost)),
            count("window_full", self.window_full),
            count("thinned", total(Counter::Thinned)),
            count("malformed", self.shared.malformed.load(Ordering::Relaxed)),
        ];
        let ends = self.shared.ends().map(|(end, n)| count(end.name(), n)).collect();
        let cpus =
            self.cpus.iter().filter_map(|&cpu| Some(CpuCount { cpu, samples: *runs.get(cpu as usize)? })).collect();
        let nursery = self.nursery.counts();
        let bpf_ns = self.bpf_ns();
        let refused: Vec<(String, u64)> = {
            let refused = self.shared.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            refused.iter().map(|(reason, n)| (format!("executable_{reason}"), *n)).collect()
        };
        outbox.status(|s| {
            (s.hz_now, s.cpus, s.lost, s.ends, s.nursery, s.bpf_ns) = (self.hz(), cpus, lost, ends, nursery, bpf_ns);
            (s.rows_used, s.rows_max) = (self.shared.rows_used.load(Ordering::Relaxed), u64::from(ROWS_MAX));
            s.processes = self.shared.running();
            for (name, value) in refused {
                match s.files_refused.iter_mut().find(|c| c.name == name) {
                    Some(known) => known.value = value,
                    None => s.files_refused.push(Count { name, value }),
                }
            }
        });
    }

    /// Zero unless the machine counts it (`sysctl kernel.bpf_stats_enabled=1`).
    fn bpf_ns(&self) -> u64 {
        let info = self.ebpf.program(self.program).and_then(|p| p.info().ok());
        info.map_or(0, |i| u64::try_from(i.run_time().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// 1: all, 5: one in five, 0: none.
fn keep_one_of(fill: f64) -> u64 {
    match fill {
        f if f >= FILL_STOP => 0,
        f if f >= FILL_THIN => THIN,
        _ => 1,
    }
}

fn kernel_name(map: &BpfHash<MapData, u64, [u8; KERNEL_NAME_BYTES]>, address: u64) -> Option<Arc<str>> {
    let text = map.get(&address, 0).ok()?;
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    // "name [module]": the module is not part of the name. A name that is an address is none.
    let name = std::str::from_utf8(text.get(..end)?).ok()?.split(' ').next()?;
    (!name.is_empty() && !name.starts_with("0x")).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_lets_through_what_the_profilers_threads_call() {
        let allowed: Vec<&str> =
            crate::seccomp::CALLS.iter().chain(crate::seccomp::CALLS_OF_ARCH).map(|c| c.name).collect();
        for (name, why) in SYSCALLS {
            assert!(allowed.contains(&&*format!("SYS_{name}")), "{name} ({why}) is not on the filter's list");
        }
    }

    #[test]
    fn the_rate_falls_with_the_outbox_and_comes_back() {
        assert_eq!([0.0, 0.49, 0.5, 0.89, 0.9, 1.0].map(keep_one_of), [1, 1, 5, 5, 0, 0]);
    }
}
