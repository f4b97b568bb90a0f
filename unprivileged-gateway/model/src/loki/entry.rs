//! One log record to one entry, in one forward pass. This is the hottest function of the gateway.
//!
//! A translator who speaks while listening: fields go out in the order in which they come in, and only the few whose place
//! is elsewhere (times, severity, ids) are remembered as slices. What all records of a scope share is rendered before and
//! copied. Nothing is owned, and nothing is allocated but the output.
//!
//! ```text
//! Entry { timestamp = 1 { seconds = 1, nanos = 2 }, line = 2, structuredMetadata = 3 { name = 1, value = 2 } }
//! ```
//!
//! The weakness: a record in which something appears twice cannot be put right while it streams by; it is given up
//! ([`Odd::Twice`]) and [`super::merge`] does it again, slowly.

use super::Limits;
use super::metadata::{Bits, Level, PAIR, Pair, attribute, lone_string, plain_pair};
use super::severity::{FieldNames, Severities};
use super::value::{Any, Odd, hex, text};
use crate::wire::{Fault, Fields, Value, close, len_key, open, put_bytes, put_varint, varint_len};

/// Stands at the end of a line that was cut.
pub(super) const CUT_MARKER: &[u8] = b"...[cut]";

/// Field of a stream that holds its entries.
pub(super) const ENTRY: u8 = 2;
/// Names of a record that are compared one by one; with more the slow path, which does not, is faster.
const NAMES_MAX: usize = 256;

/// What all records of a scope have in common.
pub(super) struct Shared<'a> {
    /// Without what the scope overrides.
    pub(super) resource: &'a Level,
    pub(super) scope: &'a Level,
    bits: Bits,
    pub(super) received_at: u64,
}

impl<'a> Shared<'a> {
    pub(super) fn new(resource: &'a Level, scope: &'a Level, received_at: u64) -> Shared<'a> {
        let mut bits = resource.names.bits;
        for &hash in &scope.names.hashes {
            bits.set(hash);
        }
        Shared { resource, scope, bits, received_at }
    }
}

/// What the encoder lends to every record.
#[derive(Default)]
pub(super) struct Tools {
    pub(super) severities: Severities,
    pub(super) fields: FieldNames,
    /// Hashes of the names of this record's attributes.
    seen: Vec<u64>,
}

/// What an entry weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weight {
    /// Pairs of structured metadata, and the bytes of their names and values.
    pub(super) entries: usize,
    pub(super) size: usize,
    pub(super) cut: bool,
}

/// Fields of a record whose place in the entry is not where they are met.
#[derive(Default)]
pub(super) struct Record<'a> {
    pub(super) time: u64,
    pub(super) observed: u64,
    pub(super) number: i32,
    pub(super) text: &'a [u8],
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) event_name: &'a [u8],
    pub(super) flags: u32,
}

impl<'a> Record<'a> {
    /// Takes a field that is not written at once. Errors: a known field with a wire type that is not its own.
    #[inline(always)]
    pub(super) fn take(&mut self, field: (u32, Value<'a>)) -> Result<(), Fault> {
        match field {
            (1, Value::Fixed64(v)) => self.time = v,
            (2, Value::Varint(v)) => self.number = v as i32,
            (3, Value::Bytes(v)) => self.text = v,
            (8, Value::Fixed32(v)) => self.flags = v,
            (9, Value::Bytes(v)) => self.trace_id = v,
            (10, Value::Bytes(v)) => self.span_id = v,
            (11, Value::Fixed64(v)) => self.observed = v,
            (12, Value::Bytes(v)) => self.event_name = v,
            (1..=3 | 5 | 6 | 8..=12, _) => return Err(Fault::Type),
            _ => {}
        }
        Ok(())
    }

    /// Unix nanoseconds: when it happened, else when it was seen, else when it came in.
    #[inline(always)]
    pub(super) fn timestamp(&self, received_at: u64) -> u64 {
        match (self.time, self.observed) {
            (0, 0) => received_at,
            (0, observed) => observed,
            (time, _) => time,
        }
    }
}

/// An id of zeros is an id that was not set.
#[inline(always)]
pub(super) fn is_set(id: &[u8]) -> bool {
    id.iter().any(|&b| b != 0)
}

/// Appends the entry of one record.
///
/// Errors: what was appended so far must be truncated by the caller; [`Odd::Twice`] sends the record to the slow path.
#[inline]
pub(super) fn entry(
    out: &mut Vec<u8>,
    record: &[u8],
    shared: &Shared,
    tools: &mut Tools,
    limits: &Limits,
) -> Result<Weight, Odd> {
    let mut fields = Record::default();
    let mut weight = Weight {
        entries: shared.resource.entries() + shared.scope.entries(),
        size: shared.resource.size + shared.scope.size,
        cut: false,
    };
    let mut names = Seen { bits: shared.bits, shared, own: &mut tools.seen };
    names.own.clear();
    let mut body = false;
    let start = open(out, ENTRY);
    let stamp = reserve_timestamp(out);
    for field in Fields(record) {
        match field? {
            // Every known encoder writes the body before the attributes, but metadata may as well precede the line.
            (5, Value::Bytes(any)) => {
                if std::mem::replace(&mut body, true) {
                    return Err(Odd::Twice);
                }
                weight.cut = line(out, any, limits.line_bytes)?;
            }
            (6, Value::Bytes(kv)) => {
                let Pair { hash, size } = attribute(out, kv, limits.metadata_bytes)?;
                names.add(hash)?;
                weight.entries += 1;
                weight.size += size;
            }
            other => fields.take(other)?,
        }
    }
    out.extend_from_slice(&shared.resource.rendered);
    out.extend_from_slice(&shared.scope.rendered);
    own_fields(out, &fields, &mut names, (&mut tools.severities, &tools.fields), &mut weight)?;
    patch_timestamp(out, stamp, fields.timestamp(shared.received_at));
    close(out, start);
    Ok(weight)
}

/// Names met so far: those that came with the scope, and the record's own.
struct Seen<'a> {
    bits: Bits,
    shared: &'a Shared<'a>,
    own: &'a mut Vec<u64>,
}

impl Seen<'_> {
    #[inline(always)]
    fn add(&mut self, hash: u64) -> Result<(), Odd> {
        if self.bits.set(hash) && self.holds(hash) || self.own.len() >= NAMES_MAX {
            return Err(Odd::Twice);
        }
        self.own.push(hash);
        Ok(())
    }

    fn holds(&self, hash: u64) -> bool {
        let levels = [&self.shared.resource.names.hashes, &self.shared.scope.names.hashes, &*self.own];
        levels.into_iter().any(|hashes| hashes.contains(&hash))
    }
}

/// Appends what the record says in fields rather than attributes.
#[inline(always)]
fn own_fields(
    out: &mut Vec<u8>,
    fields: &Record,
    names: &mut Seen,
    (severities, known): (&mut Severities, &FieldNames),
    weight: &mut Weight,
) -> Result<(), Odd> {
    let severity = severities.get(fields.number, fields.text);
    for &name in severity.names.iter().take(severity.entries) {
        names.add(name)?;
    }
    out.extend_from_slice(&severity.rendered);
    weight.entries += severity.entries;
    weight.size += severity.size;
    for (name, hash, id) in [("trace_id", known.trace_id, fields.trace_id), ("span_id", known.span_id, fields.span_id)]
    {
        if is_set(id) {
            names.add(hash)?;
            id_pair(out, name, id);
            weight.entries += 1;
            weight.size += name.len() + 2 * id.len();
        }
    }
    if !fields.event_name.is_empty() {
        names.add(known.event_name)?;
        weight.entries += 1;
        weight.size += plain_pair(out, "event_name", fields.event_name).size;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn id_pair(out: &mut Vec<u8>, name: &str, id: &[u8]) {
    let digits = 2 * id.len();
    out.push(len_key(PAIR));
    put_varint(out, (2 + name.len() + 1 + varint_len(digits as u64) + digits) as u64);
    put_bytes(out, 1, name.as_bytes());
    out.push(len_key(2));
    put_varint(out, digits as u64);
    hex(out, id);
}

/// Appends the line; true if it had to be cut.
#[inline(always)]
fn line(out: &mut Vec<u8>, any: &[u8], max: usize) -> Result<bool, Odd> {
    if let Some(line) = lone_string(any)
        && line.len() <= max
    {
        put_bytes(out, 2, line);
        return Ok(false);
    }
    long_line(out, any, max)
}

#[cold]
fn long_line(out: &mut Vec<u8>, any: &[u8], max: usize) -> Result<bool, Odd> {
    let any = Any::parse(any)?;
    let at = open(out, 2);
    text(out, any, max)?;
    let cut = cut(out, at, max);
    close(out, at);
    Ok(cut)
}

/// Cuts what was written since `start` to `max` bytes, marker included, never inside a character.
pub(super) fn cut(out: &mut Vec<u8>, start: usize, max: usize) -> bool {
    if out.len() - start <= max {
        return false;
    }
    let marker = if max > CUT_MARKER.len() { CUT_MARKER } else { b"" };
    let mut end = start + max - marker.len();
    while end > start && out[end] & 0xc0 == 0x80 {
        end -= 1; // the byte that would go first is the middle of a character
    }
    out.truncate(end);
    out.extend_from_slice(marker);
    true
}

/// Two five-byte varints, padded, so that their place can be reserved. Returns where they begin.
#[inline(always)]
pub(super) fn reserve_timestamp(out: &mut Vec<u8>) -> usize {
    const SECONDS: u8 = 1 << 3;
    const NANOS: u8 = 2 << 3;
    out.extend_from_slice(&[len_key(1), 12, SECONDS, 0, 0, 0, 0, 0, NANOS, 0, 0, 0, 0, 0]);
    out.len() - 14
}

#[inline(always)]
pub(super) fn patch_timestamp(out: &mut [u8], at: usize, nanoseconds: u64) {
    const SECOND_NS: u64 = 1_000_000_000;
    // Five groups of seven bits hold 35 bits; u64 nanoseconds are at most 18,446,744,073 seconds.
    five(&mut out[at + 3..at + 8], nanoseconds / SECOND_NS);
    five(&mut out[at + 9..at + 14], nanoseconds % SECOND_NS);
}

#[inline(always)]
fn five(slot: &mut [u8], v: u64) {
    for (i, b) in slot.iter_mut().enumerate() {
        *b = (v >> (7 * i)) as u8 & 0x7f | if i < 4 { 0x80 } else { 0 };
    }
}

/// The line of an entry that was just written; empty if it was not finished.
#[cold]
pub(super) fn line_of(entry: &[u8]) -> Vec<u8> {
    let Some(Ok((_, Value::Bytes(fields)))) = Fields(entry).next() else { return Vec::new() };
    let line = Fields(fields).find_map(|field| match field {
        Ok((2, Value::Bytes(line))) => Some(line.to_vec()),
        _ => None,
    });
    line.unwrap_or_default()
}

/// Appends an entry that is a line and nothing else.
pub(super) fn line_entry(out: &mut Vec<u8>, line: &[u8], timestamp: u64) {
    let start = open(out, ENTRY);
    let stamp = reserve_timestamp(out);
    put_bytes(out, 2, line);
    patch_timestamp(out, stamp, timestamp);
    close(out, start);
}
