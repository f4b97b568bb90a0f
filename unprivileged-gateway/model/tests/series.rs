//! Remote write as prost sees it, and damage that must not be followed.

use model::series::{Family, Part, REQUEST_BYTES_MAX, Series, Type, Writer, parts};
use proptest::prelude::*;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(bytes, repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    metric_family_name: String,
    #[prost(string, tag = "4")]
    help: String,
}

fn pairs(series: &TimeSeries) -> Vec<(&str, &str)> {
    series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect()
}

/// What ours says, as prost's structs.
fn read(raw: &[u8]) -> Result<WriteRequest, model::Malformed> {
    let mut request = WriteRequest::default();
    for part in parts(raw) {
        match part? {
            Part::Family(Family { name, kind, help }) => request.metadata.push(Metadata {
                kind: i32::from(kind as u8),
                metric_family_name: name.to_owned(),
                help: help.to_owned(),
            }),
            Part::Series(Series { labels, samples }) => {
                let label = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
                request.timeseries.push(TimeSeries {
                    labels: labels.into_iter().map(label).collect(),
                    samples: samples.into_iter().map(|(timestamp, value)| Sample { value, timestamp }).collect(),
                    histograms: Vec::new(),
                });
            }
        }
    }
    Ok(request)
}

#[test]
fn labels_are_sorted_and_the_target_wins_over_the_series() {
    let mut writer = Writer::new(&[("job", "host"), ("instance", "n1")]);
    writer.family("node_cpu_seconds_total", Type::Counter, "Seconds.");
    let labels = [("mode", "idle"), ("cpu", "0"), ("job", "mine"), ("empty", ""), ("Zone", "z")];
    writer.sample("node_cpu_seconds_total", &labels, 1.5, 1_700_000_000_123);
    assert_eq!((writer.samples(), writer.cut()), (1, 0));
    let request = WriteRequest::decode(&writer.finish()[..]).unwrap();
    let series = &request.timeseries[0];
    assert_eq!(
        pairs(series),
        [
            ("Zone", "z"),
            ("__name__", "node_cpu_seconds_total"),
            ("cpu", "0"),
            ("exported_job", "mine"),
            ("instance", "n1"),
            ("job", "host"),
            ("mode", "idle")
        ]
    );
    assert_eq!(series.samples, [Sample { value: 1.5, timestamp: 1_700_000_000_123 }]);
    let meaning = Metadata { kind: 1, metric_family_name: "node_cpu_seconds_total".into(), help: "Seconds.".into() };
    assert_eq!(request.metadata, [meaning]);
}

#[test]
fn what_does_not_fit_is_left_out_and_counted() {
    let mut writer = Writer::new(&[("job", "j")]);
    writer.sample("a", &[("x", "1"), ("x", "2")], 0.0, 0);
    writer.sample("a", &[("x", &"y".repeat(20 << 10))], 0.0, 0);
    let many: Vec<(String, &str)> = (0..200).map(|i| (format!("l{i}"), "v")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    writer.sample("a", &many, 0.0, 0);
    assert_eq!((writer.samples(), writer.cut()), (0, 3));
    let long = "v".repeat(10 << 10);
    for _ in 0..1000 {
        writer.sample("a", &[("x", &long)], 0.0, 0);
    }
    let (samples, cut) = (writer.samples(), writer.cut());
    assert_eq!(samples + cut, 1003);
    assert!(cut > 3 && samples > 700, "{samples} written, {cut} cut");
    let raw = writer.finish();
    assert!(raw.len() <= REQUEST_BYTES_MAX);
    assert_eq!(read(&raw).unwrap().timeseries.len(), samples as usize);
}

#[test]
fn strangers_fields_are_stepped_over_and_unsorted_labels_are_refused() {
    let label = |name: &str| Label { name: name.into(), value: "v".into() };
    let histograms = vec![vec![1, 2, 3]];
    let series = TimeSeries { labels: vec![label("a"), label("b")], samples: Vec::new(), histograms };
    let request = WriteRequest { timeseries: vec![series.clone()], metadata: Vec::new() };
    assert_eq!(read(&request.encode_to_vec()).unwrap().timeseries[0].labels, series.labels);
    for labels in [vec![label("b"), label("a")], vec![label("a"), label("a")]] {
        let series = TimeSeries { labels, ..series.clone() };
        let raw = WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        assert!(read(&raw).is_err_and(|e| e.to_string().contains("not sorted")));
    }
}

fn label() -> impl Strategy<Value = (String, String)> {
    ("[a-zA-Z_][a-z0-9_]{0,5}", ".{0,8}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn prost_reads_what_is_written_and_so_do_we(
        rows in prop::collection::vec((prop::collection::vec(label(), 0..6), any::<f64>(), any::<i64>()), 0..8)
    ) {
        let mut writer = Writer::new(&[("job", "j"), ("instance", "i")]);
        writer.family("m", Type::Gauge, "Help.");
        for (labels, value, at_ms) in &rows {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            writer.sample("m", &labels, *value, *at_ms);
        }
        let (samples, cut) = (writer.samples(), writer.cut());
        prop_assert_eq!((samples + cut) as usize, rows.len());
        let raw = writer.finish();
        let theirs = WriteRequest::decode(&raw[..]).unwrap();
        prop_assert_eq!(theirs.timeseries.len(), samples as usize);
        for series in &theirs.timeseries {
            prop_assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{:?}", series.labels);
        }
        // Bytes, not values: a NaN is equal to nothing.
        prop_assert_eq!(read(&raw).unwrap().encode_to_vec(), theirs.encode_to_vec());
    }

    #[test]
    fn damage_is_refused_or_read_as_prost_reads_it_and_never_followed(at in any::<usize>(), to in any::<u8>(), cut in any::<usize>()) {
        let mut writer = Writer::new(&[("job", "j")]);
        writer.family("m", Type::Counter, "Help.");
        (0..5).for_each(|i| writer.sample("m", &[("cpu", &i.to_string())], f64::from(i), 7));
        let mut raw = writer.finish();
        let at = at % raw.len();
        raw[at] = to;
        raw.truncate(raw.len() - cut % 3);
        if let (Ok(ours), Ok(theirs)) = (read(&raw), WriteRequest::decode(&raw[..])) {
            prop_assert_eq!(ours.timeseries.len(), theirs.timeseries.len());
        }
    }
}
