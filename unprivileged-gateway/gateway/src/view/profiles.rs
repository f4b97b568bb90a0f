//! Profiles of the last minutes: who used the processors, and in which functions.
//!
//! A drawer of sealed letters with a summary on each envelope. A window is kept as it lies in the log, gzip and all, which is a tenth of
//! what its frames take unpacked; who ran, how often and how stacks ended is noted when it comes. The list of processes reads envelopes;
//! a flame graph opens the letters that were asked for, outside the view's lock, and lays their stacks into one [`tree`].
//!
//! Weakness: opening costs with each question, some milliseconds a minute of a busy machine.

mod tree;

use super::Covers;
use super::line::ALLOCATION_BYTES;
use ipc::stacks::End;
use model::Malformed;
use model::envelope::Sidecar;
use model::pprof::{self, PROFILE_BYTES_MAX, Profile};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Arc;

pub use tree::NODES_MAX;
use tree::Tree;

/// Groups of one answer, and processes of one group.
pub const GROUPS_MAX: usize = 1_000;
pub const PROCESSES_MAX: usize = 500;
/// Points of the line of used processors.
const POINTS_MAX: u64 = 300;
/// Width of a point where nothing asks for a wider one: the probe's window.
const STEP_MS: u64 = 15_000;
/// Windows whose time makes no sense are kept this long at most in the sums. Unit: nanoseconds.
const WINDOW_NS_MAX: u64 = 3_600 * 1_000_000_000;

/// Which windows and stacks; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct ProfileQuery {
    /// Exact; empty: any.
    pub service: String,
    pub pid: Option<u32>,
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProcessesAnswer {
    pub covers: Covers,
    pub total_samples: u64,
    /// Of the newest window.
    pub period_ns: u64,
    /// Most samples first.
    pub groups: Vec<Group>,
    /// Groups left out.
    pub cut: usize,
    pub timeline: Timeline,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    pub service: Arc<str>,
    /// Of the process with the most samples.
    pub comm: Arc<str>,
    pub container: Arc<str>,
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub samples: u64,
    pub cpu_ms: f64,
    /// Most samples first.
    pub processes: Vec<ProcessRow>,
    /// Processes left out.
    pub cut: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessRow {
    pub pid: u32,
    pub comm: Arc<str>,
    pub samples: u64,
}

/// Processors in use, all groups together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    pub t0_ms: u64,
    pub step_ms: u64,
    pub cores: Vec<f64>,
}

/// One flame graph.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileAnswer {
    pub covers: Covers,
    pub samples: u64,
    /// Of the newest window.
    pub period_ns: u64,
    /// Samples by the reason for which their stack ends.
    pub ends: BTreeMap<&'static str, u64>,
    pub names: Vec<String>,
    pub files: Vec<String>,
    /// Parent, name, file, kind, self, total; node 0 is the root, and parents come before their children.
    pub nodes: Vec<[u64; 6]>,
    /// Nodes left out, the smallest ones.
    pub cut: usize,
}

/// Whose samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    service: Arc<str>,
    container: Arc<str>,
    namespace: Arc<str>,
    pod: Arc<str>,
}

/// One profile of the log.
pub(super) struct Window {
    received_at: u64,
    from_ns: u64,
    to_ns: u64,
    period_ns: u64,
    who: Who,
    processes: Box<[ProcessRow]>,
    samples: u64,
    gzip: Box<[u8]>,
    bytes: usize,
}

/// All letters.
#[derive(Default)]
pub(super) struct Profiles {
    windows: VecDeque<Arc<Window>>,
    pub(super) bytes: usize,
    pub(super) evicted: u64,
    pub(super) last_seq: Option<u64>,
}

impl Window {
    /// Opens a record once, to write its summary. Errors: it is no profile.
    pub(super) fn read(sidecar: &Sidecar, raw: &[u8]) -> Result<Window, Malformed> {
        let inflated = inflate(raw)?;
        let profile = pprof::read(&inflated)?;
        let label = |name: &str| -> Arc<str> {
            let found = sidecar.enrichment.iter().find(|(n, _)| n == name);
            found.map_or("", |(_, value)| value.as_str()).into()
        };
        let first_of = |names: [&str; 2]| names.into_iter().map(label).find(|v| !v.is_empty()).unwrap_or_default();
        let processes = summary(&profile);
        let names: usize = processes.iter().map(|p| p.comm.len() + ALLOCATION_BYTES).sum();
        let duration = profile.duration_ns.min(WINDOW_NS_MAX);
        Ok(Window {
            received_at: sidecar.received_at,
            from_ns: profile.time_ns,
            to_ns: profile.time_ns.saturating_add(duration),
            period_ns: profile.period_ns,
            who: Who {
                service: label("service_name"),
                container: first_of(["container", "container_id"]),
                namespace: label("namespace"),
                pod: first_of(["pod", "pod_uid"]),
            },
            samples: processes.iter().map(|p| p.samples).sum(),
            bytes: size_of::<Window>()
                + raw.len()
                + names
                + processes.len() * size_of::<ProcessRow>()
                + 4 * ALLOCATION_BYTES,
            processes: processes.into(),
            gzip: raw.into(),
        })
    }

    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    fn is_within(&self, query: &ProfileQuery) -> bool {
        let ms = |ns: u64| ns / 1_000_000;
        let service = query.service.is_empty() || *query.service == *self.who.service;
        let pid = query.pid.is_none_or(|pid| self.processes.iter().any(|p| p.pid == pid));
        service
            && pid
            && query.from_ms.is_none_or(|from| ms(self.to_ns) > from)
            && query.to_ms.is_none_or(|to| ms(self.from_ns) < to)
    }
}

fn inflate(gzip: &[u8]) -> Result<Vec<u8>, Malformed> {
    let bad = |what| Malformed { part: "profile", what, at: 0 };
    let mut out = Vec::new();
    let most = PROFILE_BYTES_MAX as u64;
    let inflated = flate2::read::GzDecoder::new(gzip).take(most + 1).read_to_end(&mut out);
    match inflated {
        Ok(length) if length as u64 <= most => Ok(out),
        Ok(_) => Err(bad("larger than 16 MiB once it is opened")),
        Err(_) => Err(bad("it is not gzip")),
    }
}

/// Samples a process, most first.
fn summary(profile: &Profile<'_>) -> Vec<ProcessRow> {
    let mut samples: BTreeMap<u32, u64> = BTreeMap::new();
    for sample in &profile.samples {
        let sum = samples.entry(sample.pid).or_default();
        *sum = sum.saturating_add(sample.count);
    }
    let names: BTreeMap<u32, &str> = profile.processes.iter().copied().collect();
    let row = |(pid, samples)| ProcessRow { pid, comm: names.get(&pid).copied().unwrap_or_default().into(), samples };
    let mut rows: Vec<ProcessRow> = samples.into_iter().map(row).collect();
    rows.sort_by_key(|p| (std::cmp::Reverse(p.samples), p.pid));
    rows
}

impl Profiles {
    pub(super) fn push(&mut self, window: Window) {
        self.bytes += window.bytes;
        self.windows.push_back(Arc::new(window));
    }

    /// Lets the oldest window go; gives its samples.
    pub(super) fn pop(&mut self) -> u64 {
        let Some(window) = self.windows.pop_front() else { return 0 };
        self.bytes = self.bytes.saturating_sub(window.bytes);
        window.samples
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.windows.front().map(|w| w.received_at)
    }

    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }

    /// By the windows' own time.
    pub(super) fn covers(&self) -> Covers {
        let (mut from_ns, mut to_ns) = (u64::MAX, 0);
        for window in &self.windows {
            (from_ns, to_ns) = (from_ns.min(window.from_ns), to_ns.max(window.to_ns));
        }
        let from_ms = if self.windows.is_empty() { 0 } else { from_ns / 1_000_000 };
        Covers { from_ms, to_ms: to_ns / 1_000_000, evicted: self.evicted }
    }

    /// Windows that a question is about: cheap, to be looked into without the view's lock.
    pub(super) fn matching(&self, query: &ProfileQuery) -> Vec<Arc<Window>> {
        self.windows.iter().filter(|w| w.is_within(query)).cloned().collect()
    }
}

/// Who ran.
pub(super) fn processes(windows: &[Arc<Window>], covers: Covers) -> ProcessesAnswer {
    #[derive(Default)]
    struct Sum {
        samples: u64,
        ns: u64,
        processes: BTreeMap<(u32, Arc<str>), u64>,
    }
    let mut sums: BTreeMap<&Who, Sum> = BTreeMap::new();
    for window in windows {
        let sum = sums.entry(&window.who).or_default();
        sum.samples = sum.samples.saturating_add(window.samples);
        sum.ns = sum.ns.saturating_add(window.samples.saturating_mul(window.period_ns));
        for process in &window.processes {
            let count = sum.processes.entry((process.pid, process.comm.clone())).or_default();
            *count = count.saturating_add(process.samples);
        }
    }
    let group = |(who, sum): (&Who, Sum)| {
        let row = |((pid, comm), samples)| ProcessRow { pid, comm, samples };
        let mut processes: Vec<ProcessRow> = sum.processes.into_iter().map(row).collect();
        processes.sort_by_key(|p| (std::cmp::Reverse(p.samples), p.pid));
        let cut = processes.len().saturating_sub(PROCESSES_MAX);
        processes.truncate(PROCESSES_MAX);
        Group {
            service: who.service.clone(),
            comm: processes.first().map(|p| p.comm.clone()).unwrap_or_default(),
            container: who.container.clone(),
            namespace: who.namespace.clone(),
            pod: who.pod.clone(),
            samples: sum.samples,
            cpu_ms: sum.ns as f64 / 1e6,
            processes,
            cut,
        }
    };
    let mut groups: Vec<Group> = sums.into_iter().map(group).collect();
    groups.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.service.cmp(&b.service)));
    let cut = groups.len().saturating_sub(GROUPS_MAX);
    groups.truncate(GROUPS_MAX);
    ProcessesAnswer {
        covers,
        total_samples: windows.iter().map(|w| w.samples).sum(),
        period_ns: windows.last().map_or(0, |w| w.period_ns),
        groups,
        cut,
        timeline: timeline(windows),
    }
}

/// Each window's processor time, spread evenly over the time that it covers.
fn timeline(windows: &[Arc<Window>]) -> Timeline {
    let Some(first_ns) = windows.iter().map(|w| w.from_ns).min() else { return Timeline::default() };
    let last_ns = windows.iter().map(|w| w.to_ns).max().unwrap_or(first_ns);
    let t0_ms = first_ns / 1_000_000;
    let long_ms = (last_ns / 1_000_000).saturating_sub(t0_ms);
    let step_ms = STEP_MS * long_ms.div_ceil(STEP_MS).div_ceil(POINTS_MAX).max(1);
    let mut cores = vec![0.0; usize::try_from(long_ms.div_ceil(step_ms)).unwrap_or(0).min(POINTS_MAX as usize)];
    for window in windows {
        let begin = (window.from_ns - first_ns) as f64 / 1e6;
        let end = (window.to_ns.saturating_sub(first_ns) as f64 / 1e6).max(begin + 1.0);
        let busy = window.samples as f64 * window.period_ns as f64 / 1e6 / (end - begin);
        let mut at = begin;
        while at < end {
            let point = (at / step_ms as f64) as usize;
            let upto = end.min((point + 1) as f64 * step_ms as f64);
            match cores.get_mut(point) {
                Some(cores) => *cores += busy * (upto - at) / step_ms as f64,
                None => break,
            }
            at = upto;
        }
    }
    Timeline { t0_ms, step_ms, cores: cores.into_iter().map(|c: f64| (c * 1000.0).round() / 1000.0).collect() }
}

/// Where they ran.
pub(super) fn flame_graph(windows: &[Arc<Window>], covers: Covers, query: &ProfileQuery) -> ProfileAnswer {
    let mut tree = Tree::default();
    let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
    for window in windows {
        // It was opened once before; what cannot be opened now is nobody's sample.
        let Ok(inflated) = inflate(&window.gzip) else { continue };
        let Ok(profile) = pprof::read(&inflated) else { continue };
        let steps = tree.steps(&profile);
        for sample in profile.samples.iter().filter(|s| query.pid.is_none_or(|pid| s.pid == pid)) {
            let end = u8::try_from(sample.end).ok().and_then(End::from_number).map_or("unknown", End::name);
            let sum = ends.entry(end).or_default();
            *sum = sum.saturating_add(sample.count);
            tree.add(&steps, sample);
        }
    }
    let drawn = tree.draw(NODES_MAX);
    ProfileAnswer {
        covers,
        samples: drawn.samples,
        period_ns: windows.last().map_or(0, |w| w.period_ns),
        ends,
        names: drawn.names,
        files: drawn.files,
        nodes: drawn.nodes,
        cut: drawn.cut,
    }
}

#[cfg(test)]
mod tests;
