//! `probe doctor`: what this machine and this user offer, what is needed, and the line that gets the rest.
//!
//! Like a pilot's check before take-off: every item is looked at, none is assumed, and the list is the same whether things are
//! well or not. The same rows turn features off at a start, so the two never disagree. The weakness: it looks with the rights
//! it was started with; run it the way the probe runs.

use crate::config::{Logs, Options};
use crate::privilege;
use caps::{CapSet, Capability};
use nix::unistd::{AccessFlags, access, getegid, geteuid, getgroups};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Oldest kernel with every helper the unwinder uses (`bpf_loop`).
const KERNEL_MIN: (u32, u32) = (5, 17);
/// Highest `perf_event_paranoid` at which PERFMON is enough.
const PARANOID_MAX: i32 = 2;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// What is there.
    pub found: String,
    /// What is needed.
    pub needed: &'static str,
    /// How to get there; empty when it is there.
    pub fix: String,
    /// Whether it is there.
    pub ok: bool,
}

impl Check {
    fn new(check: &'static str, ok: bool, found: impl Into<String>, needed: &'static str, fix: &str) -> Check {
        Check { check, ok, found: found.into(), needed, fix: if ok { String::new() } else { fix.to_owned() } }
    }
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// All rows.
pub fn checks(options: &Options) -> Vec<Check> {
    let mut rows = machine();
    rows.extend(capabilities());
    rows.push(groups());
    if let Some(logs) = &options.logs {
        rows.extend(log_folders(logs));
    }
    rows.push(folder("state folder", &options.state, "a folder this user may write"));
    rows.push(match std::env::var_os("LISTEN_FDS") {
        Some(_) => Check::new("socket", true, "from systemd", "from systemd, or a folder this user may write", ""),
        None => {
            let parent = options.socket.parent().unwrap_or(Path::new("/"));
            folder("socket", parent, "from systemd, or a folder this user may write")
        }
    });
    rows
}

fn machine() -> Vec<Check> {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let paranoid = text("/proc/sys/kernel/perf_event_paranoid");
    let level = paranoid.as_deref().and_then(|p| p.parse::<i32>().ok());
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    let actions = text("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    vec![
        Check::new(
            "kernel",
            version(&release).is_some_and(|v| v >= KERNEL_MIN),
            release,
            "5.17 or newer",
            "boot a newer kernel; log files work on this one",
        ),
        Check::new(
            "cpu architecture",
            cfg!(target_arch = "x86_64"),
            std::env::consts::ARCH,
            "x86_64 for unwind tables",
            "none: frame pointers are followed instead",
        ),
        Check::new(
            "kernel type information (BTF)",
            btf,
            if btf { "/sys/kernel/btf/vmlinux" } else { "no /sys/kernel/btf/vmlinux" },
            "/sys/kernel/btf/vmlinux",
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution's is)",
        ),
        Check::new(
            "perf_event_paranoid",
            level.is_some_and(|l| l <= PARANOID_MAX),
            paranoid.unwrap_or_else(|| "no perf events in this kernel".into()),
            "2 or lower",
            "sysctl -w kernel.perf_event_paranoid=2",
        ),
        Check::new(
            "seccomp",
            actions.split(' ').any(|a| a == "errno"),
            if actions.is_empty() { "no filters in this kernel".into() } else { actions },
            "filters with errno",
            "boot a kernel built with CONFIG_SECCOMP_FILTER=y",
        ),
    ]
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn capabilities() -> Vec<Check> {
    const HOW: &str = "systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE; shell: setpriv --inh-caps and --ambient-caps \
                       +bpf,+perfmon,+sys_ptrace; container: add BPF PERFMON SYS_PTRACE SETUID SETGID SETPCAP";
    let row = |name, capability: Capability, needed| {
        let held = caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false);
        Check::new(name, held, if held { "held" } else { "not held" }, needed, HOW)
    };
    let mut rows = vec![
        row("capability BPF", Capability::CAP_BPF, "to load programs; dropped after the start"),
        row("capability PERFMON", Capability::CAP_PERFMON, "to sample all processes; dropped after the start"),
        row("capability SYS_PTRACE", Capability::CAP_SYS_PTRACE, "to open executables of other users"),
    ];
    if geteuid().is_root() {
        let can = [Capability::CAP_SETUID, Capability::CAP_SETGID].iter().all(|c| privilege::holds(*c));
        rows.push(Check::new(
            "user",
            can,
            "0",
            "not 0, or SETUID and SETGID to leave it",
            "start it under a user of its own, or add SETUID, SETGID and SETPCAP",
        ));
    } else {
        rows.push(Check::new("user", true, geteuid().to_string(), "not 0, or SETUID and SETGID to leave it", ""));
    }
    rows
}

fn groups() -> Check {
    let mut ids: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(|g| g.as_raw()).collect();
    ids.push(getegid().as_raw());
    ids.sort_unstable();
    ids.dedup();
    let adm = nix::unistd::Group::from_name("adm").ok().flatten().map(|g| g.gid.as_raw());
    let ok = ids.contains(&0) || adm.is_some_and(|a| ids.contains(&a));
    let found = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    Check::new(
        "groups",
        ok,
        found,
        "0 (and adm) to read log files",
        "setpriv --groups 0,adm; systemd: SupplementaryGroups=root adm",
    )
}

fn log_folders(logs: &Logs) -> Vec<Check> {
    logs.roots.iter().map(|root| log_folder(root)).collect()
}

fn log_folder(root: &Path) -> Check {
    const NEEDED: &str = "a folder this user may read";
    // Asked for by nobody: a machine without pods has none, and one that comes later is found.
    if root == Path::new(crate::config::LOG_ROOT) && !root.exists() {
        return Check::new("log folder", true, format!("no {} (no pods here)", root.display()), NEEDED, "");
    }
    let readable = access(root, AccessFlags::R_OK | AccessFlags::X_OK);
    let found = match readable {
        Ok(()) => root.display().to_string(),
        Err(e) => format!("{}: {}", root.display(), e.desc()),
    };
    Check::new(
        "log folder",
        readable.is_ok(),
        found,
        NEEDED,
        "give the probe group 0, or name another folder with --log-root",
    )
}

/// A folder that exists and is writable, or whose nearest existing ancestor is.
fn folder(check: &'static str, path: &Path, needed: &'static str) -> Check {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let ok = access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    let found = match (ok, there == path) {
        (true, true) => path.display().to_string(),
        (true, false) => format!("{} (will be made)", path.display()),
        (false, _) => format!("{}: not writable", there.display()),
    };
    let fix = format!("install -d -m 0755 -o {} {}", geteuid(), path.display());
    Check::new(check, ok, found, needed, &fix)
}

/// Why CPU profiles cannot work here: the rows that say so, with their fixes; empty if they can.
pub fn against_cpu() -> String {
    const FOR_CPU: [&str; 5] =
        ["kernel", "kernel type information (BTF)", "perf_event_paranoid", "capability BPF", "capability PERFMON"];
    let rows = machine().into_iter().chain(capabilities()).filter(|c| !c.ok && FOR_CPU.contains(&c.check));
    rows.map(|c| format!("{}: {} (needed: {}): {}", c.check, c.found, c.needed, c.fix)).collect::<Vec<_>>().join("; ")
}

/// The table for people.
pub fn table(rows: &[Check]) -> String {
    let mut out = String::new();
    let width = |f: fn(&Check) -> usize| rows.iter().map(f).max().unwrap_or(0).min(48);
    let (name, found) = (width(|c| c.check.len()), width(|c| c.found.len()));
    for c in rows {
        let mark = if c.ok { "ok     " } else { "missing" };
        let _ = writeln!(out, "{mark}  {:name$}  {:found$}  {}", c.check, c.found, c.needed);
        if !c.ok {
            let _ = writeln!(out, "         -> {}", c.fix);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_numbers() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.17"), Some((5, 17)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn every_missing_row_says_what_to_do_and_every_row_is_printed() {
        let options = crate::config::load(&crate::cli::Flags {
            state: Some("/proc/nowhere".into()),
            socket: Some("/proc/nowhere/x.sock".into()),
            log_root: vec!["/nowhere".into()],
            ..Default::default()
        })
        .expect("fine");
        let rows = checks(&options);
        let names: Vec<_> = rows.iter().map(|c| c.check).collect();
        for want in
            ["kernel", "perf_event_paranoid", "capability SYS_PTRACE", "groups", "log folder", "state folder", "socket"]
        {
            assert!(names.contains(&want), "{want}");
        }
        let missing: Vec<_> = rows.iter().filter(|c| !c.ok).collect();
        assert!(missing.iter().any(|c| c.check == "log folder"));
        assert!(missing.iter().all(|c| !c.fix.is_empty() && !c.found.is_empty()));
        let table = table(&rows);
        assert!(rows.iter().all(|c| table.contains(c.check)));
    }
}
