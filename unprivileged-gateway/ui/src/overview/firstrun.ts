// Nothing has arrived yet: the exact lines that change that. The page changes by itself with the first record.
import type { ConfigAnswer, Status } from '../api/types';
import type { PageContext } from '../app';
import { ask } from '../api/client';
import { fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { head, link, paste, segments, stateMark } from '../dom/parts';
import type { Part } from './page';
import { servedSignals } from './pipeline';

const DEFAULT_HTTP = 'http://127.0.0.1:4318';

type Language = 'any' | 'python' | 'java' | 'node' | 'curl';

/** Environment for an SDK: where to, how, and which exporters. Signals that are not served are turned off, or the SDK complains. */
export function environment(status: Status): string {
  // Of the signals that are served, those that come in over OTLP: metrics of this host alone take no SDK's.
  const served = new Set(servedSignals(status).map((s) => s.name).filter((name) => status.sources.some((s) => s.signal === name && s.name.startsWith('otlp/'))));
  const exporter = (signal: 'logs' | 'traces' | 'metrics') => `OTEL_${signal.toUpperCase()}_EXPORTER=${served.has(signal) ? 'otlp' : 'none'}`;
  return [
    `export OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint(status)}`,
    'export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf',
    `export ${exporter('traces')} ${exporter('logs')} ${exporter('metrics')}`,
  ].join('\n');
}

function endpoint(status: Status): string {
  const at = status.addresses.otlp_http ?? DEFAULT_HTTP;
  return /^https?:/.test(at) ? at : `http://${at}`;
}

function linesFor(status: Status): Record<Language, string> {
  const env = environment(status);
  const hello = '{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"hello"}}]},"scopeLogs":[{"logRecords":[{"severityText":"INFO","body":{"stringValue":"hello, bulkhead"}}]}]}]}';
  return {
    any: `${env}\nyour-app`,
    python: `${env}\nexport OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED=true\nopentelemetry-instrument python app.py`,
    java: `${env}\njava -javaagent:opentelemetry-javaagent.jar -jar app.jar`,
    node: `${env}\nnode --require @opentelemetry/auto-instrumentations-node/register app.js`,
    curl: `curl ${endpoint(status)}/v1/logs -H 'content-type: application/json' -d '${hello}'`,
  };
}

const demo = (status: Status) => (endpoint(status) === DEFAULT_HTTP ? 'gateway demo' : `gateway demo --endpoint ${endpoint(status)}`);

function sending(status: Status): HTMLElement[] {
  const lines = linesFor(status);
  const box = paste(lines.any, 'Lines to paste');
  const choice = segments<Language>(
    'Language',
    [
      ['any', 'Any SDK'],
      ['python', 'Python'],
      ['java', 'Java'],
      ['node', 'Node'],
      ['curl', 'curl'],
    ],
    'any',
    (language) => box.show(lines[language]),
  );
  return [h('div.row', null, choice.el), box.el, h('p.t2.gap', null, 'Or sample data, until you stop it:'), paste(demo(status), 'Command for sample data').el];
}

/** Destinations are configured, but nothing has come in: the lines, above the empty pipeline. */
export function sendSomething(status: Status): Part {
  return {
    el: h('section.sec.first', { 'data-testid': 'first-run' }, head('Nothing received over OTLP yet', 'paste this where your program starts; it appears by itself'), sending(status)),
    update: () => undefined,
  };
}

export function firstRun(context: PageContext, status: Status): Part {
  const { view, addresses } = status;
  const lead = h('p.big', null, 'Running. Nothing leaves this machine.');
  ask<ConfigAnswer>('config', {}, context.scope.signal).then(
    (config) => text(lead, config.files.length ? 'Running, with no destination. Nothing leaves this machine.' : 'Running, with no configuration. Nothing leaves this machine.'),
    () => undefined, // the shorter sentence is true as well
  );
  const kept = view.enabled ? `Bulkhead keeps what arrives in memory for this page, at most ${format.size(view.max_bytes)}.` : 'The local view is off.';
  const shown: [string, string | undefined][] = [
    ['This page', addresses.ui ?? location.origin],
    ['OTLP over gRPC', addresses.otlp_grpc],
    ['OTLP over HTTP', addresses.otlp_http],
    ['Scrape this', `${addresses.ui ?? location.origin}/metrics`],
  ];
  const here = h('tbody');
  const el = h(
    'div.first',
    { 'data-testid': 'first-run' },
    lead,
    h('p.t2', null, `${kept} Point a program at one of these addresses.`),
    h('dl.addr', null, shown.map(([name, at]) => h('div', null, h('dt', null, name), h('dd.mono', null, at ?? 'off')))),
    h('div.cols', null, h('section.c7', null, head('Send something', 'then reload nothing: it appears by itself'), sending(status)), h('section.c5', null, head('Waiting for'), h('table', null, here), h('div.sec', null, head('Keep it', 'when you want a file to edit'), paste(keepIt(), 'Configuration to start from').el))),
  );
  return { el, update: (now) => fill(here, waitingFor(now)) };
}

function waitingFor(status: Status): HTMLElement[] {
  return servedSignals(status).map((signal) =>
    h('tr', { class: signal.name }, h('td', null, stateMark('off'), signal.title), h('td.t2', null, 'no record yet'), h('td.r', null, link('Open, it fills by itself', `#/${signal.name}`))),
  );
}

/** A dozen lines that also send it somewhere; the kinds and keys of the configuration page. */
function keepIt(): string {
  return [
    '# gateway.yaml, then: gateway run -c gateway.yaml',
    'receive:',
    '  otlp: { grpc: 127.0.0.1:4317, http: 127.0.0.1:4318 }',
    'send:',
    '  loki:',
    '    logs:',
    '      url: "http://127.0.0.1:3100/loki/api/v1/push"',
    '  otlp:',
    '    tempo:',
    '      endpoint: "127.0.0.1:14317"',
    '      signals: [ traces ]',
    '      tls: off',
    'local_view: { max: 64MiB }',
  ].join('\n');
}

