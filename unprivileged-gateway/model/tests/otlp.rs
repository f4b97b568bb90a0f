//! `otlp::check` against prost's decoder of the generated types: the same verdict and the same count, whatever the bytes.

mod common;

use common::{Dice, damage};
use model::otlp::{Request, check};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proptest::prelude::*;
use prost::Message;

const KINDS: [Request; 3] = [Request::Logs, Request::Traces, Request::Metrics];

fn encoded(kind: Request, d: &mut Dice) -> Vec<u8> {
    match kind {
        Request::Logs => common::logs(d).encode_to_vec(),
        Request::Traces => common::traces(d).encode_to_vec(),
        Request::Metrics => common::metrics(d).encode_to_vec(),
    }
}

/// Items as prost decodes them; None where it refuses.
fn prost(kind: Request, bytes: &[u8]) -> Option<usize> {
    Some(match kind {
        Request::Logs => {
            let logs = ExportLogsServiceRequest::decode(bytes).ok()?.resource_logs;
            logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
        }
        Request::Traces => {
            let spans = ExportTraceServiceRequest::decode(bytes).ok()?.resource_spans;
            spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
        }
        Request::Metrics => {
            let metrics = ExportMetricsServiceRequest::decode(bytes).ok()?.resource_metrics;
            let metrics = metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
            metrics.filter_map(|m| m.data.as_ref()).map(points).sum()
        }
    })
}

fn points(data: &Data) -> usize {
    match data {
        Data::Gauge(d) => d.data_points.len(),
        Data::Sum(d) => d.data_points.len(),
        Data::Histogram(d) => d.data_points.len(),
        Data::ExponentialHistogram(d) => d.data_points.len(),
        Data::Summary(d) => d.data_points.len(),
    }
}

fn ours(kind: Request, bytes: &[u8]) -> Option<usize> {
    check(kind, bytes).ok().map(|counts| counts.items as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// 4,000 seeds x 3 kinds x (whole, twice damaged, read as another kind): 48,000 requests.
    #[test]
    fn the_verdict_and_the_count_are_prosts(seed in any::<u64>()) {
        for kind in KINDS {
            let d = &mut Dice(seed ^ kind as u64);
            let whole = encoded(kind, d);
            prop_assert!(ours(kind, &whole).is_some(), "a whole request is refused");
            prop_assert_eq!(ours(kind, &whole), prost(kind, &whole));
            let other_kind = d.pick(&KINDS);
            prop_assert_eq!(ours(other_kind, &whole), prost(other_kind, &whole), "{:?} read as {:?}", kind, other_kind);
            let other = encoded(other_kind, d);
            for _ in 0..2 {
                let damaged = damage(d, &whole, &other);
                prop_assert_eq!(ours(kind, &damaged), prost(kind, &damaged), "{:?} {:02x?}", kind, damaged);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_judged_alike(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for kind in KINDS {
            prop_assert_eq!(ours(kind, &bytes), prost(kind, &bytes));
        }
    }
}

#[test]
fn the_damage_is_worth_its_name() {
    // A corpus in which everything is refused, or nothing, would prove little.
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..2_000 {
        let d = &mut Dice(seed);
        let (whole, other) = (common::logs(d).encode_to_vec(), common::logs(d).encode_to_vec());
        let verdict = ours(Request::Logs, &damage(d, &whole, &other));
        *(if verdict.is_some() { &mut accepted } else { &mut refused }) += 1;
    }
    assert!(accepted > 400 && refused > 400, "{accepted} accepted, {refused} refused");
}

/// `inside` wrapped as field `number` of one message after the other.
fn wrap(mut inside: Vec<u8>, numbers: &[u8]) -> Vec<u8> {
    for &number in numbers {
        let mut out = Vec::new();
        model::wire::put_bytes(&mut out, number, &inside);
        inside = out;
    }
    inside
}

/// From the body of a log record out to the request.
const OUT_OF_BODY: [u8; 4] = [5, 2, 2, 1];

#[test]
fn nesting_ends_where_prost_ends_it() {
    for levels in 0..120 {
        let lists = [&[1, 5].repeat(levels)[..], &OUT_OF_BODY].concat();
        let maps = [&[2, 1, 6].repeat(levels)[..], &OUT_OF_BODY].concat();
        for numbers in [lists, maps] {
            for leaf in [&[][..], b"\x0a\x01x", b"\xf8\x01\x01"] {
                let bytes = wrap(leaf.to_vec(), &numbers);
                assert_eq!(ours(Request::Logs, &bytes), prost(Request::Logs, &bytes), "{levels} {leaf:?}");
            }
        }
    }
    let nested = |inside_out: &[u8], levels| {
        ours(Request::Logs, &wrap(vec![], &[&inside_out.repeat(levels)[..], &OUT_OF_BODY].concat()))
    };
    assert_eq!((nested(&[2, 1, 6], 32), nested(&[2, 1, 6], 33)), (Some(1), None), "32 maps, as the interface says");
    assert_eq!((nested(&[1, 5], 48), nested(&[1, 5], 49)), (Some(1), None), "48 lists");
}

#[test]
fn of_a_metric_that_says_two_kinds_only_the_last_counts() {
    let points = |number: u8, n: usize| wrap([0x0a, 0x00].repeat(n), &[number]);
    let kinds = [5, 7, 9, 10, 11, 5];
    for (i, first) in kinds.into_iter().enumerate() {
        for second in kinds {
            for third in &kinds[i..] {
                let metric = [points(first, 1), points(second, 2), points(*third, 4)].concat();
                let bytes = wrap(metric, &[2, 2, 1]);
                let counted = ours(Request::Metrics, &bytes);
                assert_eq!(counted, prost(Request::Metrics, &bytes), "{first} {second} {third}");
            }
        }
    }
    let sum_then_gauge = wrap([points(7, 3), points(5, 1)].concat(), &[2, 2, 1]);
    assert_eq!(ours(Request::Metrics, &sum_then_gauge), Some(1));
}

#[test]
fn groups_are_followed_as_deep_as_prost_follows_them() {
    for depth in [0, 1, 90, 94, 95, 96, 97, 98, 99, 100, 101, 200] {
        let group = [&[0xa3, 0x01].repeat(depth)[..], &[0xa4, 0x01].repeat(depth)].concat();
        for out in 0..=OUT_OF_BODY.len() {
            let bytes = wrap(group.clone(), &OUT_OF_BODY[out..]);
            assert_eq!(ours(Request::Logs, &bytes), prost(Request::Logs, &bytes), "{depth} groups, {out} out");
        }
    }
}

#[test]
fn a_refusal_names_the_message_the_fault_and_the_byte() {
    let bytes = wrap(vec![0x0a, 0x01, 0xff], &OUT_OF_BODY);
    let malformed = check(Request::Logs, &bytes).unwrap_err();
    assert_eq!(malformed.to_string(), "AnyValue: a text field is not UTF-8 (at byte 11)");
    let cut = check(Request::Traces, &[0x0a, 0x05, 0x00]).unwrap_err();
    assert_eq!((cut.part, cut.at), ("ExportTraceServiceRequest", 2));
}
