//! The round of a scraper: read, stamp, append; again after the interval.
//!
//! A night watchman's clock: at each stroke he goes round once, writes what he saw into the book, and if the book is full he says so
//! and goes on; nothing is held for him, because what he saw is old by the next stroke. A target is asked for its rows; the round
//! adds `up` and the other series that Prometheus writes for every scrape, and ends series that are no longer there with a staleness
//! marker, as Prometheus does. Weakness: a round that takes longer than the interval skips strokes, which shows as a gap.

use crate::seam::{Intake, Offered, Signal, Source};
use crate::store::now_ns;
use crate::telemetry::Telemetry;
use bytes::Bytes;
use model::envelope::{Kind, Sidecar};
use model::series::{self, Part, Type, Writer, parts};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use xxhash_rust::xxh3::Xxh3;

/// What Prometheus takes for "this series has ended": a NaN with these bits.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Something whose numbers are read at an interval.
pub trait Target: Send + Sync + 'static {
    /// The label `job`.
    fn job(&self) -> &'static str;
    fn source(&self) -> Source;
    /// Writes every row at `at_ms` (Unix milliseconds). May block. Errors: why there is nothing at all; `up` is 0 then.
    fn read(&self, writer: &mut Writer, at_ms: i64) -> Result<(), String>;
}

/// One target, its place in the log and what was seen of it last.
pub struct Round<I> {
    pub target: Arc<dyn Target>,
    /// The label `instance`.
    pub instance: String,
    pub intake: I,
    pub telemetry: Telemetry,
}

/// The series of the last scrape, to tell which are new and which have gone.
#[derive(Default)]
struct Last {
    raw: Vec<u8>,
    hashes: HashSet<u64>,
}

impl<I: Intake> Round<I> {
    /// Scrapes now and then at each interval, until `stop` says true.
    pub async fn run(self, interval: Duration, mut stop: watch::Receiver<bool>) {
        let mut strokes = tokio::time::interval(interval);
        strokes.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last = Last::default();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = strokes.tick() => {}
            }
            // A sync that never returns must not keep the process from ending.
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                next = self.once(last) => last = next,
            }
        }
    }

    async fn once(&self, last: Last) -> Last {
        let (target, instance) = (self.target.clone(), self.instance.clone());
        let read = tokio::task::spawn_blocking(move || scrape(&*target, &instance, last, now_ns())).await;
        let Ok(scraped) = read else {
            tracing::error!(job = self.target.job(), "a scrape ended by a bug; the next one begins anew");
            return Last::default();
        };
        let (source, items, length) = (self.target.source(), scraped.items, scraped.last.raw.len() as u64);
        if scraped.cut > 0 {
            self.telemetry.dropped(Signal::Metrics, "scrape_limits", u64::from(scraped.cut));
        }
        let offered = Offered {
            signal: Signal::Metrics,
            kind: Kind::Series,
            items,
            sidecar: Sidecar { received_at: scraped.at_ns, ..Sidecar::default() },
            body: vec![Bytes::from(scraped.last.raw.clone())],
            source,
            origin: None,
        };
        match self.intake.accept(offered).await {
            Ok(()) => self.telemetry.accepted(source, Signal::Metrics, u64::from(items), length),
            Err(refusal) => {
                let rule = format!("scrape_{}", refusal.reason);
                self.telemetry.dropped(Signal::Metrics, &rule, u64::from(items));
                tracing::warn!(job = self.target.job(), "a scrape of {items} samples is dropped: {refusal}");
                // What was not written has neither begun nor ended.
                return Last { raw: Vec::new(), hashes: HashSet::new() };
            }
        }
        scraped.last
    }
}

struct Scraped {
    last: Last,
    items: u32,
    cut: u32,
    at_ns: u64,
}

/// One reading of a target as a request.
fn scrape(target: &dyn Target, instance: &str, before: Last, at_ns: u64) -> Scraped {
    let at_ms = i64::try_from(at_ns / 1_000_000).unwrap_or(i64::MAX);
    let begun = Instant::now();
    let new = || Writer::new(&[("job", target.job()), ("instance", instance)]);
    let mut writer = new();
    let read = target.read(&mut writer, at_ms);
    if let Err(why) = &read {
        tracing::warn!(job = target.job(), "nothing could be read: {why}");
        // A scrape is whole or it is none.
        writer = new();
    }
    let (samples, cut) = (writer.samples(), writer.cut());
    let hashes = hashes_of(&writer);
    let added = hashes.difference(&before.hashes).count();
    stale(&mut writer, &before, &hashes, at_ms);
    let report = [
        ("up", f64::from(u8::from(read.is_ok()))),
        ("scrape_duration_seconds", begun.elapsed().as_secs_f64()),
        ("scrape_samples_scraped", f64::from(samples + cut)),
        ("scrape_samples_post_metric_relabeling", f64::from(samples)),
        ("scrape_series_added", added as f64),
    ];
    for (name, value) in report {
        writer.family(name, Type::Gauge, "");
        writer.sample(name, &[], value, at_ms);
    }
    let items = writer.samples();
    Scraped { last: Last { raw: writer.finish(), hashes }, items, cut, at_ns }
}

/// Ends the series of the last scrape that are not in this one.
fn stale(writer: &mut Writer, before: &Last, now: &HashSet<u64>, at_ms: i64) {
    if before.hashes.is_subset(now) {
        return;
    }
    for part in parts(&before.raw).flatten() {
        if let Part::Series(series) = part
            && before.hashes.contains(&hash_of(&series))
            && !now.contains(&hash_of(&series))
        {
            writer.series(&series.labels, f64::from_bits(STALE), at_ms);
        }
    }
}

fn hashes_of(writer: &Writer) -> HashSet<u64> {
    let series = parts(writer.written()).flatten().filter_map(|part| match part {
        Part::Series(series) => Some(hash_of(&series)),
        Part::Family(_) => None,
    });
    series.collect()
}

fn hash_of(series: &series::Series<'_>) -> u64 {
    let mut hash = Xxh3::new();
    for text in series.labels.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(text.as_bytes());
        hash.update(&[0xff]);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::{Refusal, RefusalClass};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Gives the next list of rows at each reading; none of them: an error.
    struct Script(AtomicUsize, Vec<Vec<(&'static str, f64)>>);

    impl Target for Script {
        fn job(&self) -> &'static str {
            "script"
        }
        fn source(&self) -> Source {
            Source::Host
        }
        fn read(&self, writer: &mut Writer, at_ms: i64) -> Result<(), String> {
            let round = self.0.fetch_add(1, Ordering::SeqCst);
            let rows = self.1.get(round.min(self.1.len() - 1)).cloned().unwrap_or_default();
            rows.iter().for_each(|(device, value)| writer.sample("m", &[("device", device)], *value, at_ms));
            if rows.is_empty() { Err("the script has nothing".to_owned()) } else { Ok(()) }
        }
    }

    type Kept = Arc<Mutex<Vec<(u32, Vec<u8>)>>>;

    #[derive(Clone)]
    struct Book {
        kept: Kept,
        full: Arc<Mutex<bool>>,
        written: watch::Sender<usize>,
    }

    impl Intake for Book {
        fn serves(&self, _: Signal) -> bool {
            true
        }
        async fn accept(&self, offered: Offered) -> Result<(), Refusal> {
            self.written.send_modify(|n| *n += 1);
            if *self.full.lock().unwrap() {
                let message = "full".to_owned();
                return Err(Refusal { class: RefusalClass::Exhausted, reason: "full", message, retry_after: None });
            }
            assert_eq!((offered.signal, offered.kind), (Signal::Metrics, Kind::Series));
            self.kept.lock().unwrap().push((offered.items, offered.body.concat()));
            Ok(())
        }
    }

    /// `name{device} value` of each sample, in order.
    fn shown(raw: &[u8]) -> Vec<String> {
        let series = parts(raw).filter_map(|part| match part.unwrap() {
            Part::Series(series) => Some(series),
            Part::Family(_) => None,
        });
        series
            .filter(|series| series.name() != "scrape_duration_seconds")
            .map(|series| {
                let label = |name| series.labels.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| *v);
                assert_eq!((label("job"), label("instance")), ("script", "n1"));
                let value = series.samples[0].1;
                let value = if value.to_bits() == STALE { "stale".to_owned() } else { value.to_string() };
                format!("{}{{{}}} {value}", series.name(), label("device"))
            })
            .collect()
    }

    async fn rounds(script: Vec<Vec<(&'static str, f64)>>, full: bool, until: usize) -> (Kept, Telemetry) {
        let (written, mut seen) = watch::channel(0);
        let book = Book { kept: Kept::default(), full: Arc::new(Mutex::new(full)), written };
        let (stop, stopped) = watch::channel(false);
        let telemetry = Telemetry::new();
        let target = Arc::new(Script(AtomicUsize::new(0), script));
        let round = Round { target, instance: "n1".to_owned(), intake: book.clone(), telemetry: telemetry.clone() };
        let task = tokio::spawn(round.run(Duration::from_millis(5), stopped));
        seen.wait_for(|n| *n >= until).await.unwrap();
        stop.send_replace(true);
        task.await.unwrap();
        (book.kept, telemetry)
    }

    #[tokio::test]
    async fn the_first_scrape_is_at_once_and_series_that_go_are_ended() {
        let script = vec![vec![("a", 1.0), ("b", 2.0)], vec![("a", 3.0)], vec![("a", 4.0), ("c", 5.0)]];
        let (kept, telemetry) = rounds(script, false, 4).await;
        let kept = kept.lock().unwrap();
        let report = |samples: u32, added: u32| {
            [
                "up{} 1".to_owned(),
                format!("scrape_samples_scraped{{}} {samples}"),
                format!("scrape_samples_post_metric_relabeling{{}} {samples}"),
                format!("scrape_series_added{{}} {added}"),
            ]
        };
        let lines = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&kept[0].1), [lines(&["m{a} 1", "m{b} 2"]), report(2, 2).to_vec()].concat());
        assert_eq!(shown(&kept[1].1), [lines(&["m{a} 3", "m{b} stale"]), report(1, 0).to_vec()].concat());
        assert_eq!(shown(&kept[2].1), [lines(&["m{a} 4", "m{c} 5"]), report(2, 1).to_vec()].concat());
        assert_eq!((kept[0].0, kept[1].0), (7, 7));
        let counted = telemetry.accepted_items(Signal::Metrics);
        let sum: u32 = kept.iter().map(|(items, _)| items).sum();
        // The stop may come between an append and its count.
        assert!(counted == u64::from(sum) || counted == u64::from(sum - kept.last().unwrap().0));
    }

    #[tokio::test]
    async fn a_target_that_gives_nothing_is_down_and_all_its_series_end() {
        let (kept, _) = rounds(vec![vec![("a", 1.0)], vec![]], false, 3).await;
        let kept = kept.lock().unwrap();
        assert_eq!(shown(&kept[1].1)[..2], ["m{a} stale", "up{} 0"]);
        assert_eq!(shown(&kept[2].1)[0], "up{} 0", "ended once, not at each round");
    }

    #[tokio::test]
    async fn a_scrape_that_the_log_refuses_is_dropped_with_the_reason_and_held_by_nobody() {
        let (kept, telemetry) = rounds(vec![vec![("a", 1.0)]], true, 3).await;
        assert!(kept.lock().unwrap().is_empty());
        let dropped = telemetry.dropped_by_rule(Signal::Metrics, &crate::telemetry::StatusSnapshot::default());
        assert!(dropped["scrape_full"] >= 12, "{dropped:?}");
        assert_eq!(telemetry.accepted_items(Signal::Metrics), 0);
    }
}
