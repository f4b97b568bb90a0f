// The pipes between lanes and tank: two narrow canvases, so that a frame repaints little.
//
// Dashes run while bytes flow, faster with more of them (logarithm); a pipe without flow is drawn once and stands still. With nothing
// flowing, or reduced motion, nothing is drawn between the seconds. Where everything stands is measured once a second, not per frame.
import type { SignalName, Status } from '../api/types';
import { attended } from '../attention';
import type { PageContext } from '../app';
import { canvas } from '../chart/canvas';
import { h } from '../dom/element';
import { alpha, calm, narrow, token } from '../theme';

export type Valve = 'open' | 'refused' | 'shut-wait' | 'shut-risk';

export interface Pipe {
  signal: SignalName;
  /** Where it meets the lane or the destination, and where the tank: y in the window. */
  outer(): number;
  inner(): number;
  /** Bytes a second; NaN or 0 is no flow. */
  bytes(): number;
  valve(): Valve;
}

interface Placed {
  signal: SignalName;
  outer: number;
  inner: number;
  bytes: number;
  valve: Valve;
}

const FRAMES = 12;
/** Of these, one in three is drawn when nobody has touched the page for a while: a frame costs 0.5 % of a core without a GPU. */
const UNATTENDED_EACH = 3;
const DASH_PX: [number, number] = [7, 13];

export function pipes(context: PageContext, root: HTMLElement, tank: HTMLElement, left: Pipe[], right: Pipe[]): (status: Status) => void {
  const { scope } = context;
  const elLeft = h('canvas');
  const elRight = h('canvas');
  root.append(elLeft, elRight);
  let placedLeft: Placed[] = [];
  let placedRight: Placed[] = [];
  let seconds = 0;
  let frame = 0;
  const drawLeft = canvas(elLeft, scope, (g, w) => placedLeft.forEach((p) => drawPipe(g, p, seconds, [2, p.outer, w, p.inner])));
  const drawRight = canvas(elRight, scope, (g, w) => placedRight.forEach((p) => drawPipe(g, p, seconds, [0, p.inner, w - 3, p.outer])));
  const flows = (list: Placed[]) => list.some((p) => p.bytes > 0);
  const place = () => {
    if (!root.isConnected || narrow()) return;
    const base = root.getBoundingClientRect();
    const box = tank.getBoundingClientRect();
    const lane = root.querySelector('.lane')?.getBoundingClientRect();
    const outs = root.querySelector('.outs')?.getBoundingClientRect();
    if (!lane || !outs) return;
    span(elLeft, lane.right - base.left + 6, box.left - base.left);
    span(elRight, box.right - base.left, outs.left - base.left - 6);
    const fix = (p: Pipe): Placed => ({ signal: p.signal, outer: p.outer() - base.top, inner: p.inner() - base.top, bytes: p.bytes(), valve: p.valve() });
    placedLeft = left.map(fix);
    placedRight = right.map(fix);
    drawLeft.redraw();
    drawRight.redraw();
  };
  scope.frames(FRAMES, (at) => {
    if (calm() || narrow() || (frame++ % UNATTENDED_EACH && !attended())) return;
    seconds = at;
    if (flows(placedLeft)) drawLeft.redraw();
    if (flows(placedRight)) drawRight.redraw();
  });
  scope.listen(window, 'resize', place);
  requestAnimationFrame(place);
  return place;
}

function span(el: HTMLElement, left: number, right: number): void {
  el.style.left = `${left}px`;
  el.style.width = `${Math.max(1, right - left)}px`;
}

const width = (bytes: number) => Math.max(1.5, Math.min(9, (Math.log10((bytes || 0) + 1) - 2.6) * 2));

function drawPipe(g: CanvasRenderingContext2D, p: Placed, seconds: number, [x1, y1, x2, y2]: [number, number, number, number]): void {
  const shut = p.valve === 'shut-wait' || p.valve === 'shut-risk';
  const color = token(`--${p.signal}`);
  const wide = shut ? 5 : width(p.bytes);
  const m = (x1 + x2) / 2;
  g.beginPath();
  g.moveTo(x1, y1);
  g.bezierCurveTo(m, y1, m, y2, x2, y2);
  g.lineWidth = wide;
  g.strokeStyle = alpha(color, shut ? 0.14 : 0.22);
  g.stroke();
  if (!shut && p.bytes > 0) {
    g.setLineDash(DASH_PX);
    const speed = 8 + Math.log10(p.bytes + 1) * 7;
    g.lineDashOffset = calm() ? 0 : -((seconds * speed) % (DASH_PX[0] + DASH_PX[1]));
    g.lineWidth = Math.max(1.2, wide * 0.34);
    g.strokeStyle = alpha(color, 0.9);
    g.stroke();
    g.setLineDash([]);
  }
  if (shut) drawValve(g, m, (y1 + y2) / 2, token(p.valve === 'shut-risk' ? '--risk' : '--wait'));
  if (p.valve === 'refused') {
    g.fillStyle = token('--risk');
    g.fillRect(x2 - 9, y2 - 7, 3, 14);
  }
}

/** A closed valve: two triangles and a handle. */
function drawValve(g: CanvasRenderingContext2D, x: number, y: number, color: string): void {
  g.fillStyle = token('--bg');
  g.fillRect(x - 11, y - 10, 22, 20);
  g.fillStyle = color;
  g.beginPath();
  g.moveTo(x - 8, y - 7);
  g.lineTo(x + 8, y + 7);
  g.lineTo(x + 8, y - 7);
  g.lineTo(x - 8, y + 7);
  g.closePath();
  g.fill();
  g.fillRect(x - 0.75, y - 11, 1.5, 11);
  g.fillRect(x - 5, y - 12, 10, 1.5);
}
