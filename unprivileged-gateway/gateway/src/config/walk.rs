//! A tree held against the shapes, key by key.
//!
//! Like an inspector who does not leave at the first fault: every key and value is looked at, each fault becomes a finding, and
//! what is sound is carried over. Where something is missing or wrong a stand-in takes its place and the path is remembered as
//! tainted, so that the checks that follow see a whole configuration and stay silent about what was already said.
//! Weakness: a stand-in must never be used for more than that; the caller drops the result when there was an error.

use super::finding::Finding;
use super::later;
use super::mask::{safe_key, secret_like, word_of};
use super::nearness::nearest;
use super::shape::{self, Field, Form, Shape, list_of};
use super::source::{Place, Sources};
use super::tree::{Entry, Node, Scalar, Value};
use super::unit::{self, NotAQuantity};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// Longest value that a message repeats, in characters.
const QUOTED_MAX: usize = 60;

/// What the walk brought back.
pub(super) struct Walked {
    /// Fits the types, always.
    pub(super) json: Json,
    pub(super) tainted: BTreeSet<String>,
    pub(super) findings: Vec<Finding>,
}

/// Walks the whole tree. `partial`: a text could not be read, so what is missing here may stand there.
pub(super) fn walk(node: &Node, partial: bool) -> Walked {
    let tainted = if partial { BTreeSet::from([String::new()]) } else { BTreeSet::new() };
    let mut walk = Walk { partial, tainted, findings: Vec::new() };
    let json = walk.visit(node, shape::root(), "");
    Walked { json, tainted: walk.tainted, findings: walk.findings }
}

struct Walk {
    partial: bool,
    tainted: BTreeSet<String>,
    findings: Vec<Finding>,
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Walk {
    fn visit(&mut self, node: &Node, shape: &Shape, path: &str) -> Json {
        match (&node.value, shape) {
            (Value::Unusable, _) => return self.stand_in(shape, path),
            (Value::Scalar(_), Shape::Either { scalar, .. }) => return self.visit(node, scalar, path),
            (Value::Map(_), Shape::Either { map, .. }) => return self.visit(node, map, path),
            (Value::Map(entries), Shape::Struct { fields, one_of }) => {
                return self.visit_struct(node, entries, fields, one_of, path);
            }
            (Value::Map(entries), Shape::Map(inner)) => {
                let one = |entry: &Entry| (entry.key.clone(), self.visit(&entry.node, inner, &join(path, &entry.key)));
                return Json::Object(entries.iter().map(one).collect());
            }
            (Value::List(items), Shape::List(inner)) => {
                let one = |(at, item): (usize, &Node)| self.visit(item, inner, &join(path, &at.to_string()));
                return Json::Array(items.iter().enumerate().map(one).collect());
            }
            (Value::Scalar(scalar), Shape::Text(_) | Shape::Word(_) | Shape::Integer(_) | Shape::Bool) => {
                match judge(scalar, shape, &safe_key(path)) {
                    Ok(json) => return json,
                    Err(wrong) => {
                        self.findings.push(Finding { path: path.to_owned(), place: Some(node.place), ..*wrong })
                    }
                }
            }
            _ => self.findings.push(wrong_kind(node, shape, &safe_key(path))),
        }
        self.stand_in(shape, path)
    }

    fn visit_struct(
        &mut self,
        node: &Node,
        entries: &[Entry],
        fields: &BTreeMap<String, Field>,
        one_of: &[(bool, Vec<String>)],
        path: &str,
    ) -> Json {
        let mut map = Map::new();
        for entry in entries {
            let at = join(path, &entry.key);
            match fields.get(&entry.key) {
                Some(field) => {
                    map.insert(entry.key.clone(), self.visit(&entry.node, &field.shape, &at));
                }
                None => {
                    let near = nearest(&entry.key, fields.keys().map(String::as_str));
                    // What was meant is as good as written; no more needs to be said about it.
                    self.tainted.extend(near.map(|word| join(path, word)));
                    self.findings.push(unknown_key(entry, near, fields, path));
                }
            }
        }
        for (key, field) in fields.iter().filter(|(_, field)| field.required) {
            if map.contains_key(key) {
                continue;
            }
            if !self.partial && !self.tainted.contains(&join(path, key)) {
                self.findings.push(missing_key(node, key, &field.shape, &safe_key(path)));
            }
            map.insert(key.clone(), self.stand_in(&field.shape, &join(path, key)));
        }
        for (exactly, keys) in one_of {
            self.one_of(node, *exactly, keys, path, &mut map);
        }
        Json::Object(map)
    }

    fn one_of(&mut self, node: &Node, exactly: bool, keys: &[String], path: &str, map: &mut Map<String, Json>) {
        let given: Vec<&Entry> = keys.iter().filter_map(|key| node.entry(key)).collect();
        if given.is_empty() && exactly {
            let meant = keys.iter().any(|key| self.tainted.contains(&join(path, key)));
            let place = Some(node.place);
            let message = format!("`{}` needs one of {}", safe_key(path), list_of(keys.iter()));
            if !meant && !self.partial {
                self.findings.push(Finding::error(path, place, message).help(format!("add `{}: PATH`", keys[0])));
            }
            map.insert(keys[0].clone(), self.stand_in(&Shape::Text(Form::Path), &join(path, &keys[0])));
        }
        for extra in given.iter().skip(1) {
            let message = format!("`{}` and `{}` exclude each other", given[0].key, extra.key);
            let finding = Finding::error(join(path, &extra.key), Some(extra.key_place), message);
            self.findings.push(finding.help("keep one of them"));
            map.remove(&extra.key);
        }
    }

    /// Something that fits the type, so that the rest can be judged; its path is tainted.
    fn stand_in(&mut self, shape: &Shape, path: &str) -> Json {
        self.tainted.insert(path.to_owned());
        match shape {
            Shape::Struct { fields, one_of } => {
                let first_of = |(exactly, keys): &(bool, Vec<String>)| exactly.then(|| keys[0].clone());
                let needed: Vec<String> = one_of.iter().filter_map(first_of).collect();
                let wanted = |(key, field): &(&String, &Field)| field.required || needed.contains(*key);
                let one =
                    |(key, field): (&String, &Field)| (key.clone(), self.stand_in(&field.shape, &join(path, key)));
                Json::Object(fields.iter().filter(wanted).map(one).collect())
            }
            Shape::Map(_) => Json::Object(Map::new()),
            Shape::List(_) => Json::Array(Vec::new()),
            Shape::Word(words) => Json::String(words.first().cloned().unwrap_or_default()),
            Shape::Integer(_) => Json::from(1),
            Shape::Bool => Json::Bool(true),
            Shape::Either { scalar, .. } => self.stand_in(scalar, path),
            Shape::Text(form) => Json::from(match form {
                Form::Size => "64MiB",
                Form::Duration => "1s",
                Form::Address | Form::AddressOrOff => "127.0.0.1:0",
                Form::Url | Form::Endpoint => "http://127.0.0.1:1/",
                Form::Path | Form::PathOrEmpty | Form::Any | Form::Secret => "stand-in",
            }),
        }
    }
}

/// One scalar against its shape. The finding has neither path nor place yet.
fn judge(scalar: &Scalar, shape: &Shape, path: &str) -> Result<Json, Box<Finding>> {
    let wrong = |message: String| Finding::error("", None, message);
    let text = scalar.text.as_str();
    let must = |what: &str| wrong(format!("`{path}` must be {what}, not {}", quote(scalar, shape)));
    match shape {
        Shape::Text(form) => judge_text(scalar, *form, path),
        Shape::Word(words) if words.iter().any(|word| word == text) => match later::signal_notice(text) {
            Some((message, help)) => refused(wrong(message).help(help)),
            None => Ok(Json::from(text)),
        },
        Shape::Word(words) => {
            let near = nearest(text, words.iter().map(String::as_str));
            // A word that is nowhere near may be a token that was meant for `auth`.
            if near.is_none() && path.ends_with("auth") {
                return refused(wrong(format!("`{path}` must be {}, or a map with a credential", shape.describe())));
            }
            refused(must(&shape.describe()).hint(near.map(|word| format!("did you mean `{word}`?"))))
        }
        Shape::Integer(max) => match text.parse::<u64>() {
            Ok(number) if number <= *max && (text == "0" || !text.starts_with(['0', '+'])) => Ok(Json::from(number)),
            _ => refused(must(&shape.describe())),
        },
        Shape::Bool => match text {
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            other => {
                let near = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" | "1" => Some("did you mean `true`?".to_owned()),
                    "no" | "off" | "false" | "0" => Some("did you mean `false`?".to_owned()),
                    _ => None,
                };
                refused(must(&shape.describe()).hint(near))
            }
        },
        _ => refused(must(&shape.describe())),
    }
}

fn judge_text(scalar: &Scalar, form: Form, path: &str) -> Result<Json, Box<Finding>> {
    let text = scalar.text.as_str();
    let shape = Shape::Text(form);
    let must =
        || Finding::error("", None, format!("`{path}` must be {}, not {}", form.describe(), quote(scalar, &shape)));
    let quantity = |result: Result<(), NotAQuantity>, near: Option<String>| match result {
        Ok(()) => Ok(Json::from(text)),
        Err(NotAQuantity::NoUnit) => {
            let message = format!("`{path}` has no unit: {}", quote(scalar, &shape));
            refused(Finding::error("", None, message).help(format!("write {}", form.describe())))
        }
        Err(NotAQuantity::TooLarge) => {
            let message = format!("`{path}` is larger than this program can count: {}", quote(scalar, &shape));
            refused(Finding::error("", None, message).help("write a smaller number"))
        }
        Err(NotAQuantity::Malformed) => refused(must().hint(near.map(|near| format!("did you mean `{near}`?")))),
    };
    let visible = !scalar.expanded;
    match form {
        Form::Size => quantity(unit::parse_size(text).map(|_| ()), unit::near_size(text).filter(|_| visible)),
        Form::Duration => {
            quantity(unit::parse_duration(text).map(|_| ()), unit::near_duration(text).filter(|_| visible))
        }
        Form::AddressOrOff if text == "off" => Ok(Json::from(text)),
        Form::Address | Form::AddressOrOff => match unit::parse_address(text) {
            Some(_) => Ok(Json::from(text)),
            None => {
                let near = unit::near_address(text).filter(|_| visible);
                refused(must().hint(near.map(|near| format!("did you mean `{near}`?"))))
            }
        },
        Form::PathOrEmpty => Ok(Json::from(text)),
        _ if text.is_empty() => {
            let message = format!("`{path}` is empty");
            refused(Finding::error("", None, message).help(format!("write {}, or remove the key", form.describe())))
        }
        Form::Any | Form::Path | Form::Secret | Form::Url | Form::Endpoint => Ok(Json::from(text)),
    }
}

/// Boxed, because a finding is large and most scalars are fine.
fn refused(finding: Finding) -> Result<Json, Box<Finding>> {
    Err(Box::new(finding))
}

/// The value as a message may show it: never a secret, never what a variable held, never a URL's password.
fn quote(scalar: &Scalar, shape: &Shape) -> String {
    if shape.is_credential() {
        return "this text".to_owned();
    }
    if scalar.expanded {
        return "what the variable holds".to_owned();
    }
    if scalar.text.contains('@') {
        return "this text".to_owned();
    }
    let short: String = scalar.text.chars().take(QUOTED_MAX).collect();
    let more = if short.len() < scalar.text.len() { "..." } else { "" };
    format!("`{short}{more}`")
}

fn wrong_kind(node: &Node, shape: &Shape, path: &str) -> Finding {
    let name = if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
    if matches!(node.value, Value::Null) {
        let key = path.rsplit('.').next().unwrap_or_default();
        let help = match shape {
            Shape::Struct { .. } | Shape::Map(_) => {
                format!("write `{key}: {{}}` for its defaults, or remove the line; check the indentation below it")
            }
            _ => format!("write {}, or remove the line", shape.describe()),
        };
        return Finding::error(path, Some(node.place), format!("{name} has no value")).help(help);
    }
    let found = match &node.value {
        Value::Map(_) => "a map",
        Value::List(_) => "a list",
        Value::Scalar(_) => "a text",
        Value::Null | Value::Unusable => "nothing",
    };
    Finding::error(path, Some(node.place), format!("{name} must be {}, not {found}", shape.describe()))
}

fn missing_key(node: &Node, key: &str, shape: &Shape, path: &str) -> Finding {
    let example = match shape {
        Shape::Text(Form::Url) => "http://HOST:3100/loki/api/v1/push",
        Shape::Text(Form::Endpoint) => "HOST:4317",
        Shape::Text(Form::Path) => "PATH",
        _ => "...",
    };
    let message = format!("`{path}` has no `{key}`");
    Finding::error(path, Some(node.place), message).help(format!("add `{key}: {example}` below `{path}`"))
}

fn unknown_key(entry: &Entry, near: Option<&str>, fields: &BTreeMap<String, Field>, path: &str) -> Finding {
    let full = join(path, &entry.key);
    if let Some((message, help)) = later::notice(&full) {
        return Finding::error(full, Some(entry.key_place), message).help(help);
    }
    let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in {path}") };
    let elsewhere = || {
        let ends = format!(".{}", entry.key);
        let paths: Vec<String> = shape::paths().into_iter().filter(|known| known.ends_with(&ends)).collect();
        (paths.len() <= 2 && !paths.is_empty()).then(|| format!("did you mean `{}`?", paths.join("` or `")))
    };
    let hint = near.map(|word| format!("did you mean `{word}`?")).or_else(elsewhere);
    let known = list_of(fields.keys());
    let finding =
        Finding::error(full, Some(entry.key_place), format!("unknown key `{}` {place}", safe_key(&entry.key)));
    if word_of(&entry.key).len() < entry.key.len() {
        return finding.help("write `key: value`, with a colon and a blank between the two");
    }
    finding.hint(hint).help(format!("known here: {known}"))
}

/// Marks every secret of a tree in its source, before anything is shown of it: by shape where the key is known, or clearly
/// meant; elsewhere everything but the values of keys that never hold a secret.
pub(super) fn hide_secrets(node: &Node, shape: Option<&Shape>, path: &str, sources: &mut Sources) {
    match (&node.value, shape) {
        (Value::Map(entries), Some(Shape::Struct { fields, .. })) => {
            entries.iter().for_each(|entry| hide_in_struct(entry, fields, path, sources));
        }
        (Value::Map(entries), Some(Shape::Map(inner))) => {
            for entry in entries {
                if inner.is_credential() {
                    hide_rest_of_key(entry, sources);
                }
                hide_secrets(&entry.node, Some(inner), &join(path, "NAME"), sources);
            }
        }
        (Value::List(items), Some(Shape::List(inner))) => {
            items.iter().for_each(|item| hide_secrets(item, Some(inner), path, sources));
        }
        (Value::Map(_), Some(Shape::Either { map, .. })) => hide_secrets(node, Some(map), path, sources),
        (Value::Scalar(text), Some(Shape::Either { scalar, map })) => match &**scalar {
            Shape::Word(words) if nearest(&text.text, words.iter().map(String::as_str)).is_some() => {}
            _ if map.is_credential() || scalar.is_credential() => sources.hide(node.place),
            _ => {}
        },
        (Value::Scalar(scalar), Some(Shape::Text(_) | Shape::Word(_) | Shape::Integer(_) | Shape::Bool)) => {
            // A URL may hold a password.
            if shape.is_some_and(Shape::is_credential) || scalar.text.contains('@') {
                sources.hide(node.place);
            }
        }
        (Value::Map(entries), _) => {
            for entry in entries {
                hide_rest_of_key(entry, sources);
                match (&entry.node.value, shape::is_harmless_key(&entry.key)) {
                    (Value::Scalar(scalar), true) if !scalar.text.contains('@') => {}
                    _ => hide_secrets(&entry.node, None, "", sources),
                }
            }
        }
        (Value::List(items), _) => items.iter().for_each(|item| hide_secrets(item, None, "", sources)),
        (Value::Scalar(_), _) => sources.hide(node.place),
        (Value::Null | Value::Unusable, _) => {}
    }
}

fn hide_in_struct(entry: &Entry, fields: &BTreeMap<String, Field>, path: &str, sources: &mut Sources) {
    hide_rest_of_key(entry, sources);
    let path = join(path, &entry.key);
    let near = || nearest(&entry.key, fields.keys().map(String::as_str)).and_then(|word| fields.get(word));
    if later::notice(&path).is_some() {
        hide_by_look(&entry.node, sources);
    } else if let Some(field) = fields.get(&entry.key) {
        hide_secrets(&entry.node, Some(&field.shape), &path, sources);
    } else if let Some(meant) = near().filter(|_| !secret_like(&entry.key)) {
        hide_secrets(&entry.node, Some(&meant.shape), &path, sources);
    } else if !(shape::is_harmless_key(&entry.key) && matches!(entry.node.value, Value::Scalar(_))) {
        hide_secrets(&entry.node, None, &path, sources);
    }
}

/// A section of a later version: its keys are right, though unknown here, so they are taken at their word.
fn hide_by_look(node: &Node, sources: &mut Sources) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                if secret_like(&entry.key) || entry.key.eq_ignore_ascii_case("headers") {
                    hide_secrets(&entry.node, None, "", sources);
                } else {
                    hide_by_look(&entry.node, sources);
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| hide_by_look(item, sources)),
        Value::Scalar(scalar) if scalar.text.contains('@') => sources.hide(node.place),
        Value::Scalar(_) | Value::Null | Value::Unusable => {}
    }
}

/// Of a key that is no word the rest may be a value: `bearer x`, `password:x`.
fn hide_rest_of_key(entry: &Entry, sources: &mut Sources) {
    let word = word_of(&entry.key);
    if word.len() < entry.key.len() {
        let place = entry.key_place;
        let as_written = place.end_line == place.line && place.end_column - place.column == entry.key.chars().count();
        let skip = if as_written { word.chars().count() } else { 0 };
        sources.hide(Place { column: place.column + skip, ..place });
    }
}
