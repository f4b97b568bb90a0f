// What a series name says about its numbers: unit by suffix, rate for what only grows, quantiles for buckets. Pure.
import type { Point, RangeAnswer, SeriesName } from '../api/types';
import * as format from '../dom/format';

const THIN = '\u2009';
const KIB = 1024;

export type Labels = Record<string, string>;
export type Series = RangeAnswer['series'][number];

/** Shown as a rate: a counter, or a part of a histogram; by suffix where no type was given. */
export function growing(type: string, name: string): boolean {
  if (type === 'counter' || type === 'histogram') return true;
  return !type && /_(total|count|sum|bucket)$/.test(name);
}

export interface Unit {
  binary: boolean;
  text(n: number): string;
  tick(n: number): string;
}

const plain = (suffix: string): Unit => ({ binary: false, text: (n) => (Number.isFinite(n) ? format.num(n) + suffix : format.num(n)), tick: format.tick });

/** `node_network_receive_bytes_total` as rate: bytes a second. Seconds a second have no unit: they are a share, or cores. */
export function unitOf(name: string, rate: boolean): Unit {
  const stem = name.replace(/_(total|sum|bucket|count)$/, '');
  if (/_(time|timestamp)_seconds$/.test(stem) && !rate && !/_io_time|_cpu_/.test(stem)) return { binary: false, text: moment, tick: format.tick };
  if (/_count$/.test(name)) return plain(rate ? '/s' : '');
  if (/bytes$/.test(stem) || /^node_memory_(?!HugePages_)/.test(stem)) {
    const suffix = rate ? '/s' : '';
    return { binary: true, text: (n) => (Number.isFinite(n) ? bytes(n) + suffix : format.bytes(n)), tick: binaryTick };
  }
  if (/seconds$/.test(stem)) return rate ? plain('') : { binary: false, text: format.dur, tick: shortSeconds };
  if (/(_ratio|_percent)$/.test(stem) && !rate) {
    const whole = /_percent$/.test(stem) ? 100 : 1;
    return { binary: false, text: (n) => format.percent(n / whole), tick: (n) => format.tick((n / whole) * 100) + THIN + '%' };
  }
  if (/_celsius$/.test(stem)) return plain(THIN + '°C');
  if (/_hertz$/.test(stem)) return plain(THIN + 'Hz');
  return plain(rate ? '/s' : '');
}

const bytes = (n: number) => (n < 0 ? `-${format.bytes(-n)}` : format.bytes(n));
const moment = (s: number) => (Number.isFinite(s) && Math.abs(s) < 8e12 ? new Date(s * 1000).toISOString().replace('T', ' ').slice(0, 19) : format.num(s));

function binaryTick(n: number): string {
  const a = Math.abs(n);
  const short = (v: number) => String(+v.toFixed(v < 10 ? 2 : 0));
  if (a >= KIB ** 4) return short(n / KIB ** 4) + THIN + 'Ti';
  if (a >= KIB ** 3) return short(n / KIB ** 3) + THIN + 'Gi';
  if (a >= KIB ** 2) return short(n / KIB ** 2) + THIN + 'Mi';
  return a >= KIB ? short(n / KIB) + THIN + 'Ki' : short(n);
}

function shortSeconds(n: number): string {
  const a = Math.abs(n);
  if (a === 0 || a >= 1) return format.tick(n) + THIN + 's';
  return a >= 1e-3 ? format.tick(n * 1e3) + THIN + 'ms' : format.tick(n * 1e6) + THIN + 'µs';
}

const escaped = (value: string) => value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');

/** The question for one name with some labels held. */
export function selector(name: string, where: Labels): string {
  const matchers = Object.entries(where).map(([label, value]) => `${label}="${escaped(value)}"`);
  return matchers.length ? `${name}{${matchers.join(',')}}` : name;
}

/** Labels that tell series of this name apart, those with few values first. */
export function splitting(row: SeriesName): string[] {
  const many = Object.entries(row.labels).filter(([, values]) => values.length > 1);
  return many.sort((a, b) => a[1].length - b[1].length || (a[0] < b[0] ? -1 : 1)).map(([label]) => label);
}

/** One series for each value of `by`, the sum of those that share it. Moments are joined within half a step. */
export function summed(series: readonly Series[], by: string, step_ms: number): { name: string; points: Point[] }[] {
  const slot = Math.max(1, step_ms / 2);
  const groups = new Map<string, Map<number, [number, number]>>();
  for (const one of series) {
    const key = by ? (one.labels[by] ?? '') : '';
    const group = groups.get(key) ?? new Map<number, [number, number]>();
    groups.set(key, group);
    for (const [t, v] of one.points) {
      if (v === null) continue;
      const held = group.get(Math.round(t / slot));
      if (held) held[1] += v;
      else group.set(Math.round(t / slot), [t, v]);
    }
  }
  return [...groups].map(([name, points]) => ({ name, points: [...points.values()].sort((a, b) => a[0] - b[0]).map(([t, v]): Point => [t, v]) }));
}

/** What tells one series from its neighbours: only the labels in which they differ. */
export function nameOf(labels: Labels, all: readonly Series[]): string {
  const differs = Object.keys(labels).filter((label) => all.some((s) => (s.labels[label] ?? '') !== labels[label]));
  const parts = differs.map((label) => labels[label] ?? '').filter(Boolean);
  return parts.join(' ') || 'all';
}

/** A quantile of buckets over time, as Prometheus' histogram_quantile: linear inside a bucket, the last finite bound above all. */
export function quantile(buckets: readonly { name: string; points: readonly Point[] }[], q: number): Point[] {
  const bounds = buckets.map((b) => ({ le: b.name === '+Inf' ? Infinity : Number(b.name), points: b.points })).filter((b) => !Number.isNaN(b.le)).sort((a, b) => a.le - b.le);
  const whole = bounds.at(-1);
  if (!whole || whole.le !== Infinity || bounds.length < 2) return [];
  return whole.points.map(([t, all], i): Point => {
    if (!all) return [t, null];
    let [low, below] = [0, 0];
    for (const { le, points } of bounds) {
      const upTo = points[i]?.[1] ?? 0;
      if (upTo >= q * all) return [t, le === Infinity ? low : low + (le - low) * (upTo > below ? (q * all - below) / (upTo - below) : 0)];
      [low, below] = [le, upTo];
    }
    return [t, low];
  });
}
