// `/` or Ctrl K: type a part of a name, go there.
import { fill, h } from '../dom/element';

export interface Entry {
  group: string;
  name: string;
  hint: string;
  run(): void;
}

const SHOWN = 40;

export class Palette {
  readonly el = h('dialog', { id: 'palette', 'aria-label': 'Search or go to' });
  private at = 0;
  private found: Entry[] = [];
  private all: Entry[] = [];
  private readonly list = h('ul', { role: 'listbox', id: 'palette-list', 'aria-label': 'Results' });
  private readonly input = h('input', {
    type: 'text',
    placeholder: 'Page, destination, service, action',
    role: 'combobox',
    'aria-expanded': 'true',
    'aria-controls': 'palette-list',
    'aria-label': 'Search or go to',
    spellcheck: 'false',
    autocomplete: 'off',
    oninput: () => this.search(),
    onkeydown: (e: KeyboardEvent) => this.key(e),
  });

  constructor(private readonly entries: () => Entry[]) {
    const foot = h('div.foot', null, h('span', null, h('kbd', null, '↑'), ' ', h('kbd', null, '↓'), ' choose'), h('span', null, h('kbd', null, 'Enter'), ' go'), h('span', null, h('kbd', null, 'Esc'), ' close'));
    this.el.append(this.input, this.list, foot);
    this.el.addEventListener('click', (e) => {
      if (e.target === this.el) this.el.close();
    });
  }

  open(): void {
    if (this.el.open) return;
    this.all = this.entries();
    this.input.value = '';
    this.search();
    this.el.showModal();
    this.input.focus();
  }

  private search(): void {
    const words = this.input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    this.found = rank(this.all, words).slice(0, SHOWN);
    this.at = 0;
    this.draw();
  }

  private draw(): void {
    const rows = this.found.map((e, i) =>
      h('li', { role: 'option', id: `palette-${i}`, 'aria-selected': String(i === this.at), onclick: () => this.run(i) }, h('span.g', null, e.group), h('span', null, e.name), h('span.h', null, e.hint)),
    );
    fill(this.list, rows.length ? rows : h('li.dim', { role: 'option', 'aria-selected': 'false' }, 'Nothing has this name.'));
    this.input.setAttribute('aria-activedescendant', this.found.length ? `palette-${this.at}` : '');
    this.list.children[this.at]?.scrollIntoView({ block: 'nearest' });
  }

  private key(event: KeyboardEvent): void {
    const by = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    if (by) {
      event.preventDefault();
      this.at = (this.at + by + this.found.length) % Math.max(1, this.found.length);
      this.draw();
    } else if (event.key === 'Enter') {
      event.preventDefault();
      this.run(this.at);
    }
  }

  private run(index: number): void {
    const entry = this.found[index];
    if (!entry) return;
    this.el.close();
    entry.run();
  }
}

/** All words must occur; the earlier they stand in the name, the better. */
export function rank(all: readonly Entry[], words: readonly string[]): Entry[] {
  const scored: [number, Entry][] = [];
  for (const entry of all) {
    const text = `${entry.name} ${entry.hint} ${entry.group}`.toLowerCase();
    const at = words.map((word) => text.indexOf(word));
    if (!at.includes(-1)) scored.push([at.reduce((a, b) => a + b, 0), entry]);
  }
  return scored.sort((a, b) => a[0] - b[0]).map(([, entry]) => entry);
}
