//! The probe about itself: what the kernel says it may do, and what it costs.
//!
//! Like a nurse who measures instead of asking: capabilities, user, seccomp mode are read back from `/proc/self/status`, never
//! repeated from what we meant to set. The weakness: that file shows the first thread; the others inherited its sets because
//! they were started after the drop.

use ipc::{Caps, Status};
use nix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Page size of every machine we build for.
const PAGE_BYTES: u64 = 4096;

/// Nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Brings the fields about the process up to date. What cannot be read keeps its last value.
pub fn refresh(status: &mut Status) {
    if let Ok(text) = std::fs::read_to_string("/proc/self/status") {
        privileges(&text, status);
    }
    if let Ok(text) = std::fs::read_to_string("/proc/self/statm")
        && let Some(pages) = text.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok())
    {
        status.rss_bytes = pages * PAGE_BYTES;
    }
    if let Ok(t) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
        status.cpu_ns =
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0);
    }
}

fn privileges(text: &str, status: &mut Status) {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim();
    let mask = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
    // Real, effective, saved, filesystem: the effective one is what counts.
    let id = |name: &str| field(name).split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    status.caps = Caps {
        effective: mask("CapEff"),
        permitted: mask("CapPrm"),
        inheritable: mask("CapInh"),
        ambient: mask("CapAmb"),
        bounding: mask("CapBnd"),
    };
    status.no_new_privs = field("NoNewPrivs") == "1";
    status.seccomp = field("Seccomp").parse().unwrap_or(0);
    (status.uid, status.gid) = (id("Uid"), id("Gid"));
    status.groups = field("Groups").split_whitespace().filter_map(|g| g.parse().ok()).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_becomes_numbers() {
        let mut status = Status::default();
        let text = "Name:\tprobe\nUid:\t1\t62474\t3\t4\nGid:\t0\t0\t0\t0\nGroups:\t0 4 \nCapInh:\t0\nCapPrm:\t0000000000080000\n\
                    CapEff:\t0000000000080000\nCapBnd:\t000000c000080000\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        privileges(text, &mut status);
        assert_eq!((status.uid, status.gid, status.groups.as_slice()), (62_474, 0, &[0, 4][..]));
        assert_eq!((status.caps.effective, status.caps.bounding), (1 << 19, 0xc0_0008_0000));
        assert!(status.no_new_privs);
        assert_eq!(status.seccomp, 2);
    }

    #[test]
    fn a_set_that_cannot_be_read_counts_as_full() {
        let mut status = Status::default();
        privileges("nothing of the kind", &mut status);
        assert_eq!(status.caps.effective, u64::MAX);
        assert!(!status.no_new_privs);
    }

    #[test]
    fn this_process_has_a_size_and_a_cost() {
        let mut status = Status::default();
        refresh(&mut status);
        assert!(status.rss_bytes > 100_000 && status.cpu_ns > 0);
        assert_eq!(status.uid, nix::unistd::geteuid().as_raw());
    }
}
