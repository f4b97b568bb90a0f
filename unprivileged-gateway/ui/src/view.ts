// Pages of the local view: they begin once the first status says whether there is one.
import type { PageContext } from './app';
import { ask } from './api/client';
import type { ConfigAnswer } from './api/types';
import { fill } from './dom/element';
import { skeleton, viewOff } from './waiting';

export function withView(context: PageContext, heights_px: readonly number[], start: () => void): void {
  const begin = (enabled: boolean) => {
    if (enabled) return start();
    context.summary('the local view is off');
    ask<ConfigAnswer>('config', {}, context.scope.signal).then(
      (config) => fill(context.main, viewOff(config.files[0])),
      () => fill(context.main, viewOff(undefined)),
    );
  };
  const status = context.app.status();
  if (status) return begin(status.view.enabled);
  context.main.append(skeleton(heights_px));
  const stop = context.app.stream.status.on((first) => {
    stop();
    context.main.replaceChildren();
    begin(first.view.enabled);
  });
  context.scope.add(stop);
}
