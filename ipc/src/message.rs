//! What the probe says: six kinds of message, each one MessagePack map with named fields.
//!
//! Like the form on a parcel: few fields, each with a name, so that an older reader can pass over a box it does not know.
//! Bulk (file bytes, stack tables) is never in the form; it follows behind it. The weakness: names cost bytes; at one form
//! for up to a megabyte of bulk that is nothing.

use crate::Index;
use serde::{Deserialize, Serialize};

/// One message of the probe. Numbers of the kinds are part of the wire format.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// First on every connection.
    Hello(Hello),
    /// Before the bytes of a file, and again on every new connection while it is open.
    Opened(Opened),
    /// Bytes of a file; numbered.
    LogBytes(LogBytes),
    /// A file's end.
    Closed(Closed),
    /// One window's stacks of one label set; numbered.
    Stacks(Stacks),
    /// Each second, and once after Hello.
    Status(Box<Status>),
}

impl Message {
    /// The kind's number in the frame header.
    pub fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Opened(_) => 2,
            Message::LogBytes(_) => 3,
            Message::Closed(_) => 4,
            Message::Stacks(_) => 5,
            Message::Status(_) => 6,
        }
    }

    /// The stream this message is numbered in; `None` for unnumbered kinds.
    pub fn index(&self) -> Option<Index> {
        match self {
            Message::LogBytes(_) => Some(Index::Logs),
            Message::Stacks(_) => Some(Index::Profiles),
            _ => None,
        }
    }
}

/// Who speaks. `start` is random per probe start; numbers of frames belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u8,
    /// Random per start of the probe.
    pub start: [u8; 16],
    /// The kernel's boot id.
    pub boot: String,
    /// Host name.
    pub host: String,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Samples a second and CPU that were asked for.
    pub hz: u32,
    /// What is on, what is off, and why.
    pub features: Vec<Feature>,
}

/// One ability of the probe on this machine: `cpu`, `tables`, `kernel_names`, `logs`, ...
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Short name.
    pub name: String,
    /// Whether it works.
    pub on: bool,
    /// Why it is off and what would turn it on; empty when it is on.
    pub reason: String,
}

/// Where a file was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Root {
    /// A pod log root; the path below it names namespace, pod and container.
    Pods,
    /// A `NAME=GLOB` given to the probe.
    Files {
        /// The NAME.
        name: String,
    },
}

/// A file is open and its bytes follow under the number `file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Number of the file in this probe start; a number is used for one file only.
    pub file: u32,
    /// Where it was found.
    pub root: Root,
    /// Raw path bytes: relative to the root for pods, absolute for files. May hold invalid UTF-8 and newlines.
    pub path: Vec<u8>,
    /// Identity: 128 bits of hash over device, inode, birth time and first line.
    pub id: [u8; 16],
    /// Raised when the file became shorter than its position or its head changed.
    pub generation: u32,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length when it was opened, bytes.
    pub length: u64,
    /// Offset of the first byte that will follow.
    pub position: u64,
    /// The name says that the file was rotated away already.
    pub rotated: bool,
}

/// Bytes of a file from `offset` on (the bulk), cut after the last newline, or a piece of a longer line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBytes {
    /// As announced by [`Opened`].
    pub file: u32,
    /// Offset of the first byte in the file.
    pub offset: u64,
}

/// All bytes up to `end` were sent and no more will come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// As announced by [`Opened`].
    pub file: u32,
    /// End of what was sent, bytes from the file's start.
    pub end: u64,
    /// `deleted`, `rotated`, `truncated`, `evicted`, ...
    pub reason: String,
}

/// The stacks of one label set and window; the table is the bulk ([`crate::stacks`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacks {
    /// Window's begin, unix nanoseconds.
    pub from_ns: u64,
    /// Window's end, unix nanoseconds.
    pub to_ns: u64,
    /// Samples a second and CPU in this window.
    pub hz: u32,
    /// Command name, where there is no container.
    pub comm: String,
    /// Container id, 64 hexadecimal digits, or empty.
    pub container: String,
    /// Pod uid, or empty.
    pub pod_uid: String,
    /// Control group path.
    pub cgroup: String,
    /// Processes that the table's stacks refer to by position.
    pub processes: Vec<Process>,
    /// Sum of all counts.
    pub samples: u64,
}

/// One process of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the probe's pid namespace.
    pub tgid: u32,
    /// Command name.
    pub comm: String,
}

/// A named number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Name, usable as a metric label.
    pub name: String,
    /// Since the probe's start.
    pub value: u64,
}

/// Samples of one CPU since the probe's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCount {
    /// Number of the CPU.
    pub cpu: u32,
    /// Samples taken.
    pub samples: u64,
}

/// Log bytes and files. Bytes count since the probe's start; `waiting`, `files_open` and `files_known` are of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCounts {
    /// Bytes read from files.
    pub read: u64,
    /// Bytes written to the door, repetitions included.
    pub sent: u64,
    /// Bytes whose number returned.
    pub durable: u64,
    /// Bytes read and not yet durable.
    pub waiting: u64,
    /// Files open.
    pub files_open: u64,
    /// Files with a remembered position.
    pub files_known: u64,
}

/// Capability sets as bit masks, read back from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// What may be used now.
    pub effective: u64,
    /// What may be raised.
    pub permitted: u64,
    /// What crosses an exec with file capabilities.
    pub inheritable: u64,
    /// What crosses any exec.
    pub ambient: u64,
    /// What can ever be gained.
    pub bounding: u64,
}

/// The nursery and its parsers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nursery {
    /// Whether the nursery answers.
    pub alive: bool,
    /// Parsers started.
    pub parsers_run: u64,
    /// Parsers that found nothing usable.
    pub failed: u64,
    /// Parsers ended for time, memory or a forbidden call.
    pub killed: u64,
}

/// The probe's own numbers. Counters are since the probe's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// When this was written, unix nanoseconds.
    pub at_ns: u64,
    /// Samples a second and CPU at this moment (thinned under pressure).
    pub hz_now: u32,
    /// Samples by CPU.
    pub cpus: Vec<CpuCount>,
    /// Samples lost, by cause.
    pub lost: Vec<Count>,
    /// Stacks by end reason.
    pub ends: Vec<Count>,
    /// Log bytes and files.
    pub log: LogCounts,
    /// Files not opened, by reason.
    pub files_refused: Vec<Count>,
    /// Log bytes nobody will read, by reason.
    pub log_dropped: Vec<Count>,
    /// Capabilities, read back.
    pub caps: Caps,
    /// `no_new_privs`, read back.
    pub no_new_privs: bool,
    /// Seccomp mode, read back: 0 off, 2 filter.
    pub seccomp: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// What was tried after the drop, and whether the kernel refused it.
    pub dropped_proof: Vec<(String, bool)>,
    /// The nursery.
    pub nursery: Nursery,
    /// Unwind rows in use.
    pub rows_used: u64,
    /// Unwind rows there is room for.
    pub rows_max: u64,
    /// Processes known to the profiler.
    pub processes: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// CPU time of the probe, ns.
    pub cpu_ns: u64,
    /// CPU time of its BPF programs, ns; 0: unknown.
    pub bpf_ns: u64,
    /// Bytes in the stacks ring of the door.
    pub ring_bytes: u64,
    /// Its size, bytes.
    pub ring_max: u64,
    /// Samples that left the stacks ring before their number returned.
    pub stacks_dropped: u64,
}
