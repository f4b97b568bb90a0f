//! Metrics that came as OTLP, as series for the page.
//!
//! An interpreter between two guilds: the one speaks of resources, scopes and points, the other of names and labels. He follows the
//! phrase book of the collector's Prometheus exporter (`alloy-parity` rules): job and instance from the resource, `target_info` with
//! the rest of it, suffixes for units and counters, buckets that add up. Weakness: what only the first guild can say is left out:
//! deltas (their sender must sum them up) and the buckets of exponential histograms.

use super::value::text;
use model::prometheus_name::{self as names, Shape};
use model::series::{REQUEST_BYTES_MAX, Type, Writer};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, ResourceMetrics, metric::Data, number_data_point,
};
use prost::Message as _;
use std::collections::BTreeMap;

/// Bytes of one label's value.
const VALUE_BYTES_MAX: usize = 2048;
/// The point says that there is none.
const NO_RECORDED_VALUE: u32 = 1;
/// What Prometheus takes for "this series has ended".
const STALE: f64 = f64::from_bits(crate::scrape::STALE);

/// One request as remote-write requests, one a resource; together at most some MiB. Errors: it is no OTLP request.
pub(super) fn decode(raw: &[u8], received_at: u64) -> Result<Vec<Vec<u8>>, prost::DecodeError> {
    let request = ExportMetricsServiceRequest::decode(raw)?;
    let mut requests: Vec<Vec<u8>> = Vec::new();
    for resource in &request.resource_metrics {
        let written: usize = requests.iter().map(Vec::len).sum();
        if written > REQUEST_BYTES_MAX {
            break;
        }
        requests.push(of_resource(resource, received_at));
    }
    Ok(requests)
}

type Labels = BTreeMap<String, String>;

fn labels_of(attributes: &[KeyValue]) -> Labels {
    let label = |pair: &KeyValue| (names::label(&pair.key), text(pair.value.as_ref(), VALUE_BYTES_MAX));
    attributes.iter().map(label).filter(|(name, _)| !name.is_empty()).collect()
}

fn of_resource(resource: &ResourceMetrics, received_at: u64) -> Vec<u8> {
    let attributes = resource.resource.as_ref().map(|resource| &resource.attributes[..]).unwrap_or_default();
    let of = |key: &str| {
        let value = attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_ref());
        text(value, VALUE_BYTES_MAX)
    };
    let job = match (of("service.namespace"), of("service.name")) {
        (_, name) if name.is_empty() => String::new(),
        (namespace, name) if namespace.is_empty() => name,
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let instance = of("service.instance.id");
    let mut page = Page { writer: Writer::new(&[("job", &job), ("instance", &instance)]), base: Labels::new() };
    let apart = ["service.name", "service.namespace", "service.instance.id"];
    let rest: Vec<KeyValue> = attributes.iter().filter(|pair| !apart.contains(&pair.key.as_str())).cloned().collect();
    page.writer.family("target_info", Type::Gauge, "Target metadata");
    page.row("target_info", &labels_of(&rest), 1.0, received_at);
    for scope in &resource.scope_metrics {
        page.base = Labels::new();
        if let Some(scope) = &scope.scope {
            page.base.insert("otel_scope_name".to_owned(), scope.name.clone());
            page.base.insert("otel_scope_version".to_owned(), scope.version.clone());
        }
        scope.metrics.iter().for_each(|metric| page.metric(metric, received_at));
    }
    page.writer.finish()
}

struct Page {
    writer: Writer,
    /// Labels of the scope; those of a point win.
    base: Labels,
}

impl Page {
    /// `at`: unix nanoseconds.
    fn row(&mut self, name: &str, labels: &Labels, value: f64, at: u64) {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.writer.sample(name, &labels, value, i64::try_from(at / 1_000_000).unwrap_or(i64::MAX));
    }

    fn labels(&self, attributes: &[KeyValue]) -> Labels {
        let mut labels = self.base.clone();
        labels.extend(labels_of(attributes));
        labels
    }

    fn metric(&mut self, metric: &Metric, received_at: u64) {
        let is_cumulative = |temporality: i32| temporality == AggregationTemporality::Cumulative as i32;
        let family = |page: &mut Page, shape, kind| {
            let name = names::metric(&metric.name, &metric.unit, shape);
            page.writer.family(&name, kind, &metric.description);
            name
        };
        let at = |time: u64| if time == 0 { received_at } else { time };
        match &metric.data {
            Some(Data::Gauge(gauge)) => {
                let name = family(self, Shape::Gauge, Type::Gauge);
                for point in &gauge.data_points {
                    let labels = self.labels(&point.attributes);
                    self.row(&name, &labels, number(point.flags, point.value), at(point.time_unix_nano));
                }
            }
            Some(Data::Sum(sum)) if is_cumulative(sum.aggregation_temporality) => {
                let (shape, kind) =
                    if sum.is_monotonic { (Shape::Counter, Type::Counter) } else { (Shape::Other, Type::Gauge) };
                let name = family(self, shape, kind);
                for point in &sum.data_points {
                    let labels = self.labels(&point.attributes);
                    self.row(&name, &labels, number(point.flags, point.value), at(point.time_unix_nano));
                }
            }
            Some(Data::Histogram(histogram)) if is_cumulative(histogram.aggregation_temporality) => {
                let name = family(self, Shape::Other, Type::Histogram);
                for point in &histogram.data_points {
                    let (labels, at) = (self.labels(&point.attributes), at(point.time_unix_nano));
                    self.totals(&name, &labels, point.flags, point.count, point.sum, at);
                    self.buckets(
                        &name,
                        &labels,
                        (point.flags, point.count),
                        &point.bucket_counts,
                        &point.explicit_bounds,
                        at,
                    );
                }
            }
            Some(Data::ExponentialHistogram(histogram)) if is_cumulative(histogram.aggregation_temporality) => {
                let name = family(self, Shape::Other, Type::Histogram);
                for point in &histogram.data_points {
                    let labels = self.labels(&point.attributes);
                    self.totals(&name, &labels, point.flags, point.count, point.sum, at(point.time_unix_nano));
                }
            }
            Some(Data::Summary(summary)) => {
                let name = family(self, Shape::Other, Type::Summary);
                for point in &summary.data_points {
                    let (mut labels, at) = (self.labels(&point.attributes), at(point.time_unix_nano));
                    self.totals(&name, &labels, point.flags, point.count, Some(point.sum), at);
                    for quantile in &point.quantile_values {
                        labels.insert("quantile".to_owned(), quantile.quantile.to_string());
                        self.row(&name, &labels, unless_none(point.flags, quantile.value), at);
                    }
                }
            }
            // Deltas, and a metric without data.
            _ => {}
        }
    }

    fn totals(&mut self, name: &str, labels: &Labels, flags: u32, count: u64, sum: Option<f64>, at: u64) {
        self.row(&format!("{name}_count"), labels, unless_none(flags, count as f64), at);
        if let Some(sum) = sum {
            self.row(&format!("{name}_sum"), labels, unless_none(flags, sum), at);
        }
    }

    fn buckets(&mut self, name: &str, labels: &Labels, whole: (u32, u64), counts: &[u64], bounds: &[f64], at: u64) {
        let (flags, total) = whole;
        let (name, mut labels, mut sum) = (format!("{name}_bucket"), labels.clone(), 0_u64);
        for (bound, count) in bounds.iter().zip(counts) {
            sum = sum.saturating_add(*count);
            labels.insert("le".to_owned(), bound.to_string());
            self.row(&name, &labels, unless_none(flags, sum as f64), at);
        }
        labels.insert("le".to_owned(), "+Inf".to_owned());
        self.row(&name, &labels, unless_none(flags, total as f64), at);
    }
}

fn unless_none(flags: u32, value: f64) -> f64 {
    if flags & NO_RECORDED_VALUE != 0 { STALE } else { value }
}

fn number(flags: u32, value: Option<number_data_point::Value>) -> f64 {
    unless_none(
        flags,
        match value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => STALE,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::series::{Part, parts};
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, any_value::Value};
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, NumberDataPoint, ScopeMetrics, Sum,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;

    const AT: u64 = 1_700_000_000_000_000_000;

    fn pair(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    fn point(value: f64, attributes: Vec<KeyValue>) -> NumberDataPoint {
        let value = Some(number_data_point::Value::AsDouble(value));
        NumberDataPoint { attributes, time_unix_nano: AT, value, ..NumberDataPoint::default() }
    }

    fn sum(name: &str, temporality: AggregationTemporality, is_monotonic: bool) -> Metric {
        let data_points = vec![point(7.0, vec![pair("http.method", "GET")])];
        let sum = Sum { data_points, aggregation_temporality: temporality as i32, is_monotonic };
        Metric { name: name.to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() }
    }

    fn shown(metrics: Vec<Metric>) -> Vec<String> {
        let scope = Some(InstrumentationScope { name: "lib".to_owned(), ..InstrumentationScope::default() });
        let scope_metrics = vec![ScopeMetrics { scope, metrics, ..ScopeMetrics::default() }];
        let attributes = vec![pair("service.name", "shop"), pair("service.namespace", "web"), pair("host.name", "h1")];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        let raw = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
        let requests = decode(&raw, AT + 1_000_000_000).unwrap();
        let series = parts(&requests[0]).filter_map(|part| match part.unwrap() {
            Part::Series(series) => Some(series),
            Part::Family(_) => None,
        });
        series
            .map(|series| {
                let plain = ["__name__", "job", "otel_scope_name"];
                let own = series.labels.iter().filter(|(name, _)| !plain.contains(name));
                let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
                assert!(series.labels.contains(&("job", "web/shop")));
                format!("{}{{{}}} {}", series.name(), own.join(","), series.samples[0].1)
            })
            .collect()
    }

    #[test]
    fn gauges_sums_and_histograms_get_the_names_that_prometheus_gives_them() {
        let data = Some(Data::Gauge(Gauge { data_points: vec![point(0.5, vec![])] }));
        let gauge = Metric { name: "cpu.use".to_owned(), unit: "1".to_owned(), data, ..Metric::default() };
        let data_points = vec![HistogramDataPoint {
            time_unix_nano: AT,
            count: 6,
            sum: Some(9.5),
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.5, 10.0],
            ..HistogramDataPoint::default()
        }];
        let temporality = AggregationTemporality::Cumulative as i32;
        let data = Some(Data::Histogram(Histogram { data_points, aggregation_temporality: temporality }));
        let histogram = Metric { name: "wait".to_owned(), unit: "s".to_owned(), data, ..Metric::default() };
        let cumulative = AggregationTemporality::Cumulative;
        let metrics = vec![gauge, sum("hits", cumulative, true), sum("open", cumulative, false), histogram];
        assert_eq!(
            shown(metrics),
            [
                "target_info{host_name=h1} 1",
                "cpu_use_ratio{} 0.5",
                "hits_total{http_method=GET} 7",
                "open{http_method=GET} 7",
                "wait_seconds_count{} 6",
                "wait_seconds_sum{} 9.5",
                "wait_seconds_bucket{le=0.5} 1",
                "wait_seconds_bucket{le=10} 3",
                "wait_seconds_bucket{le=+Inf} 6",
            ]
        );
    }

    #[test]
    fn a_delta_is_left_out_and_a_point_without_a_value_ends_its_series() {
        assert_eq!(shown(vec![sum("hits", AggregationTemporality::Delta, true)]).len(), 1, "only target_info");
        let data_points = vec![NumberDataPoint { flags: NO_RECORDED_VALUE, ..point(3.0, vec![]) }];
        let gauge =
            Metric { name: "g".to_owned(), data: Some(Data::Gauge(Gauge { data_points })), ..Metric::default() };
        assert_eq!(shown(vec![gauge])[1], "g{} NaN");
        assert!(decode(b"\xff\xff", 0).is_err());
    }
}
