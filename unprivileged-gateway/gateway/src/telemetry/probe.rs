//! The probe's counters on our dials.
//!
//! The probe counts from its own start; whoever reads `/metrics` expects a dial that never turns back. So each of its numbers has a dial
//! here that is moved by what it grew since the last word, and by all of it when the probe has started anew. Weakness: what a probe
//! counted between its last word and its end is lost, a second at most.

use super::exposition::Family;
use ipc::stacks::End;
use ipc::{Caps, Status};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Labels kept of one family: a probe that invents names must not fill the memory.
const LABELS_MAX: usize = 4096;
/// Longest label. Unit: bytes.
const LABEL_BYTES_MAX: usize = 128;
/// The cause under which samples are counted that left the probe's ring before they were taken.
const RING: &str = "stacks_ring";

/// What the gateway found missing of a numbered source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeGap {
    LogBytes,
    Stacks,
}

/// A family of the probe's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Samples,
    Lost,
    Ends,
    LogBytes,
    LogDropped,
    FilesRefused,
    Parsers,
    CpuNs,
    BpfNs,
}

/// One dial: where the probe's own number stood, and where ours stands.
#[derive(Clone, Copy, Default)]
struct Dial {
    seen: u64,
    total: u64,
}

#[derive(Default)]
struct State {
    connected: bool,
    start: Option<[u8; 16]>,
    dials: BTreeMap<(Kind, String), Dial>,
    gaps: BTreeMap<ProbeGap, u64>,
    caps: Caps,
    rss_bytes: u64,
    hz_now: u32,
}

/// All dials of the probe.
#[derive(Default)]
pub struct Probe(Mutex<State>);

impl Probe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn connected(&self, connected: bool) {
        self.state().connected = connected;
    }

    /// Log bytes, or windows of stacks, that the probe could not supply.
    pub fn gap(&self, gap: ProbeGap, amount: u64) {
        *self.state().gaps.entry(gap).or_default() += amount;
    }

    /// The probe's word on itself; `start` tells one run of it from another.
    pub fn status(&self, start: [u8; 16], status: &Status) {
        let mut state = self.state();
        if state.start.replace(start).is_some_and(|before| before != start) {
            state.dials.values_mut().for_each(|dial| dial.seen = 0);
        }
        for cpu in &status.cpus {
            state.turn(Kind::Samples, &cpu.cpu.to_string(), cpu.samples);
        }
        let lists = [
            (Kind::Lost, &status.lost),
            (Kind::Ends, &status.ends),
            (Kind::LogDropped, &status.log_dropped),
            (Kind::FilesRefused, &status.files_refused),
        ];
        for (kind, list) in lists {
            list.iter().for_each(|count| state.turn(kind, &count.name, count.value));
        }
        state.turn(Kind::Lost, RING, status.stacks_dropped);
        let log = &status.log;
        for (name, value) in [("read", log.read), ("sent", log.sent), ("durable", log.durable)] {
            state.turn(Kind::LogBytes, name, value);
        }
        let nursery = &status.nursery;
        for (name, value) in [("run", nursery.parsers_run), ("failed", nursery.failed), ("killed", nursery.killed)] {
            state.turn(Kind::Parsers, name, value);
        }
        state.turn(Kind::CpuNs, "", status.cpu_ns);
        state.turn(Kind::BpfNs, "", status.bpf_ns);
        (state.caps, state.rss_bytes, state.hz_now) = (status.caps, status.rss_bytes, status.hz_now);
    }

    /// Samples taken, and lost, over all probe starts.
    pub fn samples(&self) -> (u64, u64) {
        let state = self.state();
        (state.sum(Kind::Samples), state.sum(Kind::Lost))
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let state = self.state();
        let mut connected = Family::gauge("bulkhead_probe_connected", "1 while the door to the probe is open.");
        connected.count(vec![], state.connected.into());
        let mut rate =
            Family::gauge("bulkhead_probe_rate_hertz", "Samples a second and processor that the probe takes now.");
        rate.count(vec![], state.hz_now.into());
        let mut caps =
            Family::gauge("bulkhead_probe_capabilities", "Capabilities the kernel says the probe has, as a bit mask.");
        let c = &state.caps;
        let sets = [
            ("effective", c.effective),
            ("permitted", c.permitted),
            ("inheritable", c.inheritable),
            ("ambient", c.ambient),
            ("bounding", c.bounding),
        ];
        for (set, mask) in sets {
            caps.count(vec![("set", set.to_owned())], mask);
        }
        let mut resident = Family::gauge("bulkhead_probe_resident_bytes", "Memory of the probe.");
        resident.count(vec![], state.rss_bytes);
        let mut seconds = Family::counter(
            "bulkhead_probe_cpu_seconds",
            "Processor time of the probe, in its threads and in its BPF programs.",
        );
        for (part, kind) in [("threads", Kind::CpuNs), ("bpf", Kind::BpfNs)] {
            seconds.real(vec![("part", part.to_owned())], state.sum(kind) as f64 / 1e9);
        }
        let mut gaps = Family::counter(
            "bulkhead_probe_gaps",
            "What the log should hold and the probe could not supply: bytes of log files, windows of stacks.",
        );
        for (stream, gap) in [("log_bytes", ProbeGap::LogBytes), ("stacks", ProbeGap::Stacks)] {
            gaps.count(vec![("stream", stream.to_owned())], state.gaps.get(&gap).copied().unwrap_or_default());
        }
        let mut families = vec![connected, rate, caps, resident, seconds, gaps];
        families.extend(state.counters());
        families
    }
}

impl State {
    fn turn(&mut self, kind: Kind, label: &str, value: u64) {
        let label = label.get(..label.floor_char_boundary(LABEL_BYTES_MAX)).unwrap_or_default().to_owned();
        let full = self.dials.len() >= LABELS_MAX;
        let dial = match self.dials.get_mut(&(kind, label.clone())) {
            Some(dial) => dial,
            None if full => return,
            None => self.dials.entry((kind, label)).or_default(),
        };
        // A number that went back within one start began again at zero.
        let grown = value.checked_sub(dial.seen).unwrap_or(value);
        (dial.seen, dial.total) = (value, dial.total.saturating_add(grown));
    }

    fn sum(&self, kind: Kind) -> u64 {
        self.dials.iter().filter(|((k, _), _)| *k == kind).map(|(_, dial)| dial.total).sum()
    }

    fn counters(&self) -> Vec<Family> {
        let ends = End::ALL.map(End::name);
        let table: [(Kind, &'static str, &'static str, &'static str, &[&str]); 7] = [
            (Kind::Samples, "bulkhead_probe_samples", "Stacks sampled by the probe.", "cpu", &[]),
            (Kind::Lost, "bulkhead_probe_samples_lost", "Samples that nobody has, by cause.", "cause", &[RING]),
            (Kind::Ends, "bulkhead_probe_stack_end", "Stacks by the reason for which they end.", "reason", &ends),
            (
                Kind::LogBytes,
                "bulkhead_probe_log_bytes",
                "Bytes of log files: read by the probe, sent to the gateway (repeats included), known to be on the disk.",
                "state",
                &["read", "sent", "durable"],
            ),
            (
                Kind::LogDropped,
                "bulkhead_probe_log_bytes_dropped",
                "Bytes of log files that nobody will read, by reason.",
                "reason",
                &[],
            ),
            (
                Kind::FilesRefused,
                "bulkhead_probe_files_refused",
                "Log files that the probe did not open, by reason.",
                "reason",
                &[],
            ),
            (
                Kind::Parsers,
                "bulkhead_probe_parsers",
                "Parser processes: started, ended without a result, ended for time, memory or a forbidden call.",
                "state",
                &["run", "failed", "killed"],
            ),
        ];
        let family = |(kind, name, help, label, known): &(Kind, &'static str, &'static str, &'static str, &[&str])| {
            let mut family = Family::counter(name, help);
            let mut rows: BTreeMap<&str, u64> = known.iter().map(|name| (*name, 0)).collect();
            rows.extend(
                self.dials.iter().filter(|((k, _), _)| k == kind).map(|((_, n), dial)| (n.as_str(), dial.total)),
            );
            for (value, total) in rows {
                family.count(vec![(label, value.to_owned())], total);
            }
            family
        };
        table.iter().map(family).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::CpuCount;

    fn status(samples: u64, dropped: u64) -> Status {
        Status { cpus: vec![CpuCount { cpu: 0, samples }], stacks_dropped: dropped, ..Status::default() }
    }

    #[test]
    fn a_dial_goes_on_where_it_stood_when_the_probe_starts_anew() {
        let probe = Probe::default();
        probe.status([1; 16], &status(100, 2));
        probe.status([1; 16], &status(150, 2));
        assert_eq!(probe.samples(), (150, 2));
        probe.status([2; 16], &status(30, 1));
        assert_eq!(probe.samples(), (180, 3));
        probe.status([2; 16], &status(31, 1));
        assert_eq!(probe.samples(), (181, 3));
        // The same start after a pause of the connection counts nothing twice.
        probe.connected(false);
        probe.status([2; 16], &status(31, 1));
        assert_eq!(probe.samples(), (181, 3));
    }

    #[test]
    fn a_probe_that_invents_names_does_not_fill_the_memory() {
        let probe = Probe::default();
        let count = |i: u64| ipc::Count { name: format!("{i}{}", "é".repeat(500)), value: 1 };
        probe.status([1; 16], &Status { lost: (0..10_000).map(count).collect(), ..Status::default() });
        let state = probe.state();
        assert_eq!(state.dials.len(), LABELS_MAX);
        assert!(state.dials.keys().all(|(_, label)| label.len() <= LABEL_BYTES_MAX));
    }
}
