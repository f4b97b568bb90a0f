//! OTLP/JSON in, OTLP protobuf out, in one pass.
//!
//! Like a simultaneous interpreter: each field is spoken in the other language as it is heard, and no one writes down the whole
//! speech. serde_json reads the text; the tables of [`schema`] say what each name becomes; bytes go straight into one buffer.
//! Structs in between would cost up to eighty times the text in memory (`{}` is a record) and a published decoder of that kind
//! was found to lose values silently: a gauge of "NaN", an enum by name. Weakness: nested lengths are not known beforehand, so
//! each message of 128 bytes or more is moved once, by a byte or two, when its length is written in front of it.

mod schema;

use super::answer::Fault;
use crate::seam::Signal;
use schema::{Field, Message, Presence, Type};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How deep messages may lie inside one another; a record's body lies at 4, each list inside it adds 2.
const NESTING_MAX: u32 = 32;
/// The most that text can grow: `0,` in an array of fixed 64-bit numbers.
pub(super) const GROWTH_MAX: u64 = 4;

/// The protobuf form of `text`, at most `max` bytes.
pub(super) fn to_protobuf(signal: Signal, text: &[u8], max: usize) -> Result<Vec<u8>, Fault> {
    let message = match signal {
        Signal::Logs => &schema::EXPORT_LOGS_SERVICE_REQUEST,
        Signal::Traces => &schema::EXPORT_TRACE_SERVICE_REQUEST,
        Signal::Metrics => &schema::EXPORT_METRICS_SERVICE_REQUEST,
        Signal::Profiles => return Err(Fault::Unserved("profiles have no JSON form here".into())),
    };
    let mut out = Out { bytes: Vec::with_capacity(text.len().min(max)), max, full: false };
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = MessageSeed { message, out: &mut out, depth: 0 }.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.full => Err(Fault::TooLarge(format!("the request is larger than {max} bytes as protobuf"))),
        Err(error) => Err(Fault::Malformed(format!("not OTLP/JSON: {error}"))),
    }
}

/// The growing request.
struct Out {
    bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Out {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn tag(&mut self, field: &Field, wire: u64) {
        self.varint(u64::from(field.number) << 3 | wire);
    }

    /// Writes the length of all that came after `start` in front of it.
    fn close(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        let mut prefix = [0u8; 10];
        let (mut size, mut rest) = (0, length as u64);
        loop {
            prefix[size] = if rest >= 0x80 { rest as u8 | 0x80 } else { rest as u8 };
            size += 1;
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(&prefix[..size]);
        self.bytes[start..].rotate_right(size);
    }

    fn check_room<E: Error>(&mut self) -> Result<(), E> {
        self.full = self.bytes.len() > self.max;
        if self.full { Err(E::custom("too large")) } else { Ok(()) }
    }
}

/// True if `key` is the field's name in lowerCamelCase or in snake_case; both forms are legal in protobuf's JSON.
fn names(field: &Field, key: &str) -> bool {
    if field.name == key {
        return true;
    }
    let mut key = key.bytes();
    for expected in field.name.bytes() {
        let found = if expected.is_ascii_uppercase() {
            if key.next() != Some(b'_') {
                return false;
            }
            expected.to_ascii_lowercase()
        } else {
            expected
        };
        if key.next() != Some(found) {
            return false;
        }
    }
    key.next().is_none()
}

/// Reads one JSON object as one message, without its length.
struct MessageSeed<'a> {
    message: &'static Message,
    out: &'a mut Out,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name.to_ascii_lowercase())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth > NESTING_MAX {
            return Err(A::Error::custom(format!("nested deeper than {NESTING_MAX} messages")));
        }
        while let Some(field) = map.next_key_seed(FieldName(self.message))? {
            match field {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(field) => map.next_value_seed(FieldSeed { field, out: &mut *self.out, depth: self.depth })?,
            }
            self.out.check_room()?;
        }
        Ok(())
    }
}

/// Reads a key as the field it names; none if the message has no such field.
struct FieldName(&'static Message);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<&'static Field>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<&'static Field>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| names(field, key)))
    }
}

/// Reads the value of a field: one, or an array of them.
struct FieldSeed<'a> {
    field: &'static Field,
    out: &'a mut Out,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let FieldSeed { field, out, depth } = self;
        match field.presence {
            Presence::Repeated => json.deserialize_any(ArrayVisitor { field, out, depth }),
            _ => json.deserialize_any(ValueVisitor { field, out, depth, packed: false, element: false }),
        }
    }
}

struct ArrayVisitor<'a> {
    field: &'static Field,
    out: &'a mut Out,
    depth: u32,
}

impl<'de> Visitor<'de> for ArrayVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array for {}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(()) // null is the default of every field
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let ArrayVisitor { field, out, depth } = self;
        let packed = !matches!(field.kind, Type::Message(_) | Type::Text | Type::Base64 | Type::Id(_));
        let start = out.bytes.len();
        loop {
            let element = ElementSeed(ValueVisitor { field, out: &mut *out, depth, packed, element: true });
            if array.next_element_seed(element)?.is_none() {
                break;
            }
            out.check_room()?;
        }
        if packed && out.bytes.len() > start {
            out.close(start);
            let end = out.bytes.len();
            out.tag(field, 2);
            let tag = out.bytes.len() - end;
            out.bytes[start..].rotate_right(tag);
        }
        Ok(())
    }
}

struct ElementSeed<'a>(ValueVisitor<'a>);

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self.0)
    }
}

/// Reads one value of a field's type and writes it, with its tag unless it lies in a packed array.
struct ValueVisitor<'a> {
    field: &'static Field,
    out: &'a mut Out,
    depth: u32,
    packed: bool,
    element: bool,
}

impl ValueVisitor<'_> {
    /// Elements of arrays and members of a oneof are written even if they are the default.
    fn skips(&self, is_default: bool) -> bool {
        is_default && !self.element && self.field.presence == Presence::Plain
    }

    fn wrong<E: Error>(&self) -> E {
        E::custom(format!("the value of {} is not of its type", self.field.name))
    }

    fn varint(self, value: u64) {
        if !self.skips(value == 0) {
            if !self.packed {
                self.out.tag(self.field, 0);
            }
            self.out.varint(value);
        }
    }

    fn fixed<const N: usize>(self, bytes: [u8; N]) {
        if !self.skips(bytes == [0; N]) {
            if !self.packed {
                self.out.tag(self.field, if N == 8 { 1 } else { 5 });
            }
            self.out.bytes.extend_from_slice(&bytes);
        }
    }

    fn delimited(self, bytes: &[u8]) {
        if !self.skips(bytes.is_empty()) {
            self.out.tag(self.field, 2);
            self.out.varint(bytes.len() as u64);
            self.out.bytes.extend_from_slice(bytes);
        }
    }

    /// A whole number, however it was written.
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let wrong = self.wrong::<E>();
        macro_rules! fit {
            ($kind:ty) => {
                match <$kind>::try_from(value) {
                    Ok(value) => value,
                    Err(_) => return Err(wrong),
                }
            };
        }
        match self.field.kind {
            Type::Int32 | Type::Enum(_) => {
                let value = fit!(i32);
                self.varint(i64::from(value) as u64);
            }
            Type::Int64 => {
                let value = fit!(i64);
                self.varint(value as u64);
            }
            Type::Uint32 => {
                let value = fit!(u32);
                self.varint(u64::from(value));
            }
            Type::Uint64 => {
                let value = fit!(u64);
                self.varint(value);
            }
            Type::Sint32 => {
                let value = fit!(i32);
                self.varint(u64::from((value << 1 ^ value >> 31) as u32));
            }
            Type::Fixed32 => {
                let value = fit!(u32);
                self.fixed(value.to_le_bytes());
            }
            Type::Fixed64 => {
                let value = fit!(u64);
                self.fixed(value.to_le_bytes());
            }
            Type::Sfixed64 => {
                let value = fit!(i64);
                self.fixed(value.to_le_bytes());
            }
            Type::Double => self.fixed((value as f64).to_le_bytes()),
            _ => return Err(wrong),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.element { Err(self.wrong()) } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Type::Bool => {
                self.varint(u64::from(value));
                Ok(())
            }
            _ => Err(self.wrong()),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if let Type::Double = self.field.kind {
            self.fixed(value.to_le_bytes());
            return Ok(());
        }
        // 1e3 is a whole number too; 2^64 is where f64 can no longer be outside all integer types.
        if value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0 {
            return self.integer(value as i128);
        }
        Err(self.wrong())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Type::Text => self.delimited(text.as_bytes()),
            Type::Base64 => {
                let bytes = base64(text).ok_or_else(|| self.wrong::<E>())?;
                self.delimited(&bytes);
            }
            Type::Id(length) => {
                let mut id = [0u8; 16];
                let length = hex(text, &mut id[..length]).ok_or_else(|| self.wrong::<E>())?;
                self.delimited(&id[..length]);
            }
            Type::Double => {
                let value = double(text).ok_or_else(|| self.wrong::<E>())?;
                self.fixed(value.to_le_bytes());
            }
            Type::Enum(known) => match known.iter().position(|name| *name == text) {
                Some(value) => self.varint(value as u64),
                None => return text.parse::<i32>().map_err(|_| self.wrong()).and_then(|v| self.integer(v.into())),
            },
            Type::Bool | Type::Message(_) => return Err(self.wrong()),
            _ => return text.parse::<i128>().map_err(|_| self.wrong()).and_then(|value| self.integer(value)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Type::Message(message) = self.field.kind else { return Err(self.wrong()) };
        self.out.tag(self.field, 2);
        let start = self.out.bytes.len();
        MessageSeed { message, out: &mut *self.out, depth: self.depth + 1 }.visit_map(map)?;
        self.out.close(start);
        Ok(())
    }
}

/// A double as protobuf's JSON writes it in text.
fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust also reads "inf" and "nan", which are nobody's JSON.
        _ => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

/// Hex in either case, of exactly the target's size or empty; how many bytes there were.
fn hex(text: &str, id: &mut [u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    if text.len() != id.len() * 2 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(id.len())
}

/// Base64 in either alphabet, padded or not.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
