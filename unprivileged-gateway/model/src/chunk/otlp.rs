//! Lines of files as an OTLP logs request, for destinations that speak nothing else.
//!
//! A translator who works page by page: lines of one source and output share a resource, and a page is handed over when it is
//! as large as receivers take. Names are those of OpenTelemetry's conventions; bytes that are no UTF-8 become U+FFFD, since the
//! form has room for text only where a body is a string. Pure: same lines, same bytes.

use super::join::Line;
use super::{APP, FileLabels, HOST, Source, level};
use crate::cri::Stream;
use crate::wire::{put_bytes, put_varint};
use std::sync::Arc;

/// A line as it grows into a record: keys, time, level. Unit: bytes.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// Builds requests.
#[derive(Default)]
pub struct Requests {
    group: Option<(Arc<Source>, Option<Stream>)>,
    /// `ScopeLogs` of the open group.
    records: Vec<u8>,
    /// Finished `ResourceLogs` of the open request.
    request: Vec<u8>,
    items: u32,
}

/// One request.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub body: Vec<u8>,
    pub items: u32,
}

impl Requests {
    /// Adds a line; its text is cut at `line_bytes`. Gives a request that would be larger than `max` with it.
    pub fn add(&mut self, line: &Line<'_>, labels: &FileLabels, line_bytes: usize, max: usize) -> Option<Request> {
        let same = self.group.as_ref().is_some_and(|(source, stream)| {
            *stream == line.stream && (Arc::ptr_eq(source, &line.source) || *source == line.source)
        });
        if !same {
            self.close_group(labels);
            self.group = Some((line.source.clone(), line.stream));
        }
        let grown = self.request.len() + self.records.len() + line.text.len().min(line_bytes) + RECORD_OVERHEAD_BYTES;
        let full = if self.items > 0 && grown > max { self.finish(labels) } else { None };
        self.group.get_or_insert_with(|| (line.source.clone(), line.stream));
        let record = record(line, line_bytes);
        put_bytes(&mut self.records, 2, &record);
        self.items += 1;
        full
    }

    /// The request of everything added since the last one.
    pub fn finish(&mut self, labels: &FileLabels) -> Option<Request> {
        self.close_group(labels);
        let items = std::mem::take(&mut self.items);
        let body = std::mem::take(&mut self.request);
        (items > 0).then_some(Request { body, items })
    }

    fn close_group(&mut self, labels: &FileLabels) {
        let Some((source, stream)) = self.group.take() else { return };
        if self.records.is_empty() {
            return;
        }
        let mut resource_logs = Vec::with_capacity(self.records.len() + 512);
        put_bytes(&mut resource_logs, 1, &resource(&source, stream, labels));
        put_bytes(&mut resource_logs, 2, &self.records);
        put_bytes(&mut self.request, 1, &resource_logs);
        self.records.clear();
    }
}

fn record(line: &Line<'_>, line_bytes: usize) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line.text);
    let kept = text.get(..text.floor_char_boundary(line_bytes)).unwrap_or_default();
    let mut record = Vec::with_capacity(kept.len() + RECORD_OVERHEAD_BYTES);
    record.push(1 << 3 | crate::wire::FIXED64);
    record.extend_from_slice(&line.at.to_le_bytes());
    if let Some(level) = level::detect(&line.text) {
        record.push(2 << 3 | crate::wire::VARINT);
        put_varint(&mut record, number(level));
        put_bytes(&mut record, 3, level.to_ascii_uppercase().as_bytes());
    }
    let mut body = Vec::with_capacity(kept.len() + 8);
    put_bytes(&mut body, 1, kept.as_bytes());
    put_bytes(&mut record, 5, &body);
    if line.cut || kept.len() < text.len() {
        put_bytes(&mut record, 6, &key_value("log.truncated", "true"));
    }
    record
}

/// The first severity number of a level's four.
fn number(level: &str) -> u64 {
    match level {
        "trace" => 1,
        "debug" => 5,
        "warn" => 13,
        "error" => 17,
        "fatal" | "critical" => 21,
        _ => 9,
    }
}

fn resource(source: &Source, stream: Option<Stream>, labels: &FileLabels) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |name: &str, value: &str| put_bytes(&mut out, 1, &key_value(name, value));
    let own = labels.files.get(&source.root).filter(|_| !source.is_pods());
    let job = own.and_then(|own| own.get("job")).map_or(source.root.as_str(), String::as_str);
    if let Some(service) = source.service().or((!source.is_pods()).then_some(job)) {
        add("service.name", service);
    }
    if let Some(pod) = &source.pod {
        add("k8s.namespace.name", &pod.namespace);
        add("k8s.pod.name", &pod.pod);
        add("k8s.pod.uid", &pod.uid);
        add("k8s.container.name", &pod.container);
        add("k8s.container.restart_count", &pod.restart.to_string());
    }
    add("log.file.path", &source.path);
    if let Some(stream) = stream {
        add("log.iostream", stream.name());
    }
    if let Some(host) = source.known(&HOST) {
        add("host.name", host);
    }
    for (name, value) in own.into_iter().flatten().filter(|(name, _)| *name != "job") {
        add(name, value);
    }
    for (name, value) in
        source.enrichment.iter().filter(|(name, _)| !APP.contains(&&**name) && !HOST.contains(&&**name))
    {
        add(name, value);
    }
    out
}

fn key_value(name: &str, value: &str) -> Vec<u8> {
    let (mut any, mut pair) = (Vec::with_capacity(value.len() + 8), Vec::with_capacity(name.len() + value.len() + 16));
    put_bytes(&mut any, 1, value.as_bytes());
    put_bytes(&mut pair, 1, name.as_bytes());
    put_bytes(&mut pair, 2, &any);
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::FileRef;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use prost::Message;
    use std::borrow::Cow;

    fn source(root: &str, path: &str) -> Arc<Source> {
        let known = [("host.name".to_owned(), "h1".to_owned())];
        Arc::new(Source::new(&FileRef { root: root.into(), path: path.into(), ..FileRef::default() }, &known))
    }

    fn line<'a>(source: &Arc<Source>, stream: Option<Stream>, at: u64, text: &'a [u8]) -> Line<'a> {
        Line { source: source.clone(), at, stream, text: Cow::Borrowed(text), cut: false }
    }

    #[test]
    fn lines_become_records_another_decoder_reads() {
        let pod = source("pods", "shop_cart_0d1c2b3a-0000-4000-8000-00000000abcd/web/0.log");
        let file = source("sys", "/var/log/syslog");
        let (labels, mut requests) = (FileLabels::default(), Requests::default());
        let lines = [
            line(&pod, Some(Stream::Stdout), 7, b"level=warn x"),
            line(&pod, Some(Stream::Stdout), 8, b"\xff"),
            line(&file, None, 9, b"123456789 is long"),
        ];
        assert!(lines.iter().all(|line| requests.add(line, &labels, 13, usize::MAX).is_none()));
        let made = requests.finish(&labels).unwrap();
        assert_eq!(made.items, 3);
        let read = ExportLogsServiceRequest::decode(&made.body[..]).unwrap();
        let resources: Vec<String> = read.resource_logs.iter().map(|r| format!("{:?}", r.resource)).collect();
        assert_eq!(resources.len(), 2);
        assert!(
            resources[0].contains("k8s.pod.name")
                && resources[0].contains("\"cart\"")
                && resources[0].contains("stdout")
        );
        assert!(resources[1].contains("\"sys\"") && resources[1].contains("/var/log/syslog"));
        let records: Vec<_> = read.resource_logs.iter().flat_map(|r| &r.scope_logs[0].log_records).collect();
        assert_eq!(
            (records[0].time_unix_nano, records[0].severity_number, &records[0].severity_text[..]),
            (7, 13, "WARN")
        );
        assert!(format!("{:?}", records[1].body).contains('\u{fffd}'));
        assert!(
            format!("{:?}", records[2]).contains("log.truncated")
                && format!("{:?}", records[2].body).contains("789 is ")
        );
        assert_eq!(requests.finish(&labels), None);
    }

    #[test]
    fn a_request_ends_before_it_is_too_large() {
        let (labels, mut requests) = (FileLabels::default(), Requests::default());
        let file = source("sys", "/x");
        let text = [b'x'; 1000];
        let mut made: Vec<Request> =
            (0..100).filter_map(|at| requests.add(&line(&file, None, at, &text), &labels, 2000, 10_000)).collect();
        made.extend(requests.finish(&labels));
        assert_eq!(made.iter().map(|r| r.items).sum::<u32>(), 100);
        assert!(
            made.iter().all(|r| r.body.len() < 10_000 + 1000),
            "{:?}",
            made.iter().map(|r| r.body.len()).collect::<Vec<_>>()
        );
        assert!(made.len() >= 10);
    }
}
