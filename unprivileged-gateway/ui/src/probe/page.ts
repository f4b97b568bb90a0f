// Probe: is a sample or a byte lost, what does it cost, which privilege is really held?
import type { Page, PageContext } from '../app';
import { ask } from '../api/client';
import { attended } from '../attention';
import type { ProbeAnswer, ProbeHello, ProbeStatus } from '../api/types';
import { fill, h, text } from '../dom/element';
import * as format from '../dom/format';
import { head, keyValues, stateMark } from '../dom/parts';
import { Scope } from '../scope';
import { dimmed, skeleton, trouble } from '../waiting';
import { capabilities, endTitle, mask, seccompMode, whole } from './caps';
import { cpuStrips, remember } from './cpus';
import { disconnected } from './state';

const ASK_MS = 2_000;
const ASK_ALONE_EACH = 5;
const GROUPS_SHOWN = 8;

export const probe: Page = {
  title: 'Probe',
  icon: 'probe',
  key: 'b',
  timeless: true,
  mount(context) {
    const body = h('div', { 'data-testid': 'probe' });
    context.main.append(body);
    body.append(skeleton([60, 220, 220]));
    const view = new ProbeView(context, body);
    let turns = 0;
    context.scope.every(ASK_MS, () => (attended() || turns++ % ASK_ALONE_EACH === 0) && void view.load());
    context.scope.add(context.app.stream.changed.on((link) => link === 'live' && void view.load()));
  },
};

interface Parts {
  update(answer: ProbeAnswer, hello: ProbeHello | null, status: ProbeStatus): void;
}

class ProbeView {
  private shape = '';
  private inner = new Scope();
  private parts: Parts | null = null;
  private turn = 0;

  constructor(
    private readonly context: PageContext,
    private readonly body: HTMLElement,
  ) {
    context.scope.add(() => this.inner.end());
  }

  async load(): Promise<void> {
    const turn = ++this.turn;
    try {
      const answer = await dimmed(this.body, ask<ProbeAnswer>('probe', {}, this.context.scope.signal));
      if (turn === this.turn) this.show(answer);
    } catch (cause) {
      if (this.context.scope.signal.aborted || turn !== this.turn) return;
      this.shape = '';
      fill(this.body, trouble(cause, () => void this.load()));
    }
  }

  private show(answer: ProbeAnswer): void {
    const { status, hello } = answer;
    this.context.summary(summary(answer));
    const shape = answer.connected && status ? JSON.stringify([hello?.start, status.cpus.length]) : JSON.stringify([answer.configured, answer.connected, answer.last_error]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.inner.end();
      this.inner = new Scope();
      this.parts = null;
      if (!answer.connected) fill(this.body, disconnected(answer));
      else if (!status) fill(this.body, h('div.empty', null, h('p', null, 'The probe is connected and has not reported yet. It does so every second.')));
      else this.build(status);
    }
    if (status && this.parts) {
      remember(answer, this.context.app.time.now());
      this.parts.update(answer, hello ?? null, status);
    }
  }

  private build(status: ProbeStatus): void {
    const strips = cpuStrips({ ...this.context, scope: this.inner }, status.cpus.map((c) => c.cpu));
    const boxes = { ends: h('div.bars'), endsNote: h('span.note'), lost: h('tbody'), cost: h('div'), log: h('div'), features: h('tbody'), caps: h('tbody'), rights: h('div'), proofs: h('tbody'), nursery: h('div'), idle: h('p.dim') };
    const table = (heads: string[], body: HTMLElement, label: string) => h('div.tw', { tabindex: '0', role: 'region', 'aria-label': label }, h('table', null, h('thead', null, h('tr', null, heads.map((t, i) => h(i && /since|bytes/i.test(t) ? 'th.r' : 'th', null, t)))), body));
    fill(
      this.body,
      h('section.sec', null, head('Samples per CPU', 'last two minutes; a sample needs a running thread: an idle CPU shows less than wanted, and nothing is lost'), boxes.idle, strips.el),
      h(
        'div.cols.sec',
        null,
        h(
          'div.c7',
          null,
          h('section.sec', null, h('div.head', null, h('h2', null, 'How stacks end'), boxes.endsNote), boxes.ends),
          h('section.sec', null, head('Privileges held', 'as the kernel says, not as requested'), table(['Set', 'Value', 'Means'], boxes.caps, 'Capability sets'), h('div.gap', null, boxes.rights)),
          h('section.sec', null, head('Proof of the drop', 'tried after it, at every start'), table(['Tried', 'Answer of the kernel'], boxes.proofs, 'Functional proofs')),
        ),
        h(
          'div.c5',
          null,
          h('section.sec', null, head('Lost', 'every cause is counted, also when zero'), table(['Cause', 'Since start'], boxes.lost, 'Lost samples and bytes by cause')),
          h('section.sec', null, head('Cost'), boxes.cost),
          h('section.sec', null, head('Log bytes'), boxes.log),
          h('section.sec', null, head('Features'), table(['Feature', 'State'], boxes.features, 'Features')),
          h('section.sec', null, head('Nursery', 'the process that starts the parsers of program files'), boxes.nursery),
        ),
      ),
    );
    this.parts = {
      update(answer, hello, now) {
        const off = hello?.features.find((f) => f.name === 'cpu' && !f.on);
        fill(boxes.idle, off ? `Nothing is sampled: the feature "cpu" is off: ${off.reason || 'no reason given'}` : now.cpus.length ? null : 'No sample has been taken yet.');
        strips.update(answer, now, hello);
        text(boxes.endsNote, endsNote(now));
        fill(boxes.ends, endRows(now));
        fill(boxes.lost, lostRows(now));
        fill(boxes.cost, keyValues(costs(answer, now)));
        fill(boxes.log, keyValues(logFacts(answer, now)));
        fill(boxes.features, featureRows(hello, now));
        fill(boxes.caps, capRows(now));
        fill(boxes.rights, keyValues(rights(now)));
        fill(boxes.proofs, proofRows(now));
        fill(boxes.nursery, keyValues(nursery(now, off)));
      },
    };
  }
}

function summary(answer: ProbeAnswer): string {
  if (!answer.connected) return answer.configured ? 'not connected' : 'none configured';
  const { hello, since_ms } = answer;
  return [hello?.kernel ? `kernel ${hello.kernel}` : '', `connected over ${answer.socket ?? 'its socket'}`, since_ms ? `since ${format.time(since_ms)}` : ''].filter(Boolean).join(', ');
}

const sum = (counts: readonly { value: number }[]) => counts.reduce((total, c) => total + c.value, 0);

function endsNote(status: ProbeStatus): string {
  const total = sum(status.ends);
  if (!total) return 'no stack yet';
  return `${format.percent(sum(status.ends.filter((e) => whole(e.name))) / total, 2)} whole of ${format.int(total)} since its start`;
}

/** Complete first, then by number: what is not whole is hatched, and says so. */
function endRows(status: ProbeStatus): HTMLElement[] {
  const total = sum(status.ends);
  const order = [...status.ends].sort((a, b) => Number(b.name === 'complete') - Number(a.name === 'complete') || Number(whole(b.name)) - Number(whole(a.name)) || b.value - a.value);
  return order.map(({ name, value }) => {
    const share = total ? value / total : 0;
    return h(
      'div',
      { 'data-testid': 'end-row', 'data-name': name, class: value ? '' : 'zero' },
      h('span', { title: name }, endTitle(name)),
      h('div.meter', { class: whole(name) ? 'whole' : 'cutoff', 'aria-hidden': 'true' }, h('i', { style: { width: `${value ? Math.max(0.6, share * 100) : 0}%` } })),
      h('span.n', null, format.num(value)),
      h('span.p', null, !total ? '–' : share > 0 && share < 0.0001 ? '<0.01\u2009%' : format.percent(share, share > 0.1 ? 1 : 2)),
    );
  });
}

function lostRows(status: ProbeStatus): HTMLElement[] {
  const rows: [string, string, number, (n: number) => string][] = [
    ...status.lost.map((c): [string, string, number, (n: number) => string] => ['Samples', c.name, c.value, format.int]),
    ['Samples', 'ring of the door full', status.stacks_dropped, format.int],
    ...status.log_dropped.map((c): [string, string, number, (n: number) => string] => ['Log bytes', c.name, c.value, format.bytes]),
    ...status.files_refused.map((c): [string, string, number, (n: number) => string] => ['Files not opened', c.name, c.value, format.int]),
  ];
  return rows.map(([what, why, value, show]) => {
    const bad = value > 0 && what !== 'Files not opened';
    return h('tr', null, h('td.wrap', null, h('span.dim', null, `${what}, `), why.replace(/_/g, ' ')), h('td.r', { class: bad ? 'bad' : value ? '' : 'dim' }, show(value)));
  });
}

function costs(answer: ProbeAnswer, status: ProbeStatus): [string, string][] {
  const { hello, rates } = answer;
  const percent = rates?.probe_cpu_percent;
  return [
    ['CPU now', percent === undefined ? 'not known' : `${format.percent(percent / 100, 2)} of one core`],
    ['CPU time', `${format.dur(status.cpu_ns / 1e9)} since its start`],
    ['BPF programs', status.bpf_ns ? `${format.dur(status.bpf_ns / 1e9)} since its start` : 'not known: the kernel counts it only with kernel.bpf_stats_enabled'],
    ['Memory', `${format.bytes(status.rss_bytes)} resident`],
    ['Unwind rows', status.rows_max ? `${format.num(status.rows_used)} of ${format.num(status.rows_max)}` : format.num(status.rows_used)],
    ['Processes', format.int(status.processes)],
    ['Rate', !status.cpus.length && !status.hz_now ? 'not sampled' : `${format.int(status.hz_now)} of ${format.int(hello?.hz ?? status.hz_now)} samples a second and CPU${hello && status.hz_now < hello.hz ? ', thinned under pressure' : ''}`],
    ['Stacks waiting', `${format.bytes(status.ring_bytes)} of ${format.size(status.ring_max)}`],
  ];
}

function logFacts(answer: ProbeAnswer, { log }: ProbeStatus): [string, string][] {
  return [
    ['Now', `${format.bytes(answer.rates?.log_bytes_per_s ?? NaN)}/s`],
    ['Read', format.bytes(log.read)],
    ['Sent', format.bytes(log.sent)],
    ['Durable', `${format.bytes(log.durable)}, on the disk of the gateway`],
    ['Waiting', format.bytes(log.waiting)],
    ['Files', `${format.int(log.files_open)} open, ${format.int(log.files_known)} known`],
  ];
}

function featureRows(hello: ProbeHello | null, status: ProbeStatus): HTMLElement[] {
  const rows = hello?.features ?? [];
  if (!rows.length) return [h('tr', null, h('td.dim', { colspan: '2' }, `none named; ${status.processes} processes`))];
  return rows.map((f) => h('tr', { 'data-testid': 'feature', 'data-name': f.name }, h('td', null, stateMark(f.on ? 'ok' : 'off'), f.name.replace(/_/g, ' ')), h('td.wrap', null, f.on ? 'on' : 'off', f.reason ? `: ${f.reason}` : '')));
}

function capRows(status: ProbeStatus): HTMLElement[] {
  const sets = ['effective', 'permitted', 'inheritable', 'bounding', 'ambient'] as const;
  return sets.map((set) => {
    const names = capabilities(status.caps[set]);
    return h('tr', { 'data-testid': 'caps', 'data-name': set }, h('td', null, set.charAt(0).toUpperCase() + set.slice(1)), h('td.mono', null, mask(status.caps[set])), h('td.wrap', { class: names.length ? '' : 'dim' }, names.length > 20 ? `${names.length}, with ${names.includes('SYS_ADMIN') ? 'SYS_ADMIN' : names.slice(0, 3).join(', ')}` : names.join(', ') || 'none'));
  });
}

function rights(status: ProbeStatus): [string, HTMLElement | string][] {
  const word = (good: boolean, yes: string, no: string) => h('span', null, stateMark(good ? 'ok' : 'risk'), ` ${good ? yes : no}`);
  const groups = status.groups.slice(0, GROUPS_SHOWN).join(', ') + (status.groups.length > GROUPS_SHOWN ? ', …' : '');
  return [
    ['User, group', `${status.uid}, ${status.gid}`],
    ['More groups', groups || 'none'],
    ['No new privileges', word(status.no_new_privs, '1', '0: a set-uid program could give some back')],
    ['Seccomp', word(status.seccomp === 2, `mode ${seccompMode(status.seccomp)}`, `mode ${seccompMode(status.seccomp)}: every system call is open`)],
    ['SYS_ADMIN', word(!capabilities(status.caps.effective).includes('SYS_ADMIN'), 'not held', 'held')],
  ];
}

function proofRows(status: ProbeStatus): HTMLElement[] {
  if (!status.dropped_proof.length) return [h('tr', null, h('td.dim', { colspan: '2' }, 'nothing was tried'))];
  return status.dropped_proof.map(([what, refused]) => h('tr', { 'data-testid': 'proof' }, h('td.wrap.mono', null, what), h('td', null, stateMark(refused ? 'ok' : 'risk'), refused ? 'refused, as wanted' : 'allowed, which it should not be')));
}

function nursery({ nursery: n }: ProbeStatus, off: { reason: string } | undefined): [string, HTMLElement | string][] {
  return [
    ['State', h('span', null, stateMark(n.alive ? 'ok' : off ? 'off' : 'wait'), n.alive ? ' alive' : off ? ' not needed while nothing is sampled' : ' gone: programs that start now get no table')],
    ['Parsers run', format.int(n.parsers_run)],
    ['Found nothing', format.int(n.failed)],
    ['Ended by force', format.int(n.killed)],
  ];
}
