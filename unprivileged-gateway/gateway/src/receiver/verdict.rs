//! Is this an export request, and how many records does it hold?

use super::answer::Fault;
use crate::seam::Signal;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;

/// Log records, spans or metrics in the request.
pub(super) fn count(signal: Signal, bytes: &[u8]) -> Result<u32, Fault> {
    let malformed = |error: prost::DecodeError| Fault::Malformed(format!("not an OTLP request: {error}"));
    let items: usize = match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(bytes)
            .map_err(malformed)?
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs)
            .map(|scope| scope.log_records.len())
            .sum(),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes)
            .map_err(malformed)?
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans)
            .map(|scope| scope.spans.len())
            .sum(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes)
            .map_err(malformed)?
            .resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics)
            .map(|scope| scope.metrics.len())
            .sum(),
        Signal::Profiles => return Err(Fault::Unserved("profiles are not taken here".into())),
    };
    Ok(items as u32)
}
