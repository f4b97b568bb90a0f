//! The same dials under the names that Alloy's dashboards and alerts ask for (alloy-parity 9.3, 9.5, 9.6).
//!
//! A translation, not a second measurement: each value is read from the counters or ledgers that `families` prints too. Where
//! Alloy counts something that cannot happen here (a queue that refuses), the series exists and stays at zero. Weakness: "requests
//! in a queue" has no twin, because the queue is the log; size and capacity are given in bytes, so that their ratio is right.

use super::destination::{Destination, Wire, lock};
use super::exposition::{Family, Labels};
use super::{Arc, DestinationStatus, LedgerSnapshot, StatusSnapshot, Telemetry};
use crate::seam::{Signal, Source};

const RECEIVER_ID: &str = "otelcol.receiver.otlp.default";
const BATCH_ID: &str = "otelcol.processor.batch.default";

/// Alloy's reasons for a lost entry; each exists at zero from the start.
const LOKI_REASONS: [&str; 5] = ["ingester_error", "rate_limited", "stream_limited", "line_too_long", "queue_is_full"];

pub(super) fn parity(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Vec<Family> {
    let destinations: Vec<Arc<Destination>> = lock(&telemetry.0.destinations).clone();
    let mut families = controller(telemetry, snapshot);
    families.extend(process(telemetry));
    families.extend(receivers(telemetry));
    families.extend(calls(telemetry));
    families.extend(exporters(snapshot));
    families.extend(processors(telemetry));
    families.extend(request_sizes(&destinations));
    families.extend(client_calls(&destinations));
    families.extend(loki_totals(snapshot));
    families.extend(pyroscope_totals(snapshot));
    families.extend(loki_requests(&destinations));
    families
}

fn component(id: &str) -> Labels {
    vec![("component_id", id.to_owned()), ("component_path", "/".to_owned())]
}

fn with(labels: Labels, more: &[(&'static str, &str)]) -> Labels {
    labels.into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
}

fn controller(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Vec<Family> {
    let config = lock(&telemetry.0.config).clone();
    let served: Vec<_> = snapshot.logs.iter().filter(|log| log.served).collect();
    let closed = served.iter().filter(|log| log.closed.is_some()).count();
    // The two receivers, each log and each destination are the units that a dashboard may count.
    let units = 2 + served.len() + snapshot.destinations.iter().filter(|d| d.configured).count();
    let mut running = Family::gauge(
        "alloy_component_controller_running_components",
        "Receivers, logs and destinations, by health; a log whose intake is closed is unhealthy.",
    );
    let counts = [("healthy", units - closed), ("unhealthy", closed), ("unknown", 0), ("exited", 0)];
    for (health, count) in counts {
        let labels = [("controller_id", ""), ("controller_path", "/"), ("health_type", health)];
        running.count(with(Vec::new(), &labels), count as u64);
    }
    let mut build = Family::gauge("alloy_build_info", "What is running; always 1.");
    let labels = [
        ("branch", ""),
        ("goarch", std::env::consts::ARCH),
        ("goos", std::env::consts::OS),
        ("goversion", ""),
        ("revision", ""),
        ("tags", "bulkhead"),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    build.count(with(Vec::new(), &labels), 1);
    let mut hash = Family::gauge("alloy_config_hash", "Hash of the configuration that is running; always 1.");
    hash.count(with(Vec::new(), &[("cluster_name", ""), ("sha256", &config.sha256)]), 1);
    let mut ok = Family::gauge("alloy_config_last_load_successful", "1 if the last load of the configuration worked.");
    ok.count(Vec::new(), config.ok.into());
    let mut ok_at = Family::gauge(
        "alloy_config_last_load_success_timestamp_seconds",
        "Unix time of the last load of the configuration that worked.",
    );
    ok_at.real(Vec::new(), config.ok_at_s);
    let mut failures = Family::counter("alloy_config_load_failures", "Loads of the configuration that were refused.");
    failures.count(Vec::new(), config.failures);
    vec![running, build, hash, ok, ok_at, failures]
}

fn process(telemetry: &Telemetry) -> Vec<Family> {
    let mut start = Family::gauge("alloy_resources_process_start_time_seconds", "Unix time of the process's start.");
    start.real(Vec::new(), telemetry.started_ms() as f64 / 1000.0);
    let mut cpu = Family::counter("alloy_resources_process_cpu_seconds", "User and system time of the process.");
    cpu.real(Vec::new(), cpu_seconds());
    let (resident_bytes, virtual_bytes) = memory_bytes();
    let mut resident =
        Family::gauge("alloy_resources_process_resident_memory_bytes", "Memory of the process in the machine.");
    resident.count(Vec::new(), resident_bytes);
    let mut all = Family::gauge("alloy_resources_process_virtual_memory_bytes", "Address space of the process.");
    all.count(Vec::new(), virtual_bytes);
    vec![start, cpu, resident, all]
}

fn cpu_seconds() -> f64 {
    let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) else { return 0.0 };
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// (resident, virtual) from `/proc/self/status`, whose unit is KiB whatever the page size; zero where there is no `/proc`.
pub(crate) fn memory_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    (kib("VmRSS:").unwrap_or(0) * 1024, kib("VmSize:").unwrap_or(0) * 1024)
}

/// The three words of the collector for a record, with the family names that contain them; profiles have none.
struct Word {
    signal: Signal,
    data_type: &'static str,
    accepted: &'static str,
    refused: &'static str,
    failed: &'static str,
    sent: &'static str,
    send_failed: &'static str,
    enqueue_failed: &'static str,
}

const WORDS: [Word; 3] = [
    Word {
        signal: Signal::Logs,
        data_type: "logs",
        accepted: "otelcol_receiver_accepted_log_records",
        refused: "otelcol_receiver_refused_log_records",
        failed: "otelcol_receiver_failed_log_records",
        sent: "otelcol_exporter_sent_log_records",
        send_failed: "otelcol_exporter_send_failed_log_records",
        enqueue_failed: "otelcol_exporter_enqueue_failed_log_records",
    },
    Word {
        signal: Signal::Traces,
        data_type: "traces",
        accepted: "otelcol_receiver_accepted_spans",
        refused: "otelcol_receiver_refused_spans",
        failed: "otelcol_receiver_failed_spans",
        sent: "otelcol_exporter_sent_spans",
        send_failed: "otelcol_exporter_send_failed_spans",
        enqueue_failed: "otelcol_exporter_enqueue_failed_spans",
    },
    Word {
        signal: Signal::Metrics,
        data_type: "metrics",
        accepted: "otelcol_receiver_accepted_metric_points",
        refused: "otelcol_receiver_refused_metric_points",
        failed: "otelcol_receiver_failed_metric_points",
        sent: "otelcol_exporter_sent_metric_points",
        send_failed: "otelcol_exporter_send_failed_metric_points",
        enqueue_failed: "otelcol_exporter_enqueue_failed_metric_points",
    },
];

/// Alloy's `transport` of a source; what does not come as OTLP comes through no such receiver.
fn transport(source: Source) -> Option<&'static str> {
    match source {
        Source::OtlpGrpc => Some("grpc"),
        Source::OtlpHttp => Some("http"),
        Source::Probe | Source::Journal | Source::Host | Source::Own => None,
    }
}

fn receivers(telemetry: &Telemetry) -> Vec<Family> {
    let totals = telemetry.sources();
    let mut families = Vec::new();
    for word in &WORDS {
        let mut accepted = Family::counter(word.accepted, "Records taken by the OTLP receiver.");
        let mut refused = Family::counter(word.refused, "Records the OTLP receiver did not take.");
        let mut failed = Family::counter(word.failed, "Always 0: what fails inside is refused to the sender.");
        for row in totals.iter().filter(|row| row.signal == word.signal) {
            let Some(transport) = transport(row.source) else { continue };
            let receiver = format!("otlp/{RECEIVER_ID}");
            let labels = || with(component(RECEIVER_ID), &[("receiver", &receiver), ("transport", transport)]);
            accepted.count(labels(), row.accepted);
            refused.count(labels(), row.refused);
            failed.count(labels(), 0);
        }
        families.extend([accepted, refused, failed]);
    }
    families
}

fn calls(telemetry: &Telemetry) -> Vec<Family> {
    let mut rpc = Family::histogram("rpc_server_duration_milliseconds", "Duration of one OTLP call over gRPC.");
    let mut http = Family::histogram("http_server_duration_milliseconds", "Duration of one OTLP call over HTTP.");
    for ((source, signal, status), histogram) in lock(&telemetry.0.calls).iter() {
        let (family, labels) = match source {
            Source::OtlpGrpc => (&mut rpc, grpc_labels(*signal, status)),
            Source::OtlpHttp => (&mut http, http_labels(*signal, status)),
            Source::Probe | Source::Journal | Source::Host | Source::Own => continue,
        };
        family.observe([component(RECEIVER_ID), labels].concat(), histogram.clone());
    }
    vec![rpc, http]
}

fn client_calls(destinations: &[Arc<Destination>]) -> Vec<Family> {
    let mut rpc = Family::histogram("rpc_client_duration_milliseconds", "Duration of one request over OTLP gRPC.");
    let mut http = Family::histogram("http_client_duration_milliseconds", "Duration of one request over OTLP HTTP.");
    for destination in destinations {
        let Some(id) = destination.info().component_id() else { continue };
        for ((signal, status), histogram) in lock(&destination.durations).iter() {
            let (family, labels) = match destination.info().wire {
                Wire::OtlpGrpc => (&mut rpc, grpc_labels(*signal, &status.to_string())),
                Wire::OtlpHttp => (&mut http, http_labels(*signal, &status.to_string())),
                Wire::LokiPush | Wire::PyroscopePush | Wire::None => continue,
            };
            family.observe([component(&id), labels].concat(), histogram.clone());
        }
    }
    vec![rpc, http]
}

fn grpc_labels(signal: Signal, status: &str) -> Labels {
    let service = match signal {
        Signal::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
        Signal::Traces => "opentelemetry.proto.collector.trace.v1.TraceService",
        Signal::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService",
        Signal::Profiles => "opentelemetry.proto.collector.profiles.v1development.ProfilesService",
    };
    let labels =
        [("rpc_grpc_status_code", status), ("rpc_method", "Export"), ("rpc_service", service), ("rpc_system", "grpc")];
    with(Vec::new(), &labels)
}

fn http_labels(signal: Signal, status: &str) -> Labels {
    let route = format!("/v1/{signal}");
    with(Vec::new(), &[("http_method", "POST"), ("http_route", &route), ("http_status_code", status)])
}

/// (component id, `exporter` label) of a forwarder; nothing for the local view and for destinations that are gone.
fn exporter(info: &super::DestinationInfo) -> Option<(String, String)> {
    let id = info.component_id()?;
    let kind = match info.wire {
        Wire::LokiPush => "loki",
        Wire::OtlpGrpc => "otlp",
        Wire::OtlpHttp => "otlphttp",
        Wire::PyroscopePush | Wire::None => return None,
    };
    let label = format!("{kind}/{id}");
    Some((id, label))
}

fn exporters(snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut families = Vec::new();
    let mut size = Family::gauge(
        "otelcol_exporter_queue_size",
        "Bytes of the log that wait for this exporter (the log is the queue).",
    );
    let mut capacity =
        Family::gauge("otelcol_exporter_queue_capacity", "Bytes that this exporter's log may take on the disk.");
    for word in &WORDS {
        let mut sent = Family::counter(word.sent, "Records that the destination has confirmed.");
        let mut failed = Family::counter(word.send_failed, "Records that ended in quarantine or were dropped.");
        let mut enqueue = Family::counter(word.enqueue_failed, "Always 0: a full log refuses at the receiver.");
        for (destination, ledger) in ledgers(snapshot, word.signal) {
            let Some((id, exporter)) = exporter(&destination.info) else { continue };
            let labels = || with(component(&id), &[("exporter", &exporter)]);
            sent.count(labels(), ledger.sent);
            failed.count(labels(), ledger.quarantined_records() + ledger.dropped_records() + ledger.damaged);
            enqueue.count(labels(), 0);
            let labels = || with(component(&id), &[("data_type", word.data_type), ("exporter", &exporter)]);
            size.count(labels(), ledger.waiting.bytes);
            capacity.count(labels(), room(snapshot, word.signal));
        }
        families.extend([sent, failed, enqueue]);
    }
    families.extend([size, capacity]);
    families
}

fn ledgers(snapshot: &StatusSnapshot, signal: Signal) -> impl Iterator<Item = (&DestinationStatus, &LedgerSnapshot)> {
    let all = snapshot.destinations.iter().flat_map(|d| d.ledgers.iter().map(move |ledger| (d, ledger)));
    all.filter(move |(_, ledger)| ledger.signal == signal)
}

/// Never 0: dashboards divide by it.
fn room(snapshot: &StatusSnapshot, signal: Signal) -> u64 {
    let log = snapshot.logs.iter().find(|log| log.name == signal.name());
    log.map_or(0, |log| log.capacity_bytes).max(1)
}

fn processors(telemetry: &Telemetry) -> Vec<Family> {
    let mut incoming = Family::counter("otelcol_processor_incoming_items", "Records that entered the log.");
    let mut outgoing = Family::counter(
        "otelcol_processor_outgoing_items",
        "Records that entered the log and were not dropped by a rule.",
    );
    let processor = format!("batch/{BATCH_ID}");
    for word in &WORDS {
        let labels = || with(component(BATCH_ID), &[("otel_signal", word.data_type), ("processor", &processor)]);
        let accepted = telemetry.accepted_items(word.signal);
        let before: u64 = lock(&telemetry.0.dropped)
            .iter()
            .filter(|((signal, _), _)| *signal == word.signal)
            .map(|(_, count)| *count)
            .sum();
        incoming.count(labels(), accepted + before);
        outgoing.count(labels(), accepted);
    }
    vec![incoming, outgoing]
}

fn request_sizes(destinations: &[Arc<Destination>]) -> Vec<Family> {
    let mut queue =
        Family::histogram("otelcol_exporter_queue_batch_send_size", "Records of one request to a destination.");
    let mut items = Family::histogram("otelcol_processor_batch_batch_send_size", "Records of one request.");
    let mut bytes = Family::histogram("otelcol_processor_batch_batch_send_size_bytes", "Bytes of one request as sent.");
    for destination in destinations {
        let Some((id, exporter)) = exporter(destination.info()) else { continue };
        let sizes = &destination.sizes;
        queue.observe(with(component(&id), &[("exporter", &exporter)]), sizes.items.clone());
        // Alloy has one batch processor in front of each exporter; here the batch is made by the destination itself.
        let batch = format!("otelcol.processor.batch.{}", destination.info().name);
        let labels = || with(component(&batch), &[("exporter", &exporter), ("processor", &format!("batch/{batch}"))]);
        items.observe(labels(), sizes.items.clone());
        bytes.observe(labels(), sizes.bytes.clone());
    }
    vec![queue, items, bytes]
}

fn is_loki(info: &super::DestinationInfo) -> Option<Labels> {
    (info.wire == Wire::LokiPush).then(|| {
        let id = format!("loki.write.{}", info.name);
        with(component(&id), &[("host", &info.host), ("tenant", &info.tenant)])
    })
}

fn loki_reason(ours: &str) -> &'static str {
    LOKI_REASONS.into_iter().find(|theirs| *theirs == ours).unwrap_or("ingester_error")
}

fn loki_totals(snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut sent_bytes = Family::counter("loki_write_sent_bytes", "Compressed bytes of confirmed pushes.");
    let mut sent = Family::counter("loki_write_sent_entries", "Lines of confirmed pushes.");
    let mut lost_bytes = Family::counter("loki_write_dropped_bytes", "Bytes of lines that ended in quarantine.");
    let mut lost = Family::counter("loki_write_dropped_entries", "Lines that ended in quarantine or were dropped.");
    let mut retries = Family::counter("loki_write_batch_retries", "Pushes that were sent again.");
    for (destination, ledger) in ledgers(snapshot, Signal::Logs) {
        let Some(labels) = is_loki(&destination.info) else { continue };
        sent_bytes.count(labels.clone(), ledger.sent_bytes);
        sent.count(labels.clone(), ledger.sent);
        retries.count(labels.clone(), ledger.retries);
        for reason in LOKI_REASONS {
            lost_bytes.count(with(labels.clone(), &[("reason", reason)]), 0);
            lost.count(with(labels.clone(), &[("reason", reason)]), 0);
        }
        for (reason, loss) in &ledger.quarantined {
            lost_bytes.count(with(labels.clone(), &[("reason", loki_reason(reason))]), loss.bytes);
            lost.count(with(labels.clone(), &[("reason", loki_reason(reason))]), loss.records);
        }
        for (rule, count) in &ledger.dropped {
            lost.count(with(labels.clone(), &[("reason", loki_reason(rule))]), *count);
        }
    }
    vec![sent_bytes, sent, lost_bytes, lost, retries]
}

fn pyroscope_totals(snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut sent_bytes = Family::counter("pyroscope_write_sent_bytes", "Bytes of confirmed pushes.");
    let mut sent = Family::counter("pyroscope_write_sent_profiles", "Profiles of confirmed pushes.");
    let mut lost_bytes =
        Family::counter("pyroscope_write_dropped_bytes", "Bytes of profiles that ended in quarantine.");
    let mut lost =
        Family::counter("pyroscope_write_dropped_profiles", "Profiles that ended in quarantine or were dropped.");
    let mut retries = Family::counter("pyroscope_write_retries", "Pushes that were sent again.");
    for (destination, ledger) in ledgers(snapshot, Signal::Profiles) {
        let info = &destination.info;
        let Some(id) = info.component_id().filter(|_| info.wire == Wire::PyroscopePush) else { continue };
        let labels = || with(component(&id), &[("endpoint", &info.url)]);
        sent_bytes.count(labels(), ledger.sent_bytes);
        sent.count(labels(), ledger.sent);
        lost_bytes.count(labels(), ledger.quarantined.values().map(|loss| loss.bytes).sum());
        lost.count(labels(), ledger.quarantined_records() + ledger.dropped_records());
        retries.count(labels(), ledger.retries);
    }
    vec![sent_bytes, sent, lost_bytes, lost, retries]
}

fn loki_requests(destinations: &[Arc<Destination>]) -> Vec<Family> {
    let mut duration = Family::histogram("loki_write_request_duration_seconds", "Duration of one push, by answer.");
    let mut size = Family::histogram("loki_write_request_size_bytes", "Compressed size of one push.");
    let mut age = Family::histogram(
        "loki_write_entry_propagation_latency_seconds",
        "Age of the oldest line of a push when it was sent.",
    );
    for destination in destinations {
        let Some(labels) = is_loki(destination.info()) else { continue };
        for ((_, status), histogram) in lock(&destination.durations).iter() {
            duration.observe(with(labels.clone(), &[("status_code", &status.to_string())]), histogram.clone());
        }
        size.observe(labels.clone(), destination.sizes.bytes.clone());
        age.observe(labels, destination.sizes.age_s.clone());
    }
    vec![duration, size, age]
}
