"""OpenTelemetry's own Python SDK as the sender: logs and spans of every value type.

Prints what it sent as one JSON object, so that a test can compare it with what a backend received.
Usage: send.py grpc|http ENDPOINT COUNT
"""

import json
import sys
import time

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

SEVERITIES = [SeverityNumber.TRACE, SeverityNumber.DEBUG, SeverityNumber.INFO, SeverityNumber.INFO2,
              SeverityNumber.WARN, SeverityNumber.ERROR, SeverityNumber.FATAL]
BODIES = ["plain line", "", "umlauts äöü and 漢字 and a tab\t", 'quotes " and \\ and {braces}',
          {"event": "login", "user": {"id": 7, "admin": False}}, ["a", 1, 2.5, True], 42, "two\nlines"]


def exporters(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        return OTLPLogExporter(endpoint=endpoint, insecure=True), OTLPSpanExporter(endpoint=endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return (OTLPLogExporter(endpoint=endpoint + "/v1/logs", compression=Compression.Gzip),
            OTLPSpanExporter(endpoint=endpoint + "/v1/traces", compression=Compression.Gzip))


def hex_id(value, digits):
    return format(value, f"0{digits}x") if value else ""


def send_spans(tracer, count, sent):
    for i in range(count):
        with tracer.start_as_current_span(f"parent {i}", kind=SpanKind.SERVER) as parent:
            attributes = {"s": f"v{i}", "i": i, "f": i / 4, "b": i % 2 == 0, "list": ["x", "y"]}
            parent.set_attributes(attributes)
            parent.add_event("cache miss", {"key": f"k{i}"})
            with tracer.start_as_current_span(f"child {i}", kind=SpanKind.CLIENT) as child:
                if i % 3 == 0:
                    child.set_status(Status(StatusCode.ERROR, "it broke"))
                child_sent = describe(child, parent, {}, [], 3, 2 if i % 3 == 0 else 0)
            sent.append(describe(parent, None, attributes, ["cache miss"], 2, 0))
            sent.append(child_sent)


def describe(span, parent, attributes, events, kind, status):
    context = span.get_span_context()
    return {"trace_id": hex_id(context.trace_id, 32), "span_id": hex_id(context.span_id, 16),
            "parent_id": hex_id(parent.get_span_context().span_id, 16) if parent else "",
            "name": span.name, "kind": kind, "status": status, "attributes": attributes, "events": events}


def send_logs(logger, tracer, count, sent):
    for i in range(count):
        severity, body = SEVERITIES[i % len(SEVERITIES)], BODIES[i % len(BODIES)]
        attributes = {"number": i, "http.route": f"/r/{i}", "flag": i % 2 == 1}
        at = time.time_ns()
        with tracer.start_as_current_span(f"log {i}") as span:
            context = span.get_span_context()
            logger.emit(timestamp=at, observed_timestamp=at, severity_number=severity, severity_text=severity.name,
                        body=body, attributes=attributes)
        sent.append({"ts_ns": str(at), "severity_number": severity.value, "severity_text": severity.name, "body": body,
                     "attributes": attributes, "trace_id": hex_id(context.trace_id, 32),
                     "span_id": hex_id(context.span_id, 16)})


def main():
    protocol, endpoint, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    resource = {"service.name": f"python-{protocol}", "service.namespace": "sdk", "deployment.environment": "test"}
    log_exporter, span_exporter = exporters(protocol, endpoint)
    tracers = TracerProvider(resource=Resource.create(resource))
    tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    loggers = LoggerProvider(resource=Resource.create(resource))
    loggers.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    tracer = tracers.get_tracer("e2e", "1.2.3")
    sent = {"resource": resource, "logs": [], "spans": []}
    send_spans(tracer, count, sent["spans"])
    # Logs want a current span; theirs is not exported, so that spans can be counted.
    send_logs(loggers.get_logger("e2e", "1.2.3"), TracerProvider().get_tracer("quiet"), count, sent["logs"])
    flushed = tracers.force_flush(20_000) and loggers.force_flush(20_000)
    tracers.shutdown()
    loggers.shutdown()
    if not flushed:
        sys.exit("the SDK could not deliver within 20 s")
    json.dump(sent, sys.stdout)


main()
