// Keys of the whole page. None fires while somebody types, inside a dialog, or with a modifier (Ctrl K apart).

export interface KeyActions {
  palette(): void;
  help(): void;
  theme(): void;
  filter(): void;
  pause(): void;
  range(by: 1 | -1): void;
  /** `g` + letter; false if the letter means nothing. */
  go(letter: string): boolean;
  escape(): void;
}

export const KEYS: readonly (readonly [string, string])[] = [
  ['/', 'search or go to'],
  ['Ctrl K', 'the same'],
  ['f', 'filter of this page'],
  ['Space', 'pause, go live'],
  ['[ ]', 'shorter, longer time range'],
  ['t', 'light, dark'],
  ['↑ ↓', 'walk lines, traces, spans'],
  ['Enter', 'expand'],
  ['Esc', 'clear, close'],
  ['Shift →', 'widen the time brush'],
  ['?', 'this list'],
];

const SECOND_KEY_MS = 1_200;

export function listenKeys(actions: KeyActions): void {
  let since = -Infinity; // when `g` was pressed
  const single: Record<string, () => void> = {
    '/': actions.palette,
    '?': actions.help,
    t: actions.theme,
    f: actions.filter,
    '[': () => actions.range(-1),
    ']': () => actions.range(1),
    ' ': actions.pause,
    Escape: actions.escape,
  };
  addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
      event.preventDefault();
      return actions.palette();
    }
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || taken(event)) return;
    const armed = event.timeStamp - since < SECOND_KEY_MS;
    since = -Infinity;
    if (armed && actions.go(event.key)) return event.preventDefault();
    if (event.key === 'g') {
      since = event.timeStamp;
      return;
    }
    const run = single[event.key];
    if (!run || (event.key === ' ' && pressable(event.target))) return;
    if (event.key !== 'Escape') event.preventDefault();
    run();
  });
}

function taken(event: KeyboardEvent): boolean {
  if (document.querySelector('dialog[open]')) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement) || !/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return false;
  if (event.key === 'Escape') target.blur();
  return true;
}

/** Space already means "press" here. */
function pressable(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest('button, a, summary, [role=button]') !== null;
}
