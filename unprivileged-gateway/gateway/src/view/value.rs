//! OpenTelemetry's loosely typed values, as text and as JSON.
//!
//! A translator who stops listening after a while: any nesting and any length is accepted, and what lies deeper than
//! [`DEPTH_MAX`] or beyond [`VALUE_BYTES_MAX`] is left out visibly. Weakness: what was cut is not in the view; the log has it.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Lists and maps within each other that are shown.
pub(super) const DEPTH_MAX: usize = 32;
/// Bytes of one attribute's value that are shown.
pub(super) const VALUE_BYTES_MAX: usize = 8 * 1024;
const DEEPER: &str = "(nested deeper than is shown)";

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The longest head of `text` that has at most `bytes_max` bytes and ends between two characters.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `text` if it is short enough, else its head and how much there was.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}… (cut, {} bytes in all)", head(text, bytes_max), text.len())
}

/// RFC 4648, standard alphabet, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A body or an attribute as one text, as Loki gets it: a string is itself, lists and maps are JSON, bytes are base64.
pub(super) fn text(value: Option<&AnyValue>, bytes_max: usize) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Any::StringValue(text)) => cut(text, bytes_max),
        Some(Any::BytesValue(bytes)) => cut(&base64(&bytes[..bytes.len().min(bytes_max)]), bytes_max),
        Some(Any::ArrayValue(_) | Any::KvlistValue(_)) => cut(&json(value, 0).to_string(), bytes_max),
        Some(other) => scalar(other),
    }
}

fn scalar(value: &Any) -> String {
    match value {
        Any::BoolValue(value) => value.to_string(),
        Any::IntValue(value) => value.to_string(),
        Any::DoubleValue(value) => double(*value),
        Any::StringValueStrindex(_)
        | Any::StringValue(_)
        | Any::BytesValue(_)
        | Any::ArrayValue(_)
        | Any::KvlistValue(_) => String::new(),
    }
}

/// The shortest digits that read back as the same number; an exponent below 1e-6 and from 1e21 on, as in JSON.
fn double(value: f64) -> String {
    let size = value.abs();
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    if size == 0.0 || value.is_nan() || (1e-6..1e21).contains(&size) {
        return value.to_string();
    }
    let digits = format!("{value:e}");
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => format!("{mantissa}e+{exponent}"),
        _ => digits,
    }
}

fn json(value: Option<&AnyValue>, depth: usize) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => cut(text, VALUE_BYTES_MAX).into(),
        Some(Any::BoolValue(value)) => (*value).into(),
        // Beyond 2^53 a browser would round it.
        Some(Any::IntValue(value)) if value.unsigned_abs() > 1 << 53 => value.to_string().into(),
        Some(Any::IntValue(value)) => (*value).into(),
        // Without a point, as JavaScript and Loki's JSON write it.
        Some(Any::DoubleValue(value)) if value.fract() == 0.0 && value.abs() < 1e15 => (*value as i64).into(),
        Some(Any::DoubleValue(value)) if value.is_finite() => (*value).into(),
        Some(Any::BytesValue(bytes)) => base64(&bytes[..bytes.len().min(VALUE_BYTES_MAX / 2)]).into(),
        Some(Any::ArrayValue(_) | Any::KvlistValue(_)) if depth >= DEPTH_MAX => DEEPER.into(),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|value| json(Some(value), depth + 1)).collect(),
        Some(Any::KvlistValue(map)) => Value::Object(object(&map.values, depth + 1)),
        Some(other) => scalar(other).into(),
    }
}

/// Attributes as a JSON object; of two with one key the later wins.
pub(super) fn object(attributes: &[KeyValue], depth: usize) -> Map<String, Value> {
    attributes
        .iter()
        .map(|attribute| (cut(&attribute.key, VALUE_BYTES_MAX), json(attribute.value.as_ref(), depth)))
        .collect()
}

/// An attribute's name as structured metadata has it: every character outside `[A-Za-z0-9_]` becomes `_`.
pub(super) fn metadata_name(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    match head(name, VALUE_BYTES_MAX) {
        // Loki has no nameless metadata.
        "" => "_".to_owned(),
        name => name.chars().map(clean).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::ArrayValue;

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    #[test]
    fn nesting_beyond_the_limit_is_cut_and_said() {
        let mut value = any(Any::IntValue(7));
        for _ in 0..200 {
            value = any(Any::ArrayValue(ArrayValue { values: vec![value] }));
        }
        let text = text(Some(&value), 4096);
        assert!(text.contains(DEEPER) && text.starts_with(&"[".repeat(DEPTH_MAX)), "{text}");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let value = any(Any::StringValue("é".repeat(100)));
        assert_eq!(text(Some(&value), 11), format!("{}… (cut, 200 bytes in all)", "é".repeat(5)));
        assert_eq!(head("日本", 1), "");
    }

    #[test]
    fn numbers_a_browser_would_round_are_text() {
        assert_eq!(json(Some(&any(Any::IntValue(i64::MIN))), 0), Value::from("-9223372036854775808"));
        assert_eq!(json(Some(&any(Any::IntValue(5))), 0), Value::from(5));
        assert_eq!(json(Some(&any(Any::DoubleValue(f64::NAN))), 0), Value::from("NaN"));
    }

    #[test]
    fn names_of_metadata_have_only_letters_digits_and_underscores() {
        assert_eq!(metadata_name("k8s.pod.uid"), "k8s_pod_uid");
        assert_eq!(metadata_name("größe-1"), "gr__e_1");
    }
}
