// The parts that decide, without a browser: health, history, span tree, numbers, configuration paths.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { Scenario } from '../mock/scenario.mjs';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const out = await mkdtemp(path.join(tmpdir(), 'bulkhead-logic-'));
after(() => rm(out, { recursive: true, force: true }));

const modules = ['health', 'history', 'traces/tree', 'dom/format', 'config/paths', 'chart/axis', 'profiles/tree', 'probe/caps'];
const source = modules.map((name) => `export * from './src/${name}';`).join('\n') + "\nexport { unexplained } from './src/overview/ledger';\nexport { ordered } from './src/logs/list';\nexport { rank } from './src/shell/palette';\nexport { growing, unitOf, selector, summed, quantile } from './src/metrics/meaning';";
globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.document = { createElement: () => ({ setAttribute() {}, append() {}, addEventListener() {}, style: {} }), documentElement: { dataset: {} } };
globalThis.addEventListener = () => {};
globalThis.Node = class {};
await build({ stdin: { contents: source, resolveDir: root, loader: 'ts' }, bundle: true, format: 'esm', outfile: path.join(out, 'logic.mjs'), logLevel: 'silent' });
const it = await import(pathToFileURL(path.join(out, 'logic.mjs')));

const NOW = 1_790_000_000_000;
const calm = { growth_bps: 0, inflow_bps: 1e6, refused_rps: 0 };
const status = (name) => new Scenario(name, NOW).status(NOW);

test('a destination that is down while the log has room is held, not at risk', () => {
  const health = it.judge(status('down'), calm);
  assert.equal(health.state, 'wait');
  assert.equal(health.word, 'Loki down, held');
  assert.match(health.detail, /Nothing is lost.*503/);
});

test('a log that is full within ten minutes is a risk and says when', () => {
  const s = status('down');
  const health = it.judge(s, { ...calm, growth_bps: (s.storage.max_bytes - s.storage.bytes) / 120 });
  assert.equal(health.state, 'risk');
  assert.match(health.lead, /full in 2\u2009m\u200900\u2009s/);
});

test('refused data is a risk, and the sender is said to hold it', () => {
  const health = it.judge(status('full'), { ...calm, refused_rps: 41 });
  assert.equal(health.state, 'risk');
  assert.match(health.detail, /keep what they have.*Nothing accepted has been lost/);
});

test('all well is quiet', () => {
  assert.deepEqual(it.judge(status('well'), calm), { state: 'ok', word: 'All delivered', lead: '', detail: '' });
  assert.equal(it.judge(status('first'), calm).word, 'Local view');
});

test('damage on disk is named by kind', () => {
  const s = status('well');
  s.damage = { torn_tail: 0, checksum: 3 };
  const health = it.judge(s, calm);
  assert.equal(health.state, 'risk');
  assert.match(health.detail, /checksum 3/);
});

test('a destination taken out of the configuration with a backlog is named with the way out', () => {
  const s = status('well');
  Object.assign(s.destinations[0], { state: 'removed', configured: false, waiting: { records: 5, bytes: 900, oldest_age_s: 3 } });
  assert.match(it.judge(s, calm).detail, /gateway wal forget loki\/logs/);
});

test('the ledger says by how much a row does not add up', () => {
  const [whole] = status('well').destinations;
  const [gap] = status('gap').destinations;
  assert.equal(it.unexplained(whole), 0);
  assert.equal(it.unexplained(gap), 7);
});

test('history appends the difference between two answers, and a hole stays a hole', () => {
  const history = new it.History();
  const at = (seconds) => ({ ...status('well'), now_ms: NOW + seconds * 1000, sources: [{ name: 'otlp/grpc', signal: 'logs', accepted: 100 * seconds, refused: 0, bytes: 1000 * seconds }], destinations: [] });
  history.begin(300, NOW);
  history.push(at(0));
  history.push(at(1));
  history.push(at(4));
  assert.equal(history.at('in.logs', NOW + 1000), 100);
  assert.ok(Number.isNaN(history.at('in.logs', NOW + 2000)), 'nothing was heard then');
  assert.equal(history.at('in.logs', NOW + 4000), 100);
  assert.equal(history.sourceRate({ name: 'otlp/grpc', signal: 'logs' }, 'bytes'), 1000);
});

test('counters that go back after a restart give no negative rate', () => {
  const history = new it.History();
  const at = (seconds, accepted) => ({ ...status('well'), now_ms: NOW + seconds * 1000, sources: [{ name: 'a', signal: 'logs', accepted, refused: 0, bytes: 0 }], destinations: [] });
  history.begin(300, NOW);
  history.push(at(0, 5000));
  history.push(at(1, 10));
  assert.ok(Number.isNaN(history.sourceRate({ name: 'a', signal: 'logs' }, 'accepted')));
  history.push(at(2, 30));
  assert.equal(history.sourceRate({ name: 'a', signal: 'logs' }, 'accepted'), 20);
});

test('a gateway that has no history yet gives one that grows from now', async () => {
  const history = new it.History();
  globalThis.fetch = async () => ({ ok: true, json: async () => ({ step_s: 1, t0_ms: 0, series: {} }) });
  history.push({ ...status('well'), now_ms: NOW });
  await history.load(300);
  history.push({ ...status('well'), now_ms: NOW + 1000 });
  assert.ok(Number.isFinite(history.at('in.logs', NOW + 1000)));
});

test('a point of a chart is the mean of what it stands for, holes left out', () => {
  const history = new it.History();
  history.begin(300, NOW);
  for (const [second, bytes] of [[0, 10], [1, 20], [3, 60]]) history.push({ ...status('first'), now_ms: NOW + second * 1000, storage: { ...status('first').storage, bytes } });
  assert.equal(history.mean('wal_bytes', NOW, 4000), 30);
});

test('history keeps no more columns than the window', () => {
  const history = new it.History();
  history.begin(60, NOW);
  for (let i = 0; i < 500; i++) history.push({ ...status('well'), now_ms: NOW + i * 1000 });
  assert.ok(Number.isNaN(history.at('wal_bytes', NOW + 100_000)));
  assert.ok(Number.isFinite(history.at('wal_bytes', NOW + 450_000)));
});

const span = (span_id, parent_id, start) => ({ span_id, parent_id, start_ns: String(start), end_ns: String(start + 5) });

test('spans stand below their parents in the order of their start', () => {
  const placed = it.plant([span('c', 'a', 30), span('b', 'a', 20), span('a', '', 10), span('d', 'b', 25)]);
  assert.deepEqual(placed.map((p) => [p.span.span_id, p.depth]), [['a', 0], ['b', 1], ['d', 2], ['c', 1]]);
});

test('a loop of parents, a span that is its own parent and a lost parent all stay visible', () => {
  const placed = it.plant([span('a', 'b', 1), span('b', 'a', 2), span('s', 's', 3), span('o', 'gone', 4)]);
  assert.deepEqual(placed.map((p) => p.span.span_id).sort(), ['a', 'b', 'o', 's']);
  assert.equal(placed.find((p) => p.span.span_id === 'o').orphan, true);
});

test('ten thousand spans in one chain do not overflow the stack', () => {
  const chain = Array.from({ length: 10_000 }, (_, i) => span(`s${i}`, i ? `s${i - 1}` : '', i));
  assert.equal(it.plant(chain).at(-1).depth, 9_999);
});

test('numbers have three significant digits and their unit', () => {
  const plain = (s) => s.replaceAll('\u2009', ' ');
  assert.equal(plain(it.num(28_240)), '28.2 k');
  assert.equal(plain(it.int(1_827_936_743)), '1 827 936 743');
  assert.equal(plain(it.bytes(3.21 * 2 ** 30)), '3.21 GiB');
  assert.equal(plain(it.size(8 * 2 ** 30)), '8 GiB');
  assert.equal(plain(it.dur(546)), '9 m 06 s');
  assert.equal(plain(it.dur(0.0027)), '2.70 ms');
  assert.equal(plain(it.percent(0.00001, 2)), 'under 0.01 %');
  assert.equal(it.num(NaN), '–');
});

test('nanoseconds keep their last digit, and text that is no number is said to be none', () => {
  assert.equal(it.nanosBetween('1790000000000000001', '1790000000000000003'), 2e-9);
  assert.ok(Number.isNaN(it.nanosToMs('<b>')));
});

test('lines that came together stand by their clock, even with fewer digits, then by arrival', () => {
  const line = (id, ts_ns) => ({ id, ts_ns });
  assert.deepEqual(it.ordered([line('04', '10'), line('03', '9'), line('02', '10'), line('01', '11')]).map((l) => l.id), ['03', '02', '04', '01']);
});

test('each line of the printed configuration knows its key', () => {
  const yaml = ['http:', '  listen: 127.0.0.1:12345', '  hosts:', '    - a', 'send:', '  loki:', '    logs:', '      url: "http://x:1/y"'];
  assert.deepEqual(it.pathsOf(yaml), ['http', 'http.listen', 'http.hosts', 'http.hosts', 'send', 'send.loki', 'send.loki.logs', 'send.loki.logs.url']);
});

test('the palette ranks a name that begins with the word first', () => {
  const entry = (name) => ({ group: 'Go to', name, hint: '', run() {} });
  assert.deepEqual(it.rank([entry('my traces'), entry('traces'), entry('logs')], ['trac']).map((e) => e.name), ['traces', 'my traces']);
});

const profile = (nodes, names) => ({ names: ['', ...names], files: [''], nodes: [[0, 0, 0, 0, 0, nodes.reduce((sum, n) => sum + n[4], 0)], ...nodes] });
const named = (fns, name) => fns.find((fn) => fn.name === name);

test('a function that calls itself counts once a stack', () => {
  // f -> f -> g: 10 samples in g, 5 in the inner f.
  const tree = it.grow(profile([[0, 1, 0, 0, 0, 15], [1, 1, 0, 0, 5, 15], [2, 2, 0, 0, 10, 10]], ['f', 'g']));
  const fns = it.functions(tree);
  assert.deepEqual([named(fns, 'f').self, named(fns, 'f').total], [5, 15]);
  assert.deepEqual([named(fns, 'g').self, named(fns, 'g').total], [10, 10]);
  assert.equal(it.matched(tree, it.matching(tree, 'f')), 15);
});

test('callers and callees of a function keep every sample of it', () => {
  // a -> f -> x (3), b -> f (4), f under f under a (2)
  const tree = it.grow(profile([[0, 1, 0, 0, 0, 5], [1, 3, 0, 0, 0, 5], [2, 4, 0, 0, 3, 3], [2, 3, 0, 0, 2, 2], [0, 2, 0, 0, 0, 4], [5, 3, 0, 0, 4, 4]], ['a', 'b', 'f', 'x']));
  const f = named(it.functions(tree), 'f');
  const kids = (t, node) => [...t.kids.subarray(t.first[node], t.first[node + 1])].map((kid) => [it.nameAt(t, kid), t.total[kid], t.self[kid]]);
  const up = it.around(tree, f.key, 'callers');
  assert.deepEqual(kids(up, 0), [['f', 9, 0]]);
  assert.deepEqual(kids(up, 1), [['a', 5, 5], ['b', 4, 4]]);
  const down = it.around(tree, f.key, 'callees');
  assert.deepEqual(kids(down, 1), [['x', 3, 3], ['f', 2, 2]]);
  assert.equal(down.self[1], 4);
});

test('a profile that points nowhere is laid out all the same', () => {
  const tree = it.grow({ names: [''], files: [], nodes: [[0, 0, 0, 0, 0, 9], [7, 99, 99, 9, 9, 9], [-3, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]] });
  assert.deepEqual([...tree.parent], [0, 0, 0, 0]);
  assert.equal(it.nameAt(tree, 1), '(no name)');
  assert.equal(it.grow({ names: [], files: [], nodes: [] }).count, 1);
});

test('a chain of fifty thousand frames overflows nothing', () => {
  const chain = Array.from({ length: 49_999 }, (_, i) => [i, 1 + (i % 3), 0, 0, i === 49_998 ? 1 : 0, 1]);
  const tree = it.grow(profile(chain, ['a', 'b', 'c']));
  assert.equal(tree.deepest, 49_999);
  const [a] = it.functions(tree).filter((fn) => fn.name === 'a');
  assert.equal(a.total, 1);
  assert.equal(it.around(tree, a.key, 'callees').count, 50_000);
});

test('capability sets are decoded to the names of the kernel', () => {
  assert.deepEqual(it.capabilities(2 ** 19 + 2 ** 39 + 2 ** 38 + 2 ** 21), ['SYS_PTRACE', 'SYS_ADMIN', 'PERFMON', 'BPF']);
  assert.deepEqual(it.capabilities(2 ** 45), ['bit 45']);
  assert.deepEqual(it.capabilities(0), []);
  assert.equal(it.mask(2 ** 19), '0000000000080000');
});

test('a series name tells its unit, and what only grows is a rate', () => {
  const plain = (s) => s.replaceAll('\u2009', ' ');
  const show = (name, rate, n) => plain(it.unitOf(name, rate).text(n));
  assert.equal(show('node_network_receive_bytes_total', true, 2 ** 20), '1.00 MiB/s');
  assert.equal(show('node_memory_MemFree_bytes', false, 2 ** 30), '1.00 GiB');
  assert.equal(show('bulkhead_wal_commit_seconds_bucket', false, 0.0027), '2.70 ms');
  assert.equal(show('node_cpu_seconds_total', true, 0.5), '0.50');
  assert.equal(show('node_boot_time_seconds', false, 1_790_000_000), '2026-09-21 14:13:20');
  assert.equal(show('http_requests_total', true, 12), '12/s');
  assert.ok(it.growing('counter', 'x') && it.growing('', 'x_total') && !it.growing('gauge', 'x_total'));
});

test('a value with quotes, backslashes and line ends is one label value in the question', () => {
  assert.equal(it.selector('up', { a: 'say "x"\\\n' }), 'up{a="say \\"x\\"\\\\\\n"}');
});

test('series are summed by a label moment by moment, and a hole is no zero', () => {
  const series = [{ labels: { m: 'a', c: '0' }, points: [[0, 1], [1000, 2]] }, { labels: { m: 'a', c: '1' }, points: [[10, 10], [1000, null]] }, { labels: { m: 'b' }, points: [[0, 5]] }];
  assert.deepEqual(it.summed(series, 'm', 1000), [{ name: 'a', points: [[0, 11], [1000, 2]] }, { name: 'b', points: [[0, 5]] }]);
});

test('a quantile lies inside its bucket, and above the last bound it is that bound', () => {
  const at = (le, n) => ({ name: le, points: [[0, n]] });
  assert.deepEqual(it.quantile([at('+Inf', 100), at('2', 100), at('1', 50)], 0.75), [[0, 1.5]]);
  assert.deepEqual(it.quantile([at('1', 10), at('+Inf', 100)], 0.99), [[0, 1]]);
  assert.deepEqual(it.quantile([at('1', 0), at('+Inf', 0)], 0.5), [[0, null]]);
});
