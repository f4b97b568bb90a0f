//! The table of stacks: what one window of one label set looked like, with every text and place written once.
//!
//! Like a theatre programme: the cast is listed once and each scene names numbers. Strings, mappings and locations are
//! lists; a stack is a list of location numbers, leaf first. Everything is fixed-width little-endian, so the reader checks
//! lengths by arithmetic before it takes memory, then every number against the list it points into. The weakness: no varints
//! and no compression; a window is small, lives for seconds, and becomes gzip pprof on the other side.

use std::collections::HashMap;
use std::fmt;

/// First four bytes of a table.
const MAGIC: [u8; 4] = *b"BKS1";
/// Most strings in a table.
pub const STRINGS_MAX: usize = 262_144;
/// Most bytes of one string; longer ones are cut when written.
pub const STRING_BYTES_MAX: usize = 16 * 1024;
/// Most mappings in a table.
pub const MAPPINGS_MAX: usize = 65_536;
/// Most locations in a table.
pub const LOCATIONS_MAX: usize = 131_072;
/// Most stacks in a table.
pub const STACKS_MAX: usize = 131_072;
/// Most locations in one stack: 127 kernel, 127 native and a Python stack, with room.
pub const DEPTH_MAX: usize = 1024;

const MAPPING_BYTES: usize = 32;
const LOCATION_BYTES: usize = 25;
const STACK_BYTES_MIN: usize = 11;

/// Why a walk ended; the metric label is [`End::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum End {
    /// Walked to the thread's first frame.
    Complete = 0,
    /// The address lies in no known mapping.
    NoMapping = 1,
    /// The address lies in a mapping but in no row.
    Gap = 2,
    /// A row this walker cannot follow (an expression).
    Unsupported = 3,
    /// The stack could not be read.
    ReadFault = 4,
    /// More frames than there is room for.
    Depth = 5,
    /// A return address that cannot be one.
    BadPc = 6,
    /// Ended by following frame pointers.
    FramePointer = 7,
    /// No table for this file (yet).
    NoTable = 8,
    /// A kernel thread, or a task without user space.
    KernelOnly = 9,
}

impl End {
    /// All reasons, in the order of their numbers.
    pub const ALL: [End; 10] = [
        End::Complete,
        End::NoMapping,
        End::Gap,
        End::Unsupported,
        End::ReadFault,
        End::Depth,
        End::BadPc,
        End::FramePointer,
        End::NoTable,
        End::KernelOnly,
    ];

    /// Metric label.
    pub fn name(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::NoMapping => "no_mapping",
            End::Gap => "gap",
            End::Unsupported => "unsupported",
            End::ReadFault => "read_fault",
            End::Depth => "depth",
            End::BadPc => "bad_pc",
            End::FramePointer => "frame_pointer",
            End::NoTable => "no_table",
            End::KernelOnly => "kernel_only",
        }
    }

    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<End> {
        End::ALL.get(number as usize).copied()
    }
}

/// What a location is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Native user code.
    User = 0,
    /// Kernel code.
    Kernel = 1,
    /// A Python frame.
    Python = 2,
    /// Not a frame: the root of a stack that was cut, named `[truncated: REASON]`.
    Truncated = 3,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::User, Kind::Kernel, Kind::Python, Kind::Truncated];
}

/// A mapped file. Strings are numbers into [`Table::strings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub limit: u64,
    /// Offset in the file of `start`.
    pub offset: u64,
    /// String: path.
    pub file: u32,
    /// String: build id, hexadecimal, or 0.
    pub build_id: u32,
}

/// One place in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Address in the process (kernel: 0 where only the name is known).
    pub address: u64,
    /// Number of a mapping + 1, or 0.
    pub mapping: u32,
    /// String: function name, or 0.
    pub function: u32,
    /// String: source file, or 0.
    pub file: u32,
    /// Line, or 0.
    pub line: u32,
    /// What it is.
    pub kind: Kind,
}

/// One stack and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Position in [`crate::Stacks::processes`]; see [`Table::names_processes_below`].
    pub process: u32,
    /// Samples.
    pub count: u32,
    /// Why the walk ended.
    pub end: End,
    /// Numbers of locations, leaf first.
    pub locations: Vec<u32>,
}

/// A table. String 0 is the empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Texts.
    pub strings: Vec<String>,
    /// Mapped files.
    pub mappings: Vec<Mapping>,
    /// Places.
    pub locations: Vec<Location>,
    /// Stacks.
    pub stacks: Vec<Stack>,
}

impl Default for Table {
    fn default() -> Table {
        Table { strings: vec![String::new()], mappings: vec![], locations: vec![], stacks: vec![] }
    }
}

/// Why bytes are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not this layout.
    Magic,
    /// Ends in the middle of this part.
    Short(&'static str),
    /// More of these than the cap allows.
    TooMany { what: &'static str, count: u64, max: usize },
    /// A text that is not UTF-8, or a first text that is not empty.
    Text(u32),
    /// A number that points behind its list.
    Pointer { what: &'static str, at: u32, number: u32 },
    /// A number with no meaning (kind, end reason).
    Number { what: &'static str, number: u8 },
    /// Bytes behind the end.
    Trailing(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Magic => write!(f, "stack table does not start with \"BKS1\""),
            Malformed::Short(what) => write!(f, "stack table ends within its {what}"),
            Malformed::TooMany { what, count, max } => write!(f, "stack table with {count} {what}; at most {max}"),
            Malformed::Text(n) => write!(f, "string {n} of a stack table is not valid"),
            Malformed::Pointer { what, at, number } => write!(f, "{what} {number} of entry {at} does not exist"),
            Malformed::Number { what, number } => write!(f, "{number} is no {what}"),
            Malformed::Trailing(n) => write!(f, "{n} bytes behind a stack table"),
        }
    }
}

impl std::error::Error for Malformed {}

impl Table {
    /// The wire form. A table above the caps of this module encodes, and is refused by [`Table::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.strings.len() * 24 + self.locations.len() * LOCATION_BYTES);
        out.extend_from_slice(&MAGIC);
        for count in [self.strings.len(), self.mappings.len(), self.locations.len(), self.stacks.len()] {
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        for s in &self.strings {
            let cut = &s[..s.floor_char_boundary(STRING_BYTES_MAX)];
            out.extend_from_slice(&(cut.len() as u32).to_le_bytes());
            out.extend_from_slice(cut.as_bytes());
        }
        for m in &self.mappings {
            for word in [m.start, m.limit, m.offset] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            for word in [m.file, m.build_id] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        for l in &self.locations {
            out.extend_from_slice(&l.address.to_le_bytes());
            for word in [l.mapping, l.function, l.file, l.line] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.push(l.kind as u8);
        }
        for s in &self.stacks {
            out.extend_from_slice(&s.process.to_le_bytes());
            out.extend_from_slice(&s.count.to_le_bytes());
            out.push(s.end as u8);
            // Deeper than u16 is far above DEPTH_MAX: the reader refuses it either way.
            out.extend_from_slice(&u16::try_from(s.locations.len()).unwrap_or(u16::MAX).to_le_bytes());
            for l in &s.locations {
                out.extend_from_slice(&l.to_le_bytes());
            }
        }
        out
    }

    /// Reads the wire form; every number in the result points at something.
    pub fn decode(bytes: &[u8]) -> Result<Table, Malformed> {
        let mut r = Reader { rest: bytes };
        if r.take::<4>("magic")? != MAGIC {
            return Err(Malformed::Magic);
        }
        let strings = r.count("strings", STRINGS_MAX)?;
        let mappings = r.count("mappings", MAPPINGS_MAX)?;
        let locations = r.count("locations", LOCATIONS_MAX)?;
        let stacks = r.count("stacks", STACKS_MAX)?;
        let table = Table {
            strings: r.list("strings", strings, 4, Reader::string)?,
            mappings: r.list("mappings", mappings, MAPPING_BYTES, Reader::mapping)?,
            locations: r.list("locations", locations, LOCATION_BYTES, Reader::location)?,
            stacks: r.list("stacks", stacks, STACK_BYTES_MIN, Reader::stack)?,
        };
        if !r.rest.is_empty() {
            return Err(Malformed::Trailing(r.rest.len()));
        }
        table.check()?;
        Ok(table)
    }

    /// Whether every stack's process is below `count`, the length of the form's list.
    pub fn names_processes_below(&self, count: usize) -> bool {
        self.stacks.iter().all(|s| (s.process as usize) < count)
    }

    fn check(&self) -> Result<(), Malformed> {
        let text = |what, at: usize, number: u32| match self.strings.get(number as usize) {
            Some(_) => Ok(()),
            None => Err(Malformed::Pointer { what, at: at as u32, number }),
        };
        if self.strings.first().is_none_or(|s| !s.is_empty()) {
            return Err(Malformed::Text(0));
        }
        for (at, m) in self.mappings.iter().enumerate() {
            text("file of mapping", at, m.file)?;
            text("build id of mapping", at, m.build_id)?;
        }
        for (at, l) in self.locations.iter().enumerate() {
            text("function of location", at, l.function)?;
            text("file of location", at, l.file)?;
            if l.mapping as usize > self.mappings.len() {
                return Err(Malformed::Pointer { what: "mapping of location", at: at as u32, number: l.mapping });
            }
        }
        for (at, s) in self.stacks.iter().enumerate() {
            if let Some(&number) = s.locations.iter().find(|l| **l as usize >= self.locations.len()) {
                return Err(Malformed::Pointer { what: "location of stack", at: at as u32, number });
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (now, later) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(what))?;
        self.rest = later;
        Ok(*now)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.take::<4>(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.take::<8>(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Malformed> {
        let count = self.u32(what)?;
        if count as usize > max {
            return Err(Malformed::TooMany { what, count: u64::from(count), max });
        }
        Ok(count as usize)
    }

    /// `count` entries of at least `least` bytes each: memory is taken only if that many bytes are there.
    fn list<T>(
        &mut self,
        what: &'static str,
        count: usize,
        least: usize,
        mut one: impl FnMut(&mut Self, u32) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        if count.saturating_mul(least) > self.rest.len() {
            return Err(Malformed::Short(what));
        }
        (0..count as u32).map(|at| one(self, at)).collect()
    }

    fn string(&mut self, at: u32) -> Result<String, Malformed> {
        let len = self.count("bytes of a string", STRING_BYTES_MAX)?;
        let (now, later) = self.rest.split_at_checked(len).ok_or(Malformed::Short("strings"))?;
        self.rest = later;
        std::str::from_utf8(now).map(str::to_owned).map_err(|_| Malformed::Text(at))
    }

    fn mapping(&mut self, _: u32) -> Result<Mapping, Malformed> {
        const WHAT: &str = "mappings";
        Ok(Mapping {
            start: self.u64(WHAT)?,
            limit: self.u64(WHAT)?,
            offset: self.u64(WHAT)?,
            file: self.u32(WHAT)?,
            build_id: self.u32(WHAT)?,
        })
    }

    fn location(&mut self, _: u32) -> Result<Location, Malformed> {
        const WHAT: &str = "locations";
        let (address, mapping) = (self.u64(WHAT)?, self.u32(WHAT)?);
        let (function, file, line) = (self.u32(WHAT)?, self.u32(WHAT)?, self.u32(WHAT)?);
        let [number] = self.take::<1>(WHAT)?;
        let kind =
            Kind::ALL.get(number as usize).copied().ok_or(Malformed::Number { what: "location kind", number })?;
        Ok(Location { address, mapping, function, file, line, kind })
    }

    fn stack(&mut self, _: u32) -> Result<Stack, Malformed> {
        const WHAT: &str = "stacks";
        let (process, count) = (self.u32(WHAT)?, self.u32(WHAT)?);
        let [number] = self.take::<1>(WHAT)?;
        let end = End::from_number(number).ok_or(Malformed::Number { what: "end reason", number })?;
        let depth = usize::from(u16::from_le_bytes(self.take::<2>(WHAT)?));
        if depth > DEPTH_MAX {
            return Err(Malformed::TooMany { what: "locations in a stack", count: depth as u64, max: DEPTH_MAX });
        }
        let locations = self.list(WHAT, depth, 4, |r, _| r.u32(WHAT))?;
        Ok(Stack { process, count, end, locations })
    }
}

/// Gives each text one number; number 0 is the empty text.
#[derive(Debug)]
pub struct Strings {
    list: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings { list: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) }
    }
}

impl Strings {
    /// The number of `text`; 0 once the table is full ([`STRINGS_MAX`]).
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(&n) = self.numbers.get(text) {
            return n;
        }
        if self.list.len() >= STRINGS_MAX {
            return 0;
        }
        let n = self.list.len() as u32;
        self.list.push(text.to_owned());
        self.numbers.insert(text.to_owned(), n);
        n
    }

    /// The list for [`Table::strings`].
    pub fn into_list(self) -> Vec<String> {
        self.list
    }
}
