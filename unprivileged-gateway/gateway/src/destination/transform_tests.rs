//! Rounds: every record once, whatever it is and however often it is asked for.

use super::*;
use crate::config;
use model::envelope::{FileRef, Kind, Sidecar};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

fn value(text: String) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text)) })
}

/// `records` lines under a resource with `padding` bytes that go out with each of them.
fn frame(seq: u64, records: u32, padding: usize) -> Frame {
    let attribute = KeyValue { key: "padding".into(), value: value("x".repeat(padding)), ..KeyValue::default() };
    let line = |i| LogRecord { body: value(format!("line {seq}/{i}")), time_unix_nano: 1, ..LogRecord::default() };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: vec![attribute], ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: (0..records).map(line).collect(), ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    let mut payload = envelope::header(Kind::OtlpLogs, &Sidecar::default());
    request.encode(&mut payload).expect("a vector grows");
    Frame {
        seq,
        epoch: wal::Epoch { counter: 1, random: 1 },
        items: records,
        codec: wal::Codec::Raw,
        raw_len: payload.len() as u32,
        hops: 0,
        appended_at: 1,
        origin: None,
        done: Vec::new(),
        items_before: 0,
        hash: 0,
        payload: payload.into(),
    }
}

fn loki() -> LokiOut {
    let config = config::Loki {
        url: "http://127.0.0.1:1/loki/api/v1/push".into(),
        tenant: None,
        external_labels: Default::default(),
        line: config::Line::Body,
        limits: config::LokiLimits::default(),
        common: config::Common::default(),
    };
    LokiOut::new("test", &config, Default::default()).expect("plain text needs nothing")
}

#[test]
fn a_request_that_grows_goes_out_in_rounds_and_every_record_once() {
    let (mut to, frames) = (loki(), [frame(1, 3000, 4000), frame(2, 5, 10)]);
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let mut walk = Walk::new(Part { frames: 0..2, streams: None }, Joiner::new(1 << 20, 1 << 20));
    let (mut rounds, mut items) = (0, 0);
    while let Some(round) = reader.loki(&mut to, &frames, &mut walk, &BTreeSet::new()) {
        assert!(round.bad.is_empty() && !round.met_held);
        rounds += 1;
        items += round.pushes.iter().map(|p| p.items).sum::<u64>();
    }
    assert_eq!(items, 3005);
    assert!(rounds >= 3, "12 MB of lines in rounds of 4 MiB: {rounds}");
}

#[test]
fn a_held_stream_is_left_out_and_said() {
    let (mut to, frames) = (loki(), [frame(1, 3, 10)]);
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let all = reader.loki(
        &mut to,
        &frames,
        &mut Walk::new(Part { frames: 0..1, streams: None }, Joiner::new(1 << 20, 1 << 20)),
        &BTreeSet::new(),
    );
    let streams: BTreeSet<String> = all.expect("a round").pushes.into_iter().flat_map(|p| p.streams).collect();
    let mut walk = Walk::new(Part { frames: 0..1, streams: None }, Joiner::new(1 << 20, 1 << 20));
    let round = reader.loki(&mut to, &frames, &mut walk, &streams).expect("a round");
    assert!(round.met_held && round.pushes.iter().all(|p| p.items == 0), "{round:?}");
}

#[test]
fn what_a_destination_has_already_it_does_not_get_again() {
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let mut done = frame(1, 3, 10);
    done.done.push(id.to_string());
    let frames = [done, frame(2, 4, 10)];
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    assert_eq!(reader.items(&frames), 4);
    let round = reader
        .otlp(&frames, &mut Walk::new(Part { frames: 0..2, streams: None }, Joiner::new(1 << 20, 1 << 20)))
        .expect("a round");
    assert_eq!(round.pushes.iter().map(|p| p.items).sum::<u64>(), 4);
}

const UID: &str = "0d1c2b3a-0000-4000-8000-00000000abcd";

/// Bytes of a container's log at an offset, received at `seconds`.
fn chunk(seq: u64, seconds: u64, offset: u64, raw: &str) -> Frame {
    let file =
        FileRef { root: "pods".into(), path: format!("shop_cart_{UID}/web/0.log"), offset, ..FileRef::default() };
    let sidecar = Sidecar { received_at: seconds * 1_000_000_000, file: Some(file), ..Sidecar::default() };
    let mut payload = envelope::header(Kind::LogChunk, &sidecar);
    payload.extend_from_slice(raw.as_bytes());
    Frame { items: raw.matches('\n').count() as u32, payload: payload.into(), ..frame(seq, 0, 0) }
}

fn record(tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:00.000000007Z stdout {tag} {text}\n")
}

/// Everything a walk sends: lines as Loki would store them, and records counted.
fn sent(to: &mut LokiOut, reader: Reader<'_>, frames: &[Frame], walk: &mut Walk) -> (Vec<u8>, u64, usize) {
    let (mut raw, mut items, mut rounds) = (Vec::new(), 0, 0);
    while let Some(round) = reader.loki(to, frames, walk, &BTreeSet::new()) {
        assert!(round.bad.is_empty());
        rounds += 1;
        items += round.pushes.iter().map(|p| p.items).sum::<u64>();
        for push in round.pushes {
            raw.extend(snap::raw::Decoder::new().decompress_vec(&push.body).expect("snappy"));
        }
    }
    (raw, items, rounds)
}

fn tray() -> Joiner {
    Joiner::new(1 << 20, 1 << 20)
}

#[test]
fn a_line_torn_by_a_batch_or_a_stop_goes_out_once_and_byte_for_byte_the_same() {
    let texts = [record("P", "one "), record("P", "two "), record("F", "three") + &record("F", "next")];
    let mut frames = vec![frame(1, 2, 10)];
    let mut offset = 0;
    for (i, text) in texts.iter().enumerate() {
        frames.push(chunk(2 + i as u64, 1, offset, text));
        offset += text.len() as u64;
    }
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let mut to = loki();
    let mut first = Walk::new(Part { frames: 0..3, streams: None }, tray());
    let (raw, items, _) = sent(&mut to, reader, &frames, &mut first);
    assert_eq!(items, 2, "the line is not yet whole: {}", String::from_utf8_lossy(&raw));
    let between = first.into_joiner();
    assert_eq!(between.needs(), Some(2));
    let rest = || Part { frames: 3..4, streams: None };
    let (raw, items, _) = sent(&mut to, reader, &frames, &mut Walk::new(rest(), between));
    assert_eq!(items, 2);
    let text = String::from_utf8_lossy(&raw);
    assert!(text.contains("one two three") && text.contains("next"), "{text}");
    // A start after a crash: from where the line began, past what had been sent.
    let mut again = tray();
    reader.skim(&mut again, &frames[1..3]);
    assert_eq!(sent(&mut loki(), reader, &frames, &mut Walk::new(rest(), again)).0, raw);
}

#[test]
fn a_chunk_of_empty_lines_goes_out_in_rounds() {
    let frames = [chunk(1, 1, 0, &"\n".repeat(200_000)), chunk(2, 1, 200_000, "x\n")];
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let (_, items, rounds) =
        sent(&mut loki(), reader, &frames, &mut Walk::new(Part { frames: 0..2, streams: None }, tray()));
    assert_eq!(items, 200_001);
    assert!(rounds >= 4, "{rounds}");
    let mut walk = Walk::new(Part { frames: 0..2, streams: None }, tray());
    let mut items = 0;
    while let Some(round) = reader.otlp(&frames, &mut walk) {
        items += round.pushes.iter().map(|p| p.items).sum::<u64>();
        assert!(round.pushes.iter().map(|p| p.body.len()).sum::<usize>() < 2 * PUSH_BYTES + REQUEST_BYTES);
    }
    assert_eq!(items, 200_001);
}

#[test]
fn an_otlp_destination_gets_lines_of_files_as_requests_between_the_others() {
    let frames = [frame(1, 2, 10), chunk(2, 1, 0, &record("F", "level=warn a")), frame(3, 1, 10)];
    let (id, labels) = (DestinationId::new("otlp", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let round = reader.otlp(&frames, &mut Walk::new(Part { frames: 0..3, streams: None }, tray())).expect("a round");
    assert_eq!((round.pushes.len(), round.pushes[0].items), (1, 4));
    let read = ExportLogsServiceRequest::decode(&round.pushes[0].body[..]).expect("one request");
    let records: Vec<_> = read.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records).collect();
    assert_eq!(records.len(), 4);
    assert_eq!((records[2].severity_number, records[2].time_unix_nano), (13, 1_767_225_600_000_000_007));
}

#[test]
fn a_line_that_stays_open_is_closed_by_any_later_frame_five_seconds_on() {
    let mut late = frame(2, 1, 10);
    let sidecar = Sidecar { received_at: 9_000_000_000, ..Sidecar::default() };
    let (_, _, raw) = envelope::open(&late.payload).expect("a frame");
    late.payload = [envelope::header(Kind::OtlpLogs, &sidecar), raw.to_vec()].concat().into();
    let frames = [chunk(1, 1, 0, &record("P", "begun")), late];
    let (id, labels) = (DestinationId::new("loki", "test"), FileLabels::default());
    let reader = Reader { id: &id, signal: Signal::Logs, files: &labels };
    let mut walk = Walk::new(Part { frames: 0..2, streams: None }, tray());
    let (raw, items, _) = sent(&mut loki(), reader, &frames, &mut walk);
    assert!(items == 2 && String::from_utf8_lossy(&raw).contains("begun"));
    assert_eq!(walk.into_joiner().needs(), None);
}
