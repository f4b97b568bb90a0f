//! Disks and network interfaces: one row of counters a device.
//!
//! Two tables of the kernel, turned on their side: a column becomes a family, a line becomes a series of each. Devices that
//! node-exporter leaves out are left out here: partitions, RAM and loop disks, and the loopback interface. Weakness: the number of
//! devices is bounded, and those beyond are not said one by one.

use super::Page;
use super::files::{Root, Unread, malformed, number};
use model::series::Type::{self, Counter, Gauge};

/// Devices of one table that become series.
const DEVICES_MAX: usize = 1024;
/// Bytes of a sector of `/proc/diskstats`, whatever the disk's own.
const SECTOR_BYTES: f64 = 512.0;
/// Seconds of its unit of time.
const MILLISECOND: f64 = 0.001;

/// Column after the device's name, family, kind, factor, help.
type Column = (usize, &'static str, Type, f64, &'static str);

const DISK: [Column; 17] = [
    (0, "reads_completed_total", Counter, 1.0, "The total number of reads completed successfully."),
    (1, "reads_merged_total", Counter, 1.0, "The total number of reads merged."),
    (2, "read_bytes_total", Counter, SECTOR_BYTES, "The total number of bytes read successfully."),
    (3, "read_time_seconds_total", Counter, MILLISECOND, "The total number of seconds spent by all reads."),
    (4, "writes_completed_total", Counter, 1.0, "The total number of writes completed successfully."),
    (5, "writes_merged_total", Counter, 1.0, "The number of writes merged."),
    (6, "written_bytes_total", Counter, SECTOR_BYTES, "The total number of bytes written successfully."),
    (7, "write_time_seconds_total", Counter, MILLISECOND, "This is the total number of seconds spent by all writes."),
    (8, "io_now", Gauge, 1.0, "The number of I/Os currently in progress."),
    (9, "io_time_seconds_total", Counter, MILLISECOND, "Total seconds spent doing I/Os."),
    (10, "io_time_weighted_seconds_total", Counter, MILLISECOND, "The weighted # of seconds spent doing I/Os."),
    (11, "discards_completed_total", Counter, 1.0, "The total number of discards completed successfully."),
    (12, "discards_merged_total", Counter, 1.0, "The total number of discards merged."),
    (13, "discarded_sectors_total", Counter, 1.0, "The total number of sectors discarded successfully."),
    (
        14,
        "discard_time_seconds_total",
        Counter,
        MILLISECOND,
        "This is the total number of seconds spent by all discards.",
    ),
    (15, "flush_requests_total", Counter, 1.0, "The total number of flush requests completed successfully"),
    (
        16,
        "flush_requests_time_seconds_total",
        Counter,
        MILLISECOND,
        "This is the total number of seconds spent by all flush requests.",
    ),
];

pub(super) fn disks(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("diskstats")?;
    let mut rows = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let device = words.next().ok_or_else(|| malformed("diskstats", "device on a line"))?;
        if is_part_or_memory(device) || rows.len() == DEVICES_MAX {
            continue;
        }
        let numbers: Option<Vec<f64>> = words.map(number).collect();
        let numbers =
            numbers.filter(|numbers| numbers.len() >= 11).ok_or_else(|| malformed("diskstats", "counters"))?;
        rows.push((device.to_owned(), numbers));
    }
    for (at, family, kind, factor, help) in DISK {
        let name = format!("node_disk_{family}");
        // Kernels before 4.18 and 5.5 have fewer columns.
        let there: Vec<_> = rows.iter().filter_map(|(device, numbers)| Some((device, numbers.get(at)?))).collect();
        if !there.is_empty() {
            page.family(&name, kind, help);
        }
        there.into_iter().for_each(|(device, value)| page.row(&name, &[("device", device)], value * factor));
    }
    Ok(())
}

/// node-exporter's `^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`.
fn is_part_or_memory(device: &str) -> bool {
    let stem = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == device.len() {
        return false;
    }
    let disk = ["hd", "sd", "vd", "xvd"].into_iter().filter_map(|kind| stem.strip_prefix(kind));
    let letter = |rest: &str| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_lowercase());
    let nvme = |rest: &str| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        rest.split_once('n').is_some_and(|(controller, space)| digits(controller) && digits(space))
    };
    matches!(stem, "ram" | "loop" | "fd")
        || disk.into_iter().any(letter)
        || stem.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')).is_some_and(nvme)
}

const RECEIVED: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast"];
const SENT: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed"];

pub(super) fn network(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let text = root.read("net/dev")?;
    let mut rows = Vec::new();
    for line in text.lines().skip(2) {
        // A name may hold a colon, a number may not.
        let (device, numbers) = line.rsplit_once(':').ok_or_else(|| malformed("net/dev", "interface on a line"))?;
        let numbers: Option<Vec<f64>> = numbers.split_ascii_whitespace().map(number).collect();
        let numbers = numbers.filter(|numbers| numbers.len() >= 16).ok_or_else(|| malformed("net/dev", "counters"))?;
        if device.trim() != "lo" && rows.len() < DEVICES_MAX {
            rows.push((device.trim().to_owned(), numbers));
        }
    }
    let columns =
        RECEIVED.iter().map(|part| format!("receive_{part}")).chain(SENT.iter().map(|part| format!("transmit_{part}")));
    for (at, column) in columns.enumerate() {
        let name = format!("node_network_{column}_total");
        page.family(&name, Counter, &format!("Network device statistic {column}."));
        for (device, numbers) in &rows {
            page.row(&name, &[("device", device)], numbers.get(at).copied().unwrap_or(0.0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_part_or_memory;

    #[test]
    fn partitions_and_memory_disks_are_left_out_and_disks_are_not() {
        for device in ["sda1", "vda15", "xvdb2", "hdc9", "loop0", "ram12", "fd0", "nvme0n1p3", "nvme10n2p11"] {
            assert!(is_part_or_memory(device), "{device}");
        }
        for device in ["sda", "vda", "nvme0n1", "dm-0", "md127", "sr0", "zram0", "mmcblk0p1", "sdaa1", "nvme0c0n1", "7"]
        {
            assert!(!is_part_or_memory(device), "{device}");
        }
    }
}
