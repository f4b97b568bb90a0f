// Config: what is in force, and from which layer? Secrets arrive masked; this page never has them.
import type { Page, PageContext } from '../app';
import { ask } from '../api/client';
import type { ConfigAnswer, Explained } from '../api/types';
import { fill, h, type Child } from '../dom/element';
import { button, copy, field, segments } from '../dom/parts';
import { skeleton, trouble } from '../waiting';
import { pathsOf } from './paths';

type Layer = 'all' | Explained['layer'];
type View = 'effective' | 'explain';

export const config: Page = {
  title: 'Config',
  icon: 'config',
  key: 'f',
  timeless: true,
  mount(context) {
    const body = h('div');
    context.main.append(body);
    body.append(skeleton([28, 400]));
    const load = () => {
      ask<ConfigAnswer>('config', {}, context.scope.signal).then(
        (answer) => {
          context.summary(answer.files.length ? `from ${answer.files.join(', ')}` : 'no file: defaults, flags and environment');
          fill(body, new ConfigView(context, answer).el);
        },
        (cause) => {
          if (!context.scope.signal.aborted) fill(body, trouble(cause, load));
        },
      );
    };
    context.scope.add(context.app.stream.changed.on((link) => link === 'live' && load()));
    load();
  },
};

class ConfigView {
  readonly el: HTMLElement;
  private q = '';
  private layer: Layer = 'all';
  private view: View = 'effective';
  private readonly box = h('div');
  private readonly lines: { text: string; explained: Explained | undefined }[];

  constructor(
    context: PageContext,
    private readonly answer: ConfigAnswer,
  ) {
    const byPath = new Map(answer.explain.map((e) => [e.path, e]));
    const text = answer.yaml.replace(/\n$/, '').split('\n');
    const paths = pathsOf(text);
    this.lines = text.map((line, i) => ({ text: line, explained: byPath.get(paths[i] ?? '') }));
    const filter = field('Key or value', '', (v) => this.set(() => (this.q = v.toLowerCase())), 'config-filter');
    context.filter(filter.input);
    const count = (layer: Explained['layer']) => answer.explain.filter((e) => e.layer === layer).length;
    const layers = segments<Layer>('Layer', [['all', 'All'], ['file', `File ${count('file')}`], ['env', `Env ${count('env')}`], ['flag', `Flag ${count('flag')}`], ['default', `Default ${count('default')}`]], 'all', (v) => this.set(() => (this.layer = v)));
    const views = segments<View>('View', [['effective', 'Effective'], ['explain', 'Explain']], 'effective', (v) => this.set(() => (this.view = v)));
    this.el = h('div', null, h('div.row', null, views.el, layers.el, filter.el, button('Copy as YAML', () => copy(answer.yaml), 'push')), this.box);
    this.draw();
  }

  private set(change: () => void): void {
    change();
    this.draw();
  }

  private draw(): void {
    fill(this.box, this.view === 'effective' ? this.effective() : this.explain());
  }

  private keep(text: string, layer: Explained['layer'] | undefined): boolean {
    return (this.layer === 'all' || layer === this.layer) && (!this.q || text.toLowerCase().includes(this.q));
  }

  private effective(): Child {
    const rows = this.lines.flatMap(({ text, explained }, i) => {
      if (!this.keep(text, explained?.layer)) return [];
      const from: Child = explained ? [h('b', null, explained.layer), explained.where ? ` ${explained.where}` : ''] : null;
      return [h('div.ln', null, h('span.no', null, i + 1), h('span.tx', { class: explained?.layer === 'default' ? 'def' : '' }, coloured(text)), h('span.ly', null, from))];
    });
    return rows.length ? h('div.cfg', { 'data-testid': 'config' }, rows) : none();
  }

  private explain(): Child {
    const rows = this.answer.explain.filter((e) => this.keep(`${e.path} ${e.value}`, e.layer));
    if (!rows.length) return none();
    const table = h('table', null, h('thead', null, h('tr', null, ['Key', 'Value', 'Layer', 'Where'].map((name) => h('th', null, name)))), h('tbody', null, rows.map((e) => h('tr', null, h('td.mono', null, e.path), h('td.mono.wrap', null, e.value), h('td', null, e.layer), h('td.dim', null, e.where)))));
    return h('div.tw', { tabindex: '0', role: 'region', 'aria-label': 'Every key with its layer', 'data-testid': 'explain' }, table);
  }
}

const none = () => h('p.dim', null, 'No key or value matches. Clear the filter, or choose All.');

function coloured(line: string): Child {
  const parts = /^(\s*(?:- )?)([\w.-]+)(:)(.*)$/.exec(line);
  return parts ? [parts[1], h('span.k', null, parts[2]), h('span.s', null, parts[3]), h('span.v', null, parts[4])] : line || ' ';
}
