// Invented data for tests of the page, one scenario a name. A seed gives the same records every time; only the clock moves on.
// Never shipped: the gateway embeds dist/ alone.

export const SCENARIOS = ['well', 'first', 'down', 'full', 'off', 'locked', 'gap', 'noprobe', 'unexpected', 'hostile', 'huge'];

const GIB = 2 ** 30;
const SERVICES = ['storefront', 'catalog-api', 'checkout', 'payment', 'orders-db'];
const LINES = [
  ['info', 'GET /v2/search?q=desk lamp 200 in 27ms, 3613 hits'],
  ['info', 'rendered /p/19123 in 3ms'],
  ['debug', 'cache miss for key items:13246, loading from index'],
  ['warn', 'slow query: 7ms for "desk lamp", postings decoded 63999'],
  ['info', 'order 92745 placed, 3 lines, total 84.20'],
  ['error', 'deadlock detected; process 18203 waits for ShareLock on transaction 87000'],
  ['info', 'payment authorised for order 56512 in 182ms'],
  ['info', '<img src=x onerror=alert(1)> is text and stays text'],
];

/** A number in [0, 1) that depends on nothing but its argument. */
export function noise(n) {
  let x = Math.imul(n ^ 0x9e3779b9, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
}

const hex = (n, digits) => Array.from({ length: digits }, (_, i) => Math.floor(noise(n * 131 + i) * 16).toString(16)).join('');

/** Lines come over OTLP, from pods, from files and from the journal; each with the labels of its kind. */
function labelsOf(i, service) {
  if (i % 3 === 0) return { service_name: service, namespace: 'shop', exporter: 'OTLP' }; // those with a trace
  if (i % 7 === 1) return { job: 'syslog', filename: '/var/log/syslog', hostname: 'n1' };
  if (i % 7 === 2) return { job: 'systemd-journal', unit: 'ssh.service', hostname: 'n1', level: 'info' };
  if (i % 7 === 3) return { namespace: 'shop', pod: `${service}-5f7b9c-kq4tz`, container: service, app: service, job: `shop/${service}`, stream: 'stderr' };
  return { service_name: service, namespace: 'shop', exporter: 'OTLP' };
}

export class Scenario {
  constructor(name, now = Date.now()) {
    this.name = name;
    this.started = now - 900_000;
    this.sample = 9; // log lines a second
  }

  get silent() {
    return this.name === 'first';
  }

  seconds(now) {
    return this.silent ? 0 : (now - this.started) / 1000;
  }

  status(now) {
    const s = this.seconds(now);
    const down = this.name === 'down' || this.name === 'full';
    const many = (rate) => Math.floor(s * rate);
    const logs = many(19_024) + many(9_216);
    const spans = many(4_507);
    const sinceDown = down ? s - 540 : 0;
    const heldLogs = down ? Math.floor(sinceDown * 28_240) : s ? 1_412 : 0;
    const heldBytes = this.name === 'full' ? Math.min(7.5 * GIB, Math.floor(6.9 * GIB + (sinceDown - 360) * 8e6)) : heldLogs * 240;
    const quarantined = s ? 2 : 0;
    const refused = this.name === 'full' ? many(41) : 0;
    const signal = (accepted, no, fill) => ({ served: true, accepted, refused: { full: no }, dropped: {}, bytes: accepted * 240, segments: 23, guarantee_bytes: GIB, fill });
    const destinations = [];
    const base = { configured: true, dropped: 0, damaged: 0, retries: 0, last_error: null, next_try_ms: null };
    if (!this.silent) {
      const off = this.name === 'gap' ? 7 : 0;
      destinations.push({
        ...base, kind: 'loki', name: 'logs', signals: ['logs'], url: 'http://127.0.0.1:3100/loki/api/v1/push', state: down ? 'retrying' : 'ok', accepted: logs, sent: logs - heldLogs - quarantined - off,
        waiting: { records: heldLogs, bytes: heldBytes, oldest_age_s: down ? sinceDown : 0.05 }, quarantined, sent_bytes: (logs - heldLogs) * 90, retries: down ? 14 : 0,
        last_error: down ? { at_ms: now - 4_000, text: '503 from 127.0.0.1:3100: too many unhealthy instances in the ring' } : null, next_try_ms: down ? now + 6_000 : null,
      });
      destinations.push({ ...base, kind: 'otlp', name: 'tempo', signals: ['traces'], url: '127.0.0.1:14317', state: 'ok', accepted: spans, sent: spans - 229, waiting: { records: 229, bytes: 68_700, oldest_age_s: 0.051 }, quarantined: 0, sent_bytes: spans * 150 });
    }
    if (this.name !== 'off') destinations.push({ ...base, kind: 'view', name: 'local', signals: ['logs', 'metrics', 'traces', 'profiles'], url: '', state: 'idle', accepted: logs + spans + many(136), sent: logs + spans + many(136), waiting: { records: 0, bytes: 0, oldest_age_s: 0 }, quarantined: 0, sent_bytes: 0 });
    return {
      now_ms: now,
      node: { name: 'n1', id: hex(5, 32), version: '0.1.0', started_ms: this.started, role: 'node' },
      ready: { ok: true, why: [] },
      storage: { path: '/var/lib/bulkhead', max_bytes: 8 * GIB, bytes: heldBytes + 3e7, segments: 24, state: this.name === 'full' ? 'high' : 'ok', thresholds: [0.7, 0.85, 0.95], commit: { count: many(180), p50_ms: s ? 0.9 : null, p99_ms: s ? 2.7 : null } },
      memory: { budget_bytes: 64 * 2 ** 20, used_bytes: 11e6, rss_bytes: 41e6 },
      signals: { logs: signal(logs, refused, heldBytes / (7 * GIB)), traces: signal(spans, 0, 0.001), metrics: signal(many(120), 0, 0.002), profiles: signal(many(16), 0, 0.001) },
      sources: [
        { name: 'otlp/grpc', signal: 'logs', accepted: many(19_024), refused, bytes: many(19_024) * 240 },
        { name: 'otlp/http', signal: 'logs', accepted: many(9_216), refused: 0, bytes: many(9_216) * 240 },
        { name: 'otlp/grpc', signal: 'traces', accepted: spans, refused: 0, bytes: spans * 300 },
        { name: 'journal', signal: 'logs', accepted: 0, refused: 0, bytes: 0 },
        { name: 'probe', signal: 'logs', accepted: 0, refused: 0, bytes: 0 },
        { name: 'host', signal: 'metrics', accepted: many(110), refused: 0, bytes: many(110) * 12 },
        { name: 'own', signal: 'metrics', accepted: many(10), refused: 0, bytes: many(10) * 12 },
        { name: 'probe', signal: 'profiles', accepted: many(16), refused: 0, bytes: many(16) * 900 },
      ],
      destinations,
      view: { enabled: this.name !== 'off', bytes: 31e6, max_bytes: 64 * 2 ** 20, covers: s ? { from_ms: now - 840_000, to_ms: now } : null },
      damage: { torn_tail: 0, checksum: 0 },
      addresses: { ui: 'http://127.0.0.1:12345', otlp_grpc: '127.0.0.1:4317', otlp_http: 'http://127.0.0.1:4318' },
    };
  }

  history(now, window_s) {
    const step_s = Math.max(1, Math.round(window_s / 900));
    const n = Math.floor(window_s / step_s);
    const down = this.name === 'down' || this.name === 'full';
    const held = this.status(now).destinations[0]?.waiting.bytes ?? 0;
    const flat = (v, k) => Array.from({ length: n }, (_, i) => (this.silent ? 0 : Math.round(v * (0.94 + 0.12 * noise(i * 7 + k)))));
    const since = (i) => (n - i) * step_s;
    const ramp = Array.from({ length: n }, (_, i) => (down ? Math.max(68_700, Math.round(held * (1 - since(i) / 360))) : 68_700 * (this.silent ? 0 : 1)));
    return {
      step_s,
      t0_ms: Math.floor(now / 1000) * 1000 - n * step_s * 1000,
      series: {
        waiting_bytes: ramp,
        'waiting.logs': ramp.map((b) => Math.max(0, b - 68_700)),
        'waiting.traces': ramp.map(() => (this.silent ? 0 : 68_700)),
        wal_bytes: ramp.map((b) => b + 3e7),
        'in.logs': flat(28_240, 1),
        'in.traces': flat(4_507, 2),
        'in.metrics': flat(120, 7),
        'in.profiles': flat(16, 8),
        'out.loki/logs': flat(28_240, 3).map((v, i) => (down && since(i) < 360 ? 0 : v)),
        'out.otlp/tempo': flat(4_507, 4),
        refused: flat(0, 5),
        commit_p99_ms: flat(2.7, 6),
      },
    };
  }

  line(i) {
    const at = this.started + (i * 1000) / this.sample;
    const [level, text] = LINES[Math.floor(noise(i) * LINES.length)];
    const service = SERVICES[Math.floor(noise(i * 3 + 1) * SERVICES.length)];
    const trace = i % 3 === 0 ? this.traceId(Math.floor(i / 18)) : '';
    return {
      id: String(i).padStart(9, '0'),
      ts_ns: `${Math.floor(at)}${String(Math.floor(noise(i * 5) * 1e6)).padStart(6, '0')}`,
      level,
      service,
      line: text,
      labels: labelsOf(i, service),
      metadata: { detected_level: level, k8s_pod_name: `${service}-5f7b9c-kq4tz`, telemetry_sdk_language: 'rust' },
      trace_id: trace,
      span_id: trace ? this.spanId(Math.floor(i / 18), 1) : '',
    };
  }

  lastLine(now) {
    return this.silent ? -1 : Math.floor(((now - this.started) / 1000) * this.sample);
  }

  logs(now, params) {
    const last = this.lastLine(now);
    const from = Number(params.get('from_ms') ?? 0);
    const to = Number(params.get('to_ms') ?? Infinity);
    const all = [];
    for (let i = Math.max(0, last - 8000); i <= last; i++) {
      const line = this.line(i);
      const ms = Number(line.ts_ns.slice(0, -6));
      if (ms >= from && ms <= to) all.push(line);
    }
    const matched = all.filter(matcher(params));
    const before = params.get('before');
    const page = (before ? matched.filter((l) => l.id < before) : matched).slice(-Number(params.get('limit') ?? 200));
    return { covers: { from_ms: now - 840_000, to_ms: now, evicted: 3 }, total: all.length, matched: matched.length, facets: facets(all), histogram: bars(matched, now), lines: page.reverse() };
  }

  traceId(i) {
    return hex(i * 17 + 3, 32);
  }

  spanId(i, k) {
    return hex(i * 97 + k * 13 + 7, 16);
  }

  /** One trace each two seconds. */
  traces(now, params) {
    const last = this.silent ? -1 : Math.floor((now - this.started) / 2000);
    const rows = [];
    for (let i = last; i >= Math.max(0, last - 300); i--) rows.push(this.traceRow(i));
    const q = (params.get('q') ?? '').toLowerCase();
    const kept = rows.filter(
      (t) => (!q || `${t.name} ${t.trace_id} ${t.services.join(' ')}`.toLowerCase().includes(q)) && (params.get('status') !== 'error' || t.errors > 0) && t.duration_ms >= Number(params.get('min_ms') ?? 0) && (!params.get('service') || t.services.includes(params.get('service'))),
    );
    if (params.get('sort') === 'slowest') kept.sort((a, b) => b.duration_ms - a.duration_ms);
    return { covers: { from_ms: now - 840_000, to_ms: now }, total: rows.length, services: SERVICES, traces: kept.slice(0, Number(params.get('limit') ?? 100)) };
  }

  traceRow(i) {
    const spans = this.spans(i);
    return { trace_id: this.traceId(i), service: 'storefront', name: spans[0].name, start_ms: this.started + i * 2000, duration_ms: this.length(i), spans: spans.length, errors: spans.filter((s) => s.status === 'error').length, services: [...new Set(spans.map((s) => s.service))] };
  }

  length(i) {
    return Math.round(20 * 2 ** (noise(i * 11) * 6));
  }

  spans(i) {
    const start = BigInt(this.started + i * 2000) * 1_000_000n;
    const total = this.length(i);
    const failed = noise(i * 29) > 0.85;
    const plan = [
      ['storefront', ['GET /p/:id', 'POST /v2/orders', 'GET /v2/search'][i % 3], -1, 0, 1],
      ['checkout', 'PlaceOrder', 0, 0.03, 0.92],
      ['checkout', 'quote', 1, 0.05, 0.1],
      ['orders-db', 'SELECT stock', 1, 0.2, 0.08],
      ['payment', 'Authorize', 1, 0.34, 0.4],
      ['payment', 'POST issuer', 4, 0.38, 0.34],
      ['orders-db', 'INSERT orders', 1, 0.78, 0.1],
      ['catalog-api', 'publish order.placed', 1, 0.9, 0.05],
    ];
    return plan.map(([service, name, parent, at, share], k) => ({
      span_id: this.spanId(i, k),
      parent_id: parent < 0 ? '' : this.spanId(i, parent),
      service,
      name,
      kind: k ? 'client' : 'server',
      start_ns: String(start + BigInt(Math.round(total * at * 1e6))),
      end_ns: String(start + BigInt(Math.round(total * (at + share) * 1e6))),
      status: failed && k === 7 ? 'error' : 'unset',
      status_message: failed && k === 7 ? 'not leader for partition' : '',
      scope: 'io.opentelemetry.example',
      attributes: { 'http.response.status_code': failed && k === 7 ? 503 : 200, 'server.address': `${service}.shop` },
      resource: { 'service.name': service, 'k8s.namespace.name': 'shop', 'telemetry.sdk.language': 'rust' },
      events: k === 5 ? [{ ts_ns: String(start + BigInt(Math.round(total * 0.5 * 1e6))), name: 'retry', attributes: { attempt: 2 } }] : [],
    }));
  }

  trace(id, now) {
    const last = Math.floor((now - this.started) / 2000);
    for (let i = last; i >= 0; i--) if (this.traceId(i) === id) return { trace_id: id, spans: this.spans(i), logs: 6 };
    return null;
  }

  config() {
    const file = this.silent ? [] : ['gateway.yaml'];
    const rows = [
      ['node.name', 'n1', 'default', 'host name'],
      ['storage.path', '/var/lib/bulkhead', 'file', 'gateway.yaml:3'],
      ['storage.max', '8GiB', 'file', 'gateway.yaml:4'],
      ['storage.commit_window', '5ms', 'default', ''],
      ['http.listen', '127.0.0.1:12345', 'env', 'BULKHEAD_HTTP'],
      ['http.auth.bearer_file', '(masked)', 'file', 'gateway.yaml:8'],
      ['receive.otlp.grpc', '127.0.0.1:4317', 'file', 'gateway.yaml:12'],
      ['receive.otlp.http', '127.0.0.1:4318', 'file', 'gateway.yaml:12'],
      ['receive.otlp.max_request', '16MiB', 'default', ''],
      ['send.loki.logs.url', 'http://127.0.0.1:3100/loki/api/v1/push', 'file', 'gateway.yaml:15'],
      ['send.loki.logs.tenant', 'demo', 'flag', '--set send.loki.logs.tenant=demo'],
    ];
    return { yaml: yamlOf(rows), files: file, explain: rows.map(([path, value, layer, where]) => ({ path, value, layer, where })) };
  }
}

function yamlOf(rows) {
  const out = [];
  let open = [];
  for (const [path, value] of rows) {
    const keys = path.split('.');
    let same = 0;
    while (same < keys.length - 1 && open[same] === keys[same]) same++;
    for (let d = same; d < keys.length - 1; d++) out.push(`${'  '.repeat(d)}${keys[d]}:`);
    out.push(`${'  '.repeat(keys.length - 1)}${keys.at(-1)}: ${value}`);
    open = keys.slice(0, -1);
  }
  return `${out.join('\n')}\n`;
}

const listed = (params, key) => (params.get(key) ?? '').split(',').filter(Boolean);

export function matcher(params) {
  const q = (params.get('q') ?? '').toLowerCase();
  const levels = listed(params, 'level');
  const services = listed(params, 'service');
  const trace = params.get('trace_id') ?? '';
  return (l) => (!q || `${l.line} ${l.trace_id} ${l.span_id}`.toLowerCase().includes(q)) && (!levels.length || levels.includes(l.level)) && (!services.length || services.includes(l.service)) && (!trace || l.trace_id === trace);
}

function facets(lines) {
  const count = (key) => lines.reduce((held, l) => ({ ...held, [l[key]]: (held[l[key]] ?? 0) + 1 }), {});
  return { level: count('level'), service: count('service') };
}

function bars(lines, now) {
  const step_ms = 10_000;
  const t0_ms = Math.floor((now - 900_000) / step_ms) * step_ms;
  const levels = {};
  for (const l of lines) {
    const i = Math.floor((Number(l.ts_ns.slice(0, -6)) - t0_ms) / step_ms);
    if (i < 0) continue;
    levels[l.level] ??= Array(91).fill(0);
    levels[l.level][i]++;
  }
  return { t0_ms, step_ms, levels };
}
