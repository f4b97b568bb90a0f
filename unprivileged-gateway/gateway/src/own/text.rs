//! Reading the classic text exposition that we print ourselves.
//!
//! A proof-reader of one typesetter: he knows his hand (one blank between parts, no times, no exemplars) and stops at the first line
//! that he would not have set. Weakness: not a reader for strangers' expositions, which know more liberties.

use model::series::{Type, Writer};

/// Lines of one exposition; beyond them it is refused.
const LINES_MAX: usize = 200_000;

/// Writes every sample of `text` at `at_ms`. Errors: the line that cannot be read.
pub(super) fn read(text: &str, writer: &mut Writer, at_ms: i64) -> Result<(), String> {
    let mut help: Option<(&str, &str)> = None;
    for (at, line) in text.lines().enumerate() {
        if at == LINES_MAX {
            return Err(format!("the own metrics have more than {LINES_MAX} lines"));
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let text = help.take().filter(|(of, _)| *of == name).map_or("", |(_, text)| text);
            writer.family(name, Type::of_name(kind), text);
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, labels, value) = sample(line).ok_or_else(|| format!("line {} is no sample: {line}", at + 1))?;
            let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
            writer.sample(name, &labels, value, at_ms);
        }
    }
    Ok(())
}

type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// `name{label="value",other="value"} 1.5`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label, value));
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = match rest.trim() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    (!name.is_empty()).then_some((name, labels, value))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_read_with_escapes_and_odd_numbers() {
        let read = |line| sample(line).map(|(name, labels, value)| (name.to_owned(), labels.len(), value));
        assert_eq!(read("a 1"), Some(("a".into(), 0, 1.0)));
        assert_eq!(read("a{} 1.5e3"), Some(("a".into(), 0, 1500.0)));
        assert_eq!(read("a{b=\"c\",d=\"e,}\\\"\"} +Inf"), Some(("a".into(), 2, f64::INFINITY)));
        assert!(read("a{b=\"c\"} NaN").is_some_and(|(_, _, value)| value.is_nan()));
    }

    #[test]
    fn anything_else_is_refused_and_never_panics() {
        for line in [
            "",
            "a",
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"",
            "a{b=\"c\"",
            "a{b=\"c\"}",
            "a{b=\"\\",
            "{b=\"c\"} 1",
            "a x",
            "ä{ö=\"ü",
        ] {
            assert!(sample(line).is_none(), "{line}");
        }
    }
}
