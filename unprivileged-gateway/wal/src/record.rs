//! One record: a parcel with its own waybill. The waybill (header) says how long the parcel is and where it stands;
//! both carry a checksum that is right in one place of one segment only.
//!
//! The seed of either CRC32C is made from the segment's random nonce and the offset, so that neither a log line that
//! looks like a record nor an old block that comes back can pass for one. Drawn byte by byte in `docs/wire.md`. The
//! weakness: a CRC is no signature; whoever can write the folder can write records.

use crate::origin::Origin;
use crate::wire::{Put, Take};
use bytes::BytesMut;

pub(crate) const MAGIC: [u8; 4] = *b"BHr1";
pub(crate) const MARKER_MAGIC: [u8; 8] = *b"BHsync1\n";
/// Bytes of a record header without its extension.
pub(crate) const HEADER_BYTES: usize = 104;
/// Bytes of a sync marker.
pub(crate) const MARKER_BYTES: usize = 80;
/// A marker stands between records at least this often, so that damage costs little more.
pub(crate) const MARKER_EVERY_BYTES: u64 = 64 * 1024;
/// Largest payload of one record; a length above it is damage, never an allocation.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Version written into every record.
pub(crate) const VERSION: u8 = 1;

/// What a record holds. Other numbers are read past.
pub(crate) mod kind {
    pub(crate) const FRAME: u8 = 1;
    pub(crate) const SNAPSHOT: u8 = 2;
    pub(crate) const DESTINATION: u8 = 3;
    pub(crate) const CURSOR: u8 = 4;
    pub(crate) const GAP: u8 = 5;
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    /// As it is.
    #[default]
    Raw,
    /// One LZ4 block; `raw_len` is the length after decompression.
    Lz4,
}

impl Codec {
    fn byte(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Lz4 => 1,
        }
    }
    fn from_byte(b: u8) -> Option<Codec> {
        match b {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Lz4),
            _ => None,
        }
    }
}

/// Start counter and 64 random bits: makes frame ids of a cloned disk unique. Carried by every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch {
    /// Starts of this folder, counted from 1.
    pub counter: u64,
    /// Drawn at the start.
    pub random: u64,
}

/// The fixed part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) version: u8,
    pub(crate) codec: Codec,
    pub(crate) hops: u8,
    pub(crate) payload_len: u32,
    pub(crate) ext_len: u16,
    /// Offset of this segment that was synced when the record was written.
    pub(crate) synced: u64,
    pub(crate) seq: u64,
    pub(crate) epoch: Epoch,
    pub(crate) items: u32,
    pub(crate) raw_len: u32,
    pub(crate) appended_at: u64,
    /// Items and payload bytes of all frames ever appended before this one.
    pub(crate) items_before: u64,
    pub(crate) bytes_before: u64,
    pub(crate) hash: u128,
    pub(crate) payload_crc: u32,
}

impl Header {
    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.ext_len as usize + self.payload_len as usize
    }
    pub(crate) fn payload_at(&self) -> usize {
        HEADER_BYTES + self.ext_len as usize
    }
}

/// Both checksums start here.
pub(crate) fn seed(nonce: u64, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&nonce.to_le_bytes()), &offset.to_le_bytes())
}

/// Writes a record at the end of `buf`, which lies at `offset` in a segment with `nonce`.
/// The payload is copied once and summed where it lies. `header.{payload_len, ext_len, payload_crc}` are filled in here;
/// the hash too, when `rehash` says that the payload is new.
pub(crate) fn write(buf: &mut BytesMut, at: (u64, u64), header: &Header, ext: &[u8], parts: &[&[u8]], rehash: bool) {
    let (nonce, offset) = at;
    let start = buf.len();
    let payload_len: usize = parts.iter().map(|p| p.len()).sum();
    buf.reserve(HEADER_BYTES + ext.len() + payload_len);
    buf.put(&MAGIC);
    buf.put(&[header.kind, header.version, header.codec.byte(), header.hops]);
    buf.u32(payload_len as u32);
    buf.u16(ext.len() as u16);
    buf.u16(0);
    buf.u64(header.synced);
    buf.u64(header.seq);
    buf.u64(header.epoch.counter);
    buf.u64(header.epoch.random);
    buf.u32(header.items);
    buf.u32(header.raw_len);
    buf.u64(header.appended_at);
    buf.u64(header.items_before);
    buf.u64(header.bytes_before);
    buf.put(&[0; 24]);
    buf.put(ext);
    for part in parts {
        buf.put(part);
    }
    let sum = seed(nonce, offset);
    let body = start + HEADER_BYTES + ext.len();
    let payload_crc = crc32c::crc32c_append(sum, &buf[body..]);
    let hash = if rehash { xxhash_rust::xxh3::xxh3_128(&buf[body..]) } else { header.hash };
    buf[start + 80..start + 96].copy_from_slice(&hash.to_le_bytes());
    buf[start + 96..start + 100].copy_from_slice(&payload_crc.to_le_bytes());
    let crc = header_crc(sum, &buf[start..body]);
    buf[start + 100..start + 104].copy_from_slice(&crc.to_le_bytes());
}

/// Over the fixed part without the checksum itself, then the extension.
fn header_crc(sum: u32, header_and_ext: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &header_and_ext[..100]), &header_and_ext[HEADER_BYTES..])
}

/// Fields of a header at the front of `b`, unchecked. `None`: not even the shape of one.
pub(crate) fn peek(b: &[u8]) -> Option<Header> {
    let mut t = Take(b.get(..HEADER_BYTES)?);
    if t.array::<4>()? != MAGIC {
        return None;
    }
    let (kind, version, codec, hops) = (t.u8()?, t.u8()?, Codec::from_byte(t.u8()?)?, t.u8()?);
    let (payload_len, ext_len, _) = (t.u32()?, t.u16()?, t.u16()?);
    let (synced, seq) = (t.u64()?, t.u64()?);
    let epoch = Epoch { counter: t.u64()?, random: t.u64()? };
    let (items, raw_len, appended_at, items_before, bytes_before) = (t.u32()?, t.u32()?, t.u64()?, t.u64()?, t.u64()?);
    let hash = u128::from_le_bytes(t.array()?);
    let payload_crc = t.u32()?;
    if payload_len as usize > PAYLOAD_BYTES_MAX {
        return None;
    }
    Some(Header {
        kind,
        version,
        codec,
        hops,
        payload_len,
        ext_len,
        synced,
        seq,
        epoch,
        items,
        raw_len,
        appended_at,
        items_before,
        bytes_before,
        hash,
        payload_crc,
    })
}

/// A header whose own checksum is right at this place. `b` must reach past the extension.
pub(crate) fn check_header(b: &[u8], nonce: u64, offset: u64) -> Option<Header> {
    let header = peek(b)?;
    let whole = b.get(..header.payload_at())?;
    let stored = u32::from_le_bytes(whole[100..104].try_into().ok()?);
    (header_crc(seed(nonce, offset), whole) == stored).then_some(header)
}

/// Whether the payload of a checked header is what was written.
pub(crate) fn check_payload(header: &Header, payload: &[u8], nonce: u64, offset: u64) -> bool {
    crc32c::crc32c_append(seed(nonce, offset), payload) == header.payload_crc
}

/// Origin and done set, the extension of a frame. Done: ids ("kind/name") that need this frame no more.
pub(crate) fn write_ext(origin: Option<&Origin>, done: &[impl AsRef<str>]) -> Vec<u8> {
    let mut ext = Vec::new();
    if origin.is_none() && done.is_empty() {
        return ext;
    }
    Origin::write(origin, &mut ext);
    ext.u16(done.len().min(u16::MAX as usize) as u16);
    for id in done {
        ext.text(id.as_ref().as_bytes());
    }
    ext
}

/// The reverse of [`write_ext`]. `None`: written by a later version, or by a fault of ours.
pub(crate) fn read_ext(ext: &[u8]) -> Option<(Option<Origin>, Vec<String>)> {
    if ext.is_empty() {
        return Some((None, Vec::new()));
    }
    let mut t = Take(ext);
    let origin = Origin::read(&mut t)?;
    let n = t.u16()?;
    let mut done = Vec::new();
    for _ in 0..n {
        done.push(t.string()?);
    }
    Some((origin, done))
}

/// A buoy between records: names its segment and place without needing anything else to be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) nonce: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) synced: u64,
    /// The next frame's seq, and the items of all frames before it.
    pub(crate) next_seq: u64,
    pub(crate) items_before: u64,
    /// The segment before this one and where it ends: the most important line of the cover page, said again.
    pub(crate) previous: u64,
    pub(crate) previous_end: u64,
}

impl Marker {
    pub(crate) fn bytes(&self) -> [u8; MARKER_BYTES] {
        let mut b = Vec::with_capacity(MARKER_BYTES);
        b.put(&MARKER_MAGIC);
        for v in [self.nonce, self.segment, self.offset, self.synced] {
            b.u64(v);
        }
        for v in [self.next_seq, self.items_before, self.previous, self.previous_end] {
            b.u64(v);
        }
        b.u32(0);
        b.u32(crc32c::crc32c(&b));
        b.try_into().expect("eight bytes, eight numbers and two halves are 80")
    }

    pub(crate) fn read(b: &[u8]) -> Option<Marker> {
        let b = b.get(..MARKER_BYTES)?;
        if b[..8] != MARKER_MAGIC || crc32c::crc32c(&b[..76]).to_le_bytes() != b[76..] {
            return None;
        }
        let mut t = Take(&b[8..]);
        Some(Marker {
            nonce: t.u64()?,
            segment: t.u64()?,
            offset: t.u64()?,
            synced: t.u64()?,
            next_seq: t.u64()?,
            items_before: t.u64()?,
            previous: t.u64()?,
            previous_end: t.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{FileKey, Origin};

    fn header() -> Header {
        Header {
            kind: kind::FRAME,
            version: VERSION,
            codec: Codec::Lz4,
            hops: 3,
            payload_len: 0,
            ext_len: 0,
            synced: 4096,
            seq: 77,
            epoch: Epoch { counter: 5, random: 6 },
            items: 1000,
            raw_len: 9,
            appended_at: 1_700_000_000_000_000_000,
            items_before: 12,
            bytes_before: 13,
            hash: 0,
            payload_crc: 0,
        }
    }

    #[test]
    fn a_record_is_valid_in_one_place_only() {
        let origin = Origin::LogBytes { file: FileKey { id: [7; 16], generation: 2 }, offset: 10, len: 20 };
        let ext = write_ext(Some(&origin), &["loki/a".to_string()]);
        let mut buf = BytesMut::new();
        write(&mut buf, (42, 1000), &header(), &ext, &[b"hello ", b"world"], true);
        let read = check_header(&buf, 42, 1000).unwrap();
        assert_eq!(read.record_bytes(), buf.len());
        assert_eq!((read.seq, read.items, read.hops, read.codec), (77, 1000, 3, Codec::Lz4));
        assert_eq!(read.hash, xxhash_rust::xxh3::xxh3_128(b"hello world"));
        assert!(check_payload(&read, &buf[read.payload_at()..], 42, 1000));
        assert_eq!(
            read_ext(&buf[HEADER_BYTES..read.payload_at()]).unwrap(),
            (Some(origin), vec!["loki/a".to_string()])
        );
        assert!(check_header(&buf, 42, 1001).is_none(), "another offset");
        assert!(check_header(&buf, 43, 1000).is_none(), "another segment");
        for bit in 0..buf.len() * 8 {
            let mut bad = buf.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let whole = check_header(&bad, 42, 1000)
                .is_some_and(|h| h.record_bytes() == bad.len() && check_payload(&h, &bad[h.payload_at()..], 42, 1000));
            assert!(!whole, "bit {bit} flipped and nobody noticed");
        }
    }

    #[test]
    fn a_marker_says_where_it_stands() {
        let m = Marker {
            nonce: 1,
            segment: 2,
            offset: 3,
            synced: 4,
            next_seq: 5,
            items_before: 6,
            previous: 1,
            previous_end: 8,
        };
        let b = m.bytes();
        assert_eq!(Marker::read(&b), Some(m));
        for bit in 0..b.len() * 8 {
            let mut bad = b;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Marker::read(&bad), None);
        }
    }
}
