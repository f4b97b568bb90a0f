//! Folded stacks to pprof.

use super::{END, KERNEL, Kind, PID, PROCESS, PYTHON, TRUNCATED, UNKNOWN};
use crate::Malformed;
use crate::wire::{put_bytes, put_varint, varint_len};
use std::collections::HashMap;

/// A mapped file of a process, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub limit: u64,
    pub offset: u64,
    /// Its path, an index into the strings.
    pub file: u32,
    /// Hexadecimal, an index into the strings.
    pub build_id: u32,
}

/// A place in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub address: u64,
    /// 1 + an index into the mappings; 0: none.
    pub mapping: u32,
    /// Its name, an index into the strings; 0: unknown.
    pub function: u32,
    /// Source file, an index into the strings; 0: unknown.
    pub file: u32,
    /// Line in it; 0: unknown.
    pub line: u32,
    pub kind: Kind,
}

/// What the stacks point into. String 0 is empty.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    pub strings: &'a [&'a str],
    pub mappings: &'a [Mapping],
    pub locations: &'a [Location],
}

/// One distinct stack and how often it was met.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    pub pid: u32,
    pub count: u64,
    /// How it ended, in the writer's own numbers; 0 (complete) is not written.
    pub end: u32,
    /// Indices into the locations, innermost first.
    pub locations: &'a [u32],
}

/// What holds for the whole window.
#[derive(Clone, Debug, Default)]
pub struct Shape<'a> {
    /// Unix nanoseconds.
    pub time_ns: u64,
    pub duration_ns: u64,
    /// See [`super::period_ns`].
    pub period_ns: u64,
    /// Number and name of each process.
    pub processes: Vec<(u32, &'a str)>,
}

/// What one profile may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Distinct stacks.
    pub samples: usize,
    /// Of the profile before compression. A stack that is larger alone makes a profile that is.
    pub bytes: usize,
}

impl Default for Limits {
    /// What Pyroscope takes unless it is told otherwise: 16,000 samples and 4 MiB.
    fn default() -> Limits {
        Limits { samples: 16_000, bytes: 4 << 20 }
    }
}

/// One pprof, not compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub pprof: Vec<u8>,
    /// How often its stacks were met, all together.
    pub samples: u64,
}

/// What a string takes beyond its bytes: key and length.
const STRING_OVERHEAD_BYTES: usize = 6;
/// The most that a location takes with its line, its function and its mapping, without names. Unit: bytes.
const LOCATION_BYTES_MAX: usize = 128;
/// The most that a sample takes beyond its list of locations. Unit: bytes.
const SAMPLE_BYTES_MAX: usize = 64;
/// A location's number in a sample. Unit: bytes.
const LOCATION_ID_BYTES_MAX: usize = 5;

/// The stacks of one window as pprofs: normally one, more where one would be too large; none if there is no stack.
///
/// Shape: one sample a stack, in the order given; sample and period type `cpu`/`nanoseconds`, value = count x period.
/// Errors: an index points nowhere, or the period is 0: a fault of whoever made the tables.
pub fn build<'a>(
    shape: &Shape<'_>,
    tables: Tables<'_>,
    stacks: impl IntoIterator<Item = Stack<'a>>,
    limits: Limits,
) -> Result<Vec<Piece>, Malformed> {
    if shape.period_ns == 0 {
        return Err(bad("the period is 0", 0));
    }
    let mut pieces = Vec::new();
    let mut open = Ledger::new(shape, tables);
    for (at, stack) in stacks.into_iter().enumerate() {
        let full = open.stacks >= limits.samples || open.bytes() + open.cost(&stack, at)? > limits.bytes;
        if full && open.stacks > 0 {
            pieces.push(std::mem::replace(&mut open, Ledger::new(shape, tables)).close());
        }
        open.add(&stack, at)?;
    }
    if open.stacks > 0 {
        pieces.push(open.close());
    }
    Ok(pieces)
}

fn bad(what: &'static str, at: usize) -> Malformed {
    Malformed { part: "stacks", what, at }
}

/// One pprof while it is written: a buffer a section, because a name is met in the middle of a sample.
struct Ledger<'a> {
    tables: Tables<'a>,
    period_ns: u64,
    head: Vec<u8>,
    samples: Vec<u8>,
    mappings: Vec<u8>,
    locations: Vec<u8>,
    functions: Vec<u8>,
    strings: Vec<u8>,
    next_string: u64,
    next_mapping: u64,
    next_location: u64,
    /// Number in this pprof by index in the tables; 0: not met yet.
    string_ids: Vec<u64>,
    mapping_ids: Vec<u64>,
    location_ids: Vec<u64>,
    function_ids: HashMap<(u64, u64), u64>,
    /// Names that are ours, not the tables'.
    own: HashMap<&'static str, u64>,
    /// Mappings that are ours: `[kernel]`, `[python]`.
    own_mappings: HashMap<&'static str, u64>,
    pid: u64,
    end: u64,
    stacks: usize,
    hits: u64,
    scratch: Vec<u8>,
}

impl<'a> Ledger<'a> {
    fn new(shape: &Shape<'_>, tables: Tables<'a>) -> Ledger<'a> {
        let mut it = Ledger {
            tables,
            period_ns: shape.period_ns,
            head: Vec::new(),
            samples: Vec::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            functions: Vec::new(),
            strings: Vec::new(),
            next_string: 0,
            next_mapping: 1,
            next_location: 1,
            string_ids: vec![0; tables.strings.len()],
            mapping_ids: vec![0; tables.mappings.len()],
            location_ids: vec![0; tables.locations.len()],
            function_ids: HashMap::new(),
            own: HashMap::new(),
            own_mappings: HashMap::new(),
            pid: 0,
            end: 0,
            stacks: 0,
            hits: 0,
            scratch: Vec::new(),
        };
        it.put_string("");
        let (cpu, nanoseconds) = (it.put_string("cpu"), it.put_string("nanoseconds"));
        (it.pid, it.end) = (it.put_string(PID), it.put_string(END));
        let mut value_type = Vec::new();
        number(&mut value_type, 1, cpu);
        number(&mut value_type, 2, nanoseconds);
        put_bytes(&mut it.head, 1, &value_type);
        number(&mut it.head, 9, shape.time_ns);
        number(&mut it.head, 10, shape.duration_ns);
        put_bytes(&mut it.head, 11, &value_type);
        number(&mut it.head, 12, shape.period_ns);
        for (pid, comm) in &shape.processes {
            let comment = it.put_string(&format!("{PROCESS}{pid} {comm}"));
            number(&mut it.head, 13, comment);
        }
        it
    }

    fn bytes(&self) -> usize {
        let sections = [&self.head, &self.samples, &self.mappings, &self.locations, &self.functions, &self.strings];
        sections.iter().map(|s| s.len()).sum()
    }

    /// At most what a stack would add.
    fn cost(&self, stack: &Stack<'_>, at: usize) -> Result<usize, Malformed> {
        let mut bytes = SAMPLE_BYTES_MAX;
        for &i in stack.locations {
            let id = self.location_ids.get(i as usize).ok_or(bad("a stack names a location that is not there", at))?;
            bytes += LOCATION_ID_BYTES_MAX;
            if *id == 0 {
                bytes += LOCATION_BYTES_MAX + self.names(&self.tables.locations[i as usize], i as usize)?;
            }
        }
        Ok(bytes)
    }

    /// Bytes of the names that a new location may bring.
    fn names(&self, location: &Location, at: usize) -> Result<usize, Malformed> {
        let mut indices = vec![location.function, location.file];
        if location.mapping > 0 {
            let mapping = self.mapping(location, at)?;
            indices.extend([mapping.file, mapping.build_id]);
        }
        let own = KERNEL.len() + PYTHON.len() + UNKNOWN.len() + TRUNCATED.len() + 4 * STRING_OVERHEAD_BYTES;
        indices.into_iter().try_fold(own, |sum, i| {
            let text = self.tables.strings.get(i as usize).ok_or(bad("a name is not in the strings", at))?;
            let new = self.string_ids[i as usize] == 0;
            Ok(sum + if new { text.len() + STRING_OVERHEAD_BYTES } else { 0 })
        })
    }

    fn mapping(&self, location: &Location, at: usize) -> Result<&'a Mapping, Malformed> {
        let mappings = self.tables.mappings;
        let i = (location.mapping as usize).checked_sub(1);
        i.and_then(|i| mappings.get(i)).ok_or(bad("a location names a mapping that is not there", at))
    }

    fn add(&mut self, stack: &Stack<'_>, at: usize) -> Result<(), Malformed> {
        let mut ids = std::mem::take(&mut self.scratch);
        ids.clear();
        for &i in stack.locations {
            let id = self.location(i as usize, at)?;
            put_varint(&mut ids, id);
        }
        let value = stack.count.saturating_mul(self.period_ns).min(i64::MAX as u64);
        let mut sample = Vec::with_capacity(ids.len() + SAMPLE_BYTES_MAX);
        put_bytes(&mut sample, 1, &ids);
        let mut values = Vec::with_capacity(10);
        put_varint(&mut values, value);
        put_bytes(&mut sample, 2, &values);
        label(&mut sample, self.pid, stack.pid);
        if stack.end > 0 {
            label(&mut sample, self.end, stack.end);
        }
        put_bytes(&mut self.samples, 2, &sample);
        self.scratch = ids;
        self.stacks += 1;
        self.hits = self.hits.saturating_add(stack.count);
        Ok(())
    }

    fn location(&mut self, i: usize, at: usize) -> Result<u64, Malformed> {
        let missing = bad("a stack names a location that is not there", at);
        match self.location_ids.get(i) {
            None => return Err(missing),
            Some(&id) if id > 0 => return Ok(id),
            Some(_) => {}
        }
        let location = *self.tables.locations.get(i).ok_or(missing)?;
        let mapping = match location.kind {
            Kind::Kernel => self.own_mapping(KERNEL),
            Kind::Python => self.own_mapping(PYTHON),
            Kind::User if location.mapping > 0 => self.given_mapping(&location, i)?,
            Kind::User | Kind::Truncated => 0,
        };
        let name = match (location.function, location.kind) {
            (0, Kind::Truncated) => self.own_string("[truncated: unknown]"),
            (0, _) => self.own_string(UNKNOWN),
            (name, _) => self.string(name, i)?,
        };
        let file = self.string(location.file, i)?;
        let function = self.function(name, file);
        let mut line = Vec::with_capacity(12);
        number(&mut line, 1, function);
        number(&mut line, 2, location.line.into());
        let id = self.next_location;
        self.next_location += 1;
        let mut message = Vec::with_capacity(48);
        number(&mut message, 1, id);
        number(&mut message, 2, mapping);
        number(&mut message, 3, location.address);
        put_bytes(&mut message, 4, &line);
        put_bytes(&mut self.locations, 4, &message);
        self.location_ids[i] = id;
        Ok(id)
    }

    fn function(&mut self, name: u64, file: u64) -> u64 {
        let next = self.function_ids.len() as u64 + 1;
        let id = *self.function_ids.entry((name, file)).or_insert(next);
        if id == next {
            let mut message = Vec::with_capacity(24);
            number(&mut message, 1, id);
            number(&mut message, 2, name);
            number(&mut message, 3, name);
            number(&mut message, 4, file);
            put_bytes(&mut self.functions, 5, &message);
        }
        id
    }

    fn given_mapping(&mut self, location: &Location, at: usize) -> Result<u64, Malformed> {
        let mapping = *self.mapping(location, at)?;
        let i = location.mapping as usize - 1;
        if self.mapping_ids[i] == 0 {
            let (file, build_id) = (self.string(mapping.file, at)?, self.string(mapping.build_id, at)?);
            self.mapping_ids[i] = self.put_mapping(mapping, file, build_id);
        }
        Ok(self.mapping_ids[i])
    }

    fn own_mapping(&mut self, name: &'static str) -> u64 {
        if let Some(&id) = self.own_mappings.get(name) {
            return id;
        }
        let file = self.own_string(name);
        let id = self.put_mapping(Mapping::default(), file, 0);
        self.own_mappings.insert(name, id);
        id
    }

    fn put_mapping(&mut self, mapping: Mapping, file: u64, build_id: u64) -> u64 {
        let id = self.next_mapping;
        self.next_mapping += 1;
        let mut message = Vec::with_capacity(48);
        number(&mut message, 1, id);
        number(&mut message, 2, mapping.start);
        number(&mut message, 3, mapping.limit);
        number(&mut message, 4, mapping.offset);
        number(&mut message, 5, file);
        number(&mut message, 6, build_id);
        // Names are final: a reader is not to look for the file on its own machine.
        number(&mut message, 7, 1);
        put_bytes(&mut self.mappings, 3, &message);
        id
    }

    fn string(&mut self, i: u32, at: usize) -> Result<u64, Malformed> {
        let strings = self.tables.strings;
        let (i, missing) = (i as usize, bad("a name is not in the strings", at));
        let text = *strings.get(i).ok_or(missing)?;
        if text.is_empty() {
            return Ok(0);
        }
        if self.string_ids[i] == 0 {
            self.string_ids[i] = self.put_string(text);
        }
        Ok(self.string_ids[i])
    }

    fn own_string(&mut self, text: &'static str) -> u64 {
        if let Some(&id) = self.own.get(text) {
            return id;
        }
        let id = self.put_string(text);
        self.own.insert(text, id);
        id
    }

    fn put_string(&mut self, text: &str) -> u64 {
        put_bytes(&mut self.strings, 6, text.as_bytes());
        self.next_string += 1;
        self.next_string - 1
    }

    fn close(self) -> Piece {
        let mut pprof = Vec::with_capacity(self.bytes());
        for section in [self.head, self.samples, self.mappings, self.locations, self.functions, self.strings] {
            pprof.extend_from_slice(&section);
        }
        Piece { pprof, samples: self.hits }
    }
}

/// A numeric label of a sample.
fn label(sample: &mut Vec<u8>, key: u64, value: u32) {
    let mut label = Vec::with_capacity(12);
    number(&mut label, 1, key);
    number(&mut label, 3, value.into());
    put_bytes(sample, 3, &label);
}

/// A number field; 0 is what a reader finds where nothing stands.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        out.reserve(1 + varint_len(value));
        out.push(field << 3);
        put_varint(out, value);
    }
}
