// Spans as a tree: parents before children, children by start. Foreign data: a parent that never came, a span that names itself or a
// loop of parents must neither hang nor hide a span; each becomes a root.
import type { Span } from '../api/types';

export interface Placed {
  span: Span;
  depth: number;
  /** Names a parent that is not here. */
  orphan: boolean;
  children: number;
}

const time = (text: string) => (/^\d{1,20}$/.test(text) ? BigInt(text) : 0n);

export function plant(spans: readonly Span[]): Placed[] {
  const byStart = [...spans].sort((a, b) => {
    const d = time(a.start_ns) - time(b.start_ns);
    return d < 0n ? -1 : d > 0n ? 1 : 0;
  });
  const ids = new Set(byStart.map((s) => s.span_id));
  const children = new Map<string, Span[]>();
  const roots: Span[] = [];
  for (const span of byStart) {
    if (span.parent_id && span.parent_id !== span.span_id && ids.has(span.parent_id)) {
      const siblings = children.get(span.parent_id);
      if (siblings) siblings.push(span);
      else children.set(span.parent_id, [span]);
    } else roots.push(span);
  }
  const out: Placed[] = [];
  const seen = new Set<Span>();
  const grow = (root: Span) => {
    const stack: [Span, number][] = [[root, 0]];
    for (let top = stack.pop(); top; top = stack.pop()) {
      const [span, depth] = top;
      if (seen.has(span)) continue;
      seen.add(span);
      const below = children.get(span.span_id) ?? [];
      out.push({ span, depth, orphan: depth === 0 && span.parent_id !== '', children: below.length });
      for (let i = below.length - 1; i >= 0; i--) stack.push([below[i] as Span, depth + 1]);
    }
  };
  roots.forEach(grow);
  for (const span of byStart) if (!seen.has(span)) grow(span); // what is left is a loop
  return out;
}
