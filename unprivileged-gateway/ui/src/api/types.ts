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
