// Samples a second of each CPU against what is wanted. The page remembers the last two minutes itself, as long as it is open.
import type { PageContext } from '../app';
import type { Point, ProbeAnswer, ProbeHello, ProbeStatus } from '../api/types';
import { Lines } from '../chart/lines';
import { h, text } from '../dom/element';

const SHOWN_MS = 120_000;
const KEPT = 200;
const STEP_MS = 10_000; // the page may ask this rarely when nobody looks
/** Room above the wanted rate, so that its mark is seen. */
const HEADROOM = 1.15;

const memory = new Map<number, Point[]>();
let start = '';

/** Called with every answer, so that going to another page and back loses nothing but the time between. */
export function remember(answer: ProbeAnswer, now_ms: number): void {
  const begun = answer.hello?.start ?? '';
  if (begun !== start) memory.clear();
  start = begun;
  for (const { cpu, per_s } of answer.rates?.cpus ?? []) {
    const points = memory.get(cpu) ?? [];
    memory.set(cpu, points);
    points.push([now_ms, per_s]);
    if (points.length > KEPT) points.shift();
  }
}

export interface Strips {
  el: HTMLElement;
  update(answer: ProbeAnswer, status: ProbeStatus, hello: ProbeHello | null): void;
}

export function cpuStrips(context: PageContext, cpus: readonly number[]): Strips {
  let wanted = 0;
  const last = (): [number, number] => [context.app.time.now() - SHOWN_MS, context.app.time.now()];
  const rows = cpus.map((cpu) => {
    const value = h('span');
    const host = h('div.chart', { 'data-testid': 'chart' });
    const el = h('div', { 'data-testid': 'cpu', 'data-cpu': cpu }, h('div.t', null, h('span.dim', null, `cpu ${cpu}`), value), host);
    let lines: Lines | null = null;
    return {
      el,
      update(per_s: number, hz: number) {
        text(value, `${Number.isFinite(per_s) ? per_s.toFixed(0) : '–'}\u2009/s of ${hz}`);
        if (!lines || wanted !== hz) {
          host.replaceChildren();
          lines = new Lines(host, { scope: context.scope, time: context.app.time, bounds: last, bare: true, max: hz * HEADROOM, limit: hz, label: `CPU ${cpu}, samples a second; ${hz} wanted`, format: (n) => n.toFixed(0) });
        }
        lines.show([{ name: 'samples/s', color: '--profiles', points: memory.get(cpu) ?? [] }], STEP_MS);
      },
    };
  });
  return {
    el: h('div.cpus', null, rows.map((row) => row.el)),
    update(answer, status, hello) {
      const hz = Math.max(1, hello?.hz ?? status.hz_now);
      const rates = new Map((answer.rates?.cpus ?? []).map((c) => [c.cpu, c.per_s]));
      rows.forEach((row, i) => row.update(rates.get(cpus[i] ?? -1) ?? NaN, hz));
      wanted = hz;
    },
  };
}
