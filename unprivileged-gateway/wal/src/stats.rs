//! What the log tells about itself.

use crate::space::Pressure;
use crate::state::{Cursor, DestinationId};
use std::collections::BTreeMap;

/// What waits for a destination. Items are exact; bytes are payload bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Records inside the frames.
    pub items: u64,
    /// Payload bytes, as stored.
    pub bytes: u64,
    /// Unix nanoseconds; `None` when nothing waits. May name a frame up to 1 MiB of log earlier.
    pub oldest_appended_at: Option<u64>,
}

/// A registered destination, configured or not.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationStats {
    /// "kind/name".
    pub id: DestinationId,
    /// Whether the last `register` named it.
    pub configured: bool,
    /// When it was first registered, unix nanoseconds.
    pub registered_at: u64,
    /// How far it is, in memory.
    pub cursor: Cursor,
    /// What waits for it.
    pub waiting: Waiting,
    /// Segments that could be deleted but for this destination and others like it.
    pub holds_segments: usize,
}

/// A log at a glance.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Of all segment files.
    pub bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// The next frame's number.
    pub next_seq: u64,
    /// All frames below it are synced or refused.
    pub synced_seq: u64,
    /// Items of all synced frames, ever.
    pub items: u64,
    /// The oldest frame held.
    pub oldest_seq: u64,
    /// Why nothing is accepted.
    pub closed: Option<String>,
    /// Unreadable stretches by kind, since this start.
    pub damage: BTreeMap<&'static str, u64>,
    /// All registered destinations.
    pub destinations: Vec<DestinationStats>,
    /// How full.
    pub pressure: Pressure,
    /// Groups synced, segments begun, and segments deleted since this start.
    pub commits: u64,
    /// Segments begun since this start.
    pub rolls: u64,
    /// Segments deleted since this start.
    pub deleted: u64,
    /// Segments that failed a write or a sync since this start.
    pub failures: u64,
}
