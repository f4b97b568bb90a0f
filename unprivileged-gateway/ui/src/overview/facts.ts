// What this instance is and costs.
import { fill, h } from '../dom/element';
import * as format from '../dom/format';
import type { Part } from './page';

export function facts(): Part {
  const el = h('dl.kv');
  return {
    el,
    update(status) {
      const { storage, memory, view } = status;
      const commit = storage.commit;
      const rows: [string, string][] = [
        ['Log', `${format.bytes(storage.bytes)} of ${format.size(storage.max_bytes)} in ${format.int(storage.segments)} segments, ${storage.path}`],
        ['Commit', `${format.int(commit.count)} syncs, p50 ${ms(commit.p50_ms)}, p99 ${ms(commit.p99_ms)}`],
        ['Memory', `${format.bytes(memory.used_bytes)} of ${format.size(memory.budget_bytes)} budget, ${format.bytes(memory.rss_bytes)} resident`],
        ['Local view', view.enabled ? `${format.bytes(view.bytes)} of ${format.size(view.max_bytes)}${view.covers ? `, covers ${format.hourMinute(view.covers.from_ms)} to now` : ''}` : 'off'],
        ['Node', `${status.node.name}, id ${status.node.id.slice(0, 8)}…, since ${format.time(status.node.started_ms)}`],
        ...Object.entries(status.addresses).map(([name, at]): [string, string] => [ADDRESSES[name] ?? name, at]),
      ];
      fill(el, rows.map(([key, value]) => [h('dt', null, key), h('dd', null, value)]));
    },
  };
}

export const ADDRESSES: Record<string, string> = { ui: 'This page', otlp_grpc: 'OTLP over gRPC', otlp_http: 'OTLP over HTTP' };

const ms = (value: number | null) => (value === null ? '–' : format.dur(value / 1000));
