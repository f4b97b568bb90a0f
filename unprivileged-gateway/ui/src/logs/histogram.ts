// Lines by level over the window; drag to choose a range.
import type { LogsAnswer } from '../api/types';
import type { PageContext } from '../app';
import { Strip } from '../chart/strip';
import * as format from '../dom/format';
import { LEVELS, levelClass } from './facets';

export interface Histogram {
  learn(answer: LogsAnswer['histogram'], only: Set<string>): void;
  draw(): void;
}

const LEFT_PX = 40;

export function histogram(host: HTMLElement, context: PageContext, range: () => [number, number] | null, brush: (range: [number, number] | null, done: boolean) => void): Histogram {
  let answer: LogsAnswer['histogram'] = { t0_ms: 0, step_ms: 1000, levels: {} };
  let sums = new Map<string, number[]>();
  const series = [...LEVELS].reverse().map((level) => ({
    name: level,
    color: `--lv-${level}`,
    at: (ms: number) => sums.get(level)?.[Math.floor((ms - answer.t0_ms) / answer.step_ms)] ?? 0,
  }));
  const strip = new Strip(host, {
    scope: context.scope,
    time: context.app.time,
    mode: 'bars',
    left: LEFT_PX,
    series: () => series,
    label: 'Lines by level over time. Drag to choose a range.',
    brush: { get: range, set: brush },
    column_ms: () => Math.max(1000, answer.step_ms),
    phase_ms: () => answer.t0_ms,
  });
  context.scope.add(context.app.time.changed.on(() => strip.update()));
  return {
    learn(next, only) {
      answer = next;
      sums = new Map();
      for (const [level, counts] of Object.entries(next.levels)) {
        if (only.size && !only.has(level)) continue;
        const kind = levelClass(level);
        const held = sums.get(kind) ?? [];
        counts.forEach((n, i) => (held[i] = (held[i] ?? 0) + n));
        sums.set(kind, held);
      }
      strip.update();
      strip.relabel(LEVELS.map((level) => `${level} ${format.int((sums.get(level) ?? []).reduce((a, b) => a + b, 0))}`).join(', '));
    },
    draw: () => strip.update(),
  };
}
