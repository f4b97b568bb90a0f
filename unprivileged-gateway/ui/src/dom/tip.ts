// One tooltip for pointers. What it says is always also said elsewhere (label, table), because touch and keyboard have none.
import { fill, h, type Child } from './element';

const el = h('div.tip', { hidden: true, role: 'tooltip' });
const EDGE_PX = 6;
const BESIDE_PX = 14;
const BELOW_PX = 18;

export function showTip(x: number, y: number, ...kids: Child[]): void {
  if (!el.isConnected) (document.querySelector('main') ?? document.body).append(el);
  fill(el, kids);
  el.hidden = false;
  const box = el.getBoundingClientRect();
  const left = Math.max(EDGE_PX, Math.min(x + BESIDE_PX, innerWidth - box.width - EDGE_PX));
  const below = y + BELOW_PX + box.height <= innerHeight;
  el.style.left = `${left}px`;
  el.style.top = `${below ? y + BELOW_PX : Math.max(EDGE_PX, y - box.height - BESIDE_PX)}px`;
}

export function hideTip(): void {
  el.hidden = true;
}
