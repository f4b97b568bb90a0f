//! Protobuf read with a finger: tag, length, bytes, next.
//!
//! The judge must not share a codec with the judged, so this walk is the load tool's own and knows nothing of crate `model`.
//! One forward pass, nothing copied; every length is checked against what is left. Weakness: it only answers what it is asked
//! for, an unknown field is stepped over, a group is an error.

use std::fmt;

/// Not protobuf, or cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a protobuf message of the expected shape")
    }
}

impl std::error::Error for Malformed {}

/// One field. Varints and both fixed widths are widened to u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message in the order in which they lie.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[]; // the walk is over: what follows cannot be told apart any more
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        let value = match tag & 7 {
            0 => Value::Int(self.varint()?),
            1 => Value::Int(self.take(8)?.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed)?)?)
            }
            5 => Value::Int(self.take(4)?.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))),
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }
}

/// The delimited fields with one number, in order; others are stepped over.
pub fn messages(bytes: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields(bytes).filter_map(move |field| match field {
        Ok((n, Value::Bytes(inner))) if n == number => Some(Ok(inner)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

/// Standard alphabet, padding optional, as in a gRPC `-bin` header.
pub fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.iter().take_while(|b| **b != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

/// The counterpart of [`base64_decode`], without padding.
pub fn base64_encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]));
        }
    }
    out
}

/// A varint-tagged field holding `bytes`, appended to `out`.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A varint field, appended to `out`.
pub fn put_int(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_over_cut_bytes_ends_with_an_error_and_never_panics() {
        let mut whole = Vec::new();
        put_int(&mut whole, 1, 300);
        put_bytes(&mut whole, 2, b"abc");
        assert_eq!(Fields(&whole).collect::<Result<Vec<_>, _>>().map(|f| f.len()), Ok(2));
        for cut in 1..whole.len() {
            let read: Vec<_> = Fields(&whole[..cut]).collect();
            assert!(cut == 3 || read.last() == Some(&Err(Malformed)), "cut at {cut}: {read:?}");
        }
    }

    #[test]
    fn base64_reads_back_what_it_wrote() {
        for n in 0..70u8 {
            let bytes: Vec<u8> = (0..n).map(|i| i.wrapping_mul(37)).collect();
            assert_eq!(base64_decode(base64_encode(&bytes).as_bytes()).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(base64_decode(b"a\n"), None);
    }
}
