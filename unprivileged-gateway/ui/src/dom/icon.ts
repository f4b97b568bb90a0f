// Icons: 16 px, one path each, drawn in the text colour.

const PATHS = {
  overview: 'M1.5 4.5h4M1.5 11.5h4M10.5 8h4M5.5 2.5h5v11h-5zM5.5 9c1.7-1.2 3.3 1.2 5 0',
  profiles: 'M1.5 2.5h13v3h-13zM1.5 5.5h8v3h-8zM3.5 8.5h5v3h-5zM5 11.5h2v2.5h-2z',
  logs: 'M2 3.5h12M2 6.5h8M2 9.5h11M2 12.5h6',
  traces: 'M1.5 3h9M4 6.3h10M6 9.6h5M8 13h6.5',
  metrics: 'M1.5 13.5h13M2 10l3.5-4 3 3L14 3',
  targets: 'M2 2h3v3H2zM6.5 2h3v3h-3zM11 2h3v3h-3zM2 6.5h3v3H2zM6.5 6.5h3v3h-3zM11 6.5h3v3h-3zM2 11h3v3H2zM6.5 11h3v3h-3zM11 11h3v3h-3z',
  cluster: 'M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8M8 1.8v3.4M13.4 11l-2.9-1.7M2.6 11l2.9-1.7M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6',
  probe: 'M4 4h8v8H4zM6.5 1.5V4M9.5 1.5V4M6.5 12v2.5M9.5 12v2.5M1.5 6.5H4M1.5 9.5H4M12 6.5h2.5M12 9.5h2.5',
  config: 'M5.5 2.5C3 2.5 4.5 7 2 8c2.5 1 1 5.5 3.5 5.5M10.5 2.5C13 2.5 11.5 7 14 8c-2.5 1-1 5.5-3.5 5.5',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3l3.7 3.7',
  theme: 'M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12',
  menu: 'M2 4.5h12M2 8h12M2 11.5h12',
  help: 'M5.8 6a2.2 2.2 0 1 1 3.3 1.9c-.8.5-1.1.9-1.1 1.7M8 12.2v.3',
  down: 'M8 2.5v10M4 8.5l4 4 4-4',
} as const;

export type IconName = keyof typeof PATHS;

const SVG = 'http://www.w3.org/2000/svg';

export function icon(name: IconName): SVGSVGElement {
  return drawing('0 0 16 16', 1.4, [PATHS[name]]);
}

/** The mark: a hull with two bulkheads, the water at three levels. */
export function mark(): SVGSVGElement {
  return drawing('0 0 18 18', 1.6, ['M2 3.5v11h14v-11M6.7 3.5v11M11.3 3.5v11', 'M2 10.5h4.7M6.7 7.5h4.6M11.3 12h4.7']);
}

function drawing(viewBox: string, stroke: number, paths: string[]): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  const line = { fill: 'none', stroke: 'currentColor', 'stroke-width': String(stroke), 'stroke-linejoin': 'round', 'stroke-linecap': 'round' };
  for (const [key, value] of Object.entries({ viewBox, ...line, 'aria-hidden': 'true' })) svg.setAttribute(key, value);
  for (const d of paths) {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}
