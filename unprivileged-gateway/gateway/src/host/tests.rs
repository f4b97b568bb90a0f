//! The host read from made-up files, and beside Debian's node-exporter on this machine.

use super::*;
use crate::telemetry::StatusSnapshot;
use model::series::{Part, parts};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `name{label="value",...}` to value; and names to types.
type Values = BTreeMap<String, f64>;
type Types = BTreeMap<String, &'static str>;

fn read(host: &Host) -> (Values, Types) {
    let mut writer = Writer::new(&[]);
    host.read(&mut writer, 0).unwrap();
    assert_eq!(writer.cut(), 0);
    let (mut values, mut types) = (Values::new(), Types::new());
    for part in parts(&writer.finish()) {
        match part.unwrap() {
            Part::Family(family) => {
                assert!(!family.help.is_empty(), "{} has no help", family.name);
                types.insert(family.name.to_owned(), family.kind.name());
            }
            Part::Series(series) => {
                let labels = series.labels.iter().filter(|(label, _)| *label != "__name__");
                let labels: Vec<String> = labels.map(|(label, value)| format!("{label}={value:?}")).collect();
                let known = values.insert(format!("{}{{{}}}", series.name(), labels.join(",")), series.samples[0].1);
                assert_eq!(known, None, "{} twice", series.name());
            }
        }
    }
    (values, types)
}

/// A small `/proc`.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn what_cannot_be_read_is_left_out_and_counted_with_its_reason() {
    let folder = tree(&[
        ("loadavg", "0.50 1.25 2.00 3/123 4567\n"),
        (
            "stat",
            "cpu  1 2 3 4\ncpu0 100 200 300 400 500 600 700 800 900 1000\nintr 7 1 2\nctxt 8\nbtime 9\nprocesses 10\n",
        ),
        ("meminfo", "MemTotal:  100 kB\nActive(anon):  2 kB\nHugePages_Total:  3\n"),
        ("vmstat", "nr_free_pages 1\npgfault 2\noom_kill 0\npgscan_kswapd 9\n"),
        ("self/mounts", "proc /proc proc rw 0 0\n"),
    ]);
    let big = std::fs::File::create(folder.path().join("diskstats")).unwrap();
    big.set_len(5 << 20).unwrap();
    let telemetry = Telemetry::new();
    let host = Host::new(Root::at(folder.path()), telemetry.clone());
    let (values, types) = read(&host);
    let of = |series: &str| *values.get(series).unwrap_or_else(|| panic!("no {series} in {values:?}"));
    assert_eq!((of("node_load1{}"), of("node_load15{}")), (0.5, 2.0));
    assert_eq!(of("node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}"), 4.0);
    assert_eq!(of("node_cpu_guest_seconds_total{cpu=\"0\",mode=\"nice\"}"), 10.0);
    assert_eq!(of("node_memory_MemTotal_bytes{}"), 102_400.0);
    assert_eq!((of("node_memory_Active_anon_bytes{}"), of("node_memory_HugePages_Total{}")), (2048.0, 3.0));
    assert_eq!((of("node_vmstat_pgfault{}"), types["node_vmstat_pgfault"]), (2.0, ""));
    assert!(!values.contains_key("node_vmstat_nr_free_pages{}") && !values.contains_key("node_vmstat_pgscan_kswapd{}"));
    // procs_running is missing from `stat`, so none of its rows is there; `cpu` read the same file and is.
    assert!(!values.contains_key("node_context_switches_total{}"));
    let success = |collector: &str| of(&format!("node_scrape_collector_success{{collector={collector:?}}}"));
    assert_eq!((success("cpu"), success("stat"), success("pressure"), success("diskstats")), (1.0, 0.0, 0.0, 0.0));
    let metrics = telemetry.exposition(crate::telemetry::Format::Classic, &StatusSnapshot::default()).unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    for (collector, reason) in [("stat", "malformed"), ("pressure", "missing"), ("diskstats", "too_large")] {
        let line = format!("bulkhead_host_unreadable_total{{collector=\"{collector}\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[test]
fn no_byte_in_any_file_brings_the_round_to_a_fall() {
    let names =
        ["stat", "loadavg", "meminfo", "vmstat", "diskstats", "net/dev", "net/netstat", "net/snmp", "net/snmp6"];
    let names =
        names.into_iter().chain(["net/sockstat", "net/sockstat6", "pressure/cpu", "pressure/io", "self/mounts"]);
    let names: Vec<&str> =
        names.chain(["pressure/memory", "sys/fs/file-nr", "sys/kernel/ostype", "sys/kernel/osrelease"]).collect();
    let real: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (*name, std::fs::read(Path::new("/proc").join(name)).unwrap_or_default())).collect();
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &real {
            let mut bytes = bytes.clone();
            bytes.truncate(dice.usize(0..=bytes.len()));
            for _ in 0..dice.usize(0..8) {
                let at = dice.usize(0..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.u8(..);
                }
            }
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let mut writer = Writer::new(&[]);
        let _ = Host::new(Root::at(folder.path()), Telemetry::new()).read(&mut writer, 0);
        assert!(parts(&writer.finish()).all(|part| part.is_ok()));
    }
}

/// Debian's exporter on a free port of the loopback; ends with this value.
struct Exporter {
    child: Child,
    port: u16,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    /// `BULKHEAD_NODE_EXPORTER_BIN`, or what `scripts/lib.sh` unpacks. `None`: it cannot be had, and why was said.
    fn start() -> Option<Exporter> {
        let binary = std::env::var_os("BULKHEAD_NODE_EXPORTER_BIN").map(PathBuf::from).or_else(unpacked);
        let Some(binary) = binary else {
            // Not through println!, which the harness keeps from the screen while a test passes.
            let skip = "\nSKIP names_labels_types_and_values_are_those_of_debians_node_exporter: no prometheus-node-exporter; \
                        let apt-get download it, or set BULKHEAD_NODE_EXPORTER_BIN\n";
            std::io::stdout().write_all(skip.as_bytes()).unwrap();
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(binary)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let exporter = Exporter { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "node-exporter does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(exporter)
    }

    fn scrape(&self) -> (Values, Types) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (mut values, mut types) = (Values::new(), Types::new());
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                let kind = if kind == "untyped" { "" } else { model::series::Type::of_name(kind).name() };
                types.insert(name.to_owned(), kind);
            } else if let (false, Some((series, value))) = (line.starts_with('#'), line.rsplit_once(' ')) {
                let series = if series.contains('{') { series.to_owned() } else { format!("{series}{{}}") };
                values.extend(value.parse().ok().map(|value| (series, value)));
            }
        }
        (values, types)
    }
}

/// The function of `scripts/lib.sh` that all scripts use.
fn unpacked() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = "ROOT=$PWD; . scripts/lib.sh; unpacked prometheus-node-exporter usr/bin/prometheus-node-exporter";
    let output = Command::new("bash").args(["-c", script]).current_dir(root).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_file()).then_some(path)
}

fn family(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// Rounds of comparing; other programs move gauges at any time, so one calm round is enough.
const ROUNDS_MAX: usize = 10;

/// What is wrong in one round. Names, labels and types must be right in every round, so they are asserted.
fn compared(exporter: &Exporter, host: &Host) -> Vec<String> {
    // A counter that both read moves between: ours must lie between two of theirs.
    let (before, their_types) = exporter.scrape();
    let (ours, types) = read(host);
    let (after, _) = exporter.scrape();
    // Our collectors are fewer than theirs, and how long each takes is its own.
    let is_shared = |series: &&String| !series.starts_with("node_scrape_collector_");
    for (name, kind) in types.iter().filter(|(name, _)| ours.keys().any(|series| family(series) == *name)) {
        assert_eq!(their_types.get(name), Some(kind), "the type of {name}");
    }
    let mine: Vec<&String> = ours.keys().filter(is_shared).collect();
    let theirs: Vec<&String> = before.keys().filter(|s| types.contains_key(family(s))).filter(is_shared).collect();
    assert_eq!(mine, theirs, "names or labels differ");
    assert!(mine.len() > 150, "only {} series were compared", mine.len());
    let failed: Vec<&String> = ours.keys().filter(|s| s.contains("collector_success") && ours[*s] != 1.0).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let mut wrong = Vec::new();
    for series in mine {
        let (one, value, other) = (before[series], ours[series], after.get(series).copied().unwrap_or(before[series]));
        // Counters of one moment may be read a tick apart; gauges wander, though not far within milliseconds.
        let slack = if types[family(series)] == "counter" { 0.02 } else { (one.abs() * 0.1).max(8.0) };
        if value < one.min(other) - slack || value > one.max(other) + slack {
            wrong.push(format!("{series}: {value} is not within {one} and {other}"));
        }
    }
    wrong
}

#[test]
fn names_labels_types_and_values_are_those_of_debians_node_exporter() {
    let Some(exporter) = Exporter::start() else { return };
    let host = Host::new(Root::default(), Telemetry::new());
    let mut wrong = Vec::new();
    for _ in 0..ROUNDS_MAX {
        wrong = compared(&exporter, &host);
        if wrong.is_empty() {
            return;
        }
    }
    panic!("{} differences in the last of {ROUNDS_MAX} rounds:\n{}", wrong.len(), wrong.join("\n"));
}
