//! The door between probe and gateway: frames out, sixteen-byte numbers in, nothing else.
//!
//! Like a pharmacy's night hatch: goods are passed out, and what comes back is a receipt of fixed size that no order fits
//! into. This crate holds the shapes of both ([`Frame`], [`Durable`]), the reader that takes foreign bytes apart
//! ([`Decoder`], without a socket, for a blocking and for a tokio client alike), the [`Judge`] of what comes back, and the
//! question who stands at the other end ([`peer`]). Drawn byte by byte in `docs/wire.md`. The weakness: one version; a
//! reader of version 1 refuses every other, so both ends of a node are updated together.

mod durable;
mod frame;
mod message;
pub mod peer;
pub mod stacks;
mod sys;

pub use durable::{DURABLE_BYTES, Durable, Judge, Lie};
pub use frame::{
    CONTROL_BYTES_MAX, CONTROL_DEPTH_MAX, Decoder, Frame, HEADER_BYTES, LOG_BULK_BYTES_MAX, Malformed,
    STACKS_BULK_BYTES_MAX, TooLarge, encode_head, write_frame,
};
pub use message::{
    Caps, Closed, Count, CpuCount, Feature, Hello, LogBytes, LogCounts, Message, Nursery, Opened, Process, Root,
    Stacks, Status,
};

/// Version of the door, in every frame header and in Hello.
pub const VERSION: u8 = 1;

/// The two numbered streams; each counts its frames from 1 per probe start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Index {
    /// [`LogBytes`] frames.
    Logs = 0,
    /// [`Stacks`] frames.
    Profiles = 1,
}

impl Index {
    /// All streams, in the order of their numbers.
    pub const ALL: [Index; 2] = [Index::Logs, Index::Profiles];

    /// The stream with this number.
    pub fn from_number(number: u32) -> Option<Index> {
        Index::ALL.get(number as usize).copied()
    }
}
