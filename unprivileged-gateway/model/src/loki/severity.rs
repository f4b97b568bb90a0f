//! How bad it is, in as few bytes as possible.
//!
//! OTLP says it twice (a number and a text), Loki wants it a third way (`detected_level`). Sent together they are 70 bytes
//! of every line, so: `detected_level` always where there is a severity; `severity_text` only where its lower case says
//! something else; `severity_number` only where it is not the first of its level's four.
//!
//! A sender uses a handful of severities, so each is rendered once and copied from then on.

use super::metadata::{Pair, name_hash, plain_pair};

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// Severities that are kept rendered: one slot a number, the unset one included.
const SLOTS: usize = 32;
/// Longer texts than this are rendered again each time rather than kept.
const KEPT_TEXT_BYTES: usize = 64;
/// Pairs that a severity renders to at most.
const PAIRS: usize = 3;

/// The severity of a record as structured metadata.
#[derive(Default)]
pub(super) struct Severity {
    number: i32,
    text: Vec<u8>,
    pub(super) rendered: Vec<u8>,
    /// Hashes of the names in `rendered`; 0 where there is none.
    pub(super) names: [u64; PAIRS],
    pub(super) entries: usize,
    pub(super) size: usize,
}

/// Rendered severities, found by number and text.
pub(super) struct Severities {
    slots: Vec<Severity>,
}

impl Default for Severities {
    fn default() -> Severities {
        // The last slot is for texts too long to keep.
        Severities { slots: (0..=SLOTS).map(|_| Severity::default()).collect() }
    }
}

impl Severities {
    /// `number` and `text` as in the record, 0 and empty where unset.
    #[inline]
    pub(super) fn get(&mut self, number: i32, text: &[u8]) -> &Severity {
        let kept = text.len() <= KEPT_TEXT_BYTES;
        let slot = &mut self.slots[if kept { number as usize % SLOTS } else { SLOTS }];
        if slot.number != number || slot.text != text {
            render(slot, number, text);
        }
        slot
    }
}

impl Severities {
    /// Lets go of a text that was too long to keep.
    pub(super) fn forget_long(&mut self) {
        self.slots[SLOTS] = Severity::default();
    }
}

#[cold]
fn render(slot: &mut Severity, number: i32, text: &[u8]) {
    *slot = Severity { number, text: text.to_vec(), ..Severity::default() };
    if number == 0 && text.is_empty() {
        return;
    }
    let level = level(number, text);
    let mut add = |name: &str, value: &[u8]| {
        let Pair { hash, size } = plain_pair(&mut slot.rendered, name, value);
        slot.names[slot.entries] = hash;
        slot.entries += 1;
        slot.size += size;
    };
    if !text.is_empty() && text.to_ascii_lowercase() != level.as_bytes() {
        add("severity_text", text);
    }
    let first_of_four = (1..=24).contains(&number) && number % 4 == 1;
    if number != 0 && !first_of_four {
        add("severity_number", number.to_string().as_bytes());
    }
    add("detected_level", level.as_bytes());
}

/// Loki's name of the level: by the number where it has one, else by the words that Loki itself knows.
fn level(number: i32, text: &[u8]) -> &'static str {
    if let 1..=24 = number {
        return LEVELS[(number as usize - 1) / 4];
    }
    match &text.to_ascii_lowercase()[..] {
        b"trace" | b"trc" => "trace",
        b"debug" | b"dbg" => "debug",
        b"info" | b"inf" | b"information" => "info",
        b"warn" | b"wrn" | b"warning" => "warn",
        b"error" | b"err" => "error",
        b"critical" => "critical",
        b"fatal" => "fatal",
        _ => "unknown",
    }
}

/// Names that the record's own fields use, hashed once.
pub(super) struct FieldNames {
    pub(super) trace_id: u64,
    pub(super) span_id: u64,
    pub(super) event_name: u64,
}

impl Default for FieldNames {
    fn default() -> FieldNames {
        let [trace_id, span_id, event_name] = ["trace_id", "span_id", "event_name"].map(|n| name_hash(n.as_bytes()));
        FieldNames { trace_id, span_id, event_name }
    }
}
