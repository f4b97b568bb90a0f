//! The judge lays the sender's diary beside the sink's ledger.
//!
//! lost = acknowledged and not at the sink; stored though refused = refused and at the sink; in the dark = unanswered and at the
//! sink (allowed: the sender would have sent those again). All are counts of sequence numbers, never differences of rates, and so
//! never negative. Weakness: a sink whose bounded registers overflowed cannot be judged, and that is an error, not a zero.

use crate::ledger::Ledger;
use crate::presence::{common, count, without};
use crate::sink::record::{Lane, Report};
use crate::{Signal, http_get};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs of lost numbers printed.
const RUNS_LISTED: usize = 20;
/// Between two looks at a sink that is still receiving.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Verdict {
    pub acked: u64,
    pub refused: u64,
    pub broken: u64,
    pub unique_at_sink: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub stored_though_refused: u64,
    pub stored_in_the_dark: u64,
    /// The first runs of lost numbers: sender, from, upto (exclusive).
    pub lost_runs: Vec<(u32, u64, u64)>,
}

/// Where logs or traces of this report lie. Logs lie in Loki's lane unless only OTLP has any.
pub fn lane_of(signal: Signal, report: &Report) -> Lane {
    let has_loki = report.senders.iter().any(|s| s.lane == Lane::Loki);
    match signal {
        Signal::Traces => Lane::OtlpTraces,
        Signal::Logs if has_loki || !report.senders.iter().any(|s| s.lane == Lane::OtlpLogs) => Lane::Loki,
        Signal::Logs => Lane::OtlpLogs,
    }
}

/// Errors: the report cannot be judged (no runs in it, or numbers it could not track).
pub fn judge(ledger: &Ledger, report: &Report, lane: Lane) -> Result<Verdict, String> {
    if report.untracked > 0 {
        return Err(format!(
            "the sink could not track {} numbers: its registers are full, nothing can be said",
            report.untracked
        ));
    }
    let mut present: BTreeMap<u32, &[(u64, u64)]> = BTreeMap::new();
    let mut verdict = Verdict::default();
    for sender in report.senders.iter().filter(|s| s.lane == lane) {
        let runs = sender.runs.as_deref().ok_or("the report holds no runs: ask for /report?runs=1")?;
        present.insert(sender.sender, runs);
        let ours = [&ledger.acked, &ledger.refused, &ledger.broken].iter().any(|r| r.contains_key(&sender.sender));
        if ours {
            verdict.unique_at_sink += sender.unique;
            verdict.duplicated += sender.duplicates;
        }
    }
    let at_sink = |sender: &u32| present.get(sender).copied().unwrap_or(&[]);
    for (sender, runs) in &ledger.acked {
        let lost = without(runs, at_sink(sender));
        verdict.acked += count(runs);
        verdict.lost += count(&lost);
        let room = RUNS_LISTED - verdict.lost_runs.len();
        verdict.lost_runs.extend(lost.iter().take(room).map(|r| (*sender, r.0, r.1)));
    }
    for (sender, runs) in &ledger.refused {
        verdict.refused += count(runs);
        verdict.stored_though_refused += count(&common(runs, at_sink(sender)));
    }
    for (sender, runs) in &ledger.broken {
        verdict.broken += count(runs);
        verdict.stored_in_the_dark += count(&common(runs, at_sink(sender)));
    }
    Ok(verdict)
}

/// Looks until nothing is lost, or until the sink has received nothing new for `patience`.
pub fn judge_patiently(
    ledger: &Ledger,
    patience: Duration,
    mut report: impl FnMut() -> Result<Report, String>,
) -> Result<Verdict, String> {
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        let now = report()?;
        let verdict = judge(ledger, &now, lane_of(ledger.signal.unwrap_or(Signal::Logs), &now))?;
        if verdict.lost == 0 || (seen == Some(now.unique) && since.elapsed() >= patience) {
            return Ok(verdict);
        }
        if seen != Some(now.unique) {
            (seen, since) = (Some(now.unique), Instant::now());
        }
        std::thread::sleep(LOOK);
    }
}

/// A report from a file, or from a control port (`http://127.0.0.1:PORT`).
pub fn fetch(from: &str) -> Result<Report, String> {
    let text = match from.strip_prefix("http://") {
        Some(rest) => {
            let address = rest.split('/').next().unwrap_or("");
            let address = address.parse().map_err(|e| format!("{from}: {e}"))?;
            http_get(address, "/report?runs=1").map_err(|e| format!("{from}: {e}"))?
        }
        None => std::fs::read(from).map_err(|e| format!("{from}: {e}"))?,
    };
    serde_json::from_slice(&text).map_err(|e| format!("{from}: not a sink's report: {e}"))
}
