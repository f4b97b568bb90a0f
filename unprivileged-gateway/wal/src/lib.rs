//! A durable log of opaque frames: what was acknowledged is on the disk, and stays until everybody has taken it.
//!
//! One [`Log`] per signal in a locked [`Folder`], over a small [`Disk`] trait. The format is drawn in `docs/wire.md`;
//! why it is our own is ADR 0002. No clock, no randomness and no runtime of its own: time (unix nanoseconds), nonces
//! and threads come from outside.
//!
//! | to learn | read |
//! |---|---|
//! | how a frame gets in | [`log`](Log::append), `group`, `record` |
//! | when it may be acknowledged | `commit` ([`Synced`]) |
//! | who reads, how far | `register`, `state`, `reader`, `shown` |
//! | what a restart does | `recover`, `start` |
//! | where the room goes | `space`, `delete` |
//! | what lies in a folder nobody holds | [`inspect`] |
//! | how a reader finds its place sooner | [`Index`] |
#![forbid(unsafe_code)]

mod commit;
mod delete;
mod disk;
mod folder;
#[cfg(any(test, feature = "testing"))]
pub mod forgetful;
mod group;
mod index;
pub mod inspect;
mod log;
mod origin;
mod reader;
mod record;
mod recover;
mod register;
mod scan;
mod segment;
mod shown;
mod space;
mod start;
mod state;
mod stats;
mod wire;

pub use commit::{CommitFailed, Synced};
pub use disk::{Disk, DiskFile, RealDisk};
pub use folder::{Folder, FolderError, FolderOptions};
pub use index::{Index, NOTE_BYTES_MAX, SegmentSummary};
pub use log::{
    Appended, Log, LogOptions, NewFrame, OpenError, Outcome, PENDING_BYTES_MAX, Pending, ROLL_AGE_NS, Refused,
    TAIL_BYTES,
};
pub use origin::{FileKey, Mark, NodeId, Origin, Stream};
pub use reader::{Frame, ReadBatch, ReadError, Reader, Skipped, Why};
pub use record::{Codec, Epoch, PAYLOAD_BYTES_MAX};
pub use recover::{Recovery, SeqRange, StateFound};
pub use register::Forgotten;
pub use space::{Level, Pressure, QUARANTINE, Space};
pub use state::{Cursor, Destination, DestinationId, From, OnRemove};
pub use stats::{DestinationStats, Stats, Waiting};
