// Numbers as people read them: three significant digits, a thin space before the unit and between thousands.

const THIN = '\u2009';
const KIB = 1024;
const MIB = KIB * 1024;
const GIB = MIB * 1024;
const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;
const NONE = '–';

const grouped = (n: number) => Math.round(n).toLocaleString('en-US').replace(/,/g, THIN);
const three = (n: number) => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2));
const two = (n: number) => String(Math.floor(n)).padStart(2, '0');
const short = (n: number) => String(Math.abs(n) < 0.1 ? +n.toPrecision(3) : +n.toFixed(n < 10 ? 2 : 1));

/** Exact, for ledgers. */
export function int(n: number): string {
  return Number.isFinite(n) ? grouped(n) : NONE;
}

/** Rounded, for rates. */
export function num(n: number): string {
  if (!Number.isFinite(n)) return NONE;
  const a = Math.abs(n);
  if (a >= 1e9) return three(n / 1e9) + THIN + 'G';
  if (a >= 1e6) return three(n / 1e6) + THIN + 'M';
  if (a >= 1e4) return three(n / 1e3) + THIN + 'k';
  return a >= 100 || Number.isInteger(n) ? grouped(n) : three(n);
}

/** For the axis of a chart. */
export function tick(n: number): string {
  const a = Math.abs(n);
  if (a >= 1e9) return short(n / 1e9) + THIN + 'G';
  if (a >= 1e6) return short(n / 1e6) + THIN + 'M';
  return a >= 1e3 ? short(n / 1e3) + THIN + 'k' : short(n);
}

export function bytes(n: number): string {
  if (!Number.isFinite(n)) return NONE;
  if (n >= GIB) return three(n / GIB) + THIN + 'GiB';
  if (n >= MIB) return three(n / MIB) + THIN + 'MiB';
  return n >= KIB ? three(n / KIB) + THIN + 'KiB' : Math.round(n) + THIN + 'B';
}

/** A configured size: 8 GiB, not 8.00 GiB. */
export function size(n: number): string {
  return bytes(n).replace(/\.0+(?=\D)/, '');
}

export function percent(fraction: number, digits = 1): string {
  const least = 10 ** -digits / 100;
  if (fraction > 0 && fraction < least) return `under ${(least * 100).toFixed(digits)}${THIN}%`;
  return Number.isFinite(fraction) ? (fraction * 100).toFixed(digits) + THIN + '%' : NONE;
}

/** A length of time, in seconds. */
export function dur(s: number): string {
  if (!Number.isFinite(s)) return NONE;
  if (s <= 0) return `0${THIN}s`;
  if (s < 1e-6) return `${Math.round(s * 1e9)}${THIN}ns`;
  if (s < 1e-3) return three(s * 1e6) + THIN + 'µs';
  if (s < 1) return three(s * 1e3) + THIN + 'ms';
  if (s < MINUTE_S) return three(s) + THIN + 's';
  if (s < HOUR_S) return `${Math.floor(s / MINUTE_S)}${THIN}m${THIN}${two(s % MINUTE_S)}${THIN}s`;
  if (s < 2 * DAY_S) return `${Math.floor(s / HOUR_S)}${THIN}h${THIN}${two((s % HOUR_S) / MINUTE_S)}${THIN}m`;
  return `${Math.floor(s / DAY_S)}${THIN}d`;
}

/** Time of day of a moment in ms, in the reader's zone. */
export function time(ms: number, millis = false): string {
  const d = new Date(ms);
  const clock = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return millis ? `${clock}.${String(d.getMilliseconds()).padStart(3, '0')}` : clock;
}

export function hourMinute(ms: number): string {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}`;
}

/** Decimal nanoseconds to ms, with the part below a millisecond kept as fraction. Foreign text: NaN if it is no number. */
export function nanosToMs(ns: string): number {
  if (!/^\d{1,20}$/.test(ns)) return NaN;
  const whole = BigInt(ns);
  return Number(whole / 1_000_000n) + Number(whole % 1_000_000n) / 1e6;
}

/** Seconds between two moments in decimal nanoseconds; exact where doubles of a whole date are not. */
export function nanosBetween(from: string, to: string): number {
  if (!/^\d{1,20}$/.test(from) || !/^\d{1,20}$/.test(to)) return NaN;
  return Number(BigInt(to) - BigInt(from)) / 1e9;
}

/** Text as it may be shown on one line: no control characters, none that turn the direction of what follows. */
export function shown(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '\ufffd').trim() || '(no name)';
}
