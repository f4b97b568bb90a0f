// Loading, error, empty: what stands where data would be. Never a picture, always what to do.
import { ApiError } from './api/client';
import { RETRY_MS } from './api/stream';
import { h, type Child } from './dom/element';
import { link, paste } from './dom/parts';

/** Grey blocks with the heights that the content will have. Only at the first paint. */
export function skeleton(heights_px: readonly number[]): HTMLElement {
  return h('div.skeleton', { role: 'status', 'aria-label': 'Loading' }, heights_px.map((px) => h('div', { style: { height: `${px}px` } })));
}

const DIM_AFTER_MS = 300;

/** Runs a request; the old view stays, and is dimmed only if the answer takes longer than people notice. */
export async function dimmed<T>(el: HTMLElement, request: Promise<T>): Promise<T> {
  const id = setTimeout(() => el.classList.add('dimmed'), DIM_AFTER_MS);
  try {
    return await request;
  } finally {
    clearTimeout(id);
    el.classList.remove('dimmed');
  }
}

/** The message as the gateway gave it, and what happens next. */
export function trouble(cause: unknown, retry?: () => void): HTMLElement {
  const message = cause instanceof Error ? cause.message : String(cause);
  const gone = cause instanceof ApiError && cause.trouble === 'gone';
  const next: Child = gone ? `Trying again every ${RETRY_MS / 1000} s.` : retry ? h('button.linklike', { type: 'button', onclick: retry }, 'Try again') : null;
  return h('div.empty', { role: 'alert', 'data-testid': 'trouble' }, h('p', null, h('b', null, 'This could not be read. '), message), h('p.dim', null, next));
}

/** The local view is off: names the line to add. */
export function viewOff(file: string | undefined): HTMLElement {
  return h(
    'div.empty',
    { 'data-testid': 'view-off' },
    h('p.big', null, 'The local view is off.'),
    h('p.t2', null, 'Records are taken, kept and delivered, but none is held in memory for this page. To see them here, add this line to ', h('code', null, file ?? 'the configuration file'), ' and start the gateway again:'),
    paste('local_view: { max: 64MiB }', 'Line to add').el,
    h('p.dim', null, 'It keeps the last 15 minutes, at most 64 MiB. ', link('Configuration in force', '#/config')),
  );
}
