// Elements without markup: h('div.cls', { onclick, 'aria-label': … }, ...children).
// Text is always text, so nothing a sender wrote is ever parsed as HTML; styles go through the object model, so a strict CSP holds.

export type Child = Node | string | number | null | undefined | false | readonly Child[];

type TagOf<S extends string> = S extends `${infer Name}.${string}` ? Name : S;
type ElementOf<S extends string> = TagOf<S> extends keyof HTMLElementTagNameMap ? HTMLElementTagNameMap[TagOf<S>] : HTMLElement;

export interface Props {
  class?: string | false | undefined;
  style?: Record<string, string>;
  [name: string]: unknown;
}

export function h<S extends string>(spec: S, props?: Props | null, ...kids: Child[]): ElementOf<S> {
  const [name, ...classes] = spec.split('.');
  const el = document.createElement(name || 'div');
  if (classes.length) el.className = classes.join(' ');
  for (const [key, value] of Object.entries(props ?? {})) set(el, key, value);
  put(el, kids);
  return el as ElementOf<S>;
}

function set(el: HTMLElement, key: string, value: unknown): void {
  if (value === null || value === undefined || value === false) return;
  if (key === 'class') el.classList.add(...String(value).split(' ').filter(Boolean));
  else if (key === 'style') for (const [name, text] of Object.entries(value as Record<string, string>)) el.style.setProperty(name, text);
  else if (key.startsWith('on')) el.addEventListener(key.slice(2), value as EventListener);
  else el.setAttribute(key, value === true ? '' : String(value));
}

function put(el: Element, child: Child): void {
  if (child === null || child === undefined || child === false) return;
  if (Array.isArray(child)) for (const one of child as readonly Child[]) put(el, one);
  else el.append(child instanceof Node ? child : String(child));
}

/** Replaces what an element holds. */
export function fill(el: Element, ...kids: Child[]): void {
  el.replaceChildren();
  put(el, kids);
}

/** Sets text only if it differs: an unchanged number causes no layout. */
export function text(el: Element, value: string): void {
  if (el.textContent !== value) el.textContent = value;
}

/** Sets a class name only if it differs. */
export function dress(el: Element, value: string): void {
  if (el.className !== value) el.className = value;
}
