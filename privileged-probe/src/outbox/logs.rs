//! The log bay: announcements, bytes and ends in the order in which they were handed over.
//!
//! Like a tape that is wound forward: what the other side has on disk falls off the front and changes `base`, the list of
//! files open at the tape's beginning; a new connection is told `base` and then the tape from its beginning. An end
//! ([`Closed`]) has no number of its own: it stays on the tape until bytes behind it are durable, so it may be told twice
//! and is never lost. The weakness: told twice is the reader's to bear.

use super::{LOG_BYTES_MAX, Parcel};
use ipc::{Closed, LOG_BULK_BYTES_MAX, LogBytes, LogCounts, Message, Opened, encode_head};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most announcements and ends kept on the tape behind which no bytes follow; the oldest go first.
pub(super) const EVENTS_MAX: usize = 4096;

#[derive(Debug)]
enum Entry {
    Opened(Opened),
    Bytes { seq: u64, file: u32, offset: u64, bytes: Arc<Vec<u8>> },
    Closed(Closed),
}

#[derive(Debug, Default)]
pub(super) struct LogQueue {
    /// Files open at the tape's beginning, each with the position from which its bytes follow.
    base: BTreeMap<u32, Opened>,
    tape: VecDeque<Entry>,
    /// What of `base` is still to be told on this connection.
    announce: VecDeque<u32>,
    /// Entries of the tape that were given on this connection.
    given: usize,
    connected: bool,
    /// Entries of the tape that are not bytes.
    events: usize,
    last_seq: u64,
    waiting: usize,
    sent: u64,
    safe: u64,
    durable: Vec<(u32, u64)>,
}

impl LogQueue {
    pub(super) fn opened(&mut self, opened: Opened) {
        self.event(Entry::Opened(opened));
    }

    pub(super) fn closed(&mut self, closed: Closed) {
        self.event(Entry::Closed(closed));
    }

    fn event(&mut self, entry: Entry) {
        self.tape.push_back(entry);
        self.events += 1;
        // Files that come and go without a byte would lengthen the tape for ever.
        while self.events > EVENTS_MAX
            && !matches!(self.tape.front(), Some(Entry::Bytes { .. }) | None)
            && (self.given > 0 || !self.connected)
        {
            self.drop_front();
        }
    }

    pub(super) fn has_room(&self, len: usize) -> bool {
        self.waiting == 0 || self.waiting + len <= LOG_BYTES_MAX
    }

    pub(super) fn bytes(&mut self, file: u32, offset: u64, bytes: Vec<u8>) {
        self.waiting += bytes.len();
        let mut offset = offset;
        let mut rest = bytes;
        while rest.len() > LOG_BULK_BYTES_MAX {
            let behind = rest.split_off(LOG_BULK_BYTES_MAX);
            self.piece(file, offset, rest);
            offset += LOG_BULK_BYTES_MAX as u64;
            rest = behind;
        }
        self.piece(file, offset, rest);
    }

    fn piece(&mut self, file: u32, offset: u64, bytes: Vec<u8>) {
        self.last_seq += 1;
        self.tape.push_back(Entry::Bytes { seq: self.last_seq, file, offset, bytes: Arc::new(bytes) });
    }

    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.given = 0;
        self.announce = self.base.keys().copied().collect();
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
    }

    pub(super) fn next(&mut self) -> Option<Parcel> {
        if !self.connected {
            return None;
        }
        while let Some(file) = self.announce.pop_front() {
            if let Some(opened) = self.base.get(&file)
                && let Some(parcel) = parcel(0, &Message::Opened(opened.clone()), None)
            {
                return Some(parcel);
            }
        }
        while let Some(entry) = self.tape.get(self.given) {
            self.given += 1;
            let parcel = match entry {
                Entry::Opened(o) => parcel(0, &Message::Opened(o.clone()), None),
                Entry::Closed(c) => parcel(0, &Message::Closed(c.clone()), None),
                Entry::Bytes { seq, file, offset, bytes } => {
                    self.sent += bytes.len() as u64;
                    let message = Message::LogBytes(LogBytes { file: *file, offset: *offset });
                    parcel(*seq, &message, Some(bytes))
                }
            };
            if parcel.is_some() {
                return parcel;
            }
        }
        None
    }

    /// Winds past everything up to `seq`; whether bytes became durable.
    pub(super) fn durable(&mut self, seq: u64) -> bool {
        let Some(last) = self.tape.iter().rposition(|e| matches!(e, Entry::Bytes { seq: s, .. } if *s <= seq)) else {
            return false;
        };
        for _ in 0..=last {
            self.drop_front();
        }
        true
    }

    fn drop_front(&mut self) {
        self.given = self.given.saturating_sub(1);
        match self.tape.pop_front() {
            None => {}
            Some(Entry::Opened(o)) => {
                self.events -= 1;
                self.base.insert(o.file, o);
            }
            Some(Entry::Closed(c)) => {
                self.events -= 1;
                self.base.remove(&c.file);
            }
            Some(Entry::Bytes { file, offset, bytes, .. }) => {
                let end = offset + bytes.len() as u64;
                self.waiting -= bytes.len();
                self.safe += bytes.len() as u64;
                if let Some(o) = self.base.get_mut(&file) {
                    o.position = end;
                }
                match self.durable.iter_mut().rfind(|(f, _)| *f == file) {
                    Some((_, e)) => *e = end,
                    None => self.durable.push((file, end)),
                }
            }
        }
    }

    pub(super) fn take_durable(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.durable)
    }

    pub(super) fn count(&self, counts: &mut LogCounts) {
        (counts.sent, counts.durable, counts.waiting) = (self.sent, self.safe, self.waiting as u64);
    }
}

/// `None`: a message above the caps of the door. A path that long cannot be opened in one call, so none comes here.
fn parcel(seq: u64, message: &Message, bulk: Option<&Arc<Vec<u8>>>) -> Option<Parcel> {
    let bulk = bulk.cloned().unwrap_or_default();
    match encode_head(seq, message, bulk.len()) {
        Ok(head) => Some(Parcel { head, bulk, number: message.index().map(|index| (index, seq)) }),
        Err(e) => {
            tracing::error!("a message for the gateway was left out: {e}; please report this");
            None
        }
    }
}
