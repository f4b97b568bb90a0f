// In and out of each signal over the window: colour is accepted, grey is delivered.
import type { SignalName, Status } from '../api/types';
import type { PageContext } from '../app';
import { Strip } from '../chart/strip';
import { h, text } from '../dom/element';
import * as format from '../dom/format';
import { head } from '../dom/parts';
import { RATE_WINDOW_MS, destinationKey, spanOf } from '../history';
import type { Part } from './page';
import { servedSignals } from './pipeline';

const LEFT_PX = 38;

export function strips(context: PageContext, first: Status): Part {
  const { app, scope } = context;
  const updates: (() => void)[] = [];
  const boxes = servedSignals(first).map((signal) => {
    const host = h('div.chart');
    const value = h('span');
    const series = [{ name: 'accepted', color: `--${signal.name}`, at: (t: number, span: number) => accepted(context, signal.name, t, span) }, ...delivered(context, first, signal.name)];
    const strip = new Strip(host, { scope, time: app.time, left: LEFT_PX, mode: 'area', series: () => series, label: `${signal.title}: accepted and delivered a second` });
    updates.push(() => {
      strip.update();
      const now = accepted(context, signal.name, app.time.now() - 1000, 1000);
      text(value, `${format.num(now)} ${signal.unit}`);
      strip.relabel(`Now ${format.num(now)} ${signal.unit} accepted`);
    });
    return h('div.strip', { class: signal.name, 'data-testid': 'chart' }, h('div.lbl', null, h('span', null, h('span.sw'), signal.title), value), host);
  });
  const draw = () => {
    if (!document.hidden) for (const update of updates) update();
  };
  scope.add(app.time.changed.on(draw));
  scope.add(app.history.changed.on(draw));
  draw();
  return {
    el: h('section.sec', null, head('In and out', 'colour: accepted, grey: delivered'), h('div.strips', null, boxes)),
    update: () => undefined,
  };
}

/** What comes in bursts is shown as the mean of the interval that ends there: a comb would say nothing. */
function accepted(context: PageContext, signal: SignalName, t: number, span: number): number {
  const wide = spanOf(signal) > RATE_WINDOW_MS ? Math.max(span, spanOf(signal)) : span;
  return context.app.history.mean(`in.${signal}`, t + span - wide, wide);
}

/** Destinations of this signal alone: one that takes several cannot say how its records divide. */
function delivered(context: PageContext, status: Status, signal: SignalName) {
  const alone = status.destinations.filter((d) => d.signals.length === 1 && d.signals[0] === signal);
  return alone.map((d) => ({ name: destinationKey(d), color: '--t3', at: (t: number, span: number) => context.app.history.mean(`out.${destinationKey(d)}`, t, span) }));
}
