//! `loki.format: logfmt`: a line of `key=value`, as Alloy's exporter writes it.
//!
//! A string body that is logfmt itself goes in as it is; any other is `msg`. Nested values are flattened, their keys joined
//! with `_`. Pairs without a value (`key=`) are what words of a plain sentence become, since a lone word is legal logfmt.

use super::alloy::Parts;
use super::entry::is_set;
use super::value::{Any, Odd, Pairs, hex, int, json_string, map_pairs, text};
use crate::wire::{Fault, Fields, NESTING_MAX, Value};

/// Keys and values, in order.
type Keyvals = Vec<(Vec<u8>, Vec<u8>)>;

/// Appends the line; stops soon after `max` bytes.
pub(super) fn line(out: &mut Vec<u8>, parts: &Parts, max: usize) -> Result<(), Odd> {
    let mut keyvals = Keyvals::new();
    let room = &mut max.saturating_add(1);
    match parts.body {
        Any::Empty => {}
        Any::Text(s) => match parse(s) {
            Some(inlined) => keyvals = inlined,
            None => keyvals.push((b"msg".to_vec(), s.to_vec())),
        },
        Any::Map(_) => flatten(&mut keyvals, b"", parts.body, NESTING_MAX, room)?,
        Any::List(_) => flatten(&mut keyvals, b"body", parts.body, NESTING_MAX, room)?,
        _ => flatten(&mut keyvals, b"msg", parts.body, NESTING_MAX, room)?,
    }
    for (name, id) in [("traceID", parts.record.trace_id), ("spanID", parts.record.span_id)] {
        if is_set(id) {
            let mut digits = Vec::new();
            hex(&mut digits, id);
            set(&mut keyvals, name, digits);
        }
    }
    if !parts.record.text.is_empty() {
        set(&mut keyvals, "severity", parts.record.text.to_vec());
    }
    if parts.record.flags != 0 {
        let mut flags = Vec::new();
        int(&mut flags, i64::from(parts.record.flags));
        set(&mut keyvals, "flags", flags);
    }
    prefixed(&mut keyvals, "attribute_", &parts.attributes, room)?;
    prefixed(&mut keyvals, "resource_", &parts.resource, room)?;
    if !parts.scope_name.is_empty() {
        keyvals.push((b"instrumentation_scope_name".to_vec(), parts.scope_name.to_vec()));
        if !parts.scope_version.is_empty() {
            keyvals.push((b"instrumentation_scope_version".to_vec(), parts.scope_version.to_vec()));
        }
    }
    write(out, &keyvals);
    Ok(())
}

fn prefixed(keyvals: &mut Keyvals, prefix: &str, pairs: &Pairs, room: &mut usize) -> Result<(), Odd> {
    for (key, any) in pairs {
        let key = [prefix.as_bytes(), key].concat();
        flatten(keyvals, &key, Any::parse(any)?, NESTING_MAX, room)?;
    }
    Ok(())
}

/// Replaces the value of a key, or appends the pair.
fn set(keyvals: &mut Keyvals, key: &str, value: Vec<u8>) {
    match keyvals.iter_mut().find(|(k, _)| k == key.as_bytes()) {
        Some(pair) => pair.1 = value,
        None => keyvals.push((key.as_bytes().to_vec(), value)),
    }
}

/// `room`: bytes that may still be made; nested keys repeat their prefix, so that little input could become much.
fn flatten(keyvals: &mut Keyvals, key: &[u8], any: Any, levels: u32, room: &mut usize) -> Result<(), Odd> {
    let levels = levels.checked_sub(1).ok_or(Fault::Depth)?;
    let inner = |name: &[u8]| if key.is_empty() { name.to_vec() } else { [key, b"_", name].concat() };
    match any {
        _ if *room == 0 => {}
        Any::Empty => {}
        Any::Map(map) => {
            for (name, any) in map_pairs(map)? {
                flatten(keyvals, &inner(name), Any::parse(any)?, levels, room)?;
            }
        }
        Any::List(list) => {
            let values = Fields(list).filter(|f| matches!(f, Ok((1, _)) | Err(_)));
            for (i, field) in values.enumerate() {
                if let (_, Value::Bytes(any)) = field? {
                    flatten(keyvals, &inner(i.to_string().as_bytes()), Any::parse(any)?, levels, room)?;
                }
            }
        }
        scalar => {
            let mut value = Vec::new();
            text(&mut value, scalar, usize::MAX)?;
            *room = room.saturating_sub(key.len() + value.len() + 2);
            keyvals.push((key.to_vec(), value));
        }
    }
    Ok(())
}

fn write(out: &mut Vec<u8>, keyvals: &Keyvals) {
    for (key, value) in keyvals {
        let key: Vec<u8> = key.iter().copied().filter(|&b| is_key(b)).collect();
        if key.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(&key);
        out.push(b'=');
        if value.iter().all(|&b| is_key(b)) && value != b"null" {
            out.extend_from_slice(value);
        } else {
            json_string(out, value, false);
        }
    }
}

/// Bytes that a key, or a value without quotes, may hold.
fn is_key(b: u8) -> bool {
    b > b' ' && b != b'=' && b != b'"'
}

/// Reads a line of logfmt. None: it is not.
fn parse(line: &[u8]) -> Option<Keyvals> {
    let mut keyvals = Keyvals::new();
    let mut rest = line.split(|&b| b == b'\n').next().unwrap_or_default();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(keyvals);
        }
        let end = rest.iter().position(|&b| !is_key(b)).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(end);
        if key.is_empty() {
            return None; // a value without a key
        }
        rest = tail;
        let mut value = Vec::new();
        if let Some(tail) = tail.strip_prefix(b"=") {
            (value, rest) = if tail.first() == Some(&b'"') { quoted(tail)? } else { bare(tail)? };
        }
        if rest.first().is_some_and(|&b| b > b' ') {
            return None; // quote or equals sign where neither belongs
        }
        keyvals.push((key.to_vec(), value));
    }
}

fn bare(tail: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = tail.iter().position(|&b| !is_key(b)).unwrap_or(tail.len());
    let (value, rest) = tail.split_at(end);
    Some((value.to_vec(), rest))
}

fn quoted(tail: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = tail.strip_prefix(b"\"")?;
    loop {
        let (&b, tail) = rest.split_first()?;
        rest = tail;
        match b {
            b'"' => return Some((value, rest)),
            b'\\' => {
                let (&escaped, tail) = rest.split_first()?;
                rest = tail;
                match escaped {
                    b'n' => value.push(b'\n'),
                    b'r' => value.push(b'\r'),
                    b't' => value.push(b'\t'),
                    b'b' => value.push(8),
                    b'f' => value.push(12),
                    b'"' | b'\\' | b'/' | b'\'' => value.push(escaped),
                    b'u' => {
                        let (digits, tail) = rest.split_first_chunk::<4>()?;
                        let code = u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
                        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                        value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        rest = tail;
                    }
                    _ => return None,
                }
            }
            _ => value.push(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(line: &str) -> Option<String> {
        let mut out = Vec::new();
        write(&mut out, &parse(line.as_bytes())?);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn logfmt_is_read_and_written_and_what_is_not_logfmt_is_said_so() {
        let table = [
            ("a=1 b=\"x y\" c", Some("a=1 b=\"x y\" c=")),
            ("plain words", Some("plain= words=")),
            ("q=\"\\\"\\u00e9\\n\" n=null", Some("q=\"\\\"é\\n\" n=\"null\"")),
            ("", Some("")),
            ("a=\"open", None),
            ("=1", None),
            ("a\"b", None),
            ("a=b=c", None),
            ("a=\"x\"y", None),
        ];
        for (line, expected) in table {
            assert_eq!(round(line).as_deref(), expected, "{line}");
        }
    }
}
