// The stretch of time that every chart of a page shows: its length, whether it moves, and the moment under the pointer.
// Pausing stops the window, never the data.
import { Topic } from './topic';

export const RANGES: readonly (readonly [number, string])[] = [
  [300, '5 m'],
  [900, '15 m'],
  [3600, '1 h'],
  [21600, '6 h'],
];

export class TimeWindow {
  readonly changed = new Topic();
  readonly crossed = new Topic();
  range_s = 900;
  live = true;
  /** The moment under the pointer, ms, or null. All charts draw it. */
  cross: number | null = null;
  private end_ms = 0;
  /** How far the gateway's clock is ahead of this one, ms. */
  private ahead_ms = 0;
  private queued = false;

  /** Now, by the gateway's clock. */
  now(): number {
    return Date.now() + this.ahead_ms;
  }

  learn(now_ms: number): void {
    this.ahead_ms = now_ms - Date.now();
  }

  bounds(): [number, number] {
    const end = this.live ? this.now() : this.end_ms;
    return [end - this.range_s * 1000, end];
  }

  setRange(range_s: number): void {
    this.range_s = range_s;
    this.changed.tell();
  }

  setLive(live: boolean): void {
    if (live === this.live) return;
    if (!live) this.end_ms = this.now();
    this.live = live;
    this.changed.tell();
  }

  setCross(ms: number | null): void {
    this.cross = ms;
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.crossed.tell();
    });
  }
}
