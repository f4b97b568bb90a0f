//! Printing the dials: OpenMetrics, the classic text and protobuf, from one list of families.
//!
//! One typesetter, three papers. The list is set once by prometheus-client; the classic text is its OpenMetrics text with the
//! headers re-lettered, because the two differ only there (a counter's TYPE line carries `_total` in the old one). Weakness: no
//! exemplars and no native histograms yet; both would need more than new headers.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_protobuf, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// One named metric with all its series.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Counters without `_total`: the encoder adds it.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricKind,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
    Histogram(Histogram),
}

impl Family {
    pub(super) fn counter(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: MetricKind::Counter, rows: Vec::new() }
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: MetricKind::Gauge, rows: Vec::new() }
    }

    pub(super) fn histogram(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: MetricKind::Histogram, rows: Vec::new() }
    }

    /// Adds to the series with these labels, or starts it: two dials under one name and label set are one series.
    pub(super) fn count(&mut self, labels: Labels, add: u64) {
        if let Some(Row { value: Value::Whole(value), .. }) = self.rows.iter_mut().find(|row| row.labels == labels) {
            *value += add;
            return;
        }
        self.rows.push(Row { labels, value: Value::Whole(add) });
    }

    pub(super) fn real(&mut self, labels: Labels, value: f64) {
        self.rows.push(Row { labels, value: Value::Real(value) });
    }

    pub(super) fn observe(&mut self, labels: Labels, value: Histogram) {
        self.rows.push(Row { labels, value: Value::Histogram(value) });
    }
}

/// What a scraper asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Classic,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// Length-delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// Picks the format of an `Accept` header: highest `q` first, then the order given; anything unknown means the classic text.
pub fn negotiate(accept: &str) -> Format {
    let mut best = (0.0, Format::Classic);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<String> = parts.collect();
        let parameter = |name: &str| {
            parameters.iter().find_map(|p| p.strip_prefix(name)?.trim_start().strip_prefix('=').map(str::trim))
        };
        let quality = parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0_f64);
        let format = match media.as_str() {
            "application/openmetrics-text" if matches!(parameter("version"), None | Some("1.0.0" | "0.0.1")) => {
                Format::OpenMetrics
            }
            "application/vnd.google.protobuf"
                if parameter("proto") == Some("io.prometheus.client.metricfamily")
                    && parameter("encoding") == Some("delimited") =>
            {
                Format::Protobuf
            }
            "text/plain" if matches!(parameter("version"), None | Some("0.0.4")) => Format::Classic,
            _ => continue,
        };
        if quality > best.0 {
            best = (quality, format);
        }
    }
    best.1
}

/// Writes `families`, those without a series left out, in `format`.
pub(super) fn encode(families: Vec<Family>, format: Format) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Printed(Arc::new(families))));
    if format == Format::Protobuf {
        return prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error);
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    if format == Format::Classic {
        body = classic(&body)?;
    }
    Ok(body.into_bytes())
}

#[derive(Debug)]
struct Printed(Arc<Vec<Family>>);

impl Collector for Printed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in self.0.iter().filter(|family| !family.rows.is_empty()) {
            let kind = match family.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for row in &family.rows {
                let series = metric.encode_family(&row.labels)?;
                match (family.kind, &row.value) {
                    (MetricKind::Counter, Value::Whole(value)) => ConstCounter::new(*value).encode(series)?,
                    (MetricKind::Counter, Value::Real(value)) => ConstCounter::new(*value).encode(series)?,
                    (_, Value::Whole(value)) => ConstGauge::new(*value).encode(series)?,
                    (_, Value::Real(value)) => ConstGauge::new(*value).encode(series)?,
                    (_, Value::Histogram(histogram)) => histogram.encode(series)?,
                }
            }
        }
        Ok(())
    }
}

/// OpenMetrics text to `version=0.0.4`: HELP and TYPE of a counter name the series, and there is no end mark.
fn classic(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut classic = String::with_capacity(open_metrics.len());
    // A HELP line comes before the TYPE line that says whether the name must change.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some((name, text));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                writeln!(classic, "# HELP {name}{suffix} {text}")?;
            }
            writeln!(classic, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# ") {
            writeln!(classic, "{line}")?;
        }
    }
    Ok(classic)
}
