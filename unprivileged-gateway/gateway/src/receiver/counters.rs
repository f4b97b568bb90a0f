//! What a door reports about itself.
//!
//! Like the turnstile's counter: the receivers call, whoever keeps the numbers implements. Labels are from closed sets; nothing
//! that a client wrote ever becomes a label. Weakness: one call each event, so implementations must be cheap (atomics).

use crate::seam::{Signal, Source};
use crate::telemetry::Telemetry;
use std::time::Duration;

/// Reasons for which a request is refused; the label `reason`. The intake adds its own.
pub mod reason {
    /// Not what its content type says: undecodable protobuf or JSON, a broken frame, a bad compressed stream.
    pub const MALFORMED: &str = "malformed";
    /// Over `max_request`, before or after decompression, or over the compression ratio.
    pub const TOO_LARGE: &str = "too_large";
    /// Unknown content type, compression, method or path.
    pub const UNSUPPORTED: &str = "unsupported";
    /// Nobody takes this signal.
    pub const UNSERVED: &str = "unserved";
    /// Credential missing or wrong.
    pub const AUTH: &str = "auth";
    /// A browser from a foreign page.
    pub const ORIGIN: &str = "origin";
    /// No room in the memory budget in time.
    pub const BUDGET: &str = "budget";
    /// The body came too slowly or broke off.
    pub const SLOW: &str = "slow";

    pub const ALL: [&str; 8] = [MALFORMED, TOO_LARGE, UNSUPPORTED, UNSERVED, AUTH, ORIGIN, BUDGET, SLOW];
}

/// One finished call.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub source: Source,
    /// Absent when the path names no signal.
    pub signal: Option<Signal>,
    /// gRPC status code (0 to 16) or HTTP status (200 to 599).
    pub code: u16,
    pub took: Duration,
    /// Body bytes as they came over the wire, before decompression.
    pub wire_bytes: u64,
}

/// Where the receivers count.
pub trait Counters: Send + Sync + 'static {
    /// A connection opened (+1) or closed (-1).
    fn connections(&self, source: Source, change: i64);
    /// A connection that was turned away at the cap or failed its handshake.
    fn turned_away(&self, source: Source, why: &'static str);
    /// Records that are safe on the disk; `bytes` of protobuf after decompression.
    fn accepted(&self, source: Source, signal: Signal, records: u32, bytes: u64);
    /// A refused request; `records` is 1 when it was refused before they could be counted.
    fn refused(&self, source: Source, signal: Option<Signal>, reason: &'static str, records: u32);
    fn answered(&self, call: Answered);
}

impl Counters for Telemetry {
    // Connections have no family of their own yet; the log line of a refused one is written where it is refused.
    fn connections(&self, _: Source, _: i64) {}
    fn turned_away(&self, _: Source, _: &'static str) {}

    fn accepted(&self, source: Source, signal: Signal, records: u32, bytes: u64) {
        Telemetry::accepted(self, source, signal, u64::from(records), bytes);
    }

    fn refused(&self, source: Source, signal: Option<Signal>, reason: &'static str, records: u32) {
        // A path that names no signal is nobody's records.
        if let Some(signal) = signal {
            Telemetry::refused(self, source, signal, reason, u64::from(records));
        }
    }

    fn answered(&self, call: Answered) {
        if let Some(signal) = call.signal {
            self.call(call.source, signal, &call.code.to_string(), call.took.as_secs_f64());
        }
    }
}

/// Counts nothing; for tests and tools.
pub struct Uncounted;

impl Counters for Uncounted {
    fn connections(&self, _: Source, _: i64) {}
    fn turned_away(&self, _: Source, _: &'static str) {}
    fn accepted(&self, _: Source, _: Signal, _: u32, _: u64) {}
    fn refused(&self, _: Source, _: Option<Signal>, _: &'static str, _: u32) {}
    fn answered(&self, _: Answered) {}
}
