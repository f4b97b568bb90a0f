// One sentence about the whole appliance: is everything delivered, and if not, what is held, how long is there room, is anything lost?
//
// Red is kept for data that is lost, refused or about to be; a destination that is down while the log has room is amber. Pure: takes
// what is known, returns words, so that pill, banner and tank always say the same.
import type { DestinationStatus, Status } from './api/types';
import * as format from './dom/format';
import type { State } from './dom/parts';

/** How the log has moved lately; NaN where not yet known. */
export interface Pace {
  /** Bytes a second by which the log grows; negative while it shrinks. */
  growth_bps: number;
  /** Bytes a second that come in. */
  inflow_bps: number;
  /** Records a second that are refused. */
  refused_rps: number;
}

export interface Health {
  state: State;
  /** Two or three words, for the pill. */
  word: string;
  /** The banner; empty when there is nothing to say. */
  lead: string;
  detail: string;
}

/** Below this much time left, a held backlog is a risk, no longer just a wait. */
const SOON_S = 600;
/** A backlog younger than this is the normal way through, not a backlog. */
const CATCHING_UP_S = 10;

export const isView = (d: DestinationStatus) => d.kind === 'view';

/** Nothing is sent anywhere: only the local view reads. */
export const keepsLocal = (status: Status) => !status.destinations.some((d) => !isView(d));

export const acceptedOf = (status: Status) => Object.values(status.signals).reduce((sum, s) => sum + (s?.accepted ?? 0), 0);

/** Seconds until the log is full if it goes on like this; Infinity if it does not grow. */
export function secondsToFull(status: Status, pace: Pace): number {
  const free = status.storage.max_bytes - status.storage.bytes;
  return pace.growth_bps > 0 ? Math.max(0, free / pace.growth_bps) : Infinity;
}

/** What a reader calls a destination: `loki/logs`. */
export const nameOf = (d: DestinationStatus) => `${d.kind}/${d.name}`;

/** Data is refused, or soon will be: the log is high, closed, or full within minutes. */
export function pressed(status: Status, pace: Pace): boolean {
  return !['ok', 'warn'].includes(status.storage.state) || pace.refused_rps > 0 || secondsToFull(status, pace) < SOON_S;
}

export function destinationState(d: DestinationStatus, underPressure: boolean): State {
  if (d.state === 'retrying') return underPressure ? 'risk' : 'wait';
  if (d.state === 'stopped' || d.state === 'removed') return d.waiting.records > 0 ? 'wait' : 'off';
  if (catchingUp(d)) return 'wait';
  return d.state === 'idle' && d.sent === 0 ? 'off' : 'ok'; // idle between two batches is as good as it gets
}

/** What people call it: `Loki`, `Tempo`; `Loki archive` where the name says more than the kind. */
export function titleOf(d: DestinationStatus): string {
  const upper = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);
  if (isView(d)) return 'Local view';
  if (d.kind !== 'loki' && d.kind !== 'pyroscope') return upper(d.name);
  return ['logs', 'profiles', d.kind, 'default'].includes(d.name) ? upper(d.kind) : `${upper(d.kind)} ${d.name}`;
}

export const catchingUp = (d: DestinationStatus) => d.waiting.records > 0 && (d.waiting.oldest_age_s ?? 0) > CATCHING_UP_S;

export function judge(status: Status, pace: Pace): Health {
  return refusing(status, pace) ?? damaged(status) ?? held(status, pace) ?? well(status);
}

function refusing(status: Status, pace: Pace): Health | null {
  const { state } = status.storage;
  const down = status.destinations.filter((d) => d.state === 'retrying').map(titleOf);
  const cure = down.length ? `Bring back ${list(down)}, or raise storage.max.` : 'Raise storage.max, or give the disk room.';
  if (state === 'closed') {
    const why = status.ready.why.length ? ` (${status.ready.why.join('; ')})` : '';
    return risk('Refusing new data', 'The log is closed: new data is refused.', `Senders still hold what is refused. What was accepted is on the disk${why}.`);
  }
  if (state === 'full' || pace.refused_rps > 0) {
    const share = format.percent(status.storage.bytes / status.storage.max_bytes, 0);
    return risk('Refusing new data', 'New data is refused.', `The log stands at ${share}; senders are told to keep what they have. Nothing accepted has been lost. ${cure}`);
  }
  return null;
}

function damaged(status: Status): Health | null {
  const kinds = Object.entries(status.damage).filter(([, n]) => n > 0);
  if (!kinds.length) return null;
  const text = kinds.map(([kind, n]) => `${kind.replace(/_/g, ' ')} ${format.int(n)}`).join(', ');
  return risk('Damage on disk', 'Part of the log could not be read.', `Since the start: ${text}. gateway wal verify names the records.`);
}

function held(status: Status, pace: Pace): Health | null {
  const room = secondsToFull(status, pace);
  const down = status.destinations.filter((d) => d.state === 'retrying');
  const room_text = Number.isFinite(room) ? `Room for ${format.dur(room)} more at this rate. ` : '';
  if (down.length) {
    const [first] = down;
    const error = first?.last_error ? `Last error: ${first.last_error.text}` : '';
    const names = list(down.map(titleOf));
    const when = room < SOON_S ? `is full in ${format.dur(room)}` : `stands at ${format.percent(status.storage.bytes / status.storage.max_bytes, 0)}`;
    if (pressed(status, pace)) return risk('Nearly full', `The log ${when}.`, `${names} ${down.length > 1 ? 'do' : 'does'} not take data; then senders must keep theirs. Nothing is lost yet. ${error}`);
    const word = down.length > 1 ? `${down.length} destinations down, held` : `${names} down, held`;
    return { state: 'wait', word, lead: `${names} ${down.length > 1 ? 'do' : 'does'} not take data.`, detail: `Nothing is lost: records wait on disk. ${room_text}${error}` };
  }
  if (status.storage.state === 'critical' || status.storage.state === 'high') {
    return risk('Nearly full', `The log stands at ${format.percent(status.storage.bytes / status.storage.max_bytes, 0)}.`, `${room_text}Raise storage.max, or find out what holds it below.`);
  }
  const gone = status.destinations.filter((d) => d.state === 'removed' && d.waiting.records > 0);
  if (gone.length) {
    const names = list(gone.map(titleOf));
    return { state: 'wait', word: 'Held, not configured', lead: `${names} is no longer configured.`, detail: `Its records are kept until it is put back, or until: gateway wal forget ${gone.map(nameOf).join(' ')}` };
  }
  const late = status.destinations.filter(catchingUp);
  if (late.length) {
    const bytes = late.reduce((sum, d) => sum + d.waiting.bytes, 0);
    return { state: 'wait', word: 'Catching up', lead: 'Catching up.', detail: `${format.bytes(bytes)} left to deliver to ${list(late.map(titleOf))}.` };
  }
  return null;
}

function well(status: Status): Health {
  if (!status.ready.ok) {
    return { state: 'wait', word: 'Not ready', lead: 'Not ready.', detail: status.ready.why.join('; ') };
  }
  return { state: 'ok', word: keepsLocal(status) ? 'Local view' : 'All delivered', lead: '', detail: '' };
}

const risk = (word: string, lead: string, detail: string): Health => ({ state: 'risk', word, lead, detail });

function list(names: string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1) ?? ''}`;
}
