//! What may be shown of a line.
//!
//! Like the black bars in a released document: secrets that are known by place are covered, and of a text that could not be
//! understood only what is certainly harmless stays readable: keys where a key stands, and values of keys that never hold a secret.
//! Weakness: a destination's odd name in a broken file is covered too, which costs a little reading.

use super::secret::MASK;
use super::shape;

/// Words in a key after which a value is secret, even where the key is unknown.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "pasword", "secret", "token", "bearer", "authorization", "api-key"];

/// Longest run in the place of a key that is taken for one, in characters.
const KEY_CHARS_MAX: usize = 40;

/// Longest path that is repeated, in characters.
const PATH_CHARS_MAX: usize = 200;

/// A stretch of a line in characters, the end exclusive.
pub(super) type Cut = (usize, usize);

/// True for a key whose value should not be shown even though the key is not known. File forms hold a path, which is fine.
pub(super) fn secret_like(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('_', "-");
    !key.ends_with("-file") && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// A key as it may be shown. One that is no word holds what was meant to be its value: `bearer x`, `password:x`.
pub(super) fn safe_key(key: &str) -> String {
    let word = word_of(key);
    if word.len() == key.len() { key.to_owned() } else { format!("{word}...") }
}

/// The part of a key, or of a path, that is a word.
pub(super) fn word_of(key: &str) -> &str {
    let end = key.find(|c: char| !c.is_alphanumeric() && !"_-./".contains(c)).unwrap_or(key.len());
    let end = key.char_indices().nth(PATH_CHARS_MAX).map_or(end, |(at, _)| end.min(at));
    &key[..end]
}

/// Where a comment on this line seems to hold a secret; comments are no part of a tree.
pub(super) fn comment_cut(line: &[char]) -> Option<Cut> {
    let at = line.windows(2).position(|pair| pair == [' ', '#'])? + 1;
    let comment: String = line[at..].iter().collect();
    let lower = comment.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| lower.contains(word)).then_some((at, line.len()))
}

/// What to cover of a line of a text that never became a tree. `path`: the line begins with `a.b.c=`.
pub(super) fn doubtful_cuts(line: &[char], path: bool) -> Vec<Cut> {
    let mut reader = Reader { cuts: Vec::new(), key: None, at_key: true };
    let mut at = 0;
    if path && let Some(equals) = line.iter().position(|c| *c == '=') {
        let keys: String = line[..equals].iter().collect();
        reader.key = keys.rsplit('.').next().map(str::to_owned);
        reader.at_key = false;
        at = equals + 1;
    }
    while at < line.len() {
        let end = at + line[at..].iter().take_while(|c| !is_structure(**c)).count();
        let end = separator_from(line, at).map_or(end, |colon| colon.min(end));
        if end > at {
            reader.run(line, at, end);
            at = end;
        } else {
            match line[at] {
                '{' | ',' => (reader.key, reader.at_key) = (None, true),
                '}' | ']' => (reader.key, reader.at_key) = (None, false),
                '#' => {
                    reader.cuts.push((at, line.len()));
                    break;
                }
                _ => {}
            }
            at += 1;
        }
    }
    reader.cuts
}

fn is_structure(c: char) -> bool {
    matches!(c, '{' | '}' | '[' | ']' | ',' | '"' | '\'' | '#')
}

/// The first colon from here that YAML takes for a separator.
fn separator_from(line: &[char], from: usize) -> Option<usize> {
    let is_separator = |at: &usize| line[*at] == ':' && line.get(at + 1).is_none_or(|next| *next == ' ');
    (from..line.len()).find(is_separator)
}

struct Reader {
    cuts: Vec<Cut>,
    /// The key whose value comes next, while that is certain.
    key: Option<String>,
    /// A key may stand here: at the start of the line, after `{` and `,`.
    at_key: bool,
}

impl Reader {
    /// One run without structure: a key, a value, or who knows.
    fn run(&mut self, line: &[char], from: usize, to: usize) {
        let text: String = line[from..to].iter().collect();
        let text = text.trim().trim_start_matches("- ");
        if !text.contains(char::is_alphanumeric) {
            return;
        }
        let after = line[to..].iter().position(|c| !matches!(c, '"' | '\'')).map(|skip| to + skip);
        let is_key = after.is_some_and(|after| separator_from(line, after) == Some(after));
        let harmless_word = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
        if is_key && self.at_key && text.len() <= KEY_CHARS_MAX && text.chars().all(harmless_word) {
            self.key = Some(text.to_owned());
            self.at_key = false;
            return;
        }
        // A separator stands before a value's run; it belongs to no text.
        let from = from + line[from..to].iter().take_while(|c| matches!(c, ':' | ' ')).count();
        let shown = self.key.as_deref().is_some_and(shape::is_harmless_key) && !is_key && !text.contains('@');
        if !shown {
            self.cuts.push((from, to));
        }
        if is_key {
            self.key = None;
        }
    }
}

/// Replaces each cut by `(secret)`; returns the line and where `column` has moved to. Overlapping cuts become one.
pub(super) fn mask(chars: &[char], cuts: &[Cut], column: usize) -> (String, usize) {
    let (mut line, mut width, mut at, mut moved) = (String::new(), 0, 0, None);
    for (from, to) in cuts.iter().copied() {
        if to <= at {
            continue;
        }
        let joins = from <= at && at > 0 && line.ends_with(MASK);
        let from = from.max(at);
        if moved.is_none() && column <= from {
            moved = Some(width + column.saturating_sub(at));
        }
        line.extend(&chars[at..from]);
        width += from - at;
        if !joins {
            line.push_str(MASK);
            width += MASK.len();
        }
        if moved.is_none() && column < to {
            moved = Some(width - MASK.len());
        }
        at = to;
    }
    line.extend(&chars[at..]);
    let moved = moved.unwrap_or_else(|| width + column.saturating_sub(at).min(chars.len() - at));
    (line, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, path: bool) -> String {
        let chars: Vec<char> = line.chars().collect();
        mask(&chars, &doubtful_cuts(&chars, path), 0).0
    }

    #[test]
    fn of_a_text_that_is_not_understood_only_the_harmless_is_shown() {
        for (line, expected) in [
            ("    grpc: 127.0.0.1:4317", "    grpc: 127.0.0.1:4317"),
            ("  x: { endpoint: \"a:1\", tls: off", "  x: { endpoint: \"a:1\", tls: off"),
            ("basic: { user: u, password: \"x y }", "basic: { user: u, password: \"(secret)}"),
            ("auth: { 'earer: x }", "auth: { 'earer: (secret)}"),
            ("timeout: 5s bearer: x", "timeout: (secret): (secret)"),
            ("url: http://u:p@h/ # x", "url: (secret)"),
            ("bearer x", "(secret)"),
            ("  - x", "  (secret)"),
        ] {
            assert_eq!(shown(line, false), expected);
        }
        assert_eq!(shown("send.loki.x={ url: 1, bearer: x", true), "send.loki.x={ url: 1, bearer: (secret)");
        assert_eq!(shown("send.loki.x.bearer='x", true), "send.loki.x.bearer='(secret)");
    }
}
