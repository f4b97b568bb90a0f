//! What is wrong, where, and what to do: the answer a person gets instead of a start.
//!
//! Like a teacher's red pen: the line is shown, the word is underlined, the margin says how to mend it, and all of it comes back
//! at once. Secrets on a shown line are replaced by `(secret)` before anything is printed, and the caret moves with them.
//! Weakness: a text that never became a tree (broken YAML) has no known secrets; `mask` then shows only what is surely harmless.

use super::mask::{comment_cut, doubtful_cuts, mask, safe_key};
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
        all.iter_mut().for_each(|finding| finding.path = safe_key(&finding.path));
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
        if self.sources.is_understood(place.source) {
            cuts.extend(comment_cut(&chars));
        } else {
            cuts.extend(doubtful_cuts(&chars, source.layer > Layer::File));
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
        sources.understand(source);
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
    fn a_long_line_is_cut_around_the_mark() {
        let line = format!("{} wrong {}", "x".repeat(300), "y".repeat(300));
        let text = shown(&line, &[], (301, 306));
        let lines: Vec<&str> = text.lines().collect();
        let caret = lines[3].find('^').unwrap_or(0);
        assert_eq!(&lines[2][caret..caret + 5], "wrong");
        assert!(lines[2].len() < EXCERPT_WIDTH_MAX + 20);
    }
}
