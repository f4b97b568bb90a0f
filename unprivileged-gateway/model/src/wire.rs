//! Protobuf as it lies in memory.
//!
//! A message is a row of shelves, each with a number and a length on its edge; we walk along it once and look, and carry
//! nothing away. [`Fields`] yields number and value of one field after the other; values are slices of the input.
//! Writing goes the same way: a length that is not known yet is a gap of three bytes that [`close`] fills in.
//!
//! Every length comes from a stranger, so every step goes through a checked split: a walk that trusts lengths is a remote
//! crash. The weakness: a field that appears twice is met twice, and merging the two is the caller's business.

/// Why a walk ended early. One byte, so that the hot path returns it in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Varint,
    Key,
    WireType,
    Short,
    Group,
    Depth,
    Text,
    Type,
}

impl Fault {
    /// For people: what is wrong, without the place.
    pub fn text(self) -> &'static str {
        match self {
            Fault::Varint => "a number is cut off, longer than ten bytes or larger than 64 bits",
            Fault::Key => "a field has the number 0 or one beyond 32 bits",
            Fault::WireType => "a field has a wire type that protobuf does not define",
            Fault::Short => "a field says it is longer than what is left",
            Fault::Group => "a group is closed that was not opened",
            Fault::Depth => "messages are nested deeper than 100 levels",
            Fault::Text => "a text field is not UTF-8",
            Fault::Type => "a known field has the wrong wire type",
        }
    }
}

/// Message levels that prost (and the C++ and Java decoders) follow before they refuse.
pub const NESTING_MAX: u32 = 100;

/// A varint is at most this long: 64 bits in groups of seven.
const VARINT_BYTES_MAX: usize = 10;

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const LEN: u8 = 2;
pub const GROUP: u8 = 3;
pub const GROUP_END: u8 = 4;
pub const FIXED32: u8 = 5;

/// Reads a varint and moves past it. Same verdict as prost: ten bytes at most, and the tenth may only be 0 or 1.
#[inline(always)]
pub fn varint(b: &mut &[u8]) -> Result<u64, Fault> {
    match b.split_first() {
        Some((&first, rest)) if first < 0x80 => {
            *b = rest; // one-byte keys and lengths are nearly all there is
            Ok(u64::from(first))
        }
        _ => long_varint(b),
    }
}

fn long_varint(b: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0;
    for (i, &c) in b.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u64::from(c & 0x7f) << (7 * i);
        if c < 0x80 {
            if i == VARINT_BYTES_MAX - 1 && c > 1 {
                return Err(Fault::Varint);
            }
            *b = b.get(i + 1..).ok_or(Fault::Varint)?;
            return Ok(value);
        }
    }
    Err(Fault::Varint)
}

/// Number and wire type of the next field.
#[inline(always)]
pub fn key(b: &mut &[u8]) -> Result<(u32, u8), Fault> {
    let key = u32::try_from(varint(b)?).map_err(|_| Fault::Key)?;
    let wire = (key & 7) as u8;
    if wire > FIXED32 {
        return Err(Fault::WireType);
    }
    if key < 8 {
        return Err(Fault::Key);
    }
    Ok((key >> 3, wire))
}

#[inline(always)]
pub fn take<'a>(b: &mut &'a [u8], n: u64) -> Result<&'a [u8], Fault> {
    let n = usize::try_from(n).map_err(|_| Fault::Short)?;
    let (head, rest) = b.split_at_checked(n).ok_or(Fault::Short)?;
    *b = rest;
    Ok(head)
}

#[inline(always)]
pub fn fixed64(b: &mut &[u8]) -> Result<u64, Fault> {
    let (head, rest) = b.split_first_chunk().ok_or(Fault::Short)?;
    *b = rest;
    Ok(u64::from_le_bytes(*head))
}

#[inline(always)]
pub fn fixed32(b: &mut &[u8]) -> Result<u32, Fault> {
    let (head, rest) = b.split_first_chunk().ok_or(Fault::Short)?;
    *b = rest;
    Ok(u32::from_le_bytes(*head))
}

#[inline(always)]
pub fn bytes<'a>(b: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let len = varint(b)?;
    take(b, len)
}

/// Steps over a field that nobody asked for. `levels` is what is left of [`NESTING_MAX`]; groups use it up as in prost.
pub fn skip(b: &mut &[u8], number: u32, wire: u8, levels: u32) -> Result<(), Fault> {
    if levels == 0 {
        return Err(Fault::Depth);
    }
    match wire {
        VARINT => varint(b).map(drop),
        FIXED64 => fixed64(b).map(drop),
        LEN => bytes(b).map(drop),
        FIXED32 => fixed32(b).map(drop),
        GROUP => loop {
            match key(b)? {
                (inner, GROUP_END) if inner == number => return Ok(()),
                (_, GROUP_END) => return Err(Fault::Group),
                (inner, wire) => skip(b, inner, wire, levels - 1)?,
            }
        },
        _ => Err(Fault::Group),
    }
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// Deprecated since 2008 and unknown to OTLP; stepped over.
    Group,
}

/// Iterates over the fields of one message. After an error it yields nothing more.
#[derive(Clone)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    #[inline(always)]
    fn field(&mut self) -> Result<(u32, Value<'a>), Fault> {
        let b = &mut self.0;
        let (number, wire) = key(b)?;
        let value = match wire {
            VARINT => Value::Varint(varint(b)?),
            FIXED64 => Value::Fixed64(fixed64(b)?),
            LEN => Value::Bytes(bytes(b)?),
            FIXED32 => Value::Fixed32(fixed32(b)?),
            _ => {
                skip(b, number, wire, NESTING_MAX)?;
                Value::Group
            }
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Fault>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Bytes a varint takes.
#[inline]
pub fn varint_len(v: u64) -> usize {
    (v.max(1).ilog2() / 7 + 1) as usize
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// The key of a length-delimited field; `field` is 1 to 15, so that it is one byte.
#[inline(always)]
pub const fn len_key(field: u8) -> u8 {
    field << 3 | LEN
}

/// A length-delimited field whose content is known.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, field: u8, b: &[u8]) {
    out.push(len_key(field));
    put_varint(out, b.len() as u64);
    out.extend_from_slice(b);
}

/// Bytes that [`open`] reserves for a length, and what they can hold.
const GAP_BYTES: usize = 3;
const GAP_LIMIT: usize = 1 << (7 * GAP_BYTES);

/// A length that is known only later: three bytes are reserved and patched by [`close`], which takes what this returns.
///
/// The padded varint is legal protobuf, costs at most two bytes and saves the sizing pass or the copy that an exact
/// length would need (measured in the prototype, ADR 0008).
#[inline]
pub fn open(out: &mut Vec<u8>, field: u8) -> usize {
    out.extend_from_slice(&[len_key(field), 0x80, 0x80, 0x00]);
    out.len()
}

/// Fills in the length of everything written since [`open`] returned `start`.
#[inline]
pub fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < GAP_LIMIT {
        let gap = &mut out[start - GAP_BYTES..start];
        gap[0] = len as u8 | 0x80;
        gap[1] = (len >> 7) as u8 | 0x80;
        gap[2] = (len >> 14) as u8;
    } else {
        widen(out, start, len);
    }
}

/// Rare and slow on purpose: more than 2 MiB do not fit the gap, so the content moves by as much as the length needs.
#[cold]
fn widen(out: &mut Vec<u8>, start: usize, len: usize) {
    let mut exact = Vec::with_capacity(VARINT_BYTES_MAX);
    put_varint(&mut exact, len as u64);
    out.splice(start - GAP_BYTES..start, exact);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prost_varint(mut b: &[u8]) -> Option<(u64, usize)> {
        let whole = b.len();
        let v = prost::encoding::decode_varint(&mut b).ok()?;
        Some((v, whole - b.len()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_varint_is_judged_as_prost_judges_it(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..14),
                prop::collection::vec(0x80u8..=0xff, 8..12),
                (prop::collection::vec(0x80u8..=0xff, 9), any::<u8>()).prop_map(|(mut v, last)| { v.push(last); v }),
            ]
        ) {
            let mut rest = &bytes[..];
            let ours = varint(&mut rest).ok().map(|v| (v, bytes.len() - rest.len()));
            prop_assert_eq!(ours, prost_varint(&bytes));
        }

        #[test]
        fn what_is_put_is_read_back(v in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            prop_assert_eq!(out.len(), varint_len(v));
            prop_assert_eq!(varint(&mut &out[..]), Ok(v));
        }

        #[test]
        fn a_walk_over_anything_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_patched_length_holds_what_was_written_even_beyond_two_mebibytes() {
        for len in [0, 1, 127, 128, 16_384, GAP_LIMIT - 1, GAP_LIMIT, GAP_LIMIT + 77] {
            let mut out = vec![0xee];
            let at = open(&mut out, 3);
            out.resize(out.len() + len, 7);
            close(&mut out, at);
            put_bytes(&mut out, 4, b"after");
            let fields: Vec<_> = Fields(&out[1..]).map(Result::unwrap).collect();
            assert_eq!(fields, [(3, Value::Bytes(&vec![7; len][..])), (4, Value::Bytes(b"after"))]);
        }
    }

    #[test]
    fn a_group_is_stepped_over_and_an_endless_one_is_not_followed() {
        let nested = [0x0b, 0x13, 0x18, 0x05, 0x14, 0x0c, 0x10, 0x01]; // 1 { 2 { 3: 5 } } 2: 1
        let fields: Vec<_> = Fields(&nested).map(Result::unwrap).collect();
        assert_eq!(fields, [(1, Value::Group), (2, Value::Varint(1))]);
        let endless = vec![0x0b; 1 << 20];
        assert_eq!(Fields(&endless).last(), Some(Err(Fault::Depth)));
        assert_eq!(Fields(&[0x0b, 0x14]).last(), Some(Err(Fault::Group)));
    }
}
