//! Finding a text within a text, whatever the case.
//!
//! A finger along the page: the first letter in either case stops it, then the rest is compared. Without a letter beyond ASCII
//! nothing is copied. Weakness: a search with other letters lower-cases each line anew, some five times slower.

/// What is looked for.
pub(super) struct Needle {
    lower: String,
}

impl Needle {
    pub(super) fn new(text: &str) -> Needle {
        Needle { lower: text.to_lowercase() }
    }

    /// Could it be part of a trace or span id?
    pub(super) fn is_hex(&self) -> bool {
        !self.lower.is_empty() && self.lower.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// An empty needle is in everything.
    pub(super) fn is_in(&self, text: &str) -> bool {
        if !self.lower.is_ascii() {
            return text.to_lowercase().contains(&self.lower);
        }
        let needle = self.lower.as_bytes();
        let Some(first) = needle.first() else { return true };
        text.as_bytes()
            .windows(needle.len())
            .any(|window| window[0].to_ascii_lowercase() == *first && window.eq_ignore_ascii_case(needle))
    }
}

/// A trace id as people paste it: 32 hex digits, in any case.
pub(super) fn trace_id(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_and_the_whole_text_counts() {
        let found = |needle, text| Needle::new(needle).is_in(text);
        assert!(found("TIMEOUT", "request timeout") && found("timeout", "TimeOut") && found("", ""));
        assert!(found("größe", "GRÖSSE GRÖßE") && found("a", "bA"));
        assert!(!found("timeouts", "timeout") && !found("x", ""));
    }

    #[test]
    fn only_32_hex_digits_are_a_trace_id() {
        assert_eq!(trace_id("0000000000000000000000000000ABcd").map(|id| id[15]), Some(0xcd));
        for text in ["", "zz", "+000000000000000000000000000abcd", "00000000000000000000000000000000ff"] {
            assert_eq!(trace_id(text), None, "{text}");
        }
    }
}
