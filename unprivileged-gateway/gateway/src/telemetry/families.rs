//! Our own metric families (interface.md "Own metrics"), read off the dials and one photograph of the log.
//!
//! The table of contents of `/metrics`: a name stands here or in `alloy`, nowhere else, and `docs/metrics.md` lists both (a test
//! compares). Weakness: the rows are built anew for each scrape, some hundred small strings; a scrape is rare.

use super::destination::lock;
use super::exposition::{Family, Labels};
use super::{Histogram, QUARANTINE, StatusSnapshot, Telemetry, buckets};
use crate::seam::Signal;
use std::collections::BTreeMap;

/// Kinds of damage that exist at zero from the start.
const DAMAGE_KINDS: [&str; 2] = ["damaged", "torn_tail"];

pub(super) fn own(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut families = records_in(telemetry, snapshot);
    families.extend(records_out(snapshot));
    families.extend(waiting(snapshot));
    families.extend(logs(telemetry, snapshot));
    families.push(host(telemetry));
    families.extend(telemetry.probe().families());
    families
}

fn text(value: impl ToString) -> String {
    value.to_string()
}

fn records_in(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut accepted =
        Family::counter("bulkhead_accepted_records", "Records that were on the disk before their sender was answered.");
    for row in telemetry.sources() {
        accepted.count(vec![("signal", text(row.signal)), ("source", text(row.source.name()))], row.accepted);
    }
    let mut refused =
        Family::counter("bulkhead_refused_records", "Records that were not taken; their sender still holds them.");
    for ((source, signal, reason), count) in lock(&telemetry.0.refused).iter() {
        let labels = vec![("signal", text(signal)), ("source", text(source.name())), ("reason", (*reason).to_owned())];
        refused.count(labels, *count);
    }
    let mut dropped = Family::counter(
        "bulkhead_dropped_records",
        "Records that nobody holds any more: by the operator's rule or choice (each destination counts its own), or a scrape that the log refused.",
    );
    for signal in Signal::ALL {
        for (rule, count) in telemetry.dropped_by_rule(signal, snapshot) {
            dropped.count(vec![("signal", text(signal)), ("rule", rule)], count);
        }
    }
    vec![accepted, refused, dropped]
}

/// The two labels of every series of a destination's ledger.
fn ledger_labels(signal: Signal, destination: &str) -> Labels {
    vec![("signal", text(signal)), ("destination", destination.to_owned())]
}

fn records_out(snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut entered = Family::counter(
        "bulkhead_destination_accepted_records",
        "Records that entered the log for this destination; equals sent + waiting + quarantined + dropped + damaged.",
    );
    let mut sent = Family::counter("bulkhead_sent_records", "Records that the destination has confirmed.");
    let mut lost =
        Family::counter("bulkhead_destination_dropped_records", "Records dropped at this destination, by rule.");
    let mut damaged = Family::counter(
        "bulkhead_destination_damaged_records",
        "Records this destination could not read because the disk had damaged them.",
    );
    let mut quarantined = Family::counter(
        "bulkhead_quarantined_records",
        "Records that the destination will never take; kept in the quarantine log.",
    );
    let mut retries = Family::counter("bulkhead_retries", "Requests to the destination that were sent again.");
    let mut cut =
        Family::counter("bulkhead_cut_lines", "Lines sent without their end, which was over the destination's limit.");
    for destination in &snapshot.destinations {
        let name = destination.info.label();
        for ledger in &destination.ledgers {
            let labels = || ledger_labels(ledger.signal, &name);
            entered.count(labels(), ledger.accepted);
            sent.count(labels(), ledger.sent);
            damaged.count(labels(), ledger.damaged);
            retries.count(labels(), ledger.retries);
            cut.count(labels(), ledger.cut);
            for (reason, loss) in &ledger.quarantined {
                quarantined.count([labels(), vec![("reason", reason.clone())]].concat(), loss.records);
            }
            for (rule, count) in &ledger.dropped {
                lost.count([labels(), vec![("rule", rule.clone())]].concat(), *count);
            }
        }
    }
    vec![entered, sent, lost, damaged, quarantined, retries, cut]
}

fn waiting(snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut records =
        Family::gauge("bulkhead_waiting_records", "Records on the disk that the destination has not got.");
    let mut bytes = Family::gauge("bulkhead_waiting_bytes", "Bytes of the log that hold waiting records.");
    let mut oldest = Family::gauge("bulkhead_oldest_waiting_seconds", "Age of the oldest waiting record; 0 when none.");
    let mut unconfigured = Family::gauge(
        "bulkhead_destination_configured",
        "1 while the configuration names the destination; 0 while the log still holds its records without one.",
    );
    for destination in &snapshot.destinations {
        let name = destination.info.label();
        unconfigured.count(vec![("destination", name.clone())], destination.configured.into());
        for ledger in &destination.ledgers {
            records.count(ledger_labels(ledger.signal, &name), ledger.waiting.records);
            bytes.count(ledger_labels(ledger.signal, &name), ledger.waiting.bytes);
            oldest.real(ledger_labels(ledger.signal, &name), ledger.waiting.oldest_age_s);
        }
    }
    vec![records, bytes, oldest, unconfigured]
}

fn host(telemetry: &Telemetry) -> Family {
    let mut unread = Family::counter(
        "bulkhead_host_unreadable",
        "Rounds in which a part of the host's metrics could not be read, by node-exporter's name of the part.",
    );
    for ((collector, reason), count) in lock(&telemetry.0.host_unread).iter() {
        unread.count(vec![("collector", text(collector)), ("reason", text(reason))], *count);
    }
    unread
}

fn logs(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Vec<Family> {
    let mut bytes = Family::gauge("bulkhead_wal_bytes", "Bytes of the log's segments on the disk.");
    let mut segments = Family::gauge("bulkhead_wal_segments", "Segments of the log.");
    let mut fill = Family::gauge("bulkhead_wal_fill_ratio", "Used share of the room the log may take now, 0 to 1.");
    let mut open = Family::gauge("bulkhead_wal_open", "1 while the log takes records, 0 while its intake is closed.");
    for log in snapshot.logs.iter().filter(|log| log.served) {
        let labels = || vec![("signal", log.name.to_owned())];
        bytes.count(labels(), log.bytes);
        segments.count(labels(), log.segments);
        fill.real(labels(), log.fill);
        open.count(labels(), log.closed.is_none().into());
    }
    let mut commit = Family::histogram("bulkhead_wal_commit_seconds", "Duration of one write and sync of the log.");
    let mut seen: BTreeMap<&'static str, Histogram> = lock(&telemetry.0.commits).by_log.clone();
    for log in snapshot.logs.iter().filter(|log| log.served) {
        seen.entry(log.name).or_insert_with(|| Histogram::new(buckets::COMMIT_S));
    }
    for (log, histogram) in seen {
        commit.observe(vec![("signal", log.to_owned())], histogram);
    }
    let mut damage = Family::counter("bulkhead_wal_damage", "Places of a log that could not be read, by kind.");
    for log in Signal::ALL.map(Signal::name).into_iter().chain([QUARANTINE]) {
        for kind in DAMAGE_KINDS {
            damage.count(vec![("signal", log.to_owned()), ("kind", kind.to_owned())], 0);
        }
    }
    for ((log, kind), count) in lock(&telemetry.0.damaged).iter() {
        damage.count(vec![("signal", (*log).to_owned()), ("kind", kind.clone())], *count);
    }
    vec![bytes, segments, fill, open, commit, damage]
}
