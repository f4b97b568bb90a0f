//! What the kernel says of itself: processors, memory, load, pressure, counters.
//!
//! Each function is one of node-exporter's collectors: it reads its file, understands it whole, and only then writes rows.
//! Weakness: names and units were learnt from node-exporter 1.5; what a later one renames is found by the comparing test alone.

use super::Page;
use super::files::{Root, Unread, malformed, number};
use model::series::Type::{Counter, Gauge, Unknown};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks of `/proc/stat` in a second; Linux shows this unit to programs whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a unit of `/proc/meminfo`.
const KIB: f64 = 1024.0;
/// Most fields of one file that become series.
const FIELDS_MAX: usize = 512;

pub(super) fn cpu(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
    let text = root.read("stat")?;
    let mut cpus = Vec::new();
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut words = line.split_ascii_whitespace();
        let cpu = words.next().and_then(|word| word.strip_prefix("cpu")).unwrap_or_default();
        let times: Option<Vec<f64>> = words.map(|word| Some(number(word)? / TICKS_PER_SECOND)).collect();
        let times = times.filter(|times| times.len() >= 4).ok_or_else(|| malformed("stat", "processor times"))?;
        if !cpu.is_empty() {
            cpus.push((cpu.to_owned(), times));
        }
    }
    if cpus.is_empty() {
        return Err(malformed("stat", "processor"));
    }
    let (all, guest) = ("node_cpu_seconds_total", "node_cpu_guest_seconds_total");
    page.family(all, Counter, "Seconds the CPUs spent in each mode.");
    page.family(guest, Counter, "Seconds the CPUs spent in guests (VMs) for each mode.");
    for (cpu, times) in &cpus {
        let time = |at: usize| times.get(at).copied().unwrap_or(0.0);
        for (at, mode) in MODES.into_iter().enumerate() {
            page.row(all, &[("cpu", cpu), ("mode", mode)], time(at));
        }
        for (at, mode) in [(8, "user"), (9, "nice")] {
            page.row(guest, &[("cpu", cpu), ("mode", mode)], time(at));
        }
    }
    Ok(())
}

pub(super) fn stat(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let rows = [
        ("btime", "node_boot_time_seconds", Gauge, "Node boot time, in unixtime."),
        ("ctxt", "node_context_switches_total", Counter, "Total number of context switches."),
        ("processes", "node_forks_total", Counter, "Total number of forks."),
        ("intr", "node_intr_total", Counter, "Total number of interrupts serviced."),
        ("procs_blocked", "node_procs_blocked", Gauge, "Number of processes blocked waiting for I/O to complete."),
        ("procs_running", "node_procs_running", Gauge, "Number of processes in runnable state."),
    ];
    let text = root.read("stat")?;
    let value = |key: &str| {
        let mut words =
            text.lines().map(str::split_ascii_whitespace).find(|words| words.clone().next() == Some(key))?;
        number(words.nth(1)?)
    };
    let mut values = Vec::new();
    for (key, name, kind, help) in rows {
        values.push((name, kind, help, value(key).ok_or_else(|| malformed("stat", key))?));
    }
    values.into_iter().for_each(|(name, kind, help, value)| page.one(name, kind, help, value));
    Ok(())
}

pub(super) fn load(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("loadavg")?;
    let loads: Option<Vec<f64>> = text.split_ascii_whitespace().take(3).map(number).collect();
    let loads = loads.filter(|loads| loads.len() == 3).ok_or_else(|| malformed("loadavg", "three averages"))?;
    for (minutes, value) in ["1", "5", "15"].into_iter().zip(loads) {
        page.one(&format!("node_load{minutes}"), Gauge, &format!("{minutes}m load average."), value);
    }
    Ok(())
}

pub(super) fn memory(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("meminfo")?;
    let mut fields = Vec::new();
    for line in text.lines().take(FIELDS_MAX) {
        let parsed = line.split_once(':').and_then(|(key, rest)| {
            let mut words = rest.split_ascii_whitespace();
            Some((key, number(words.next()?)?, words.next()))
        });
        let (key, value, unit) = parsed.ok_or_else(|| malformed("meminfo", "field and number on a line"))?;
        // `Active(anon)` is Active_anon.
        let key = key.replace('(', "_").replace(')', "");
        fields.push(match unit {
            Some(_) => (format!("{key}_bytes"), value * KIB),
            None => (key, value),
        });
    }
    if fields.is_empty() {
        return Err(malformed("meminfo", "field"));
    }
    for (field, value) in fields.iter().filter(|(field, _)| is_name(field)) {
        let (name, help) = (format!("node_memory_{field}"), format!("Memory information field {field}."));
        page.one(&name, Gauge, &help, *value);
    }
    Ok(())
}

/// May this be part of a metric's name?
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(super) fn vmstat(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("vmstat")?;
    let mut fields = Vec::new();
    let mut seen = BTreeSet::new();
    for (field, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let wanted = field.starts_with("oom_kill")
            || field.starts_with("pgpg")
            || field.starts_with("pswp")
            || (field.starts_with("pg") && field.contains("fault"));
        if wanted && is_name(field) && seen.insert(field) && fields.len() < FIELDS_MAX {
            fields.push((field, number(value.trim()).ok_or_else(|| malformed("vmstat", "number behind each field"))?));
        }
    }
    for (field, value) in fields {
        let help = format!("/proc/vmstat information field {field}.");
        page.one(&format!("node_vmstat_{field}"), Unknown, &help, value);
    }
    Ok(())
}

pub(super) fn pressure(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let rows = [
        ("cpu", "some", "cpu_waiting", "Total time in seconds that processes have waited for CPU time"),
        ("io", "some", "io_waiting", "Total time in seconds that processes have waited due to IO congestion"),
        ("io", "full", "io_stalled", "Total time in seconds no process could make progress due to IO congestion"),
        ("memory", "some", "memory_waiting", "Total time in seconds that processes have waited for memory"),
        (
            "memory",
            "full",
            "memory_stalled",
            "Total time in seconds no process could make progress due to memory congestion",
        ),
    ];
    let mut values = Vec::new();
    for (resource, line, part, help) in rows {
        let file = format!("pressure/{resource}");
        let text = root.read(&file)?;
        let micros = text
            .lines()
            .find_map(|text| {
                text.strip_prefix(line)?.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))
            })
            .and_then(number);
        let micros = micros.ok_or_else(|| malformed(&file, "total"))?;
        values.push((format!("node_pressure_{part}_seconds_total"), help, micros / 1e6));
    }
    values.into_iter().for_each(|(name, help, value)| page.one(&name, Counter, help, value));
    Ok(())
}

pub(super) fn file_descriptors(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("sys/fs/file-nr")?;
    let numbers: Vec<f64> = text.split_ascii_whitespace().filter_map(number).collect();
    let [allocated, _, maximum] = numbers[..] else { return Err(malformed("sys/fs/file-nr", "three numbers")) };
    page.one("node_filefd_allocated", Gauge, "File descriptor statistics: allocated.", allocated);
    page.one("node_filefd_maximum", Gauge, "File descriptor statistics: maximum.", maximum);
    Ok(())
}

pub(super) fn entropy(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let of = |file: &str| {
        let path = format!("sys/kernel/random/{file}");
        root.read(&path).and_then(|text| number(text.trim()).ok_or_else(|| malformed(&path, "number")))
    };
    let (available, size) = (of("entropy_avail")?, of("poolsize")?);
    page.one("node_entropy_available_bits", Gauge, "Bits of available entropy.", available);
    page.one("node_entropy_pool_size_bits", Gauge, "Bits of entropy pool.", size);
    Ok(())
}

pub(super) fn time(_: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    page.one("node_time_seconds", Gauge, "System time in seconds since epoch (1970).", now);
    Ok(())
}

pub(super) fn uname(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let of = |file: &str| root.read(&format!("sys/kernel/{file}")).map(|text| text.trim_end_matches('\n').to_owned());
    let texts = ["ostype", "osrelease", "version", "hostname", "domainname"].map(of);
    let [sysname, release, version, nodename, domainname] = texts;
    let labels = [
        ("sysname", &*sysname?),
        ("release", &*release?),
        ("version", &*version?),
        ("machine", std::env::consts::ARCH),
        ("nodename", &*nodename?),
        ("domainname", &*domainname?),
    ];
    page.family("node_uname_info", Gauge, "Labeled system information as provided by the uname system call.");
    page.row("node_uname_info", &labels, 1.0);
    Ok(())
}
