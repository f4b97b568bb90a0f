// Duration of each trace over time, logarithmic; failed ones are squares. The list beside it is its text twin.
import type { TraceRow } from '../api/types';
import type { PageContext } from '../app';
import { drawTimeAxis } from '../chart/axis';
import { canvas, font } from '../chart/canvas';
import { h } from '../dom/element';
import * as format from '../dom/format';
import { keyValues } from '../dom/parts';
import { hideTip, showTip } from '../dom/tip';
import { alpha, token } from '../theme';

const LEFT_PX = 50;
const AXIS_PX = 17;
const REACH_PX = 20;

interface Scale {
  low: number;
  decades: number;
}

/** Whole decades around what is shown, at least three. */
function scaleOf(rows: readonly TraceRow[]): Scale {
  const known = rows.map((t) => Math.max(0.001, t.duration_ms));
  const low = Math.floor(Math.log10(Math.min(10, ...known)));
  const high = Math.ceil(Math.log10(Math.max(1000, ...known)));
  return { low, decades: Math.max(3, high - low) };
}

export function scatter(host: HTMLElement, context: PageContext, rows: () => readonly TraceRow[], selected: () => string, select: (id: string) => void): { update(): void } {
  const { time } = context.app;
  const X = (ms: number, w: number) => {
    const [from, to] = time.bounds();
    return LEFT_PX + ((ms - from) / (to - from)) * (w - LEFT_PX);
  };
  const Y = (ms: number, hgt: number, scale: Scale) => {
    const floor = hgt - AXIS_PX;
    return floor - ((Math.log10(Math.max(0.001, ms)) - scale.low) / scale.decades) * (floor - 6);
  };
  const drawing = canvas(
    host.appendChild(h('canvas')),
    context.scope,
    (g, w, hgt) => {
      const scale = scaleOf(rows());
      drawGrid(g, w, hgt, scale, (ms) => Y(ms, hgt, scale));
      drawTimeAxis(g, w, hgt, LEFT_PX, ...time.bounds());
      for (const t of rows()) drawTrace(g, X(t.start_ms, w), Y(t.duration_ms, hgt, scale), t, t.trace_id === selected());
    },
    'Duration of each trace over time; failed ones are squares. The list below has the same traces.',
  );
  const nearest = (event: MouseEvent): TraceRow | undefined => {
    const box = drawing.el.getBoundingClientRect();
    const scale = scaleOf(rows());
    let best: TraceRow | undefined;
    let reach = REACH_PX ** 2;
    for (const t of rows()) {
      const distance = (X(t.start_ms, box.width) - (event.clientX - box.left)) ** 2 + (Y(t.duration_ms, box.height, scale) - (event.clientY - box.top)) ** 2;
      if (distance < reach) {
        reach = distance;
        best = t;
      }
    }
    return best;
  };
  drawing.el.addEventListener('click', (e) => {
    const t = nearest(e);
    if (t) select(t.trace_id);
  });
  drawing.el.addEventListener('pointermove', (e) => {
    const t = nearest(e);
    drawing.el.classList.toggle('hit', t !== undefined);
    if (!t) return hideTip();
    showTip(e.clientX, e.clientY, keyValues([[format.time(t.start_ms), t.name], ['Service', t.service], ['Duration', format.dur(t.duration_ms / 1000)], ['Spans', `${t.spans}, ${t.errors} failed`]]));
  });
  drawing.el.addEventListener('pointerleave', hideTip);
  context.scope.every(1000, () => {
    if (time.live) drawing.redraw();
  });
  return { update: () => drawing.redraw() };
}

function drawGrid(g: CanvasRenderingContext2D, w: number, hgt: number, scale: Scale, Y: (ms: number) => number): void {
  g.font = font();
  g.textAlign = 'right';
  g.textBaseline = 'middle';
  const step = Math.max(1, Math.ceil(scale.decades / ((hgt - AXIS_PX) / 22)));
  for (let d = 0; d <= scale.decades; d += step) {
    const ms = 10 ** (scale.low + d);
    const y = Math.round(Y(ms)) + 0.5;
    g.strokeStyle = token('--line');
    g.beginPath();
    g.moveTo(LEFT_PX, y);
    g.lineTo(w, y);
    g.stroke();
    g.fillStyle = token('--t3');
    g.fillText(format.dur(ms / 1000).replace(/\.0+(?=\D)/, ''), LEFT_PX - 7, y);
  }
}

function drawTrace(g: CanvasRenderingContext2D, x: number, y: number, t: TraceRow, on: boolean): void {
  if (x < LEFT_PX) return;
  if (t.errors > 0) {
    g.fillStyle = token('--risk');
    g.fillRect(x - 2.5, y - 2.5, 5, 5);
  } else {
    g.fillStyle = alpha(token('--traces'), 0.75);
    g.beginPath();
    g.arc(x, y, 2, 0, 7);
    g.fill();
  }
  if (!on) return;
  g.strokeStyle = token('--t1');
  g.lineWidth = 1.5;
  g.beginPath();
  g.arc(x, y, 5.5, 0, 7);
  g.stroke();
}
