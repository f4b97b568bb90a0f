// One trace: a row a span on a common time axis, and the details of the span that is chosen.
import type { Span, TraceAnswer } from '../api/types';
import { fill, h, type Child } from '../dom/element';
import * as format from '../dom/format';
import { button, copy, keyValues } from '../dom/parts';
import { plant, type Placed } from './tree';

const ROWS_MAX = 500;
const INDENT_PX = 13;
const DEPTH_SHOWN = 12;
const HUES = 8;

interface Axis {
  start_ns: string;
  length_s: number;
}

export function waterfall(answer: TraceAnswer, wanted: string, chosen: (span: string) => void): HTMLElement {
  const placed = plant(answer.spans);
  const axis = axisOf(answer.spans);
  const hue = hues(placed);
  const failed = answer.spans.filter((s) => s.status === 'error').length;
  const services = new Set(answer.spans.map((s) => s.service));
  const root = placed[0]?.span;
  const shown = placed.slice(0, ROWS_MAX);
  const details = h('div.spand', { 'data-testid': 'span-details' });
  let current = placed.find((p) => p.span.span_id === wanted) ?? placed.findLast((p) => p.span.status === 'error') ?? placed[0];
  const rows = shown.map((p) => spanRow(p, axis, hue(p.span.service)));
  const choose = (p: Placed, byReader: boolean) => {
    current = p;
    shown.forEach((other, i) => rows[i]?.setAttribute('aria-pressed', String(other === current)));
    fill(details, spanDetails(p, axis, answer));
    if (byReader) chosen(p.span.span_id);
  };
  rows.forEach((row, i) => row.addEventListener('click', () => choose(shown[i] as Placed, true)));
  const body = h('div', { 'data-testid': 'waterfall', role: 'group', 'aria-label': 'Spans' }, header(axis), rows);
  body.addEventListener('keydown', (e) => walk(e, rows));
  if (current) choose(current, false);
  return h(
    'div.pad',
    null,
    h('div.head', null, h('h2', null, root?.name ?? 'No span'), h('span.note', null, `${format.dur(axis.length_s)}, ${count(answer.spans.length, 'span')}, ${count(services.size, 'service')}`), failed ? h('span.risk', null, `${failed} failed`) : null),
    h('div.row.id', null, h('code.dim', null, answer.trace_id), button('Copy', () => copy(answer.trace_id), 'ghost'), h('a.btn', { href: `#/logs?trace_id=${encodeURIComponent(answer.trace_id)}` }, answer.logs ? `Logs of this trace, ${format.int(answer.logs)}` : 'Logs of this trace')),
    body,
    placed.length > ROWS_MAX ? h('p.dim', null, `The first ${ROWS_MAX} of ${format.int(placed.length)} spans.`) : null,
    details,
  );
}

const count = (n: number, what: string) => `${format.int(n)} ${what}${n === 1 ? '' : 's'}`;

function axisOf(spans: readonly Span[]): Axis {
  let start = '';
  let end = '';
  const earlier = (a: string, b: string) => format.nanosBetween(a, b) > 0;
  for (const s of spans) {
    if (/^\d{1,20}$/.test(s.start_ns) && (!start || earlier(s.start_ns, start))) start = s.start_ns;
    if (/^\d{1,20}$/.test(s.end_ns) && (!end || earlier(end, s.end_ns))) end = s.end_ns;
  }
  return { start_ns: start || '0', length_s: Math.max(1e-9, format.nanosBetween(start || '0', end || '0')) };
}

/** A hue for each service, in the order in which they appear. */
function hues(placed: readonly Placed[]): (service: string) => string {
  const order = [...new Set(placed.map((p) => p.span.service))];
  return (service) => `var(--c${(order.indexOf(service) % HUES) + 1})`;
}

function header(axis: Axis): HTMLElement {
  const label = (share: number) => h('span', null, share ? format.dur(axis.length_s * share) : '0');
  return h('div.wf.wfh', null, h('span.nm', null, 'Span'), h('span.ax', null, [0, 0.25, 0.5, 0.75, 1].map(label)));
}

function spanRow(p: Placed, axis: Axis, color: string): HTMLElement {
  const { span } = p;
  const failed = span.status === 'error';
  const length_s = format.nanosBetween(span.start_ns, span.end_ns);
  const left = share(format.nanosBetween(axis.start_ns, span.start_ns), axis);
  const wide = Math.min(100 - left, share(length_s, axis));
  const words = `${format.dur(length_s)}${failed && span.status_message ? `  ${span.status_message}` : ''}`;
  return h(
    'button.wf',
    { type: 'button', class: failed ? 'err' : '', 'aria-pressed': 'false', style: { '--cat': color }, 'data-span': span.span_id },
    h('span.nm', { style: { 'padding-left': `${Math.min(p.depth, DEPTH_SHOWN) * INDENT_PX}px` } }, h('span.sw.cat'), h('span', null, failed ? h('span.vh', null, 'failed ') : null, span.name, ' ', h('span.dim', null, span.service))),
    h('span.ax', null, h('i', { style: { left: `${left}%`, width: `${wide}%` } }), barLabel(words, left, wide, failed)),
  );
}

const share = (seconds: number, axis: Axis) => Math.max(0, Math.min(100, (seconds / axis.length_s) * 100 || 0));

/** Right of the bar, else left of it, else inside: wherever there is room. */
function barLabel(words: string, left: number, wide: number, failed: boolean): HTMLElement {
  const need = Math.min(60, 8 + words.length * 1.6);
  const end = left + wide;
  if (100 - end > need) return h('b', { class: failed ? 'risk' : '', style: { left: `${end}%`, 'max-width': `${100 - end}%` } }, words);
  if (left > need) return h('b', { class: failed ? 'risk' : '', style: { right: `${100 - left}%`, 'max-width': `${left}%` } }, words);
  return h('b.in', { style: { right: `${100 - end}%`, 'max-width': `${wide}%` } }, words);
}

function spanDetails(p: Placed, axis: Axis, answer: TraceAnswer): Child {
  const { span } = p;
  const inside = answer.spans.filter((s) => s.parent_id === span.span_id).reduce((sum, s) => sum + format.nanosBetween(s.start_ns, s.end_ns), 0);
  const length_s = format.nanosBetween(span.start_ns, span.end_ns);
  const failed = span.status === 'error';
  const facts: [string, Child, string?][] = [
    ['start', `+${format.dur(format.nanosBetween(axis.start_ns, span.start_ns))}`],
    ['duration', format.dur(length_s)],
    ['outside its children', format.dur(Math.max(0, length_s - inside))],
    ['status', failed ? 'error' : span.status, failed ? 'risk' : ''],
    ['kind', span.kind],
    ['scope', span.scope || 'none'],
    ['span id', h('code', null, span.span_id)],
    ['parent', span.parent_id ? [h('code', null, span.parent_id), p.orphan ? ' (not received)' : ''] : 'none, root'],
  ];
  return [
    h('div.head', null, h('h2', null, span.name), h('span.note', null, span.service), failed && span.status_message ? h('span.risk', null, span.status_message) : null, h('a.btn.push', { href: `#/logs?q=${encodeURIComponent(span.span_id)}` }, 'Logs of this span')),
    h('div.cols', null, h('div.c6', null, keyValues(facts)), h('div.c6', null, attributes('Attributes', span.attributes), attributes('Resource', span.resource))),
    span.events.length ? [h('h3.fh', null, `Events, ${span.events.length}`), span.events.slice(0, 50).map((e) => event(e, axis))] : null,
  ];
}

function event(e: Span['events'][number], axis: Axis): HTMLElement {
  return h('div.ev', null, h('time', null, `+${format.dur(format.nanosBetween(axis.start_ns, e.ts_ns))}`), h('div', null, h('b', null, e.name), keyValues(Object.entries(e.attributes).map(([k, v]) => [k, show(v)] as const))));
}

function attributes(title: string, values: Record<string, unknown>): Child {
  const entries = Object.entries(values);
  return entries.length ? [h('h3.fh', null, title), keyValues(entries.map(([k, v]) => [k, show(v)] as const))] : null;
}

const show = (value: unknown) => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));

function walk(event: KeyboardEvent, rows: readonly HTMLElement[]): void {
  const by = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  const at = rows.findIndex((row) => row === document.activeElement);
  if (!by || at < 0) return;
  event.preventDefault();
  rows[Math.max(0, Math.min(rows.length - 1, at + by))]?.focus();
}
