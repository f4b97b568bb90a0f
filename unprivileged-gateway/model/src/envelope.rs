//! What a WAL frame's payload looks like from the inside.

use serde::{Deserialize, Serialize};

/// What the raw bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    OtlpLogs = 1,
    OtlpTraces = 2,
    OtlpMetrics = 3,
    LogChunk = 4,
    Series = 5,
    Pprof = 6,
    Quarantined = 7,
}

/// What was known when the bytes came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Unix nanoseconds.
    pub received_at: u64,
    pub peer: String,
    /// Resource attributes known at receipt; they never overwrite what the sender wrote.
    pub enrichment: Vec<(String, String)>,
}
