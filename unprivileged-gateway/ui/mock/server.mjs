// A stand-in for the gateway's HTTP side, for tests of the page only: serves dist/ with the real headers and the JSON of /api/v1.
//
// Usage: node mock/server.mjs [SCENARIO] [PORT]     (loopback only)
// A test may change the scenario while the page is open, stop answering, and send log lines when it likes.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Four } from './four.mjs';
import { Scenario, SCENARIOS, matcher } from './scenario.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const DIST = path.join(here, '../dist');
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8' };

export const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
const HEADERS = { 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer', 'cache-control': 'no-store' };

export class Mock {
  constructor({ scenario = 'well', auto = true, dist = DIST } = {}) {
    this.play(scenario);
    this.dist = dist;
    this.auto = auto; // send lines by itself
    this.mute = false; // no event stream
    this.streams = new Set();
    this.requests = [];
    this.beats = 0; // times that the status was sent to all
    this.server = createServer((request, response) => void this.answer(request, response));
  }

  async listen(port = 0) {
    await new Promise((ready) => this.server.listen(port, '127.0.0.1', ready));
    this.port = this.server.address().port;
    this.beat = setInterval(() => this.tick(), 1000);
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  async close() {
    clearInterval(this.beat);
    for (const s of this.streams) s.response.destroy();
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  /** Another scenario, from one second to the next. */
  become(name) {
    this.play(name);
    this.tick();
  }

  play(name) {
    this.scenario = new Scenario(name);
    this.four = new Four(name, this.scenario.started);
  }

  /** Lines to every tail that asks for them. */
  say(count) {
    const now = Date.now();
    const last = this.scenario.lastLine(now);
    const lines = Array.from({ length: count }, (_, i) => ({ ...this.scenario.line(last - count + 1 + i), id: `x${now}${String(i).padStart(6, '0')}`, ts_ns: `${now}${String(i).padStart(6, '0')}` }));
    for (const s of this.streams) if (s.tail) send(s.response, 'logs', { lines: lines.filter(matcher(s.params)).slice(-200), skipped: Math.max(0, count - 200) });
  }

  tick() {
    this.beats++;
    const now = Date.now();
    for (const s of this.streams) {
      send(s.response, 'status', this.scenario.status(now));
      if (!this.scenario.silent) send(s.response, 'traces', { new: 1 });
    }
    if (this.auto && !this.scenario.silent) this.say(this.scenario.sample);
  }

  async answer(request, response) {
    const url = new URL(request.url, 'http://127.0.0.1');
    this.requests.push(url.pathname + url.search);
    if (!url.pathname.startsWith('/api/')) return this.file(url.pathname === '/' ? '/index.html' : url.pathname, response);
    if (this.scenario.name === 'locked') return json(response, 401, { error: 'a token is needed' });
    const now = Date.now();
    const route = url.pathname.replace('/api/v1/', '');
    if (route === 'events' && this.mute) return json(response, 503, { error: 'too many streams' });
    if (route === 'events') return this.stream(url.searchParams, request, response);
    if (route === 'status') return json(response, 200, this.scenario.status(now));
    if (route === 'history') return json(response, 200, this.scenario.history(now, Number(url.searchParams.get('window_s') ?? 900)));
    if (route === 'config') return json(response, 200, this.scenario.config());
    if (route === 'probe') return json(response, 200, this.four.probe(now));
    if (this.scenario.name === 'off') return json(response, 409, { error: 'the local view is off' });
    if (route === 'logs') return json(response, 200, this.scenario.logs(now, url.searchParams));
    if (route === 'traces') return json(response, 200, this.scenario.traces(now, url.searchParams));
    if (route === 'series') return json(response, 200, this.four.series(now, url.searchParams));
    if (route === 'query_range') return json(response, 200, this.four.range(now, url.searchParams));
    if (route === 'processes') return json(response, 200, this.four.processes(now, url.searchParams));
    if (route === 'profile') return json(response, 200, this.four.profile(now, url.searchParams));
    const trace = /^traces\/(.+)$/.exec(route);
    const found = trace && this.scenario.trace(trace[1], now);
    return found ? json(response, 200, found) : json(response, 404, { error: trace ? 'no such trace is held' : 'no such path' });
  }

  stream(params, request, response) {
    response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream' });
    const entry = { response, params, tail: params.get('logs') === '1' };
    this.streams.add(entry);
    request.on('close', () => this.streams.delete(entry));
    send(response, 'status', this.scenario.status(Date.now()));
  }

  async file(name, response) {
    const at = path.join(this.dist, path.normalize(name));
    const type = TYPES[path.extname(at)];
    try {
      if (!at.startsWith(this.dist) || !type) throw new Error('not ours');
      const bytes = await readFile(at);
      response.writeHead(200, { ...HEADERS, 'content-type': type }).end(bytes);
    } catch {
      json(response, 404, { error: 'no such file' });
    }
  }
}

function json(response, code, body) {
  response.writeHead(code, { ...HEADERS, 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function send(response, event, data) {
  response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [scenario = 'well', port = '12399'] = process.argv.slice(2);
  if (!SCENARIOS.includes(scenario)) throw new Error(`scenarios: ${SCENARIOS.join(', ')}`);
  const mock = await new Mock({ scenario }).listen(Number(port));
  console.log(`${mock.url} (${scenario})`);
}
