// What the gateway answers on /api/v1. Times are milliseconds since the epoch as numbers, nanoseconds are decimal strings.
// Fields that a gateway may leave out (a signal that is not served) are optional here, so that no page trusts them blindly.

export type SignalName = 'logs' | 'metrics' | 'traces' | 'profiles';

export interface SignalStatus {
  served: boolean;
  accepted?: number;
  refused?: Record<string, number>;
  dropped?: Record<string, number>;
  bytes?: number;
  segments?: number;
  guarantee_bytes?: number;
  fill?: number;
}

export interface SourceStatus {
  name: string;
  signal: SignalName;
  accepted: number;
  refused: number;
  bytes: number;
}

export interface DestinationStatus {
  kind: string;
  name: string;
  signals: SignalName[];
  configured: boolean;
  url?: string;
  state: 'ok' | 'retrying' | 'idle' | 'stopped' | 'removed';
  accepted: number;
  sent: number;
  waiting: { records: number; bytes: number; oldest_age_s: number | null };
  quarantined: number;
  dropped: number;
  damaged: number;
  sent_bytes: number;
  retries: number;
  last_error: { at_ms: number; text: string } | null;
  next_try_ms: number | null;
}

export interface Status {
  now_ms: number;
  node: { name: string; id: string; version: string; started_ms: number; role: 'node' | 'cluster' };
  ready: { ok: boolean; why: string[] };
  storage: {
    path: string;
    max_bytes: number;
    bytes: number;
    segments: number;
    state: 'ok' | 'warn' | 'high' | 'critical' | 'full' | 'closed';
    thresholds: number[];
    commit: { count: number; p50_ms: number | null; p99_ms: number | null };
  };
  memory: { budget_bytes: number; used_bytes: number; rss_bytes: number };
  signals: Partial<Record<SignalName, SignalStatus>>;
  sources: SourceStatus[];
  destinations: DestinationStatus[];
  view: { enabled: boolean; bytes: number; max_bytes: number; covers: Covers | null };
  damage: Record<string, number>;
  addresses: { ui?: string; otlp_grpc?: string; otlp_http?: string };
}

export interface Covers {
  from_ms: number;
  to_ms: number;
  evicted?: number;
}

export interface HistoryAnswer {
  step_s: number;
  t0_ms: number;
  series: Record<string, (number | null)[]>;
}

export interface LogLine {
  id: string;
  ts_ns: string;
  level: string;
  service: string;
  line: string;
  labels: Record<string, string>;
  metadata: Record<string, string>;
  trace_id: string;
  span_id: string;
}

export interface LogsAnswer {
  covers: Covers;
  total: number;
  matched: number;
  facets: { level: Record<string, number>; service: Record<string, number> };
  histogram: { t0_ms: number; step_ms: number; levels: Record<string, number[]> };
  lines: LogLine[];
}

export interface LogsEvent {
  lines: LogLine[];
  skipped: number;
}

export interface TraceRow {
  trace_id: string;
  service: string;
  name: string;
  start_ms: number;
  duration_ms: number;
  spans: number;
  errors: number;
  services: string[];
}

export interface TracesAnswer {
  covers: Covers;
  total: number;
  services: string[];
  traces: TraceRow[];
}

export interface SpanEvent {
  ts_ns: string;
  name: string;
  attributes: Record<string, unknown>;
}

export interface Span {
  span_id: string;
  parent_id: string;
  service: string;
  name: string;
  kind: string;
  start_ns: string;
  end_ns: string;
  status: 'unset' | 'ok' | 'error';
  status_message: string;
  scope: string;
  attributes: Record<string, unknown>;
  resource: Record<string, unknown>;
  events: SpanEvent[];
}

export interface TraceAnswer {
  trace_id: string;
  spans: Span[];
  logs: number;
}

export interface Explained {
  path: string;
  value: string;
  layer: 'default' | 'file' | 'env' | 'flag';
  where: string;
}

export interface ConfigAnswer {
  yaml: string;
  files: string[];
  explain: Explained[];
}

export interface SeriesName {
  name: string;
  /** `gauge`, `counter`, `histogram`, or empty where nobody said. */
  type: string;
  help: string;
  series: number;
  labels: Record<string, string[]>;
}

export interface SeriesAnswer {
  covers: Covers;
  total: number;
  names: SeriesName[];
}

export type Point = readonly [t_ms: number, value: number | null];

export interface RangeAnswer {
  covers: Covers;
  name: string;
  type: string;
  rate: boolean;
  step_ms: number;
  /** Series that matched and are not here. */
  cut: number;
  series: { labels: Record<string, string>; points: Point[] }[];
}

export interface ProcessGroup {
  service: string;
  comm: string;
  container: string;
  namespace: string;
  pod: string;
  samples: number;
  cpu_ms: number;
  processes: { pid: number; comm: string; samples: number }[];
}

export interface ProcessesAnswer {
  covers: Covers;
  total_samples: number;
  period_ns: number;
  groups: ProcessGroup[];
  timeline: { t0_ms: number; step_ms: number; cores: (number | null)[] };
}

/** Parent (node 0 is the root, parents come first), name, file, kind (0 user, 1 kernel, 2 python, 3 truncated), self, total. */
export type ProfileNode = readonly [parent: number, name: number, file: number, kind: number, self: number, total: number];

export interface ProfileAnswer {
  covers: Covers;
  samples: number;
  period_ns: number;
  ends: Record<string, number>;
  names: string[];
  files: string[];
  nodes: ProfileNode[];
  /** Nodes that were left out because they are many and small. */
  cut?: number;
}

export interface Named {
  name: string;
  value: number;
}

export interface ProbeStatus {
  at_ns: number;
  hz_now: number;
  cpus: { cpu: number; samples: number }[];
  lost: Named[];
  ends: Named[];
  log: { read: number; sent: number; durable: number; waiting: number; files_open: number; files_known: number };
  files_refused: Named[];
  log_dropped: Named[];
  /** Bit masks; bits above 40 are not used by any kernel so far, so a double holds them. */
  caps: Record<'effective' | 'permitted' | 'inheritable' | 'ambient' | 'bounding', number>;
  no_new_privs: boolean;
  seccomp: number;
  uid: number;
  gid: number;
  groups: number[];
  dropped_proof: [what: string, refused: boolean][];
  nursery: { alive: boolean; parsers_run: number; failed: number; killed: number };
  rows_used: number;
  rows_max: number;
  processes: number;
  rss_bytes: number;
  cpu_ns: number;
  bpf_ns: number;
  ring_bytes: number;
  ring_max: number;
  stacks_dropped: number;
}

export interface ProbeHello {
  host: string;
  kernel: string;
  cpus: number;
  hz: number;
  start: string;
  features: { name: string; on: boolean; reason: string }[];
}

export interface ProbeAnswer {
  configured: boolean;
  connected: boolean;
  socket?: string;
  since_ms?: number | null;
  last_error?: { at_ms: number; text: string } | null;
  hello?: ProbeHello | null;
  status?: ProbeStatus | null;
  rates?: { cpus: { cpu: number; per_s: number }[]; lost_per_s: number; log_bytes_per_s: number; probe_cpu_percent: number } | null;
}
