// Round numbers for the two axes of a chart.
import { hourMinute, time } from '../dom/format';
import { token } from '../theme';
import { font } from './canvas';

const STEPS_S = [1, 2, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600];
const LAST_STEP_S = 43_200;
const TICK_PX = 90;
const TICK_NARROW_PX = 62;
const NARROW_CHART_PX = 420;

/** The next round number: 1, 2, 2.5, 5 or 10 times a power of ten. */
export function roundUp(max: number): number {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  const m = max / power;
  return (m <= 1 ? 1 : m <= 2 ? 2 : m <= 2.5 ? 2.5 : m <= 5 ? 5 : 10) * power;
}

/** Moments (ms) to mark between two others, at most `count`, and their distance in seconds. */
export function timeTicks(from: number, to: number, count: number): { at: number[]; step_s: number } {
  const range_s = (to - from) / 1000;
  const step_s = STEPS_S.find((s) => range_s / s <= count) ?? LAST_STEP_S;
  const step = step_s * 1000;
  const at: number[] = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) at.push(t);
  return { at, step_s };
}

export function drawTimeAxis(g: CanvasRenderingContext2D, width: number, height: number, left: number, from: number, to: number): void {
  const room = width - left;
  const { at, step_s } = timeTicks(from, to, Math.max(2, Math.floor(room / (width < NARROW_CHART_PX ? TICK_NARROW_PX : TICK_PX))));
  g.font = font();
  g.fillStyle = token('--t3');
  g.textAlign = 'center';
  g.textBaseline = 'alphabetic';
  for (const t of at) {
    const x = left + ((t - from) / (to - from)) * room;
    if (x < left + 16 || x > width - 18) continue;
    g.fillText(step_s < 60 ? time(t) : hourMinute(t), x, height - 2);
  }
}
