//! What is wrong, where, and what to do: the answer a person gets instead of a start.
//!
//! Like a teacher's red pen: the line is shown, the word is underlined, the margin says how to mend it, and all of it comes back
//! at once. Secrets on a shown line are replaced by `(secret)` before anything is printed, and the caret moves with them.
//! Weakness: a text that never became a tree (broken YAML) has no known secrets; its lines are masked by the look of their keys.

use super::secret::MASK;
use super::source::{Layer, Place, Source, Sources};
use serde::Serialize;
use std::fmt::Write;

/// Widest excerpt, in characters; a longer line is cut around the mark.
const EXCERPT_WIDTH_MAX: usize = 100;

/// An error keeps the configuration from being used; a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong or odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The configuration path it is about, such as `send.loki.logs.url`; empty for a whole file.
    pub path: String,
    /// None when a default or the whole is to blame.
    pub place: Option<Place>,
    /// The sentence after `error: `.
    pub message: String,
    /// Stands beside the caret: `did you mean ...`.
    pub hint: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    pub fn error(path: impl Into<String>, place: Option<Place>, message: impl Into<String>) -> Finding {
        let (path, message) = (path.into(), message.into());
        Finding { severity: Severity::Error, path, place, message, hint: None, help: None }
    }

    pub fn warning(path: impl Into<String>, place: Option<Place>, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, ..Finding::error(path, place, message) }
    }

    pub fn help(mut self, help: impl Into<String>) -> Finding {
        self.help = Some(help.into());
        self
    }

    pub fn hint(mut self, hint: Option<String>) -> Finding {
        self.hint = hint;
        self
    }
}

/// Everything one load had to say, with the texts it speaks of.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
    sources: Sources,
}

impl Findings {
    /// Sorted by source, line and column; what has no place comes last.
    pub fn new(mut all: Vec<Finding>, sources: Sources) -> Findings {
        all.sort_by_key(|finding| (finding.place.is_none(), finding.place, finding.severity, finding.path.clone()));
        all.dedup();
        Findings { all, sources }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.all.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.all.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    pub fn warnings(&self) -> usize {
        self.all.len() - self.errors()
    }

    /// `2 errors, 1 warning`.
    pub fn count(&self) -> String {
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (errors, 0) => plural(errors, "error"),
            (0, warnings) => plural(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        }
    }

    /// The text for a terminal, one block a finding; ends with a line end unless it is empty.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for finding in &self.all {
            self.render_one(finding, &mut out);
        }
        // A name or value may hold anything; a terminal must not obey it.
        out.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
    }

    fn render_one(&self, finding: &Finding, out: &mut String) {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        let _ = writeln!(out, "{word}: {}", finding.message);
        let mut pad = 3;
        if let Some((place, source)) = finding.place.and_then(|place| Some((place, self.sources.get(place.source)?))) {
            let _ = writeln!(out, "  --> {}:{}:{}", source.name, place.line, place.column + 1);
            if let Some((line, from, width)) = self.excerpt(place, source) {
                let number = place.line.to_string();
                pad = number.len() + 1;
                let _ = writeln!(out, "{number} | {line}");
                let hint = finding.hint.as_deref().map(|hint| format!(" {hint}")).unwrap_or_default();
                let _ = writeln!(out, "{:pad$}| {:from$}{}{hint}", "", "", "^".repeat(width));
            }
        } else if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "   = note: {hint}");
        }
        if let Some(help) = &finding.help {
            let _ = writeln!(out, "{:pad$}= help: {help}", "");
        }
    }

    /// The line with secrets masked, where the caret starts in it, and how many carets.
    fn excerpt(&self, place: Place, source: &Source) -> Option<(String, usize, usize)> {
        let raw = source.lines.get(place.line.checked_sub(1)?)?;
        let chars: Vec<char> = raw.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        let end = if place.end_line > place.line { chars.len() } else { place.end_column.min(chars.len()) };
        let mut cuts: Vec<(usize, usize)> = self.hidden_on(place.source, place.line, chars.len());
        let seems_secret = if self.sources.is_understood(place.source) {
            comment_secret(raw)
        } else {
            looks_secret(source, place.line - 1)
        };
        if let Some(from) = seems_secret {
            cuts.push((from.min(chars.len()), chars.len()));
        }
        cuts.sort_unstable();
        let (line, start) = mask(&chars, &cuts, place.column);
        let (_, end) = mask(&chars, &cuts, end);
        Some(window(line, start, end.max(start + 1)))
    }

    fn hidden_on(&self, source: usize, line: usize, length: usize) -> Vec<(usize, usize)> {
        let on_line = |place: &&Place| place.source == source && place.line <= line && line <= place.end_line;
        let range = |place: &Place| {
            let from = if place.line == line { place.column } else { 0 };
            let to = if place.end_line == line { place.end_column } else { length };
            (from.min(length), to.min(length))
        };
        self.sources.hidden().iter().filter(on_line).map(range).filter(|(from, to)| from < to).collect()
    }

    /// For `--format json`: what a script needs to annotate files; holds no excerpt and no value of a secret.
    pub fn json(&self) -> serde_json::Value {
        let one = |finding: &Finding| {
            let source = finding.place.and_then(|place| self.sources.get(place.source));
            serde_json::json!({
                "severity": finding.severity, "path": finding.path, "message": finding.message,
                "hint": finding.hint, "help": finding.help, "file": source.map(|source| source.name.clone()),
                "line": finding.place.map(|place| place.line), "column": finding.place.map(|place| place.column + 1),
                "end_line": finding.place.map(|place| place.end_line),
                "end_column": finding.place.map(|place| place.end_column + 1),
            })
        };
        serde_json::json!({
            "errors": self.errors(), "warnings": self.warnings(),
            "findings": self.all.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render())?;
        write!(f, "{}; configuration not loaded", self.count())
    }
}

impl std::error::Error for Findings {}

/// Replaces each cut by `(secret)`; returns the line and where `column` has moved to. Overlapping cuts become one.
fn mask(chars: &[char], cuts: &[(usize, usize)], column: usize) -> (String, usize) {
    let (mut line, mut at, mut moved) = (String::new(), 0, None);
    let mut width = 0;
    for (from, to) in cuts.iter().copied().filter(|(from, to)| from < to) {
        if to <= at {
            continue;
        }
        let from = from.max(at);
        if moved.is_none() && column <= from {
            moved = Some(width + column - at);
        }
        line.extend(&chars[at..from]);
        width += from - at;
        let covered = from == at && at > 0 && line.ends_with(MASK);
        if !covered {
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

/// Words in a key after which a value is treated as secret, even where the key is unknown or the text is no tree at all.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "pasword", "secret", "token", "bearer", "authorization", "api-key"];

/// True for a key whose value should not be shown even though the key is not known. File forms hold a path, which is fine.
pub(super) fn secret_like(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('_', "-");
    !key.ends_with("-file") && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Where on this line a secret seems to begin, judged by the words on it and by the keys it is indented below.
fn looks_secret(source: &Source, index: usize) -> Option<usize> {
    let line = source.lines.get(index)?;
    let indent = |line: &str| line.chars().take_while(|c| *c == ' ').count();
    let mut depth = indent(line);
    for above in source.lines[..index].iter().rev().filter(|line| !line.trim().is_empty()) {
        if indent(above) < depth {
            depth = indent(above);
            let key = above.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default();
            if secret_like(key) || key.eq_ignore_ascii_case("headers") {
                return Some(indent(line));
            }
        }
    }
    let separator = if source.layer == Layer::File { ':' } else { '=' };
    secret_word(&line.to_ascii_lowercase(), separator)
}

/// Where a comment on this line seems to hold a secret; comments are no part of a tree.
fn comment_secret(line: &str) -> Option<usize> {
    let at = line.find(" #")?;
    let lower = line[at..].to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| lower.contains(word)).then(|| line[..at].chars().count() + 1)
}

/// The character after `password:` and the like; a key that ends in `_file` holds a path, which is fine to show.
fn secret_word(lower: &str, separator: char) -> Option<usize> {
    let words = SECRET_WORDS.iter().chain(&["headers"]).flat_map(|word| lower.match_indices(word)).map(|(at, _)| at);
    let value_after = |at: usize| {
        let end = at + lower[at..].find(separator)?;
        let key = &lower[at..end];
        let one_key = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_\"' .".contains(c));
        (one_key && !key.trim_end_matches(['"', '\'', ' ']).ends_with("file")).then_some(end + 1)
    };
    let byte = words.filter_map(value_after).min()?;
    let spaces = lower[byte..].chars().take_while(|c| *c == ' ').count();
    Some(lower[..byte].chars().count() + spaces)
}

/// Cuts a long line to a window around the mark; returns line, caret start, caret width.
fn window(line: String, start: usize, end: usize) -> (String, usize, usize) {
    let length = line.chars().count();
    if length <= EXCERPT_WIDTH_MAX {
        return (line, start, (end - start).min(length.saturating_sub(start).max(1)));
    }
    let first = start.saturating_sub(EXCERPT_WIDTH_MAX / 3).min(length - EXCERPT_WIDTH_MAX);
    let cut: String = line.chars().skip(first).take(EXCERPT_WIDTH_MAX).collect();
    let lead = if first > 0 { "..." } else { "" };
    let tail = if first + EXCERPT_WIDTH_MAX < length { "..." } else { "" };
    let room = EXCERPT_WIDTH_MAX - (start - first).min(EXCERPT_WIDTH_MAX - 1);
    (format!("{lead}{cut}{tail}"), start - first + lead.len(), (end - start).min(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, hide: &[(usize, usize)], mark: (usize, usize)) -> String {
        let mut sources = Sources::default();
        let source = sources.add(Source::new(Layer::File, "gateway.yaml", text));
        let place = |(from, to)| Place { source, line: 1, column: from, end_line: 1, end_column: to };
        hide.iter().for_each(|cut| sources.hide(place(*cut)));
        Findings::new(vec![Finding::error("", Some(place(mark)), "no")], sources).render()
    }

    #[test]
    fn a_masked_line_keeps_its_caret_under_the_word() {
        assert_eq!(
            shown("a: hunter2, bcd: 1", &[(3, 10)], (12, 15)),
            "error: no\n  --> gateway.yaml:1:13\n1 | a: (secret), bcd: 1\n  |              ^^^\n"
        );
        assert_eq!(
            shown("a: hunter2", &[(3, 10)], (3, 10)),
            "error: no\n  --> gateway.yaml:1:4\n1 | a: (secret)\n  |    ^^^^^^^^\n"
        );
    }

    #[test]
    fn a_line_that_looks_secret_is_masked_without_a_tree() {
        let text = shown("basic: { Password: 'hunter2, user: u ", &[], (0, 5));
        assert!(!text.contains("hunter2") && text.contains("Password: (secret)"), "{text}");
        let text = shown("bearer_file: /run/token", &[], (0, 5));
        assert!(text.contains("/run/token"), "{text}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let line = format!("{} wrong {}", "x".repeat(300), "y".repeat(300));
        let text = shown(&line, &[], (301, 306));
        let lines: Vec<&str> = text.lines().collect();
        let caret = lines[3].find('^').unwrap_or(0);
        assert_eq!(&lines[2][caret..caret + 5], "wrong");
        assert!(lines[2].len() < EXCERPT_WIDTH_MAX + 20);
    }
}
