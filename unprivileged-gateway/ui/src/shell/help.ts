// The list of keys, as a dialog.
import { h } from '../dom/element';
import { KEYS } from './keyboard';

const JUMPS: readonly (readonly [string, string])[] = [
  ['g o', 'Overview'],
  ['g p', 'Profiles'],
  ['g l', 'Logs'],
  ['g t', 'Traces'],
  ['g m', 'Metrics'],
  ['g a', 'Targets'],
  ['g c', 'Cluster'],
  ['g b', 'Probe'],
  ['g f', 'Config'],
];

export function helpDialog(): HTMLDialogElement {
  const row = ([keys, what]: readonly [string, string]) => h('div', null, h('span', null, what), h('span', null, keys.split(' ').map((key) => h('kbd', null, key))));
  const close = h('button.btn', { type: 'button', onclick: () => dialog.close() }, 'Close');
  const dialog = h('dialog', { id: 'help', 'aria-label': 'Keyboard' }, h('div.pad', null, h('div.head', null, h('h2', null, 'Keyboard'), h('span.push', null, close)), h('div.kc', null, KEYS.map(row), JUMPS.map(row))));
  dialog.addEventListener('click', (e) => {
    if (e.target === dialog) dialog.close();
  });
  return dialog;
}
