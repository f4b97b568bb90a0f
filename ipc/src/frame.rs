//! One frame: a header of fixed size, a small form, and bulk behind it.
//!
//! Like a freight train: the engine says how long the train is before the first wagon passes, and a train longer than the
//! platform is not let in. [`Decoder`] is fed bytes as they come and takes no memory that a header has not asked for within
//! its caps. It has no socket, so a blocking client and a tokio client use the same one. The weakness: no checksum; both ends
//! are on one machine and the kernel carries the bytes.
//!
//! ```text
//! 0        4     5        6      8            12         16     24
//! | "BKD1" | kind | version | 0    | control len | bulk len | seq  | control (MessagePack map) | bulk (raw bytes)
//! ```

use crate::message::{Closed, Hello, LogBytes, Message, Opened, Stacks, Status};
use crate::{Index, VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, Write};

/// First four bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = *b"BKD1";
/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 24;
/// Most bytes of a control part.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of bulk behind [`LogBytes`].
pub const LOG_BULK_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of bulk behind [`Stacks`].
pub const STACKS_BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Deepest nesting of a control part, levels of map or list.
pub const CONTROL_DEPTH_MAX: usize = 8;

/// A whole frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Number in its stream, from 1; 0 for unnumbered kinds.
    pub seq: u64,
    /// The form.
    pub message: Message,
    /// What follows the form.
    pub bulk: Vec<u8>,
}

/// Why bytes are no frame. The connection has no meaning behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first four bytes are not the door's.
    Magic([u8; 4]),
    /// Another version of the door.
    Version(u8),
    /// No such kind of message.
    Kind(u8),
    /// The two zero bytes are not zero.
    Reserved(u16),
    /// A length above its cap.
    Length { what: &'static str, len: u64, max: u64 },
    /// A numbered kind without a number, or an unnumbered one with one.
    Seq { kind: u8, seq: u64 },
    /// The form cannot be read.
    Control { kind: u8, why: String },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Magic(m) => write!(f, "frame starts with {m:02x?}, not with \"BKD1\": this is not the door"),
            Malformed::Version(v) => {
                write!(f, "frame of door version {v}, this side speaks {VERSION}: update both programs together")
            }
            Malformed::Kind(k) => write!(f, "frame of unknown kind {k}"),
            Malformed::Reserved(r) => write!(f, "frame whose reserved bytes are {r:#06x}, not 0"),
            Malformed::Length { what, len, max } => {
                write!(f, "frame with {len} bytes of {what}; at most {max} allowed")
            }
            Malformed::Seq { kind, seq } => write!(f, "frame of kind {kind} with number {seq}"),
            Malformed::Control { kind, why } => write!(f, "control part of kind {kind}: {why}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// A message or bulk above its cap; the other end would refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// `control` or `bulk`.
    pub what: &'static str,
    /// Bytes it has.
    pub len: usize,
    /// Bytes it may have.
    pub max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}; at most {} fit into a frame", self.len, self.what, self.max)
    }
}

impl std::error::Error for TooLarge {}

impl From<TooLarge> for io::Error {
    fn from(e: TooLarge) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, e)
    }
}

/// Cap on bulk for a kind; `None`: no such kind.
fn bulk_max(kind: u8) -> Option<usize> {
    match kind {
        1 | 2 | 4 | 6 => Some(0),
        3 => Some(LOG_BULK_BYTES_MAX),
        5 => Some(STACKS_BULK_BYTES_MAX),
        _ => None,
    }
}

/// Stream of a kind.
fn index_of(kind: u8) -> Option<Index> {
    match kind {
        3 => Some(Index::Logs),
        5 => Some(Index::Profiles),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u8,
    control: usize,
    bulk: usize,
    seq: u64,
}

impl Header {
    fn parse(b: &[u8; HEADER_BYTES]) -> Result<Header, Malformed> {
        let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let magic = [b[0], b[1], b[2], b[3]];
        if magic != MAGIC {
            return Err(Malformed::Magic(magic));
        }
        let (kind, version) = (b[4], b[5]);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let zero = u16::from_le_bytes([b[6], b[7]]);
        if zero != 0 {
            return Err(Malformed::Reserved(zero));
        }
        let bulk_max = bulk_max(kind).ok_or(Malformed::Kind(kind))?;
        let control = capped("control", word(8), CONTROL_BYTES_MAX)?;
        let bulk = capped("bulk", word(12), bulk_max)?;
        let seq = u64::from(word(16)) | u64::from(word(20)) << 32;
        if index_of(kind).is_some() != (seq != 0) {
            return Err(Malformed::Seq { kind, seq });
        }
        Ok(Header { kind, control, bulk, seq })
    }
}

fn capped(what: &'static str, len: u32, max: usize) -> Result<usize, Malformed> {
    let len = len as usize;
    if len > max { Err(Malformed::Length { what, len: len as u64, max: max as u64 }) } else { Ok(len) }
}

/// Header and control part of a frame, ready to be written before `bulk_len` bytes of bulk.
pub fn encode_head(seq: u64, message: &Message, bulk_len: usize) -> Result<Vec<u8>, TooLarge> {
    let kind = message.kind();
    let bulk_max = bulk_max(kind).unwrap_or(0);
    if bulk_len > bulk_max {
        return Err(TooLarge { what: "bulk", len: bulk_len, max: bulk_max });
    }
    let mut out = vec![0; HEADER_BYTES];
    match message {
        Message::Hello(m) => put(&mut out, m),
        Message::Opened(m) => put(&mut out, m),
        Message::LogBytes(m) => put(&mut out, m),
        Message::Closed(m) => put(&mut out, m),
        Message::Stacks(m) => put(&mut out, m),
        Message::Status(m) => put(&mut out, m.as_ref()),
    }
    let control = out.len() - HEADER_BYTES;
    if control > CONTROL_BYTES_MAX {
        return Err(TooLarge { what: "control", len: control, max: CONTROL_BYTES_MAX });
    }
    out[..4].copy_from_slice(&MAGIC);
    out[4] = kind;
    out[5] = VERSION;
    // Both lengths were just held against caps far below u32::MAX.
    out[8..12].copy_from_slice(&(control as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(bulk_len as u32).to_le_bytes());
    out[16..24].copy_from_slice(&seq.to_le_bytes());
    Ok(out)
}

fn put<T: Serialize>(out: &mut Vec<u8>, message: &T) {
    // Writing named maps of plain fields into memory has no way to fail.
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
    let done = message.serialize(&mut serializer);
    debug_assert!(done.is_ok(), "{done:?}");
}

/// Writes a whole frame to a blocking writer.
pub fn write_frame(to: &mut impl Write, seq: u64, message: &Message, bulk: &[u8]) -> io::Result<()> {
    let head = encode_head(seq, message, bulk.len())?;
    to.write_all(&head)?;
    to.write_all(bulk)
}

fn take<T: DeserializeOwned>(kind: u8, control: &[u8]) -> Result<T, Malformed> {
    let refuse = |why: String| Malformed::Control { kind, why };
    // A map and nothing else: serde would also read a struct from a list, by position.
    if !matches!(control.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(refuse("it is no MessagePack map".into()));
    }
    let mut rest = control;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(CONTROL_DEPTH_MAX);
    let value = T::deserialize(&mut deserializer).map_err(|e| refuse(e.to_string()))?;
    if !rest.is_empty() {
        return Err(refuse(format!("{} bytes behind its end", rest.len())));
    }
    Ok(value)
}

fn message(kind: u8, control: &[u8]) -> Result<Message, Malformed> {
    Ok(match kind {
        1 => Message::Hello(take::<Hello>(kind, control)?),
        2 => Message::Opened(take::<Opened>(kind, control)?),
        3 => Message::LogBytes(take::<LogBytes>(kind, control)?),
        4 => Message::Closed(take::<Closed>(kind, control)?),
        5 => Message::Stacks(take::<Stacks>(kind, control)?),
        6 => Message::Status(Box::new(take::<Status>(kind, control)?)),
        other => return Err(Malformed::Kind(other)),
    })
}

/// Takes a byte stream apart into frames; fed as bytes come, in pieces of any size.
///
/// Memory: at most one control and one bulk part, each reserved only after the header passed its caps. After an error the
/// decoder stays in error: nothing behind a broken frame has a meaning.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEADER_BYTES],
    have: usize,
    header: Option<Header>,
    control: Vec<u8>,
    bulk: Vec<u8>,
    broken: Option<Malformed>,
}

impl Decoder {
    /// A decoder at a frame's start.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Whether the stream could end here: no frame is begun.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.header.is_none()
    }

    /// Takes bytes off the front of `input` until a frame is whole or the input is empty. Call again while `Some`.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Malformed> {
        if let Some(e) = &self.broken {
            return Err(e.clone());
        }
        self.step(input).inspect_err(|e| self.broken = Some(e.clone()))
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Malformed> {
        let header = match self.header {
            Some(h) => h,
            None => {
                let (now, later) = input.split_at(input.len().min(HEADER_BYTES - self.have));
                self.head[self.have..self.have + now.len()].copy_from_slice(now);
                self.have += now.len();
                *input = later;
                if self.have < HEADER_BYTES {
                    return Ok(None);
                }
                let header = Header::parse(&self.head)?;
                self.control = Vec::with_capacity(header.control);
                self.bulk = Vec::with_capacity(header.bulk);
                *self.header.insert(header)
            }
        };
        fill(&mut self.control, header.control, input);
        if self.control.len() < header.control {
            return Ok(None);
        }
        fill(&mut self.bulk, header.bulk, input);
        if self.bulk.len() < header.bulk {
            return Ok(None);
        }
        let message = message(header.kind, &self.control)?;
        (self.header, self.have) = (None, 0);
        self.control = Vec::new();
        Ok(Some(Frame { seq: header.seq, message, bulk: std::mem::take(&mut self.bulk) }))
    }
}

fn fill(to: &mut Vec<u8>, want: usize, input: &mut &[u8]) {
    let (now, later) = input.split_at(input.len().min(want - to.len()));
    to.extend_from_slice(now);
    *input = later;
}
