// Light, dark, or what the system says until the reader chooses. Also the one place that reads tokens for canvases.
import { Topic } from './topic';
import { recall, remember } from './memory';

export type Theme = 'light' | 'dark';

export const themeChanged = new Topic<Theme>();
const systemLight = matchMedia('(prefers-color-scheme: light)');
let tokens = new Map<string, string>();

export function currentTheme(): Theme {
  return document.documentElement.dataset['theme'] === 'light' ? 'light' : 'dark';
}

export function startTheme(): void {
  const chosen = () => recall('theme');
  const follow = () => {
    const wanted = chosen();
    put(wanted === 'light' || wanted === 'dark' ? wanted : systemLight.matches ? 'light' : 'dark');
  };
  follow();
  systemLight.addEventListener('change', follow);
}

export function flipTheme(): void {
  const next = currentTheme() === 'dark' ? 'light' : 'dark';
  remember('theme', next);
  put(next);
}

function put(theme: Theme): void {
  document.documentElement.dataset['theme'] = theme;
  tokens = new Map();
  themeChanged.tell(theme);
}

/** The value of a token of the style sheet, such as `--logs`. */
export function token(name: string): string {
  let value = tokens.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    tokens.set(name, value);
  }
  return value;
}

/** `#rrggbb` with an opacity. */
export function alpha(hex: string, opacity: number): string {
  const n = parseInt(hex.slice(1), 16);
  return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${opacity})`;
}

const still = matchMedia('(prefers-reduced-motion: reduce)');
export const calm = () => still.matches;

const NARROW_PX = 760;
export const narrow = () => innerWidth <= NARROW_PX;
