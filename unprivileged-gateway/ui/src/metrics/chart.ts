// One small chart: asks for its series when it is seen, again while the window moves, and says what it shows and what it leaves out.
import { ask } from '../api/client';
import type { RangeAnswer, SeriesName } from '../api/types';
import { Lines, last, type Line } from '../chart/lines';
import { fill, h, text, type Child } from '../dom/element';
import * as format from '../dom/format';
import type { PageContext } from '../app';
import type { Plan } from './curated';
import { growing, nameOf, quantile, selector, splitting, summed, unitOf, type Labels } from './meaning';

export const LINES_MAX = 8;
const COLORS = ['--c1', '--c2', '--c3', '--c4', '--c5', '--c6', '--c7', '--c8'];
const POINTS_MAX = 300;
/** A rate needs the sample before the window. */
const BEFORE_MS = 60_000;
const BUCKET = /_bucket$/;

export interface View {
  by: string;
  where: Labels;
}

export class MetricChart {
  readonly el: HTMLElement;
  private readonly value = h('span.v');
  private readonly legend = h('div.legend');
  private readonly note: HTMLElement;
  private readonly lines: Lines;
  private readonly unit: ReturnType<typeof unitOf>;
  private shown: Line[] = [];
  private turn = 0;
  private asked = 0;
  seen = false;

  constructor(
    private readonly context: PageContext,
    private readonly plan: Plan,
    private readonly rows: ReadonlyMap<string, SeriesName>,
    private view: View,
    open?: () => void,
    private readonly drawn?: (lines: Line[], answer: RangeAnswer, format: (n: number) => string) => void,
  ) {
    const [first] = plan.of;
    const name = first?.name ?? '';
    const bucket = BUCKET.test(name);
    this.unit = unitOf(name, !bucket && this.rate(name));
    const host = h('div.chart', { 'data-testid': 'chart', 'data-name': name });
    this.note = h('div.k', { title: plan.note }, plan.note);
    const heading: Child = open ? h('button.open', { type: 'button', title: name, onclick: open }, plan.title) : h('span', { title: name }, plan.title);
    this.el = h('div.mini', null, h('div.t', null, h(open || plan.title !== name ? (plan.title === name ? 'h3.mono' : 'h3') : 'h2.mono', null, heading), this.value), this.note, host, this.legend);
    this.lines = new Lines(host, { scope: context.scope, time: context.app.time, label: `${plan.title}, ${plan.note}`, format: this.unit.text, tick: this.unit.tick, binary: this.unit.binary });
    context.scope.add(context.app.time.crossed.on(() => this.drawValue()));
  }

  private rate(name: string): boolean {
    return growing(this.rows.get(name)?.type ?? '', name);
  }

  change(view: View): void {
    this.view = view;
    void this.load();
  }

  /** Every series of the name is scraped with the same step; the chart asks again when one may have come. */
  due(now: number, every_ms: number): boolean {
    return this.seen && now - this.asked >= every_ms;
  }

  redraw(): void {
    this.lines.redraw();
  }

  async load(): Promise<void> {
    const turn = ++this.turn;
    this.asked = Date.now();
    const { app, scope } = this.context;
    const [from, to] = app.time.bounds();
    const one = (part: Plan['of'][number]) =>
      ask<RangeAnswer>('query_range', { query: selector(part.name, { ...part.where, ...this.view.where }), from_ms: Math.round(from - BEFORE_MS), to_ms: Math.round(to), max_points: POINTS_MAX, rate: this.rate(part.name) ? 1 : 0 }, scope.signal);
    try {
      const answers = await Promise.all(this.plan.of.map(one));
      if (turn === this.turn) this.show(answers);
    } catch (cause) {
      if (!scope.signal.aborted && turn === this.turn) fill(this.legend, h('span.wait', { role: 'alert' }, cause instanceof Error ? cause.message : String(cause)));
    }
  }

  private show(answers: RangeAnswer[]): void {
    const [first] = answers;
    if (!first) return;
    const step = Math.max(1000, ...answers.map((a) => a.step_ms));
    const all = this.plan.of.length > 1 ? this.joined(answers) : this.split(first);
    const kept = all.filter((line) => !this.plan.without?.includes(line.name) && line.points.length && (!this.plan.stacked || size(line) > 0)).sort((a, b) => (BUCKET.test(first.name) || this.plan.of.length > 1 ? 0 : size(b) - size(a)));
    const lines = kept.slice(0, LINES_MAX).map((line, i): Line => ({ ...line, color: COLORS[i] ?? '--t3' }));
    this.shown = lines;
    this.lines.show(lines, step, this.plan.stacked === true && lines.length > 1);
    this.drawLegend(lines, kept.length - lines.length + first.cut);
    this.drawValue();
    this.drawn?.(kept.map((line, i) => ({ ...line, color: COLORS[i] ?? '--t3' })), first, this.unit.text);
  }

  private joined(answers: RangeAnswer[]): Omit<Line, 'color'>[] {
    return answers.flatMap((answer, i) => summed(answer.series, '', answer.step_ms).map(({ points }) => ({ name: this.plan.of[i]?.as ?? answer.name, points })));
  }

  private split(answer: RangeAnswer): Omit<Line, 'color'>[] {
    const by = this.view.by || this.plan.by || '';
    if (BUCKET.test(answer.name) && (!by || by === 'le')) {
      const buckets = summed(answer.series, 'le', answer.step_ms);
      return [0.5, 0.99].map((q) => ({ name: `p${q * 100}`, points: quantile(buckets, q) }));
    }
    if (by === '*') return answer.series.map((s) => ({ name: nameOf(s.labels, answer.series), points: s.points }));
    if (by) return summed(answer.series, by, answer.step_ms).map((line) => ({ ...line, name: line.name || `no ${by}` }));
    if (answer.series.length <= LINES_MAX) return answer.series.map((s) => ({ name: nameOf(s.labels, answer.series), points: s.points }));
    // Too many to tell apart: the sums over the label with the fewest values that still say something.
    const row = this.rows.get(answer.name);
    const label = row && splitting(row).find((l) => (row.labels[l]?.length ?? 0) <= LINES_MAX);
    return answer.rate && label ? summed(answer.series, label, answer.step_ms) : answer.series.map((s) => ({ name: nameOf(s.labels, answer.series), points: s.points }));
  }

  private drawLegend(lines: readonly Line[], more: number): void {
    if (!lines.length) return fill(this.legend, h('span.dim', null, this.turn ? 'nothing in this window' : ''));
    const entries = lines.length > 1 || lines[0]?.name !== 'all' ? lines.map((line) => h('span', { title: line.name }, h('span.sw', { style: { background: `var(${line.color})` } }), h('span.dim', null, line.name))) : [];
    fill(this.legend, entries, more > 0 ? h('span.dim', null, `and ${format.int(more)} more`) : null);
  }

  private drawValue(): void {
    const t = this.context.app.time.cross;
    const values = this.shown.map((line) => (t === null ? last(line) : this.lines.valueAt(line, t))).filter(Number.isFinite);
    const [first = NaN] = values;
    const sums = this.plan.stacked === true;
    text(this.value, sums ? this.unit.text(values.reduce((a, b) => a + b, 0)) : this.unit.text(first));
    this.value.title = sums ? 'sum' : (this.shown[0]?.name ?? '');
  }
}

const size = (line: { points: readonly (readonly [number, number | null])[] }) => line.points.reduce((sum, [, v]) => sum + Math.abs(v ?? 0), 0);
