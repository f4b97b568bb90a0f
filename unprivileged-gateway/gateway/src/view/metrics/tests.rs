use super::*;
use crate::view::View;
use model::envelope::Sidecar;
use model::series::Writer;
use std::time::Duration;

const T0_MS: i64 = 1_700_000_000_000;

fn sidecar(at_ms: i64) -> Sidecar {
    Sidecar { received_at: at_ms as u64 * 1_000_000, ..Sidecar::default() }
}

/// Rows of name, mode and value, at one time.
fn scrape(at_ms: i64, rows: &[(&str, &str, f64)]) -> Vec<u8> {
    let mut writer = Writer::new(&[("job", "host"), ("instance", "n1")]);
    writer.family("node_cpu_seconds_total", Type::Counter, "Seconds the CPUs spent.");
    writer.family("node_load1", Type::Gauge, "1m load average.");
    writer.family("lag", Type::Histogram, "How late.");
    for (name, mode, value) in rows {
        writer.sample(name, &[("mode", mode)], *value, at_ms);
    }
    writer.finish()
}

fn view() -> View {
    View::new(64 << 20, Duration::from_secs(900))
}

/// A gauge that says its own number once a second, and a counter that is reset in the middle.
fn minute(view: &View) {
    for second in 0..60 {
        let at_ms = T0_MS + second * 1000;
        let counter = if second < 30 { 100.0 + second as f64 * 2.0 } else { (second - 30) as f64 * 4.0 };
        let rows = [("node_load1", "", second as f64), ("node_cpu_seconds_total", "idle", counter)];
        view.series(second as u64 + 1, &sidecar(at_ms), &scrape(at_ms, &rows)).unwrap();
    }
}

fn ask(view: &View, selector: &str, max_points: usize, rate: bool) -> RangeAnswer {
    let selector = Selector::parse(selector).unwrap();
    view.range(&RangeQuery { selector, from_ms: None, to_ms: None, max_points, rate })
}

fn values(answer: &RangeAnswer) -> Vec<Option<f64>> {
    answer.series[0].points.iter().map(|(_, value)| *value).collect()
}

#[test]
fn names_are_found_with_type_help_and_label_values() {
    let view = view();
    let rows =
        [("node_cpu_seconds_total", "idle", 1.0), ("node_cpu_seconds_total", "user", 2.0), ("lag_bucket", "x", 0.0)];
    view.series(1, &sidecar(T0_MS), &scrape(T0_MS, &rows)).unwrap();
    let all = view.series_names("", 500);
    assert_eq!((all.total, all.names.len()), (2, 2));
    assert_eq!((all.covers.from_ms, all.covers.to_ms), (T0_MS as u64, T0_MS as u64));
    let found = view.series_names("CPU", 500);
    let cpu = &found.names[0];
    assert_eq!(
        (cpu.name.as_str(), cpu.kind, cpu.help.as_str()),
        ("node_cpu_seconds_total", "counter", "Seconds the CPUs spent.")
    );
    assert_eq!(cpu.series, 2);
    let modes: Vec<&str> = cpu.labels["mode"].iter().map(String::as_str).collect();
    assert_eq!(modes, ["idle", "user"]);
    assert_eq!(view.series_names("how late", 500).names[0].kind, "histogram");
    let limited = view.series_names("", 1);
    assert_eq!((limited.total, limited.names.len()), (2, 1));
}

#[test]
fn the_points_of_a_series_are_its_samples_where_they_fit() {
    let view = view();
    minute(&view);
    let answer = ask(&view, "node_load1", 300, false);
    assert_eq!(values(&answer), (0..60).map(|i| Some(f64::from(i))).collect::<Vec<_>>());
    assert_eq!((answer.step_ms, answer.cut, answer.kind), (1000, 0, "gauge"));
    let labels: Vec<_> = answer.series[0].labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(labels, ["instance=n1", "job=host"], "no name, and no empty label");
    let part = RangeQuery {
        selector: Selector::parse("node_load1").unwrap(),
        from_ms: Some(T0_MS as u64 + 10_000),
        to_ms: Some(T0_MS as u64 + 12_000),
        max_points: 300,
        rate: false,
    };
    assert_eq!(values(&view.range(&part)), [Some(10.0), Some(11.0), Some(12.0)]);
    assert!(ask(&view, "none", 300, false).series.is_empty());
}

#[test]
fn a_rate_survives_the_reset_of_its_counter() {
    let view = view();
    minute(&view);
    let answer = ask(&view, "node_cpu_seconds_total{mode=\"idle\"}", 300, true);
    let rates = values(&answer);
    assert_eq!(rates.len(), 59);
    assert_eq!((rates[0], rates[28], rates[29], rates[30]), (Some(2.0), Some(2.0), Some(0.0), Some(4.0)));
    assert!(rates.iter().all(|rate| rate.is_some_and(|rate| rate >= 0.0)));
    // The first point of a part has its rate from the sample before it.
    let part = RangeQuery {
        selector: Selector::parse("node_cpu_seconds_total").unwrap(),
        from_ms: Some(T0_MS as u64 + 10_000),
        to_ms: Some(T0_MS as u64 + 10_000),
        max_points: 300,
        rate: true,
    };
    assert_eq!(values(&view.range(&part)), [Some(2.0)]);
}

#[test]
fn thinning_loses_no_spike() {
    let view = view();
    for second in 0..900_i64 {
        let at_ms = T0_MS + second * 1000;
        let value = match second {
            137 => 1000.0,
            611 => -1000.0,
            _ => (second % 7) as f64,
        };
        view.series(second as u64 + 1, &sidecar(at_ms), &scrape(at_ms, &[("node_load1", "", value)])).unwrap();
    }
    let answer = ask(&view, "node_load1", 50, false);
    let points = &answer.series[0].points;
    assert!(points.len() <= 50, "{} points", points.len());
    assert!(points.is_sorted_by_key(|(at, _)| *at));
    assert!(points.contains(&(T0_MS + 137_000, Some(1000.0))) && points.contains(&(T0_MS + 611_000, Some(-1000.0))));
    assert_eq!(answer.step_ms, 899_000 / 25 + 1);
}

#[test]
fn a_value_that_is_no_number_is_null() {
    let view = view();
    for (seq, value) in [f64::NAN, f64::INFINITY, 3.0].into_iter().enumerate() {
        let at_ms = T0_MS + seq as i64 * 1000;
        view.series(seq as u64 + 1, &sidecar(at_ms), &scrape(at_ms, &[("node_load1", "", value)])).unwrap();
    }
    assert_eq!(values(&ask(&view, "node_load1", 300, false)), [None, None, Some(3.0)]);
    let json = serde_json::to_value(ask(&view, "node_load1", 300, false)).unwrap();
    assert_eq!(json["series"][0]["points"][0], serde_json::json!([T0_MS, null]));
    assert_eq!((json["type"].as_str(), json["rate"].as_bool()), (Some("gauge"), Some(false)));
}

#[test]
fn a_frame_is_shown_once_and_a_damaged_one_not_at_all() {
    let view = view();
    let raw = scrape(T0_MS, &[("node_load1", "", 1.0)]);
    assert_eq!(view.series(5, &sidecar(T0_MS), &raw).unwrap(), 1);
    assert_eq!(view.series(5, &sidecar(T0_MS), &raw).unwrap(), 0);
    assert!(view.series(6, &sidecar(T0_MS), &raw[..raw.len() - 3]).unwrap_err().to_string().contains("frame 6"));
    assert_eq!(values(&ask(&view, "node_load1", 300, false)), [Some(1.0)]);
}

#[test]
fn what_leaves_gives_back_every_byte_it_was_counted_with() {
    let mut metrics = Metrics::default();
    for second in 0..200_i64 {
        let rows: Vec<(String, f64)> = (0..20).map(|i| (format!("mode{}", i + second % 3), 1.0)).collect();
        let rows: Vec<(&str, &str, f64)> = rows.iter().map(|(mode, v)| ("node_load1", mode.as_str(), *v)).collect();
        metrics.push(&scrape(T0_MS + second, &rows), second as u64).unwrap();
    }
    assert!(metrics.bytes > 200 * 20 * 12 && metrics.samples == 4000 && metrics.series() == 22);
    let mut torn = 0;
    while metrics.oldest().is_some() {
        torn += metrics.pop();
    }
    assert_eq!(torn, 4000);
    assert_eq!((metrics.bytes, metrics.samples, metrics.series()), (0, 0, 0));
}

#[test]
fn the_view_keeps_to_its_bytes_and_says_what_it_let_go() {
    let view = View::new(1 << 20, Duration::from_secs(900));
    for second in 0..600_i64 {
        let rows: Vec<String> = (0..200).map(|i| format!("mode{i}")).collect();
        let rows: Vec<(&str, &str, f64)> = rows.iter().map(|mode| ("node_load1", mode.as_str(), 1.0)).collect();
        view.series(second as u64 + 1, &sidecar(T0_MS + second), &scrape(T0_MS + second, &rows)).unwrap();
        assert!(view.stats().bytes <= 1 << 20);
    }
    let answer = ask(&view, "node_load1{mode=\"mode7\"}", 2000, false);
    assert!(answer.covers.evicted > 0 && answer.series[0].points.len() > 100, "{:?}", answer.covers);
    assert_eq!(ask(&view, "node_load1", 2, false).series.len(), SERIES_ANSWERED_MAX);
    view.expire(u64::MAX);
    assert_eq!((view.stats().series, view.stats().bytes), (0, 0));
}

#[test]
fn a_request_of_a_million_times_does_not_make_a_million_pages() {
    let mut metrics = Metrics::default();
    let mut writer = Writer::new(&[]);
    (0..5000).for_each(|i| writer.sample("m", &[], 0.0, i));
    assert_eq!(metrics.push(&writer.finish(), 1).unwrap(), MOMENTS_MAX as u64);
    assert_eq!((metrics.moments.len(), metrics.evicted), (MOMENTS_MAX, 4000));
}
