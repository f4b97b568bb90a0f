//! One scrape as a remote-write request, and back.
//!
//! A train of small wagons: each series is one wagon with its labels painted on the side and its samples inside, and the list of
//! what the names mean (type and help) rides along. [`Writer`] couples wagons behind each other straight into protobuf
//! (`prometheus.WriteRequest` of remote write 1.0, not compressed); [`parts`] walks along the train and lends out what it sees.
//! Labels are sorted by name, as receivers demand; times are Unix milliseconds.
//!
//! Weakness: labels are repeated in every scrape, some hundred bytes a series. That is the price of a form that every receiver
//! of metrics understands without asking back; the log's disk and the destination's snappy take most of it away.

use crate::Malformed;
use crate::wire::{self, Fields, Value};

/// Bytes of one request; what does not fit is left out and counted.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Labels of one series.
pub const LABELS_MAX: usize = 128;
/// Bytes of one label's name and value together.
pub const LABEL_BYTES_MAX: usize = 16 << 10;
/// Samples of one series in one request.
pub const SERIES_SAMPLES_MAX: usize = 100_000;

/// The label that holds a series' name.
pub const NAME: &str = "__name__";

/// What a family of series is; the numbers are those of `prometheus.MetricMetadata.MetricType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl Type {
    /// Lower case, as in exposition text; empty for unknown.
    pub const fn name(self) -> &'static str {
        match self {
            Type::Unknown => "",
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::GaugeHistogram => "gaugehistogram",
            Type::Summary => "summary",
            Type::Info => "info",
            Type::StateSet => "stateset",
        }
    }

    /// The type that a text exposition names after `# TYPE`; anything else is unknown.
    pub fn of_name(name: &str) -> Type {
        let all = [Type::Counter, Type::Gauge, Type::Histogram, Type::GaugeHistogram, Type::Summary, Type::Info];
        all.into_iter().find(|kind| kind.name() == name).unwrap_or_default()
    }

    fn of_number(number: u64) -> Type {
        let all = [
            Type::Counter,
            Type::Gauge,
            Type::Histogram,
            Type::GaugeHistogram,
            Type::Summary,
            Type::Info,
            Type::StateSet,
        ];
        all.into_iter().find(|kind| *kind as u64 == number).unwrap_or_default()
    }
}

/// Writes one scrape of one target.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    /// Of the target: put on every series, over a label of the same name.
    target: Vec<(String, String)>,
    samples: u32,
    cut: u32,
}

impl Writer {
    /// `target`: labels of the target, such as `job` and `instance`.
    pub fn new(target: &[(&str, &str)]) -> Writer {
        let target = target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Writer { out: Vec::new(), target, samples: 0, cut: 0 }
    }

    /// What the series of a family are; `help` is a sentence for people.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        if self.out.len() + name.len() + help.len() > REQUEST_BYTES_MAX {
            return;
        }
        let at = wire::open(&mut self.out, 3);
        self.out.extend([1 << 3 | wire::VARINT, kind as u8]);
        wire::put_bytes(&mut self.out, 2, name.as_bytes());
        wire::put_bytes(&mut self.out, 4, help.as_bytes());
        wire::close(&mut self.out, at);
    }

    /// One series with one sample. A label that the target has too is kept as `exported_NAME`; an empty one is no label. What does
    /// not fit the limits above is left out and counted by [`Writer::cut`].
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at_ms: i64) {
        let renamed: Vec<String> = labels
            .iter()
            .filter(|(label, _)| self.target.iter().any(|(own, _)| own == label))
            .map(|(label, _)| format!("exported_{label}"))
            .collect();
        let mut clashes = renamed.iter();
        let mut all: Vec<(&str, &str)> = vec![(NAME, name)];
        all.extend(self.target.iter().map(|(label, value)| (label.as_str(), value.as_str())));
        for (label, value) in labels {
            let clash = self.target.iter().any(|(own, _)| own == label);
            let label = if clash { clashes.next().map_or(*label, String::as_str) } else { label };
            all.push((label, value));
        }
        all.retain(|(_, value)| !value.is_empty());
        all.sort_unstable();
        let twice = all.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let bytes: usize = all.iter().map(|(label, value)| label.len() + value.len() + 16).sum();
        let long = all.iter().any(|(label, value)| label.len() + value.len() > LABEL_BYTES_MAX);
        if twice || long || all.len() > LABELS_MAX || self.out.len() + bytes > REQUEST_BYTES_MAX {
            self.cut += 1;
            return;
        }
        put_series(&mut self.out, &all, &[(at_ms, value)]);
        self.samples += 1;
    }

    /// One series with all its labels, those of the target included: what [`parts`] gave of an earlier request. Counts as a sample.
    pub fn series(&mut self, labels: &[(&str, &str)], value: f64, at_ms: i64) {
        let bytes: usize = labels.iter().map(|(label, value)| label.len() + value.len() + 16).sum();
        let sorted = labels.is_sorted_by(|a, b| a.0 < b.0);
        if !sorted || labels.len() > LABELS_MAX || self.out.len() + bytes > REQUEST_BYTES_MAX {
            self.cut += 1;
            return;
        }
        put_series(&mut self.out, labels, &[(at_ms, value)]);
        self.samples += 1;
    }

    /// The request so far.
    pub fn written(&self) -> &[u8] {
        &self.out
    }

    /// Samples written so far.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Samples left out: labels that are too many, too long or given twice, or a request that is full.
    pub fn cut(&self) -> u32 {
        self.cut
    }

    /// The request's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// One `prometheus.TimeSeries`; the labels are sorted already.
fn put_series(out: &mut Vec<u8>, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
    let series = wire::open(out, 1);
    for (name, value) in labels {
        let label = wire::open(out, 1);
        wire::put_bytes(out, 1, name.as_bytes());
        wire::put_bytes(out, 2, value.as_bytes());
        wire::close(out, label);
    }
    for (at_ms, value) in samples {
        let sample = wire::open(out, 2);
        out.push(1 << 3 | wire::FIXED64);
        out.extend(value.to_le_bytes());
        out.push(2 << 3 | wire::VARINT);
        wire::put_varint(out, *at_ms as u64);
        wire::close(out, sample);
    }
    wire::close(out, series);
}

/// One part of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    Family(Family<'a>),
    Series(Series<'a>),
}

/// What the series of a name are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family<'a> {
    pub name: &'a str,
    pub kind: Type,
    pub help: &'a str,
}

/// One series with what was seen of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// Sorted by name, [`NAME`] among them; no name twice.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Unix milliseconds and value, in the order in which they were written.
    pub samples: Vec<(i64, f64)>,
}

impl<'a> Series<'a> {
    /// Empty if the series has none.
    pub fn name(&self) -> &'a str {
        self.labels.iter().find(|(label, _)| *label == NAME).map_or("", |(_, value)| value)
    }
}

/// Walks a request. Fields that this program does not know (exemplars, native histograms) are stepped over. After an error nothing
/// more comes. Memory: what one series takes, at most a few MiB by the limits above.
pub fn parts(raw: &[u8]) -> impl Iterator<Item = Result<Part<'_>, Malformed>> {
    let mut fields = Fields(raw);
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            let at = raw.len() - fields.0.len();
            let wrong = |what| Malformed { part: "remote-write request", what, at };
            let part = match fields.next()? {
                Ok((1, Value::Bytes(series))) => read_series(series).map(Part::Series),
                Ok((3, Value::Bytes(family))) => read_family(family).map(Part::Family),
                Ok((1 | 3, _)) => Err(wire::Fault::Type.text()),
                Ok(_) => continue,
                Err(fault) => Err(fault.text()),
            };
            ended = part.is_err();
            return Some(part.map_err(wrong));
        }
        None
    })
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| wire::Fault::Text.text())
}

fn read_series(raw: &[u8]) -> Result<Series<'_>, &'static str> {
    let mut series = Series { labels: Vec::new(), samples: Vec::new() };
    for field in Fields(raw) {
        match field.map_err(wire::Fault::text)? {
            (1, Value::Bytes(label)) if series.labels.len() < LABELS_MAX => {
                let label = read_label(label)?;
                if series.labels.last().is_some_and(|(before, _)| *before >= label.0) {
                    return Err("labels are not sorted, or one stands twice");
                }
                series.labels.push(label);
            }
            (1, Value::Bytes(_)) => return Err("a series has more than 128 labels"),
            (2, Value::Bytes(sample)) if series.samples.len() < SERIES_SAMPLES_MAX => {
                series.samples.push(read_sample(sample)?);
            }
            (2, Value::Bytes(_)) => return Err("a series has more than 100,000 samples"),
            (1 | 2, _) => return Err(wire::Fault::Type.text()),
            _ => {}
        }
    }
    Ok(series)
}

fn read_label(raw: &[u8]) -> Result<(&str, &str), &'static str> {
    let (mut name, mut value) = ("", "");
    for field in Fields(raw) {
        match field.map_err(wire::Fault::text)? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = text(bytes)?,
            (1 | 2, _) => return Err(wire::Fault::Type.text()),
            _ => {}
        }
    }
    if name.len() + value.len() > LABEL_BYTES_MAX {
        return Err("a label is longer than 16 KiB");
    }
    Ok((name, value))
}

fn read_sample(raw: &[u8]) -> Result<(i64, f64), &'static str> {
    let (mut at_ms, mut value) = (0, 0.0);
    for field in Fields(raw) {
        match field.map_err(wire::Fault::text)? {
            (1, Value::Fixed64(bits)) => value = f64::from_bits(bits),
            (2, Value::Varint(ms)) => at_ms = ms as i64,
            (1 | 2, _) => return Err(wire::Fault::Type.text()),
            _ => {}
        }
    }
    Ok((at_ms, value))
}

fn read_family(raw: &[u8]) -> Result<Family<'_>, &'static str> {
    let mut family = Family { name: "", kind: Type::Unknown, help: "" };
    for field in Fields(raw) {
        match field.map_err(wire::Fault::text)? {
            (1, Value::Varint(kind)) => family.kind = Type::of_number(kind),
            (2, Value::Bytes(name)) => family.name = text(name)?,
            (4, Value::Bytes(help)) => family.help = text(help)?,
            (1 | 2 | 4, _) => return Err(wire::Fault::Type.text()),
            _ => {}
        }
    }
    Ok(family)
}
