//! One OTLP trace request, as spans ready to be shown.
//!
//! Each span is translated once, at arrival, into the JSON that the page will get: the view holds text, not trees. Weakness: a
//! search inside attributes would have to parse that text again; the page searches names.

use super::line::ALLOCATION_BYTES;
use super::value::{DEPTH_MAX, VALUE_BYTES_MAX, cut, hex, object};
use model::envelope::Sidecar;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use prost::Message as _;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;

/// Events of one span that are kept.
const EVENTS_MAX: usize = 256;
const _: () = assert!(DEPTH_MAX < 100, "prost itself stops at 100");

/// What spans of one resource have in common.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) service: Arc<str>,
    pub(super) resource: Box<RawValue>,
}

#[derive(Debug)]
pub(super) struct HeldSpan {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: Box<str>,
    pub(super) parent_id: Box<str>,
    pub(super) name: Box<str>,
    pub(super) kind: &'static str,
    /// Unix nanoseconds.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) status: &'static str,
    pub(super) status_message: Box<str>,
    pub(super) scope: Arc<str>,
    pub(super) attributes: Box<RawValue>,
    pub(super) events: Box<RawValue>,
    pub(super) origin: Arc<Origin>,
}

impl HeldSpan {
    /// What this span holds on the heap; its own place is counted by the trace, [`origin_bytes`] once a trace and request.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.span_id, &self.parent_id, &self.name, &self.status_message];
        8 * ALLOCATION_BYTES
            + texts.iter().map(|text| text.len()).sum::<usize>()
            + self.attributes.get().len()
            + self.events.get().len()
    }
}

pub(super) fn origin_bytes(origin: &Origin) -> usize {
    size_of::<Origin>() + 3 * ALLOCATION_BYTES + origin.service.len() + origin.resource.get().len()
}

fn raw(value: Value) -> Box<RawValue> {
    to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Decodes one request. Errors: bytes that are no such request. A span without a valid trace id is shown nowhere and left out.
pub(super) fn decode(sidecar: &Sidecar, bytes: &[u8]) -> Result<Vec<HeldSpan>, prost::DecodeError> {
    let request = ExportTraceServiceRequest::decode(bytes)?;
    let mut held = Vec::new();
    for resource_spans in request.resource_spans {
        let attributes = resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        let origin = Arc::new(origin(&attributes, sidecar));
        for scope_spans in resource_spans.scope_spans {
            let name = scope_spans.scope.map(|scope| scope.name).unwrap_or_default();
            let scope: Arc<str> = cut(&name, VALUE_BYTES_MAX).into();
            held.extend(scope_spans.spans.iter().filter_map(|span| held_span(span, &scope, &origin)));
        }
    }
    Ok(held)
}

fn origin(attributes: &[KeyValue], sidecar: &Sidecar) -> Origin {
    let sent = object(attributes, 0);
    // Enrichment never overwrites what the sender wrote.
    let mut all: serde_json::Map<String, Value> = sidecar
        .enrichment
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(cut(value, VALUE_BYTES_MAX))))
        .collect();
    all.extend(sent);
    let service = all.get("service.name").and_then(Value::as_str).unwrap_or_default().into();
    Origin { service, resource: raw(Value::Object(all)) }
}

fn held_span(span: &Span, scope: &Arc<str>, origin: &Arc<Origin>) -> Option<HeldSpan> {
    let trace_id: [u8; 16] = span.trace_id.as_slice().try_into().ok().filter(|id| *id != [0; 16])?;
    let id = |bytes: &[u8]| {
        if bytes.iter().all(|byte| *byte == 0) { "".into() } else { hex(&bytes[..bytes.len().min(8)]).into() }
    };
    let status = span.status.as_ref();
    Some(HeldSpan {
        trace_id,
        span_id: id(&span.span_id),
        parent_id: id(&span.parent_span_id),
        name: cut(&span.name, VALUE_BYTES_MAX).into(),
        kind: kind(span.kind),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano.max(span.start_time_unix_nano),
        status: match status.map_or(0, |status| status.code) {
            1 => "ok",
            2 => "error",
            _ => "unset",
        },
        status_message: status.map(|status| cut(&status.message, VALUE_BYTES_MAX)).unwrap_or_default().into(),
        scope: scope.clone(),
        attributes: raw(Value::Object(object(&span.attributes, 0))),
        events: raw(span.events.iter().take(EVENTS_MAX).map(event).collect()),
        origin: origin.clone(),
    })
}

fn event(event: &span::Event) -> Value {
    serde_json::json!({
        "ts_ns": event.time_unix_nano.to_string(),
        "name": cut(&event.name, VALUE_BYTES_MAX),
        "attributes": object(&event.attributes, 0),
    })
}

fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}
