// The last minutes of every number, as the gateway remembers them, kept up to date from the status it sends each second.
//
// A window is fetched once; each status then appends the difference to the one before (deltas, not a reload). With steps longer than
// a second the seconds of a step are averaged. A hole (hidden tab, gateway away) stays a hole: NaN, never a straight line.
import { ask } from './api/client';
import type { DestinationStatus, HistoryAnswer, SignalName, SourceStatus, Status } from './api/types';
import { Topic } from './topic';

/** Rates are shown over this many seconds, so that a burst a second apart does not make the number jump. */
export const RATE_WINDOW_MS = 5_000;
/** Scrapes and windows of stacks come at intervals, all at once; their rate is that of a whole interval. */
const BURST_WINDOW_MS = 30_000;
const KEPT_STATUSES = 34;

/** Over how long a rate of this signal means something. */
export const spanOf = (signal: SignalName | undefined) => (signal === 'metrics' || signal === 'profiles' ? BURST_WINDOW_MS : RATE_WINDOW_MS);

interface Flow {
  accepted: Map<string, number>;
  refused: Map<string, number>;
  bytes: Map<string, number>;
  sent: Map<string, number>;
}

const sourceKey = (s: SourceStatus) => `${s.name} ${s.signal}`;
export const destinationKey = (d: DestinationStatus) => `${d.kind}/${d.name}`;

function flowOf(status: Status): Flow {
  const flow: Flow = { accepted: new Map(), refused: new Map(), bytes: new Map(), sent: new Map() };
  for (const s of status.sources) {
    flow.accepted.set(sourceKey(s), s.accepted);
    flow.refused.set(sourceKey(s), s.refused);
    flow.bytes.set(sourceKey(s), s.bytes);
  }
  for (const d of status.destinations) flow.sent.set(destinationKey(d), d.sent);
  return flow;
}

/** Bytes that some backend has not got, each counted once however many still want it: the largest backlog of each signal. */
export function waitingBySignal(status: Status): Map<SignalName, number> {
  const most = new Map<SignalName, number>();
  for (const d of status.destinations) {
    // A destination of several signals does not say how its bytes divide; they count for its first. The local view is not waited for.
    const signal = d.signals[0];
    if (signal && d.kind !== 'view') most.set(signal, Math.max(most.get(signal) ?? 0, d.waiting.bytes));
  }
  return most;
}

export class History {
  readonly changed = new Topic();
  step_s = 1;
  /** Start of the first column, ms; column i covers [t0 + i·step, +step). */
  t0_ms = 0;
  private series = new Map<string, number[]>();
  private window_s = 900;
  private recent: { at: number; flow: Flow }[] = [];
  private waits = 0;

  async load(window_s: number): Promise<void> {
    this.window_s = window_s;
    const turn = ++this.waits;
    const answer = await ask<HistoryAnswer>('history', { window_s });
    if (turn !== this.waits) return;
    if (!answer.t0_ms) return this.begin(window_s, this.recent.at(-1)?.at ?? Date.now());
    this.step_s = Math.max(1, answer.step_s);
    this.t0_ms = answer.t0_ms;
    this.series = new Map(Object.entries(answer.series).map(([name, values]) => [name, values.map((v) => v ?? NaN)]));
    this.changed.tell();
  }

  /** Starts empty, where the gateway has no history to give. */
  begin(window_s: number, now_ms: number): void {
    this.window_s = window_s;
    this.step_s = Math.max(1, Math.round(window_s / 900));
    this.t0_ms = now_ms - (now_ms % 1000);
    this.series = new Map();
    this.changed.tell();
  }

  push(status: Status): void {
    const flow = flowOf(status);
    const last = this.recent.at(-1);
    if (last && (status.now_ms <= last.at || restarted(last.flow, flow))) this.recent = [];
    const before = this.recent.at(-1);
    this.recent.push({ at: status.now_ms, flow });
    if (this.recent.length > KEPT_STATUSES) this.recent.shift();
    if (this.t0_ms) this.append(status, before ? rates(before, { at: status.now_ms, flow }, status) : new Map());
  }

  names(): string[] {
    return [...this.series.keys()];
  }

  /** Value of the column that holds `ms`; NaN where nothing is known. */
  at(name: string, ms: number): number {
    const column = Math.floor((ms - this.t0_ms) / (this.step_s * 1000));
    return this.series.get(name)?.[column] ?? NaN;
  }

  /** Mean of the columns from `ms` on, over `span_ms`: what one point of a chart stands for. NaN where nothing is known. */
  mean(name: string, ms: number, span_ms: number): number {
    const list = this.series.get(name);
    if (!list) return NaN;
    const step = this.step_s * 1000;
    const first = Math.floor((ms - this.t0_ms) / step);
    const count = Math.max(1, Math.round(span_ms / step));
    let sum = 0;
    let known = 0;
    for (let i = Math.max(0, first); i < first + count && i < list.length; i++) {
      const value = list[i] ?? NaN;
      if (Number.isNaN(value)) continue;
      sum += value;
      known++;
    }
    return known ? sum / known : NaN;
  }

  last(name: string): number {
    return this.series.get(name)?.at(-1) ?? NaN;
  }

  /** Records (or bytes) a second of one source, over the last seconds. NaN until there are two answers. */
  sourceRate(source: SourceStatus, what: 'accepted' | 'refused' | 'bytes'): number {
    return this.rate(what, sourceKey(source), spanOf(source.signal));
  }

  sentRate(destination: DestinationStatus): number {
    return this.rate('sent', destinationKey(destination), destination.signals.some((s) => spanOf(s) > RATE_WINDOW_MS) ? BURST_WINDOW_MS : RATE_WINDOW_MS);
  }

  private rate(what: keyof Flow, key: string, span_ms: number): number {
    const last = this.recent.at(-1);
    if (!last) return NaN;
    const first = this.recent.find((r) => last.at - r.at <= span_ms && r !== last);
    if (!first) return NaN;
    const now = last.flow[what].get(key);
    if (now === undefined) return NaN;
    return Math.max(0, now - (first.flow[what].get(key) ?? 0)) / ((last.at - first.at) / 1000);
  }

  private append(status: Status, values: Map<string, number>): void {
    const step = this.step_s * 1000;
    const column = Math.floor((status.now_ms - this.t0_ms) / step);
    const kept = Math.ceil(this.window_s / this.step_s) + 2;
    values.set('wal_bytes', status.storage.bytes);
    let waiting = 0;
    for (const [signal, bytes] of waitingBySignal(status)) {
      values.set(`waiting.${signal}`, bytes);
      waiting += bytes;
    }
    values.set('waiting_bytes', waiting);
    if (status.storage.commit.p99_ms !== null) values.set('commit_p99_ms', status.storage.commit.p99_ms);
    for (const [name, value] of values) {
      const list = this.series.get(name) ?? [];
      this.series.set(name, list);
      if (column < list.length - 1) continue;
      while (list.length < column) list.push(NaN);
      const held = list[column];
      // A step of several seconds: the running mean of what was seen of it.
      list[column] = held === undefined || Number.isNaN(held) ? value : held + (value - held) / Math.max(2, this.step_s);
    }
    const surplus = column + 1 - kept;
    if (surplus > 0) {
      for (const list of this.series.values()) list.splice(0, surplus);
      this.t0_ms += surplus * step;
    }
    this.changed.tell();
  }
}

function restarted(before: Flow, now: Flow): boolean {
  for (const [key, value] of now.accepted) if (value < (before.accepted.get(key) ?? 0)) return true;
  return false;
}

function rates(before: { at: number; flow: Flow }, now: { at: number; flow: Flow }, status: Status): Map<string, number> {
  const seconds = (now.at - before.at) / 1000;
  const out = new Map<string, number>();
  const delta = (a: Map<string, number>, b: Map<string, number>, key: string) => Math.max(0, ((b.get(key) ?? 0) - (a.get(key) ?? 0)) / seconds);
  const add = (name: string, value: number) => out.set(name, (out.get(name) ?? 0) + value);
  for (const s of status.sources) {
    add(`in.${s.signal}`, delta(before.flow.accepted, now.flow.accepted, sourceKey(s)));
    add('refused', delta(before.flow.refused, now.flow.refused, sourceKey(s)));
  }
  for (const d of status.destinations) add(`out.${destinationKey(d)}`, delta(before.flow.sent, now.flow.sent, destinationKey(d)));
  return out;
}
