//! The calls that no crate wraps: a socket handed over by number, and calls that are made in order to be refused.
//!
//! Why unsafe: systemd hands its socket over as "descriptor 3", which has no type until somebody claims it; and the proof of
//! the drop makes raw calls (`bpf`, `perf_event_open`, `execve`) whose whole purpose is the error they return. Each is one
//! call with constant arguments; nothing they would create is used, and what they might create is closed.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// First descriptor of systemd's socket activation (`SD_LISTEN_FDS_START`).
const LISTEN_FD: i32 = 3;

/// Descriptor 3, when `LISTEN_PID` and `LISTEN_FDS` say that systemd left a socket there for this process. Once only.
pub(crate) fn inherited_socket() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return None;
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: by the protocol of LISTEN_FDS the descriptor is open and belongs to this process alone; TAKEN sees to it that
    // it is owned once.
    Some(unsafe { OwnedFd::from_raw_fd(LISTEN_FD) })
}

/// What the kernel answers to a call that should be refused.
fn answer(rc: libc::c_long) -> Result<(), Errno> {
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Owns the descriptor of a call that was not refused, so that it is closed.
fn close(rc: libc::c_long) {
    if let Ok(fd @ 0..) = i32::try_from(rc) {
        // SAFETY: the kernel just gave this descriptor to us and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Asks for a BPF map of a type that needs CAP_BPF whatever `unprivileged_bpf_disabled` says.
pub(crate) fn try_map_create() -> Result<(), Errno> {
    const MAP_CREATE: libc::c_long = 0;
    const LRU_HASH: u32 = 9;
    // union bpf_attr, its first members: map_type, key_size, value_size, max_entries; the rest zero.
    let mut attr = [0u32; 32];
    attr[..4].copy_from_slice(&[LRU_HASH, 4, 4, 1]);
    // SAFETY: the kernel reads `size_of_val(&attr)` bytes from an owned array and writes nothing.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    let answer = answer(rc);
    close(rc);
    answer
}

/// Asks to sample every process of CPU 0.
pub(crate) fn try_perf_event() -> Result<(), Errno> {
    const ATTR_BYTES: u32 = 64; // PERF_ATTR_SIZE_VER0
    const SOFTWARE: u32 = 1; // PERF_TYPE_SOFTWARE; config 0: PERF_COUNT_SW_CPU_CLOCK
    let mut attr = [0u32; ATTR_BYTES as usize / 4];
    (attr[0], attr[1]) = (SOFTWARE, ATTR_BYTES);
    // SAFETY: the kernel reads ATTR_BYTES bytes from an owned array of that size.
    let rc = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 0) };
    let answer = answer(rc);
    close(rc);
    answer
}

/// Asks to become a program that does not exist: ENOENT where exec is allowed, EPERM under the filter.
pub(crate) fn try_exec() -> Result<(), Errno> {
    let nothing: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: the path is a constant C string below a device, which cannot be a folder, so the call cannot succeed; both
    // lists hold their terminating null only.
    let rc = unsafe { libc::execve(c"/dev/null/nothing".as_ptr(), nothing.as_ptr(), nothing.as_ptr()) };
    answer(rc.into())
}
