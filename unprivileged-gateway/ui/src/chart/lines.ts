// A chart of series as they were measured: lines or stacked areas through the points of an answer, on the shared time axis.
//
// Points are drawn where they are, not resampled; a pause longer than a few steps and a missing value break the line. Stacking adds
// values of the same moment, so it suits series of one scrape. Weakness: a series that is scraped at other moments is stacked
// at its last value before.
import type { Point } from '../api/types';
import { h } from '../dom/element';
import { num, tick, time } from '../dom/format';
import { keyValues } from '../dom/parts';
import { hideTip, showTip } from '../dom/tip';
import type { Scope } from '../scope';
import { alpha, token } from '../theme';
import type { TimeWindow } from '../timewindow';
import { drawTimeAxis, roundUp } from './axis';
import { canvas, font, type Canvas } from './canvas';

export interface Line {
  name: string;
  /** Name of a token. */
  color: string;
  points: readonly Point[];
}

export interface LinesOptions {
  scope: Scope;
  time: TimeWindow;
  label: string;
  left?: number;
  /** No axes and no labels: for rows of tiny charts. */
  bare?: boolean;
  /** Top of the value axis; otherwise the next round number. */
  max?: number;
  /** A dashed line at this value. */
  limit?: number;
  format?: (n: number) => string;
  tick?: (n: number) => string;
  /** Another stretch of time than the window of the page, ms. */
  bounds?: () => [number, number];
  /** Round numbers in powers of two. */
  binary?: boolean;
}

const AXIS_PX = 15;
const TOP_PX = 3;
const LEFT_PX = 46;
/** A pause of this many steps breaks the line. */
const PAUSE_STEPS = 3;
const TIP_ROWS = 10;
const KIB = 1024;

export class Lines {
  readonly canvas: Canvas;
  private lines: readonly Line[] = [];
  private step_ms = 1000;
  private stacked = false;
  private bounds: [number, number] = [0, 1];
  private readonly left: number;
  private readonly axis: number;

  constructor(
    host: HTMLElement,
    private readonly o: LinesOptions,
  ) {
    this.left = o.bare ? 0 : (o.left ?? LEFT_PX);
    this.axis = o.bare ? 0 : AXIS_PX;
    const el = host.appendChild(h('canvas'));
    this.canvas = canvas(el, o.scope, (g, w, hgt) => this.draw(g, w, hgt), o.label);
    o.scope.add(o.time.crossed.on(() => this.canvas.redraw()));
    el.addEventListener('pointermove', (e) => this.point(e));
    el.addEventListener('pointerleave', () => {
      o.time.setCross(null);
      hideTip();
    });
  }

  show(lines: readonly Line[], step_ms: number, stacked = false): void {
    this.lines = stacked ? aligned(lines) : lines;
    this.step_ms = step_ms || 1000;
    this.stacked = stacked;
    this.canvas.redraw();
    const now = lines.map((line) => `${line.name} ${this.format(last(line))}`).slice(0, TIP_ROWS);
    this.canvas.el.setAttribute('aria-label', `${this.o.label}. ${now.length ? `Now ${now.join(', ')}` : 'No value yet'}`);
  }

  /** Draws again where the window has moved on. */
  redraw(): void {
    this.canvas.redraw();
  }

  private format(n: number): string {
    return (this.o.format ?? num)(n);
  }

  private top(): number {
    if (this.o.max !== undefined) return this.o.max;
    let most = 0;
    const sums = new Map<number, number>();
    for (const line of this.lines) {
      for (const [t, v] of line.points) {
        if (v === null || t < this.bounds[0]) continue;
        const sum = this.stacked ? (sums.get(t) ?? 0) + v : v;
        sums.set(t, sum);
        if (sum > most) most = sum;
      }
    }
    return this.o.binary ? roundUpBinary(most) : roundUp(most * 1.04);
  }

  /** Values below zero are rare; then the floor of the chart is the lowest. */
  private bottom(): number {
    let least = 0;
    for (const line of this.lines) for (const [, v] of line.points) if (v !== null && v < least) least = v;
    return least < 0 ? -roundUp(-least) : 0;
  }

  private draw(g: CanvasRenderingContext2D, w: number, hgt: number): void {
    const [from, to] = (this.bounds = this.o.bounds?.() ?? this.o.time.bounds());
    const floor = hgt - this.axis;
    const top = this.top();
    const bottom = this.bottom();
    const X = (t: number) => this.left + ((t - from) / (to - from)) * (w - this.left);
    const Y = (v: number) => floor - ((v - bottom) / (top - bottom)) * (floor - TOP_PX);
    if (!this.o.bare) this.drawGrid(g, w, hgt, bottom, top, Y);
    g.save();
    g.beginPath();
    g.rect(this.left, 0, w - this.left, floor);
    g.clip();
    if (this.o.limit !== undefined) {
      g.strokeStyle = token('--line-3');
      g.setLineDash([2, 4]);
      stroke(g, [[this.left, Y(this.o.limit)], [w, Y(this.o.limit)]]);
      g.setLineDash([]);
    }
    if (this.stacked) this.drawStack(g, X, Y);
    else this.drawLines(g, X, Y, floor);
    this.drawCross(g, floor, X, Y);
    g.restore();
  }

  private drawGrid(g: CanvasRenderingContext2D, w: number, hgt: number, bottom: number, top: number, Y: (v: number) => number): void {
    g.font = font();
    g.textAlign = 'right';
    g.textBaseline = 'middle';
    g.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const v = bottom + (top - bottom) * share;
      const y = Math.round(Y(v)) + 0.5;
      g.strokeStyle = token(share ? '--line' : '--line-2');
      stroke(g, [[this.left, y], [w, y]]);
      g.fillStyle = token('--t3');
      if (share || bottom < 0) g.fillText((this.o.tick ?? tick)(v), this.left - 7, share === 1 ? y + 4 : y);
    }
    drawTimeAxis(g, w, hgt, this.left, this.bounds[0], this.bounds[1]);
  }

  private drawLines(g: CanvasRenderingContext2D, X: (t: number) => number, Y: (v: number) => number, floor: number): void {
    g.lineWidth = 1.35;
    g.lineJoin = 'round';
    for (let i = this.lines.length - 1; i >= 0; i--) {
      const line = this.lines[i];
      if (!line) continue;
      g.strokeStyle = g.fillStyle = token(line.color);
      for (const run of this.runs(line.points)) {
        const path = run.map(([t, v]) => [X(t), Y(v)] as const);
        const [first] = path;
        if (path.length === 1 && first) g.fillRect(first[0] - 1, first[1] - 1, 2.5, 2.5);
        stroke(g, path);
        if (this.lines.length > 1 || !first) continue;
        g.lineTo(path.at(-1)?.[0] ?? 0, floor);
        g.lineTo(first[0], floor);
        g.closePath();
        g.fillStyle = alpha(token(line.color), 0.14);
        g.fill();
        g.fillStyle = token(line.color);
      }
    }
  }

  private drawStack(g: CanvasRenderingContext2D, X: (t: number) => number, Y: (v: number) => number): void {
    const count = this.lines[0]?.points.length ?? 0;
    let base = new Float64Array(count);
    for (const line of this.lines) {
      const next = base.map((v, i) => v + (line.points[i]?.[1] ?? 0));
      for (const [a, b] of this.stretches(line.points)) {
        g.fillStyle = alpha(token(line.color), 0.62);
        if (a === b) {
          g.fillRect(X(line.points[a]?.[0] ?? 0) - 1.5, Y(next[a] ?? 0), 3, Y(base[a] ?? 0) - Y(next[a] ?? 0));
          continue;
        }
        g.beginPath();
        for (let i = a; i <= b; i++) g.lineTo(X(line.points[i]?.[0] ?? 0), Y(next[i] ?? 0));
        for (let i = b; i >= a; i--) g.lineTo(X(line.points[i]?.[0] ?? 0), Y(base[i] ?? 0));
        g.closePath();
        g.fill();
      }
      base = next;
    }
  }

  private drawCross(g: CanvasRenderingContext2D, floor: number, X: (t: number) => number, Y: (v: number) => number): void {
    const t = this.o.time.cross;
    if (t === null || t < this.bounds[0] || t > this.bounds[1]) return;
    const x = Math.round(X(t)) + 0.5;
    g.strokeStyle = token('--line-3');
    g.lineWidth = 1;
    stroke(g, [[x, 0], [x, floor]]);
    if (this.stacked) return;
    for (const line of this.lines) {
      const v = this.valueAt(line, t);
      if (!Number.isFinite(v)) continue;
      g.fillStyle = token(line.color);
      g.beginPath();
      g.arc(x, Y(v), 2.6, 0, 7);
      g.fill();
    }
  }

  /** The value that stood at `t`: that of the last point before, unless it is too old. */
  valueAt(line: Line, t: number): number {
    let low = 0;
    let high = line.points.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if ((line.points[mid]?.[0] ?? 0) <= t + this.step_ms / 2) low = mid + 1;
      else high = mid;
    }
    const point = line.points[low - 1];
    return point && t - point[0] <= this.step_ms * PAUSE_STEPS ? (point[1] ?? NaN) : NaN;
  }

  private stretches(points: readonly Point[]): [number, number][] {
    const out: [number, number][] = [];
    let begin = -1;
    points.forEach(([t, v], i) => {
      const paused = i > 0 && t - (points[i - 1]?.[0] ?? t) > this.step_ms * PAUSE_STEPS;
      if (begin >= 0 && (v === null || paused)) {
        out.push([begin, i - 1]);
        begin = -1;
      }
      if (v !== null && begin < 0) begin = i;
    });
    if (begin >= 0) out.push([begin, points.length - 1]);
    return out;
  }

  private runs(points: readonly Point[]): (readonly [number, number])[][] {
    return this.stretches(points).map(([a, b]) => points.slice(a, b + 1).map(([t, v]) => [t, v ?? 0] as const));
  }

  private point(event: PointerEvent): void {
    const box = this.canvas.el.getBoundingClientRect();
    const share = (event.clientX - box.left - this.left) / (box.width - this.left);
    const t = this.bounds[0] + Math.max(0, Math.min(1, share)) * (this.bounds[1] - this.bounds[0]);
    this.o.time.setCross(t);
    const rows = this.lines.map((line) => [line.name, this.valueAt(line, t)] as const).slice(0, TIP_ROWS);
    const more = this.lines.length - rows.length;
    showTip(event.clientX, event.clientY, keyValues([[time(t), ''], ...rows.map(([name, v]) => [name, this.format(v)] as const), ...(more > 0 ? [[`and ${more} more`, ''] as const] : [])]));
  }
}

function stroke(g: CanvasRenderingContext2D, path: readonly (readonly [number, number])[]): void {
  g.beginPath();
  for (const [x, y] of path) g.lineTo(x, y);
  g.stroke();
}

export function last(line: Line): number {
  for (let i = line.points.length - 1; i >= 0; i--) {
    const v = line.points[i]?.[1];
    if (v !== null && v !== undefined) return v;
  }
  return NaN;
}

/** All lines on the moments of the one that has most. */
function aligned(lines: readonly Line[]): Line[] {
  const longest = lines.reduce<readonly Point[]>((best, line) => (line.points.length > best.length ? line.points : best), []);
  return lines.map((line) => {
    if (line.points.length === longest.length && line.points.every(([t], i) => t === longest[i]?.[0])) return line;
    let at = 0;
    let held: number | null = null;
    const points = longest.map(([t]): Point => {
      while (at < line.points.length && (line.points[at]?.[0] ?? 0) <= t) held = line.points[at++]?.[1] ?? null;
      return [t, held];
    });
    return { ...line, points };
  });
}

function roundUpBinary(most: number): number {
  if (!(most > 0)) return 1;
  let power = 1;
  while (power < most) power *= 2;
  return power > KIB && power * 0.75 >= most ? power * 0.75 : power;
}
