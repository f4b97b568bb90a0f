//! From log records to requests: the pure half of a destination.
//!
//! The same records and the same configuration give the same bytes, whenever and however often they are asked for: a retry, a
//! part of a batch and a start after a crash all come through here. Nothing in here knows time or the network.

use crate::destination::loki::LokiOut;
use crate::destination::otlp::REQUEST_BYTES;
use crate::seam::Signal;
use crate::store::QuarantineItem;
use bytes::Bytes;
use model::envelope;
use model::loki::Place;
use std::collections::BTreeSet;
use std::ops::Range;
use wal::{DestinationId, Frame};

/// A push below this size is not worth another connection's round trip. Unit: uncompressed bytes.
const BYTES_A_SHARD: usize = 256 << 10;
/// Most pushes of one round in flight.
const SHARDS_MAX: usize = 4;
/// What one round of pushes holds before it is sent, however large a request was. Unit: uncompressed bytes.
const PUSH_BYTES: usize = 4 << 20;

/// A part of a batch to be sent: frames by index, and which streams of them (all, if it does not say).
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) frames: Range<usize>,
    pub(super) streams: Option<BTreeSet<String>>,
}

/// A request: its bytes, and which part of the batch it was made of.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) body: Bytes,
    pub(super) items: u64,
    /// Label text of each stream; empty for OTLP.
    pub(super) streams: Vec<String>,
    pub(super) frames: Range<usize>,
}

impl Push {
    pub(super) fn bytes(&self) -> u64 {
        self.body.len() as u64
    }
}

/// One round of a part: its pushes hold different streams and may go at once; the next round comes after them.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) pushes: Vec<Push>,
    /// Records that can never be sent as they are.
    pub(super) bad: Vec<QuarantineItem>,
    /// Streams of `held` were met and left out.
    pub(super) met_held: bool,
}

/// How far a part has been made into rounds. A part is walked once; only one round of it is in memory at a time.
#[derive(Debug)]
pub(super) struct Walk {
    part: Part,
    /// The next frame, and where in it; the end of the part's frames once everything has been made into rounds.
    at: usize,
    place: Place,
}

impl Walk {
    pub(super) fn new(part: Part) -> Walk {
        Walk { at: part.frames.start, place: Place::default(), part }
    }
}

/// For whom the records are: what it has already, it does not get again.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) id: &'a DestinationId,
    pub(super) signal: Signal,
}

impl Reader<'_> {
    /// Records of a batch that are for this destination.
    pub(super) fn items(self, frames: &[Frame]) -> u64 {
        frames.iter().filter(|f| !f.is_done(self.id)).map(|f| u64::from(f.items)).sum()
    }

    fn malformed(self, frame: &Frame, why: &str) -> QuarantineItem {
        QuarantineItem::new(self.id, self.signal, frame.seq, "malformed", why, "frame")
            .with_payload(frame.payload.clone(), u64::from(frame.items))
    }

    /// OTLP: requests laid end to end, up to the size every receiver takes; one round. None: the part is done.
    pub(super) fn otlp(self, frames: &[Frame], walk: &mut Walk) -> Option<Round> {
        let range = walk.at..walk.part.frames.end;
        walk.at = range.end;
        if range.is_empty() {
            return None;
        }
        let mut out = Round::default();
        let (mut open, mut size) = (Vec::new(), 0);
        for i in range.filter(|i| !frames[*i].is_done(self.id)) {
            let frame = &frames[i];
            let raw = match envelope::open(&frame.payload) {
                Ok((_, _, raw)) => frame.payload.slice_ref(raw),
                Err(e) => {
                    out.bad.push(self.malformed(frame, &e.to_string()));
                    continue;
                }
            };
            if !open.is_empty() && size + raw.len() > REQUEST_BYTES {
                out.pushes.extend(joined(std::mem::take(&mut open)));
                size = 0;
            }
            size += raw.len();
            open.push(Push { body: raw, items: u64::from(frame.items), streams: Vec::new(), frames: i..i + 1 });
        }
        out.pushes.extend(joined(open));
        Some(out)
    }

    /// Loki: frames until a round is full, which a large request alone can do several times. None: the part is done.
    pub(super) fn loki(
        self,
        to: &mut LokiOut,
        frames: &[Frame],
        walk: &mut Walk,
        held: &BTreeSet<String>,
    ) -> Option<Round> {
        if walk.at >= walk.part.frames.end {
            return None;
        }
        let mut out = Round::default();
        while walk.at < walk.part.frames.end {
            let frame = &frames[walk.at];
            let next = match frame.is_done(self.id) {
                true => None,
                false => self.encode(to, frame, walk.place, &mut out.bad),
            };
            match next {
                Some(place) => walk.place = place,
                None => (walk.at, walk.place) = (walk.at + 1, Place::default()),
            }
            if next.is_some() || to.encoder.bytes() >= PUSH_BYTES {
                break;
            }
        }
        let met = std::cell::Cell::new(false);
        let keep = |labels: &str| match (held.contains(labels), &walk.part.streams) {
            (true, _) => {
                met.set(true);
                false
            }
            (false, Some(only)) => only.contains(labels),
            (false, None) => true,
        };
        let shards = (to.encoder.bytes() / BYTES_A_SHARD).clamp(1, SHARDS_MAX);
        let frames = &walk.part.frames;
        let push = |p: model::loki::Push| Push {
            body: p.body.into(),
            items: u64::from(p.entries),
            streams: p.streams,
            frames: frames.clone(),
        };
        out.pushes = to.encoder.finish(shards, &keep).into_iter().map(push).collect();
        out.met_held = met.get();
        Some(out)
    }

    /// One frame into the encoder, from a place on. Returns where to go on if the encoder is full.
    fn encode(self, to: &mut LokiOut, frame: &Frame, from: Place, bad: &mut Vec<QuarantineItem>) -> Option<Place> {
        let (sidecar, raw) = match envelope::open(&frame.payload) {
            Ok((_, sidecar, raw)) => (sidecar, raw),
            Err(e) => {
                bad.push(self.malformed(frame, &e.to_string()));
                return None;
            }
        };
        let added = to.encoder.add_from(frame.seq, &sidecar, raw, from, PUSH_BYTES);
        if let Some(e) = added.malformed {
            bad.push(self.malformed(frame, &e.to_string()));
        }
        for offender in added.offenders {
            let item = QuarantineItem::new(self.id, self.signal, frame.seq, offender.reason, &offender.detail, "otlp");
            bad.push(item.with_labels(offender.labels.to_string()).with_payload(offender.request().into(), 1));
        }
        added.next
    }
}

fn joined(mut parts: Vec<Push>) -> Option<Push> {
    if parts.len() <= 1 {
        return parts.pop();
    }
    let frames = parts.first()?.frames.start..parts.last()?.frames.end;
    let mut body = Vec::with_capacity(parts.iter().map(|p| p.body.len()).sum());
    parts.iter().for_each(|p| body.extend_from_slice(&p.body));
    Some(Push { body: body.into(), items: parts.iter().map(|p| p.items).sum(), streams: Vec::new(), frames })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use model::envelope::{Kind, Sidecar};
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
        LokiOut::new("test", &config).expect("plain text needs nothing")
    }

    #[test]
    fn a_request_that_grows_goes_out_in_rounds_and_every_record_once() {
        let (mut to, frames) = (loki(), [frame(1, 3000, 4000), frame(2, 5, 10)]);
        let id = DestinationId::new("loki", "test");
        let reader = Reader { id: &id, signal: Signal::Logs };
        let mut walk = Walk::new(Part { frames: 0..2, streams: None });
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
        let id = DestinationId::new("loki", "test");
        let reader = Reader { id: &id, signal: Signal::Logs };
        let all = reader.loki(&mut to, &frames, &mut Walk::new(Part { frames: 0..1, streams: None }), &BTreeSet::new());
        let streams: BTreeSet<String> = all.expect("a round").pushes.into_iter().flat_map(|p| p.streams).collect();
        let mut walk = Walk::new(Part { frames: 0..1, streams: None });
        let round = reader.loki(&mut to, &frames, &mut walk, &streams).expect("a round");
        assert!(round.met_held && round.pushes.iter().all(|p| p.items == 0), "{round:?}");
    }

    #[test]
    fn what_a_destination_has_already_it_does_not_get_again() {
        let id = DestinationId::new("loki", "test");
        let mut done = frame(1, 3, 10);
        done.done.push(id.to_string());
        let frames = [done, frame(2, 4, 10)];
        let reader = Reader { id: &id, signal: Signal::Logs };
        assert_eq!(reader.items(&frames), 4);
        let round = reader.otlp(&frames, &mut Walk::new(Part { frames: 0..2, streams: None })).expect("a round");
        assert_eq!(round.pushes.iter().map(|p| p.items).sum::<u64>(), 4);
    }
}
