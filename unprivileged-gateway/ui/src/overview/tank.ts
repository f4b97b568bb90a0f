// The tank is the write-ahead log: its surface is the waiting bytes over the window, its height storage.max, its marks the real
// thresholds; the right edge is now. Drawn once a second: water that ripples would stand for nothing.
//
// Weakness: a gateway whose history has the total only (`waiting_bytes` without `waiting.logs` …) leaves the water of the time before
// this page was opened without a hue.
import type { Status } from '../api/types';
import type { PageContext } from '../app';
import { canvas, font } from '../chart/canvas';
import { dress, fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { keyValues } from '../dom/parts';
import { hideTip, showTip } from '../dom/tip';
import { isView, judge, keepsLocal, secondsToFull } from '../health';
import { paceOf } from '../pace';
import { alpha, token } from '../theme';
import type { Part } from './page';
import { SIGNALS } from './pipeline';

const COLUMN_PX = 3;
const LEAST_PX = 1.5;
const THRESHOLD_WORDS = ['warn', 'high', 'critical'];

export function tank(context: PageContext): Part {
  const { app, scope } = context;
  const big = h('div.big');
  const share = h('span');
  const room = h('span');
  const water = h('canvas');
  const el = h('div.tank', { role: 'img', 'data-testid': 'tank' }, water, h('div.read', null, big, share, room));
  const drawing = canvas(water, scope, (g, w, hgt) => {
    const status = app.status();
    if (status) draw(g, w, hgt, status, context);
  });
  el.addEventListener('pointermove', (e) => {
    const box = el.getBoundingClientRect();
    const [from, to] = app.time.bounds();
    const t = from + ((e.clientX - box.left) / box.width) * (to - from);
    const each = SIGNALS.map((s) => [s.title, app.history.at(`waiting.${s.name}`, t)] as const).filter(([, v]) => Number.isFinite(v));
    showTip(e.clientX, e.clientY, keyValues([[format.time(t), 'waiting'], ...each.map(([name, v]) => [name, format.bytes(v)] as const), ['All', format.bytes(app.history.at('waiting_bytes', t))]]));
  });
  el.addEventListener('pointerleave', hideTip);
  scope.add(app.history.changed.on(() => !document.hidden && drawing.redraw()));
  return {
    el,
    update(status) {
      const pace = paceOf(status, app.history);
      const waiting = app.history.last('waiting_bytes');
      const oldest = Math.max(0, ...status.destinations.filter((d) => !isView(d)).map((d) => d.waiting.oldest_age_s ?? 0));
      fill(big, format.bytes(waiting), h('small', null, 'waiting, all of it on disk'));
      text(share, shareOf(waiting, status, oldest));
      const full_s = secondsToFull(status, pace);
      const alone_s = (status.storage.max_bytes - status.storage.bytes) / pace.inflow_bps;
      const health = judge(status, pace);
      const line = roomFor(status, full_s, alone_s, health.state !== 'ok');
      text(room, line);
      dress(room, health.state === 'risk' ? 'risk' : health.state === 'wait' ? 'wait' : '');
      el.setAttribute('aria-label', `Write-ahead log. ${big.textContent ?? ''}. ${share.textContent ?? ''}. ${line}.`);
    },
  };
}

function shareOf(waiting: number, status: Status, oldest_s: number): string {
  const { max_bytes } = status.storage;
  if (waiting === 0) return `of ${format.size(max_bytes)}, nothing waits`;
  const share = waiting / max_bytes;
  return `${format.percent(share, share < 0.01 ? 2 : 1)} of ${format.size(max_bytes)}, oldest record ${format.dur(oldest_s)}`;
}

function roomFor(status: Status, full_s: number, alone_s: number, troubled: boolean): string {
  if (status.storage.state === 'closed' || status.storage.state === 'full') return 'Full';
  if (keepsLocal(status)) return 'No destination: only the local view reads along';
  if (Number.isFinite(full_s) && troubled) return `Room for ${format.dur(full_s)} more at this rate`;
  return Number.isFinite(alone_s) ? `Room for ${format.dur(alone_s)} with every destination down` : 'Nothing flows in';
}

function draw(g: CanvasRenderingContext2D, w: number, hgt: number, status: Status, context: PageContext): void {
  const { history, time } = context.app;
  const [from, to] = time.bounds();
  const columns = Math.max(2, Math.round(w / COLUMN_PX));
  const cap = Math.max(1, status.storage.max_bytes);
  const at = (i: number) => from + ((to - from) * i) / columns - (i === columns ? history.step_s * 500 : 0);
  const Y = (bytes: number) => Math.min(hgt - LEAST_PX, hgt - (bytes / cap) * hgt);
  const sample = (name: string) => Array.from({ length: columns + 1 }, (_, i) => history.at(name, at(i)));
  const live = (list: number[], name: string) => {
    // The newest column may not have begun yet: now is what was heard last.
    if (!Number.isFinite(list[columns])) list[columns] = time.live ? history.last(name) : NaN;
    return list;
  };
  const zero = Array<number>(columns + 1).fill(0);
  area(g, w, hgt, zero, live(sample('waiting_bytes'), 'waiting_bytes'), Y, token('--line-3'));
  let base = zero;
  for (const signal of [...SIGNALS].reverse()) {
    const name = `waiting.${signal.name}`;
    const layer = live(sample(name), name);
    if (!layer.some(Number.isFinite)) continue;
    const next = base.map((b, i) => b + (layer[i] ?? NaN));
    area(g, w, hgt, base, next, Y, token(`--${signal.name}`));
    label(g, w, hgt, `${signal.title.toLowerCase()}  ${format.bytes(layer.at(-1) ?? 0)}`, base.at(-1) ?? 0, next.at(-1) ?? 0, Y);
    base = next.map((n, i) => (Number.isFinite(n) ? n : (base[i] ?? 0)));
  }
  marks(g, w, hgt, status, (status.storage.bytes || 0) / cap);
}

function area(g: CanvasRenderingContext2D, w: number, hgt: number, base: number[], top: number[], Y: (n: number) => number, color: string): void {
  const X = (i: number) => (i / (top.length - 1)) * w;
  for (let i = 0; i < top.length; ) {
    if (!Number.isFinite(top[i])) {
      i++;
      continue;
    }
    let end = i;
    while (end + 1 < top.length && Number.isFinite(top[end + 1])) end++;
    g.beginPath();
    for (let k = i; k <= end; k++) g.lineTo(X(k), Y(top[k] ?? 0));
    g.strokeStyle = alpha(color, 0.9);
    g.lineWidth = 1.2;
    g.stroke();
    for (let k = end; k >= i; k--) g.lineTo(X(k), base[k] ? Y(base[k] ?? 0) : hgt + 2);
    g.closePath();
    g.fillStyle = alpha(color, Number(token('--water-a')));
    g.fill();
    i = end + 1;
  }
}

const LABEL_PX = 26;

function label(g: CanvasRenderingContext2D, w: number, hgt: number, words: string, low: number, high: number, Y: (n: number) => number): void {
  if (!(Y(low) - Y(high) > LABEL_PX)) return;
  g.fillStyle = token('--t1');
  g.font = font(12);
  g.textAlign = 'right';
  g.textBaseline = 'middle';
  g.fillText(words, w - 12, Math.min(Y((low + high) / 2) + 6, (low ? Y(low) : hgt) - 10));
}

function marks(g: CanvasRenderingContext2D, w: number, hgt: number, status: Status, level: number): void {
  g.font = font();
  g.textAlign = 'right';
  g.textBaseline = 'bottom';
  status.storage.thresholds.forEach((share, i) => {
    const y = Math.round(hgt - share * hgt) + 0.5;
    const over = level > share;
    const hot = token(i > 0 ? '--risk' : '--wait');
    g.strokeStyle = over ? hot : token('--line-2');
    g.setLineDash([2, 4]);
    g.beginPath();
    g.moveTo(0, y);
    g.lineTo(w, y);
    g.stroke();
    g.setLineDash([]);
    g.fillStyle = over ? hot : token('--t3');
    g.fillText(`${format.percent(share, 0)} ${THRESHOLD_WORDS[i] ?? ''}`.trim(), w - 12, y - 2);
  });
}
