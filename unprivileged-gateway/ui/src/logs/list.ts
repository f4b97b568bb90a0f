// The lines, newest last, at most ROWS_MAX of them in the document. Rows are walked with the arrows and opened with Enter or a click.
import type { LogLine } from '../api/types';
import { fill, h, type Child } from '../dom/element';
import * as format from '../dom/format';
import { button, copy, keyValues } from '../dom/parts';
import type { Scope } from '../scope';
import { narrow } from '../theme';
import { levelClass } from './facets';

const ROWS_MAX = 400;
const NEAR_END_PX = 30;

interface Actions {
  scope: Scope;
  pause(): void;
  follow(): void;
  older(before: string): void;
  only(service: string): void;
  clear(): void;
}

export class LogList {
  readonly el = h('div.loglist', { tabindex: '0', role: 'group', 'aria-label': 'Log lines, newest last' });
  private readonly lines = new WeakMap<Element, LogLine>();
  private readonly more = h('button.linklike.older', { type: 'button', onclick: () => this.askOlder() }, 'Older lines');
  /** Where the list was put by us: the scroll event that follows is not the reader's. */
  private placed = -1;

  constructor(private readonly actions: Actions) {
    actions.scope.listen(this.el, 'scroll', () => this.scrolled());
    this.el.addEventListener('keydown', (e) => this.key(e));
    this.el.addEventListener('click', (e) => this.click(e));
  }

  show(lines: LogLine[], q: string, nothingHeld: boolean): void {
    const open = this.el.querySelector<HTMLElement>('.lg[aria-expanded=true]')?.dataset['id'];
    if (!lines.length) return this.say(nothingHeld ? empty() : noMatch(this.actions.clear));
    fill(this.el, this.more, ordered(lines).map((line) => this.row(line, q)));
    const again = open && this.el.querySelector<HTMLElement>(`.lg[data-id="${CSS.escape(open)}"]`);
    if (again) this.toggle(again);
    this.toEnd();
  }

  /** Something other than lines. */
  say(what: Child): void {
    fill(this.el, what);
  }

  append(lines: LogLine[], q: string, skipped: number): void {
    if (!this.el.querySelector('.lg')) fill(this.el, this.more);
    // What a reload has already brought is not shown twice.
    const newest = this.ids().reduce((a, b) => (a > b ? a : b), '');
    const fresh = ordered(lines).filter((line) => line.id > newest);
    if (!fresh.length) return;
    if (skipped > 0) this.el.append(h('div.skipped', null, `${format.int(skipped)} lines came faster than they can be shown; a filter narrows, Older lines has them`));
    this.el.append(...fresh.map((line) => this.row(line, q)));
    this.trim('first');
    this.toEnd();
  }

  prepend(lines: LogLine[], q: string): void {
    if (!lines.length) {
      this.more.remove();
      return;
    }
    const height = this.el.scrollHeight;
    this.more.after(...ordered(lines).map((line) => this.row(line, q)));
    this.place(this.el.scrollTop + this.el.scrollHeight - height);
    this.trim('last');
  }

  private askOlder(): void {
    const [first = '', ...rest] = this.ids();
    this.actions.pause();
    if (first) this.actions.older(rest.reduce((a, b) => (a < b ? a : b), first));
  }

  /** Text order of ids is order of arrival; that is what `before` goes by, and what has been shown is known by. */
  private ids(): string[] {
    return [...this.el.querySelectorAll<HTMLElement>('.lg')].map((row) => row.dataset['id'] ?? '');
  }

  private trim(end: 'first' | 'last'): void {
    while (this.el.childElementCount > ROWS_MAX) {
      const victim = end === 'last' ? this.el.lastElementChild : this.more.isConnected ? this.more.nextElementSibling : this.el.firstElementChild;
      victim?.remove();
    }
  }

  private toEnd(): void {
    this.place(this.el.scrollHeight);
  }

  private place(top: number): void {
    this.el.scrollTop = top;
    this.placed = this.el.scrollTop;
  }

  private scrolled(): void {
    if (Math.abs(this.el.scrollTop - this.placed) <= 1) return;
    this.placed = -1;
    const end = this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight < NEAR_END_PX;
    if (!end) this.actions.pause();
  }

  private row(line: LogLine, q: string): HTMLElement {
    const ms = format.nanosToMs(line.ts_ns);
    const el = h(
      'div.lg',
      { class: levelClass(line.level), tabindex: '-1', role: 'button', 'aria-expanded': 'false', 'data-testid': 'log-line', 'data-id': line.id },
      h('i'),
      h('span.ts', null, Number.isFinite(ms) ? format.time(ms, !narrow()) : '–'),
      h('span.lv', null, line.level),
      h('span.ap', null, line.service),
      h('span.ms', null, marked(line.line, q)),
    );
    this.lines.set(el, line);
    return el;
  }

  private click(event: MouseEvent): void {
    const row = event.target instanceof Element ? event.target.closest<HTMLElement>('.lg') : null;
    if (row && !getSelection()?.toString()) this.toggle(row);
  }

  private toggle(row: HTMLElement): void {
    const next = row.nextElementSibling;
    if (next?.classList.contains('lgx')) {
      next.remove();
      row.setAttribute('aria-expanded', 'false');
      return;
    }
    const line = this.lines.get(row);
    if (!line) return;
    this.actions.pause();
    row.setAttribute('aria-expanded', 'true');
    const details = this.details(line);
    row.after(details);
    details.scrollIntoView({ block: 'nearest' });
  }

  private details(line: LogLine): HTMLElement {
    const ms = format.nanosToMs(line.ts_ns);
    const block = (title: string, values: Record<string, string>) => h('div', null, h('div.dim', null, title), Object.keys(values).length ? keyValues(Object.entries(values)) : h('div.dim', null, 'none'));
    const trace = line.trace_id ? h('a.btn', { href: `#/traces?id=${encodeURIComponent(line.trace_id)}${line.span_id ? `&span=${encodeURIComponent(line.span_id)}` : ''}` }, 'Open trace') : null;
    const when = Number.isFinite(ms) ? new Date(ms).toISOString().replace(/\.\d+Z$/, `.${line.ts_ns.slice(-9)}Z`) : line.ts_ns;
    const metadata = { ...(line.trace_id ? { trace_id: line.trace_id } : {}), ...(line.span_id ? { span_id: line.span_id } : {}), ...line.metadata };
    return h(
      'div.lgx',
      { 'data-testid': 'log-details' },
      block('Stream labels', line.labels),
      block('Structured metadata', { timestamp: when, ...metadata }),
      h('div.acts', null, trace, line.service ? button(`Only ${line.service}`, () => this.actions.only(line.service)) : null, button('Copy line', () => copy(line.line))),
    );
  }

  private key(event: KeyboardEvent): void {
    const rows = [...this.el.querySelectorAll<HTMLElement>('.lg')];
    const at = rows.findIndex((row) => row === document.activeElement);
    const by = event.key === 'ArrowDown' || event.key === 'j' ? 1 : event.key === 'ArrowUp' || event.key === 'k' ? -1 : 0;
    if (by) {
      event.preventDefault();
      this.actions.pause();
      rows[at < 0 ? rows.length - 1 : Math.max(0, Math.min(rows.length - 1, at + by))]?.focus();
    } else if ((event.key === 'Enter' || event.key === ' ') && at >= 0 && event.target === rows[at]) {
      event.preventDefault();
      const row = rows[at];
      if (row) this.toggle(row);
    }
  }
}

/** Lines that came together, by their own clock, then by arrival. Timestamps are decimal text: shorter is earlier. */
export function ordered(lines: LogLine[]): LogLine[] {
  const by = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return [...lines].sort((a, b) => a.ts_ns.length - b.ts_ns.length || by(a.ts_ns, b.ts_ns) || by(a.id, b.id));
}

function marked(line: string, q: string): Child {
  const at = q ? line.toLowerCase().indexOf(q.toLowerCase()) : -1;
  return at < 0 ? line : [line.slice(0, at), h('mark', null, line.slice(at, at + q.length)), line.slice(at + q.length)];
}

const empty = () => h('div.empty', null, h('p', null, 'No line has arrived yet. It appears here by itself.'), h('p.dim', null, h('a.linklike', { href: '#/overview' }, 'The lines to paste'), ' are on Overview.'));

const noMatch = (clear: () => void) => h('div.empty', null, h('p', null, 'No line in this window matches. ', h('button.linklike', { type: 'button', onclick: clear }, 'Clear every filter')));
