// Starts the page: theme before the first paint, then the stream, then the shell.
import type { App, Page, PageName } from './app';
import { Stream } from './api/stream';
import type { Status } from './api/types';
import { config } from './config/page';
import { History } from './history';
import { cluster, targets } from './later';
import { logs } from './logs/page';
import { metrics } from './metrics/page';
import { overview } from './overview/page';
import { probe } from './probe/page';
import { profiles } from './profiles/page';
import { forgetToken } from './shell/router';
import { Shell } from './shell/shell';
import { startTheme } from './theme';
import { TimeWindow } from './timewindow';
import { traces } from './traces/page';

const pages: Record<PageName, Page> = { overview, profiles, logs, traces, metrics, targets, cluster, probe, config };

const SHORT_S = 300;

function start(): void {
  startTheme();
  forgetToken();
  const stream = new Stream();
  const history = new History();
  const time = new TimeWindow();
  let last: Status | null = null;
  // A gateway that has just begun has little to show: the shortest window lets its first minutes fill the charts.
  const begin = (status: Status) => {
    if (status.now_ms - status.node.started_ms < SHORT_S * 1000) time.setRange(SHORT_S);
  };
  const app: App = { stream, history, time, status: () => last };
  // A history that cannot be had is no reason to show nothing: the strips then start empty and fill by themselves.
  const load = () => void history.load(time.range_s).catch(() => history.begin(time.range_s, time.now()));
  stream.status.on((status) => {
    if (!last) begin(status);
    last = status;
    time.learn(status.now_ms);
    history.push(status);
  });
  stream.changed.on((link) => {
    if (link === 'live') load();
  });
  let range = time.range_s;
  time.changed.on(() => {
    if (range !== time.range_s) load();
    range = time.range_s;
  });
  new Shell(app, pages);
  stream.start();
}

start();
