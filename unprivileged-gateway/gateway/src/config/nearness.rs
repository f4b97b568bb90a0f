//! `did you mean`: the known word that a mistyped one was probably meant to be.
//!
//! Like a patient librarian: first the same word spelt in another habit (`max-request`, `MaxRequest`), then what neighbours call
//! it (`endpoint` for `url`), then the nearest by edits, a swap of two letters counting as one. Weakness: it knows letters, not
//! meanings, beyond the few words listed here.

/// What other programs call a key of ours; tried only where the right-hand word is a key at that place.
const OTHER_NAMES: [(&str, &str); 22] = [
    ("address", "listen"),
    ("addr", "listen"),
    ("bind", "listen"),
    ("port", "listen"),
    ("endpoint", "url"),
    ("url", "endpoint"),
    ("uri", "url"),
    ("dir", "path"),
    ("directory", "path"),
    ("folder", "path"),
    ("size", "max"),
    ("max_size", "max"),
    ("limit", "budget"),
    ("username", "user"),
    ("tenant_id", "tenant"),
    ("basic_auth", "basic"),
    ("labels", "external_labels"),
    ("insecure", "tls"),
    ("receivers", "receive"),
    ("exporters", "send"),
    ("token_file", "bearer_file"),
    ("server", "http"),
];

/// Characters of a word that are compared; longer ones are no typos.
const WORD_CHARS_MAX: usize = 64;

/// The known word nearest to `wrong`, if any is near enough to be worth naming.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let folded = fold(wrong);
    if let Some(same) = known.clone().find(|word| fold(word) == folded) {
        return Some(same);
    }
    let other = OTHER_NAMES.iter().filter(|(theirs, _)| *theirs == folded).map(|(_, ours)| *ours);
    if let Some(word) = other.filter_map(|ours| known.clone().find(|word| *word == ours)).next() {
        return Some(word);
    }
    let allowed = (folded.chars().take(WORD_CHARS_MAX).count() / 3).max(1);
    let near = known.map(|word| (distance(&folded, word), word)).filter(|(edits, _)| *edits <= allowed);
    near.min().map(|(_, word)| word)
}

/// `maxRequest`, `max-request` and `MAX_REQUEST` are one word.
fn fold(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut before_lower = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && before_lower {
            out.push('_');
        }
        before_lower = c.is_ascii_lowercase();
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// Edits between two words (Damerau's restricted form); both are cut at [`WORD_CHARS_MAX`].
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(WORD_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(WORD_CHARS_MAX).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let plain = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if swapped { plain.min(rows[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_and_a_far_one_is_not() {
        let known = ["url", "tenant", "timeout", "external_labels", "max_request"];
        let near = |wrong| nearest(wrong, known.into_iter());
        assert_eq!(near("ulr"), Some("url"));
        assert_eq!(near("max-request"), Some("max_request"));
        assert_eq!(near("maxRequest"), Some("max_request"));
        assert_eq!(near("endpoint"), Some("url"));
        assert_eq!(near("tennant"), Some("tenant"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(10_000)), None);
    }
}
