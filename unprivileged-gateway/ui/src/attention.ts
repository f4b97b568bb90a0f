// Is somebody looking? A page left open on a second screen need not move as smoothly as one in use.

const LOOKS_AWAY_MS = 20_000;

let last = performance.now();
const seen = () => (last = performance.now());
for (const event of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'focus']) addEventListener(event, seen, { passive: true, capture: true });

export const attended = () => performance.now() - last < LOOKS_AWAY_MS;
