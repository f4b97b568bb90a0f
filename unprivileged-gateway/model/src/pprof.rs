//! Profiles in pprof's own form: written from folded stacks, read back for the local view.
//!
//! A pprof is a shop's ledger kept by a miser: every name stands once in a list at the end, and all else is numbers that point
//! into it (proto `perftools.profiles.Profile`, github.com/google/pprof, `proto/profile.proto`). [`build`] walks the stacks of one
//! window and lays names, functions, places and mappings down the first time it meets them, one buffer a section; what would grow
//! beyond what Pyroscope takes begins a new ledger. [`read`] walks such a ledger and borrows its names.
//!
//! What the form has no field for stands where readers look anyway: the kind of a frame in its mapping (`[kernel]`, `[python]`), the
//! process and how its stack ended in numeric labels (`pid`, `end`), and the processes' names in comments (`process 4242 python3`).
//! A *text* label would be neater, but Pyroscope makes a series of each value.
//!
//! The weakness: the reader understands what the writer writes. Inlined lines beyond the first and further value types are passed over.

mod build;
mod read;

pub use build::{Limits, Location, Mapping, Piece, Shape, Stack, Tables, build};
pub use read::{Frame, PROFILE_BYTES_MAX, Profile, Sample, read};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    User,
    Kernel,
    Python,
    /// Not a frame but the place where a stack broke off; it stands outermost.
    Truncated,
}

/// The mapping of kernel frames.
pub const KERNEL: &str = "[kernel]";
/// The mapping of frames of Python code.
pub const PYTHON: &str = "[python]";
/// The name of a frame without one.
pub const UNKNOWN: &str = "[unknown]";
/// How the outermost frame of an incomplete stack begins; the reason and `]` follow.
pub const TRUNCATED: &str = "[truncated: ";
/// The numeric label of a sample's process.
const PID: &str = "pid";
/// The numeric label of how a sample's stack ended.
const END: &str = "end";
/// How a comment begins that names a process; its number, a blank and its name follow.
const PROCESS: &str = "process ";

/// Samples a second to the period between two, as every reader expects it: a whole number of nanoseconds, cut.
/// 97 Hz gives 10,309,278. None: no rate.
pub fn period_ns(hz: u32) -> Option<u64> {
    1_000_000_000u64.checked_div(hz.into())
}
