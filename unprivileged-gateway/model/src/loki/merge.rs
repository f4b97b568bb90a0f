//! The slow path: a record in which something appears twice.
//!
//! Two attributes with one name (or with names that clean to one), an attribute that the resource has too, or a field that
//! protobuf wants merged. Here the record is first rewritten so that every singular field is there once, and then its pairs
//! are sorted out by name: record over scope over resource, the last within a level, the record's own fields over its
//! attributes.

use super::Limits;
use super::entry::{ENTRY, Record, Shared, Tools, Weight, cut, id_pair, is_set, patch_timestamp, reserve_timestamp};
use super::metadata::{attribute, plain_pair, strongest};
use super::value::{Any, Odd, text};
use crate::otlp;
use crate::wire::{Fields, Value, close, open};

/// Appends the entry of one record; same result as [`super::entry::entry`] where that has one.
#[cold]
pub(super) fn entry(
    out: &mut Vec<u8>,
    record: &[u8],
    shared: &Shared,
    tools: &mut Tools,
    limits: &Limits,
) -> Result<Weight, Odd> {
    let record = otlp::merged_log_record(record)?;
    let (mut fields, mut body, mut own) = (Record::default(), None, Vec::new());
    for field in Fields(&record) {
        match field? {
            (5, Value::Bytes(any)) => body = Some(any),
            (6, Value::Bytes(kv)) => {
                attribute(&mut own, kv, limits.metadata_bytes)?;
            }
            other => fields.take(other)?,
        }
    }
    own.extend_from_slice(&tools.severities.get(fields.number, fields.text).rendered);
    for (name, id) in [("trace_id", fields.trace_id), ("span_id", fields.span_id)] {
        if is_set(id) {
            id_pair(&mut own, name, id);
        }
    }
    if !fields.event_name.is_empty() {
        plain_pair(&mut own, "event_name", fields.event_name);
    }
    let pairs = strongest(&[&shared.resource.rendered, &shared.scope.rendered, &own]);
    let mut weight = Weight { entries: pairs.entries(), size: pairs.size, cut: false };

    let start = open(out, ENTRY);
    let stamp = reserve_timestamp(out);
    if let Some(any) = body {
        let line = open(out, 2);
        text(out, Any::parse(any)?, limits.line_bytes)?;
        weight.cut = cut(out, line, limits.line_bytes);
        close(out, line);
    }
    out.extend_from_slice(&pairs.rendered);
    patch_timestamp(out, stamp, fields.timestamp(shared.received_at));
    close(out, start);
    Ok(weight)
}
