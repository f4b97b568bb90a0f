// The frame around every page: rail, header, state pill, dialogs, and the change from one page to the next.
import { PAGES, type App, type Page, type PageName } from '../app';
import { dress, fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { icon, mark } from '../dom/icon';
import { segments, setMark, stateMark } from '../dom/parts';
import { hideTip } from '../dom/tip';
import { judge, nameOf, type Health } from '../health';
import { paceOf } from '../pace';
import { Scope } from '../scope';
import { calm, flipTheme } from '../theme';
import { RANGES } from '../timewindow';
import { helpDialog } from './help';
import { listenKeys } from './keyboard';
import { Palette, type Entry } from './palette';
import { linkNotice } from './notice';
import { readRoute, rewrite, routeOf } from './router';

export class Shell {
  private current: PageName = 'overview';
  private scope = new Scope();
  private filter: HTMLInputElement | null = null;
  private readonly main = h('main.main', { id: 'main', tabindex: '-1' });
  private readonly title = h('h1');
  private readonly sum = h('span.sum');
  private readonly mark = stateMark('off');
  private readonly word = h('span', null, 'Connecting');
  private readonly pill = h('a.pill', { href: '#/overview', 'aria-live': 'polite', 'data-testid': 'state' }, this.mark, this.word);
  /** Blinks with each status that arrives: it stands for the stream, not for a timer. */
  private readonly dot = h('span.d');
  private readonly live = h('button.btn.live', { type: 'button', onclick: () => this.pause() }, this.dot, h('span', null, 'Live'));
  private readonly range = segments('Time range', RANGES, 900, (s) => this.app.time.setRange(s));
  private readonly times = h('div.tools.time', null, this.range.el, this.live);
  private readonly who = h('div.me');
  private readonly notice = h('div.notice', { role: 'alert' });
  private readonly menu = h('button.btn.icon.menu', { type: 'button', 'aria-label': 'Pages', 'aria-expanded': 'false', onclick: () => this.drawer() }, icon('menu'));
  private readonly links = new Map<PageName, { a: HTMLElement; n: HTMLElement }>();
  private readonly rail: HTMLElement;
  private readonly frame: HTMLElement;
  private readonly help = helpDialog();
  private readonly palette = new Palette(() => this.entries());

  constructor(
    private readonly app: App,
    private readonly pages: Record<PageName, Page>,
  ) {
    this.rail = this.buildRail();
    this.frame = h('div.app', null, this.rail, this.buildBar(), h('div.body', null, this.notice, this.main));
    const skip = h('a.skip', { href: '#main', onclick: (e: Event) => this.skip(e) }, 'Skip to content');
    document.body.append(skip, this.frame, this.palette.el, this.help);
    this.listen();
    this.enter();
  }

  private buildRail(): HTMLElement {
    const nav = h('div.nav');
    for (const name of PAGES) {
      if (name === 'targets') nav.append(h('div.sep'));
      const page = this.pages[name];
      const n = h('span.n', null, page.later ? 'later' : '');
      const a = h('a', { href: routeOf(name), title: page.title, class: page.later ? 'later' : '' }, icon(page.icon), h('span.t', null, page.title), n);
      this.links.set(name, { a, n });
      nav.append(a);
    }
    return h('nav.rail', { 'aria-label': 'Pages' }, h('a.brand', { href: '#/overview' }, mark(), h('span.t', null, 'Bulkhead')), nav, this.who);
  }

  private buildBar(): HTMLElement {
    const tool = (name: 'search' | 'theme' | 'help', label: string, run: () => void) => h('button.btn.icon', { type: 'button', class: name === 'help' ? 'wide' : '', 'aria-label': label, title: label, onclick: run }, icon(name));
    const right = h('div.tools', null, this.pill, tool('search', 'Search or go to (/ or Ctrl K)', () => this.palette.open()), tool('theme', 'Light or dark (t)', flipTheme), tool('help', 'Keyboard (?)', () => this.help.showModal()));
    return h('header.bar', null, this.menu, this.title, this.sum, this.times, right);
  }

  private listen(): void {
    addEventListener('hashchange', () => {
      this.enter();
      this.main.focus({ preventScroll: true });
    });
    this.app.time.changed.on(() => this.drawTools());
    this.app.stream.status.on(() => {
      if (document.hidden) return;
      if (!calm()) this.dot.classList.toggle('beat');
      this.beat();
    });
    this.app.stream.changed.on(() => this.beat());
    listenKeys({
      palette: () => this.palette.open(),
      help: () => this.help.showModal(),
      theme: flipTheme,
      filter: () => this.filter?.focus(),
      pause: () => this.pause(),
      range: (by) => this.range.step(by),
      go: (letter) => this.jump(letter),
      escape: () => this.drawer(false),
    });
  }

  /** Leaves the page that is shown and shows the one the address names. */
  private enter(): void {
    const { page: name, args } = readRoute();
    const page = this.pages[name];
    this.scope.end();
    this.scope = new Scope();
    this.current = name;
    this.filter = null;
    this.app.time.setCross(null);
    hideTip();
    this.drawer(false);
    this.main.replaceChildren();
    dress(this.main, page.fill ? 'main fill' : 'main');
    this.main.scrollTop = 0;
    text(this.title, page.title);
    text(this.sum, '');
    this.times.hidden = page.timeless === true;
    for (const [key, { a }] of this.links) key === name ? a.setAttribute('aria-current', 'page') : a.removeAttribute('aria-current');
    this.drawTools();
    page.mount({
      app: this.app,
      main: this.main,
      scope: this.scope,
      args,
      summary: (line) => text(this.sum, line),
      filter: (input) => (this.filter = input),
      keep: (state) => rewrite(name, state),
    });
    this.beat();
  }

  private beat(): void {
    const { link } = this.app.stream;
    const status = this.app.status();
    this.frame.classList.toggle('stale', link === 'gone' || link === 'unauthorised');
    this.drawNotice();
    const health = status ? judge(status, paceOf(status, this.app.history)) : null;
    this.drawPill(health);
    const badge = health && health.state !== 'ok' && status ? format.percent(status.storage.bytes / status.storage.max_bytes, 0) : '';
    const overview = this.links.get('overview');
    if (overview) {
      text(overview.n, badge);
      dress(overview.n, `n ${badge ? (health?.state ?? '') : ''}`.trim());
    }
    if (status) {
      const local = status.destinations.every((d) => d.kind === 'view');
      const lines = [status.node.name, `gateway ${status.node.version}`, local ? 'local view' : `role ${status.node.role}`];
      lines.forEach((line, i) => text(this.who.children[i] ?? this.who.appendChild(h(i ? 'span' : 'b')), line));
    }
    document.title = `${badge ? `(${badge}) ` : ''}${this.pages[this.current].title} · Bulkhead`;
  }

  /** Only when it changes: it is an alert, and would be read out again each time. */
  private drawNotice(): void {
    const { link, why } = this.app.stream;
    const key = `${link} ${why}`;
    if (this.notice.dataset['key'] === key) return;
    this.notice.dataset['key'] = key;
    fill(this.notice, linkNotice(this.app.stream, this.app.status()));
  }

  private drawPill(health: Health | null): void {
    const { link } = this.app.stream;
    const [state, word] =
      link === 'gone' ? (['off', 'No answer'] as const) : link === 'unauthorised' ? (['off', 'No access'] as const) : health ? ([health.state, health.word] as const) : (['off', 'Connecting'] as const);
    setMark(this.mark, state);
    text(this.word, word);
    dress(this.pill, state === 'wait' || state === 'risk' ? `pill ${state}` : 'pill');
  }

  private drawTools(): void {
    this.range.set(this.app.time.range_s);
    this.live.setAttribute('aria-pressed', String(this.app.time.live));
    const label = this.live.lastElementChild;
    if (label) text(label, this.app.time.live ? 'Live' : 'Paused');
  }

  private pause(): void {
    if (!this.times.hidden) this.app.time.setLive(!this.app.time.live);
  }

  private drawer(open = !this.rail.classList.contains('open')): void {
    this.rail.classList.toggle('open', open);
    this.menu.setAttribute('aria-expanded', String(open));
  }

  private skip(event: Event): void {
    event.preventDefault();
    this.main.focus();
  }

  private jump(letter: string): boolean {
    const name = PAGES.find((page) => this.pages[page].key === letter);
    if (name) location.hash = routeOf(name);
    return name !== undefined;
  }

  private entries(): Entry[] {
    const go = (hash: string) => () => void (location.hash = hash);
    const status = this.app.status();
    return [
      ...PAGES.map((name) => ({ group: 'Go to', name: this.pages[name].title, hint: `g ${this.pages[name].key}`, run: go(routeOf(name)) })),
      ...(status?.destinations ?? []).map((d) => ({ group: 'Send', name: nameOf(d), hint: d.url ?? d.state, run: go('#/overview') })),
      { group: 'Logs', name: 'Errors', hint: 'level error', run: go(routeOf('logs', { level: 'error' })) },
      { group: 'Traces', name: 'Failed traces', hint: 'status error', run: go(routeOf('traces', { show: 'error' })) },
      { group: 'Do', name: 'Light or dark', hint: 't', run: flipTheme },
      { group: 'Do', name: this.app.time.live ? 'Pause' : 'Go live', hint: 'space', run: () => this.pause() },
      { group: 'Do', name: 'Keyboard help', hint: '?', run: () => this.help.showModal() },
    ];
  }
}
