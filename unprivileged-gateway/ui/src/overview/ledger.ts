// The ledger: for each destination accepted = sent + waiting + quarantined + dropped + damaged, or by how much it is not.
// The numbers are those of /api/v1/status and /metrics, exact and not rounded.
import type { DestinationStatus, SignalName, Status } from '../api/types';
import { h, text, dress } from '../dom/element';
import * as format from '../dom/format';
import { head } from '../dom/parts';
import { isView, nameOf, titleOf } from '../health';
import type { Part } from './page';
import { SIGNALS } from './pipeline';

/** What the five outcomes leave unexplained; 0 when the row adds up. */
export const unexplained = (d: DestinationStatus) => d.accepted - (d.sent + d.waiting.records + d.quarantined + d.dropped + d.damaged);

const COLUMNS = ['Accepted', 'Sent', 'Waiting', 'Quarantined', 'Dropped', 'Damaged', 'Adds up', 'Refused (sender keeps it)'];

export function ledger(): Part {
  const body = h('tbody');
  const rows = new Map<string, { el: HTMLElement; cells: HTMLElement[] }>();
  const table = h('table.ledger', null, h('thead', null, h('tr', null, h('th', null, 'Signal'), h('th', null, 'Destination'), COLUMNS.map((name) => h('th.r', null, name)))), body);
  return {
    el: h(
      'section.sec',
      null,
      head('Ledger since start', 'accepted = sent + waiting + quarantined + dropped + damaged, per destination; the numbers of /metrics'),
      h('div.tw', { tabindex: '0', role: 'region', 'aria-label': 'Ledger' }, table),
    ),
    update(status) {
      const seen = new Set<SignalName>();
      for (const d of status.destinations) {
        const key = nameOf(d);
        let row = rows.get(key);
        if (!row) {
          row = newRow(d);
          rows.set(key, row);
          body.append(row.el);
        }
        write(row.cells, d, refusedAtTheDoor(status, d, seen));
      }
    },
  };
}

function newRow(d: DestinationStatus): { el: HTMLElement; cells: HTMLElement[] } {
  const cells = COLUMNS.map(() => h('td.r'));
  const titles = d.signals.map((name) => h('span', { class: name }, h('span.sw'), SIGNALS.find((s) => s.name === name)?.title ?? name));
  const name = [titleOf(d), ' ', h('span.dim.hide-s', null, isView(d) ? 'this page' : `send.${d.kind}.${d.name}`)];
  return { el: h('tr', { 'data-testid': 'ledger-row', 'data-name': nameOf(d) }, h('td.sigs', null, titles), h('td', null, name), cells), cells };
}

/** Refusals happen before any destination is known, so each signal's are written once, in its first row. */
function refusedAtTheDoor(status: Status, d: DestinationStatus, seen: Set<SignalName>): number | null {
  const fresh = d.signals.filter((signal) => !seen.has(signal));
  for (const signal of fresh) seen.add(signal);
  if (!fresh.length) return null;
  return fresh.reduce((sum, signal) => sum + Object.values(status.signals[signal]?.refused ?? {}).reduce((a, b) => a + b, 0), 0);
}

function write(cells: HTMLElement[], d: DestinationStatus, refused: number | null): void {
  const off = unexplained(d);
  const held = d.state === 'retrying' || d.state === 'removed' || (d.waiting.oldest_age_s ?? 0) > 10;
  const values: [number | null, string][] = [
    [d.accepted, ''],
    [d.sent, ''],
    [d.waiting.records, held ? 'hold' : ''],
    [d.quarantined, ''],
    [d.dropped, 'bad'],
    [d.damaged, 'bad'],
    [off, 'bad'],
    [refused, 'bad'],
  ];
  values.forEach(([n, cls], i) => {
    const cell = cells[i];
    if (!cell) return;
    const sum = i === 6;
    text(cell, n === null ? '' : sum ? (n === 0 ? 'yes' : `off by ${format.int(n)}`) : format.int(n));
    dress(cell, `r ${sum && n === 0 ? 'z' : n ? cls : 'z'}`.trim());
  });
}
