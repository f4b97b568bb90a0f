//! The stacks bay: a ring of fixed bytes in which the oldest makes room.
//!
//! Like a dash camera: it never stops recording, and what was not saved in time is overwritten, counted. Entries leave when
//! their number returns or when room is needed, whichever comes first. The weakness: an entry that was sent and then made
//! room counts as dropped although the gateway may have it: the count is an upper bound.

use super::{Parcel, RING_BYTES_MAX};
use ipc::{Index, Message, Stacks, encode_head};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
struct Entry {
    seq: u64,
    head: Vec<u8>,
    bulk: Arc<Vec<u8>>,
    samples: u64,
}

impl Entry {
    fn size(&self) -> usize {
        self.head.len() + self.bulk.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    last_seq: u64,
    /// Highest number given on this connection.
    given: u64,
    connected: bool,
    dropped: u64,
}

impl Ring {
    pub(super) fn push(&mut self, stacks: Stacks, bulk: Vec<u8>) {
        let samples = stacks.samples;
        let seq = self.last_seq + 1;
        let head = match encode_head(seq, &Message::Stacks(stacks), bulk.len()) {
            Ok(head) => head,
            Err(e) => {
                tracing::warn!("{samples} samples of one window do not fit into a frame and are dropped: {e}");
                self.dropped += samples;
                return;
            }
        };
        self.last_seq = seq;
        let entry = Entry { seq, head, bulk: Arc::new(bulk), samples };
        while self.bytes + entry.size() > RING_BYTES_MAX {
            match self.pop() {
                Some(old) => self.dropped += old.samples,
                None => break,
            }
        }
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.size();
        Some(entry)
    }

    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.given = 0;
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
    }

    pub(super) fn next(&mut self) -> Option<Parcel> {
        if !self.connected {
            return None;
        }
        let at = self.entries.partition_point(|e| e.seq <= self.given);
        let e = self.entries.get(at)?;
        self.given = e.seq;
        Some(Parcel { head: e.head.clone(), bulk: e.bulk.clone(), number: Some((Index::Profiles, e.seq)) })
    }

    pub(super) fn durable(&mut self, seq: u64) {
        while self.entries.front().is_some_and(|e| e.seq <= seq) {
            self.pop();
        }
    }

    pub(super) fn fill(&self) -> f64 {
        self.bytes as f64 / RING_BYTES_MAX as f64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
