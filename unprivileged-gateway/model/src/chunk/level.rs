//! A guess at a line's level from its first words.
//!
//! A doctor's glance across the waiting room: quick, usually right, and no diagnosis. Looked for in this order: a key
//! (`level`, `lvl`, `severity` in JSON or logfmt), klog's first letter, a level's name as a word of its own. Weakness: a line
//! that merely speaks of an ERROR early on is taken for one; Loki's own guess has the same one.

/// Bytes that are looked at.
const LOOK_BYTES: usize = 512;
/// A bare word counts only this early in the line; later it is prose.
const WORD_WITHIN_BYTES: usize = 96;

const KEYS: [&[u8]; 3] = [b"level", b"lvl", b"severity"];

/// One of Loki's canonical names, if the line says. Pure; never panics.
pub fn detect(line: &[u8]) -> Option<&'static str> {
    let line = line.get(..LOOK_BYTES).unwrap_or(line);
    keyed(line).or_else(|| klog(line)).or_else(|| word(line))
}

/// Loki's canonical name of what programs call a level, in any case.
pub fn named(name: &[u8]) -> Option<&'static str> {
    const NAMES: [(&str, &[&str]); 7] = [
        ("info", &["info", "information", "inf", "notice"]),
        ("warn", &["warn", "warning", "wrn"]),
        ("error", &["error", "err"]),
        ("debug", &["debug", "dbg"]),
        ("trace", &["trace", "trc"]),
        ("fatal", &["fatal", "panic"]),
        ("critical", &["critical", "crit", "emerg", "alert"]),
    ];
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    NAMES.iter().find(|(_, names)| names.iter().any(is)).map(|(level, _)| *level)
}

fn keyed(line: &[u8]) -> Option<&'static str> {
    for (at, window) in line.windows(3).enumerate() {
        // Each key is met at its first letter, at the line's start or behind something that is no letter.
        if !matches!(window[0] | 0x20, b'l' | b's') || at > 0 && line[at - 1].is_ascii_alphanumeric() {
            continue;
        }
        let rest = &line[at..];
        let Some(key) =
            KEYS.iter().find(|key| rest.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key)))
        else {
            continue;
        };
        let mut value = &rest[key.len()..];
        let mut joined = false;
        while let Some((&first, after)) = value.split_first()
            && matches!(first, b'"' | b'\\' | b' ' | b':' | b'=')
        {
            joined |= matches!(first, b':' | b'=');
            value = after;
        }
        let end = value.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(value.len());
        if joined && let Some(level) = named(&value[..end]) {
            return Some(level);
        }
    }
    None
}

/// `I0102 15:04:05.000000 ...`
fn klog(line: &[u8]) -> Option<&'static str> {
    let (&letter, rest) = line.split_first()?;
    let (digits, rest) = rest.split_at_checked(4)?;
    if !digits.iter().all(u8::is_ascii_digit) || rest.first() != Some(&b' ') {
        return None;
    }
    match letter {
        b'I' => Some("info"),
        b'W' => Some("warn"),
        b'E' => Some("error"),
        b'F' => Some("fatal"),
        _ => None,
    }
}

/// A level in capitals, or in small letters between brackets or before a colon.
fn word(line: &[u8]) -> Option<&'static str> {
    let line = line.get(..WORD_WITHIN_BYTES).unwrap_or(line);
    let mut from = 0;
    while let Some(start) = line[from..].iter().position(u8::is_ascii_alphabetic).map(|at| from + at) {
        let end = line[start..].iter().position(|b| !b.is_ascii_alphanumeric()).map_or(line.len(), |at| start + at);
        let word = &line[start..end];
        let before = start.checked_sub(1).map(|at| line[at]);
        let capital = word.len() > 2 && word.iter().all(u8::is_ascii_uppercase);
        let marked = matches!(before, Some(b'[' | b'<' | b'(')) || before.is_none() && line.get(end) == Some(&b':');
        if (capital || marked)
            && before != Some(b'_')
            && line.get(end) != Some(&b'_')
            && let Some(level) = named(word)
        {
            return Some(level);
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_are_found_where_programs_write_them() {
        let table: [(&str, Option<&str>); 20] = [
            (r#"{"ts":1,"level":"warn","msg":"x"}"#, Some("warn")),
            (r#"{"severity" : "ERROR","message":"level"}"#, Some("error")),
            (r#"{"log":"{\"lvl\":\"dbg\"}"}"#, Some("debug")),
            ("ts=2026-01-01 level=info msg=\"error happened\"", Some("info")),
            ("level=nonsense ERROR x", Some("error")),
            ("I0102 15:04:05.000000       1 main.go:1] hello", Some("info")),
            ("E0102 15:04:05.000000       1 main.go:1] hello", Some("error")),
            ("2026-01-01 10:00:00 WARN  [main] c.e.App - x", Some("warn")),
            ("2026/01/01 10:00:00 [error] 7#7: *1 open() failed", Some("error")),
            ("<critical> x", Some("critical")),
            ("error: no such file", Some("error")),
            ("panic: runtime error", Some("fatal")),
            ("an error in prose", None),
            ("MY_ERROR_CODE is 7", None),
            ("TERRORS", None),
            ("levels of water: high", None),
            ("127.0.0.1 - - \"GET / HTTP/1.1\" 200", None),
            ("", None),
            ("I", None),
            ("level", None),
        ];
        for (line, expected) in table {
            assert_eq!(detect(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_looked_at_without_harm(line in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = detect(&line);
        }

        #[test]
        fn almost_keys_are_looked_at_without_harm(line in "[ls]?(level|lvl|severity)?[\":= \\\\]{0,4}[a-z]{0,6}") {
            let _ = detect(line.as_bytes());
        }
    }
}
