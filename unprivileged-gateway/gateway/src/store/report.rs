//! A log in JSON, whether this process holds it or nobody does: the shapes of docs/wal-tools.md.
//!
//! One photographer for both cameras: the running gateway and `gateway wal` beside a stopped one show the same picture. Times are
//! milliseconds since 1970 as numbers. Weakness: quarantine is listed by reading its log from end to end.

use crate::store::payload::{EpochName, Piece, Stored};
use crate::store::{Quarantined, quarantine};
use serde_json::{Value, json};
use std::collections::VecDeque;
use wal::inspect::{CoverPage, DestinationView, Entry, Found, LogView, Placed, SegmentInfo, Unreadable, Verified};
use wal::{DestinationId, Frame, OnRemove, QUARANTINE, StateFound};

/// Segments of one log that are listed, the newest ones; all are counted.
pub const SEGMENTS_SHOWN_MAX: usize = 1_000;
/// Bytes of a backend's words and of labels that a row of the list shows.
const ROW_TEXT_BYTES_MAX: usize = 1_024;
/// A quarantined piece larger than this is shown as base64 instead of being decoded. Unit: bytes.
pub const DECODED_BYTES_MAX: usize = 1 << 20;
/// Payload bytes of one page of an export, at least one frame.
pub const PAGE_BYTES: usize = 1 << 20;

fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}

/// Bytes, segments and destinations of one log. `configured`: what the configuration says of a destination, if it is known.
pub fn stats(view: &LogView, now_ns: u64, configured: &dyn Fn(&DestinationId) -> Option<bool>) -> Value {
    let segments: Vec<&SegmentInfo> = view.segments().collect();
    let shown = &segments[segments.len().saturating_sub(SEGMENTS_SHOWN_MAX)..];
    let destination = |d: DestinationView| {
        json!({
            "destination": d.id.as_str(),
            "configured": configured(&d.id),
            "registered_ms": ms(d.registered_at),
            "on_remove": match d.on_remove { OnRemove::Keep => "keep", OnRemove::Discard => "discard" },
            "next_seq": d.cursor.seq,
            "waiting": {
                "records": d.waiting.items,
                "bytes": d.waiting.bytes,
                "oldest_ms": d.waiting.oldest_appended_at.map(ms),
                "oldest_age_s": d.waiting.oldest_appended_at.map(|at| now_ns.saturating_sub(at) as f64 / 1e9),
            },
        })
    };
    json!({
        "name": view.name,
        "bytes": segments.iter().map(|s| s.bytes).sum::<u64>(),
        "segments": segments.len(),
        "records_ever": view.items,
        "next_seq": view.next_seq,
        "oldest_seq": segments.first().map_or(view.next_seq, |s| s.first_seq),
        "state": state(view.state),
        "closed": view.frozen,
        "left_over": view.ghosts,
        "files": shown.iter().map(|s| segment(s)).collect::<Vec<_>>(),
        "destinations": view.destinations().into_iter().map(destination).collect::<Vec<_>>(),
    })
}

fn state(found: StateFound) -> &'static str {
    match found {
        StateFound::Empty => "empty",
        StateFound::Whole => "whole",
        StateFound::Hurt => "hurt",
        StateFound::Lost => "lost",
    }
}

fn segment(s: &SegmentInfo) -> Value {
    json!({
        "file": s.file,
        "bytes": s.bytes,
        "end": s.end,
        "synced": s.synced,
        "cover": match s.cover {
            CoverPage::Whole => "whole",
            CoverPage::Lost => "lost",
            CoverPage::Unknown => "unknown",
            CoverPage::Later => "later",
        },
        "epoch": s.epoch.map(EpochName::from),
        "first_seq": s.first_seq,
        "first_ms": ms(s.first_time),
        "records_before": s.items_before,
    })
}

/// What reading every record found.
pub fn verified(name: &str, v: &Verified) -> Value {
    let shown = &v.segments[v.segments.len().saturating_sub(SEGMENTS_SHOWN_MAX)..];
    let one = |s: &wal::inspect::SegmentCheck| {
        let mut value = segment(&s.info);
        value["frames"] = s.frames.into();
        value["records"] = s.items.into();
        value["unreadable_bytes"] = s.unreadable_bytes.into();
        value
    };
    json!({
        "name": name,
        "ok": v.is_whole(),
        "segments": v.segments.len(),
        "frames": v.frames,
        "records": v.items,
        "payload_bytes": v.payload_bytes,
        "state_records": v.state_records,
        "unknown_records": v.unknown_records,
        "repeated_frames": v.repeated,
        "first_seq": v.seqs.map(|(first, _)| first),
        "last_seq": v.seqs.map(|(_, last)| last),
        "first_ms": v.times.map(|(first, _)| ms(first)),
        "last_ms": v.times.map(|(_, last)| ms(last)),
        "lost_records": v.lost_items,
        "damaged_bytes": v.damaged_bytes,
        "torn_bytes": v.torn_bytes,
        "stretches_found": v.stretches_found,
        "stretches": v.stretches.iter().map(|u| unreadable(name, u)).collect::<Vec<_>>(),
        "files": shown.iter().map(one).collect::<Vec<_>>(),
    })
}

/// One stretch that cannot be read.
pub fn unreadable(log: &str, u: &Unreadable) -> Value {
    json!({"file": format!("{log}/{}", u.file), "from": u.from, "to": u.to, "was_synced": u.was_synced, "why": u.why})
}

/// Where the operator's quarantine begins: what lies below was dropped to make room.
pub fn quarantine_start(view: &LogView) -> u64 {
    let keeper = Quarantined::keeper().id();
    view.destinations().into_iter().find(|d| d.id == keeper).map_or(0, |d| d.cursor.seq)
}

/// The newest `limit` quarantined pieces older than `before`, newest first.
pub fn quarantine_list(view: &LogView, limit: usize, before: Option<u64>) -> Value {
    let (mut rows, mut total, mut bytes, mut records) = (VecDeque::new(), 0u64, 0u64, 0u64);
    for frame in frames(view, quarantine_start(view)) {
        let Some(row) = row(&frame) else { continue };
        total += 1;
        bytes += row["bytes"].as_u64().unwrap_or(0);
        records += row["records"].as_u64().unwrap_or(0);
        if before.is_none_or(|before| frame.seq < before) {
            rows.push_front(row);
            rows.truncate(limit);
        }
    }
    json!({"total": total, "bytes": bytes, "records": records, "items": rows})
}

fn frames(view: &LogView, from: u64) -> impl Iterator<Item = Frame> {
    view.walk(from).filter_map(|found| match found {
        Found::Record(Placed { entry: Entry::Frame(frame), .. }) => Some(*frame),
        _ => None,
    })
}

fn row(frame: &Frame) -> Option<Value> {
    let (header, bytes) = quarantine::open(&frame.payload)?;
    Some(head(frame.seq, &header, bytes.len() as u64, ROW_TEXT_BYTES_MAX))
}

fn head(id: u64, h: &quarantine::Header, bytes: u64, text_max: usize) -> Value {
    let cut = |text: &str| text[..text.floor_char_boundary(text_max)].to_owned();
    json!({
        "id": id,
        "at_ms": ms(h.at),
        "destination": h.destination,
        "signal": h.signal,
        "seq": h.seq,
        "reason": h.reason,
        "text": cut(&h.text),
        "labels": cut(&h.labels),
        "records": h.items,
        "format": h.format,
        "bytes": bytes,
    })
}

/// One quarantined piece with its payload. `None`: it is not held.
pub fn quarantine_show(view: &LogView, id: u64) -> Option<Value> {
    if id < quarantine_start(view) {
        return None;
    }
    let frame = frames(view, id).next().filter(|frame| frame.seq == id)?;
    Some(piece(&Stored::new(QUARANTINE, frame).quarantined(DECODED_BYTES_MAX)?))
}

/// A quarantined piece, whole.
pub fn piece(piece: &Piece) -> Value {
    let mut value = head(piece.id, &piece.header, piece.bytes, usize::MAX);
    value["payload"] = serde_json::to_value(&piece.payload).unwrap_or_default();
    value
}

/// One page of an export: frames from `from` on, as stored, at least one and about `room` bytes. `next` is null at the end.
pub fn export_page(view: &LogView, from: u64, mut room: usize) -> Value {
    let (mut lines, mut bad, mut next) = (Vec::new(), Vec::new(), None);
    for found in view.walk(from) {
        match found {
            Found::Unreadable(u) if bad.len() < wal::inspect::STRETCHES_MAX => bad.push(unreadable(&view.name, &u)),
            Found::Record(Placed { entry: Entry::Frame(frame), .. }) => {
                if room == 0 {
                    next = Some(frame.seq);
                    break;
                }
                room = room.saturating_sub(frame.payload.len().max(1));
                lines.push(serde_json::to_value(Stored::new(&view.name, *frame)).unwrap_or_default());
            }
            _ => {}
        }
    }
    json!({"frames": lines, "unreadable": bad, "next": next})
}
