//! `line: alloy_json`: lines and labels as Grafana Alloy's `otelcol.exporter.loki` makes them.
//!
//! For dashboards and alerts that were written against those. Everything is in the line, nothing in structured metadata;
//! labels are few, and hints (`loki.attribute.labels`, `loki.resource.labels`, `loki.format`) on resource or record choose
//! more. Rules: alloy-parity 2.1. This is a compatibility mode: each record is taken apart and put together anew, at several
//! times the price of a body line.

use super::label::{Labels, label_name};
use super::logfmt;
use super::resource::{NESTED_LABEL_BYTES_MAX, job};
use super::value::{Any, Odd, Pairs, hex, int, json, json_string, map_pairs, sort_pairs, text};
use super::{Limits, Offence, Options, entry};
use crate::otlp;
use crate::wire::{Fields, Value};
use std::collections::BTreeMap;

const ATTRIBUTE_LABELS: &[u8] = b"loki.attribute.labels";
const RESOURCE_LABELS: &[u8] = b"loki.resource.labels";
const TENANT: &[u8] = b"loki.tenant";
const FORMAT: &[u8] = b"loki.format";

/// What Alloy would have pushed for one record.
pub(super) struct Made {
    pub(super) labels: String,
    pub(super) offence: Option<Offence>,
    pub(super) line: Vec<u8>,
    pub(super) cut: bool,
    /// Unix nanoseconds.
    pub(super) timestamp: u64,
}

/// Everything a line is made of.
pub(super) struct Parts<'a> {
    pub(super) record: entry::Record<'a>,
    pub(super) body: Any<'a>,
    pub(super) attributes: Pairs<'a>,
    pub(super) resource: Pairs<'a>,
    pub(super) scope_name: &'a [u8],
    pub(super) scope_version: &'a [u8],
}

/// `resource` is a `Resource`, enriched and with nothing in it twice; `record` and `scope` are as received.
pub(super) fn make(
    record: &[u8],
    resource: &[u8],
    scope: &[u8],
    received_at: u64,
    options: &Options,
) -> Result<Made, Odd> {
    let record = otlp::merged_log_record(record)?;
    let scope = otlp::merged_scope(scope)?;
    let mut parts = read(&record, resource, &scope)?;
    let limits = &options.limits;
    let raw = labels(&parts, limits)?;
    let format = find(&parts.resource, FORMAT).or(find(&parts.attributes, FORMAT)).unwrap_or(&[]);
    let mut wanted = Vec::new();
    text(&mut wanted, Any::parse(format)?, limits.line_bytes)?;
    for pairs in [&mut parts.attributes, &mut parts.resource] {
        let hint = |key| [ATTRIBUTE_LABELS, RESOURCE_LABELS, TENANT, FORMAT].contains(&key);
        pairs.retain(|&(key, _)| !hint(key) && !raw.contains_key(key));
        let bytes = 0; // few enough to sort: they are in memory already
        sort_pairs(pairs, bytes);
    }
    let mut line = Vec::new();
    match &wanted[..] {
        b"logfmt" => logfmt::line(&mut line, &parts, limits.line_bytes)?,
        b"raw" => text(&mut line, parts.body, limits.line_bytes)?,
        // An unknown format makes Alloy lose the record; the default loses nothing.
        _ => json_line(&mut line, &parts, limits.line_bytes)?,
    }
    let cut = entry::cut(&mut line, 0, limits.line_bytes);
    let mut labels = Labels::default();
    for (name, value) in &raw {
        let name = label_name(&String::from_utf8_lossy(name));
        if !name.starts_with("__") {
            labels.set(&name, value);
        }
    }
    labels.under(&options.external_labels);
    let (labels, offence) = labels.finish(limits);
    Ok(Made { labels, offence, line, cut, timestamp: parts.record.timestamp(received_at) })
}

fn read<'a>(record: &'a [u8], resource: &'a [u8], scope: &'a [u8]) -> Result<Parts<'a>, Odd> {
    let mut fields = entry::Record::default();
    let (mut body, mut attributes) = (Any::Empty, Vec::new());
    for field in Fields(record) {
        match field? {
            (5, Value::Bytes(any)) => body = Any::parse(any)?,
            (6, Value::Bytes(kv)) => attributes.push(super::value::key_value(kv)?),
            other => fields.take(other)?,
        }
    }
    let (mut scope_name, mut scope_version): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(scope) {
        match field? {
            (1, Value::Bytes(b)) => scope_name = b,
            (2, Value::Bytes(b)) => scope_version = b,
            _ => {}
        }
    }
    // A `Resource` keeps its attributes in field 1, as a `KeyValueList` does.
    Ok(Parts { record: fields, body, attributes, resource: map_pairs(resource)?, scope_name, scope_version })
}

/// Labels by their raw names; later steps override earlier ones.
fn labels(parts: &Parts, limits: &Limits) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Odd> {
    let mut labels = BTreeMap::from([(b"exporter".to_vec(), b"OTLP".to_vec())]);
    let string = |pairs: &Pairs, key: &[u8]| -> Result<Vec<u8>, Odd> {
        let mut value = Vec::new();
        text(&mut value, Any::parse(find(pairs, key).unwrap_or(&[]))?, NESTED_LABEL_BYTES_MAX)?;
        Ok(value)
    };
    let [name, namespace, instance] =
        ["service.name", "service.namespace", "service.instance.id"].map(|key| string(&parts.resource, key.as_bytes()));
    for (label, value) in [(&b"job"[..], job(&namespace?, &name?)), (b"instance", instance?)] {
        if !value.is_empty() {
            labels.insert(label.to_vec(), value);
        }
    }
    let both = [&parts.resource, &parts.attributes];
    for hint in both.iter().filter_map(|pairs| find(pairs, RESOURCE_LABELS)) {
        promote(&mut labels, hint, &parts.resource, limits)?;
    }
    for hint in both.iter().filter_map(|pairs| find(pairs, ATTRIBUTE_LABELS)) {
        promote(&mut labels, hint, &parts.attributes, limits)?;
    }
    if parts.record.number != 0 {
        let level = match find(&parts.attributes, b"level") {
            Some(_) => string(&parts.attributes, b"level")?,
            None => level_name(parts.record.number),
        };
        labels.insert(b"level".to_vec(), level);
    }
    Ok(labels)
}

/// `TRACE`, `TRACE2`, ... `FATAL4`; empty where OTLP has no name for the number.
fn level_name(number: i32) -> Vec<u8> {
    const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let Some(index) = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)) else { return Vec::new() };
    match (NAMES.get(index / 4), index % 4 + 1) {
        (Some(name), 1) => name.as_bytes().to_vec(),
        (Some(name), nth) => format!("{name}{nth}").into_bytes(),
        (None, _) => Vec::new(),
    }
}

/// Makes labels of the attributes that a hint names.
fn promote(labels: &mut BTreeMap<Vec<u8>, Vec<u8>>, hint: &[u8], pairs: &Pairs, limits: &Limits) -> Result<(), Odd> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    match Any::parse(hint)? {
        Any::List(list) => {
            for field in Fields(list) {
                if let (1, Value::Bytes(any)) = field? {
                    names.push(Vec::new());
                    text(names.last_mut().unwrap_or(&mut Vec::new()), Any::parse(any)?, limits.line_bytes)?;
                }
            }
        }
        other => {
            let mut list = Vec::new();
            text(&mut list, other, limits.line_bytes)?;
            names.extend(list.split(|&b| b == b',').map(<[u8]>::to_vec));
        }
    }
    for name in &names {
        let name = name.trim_ascii();
        if let Some(any) = reach(pairs, name)? {
            let mut value = Vec::new();
            text(&mut value, any, NESTED_LABEL_BYTES_MAX)?;
            labels.insert(name.to_vec(), value);
        }
    }
    Ok(())
}

/// The attribute of that name, or what its dotted parts lead to through nested maps.
fn reach<'a>(pairs: &Pairs<'a>, name: &[u8]) -> Result<Option<Any<'a>>, Odd> {
    if let Some(any) = find(pairs, name) {
        return Ok(Some(Any::parse(any)?));
    }
    let mut steps = name.split(|&b| b == b'.');
    let Some(mut any) = steps.next().and_then(|step| find(pairs, step)) else { return Ok(None) };
    for step in steps {
        let Any::Map(map) = Any::parse(any)? else { return Ok(None) };
        match find(&map_pairs(map)?, step) {
            Some(inner) => any = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(Any::parse(any)?))
}

/// The last value under a key.
fn find<'a>(pairs: &Pairs<'a>, key: &[u8]) -> Option<&'a [u8]> {
    pairs.iter().rev().find(|p| p.0 == key).map(|p| p.1)
}

fn json_line(out: &mut Vec<u8>, parts: &Parts, max: usize) -> Result<(), Odd> {
    out.push(b'{');
    let key = |out: &mut Vec<u8>, name: &str| {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        json_string(out, name.as_bytes(), true);
        out.push(b':');
    };
    if parts.body != Any::Empty {
        key(out, "body");
        json(out, parts.body, max, true)?;
    }
    for (name, id) in [("traceid", parts.record.trace_id), ("spanid", parts.record.span_id)] {
        if entry::is_set(id) {
            let mut digits = Vec::new();
            hex(&mut digits, id);
            key(out, name);
            json_string(out, &digits, true);
        }
    }
    if !parts.record.text.is_empty() {
        key(out, "severity");
        json_string(out, parts.record.text, true);
    }
    if parts.record.flags != 0 {
        key(out, "flags");
        int(out, i64::from(parts.record.flags));
    }
    for (name, pairs) in [("attributes", &parts.attributes), ("resources", &parts.resource)] {
        if !pairs.is_empty() {
            key(out, name);
            json_map(out, pairs, max)?;
        }
    }
    if !parts.scope_name.is_empty() {
        key(out, "instrumentation_scope");
        out.push(b'{');
        for (name, value) in [("name", parts.scope_name), ("version", parts.scope_version)] {
            if !value.is_empty() {
                key(out, name);
                json_string(out, value, true);
            }
        }
        out.push(b'}');
    }
    out.push(b'}');
    Ok(())
}

fn json_map(out: &mut Vec<u8>, pairs: &Pairs, max: usize) -> Result<(), Odd> {
    out.push(b'{');
    for (i, (key, any)) in pairs.iter().enumerate() {
        if out.len() > max {
            break; // the rest would be cut
        }
        if i > 0 {
            out.push(b',');
        }
        json_string(out, key, true);
        out.push(b':');
        json(out, Any::parse(any)?, max, true)?;
    }
    out.push(b'}');
    Ok(())
}
