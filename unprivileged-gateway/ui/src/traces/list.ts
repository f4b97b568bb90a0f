// The list of traces: arrows walk, a click or Enter opens. The bar is the square root of the duration, so that short ones stay visible.
import type { TraceRow } from '../api/types';
import { fill, h, type Child } from '../dom/element';
import * as format from '../dom/format';
import { stateMark } from '../dom/parts';

const SHOWN = 200;

export class TraceList {
  readonly el = h('div.traces', { role: 'listbox', 'aria-label': 'Traces', tabindex: '0' });
  private ids: string[] = [];
  /** Rows that are shown, so that a list that grows by one is not built anew. */
  private rows = new Map<string, HTMLElement>();

  constructor(private readonly select: (id: string) => void) {
    this.el.addEventListener('keydown', (e) => this.key(e));
    this.el.addEventListener('click', (e) => {
      const row = e.target instanceof Element ? e.target.closest<HTMLElement>('.tl') : null;
      if (row?.dataset['id']) this.select(row.dataset['id']);
    });
  }

  show(rows: TraceRow[], selected: string, nothingHeld: boolean): void {
    const top = this.el.scrollTop;
    const shown = rows.slice(0, SHOWN);
    const longest = Math.max(0.001, ...shown.map((t) => t.duration_ms));
    this.ids = shown.map((t) => t.trace_id);
    this.el.setAttribute('role', 'listbox');
    const next = new Map<string, HTMLElement>();
    for (const t of shown) {
      const key = `${t.trace_id} ${t.spans} ${t.errors} ${t.duration_ms} ${t.name}`;
      const el = this.rows.get(key) ?? row(t);
      el.querySelector<HTMLElement>('.d i')?.style.setProperty('width', `${Math.max(0.5, Math.sqrt(t.duration_ms / longest) * 100)}%`);
      next.set(key, el);
    }
    this.rows = next;
    this.el.replaceChildren(...next.values());
    if (!shown.length) this.say(nothingHeld ? empty() : h('p.dim.pad', null, 'No trace matches. Clear the filter, or choose All.'));
    this.mark(selected);
    this.el.scrollTop = top;
  }

  say(what: Child): void {
    this.ids = [];
    this.rows.clear();
    this.el.setAttribute('role', 'group'); // a listbox must hold options
    this.el.removeAttribute('aria-activedescendant');
    fill(this.el, what);
  }

  mark(selected: string): void {
    for (const el of this.el.querySelectorAll<HTMLElement>('.tl')) {
      const on = el.dataset['id'] === selected;
      el.setAttribute('aria-selected', String(on));
      if (on) this.el.setAttribute('aria-activedescendant', el.id);
    }
  }

  private key(event: KeyboardEvent): void {
    const by = event.key === 'ArrowDown' || event.key === 'j' ? 1 : event.key === 'ArrowUp' || event.key === 'k' ? -1 : 0;
    if (!by || !this.ids.length) return;
    event.preventDefault();
    const now = this.el.querySelector<HTMLElement>('[aria-selected=true]')?.dataset['id'] ?? '';
    const next = this.ids[Math.max(0, Math.min(this.ids.length - 1, this.ids.indexOf(now) + by))];
    if (!next) return;
    this.select(next);
    this.el.querySelector('[aria-selected=true]')?.scrollIntoView({ block: 'nearest' });
  }
}

function row(t: TraceRow): HTMLElement {
  const failed = t.errors > 0;
  return h(
    'div.tl',
    { class: failed ? 'err' : '', role: 'option', id: `trace-${t.trace_id}`, 'aria-selected': 'false', 'data-id': t.trace_id, 'data-testid': 'trace-row' },
    h('span.mono.dim.ts', null, format.time(t.start_ms)),
    stateMark(failed ? 'risk' : 'ok'),
    h('span', null, failed ? h('span.vh', null, 'failed ') : null, t.name, ' ', h('span.dim', null, t.service)),
    h('span.d', null, h('i')),
    h('span.r', null, format.dur(t.duration_ms / 1000)),
    h('span.dim.sp.r', null, t.spans, h('span.vh', null, ' spans')),
  );
}

const empty = () => h('div.empty', null, h('p', null, 'No span has arrived yet. Traces appear here by themselves.'), h('p.dim', null, h('a.linklike', { href: '#/overview' }, 'The lines to paste'), ' are on Overview.'));
