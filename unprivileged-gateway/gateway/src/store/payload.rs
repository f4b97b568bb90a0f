//! What lies in a frame, for people: opened as far as this version understands it.
//!
//! Like a customs officer with a letter: the envelope is read, the letter translated if the language is known, and handed on as it
//! is otherwise. A payload that is not what its envelope says is no error here; it comes out as base64 with a word on what is wrong.
//! Weakness: JSON of a request takes several times its bytes; whoever must stay small passes a limit.

use crate::config::base64;
use crate::seam::Signal;
use crate::store::quarantine;
use bytes::Bytes;
use model::envelope::{self, Kind};
use model::series::Part;
use model::wire::{self, Fault};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use wal::{Codec, Frame, Origin, PAYLOAD_BYTES_MAX};

/// A frame as it travels from a running gateway to whoever exports it: everything on it, nothing opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The log it lies in.
    pub log: String,
    pub seq: u64,
    pub epoch: EpochName,
    /// Unix nanoseconds, as a decimal string: JSON numbers end at 2^53.
    #[serde(with = "decimal")]
    pub appended_at: u64,
    pub items: u32,
    pub hops: u8,
    pub origin: Option<String>,
    pub done: Vec<String>,
    pub lz4: bool,
    pub raw_len: u32,
    #[serde(rename = "payload_base64", with = "as_base64")]
    pub payload: Bytes,
}

/// Which start gave the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochName {
    pub counter: u64,
    /// 16 hex digits.
    pub random: String,
}

impl From<wal::Epoch> for EpochName {
    fn from(epoch: wal::Epoch) -> EpochName {
        EpochName { counter: epoch.counter, random: format!("{:016x}", epoch.random) }
    }
}

impl Stored {
    pub fn new(log: &str, frame: Frame) -> Stored {
        Stored {
            log: log.to_owned(),
            seq: frame.seq,
            epoch: frame.epoch.into(),
            appended_at: frame.appended_at,
            items: frame.items,
            hops: frame.hops,
            origin: frame.origin.as_ref().map(origin),
            done: frame.done,
            lz4: frame.codec == Codec::Lz4,
            raw_len: frame.raw_len,
            payload: frame.payload,
        }
    }

    /// The payload as it was before it was stored. Errors: a sentence.
    fn raw(&self) -> Result<Bytes, String> {
        if !self.lz4 {
            return Ok(self.payload.clone());
        }
        if self.raw_len as usize > PAYLOAD_BYTES_MAX {
            return Err(format!("says it is {} bytes long once decompressed, which no payload is", self.raw_len));
        }
        let raw = lz4_flex::block::decompress(&self.payload, self.raw_len as usize);
        raw.map(Bytes::from).map_err(|e| format!("cannot be decompressed: {e}"))
    }

    /// One line of an export, opened.
    pub fn line(&self) -> Line<'_> {
        let contents = match self.raw() {
            Ok(raw) => Contents::open(&raw, usize::MAX),
            Err(problem) => Contents::closed(&self.payload, problem),
        };
        Line {
            signal: &self.log,
            seq: self.seq,
            epoch: &self.epoch,
            appended_at: self.appended_at.to_string(),
            items: self.items,
            hops: self.hops,
            origin: self.origin.as_deref(),
            done: &self.done,
            contents,
        }
    }

    /// One line of a quarantine export. `None`: not a quarantined piece; export it as it is.
    pub fn quarantined(&self, limit: usize) -> Option<Piece> {
        let raw = self.raw().ok()?;
        let (header, bytes) = quarantine::open(&raw)?;
        Some(Piece { id: self.seq, bytes: bytes.len() as u64, payload: refused(&header, bytes, limit), header })
    }
}

/// One line of `gateway wal export`.
#[derive(Serialize)]
pub struct Line<'a> {
    signal: &'a str,
    seq: u64,
    epoch: &'a EpochName,
    appended_at: String,
    items: u32,
    hops: u8,
    origin: Option<&'a str>,
    done: &'a [String],
    #[serde(flatten)]
    contents: Contents,
}

/// One quarantined piece, opened.
#[derive(Serialize)]
pub struct Piece {
    /// Its number in the quarantine log.
    pub id: u64,
    #[serde(flatten)]
    pub header: quarantine::Header,
    /// Of the payload.
    pub bytes: u64,
    pub payload: Payload,
}

/// An envelope and its letter.
#[derive(Serialize)]
pub struct Contents {
    kind: Option<&'static str>,
    sidecar: Option<Known>,
    payload: Payload,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What was known at receipt.
#[derive(Serialize)]
struct Known {
    received_at: String,
    peer: String,
    enrichment: BTreeMap<String, String>,
}

/// The bytes in a frame, as far as they are understood.
#[derive(Serialize)]
#[serde(tag = "encoding", content = "value", rename_all = "lowercase")]
pub enum Payload {
    /// An OTLP request, as OTLP/JSON.
    Otlp(Box<Otlp>),
    /// One scrape, as remote-write series.
    Series(Vec<SeriesLine>),
    /// A Loki push.
    Loki(Vec<LokiStream>),
    Text(String),
    Frame(Box<Contents>),
    Base64(#[serde(serialize_with = "as_base64::serialize")] Bytes),
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Otlp {
    Logs(Logs),
    Traces(Traces),
    Metrics(Metrics),
}

/// One series with its samples; a value that is no number is null, as in all JSON.
#[derive(Serialize)]
pub struct SeriesLine {
    labels: BTreeMap<String, String>,
    /// Unix milliseconds and value.
    samples: Vec<(i64, f64)>,
}

#[derive(Serialize)]
pub struct LokiStream {
    labels: String,
    entries: Vec<LokiEntry>,
}

#[derive(Default, Serialize)]
struct LokiEntry {
    /// Unix nanoseconds.
    timestamp: String,
    line: String,
    metadata: BTreeMap<String, String>,
}

impl Contents {
    /// Payloads of more than `limit` bytes stay closed.
    fn open(raw: &Bytes, limit: usize) -> Contents {
        let (kind, sidecar, letter) = match envelope::open(raw) {
            Ok(opened) => opened,
            Err(e) => return Contents::closed(raw, e.to_string()),
        };
        let letter = raw.slice_ref(letter);
        let signal = match kind {
            Kind::OtlpLogs => Some(Signal::Logs),
            Kind::OtlpTraces => Some(Signal::Traces),
            Kind::OtlpMetrics => Some(Signal::Metrics),
            Kind::LogChunk | Kind::Series | Kind::Pprof | Kind::Quarantined => None,
        };
        let opened = match kind {
            _ if letter.len() > limit => None,
            Kind::Series => Some(series(&letter)),
            _ => signal.map(|signal| otlp(signal, &letter)),
        };
        let (payload, problem) = match opened {
            Some(Ok(payload)) => (payload, None),
            Some(Err(problem)) => (Payload::Base64(letter), Some(problem)),
            None => (Payload::Base64(letter), None),
        };
        let sidecar = Known {
            received_at: sidecar.received_at.to_string(),
            peer: sidecar.peer,
            enrichment: sidecar.enrichment.into_iter().collect(),
        };
        Contents { kind: Some(name(kind)), sidecar: Some(sidecar), payload, problem }
    }

    fn closed(stored: &Bytes, problem: String) -> Contents {
        Contents { kind: None, sidecar: None, payload: Payload::Base64(stored.clone()), problem: Some(problem) }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::OtlpLogs => "otlp_logs",
        Kind::OtlpTraces => "otlp_traces",
        Kind::OtlpMetrics => "otlp_metrics",
        Kind::LogChunk => "log_chunk",
        Kind::Series => "series",
        Kind::Pprof => "pprof",
        Kind::Quarantined => "quarantined",
    }
}

fn otlp(signal: Signal, bytes: &[u8]) -> Result<Payload, String> {
    let request = match signal {
        Signal::Logs => Logs::decode(bytes).map(Otlp::Logs),
        Signal::Traces => Traces::decode(bytes).map(Otlp::Traces),
        Signal::Metrics => Metrics::decode(bytes).map(Otlp::Metrics),
        Signal::Profiles => return Err("profiles are not OTLP here".to_owned()),
    };
    request.map(|r| Payload::Otlp(Box::new(r))).map_err(|e| format!("is no OTLP request of {signal}: {e}"))
}

fn series(bytes: &[u8]) -> Result<Payload, String> {
    let mut lines = Vec::new();
    for part in model::series::parts(bytes) {
        if let Part::Series(series) = part.map_err(|e| e.to_string())? {
            let labels = series.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            lines.push(SeriesLine { labels, samples: series.samples });
        }
    }
    Ok(Payload::Series(lines))
}

/// A refused piece, by its format. What is not what it says stays as it is.
fn refused(header: &quarantine::Header, bytes: &[u8], limit: usize) -> Payload {
    let closed = || Payload::Base64(Bytes::copy_from_slice(bytes));
    if bytes.len() > limit {
        return closed();
    }
    let signal = Signal::ALL.into_iter().find(|s| s.name() == header.signal);
    match header.format.as_str() {
        "line" => match std::str::from_utf8(bytes) {
            Ok(text) => Payload::Text(text.to_owned()),
            Err(_) => closed(),
        },
        "otlp" => signal.and_then(|signal| otlp(signal, bytes).ok()).unwrap_or_else(closed),
        "loki" => loki(bytes, limit).unwrap_or_else(closed),
        "frame" => Payload::Frame(Box::new(Contents::open(&Bytes::copy_from_slice(bytes), limit))),
        _ => closed(),
    }
}

/// A snappy block of a `PushRequest` (logproto/push.proto: streams 1; labels 1, entries 2; timestamp 1, line 2, metadata 3).
fn loki(body: &[u8], limit: usize) -> Option<Payload> {
    if snap::raw::decompress_len(body).ok()? > limit.min(PAYLOAD_BYTES_MAX) {
        return None;
    }
    let raw = snap::raw::Decoder::new().decompress_vec(body).ok()?;
    let mut streams = Vec::new();
    each(&raw, |number, value| {
        if number == 1 {
            streams.push(stream(value.bytes()?)?);
        }
        Ok(())
    })
    .ok()?;
    Some(Payload::Loki(streams))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], Fault> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(Fault::Type),
        }
    }
    fn text(self) -> Result<String, Fault> {
        self.bytes().map(|b| String::from_utf8_lossy(b).into_owned())
    }
}

/// Numbers and lengths of one message; other wire types are stepped over.
fn each<'a>(mut b: &'a [u8], mut meet: impl FnMut(u32, Value<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
    while !b.is_empty() {
        let (number, kind) = wire::key(&mut b)?;
        match kind {
            wire::VARINT => meet(number, Value::Number(wire::varint(&mut b)?))?,
            wire::LEN => meet(number, Value::Bytes(wire::bytes(&mut b)?))?,
            kind => wire::skip(&mut b, number, kind, wire::NESTING_MAX)?,
        }
    }
    Ok(())
}

fn stream(b: &[u8]) -> Result<LokiStream, Fault> {
    let mut stream = LokiStream { labels: String::new(), entries: Vec::new() };
    each(b, |number, value| {
        match number {
            1 => stream.labels = value.text()?,
            2 => stream.entries.push(entry(value.bytes()?)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(stream)
}

fn entry(b: &[u8]) -> Result<LokiEntry, Fault> {
    let mut entry = LokiEntry::default();
    each(b, |number, value| {
        match number {
            1 => {
                let (mut seconds, mut nanos) = (0u64, 0u64);
                each(value.bytes()?, |number, value| {
                    match (number, value) {
                        (1, Value::Number(n)) => seconds = n,
                        (2, Value::Number(n)) => nanos = n,
                        _ => {}
                    }
                    Ok(())
                })?;
                // Seconds are an int64: before 1970 they are negative.
                let at = i128::from(seconds as i64) * 1_000_000_000 + i128::from(nanos as i32);
                entry.timestamp = at.to_string();
            }
            2 => entry.line = value.text()?,
            3 => {
                let (mut name, mut text) = (String::new(), String::new());
                each(value.bytes()?, |number, value| {
                    match number {
                        1 => name = value.text()?,
                        2 => text = value.text()?,
                        _ => {}
                    }
                    Ok(())
                })?;
                entry.metadata.insert(name, text);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(entry)
}

/// `hop NODE/EPOCH/SEQ`, `file ID.GENERATION@OFFSET+LENGTH`, `stack START/SEQ`, `journal ID/SEQ`.
fn origin(origin: &Origin) -> String {
    let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match origin {
        Origin::Hop { node, epoch, seq } => format!("hop {node}/{}-{:016x}/{seq}", epoch.counter, epoch.random),
        Origin::LogBytes { file, offset, len } => format!("file {}.{}@{offset}+{len}", hex(&file.id), file.generation),
        Origin::Stack { start, seq } => format!("stack {}/{seq}", hex(start)),
        Origin::Journal { journal, seq, .. } => format!("journal {}/{seq}", hex(journal)),
    }
}

mod decimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(number: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(number)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

mod as_base64 {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&base64(bytes))
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let bytes = crate::receiver::json::base64(&String::deserialize(d)?);
        bytes.map(Bytes::from).ok_or_else(|| serde::de::Error::custom("not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::envelope::Sidecar;
    use model::series::Writer;
    use serde_json::json;

    #[test]
    fn a_scrape_is_shown_as_series_and_damage_as_bytes_with_a_word_on_it() {
        let mut writer = Writer::new(&[("job", "host")]);
        writer.sample("node_load1", &[], 0.5, 7);
        writer.sample("gone", &[], f64::NAN, 7);
        let mut letter = envelope::header(Kind::Series, &Sidecar::default());
        letter.extend(writer.finish());
        let shown = serde_json::to_value(Contents::open(&Bytes::from(letter.clone()), usize::MAX)).unwrap();
        let labels = |name: &str| json!({ "__name__": name, "job": "host" });
        assert_eq!((&shown["kind"], &shown["payload"]["encoding"]), (&json!("series"), &json!("series")));
        let series = [("node_load1", json!(0.5)), ("gone", json!(null))];
        let series = series.map(|(name, value)| json!({ "labels": labels(name), "samples": [[7, value]] }));
        assert_eq!(shown["payload"]["value"], json!(series));
        letter.pop();
        let shown = serde_json::to_value(Contents::open(&Bytes::from(letter), usize::MAX)).unwrap();
        assert_eq!(shown["payload"]["encoding"], "base64");
        assert!(shown["problem"].as_str().is_some_and(|problem| problem.contains("remote-write")), "{shown}");
    }
}
