//! Bodies opened: decompressed within a limit, then walked for records.
//!
//! Loki pushes and OTLP exports become the same thing here: records with a text in which the number is looked for. Weakness: the
//! walk of a Loki push is complete for what Loki reads (labels, timestamp, line, metadata) and blind for everything else.

use super::fault::Faults;
use super::record::{Lane, Record};
use crate::payload::find_id;
use crate::wire::{Fields, Malformed, Value, messages};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::json;
use std::io::Read;

/// Decompressed size of one request, bytes. Above it: malformed.
pub const DECODED_MAX: u64 = 256 << 20;

/// One decoded request that can be stored.
pub struct Decoded {
    pub lane: Lane,
    pub bytes: Vec<u8>,
    /// Label sets, for faults that name a stream.
    pub streams: Vec<String>,
}

/// Undoes `Content-Encoding`, `grpc-encoding` or Loki's snappy block.
pub fn decompress(encoding: &str, body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    let read = match encoding {
        "" | "identity" => return Ok(body.to_vec()),
        "gzip" => flate2::read::MultiGzDecoder::new(body).take(DECODED_MAX + 1).read_to_end(&mut out),
        "zstd" => zstd::stream::read::Decoder::new(body).and_then(|d| d.take(DECODED_MAX + 1).read_to_end(&mut out)),
        "snappy" => {
            if snap::raw::decompress_len(body).map_err(|_| Malformed)? as u64 > DECODED_MAX {
                return Err(Malformed);
            }
            return snap::raw::Decoder::new().decompress_vec(body).map_err(|_| Malformed);
        }
        _ => return Err(Malformed),
    };
    match read {
        Ok(n) if n as u64 <= DECODED_MAX => Ok(out),
        _ => Err(Malformed),
    }
}

/// Checks a Loki push: every stream has labels in braces, every entry a timestamp and a UTF-8 line.
pub fn loki(bytes: Vec<u8>) -> Result<Decoded, Malformed> {
    let mut streams = Vec::new();
    for stream in messages(&bytes, 1) {
        let stream = stream?;
        let labels = labels_of(stream)?;
        if !labels.starts_with('{') || !labels.ends_with('}') || labels == "{}" {
            return Err(Malformed);
        }
        for entry in messages(stream, 2) {
            let entry = Entry::read(entry?)?;
            std::str::from_utf8(entry.line).map_err(|_| Malformed)?;
            entry.seconds.ok_or(Malformed)?;
        }
        streams.push(labels.to_owned());
    }
    if streams.is_empty() {
        return Err(Malformed);
    }
    Ok(Decoded { lane: Lane::Loki, bytes, streams })
}

/// Checks an OTLP request with the `opentelemetry-proto` structs, JSON included.
pub fn otlp(lane: Lane, json: bool, bytes: Vec<u8>) -> Result<Decoded, Malformed> {
    let bytes = match (lane, json) {
        (Lane::OtlpTraces, true) => {
            serde_json::from_slice::<ExportTraceServiceRequest>(&bytes).map_err(|_| Malformed)?.encode_to_vec()
        }
        (_, true) => serde_json::from_slice::<ExportLogsServiceRequest>(&bytes).map_err(|_| Malformed)?.encode_to_vec(),
        (_, false) => bytes,
    };
    // A cheap walk is enough here; `store` decodes whole structs only for records that are kept.
    for scope in messages(&bytes, 1) {
        for records in messages(scope?, 2) {
            for record in messages(records?, 2) {
                for field in Fields(record?) {
                    field?;
                }
            }
        }
    }
    Ok(Decoded { lane, bytes, streams: Vec::new() })
}

fn labels_of(stream: &[u8]) -> Result<&str, Malformed> {
    let labels = messages(stream, 1).next().ok_or(Malformed)??;
    std::str::from_utf8(labels).map_err(|_| Malformed)
}

struct Entry<'a> {
    seconds: Option<u64>,
    nanos: u64,
    line: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let mut entry = Entry { seconds: None, nanos: 0, line: &[] };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(stamp)) => {
                    for field in Fields(stamp) {
                        match field? {
                            (1, Value::Int(v)) => entry.seconds = Some(v),
                            (2, Value::Int(v)) => entry.nanos = v,
                            _ => {}
                        }
                    }
                }
                (2, Value::Bytes(line)) => entry.line = line,
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// Ticks every record of a request; streams for which `stored` is false are left out.
pub fn store(
    record: &mut Record,
    faults: &Faults,
    door: &'static str,
    request: &Decoded,
    stored: &dyn Fn(&str) -> bool,
) {
    let outcome = match request.lane {
        Lane::Loki => store_loki(record, faults, door, &request.bytes, stored),
        lane => store_otlp(record, faults, door, lane, &request.bytes),
    };
    if outcome.is_err() {
        record.door(door).malformed += 1; // cannot happen after the check; counted rather than trusted
    }
    record.touch();
}

fn tick(record: &mut Record, faults: &Faults, door: &'static str, lane: Lane, id: Option<(u32, u64)>) {
    if faults.forgets() {
        return;
    }
    let counters = record.door(door);
    counters.records += 1;
    match id {
        Some((sender, seq)) => record.tick(lane, sender, seq),
        None => counters.unnumbered += 1,
    }
}

fn store_loki(
    record: &mut Record,
    faults: &Faults,
    door: &'static str,
    bytes: &[u8],
    stored: &dyn Fn(&str) -> bool,
) -> Result<(), Malformed> {
    for stream in messages(bytes, 1) {
        let stream = stream?;
        let labels = labels_of(stream)?;
        if !stored(labels) {
            continue;
        }
        for bytes in messages(stream, 2) {
            let bytes = bytes?;
            let entry = Entry::read(bytes)?;
            tick(record, faults, door, Lane::Loki, find_id(entry.line));
            if record.keeps() {
                let ns = entry.seconds.unwrap_or(0).wrapping_mul(1_000_000_000).wrapping_add(entry.nanos);
                record.keep(json!({
                    "lane": Lane::Loki, "labels": labels, "ts_ns": ns.to_string(),
                    "line": String::from_utf8_lossy(entry.line), "metadata": metadata(bytes)?,
                }));
            }
        }
    }
    Ok(())
}

/// Structured metadata as a list of pairs: a map would hide a name that comes twice.
fn metadata(entry: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut pairs = Vec::new();
    for pair in messages(entry, 3) {
        let pair = pair?;
        let part = |n| messages(pair, n).next().unwrap_or(Ok(&[])).map(|b| String::from_utf8_lossy(b).into_owned());
        pairs.push((part(1)?, part(2)?));
    }
    Ok(pairs)
}

fn store_otlp(
    record: &mut Record,
    faults: &Faults,
    door: &'static str,
    lane: Lane,
    bytes: &[u8],
) -> Result<(), Malformed> {
    for resource in messages(bytes, 1) {
        for scope in messages(resource?, 2) {
            for one in messages(scope?, 2) {
                tick(record, faults, door, lane, otlp_id(lane, one?)?);
            }
        }
    }
    if record.keeps() {
        let request = match lane {
            Lane::OtlpTraces => serde_json::to_value(ExportTraceServiceRequest::decode(bytes).map_err(|_| Malformed)?),
            _ => serde_json::to_value(ExportLogsServiceRequest::decode(bytes).map_err(|_| Malformed)?),
        };
        record.keep(json!({ "lane": lane, "request": request.map_err(|_| Malformed)? }));
    }
    Ok(())
}

/// The number of a log record (field 5, its body) or of a span (field 9, its attributes).
fn otlp_id(lane: Lane, record: &[u8]) -> Result<Option<(u32, u64)>, Malformed> {
    if lane == Lane::OtlpLogs {
        let Some(body) = messages(record, 5).next() else { return Ok(None) };
        return Ok(messages(body?, 1).next().transpose()?.and_then(find_id));
    }
    for attribute in messages(record, 9) {
        let attribute = attribute?;
        if messages(attribute, 1).next().transpose()? == Some(b"load.id") {
            let Some(value) = messages(attribute, 2).next() else { return Ok(None) };
            return Ok(messages(value?, 1).next().transpose()?.and_then(find_id));
        }
    }
    Ok(None)
}
