// What every page is given: the gateway's voice, its memory, the clock. One of each, made in main.ts.
import type { Stream } from './api/stream';
import type { Status } from './api/types';
import type { History } from './history';
import type { Scope } from './scope';
import type { TimeWindow } from './timewindow';
import type { IconName } from './dom/icon';

export interface App {
  readonly stream: Stream;
  readonly history: History;
  readonly time: TimeWindow;
  /** The last status received; null until the first. */
  status(): Status | null;
}

export const PAGES = ['overview', 'profiles', 'logs', 'traces', 'metrics', 'targets', 'cluster', 'probe', 'config'] as const;
export type PageName = (typeof PAGES)[number];

export interface PageContext {
  app: App;
  main: HTMLElement;
  scope: Scope;
  /** The part of the hash behind `?`. */
  args: URLSearchParams;
  /** The line beside the title. */
  summary(text: string): void;
  /** What `f` puts the cursor into. */
  filter(input: HTMLInputElement): void;
  /** Writes the page's state into the URL without a new page. */
  keep(args: Record<string, string>): void;
}

export interface Page {
  title: string;
  icon: IconName;
  /** Key after `g`. */
  key: string;
  /** Fills the window and scrolls inside. */
  fill?: boolean;
  /** Has no use for the time window. */
  timeless?: boolean;
  /** Nothing feeds it in this version; the navigation says so. */
  later?: boolean;
  mount(context: PageContext): void;
}
