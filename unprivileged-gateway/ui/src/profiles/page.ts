// Profiles: which process and function use the CPU, when did it change, how much of it is not known?
import type { Page, PageContext } from '../app';
import { ask, type Query } from '../api/client';
import { attended } from '../attention';
import type { ProbeAnswer, ProcessesAnswer, ProfileAnswer } from '../api/types';
import { Strip } from '../chart/strip';
import { fill, h, text, type Child } from '../dom/element';
import * as format from '../dom/format';
import { button, debounce, field, link, segments } from '../dom/parts';
import { endTitle, whole } from '../probe/caps';
import { absence, disconnected } from '../probe/state';
import { narrow } from '../theme';
import { withView } from '../view';
import { dimmed, trouble } from '../waiting';
import { Flame } from './flame';
import { ProcessList, type Picked } from './processes';
import { legend, ranked, sandwich, topTable } from './tables';
import { around, grow, keyOf, matched, matching, nameAt, pathTo, same, type Fn, type Tree } from './tree';

const TYPING_MS = 200;
/** The probe sends a window each 15 s; more often there is nothing new. */
const AGAIN_MS = 15_000;
const AGAIN_EMPTY_MS = 3_000;
const LEFT_PX = 34;
const EDGE_MS = 1_000;
const CRUMBS_SHOWN = 4;
const CRUMB_LETTERS = 60;
const REASONS_SHOWN = 3;

type View = 'all' | 'callers' | 'callees';

export const profiles: Page = {
  title: 'Profiles',
  icon: 'profiles',
  key: 'p',
  fill: true,
  mount(context) {
    withView(context, [72, 45, 400], () => void new ProfilesPage(context));
  },
};

class ProfilesPage {
  private picked: Picked;
  private q: string;
  private view: View = 'all';
  private range: [number, number] | null = null;
  private answer: ProfileAnswer | null = null;
  private tree: Tree | null = null;
  private shown: Tree | null = null;
  private fns: Fn[] = [];
  private key = -1;
  private path: string[] = [];
  private turn = 0;
  private asked = 0;
  private processes: ProcessesAnswer | null = null;
  private probe: ProbeAnswer | null = null;
  private readonly flame: Flame;
  private readonly strip: Strip;
  private readonly list: ProcessList;
  private readonly views: ReturnType<typeof segments<View>>;
  private readonly share = h('span.dim.share', { role: 'status', 'data-testid': 'match-share' });
  private readonly cover = h('span.dim.cover', { 'data-testid': 'covers' });
  private readonly cut = h('span.dim', { 'data-testid': 'truncated' });
  private readonly crumbs = h('nav.crumbs', { 'aria-label': 'Zoomed to', hidden: true });
  private readonly table = h('div.ftable.scroll', { tabindex: '0', role: 'region', 'aria-label': 'Functions' });
  private readonly notice = h('div.fnotice');
  private readonly empty = h('div.pane.pad', { hidden: true });
  private readonly pane: HTMLElement;

  constructor(private readonly context: PageContext) {
    const { app, args, main, scope } = context;
    this.picked = { service: args.get('service') ?? '', pid: args.get('pid') ?? '' };
    this.q = args.get('q') ?? '';
    this.list = new ProcessList(() => this.picked, (next) => this.pick(next));
    this.flame = new Flame({ scope, zoomed: (node) => this.zoomed(node), period_ns: () => this.answer?.period_ns ?? 0 });
    this.views = segments<View>('View', [['all', 'All'], ['callers', 'Callers'], ['callees', 'Callees']], 'all', (v) => this.look(v));
    const search = field('Search functions', this.q, () => typed(), 'frame-search');
    const typed = debounce(TYPING_MS, () => this.search(search.input.value));
    context.filter(search.input);
    const chart = h('div.chart', { 'data-testid': 'chart' });
    this.pane = h(
      'div.pane',
      null,
      this.notice,
      h('div.hist', null, chart),
      h('div.toolbar.bare', null, h('div.grow', null, search.el), this.share, this.views.el, h('span.push', null, this.cover)),
      h('div.under', null, legend(), this.cut),
      this.crumbs,
      this.flame.el,
      this.table,
    );
    main.append(this.layout());
    const line = { name: 'cores used', color: '--profiles', at: (ms: number) => this.coresAt(ms) };
    this.strip = new Strip(chart, { scope, time: app.time, mode: 'area', left: LEFT_PX, series: () => [line], label: 'Cores used by all processes. Drag to choose a range', format: (n) => format.num(n), brush: { get: () => this.range, set: (range, done) => this.brush(range, done) }, column_ms: () => Math.max(1000, this.processes?.timeline.step_ms ?? 0), phase_ms: () => this.processes?.timeline.t0_ms ?? 0 });
    scope.add(app.time.changed.on(() => this.timeChanged()));
    scope.add(app.stream.changed.on((state) => state === 'live' && void this.load()));
    void this.load();
    scope.every(1_000, () => this.beat());
  }

  private layout(): HTMLElement {
    const filter = field('Process, pod, namespace', '', (v) => this.list.narrow(v), 'process-filter');
    const side = h('aside.side', { id: 'processes', class: narrow() ? 'shut' : '', 'aria-label': 'Processes' }, h('div.within', null, filter.el), this.list.el);
    const open = h('button.btn.sideb', { type: 'button', 'aria-expanded': 'false', 'aria-controls': 'processes', onclick: () => open.setAttribute('aria-expanded', String(!side.classList.toggle('shut'))) }, 'Processes');
    return h('div.split.tallpage', null, open, side, this.pane, this.empty);
  }

  private coresAt(ms: number): number {
    const t = this.processes?.timeline;
    // A column that begins where the newest window ends holds none of it: not known yet, which is not zero.
    if (ms > (this.processes?.covers.to_ms ?? 0) - EDGE_MS) return NaN;
    return t?.step_ms ? (t.cores[Math.floor((ms - t.t0_ms) / t.step_ms)] ?? NaN) : NaN;
  }

  private bounds(): Query {
    const [from, to] = this.range ?? this.context.app.time.bounds();
    return this.range || !this.context.app.time.live ? { from_ms: Math.round(from), to_ms: Math.round(to) } : { from_ms: Math.round(from) };
  }

  /** Processes of the window, the graph of what is picked and, without either, why there is nothing. */
  private async load(): Promise<void> {
    const turn = ++this.turn;
    this.asked = Date.now();
    const { signal } = this.context.scope;
    try {
      const [processes, profile, probe] = await dimmed(
        this.flame.el,
        Promise.all([
          ask<ProcessesAnswer>('processes', this.bounds(), signal),
          ask<ProfileAnswer>('profile', { ...this.bounds(), service: this.picked.service, pid: this.picked.pid }, signal),
          // Only says why: a gateway that cannot answer it still shows what it holds.
          ask<ProbeAnswer>('probe', {}, signal).catch(() => null),
        ]),
      );
      if (turn !== this.turn) return;
      this.learn(processes, profile, probe);
    } catch (cause) {
      if (signal.aborted || turn !== this.turn) return;
      this.answer = null;
      this.swap(trouble(cause, () => void this.load()));
    }
  }

  private learn(processes: ProcessesAnswer, profile: ProfileAnswer, probe: ProbeAnswer | null): void {
    [this.processes, this.probe, this.answer] = [processes, probe, profile];
    this.list.learn(processes);
    const held = processes.covers.to_ms > 0;
    if (!held) return this.swap(this.nothing());
    this.swap(null);
    const { covers } = processes;
    const evicted = covers.evicted ? `, ${format.int(covers.evicted)} older let go` : '';
    this.context.summary(`${format.int(processes.groups.length)} services, covers ${format.hourMinute(covers.from_ms)} to ${format.hourMinute(covers.to_ms)}${evicted}`);
    this.tree = grow(profile);
    this.fns = ranked(this.tree);
    if (this.key >= 0 && !this.fns.some((fn) => fn.key === this.key)) this.key = -1;
    this.strip.update();
    this.strip.relabel(`${format.num(this.coresAt(covers.to_ms - processes.timeline.step_ms))} cores in the newest window`);
    const gone = probe && !probe.connected ? absence(probe) : null;
    fill(this.notice, gone ? h('div.banner', { 'data-testid': 'probe-gone' }, h('b', null, 'No probe connected: '), h('span', null, `${gone} What is shown is older. `, link('What to do', '#/probe'))) : null);
    this.drawCovers(profile);
    this.drawGraph(true);
  }

  private nothing(): Child {
    this.context.summary('nothing held yet');
    const { probe } = this;
    if (probe && !probe.connected) return disconnected(probe);
    const off = probe?.hello?.features.find((f) => f.name === 'cpu' && !f.on);
    if (off) return h('div.empty', { 'data-testid': 'no-cpu' }, h('p.big', null, 'The probe is connected, and does not sample.'), h('p', null, `Its feature "cpu" is off: ${off.reason || 'no reason given'}.`), h('p', null, link('Everything the probe says', '#/probe')));
    return h('div.empty', { 'data-testid': 'no-profile' }, h('p.big', null, 'No stack has arrived yet.'), h('p.t2', null, 'The probe gathers a window of 15 s before it sends one; the first appears here by itself.'));
  }

  /** The graph, or what stands in its place. */
  private swap(instead: Child): void {
    this.pane.hidden = instead !== null;
    this.empty.hidden = instead === null;
    fill(this.empty, instead);
  }

  private drawCovers(profile: ProfileAnswer): void {
    const [from, to] = this.range ?? [Math.max(profile.covers.from_ms, this.context.app.time.bounds()[0]), profile.covers.to_ms];
    const small = profile.cut ? `, ${format.int(profile.cut)} small frames left out` : '';
    fill(this.cover, `${format.time(from)} to ${format.time(to)}, ${format.int(profile.samples)} samples, ${format.dur((profile.samples * profile.period_ns) / 1e9)} of CPU${small}`, this.range ? [' ', button('Whole window', () => this.brush(null, true), 'ghost')] : null);
    const reasons = Object.entries(profile.ends).filter(([name, n]) => !whole(name) && n > 0).sort((a, b) => b[1] - a[1]);
    const sum = reasons.reduce((all, [, n]) => all + n, 0);
    const named = reasons.slice(0, REASONS_SHOWN).map(([name, n]) => `${endTitle(name)} ${format.percent(n / (profile.samples || 1))}`);
    text(this.cut, profile.samples ? (sum ? `${format.percent(sum / profile.samples)} of samples are truncated: ${named.join(', ')}` : 'every stack is complete') : '');
  }

  private fn(): Fn | undefined {
    return this.fns.find((fn) => fn.key === this.key);
  }

  private drawGraph(keepZoom: boolean): void {
    if (!this.tree) return;
    const fn = this.fn() ?? this.fns[0];
    if (this.view !== 'all' && fn) {
      this.key = fn.key;
      this.shown = around(this.tree, fn.key, this.view);
    } else this.shown = this.tree;
    const zoom = keepZoom && this.path.length ? same(this.shown, this.path) : 0;
    this.flame.show(this.shown, zoom);
    this.flame.search(this.q);
    this.drawCrumbs(zoom);
    this.drawTable();
    this.drawShare();
  }

  private drawTable(): void {
    const { tree } = this;
    const fn = this.fn();
    if (!tree || !this.answer) return;
    const choose = (key: number) => this.choose(key);
    fill(this.table, this.view !== 'all' && fn ? sandwich(tree, fn, choose) : topTable(tree, this.fns, this.q, this.answer.period_ns, choose));
  }

  private drawShare(): void {
    const flags = this.shown && matching(this.shown, this.q);
    const share = this.shown && flags ? matched(this.shown, flags) / (this.shown.total[0] || 1) : null;
    text(this.share, share === null ? '' : `${format.percent(share)} of samples match`);
  }

  private drawCrumbs(zoom: number): void {
    const tree = this.shown;
    this.crumbs.hidden = !tree || zoom === 0;
    if (!tree || zoom === 0) return fill(this.crumbs);
    const path = pathTo(tree, zoom);
    const kept = path.length > CRUMBS_SHOWN + 2 ? [path[0] ?? 0, -1, ...path.slice(-CRUMBS_SHOWN)] : path;
    const last = path.at(-1);
    const crumb = (node: number): Child => {
      if (node < 0) return h('span.dim', null, `${path.length - CRUMBS_SHOWN - 1} more`);
      const name = nameAt(tree, node);
      const label = h('bdi', null, name.length > CRUMB_LETTERS ? '…' + name.slice(-CRUMB_LETTERS) : name);
      return node === last ? h('span', { 'aria-current': 'true' }, label) : h('button.linklike', { type: 'button', onclick: () => this.flame.zoomTo(node) }, label);
    };
    fill(this.crumbs, kept.map((node, i) => [i ? h('span.dim', { 'aria-hidden': 'true' }, '›') : null, crumb(node)]));
  }

  private zoomed(node: number): void {
    const tree = this.shown;
    if (!tree) return;
    this.path = pathTo(tree, node).slice(1).map((n) => nameAt(tree, n));
    if (node > 0) this.key = keyOf(tree, node);
    this.drawCrumbs(node);
    if (this.view !== 'all') this.drawTable();
  }

  /** A function was chosen in a table: who calls it? */
  private choose(key: number): void {
    this.key = key;
    this.path = [];
    if (this.view === 'all') this.view = 'callers';
    this.views.set(this.view);
    this.drawGraph(false);
    this.table.scrollTop = 0;
  }

  private look(view: View): void {
    this.view = view;
    this.path = [];
    this.drawGraph(false);
  }

  private search(q: string): void {
    this.q = q;
    this.keep();
    this.flame.search(q);
    this.drawShare();
    this.drawTable();
  }

  private pick(picked: Picked): void {
    this.picked = picked;
    this.path = [];
    this.keep();
    this.list.draw();
    void this.load();
  }

  private keep(): void {
    this.context.keep({ service: this.picked.service, pid: this.picked.pid, q: this.q });
  }

  private brush(range: [number, number] | null, done: boolean): void {
    this.range = range;
    if (!done) return;
    this.strip.update();
    void this.load();
  }

  private timeChanged(): void {
    if (this.context.app.time.live) this.range = null;
    this.strip.update();
    void this.load();
  }

  private beat(): void {
    const { live } = this.context.app.time;
    if (!live) return;
    this.strip.update();
    const late = Date.now() - this.asked;
    if (late < (this.empty.hidden ? AGAIN_MS : AGAIN_EMPTY_MS)) return;
    if (!this.flame.busy && (attended() || late > 2 * AGAIN_MS || !this.empty.hidden)) void this.load();
  }
}
