//! `/api/v1/status`: the dials and the photograph of the log as one JSON object.
//!
//! The same two sources as `/metrics`, in the shape the page wants. Weakness: shapes are written by hand; a test compares the
//! numbers with those of `/metrics`.

use super::Parts;
use crate::seam::{Signal, Source};
use crate::telemetry::{
    DestinationStatus, LedgerSnapshot, LogStatus, StatusSnapshot, THRESHOLDS, Telemetry, memory_bytes, unix_ms,
};
use crate::view::View;
use serde_json::{Map, Value, json};

/// The whole status. Times in ms since the epoch.
pub(super) fn status(parts: &Parts, snapshot: &StatusSnapshot) -> Value {
    let telemetry = &parts.telemetry;
    let node = &parts.node;
    json!({
        "now_ms": unix_ms(),
        "node": {
            "name": node.name,
            "id": node.id,
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": telemetry.started_ms(),
            "role": node.role,
        },
        "ready": { "ok": snapshot.ready.ok(), "why": snapshot.ready.why },
        "storage": storage(telemetry, snapshot),
        "memory": {
            "budget_bytes": snapshot.memory.budget_bytes,
            "used_bytes": snapshot.memory.used_bytes,
            "rss_bytes": memory_bytes().0,
        },
        "signals": signals(telemetry, snapshot),
        "sources": sources(parts, snapshot),
        "destinations": snapshot.destinations.iter().map(destination).collect::<Vec<_>>(),
        "view": view(parts.view.as_ref()),
        "damage": telemetry.damage_by_kind(),
        "addresses": parts.addresses,
    })
}

fn storage(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Value {
    let commits = telemetry.commit_times();
    let measured = |ms: f64| if commits.count == 0 { Value::Null } else { ms.into() };
    json!({
        "path": snapshot.storage.path,
        "max_bytes": snapshot.storage.max_bytes,
        "bytes": snapshot.logs.iter().map(|log| log.bytes).sum::<u64>(),
        "segments": snapshot.logs.iter().map(|log| log.segments).sum::<u64>(),
        "state": snapshot.storage.state.name(),
        "thresholds": THRESHOLDS,
        "commit": { "count": commits.count, "p50_ms": measured(commits.p50_ms), "p99_ms": measured(commits.p99_ms) },
    })
}

pub(super) fn log_of(snapshot: &StatusSnapshot, signal: Signal) -> Option<&LogStatus> {
    snapshot.logs.iter().find(|log| log.name == signal.name() && log.served)
}

fn signals(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> Map<String, Value> {
    let of = |signal: Signal| match log_of(snapshot, signal) {
        None => json!({ "served": false }),
        Some(log) => json!({
            "served": true,
            "accepted": telemetry.accepted_items(signal),
            "refused": telemetry.refused_by_reason(signal),
            "dropped": telemetry.dropped_by_rule(signal, snapshot),
            "bytes": log.bytes,
            "segments": log.segments,
            "guarantee_bytes": log.guarantee_bytes,
            "capacity_bytes": log.capacity_bytes,
            "fill": log.fill,
            "closed": log.closed,
        }),
    };
    Signal::ALL.into_iter().map(|signal| (signal.name().to_owned(), of(signal))).collect()
}

/// The doors of served signals, used or not, and whatever else has counted.
fn sources(parts: &Parts, snapshot: &StatusSnapshot) -> Vec<Value> {
    let rows = parts.telemetry.sources().into_iter().filter(|row| {
        // A row of zeros is a promise: only what a source can bring is listed before it has brought it.
        let here = match row.source {
            Source::Probe => parts.probe.is_some(),
            Source::Own => false,
            Source::OtlpGrpc | Source::OtlpHttp | Source::Journal | Source::Host => true,
        };
        let door = here && row.source.brings(row.signal) && log_of(snapshot, row.signal).is_some();
        door || row.accepted + row.refused > 0
    });
    rows.map(|row| {
        json!({
            "name": row.source.name(),
            "signal": row.signal.name(),
            "accepted": row.accepted,
            "refused": row.refused,
            "bytes": row.bytes,
        })
    })
    .collect()
}

fn destination(status: &DestinationStatus) -> Value {
    let sum = |of: &dyn Fn(&LedgerSnapshot) -> u64| status.ledgers.iter().map(of).sum::<u64>();
    let oldest = status.ledgers.iter().map(|ledger| ledger.waiting.oldest_age_s).fold(0.0, f64::max);
    json!({
        "kind": status.info.kind,
        "name": status.info.name,
        "signals": status.info.signals.iter().map(|signal| signal.name()).collect::<Vec<_>>(),
        "configured": status.configured,
        "url": status.info.url,
        "state": status.state.name(),
        "accepted": sum(&|ledger| ledger.accepted),
        "sent": sum(&|ledger| ledger.sent),
        "waiting": {
            "records": sum(&|ledger| ledger.waiting.records),
            "bytes": sum(&|ledger| ledger.waiting.bytes),
            "oldest_age_s": oldest,
        },
        "quarantined": sum(&LedgerSnapshot::quarantined_records),
        "dropped": sum(&LedgerSnapshot::dropped_records),
        "damaged": sum(&|ledger| ledger.damaged),
        "sent_bytes": sum(&|ledger| ledger.sent_bytes),
        "retries": sum(&|ledger| ledger.retries),
        "last_error": status.last_error.as_ref().map(|error| json!({ "at_ms": error.at_ms, "text": error.text })),
        "next_try_ms": status.next_try_ms,
    })
}

fn view(view: Option<&View>) -> Value {
    let Some(view) = view else {
        return json!({ "enabled": false, "bytes": 0, "max_bytes": 0, "covers": null });
    };
    let stats = view.stats();
    json!({ "enabled": true, "bytes": stats.bytes, "max_bytes": stats.max_bytes, "covers": stats.covers })
}
