// Invented metrics, profiles and probe, in the shapes of /api/v1; also hostile ones: markup, long and right-to-left names, very many nodes.
import { noise } from './scenario.mjs';

const STEP_MS = 15_000;
const HZ = 97;
const PERIOD_NS = Math.round(1e9 / HZ);
export const MARKUP = '<img src=x onerror=alert(1)>';
const LONG = `core::ops::function::FnOnce::call_once<${'very::long::path::'.repeat(120)}T>`;
const RTL = '\u05e9\u05dc\u05d5\u05dd\u202ecipher\u202c';

const catalogue = (hostile) => [
  { name: 'node_cpu_seconds_total', type: 'counter', help: 'Seconds the CPUs spent in each mode.', labels: { cpu: ['0', '1'], mode: ['idle', 'iowait', 'system', 'user'] }, rate: (l) => ({ idle: 0.62, iowait: 0.01, system: 0.1, user: 0.27 })[l.mode] },
  { name: 'node_load1', type: 'gauge', help: '1m load average.', labels: {}, level: 1.4 },
  { name: 'node_load5', type: 'gauge', help: '5m load average.', labels: {}, level: 1.1 },
  { name: 'node_memory_MemTotal_bytes', type: 'gauge', help: 'Memory information field MemTotal_bytes.', labels: {}, level: 8.2e9, still: true },
  { name: 'node_memory_MemAvailable_bytes', type: 'gauge', help: 'Memory information field MemAvailable_bytes.', labels: {}, level: 5.1e9 },
  { name: 'node_pressure_cpu_waiting_seconds_total', type: 'counter', help: 'Total time in seconds that processes have waited for CPU time', labels: {}, rate: () => 0.12 },
  { name: 'node_disk_read_bytes_total', type: 'counter', help: 'The total number of bytes read successfully.', labels: { device: ['vda', 'vdb'] }, rate: (l) => (l.device === 'vda' ? 4.1e6 : 3e4) },
  { name: 'node_network_receive_bytes_total', type: 'counter', help: 'Network device statistic receive_bytes.', labels: { device: ['eth0', 'lo'] }, rate: (l) => (l.device === 'lo' ? 8e5 : 2.2e5) },
  { name: 'node_filesystem_avail_bytes', type: 'gauge', help: 'Filesystem space available to non-root users in bytes.', labels: { mountpoint: ['/', '/var'] }, level: 3e10 },
  { name: 'node_boot_time_seconds', type: 'gauge', help: 'Node boot time, in unixtime.', labels: {}, level: 1.79e9, still: true },
  { name: 'bulkhead_accepted_records_total', type: 'counter', help: 'Records accepted and durable.', labels: { signal: ['logs', 'metrics', 'traces'] }, rate: (l) => ({ logs: 28_240, metrics: 120, traces: 4_507 })[l.signal] },
  { name: 'bulkhead_wal_commit_seconds_bucket', type: 'histogram', help: 'Time of one commit.', labels: { le: ['0.001', '0.005', '0.01', '+Inf'] }, rate: (l) => ({ 0.001: 90, 0.005: 170, 0.01: 179, '+Inf': 180 })[l.le] },
  { name: 'bulkhead_waiting_bytes', type: 'gauge', help: 'Bytes not yet delivered.', labels: { destination: ['loki/logs', 'otlp/tempo'] }, level: 68_700 },
  ...(hostile ? [{ name: `evil_${'x'.repeat(400)}`, type: 'gauge', help: `${MARKUP} ${RTL} ${'help '.repeat(300)}`, labels: { path: [MARKUP, RTL, 'quote " and \\ back', ...Array.from({ length: 60 }, (_, i) => `v${i}`)] }, level: 3 }] : []),
];

const combinations = (labels) => Object.entries(labels).reduce((all, [label, values]) => all.flatMap((one) => values.map((v) => ({ ...one, [label]: v }))), [{}]);

export class Four {
  constructor(name, started) {
    this.name = name;
    this.started = started;
    this.rows = catalogue(name === 'hostile');
  }

  covers(now) {
    return { from_ms: now - 840_000, to_ms: now, evicted: 0 };
  }

  series(now, params) {
    if (this.name === 'first') return { covers: { from_ms: 0, to_ms: 0, evicted: 0 }, total: 0, names: [] };
    const q = (params.get('q') ?? '').toLowerCase();
    const found = this.rows.filter((r) => r.name.toLowerCase().includes(q) || r.help.toLowerCase().includes(q));
    const names = found.slice(0, Number(params.get('limit') ?? 500)).map(({ name, type, help, labels }) => ({ name, type, help, series: combinations(labels).length, labels: { job: ['host'], ...labels } }));
    return { covers: this.covers(now), total: found.length, names };
  }

  range(now, params) {
    const parts = /^([^{]+)(?:\{(.*)\})?$/s.exec(params.get('query') ?? '');
    const row = this.rows.find((r) => r.name === parts?.[1]);
    const where = [...(parts?.[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, value]) => [label, value.replace(/\\(.)/g, '$1')]);
    const rate = params.get('rate') === '1';
    const answer = { covers: this.covers(now), name: row?.name ?? '', type: row?.type ?? '', rate, step_ms: STEP_MS, cut: 0, series: [] };
    if (!row) return answer;
    const from = Math.max(now - 840_000, Number(params.get('from_ms') ?? 0));
    const to = Math.min(now, Number(params.get('to_ms') ?? now));
    combinations(row.labels).forEach((labels, k) => {
      if (!where.every(([label, value]) => ({ job: 'host', ...labels })[label] === value)) return;
      const points = [];
      for (let t = Math.ceil(from / STEP_MS) * STEP_MS; t <= to; t += STEP_MS) {
        const wave = row.still || row.type === 'histogram' ? 1 : 0.85 + 0.3 * noise(k * 977 + Math.floor(t / STEP_MS));
        points.push([t, (row.rate ? row.rate(labels) * (rate ? 1 : (t - this.started) / 1000) : row.level) * wave]);
      }
      answer.series.push({ labels: { job: 'host', ...labels }, points });
    });
    return answer;
  }

  get silent() {
    return ['first', 'noprobe', 'unexpected'].includes(this.name);
  }

  groups() {
    const plan = [
      ['ebpf/shop/catalog', 'catalog-api', 'shop', 'catalog-7c9d5b6f4-x2m8q', 41_200, [[4127, 'catalog-api', 41_200]]],
      ['ebpf/python3', 'python3', '', '', 26_100, [[5210, 'python3', 20_000], [5211, 'python3', 6_100]]],
      ['ebpf/postgres', 'postgres', '', '', 12_400, [[3308, 'postgres', 12_400]]],
      ['ebpf/gateway', 'gateway', '', '', 5_300, [[1893, 'gateway', 5_300]]],
      ...(this.name === 'hostile' ? [[`ebpf/${MARKUP}`, MARKUP, RTL, LONG, 900, [[66, MARKUP, 900]]]] : []),
    ];
    return plan.map(([service, comm, namespace, pod, samples, processes]) => ({ service, comm, container: namespace ? 'a1'.repeat(32) : '', namespace, pod, samples, cpu_ms: (samples * PERIOD_NS) / 1e6, processes: processes.map(([pid, name, n]) => ({ pid, comm: name, samples: n })) }));
  }

  processes(now, params) {
    const t0_ms = Math.floor((now - 840_000) / STEP_MS) * STEP_MS;
    const groups = this.silent ? [] : this.groups();
    const cores = Array.from({ length: this.silent ? 0 : 56 }, (_, i) => 0.9 + 0.5 * noise(i * 31));
    const ratio = share(now, params);
    for (const g of groups) {
      g.samples = Math.round(g.samples * ratio);
      g.cpu_ms *= ratio;
    }
    return { covers: this.silent ? { from_ms: 0, to_ms: 0, evicted: 0 } : this.covers(now), total_samples: groups.reduce((sum, g) => sum + g.samples, 0), period_ns: PERIOD_NS, groups, timeline: { t0_ms, step_ms: STEP_MS, cores } };
  }

  profile(now, params) {
    if (this.silent) return { covers: { from_ms: 0, to_ms: 0, evicted: 0 }, samples: 0, period_ns: 0, ends: {}, names: [''], files: [''], nodes: [[0, 0, 0, 0, 0, 0]], cut: 0 };
    const tree = this.name === 'huge' ? huge() : this.name === 'hostile' ? hostile() : shop(params.get('service') ?? '', share(now, params));
    return { covers: this.covers(now), period_ns: PERIOD_NS, ...tree };
  }

  probe(now) {
    const socket = '/run/bulkhead/probe.sock';
    if (this.name === 'unexpected' || this.name === 'first') return { configured: false, connected: false, socket: null, since_ms: null, last_error: null, hello: null, status: null, rates: null };
    if (this.name === 'noprobe') return { configured: true, connected: false, socket, since_ms: null, last_error: { at_ms: now - 3_000, text: `${socket}: no such file; start the probe, or take probe.socket out of the configuration` }, hello: null, status: null, rates: null };
    const s = Math.round((now - this.started) / 1000);
    const evil = this.name === 'hostile';
    const bits = (...n) => n.reduce((sum, bit) => sum + 2 ** bit, 0);
    return {
      configured: true, connected: true, socket, since_ms: this.started, last_error: null,
      hello: { host: 'n1', kernel: '6.18.5', cpus: 4, hz: HZ, start: 'a'.repeat(32), features: [{ name: 'cpu', on: true, reason: '' }, { name: 'tables', on: true, reason: '' }, { name: 'kernel_names', on: false, reason: evil ? MARKUP + LONG : 'kernel.kptr_restrict is 2; addresses are shown instead' }, { name: 'logs', on: true, reason: '' }] },
      status: {
        at_ns: now * 1e6, hz_now: HZ, cpus: [0, 1, 2, 3].map((cpu) => ({ cpu, samples: s * (60 + cpu) })),
        lost: [{ name: 'ring_full', value: evil ? 41 : 0 }, { name: 'map_full', value: 0 }],
        ends: [{ name: 'complete', value: s * 231 }, { name: 'gap', value: s * 4 }, { name: 'frame_pointer', value: s }, { name: 'kernel_only', value: s * 6 }, { name: 'no_table', value: 31 }, { name: 'depth', value: 0 }, ...(evil ? [{ name: RTL + MARKUP, value: 3 }] : [])],
        log: { read: s * 40_000, sent: s * 40_000, durable: s * 40_000 - 9_000, waiting: 9_000, files_open: 12, files_known: 40 },
        files_refused: [{ name: 'link', value: 1 }], log_dropped: [{ name: 'deleted_unread', value: 0 }],
        caps: { effective: bits(19), permitted: bits(19, 2), inheritable: 0, ambient: 0, bounding: bits(19, 2) }, no_new_privs: true, seccomp: 2, uid: 65534, gid: 65534, groups: [0, 4],
        dropped_proof: [['open /proc/1/root/etc/shadow', true], ['bpf map create', true], ['socket(AF_INET)', !evil]],
        nursery: { alive: !evil, parsers_run: 61, failed: 4, killed: 1 }, rows_used: 2_910_000, rows_max: 4_194_304, processes: 87, rss_bytes: 51.8 * 2 ** 20, cpu_ns: s * 4.1e6, bpf_ns: evil ? 0 : s * 4.2e6, ring_bytes: 120_000, ring_max: 8 * 2 ** 20, stacks_dropped: 0,
      },
      rates: { cpus: [0, 1, 2, 3].map((cpu) => ({ cpu, per_s: 50 + cpu * 10 + 20 * noise(s * 7 + cpu) })), lost_per_s: 0, log_bytes_per_s: 40_000, probe_cpu_percent: 0.83 },
    };
  }
}

/** How much of the held time a question asks for. */
function share(now, params) {
  const from = Math.max(now - 840_000, Number(params.get('from_ms') ?? 0));
  const to = Math.min(now, Number(params.get('to_ms') ?? now));
  return Math.max(0, Math.min(1, (to - from) / 840_000));
}

class Tree {
  names = [''];
  files = [''];
  nodes = [[0, 0, 0, 0, 0, 0]];
  ids = new Map([['', 0]]);

  id(list, text) {
    const key = list === this.names ? text : `\0${text}`;
    if (!this.ids.has(key)) this.ids.set(key, list.push(text) - 1);
    return this.ids.get(key);
  }

  /** frames: root first, `name`, `k:name`, `p:name` or `t:reason`. */
  add(count, frames, file = '') {
    let at = 0;
    this.nodes[0][5] += count;
    for (const frame of frames) {
      const kind = frame.startsWith('k:') ? 1 : frame.startsWith('p:') ? 2 : frame.startsWith('t:') ? 3 : 0;
      const name = this.id(this.names, kind === 3 ? `[truncated: ${frame.slice(2)}]` : kind ? frame.slice(2) : frame);
      let next = this.nodes.findIndex((n, i) => i > 0 && n[0] === at && n[1] === name);
      if (next < 0) next = this.nodes.push([at, name, kind ? 0 : this.id(this.files, file), kind, 0, 0]) - 1;
      this.nodes[next][5] += count;
      at = next;
    }
    this.nodes[at][4] += count;
  }

  get answer() {
    return { samples: this.nodes[0][5], names: this.names, files: this.files, nodes: this.nodes, cut: 0 };
  }
}

function shop(service, ratio) {
  const tree = new Tree();
  const add = (who, count, frames, file) => (!service || service === who) && tree.add(Math.round(count * ratio), frames, file);
  const main = ['_start', '__libc_start_main_impl', 'main'];
  const poll = [...main, 'catalog_api::main', 'tokio::runtime::Runtime::block_on', 'hyper::proto::h2::server::Server::poll', 'catalog_api::routes::search'];
  const c = 'ebpf/shop/catalog';
  add(c, 9_000, [...poll, 'query::execute', 'postings::intersect'], '/usr/bin/catalog-api');
  add(c, 7_000, [...poll, 'query::execute', 'postings::decode'], '/usr/bin/catalog-api');
  add(c, 5_200, [...poll, 'serde_json::ser::format_escaped_str'], '/usr/bin/catalog-api');
  add(c, 8_100, [...poll, 'writev', 'k:entry_SYSCALL_64', 'k:do_writev', 'k:tcp_sendmsg', 'k:copy_from_iter'], '/usr/bin/catalog-api');
  add(c, 6_900, [...main, 'catalog_api::main', 'cache::fill', 'postings::decode'], '/usr/bin/catalog-api');
  add(c, 5_000, ['t:gap', 'aes_gcm_dec_update', 'vaes_loop'], '/usr/lib/libcrypto.so.3');
  const py = [...main, 'Py_BytesMain', '_PyEval_EvalFrameDefault', 'p:<module> (worker.py:1)', 'p:Worker.run (worker.py:44)'];
  add('ebpf/python3', 15_000, [...py, 'p:score_batch (rec.py:9)', 'dgemm_kernel_SKYLAKEX'], '/usr/lib/libopenblas.so');
  add('ebpf/python3', 9_100, [...py, 'p:score_batch (rec.py:9)'], '/usr/bin/python3');
  add('ebpf/python3', 2_000, ['t:no_table', '_PyEval_EvalFrameDefault'], '/usr/bin/python3');
  add('ebpf/postgres', 10_400, [...main, 'PostmasterMain', 'ServerLoop', 'exec_simple_query', 'ExecutorRun'], '/usr/lib/postgresql/17/bin/postgres');
  add('ebpf/postgres', 2_000, ['k:ret_from_fork', 'k:kthread', 'k:worker_thread'], '');
  add('ebpf/gateway', 5_300, [...main, 'gateway::run', 'gateway::wal::commit', 'fdatasync', 'k:entry_SYSCALL_64', 'k:do_fsync'], '/usr/bin/gateway');
  const whole = tree.nodes[0][5];
  const cut = service && !['ebpf/python3', c].includes(service) ? 0 : Math.round(whole * 0.07);
  return { ...tree.answer, ends: { complete: whole - cut, gap: Math.round(cut * 0.7), no_table: cut - Math.round(cut * 0.7) } };
}

function hostile() {
  const tree = new Tree();
  tree.add(500, [MARKUP, LONG, RTL, 'a\nb\tc\0d']);
  tree.add(300, ['t:gap', `k:${MARKUP}`, RTL]);
  tree.add(100, ['', ' ', '\u202e']);
  tree.add(60, Array.from({ length: 300 }, () => 'again'));
  return { ...tree.answer, ends: { complete: 660, gap: 300, [MARKUP]: 3 } };
}

/** 50,000 nodes, the most that an answer holds: wide at the top, deep at the right. */
function huge() {
  const names = ['', ...Array.from({ length: 9_000 }, (_, i) => `module_${i % 97}::function_${i}`)];
  const nodes = [[0, 0, 0, 0, 0, 0]];
  for (let i = 1; i < 50_000; i++) {
    const parent = i < 40 ? 0 : Math.floor(i / (2 + 3 * noise(i)));
    nodes.push([parent, 1 + Math.floor(noise(i * 3) * 9_000), 0, noise(i) > 0.9 ? 1 : noise(i) < 0.01 ? 3 : 0, 1 + Math.floor(noise(i * 7) * 20), 0]);
  }
  for (let i = nodes.length - 1; i > 0; i--) {
    nodes[i][5] += nodes[i][4];
    nodes[nodes[i][0]][5] += nodes[i][5];
  }
  return { samples: nodes[0][5], names, files: [''], nodes, ends: { complete: nodes[0][5] }, cut: 1_234 };
}
