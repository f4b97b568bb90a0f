// A canvas that knows its size in device pixels and redraws when size or theme change.
import type { Scope } from '../scope';
import { themeChanged, token } from '../theme';

export interface Canvas {
  readonly el: HTMLCanvasElement;
  readonly width: number;
  readonly height: number;
  redraw(): void;
}

export type Draw = (g: CanvasRenderingContext2D, width: number, height: number) => void;

/** `label` is the text twin: what a reader who does not see the drawing is told. Without one the canvas is decoration. */
export function canvas(el: HTMLCanvasElement, scope: Scope, draw: Draw, label?: string): Canvas {
  const g = el.getContext('2d');
  let width = 0;
  let height = 0;
  let ratio = 1;
  const redraw = () => {
    if (!g || !width || !el.isConnected) return;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    draw(g, width, height);
  };
  const measure = () => {
    const box = el.getBoundingClientRect();
    ratio = devicePixelRatio || 1;
    width = box.width;
    height = box.height;
    if (!width) return;
    el.width = Math.round(width * ratio);
    el.height = Math.round(height * ratio);
    redraw();
  };
  const observer = new ResizeObserver(measure);
  observer.observe(el);
  scope.add(() => observer.disconnect());
  scope.add(themeChanged.on(redraw));
  if (label) {
    el.setAttribute('role', 'img');
    el.setAttribute('aria-label', label);
  } else el.setAttribute('aria-hidden', 'true');
  return {
    el,
    get width() {
      return width;
    },
    get height() {
      return height;
    },
    redraw,
  };
}

export const SMALL_PX = 10.5;

export function font(px = SMALL_PX): string {
  return `${px}px ${token('--ui')}`;
}
