use super::*;
use std::collections::BTreeSet;

fn loki(name: &str) -> DestinationInfo {
    DestinationInfo {
        kind: "loki".to_owned(),
        name: name.to_owned(),
        wire: Wire::LokiPush,
        signals: vec![Signal::Logs],
        url: "http://127.0.0.1:3100/loki/api/v1/push".to_owned(),
        host: "127.0.0.1:3100".to_owned(),
        tenant: "demo".to_owned(),
    }
}

fn tempo() -> DestinationInfo {
    DestinationInfo {
        kind: "otlp".to_owned(),
        name: "tempo".to_owned(),
        wire: Wire::OtlpGrpc,
        signals: vec![Signal::Traces, Signal::Logs],
        host: "127.0.0.1:4317".to_owned(),
        ..loki("")
    }
}

fn pyroscope() -> DestinationInfo {
    DestinationInfo {
        kind: "pyroscope".to_owned(),
        name: "profiles".to_owned(),
        wire: Wire::PyroscopePush,
        signals: vec![Signal::Profiles],
        host: "127.0.0.1:4040".to_owned(),
        ..loki("")
    }
}

/// Three forwarders and the logs they read, with a photograph in which everything has happened once.
fn busy() -> (Telemetry, StatusSnapshot) {
    let telemetry = Telemetry::new();
    telemetry.accepted(Source::OtlpGrpc, Signal::Logs, 10, 4000);
    telemetry.refused(Source::OtlpHttp, Signal::Traces, "full", 3);
    telemetry.dropped(Signal::Logs, "no-health", 2);
    telemetry.damaged(Signal::Logs.name(), "damaged", 1);
    telemetry.host_unread("pressure", "missing");
    telemetry.committed(Signal::Logs.name(), 0.002);
    telemetry.call(Source::OtlpGrpc, Signal::Logs, "0", 0.003);
    telemetry.call(Source::OtlpHttp, Signal::Traces, "503", 0.003);
    telemetry.config_loaded("ab12", true);
    let one = |name: &str| vec![ipc::Count { name: name.to_owned(), value: 1 }];
    let status = ipc::Status {
        cpus: vec![ipc::CpuCount { cpu: 0, samples: 97 }],
        files_refused: one("link"),
        log_dropped: one("deleted"),
        ..ipc::Status::default()
    };
    telemetry.probe().status([1; 16], &status);
    let mut destinations = Vec::new();
    for info in [loki("logs"), tempo(), pyroscope()] {
        let destination = telemetry.register(info);
        for signal in destination.info().signals.clone() {
            let quarantined = [("line_too_long", Loss { records: 1, bytes: 300_000 })];
            let settled = Settled {
                sent: 5,
                sent_bytes: 900,
                quarantined: &quarantined,
                dropped: &[("discarded", 1)],
                damaged: 1,
                ..Settled::default()
            };
            destination.settle(signal, &settled, || ());
            destination.retried(signal);
            destination.request(Request {
                signal,
                status: 204,
                seconds: 0.01,
                bytes: 900,
                items: 5,
                age_s: Some(0.2),
                last_seq: 0,
            });
        }
        let waiting = Waiting { records: 2, bytes: 800, oldest_age_s: 1.5 };
        let held = || Held { accepted: 10, waiting };
        let ledgers = destination.info().signals.iter().map(|signal| destination.read(*signal, held)).collect();
        destinations.push(DestinationStatus {
            info: destination.info().clone(),
            configured: true,
            state: DestinationState::Ok,
            last_error: None,
            next_try_ms: None,
            ledgers,
        });
    }
    let log = |name| LogStatus {
        name,
        served: true,
        bytes: 4096,
        segments: 1,
        guarantee_bytes: 1 << 20,
        capacity_bytes: 4 << 20,
        fill: 0.1,
        closed: None,
    };
    let logs = vec![log("logs"), log("traces"), log(QUARANTINE)];
    (telemetry, StatusSnapshot { logs, destinations, ..StatusSnapshot::default() })
}

fn text_of(telemetry: &Telemetry, snapshot: &StatusSnapshot, format: Format) -> String {
    String::from_utf8(telemetry.exposition(format, snapshot).unwrap()).unwrap()
}

/// Value of the one series of `name` that carries all `labels`.
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let mut found = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    let line = found.next().unwrap_or_else(|| panic!("no {name} with {labels:?}"));
    assert!(found.next().is_none(), "more than one {name} with {labels:?}");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_ledger_of_every_destination_adds_up_in_the_exposition() {
    let (telemetry, snapshot) = busy();
    let text = text_of(&telemetry, &snapshot, Format::Classic);
    for (signal, name) in [("logs", "loki/logs"), ("traces", "otlp/tempo"), ("logs", "otlp/tempo")] {
        let labels = [format!("signal=\"{signal}\""), format!("destination=\"{name}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let parts = [
            "bulkhead_sent_records_total",
            "bulkhead_waiting_records",
            "bulkhead_quarantined_records_total",
            "bulkhead_destination_dropped_records_total",
            "bulkhead_destination_damaged_records_total",
        ];
        let sum: f64 = parts.iter().map(|part| value(&text, part, &labels)).sum();
        assert_eq!(value(&text, "bulkhead_destination_accepted_records_total", &labels), sum);
        assert_eq!(sum, 10.0);
    }
}

#[test]
fn a_ledger_is_whole_whenever_it_is_read_while_records_move() {
    use std::sync::atomic::AtomicBool;
    let telemetry = Telemetry::new();
    let destination = telemetry.register(loki("logs"));
    // (entered, finished): the log's side of the account.
    let log = Arc::new(Mutex::new((0_u64, 0_u64)));
    let stop = Arc::new(AtomicBool::new(false));
    let mover = std::thread::spawn({
        let (destination, log, stop) = (destination.clone(), log.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                lock(&log).0 += 3;
                let settled = Settled { sent: 2, damaged: 1, ..Settled::default() };
                destination.settle(Signal::Logs, &settled, || lock(&log).1 += 3);
            }
        }
    });
    for _ in 0..20_000 {
        let ledger = destination.read(Signal::Logs, || {
            let (entered, finished) = *lock(&log);
            let waiting = Waiting { records: entered - finished, ..Waiting::default() };
            Held { accepted: entered, waiting }
        });
        assert!(ledger.adds_up(), "{ledger:?}");
    }
    stop.store(true, Ordering::Relaxed);
    mover.join().unwrap();
}

#[test]
fn nobody_reads_between_the_moved_cursor_and_the_booked_records() {
    use std::sync::mpsc;
    use std::time::Duration;
    let telemetry = Telemetry::new();
    let destination = telemetry.register(loki("logs"));
    let finished = Arc::new(AtomicU64::new(0));
    let (go, started) = mpsc::channel();
    let (tell, seen) = mpsc::channel();
    let reader = std::thread::spawn({
        let (destination, finished) = (destination.clone(), finished.clone());
        move || {
            started.recv().unwrap();
            let ledger = destination.read(Signal::Logs, || {
                let waiting = Waiting { records: 5 - finished.load(Ordering::SeqCst), ..Waiting::default() };
                Held { accepted: 5, waiting }
            });
            tell.send(ledger).unwrap();
        }
    });
    let early = destination.settle(Signal::Logs, &Settled { sent: 5, ..Settled::default() }, || {
        finished.store(5, Ordering::SeqCst);
        go.send(()).unwrap();
        // Nothing must come; a reader that could come in would do so at once.
        seen.recv_timeout(Duration::from_millis(100))
    });
    assert!(early.is_err(), "read in between: {early:?}");
    assert!(seen.recv().unwrap().adds_up());
    reader.join().unwrap();
}

#[test]
fn alloys_names_show_the_same_numbers_as_ours() {
    let (telemetry, snapshot) = busy();
    let text = text_of(&telemetry, &snapshot, Format::Classic);
    let logs = ["signal=\"logs\"", "destination=\"loki/logs\""];
    let host = ["host=\"127.0.0.1:3100\""];
    assert_eq!(
        value(&text, "loki_write_sent_entries_total", &host),
        value(&text, "bulkhead_sent_records_total", &logs)
    );
    let too_long = ["host=\"127.0.0.1:3100\"", "reason=\"line_too_long\""];
    assert_eq!(value(&text, "loki_write_dropped_entries_total", &too_long), 1.0);
    let grpc = ["transport=\"grpc\"", "component_id=\"otelcol.receiver.otlp.default\""];
    assert_eq!(value(&text, "otelcol_receiver_accepted_log_records_total", &grpc), 10.0);
    let tempo = ["exporter=\"otlp/otelcol.exporter.otlp.tempo\"", "data_type=\"traces\""];
    assert_eq!(value(&text, "otelcol_exporter_queue_size", &tempo), 800.0);
    assert_eq!(value(&text, "otelcol_exporter_queue_capacity", &tempo), (4 << 20) as f64);
}

#[test]
fn every_queue_has_room_even_before_its_log_is_known() {
    let (telemetry, mut snapshot) = busy();
    snapshot.logs.clear();
    let text = text_of(&telemetry, &snapshot, Format::Classic);
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("otelcol_exporter_queue_capacity{")).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| !line.ends_with(" 0")), "{lines:?}");
}

#[test]
fn a_registered_destination_is_there_at_zero() {
    let telemetry = Telemetry::new();
    let destination = telemetry.register(loki("logs"));
    let status = DestinationStatus {
        info: destination.info().clone(),
        configured: true,
        state: DestinationState::Idle,
        last_error: None,
        next_try_ms: None,
        ledgers: vec![destination.read(Signal::Logs, Held::default)],
    };
    let snapshot = StatusSnapshot { destinations: vec![status], ..StatusSnapshot::default() };
    let text = text_of(&telemetry, &snapshot, Format::Classic);
    assert_eq!(value(&text, "bulkhead_sent_records_total", &["destination=\"loki/logs\""]), 0.0);
    assert_eq!(value(&text, "loki_write_dropped_entries_total", &["reason=\"rate_limited\""]), 0.0);
    let full = ["signal=\"logs\"", "source=\"otlp/http\"", "reason=\"full\""];
    assert_eq!(value(&text, "bulkhead_refused_records_total", &full), 0.0);
    assert_eq!(value(&text, "alloy_component_controller_running_components", &["health_type=\"exited\""]), 0.0);
}

#[test]
fn registering_twice_keeps_the_account_and_a_new_url_opens_another() {
    let telemetry = Telemetry::new();
    let first = telemetry.register(loki("logs"));
    first.settle(Signal::Logs, &Settled { sent: 4, ..Settled::default() }, || ());
    let again = telemetry.register(loki("logs"));
    assert_eq!(again.read(Signal::Logs, Held::default).sent, 4);
    let moved = telemetry.register(DestinationInfo { host: "other:3100".to_owned(), ..loki("logs") });
    assert_eq!(moved.read(Signal::Logs, Held::default).sent, 0);
    assert_eq!(lock(&telemetry.0.destinations).len(), 1);
}

#[test]
fn the_classic_text_names_counters_in_full_and_has_no_end_mark() {
    let (telemetry, snapshot) = busy();
    let classic = text_of(&telemetry, &snapshot, Format::Classic);
    assert!(classic.contains("# TYPE bulkhead_sent_records_total counter\n"));
    assert!(classic.contains("# HELP bulkhead_sent_records_total Records"));
    assert!(!classic.contains("_total_total") && !classic.contains("# EOF") && !classic.contains("# UNIT"));
    let open = text_of(&telemetry, &snapshot, Format::OpenMetrics);
    assert!(open.contains("# TYPE bulkhead_sent_records counter\n") && open.ends_with("# EOF\n"));
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples(&classic), samples(&open));
}

#[test]
fn protobuf_has_the_families_of_the_classic_text() {
    let (telemetry, snapshot) = busy();
    let bytes = telemetry.exposition(Format::Protobuf, &snapshot).unwrap();
    let mut left = bytes.as_slice();
    let mut names = BTreeSet::new();
    while !left.is_empty() {
        let family: prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::MetricFamily =
            prost::Message::decode_length_delimited(&mut left).unwrap();
        assert!(!family.metric.is_empty(), "{}", family.name);
        names.insert(family.name);
    }
    let classic = text_of(&telemetry, &snapshot, Format::Classic);
    let typed = classic.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(names, typed.map(str::to_owned).collect());
}

#[test]
fn no_series_and_no_family_is_written_twice() {
    let (telemetry, snapshot) = busy();
    let text = text_of(&telemetry, &snapshot, Format::Classic);
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
        assert!(seen.insert(series), "{series}");
    }
}

#[test]
fn accept_headers_of_real_scrapers_get_what_they_prefer() {
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    assert_eq!(negotiate(prometheus_3), Format::OpenMetrics);
    let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
        application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
    assert_eq!(negotiate(native), Format::Protobuf);
    assert_eq!(negotiate("text/plain"), Format::Classic);
    assert_eq!(negotiate("*/*"), Format::Classic);
    assert_eq!(negotiate(""), Format::Classic);
    assert_eq!(negotiate("text/html,application/xhtml+xml;q=0.9"), Format::Classic);
    assert_eq!(negotiate("application/vnd.google.protobuf;q=1,;;;=,q=x"), Format::Classic);
    assert_eq!(negotiate("application/openmetrics-text;q=0"), Format::Classic);
}

#[test]
fn percentiles_come_from_the_last_commits() {
    let telemetry = Telemetry::new();
    assert_eq!(telemetry.commit_times(), CommitTimes::default());
    for milliseconds in 1..=100 {
        telemetry.committed("logs", f64::from(milliseconds) / 1000.0);
    }
    let times = telemetry.commit_times();
    assert_eq!((times.count, times.p50_ms.round(), times.p99_ms.round()), (100, 50.0, 99.0));
}

/// `docs/metrics.md` has one row a family: name, type, labels, meaning. It is what a live registry says, no more and no less.
#[test]
fn docs_metrics_md_lists_exactly_what_is_exported() {
    let (telemetry, snapshot) = busy();
    let mut families = families::own(&telemetry, &snapshot);
    families.extend(alloy::parity(&telemetry, &snapshot));
    let live: String = families.iter().filter(|family| !family.rows.is_empty()).map(doc_row).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let written: String = page.lines().filter(|line| line.starts_with("| `")).map(|line| format!("{line}\n")).collect();
    assert!(written == live, "docs/metrics.md differs from the registry; its table should be:\n{live}");
}

fn doc_row(family: &exposition::Family) -> String {
    let (suffix, kind) = match family.kind {
        exposition::MetricKind::Counter => ("_total", "counter"),
        exposition::MetricKind::Gauge => ("", "gauge"),
        exposition::MetricKind::Histogram => ("", "histogram"),
    };
    let mut labels = BTreeSet::new();
    for row in &family.rows {
        labels.extend(row.labels.iter().map(|(name, _)| *name));
    }
    let labels: Vec<&str> = labels.into_iter().collect();
    format!("| `{}{suffix}` | {kind} | {} | {} |\n", family.name, labels.join(", "), family.help)
}

/// `promtool check metrics`, where promtool is on the PATH or named by `BULKHEAD_PROMTOOL`.
#[test]
fn promtool_accepts_the_classic_text() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let promtool = std::env::var("BULKHEAD_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let command =
        Command::new(&promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = command else {
        // Not through print!, which the harness keeps from the screen while a test passes.
        let skip =
            format!("\nSKIP promtool_accepts_the_classic_text: no {promtool}; set BULKHEAD_PROMTOOL to run it\n");
        std::io::stdout().write_all(skip.as_bytes()).unwrap();
        return;
    };
    let (telemetry, snapshot) = busy();
    let text = telemetry.exposition(Format::Classic, &snapshot).unwrap();
    child.stdin.take().unwrap().write_all(&text).unwrap();
    let output = child.wait_with_output().unwrap();
    // 1 is a parse error; 3 is a matter of taste about names that Alloy has chosen.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stdout));
}
