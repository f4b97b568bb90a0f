// Traces: what is slow or failed, and in which span does the time go?
import type { Page, PageContext } from '../app';
import { ApiError, ask, type Query } from '../api/client';
import { attended } from '../attention';
import type { ConfigAnswer, TraceAnswer, TraceRow, TracesAnswer } from '../api/types';
import { fill, h } from '../dom/element';
import * as format from '../dom/format';
import { debounce, field, segments } from '../dom/parts';
import { dimmed, skeleton, trouble, viewOff } from '../waiting';
import { scatter } from './scatter';
import { TraceList } from './list';
import { waterfall } from './waterfall';

const TRACES_MAX = 200;
const SLOW_MS = 400;
const TYPING_MS = 200;
const SCROLLED_PX = 40;
const AGAIN_MS = 2_000; // the list is asked for at most this often while traces arrive,
const AGAIN_EACH = 5; // and one time in five of that when nobody has touched the page for a while

type Show = 'all' | 'error' | 'slow';
type Order = 'new' | 'slow';

export const traces: Page = {
  title: 'Traces',
  icon: 'traces',
  key: 't',
  fill: true,
  mount(context) {
    const begin = (enabled: boolean) => {
      if (enabled) return void new TracesPage(context);
      context.summary('the local view is off');
      ask<ConfigAnswer>('config', {}, context.scope.signal).then(
        (config) => fill(context.main, viewOff(config.files[0])),
        () => fill(context.main, viewOff(undefined)),
      );
    };
    const status = context.app.status();
    if (status) return begin(status.view.enabled);
    context.main.append(skeleton([45, 116, 400]));
    const stop = context.app.stream.status.on((first) => {
      stop();
      context.main.replaceChildren();
      begin(first.view.enabled);
    });
    context.scope.add(stop);
  },
};

class TracesPage {
  private q: string;
  private show: Show;
  private order: Order = 'new';
  private service: string;
  private selected: string;
  private span: string;
  private rows: TraceRow[] = [];
  private turn = 0;
  private stale = false;
  /** Spans of the trace that is shown. */
  private opened = Infinity;
  private readonly list: TraceList;
  private readonly detail = h('div.detail', { role: 'region', 'aria-label': 'Selected trace', tabindex: '0' });
  private readonly dots: { update(): void };
  private readonly services = h('select', { 'aria-label': 'Service', onchange: () => this.ask({ service: this.services.value }) });

  constructor(private readonly context: PageContext) {
    const { app, args, main, scope } = context;
    this.q = args.get('q') ?? '';
    this.service = args.get('service') ?? '';
    const show = args.get('show');
    this.show = show === 'error' || show === 'slow' ? show : 'all';
    this.selected = args.get('id') ?? '';
    this.span = args.get('span') ?? '';
    this.list = new TraceList((id) => this.select(id));
    const input = field('Name, service, trace id', this.q, () => typed(), 'trace-filter');
    const typed = debounce(TYPING_MS, () => this.ask({ q: input.input.value }));
    context.filter(input.input);
    const host = h('div.chart', { 'data-testid': 'chart' });
    const shows = segments<Show>('Show', [['all', 'All'], ['error', 'Failed'], ['slow', `Over ${SLOW_MS} ms`]], this.show, (v) => this.ask({ show: v }));
    const orders = segments<Order>('Order', [['new', 'Newest'], ['slow', 'Slowest']], 'new', (v) => {
      this.order = v;
      void this.load();
    });
    main.append(h('div.toolbar', null, h('div.grow', null, input.el), h('div.choose', null, this.services), shows.el, orders.el), h('div.hist.tall', null, host), h('div.two', null, this.list.el, this.detail));
    this.dots = scatter(host, context, () => this.rows, () => this.selected, (id) => this.select(id));
    scope.add(app.time.changed.on(() => void this.load()));
    scope.add(app.stream.traces.on(() => (this.stale = true)));
    scope.add(app.stream.changed.on((link) => link === 'live' && void this.load()));
    let turns = 0;
    scope.every(AGAIN_MS, () => {
      // Somebody who has scrolled down reads: rows must not move under the eyes.
      if (this.list.el.scrollTop > SCROLLED_PX) return;
      if (this.stale && app.time.live && (turns++ % AGAIN_EACH === 0 || attended())) void this.load();
    });
    this.drawServices([]);
    if (this.selected) void this.open();
    else fill(this.detail, h('p.dim.pad', null, 'Choose a trace.'));
    void this.load();
  }

  private ask(change: { q?: string; show?: Show; service?: string }): void {
    this.q = change.q ?? this.q;
    this.show = change.show ?? this.show;
    this.service = change.service ?? this.service;
    this.keep();
    void this.load();
  }

  private keep(): void {
    this.context.keep({ id: this.selected, span: this.span, q: this.q, service: this.service, show: this.show === 'all' ? '' : this.show });
  }

  private query(): Query {
    const filter = { q: this.q, service: this.service, status: this.show === 'error' ? 'error' : '' };
    return { ...filter, min_ms: this.show === 'slow' ? SLOW_MS : undefined, sort: this.order === 'slow' ? 'slowest' : '', limit: TRACES_MAX };
  }

  private async load(): Promise<void> {
    const turn = ++this.turn;
    this.stale = false;
    try {
      const answer = await dimmed(this.list.el, ask<TracesAnswer>('traces', this.query(), this.context.scope.signal));
      if (turn !== this.turn) return;
      this.rows = answer.traces;
      this.drawServices(answer.services);
      this.context.summary(answer.total ? `${answer.traces.length < TRACES_MAX ? '' : `${this.order === 'slow' ? 'slowest' : 'newest'} ${TRACES_MAX} shown, `}${format.int(answer.total)} held, covers ${format.hourMinute(answer.covers.from_ms)} to now` : 'nothing held yet');
      this.draw(answer.total === 0);
      if (!this.selected) this.selectFirst();
      const row = this.rows.find((t) => t.trace_id === this.selected);
      if (row && row.spans > this.opened) void this.open(); // more of it has arrived
    } catch (cause) {
      if (!this.context.scope.signal.aborted && turn === this.turn) this.list.say(trouble(cause, () => void this.load()));
    }
  }

  private selectFirst(): void {
    const first = this.rows.find((t) => t.errors > 0) ?? this.rows[0];
    if (first) this.select(first.trace_id, false);
  }

  private draw(nothingHeld = false): void {
    const sorted = [...this.rows].sort(this.order === 'new' ? (a, b) => b.start_ms - a.start_ms : (a, b) => b.duration_ms - a.duration_ms);
    this.list.show(sorted, this.selected, nothingHeld);
    this.dots.update();
  }

  private select(id: string, byReader = true): void {
    if (id !== this.selected) this.span = '';
    this.opened = Infinity; // until its spans are here
    this.selected = id;
    if (byReader) this.keep();
    this.list.mark(id);
    this.dots.update();
    void this.open();
  }

  private async open(): Promise<void> {
    const id = this.selected;
    try {
      const answer = await dimmed(this.detail, ask<TraceAnswer>(`traces/${encodeURIComponent(id)}`, {}, this.context.scope.signal));
      if (id !== this.selected) return;
      this.opened = answer.spans.length;
      fill(
        this.detail,
        waterfall(answer, this.span, (span) => {
          this.span = span;
          this.keep();
        }),
      );
    } catch (cause) {
      if (this.context.scope.signal.aborted || id !== this.selected) return;
      fill(this.detail, cause instanceof ApiError && cause.trouble === 'missing' ? notHeld(id) : trouble(cause, () => void this.open()));
    }
  }

  private drawServices(names: string[]): void {
    const all = [...new Set([...names, ...(this.service ? [this.service] : [])])].sort();
    const key = all.join('\n');
    if (this.services.dataset['key'] === key && this.services.options.length) return;
    this.services.dataset['key'] = key;
    fill(this.services, h('option', { value: '' }, 'Every service'), all.map((name) => h('option', { value: name, selected: name === this.service }, name)));
  }
}

function notHeld(id: string): HTMLElement {
  return h(
    'div.empty',
    null,
    h('p', null, h('b', null, 'This trace is not held here. '), 'The local view keeps the newest traces only; it may have been let go, or its spans have not arrived.'),
    h('p', null, h('code', null, id)),
    h('p', null, h('a.linklike', { href: `#/logs?trace_id=${encodeURIComponent(id)}` }, 'Logs of this trace')),
  );
}
