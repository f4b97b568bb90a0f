//! One OTLP log request, or lines of files, with labels and metadata: what a reader of Loki would see.
//!
//! Like sorting a mail bag by sender first: lines of one resource and scope share one envelope (labels and common metadata), and
//! each carries only what is its own. The rules are those of interface.md's row "OTLP logs". Weakness: a line is cut at
//! [`LINE_BYTES_MAX`], shorter than in Loki; the page shows lines, it does not archive them.

use super::value::{VALUE_BYTES_MAX, cut, head, hex, metadata_name, text};
use model::chunk::{FileLabels, join};
use model::envelope::Sidecar;
use model::loki::JOURNAL;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a line that the view keeps.
pub(super) const LINE_BYTES_MAX: usize = 32 * 1024;
/// Lines that live and are let go together.
pub(super) const CHUNK_LINES_MAX: usize = 256;
/// What one heap allocation costs beside its bytes.
pub(super) const ALLOCATION_BYTES: usize = 16;

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];
const UNKNOWN: &str = "unknown";

pub(super) type Pairs = Vec<(String, String)>;

/// What lines of one resource and scope have in common.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) service: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Line {
    /// Unix nanoseconds.
    pub(super) at: u64,
    pub(super) level: &'static str,
    pub(super) line: Box<str>,
    pub(super) metadata: Box<[(String, String)]>,
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

impl Line {
    pub(super) fn trace_hex(&self) -> String {
        if self.trace_id == [0; 16] { String::new() } else { hex(&self.trace_id) }
    }

    pub(super) fn span_hex(&self) -> String {
        if self.span_id == [0; 8] { String::new() } else { hex(&self.span_id) }
    }
}

/// Lines that came together, in the order in which they came.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Of the WAL frame.
    pub(super) seq: u64,
    /// Of the first line, within the frame.
    pub(super) first_index: u32,
    /// Lines that the view had seen before this chunk.
    pub(super) first_number: u64,
    /// Unix nanoseconds.
    pub(super) received_at: u64,
    pub(super) group: Arc<Group>,
    pub(super) lines: Box<[Line]>,
    /// All of it, the shared group included: two chunks of one group both pay for it, so the sum is never too small.
    pub(super) bytes: usize,
}

fn pairs_bytes<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> usize {
    let each = size_of::<(String, String)>() + 2 * ALLOCATION_BYTES;
    pairs.map(|(name, value)| each + name.len() + value.len()).sum()
}

fn group_bytes(group: &Group) -> usize {
    size_of::<Group>() + group.service.len() + pairs_bytes(group.labels.iter()) + pairs_bytes(group.metadata.iter())
}

fn line_bytes(line: &Line) -> usize {
    let own = size_of::<Line>() + 2 * ALLOCATION_BYTES + line.line.len();
    own + pairs_bytes(line.metadata.iter().map(|(name, value)| (name, value)))
}

/// Decodes one request into chunks; `seen` is how many lines the view had before. Errors: bytes that are no such request.
pub(super) fn decode(seq: u64, sidecar: &Sidecar, raw: &[u8], seen: u64) -> Result<Vec<Chunk>, prost::DecodeError> {
    let request = ExportLogsServiceRequest::decode(raw)?;
    let mut chunks = Vec::new();
    let mut index = 0_u32;
    for resource_logs in request.resource_logs {
        let resource = resource_logs.resource.map(|resource| resource.attributes).unwrap_or_default();
        for scope_logs in resource_logs.scope_logs {
            let scope = scope_logs.scope.unwrap_or_default();
            let group = Arc::new(group(&resource, &scope, sidecar));
            for records in scope_logs.log_records.chunks(CHUNK_LINES_MAX) {
                let lines: Box<[Line]> = records.iter().map(|record| line(record, sidecar)).collect();
                let bytes = size_of::<Chunk>()
                    + 3 * ALLOCATION_BYTES
                    + group_bytes(&group)
                    + lines.iter().map(line_bytes).sum::<usize>();
                let first_number = seen + u64::from(index);
                let (group, received_at) = (group.clone(), sidecar.received_at);
                chunks.push(Chunk { seq, first_index: index, first_number, received_at, group, lines, bytes });
                index = index.saturating_add(u32::try_from(records.len()).unwrap_or(u32::MAX));
            }
        }
    }
    Ok(chunks)
}

/// Lines of files as chunks; neighbours of one file and output live together.
pub(super) fn of_files(
    (seq, first): (u64, u32),
    received_at: u64,
    lines: &[join::Line<'_>],
    labels: &FileLabels,
    seen: u64,
) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut index = first;
    let same = |a: &join::Line<'_>, b: &join::Line<'_>| a.stream == b.stream && a.source == b.source;
    for lines in lines.chunk_by(same) {
        let Some(one) = lines.first() else { continue };
        let group = Arc::new(file_group(one, labels));
        for lines in lines.chunks(CHUNK_LINES_MAX) {
            let shown: Box<[Line]> = lines.iter().map(file_line).collect();
            let bytes = size_of::<Chunk>()
                + 3 * ALLOCATION_BYTES
                + group_bytes(&group)
                + shown.iter().map(line_bytes).sum::<usize>();
            chunks.push(Chunk {
                seq,
                first_index: index,
                first_number: seen + u64::from(index - first),
                received_at,
                group: group.clone(),
                lines: shown,
                bytes,
            });
            index = index.saturating_add(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        }
    }
    chunks
}

fn file_group(line: &join::Line<'_>, files: &FileLabels) -> Group {
    let (labels, metadata) = files.of(&line.source, line.stream);
    let labels: BTreeMap<String, String> = labels.into_iter().map(|(n, v)| (n, cut(&v, VALUE_BYTES_MAX))).collect();
    let service =
        line.source.service().or_else(|| labels.get("job").map(String::as_str)).unwrap_or_default().to_owned();
    let metadata = metadata.into_iter().map(|(n, v)| (metadata_name(&n), cut(&v, VALUE_BYTES_MAX))).collect();
    Group { service, labels, metadata }
}

fn file_line(line: &join::Line<'_>) -> Line {
    let level = model::chunk::level::detect(&line.text);
    let metadata = level.map(|level| ("detected_level".to_owned(), level.to_owned()));
    Line {
        at: line.at,
        level: level.unwrap_or(UNKNOWN),
        line: cut(&String::from_utf8_lossy(&line.text), LINE_BYTES_MAX).into(),
        metadata: metadata.into_iter().collect(),
        trace_id: Default::default(),
        span_id: Default::default(),
    }
}

/// Resource attributes that become stream labels.
fn label_of(attribute: &str) -> Option<&'static str> {
    match attribute {
        "service.name" => Some("service_name"),
        "service.namespace" => Some("service_namespace"),
        "k8s.namespace.name" => Some("namespace"),
        "k8s.pod.name" => Some("pod"),
        "k8s.container.name" => Some("container"),
        _ => None,
    }
}

fn group(resource: &[KeyValue], scope: &InstrumentationScope, sidecar: &Sidecar) -> Group {
    let mut group = Group::default();
    let mut put = |name: &str, value: String| match label_of(name) {
        Some(label) => group.labels.insert(label.to_owned(), value),
        None => group.metadata.insert(metadata_name(name), value),
    };
    // Enrichment first: what the sender wrote overwrites it.
    for (name, value) in &sidecar.enrichment {
        put(name, cut(value, VALUE_BYTES_MAX));
    }
    for attribute in resource {
        put(&attribute.key, text(attribute.value.as_ref(), VALUE_BYTES_MAX));
    }
    for attribute in &scope.attributes {
        group.metadata.insert(metadata_name(&attribute.key), text(attribute.value.as_ref(), VALUE_BYTES_MAX));
    }
    for (name, value) in [("scope_name", &scope.name), ("scope_version", &scope.version)] {
        if !value.is_empty() {
            group.metadata.insert(name.to_owned(), cut(value, VALUE_BYTES_MAX));
        }
    }
    group.labels.retain(|_, value| !value.is_empty());
    group.service = group.labels.get("service_name").cloned().unwrap_or_default();
    if !group.service.is_empty() {
        let namespace = group.labels.get("service_namespace").map(|name| format!("{name}/")).unwrap_or_default();
        group.labels.insert("job".to_owned(), format!("{namespace}{}", group.service));
    }
    group.labels.insert("exporter".to_owned(), "OTLP".to_owned());
    if let Some(job) = group.metadata.remove(&metadata_name(JOURNAL)) {
        return journal_group(group, job);
    }
    group
}

/// Labels of the system journal, as the Loki encoder gives them.
fn journal_group(mut group: Group, job: String) -> Group {
    group.labels = BTreeMap::from([("job".to_owned(), job)]);
    for (attribute, label) in [("systemd_unit", "unit"), ("host_name", "hostname"), ("level", "level")] {
        let value = group.metadata.remove(attribute).filter(|value| !value.is_empty());
        group.labels.extend(value.map(|value| (label.to_owned(), value)));
    }
    group
}

/// Loki's name of a record's level: by the number where it has one, else by the words that Loki itself knows.
fn level(record: &LogRecord) -> &'static str {
    if let 1..=24 = record.severity_number {
        return LEVELS[(record.severity_number as usize - 1) / 4];
    }
    match head(&record.severity_text, 16).to_ascii_lowercase().as_str() {
        "trace" | "trc" => "trace",
        "debug" | "dbg" => "debug",
        "info" | "inf" | "information" => "info",
        "warn" | "wrn" | "warning" => "warn",
        "error" | "err" => "error",
        "critical" => "critical",
        "fatal" => "fatal",
        _ => UNKNOWN,
    }
}

/// What the record's severity adds to its metadata: only what the level does not say.
fn severity(record: &LogRecord, level: &str) -> Pairs {
    let (number, text) = (record.severity_number, record.severity_text.as_str());
    let mut pairs = Pairs::new();
    if !text.is_empty() && text.to_ascii_lowercase() != level {
        pairs.push(("severity_text".to_owned(), cut(text, VALUE_BYTES_MAX)));
    }
    if number != 0 && !((1..=24).contains(&number) && number % 4 == 1) {
        pairs.push(("severity_number".to_owned(), number.to_string()));
    }
    if number != 0 || !text.is_empty() {
        pairs.push(("detected_level".to_owned(), level.to_owned()));
    }
    pairs
}

fn line(record: &LogRecord, sidecar: &Sidecar) -> Line {
    let level = level(record);
    let mut metadata = Pairs::new();
    for attribute in &record.attributes {
        metadata.push((metadata_name(&attribute.key), text(attribute.value.as_ref(), VALUE_BYTES_MAX)));
    }
    if !record.event_name.is_empty() {
        metadata.push(("event_name".to_owned(), cut(&record.event_name, VALUE_BYTES_MAX)));
    }
    metadata.extend(severity(record, level));
    let at = [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|at| *at != 0);
    Line {
        at: at.unwrap_or(sidecar.received_at),
        level,
        line: text(record.body.as_ref(), LINE_BYTES_MAX).into(),
        metadata: metadata.into(),
        trace_id: record.trace_id.as_slice().try_into().unwrap_or_default(),
        span_id: record.span_id.as_slice().try_into().unwrap_or_default(),
    }
}
