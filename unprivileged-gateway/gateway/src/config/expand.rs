//! `${NAME}` in plain scalars.
//!
//! Like filling in a printed form after it was printed: the text is already a value when the variable arrives, so a variable can
//! never add a key or a list. `${NAME}`, `${NAME:-default}` (also when empty), `${NAME:?why}`, and `$${` for a literal `${`.
//! Weakness: no nesting, and nothing between quotes, which is said when it looks like an oversight.

use super::finding::Finding;
use super::tree::{Node, Scalar, Value};

/// Looks up one variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every plain scalar of a tree in place. One that fails becomes unusable, with a finding.
pub(super) fn expand(node: &mut Node, lookup: Lookup<'_>, findings: &mut Vec<Finding>) {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|entry| expand(&mut entry.node, lookup, findings)),
        Value::List(items) => items.iter_mut().for_each(|item| expand(item, lookup, findings)),
        Value::Scalar(scalar) if scalar.plain => match substitute(&scalar.text, lookup) {
            Ok(None) => {}
            Ok(Some((text, used))) => *scalar = Scalar { text, plain: true, expanded: used },
            Err((message, help)) => {
                findings.push(Finding::error("", Some(node.place), message).help(help));
                node.value = Value::Unusable;
            }
        },
        Value::Scalar(scalar) if names_a_variable(&scalar.text) => {
            let message = "a `${NAME}` between quotes is kept as it stands";
            let help = "remove the quotes to have it expanded; inside { } write the part in block style";
            findings.push(Finding::warning("", Some(node.place), message).help(help));
        }
        Value::Scalar(_) | Value::Null | Value::Unusable => {}
    }
}

/// The new text and whether a variable went into it; None if there was nothing to do.
fn substitute(text: &str, lookup: Lookup<'_>) -> Result<Option<(String, bool)>, (String, String)> {
    if !text.contains("${") {
        return Ok(None);
    }
    let (mut out, mut rest, mut used) = (String::new(), text, false);
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            return Err((
                "`${` is not closed".to_owned(),
                "write `${NAME}`, or `$${` for these two characters".to_owned(),
            ));
        };
        match split_reference(&after[..end]) {
            Some((name, operator)) => {
                out.push_str(&resolve(name, operator, lookup)?);
                used = true;
            }
            // Not a variable's name, such as the ${1} of a relabel rule.
            None => out.push_str(&rest[at..at + 2 + end + 1]),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(Some((out, used)))
}

/// What stands between the braces: a name, and what comes after it.
fn split_reference(inner: &str) -> Option<(&str, &str)> {
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    let (name, operator) = inner.split_at(end);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well.then_some((name, operator))
}

fn resolve(name: &str, operator: &str, lookup: Lookup<'_>) -> Result<String, (String, String)> {
    let value = lookup(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    if operator.is_empty() {
        let help = format!("set it, or give a default: `${{{name}:-value}}`");
        return value.ok_or((format!("the variable `{name}` is not set"), help));
    }
    if let Some(default) = operator.strip_prefix(":-") {
        if default.contains("${") {
            let help = "give a plain default; a variable inside a variable is not expanded".to_owned();
            return Err((format!("the default of `{name}` holds another variable"), help));
        }
        return Ok(filled.unwrap_or_else(|| default.to_owned()));
    }
    if let Some(why) = operator.strip_prefix(":?") {
        let why = if why.is_empty() { "it is required" } else { why };
        return filled
            .ok_or((format!("the variable `{name}` is not set: {why}"), format!("set `{name}` and start again")));
    }
    let help = "write `${NAME}`, `${NAME:-default}` or `${NAME:?why}`".to_owned();
    Err((format!("`${{{name}{operator}}}` is not a form that is known"), help))
}

fn names_a_variable(text: &str) -> bool {
    let mut parts = text.split("${").skip(1);
    parts.any(|part| part.find('}').and_then(|end| split_reference(&part[..end])).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Option<String>, String> {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &lookup).map(|done| done.map(|(text, _)| text)).map_err(|(message, _)| message)
    }

    #[test]
    fn every_form_of_a_variable_is_expanded() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(run("x-${A}-${A}"), some("x-one-one"));
        assert_eq!(run("${B:-two}${EMPTY:-three}${A:-four}"), some("twothreeone"));
        assert_eq!(run("[${EMPTY}]"), some("[]"));
        assert_eq!(run("${B:-}"), some(""));
        assert_eq!(run("$${A} and $1 and ${1}"), some("${A} and $1 and ${1}"));
        assert_eq!(run("no variable"), Ok(None));
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        assert_eq!(run("${B}"), Err("the variable `B` is not set".to_owned()));
        assert_eq!(
            run("${B:?ask the cluster team}"),
            Err("the variable `B` is not set: ask the cluster team".to_owned())
        );
        assert_eq!(run("${EMPTY:?}"), Err("the variable `EMPTY` is not set: it is required".to_owned()));
        assert!(run("${A").is_err_and(|message| message.contains("not closed")));
        assert!(run("${A%x}").is_err_and(|message| message.contains("not a form")));
        assert!(run("${B:-${A}}").is_err_and(|message| message.contains("another variable")));
    }
}
