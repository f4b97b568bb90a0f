#![forbid(unsafe_code)]
//! Pure codecs: bytes in, bytes out. No socket, no clock, no disk, no task.
//!
//! A customs office with glass walls. Parcels (OTLP requests) are looked into, weighed and relabelled, but never
//! unpacked: every codec here walks the bytes where they lie and writes the next form straight from them (ADR 0008).
//!
//! The weakness of glass: a reader must know the layout of each message by number, and nothing but tests against a
//! generated decoder proves that it does. Those tests are half of this crate.

pub mod chunk;
pub mod cri;
pub mod envelope;
pub mod loki;
pub mod otlp;
pub mod pprof;
pub mod prometheus_name;
pub mod series;
pub mod wire;

/// Why foreign bytes could not be read. Nothing was changed and nothing was kept: whoever sent them still holds them.
///
/// Shape: the kind of thing that was being read, what is wrong with it, and the byte (counted from the start of what was
/// handed in) where reading stopped. Likely culprit: the sender, or damage that a checksum above should have caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {what} (at byte {at})")]
pub struct Malformed {
    pub part: &'static str,
    pub what: &'static str,
    pub at: usize,
}
