// The one event stream of the page: a tap that is turned on again by itself.
//
// A stream that fails, or is silent for SILENCE_MS (the gateway speaks every second), is closed; after RETRY_MS the status is asked
// for once, which also tells *why* the stream failed (EventSource hides the code), and only then the stream is opened again.
// Weakness: changing the question of the tail opens a new stream; lines between the two are found by the page's own reload.
import { ApiError, address, ask, type Query } from './client';
import type { LogsEvent, Status } from './types';
import { Topic } from '../topic';

export const RETRY_MS = 2_000;
const SILENCE_MS = 5_000;

export type Link = 'starting' | 'live' | 'gone' | 'unauthorised';

export class Stream {
  readonly status = new Topic<Status>();
  readonly logs = new Topic<LogsEvent>();
  readonly traces = new Topic<{ new: number }>();
  readonly changed = new Topic<Link>();
  link: Link = 'starting';
  /** What the gateway said when it refused; empty while all is well. */
  why = '';
  private source: EventSource | null = null;
  private opened = 0; // ms, when the stream was last opened
  private tail: Query | null = null;
  private silence: ReturnType<typeof setTimeout> | undefined;
  private retry: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    void this.probe();
  }

  /** Also send log lines that match, or none with null. */
  follow(tail: Query | null): void {
    if (JSON.stringify(tail) === JSON.stringify(this.tail)) return;
    this.tail = tail;
    if (this.source) this.open();
  }

  private async probe(): Promise<void> {
    try {
      const status = await ask<Status>('status');
      this.say('live', '');
      this.status.tell(status);
      this.open();
    } catch (cause) {
      const refused = cause instanceof ApiError && cause.trouble === 'unauthorised';
      this.say(refused ? 'unauthorised' : 'gone', cause instanceof Error ? cause.message : String(cause));
      this.later();
    }
  }

  private open(): void {
    this.close();
    const source = new EventSource(address('events', this.tail ? { ...this.tail, logs: 1 } : {}));
    this.source = source;
    this.opened = Date.now();
    this.heard();
    source.addEventListener('status', (event) => {
      this.heard();
      this.say('live', '');
      this.status.tell(parse<Status>(event));
    });
    source.addEventListener('logs', (event) => this.logs.tell(parse<LogsEvent>(event)));
    source.addEventListener('traces', (event) => this.traces.tell(parse<{ new: number }>(event)));
    source.onerror = () => this.fail();
  }

  private heard(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.fail(), SILENCE_MS);
  }

  /** A stream that breaks as soon as it is opened must not be opened in a circle; the status then comes by asking every RETRY_MS. */
  private fail(): void {
    this.close();
    if (Date.now() - this.opened < RETRY_MS) return this.later();
    void this.probe();
  }

  private later(): void {
    clearTimeout(this.retry);
    this.retry = setTimeout(() => void this.probe(), RETRY_MS);
  }

  private close(): void {
    clearTimeout(this.silence);
    this.source?.close();
    this.source = null;
  }

  private say(link: Link, why: string): void {
    this.why = why;
    if (link === this.link) return;
    this.link = link;
    this.changed.tell(link);
  }
}

function parse<T>(event: Event): T {
  return JSON.parse((event as MessageEvent<string>).data) as T;
}
