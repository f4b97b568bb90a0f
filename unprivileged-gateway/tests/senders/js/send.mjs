// OpenTelemetry's own JavaScript SDK as the sender. It sends gzip with chunked encoding.
// Prints what it sent as one JSON object, so that a test can compare it with what a backend received.
// Usage: node send.mjs json|proto ENDPOINT COUNT

import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';

const [form, endpoint, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const suffix = form === 'json' ? 'http' : 'proto';
const { OTLPLogExporter } = await import(`@opentelemetry/exporter-logs-otlp-${suffix}`);
const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${suffix}`);

const attributes = { 'service.name': `js-${form}`, 'service.namespace': 'sdk', 'deployment.environment': 'test' };
const resource = resourceFromAttributes(attributes);
const spanExporter = new OTLPTraceExporter({ url: `${endpoint}/v1/traces`, compression: 'gzip' });
const logExporter = new OTLPLogExporter({ url: `${endpoint}/v1/logs`, compression: 'gzip' });
const spanProcessor = new BatchSpanProcessor(spanExporter);
const logProcessor = new BatchLogRecordProcessor({ exporter: logExporter });
const tracers = new BasicTracerProvider({ resource, spanProcessors: [spanProcessor] });
const loggers = new LoggerProvider({ resource, processors: [logProcessor] });
const tracer = tracers.getTracer('e2e', '1.2.3');
const logger = loggers.getLogger('e2e', '1.2.3');

const bodies = ['plain line', 'umlauts äöü and 漢字 and a tab\t', 'quotes " and \\ and {braces}',
  { event: 'login', user: { id: 7, admin: false } }, ['a', 1, 2.5, true], 42, 'two\nlines'];
const severities = [['DEBUG', SeverityNumber.DEBUG], ['INFO', SeverityNumber.INFO], ['WARN', SeverityNumber.WARN],
  ['ERROR', SeverityNumber.ERROR]];
const sent = { resource: attributes, logs: [], spans: [] };

function describe(span, parent, attributes, events, kind, status) {
  const { traceId, spanId } = span.spanContext();
  sent.spans.push({ trace_id: traceId, span_id: spanId, parent_id: parent ? parent.spanContext().spanId : '',
    name: span.name, kind, status, attributes, events });
}

for (let i = 0; i < count; i += 1) {
  const values = { s: `v${i}`, i, f: i + 0.25, b: i % 2 === 0, list: ['x', 'y'] };
  const parent = tracer.startSpan(`parent ${i}`, { kind: SpanKind.SERVER, attributes: values });
  const inside = trace.setSpan(context.active(), parent);
  parent.addEvent('cache miss', { key: `k${i}` });
  const child = tracer.startSpan(`child ${i}`, { kind: SpanKind.CLIENT }, inside);
  const broke = i % 3 === 0;
  if (broke) child.setStatus({ code: SpanStatusCode.ERROR, message: 'it broke' });
  const [severityText, severityNumber] = severities[i % severities.length];
  const body = bodies[i % bodies.length];
  const logAttributes = { number: i, 'http.route': `/r/${i}`, flag: i % 2 === 1 };
  const ms = Date.now();
  logger.emit({ timestamp: ms, observedTimestamp: ms, severityNumber, severityText, body, attributes: logAttributes,
    context: trace.setSpan(context.active(), child) });
  const { traceId, spanId } = child.spanContext();
  sent.logs.push({ ts_ns: `${ms}000000`, severity_number: severityNumber, severity_text: severityText, body,
    attributes: logAttributes, trace_id: traceId, span_id: spanId });
  child.end();
  parent.end();
  describe(parent, null, values, ['cache miss'], 2, 0);
  describe(child, parent, {}, [], 3, broke ? 2 : 0);
}

await Promise.all([spanProcessor.forceFlush(), logProcessor.forceFlush()]);
await Promise.all([tracers.shutdown(), loggers.shutdown()]);
process.stdout.write(JSON.stringify(sent));
