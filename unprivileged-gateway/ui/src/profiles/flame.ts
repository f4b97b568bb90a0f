// The flame graph: a canvas that is as large as what is seen of it, over a tree that may be far larger.
//
// The canvas sticks to the top of a box that scrolls; each drawing walks down from the zoomed node and leaves out what is narrower than
// half a pixel, off to a side, or in a row that is scrolled away. Origin is colour and pattern: a kernel frame has a bar along its
// foot, Python a row of dots, a truncated one is hatched. Arrows walk the frames and speak; the table beside it holds the same numbers.
import { canvas, font, type Canvas } from '../chart/canvas';
import { h } from '../dom/element';
import * as format from '../dom/format';
import { keyValues, say } from '../dom/parts';
import { hideTip, showTip } from '../dom/tip';
import type { Scope } from '../scope';
import { alpha, themeChanged, token } from '../theme';
import { KERNEL, KINDS, PYTHON, TRUNCATED, matching, nameAt, pathTo, type Tree } from './tree';

export const ROW_PX = 20;
const LEAST_PX = 0.5;
const LABEL_LEAST_PX = 34;
const LABEL_PX = 11.5;
const NARROWEST_LETTER_PX = 3;
const TIP_NAME_MAX = 400;
const COLORS = ['--f-user', '--f-kernel', '--f-python', '--f-cut'];

export interface FlameOptions {
  scope: Scope;
  /** A node was clicked or entered: the graph now begins there. */
  zoomed(node: number): void;
  /** Nanoseconds that one sample stands for. */
  period_ns(): number;
}

export class Flame {
  readonly el: HTMLElement;
  private readonly face: Canvas;
  private readonly paper = h('div.paper');
  private tree: Tree | null = null;
  private zoom = 0;
  private focus = 0;
  private hover = -1;
  private flags: Uint8Array | null = null;
  private hatch: CanvasPattern | null = null;
  /** Boxes of the last drawing, for tests and for the curious. */
  drawn = 0;

  constructor(private readonly o: FlameOptions) {
    const el = h('canvas', { 'data-testid': 'flamegraph', tabindex: '0' });
    this.paper.append(el);
    this.el = h('div.flame.scroll', null, this.paper);
    this.face = canvas(el, o.scope, (g, w, hgt) => this.draw(g, w, hgt), 'Flame graph. Arrow keys walk the frames, Enter zooms, Escape zooms out. The table below holds the same numbers.');
    el.setAttribute('role', 'application');
    el.setAttribute('aria-roledescription', 'flame graph');
    o.scope.listen(this.el, 'scroll', () => this.face.redraw());
    const seen = new ResizeObserver(() => el.style.setProperty('--seen', `${this.el.clientHeight}px`));
    seen.observe(this.el);
    o.scope.add(() => seen.disconnect());
    o.scope.add(themeChanged.on(() => (this.hatch = null)));
    el.addEventListener('pointermove', (e) => this.point(e));
    el.addEventListener('pointerleave', () => this.leave());
    el.addEventListener('click', (e) => this.click(e));
    el.addEventListener('keydown', (e) => this.key(e));
    el.addEventListener('focus', () => this.face.redraw());
    el.addEventListener('blur', () => this.leave());
  }

  /** Somebody points at it or walks in it: it must not change under them. */
  get busy(): boolean {
    return this.hover >= 0 || document.activeElement === this.face.el;
  }

  show(tree: Tree, zoom = 0): void {
    this.tree = tree;
    this.zoom = this.focus = zoom;
    this.hover = -1;
    hideTip();
    this.paper.style.height = `${(tree.deepest + 1) * ROW_PX + 4}px`;
    this.face.redraw();
  }

  search(q: string): void {
    this.flags = this.tree && matching(this.tree, q);
    this.face.redraw();
  }

  zoomTo(node: number): void {
    if (!this.tree) return;
    this.zoom = this.focus = node;
    hideTip();
    this.reveal(node);
    this.face.redraw();
    say(`${nameAt(this.tree, node)} fills the width`);
    this.o.zoomed(node);
  }

  /** [left, width] in px; the zoomed node and those above it fill the width. */
  private box(tree: Tree, node: number, w: number): [number, number] {
    const [x0, all] = [tree.x[this.zoom] ?? 0, tree.total[this.zoom] || 1];
    if ((tree.depth[node] ?? 0) <= (tree.depth[this.zoom] ?? 0)) return [0, w];
    return [(((tree.x[node] ?? 0) - x0) / all) * w, ((tree.total[node] ?? 0) / all) * w];
  }

  private draw(g: CanvasRenderingContext2D, w: number, hgt: number): void {
    const tree = this.tree;
    this.drawn = 0;
    if (!tree) return;
    const top = this.el.scrollTop;
    const lowest = Math.ceil((top + hgt) / ROW_PX);
    g.font = font(LABEL_PX);
    g.textBaseline = 'middle';
    g.textAlign = 'left';
    g.direction = 'ltr';
    for (const node of pathTo(tree, this.zoom)) this.drawBox(g, tree, node, 0, w, top, hgt);
    const least = (LEAST_PX / w) * (tree.total[this.zoom] || 1);
    const stack = [this.zoom];
    while (stack.length) {
      const node = stack.pop() ?? 0;
      if ((tree.depth[node] ?? 0) >= lowest) continue;
      for (let i = tree.first[node] ?? 0; i < (tree.first[node + 1] ?? 0); i++) {
        const kid = tree.kids[i] ?? 0;
        if ((tree.total[kid] ?? 0) < least) break; // widest first
        const [x, width] = this.box(tree, kid, w);
        this.drawBox(g, tree, kid, x, width, top, hgt);
        stack.push(kid);
      }
    }
    g.globalAlpha = 1;
    this.face.el.dataset['drawn'] = String(this.drawn);
  }

  private drawBox(g: CanvasRenderingContext2D, tree: Tree, node: number, x: number, width: number, top: number, hgt: number): void {
    const y = (tree.depth[node] ?? 0) * ROW_PX - top;
    if (y + ROW_PX < 0 || y > hgt) return;
    this.drawn++;
    const kind = tree.kind[node] ?? 0;
    const root = node === 0;
    const hit = !this.flags || this.flags[tree.name[node] ?? 0] === 1;
    const above = (tree.depth[node] ?? 0) < (tree.depth[this.zoom] ?? 0);
    const wide = width > 3;
    const shownWidth = Math.max(LEAST_PX, width - (wide ? 1 : 0));
    g.globalAlpha = this.flags && !hit ? 0.28 : above ? 0.55 : 1;
    g.fillStyle = token(root ? '--f-root' : (COLORS[kind] ?? '--f-user'));
    g.fillRect(x, y, shownWidth, ROW_PX - 1);
    if (!root && wide) this.drawPattern(g, tree, node, kind, x, y, shownWidth);
    if (width > LABEL_LEAST_PX) {
      const faint = this.flags !== null && !hit;
      g.globalAlpha = 1;
      g.fillStyle = token(faint ? '--t3' : root || kind === TRUNCATED ? '--t1' : '--f-text');
      const label = fitted(g, nameAt(tree, node), width - 10);
      if (label) g.fillText(label, x + 5, y + ROW_PX / 2);
    }
    const focused = node === this.focus && document.activeElement === this.face.el && this.face.el.matches(':focus-visible');
    if (node !== this.hover && !focused) return;
    g.globalAlpha = 1;
    g.strokeStyle = token(focused ? '--focus' : '--t1');
    g.lineWidth = focused ? 2 : 1.5;
    g.strokeRect(x + 1, y + 1, Math.max(2, width - 3), ROW_PX - 3);
  }

  private drawPattern(g: CanvasRenderingContext2D, tree: Tree, node: number, kind: number, x: number, y: number, width: number): void {
    if (kind === TRUNCATED) {
      this.hatch ??= hatching(g);
      if (this.hatch) g.fillStyle = this.hatch;
      g.fillRect(x, y, width, ROW_PX - 1);
      return;
    }
    // A little lighter or darker by name, so that neighbours of one origin stay apart.
    const shade = ((tree.name[node] ?? 0) * 7) % 5;
    if (shade) {
      g.fillStyle = shade & 1 ? `rgba(255,255,255,${0.025 * shade})` : `rgba(0,0,0,${0.028 * shade})`;
      g.fillRect(x, y, width, ROW_PX - 1);
    }
    g.fillStyle = alpha(token('--f-text'), 0.6);
    if (kind === KERNEL) g.fillRect(x, y + ROW_PX - 3, width, 2);
    else if (kind === PYTHON) for (let at = x + 1; at < x + width - 1; at += 5) g.fillRect(at, y + ROW_PX - 3, 2, 2);
  }

  private at(event: PointerEvent | MouseEvent): number {
    const tree = this.tree;
    if (!tree) return -1;
    const box = this.face.el.getBoundingClientRect();
    const depth = Math.floor((event.clientY - box.top + this.el.scrollTop) / ROW_PX);
    const zoomDepth = tree.depth[this.zoom] ?? 0;
    if (depth <= zoomDepth) return pathTo(tree, this.zoom)[Math.max(0, depth)] ?? -1;
    const where = (tree.x[this.zoom] ?? 0) + ((event.clientX - box.left) / box.width) * (tree.total[this.zoom] ?? 0);
    let node = this.zoom;
    while ((tree.depth[node] ?? 0) < depth) {
      let next = -1;
      for (let i = tree.first[node] ?? 0; i < (tree.first[node + 1] ?? 0) && next < 0; i++) {
        const kid = tree.kids[i] ?? 0;
        const x = tree.x[kid] ?? 0;
        if (where >= x && where < x + (tree.total[kid] ?? 0)) next = kid;
      }
      if (next < 0) return -1;
      node = next;
    }
    return node;
  }

  private point(event: PointerEvent): void {
    const node = this.at(event);
    if (node !== this.hover) {
      this.hover = node;
      this.face.el.classList.toggle('hit', node >= 0);
      this.face.redraw();
    }
    if (node < 0 || !this.tree) return hideTip();
    showTip(event.clientX, event.clientY, this.about(this.tree, node));
  }

  private leave(): void {
    this.hover = -1;
    hideTip();
    this.face.redraw();
  }

  private click(event: MouseEvent): void {
    const node = this.at(event);
    if (node >= 0) this.zoomTo(node);
  }

  private about(tree: Tree, node: number): HTMLElement {
    const all = tree.total[0] || 1;
    const name = nameAt(tree, node);
    const kind = tree.kind[node] ?? 0;
    const file = tree.files[tree.file[node] ?? 0] ?? '';
    const cpu = (n: number) => format.dur((n * this.o.period_ns()) / 1e9);
    const share = (n: number) => `${format.percent(n / all, 2)}, ${format.int(n)} samples, ${cpu(n)} of CPU`;
    const origin = node === 0 ? 'every stack' : kind === TRUNCATED ? 'truncated: what called the rest is not known' : (KINDS[kind] ?? '');
    return keyValues([
      ['frame', h('bdi.mono', null, name.length > TIP_NAME_MAX ? name.slice(0, TIP_NAME_MAX) + '…' : name)],
      ['origin', origin],
      ...(file ? [['file', h('bdi.mono', null, file.slice(-TIP_NAME_MAX))] as const] : []),
      ['total', share(tree.total[node] ?? 0)],
      ['self', share(tree.self[node] ?? 0)],
    ]);
  }

  private key(event: KeyboardEvent): void {
    const tree = this.tree;
    if (!tree) return;
    const run: Record<string, () => void> = {
      ArrowDown: () => this.walk(tree.kids[tree.first[this.focus] ?? 0] ?? 0, (tree.first[this.focus + 1] ?? 0) > (tree.first[this.focus] ?? 0)),
      ArrowUp: () => this.walk(tree.parent[this.focus] ?? 0, this.focus > 0),
      ArrowLeft: () => this.sibling(tree, -1),
      ArrowRight: () => this.sibling(tree, 1),
      Home: () => this.walk(0, true),
      Enter: () => this.zoomTo(this.focus),
      Escape: () => this.zoomTo(0),
    };
    const act = run[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && this.zoom === 0) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  private sibling(tree: Tree, by: number): void {
    if (this.focus === 0) return;
    const above = tree.parent[this.focus] ?? 0;
    const mine = tree.kids.subarray(tree.first[above], tree.first[above + 1]);
    const next = mine[mine.indexOf(this.focus) + by];
    this.walk(next ?? 0, next !== undefined);
  }

  private walk(node: number, exists: boolean): void {
    const tree = this.tree;
    if (!exists || !tree) return;
    this.focus = node;
    // What lies outside the zoom brings the view with it.
    if (!pathTo(tree, node).includes(this.zoom) && !pathTo(tree, this.zoom).includes(node)) {
      this.zoom = tree.parent[node] ?? 0;
      this.o.zoomed(this.zoom);
    }
    this.reveal(node);
    this.face.redraw();
    const kids = (tree.first[node + 1] ?? 0) - (tree.first[node] ?? 0);
    const kind = node === 0 ? '' : `, ${KINDS[tree.kind[node] ?? 0] ?? ''}`;
    say(`${nameAt(tree, node)}${kind}, ${format.percent((tree.total[node] ?? 0) / (tree.total[0] || 1))} of samples, self ${format.percent((tree.self[node] ?? 0) / (tree.total[0] || 1))}, ${kids} callees`);
    const box = this.face.el.getBoundingClientRect();
    const [x] = this.box(tree, node, box.width);
    showTip(box.left + Math.max(0, x) + 20, box.top + (tree.depth[node] ?? 0) * ROW_PX - this.el.scrollTop, this.about(tree, node));
  }

  private reveal(node: number): void {
    const y = (this.tree?.depth[node] ?? 0) * ROW_PX;
    if (y < this.el.scrollTop || y + 2 * ROW_PX > this.el.scrollTop + this.el.clientHeight) this.el.scrollTop = Math.max(0, y - this.el.clientHeight / 3);
  }
}

function hatching(g: CanvasRenderingContext2D): CanvasPattern | null {
  const tile = document.createElement('canvas');
  tile.width = tile.height = 8;
  const q = tile.getContext('2d');
  if (!q) return null;
  q.strokeStyle = alpha(token('--t1'), 0.32);
  q.lineWidth = 1.6;
  q.beginPath();
  for (const [x, y, to, down] of [[-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]] as const) {
    q.moveTo(x, y);
    q.lineTo(to, down);
  }
  q.stroke();
  return g.createPattern(tile, 'repeat');
}

/** As much of a name as fits; of a Rust or C++ path the end, because the beginning is shared. */
function fitted(g: CanvasRenderingContext2D, name: string, room: number): string {
  const letters = Math.ceil(room / NARROWEST_LETTER_PX);
  if (name.length <= letters && g.measureText(name).width <= room) return name;
  let rest = name;
  for (let at = rest.indexOf('::'); at >= 0 && at < rest.length - 2; at = rest.indexOf('::')) {
    rest = rest.slice(at + 2);
    if (rest.length <= letters && g.measureText(rest).width <= room) return rest;
  }
  let [low, high] = [0, Math.min(rest.length, letters)];
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    if (g.measureText(rest.slice(0, mid) + '…').width <= room) low = mid;
    else high = mid - 1;
  }
  return low > 1 ? rest.slice(0, low) + '…' : '';
}
