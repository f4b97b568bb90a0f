//! The last minutes of series, and questions about them.
//!
//! A wall of paper strips, one a series, and one clock beside the wall: each scrape writes its number on every strip it touches, and
//! the clock's page says what time that number was. So a sample is twelve bytes, and the oldest scrape is torn off all strips in one
//! pass. Strips hang in order of their names and labels. Weakness: that pass looks at every strip, some thousands a scrape; for the
//! series of one machine that is nothing, for those of a cluster it is what Prometheus is for.

mod points;
mod select;

pub use points::POINTS_MAX;
pub use select::{BadSelector, Selector};

use super::Covers;
use super::line::ALLOCATION_BYTES;
use super::text::Needle;
use model::series::{NAME, Part, Type, parts};
use points::Window;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Series that are held; further ones are counted as evicted.
const SERIES_MAX: usize = 50_000;
/// Names of one answer.
pub const NAMES_MAX: usize = 2000;
/// Series of one answer; how many more there were is said in it.
pub const SERIES_ANSWERED_MAX: usize = 200;
/// Values of one label that an answer names.
const VALUES_MAX: usize = 100;
/// Families whose type and help are remembered, and the longest help, in bytes.
const FAMILIES_MAX: usize = 10_000;
const HELP_BYTES_MAX: usize = 1024;
/// Different times of one request; samples at further ones are counted as evicted. A scrape has one.
const MOMENTS_MAX: usize = 1000;
/// Fewer new places are never made at once when a strip grows.
const GROWTH_MIN: usize = 8;

/// Names of series that match a search.
#[derive(Clone, Debug, Serialize)]
pub struct NamesAnswer {
    pub covers: Covers,
    /// Names that match, whatever the limit.
    pub total: u64,
    pub names: Vec<NameRow>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NameRow {
    pub name: String,
    /// `counter`, `gauge`, `histogram` (of buckets) or empty.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub help: String,
    /// Series of that name.
    pub series: u64,
    /// The first hundred values of each label.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// Points of series over time.
#[derive(Clone, Debug, Default)]
pub struct RangeQuery {
    pub selector: Selector,
    /// Unix milliseconds, both ends included; absent: what is held.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
    /// Of one series; at most [`POINTS_MAX`].
    pub max_points: usize,
    /// Increase per second instead of values, as fits a counter.
    pub rate: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct RangeAnswer {
    pub covers: Covers,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub rate: bool,
    /// Width of a step where points were thinned, else the usual time between two samples; 0: too few to say.
    pub step_ms: u64,
    /// Series that match and were left out.
    pub cut: u64,
    pub series: Vec<RangeRow>,
}

/// One series of an answer; a value that is no number is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeRow {
    pub labels: BTreeMap<String, String>,
    pub points: Vec<(i64, Option<f64>)>,
}

/// Labels without the name, sorted.
type Labels = Box<[(Box<str>, Box<str>)]>;

/// One strip: of each sample the scrape's number and the value.
#[derive(Default)]
struct Strip {
    moments: VecDeque<u32>,
    values: VecDeque<f64>,
}

/// One page of the clock.
struct Moment {
    at_ms: i64,
    received_at: u64,
}

struct Meaning {
    kind: Type,
    help: Box<str>,
}

/// The wall.
#[derive(Default)]
pub(super) struct Metrics {
    names: BTreeMap<Box<str>, BTreeMap<Labels, Strip>>,
    meanings: HashMap<Box<str>, Meaning>,
    moments: VecDeque<Moment>,
    /// Number of the first moment held.
    first: u32,
    series: usize,
    pub(super) bytes: usize,
    pub(super) samples: u64,
    pub(super) evicted: u64,
    pub(super) last_seq: Option<u64>,
}

impl Metrics {
    /// Takes one request; gives its number of samples. Errors: bytes that are no request; what came before them is kept.
    pub(super) fn push(&mut self, raw: &[u8], received_at: u64) -> Result<u64, model::Malformed> {
        let mut moments: BTreeMap<i64, u32> = BTreeMap::new();
        let mut taken = 0;
        for part in parts(raw) {
            match part? {
                Part::Family(family) => self.learn(family.name, family.kind, family.help),
                Part::Series(series) => {
                    for (at_ms, value) in &series.samples {
                        if moments.len() == MOMENTS_MAX && !moments.contains_key(at_ms) {
                            self.evicted += 1;
                            continue;
                        }
                        let moment = *moments.entry(*at_ms).or_insert_with(|| self.begin(*at_ms, received_at));
                        self.add(&series, moment, *value);
                        taken += 1;
                    }
                }
            }
        }
        Ok(taken)
    }

    fn learn(&mut self, name: &str, kind: Type, help: &str) {
        let cut = (0..=HELP_BYTES_MAX.min(help.len())).rev().find(|at| help.is_char_boundary(*at)).unwrap_or(0);
        let help = &help[..cut];
        let room = self.meanings.len() < FAMILIES_MAX;
        match self.meanings.get_mut(name) {
            Some(known) if known.kind == kind && &*known.help == help => {}
            Some(known) => {
                self.bytes = self.bytes + help.len() - known.help.len();
                *known = Meaning { kind, help: help.into() };
            }
            None if room => {
                self.bytes += meaning_bytes(name, help);
                self.meanings.insert(name.into(), Meaning { kind, help: help.into() });
            }
            None => {}
        }
    }

    fn begin(&mut self, at_ms: i64, received_at: u64) -> u32 {
        self.bytes += size_of::<Moment>();
        self.moments.push_back(Moment { at_ms, received_at });
        self.first.wrapping_add(self.moments.len() as u32 - 1)
    }

    fn add(&mut self, series: &model::series::Series<'_>, moment: u32, value: f64) {
        let labels = series.labels.iter().filter(|(label, _)| *label != NAME);
        let labels: Labels = labels.map(|(label, value)| ((*label).into(), (*value).into())).collect();
        let name = series.name();
        if !self.names.contains_key(name) {
            if self.series >= SERIES_MAX {
                self.evicted += 1;
                return;
            }
            self.bytes += name_bytes(name);
            self.names.insert(name.into(), BTreeMap::new());
        }
        let Some(strips) = self.names.get_mut(name) else { return };
        if !strips.contains_key(&labels) {
            if self.series >= SERIES_MAX {
                self.evicted += 1;
                return;
            }
            self.series += 1;
            self.bytes += labels_bytes(&labels);
            strips.insert(labels.clone(), Strip::default());
        }
        if let Some(strip) = strips.get_mut(&labels) {
            self.bytes -= strip.bytes();
            strip.push(moment, value);
            self.bytes += strip.bytes();
            self.samples += 1;
        }
    }

    /// Tears the oldest scrape off; gives its number of samples.
    pub(super) fn pop(&mut self) -> u64 {
        if self.moments.pop_front().is_none() {
            return 0;
        }
        let moment = self.first;
        self.first = self.first.wrapping_add(1);
        let (mut samples, mut series, mut bytes) = (0, 0, size_of::<Moment>());
        self.names.retain(|name, strips| {
            strips.retain(|labels, strip| {
                bytes += strip.bytes();
                samples += strip.tear(moment);
                bytes -= strip.bytes();
                if strip.moments.is_empty() {
                    series += 1;
                    bytes += labels_bytes(labels) + strip.bytes();
                }
                !strip.moments.is_empty()
            });
            if strips.is_empty() {
                bytes += name_bytes(name);
            }
            !strips.is_empty()
        });
        if self.names.is_empty() {
            bytes += self.meanings.drain().map(|(name, meaning)| meaning_bytes(&name, &meaning.help)).sum::<usize>();
        }
        self.bytes -= bytes;
        self.series -= series;
        self.samples -= samples;
        samples
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.moments.front().map(|moment| moment.received_at)
    }

    pub(super) fn series(&self) -> usize {
        self.series
    }

    pub(super) fn covers(&self) -> Covers {
        let ms = |moment: Option<&Moment>| moment.map_or(0, |moment| moment.received_at / 1_000_000);
        Covers { from_ms: ms(self.moments.front()), to_ms: ms(self.moments.back()), evicted: self.evicted }
    }

    /// Type and help of a name: its own, or those of the histogram or summary that it is a part of.
    fn meaning(&self, name: &str) -> (&'static str, &str) {
        if let Some(known) = self.meanings.get(name) {
            return (known.kind.name(), &known.help);
        }
        // OpenMetrics names a counter's family without its suffix.
        let parts = [("_bucket", "histogram"), ("_count", "counter"), ("_sum", "counter"), ("_total", "counter")];
        for (suffix, kind) in parts {
            if let Some(known) = name.strip_suffix(suffix).and_then(|family| self.meanings.get(family)) {
                return (kind, &known.help);
            }
        }
        ("", "")
    }

    /// Names that hold `q` in themselves or in their help, in any case.
    pub(super) fn list(&self, q: &str, limit: usize) -> NamesAnswer {
        let needle = Needle::new(q);
        let mut answer = NamesAnswer { covers: self.covers(), total: 0, names: Vec::new() };
        for (name, strips) in &self.names {
            let (kind, help) = self.meaning(name);
            if !needle.is_in(name) && !needle.is_in(help) {
                continue;
            }
            answer.total += 1;
            if answer.names.len() >= limit.min(NAMES_MAX) {
                continue;
            }
            let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (label, value) in strips.keys().flat_map(|labels| labels.iter()) {
                let values = labels.entry(label.to_string()).or_default();
                if values.len() < VALUES_MAX {
                    values.insert(value.to_string());
                }
            }
            let (name, help, series) = (name.to_string(), help.to_owned(), strips.len() as u64);
            answer.names.push(NameRow { name, kind, help, series, labels });
        }
        answer
    }

    /// Points of the series that a selector names.
    pub(super) fn range(&self, query: &RangeQuery) -> RangeAnswer {
        let covers = self.covers();
        let name = query.selector.name.as_str();
        let (kind, _) = self.meaning(name);
        let strips = self.names.get(name);
        let matching = strips.into_iter().flatten().filter(|(labels, _)| {
            query.selector.holds(|label| {
                if label == NAME {
                    return name;
                }
                labels.iter().find(|(held, _)| **held == *label).map_or("", |(_, value)| value)
            })
        });
        let mut window = Window::new(query);
        let (name, rate) = (name.to_owned(), query.rate);
        let mut answer = RangeAnswer { covers, name, kind, rate, step_ms: 0, cut: 0, series: Vec::new() };
        for (labels, strip) in matching {
            if answer.series.len() >= SERIES_ANSWERED_MAX {
                answer.cut += 1;
                continue;
            }
            let labels = labels.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect();
            let points = window.points(strip.moments.iter().zip(&strip.values).filter_map(|(moment, value)| {
                let moment = self.moments.get(moment.wrapping_sub(self.first) as usize)?;
                Some((moment.at_ms, *value))
            }));
            answer.series.push(RangeRow { labels, points });
        }
        answer.step_ms = window.step_ms();
        answer
    }
}

impl Strip {
    fn push(&mut self, moment: u32, value: f64) {
        // Exact growth, so that what is counted is what is held.
        if self.moments.len() == self.moments.capacity() {
            let more = (self.moments.len() / 4).max(GROWTH_MIN);
            self.moments.reserve_exact(more);
            self.values.reserve_exact(more);
        }
        self.moments.push_back(moment);
        self.values.push_back(value);
    }

    /// Removes what belongs to a moment from the front; gives how much.
    fn tear(&mut self, moment: u32) -> u64 {
        let mut torn = 0;
        while self.moments.front() == Some(&moment) {
            self.moments.pop_front();
            self.values.pop_front();
            torn += 1;
        }
        torn
    }

    fn bytes(&self) -> usize {
        self.moments.capacity() * size_of::<u32>() + self.values.capacity() * size_of::<f64>()
    }
}

fn name_bytes(name: &str) -> usize {
    name.len() + size_of::<Box<str>>() + size_of::<BTreeMap<Labels, Strip>>() + 2 * ALLOCATION_BYTES
}

fn labels_bytes(labels: &Labels) -> usize {
    let texts: usize = labels.iter().map(|(name, value)| name.len() + value.len() + 2 * ALLOCATION_BYTES).sum();
    let pairs = labels.len() * size_of::<(Box<str>, Box<str>)>();
    texts + pairs + size_of::<Labels>() + size_of::<Strip>() + 3 * ALLOCATION_BYTES
}

fn meaning_bytes(name: &str, help: &str) -> usize {
    name.len() + help.len() + size_of::<Box<str>>() + size_of::<Meaning>() + 2 * ALLOCATION_BYTES
}

#[cfg(test)]
mod tests;
