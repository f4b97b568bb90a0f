//! The two filters: what the nursery may still call, and what is left for a parser.
//!
//! Like two doors in a row. The nursery keeps process creation and nothing that opens or connects; a parser loses that too and
//! is ended by the first call that is not on its list. The weakness: both need memory, and memory can be used to misbehave slowly;
//! limits and the alarm bound that.

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// What a parser may call, and why.
const PARSER: &[(libc::c_long, &str)] = &[
    (libc::SYS_pread64, "the file"),
    (libc::SYS_fstat, "size and kind of the file"),
    (libc::SYS_newfstatat, "the same, as the C library asks it"),
    (libc::SYS_statx, "the same, as the standard library asks it"),
    (libc::SYS_write, "the answer"),
    (libc::SYS_close, "descriptors"),
    (libc::SYS_brk, "memory"),
    (libc::SYS_mremap, "memory"),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_madvise, "memory"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_getrandom, "seeds of hash tables"),
    (libc::SYS_sigaltstack, "the end of the process"),
    (libc::SYS_rt_sigaction, "the end of the process"),
    (libc::SYS_rt_sigprocmask, "the end of the process"),
    (libc::SYS_rt_sigreturn, "signals"),
    (libc::SYS_exit, "the end"),
    (libc::SYS_exit_group, "the end"),
];

/// What the nursery may call besides, and why.
const NURSERY: &[(libc::c_long, &str)] = &[
    (libc::SYS_recvmsg, "questions"),
    (libc::SYS_clone, "a parser"),
    (libc::SYS_wait4, "parsers that ended"),
    (libc::SYS_set_robust_list, "a process that has just started"),
    (libc::SYS_rseq, "a process that has just started"),
    (libc::SYS_gettid, "a process that has just started"),
    (libc::SYS_getpid, "a process that has just started"),
    (libc::SYS_getppid, "whether the probe is there"),
    (libc::SYS_prctl, "a parser's name and its end with the nursery"),
    (libc::SYS_prlimit64, "a parser's limits"),
    (libc::SYS_setrlimit, "a parser's limits"),
    (libc::SYS_setitimer, "a parser's alarm"),
    (libc::SYS_seccomp, "a parser's own filter"),
];

/// Memory that may be had, but never to be executed.
const NOT_EXECUTABLE: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

fn program(
    lists: &[&[(libc::c_long, &str)]],
    otherwise: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        lists.iter().flat_map(|l| l.iter()).map(|(call, _)| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    if lists.len() > 1 {
        rules.insert(libc::SYS_alarm, vec![]);
    }
    // The standard library, built for debugging, asks whether a descriptor is open before it closes it.
    let getfd = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
    rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![getfd])?]);
    for call in NOT_EXECUTABLE {
        let exec = libc::PROT_EXEC as u64;
        let only = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(exec), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![only])?]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

/// The nursery's filter: a call that is not on the list fails.
pub(super) fn lock_nursery() -> Result<(), String> {
    let filter = program(&[PARSER, NURSERY], SeccompAction::Errno(libc::EPERM as u32)).map_err(|e| e.to_string())?;
    seccompiler::apply_filter(&filter).map_err(|e| e.to_string())
}

/// A parser's filter: a call that is not on the list ends it.
pub(super) fn lock_parser() -> Result<(), String> {
    let filter = program(&[PARSER], SeccompAction::KillProcess).map_err(|e| e.to_string())?;
    seccompiler::apply_filter(&filter).map_err(|e| e.to_string())
}
