// One name in full: split by a label, narrowed by others, and the numbers as a table.
import type { PageContext } from '../app';
import type { SeriesName } from '../api/types';
import { last, type Line } from '../chart/lines';
import { fill, h } from '../dom/element';
import * as format from '../dom/format';
import { button, copy } from '../dom/parts';
import { MetricChart, type View } from './chart';
import { planOf } from './curated';
import { growing, selector, splitting } from './meaning';

const ROWS_MAX = 60;
const FILTERS_MAX = 6;

export function detail(context: PageContext, row: SeriesName, rows: ReadonlyMap<string, SeriesName>, back: () => void): { el: HTMLElement; chart: MetricChart } {
  const view: View = { by: '', where: {} };
  const body = h('tbody');
  const note = h('p.dim');
  const drawn = (lines: Line[], answer: { cut: number }, show: (n: number) => string) => {
    fill(body, lines.slice(0, ROWS_MAX).map((line) => values(line, show)));
    const hidden = Math.max(0, lines.length - ROWS_MAX) + answer.cut;
    fill(note, hidden > 0 ? `${format.int(hidden)} more are not listed; split by another label or narrow it.` : null);
  };
  const plan = { ...planOf(row), note: '' };
  const chart = new MetricChart(context, plan, rows, view, undefined, drawn);
  chart.el.classList.add('wide');
  const change = (next: Partial<View>) => {
    Object.assign(view, next);
    chart.change({ ...view });
  };
  const labels = splitting(row);
  const choose = (label: string, options: [string, string][], pick: (value: string) => void) =>
    h('label.pickone', null, h('span.dim', null, label), h('select', { 'aria-label': label, onchange: (e: Event) => pick((e.target as HTMLSelectElement).value) }, options.map(([value, title]) => h('option', { value }, title))));
  const bucket = /_bucket$/.test(row.name);
  const split = choose('Split by', [['', bucket ? 'p50, p99' : 'what fits'], ...labels.filter((l) => !bucket || l !== 'le').map((l): [string, string] => [l, `${l} (${row.labels[l]?.length ?? 0})`]), ['*', 'nothing: each series']], (by) => change({ by }));
  const filters = labels.slice(0, FILTERS_MAX).map((label) =>
    choose(label, [['', 'every'], ...(row.labels[label] ?? []).map((v): [string, string] => [v, v || '(empty)'])], (value) => {
      const where = { ...view.where };
      if (value) where[label] = value;
      else delete where[label];
      change({ where });
    }),
  );
  const kind = `${row.type || 'no type'}${growing(row.type, row.name) ? ', shown as rate a second' : ''}, ${format.int(row.series)} series`;
  const fixed = Object.entries(row.labels).filter(([, v]) => v.length === 1).map(([label, v]) => h('span.chip', null, h('span.dim', null, label), v[0]));
  const el = h(
    'div.metric',
    { 'data-testid': 'metric-detail' },
    h('div.row', null, button('All names', back), button('Copy the query', () => copy(selector(row.name, view.where)))),
    h('p.t2', null, row.help || 'Nobody has described this series.', ' ', h('span.dim', null, kind)),
    fixed.length ? h('div.chips.gap', null, fixed) : null,
    h('div.row.gap', null, labels.length || bucket ? split : null, filters),
    chart.el,
    h('div.tw', { tabindex: '0', role: 'region', 'aria-label': 'The same in numbers' }, h('table', null, h('thead', null, h('tr', null, h('th', null, 'Series'), ['Now', 'Least', 'Most'].map((t) => h('th.r', null, t)))), body)),
    note,
  );
  return { el, chart };
}

function values(line: Line, show: (n: number) => string): HTMLElement {
  let [least, most] = [NaN, NaN];
  for (const [, v] of line.points) {
    if (v === null) continue;
    if (!(v >= least)) least = v;
    if (!(v <= most)) most = v;
  }
  return h('tr', null, h('td.clip.mono', { title: line.name }, h('span.sw', { style: { '--sig': `var(${line.color})` } }), line.name), [last(line), least, most].map((v) => h('td.r', null, show(v))));
}
