// Logs: what is being said now, which service and level stand out, which trace belongs to this line?
//
// One question (filter, facets, range) is put three ways: the lines on screen, the facets with the histogram, and the live tail.
// Scrolling up, opening a line or choosing a range pauses the tail: new lines are counted, not shown; the gateway keeps receiving.
import type { Page, PageContext } from '../app';
import { ask, type Query } from '../api/client';
import type { ConfigAnswer, LogLine, LogsAnswer, LogsEvent } from '../api/types';
import { dress, fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { icon } from '../dom/icon';
import { debounce, field, say, setMark, stateMark } from '../dom/parts';
import { narrow } from '../theme';
import { dimmed, skeleton, trouble, viewOff } from '../waiting';
import { Facets, emptyChoice, type Choice } from './facets';
import { histogram, type Histogram } from './histogram';
import { LogList } from './list';

const LINES_MAX = 200; // asked of the gateway at once
const FACETS_MS = 5_000;
const TYPING_MS = 200;
const GATHER_MS = 250;

export const logs: Page = {
  title: 'Logs',
  icon: 'logs',
  key: 'l',
  fill: true,
  mount(context) {
    const status = context.app.status();
    if (status) return start(context, status.view.enabled);
    context.main.append(skeleton([45, 88, 400]));
    const stop = context.app.stream.status.on((first) => {
      stop();
      context.main.replaceChildren();
      start(context, first.view.enabled);
    });
    context.scope.add(stop);
  },
};

function start(context: PageContext, viewEnabled: boolean): void {
  if (viewEnabled) return void new LogsPage(context);
  context.summary('the local view is off');
  ask<ConfigAnswer>('config', {}, context.scope.signal).then(
    (config) => fill(context.main, viewOff(config.files[0])),
    () => fill(context.main, viewOff(undefined)),
  );
}

class LogsPage {
  private choice: Choice;
  private range: [number, number] | null = null;
  private following = true;
  private missed = 0;
  private turn = 0;
  private waiting: LogLine[] = [];
  private waitingSkipped = 0;
  private gather: (() => void) | undefined;
  private readonly list: LogList;
  private readonly facets: Facets;
  private readonly chart: Histogram;
  private readonly input: ReturnType<typeof field>;
  private readonly chips = h('span.chips');
  private readonly mark = stateMark('ok');
  private readonly state = h('span', { 'data-testid': 'tail-state' });
  private readonly count = h('span.hide-s');
  private readonly resume = h('button.btn', { type: 'button', 'data-testid': 'resume', onclick: () => this.follow() });

  constructor(private readonly context: PageContext) {
    const { app, args, main, scope } = context;
    this.choice = emptyChoice(args);
    this.list = new LogList({
      scope,
      pause: () => this.pause(),
      follow: () => this.follow(),
      older: (before) => void this.older(before),
      only: (service) => this.choose({ service: new Set([service]) }),
      clear: () => this.clear(),
    });
    this.facets = new Facets(() => this.choice, (change) => this.choose(change));
    this.input = field('Filter lines: text, trace id, span id', this.choice.q, () => typed(), 'log-filter');
    const typed = debounce(TYPING_MS, () => this.choose({ q: this.input.input.value }));
    const chartHost = h('div.chart', { 'data-testid': 'chart' });
    main.append(this.layout(chartHost));
    this.chart = histogram(chartHost, context, () => this.range, (range, done) => this.brush(range, done));
    context.filter(this.input.input);
    scope.add(app.stream.logs.on((event) => this.arrived(event)));
    scope.add(app.time.changed.on(() => this.timeChanged()));
    scope.add(() => app.stream.follow(null));
    scope.every(FACETS_MS, () => void this.survey());
    scope.add(app.stream.changed.on((link) => link === 'live' && this.following && void this.reload()));
    this.refresh();
  }

  private layout(chartHost: HTMLElement): HTMLElement {
    const side = h('aside.side', { id: 'facets', class: narrow() ? 'shut' : '', 'aria-label': 'Facets' }, this.facets.el);
    const open = h('button.btn.sideb', { type: 'button', 'aria-expanded': 'false', 'aria-controls': 'facets', onclick: () => open.setAttribute('aria-expanded', String(!side.classList.toggle('shut'))) }, 'Facets');
    const bar = h('div.toolbar', null, h('div.grow', null, this.input.el), this.chips);
    const tail = h('div.tailbar', null, h('span.state', null, this.mark, this.state), this.count, h('span.push'), this.resume);
    return h('div.split', null, open, side, h('div.pane', null, bar, h('div.hist', null, chartHost), this.list.el, tail));
  }

  private query(): Query {
    const { q, level, service, trace_id } = this.choice;
    return { q, level: [...level].join(','), service: [...service].join(','), trace_id };
  }

  private bounds(): Query {
    if (this.range) return { from_ms: Math.round(this.range[0]), to_ms: Math.round(this.range[1]) };
    const [from, to] = this.context.app.time.bounds();
    return this.context.app.time.live ? { from_ms: Math.round(from) } : { from_ms: Math.round(from), to_ms: Math.round(to) };
  }

  private choose(change: Partial<Choice>): void {
    this.choice = { ...this.choice, ...change };
    this.refresh();
  }

  private clear(): void {
    this.input.input.value = '';
    this.range = null;
    this.choice = emptyChoice(new URLSearchParams());
    this.refresh();
  }

  /** The question changed: everything is asked again, and the address says it. */
  private refresh(): void {
    const { q, level, service, trace_id } = this.choice;
    this.context.keep({ q, level: [...level].join(','), service: [...service].join(','), trace_id });
    this.drawChips();
    this.facets.draw();
    this.following = !this.range && this.context.app.time.live;
    this.missed = 0;
    this.waiting = [];
    this.waitingSkipped = 0;
    this.context.app.stream.follow(this.query());
    void this.reload();
    void this.survey();
  }

  private async reload(): Promise<void> {
    const turn = ++this.turn;
    try {
      const answer = await dimmed(this.list.el, ask<LogsAnswer>('logs', { ...this.query(), ...this.bounds(), limit: LINES_MAX }, this.context.scope.signal));
      if (turn !== this.turn) return;
      this.list.show(answer.lines, this.choice.q, answer.total === 0);
      this.learn(answer);
    } catch (cause) {
      if (!this.context.scope.signal.aborted && turn === this.turn) this.list.say(trouble(cause, () => void this.reload()));
    }
    this.drawState();
  }

  /** Facets and histogram, without the lines. Silent when it fails: the numbers before stay, and the list says what is wrong. */
  private async survey(): Promise<void> {
    const [from, to] = this.context.app.time.bounds();
    try {
      const wide = { from_ms: Math.round(from), ...(this.context.app.time.live ? {} : { to_ms: Math.round(to) }) };
      this.learn(await ask<LogsAnswer>('logs', { ...this.query(), ...wide, limit: 1 }, this.context.scope.signal));
    } catch {
      return;
    }
  }

  private learn(answer: LogsAnswer): void {
    this.facets.learn(answer.facets);
    this.chart.learn(answer.histogram, this.choice.level);
    const { covers } = answer;
    const evicted = covers.evicted ? `, ${format.int(covers.evicted)} older let go` : '';
    this.context.summary(answer.total ? `covers ${format.hourMinute(covers.from_ms)} to ${this.context.app.time.live ? 'now' : format.hourMinute(covers.to_ms)}${evicted}` : 'nothing held yet');
    text(this.count, `${format.int(answer.matched)} of ${format.int(answer.total)} lines match`);
  }

  private async older(before: string): Promise<void> {
    try {
      const answer = await dimmed(this.list.el, ask<LogsAnswer>('logs', { ...this.query(), ...this.bounds(), before, limit: LINES_MAX }, this.context.scope.signal));
      this.list.prepend(answer.lines, this.choice.q);
    } catch (cause) {
      if (!this.context.scope.signal.aborted) say(cause instanceof Error ? cause.message : String(cause));
    }
  }

  private arrived(event: LogsEvent): void {
    if (this.range) return;
    if (!this.following) {
      this.missed += event.lines.length + event.skipped;
      return this.drawState();
    }
    this.waiting.push(...event.lines);
    this.waitingSkipped += event.skipped;
    this.gather ??= this.context.scope.after(GATHER_MS, () => this.showWaiting());
  }

  /** A busy tail comes ten times a second; the document is laid out four times. */
  private showWaiting(): void {
    this.gather = undefined;
    const lines = this.waiting.splice(0);
    const surplus = Math.max(0, lines.length - LINES_MAX);
    const skipped = this.waitingSkipped + surplus;
    this.waitingSkipped = 0;
    if (this.following) return this.list.append(lines.slice(surplus), this.choice.q, skipped);
    this.missed += lines.length + skipped - surplus;
    this.drawState();
  }

  private pause(): void {
    if (!this.following) return;
    this.following = false;
    this.missed = 0;
    this.drawState();
  }

  private follow(): void {
    this.range = null;
    this.missed = 0;
    this.following = true;
    this.drawState();
    this.drawChips();
    if (!this.context.app.time.live) return this.context.app.time.setLive(true);
    void this.reload();
    this.chart.draw();
  }

  private timeChanged(): void {
    if (this.context.app.time.live) {
      if (!this.range) return this.refresh();
    } else this.pause();
    void this.survey();
  }

  private brush(range: [number, number] | null, done: boolean): void {
    this.range = range;
    if (range) this.pause();
    if (!done) return;
    this.drawChips();
    this.following = false;
    void this.reload();
  }

  private drawChips(): void {
    const chip = (label: string, value: string, remove: () => void) => h('span.chip', null, h('span', null, label ? h('span.dim', null, `${label} `) : null, value), h('button', { type: 'button', 'aria-label': `Remove ${label} ${value}`.trim(), onclick: remove }, '×'));
    const without = (set: Set<string>, value: string) => new Set([...set].filter((v) => v !== value));
    const { level, service, trace_id } = this.choice;
    fill(
      this.chips,
      [...level].map((v) => chip('level', v, () => this.choose({ level: without(level, v) }))),
      [...service].map((v) => chip('service', v, () => this.choose({ service: without(service, v) }))),
      trace_id ? chip('trace', trace_id.slice(0, 8) + '…', () => this.choose({ trace_id: '' })) : null,
      this.range ? chip('', `${format.time(this.range[0])} to ${format.time(this.range[1])}`, () => this.follow()) : null,
    );
  }

  private drawState(): void {
    setMark(this.mark, this.following ? 'ok' : 'off');
    text(this.state, this.following ? 'Live' : this.range ? 'Paused on a range' : 'Paused, still receiving');
    dress(this.resume, this.following ? 'btn away' : 'btn');
    this.resume.disabled = this.following;
    fill(this.resume, icon('down'), this.missed ? `${format.int(this.missed)} new, continue` : 'Continue');
  }
}
