//! `NAME{label="value", other=~"pattern"}`, as people know it from Prometheus.
//!
//! A stencil laid over the labels: each matcher is one hole, and a series passes if light comes through all of them. A label that a
//! series does not have is the empty text. Patterns are anchored at both ends and run in linear time, whatever they say.
//! Weakness: Rust's patterns, not RE2's: `\d` and `\w` know more letters than ASCII's, and `[a&&b]` is an intersection.

use regex::{Regex, RegexBuilder};

/// Longest selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 4 << 10;
/// Matchers of one selector.
const MATCHERS_MAX: usize = 32;
/// Memory of one compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// Which series; `name` is always given.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub name: String,
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    test: Test,
    /// Pass if the test does not.
    not: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    Like(Regex),
}

/// The text is no selector; the sentence says where and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("query is not a selector: {0}; write NAME{{label=\"value\", other=~\"pattern\"}}")]
pub struct BadSelector(String);

fn bad(what: impl Into<String>) -> BadSelector {
    BadSelector(what.into())
}

impl Selector {
    /// Reads a selector. Errors: [`BadSelector`].
    pub fn parse(text: &str) -> Result<Selector, BadSelector> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(bad(format!("it has more than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut rest = text.trim();
        let mut selector = Selector { name: word(&mut rest, true).to_owned(), matchers: Vec::new() };
        rest = rest.trim_start();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = selector.matchers(inside)?.trim_start();
        }
        if !rest.is_empty() {
            return Err(bad(format!("`{}` follows where it should end", shown(rest))));
        }
        let named = |matcher: &Matcher| match (&matcher.test, matcher.not) {
            (Test::Equal(name), false) if matcher.label == model::series::NAME => Some(name.clone()),
            _ => None,
        };
        if selector.name.is_empty() {
            selector.name = selector.matchers.iter().find_map(named).unwrap_or_default();
        }
        if selector.name.is_empty() { Err(bad("it names no metric")) } else { Ok(selector) }
    }

    /// Reads matchers up to the closing brace; gives what follows it.
    fn matchers<'a>(&mut self, mut rest: &'a str) -> Result<&'a str, BadSelector> {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return Ok(after);
            }
            if self.matchers.len() == MATCHERS_MAX {
                return Err(bad(format!("it has more than {MATCHERS_MAX} matchers")));
            }
            let label = word(&mut rest, false);
            if label.is_empty() {
                return Err(bad(format!("`{}` is no label", shown(rest))));
            }
            rest = rest.trim_start();
            let operators = [("=~", true, false), ("!~", true, true), ("!=", false, true), ("=", false, false)];
            let operator = operators.into_iter().find(|(sign, ..)| rest.starts_with(sign));
            let Some((sign, like, not)) = operator else {
                return Err(bad(format!("after `{label}` stands none of =, !=, =~ and !~")));
            };
            rest = rest[sign.len()..].trim_start();
            let value = quoted(&mut rest)?;
            let test = if like { Test::Like(pattern(&value)?) } else { Test::Equal(value) };
            self.matchers.push(Matcher { label: label.to_owned(), test, not });
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return Err(bad("a matcher is followed by neither a comma nor the closing brace")),
            }
        }
    }

    /// True if every matcher passes what `value_of` says of its label; an absent one is the empty text.
    pub(super) fn holds<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = value_of(&matcher.label);
            let passes = match &matcher.test {
                Test::Equal(wanted) => wanted == value,
                Test::Like(pattern) => pattern.is_match(value),
            };
            passes != matcher.not
        })
    }
}

/// A few characters of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A name at the beginning; metric names may hold colons.
fn word<'a>(rest: &mut &'a str, colons: bool) -> &'a str {
    let fine = |at: usize, c: char| {
        c.is_ascii_alphabetic() || c == '_' || (colons && c == ':') || (at > 0 && c.is_ascii_digit())
    };
    let end = rest.char_indices().find(|(at, c)| !fine(*at, *c)).map_or(rest.len(), |(at, _)| at);
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

/// A text between quotes of either kind, with the usual escapes; between backticks there are none.
fn quoted(rest: &mut &str) -> Result<String, BadSelector> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
    let Some(quote) = quote else { return Err(bad("a value must stand between quotes")) };
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == quote {
            *rest = &rest[at + c.len_utf8()..];
            return Ok(value);
        }
        if c != '\\' || quote == '`' {
            value.push(c);
            continue;
        }
        match characters.next() {
            Some((_, 'n')) => value.push('\n'),
            Some((_, 't')) => value.push('\t'),
            Some((_, c @ ('\\' | '"' | '\'' | '`'))) => value.push(c),
            // Prometheus wants `\\.` for a dot in a pattern; whoever writes `\.` means the same.
            Some((_, c)) => value.extend(['\\', c]),
            None => break,
        }
    }
    Err(bad("a value has no closing quote"))
}

fn pattern(text: &str) -> Result<Regex, BadSelector> {
    let built = RegexBuilder::new(&format!("^(?s:{text})$")).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => bad(format!("the pattern `{}` is too large", shown(text))),
        _ => bad(format!("the pattern `{}` is not a regular expression", shown(text))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector = Selector::parse(text).unwrap();
        selector.holds(|label| labels.iter().find(|(name, _)| *name == label).map_or("", |(_, value)| value))
    }

    #[test]
    fn a_selector_is_read_as_prometheus_reads_it() {
        let labels = [("cpu", "0"), ("mode", "idle"), ("path", "C:\\\n")];
        for text in [
            "m",
            " m { } ",
            "m{cpu=\"0\"}",
            "m{cpu=\"0\",}",
            "m { cpu = '0' , mode != \"user\" }",
            "m{mode=~\"id.*\"}",
            "m{mode=~\"user|idle\",none=\"\"}",
            "m{none!=\"x\",mode!~\"id\"}",
            "{__name__=\"m\",cpu=\"0\"}",
            "m{path=\"C:\\\\\\n\"}",
        ] {
            let named = |label: &str| if label == "__name__" { "m" } else { "" };
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.name, "m", "{text}");
            let of = |label: &str| labels.iter().find(|(name, _)| *name == label).map_or(named(label), |(_, v)| *v);
            assert!(selector.holds(of), "{text}");
        }
        assert!(!holds("m{mode=~\"id\"}", &labels), "patterns are anchored");
        assert!(!holds("m{none=~\".+\"}", &labels));
        assert!(holds("m{path=~`C:\\\\.`}", &labels), "a dot passes a line's end");
        assert_eq!(Selector::parse("a:b:c").unwrap().name, "a:b:c");
    }

    #[test]
    fn what_is_no_selector_is_named_and_never_panics() {
        for text in [
            "",
            "{}",
            "{a=\"b\"}",
            "m{",
            "m{a}",
            "m{a=b}",
            "m{a=\"b}",
            "m{a=\"b\"",
            "m{a=\"b\" c=\"d\"}",
            "m{a=~\"(\"}",
            "m{a=~\"x{1000}{1000}\"}",
            "m} ",
            "rate(m[5m])",
            "m{ä=\"b\"}",
            "m{a=\"\\",
            &"m".repeat(5000),
            &format!("m{{{}}}", "a=\"b\",".repeat(40)),
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert!(Selector::parse("m{a=~\"[\"}").unwrap_err().to_string().contains("`[` is not a regular expression"));
    }

    #[test]
    fn no_text_brings_the_reader_down() {
        let mut dice = fastrand::Rng::with_seed(11);
        let pieces =
            ["m", "{", "}", "a", "=", "!", "~", "\"", "'", "`", "\\", ",", " ", "[", "(", "*", "ä", "\0", "x=\"y\""];
        for _ in 0..20_000 {
            let text: String = (0..dice.usize(0..12)).map(|_| pieces[dice.usize(0..pieces.len())]).collect();
            if let Ok(selector) = Selector::parse(&text) {
                assert!(!selector.name.is_empty(), "{text}");
                let _ = selector.holds(|_| "value");
            }
        }
    }
}
