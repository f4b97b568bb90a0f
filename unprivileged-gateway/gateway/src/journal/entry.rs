//! Entries of the journal, as journalctl prints them, on their way to be an OTLP logs request.
//!
//! A clerk who copies index cards: a handful of fields have a place on the new card, the rest stay in the drawer. Every field comes
//! from some program on this machine, so nothing is believed: a field may be text, bytes, several values or missing. Weakness: of a
//! field with several values only the first is kept.

use model::loki::JOURNAL;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::Value;
use std::collections::BTreeMap;

/// The label `job` of every entry.
pub(super) const JOB: &str = "systemd-journal";
/// Longest cursor that a mark of the log can hold. Unit: bytes.
const CURSOR_BYTES_MAX: usize = 255;
/// Longest value of a field other than the message. Unit: bytes.
const FIELD_BYTES_MAX: usize = 4096;

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Where to go on after it.
    pub(super) cursor: String,
    /// Unix nanoseconds.
    at: u64,
    message: String,
    unit: String,
    host: String,
    /// Severity number, level.
    level: Option<(i32, &'static str)>,
    attributes: Vec<(&'static str, String)>,
}

impl Entry {
    /// Errors: a word on what is wrong with the line.
    pub(super) fn parse(line: &[u8]) -> Result<Entry, &'static str> {
        let fields: BTreeMap<String, Value> = serde_json::from_slice(line).map_err(|_| "it is no JSON object")?;
        let field = |name: &str| fields.get(name).map(text).unwrap_or_default();
        let short = |name: &str| {
            let mut value = field(name);
            value.truncate(value.floor_char_boundary(FIELD_BYTES_MAX));
            value
        };
        let cursor = field("__CURSOR");
        if cursor.is_empty() || cursor.len() > CURSOR_BYTES_MAX {
            return Err("its cursor is missing or too long");
        }
        let at = field("__REALTIME_TIMESTAMP").parse::<u64>().map_err(|_| "its time is missing")?;
        let names = [("_SYSTEMD_UNIT", ""), ("UNIT", ""), ("_SYSTEMD_USER_UNIT", ""), ("SYSLOG_IDENTIFIER", "")];
        let unit = names.iter().map(|(name, _)| short(name)).find(|unit| !unit.is_empty());
        const KEPT: [(&str, &str); 6] = [
            ("SYSLOG_IDENTIFIER", "syslog.identifier"),
            ("_PID", "process.pid"),
            ("_COMM", "process.command"),
            ("_UID", "user.id"),
            ("_TRANSPORT", "journal.transport"),
            ("MESSAGE_ID", "journal.message_id"),
        ];
        let kept = KEPT.iter().map(|(from, to)| (*to, short(from))).filter(|(_, value)| !value.is_empty());
        Ok(Entry {
            cursor,
            at: at.saturating_mul(1000),
            message: field("MESSAGE"),
            unit: unit.unwrap_or_else(|| short("_TRANSPORT")),
            host: short("_HOSTNAME"),
            level: level(&field("PRIORITY")),
            attributes: kept.collect(),
        })
    }

    /// What it takes in a request, roughly. Unit: bytes.
    pub(super) fn weight(&self) -> usize {
        256 + self.message.len() + self.attributes.iter().map(|(_, value)| value.len() + 48).sum::<usize>()
    }
}

/// A field as text. Bytes that are no UTF-8 come as an array of numbers.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(values) if values.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> = values.iter().filter_map(|v| u8::try_from(v.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Array(values) => values.first().map(text).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Syslog's eight priorities.
fn level(priority: &str) -> Option<(i32, &'static str)> {
    match priority {
        "0" | "1" => Some((21, "fatal")),
        "2" => Some((21, "critical")),
        "3" => Some((17, "error")),
        "4" => Some((13, "warn")),
        "5" | "6" => Some((9, "info")),
        "7" => Some((5, "debug")),
        _ => None,
    }
}

/// Entries as one request: a resource for each unit and level, in the order in which they first come.
pub(super) fn request(entries: &[Entry]) -> ExportLogsServiceRequest {
    type Group<'a> = ((&'a str, &'a str, &'a str), Vec<LogRecord>);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for entry in entries {
        let key = (entry.unit.as_str(), entry.host.as_str(), entry.level.map_or("", |(_, name)| name));
        let at = groups.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(record(entry));
    }
    let resource_logs = groups.into_iter().map(|((unit, host, level), log_records)| {
        let attributes =
            [(JOURNAL, JOB), ("service.name", unit), ("systemd.unit", unit), ("host.name", host), ("level", level)];
        let attributes =
            attributes.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| pair(n, (*v).to_owned()));
        ResourceLogs {
            resource: Some(Resource { attributes: attributes.collect(), ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn record(entry: &Entry) -> LogRecord {
    let (severity_number, level) = entry.level.unwrap_or_default();
    LogRecord {
        time_unix_nano: entry.at,
        severity_number,
        severity_text: level.to_owned(),
        body: Some(AnyValue { value: Some(Any::StringValue(entry.message.clone())) }),
        attributes: entry.attributes.iter().map(|(name, value)| pair(name, value.clone())).collect(),
        ..LogRecord::default()
    }
}

fn pair(name: &str, value: String) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(value)) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_whatever_form_its_fields_have() {
        let line =
            br#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1700000000000001","MESSAGE":[104,105,255],"PRIORITY":"3",
            "_SYSTEMD_UNIT":["a.service","b.service"],"_HOSTNAME":"h","_PID":"7","_COMM":null,"X":{"y":1}}"#;
        let entry = Entry::parse(line).expect("an entry");
        assert_eq!(
            (entry.at, &entry.message[..], &entry.unit[..]),
            (1_700_000_000_000_001_000, "hi\u{fffd}", "a.service")
        );
        assert_eq!(entry.level, Some((17, "error")));
        for bad in [&b""[..], b"[]", b"{}", br#"{"__CURSOR":"x"}"#, br#"{"__CURSOR":"x","__REALTIME_TIMESTAMP":"-1"}"#]
        {
            assert!(Entry::parse(bad).is_err());
        }
    }

    #[test]
    fn entries_of_one_unit_and_level_share_a_resource_and_keep_their_order() {
        let entry = |unit: &str, priority: &str, message: &str| {
            let line = format!(
                r#"{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","MESSAGE":"{message}","PRIORITY":"{priority}","_SYSTEMD_UNIT":"{unit}"}}"#
            );
            Entry::parse(line.as_bytes()).expect("an entry")
        };
        let made = request(&[entry("a", "6", "1"), entry("b", "6", "2"), entry("a", "6", "3"), entry("a", "3", "4")]);
        let counts: Vec<usize> = made.resource_logs.iter().map(|r| r.scope_logs[0].log_records.len()).collect();
        assert_eq!(counts, [2, 1, 1]);
    }
}
