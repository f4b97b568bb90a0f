//! The keys: which the probe starts with, which it keeps, and the proof that the others are gone.
//!
//! Like a locksmith at a move-in: he comes with three keys, opens two rooms, hands those keys back at once, and then tries
//! the doors in front of witnesses. Two ways to come in are supported: under a user id of its own with ambient capabilities
//! (systemd, `setpriv`), and as user 0 with SETUID, SETGID and SETPCAP (Kubernetes, which has no ambient capabilities), where
//! the first act is to become somebody else. BPF and PERFMON leave after the programs are attached; SYS_PTRACE stays.
//! The weakness: SYS_PTRACE lets the process open other processes' files through `/proc/PID/root`; it does so as an ordinary
//! user, so the files' own modes still stand between.

use crate::sys;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, getresuid, setgroups, setresgid, setresuid};
use std::fs::File;
use thiserror::Error;

/// User id of the probe where it starts as user 0 and has to pick one (below the range of DynamicUser, above ordinary users').
pub const PROBE_UID: u32 = 62_474;

/// Needed until the programs are attached.
pub const TO_START: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];
/// Needed for as long as the probe looks into `/proc/PID`.
pub const TO_KEEP: [Capability; 1] = [Capability::CAP_SYS_PTRACE];
/// Needed to come in as user 0 and become somebody else.
const TO_CHANGE: [Capability; 2] = [Capability::CAP_SETUID, Capability::CAP_SETGID];

/// Why the probe will not run: exit code 77.
#[derive(Debug, Error)]
pub enum Refusal {
    /// User 0 without the means to become somebody else.
    #[error(
        "started as user 0 without {missing}, so it could not become user {PROBE_UID}: start it under a user of its own with ambient \
         BPF, PERFMON and SYS_PTRACE (systemd: AmbientCapabilities=; shell: setpriv --reuid ... --ambient-caps \
         +bpf,+perfmon,+sys_ptrace), or add SETUID, SETGID and SETPCAP to the container"
    )]
    Root {
        /// Names of the capabilities.
        missing: String,
    },
    /// A step failed.
    #[error("{step}: {why}; the probe does not run with privileges it cannot give up")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What happened.
        why: String,
    },
    /// A door that should be locked opened.
    #[error(
        "after the drop, {what} was not refused ({answer}); the probe does not run with privileges it cannot give up"
    )]
    Open {
        /// What was tried.
        what: String,
        /// What the kernel said.
        answer: String,
    },
}

fn step<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Refusal {
    move |e| Refusal::Step { step, why: e.to_string() }
}

/// One thing that was tried after the drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What was tried.
    pub what: String,
    /// Whether the kernel refused it.
    pub refused: bool,
    /// Its answer.
    pub answer: String,
}

impl Proof {
    fn of(what: &str, answer: Result<(), Errno>, want: Option<Errno>) -> Proof {
        let refused = match (answer, want) {
            (Err(e), Some(want)) => e == want,
            (Err(_), None) => true,
            (Ok(()), _) => false,
        };
        let answer = match answer {
            Ok(()) => "done".to_owned(),
            Err(e) => e.to_string(),
        };
        Proof { what: what.to_owned(), refused, answer }
    }
}

/// Whether this thread may use a capability now.
pub fn holds(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// First act: become a user of our own if we are user 0, and hold nothing that is not needed.
///
/// Before any thread exists: capabilities are a thread's, and threads inherit them.
pub fn assume() -> Result<(), Refusal> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(step("reading capabilities"))?;
    let wanted: CapsHashSet = TO_START.into_iter().chain(TO_KEEP).filter(|c| permitted.contains(c)).collect();
    // Nothing is ever executed again, so nothing has to survive an exec. Without SETPCAP this is the starter's to do.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(step("raising SETPCAP"))?;
        for capability in caps::all() {
            if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability).map_err(step("cutting the bounding set"))?;
            }
        }
    }
    if geteuid().is_root() {
        leave_root(&permitted)?;
    }
    caps::clear(None, CapSet::Ambient).map_err(step("clearing ambient capabilities"))?;
    keep(&wanted)?;
    prctl::set_no_new_privs().map_err(step("setting no_new_privs"))?;
    // No core file with other processes' stacks in it, and no debugger under the same uid.
    prctl::set_dumpable(false).map_err(step("closing the process to debuggers"))
}

fn leave_root(permitted: &CapsHashSet) -> Result<(), Refusal> {
    let missing: Vec<String> = TO_CHANGE.iter().filter(|c| !permitted.contains(c)).map(Capability::to_string).collect();
    if !missing.is_empty() {
        return Err(Refusal::Root { missing: missing.join(" and ") });
    }
    for capability in TO_CHANGE {
        caps::raise(None, CapSet::Effective, capability).map_err(step("raising SETUID and SETGID"))?;
    }
    prctl::set_keepcaps(true).map_err(step("keeping capabilities over a change of user"))?;
    let (group, user) = (Gid::from_raw(0), Uid::from_raw(PROBE_UID));
    // Group 0 reads log files that are root's and 0640.
    setgroups(&[group]).map_err(step("leaving all groups but 0"))?;
    setresgid(group, group, group).map_err(step("taking group 0"))?;
    setresuid(user, user, user).map_err(step("taking the probe's user id"))?;
    prctl::set_keepcaps(false).map_err(step("ending the keeping of capabilities"))
}

/// Holds exactly `wanted`.
fn keep(wanted: &CapsHashSet) -> Result<(), Refusal> {
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Effective, &none).map_err(step("clearing effective capabilities"))?;
    caps::set(None, CapSet::Inheritable, &none).map_err(step("clearing inheritable capabilities"))?;
    caps::set(None, CapSet::Permitted, wanted).map_err(step("reducing permitted capabilities"))?;
    caps::set(None, CapSet::Effective, wanted).map_err(step("reducing effective capabilities"))
}

/// After everything is loaded and attached: BPF and PERFMON leave. Before any thread exists.
pub fn drop() -> Result<(), Refusal> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(step("reading capabilities"))?;
    keep(&TO_KEEP.into_iter().filter(|c| permitted.contains(c)).collect())
}

/// Tries what must be refused to a process that dropped its capabilities, whether or not a filter stands before the calls.
pub fn prove_drop() -> Vec<Proof> {
    let mut proofs: Vec<Proof> = TO_START
        .into_iter()
        .map(|c| {
            let refused = caps::raise(None, CapSet::Effective, c).is_err() && !holds(c);
            let answer = if refused { "EPERM" } else { "done" }.to_owned();
            Proof { what: format!("raising {c}"), refused, answer }
        })
        .collect();
    proofs.push(Proof::of("bpf(MAP_CREATE)", sys::try_map_create(), Some(Errno::EPERM)));
    let root =
        |r: nix::Result<nix::unistd::ResUid>| r.map(|r| [r.real, r.effective, r.saved].iter().any(|u| u.is_root()));
    let is_root = root(getresuid()).unwrap_or(true);
    let answer = if is_root { "it is" } else { "no" }.to_owned();
    proofs.push(Proof { what: "being user 0".into(), refused: !is_root, answer });
    // Where pid 1 is this process (a pid namespace of our own), its memory is ours to read.
    if std::process::id() != 1 {
        for path in ["/proc/1/mem", "/proc/1/root/etc/shadow"] {
            let answer = File::open(path).map(|_| ()).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)));
            proofs.push(Proof::of(&format!("opening {path}"), answer, None));
        }
    }
    proofs
}

/// Tries what the filter must refuse, whatever the privileges.
pub fn prove_filter() -> Vec<Proof> {
    vec![
        Proof::of("execve", sys::try_exec(), Some(Errno::EPERM)),
        Proof::of("perf_event_open", sys::try_perf_event(), Some(Errno::EPERM)),
        Proof::of("bpf(MAP_CREATE) under the filter", sys::try_map_create(), Some(Errno::EPERM)),
        Proof::of(
            "socket",
            std::net::UdpSocket::bind(("127.0.0.1", 0))
                .map(|_| ())
                .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))),
            Some(Errno::EPERM),
        ),
    ]
}

/// The first thing that was not refused ends the start.
pub fn insist(proofs: &[Proof]) -> Result<(), Refusal> {
    match proofs.iter().find(|p| !p.refused) {
        None => Ok(()),
        Some(p) => Err(Refusal::Open { what: p.what.clone(), answer: p.answer.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_as_refused_only_with_the_error_that_says_so() {
        assert!(Proof::of("x", Err(Errno::EPERM), Some(Errno::EPERM)).refused);
        assert!(!Proof::of("x", Err(Errno::ENOENT), Some(Errno::EPERM)).refused, "exec of nothing proves nothing");
        assert!(Proof::of("x", Err(Errno::EACCES), None).refused);
        assert!(!Proof::of("x", Ok(()), None).refused);
    }

    #[test]
    fn one_open_door_ends_the_start_and_is_named() {
        let shut = Proof { what: "a".into(), refused: true, answer: "EPERM".into() };
        let open = Proof { what: "raising CAP_BPF".into(), refused: false, answer: "done".into() };
        assert!(insist(std::slice::from_ref(&shut)).is_ok());
        let why = insist(&[shut, open]).expect_err("not refused").to_string();
        assert!(why.contains("raising CAP_BPF was not refused (done)"), "{why}");
    }
}
