//! What a WAL frame's payload looks like from the inside.
//!
//! A letter in an envelope: on the outside, what kind of letter it is and what the post office knew when it came in; in
//! it, the letter itself, untouched.
//!
//! ```text
//! kind u8 | version u8 | sidecar_len u16 LE | sidecar: MessagePack map | raw bytes as received
//! ```
//!
//! [`header`] writes what precedes the raw bytes, so that these are never copied to be wrapped. [`open`] reads it back and
//! borrows the raw bytes. The sidecar's keys are names, so that a later version may add one and an earlier one still reads
//! the rest. The weakness: 16 bits of length. Enrichment that does not fit is left out, last pairs first.

use crate::Malformed;
use serde::{Deserialize, Serialize};

/// What the raw bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    OtlpLogs = 1,
    OtlpTraces = 2,
    OtlpMetrics = 3,
    LogChunk = 4,
    Series = 5,
    Pprof = 6,
    Quarantined = 7,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::OtlpLogs,
        Kind::OtlpTraces,
        Kind::OtlpMetrics,
        Kind::LogChunk,
        Kind::Series,
        Kind::Pprof,
        Kind::Quarantined,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|&k| k as u8 == byte)
    }
}

/// What was known when the bytes came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sidecar {
    /// Unix nanoseconds.
    pub received_at: u64,
    /// Address of the sender. At most [`PEER_BYTES_MAX`] bytes of it are kept.
    pub peer: String,
    /// Resource attributes known at receipt; they never overwrite what the sender wrote.
    pub enrichment: Vec<(String, String)>,
    /// For bytes of a log file: which file, and where in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileRef>,
}

/// A piece of a log file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileRef {
    /// `pods`, or the name of the file source in the configuration.
    pub root: String,
    /// Beneath that root; bytes that are no UTF-8 are written as `\\xNN`. At most [`PATH_BYTES_MAX`] bytes of it are kept.
    pub path: String,
    /// Which file, whatever it is called by now.
    pub id: [u8; 16],
    /// Rises when the file is truncated or rewritten in place.
    pub generation: u32,
    /// Of the first byte, in the file.
    pub offset: u64,
    /// The reason why nothing follows this piece, which may be empty: `deleted`, `rotated`, `truncated`.
    pub end: Option<String>,
}

/// The layout written by this version.
pub const VERSION: u8 = 1;
/// Bytes before the sidecar.
pub const FIXED_BYTES: usize = 4;
/// Bytes of a peer's name that are kept; an address with port and zone needs fewer than 80.
pub const PEER_BYTES_MAX: usize = 256;
/// Bytes of a log file's path that are kept; Linux allows no longer one.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes that a sidecar may take: its length is 16 bits.
pub const SIDECAR_BYTES_MAX: usize = u16::MAX as usize;
/// Levels of MessagePack that are followed. The sidecar needs three; a stranger's nesting must not eat the stack.
const DEPTH_MAX: usize = 16;
/// What a file reference adds beyond its path: keys, numbers, the root's name and the reason.
const FILE_OVERHEAD_BYTES: usize = 512;
/// Bytes of a file source's name, or of a reason, that are kept.
const NAME_BYTES_MAX: usize = 128;
/// What MessagePack adds at most: to the map with its keys, the number and the array head; and to each pair.
const MAP_OVERHEAD_BYTES: usize = 64;
const PAIR_OVERHEAD_BYTES: usize = 11;

/// What precedes the raw bytes of a frame's payload.
///
/// Shape: see the module. Errors: none; a peer's name and enrichment beyond the limits above are cut off, so that a pod
/// with absurd labels still has its logs accepted. One allocation.
pub fn header(kind: Kind, sidecar: &Sidecar) -> Vec<u8> {
    let peer = floor_char(&sidecar.peer, PEER_BYTES_MAX);
    let file = sidecar.file.as_ref().map(WrittenFile::new);
    let file_bytes = file.as_ref().map_or(0, |f| FILE_OVERHEAD_BYTES + f.path.len());
    let mut room = SIDECAR_BYTES_MAX - MAP_OVERHEAD_BYTES - peer.len() - file_bytes;
    let mut used = FIXED_BYTES + MAP_OVERHEAD_BYTES + peer.len() + file_bytes;
    let fits = sidecar.enrichment.iter().take_while(|(name, value)| {
        let bytes = PAIR_OVERHEAD_BYTES.saturating_add(name.len()).saturating_add(value.len());
        let left = room.checked_sub(bytes);
        room = left.unwrap_or(room);
        used += if left.is_some() { bytes } else { 0 };
        left.is_some()
    });
    let pairs = fits.count();
    let kept = Written { received_at: sidecar.received_at, peer, enrichment: &sidecar.enrichment[..pairs], file };

    let mut out = Vec::with_capacity(used);
    out.extend_from_slice(&[kind as u8, VERSION, 0, 0]);
    let written = kept.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map());
    debug_assert!(written.is_ok(), "writing into a Vec does not fail");
    let len = u16::try_from(out.len() - FIXED_BYTES);
    debug_assert!(len.is_ok(), "the room was counted above");
    out[2..FIXED_BYTES].copy_from_slice(&len.unwrap_or(u16::MAX).to_le_bytes());
    out
}

/// [`Sidecar`] as it is written: same names, nothing owned.
#[derive(Serialize)]
struct Written<'a> {
    received_at: u64,
    peer: &'a str,
    enrichment: &'a [(String, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<WrittenFile<'a>>,
}

/// [`FileRef`] as it is written.
#[derive(Serialize)]
struct WrittenFile<'a> {
    root: &'a str,
    path: &'a str,
    id: [u8; 16],
    generation: u32,
    offset: u64,
    end: Option<&'a str>,
}

impl WrittenFile<'_> {
    fn new(file: &FileRef) -> WrittenFile<'_> {
        WrittenFile {
            root: floor_char(&file.root, NAME_BYTES_MAX),
            path: floor_char(&file.path, PATH_BYTES_MAX),
            id: file.id,
            generation: file.generation,
            offset: file.offset,
            end: file.end.as_deref().map(|e| floor_char(e, NAME_BYTES_MAX)),
        }
    }
}

/// The longest start of `s` that is at most `max` bytes and ends between characters.
fn floor_char(s: &str, max: usize) -> &str {
    s.get(..s.floor_char_boundary(max)).unwrap_or(s)
}

/// Takes a frame's payload apart; the raw bytes are borrowed.
///
/// Errors: [`Malformed`] for a kind or version this build does not know, a length beyond the end, or a sidecar that is not
/// the map above. Never panics, whatever the bytes.
pub fn open(payload: &[u8]) -> Result<(Kind, Sidecar, &[u8]), Malformed> {
    let bad = |what, at| Malformed { part: "frame envelope", what, at };
    let Some((&[kind, version, low, high], rest)) = payload.split_first_chunk() else {
        return Err(bad("shorter than four bytes", payload.len()));
    };
    let kind = Kind::from_byte(kind).ok_or(bad("unknown kind; written by a later version?", 0))?;
    if version != VERSION {
        return Err(bad("unknown version; written by a later version?", 1));
    }
    let len = usize::from(u16::from_le_bytes([low, high]));
    let (sidecar, raw) = rest.split_at_checked(len).ok_or(bad("the sidecar is longer than the frame", 2))?;
    let mut reader = sidecar;
    let mut decoder = rmp_serde::Deserializer::new(&mut reader);
    decoder.set_max_depth(DEPTH_MAX);
    let known =
        Sidecar::deserialize(&mut decoder).map_err(|_| bad("the sidecar is not a MessagePack map", FIXED_BYTES))?;
    if !reader.is_empty() {
        return Err(bad("bytes follow the sidecar's map", FIXED_BYTES + len - reader.len()));
    }
    Ok((kind, known, raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sidecars() -> impl Strategy<Value = Sidecar> {
        (any::<u64>(), ".{0,40}", prop::collection::vec((".{0,20}", ".{0,200}"), 0..12), prop::option::of(files()))
            .prop_map(|(received_at, peer, enrichment, file)| Sidecar { received_at, peer, enrichment, file })
    }

    fn files() -> impl Strategy<Value = FileRef> {
        let end = prop::option::of("[a-z]{0,12}");
        (".{0,20}", ".{0,200}", any::<[u8; 16]>(), any::<u32>(), any::<u64>(), end)
            .prop_map(|(root, path, id, generation, offset, end)| FileRef { root, path, id, generation, offset, end })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn what_is_wrapped_is_opened(
            sidecar in sidecars(),
            raw in prop::collection::vec(any::<u8>(), 0..100),
            kind in prop::sample::select(Kind::ALL.to_vec()),
        ) {
            let mut payload = header(kind, &sidecar);
            prop_assert!(payload.len() <= payload.capacity());
            payload.extend_from_slice(&raw);
            prop_assert_eq!(open(&payload), Ok((kind, sidecar, &raw[..])));
        }

        #[test]
        fn opening_anything_never_panics(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            honest in any::<bool>(),
        ) {
            if honest && bytes.len() > FIXED_BYTES {
                let len = (bytes.len() - FIXED_BYTES) as u16;
                bytes[..2].copy_from_slice(&[1, VERSION]);
                bytes[2..4].copy_from_slice(&len.to_le_bytes());
            }
            let _ = open(&bytes);
        }

        #[test]
        fn a_damaged_header_is_refused_or_read_but_never_panics(
            sidecar in sidecars(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let mut payload = header(Kind::OtlpLogs, &sidecar);
            let at = at.index(payload.len());
            payload[at] ^= 1 << bit;
            let _ = open(&payload);
            let _ = open(&payload[..at]);
        }
    }

    #[test]
    fn nesting_does_not_eat_the_stack() {
        let mut payload = vec![1, VERSION, 0xff, 0xff];
        payload.extend_from_slice(b"\x81\xa1x"); // a map with one unknown key, whose value nests without end
        payload.resize(FIXED_BYTES + SIDECAR_BYTES_MAX, 0x91);
        assert_eq!(open(&payload).unwrap_err().at, FIXED_BYTES);
    }

    #[test]
    fn enrichment_that_does_not_fit_is_left_out_and_the_rest_is_kept() {
        let pair = |n: usize| (format!("name-{n}"), "é".repeat(1_000));
        let sidecar = Sidecar {
            received_at: u64::MAX,
            peer: "ü".repeat(400),
            enrichment: (0..100).map(pair).collect(),
            file: None,
        };
        let written = header(Kind::OtlpTraces, &sidecar);
        let (_, read, raw) = open(&written).unwrap();
        assert_eq!(read.peer, "ü".repeat(PEER_BYTES_MAX / 2));
        assert_eq!(read.enrichment, sidecar.enrichment[..read.enrichment.len()]);
        assert_eq!(read.enrichment.len(), 32);
        assert!(raw.is_empty());
    }

    #[test]
    fn a_later_writer_may_add_keys() {
        let mut payload = vec![Kind::Pprof as u8, VERSION, 0, 0];
        payload.extend_from_slice(b"\x82\xa4next\x93\x01\x02\x03\xabreceived_at\x07raw");
        payload[2] = (payload.len() - FIXED_BYTES - 3) as u8;
        let (kind, sidecar, raw) = open(&payload).unwrap();
        assert_eq!((kind, sidecar.received_at, raw), (Kind::Pprof, 7, &b"raw"[..]));
    }

    #[test]
    fn a_later_kind_or_version_is_named() {
        assert!(open(&[8, 1, 0, 0]).unwrap_err().to_string().contains("kind"));
        assert!(open(&[1, 2, 0, 0]).unwrap_err().to_string().contains("version"));
        assert!(open(&[1, 1]).unwrap_err().to_string().contains("four bytes"));
    }
}
