// How fast the log fills, from the last minute of its own history.
import type { Status } from './api/types';
import type { History } from './history';
import type { Pace } from './health';

const LOOK_BACK_MS = 60_000;

export function paceOf(status: Status, history: History): Pace {
  const total = (what: 'refused' | 'bytes') => status.sources.reduce((sum, s) => sum + (history.sourceRate(s, what) || 0), 0);
  return { growth_bps: growth(status, history), inflow_bps: total('bytes'), refused_rps: total('refused') };
}

/** From what waits, not from the file sizes: segments are deleted in steps, and would make the guess jump. */
function growth(status: Status, history: History): number {
  const now = history.last('waiting_bytes');
  for (let back = LOOK_BACK_MS; back >= 5_000; back -= 5_000) {
    const then = history.at('waiting_bytes', status.now_ms - back);
    if (Number.isFinite(then) && Number.isFinite(now)) return (now - then) / (back / 1000);
  }
  return NaN;
}
