//! An OTLP value as text.
//!
//! A string is itself, a number is written as Go's and JavaScript's JSON would write it, bytes are base64 (as in OTLP/JSON
//! and in the collector's string form), lists and maps are compact JSON with sorted keys. The walk follows the nesting of
//! the input, which [`crate::otlp::check`] bounds, and stops early once more has been written than anybody will keep.
//!
//! The weakness: protobuf allows a singular field to appear twice, and then the two are merged. No encoder does it; here
//! it is only noticed ([`Odd::Twice`]) and the caller takes the slow path, which merges first.

use crate::wire::{Fault, Fields, NESTING_MAX, Value};
use std::io::Write;

/// Why the fast path gave up on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    Fault(Fault),
    /// Legal but rare: something appears twice and has to be merged by the slow path.
    Twice,
}

impl From<Fault> for Odd {
    fn from(fault: Fault) -> Odd {
        Odd::Fault(fault)
    }
}

/// An `AnyValue`, borrowed. Lists and maps are the bytes of `ArrayValue` and `KeyValueList`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Any<'a> {
    Empty,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

impl<'a> Any<'a> {
    #[inline]
    pub(super) fn parse(any: &'a [u8]) -> Result<Any<'a>, Odd> {
        let mut found = None;
        for field in Fields(any) {
            let value = match field? {
                (1, Value::Bytes(s)) => Any::Text(s),
                (2, Value::Varint(v)) => Any::Bool(v != 0),
                (3, Value::Varint(v)) => Any::Int(v as i64),
                (4, Value::Fixed64(v)) => Any::Double(f64::from_bits(v)),
                (5, Value::Bytes(b)) => Any::List(b),
                (6, Value::Bytes(b)) => Any::Map(b),
                (7, Value::Bytes(b)) => Any::Bytes(b),
                // An index into a dictionary that only profiles carry: there is nothing it could mean here.
                (8, Value::Varint(_)) => Any::Empty,
                (1..=8, _) => return Err(Fault::Type.into()),
                _ => continue,
            };
            if found.replace(value).is_some() {
                return Err(Odd::Twice);
            }
        }
        Ok(found.unwrap_or(Any::Empty))
    }
}

/// Key and value of a `KeyValue`.
#[inline]
pub(super) fn key_value(kv: &[u8]) -> Result<(&[u8], &[u8]), Odd> {
    let (mut key, mut value): (&[u8], Option<&[u8]>) = (&[], None);
    for field in Fields(kv) {
        match field? {
            (1, Value::Bytes(b)) => key = b,
            (2, Value::Bytes(b)) if value.is_none() => value = Some(b),
            (2, Value::Bytes(_)) => return Err(Odd::Twice),
            (1 | 2, _) => return Err(Fault::Type.into()),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or(&[])))
}

/// Appends the string form of `any`. Strings and bytes are written whole; JSON stops soon after `max` bytes.
pub(super) fn text(out: &mut Vec<u8>, any: Any, max: usize) -> Result<(), Odd> {
    match any {
        Any::Empty => {}
        Any::Text(s) => out.extend_from_slice(s),
        Any::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
        Any::Int(v) => int(out, v),
        Any::Double(v) => double(out, v),
        Any::Bytes(b) => base64(out, b),
        Any::List(_) | Any::Map(_) => json(out, any, max, false)?,
    }
    Ok(())
}

/// Appends compact JSON. `html`: also escape `<`, `>` and `&`, as Go's `json.Marshal` does.
///
/// Once more than `max` bytes are written the rest is left out; the caller cuts there anyway.
pub(super) fn json(out: &mut Vec<u8>, any: Any, max: usize, html: bool) -> Result<(), Odd> {
    let stop_at = out.len().saturating_add(max);
    Json { out, stop_at, html }.value(any, NESTING_MAX)
}

/// A JSON string with its quotes.
pub(super) fn json_string(out: &mut Vec<u8>, s: &[u8], html: bool) {
    Json { out, stop_at: usize::MAX, html }.string(s);
}

/// Maps larger than this are written in the sender's order, since sorting them would cost more memory than they do.
const SORT_BYTES_MAX: usize = 1 << 20;

struct Json<'o> {
    out: &'o mut Vec<u8>,
    stop_at: usize,
    html: bool,
}

impl Json<'_> {
    fn full(&self) -> bool {
        self.out.len() > self.stop_at
    }

    fn value(&mut self, any: Any, levels: u32) -> Result<(), Odd> {
        match any {
            Any::Empty => self.out.extend_from_slice(b"null"),
            Any::Text(s) => self.string(s),
            Any::Double(v) if !v.is_finite() => {
                self.out.push(b'"');
                double(self.out, v);
                self.out.push(b'"');
            }
            Any::Bytes(b) => {
                self.out.push(b'"');
                base64(self.out, b);
                self.out.push(b'"');
            }
            Any::List(b) => self.list(b, levels.checked_sub(1).ok_or(Fault::Depth)?)?,
            Any::Map(b) => self.map(b, levels.checked_sub(1).ok_or(Fault::Depth)?)?,
            scalar => text(self.out, scalar, usize::MAX)?,
        }
        Ok(())
    }

    fn list(&mut self, list: &[u8], levels: u32) -> Result<(), Odd> {
        self.out.push(b'[');
        let mut first = true;
        for field in Fields(list) {
            if let (1, Value::Bytes(any)) = field? {
                if self.full() {
                    break;
                }
                if !std::mem::take(&mut first) {
                    self.out.push(b',');
                }
                self.value(Any::parse(any)?, levels)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, map: &[u8], levels: u32) -> Result<(), Odd> {
        let mut pairs = map_pairs(map)?;
        sort_pairs(&mut pairs, map.len());
        self.out.push(b'{');
        for (i, &(key, any)) in pairs.iter().enumerate() {
            if self.full() {
                break;
            }
            if i > 0 {
                self.out.push(b',');
            }
            self.string(key);
            self.out.push(b':');
            self.value(Any::parse(any)?, levels)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn string(&mut self, s: &[u8]) {
        self.out.push(b'"');
        let mut rest = s;
        while let Some(n) = rest.iter().position(|&b| b < 0x20 || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2))
        {
            if self.full() {
                rest = &[];
                break;
            }
            let (plain, tail) = rest.split_at(n);
            self.out.extend_from_slice(plain);
            let used = self.escape(tail);
            rest = &tail[used..];
        }
        self.out.extend_from_slice(rest);
        self.out.push(b'"');
    }

    /// Writes the character at the start of `tail`, which may need escaping; returns how many bytes it was.
    fn escape(&mut self, tail: &[u8]) -> usize {
        match tail {
            // Line and paragraph separators end a line in JavaScript; Go escapes them always.
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
                self.out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                return 3;
            }
            [b'"', ..] => self.out.extend_from_slice(b"\\\""),
            [b'\\', ..] => self.out.extend_from_slice(b"\\\\"),
            [b'\n', ..] => self.out.extend_from_slice(b"\\n"),
            [b'\r', ..] => self.out.extend_from_slice(b"\\r"),
            [b'\t', ..] => self.out.extend_from_slice(b"\\t"),
            [0x08, ..] => self.out.extend_from_slice(b"\\b"),
            [0x0c, ..] => self.out.extend_from_slice(b"\\f"),
            [b, ..] if *b < 0x20 || self.html && matches!(b, b'<' | b'>' | b'&') => {
                self.out.extend_from_slice(b"\\u00");
                hex(self.out, &[*b]);
            }
            [b, ..] => self.out.push(*b),
            [] => return 0,
        }
        1
    }
}

/// Keys, and values as `AnyValue`.
pub(super) type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Keys and values of a `KeyValueList`, in the sender's order.
pub(super) fn map_pairs(map: &[u8]) -> Result<Pairs<'_>, Odd> {
    let mut pairs = Vec::new();
    for field in Fields(map) {
        if let (1, Value::Bytes(kv)) = field? {
            pairs.push(key_value(kv)?);
        }
    }
    Ok(pairs)
}

/// Sorts by key; of several equal keys the last one stays.
pub(super) fn sort_pairs(pairs: &mut Pairs, bytes: usize) {
    if pairs.len() > 1 && bytes <= SORT_BYTES_MAX {
        pairs.reverse();
        pairs.sort_by_key(|p| p.0); // stable: of equal keys the last sent now comes first
        pairs.dedup_by_key(|p| p.0);
    }
}

pub(super) fn int(out: &mut Vec<u8>, v: i64) {
    // Writing into a Vec does not fail.
    let _ = write!(out, "{v}");
}

/// The shortest digits that read back as the same number; an exponent below 1e-6 and from 1e21 on, as in JSON.
pub(super) fn double(out: &mut Vec<u8>, v: f64) {
    let size = v.abs();
    let _ = if v.is_nan() {
        write!(out, "NaN")
    } else if v.is_infinite() {
        write!(out, "{}", if v > 0.0 { "Infinity" } else { "-Infinity" })
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let digits = format!("{v:e}");
        match digits.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => write!(out, "{mantissa}e+{exponent}"),
            _ => write!(out, "{digits}"),
        }
    } else {
        write!(out, "{v}")
    };
}

static HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [DIGITS[i >> 4], DIGITS[i & 15]];
        i += 1;
    }
    table
};

#[inline]
pub(super) fn hex(out: &mut Vec<u8>, b: &[u8]) {
    out.extend(b.iter().flat_map(|&b| HEX[usize::from(b)]));
}

/// Standard alphabet, padded.
pub(super) fn base64(out: &mut Vec<u8>, b: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(b.len().div_ceil(3) * 4);
    for chunk in b.chunks(3) {
        let [x, y, z] = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)));
        let bits = x << 16 | y << 8 | z;
        let digit = |shift: u32| DIGITS[(bits >> shift & 63) as usize];
        let third = if chunk.len() > 1 { digit(6) } else { b'=' };
        let fourth = if chunk.len() > 2 { digit(0) } else { b'=' };
        out.extend_from_slice(&[digit(18), digit(12), third, fourth]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as V};
    use prost::Message;

    fn text_of(value: V) -> String {
        let bytes = AnyValue { value: Some(value) }.encode_to_vec();
        let mut out = Vec::new();
        text(&mut out, Any::parse(&bytes).unwrap(), usize::MAX).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn kv(key: &str, value: V) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    }

    fn list(values: Vec<V>) -> V {
        V::ArrayValue(ArrayValue { values: values.into_iter().map(|v| AnyValue { value: Some(v) }).collect() })
    }

    fn s(text: &str) -> V {
        V::StringValue(text.into())
    }

    #[test]
    fn values_are_written_as_go_and_json_would_write_them() {
        let table = [
            (s("as <it> \"is\"\n"), "as <it> \"is\"\n"),
            (V::BoolValue(true), "true"),
            (V::BoolValue(false), "false"),
            (V::IntValue(i64::MIN), "-9223372036854775808"),
            (V::DoubleValue(1.0), "1"),
            (V::DoubleValue(-0.0), "-0"),
            (V::DoubleValue(0.1), "0.1"),
            (V::DoubleValue(1e20), "100000000000000000000"),
            (V::DoubleValue(1e21), "1e+21"),
            (V::DoubleValue(-1.5e300), "-1.5e+300"),
            (V::DoubleValue(0.000001), "0.000001"),
            (V::DoubleValue(1.25e-7), "1.25e-7"),
            (V::DoubleValue(5e-324), "5e-324"),
            (V::DoubleValue(f64::NAN), "NaN"),
            (V::DoubleValue(f64::NEG_INFINITY), "-Infinity"),
            (V::BytesValue(vec![]), ""),
            (V::BytesValue(vec![0xff]), "/w=="),
            (V::BytesValue(vec![0, 1]), "AAE="),
            (V::BytesValue(vec![1, 2, 3]), "AQID"),
            (V::StringValueStrindex(3), ""),
            (list(vec![]), "[]"),
            (list(vec![s("a\"\\\u{1}\u{2028}é<"), V::IntValue(1)]), "[\"a\\\"\\\\\\u0001\\u2028é<\",1]"),
            (list(vec![V::DoubleValue(f64::INFINITY), V::BytesValue(vec![7])]), "[\"Infinity\",\"Bw==\"]"),
            (list(vec![list(vec![list(vec![])]), V::BoolValue(true)]), "[[[]],true]"),
        ];
        for (value, expected) in table {
            assert_eq!(text_of(value.clone()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_map_is_sorted_and_its_last_of_equal_keys_wins() {
        let values = vec![kv("b", V::IntValue(1)), kv("a", s("x")), kv("b", list(vec![])), KeyValue::default()];
        let map = V::KvlistValue(KeyValueList { values });
        assert_eq!(text_of(map), r#"{"":null,"a":"x","b":[]}"#);
    }

    #[test]
    fn html_is_escaped_only_where_go_would() {
        let mut out = Vec::new();
        json_string(&mut out, b"<&>\x08\x0c\t\xe2\x80", true);
        assert_eq!(out, b"\"\\u003c\\u0026\\u003e\\b\\f\\t\xe2\x80\"");
    }

    #[test]
    fn json_stops_soon_after_what_anybody_will_keep() {
        let many = AnyValue { value: Some(list(vec![s("\u{1}\u{1}\u{1}\u{1}\u{1}"); 100_000])) }.encode_to_vec();
        let mut out = Vec::new();
        text(&mut out, Any::parse(&many).unwrap(), 1_000).unwrap();
        assert!(out.len() > 1_000 && out.len() < 1_100, "{}", out.len());
        let long = AnyValue { value: Some(list(vec![s(&"\u{1}".repeat(1 << 20))])) }.encode_to_vec();
        out.clear();
        text(&mut out, Any::parse(&long).unwrap(), 1_000).unwrap();
        assert!(out.len() > 1_000 && out.len() < 1_100, "{}", out.len());
    }
}
