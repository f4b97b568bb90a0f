//! The rules of the interface's "OTLP logs" row once more: slow, owned, from prost's structs, sharing no code with the encoder.

use super::push::Entry;
use model::envelope::Sidecar;
use model::loki::Options;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use std::collections::BTreeMap;

/// A record as it should arrive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) nanoseconds: u64,
    pub(crate) line: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expected {
    pub(crate) streams: BTreeMap<String, Vec<Line>>,
    /// Reason, labels, line.
    pub(crate) offenders: Vec<(&'static str, String, String)>,
    pub(crate) cut: u32,
}

pub(crate) fn of_entry(entry: &Entry) -> Line {
    let stamp = entry.timestamp.clone().unwrap_or_default();
    let metadata: BTreeMap<_, _> = entry.metadata.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
    assert_eq!(metadata.len(), entry.metadata.len(), "a name is there once: {:?}", entry.metadata);
    let nanoseconds = stamp.seconds as u64 * 1_000_000_000 + stamp.nanos as u64;
    Line { nanoseconds, line: entry.line.clone(), metadata }
}

pub(crate) fn expect(request: &ExportLogsServiceRequest, sidecar: &Sidecar, options: &Options, out: &mut Expected) {
    for group in &request.resource_logs {
        let mut attributes: Vec<KeyValue> = sidecar.enrichment.iter().map(|(k, v)| string(k, v)).collect();
        attributes.extend(group.resource.iter().flat_map(|r| r.attributes.clone()));
        let labels = labels(&attributes, options);
        for scope_logs in &group.scope_logs {
            let mut common = BTreeMap::new();
            let promoted = |kv: &&KeyValue| !LABELS.iter().any(|l| l.0 == kv.key);
            common.extend(attributes.iter().filter(promoted).map(pair));
            common.extend(scope_logs.scope.iter().flat_map(scope_pairs));
            for record in &scope_logs.log_records {
                one(record, &common, &labels, sidecar, options, out);
            }
        }
    }
}

fn one(
    record: &LogRecord,
    common: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
    sidecar: &Sidecar,
    options: &Options,
    out: &mut Expected,
) {
    let mut metadata = common.clone();
    metadata.extend(record.attributes.iter().map(pair));
    metadata.extend(severity(record));
    for (name, id) in [("trace_id", &record.trace_id), ("span_id", &record.span_id)] {
        if id.iter().any(|&b| b != 0) {
            metadata.insert(name.into(), id.iter().map(|b| format!("{b:02x}")).collect());
        }
    }
    if !record.event_name.is_empty() {
        metadata.insert("event_name".into(), record.event_name.clone());
    }
    let stamps = [record.time_unix_nano, record.observed_time_unix_nano, sidecar.received_at];
    let nanoseconds = stamps.into_iter().find(|&t| t != 0).unwrap_or(0);
    let mut line = record.body.as_ref().map(text).unwrap_or_default();
    let was_cut = cut(&mut line, options.limits.line_bytes);
    let quoted = quoted(labels);
    match offence(labels, &metadata, options) {
        Some(reason) => out.offenders.push((reason, quoted, line)),
        None => {
            out.cut += u32::from(was_cut);
            out.streams.entry(quoted).or_default().push(Line { nanoseconds, line, metadata });
        }
    }
}

fn offence(
    labels: &BTreeMap<String, String>,
    metadata: &BTreeMap<String, String>,
    options: &Options,
) -> Option<&'static str> {
    let limits = &options.limits;
    if labels.len() > limits.label_names {
        return Some("max_label_names_per_series");
    }
    for (name, value) in labels {
        if name.len() > limits.label_name_bytes {
            return Some("label_name_too_long");
        }
        if value.len() > limits.label_value_bytes {
            return Some("label_value_too_long");
        }
    }
    if metadata.len() > limits.metadata_entries {
        return Some("structured_metadata_too_many");
    }
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    (bytes > limits.metadata_bytes).then_some("structured_metadata_too_large")
}

pub(crate) fn cut(line: &mut String, max: usize) -> bool {
    if line.len() <= max {
        return false;
    }
    let marker = if max > 8 { "...[cut]" } else { "" };
    while line.len() > max - marker.len() {
        line.pop();
    }
    line.push_str(marker);
    true
}

const LABELS: [(&str, &str); 5] = [
    ("service.name", "service_name"),
    ("service.namespace", "service_namespace"),
    ("k8s.namespace.name", "namespace"),
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
];

fn labels(attributes: &[KeyValue], options: &Options) -> BTreeMap<String, String> {
    let value = |key: &str| attributes.iter().rfind(|kv| kv.key == key).map(|kv| pair(kv).1).unwrap_or_default();
    let mut labels: BTreeMap<String, String> = options.external_labels.iter().cloned().collect();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            labels.insert(name.into(), value);
        }
    };
    for (key, label) in LABELS {
        set(label, value(key));
    }
    set("exporter", "OTLP".into());
    match (value("service.namespace"), value("service.name")) {
        (_, name) if name.is_empty() => {}
        (namespace, name) if namespace.is_empty() => set("job", name),
        (namespace, name) => set("job", format!("{namespace}/{name}")),
    }
    labels
}

/// Go's quoting of what the generator makes.
fn quoted(labels: &BTreeMap<String, String>) -> String {
    let quote = |value: &String| {
        let escape = |c: char| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\n".into(),
            '\t' => "\\t".into(),
            '\u{1}' | '\u{7f}' => format!("\\x{:02x}", c as u32),
            '\u{200b}' | '\u{2028}' => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        };
        value.chars().map(escape).collect::<String>()
    };
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", quote(v))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn string(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(V::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn scope_pairs(scope: &InstrumentationScope) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = scope.attributes.iter().map(pair).collect();
    for (name, value) in [("scope_name", &scope.name), ("scope_version", &scope.version)] {
        if !value.is_empty() {
            pairs.push((name.into(), value.clone()));
        }
    }
    pairs
}

fn pair(kv: &KeyValue) -> (String, String) {
    let clean: String =
        kv.key.chars().map(|c| if matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9') { c } else { '_' }).collect();
    let clean = if clean.is_empty() { "_".into() } else { clean };
    (clean, kv.value.as_ref().map(text).unwrap_or_default())
}

fn severity(record: &LogRecord) -> Vec<(String, String)> {
    let (number, text) = (record.severity_number, &record.severity_text);
    if number == 0 && text.is_empty() {
        return vec![];
    }
    let lower = text.to_ascii_lowercase();
    let level = match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => match lower.as_str() {
            "trace" | "trc" => "trace",
            "debug" | "dbg" => "debug",
            "info" | "inf" | "information" => "info",
            "warn" | "wrn" | "warning" => "warn",
            "error" | "err" => "error",
            "critical" => "critical",
            "fatal" => "fatal",
            _ => "unknown",
        },
    };
    let mut pairs = vec![("detected_level".into(), level.into())];
    if !text.is_empty() && lower != level {
        pairs.push(("severity_text".into(), text.clone()));
    }
    if ![0, 1, 5, 9, 13, 17, 21].contains(&number) {
        pairs.push(("severity_number".into(), number.to_string()));
    }
    pairs
}

pub(crate) fn text(any: &AnyValue) -> String {
    match &any.value {
        Some(V::StringValue(s)) => s.clone(),
        Some(V::ArrayValue(_) | V::KvlistValue(_)) => json(any),
        Some(V::DoubleValue(v)) => double(*v),
        Some(V::BytesValue(b)) => base64(b),
        Some(V::StringValueStrindex(_)) | None => String::new(),
        _ => json(any),
    }
}

fn json(any: &AnyValue) -> String {
    let quote = |s: &str| {
        let quoted = serde_json::to_string(s).expect("a string is JSON");
        quoted.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
    };
    match &any.value {
        None | Some(V::StringValueStrindex(_)) => "null".into(),
        Some(V::StringValue(s)) => quote(s),
        Some(V::BoolValue(b)) => b.to_string(),
        Some(V::IntValue(i)) => i.to_string(),
        Some(V::DoubleValue(v)) if v.is_finite() => double(*v),
        Some(V::DoubleValue(v)) => quote(&double(*v)),
        Some(V::BytesValue(b)) => quote(&base64(b)),
        Some(V::ArrayValue(list)) => format!("[{}]", list.values.iter().map(json).collect::<Vec<_>>().join(",")),
        Some(V::KvlistValue(map)) => {
            let none = AnyValue::default();
            let pairs = map.values.iter().map(|kv| (&kv.key, json(kv.value.as_ref().unwrap_or(&none))));
            let pairs: BTreeMap<&String, String> = pairs.collect();
            let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}:{v}", quote(k))).collect();
            format!("{{{}}}", pairs.join(","))
        }
    }
}

/// Shortest digits, laid out as JavaScript lays them out.
fn double(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    let sign = if v.is_sign_negative() { "-" } else { "" };
    if v.is_infinite() {
        return format!("{sign}Infinity");
    }
    let scientific = format!("{:e}", v.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("an exponent");
    let (digits, exponent) = (mantissa.replace('.', ""), exponent.parse::<i32>().expect("a number"));
    let point = exponent + 1; // digits before the decimal point
    let len = digits.len() as i32;
    let body = if v == 0.0 {
        "0".into()
    } else if !(-5..=21).contains(&point) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{}", exponent.abs())
    } else if point <= 0 {
        format!("0.{}{digits}", "0".repeat(-point as usize))
    } else if point >= len {
        format!("{digits}{}", "0".repeat((point - len) as usize))
    } else {
        format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
    };
    format!("{sign}{body}")
}

fn base64(b: &[u8]) -> String {
    let bits: String = b.iter().map(|b| format!("{b:08b}")).collect();
    let digit = |six: &[u8]| {
        let six = format!("{:0<6}", str::from_utf8(six).expect("bits"));
        let n = u8::from_str_radix(&six, 2).expect("six bits");
        match n {
            0..=25 => (b'A' + n) as char,
            26..=51 => (b'a' + n - 26) as char,
            52..=61 => (b'0' + n - 52) as char,
            62 => '+',
            _ => '/',
        }
    };
    let mut text: String = bits.as_bytes().chunks(6).map(digit).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}
