//! The filter: the calls that are left once everything is set up, each with its reason.
//!
//! Like the rules on a submarine's hatch: what is not on the list does not open, from inside as little as from outside. The
//! list is data ([`CALLS`]); the default answer is EPERM, so a forgotten call shows as an error with a name in the log and not
//! as a dead process. Laid over all threads at once, after the last thread was started: neither fork, exec, new thread, new
//! socket nor executable memory exists behind it. The weakness: a filter sees numbers, not paths; which files may be opened
//! is the business of user id, groups and modes.

use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// What of a call is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// All of it.
    Any,
    /// With one of these values in this argument (32 bits).
    Arg(u8, &'static [u64]),
    /// Without PROT_EXEC in this argument.
    NoExec(u8),
    /// With our own process id in this argument.
    OwnPid(u8),
}

/// One line of the list.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Number on this architecture.
    pub number: c_long,
    /// Name.
    pub name: &'static str,
    /// What of it.
    pub only: Only,
    /// Who needs it, for what.
    pub why: &'static str,
}

macro_rules! calls {
    ($($name:ident $only:expr, $why:literal;)*) => {
        &[$(Call { number: libc::$name, name: stringify!($name), only: $only, why: $why }),*]
    };
}

/// `PROCMAP_QUERY`: one mapping of `/proc/PID/maps` with its build id, without text.
const PROCMAP_QUERY: u64 = 0xc068_6611;
/// `PERF_EVENT_IOC_PERIOD`: thins the sampling rate.
const PERF_EVENT_IOC_PERIOD: u64 = 0x4008_2404;
/// `PERF_EVENT_IOC_ENABLE` and `_DISABLE`.
const PERF_EVENT_IOC_ENABLE: u64 = 0x2400;
const PERF_EVENT_IOC_DISABLE: u64 = 0x2401;
/// `FIONBIO`: how the standard library makes a socket non-blocking.
const FIONBIO: u64 = 0x5421;

/// Commands of `bpf` on descriptors we hold: look up, update, delete, next key, object info.
const BPF_ELEMENTS: &[u64] = &[1, 2, 3, 4, 15];
const IOCTLS: &[u64] = &[PROCMAP_QUERY, PERF_EVENT_IOC_PERIOD, PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE, FIONBIO];
/// `PR_SET_NAME` and `PR_SET_VMA`: a thread that has just started names itself, the allocator names its memory.
const PRCTLS: &[u64] = &[15, 0x5356_4d41];

use Only::{Any, Arg, NoExec, OwnPid};

/// The list for every architecture.
pub const CALLS: &[Call] = calls! {
    SYS_read Any, "files, eventfd, signalfd, inotify";
    SYS_readv Any, "files";
    SYS_pread64 Any, "log files at an offset";
    SYS_write Any, "the door, eventfd, stderr, positions";
    SYS_writev Any, "stderr";
    SYS_pwrite64 Any, "positions";
    SYS_sendto Any, "the door; requests to the nursery";
    SYS_sendmsg Any, "the door; a read-only descriptor to the nursery";
    SYS_recvfrom Any, "answers of the nursery";
    SYS_recvmsg Any, "durable numbers, with room for no descriptor";
    SYS_accept4 Any, "the gateway";
    SYS_getsockopt Any, "who the gateway is";
    SYS_getsockname Any, "who the gateway is";
    SYS_shutdown Any, "the door";
    SYS_close Any, "everything that was opened";
    SYS_pipe2 Any, "one for each question to a parser";
    SYS_openat Any, "/proc/PID, log folders, positions";
    SYS_openat2 Any, "log files, beneath their root only";
    SYS_newfstatat Any, "log files";
    SYS_fstat Any, "log files, executables";
    SYS_statx Any, "log files: birth time";
    SYS_readlinkat Any, "/proc/PID/exe, ns";
    SYS_faccessat Any, "/proc/PID";
    SYS_getdents64 Any, "log folders, /proc";
    SYS_lseek Any, "files";
    SYS_fcntl Any, "descriptors";
    SYS_dup Any, "descriptors";
    SYS_fsync Any, "positions";
    SYS_fdatasync Any, "positions";
    SYS_ftruncate Any, "positions";
    SYS_renameat Any, "positions";
    SYS_renameat2 Any, "positions";
    SYS_unlinkat Any, "positions";
    SYS_flock Any, "the state folder";
    SYS_inotify_add_watch Any, "log folders";
    SYS_inotify_rm_watch Any, "log folders";
    SYS_ppoll Any, "every thread waits in it";
    SYS_epoll_ctl Any, "ring buffers";
    SYS_epoll_pwait Any, "ring buffers";
    SYS_futex Any, "locks";
    SYS_nanosleep Any, "waiting";
    SYS_clock_nanosleep Any, "waiting";
    SYS_clock_gettime Any, "time, where the vDSO does not answer";
    SYS_clock_getres Any, "time";
    SYS_gettimeofday Any, "time, where the vDSO does not answer";
    SYS_sched_yield Any, "locks";
    SYS_sched_getaffinity Any, "number of CPUs; a thread that has just started";
    SYS_getrandom Any, "hash seeds";
    SYS_brk Any, "memory";
    SYS_mmap NoExec(2), "memory, ring buffers, row tables; never executable";
    SYS_mprotect NoExec(2), "memory; never executable";
    SYS_munmap Any, "memory";
    SYS_mremap Any, "memory";
    SYS_madvise Any, "memory";
    SYS_bpf Arg(0, BPF_ELEMENTS), "elements of maps that exist; no new map, no new program";
    SYS_ioctl Arg(1, IOCTLS), "one mapping of a process; the sampling rate; non-blocking sockets";
    SYS_prctl Arg(0, PRCTLS), "names of threads and memory";
    SYS_capget Any, "own capabilities, for Status";
    SYS_getpid Any, "messages";
    SYS_gettid Any, "messages";
    SYS_getuid Any, "Status";
    SYS_geteuid Any, "Status";
    SYS_getgid Any, "Status";
    SYS_getegid Any, "Status";
    SYS_getgroups Any, "Status";
    SYS_uname Any, "Hello";
    SYS_sysinfo Any, "memory";
    SYS_getrusage Any, "own cost, for Status";
    SYS_wait4 Any, "the nursery's end";
    SYS_waitid Any, "the nursery's end";
    SYS_pidfd_open Any, "whether a process is still the same";
    SYS_rt_sigaction Any, "signals";
    SYS_rt_sigprocmask Any, "signals";
    SYS_rt_sigreturn Any, "signals";
    SYS_rt_sigtimedwait Any, "signals";
    SYS_sigaltstack Any, "a thread that has just started, or ends";
    SYS_set_robust_list Any, "a thread that has just started";
    SYS_rseq Any, "a thread that has just started";
    SYS_restart_syscall Any, "waits that a signal interrupted";
    SYS_tgkill OwnPid(0), "abort";
    SYS_exit Any, "a thread's end";
    SYS_exit_group Any, "the end";
};

/// Calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
pub const CALLS_OF_ARCH: &[Call] = calls! {
    SYS_poll Any, "every thread waits in it";
    SYS_epoll_wait Any, "ring buffers";
    SYS_open Any, "older C libraries";
    SYS_stat Any, "older C libraries";
    SYS_lstat Any, "older C libraries";
    SYS_readlink Any, "/proc/PID/exe, ns";
    SYS_access Any, "/proc/PID";
    SYS_rename Any, "positions";
    SYS_unlink Any, "positions";
    SYS_time Any, "time, where the vDSO does not answer";
};

/// Calls that only this architecture has.
#[cfg(not(target_arch = "x86_64"))]
pub const CALLS_OF_ARCH: &[Call] = &[];

fn rules(call: &Call) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let one = |arg, op, value| {
        SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value).and_then(|c| SeccompRule::new(vec![c]))
    };
    match call.only {
        Any => Ok(vec![]),
        Arg(arg, values) => values.iter().map(|v| one(arg, SeccompCmpOp::Eq, *v)).collect(),
        // PROT_EXEC is a positive constant.
        NoExec(arg) => Ok(vec![one(arg, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?]),
        OwnPid(arg) => Ok(vec![one(arg, SeccompCmpOp::Eq, u64::from(std::process::id()))?]),
    }
}

/// The list as a BPF program for this machine.
fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut all: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().chain(CALLS_OF_ARCH) {
        all.insert(call.number, rules(call)?);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(all, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Lays the filter over every thread of this process, for good. Wants `no_new_privs`.
pub fn apply() -> Result<(), String> {
    let program = program().map_err(|e| format!("the list of calls does not compile: {e}"))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| format!("the kernel does not take the filter: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_call_stands_on_the_list_once_with_a_reason() {
        let all: Vec<&Call> = CALLS.iter().chain(CALLS_OF_ARCH).collect();
        let numbers: BTreeSet<c_long> = all.iter().map(|c| c.number).collect();
        assert_eq!(numbers.len(), all.len());
        assert!(all.iter().all(|c| !c.why.is_empty() && c.name.starts_with("SYS_")));
        let program = program().expect("compiles");
        assert!(program.len() < 1000, "{} instructions", program.len());
    }

    #[test]
    fn what_would_start_load_or_reach_something_new_is_not_on_the_list() {
        let numbers: BTreeSet<c_long> = CALLS.iter().chain(CALLS_OF_ARCH).map(|c| c.number).collect();
        for forbidden in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_perf_event_open,
            libc::SYS_capset,
            libc::SYS_setresuid,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_kill,
            libc::SYS_memfd_create,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_chroot,
            libc::SYS_init_module,
            libc::SYS_pkey_mprotect,
        ] {
            assert!(!numbers.contains(&forbidden), "call {forbidden}");
        }
    }
}
