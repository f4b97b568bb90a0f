//! What the BPF programs and the probe say to each other, byte by byte.
//!
//! Image: the two halves of a torn banknote. This file is one half, `ebpf/programs/abi.h` the other; sizes and offsets are
//! asserted on both sides at compile time, and a test reads the numbers of the C side and compares them with these.
//!
//! Algorithm: plain numbers in the machine's own order, written and read by hand, so that no `unsafe` cast is needed and a short
//! or odd record from the ring is an answer (`None`), never a panic.
//!
//! Weakness: x86-64 only; another machine has other registers and needs other rows.

#![forbid(unsafe_code)]

/// Unwind rows of all files together; 8 bytes each, 32 MiB.
pub const ROWS_MAX: u32 = 1 << 22;
/// Executable mappings of one process.
pub const MAPPINGS_MAX: usize = 256;
/// Processes with tables at one time.
pub const PROCESSES_MAX: u32 = 4096;
/// Frames of a kernel stack (`kernel.perf_event_max_stack`).
pub const KERNEL_FRAMES_MAX: usize = 127;
/// Frames of a user stack.
pub const USER_FRAMES_MAX: usize = 127;
/// Kernel names kept at one time.
pub const KERNEL_NAMES_MAX: u32 = 16_384;
/// Bytes of a kernel name, zero-terminated.
pub const KERNEL_NAME_BYTES: usize = 64;

/// How the caller's frame is found (`enum row_kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// No rule is known here.
    Gap = 0,
    /// CFA = rsp + 8 * cfa.
    Rsp = 1,
    /// CFA = rbp + 8 * cfa.
    Rbp = 2,
    /// CFA = rsp + 8, or rsp + 16 when `(rip & 15) >= cfa`.
    Plt = 3,
    /// There is a rule, and it is beyond this table.
    Unsupported = 4,
    /// The kernel's signal frame.
    Signal = 5,
    /// CFA = *(rbp + 8 * cfa).
    RbpDeref = 6,
    /// Outermost frame.
    End = 7,
    /// CFA = *(rsp + 8 * cfa) + 8.
    RspDeref = 8,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 9] = [
        Kind::Gap,
        Kind::Rsp,
        Kind::Rbp,
        Kind::Plt,
        Kind::Unsupported,
        Kind::Signal,
        Kind::RbpDeref,
        Kind::End,
        Kind::RspDeref,
    ];
}

/// First of [`FAR_STEPS`] kinds for frames beyond 256 KiB: CFA = rsp + 8 * ((kind - [`RSP_FAR`]) * [`FAR_STEP`] + cfa).
pub const RSP_FAR: u8 = 16;
/// Units of 8 bytes from one such kind to the next.
pub const FAR_STEP: i64 = 32_768;
/// How many such kinds there are: frames up to 4 MiB.
pub const FAR_STEPS: u8 = 16;

/// `Row::rbp`: the caller's rbp lies where rbp points.
pub const RBP_AT_RBP: u8 = 254;
/// `Row::rbp`: the caller's rbp cannot be found by this table.
pub const RBP_LOST: u8 = 255;

/// One rule of the unwind table, valid from `pc` up to the next row's `pc`.
///
/// Shape: 8 bytes. Units: `pc` is a virtual address as in the ELF file; `cfa` counts 8 bytes; the caller's rbp lies at
/// CFA - 8 * `rbp` (0: unchanged).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Row {
    /// First address the rule is valid for.
    pub pc: u32,
    /// Offset of the canonical frame address.
    pub cfa: i16,
    /// A [`Kind`] as a number.
    pub kind: u8,
    /// Where the caller's rbp lies.
    pub rbp: u8,
}

impl Row {
    /// Bytes of a row.
    pub const BYTES: usize = 8;

    /// Whether the kernel's walker knows this kind.
    pub fn kind_is_known(self) -> bool {
        usize::from(self.kind) < Kind::ALL.len() || (RSP_FAR..RSP_FAR + FAR_STEPS).contains(&self.kind)
    }

    /// The row as the kernel reads it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = self.pc.to_ne_bytes();
        let [e, f] = self.cfa.to_ne_bytes();
        [a, b, c, d, e, f, self.kind, self.rbp]
    }

    /// The inverse of [`Row::to_bytes`].
    pub fn from_bytes(b: [u8; Self::BYTES]) -> Self {
        let [p, q, r, s, t, u, kind, rbp] = b;
        Self { pc: u32::from_ne_bytes([p, q, r, s]), cfa: i16::from_ne_bytes([t, u]), kind, rbp }
    }
}

/// One executable mapping of a process; addresses in bytes, rows as indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Run-time address minus ELF virtual address.
    pub bias: u64,
    /// Where the file's rows begin in the table.
    pub first_row: u32,
    /// How many there are; 0: none.
    pub rows: u32,
}

/// Bytes of `struct process`.
pub const PROCESS_BYTES: usize = 16 + 32 * MAPPINGS_MAX;

/// `struct process` as bytes: the address space it describes and its mappings, which must be sorted.
///
/// Mappings past [`MAPPINGS_MAX`] are left out; the caller counts them.
pub fn process_bytes(space: u64, mappings: &[Mapping]) -> Box<[u8; PROCESS_BYTES]> {
    let mut bytes = Vec::with_capacity(PROCESS_BYTES);
    let used = &mappings[..mappings.len().min(MAPPINGS_MAX)];
    bytes.extend_from_slice(&space.to_ne_bytes());
    bytes.extend_from_slice(&(used.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for m in used {
        bytes.extend_from_slice(&m.start.to_ne_bytes());
        bytes.extend_from_slice(&m.end.to_ne_bytes());
        bytes.extend_from_slice(&m.bias.to_ne_bytes());
        bytes.extend_from_slice(&m.first_row.to_ne_bytes());
        bytes.extend_from_slice(&m.rows.to_ne_bytes());
    }
    bytes.resize(PROCESS_BYTES, 0);
    match bytes.into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => Box::new([0; PROCESS_BYTES]),
    }
}

/// Bytes of a sample before its frames.
pub const HEADER_BYTES: usize = 64;

/// The head of a sample, as the ring carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Changes at exec and when the pid is reused; 0 for kernel threads.
    pub space: u64,
    /// Inode of the version 2 cgroup folder.
    pub cgroup: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Where it ran.
    pub cpu: u32,
    /// Kernel frames; they come first, leaf first.
    pub kernel_frames: u16,
    /// User frames; they follow, leaf first.
    pub user_frames: u16,
    /// Why the walk ended, as a number (`enum end`).
    pub end: u16,
    /// Frames stepped over by frame pointer.
    pub gaps: u16,
    /// Name of the process.
    pub comm: [u8; 16],
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl Header {
    /// Reads a record of the ring: its head, and its frames as bytes of 8 each.
    ///
    /// Errors: `None` when the record is shorter than its own counts say, or the counts are beyond the limits above.
    pub fn parse(record: &[u8]) -> Option<(Header, &[u8])> {
        let header = Header {
            tgid: u32::from_ne_bytes(word(record, 0)?),
            tid: u32::from_ne_bytes(word(record, 4)?),
            space: u64::from_ne_bytes(word(record, 8)?),
            cgroup: u64::from_ne_bytes(word(record, 16)?),
            time_ns: u64::from_ne_bytes(word(record, 24)?),
            cpu: u32::from_ne_bytes(word(record, 32)?),
            kernel_frames: u16::from_ne_bytes(word(record, 36)?),
            user_frames: u16::from_ne_bytes(word(record, 38)?),
            end: u16::from_ne_bytes(word(record, 40)?),
            gaps: u16::from_ne_bytes(word(record, 42)?),
            comm: word(record, 48)?,
        };
        let (kernel, user) = (usize::from(header.kernel_frames), usize::from(header.user_frames));
        if kernel > KERNEL_FRAMES_MAX || user > USER_FRAMES_MAX + KERNEL_FRAMES_MAX {
            return None;
        }
        Some((header, record.get(HEADER_BYTES..HEADER_BYTES + (kernel + user) * 8)?))
    }
}

/// Indices of the per-CPU counters (`enum counter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Times the clock fired, idle included.
    Runs = 0,
    /// Of those, in the idle task.
    Idle = 1,
    /// Of those, skipped because fewer were asked for.
    Thinned = 2,
    /// Of those, put into the ring.
    Sent = 3,
    /// Of those, refused by a full ring.
    Lost = 4,
}

/// Index of the control cell: 1 keeps every sample, 5 one in five, 0 none.
pub const CONTROL_KEEP_ONE_OF: u32 = 0;

const _: () = assert!(size_of::<Row>() == Row::BYTES && align_of::<Row>() == 4);
const _: () = assert!(size_of::<Mapping>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    /// The C side as text.
    fn c_side() -> &'static str {
        include_str!("../../programs/abi.h")
    }

    fn defined(name: &str) -> String {
        let line = c_side().lines().find(|l| l.starts_with(&format!("#define {name} "))).expect(name);
        line.split_whitespace().nth(2).expect("a value").to_owned()
    }

    fn enumerated(name: &str) -> u64 {
        let line = c_side().lines().find(|l| l.trim().starts_with(&format!("{name} = "))).expect(name);
        line.split('=').nth(1).expect("a value").split(',').next().expect("one").trim().parse().expect("a number")
    }

    #[test]
    fn the_limits_of_both_sides_are_equal() {
        assert_eq!(defined("ROWS_MAX"), "(1u");
        assert!(c_side().contains("#define ROWS_MAX (1u << 22)"));
        assert_eq!(ROWS_MAX, 1 << 22);
        for (name, value) in [
            ("MAPPINGS_MAX", MAPPINGS_MAX as u64),
            ("PROCESSES_MAX", u64::from(PROCESSES_MAX)),
            ("KERNEL_FRAMES_MAX", KERNEL_FRAMES_MAX as u64),
            ("USER_FRAMES_MAX", USER_FRAMES_MAX as u64),
            ("KERNEL_NAMES_MAX", u64::from(KERNEL_NAMES_MAX)),
            ("KERNEL_NAME_BYTES", KERNEL_NAME_BYTES as u64),
        ] {
            assert_eq!(defined(name), value.to_string(), "{name}");
        }
    }

    #[test]
    fn the_kinds_and_counters_of_both_sides_are_equal() {
        for (name, kind) in [
            ("ROW_GAP", Kind::Gap),
            ("ROW_RSP", Kind::Rsp),
            ("ROW_RBP", Kind::Rbp),
            ("ROW_PLT", Kind::Plt),
            ("ROW_UNSUPPORTED", Kind::Unsupported),
            ("ROW_SIGNAL", Kind::Signal),
            ("ROW_RBP_DEREF", Kind::RbpDeref),
            ("ROW_END", Kind::End),
            ("ROW_RSP_DEREF", Kind::RspDeref),
        ] {
            assert_eq!(enumerated(name), kind as u64, "{name}");
        }
        for (name, counter) in [
            ("COUNT_RUNS", Counter::Runs),
            ("COUNT_IDLE", Counter::Idle),
            ("COUNT_THINNED", Counter::Thinned),
            ("COUNT_SENT", Counter::Sent),
            ("COUNT_LOST", Counter::Lost),
        ] {
            assert_eq!(enumerated(name), counter as u64, "{name}");
        }
        assert_eq!(enumerated("ROW_RSP_FAR"), u64::from(RSP_FAR));
        assert_eq!((defined("FAR_STEP"), defined("FAR_STEPS")), (FAR_STEP.to_string(), FAR_STEPS.to_string()));
        assert_eq!(enumerated("RBP_AT_RBP"), u64::from(RBP_AT_RBP));
        assert_eq!(enumerated("RBP_LOST"), u64::from(RBP_LOST));
    }

    #[test]
    fn a_row_survives_its_bytes() {
        let row = Row { pc: 0xdead_beef, cfa: -3, kind: Kind::Rbp as u8, rbp: 2 };
        assert_eq!(Row::from_bytes(row.to_bytes()), row);
    }

    #[test]
    fn a_record_that_is_shorter_than_its_counts_is_refused() {
        let mut record = vec![0u8; HEADER_BYTES + 3 * 8];
        record[36] = 1;
        record[38] = 2;
        let (header, frames) = Header::parse(&record).expect("a whole record");
        assert_eq!((header.kernel_frames, header.user_frames, frames.len()), (1, 2, 24));
        for cut in 0..record.len() {
            assert!(Header::parse(&record[..cut]).is_none(), "{cut} bytes");
        }
        record[37] = 0xff;
        assert!(Header::parse(&record).is_none(), "more kernel frames than there can be");
    }

    #[test]
    fn mappings_beyond_the_limit_are_left_out() {
        let many = vec![Mapping { start: 1, end: 2, bias: 3, first_row: 4, rows: 5 }; MAPPINGS_MAX + 10];
        let bytes = process_bytes(7, &many);
        assert_eq!(bytes[8..12], (MAPPINGS_MAX as u32).to_ne_bytes());
        assert_eq!(bytes[..8], 7u64.to_ne_bytes());
    }
}
