// The flame graph in words: the functions that use most, or who calls one of them and what it calls.
import { h, type Child } from '../dom/element';
import * as format from '../dom/format';
import { KINDS, TRUNCATED, around, functions, matching, nameAt, type Fn, type Tree } from './tree';

const ROWS_MAX = 60;
const SIDE_MAX = 12;
const BAR_PX = 90;

const swatch = (kind: number) => h('span.fsw', { class: `k${kind}`, role: 'img', 'aria-label': KINDS[kind] ?? '' });

export function topTable(tree: Tree, all: readonly Fn[], q: string, period_ns: number, choose: (key: number) => void): Child {
  const flags = matching(tree, q);
  const found = all.filter((fn) => !flags || flags[Math.floor(fn.key / KINDS.length)] === 1);
  const rows = found.slice(0, ROWS_MAX);
  const whole = tree.total[0] || 1;
  const most = rows[0]?.self || 1;
  if (!rows.length) return h('p.dim.pad', null, q ? 'No function has this in its name.' : 'No stack in this stretch of time.');
  const row = (fn: Fn) =>
    h(
      'tr',
      { 'data-testid': 'function-row' },
      h('td.clip.mono', { title: fn.file ? `${fn.name}\n${fn.file}` : fn.name }, h('button.open', { type: 'button', onclick: () => choose(fn.key) }, h('bdi', null, fn.name))),
      h('td.dim', null, swatch(fn.kind), h('span.hide-s', { 'aria-hidden': 'true' }, KINDS[fn.kind])),
      h('td.r', null, format.percent(fn.self / whole, 2)),
      h('td.hide-s', { 'aria-hidden': 'true' }, h('span.bar', { class: `k${fn.kind}`, style: { width: `${Math.max(1, (fn.self / most) * BAR_PX)}px` } })),
      h('td.r', null, format.percent(fn.total / whole, 2)),
      h('td.r.hide-s', null, format.dur((fn.self * period_ns) / 1e9)),
    );
  return [
    h('table', { 'aria-label': 'Functions by the CPU they use themselves' }, h('thead', null, h('tr', null, h('th', null, 'Function'), h('th', null, 'Origin'), h('th.r', { 'aria-sort': 'descending' }, 'Self'), h('th.hide-s', null, h('span.vh', null, 'Self as a bar')), h('th.r', null, 'Total'), h('th.r.hide-s', null, 'CPU time'))), h('tbody', null, rows.map(row))),
    found.length > ROWS_MAX ? h('p.dim.pad', null, `${format.int(found.length - ROWS_MAX)} more; the search narrows.`) : null,
  ];
}

/** Callers and callees one step away, with their share of what this function used. */
export function sandwich(tree: Tree, fn: Fn, choose: (key: number) => void): Child {
  const whole = tree.total[0] || 1;
  const side = (title: string, direction: 'callers' | 'callees', own: string): HTMLElement => {
    const near = around(tree, fn.key, direction);
    const middle = near.kids[near.first[0] ?? 0] ?? 0;
    const base = near.total[middle] || 1;
    const kids = [...near.kids.subarray(near.first[middle], near.first[middle + 1])];
    const rows: [Child, number, number][] = kids.map((kid) => {
      const key = (near.name[kid] ?? 0) * KINDS.length + (near.kind[kid] ?? 0);
      return [h('button.open', { type: 'button', onclick: () => choose(key) }, h('bdi', null, nameAt(near, kid))), near.kind[kid] ?? 0, near.total[kid] ?? 0];
    });
    if (near.self[middle]) rows.push([h('span.dim', null, own), fn.kind, near.self[middle] ?? 0]);
    rows.sort((a, b) => b[2] - a[2]);
    return h(
      'div.c6',
      null,
      h('table', { 'aria-label': title }, h('thead', null, h('tr', null, h('th', null, title), h('th.r', null, 'Share'), h('th.r', null, 'Samples'))), h('tbody', null, rows.slice(0, SIDE_MAX).map(([name, kind, n]) => h('tr', null, h('td.clip.mono', null, swatch(kind), name), h('td.r', null, format.percent(n / base)), h('td.r', null, format.int(n)))))),
      rows.length > SIDE_MAX ? h('p.dim', null, `${rows.length - SIDE_MAX} more in the graph`) : null,
    );
  };
  return [
    h('div.head', null, h('h2.mono', null, h('bdi', null, fn.name)), h('span.note', null, `self ${format.percent(fn.self / whole, 2)}, total ${format.percent(fn.total / whole, 2)}, ${KINDS[fn.kind] ?? ''}${fn.file ? `, ${fn.file}` : ''}`)),
    h('div.cols', { 'data-testid': 'sandwich' }, side('Called by', 'callers', fn.kind === TRUNCATED ? '(the stack is cut here)' : '(nothing above: the stack begins here)'), side('Calls', 'callees', '(itself)')),
  ];
}

export const ranked = functions;

/** The origins that occur, each with its colour, pattern and word. */
export function legend(): HTMLElement {
  return h('div.legend', null, KINDS.map((word, kind) => h('span', null, h('span.fsw', { class: `k${kind}`, 'aria-hidden': 'true' }), word)));
}
