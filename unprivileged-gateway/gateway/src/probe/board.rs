//! What is known of the probe at this moment, for the page.
//!
//! A notice board at the hatch: who is there, what he said of himself last, and what went wrong last. Rates are differences over the
//! last [`KEPT`] notices. Weakness: a notice is the probe's own word; what the gateway itself counted stands in the ledgers.

use crate::telemetry::{LastError, Telemetry, unix_ms};
use ipc::{Hello, Status};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Notices that rates are taken over; one comes each second.
const KEPT: usize = 10;
/// Entries of a list that are shown; the probe is believed, its lists are bounded all the same.
const LISTED_MAX: usize = 1024;

/// Cheap to clone; all clones are one board.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    socket: String,
    telemetry: Telemetry,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connected: bool,
    /// Unix milliseconds of the last change of `connected`.
    since_ms: u64,
    last_error: Option<LastError>,
    /// Of the last probe that was there.
    hello: Option<Hello>,
    /// Oldest first, of one probe start.
    notices: VecDeque<Status>,
}

/// `/api/v1/probe`.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub configured: bool,
    pub connected: bool,
    pub socket: String,
    pub since_ms: u64,
    pub last_error: Option<Value>,
    pub hello: Option<Value>,
    pub status: Option<Value>,
    pub rates: Rates,
}

/// Per second, over the last notices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    pub cpus: Vec<CpuRate>,
    pub lost_per_s: f64,
    pub log_bytes_per_s: f64,
    /// Of one processor, its BPF programs included where the kernel counts them.
    pub probe_cpu_percent: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuRate {
    pub cpu: u32,
    pub per_s: f64,
}

impl Shown {
    /// No probe is expected.
    pub fn unconfigured() -> Shown {
        Shown {
            configured: false,
            connected: false,
            socket: String::new(),
            since_ms: 0,
            last_error: None,
            hello: None,
            status: None,
            rates: Rates::default(),
        }
    }
}

impl Board {
    pub fn new(socket: &Path, telemetry: Telemetry) -> Board {
        let state = State { since_ms: unix_ms(), ..State::default() };
        Board(Arc::new(Inner { socket: socket.display().to_string(), telemetry, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe is there.
    pub(super) fn hello(&self, hello: &Hello) {
        let mut hello = hello.clone();
        hello.features.truncate(LISTED_MAX);
        tracing::info!(host = hello.host, kernel = hello.kernel, hz = hello.hz, "connected to the probe");
        for feature in hello.features.iter().filter(|f| !f.on) {
            tracing::warn!(feature = feature.name, reason = feature.reason, "the probe serves without this");
        }
        let mut state = self.state();
        if state.hello.as_ref().is_none_or(|h| h.start != hello.start) {
            state.notices.clear();
        }
        (state.connected, state.since_ms) = (true, unix_ms());
        state.hello = Some(hello);
        self.0.telemetry.probe().connected(true);
    }

    pub(super) fn status(&self, status: &Status) {
        let mut status = status.clone();
        status.cpus.truncate(LISTED_MAX);
        for list in [&mut status.lost, &mut status.ends, &mut status.files_refused, &mut status.log_dropped] {
            list.truncate(LISTED_MAX);
        }
        status.groups.truncate(LISTED_MAX);
        status.dropped_proof.truncate(LISTED_MAX);
        let mut state = self.state();
        if let Some(hello) = &state.hello {
            self.0.telemetry.probe().status(hello.start, &status);
        }
        // A clock that was set back would make rates of nonsense.
        if state.notices.back().is_some_and(|last| last.at_ns >= status.at_ns) {
            state.notices.clear();
        }
        if state.notices.len() == KEPT {
            state.notices.pop_front();
        }
        state.notices.push_back(status);
    }

    /// No probe is there. True: this is news.
    pub(super) fn gone(&self, why: Option<&str>) -> bool {
        let mut state = self.state();
        let was = std::mem::replace(&mut state.connected, false);
        if was {
            state.since_ms = unix_ms();
        }
        self.0.telemetry.probe().connected(false);
        let Some(text) = why else { return was };
        let news = was || state.last_error.as_ref().is_none_or(|e| e.text != text);
        state.last_error = Some(LastError { at_ms: unix_ms(), text: text.to_owned() });
        news
    }

    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// Everything at once.
    pub fn shown(&self) -> Shown {
        let state = self.state();
        let hello = state.hello.as_ref().map(|h| {
            let start: String = h.start.iter().map(|b| format!("{b:02x}")).collect();
            json!({ "host": h.host, "kernel": h.kernel, "cpus": h.cpus, "hz": h.hz, "start": start, "boot": h.boot,
                "version": h.version, "features": h.features })
        });
        Shown {
            configured: true,
            connected: state.connected,
            socket: self.0.socket.clone(),
            since_ms: state.since_ms,
            last_error: state.last_error.as_ref().map(|e| json!({ "at_ms": e.at_ms, "text": e.text })),
            hello,
            status: state.notices.back().and_then(|s| serde_json::to_value(s).ok()),
            rates: if state.connected { rates(&state.notices) } else { Rates::default() },
        }
    }
}

fn rates(notices: &VecDeque<Status>) -> Rates {
    let (Some(first), Some(last)) = (notices.front(), notices.back()) else { return Rates::default() };
    let seconds = last.at_ns.saturating_sub(first.at_ns) as f64 / 1e9;
    if seconds <= 0.0 {
        return Rates::default();
    }
    let per_s = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
    let lost = |s: &Status| s.lost.iter().fold(s.stacks_dropped, |sum, c| sum.saturating_add(c.value));
    let before = |cpu: u32| first.cpus.iter().find(|c| c.cpu == cpu).map_or(0, |c| c.samples);
    let cpus = last.cpus.iter().map(|c| CpuRate { cpu: c.cpu, per_s: per_s(before(c.cpu), c.samples) });
    let busy = |s: &Status| s.cpu_ns.saturating_add(s.bpf_ns);
    Rates {
        cpus: cpus.collect(),
        lost_per_s: per_s(lost(first), lost(last)),
        log_bytes_per_s: per_s(first.log.read, last.log.read),
        probe_cpu_percent: per_s(busy(first), busy(last)) / 1e9 * 100.0,
    }
}
