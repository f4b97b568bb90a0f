//! Who is reading, and how far: the list on the door of the cold store. Nothing is thrown out before everybody on the
//! list has crossed it off, whether or not they still come by.
//!
//! A destination exists from its synced record. Names are written twice, because one bad sector must not make the log
//! forget somebody it keeps data for. Cursors in memory run ahead of cursors on disk; deletion asks the latter.

use crate::group::Totals;
use crate::origin::{Mark, Marks, Seen, Stream};
use crate::wire::{Put, Take};
use std::collections::BTreeMap;

/// "kind/name", the name by which a destination is known outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(String);

impl DestinationId {
    /// From its two parts.
    pub fn new(kind: &str, name: &str) -> DestinationId {
        DestinationId(format!("{kind}/{name}"))
    }
    /// "kind/name".
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for DestinationId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DestinationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a destination starts that was never seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum From {
    /// Behind everything that is held.
    #[default]
    Now,
    /// At the oldest frame that is held.
    Oldest,
}

/// What becomes of the backlog of a destination that leaves the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnRemove {
    /// It stays registered, named in status with bytes and age, until it is put back or forgotten by hand.
    #[default]
    Keep,
    /// A counted tombstone is written.
    Discard,
}

/// A destination as the configuration wants it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Destination {
    /// "loki", "otlp", "view", ...
    pub kind: String,
    /// Its name within the kind.
    pub name: String,
    /// Applied once, when it is first registered.
    pub from: From,
    /// The name (same kind) under which it was registered before.
    pub was: Option<String>,
    /// Applied when it leaves the configuration.
    pub on_remove: OnRemove,
}

impl Destination {
    /// Its id.
    pub fn id(&self) -> DestinationId {
        DestinationId::new(&self.kind, &self.name)
    }
}

/// How far a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Lowest unfinished seq.
    pub seq: u64,
    /// Items of all frames ever appended before it.
    pub items: u64,
    /// Payload bytes of all frames ever appended before it; between known places an estimate by share of items.
    pub bytes: u64,
    /// Highest seq that may have been sent (remote write); of logs, everything below it has been, though a line that began
    /// earlier may still be open.
    pub sent_upto: u64,
}

impl Cursor {
    fn write(&self, b: &mut Vec<u8>) {
        for v in [self.seq, self.items, self.bytes, self.sent_upto] {
            b.u64(v);
        }
    }
    pub(crate) fn read(t: &mut Take<'_>) -> Option<Cursor> {
        Some(Cursor { seq: t.u64()?, items: t.u64()?, bytes: t.u64()?, sent_upto: t.u64()? })
    }
}

/// A registered destination.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registered {
    /// Random and constant over renames; cursor records name it.
    pub(crate) uid: u64,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) on_remove: OnRemove,
    pub(crate) registered_at: u64,
    pub(crate) cursor: Cursor,
    /// The cursor that is on disk; `None` until the registration itself is.
    pub(crate) synced: Option<Cursor>,
    pub(crate) configured: bool,
}

impl Registered {
    pub(crate) fn id(&self) -> DestinationId {
        DestinationId::new(&self.kind, &self.name)
    }
    pub(crate) fn is_dirty(&self) -> bool {
        self.synced != Some(self.cursor)
    }
    fn write(&self, b: &mut Vec<u8>) {
        b.u64(self.uid);
        b.text(self.kind.as_bytes());
        b.text(self.name.as_bytes());
        // Mask of signals; 0 is "the signal of this log". Reserved for a log that would hold several.
        b.u8(0);
        b.u8(u8::from(self.on_remove == OnRemove::Discard));
        b.u64(self.registered_at);
        self.cursor.write(b);
    }
    pub(crate) fn read(t: &mut Take<'_>) -> Option<Registered> {
        let (uid, kind, name, _signals) = (t.u64()?, t.string()?, t.string()?, t.u8()?);
        let on_remove = if t.u8()? == 1 { OnRemove::Discard } else { OnRemove::Keep };
        let (registered_at, cursor) = (t.u64()?, Cursor::read(t)?);
        Some(Registered { uid, kind, name, on_remove, registered_at, cursor, synced: None, configured: false })
    }
}

/// Why a destination record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    /// A new name or another `on_remove`.
    Change,
    Delete,
}

/// Payload of a destination record; `dropped` counts items and bytes of a tombstone.
pub(crate) fn destination_payload(op: Op, d: &Registered, dropped: (u64, u64)) -> Vec<u8> {
    let mut b = Vec::new();
    b.u8(match op {
        Op::Add => 1,
        Op::Change => 2,
        Op::Delete => 3,
    });
    d.write(&mut b);
    b.u64(dropped.0);
    b.u64(dropped.1);
    b
}

/// Payload of a cursor record.
pub(crate) fn cursor_payload(uid: u64, cursor: &Cursor) -> Vec<u8> {
    let mut b = Vec::new();
    b.u64(uid);
    cursor.write(&mut b);
    b
}

/// Payload of a gap record.
pub(crate) fn gap_payload(seen: &Seen) -> Vec<u8> {
    let mut b = Vec::new();
    seen.stream.write(&mut b);
    b.u64(seen.from);
    b.u64(seen.to);
    b.text(seen.text.as_bytes());
    b
}

/// Payload of a snapshot record.
pub(crate) fn snapshot(totals: &Totals, destinations: &BTreeMap<u64, Registered>, marks: &Marks) -> Vec<u8> {
    let mut b = Vec::with_capacity(256 + destinations.len() * 128 + marks.len() * 80);
    b.u8(1);
    for v in [totals.next_seq, totals.items, totals.bytes] {
        b.u64(v);
    }
    b.u32(destinations.len() as u32);
    for d in destinations.values() {
        d.write(&mut b);
    }
    b.u32(marks.len() as u32);
    for (stream, mark) in marks {
        stream.write(&mut b);
        b.u64(mark.touched_at);
        b.text(mark.text.as_bytes());
        b.u32(mark.ranges.len() as u32);
        for (from, to) in &mark.ranges {
            b.u64(*from);
            b.u64(*to);
        }
    }
    b
}

/// What a gap record says is not to be waited for.
pub(crate) fn read_gap(payload: &[u8], at: u64) -> Option<Seen> {
    let mut t = Take(payload);
    Some(Seen { stream: Stream::read(&mut t)?, from: t.u64()?, to: t.u64()?, at, text: String::new() })
}

/// The live state of a log: what a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) next_seq: u64,
    /// Of all frames ever appended.
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// By uid.
    pub(crate) destinations: BTreeMap<u64, Registered>,
    pub(crate) marks: Marks,
}

impl State {
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let totals = Totals { next_seq: self.next_seq, items: self.items, bytes: self.bytes };
        snapshot(&totals, &self.destinations, &self.marks)
    }

    pub(crate) fn read(payload: &[u8]) -> Option<State> {
        let mut t = Take(payload);
        if t.u8()? != 1 {
            return None;
        }
        let mut s = State { next_seq: t.u64()?, items: t.u64()?, bytes: t.u64()?, ..State::default() };
        for _ in 0..t.u32()? {
            let d = Registered::read(&mut t)?;
            s.destinations.insert(d.uid, d);
        }
        for _ in 0..t.u32()? {
            let stream = Stream::read(&mut t)?;
            let mut mark = Mark { touched_at: t.u64()?, text: t.string()?, ranges: Vec::new() };
            for _ in 0..t.u32()? {
                mark.ranges.push((t.u64()?, t.u64()?));
            }
            s.marks.insert(stream, mark);
        }
        Some(s)
    }

    /// Replays a destination record. False: not readable.
    pub(crate) fn replay_destination(&mut self, payload: &[u8]) -> bool {
        let mut t = Take(payload);
        let (Some(op), Some(new)) = (t.u8(), Registered::read(&mut t)) else { return false };
        match op {
            1 | 2 => match self.destinations.get_mut(&new.uid) {
                Some(d) => (d.kind, d.name, d.on_remove) = (new.kind, new.name, new.on_remove),
                None => {
                    self.destinations.insert(new.uid, new);
                }
            },
            3 => {
                self.destinations.remove(&new.uid);
            }
            _ => return false,
        }
        true
    }

    /// Replays a cursor record; a cursor never goes back.
    pub(crate) fn replay_cursor(&mut self, payload: &[u8]) -> bool {
        let mut t = Take(payload);
        let (Some(uid), Some(cursor)) = (t.u64(), Cursor::read(&mut t)) else { return false };
        if let Some(d) = self.destinations.get_mut(&uid)
            && cursor.seq >= d.cursor.seq
        {
            d.cursor = Cursor { sent_upto: d.cursor.sent_upto.max(cursor.sent_upto), ..cursor };
        }
        true
    }
}

/// Files not seen for this long are forgotten at the next snapshot.
pub(crate) const FILE_MEMORY_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;
/// More files than this are never remembered; the longest unseen go first.
pub(crate) const FILES_MAX: usize = 65_536;
/// Probe starts and journals remembered.
pub(crate) const OTHER_STREAMS_MAX: usize = 1_024;

/// Forgets what a snapshot need not carry. Epochs of other nodes are kept until their senders stop listing them.
pub(crate) fn prune(marks: &mut Marks, now: u64) {
    marks.retain(|s, m| !matches!(s, Stream::File(_)) || m.touched_at.saturating_add(FILE_MEMORY_NS) > now);
    prune_oldest(marks, FILES_MAX, |s| matches!(s, Stream::File(_)));
    prune_oldest(marks, OTHER_STREAMS_MAX, |s| matches!(s, Stream::Stack(_)));
    prune_oldest(marks, OTHER_STREAMS_MAX, |s| matches!(s, Stream::Journal(_)));
}

fn prune_oldest(marks: &mut Marks, max: usize, of: impl Fn(&Stream) -> bool) {
    let mut times: Vec<u64> = marks.iter().filter(|(s, _)| of(s)).map(|(_, m)| m.touched_at).collect();
    if times.len() <= max {
        return;
    }
    let mut excess = times.len() - max;
    times.sort_unstable();
    let limit = times[excess - 1];
    marks.retain(|s, m| {
        let goes = excess > 0 && of(s) && m.touched_at <= limit;
        excess -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::FileKey;

    fn registered() -> Registered {
        Registered {
            uid: 4,
            kind: "loki".into(),
            name: "a".into(),
            on_remove: OnRemove::Discard,
            registered_at: 5,
            cursor: Cursor { seq: 6, items: 7, bytes: 8, sent_upto: 9 },
            synced: None,
            configured: false,
        }
    }

    #[test]
    fn a_snapshot_reads_back_or_not_at_all() {
        let mut s = State { next_seq: 1, items: 2, bytes: 3, ..State::default() };
        s.destinations.insert(4, registered());
        let mark = Mark { ranges: vec![(0, 4), (9, 12)], touched_at: 8, text: "c".into() };
        s.marks.insert(Stream::Journal([3; 16]), mark);
        let b = s.snapshot();
        assert_eq!(State::read(&b), Some(s));
        for cut in 0..b.len() {
            assert_eq!(State::read(&b[..cut]), None);
        }
    }

    #[test]
    fn a_cursor_never_goes_back_and_a_tombstone_ends_it() {
        let mut s = State::default();
        let d = registered();
        assert!(s.replay_destination(&destination_payload(Op::Add, &d, (0, 0))));
        assert!(s.replay_cursor(&cursor_payload(4, &Cursor { seq: 10, ..Cursor::default() })));
        assert!(s.replay_cursor(&cursor_payload(4, &Cursor { seq: 8, ..Cursor::default() })));
        assert!(s.replay_destination(&destination_payload(
            Op::Change,
            &Registered { name: "b".into(), ..d.clone() },
            (0, 0)
        )));
        assert_eq!((s.destinations[&4].cursor.seq, s.destinations[&4].name.as_str()), (10, "b"));
        assert_eq!(s.destinations[&4].cursor.sent_upto, 9);
        assert!(s.replay_destination(&destination_payload(Op::Delete, &d, (1, 2))));
        assert!(s.destinations.is_empty());
    }

    #[test]
    fn files_long_unseen_are_forgotten_and_others_are_not() {
        let mut marks = Marks::new();
        for i in 0..FILES_MAX as u32 + 10 {
            let file = FileKey { id: [0; 16], generation: i };
            Seen { stream: Stream::File(file), from: 0, to: 1, at: 1000 + u64::from(i), text: String::new() }
                .apply(&mut marks);
        }
        Seen { stream: Stream::Stack([1; 16]), from: 0, to: 1, at: 0, text: String::new() }.apply(&mut marks);
        prune(&mut marks, 2000);
        assert_eq!(marks.len(), FILES_MAX + 1);
        assert!(!marks.contains_key(&Stream::File(FileKey { id: [0; 16], generation: 9 })));
        prune(&mut marks, u64::MAX);
        assert_eq!(marks.len(), 1);
    }
}
