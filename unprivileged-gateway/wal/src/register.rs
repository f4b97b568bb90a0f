//! The list on the door, kept: who is entered, renamed, crossed off.
//!
//! Everything here is synced before it returns, and written twice. `from: now|oldest` is applied at the first entry and
//! never again; if any of the state was unreadable, an unknown destination starts at the oldest frame, because it may
//! not be unknown at all. The weakness: nobody is ever crossed off by silence; status names those who hold the store.

use crate::commit::{AbortOnPanic, CommitFailed, Committer};
use crate::log::{Inner, Log, lock};
use crate::record::kind;
use crate::state::{self, Cursor, Destination, DestinationId, From, OnRemove, Op, Registered};

/// What was given up with a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Records that had waited for it: dropped, by an operator's word.
    pub items: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

impl Log {
    /// Makes the list match the configuration, synced before it returns. Destinations that are no longer named stay
    /// registered, unless their last registration said `on_remove: discard`. Nothing is deleted before the first call.
    pub fn register(&self, wanted: &[Destination], now: u64) -> Result<(), CommitFailed> {
        let _guard = AbortOnPanic;
        let inner = &*self.0;
        let mut c = lock(&inner.committer);
        if c.dead.is_none() {
            inner.enter(&mut c, wanted, now);
            // Appended frames must not be passed over by a registration at "now": both go out in one group.
        }
        let written = inner.commit_locked(&mut c, now);
        if written.is_ok() {
            c.ready = true;
        }
        written.map(|_| ())
    }

    /// Crosses a destination off by hand. Unknown: nothing is forgotten.
    pub fn forget(&self, d: &DestinationId, now: u64) -> Result<Forgotten, CommitFailed> {
        let _guard = AbortOnPanic;
        let inner = &*self.0;
        let mut c = lock(&inner.committer);
        if let Some(why) = &c.dead {
            return Err(CommitFailed { log: inner.name.clone(), why: why.clone() });
        }
        let uid = lock(&inner.registry).find(d).map(|r| r.uid);
        let Some(uid) = uid else { return Ok(Forgotten::default()) };
        let forgotten = inner.cross_off(&mut c, uid);
        inner.commit_locked(&mut c, now).map(|_| forgotten)
    }
}

impl Inner {
    fn enter(&self, c: &mut Committer, wanted: &[Destination], now: u64) {
        let ids: Vec<DestinationId> = wanted.iter().map(Destination::id).collect();
        for d in wanted {
            let known = lock(&self.registry).find(&d.id()).map(|r| (r.uid, r.on_remove));
            let old = d.was.as_ref().map(|was| DestinationId::new(&d.kind, was)).filter(|old| !ids.contains(old));
            let renamed = old.and_then(|old| lock(&self.registry).find(&old).map(|r| r.uid));
            match (known, renamed) {
                (Some((uid, on_remove)), _) => {
                    if on_remove != d.on_remove {
                        self.change(c, uid, d);
                    }
                }
                (None, Some(uid)) => self.change(c, uid, d),
                (None, None) => self.add(c, d, now),
            }
        }
        let mut gone = Vec::new();
        for r in lock(&self.registry).by_uid.values_mut() {
            r.configured = ids.contains(&r.id());
            if !r.configured && r.on_remove == OnRemove::Discard {
                gone.push(r.uid);
            }
        }
        for uid in gone {
            self.cross_off(c, uid);
        }
    }

    fn add(&self, c: &mut Committer, d: &Destination, now: u64) {
        let cursor = if d.from == From::Oldest || c.oldest_for_all { self.oldest() } else { self.newest() };
        let new = Registered {
            uid: (c.nonce)(),
            kind: d.kind.clone(),
            name: d.name.clone(),
            on_remove: d.on_remove,
            registered_at: now,
            cursor,
            synced: None,
            configured: true,
        };
        note(c, Op::Add, &new, (0, 0));
        lock(&self.registry).by_uid.insert(new.uid, new);
    }

    /// A new name, or another `on_remove`, with the current cursor.
    fn change(&self, c: &mut Committer, uid: u64, d: &Destination) {
        if let Some(r) = lock(&self.registry).by_uid.get_mut(&uid) {
            (r.kind, r.name, r.on_remove) = (d.kind.clone(), d.name.clone(), d.on_remove);
            note(c, Op::Change, r, (0, 0));
        }
    }

    fn cross_off(&self, c: &mut Committer, uid: u64) -> Forgotten {
        let mut registry = lock(&self.registry);
        let Some(r) = registry.by_uid.remove(&uid) else { return Forgotten::default() };
        let waiting = lock(&self.shown).waiting(&r.cursor);
        note(c, Op::Delete, &r, (waiting.items, waiting.bytes));
        registry.leaving.push(r);
        Forgotten { items: waiting.items, bytes: waiting.bytes }
    }

    fn oldest(&self) -> Cursor {
        let shown = lock(&self.shown);
        let newest = shown.totals;
        shown
            .segments
            .iter()
            .find(|s| s.upper > s.first_seq)
            .map_or(Cursor { seq: newest.next_seq, items: newest.items, bytes: newest.bytes, sent_upto: 0 }, |s| {
                Cursor { seq: s.first_seq, items: s.items_before, bytes: s.bytes_before, sent_upto: 0 }
            })
    }

    fn newest(&self) -> Cursor {
        let t = lock(&self.intake).totals;
        Cursor { seq: t.next_seq, items: t.items, bytes: t.bytes, sent_upto: 0 }
    }
}

/// Twice: one bad sector must not make the log forget whom it keeps data for.
fn note(c: &mut Committer, op: Op, d: &Registered, dropped: (u64, u64)) {
    let payload = state::destination_payload(op, d, dropped);
    c.notes.push((kind::DESTINATION, payload.clone()));
    c.notes.push((kind::DESTINATION, payload));
}
