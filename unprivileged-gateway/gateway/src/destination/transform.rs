//! From log records to requests: the pure half of a destination.
//!
//! The same records and the same configuration give the same bytes, whenever and however often they are asked for: a retry, a
//! part of a batch and a start after a crash all come through here. Nothing in here knows time or the network.

use crate::destination::lines::{Chunk, OTLP_LINE_BYTES};
use crate::destination::loki::LokiOut;
use crate::destination::otlp::REQUEST_BYTES;
use crate::destination::pyroscope::Packer;
use crate::seam::Signal;
use crate::store::QuarantineItem;
use bytes::Bytes;
use model::chunk::FileLabels;
use model::chunk::join::{self, Joiner, Line};
use model::chunk::otlp::Requests;
use model::envelope::{self, Kind};
use model::loki::{LineAdded, Place};
use std::collections::BTreeSet;
use std::ops::Range;
use wal::{DestinationId, Frame};

/// A push below this size is not worth another connection's round trip. Unit: uncompressed bytes.
const BYTES_A_SHARD: usize = 256 << 10;
/// Most pushes of one round in flight.
const SHARDS_MAX: usize = 4;
/// What one round of pushes holds before it is sent, however large a request was. Unit: uncompressed bytes.
const PUSH_BYTES: usize = 4 << 20;
/// Lines that a round may put aside before it ends: each holds a payload of its own.
const BAD_MAX: usize = 4 << 10;
/// What a line of a file grows by on its way into a request. Unit: bytes.
const LINE_OVERHEAD_BYTES: usize = 64;

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
    /// Lines whose end was cut off.
    pub(super) cut: u64,
}

/// How far a part has been made into rounds. A part is walked once; only one round of it is in memory at a time.
pub(super) struct Walk {
    part: Part,
    /// The next frame, and where in it; the end of the part's frames once everything has been made into rounds.
    at: usize,
    place: Place,
    /// Lines of files that are open, and where in a chunk the next one begins.
    joiner: Joiner,
    lines: Option<join::Walk>,
}

impl Walk {
    /// `joiner`: as it is in front of the part's first frame.
    pub(super) fn new(part: Part, joiner: Joiner) -> Walk {
        Walk { at: part.frames.start, place: Place::default(), part, joiner, lines: None }
    }

    /// Lines that are open behind what has been walked.
    pub(super) fn into_joiner(self) -> Joiner {
        self.joiner
    }

    /// Whether the frame is not yet used up; if it is, the next one comes.
    fn step(&mut self, more: bool) {
        if !more {
            (self.at, self.place, self.lines) = (self.at + 1, Place::default(), None);
        }
    }
}

/// For whom the records are: what it has already, it does not get again.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) id: &'a DestinationId,
    pub(super) signal: Signal,
    pub(super) files: &'a FileLabels,
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

    /// Takes note of frames that are not to be sent (again): lines that begin in them may end in later ones.
    pub(super) fn skim(self, joiner: &mut Joiner, frames: &[Frame]) {
        for frame in frames.iter().filter(|f| !f.is_done(self.id)) {
            if let Some(chunk) = Chunk::open(frame) {
                chunk.skim(joiner);
            }
        }
    }

    /// OTLP: requests laid end to end, up to the size every receiver takes. None: the part is done.
    pub(super) fn otlp(self, frames: &[Frame], walk: &mut Walk) -> Option<Round> {
        if walk.at >= walk.part.frames.end {
            return None;
        }
        let mut out = Round::default();
        let (mut open, mut size, mut made) = (Vec::new(), 0, 0);
        while walk.at < walk.part.frames.end && made < PUSH_BYTES {
            let (i, frame) = (walk.at, &frames[walk.at]);
            let mut parts = Vec::new();
            let more = !frame.is_done(self.id) && self.requests(frame, walk, &mut parts, &mut out);
            for (body, items) in parts {
                made += body.len();
                if !open.is_empty() && size + body.len() > REQUEST_BYTES {
                    out.pushes.extend(joined(std::mem::take(&mut open)));
                    size = 0;
                }
                size += body.len();
                open.push(Push { body, items, streams: Vec::new(), frames: i..i + 1 });
            }
            walk.step(more);
        }
        out.pushes.extend(joined(open));
        Some(out)
    }

    /// The requests that one frame becomes. True: there is more of it.
    fn requests(self, frame: &Frame, walk: &mut Walk, parts: &mut Vec<(Bytes, u64)>, out: &mut Round) -> bool {
        let raw = match envelope::open(&frame.payload) {
            Ok((Kind::OtlpLogs, ..)) | Ok((Kind::LogChunk, ..)) if self.signal == Signal::Logs => None,
            Ok((_, _, raw)) => Some(frame.payload.slice_ref(raw)),
            Err(e) => {
                out.bad.push(self.malformed(frame, &e.to_string()));
                return false;
            }
        };
        if let Some(raw) = raw {
            parts.push((raw, u64::from(frame.items)));
            return false;
        }
        let Some(chunk) = Chunk::open(frame) else { return false };
        let (mut made, mut bytes) = (Requests::default(), 0);
        let mut cut = 0;
        let mut take = |line: Line<'_>| {
            cut += u64::from(line.cut || line.text.len() > OTLP_LINE_BYTES);
            let full = made.add(&line, self.files, OTLP_LINE_BYTES, REQUEST_BYTES);
            bytes += line.text.len() + LINE_OVERHEAD_BYTES;
            parts.extend(full.map(|r| (r.body.into(), u64::from(r.items))));
            bytes < PUSH_BYTES
        };
        let more = chunk.walk(&mut walk.joiner, &mut walk.lines, &mut take);
        parts.extend(made.finish(self.files).map(|r| (r.body.into(), u64::from(r.items))));
        out.cut += cut;
        if let Some(raw) = chunk.otlp().filter(|_| !more) {
            parts.push((frame.payload.slice_ref(raw), u64::from(frame.items)));
        }
        more
    }

    /// Pyroscope: profiles laid end to end in requests, each copied once; one round. None: the part is done.
    pub(super) fn pyroscope(self, to: &Packer, frames: &[Frame], walk: &mut Walk) -> Option<Round> {
        let range = walk.at..walk.part.frames.end;
        walk.at = range.end;
        if range.is_empty() {
            return None;
        }
        let mut out = Round::default();
        let mut open = Push { body: Bytes::new(), items: 0, streams: Vec::new(), frames: 0..0 };
        let mut request = Vec::new();
        for i in range.filter(|i| !frames[*i].is_done(self.id)) {
            let frame = &frames[i];
            let (sidecar, raw) = match envelope::open(&frame.payload) {
                Ok((Kind::Pprof, sidecar, raw)) => (sidecar, raw),
                Ok(_) => {
                    out.bad.push(self.malformed(frame, "it is no profile"));
                    continue;
                }
                Err(e) => {
                    out.bad.push(self.malformed(frame, &e.to_string()));
                    continue;
                }
            };
            let labels = to.labels(&sidecar.enrichment);
            if let Err(offence) = to.judge(&labels, raw) {
                let shown = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect::<Vec<_>>().join(", ");
                let items = u64::from(frame.items);
                out.bad.push(
                    QuarantineItem::new(self.id, self.signal, frame.seq, offence.reason, &offence.detail, "pprof")
                        .with_labels(format!("{{{shown}}}"))
                        .with_payload(frame.payload.slice_ref(raw), items),
                );
                continue;
            }
            if !request.is_empty() && request.len() + raw.len() > to.request_bytes() {
                out.pushes.push(Push { body: std::mem::take(&mut request).into(), ..open.clone() });
            }
            if request.is_empty() {
                (open.items, open.frames) = (0, i..i);
            }
            to.put(&mut request, frame, &labels, raw);
            open.items += u64::from(frame.items);
            open.frames.end = i + 1;
        }
        if !request.is_empty() {
            out.pushes.push(Push { body: request.into(), ..open });
        }
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
            let more = !frame.is_done(self.id) && self.encode(to, frame, walk, &mut out);
            walk.step(more);
            if more || to.encoder.bytes() >= PUSH_BYTES {
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

    /// One frame into the encoder, from where the walk stands. True: the encoder is full and there is more of the frame.
    fn encode(self, to: &mut LokiOut, frame: &Frame, walk: &mut Walk, out: &mut Round) -> bool {
        let chunk = match Chunk::read(frame) {
            Ok(chunk) => chunk,
            Err(e) => {
                out.bad.push(self.malformed(frame, &e.to_string()));
                return false;
            }
        };
        let Round { bad, cut, .. } = &mut *out;
        let mut take = |line: Line<'_>| {
            match to.encoder.add_line(&line) {
                LineAdded::Entry { cut: was } => *cut += u64::from(was),
                LineAdded::Refused(why) => bad.push(self.refused(frame, &line, &why)),
            }
            to.encoder.bytes() < PUSH_BYTES && bad.len() < BAD_MAX
        };
        if chunk.walk(&mut walk.joiner, &mut walk.lines, &mut take) {
            return true;
        }
        let Some(raw) = chunk.otlp() else { return false };
        let added = to.encoder.add_from(frame.seq, &chunk.sidecar, raw, walk.place, PUSH_BYTES);
        out.cut += u64::from(added.cut);
        if let Some(e) = added.malformed {
            out.bad.push(self.malformed(frame, &e.to_string()));
        }
        for offender in added.offenders {
            let item = QuarantineItem::new(self.id, self.signal, frame.seq, offender.reason, &offender.detail, "otlp");
            out.bad.push(item.with_labels(offender.labels.to_string()).with_payload(offender.request().into(), 1));
        }
        walk.place = added.next.unwrap_or_default();
        added.next.is_some()
    }

    /// A line that Loki would not take, as an OTLP request of its own: it can be sent again once the limit is raised.
    fn refused(self, frame: &Frame, line: &Line<'_>, why: &model::loki::RefusedLine) -> QuarantineItem {
        let mut made = Requests::default();
        made.add(line, self.files, OTLP_LINE_BYTES, usize::MAX);
        let body = made.finish(self.files).map(|r| r.body).unwrap_or_default();
        QuarantineItem::new(self.id, self.signal, frame.seq, why.reason, &why.detail, "otlp")
            .with_labels(why.labels.to_string())
            .with_payload(body.into(), 1)
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
#[path = "transform_tests.rs"]
mod tests;
