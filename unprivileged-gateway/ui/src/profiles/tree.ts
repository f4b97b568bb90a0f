// A flame graph as numbers: who calls whom, how wide, how deep; and the questions that are asked of it. Pure, no recursion.
//
// Columns instead of objects, children of each node side by side and widest first: 50,000 nodes are laid out once, and a drawing walks
// down only while a box is wide enough to be seen. Weakness: widest first means that neighbours in time do not stand side by side.
import type { ProfileAnswer, ProfileNode } from '../api/types';
import { shown } from '../dom/format';

export const USER = 0;
export const KERNEL = 1;
export const PYTHON = 2;
export const TRUNCATED = 3;
export const KINDS = ['program', 'kernel', 'Python', 'truncated'] as const;
const KIND_COUNT = 4;
/** Most nodes of a tree made here, as many as the gateway sends. */
const NODES_MAX = 50_000;

export interface Tree {
  readonly count: number;
  readonly names: readonly string[];
  readonly files: readonly string[];
  readonly parent: Int32Array;
  readonly name: Int32Array;
  readonly file: Int32Array;
  readonly kind: Uint8Array;
  readonly self: Float64Array;
  readonly total: Float64Array;
  readonly depth: Int32Array;
  /** Left edge, in samples from the left of the root. */
  readonly x: Float64Array;
  /** Children of `i` are `kids[first[i]] … kids[first[i + 1] - 1]`. */
  readonly first: Int32Array;
  readonly kids: Int32Array;
  readonly deepest: number;
}

type Source = Pick<ProfileAnswer, 'names' | 'files'> & { nodes: readonly ProfileNode[] };

/** A node that names a parent behind it, or text that is not there, hangs on the root or is unnamed; nothing throws. */
export function grow({ names, files, nodes }: Source): Tree {
  const count = Math.max(1, nodes.length);
  const int = () => new Int32Array(count);
  const [parent, name, file, depth, kids] = [int(), int(), int(), int(), int()];
  const kind = new Uint8Array(count);
  const [self, total, x] = [new Float64Array(count), new Float64Array(count), new Float64Array(count)];
  const first = new Int32Array(count + 2);
  let deepest = 0;
  nodes.forEach((node, i) => {
    const above = i > 0 && node[0] >= 0 && node[0] < i ? node[0] : 0;
    parent[i] = above;
    name[i] = node[1];
    file[i] = node[2];
    kind[i] = node[3] < KIND_COUNT ? node[3] : USER;
    self[i] = node[4];
    total[i] = node[5];
    if (i === 0) return;
    depth[i] = (depth[above] ?? 0) + 1;
    deepest = Math.max(deepest, depth[i] ?? 0);
    first[above + 2] = (first[above + 2] ?? 0) + 1;
  });
  for (let i = 2; i < first.length; i++) first[i] = (first[i] ?? 0) + (first[i - 1] ?? 0);
  for (let i = 1; i < count; i++) {
    const slot = (parent[i] ?? 0) + 1;
    kids[first[slot] ?? 0] = i;
    first[slot] = (first[slot] ?? 0) + 1;
  }
  for (let i = 0; i < count; i++) {
    const mine = kids.subarray(first[i], first[i + 1]);
    if (mine.length > 1) mine.sort((a, b) => (total[b] ?? 0) - (total[a] ?? 0) || (name[a] ?? 0) - (name[b] ?? 0));
    let at = x[i] ?? 0;
    for (const kid of mine) {
      x[kid] = at;
      at += total[kid] ?? 0;
    }
  }
  return { count, names, files, parent, name, file, kind, self, total, depth, x, first, kids, deepest };
}

export function nameAt(tree: Tree, node: number): string {
  return node === 0 ? 'all' : shown(tree.names[tree.name[node] ?? 0] ?? '');
}

/** What a function is known by: its name and origin, wherever it is called. */
export const keyOf = (tree: Tree, node: number) => (tree.name[node] ?? 0) * KIND_COUNT + (tree.kind[node] ?? 0);

/** From the root to `node`, both included. */
export function pathTo(tree: Tree, node: number): number[] {
  const path = [node];
  while (node > 0) path.push((node = tree.parent[node] ?? 0));
  return path.reverse();
}

/** One flag a name: does it hold `q`, in any case? */
export function matching(tree: Tree, q: string): Uint8Array | null {
  const needle = q.trim().toLowerCase();
  if (!needle) return null;
  return Uint8Array.from(tree.names, (name) => (shown(name).toLowerCase().includes(needle) ? 1 : 0));
}

/** Samples whose stack holds a match, each counted once. */
export function matched(tree: Tree, flags: Uint8Array): number {
  const below = new Uint8Array(tree.count);
  let sum = 0;
  for (let i = 1; i < tree.count; i++) {
    const above = below[tree.parent[i] ?? 0];
    const hit = flags[tree.name[i] ?? 0];
    if (hit && !above) sum += tree.total[i] ?? 0;
    below[i] = hit || above ? 1 : 0;
  }
  return sum;
}

export interface Fn {
  key: number;
  name: string;
  file: string;
  kind: number;
  self: number;
  total: number;
}

/** Every function with what it used itself and in all; a function that calls itself counts once a stack. Largest self first. */
export function functions(tree: Tree): Fn[] {
  const found = new Map<number, Fn>();
  walkOutermost(tree, (node, outermost) => {
    const key = keyOf(tree, node);
    let fn = found.get(key);
    if (!fn) found.set(key, (fn = { key, name: nameAt(tree, node), file: '', kind: tree.kind[node] ?? 0, self: 0, total: 0 }));
    fn.file ||= tree.files[tree.file[node] ?? 0] ?? '';
    fn.self += tree.self[node] ?? 0;
    if (outermost) fn.total += tree.total[node] ?? 0;
  });
  return [...found.values()].sort((a, b) => b.self - a.self || b.total - a.total);
}

/** Visits every node but the root, parents first; `outermost`: nothing above has the same key. */
function walkOutermost(tree: Tree, visit: (node: number, outermost: boolean) => void): void {
  const open = new Map<number, number>(); // key -> how many of it are above
  const stack: number[] = [];
  const push = (node: number) => {
    for (let i = (tree.first[node + 1] ?? 0) - 1; i >= (tree.first[node] ?? 0); i--) stack.push(tree.kids[i] ?? 0);
  };
  push(0);
  while (stack.length) {
    const node = stack.pop() ?? 0;
    if (node < 0) {
      const key = keyOf(tree, -node);
      open.set(key, (open.get(key) ?? 1) - 1);
      continue;
    }
    const key = keyOf(tree, node);
    const above = open.get(key) ?? 0;
    visit(node, above === 0);
    open.set(key, above + 1);
    stack.push(-node); // closes it once its children are done
    push(node);
  }
}

/** One function at the root: above it (`callers`) everything that leads to it, or below it (`callees`) everything it calls. */
export function around(tree: Tree, key: number, direction: 'callers' | 'callees'): Tree {
  const nodes: [number, number, number, number, number, number][] = [[0, 0, 0, 0, 0, 0]];
  const made = new Map<number, number>();
  const span = tree.names.length * KIND_COUNT + KIND_COUNT;
  const child = (above: number, node: number): number => {
    const id = above * span + keyOf(tree, node);
    const held = made.get(id);
    if (held !== undefined) return held;
    if (nodes.length >= NODES_MAX) return above; // the rest counts for the one above
    const at = nodes.push([above, tree.name[node] ?? 0, tree.file[node] ?? 0, tree.kind[node] ?? 0, 0, 0]) - 1;
    made.set(id, at);
    return at;
  };
  const add = (at: number, slot: 4 | 5, n: number) => {
    const node = nodes[at];
    if (node) node[slot] += n;
  };
  const climb = (node: number, at: number, weight: number) => {
    let now = at;
    for (let up = tree.parent[node] ?? 0; up > 0; up = tree.parent[up] ?? 0) {
      const next = child(now, up);
      if (next === now) break;
      add(next, 5, weight);
      now = next;
    }
    add(now, 4, weight); // here the stack begins
  };
  const descend = (node: number, at: number) => {
    const stack: [number, number][] = [[node, at]];
    add(at, 4, tree.self[node] ?? 0);
    while (stack.length) {
      const [from, to] = stack.pop() ?? [0, 0];
      for (let i = tree.first[from] ?? 0; i < (tree.first[from + 1] ?? 0); i++) {
        const kid = tree.kids[i] ?? 0;
        const next = child(to, kid);
        if (next !== to) add(next, 5, tree.total[kid] ?? 0);
        add(next, 4, tree.self[kid] ?? 0);
        stack.push([kid, next]);
      }
    }
  };
  walkOutermost(tree, (node, outermost) => {
    if (!outermost || keyOf(tree, node) !== key) return;
    const weight = tree.total[node] ?? 0;
    add(0, 5, weight);
    const middle = child(0, node);
    add(middle, 5, weight);
    if (direction === 'callers') climb(node, middle, weight);
    else descend(node, middle);
  });
  return grow({ names: tree.names as string[], files: tree.files as string[], nodes });
}

/** The node at the end of the same names, after new samples have come; the nearest that still exists. */
export function same(tree: Tree, names: readonly string[]): number {
  let node = 0;
  for (const name of names) {
    let next = 0;
    for (let i = tree.first[node] ?? 0; i < (tree.first[node + 1] ?? 0); i++) {
      const kid = tree.kids[i] ?? 0;
      if (nameAt(tree, kid) === name) {
        next = kid;
        break;
      }
    }
    if (!next) return node;
    node = next;
  }
  return node;
}
