//! pprof to frames and counts, for whoever shows them.

use super::{END, KERNEL, Kind, PID, PROCESS, PYTHON, TRUNCATED};
use crate::Malformed;
use crate::wire::{Fault, Fields, Value, varint};
use std::collections::HashMap;

/// The largest profile that is read, before compression. Unit: bytes.
pub const PROFILE_BYTES_MAX: usize = 16 << 20;
/// The most distinct stacks, locations, functions, mappings and names that are read of one profile, each.
const ENTRIES_MAX: usize = 1 << 18;
/// The deepest stack that is read; what lies further out is left off.
const DEPTH_MAX: usize = 2_048;

/// A frame as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame<'a> {
    pub name: &'a str,
    /// The source file, or the mapped file where there is none.
    pub file: &'a str,
    pub kind: Kind,
}

/// One stack of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// 0: not said.
    pub pid: u32,
    /// How often it was met.
    pub count: u64,
    /// How the stack ended, in the writer's numbers; 0: complete.
    pub end: u32,
    /// Indices into [`Profile::frames`], innermost first.
    pub frames: Vec<u32>,
}

/// A profile, taken apart; names are borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile<'a> {
    /// Unix nanoseconds.
    pub time_ns: u64,
    pub duration_ns: u64,
    pub period_ns: u64,
    /// Number and name.
    pub processes: Vec<(u32, &'a str)>,
    pub frames: Vec<Frame<'a>>,
    pub samples: Vec<Sample>,
}

/// Takes a pprof apart, not compressed.
///
/// Errors: it is no pprof with a period, names what is not there, or is larger than the limits above. Never panics, and takes at most
/// some sixty times the memory of `bytes`, which the caller has bounded.
pub fn read(bytes: &[u8]) -> Result<Profile<'_>, Malformed> {
    if bytes.len() > PROFILE_BYTES_MAX {
        return Err(bad("larger than 16 MiB"));
    }
    let raw = Raw::read(bytes)?;
    if raw.period == 0 {
        return Err(bad("no period"));
    }
    let mut out = Profile {
        time_ns: raw.time,
        duration_ns: raw.duration,
        period_ns: raw.period,
        processes: raw.comments.iter().filter_map(|i| process(raw.text(*i).ok()?)).collect(),
        frames: Vec::with_capacity(raw.locations.len()),
        samples: Vec::with_capacity(raw.samples.len()),
    };
    let mut place = HashMap::with_capacity(raw.locations.len());
    for location in &raw.locations {
        place.insert(location.id, out.frames.len() as u32);
        out.frames.push(raw.frame(location)?);
    }
    let key = |name: &str| raw.strings.iter().position(|s| *s == name.as_bytes()).map(|i| i as u64);
    let keys = (key(PID), key(END));
    for sample in raw.samples {
        out.samples.push(read_sample(sample, &place, keys, raw.period)?);
    }
    Ok(out)
}

fn bad(what: &'static str) -> Malformed {
    Malformed { part: "pprof", what, at: 0 }
}

fn fault(fault: Fault) -> Malformed {
    bad(fault.text())
}

fn process(comment: &str) -> Option<(u32, &str)> {
    let (pid, name) = comment.strip_prefix(PROCESS)?.split_once(' ')?;
    Some((pid.parse().ok()?, name))
}

/// The sections as they lie there: names come last, so nothing can be looked up before the end.
#[derive(Default)]
struct Raw<'a> {
    time: u64,
    duration: u64,
    period: u64,
    comments: Vec<u64>,
    samples: Vec<&'a [u8]>,
    strings: Vec<&'a [u8]>,
    locations: Vec<RawLocation>,
    /// Name and file by id.
    functions: HashMap<u64, (u64, u64)>,
    /// File by id.
    mappings: HashMap<u64, u64>,
}

#[derive(Default)]
struct RawLocation {
    id: u64,
    mapping: u64,
    function: u64,
}

impl<'a> Raw<'a> {
    fn read(bytes: &'a [u8]) -> Result<Raw<'a>, Malformed> {
        let mut raw = Raw::default();
        for field in Fields(bytes) {
            match field.map_err(fault)? {
                (2, Value::Bytes(b)) => raw.samples.push(b),
                (3, Value::Bytes(b)) => {
                    let [id, file] = numbers(b, [1, 5])?;
                    raw.mappings.insert(id, file);
                }
                (4, Value::Bytes(b)) => raw.locations.push(location(b)?),
                (5, Value::Bytes(b)) => {
                    let [id, name, file] = numbers(b, [1, 2, 4])?;
                    raw.functions.insert(id, (name, file));
                }
                (6, Value::Bytes(b)) => raw.strings.push(b),
                (9, Value::Varint(v)) => raw.time = v,
                (10, Value::Varint(v)) => raw.duration = v,
                (12, Value::Varint(v)) => raw.period = v,
                (13, value) => repeated(value, &mut raw.comments)?,
                _ => {}
            }
            let most = [raw.samples.len(), raw.strings.len(), raw.locations.len(), raw.functions.len()];
            if most.into_iter().chain([raw.mappings.len(), raw.comments.len()]).any(|n| n > ENTRIES_MAX) {
                return Err(bad("more than 262,144 entries of one kind"));
            }
        }
        Ok(raw)
    }

    fn text(&self, i: u64) -> Result<&'a str, Malformed> {
        let bytes =
            usize::try_from(i).ok().and_then(|i| self.strings.get(i)).ok_or(bad("a name is not in the strings"));
        // A name that is not UTF-8 is a stranger's; the frame stays, its name does not.
        Ok(std::str::from_utf8(bytes?).unwrap_or("[not UTF-8]"))
    }

    fn frame(&self, location: &RawLocation) -> Result<Frame<'a>, Malformed> {
        let mapped = match self.mappings.get(&location.mapping) {
            Some(file) => self.text(*file)?,
            None => "",
        };
        let (name, file) = match self.functions.get(&location.function) {
            Some((name, file)) => (self.text(*name)?, self.text(*file)?),
            None => (super::UNKNOWN, ""),
        };
        let kind = match mapped {
            KERNEL => Kind::Kernel,
            PYTHON => Kind::Python,
            "" if name.starts_with(TRUNCATED) => Kind::Truncated,
            _ => Kind::User,
        };
        Ok(Frame { name, file: if file.is_empty() { mapped } else { file }, kind })
    }
}

fn location(b: &[u8]) -> Result<RawLocation, Malformed> {
    let mut out = RawLocation::default();
    for field in Fields(b) {
        match field.map_err(fault)? {
            (1, Value::Varint(v)) => out.id = v,
            (2, Value::Varint(v)) => out.mapping = v,
            // Of several lines the first is the innermost one.
            (4, Value::Bytes(line)) if out.function == 0 => [out.function] = numbers(line, [1])?,
            _ => {}
        }
    }
    Ok(out)
}

/// Numbers of the names `pid` and `end`.
type Keys = (Option<u64>, Option<u64>);

fn read_sample(b: &[u8], place: &HashMap<u64, u32>, (pid, end): Keys, period: u64) -> Result<Sample, Malformed> {
    let mut out = Sample::default();
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    for field in Fields(b) {
        match field.map_err(fault)? {
            (1, value) => repeated(value, &mut ids)?,
            (2, value) => repeated(value, &mut values)?,
            (3, Value::Bytes(label)) => {
                let [key, number] = numbers(label, [1, 3])?;
                let number = u32::try_from(number).unwrap_or(0);
                match Some(key) {
                    key if key == pid => out.pid = number,
                    key if key == end => out.end = number,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    ids.truncate(DEPTH_MAX);
    let frame = |id| place.get(&id).copied().ok_or(bad("a sample names a location that is not there"));
    out.frames = ids.into_iter().map(frame).collect::<Result<_, _>>()?;
    out.count = values.first().map_or(0, |v| v / period);
    Ok(out)
}

/// A repeated number, packed or one by one.
fn repeated(value: Value<'_>, to: &mut Vec<u64>) -> Result<(), Malformed> {
    match value {
        Value::Varint(v) => to.push(v),
        Value::Bytes(mut b) => {
            while !b.is_empty() {
                to.push(varint(&mut b).map_err(fault)?);
            }
        }
        _ => return Err(fault(Fault::Type)),
    }
    Ok(())
}

/// The numbers of some fields of a message; 0 where a field is absent.
fn numbers<const N: usize>(b: &[u8], fields: [u32; N]) -> Result<[u64; N], Malformed> {
    let mut out = [0; N];
    for field in Fields(b) {
        let (number, value) = field.map_err(fault)?;
        if let (Some(i), Value::Varint(v)) = (fields.iter().position(|f| *f == number), value) {
            out[i] = v;
        }
    }
    Ok(out)
}
