// Levels and services of what matches, with counts; a click narrows.
import type { LogsAnswer } from '../api/types';
import { fill, h } from '../dom/element';
import * as format from '../dom/format';

export interface Choice {
  q: string;
  level: Set<string>;
  service: Set<string>;
  trace_id: string;
}

export const LEVELS = ['error', 'warn', 'info', 'debug'];
const SERVICES_SHOWN = 40;

const split = (text: string | null) => new Set((text ?? '').split(',').filter(Boolean));

export function emptyChoice(args: URLSearchParams): Choice {
  return { q: args.get('q') ?? '', level: split(args.get('level')), service: split(args.get('service')), trace_id: args.get('trace_id') ?? '' };
}

/** The four levels that have a colour; fatal reads as error, trace as debug, anything else as info. */
export function levelClass(level: string): string {
  const l = level.toLowerCase();
  if (l === 'fatal' || l === 'critical' || l === 'error') return 'error';
  if (l === 'warn' || l === 'warning') return 'warn';
  return l === 'debug' || l === 'trace' ? 'debug' : 'info';
}

export class Facets {
  readonly el = h('div.facet');
  private counts: LogsAnswer['facets'] = { level: {}, service: {} };

  constructor(
    private readonly choice: () => Choice,
    private readonly choose: (change: Partial<Choice>) => void,
  ) {}

  learn(facets: LogsAnswer['facets']): void {
    this.counts = facets;
    this.draw();
  }

  draw(): void {
    const focused = document.activeElement instanceof HTMLElement && this.el.contains(document.activeElement) ? document.activeElement.dataset['key'] : undefined;
    const { level, service } = this.choice();
    const levels = Object.keys(this.counts.level).concat(LEVELS, [...level]);
    const order = [...new Set(levels)].sort((a, b) => LEVELS.indexOf(levelClass(a)) - LEVELS.indexOf(levelClass(b)) || LEVELS.indexOf(b) - LEVELS.indexOf(a));
    const services = [...new Set([...Object.keys(this.counts.service), ...service])].sort((a, b) => (this.counts.service[b] ?? 0) - (this.counts.service[a] ?? 0));
    fill(
      this.el,
      h('h2.fh', null, 'Level'),
      order.map((v) => this.row('level', v, level, `--lv-${levelClass(v)}`)),
      h('h2.fh', null, 'Service'),
      services.slice(0, SERVICES_SHOWN).map((v) => this.row('service', v, service)),
      services.length ? null : h('p.dim.none', null, 'none yet'),
      services.length > SERVICES_SHOWN ? h('p.dim.none', null, `and ${format.int(services.length - SERVICES_SHOWN)} more; filter by name`) : null,
    );
    if (focused) this.el.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private row(kind: 'level' | 'service', value: string, on: Set<string>, color?: string): HTMLElement {
    const toggle = () => {
      const next = new Set(on);
      if (!next.delete(value)) next.add(value);
      this.choose({ [kind]: next });
    };
    return h(
      'button.pick',
      { type: 'button', 'aria-pressed': String(on.has(value)), 'data-key': `${kind} ${value}`, onclick: toggle },
      h('span.a', null, color ? h('span.sw', { style: { background: `var(${color})` } }) : null, h('span', null, value || 'none')),
      h('span.b', null, format.num(this.counts[kind][value] ?? 0)),
    );
  }
}
