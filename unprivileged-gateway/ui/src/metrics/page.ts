// Metrics: what did this number do, and what did its neighbours do at the same moment?
import type { Page, PageContext } from '../app';
import { ask } from '../api/client';
import { attended } from '../attention';
import type { SeriesAnswer, SeriesName } from '../api/types';
import { fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { button, debounce, field, head, link } from '../dom/parts';
import { Scope } from '../scope';
import { narrow } from '../theme';
import { withView } from '../view';
import { dimmed, trouble } from '../waiting';
import { MetricChart } from './chart';
import { curated, planOf, type Plan } from './curated';
import { detail } from './detail';
import { growing } from './meaning';

const NAMES_MAX = 500;
const CHARTS_STEP = 24;
const TYPING_MS = 200;
const NAMES_AGAIN_MS = 15_000;
const LOOK_MS = 1_000;
/** Charts ask again this often while the window moves; a screenful of small ones must not keep a core busy. */
const CHART_AGAIN_MS = 5_000;
const CHART_AGAIN_ALONE_MS = 15_000;

export const metrics: Page = {
  title: 'Metrics',
  icon: 'metrics',
  key: 'm',
  fill: true,
  mount(context) {
    withView(context, [45, 180, 400], () => void new MetricsPage(context));
  },
};

class MetricsPage {
  private q: string;
  private name: string;
  private rows = new Map<string, SeriesName>();
  private charts: MetricChart[] = [];
  private inner = new Scope();
  private count = CHARTS_STEP;
  private turn = 0;
  private drawnKey = '';
  private readonly list = h('div.pins', { role: 'group', 'aria-label': 'Series names' });
  private readonly pane = h('div.pane.scroll.pad', { tabindex: '0', role: 'region', 'aria-label': 'Charts' });
  private readonly found = h('p.dim.none', { role: 'status' });
  private readonly seer: IntersectionObserver;

  constructor(private readonly context: PageContext) {
    const { app, args, main, scope } = context;
    this.q = args.get('q') ?? '';
    this.name = args.get('name') ?? '';
    const input = field('Series name or help', this.q, () => typed(), 'metric-filter');
    const typed = debounce(TYPING_MS, () => this.search(input.input.value));
    context.filter(input.input);
    const side = h('aside.side', { id: 'names', class: narrow() ? 'shut' : '', 'aria-label': 'Names' }, this.list);
    const open = h('button.btn.sideb', { type: 'button', 'aria-expanded': 'false', 'aria-controls': 'names', onclick: () => open.setAttribute('aria-expanded', String(!side.classList.toggle('shut'))) }, 'Names');
    main.append(h('div.split.wideside', null, h('div.finder', null, input.el, open), side, this.pane));
    this.seer = new IntersectionObserver((entries) => this.look(entries));
    scope.add(() => this.seer.disconnect());
    scope.add(() => this.inner.end());
    scope.add(app.time.changed.on(() => this.reload()));
    scope.add(app.stream.changed.on((state) => state === 'live' && void this.load()));
    void this.load();
    scope.every(NAMES_AGAIN_MS, () => this.drawnKey && app.time.live && void this.load());
    scope.every(LOOK_MS, () => this.beat());
  }

  private search(q: string): void {
    this.q = q.trim();
    this.name = '';
    this.count = CHARTS_STEP;
    this.keep();
    void this.load();
  }

  private keep(): void {
    this.context.keep({ q: this.q, name: this.name });
  }

  private async load(): Promise<void> {
    const turn = ++this.turn;
    try {
      const answer = await dimmed(this.list, ask<SeriesAnswer>('series', { q: this.q, limit: NAMES_MAX }, this.context.scope.signal));
      if (turn !== this.turn) return;
      this.rows = new Map(answer.names.map((row) => [row.name, row]));
      const evicted = answer.covers.evicted ? `, ${format.int(answer.covers.evicted)} older let go` : '';
      const series = answer.names.reduce((sum, row) => sum + row.series, 0);
      this.context.summary(answer.names.length ? `${format.int(answer.total)} names, ${format.int(series)} series, covers ${format.hourMinute(answer.covers.from_ms)} to now${evicted}` : this.q ? 'no name matches' : 'nothing held yet');
      text(this.found, answer.total > answer.names.length ? `${format.int(answer.total - answer.names.length)} more; type a part of the name` : '');
      this.drawList();
      const key = JSON.stringify([this.q, this.name, this.count, answer.names.map((row) => row.name)]);
      if (key !== this.drawnKey) this.drawCharts(key);
    } catch (cause) {
      if (this.context.scope.signal.aborted || turn !== this.turn) return;
      this.drawnKey = '';
      fill(this.pane, trouble(cause, () => void this.load()));
    }
  }

  private drawList(): void {
    const focused = document.activeElement instanceof HTMLElement && this.list.contains(document.activeElement) ? document.activeElement.dataset['key'] : undefined;
    const row = (key: string, title: string, note: string, mono: boolean) =>
      h('button.pick', { type: 'button', 'aria-pressed': String(this.name === key), 'data-key': key, title, onclick: () => this.choose(key) }, h('span.a', { class: mono ? 'mono' : '' }, h('span', null, title)), h('span.c', null, note));
    const rows = [...this.rows.values()].map((r) => row(r.name, r.name, `${r.type || 'no type'}${growing(r.type, r.name) ? ', shown as rate' : ''}, ${format.int(r.series)} series`, true));
    fill(this.list, row('', this.q ? 'All that match' : 'At a glance', this.q ? `${this.rows.size} names` : 'host, gateway, then everything', false), rows, this.found);
    if (focused !== undefined) this.list.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private choose(name: string): void {
    this.name = name;
    this.keep();
    this.drawList();
    this.drawCharts('');
    this.pane.scrollTop = 0;
  }

  private drawCharts(key: string): void {
    this.drawnKey = key || JSON.stringify([this.q, this.name, this.count, [...this.rows.keys()]]);
    this.inner.end();
    this.inner = new Scope();
    this.charts = [];
    this.seer.disconnect();
    const row = this.rows.get(this.name);
    if (row) {
      const context = { ...this.context, scope: this.inner };
      const shown = detail(context, row, this.rows, () => this.choose(''));
      this.charts.push(shown.chart);
      fill(this.pane, shown.el);
      this.seer.observe(shown.chart.el);
      return;
    }
    if (this.name) return fill(this.pane, gone(this.name, () => this.choose('')));
    if (!this.rows.size) return fill(this.pane, this.q ? noMatch(() => this.clear()) : nothing());
    const sections = this.q ? [] : curated([...this.rows.values()]);
    const all = [...this.rows.values()];
    const rest = all.length - this.count;
    fill(
      this.pane,
      sections.map((s) => h('section.sec', null, head(s.title, s.note), this.grid(s.plans))),
      h('section.sec', null, head(this.q ? 'Matches' : 'Everything', 'counters as rates; a name opens it'), this.grid(all.slice(0, this.count).map(planOf))),
      rest > 0 ? h('p.gap', null, button(`${format.int(Math.min(rest, CHARTS_STEP))} more of ${format.int(rest)}`, () => this.more())) : null,
    );
  }

  private more(): void {
    this.count += CHARTS_STEP;
    const top = this.pane.scrollTop;
    this.drawCharts('');
    this.pane.scrollTop = top;
  }

  private clear(): void {
    const input = document.querySelector<HTMLInputElement>('#metric-filter');
    if (input) input.value = '';
    this.search('');
  }

  private grid(plans: readonly Plan[]): HTMLElement {
    const context = { ...this.context, scope: this.inner };
    const charts = plans.map((plan) => {
      const name = plan.of.length === 1 ? plan.of[0]?.name : undefined;
      return new MetricChart(context, plan, this.rows, { by: '', where: {} }, name === undefined ? undefined : () => this.choose(name));
    });
    this.charts.push(...charts);
    for (const chart of charts) this.seer.observe(chart.el);
    return h('div.grid', null, charts.map((chart) => chart.el));
  }

  private look(entries: IntersectionObserverEntry[]): void {
    for (const entry of entries) {
      const chart = this.charts.find((c) => c.el === entry.target);
      if (!chart) continue;
      chart.seen = entry.isIntersecting;
      if (chart.due(Date.now(), CHART_AGAIN_MS)) void chart.load();
    }
  }

  private beat(): void {
    if (!this.context.app.time.live) return;
    const every = attended() ? CHART_AGAIN_MS : CHART_AGAIN_ALONE_MS;
    for (const chart of this.charts) {
      if (chart.due(Date.now(), every)) void chart.load();
      else if (chart.seen && attended()) chart.redraw();
    }
  }

  /** The window has changed: what is seen is asked again, the rest when it comes into view. */
  private reload(): void {
    for (const chart of this.charts) if (chart.seen) void chart.load();
  }
}

const gone = (name: string, back: () => void) => h('div.empty', null, h('p', null, h('b', null, 'No series of this name is held. '), h('span.mono', null, name)), h('p', null, h('button.linklike', { type: 'button', onclick: back }, 'All names')));

const noMatch = (clear: () => void) => h('div.empty', null, h('p', null, 'No series has this in its name or help. ', h('button.linklike', { type: 'button', onclick: clear }, 'Clear the filter')));

const nothing = () =>
  h(
    'div.empty',
    { 'data-testid': 'no-metrics' },
    h('p', null, h('b', null, 'No series is held yet. '), 'The first values come with the first scrape, and appear here by themselves.'),
    h('p.t2', null, 'The host and this gateway are read where the configuration has ', h('code', null, 'scrape: { self: { interval: 15s }, host: { interval: 15s } }'), '. ', link('Configuration in force', '#/config')),
  );
