// Small parts that every page uses: headings, key-value lists, segments, fields, copy, notices.
import { fill, h, type Child } from './element';
import { icon } from './icon';

export function head(title: string, note?: Child, ...push: Child[]): HTMLElement {
  return h('div.head', null, h('h2', null, title), note ? h('span.note', null, note) : null, push.length ? h('span.push', null, push) : null);
}

export function keyValues(pairs: readonly (readonly [Child, Child, string?])[], cls?: string): HTMLElement {
  return h('dl.kv', { class: cls }, pairs.map(([key, value, c]) => [h('dt', null, key), h('dd', { class: c }, value)]));
}

/** State is shape, word and colour: round fine, diamond held, square at risk, ring off. The word stands beside it. */
export type State = 'ok' | 'wait' | 'risk' | 'off';

export function stateMark(state: State): HTMLElement {
  return h(`span.st`, { class: state === 'ok' ? '' : state, 'data-state': state });
}

export function setMark(el: HTMLElement, state: State): void {
  const cls = state === 'ok' ? 'st' : `st ${state}`;
  if (el.className !== cls) el.className = cls;
  el.dataset['state'] = state;
}

export interface Segments<V> {
  el: HTMLElement;
  set(value: V): void;
  step(by: 1 | -1): void;
}

export function segments<V extends string | number>(label: string, items: readonly (readonly [V, Child])[], value: V, pick: (value: V) => void): Segments<V> {
  let current = value;
  const buttons = items.map(([v, text]) => h('button', { type: 'button', 'data-v': String(v), onclick: () => choose(v) }, text));
  const el = h('div.seg', { role: 'group', 'aria-label': label }, buttons);
  const draw = () => buttons.forEach((b, i) => b.setAttribute('aria-pressed', String(items[i]?.[0] === current)));
  const choose = (v: V) => {
    current = v;
    draw();
    pick(v);
  };
  draw();
  return {
    el,
    set(v) {
      current = v;
      draw();
    },
    step(by) {
      const next = items[items.findIndex(([v]) => v === current) + by];
      if (next) choose(next[0]);
    },
  };
}

export function field(label: string, value: string, change: (value: string) => void, id: string): { el: HTMLElement; input: HTMLInputElement } {
  const input = h('input', { type: 'text', id, placeholder: label, spellcheck: 'false', autocomplete: 'off', oninput: () => change(input.value) });
  input.value = value;
  return { el: h('label.field', null, icon('search'), h('span.vh', null, label), input), input };
}

export function button(label: Child, run: () => void, cls = ''): HTMLButtonElement {
  return h('button.btn', { type: 'button', class: cls, onclick: run }, label);
}

export function link(label: Child, href: string): HTMLElement {
  return h('a.linklike', { href }, label);
}

/** Lines to paste, with a button that copies exactly them. */
export function paste(lines: string, label: string): { el: HTMLElement; show(lines: string): void } {
  const pre = h('pre.paste', { tabindex: '0', role: 'region', 'aria-label': label }, lines);
  return {
    el: h('div.copyable', null, pre, button('Copy', () => copy(pre.textContent ?? ''))),
    show: (text) => fill(pre, text),
  };
}

const TOAST_MS = 3_200;

export function toast(text: string): void {
  const el = h('div.toast', { role: 'status' }, text);
  document.body.append(el);
  setTimeout(() => el.remove(), TOAST_MS);
}

export function copy(text: string): void {
  const clipboard = navigator.clipboard as Clipboard | undefined; // absent off localhost without TLS
  if (!clipboard) return toast('Copying needs localhost or TLS; select the text instead');
  clipboard.writeText(text).then(
    () => toast('Copied'),
    () => toast('Copying is not allowed here; select the text instead'),
  );
}

const spoken = h('div.vh', { 'aria-live': 'polite' });

/** Says something to a screen reader without showing it. */
export function say(text: string): void {
  if (!spoken.isConnected) document.body.append(spoken);
  spoken.textContent = text;
}

/** Runs once things have been quiet for `ms`: typing into a filter asks one question, not one a letter. */
export function debounce(ms: number, run: () => void): () => void {
  let id: ReturnType<typeof setTimeout> | undefined;
  return () => {
    clearTimeout(id);
    id = setTimeout(run, ms);
  };
}
