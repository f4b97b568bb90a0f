// Who uses the CPU: services, and the processes of each, with the cores they used over what is shown.
import type { ProcessGroup, ProcessesAnswer } from '../api/types';
import { fill, h } from '../dom/element';
import * as format from '../dom/format';

const GROUPS_SHOWN = 100;
const PIDS_SHOWN = 20;

export interface Picked {
  service: string;
  pid: string;
}

export class ProcessList {
  readonly el = h('div', { role: 'group', 'aria-label': 'Processes' });
  private answer: ProcessesAnswer | null = null;
  private filter = '';

  constructor(
    private readonly picked: () => Picked,
    private readonly pick: (picked: Picked) => void,
  ) {}

  learn(answer: ProcessesAnswer): void {
    this.answer = answer;
    this.draw();
  }

  narrow(filter: string): void {
    this.filter = filter.trim().toLowerCase();
    this.draw();
  }

  draw(): void {
    const { answer } = this;
    if (!answer) return;
    const focused = document.activeElement instanceof HTMLElement && this.el.contains(document.activeElement) ? document.activeElement.dataset['key'] : undefined;
    const now = this.picked();
    const most = Math.max(1, ...answer.groups.map((g) => g.samples));
    const found = answer.groups.filter((g) => !this.filter || [g.service, g.comm, g.namespace, g.pod, ...g.processes.flatMap((p) => [p.comm, String(p.pid)])].some((t) => t.toLowerCase().includes(this.filter)));
    const share = (n: number) => (answer.total_samples ? format.percent(n / answer.total_samples) : '–');
    fill(
      this.el,
      this.row('', 'All processes', answer.total_samples ? '100\u2009%' : '–', '', 0, !now.service, { service: '', pid: '' }),
      found.slice(0, GROUPS_SHOWN).map((g) => {
        const open = g.service === now.service;
        const where = g.namespace ? `${g.namespace}/${g.pod}` : g.processes.length === 1 ? `pid ${g.processes[0]?.pid ?? ''}` : `${g.processes.length} processes`;
        const pids = open && g.processes.length > 1 ? g.processes.slice(0, PIDS_SHOWN).map((p) => this.row(`${g.service} ${p.pid}`, `${p.comm} ${p.pid}`, share(p.samples), '', 0, now.pid === String(p.pid), { service: g.service, pid: now.pid === String(p.pid) ? '' : String(p.pid) }, true)) : null;
        return [this.row(g.service, titleOf(g), share(g.samples), where, g.samples / most, open && !now.pid, { service: g.service, pid: '' }), pids];
      }),
      found.length ? null : h('p.dim.none', null, answer.groups.length ? 'No process matches.' : 'none yet'),
      found.length > GROUPS_SHOWN ? h('p.dim.none', null, `and ${format.int(found.length - GROUPS_SHOWN)} more; filter by name`) : null,
    );
    if (focused !== undefined) this.el.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private row(key: string, title: string, value: string, note: string, width: number, on: boolean, next: Picked, inner = false): HTMLElement {
    return h(
      'button.pick.profiles',
      { type: 'button', class: inner ? 'inner' : '', 'aria-pressed': String(on), 'data-key': key, 'data-testid': 'process', title: format.shown(key || title), onclick: () => this.pick(next) },
      h('span.a', null, h('bdi', null, format.shown(title))),
      h('span.b', null, value),
      note ? h('span.c', null, h('bdi', null, format.shown(note))) : null,
      width > 0 ? h('span.m', null, h('i', { style: { width: `${Math.max(1, Math.round(width * 100))}%` } })) : null,
    );
  }
}

/** `ebpf/python3` reads as "python3": the prefix is the same for all. */
function titleOf(group: ProcessGroup): string {
  return group.service.replace(/^ebpf\//, '') || group.comm;
}
