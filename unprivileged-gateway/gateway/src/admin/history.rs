//! The last quarter of an hour of the page's curves, one sample a second.
//!
//! A barograph drum: the pen draws whether or not anybody looks, and the paper is as long as the drum is round. So a page that is
//! opened late still sees how it came to this. Weakness: memory only; a restart starts with empty paper.

use super::status::log_of;
use crate::seam::Signal;
use crate::telemetry::{StatusSnapshot, Telemetry};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Samples kept: 15 minutes.
pub(super) const SAMPLES_MAX: usize = 900;
/// Curves of one sample; more destinations than that are not drawn.
const SERIES_MAX: usize = 64;
/// Significant enough for a curve, short enough for the wire.
const DECIMALS: f64 = 1000.0;

/// Totals at one moment, from which the next sample's rates are taken.
#[derive(Clone, Debug, Default)]
struct Totals {
    at_ms: u64,
    by_series: BTreeMap<Arc<str>, u64>,
}

struct Sample {
    /// Unix seconds.
    at_s: u64,
    values: BTreeMap<Arc<str>, f64>,
}

#[derive(Default)]
struct Drum {
    samples: VecDeque<Sample>,
    last: Option<Totals>,
}

#[derive(Default)]
pub(super) struct History(Mutex<Drum>);

#[derive(Debug, Serialize)]
pub(super) struct HistoryAnswer {
    step_s: u64,
    /// Of the first value of each series.
    t0_ms: u64,
    /// `null`: no sample that second.
    series: BTreeMap<Arc<str>, Vec<Option<f64>>>,
}

impl History {
    /// Draws one sample. Two in one second: the later one stays.
    pub(super) fn sample(&self, now_ms: u64, telemetry: &Telemetry, snapshot: &StatusSnapshot) {
        let totals = Totals { at_ms: now_ms, by_series: totals(telemetry, snapshot) };
        let mut drum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = levels(telemetry, snapshot);
        if let Some(last) = &drum.last {
            values.extend(rates(last, &totals));
        }
        drum.last = Some(totals);
        let at_s = now_ms / 1000;
        while drum.samples.back().is_some_and(|newest| newest.at_s >= at_s) {
            drum.samples.pop_back();
        }
        if drum.samples.len() == SAMPLES_MAX {
            drum.samples.pop_front();
        }
        drum.samples.push_back(Sample { at_s, values });
    }

    /// The last `window_s` seconds up to the newest sample, at most [`SAMPLES_MAX`].
    pub(super) fn answer(&self, window_s: u64) -> HistoryAnswer {
        let drum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(oldest), Some(newest)) = (drum.samples.front(), drum.samples.back()) else {
            return HistoryAnswer { step_s: 1, t0_ms: 0, series: BTreeMap::new() };
        };
        let width = window_s.clamp(1, SAMPLES_MAX as u64).min(newest.at_s - oldest.at_s + 1);
        let first = newest.at_s + 1 - width;
        let mut series: BTreeMap<Arc<str>, Vec<Option<f64>>> = BTreeMap::new();
        for sample in drum.samples.iter().filter(|sample| sample.at_s >= first) {
            for (name, value) in &sample.values {
                let column = series.entry(name.clone()).or_insert_with(|| vec![None; width as usize]);
                if let Some(place) = column.get_mut((sample.at_s - first) as usize) {
                    *place = Some((value * DECIMALS).round() / DECIMALS);
                }
            }
        }
        HistoryAnswer { step_s: 1, t0_ms: first * 1000, series }
    }
}

/// What only grows: drawn as records a second.
fn totals(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> BTreeMap<Arc<str>, u64> {
    let mut totals: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut refused = 0;
    for signal in Signal::ALL {
        refused += telemetry.refused_by_reason(signal).values().sum::<u64>();
        if log_of(snapshot, signal).is_some() {
            totals.insert(format!("in.{signal}").into(), telemetry.accepted_items(signal));
        }
    }
    totals.insert("refused".into(), refused);
    let (samples, lost) = telemetry.probe().samples();
    totals.insert("probe.samples".into(), samples);
    totals.insert("probe.lost".into(), lost);
    for destination in snapshot.destinations.iter().take(SERIES_MAX) {
        let sent = destination.ledgers.iter().map(|ledger| ledger.sent).sum();
        totals.insert(format!("out.{}", destination.info.label()).into(), sent);
    }
    totals
}

/// What goes up and down: drawn as it is.
fn levels(telemetry: &Telemetry, snapshot: &StatusSnapshot) -> BTreeMap<Arc<str>, f64> {
    let wal: u64 = snapshot.logs.iter().map(|log| log.bytes).sum();
    BTreeMap::from([
        ("waiting_bytes".into(), waiting_bytes(snapshot) as f64),
        ("wal_bytes".into(), wal as f64),
        ("commit_p99_ms".into(), telemetry.commit_times().p99_ms),
    ])
}

/// Bytes that some backend has not got: two destinations that wait for the same records wait for the same bytes, so each log
/// counts once, with its slowest destination. The local view is not waited for.
fn waiting_bytes(snapshot: &StatusSnapshot) -> u64 {
    let backends = || snapshot.destinations.iter().filter(|destination| destination.info.kind != "view");
    let slowest = |signal: Signal| {
        let ledgers = backends().flat_map(|destination| &destination.ledgers);
        ledgers.filter(|ledger| ledger.signal == signal).map(|ledger| ledger.waiting.bytes).max().unwrap_or(0)
    };
    Signal::ALL.into_iter().map(slowest).sum()
}

fn rates(last: &Totals, now: &Totals) -> BTreeMap<Arc<str>, f64> {
    let seconds = now.at_ms.saturating_sub(last.at_ms) as f64 / 1000.0;
    let rate = |(name, total): (&Arc<str>, &u64)| {
        // A series that is new this second has no rate yet.
        let before = last.by_series.get(name)?;
        (seconds > 0.0).then(|| (name.clone(), total.saturating_sub(*before) as f64 / seconds))
    };
    now.by_series.iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::Source;
    use crate::telemetry::LogStatus;

    fn snapshot() -> StatusSnapshot {
        let log = LogStatus { name: "logs", served: true, bytes: 7, ..LogStatus::default() };
        StatusSnapshot { logs: vec![log], ..StatusSnapshot::default() }
    }

    #[test]
    fn rates_are_a_second_and_missing_seconds_are_null() {
        let (history, telemetry) = (History::default(), Telemetry::new());
        for (at_ms, add) in [(10_000, 0), (11_000, 50), (12_500, 30), (15_000, 100)] {
            telemetry.accepted(Source::OtlpGrpc, Signal::Logs, add, 0);
            history.sample(at_ms, &telemetry, &snapshot());
        }
        let answer = history.answer(900);
        assert_eq!(answer.t0_ms, 10_000);
        let rates = &answer.series["in.logs"];
        assert_eq!(rates, &[None, Some(50.0), Some(20.0), None, None, Some(40.0)]);
        assert_eq!(answer.series["wal_bytes"][0], Some(7.0));
        assert_eq!(history.answer(2).t0_ms, 14_000);
        assert_eq!(history.answer(0).series["wal_bytes"], [Some(7.0)]);
    }

    #[test]
    fn the_drum_is_bounded_and_a_clock_that_steps_back_redraws() {
        let (history, telemetry) = (History::default(), Telemetry::new());
        for second in 0..2000 {
            history.sample(second * 1000, &telemetry, &snapshot());
        }
        assert_eq!(history.answer(u64::MAX).series["wal_bytes"].len(), SAMPLES_MAX);
        history.sample(1500 * 1000, &telemetry, &snapshot());
        let answer = history.answer(u64::MAX);
        assert_eq!(answer.t0_ms + answer.series["wal_bytes"].len() as u64 * 1000, 1501 * 1000);
    }
}
