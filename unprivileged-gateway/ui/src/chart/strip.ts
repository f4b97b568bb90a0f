// A strip chart: lines, a filled line or stacked bars over the shared time window, with one crosshair and, if asked, a brush.
import { h } from '../dom/element';
import { num, tick, time } from '../dom/format';
import { keyValues } from '../dom/parts';
import { hideTip, showTip } from '../dom/tip';
import type { Scope } from '../scope';
import { alpha, token } from '../theme';
import type { TimeWindow } from '../timewindow';
import { drawTimeAxis, roundUp } from './axis';
import { canvas, font, type Canvas } from './canvas';

export interface Series {
  name: string;
  /** Name of a token. */
  color: string;
  /** Of the stretch of `span_ms` that begins at `ms`. */
  at(ms: number, span_ms: number): number;
}

export interface Brush {
  get(): [number, number] | null;
  /** `done` is false while the pointer still moves. */
  set(range: [number, number] | null, done: boolean): void;
}

export interface StripOptions {
  scope: Scope;
  time: TimeWindow;
  series: () => readonly Series[];
  mode: 'area' | 'bars';
  label: string;
  left?: number;
  format?: (n: number) => string;
  brush?: Brush;
  /** ms a column; the sample of a line otherwise follows the width. */
  column_ms?: () => number;
  /** Where a column begins, ms, so that bars stand where the gateway counted them. */
  phase_ms?: () => number;
}

const AXIS_PX = 15;
const TOP_PX = 3;
const LEFT_PX = 44;

export class Strip {
  readonly canvas: Canvas;
  private points: number[][] = [];
  private bounds: [number, number] = [0, 1];
  private span_ms = 1000;
  private readonly left: number;

  constructor(
    host: HTMLElement,
    private readonly o: StripOptions,
  ) {
    this.left = o.left ?? LEFT_PX;
    const el = host.appendChild(h('canvas'));
    this.canvas = canvas(el, o.scope, (g, w, hgt) => this.draw(g, w, hgt), o.label);
    o.scope.add(o.time.crossed.on(() => this.canvas.redraw()));
    el.addEventListener('pointermove', (e) => this.point(e));
    el.addEventListener('pointerleave', () => {
      o.time.setCross(null);
      hideTip();
    });
    if (o.brush) brushing(this, el, o.brush, o.time);
  }

  update(): void {
    this.sample();
    this.canvas.redraw();
  }

  /** The text twin follows the numbers. */
  relabel(text: string): void {
    this.canvas.el.setAttribute('aria-label', `${this.o.label}. ${text}`);
  }

  window(): [number, number] {
    return this.bounds;
  }

  momentOf(event: PointerEvent): number {
    const box = this.canvas.el.getBoundingClientRect();
    const share = (event.clientX - box.left - this.left) / (box.width - this.left);
    return this.bounds[0] + Math.max(0, Math.min(1, share)) * (this.bounds[1] - this.bounds[0]);
  }

  private sample(): void {
    const [from, to] = (this.bounds = this.o.time.bounds());
    const columns = Math.max(60, Math.min(240, Math.round((this.canvas.width || 600) / 4)));
    const step = (this.span_ms = this.o.column_ms?.() ?? Math.max(1000, (to - from) / columns));
    const series = this.o.series();
    this.points = [];
    const phase = (this.o.phase_ms?.() ?? 0) % step;
    for (let t = Math.floor((from - phase) / step) * step + phase; t <= to; t += step) this.points.push([t, ...series.map((s) => s.at(t, step))]);
  }

  private top(): number {
    let max = 0;
    for (const [, ...values] of this.points) {
      const known = values.filter(Number.isFinite);
      max = Math.max(max, this.o.mode === 'bars' ? known.reduce((a, b) => a + b, 0) : Math.max(0, ...known));
    }
    return roundUp(max * 1.04);
  }

  private draw(g: CanvasRenderingContext2D, w: number, hgt: number): void {
    if (!this.points.length) this.sample();
    const [from, to] = this.bounds;
    const floor = hgt - AXIS_PX;
    const top = this.top();
    const X = (t: number) => this.left + ((t - from) / (to - from)) * (w - this.left);
    const Y = (v: number) => floor - (v / top) * (floor - TOP_PX);
    this.drawGrid(g, w, hgt, top, Y);
    g.save();
    g.beginPath();
    g.rect(this.left, 0, w - this.left, floor);
    g.clip();
    if (this.o.mode === 'bars') this.drawBars(g, X, Y);
    else this.drawLines(g, X, Y);
    this.drawMarks(g, w, floor, X);
    g.restore();
  }

  private drawGrid(g: CanvasRenderingContext2D, w: number, hgt: number, top: number, Y: (v: number) => number): void {
    g.font = font();
    g.textAlign = 'right';
    g.textBaseline = 'middle';
    g.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(Y(top * share)) + 0.5;
      g.strokeStyle = token(share ? '--line' : '--line-2');
      g.beginPath();
      g.moveTo(this.left, y);
      g.lineTo(w, y);
      g.stroke();
      g.fillStyle = token('--t3');
      if (share) g.fillText(tick(top * share), this.left - 7, share === 1 ? y + 4 : y);
    }
    drawTimeAxis(g, w, hgt, this.left, this.bounds[0], this.bounds[1]);
  }

  private drawBars(g: CanvasRenderingContext2D, X: (t: number) => number, Y: (v: number) => number): void {
    const series = this.o.series();
    const [first, second] = this.points;
    const width = first && second ? X(second[0] ?? 0) - X(first[0] ?? 0) : 2;
    for (const [t, ...values] of this.points) {
      let base = 0;
      series.forEach((s, i) => {
        const v = values[i] ?? 0;
        if (!(v > 0)) return;
        g.fillStyle = token(s.color);
        g.fillRect(X(t ?? 0), Y(base + v), Math.max(1, width - 1), Y(base) - Y(base + v));
        base += v;
      });
    }
  }

  private drawLines(g: CanvasRenderingContext2D, X: (t: number) => number, Y: (v: number) => number): void {
    const series = this.o.series();
    for (let i = series.length - 1; i >= 0; i--) {
      const s = series[i];
      if (!s) continue;
      g.strokeStyle = token(s.color);
      g.lineWidth = 1.35;
      g.lineJoin = 'round';
      for (const run of runs(this.points, i + 1)) {
        g.beginPath();
        for (const [t, v] of run) g.lineTo(X(t), Y(v));
        g.stroke();
        const [only] = run;
        if (run.length === 1 && only) {
          g.fillStyle = token(s.color);
          g.fillRect(X(only[0]) - 1, Y(only[1]) - 1, 3, 3);
        }
        if (i > 0) continue;
        g.lineTo(X(run.at(-1)?.[0] ?? 0), Y(0));
        g.lineTo(X(run[0]?.[0] ?? 0), Y(0));
        g.closePath();
        g.fillStyle = alpha(token(s.color), 0.14);
        g.fill();
      }
    }
  }

  private drawMarks(g: CanvasRenderingContext2D, w: number, floor: number, X: (t: number) => number): void {
    const picked = this.o.brush?.get();
    if (picked) {
      g.fillStyle = alpha(token('--bg'), 0.62);
      g.fillRect(this.left, 0, X(picked[0]) - this.left, floor);
      g.fillRect(X(picked[1]), 0, w, floor);
      g.fillStyle = token('--focus');
      g.fillRect(X(picked[0]) - 1, 0, 2, floor);
      g.fillRect(X(picked[1]) - 1, 0, 2, floor);
    }
    const t = this.o.time.cross;
    if (t === null || t < this.bounds[0] || t > this.bounds[1]) return;
    const x = Math.round(X(t)) + 0.5;
    g.strokeStyle = token('--line-3');
    g.lineWidth = 1;
    g.beginPath();
    g.moveTo(x, 0);
    g.lineTo(x, floor);
    g.stroke();
  }

  private point(event: PointerEvent): void {
    const t = this.momentOf(event);
    this.o.time.setCross(t);
    if (event.buttons) return;
    const format = this.o.format ?? num;
    showTip(event.clientX, event.clientY, keyValues([[time(t), ''], ...this.o.series().map((s) => [s.name, format(s.at(t, this.span_ms))] as const)]));
  }
}

/** Stretches without a hole: a hole is not joined by a line. */
function runs(points: number[][], column: number): [number, number][][] {
  const out: [number, number][][] = [];
  let run: [number, number][] = [];
  for (const point of points) {
    const v = point[column];
    if (v !== undefined && Number.isFinite(v)) run.push([point[0] ?? 0, v]);
    else if (run.length) {
      out.push(run);
      run = [];
    }
  }
  if (run.length) out.push(run);
  return out;
}

const LEAST_SHARE = 150; // a drag shorter than 1/150 of the window is a click: it clears

/** Drag to pick a range; the arrows move it, with Shift they widen it, Escape clears it. */
function brushing(strip: Strip, el: HTMLCanvasElement, brush: Brush, clock: TimeWindow): void {
  let from: number | null = null;
  const range = (to: number): [number, number] | null => {
    const [a, b] = strip.window();
    if (from === null || Math.abs(to - from) < (b - a) / LEAST_SHARE) return null;
    return [Math.min(from, to), Math.max(from, to)];
  };
  const put = (picked: [number, number] | null, done: boolean) => {
    brush.set(picked, done);
    const [a, b] = strip.window();
    el.setAttribute('aria-valuemin', String(Math.round(a / 1000)));
    el.setAttribute('aria-valuemax', String(Math.round(b / 1000)));
    el.setAttribute('aria-valuenow', String(Math.round((picked?.[0] ?? a) / 1000)));
    el.setAttribute('aria-valuetext', picked ? `${time(picked[0])} to ${time(picked[1])}` : 'whole window');
    strip.canvas.redraw();
  };
  el.setAttribute('role', 'slider');
  el.tabIndex = 0;
  el.classList.add('brush');
  for (const name of ['min', 'max', 'now']) el.setAttribute(`aria-value${name}`, '0');
  el.setAttribute('aria-valuetext', 'whole window');
  el.addEventListener('pointerdown', (e) => {
    from = strip.momentOf(e);
    el.setPointerCapture(e.pointerId);
    hideTip();
  });
  el.addEventListener('pointermove', (e) => {
    const picked = range(strip.momentOf(e));
    if (picked) {
      clock.setLive(false);
      put(picked, false);
    }
  });
  el.addEventListener('pointerup', (e) => {
    if (from === null) return;
    put(range(strip.momentOf(e)), true);
    from = null;
  });
  el.addEventListener('pointercancel', () => (from = null));
  el.addEventListener('keydown', (e) => {
    const by = e.key === 'ArrowLeft' ? -1 : e.key === 'ArrowRight' ? 1 : 0;
    if (e.key === 'Escape' && brush.get()) {
      e.stopPropagation();
      put(null, true);
    }
    if (!by) return;
    e.preventDefault();
    clock.setLive(false);
    const [a, b] = strip.window();
    const held = brush.get() ?? [a + (b - a) * 0.45, a + (b - a) * 0.55];
    const step = (by * (b - a)) / 60;
    put(e.shiftKey ? [held[0], Math.max(held[0], held[1] + step)] : [held[0] + step, held[1] + step], true);
  });
}
