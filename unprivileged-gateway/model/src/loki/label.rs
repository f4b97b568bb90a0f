//! Label sets as Loki reads them, and names as it accepts them.
//!
//! A stream's labels are text: `{exporter="OTLP", job="shop/cart"}`, names sorted, values quoted as Go quotes. Equal sets
//! must be equal text, since the text is what a stream is found, sharded and named by in Loki's answers.

use super::{Limits, Offence};
use std::collections::BTreeMap;

/// A set of labels on its way to become text; sorted, a name once, no value empty (an empty label is no label).
#[derive(Default)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), String::from_utf8_lossy(value).into_owned());
        }
    }

    /// Labels of the destination: weaker than those of the entry.
    pub(super) fn under(&mut self, external: &[(String, String)]) {
        for (name, value) in external {
            let name = label_name(name);
            // Loki's clients take labels that start with two underscores for internal ones and leave them out.
            if !value.is_empty() && !name.starts_with("__") {
                self.0.entry(name).or_insert_with(|| value.clone());
            }
        }
    }

    /// The text, and the first limit it breaks.
    pub(super) fn finish(self, limits: &Limits) -> (String, Option<Offence>) {
        let offence = self.offence(limits);
        let mut text = String::from("{");
        for (name, value) in &self.0 {
            if text.len() > 1 {
                text.push_str(", ");
            }
            text.push_str(name);
            text.push('=');
            quote(&mut text, value);
        }
        text.push('}');
        (text, offence)
    }

    fn offence(&self, limits: &Limits) -> Option<Offence> {
        if self.0.len() > limits.label_names {
            let detail = format!("{} labels, the limit is {}", self.0.len(), limits.label_names);
            return Some(Offence { reason: "max_label_names_per_series", detail });
        }
        self.0.iter().find_map(|(name, value)| {
            let (reason, bytes, limit) = if name.len() > limits.label_name_bytes {
                ("label_name_too_long", name.len(), limits.label_name_bytes)
            } else if value.len() > limits.label_value_bytes {
                ("label_value_too_long", value.len(), limits.label_value_bytes)
            } else {
                return None;
            };
            let start = name.get(..name.floor_char_boundary(64)).unwrap_or("");
            Some(Offence { reason, detail: format!("label {start}: {bytes} bytes, the limit is {limit}") })
        })
    }
}

/// A label name as Alloy cleans it: other characters become `_`, a digit in front gets `key_`, one `_` in front `key`.
pub(super) fn label_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match clean.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{clean}"),
        [b'_', b'_', ..] => clean,
        [b'_', ..] => format!("key{clean}"),
        [] => "key_".to_owned(),
        _ => clean,
    }
}

/// Quotes as Go's `strconv.Quote`: what can be printed stays, the rest is escaped.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if prints(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
}

/// Whether a character is a letter, mark, number, punctuation or symbol. The standard library keeps this table to itself
/// but shows it in `escape_debug`; a letter in front keeps a combining mark from being escaped for standing alone.
fn prints(c: char) -> bool {
    let mut pair = String::from('a');
    pair.push(c);
    pair.escape_debug().eq(pair.chars())
}

/// Cleans a name for structured metadata in place and says whether it was ASCII (if not, see [`clean_wide`]).
///
/// Every character outside `[A-Za-z0-9_]` becomes `_`. Branch-free, so that the compiler can do sixteen bytes at a time.
#[inline]
pub(super) fn clean(name: &mut [u8]) -> bool {
    let mut all = 0;
    for b in name {
        all |= *b;
        let keep = b.is_ascii_alphanumeric();
        *b = if keep { *b } else { b'_' };
    }
    all < 0x80
}

/// [`clean`] for names with wide characters: one `_` for each character, not for each of its bytes.
#[cold]
pub(super) fn clean_wide(name: &[u8]) -> Vec<u8> {
    let mut clean: Vec<u8> = name.iter().copied().filter(|b| b & 0xc0 != 0x80).collect();
    self::clean(&mut clean);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_go_quotes() {
        let table = [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\0\u{1f}\u{7f}", r#""\x00\x1f\x7f""#),
            ("é 日本 e\u{301}", "\"é 日本 e\u{301}\""),
            ("\u{80}\u{a0}\u{200b}\u{feff}\u{2028}", r#""\u0080\u00a0\u200b\ufeff\u2028""#),
            ("\u{1f600}\u{e0001}\u{10ffff}", "\"\u{1f600}\\U000e0001\\U0010ffff\""),
            ("'", "\"'\""),
        ];
        for (value, expected) in table {
            let mut out = String::new();
            quote(&mut out, value);
            assert_eq!(out, expected, "{value:?}");
        }
    }

    #[test]
    fn label_names_are_cleaned_as_alloy_cleans_them() {
        let table = [
            ("app", "app"),
            ("k8s.pod-name", "k8s_pod_name"),
            ("0abc", "key_0abc"),
            ("_a", "key_a"),
            ("__a", "__a"),
            ("é", "key_"),
            ("", "key_"),
        ];
        for (name, expected) in table {
            assert_eq!(label_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn metadata_names_keep_letters_digits_and_underscores() {
        for (name, expected) in [("k8s.pod.uid", "k8s_pod_uid"), ("A_z9", "A_z9"), ("http/x y", "http_x_y")] {
            let mut b = name.as_bytes().to_vec();
            assert!(clean(&mut b));
            assert_eq!(b, expected.as_bytes());
        }
        assert!(!clean(&mut "größe".as_bytes().to_vec()));
        assert_eq!(clean_wide("größe.日".as_bytes()), b"gr__e__");
    }

    #[test]
    fn external_labels_yield_to_the_entry_and_internal_ones_are_left_out() {
        let mut labels = Labels::default();
        labels.set("job", b"a");
        labels.set("empty", b"");
        let external = [("job", "b"), ("cluster", "c1"), ("__tenant_id__", "t"), ("none", "")];
        labels.under(&external.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(labels.finish(&Limits::default()), (r#"{cluster="c1", job="a"}"#.to_owned(), None));
    }
}
