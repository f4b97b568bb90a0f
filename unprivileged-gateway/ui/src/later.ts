// Pages of signals that this version does not handle yet. They say what will feed them and what to use until then; they draw nothing.
import type { Page } from './app';
import { h, type Child } from './dom/element';
import { head, keyValues } from './dom/parts';

interface Later {
  title: string;
  icon: Page['icon'];
  key: string;
  lead: string;
  feeds: readonly (readonly [string, Child])[];
  now: Child;
}

function later(o: Later): Page {
  return {
    title: o.title,
    icon: o.icon,
    key: o.key,
    timeless: true,
    later: true,
    mount({ main, summary }) {
      summary('nothing feeds this page yet');
      main.append(
        h(
          'div.later',
          { 'data-testid': 'later' },
          h('p.big', null, o.lead),
          h('section.sec', null, head('What will feed it'), keyValues(o.feeds)),
          h('section.sec', null, head('Until then'), h('p.t2', null, o.now)),
        ),
      );
    },
  };
}

export const targets = later({
  title: 'Targets',
  icon: 'targets',
  key: 'a',
  lead: 'Nothing is scraped in this version.',
  feeds: [
    ['Scrape pools', 'each target with its state, last error, owner, and its labels before and after relabelling'],
    ['Discovery', 'static lists, files, annotated pods, ServiceMonitors'],
  ],
  now: 'Leave your present scraper in place: its series cannot be taken here yet. This gateway’s own numbers are at /metrics.',
});

export const cluster = later({
  title: 'Cluster',
  icon: 'cluster',
  key: 'c',
  lead: 'This gateway runs alone.',
  feeds: [
    ['Gossip', 'peers, their state and round-trip time, as each of them sees it'],
    ['The ring', 'which peer owns which target, and who disagrees'],
  ],
  now: 'One gateway takes, keeps and delivers by itself; several of them do not know of each other yet.',
});
