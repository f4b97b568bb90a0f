// Overview: is everything delivered? If not: what is held, how long is there room, is anything lost?
import type { Page, PageContext } from '../app';
import type { Status } from '../api/types';
import { fill, h } from '../dom/element';
import * as format from '../dom/format';
import { head } from '../dom/parts';
import { acceptedOf, judge, keepsLocal } from '../health';
import { paceOf } from '../pace';
import { Scope } from '../scope';
import { skeleton } from '../waiting';
import { facts } from './facts';
import { firstRun, sendSomething } from './firstrun';
import { ledger } from './ledger';
import { pipeline } from './pipeline';
import { strips } from './strips';

/** A part of the page that is brought up to date once a second. */
export interface Part {
  el: HTMLElement;
  update(status: Status): void;
}

export const overview: Page = {
  title: 'Overview',
  icon: 'overview',
  key: 'o',
  mount(context) {
    const { app, main, scope, summary } = context;
    const banner = h('div', { role: 'status' });
    const body = h('div.stack');
    main.append(banner, body);
    let shape = '';
    let inner = new Scope();
    let parts: Part[] = [];
    scope.add(() => inner.end());
    const update = () => {
      const status = app.status();
      if (!status) return;
      const now = shapeOf(status);
      if (now !== shape) {
        shape = now;
        inner.end();
        inner = new Scope();
        parts = build({ ...context, scope: inner }, status);
        fill(body, parts.map((part) => part.el));
      }
      for (const part of parts) part.update(status);
      drawBanner(banner, status, context);
      summary(`${status.node.name}, up ${format.dur((status.now_ms - status.node.started_ms) / 1000)}`);
    };
    if (!app.status()) body.append(skeleton([384, 76, 160]));
    scope.add(
      app.stream.status.on(() => {
        if (!document.hidden) update();
      }),
    );
    scope.listen(document, 'visibilitychange', () => {
      if (!document.hidden) update();
    });
    update();
  },
};

/** What decides which parts stand where. While it is the same, only numbers change, and nothing moves. */
function shapeOf(status: Status): string {
  const served = Object.entries(status.signals).filter(([, s]) => s?.served);
  return JSON.stringify([
    acceptedOf(status) > 0,
    pushed(status) > 0,
    served.map(([name]) => name),
    status.sources.map((s) => [s.name, s.signal]),
    status.destinations.map((d) => [d.kind, d.name, d.signals, d.configured]),
  ]);
}

/** Records that came in over OTLP. */
const pushed = (status: Status) => status.sources.filter((s) => s.name.startsWith('otlp/')).reduce((sum, s) => sum + s.accepted, 0);

function build(context: PageContext, status: Status): Part[] {
  const silent = acceptedOf(status) === 0;
  if (silent && keepsLocal(status)) return [firstRun(context, status)];
  const facts_ = facts();
  const below: Part = {
    el: h('section.sec.narrowed', null, head('This instance'), facts_.el),
    update: facts_.update,
  };
  const parts = [pipeline(context, status), strips(context, status), ledger(), below];
  // Beside what the machine says of itself: nobody has sent anything yet, so the lines that change it stand where they are found.
  return silent ? [sendSomething(status), ...parts] : pushed(status) === 0 ? [...parts.slice(0, -1), sendSomething(status), below] : parts;
}

function drawBanner(el: HTMLElement, status: Status, context: PageContext): void {
  const health = judge(status, paceOf(status, context.app.history));
  if (!health.lead) return el.childElementCount ? el.replaceChildren() : undefined;
  const line = `${health.lead} ${health.detail}`;
  if (el.textContent === line) return;
  fill(el, h('div.banner', { class: health.state === 'risk' ? 'risk' : '', 'data-testid': 'banner' }, h('b', null, health.lead), ' ', h('span', null, health.detail)));
}
