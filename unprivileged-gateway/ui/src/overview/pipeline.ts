// Sources, tank, destinations: every pipe is a real flow, every closed valve a destination that does not take data.
import type { DestinationStatus, SignalName, SourceStatus, Status } from '../api/types';
import type { PageContext } from '../app';
import { dress, fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { setMark, stateMark, type State } from '../dom/parts';
import { catchingUp, destinationState, isView, nameOf, pressed, titleOf } from '../health';
import { paceOf } from '../pace';
import type { Part } from './page';
import { pipes, type Pipe } from './pipes';
import { tank } from './tank';

export const SIGNALS: readonly { name: SignalName; title: string; unit: string }[] = [
  { name: 'logs', title: 'Logs', unit: 'records/s' },
  { name: 'metrics', title: 'Metrics', unit: 'samples/s' },
  { name: 'traces', title: 'Traces', unit: 'spans/s' },
  { name: 'profiles', title: 'Profiles', unit: 'stacks/s' },
];

/** For the width of a pipe into the local view, which takes records and counts no bytes. */
const NOMINAL_RECORD_BYTES = 200;

export const servedSignals = (status: Status) => SIGNALS.filter((s) => status.signals[s.name]?.served);

interface Row {
  el: HTMLElement;
  update(status: Status): void;
}

export function pipeline(context: PageContext, status: Status): Part {
  const served = servedSignals(status);
  const cap = h('span', null, format.size(status.storage.max_bytes));
  const root = h(
    'div.pipe',
    { role: 'group', 'aria-label': 'Pipeline: sources, write-ahead log, destinations' },
    h('div.colh', null, h('span', null, 'Sources'), h('span', null, 'accepted')),
    h('div.colh', null, h('span', null, 'Write-ahead log, waiting over time'), cap),
    h('div.colh', null, h('span', null, 'Destinations'), h('span', null, 'delivered')),
  );
  const updates: ((status: Status) => void)[] = [];
  const left: Pipe[] = [];
  const right: Pipe[] = [];
  const lanes = new Map<SignalName, HTMLElement>();
  served.forEach((signal, i) => {
    const lane = sourceLane(context, status, signal);
    lane.el.style.setProperty('--at', String(i + 2));
    lanes.set(signal.name, lane.el);
    updates.push(lane.update);
    left.push(...lane.pipes);
    root.append(lane.el);
  });
  const water = tank(context);
  root.append(water.el);
  updates.push(water.update);
  const outs = h('div.outs');
  for (const d of status.destinations) {
    const row = destinationRow(context, d);
    updates.push(row.update);
    outs.append(row.el);
    for (const signal of d.signals) {
      const lane = lanes.get(signal);
      if (lane) right.push(destinationPipe(context, d, signal, lane, row.el));
    }
  }
  if (!status.destinations.length) outs.append(h('p.dim', null, 'No destination and no local view: nothing is accepted. ', h('a.linklike', { href: '#/config' }, 'Configuration')));
  root.append(outs);
  for (const el of [water.el, outs]) el.style.setProperty('--span', String(Math.max(1, served.length)));
  const drawing = pipes(context, root, water.el, left, right);
  updates.push(drawing);
  return {
    el: root,
    update(now) {
      text(cap, format.size(now.storage.max_bytes));
      for (const update of updates) update(now);
    },
  };
}

function sourceLane(context: PageContext, status: Status, signal: (typeof SIGNALS)[number]): Row & { pipes: Pipe[] } {
  const rate = h('span.rate');
  const el = h('div.lane.in', { class: signal.name }, h('div.nm', null, h('span.sw'), h('b', null, signal.title), rate));
  const mine = status.sources.filter((s) => s.signal === signal.name);
  const updates: (() => void)[] = [];
  const drawn: Pipe[] = [];
  const { history } = context.app;
  mine.forEach((source, i) => {
    const [title, via] = sourceName(source.name, signal.name);
    const value = h('span');
    const note = h('span.dim', null, via);
    const row = h('div.src', null, h('span', null, title), note, value);
    el.append(row);
    updates.push(() => {
      const refused = history.sourceRate(source, 'refused');
      text(value, format.num(history.sourceRate(source, 'accepted')));
      text(note, refused > 0 ? `${format.num(refused)}/s refused, sender keeps it` : via);
      dress(note, refused > 0 ? 'risk' : 'dim');
    });
    drawn.push({
      signal: signal.name,
      outer: () => middle(row),
      inner: () => middle(el) + (i - (mine.length - 1) / 2) * 7,
      bytes: () => history.sourceRate(source, 'bytes'),
      valve: () => (history.sourceRate(source, 'refused') > 0 ? 'refused' : 'open'),
    });
  });
  if (!mine.length) el.append(h('div.src', null, h('span.dim', null, 'no source configured')));
  const total = (sources: SourceStatus[]) => sources.reduce((sum, s) => sum + history.sourceRate(s, 'accepted'), 0);
  return {
    el,
    pipes: drawn,
    update() {
      fill(rate, format.num(total(mine)), h('small', null, signal.unit));
      for (const update of updates) update();
    },
  };
}

/** `otlp/grpc` reads as "OTLP gRPC", `host` as "This host". */
function sourceName(name: string, signal: SignalName): [string, string] {
  const [kind = name, ...rest] = name.split('/');
  const known: Record<string, string> = { otlp: 'OTLP', grpc: 'gRPC', http: 'HTTP', probe: 'Probe', journal: 'Journal', host: 'This host', own: 'This gateway' };
  const via: Record<string, string> = { probe: signal === 'logs' ? 'log files' : 'stacks', journal: 'journalctl', host: 'kernel counters', own: 'its own numbers' };
  return [known[kind] ?? kind, rest.map((part) => known[part] ?? part).join('/') || (via[kind] ?? '')];
}

function middle(el: HTMLElement): number {
  const box = el.getBoundingClientRect();
  return box.top + box.height / 2;
}

function find(status: Status | null, d: DestinationStatus): DestinationStatus {
  return status?.destinations.find((x) => x.kind === d.kind && x.name === d.name) ?? d;
}

function destinationRow(context: PageContext, first: DestinationStatus): Row {
  const mark = stateMark('ok');
  const rate = h('span.rate');
  const sub = h('div.sub');
  const error = h('div.sub.err');
  const title = titleOf(first);
  const key = isView(first) ? 'this page' : `send.${first.kind}.${first.name}`;
  const el = h('div.dst', { 'data-testid': 'destination', 'data-name': nameOf(first) }, h('div.top', null, mark, h('b', null, title), h('span.dim', null, key)), rate, sub, error);
  return {
    el,
    update(status) {
      const d = find(status, first);
      const state = destinationState(d, pressed(status, paceOf(status, context.app.history)));
      setMark(mark, state);
      el.dataset['state'] = state;
      text(rate, format.num(context.app.history.sentRate(d)));
      text(sub, sentence(d, status.now_ms));
      dress(sub, `sub ${tone(state)}`.trim());
      text(error, d.state === 'retrying' && d.last_error ? d.last_error.text : '');
    },
  };
}

const tone = (state: State) => (state === 'wait' || state === 'risk' ? state : '');

function sentence(d: DestinationStatus, now_ms: number): string {
  const held = `${format.bytes(d.waiting.bytes)} held, oldest ${format.dur(d.waiting.oldest_age_s ?? 0)}`;
  if (d.state === 'removed') return `not configured any more, ${held}; gateway wal forget ${nameOf(d)} lets go`;
  if (d.state === 'retrying') {
    const next = d.next_try_ms === null ? '' : `, next try in ${Math.max(0, Math.ceil((d.next_try_ms - now_ms) / 1000))} s`;
    return `down, ${held}${next}`;
  }
  if (d.state === 'stopped') return `stopped, ${held}`;
  if (catchingUp(d)) return `catching up, ${format.bytes(d.waiting.bytes)} left, oldest ${format.dur(d.waiting.oldest_age_s ?? 0)}`;
  const aside = d.quarantined > 0 ? `, ${format.int(d.quarantined)} in quarantine` : '';
  if (d.state === 'idle' && d.sent === 0) return `idle, nothing to send yet${aside}`;
  const delay = d.waiting.records > 0 ? `waits ${format.dur(d.waiting.oldest_age_s ?? 0)}` : 'nothing waits';
  return `${delay}, ${format.num(d.sent)} sent${aside}`;
}

function destinationPipe(context: PageContext, d: DestinationStatus, signal: SignalName, lane: HTMLElement, row: HTMLElement): Pipe {
  const { app } = context;
  const offset = (d.signals.indexOf(signal) - (d.signals.length - 1) / 2) * 6;
  return {
    signal,
    outer: () => row.getBoundingClientRect().top + 18 + offset,
    inner: () => middle(lane),
    bytes() {
      const now = find(app.status(), d);
      const each = now.sent > 0 && now.sent_bytes > 0 ? now.sent_bytes / now.sent : NOMINAL_RECORD_BYTES;
      return app.history.sentRate(now) * each;
    },
    valve() {
      const status = app.status();
      const now = find(status, d);
      if (now.state === 'retrying' && status) return destinationState(now, pressed(status, paceOf(status, app.history))) === 'risk' ? 'shut-risk' : 'shut-wait';
      return now.state === 'stopped' || now.state === 'removed' ? 'shut-wait' : 'open';
    },
  };
}
