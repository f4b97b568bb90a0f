// What somebody wants to see of a host first: five questions, each answered by names that node-exporter made common.
import type { SeriesName } from '../api/types';
import type { Labels } from './meaning';

/** A chart of one or several names. */
export interface Plan {
  title: string;
  note: string;
  /** Name of a series and how its line is called; several names make one chart. */
  of: readonly { name: string; as?: string; where?: Labels }[];
  by?: string;
  stacked?: boolean;
  /** Values of `by` that are not drawn: the rest of a whole. */
  without?: readonly string[];
}

export interface Section {
  title: string;
  note: string;
  plans: Plan[];
}

const HOST: Plan[] = [
  { title: 'CPU', note: 'cores in use, by mode', of: [{ name: 'node_cpu_seconds_total' }], by: 'mode', stacked: true, without: ['idle', 'iowait'] },
  { title: 'Load', note: 'runnable and waiting threads', of: [{ name: 'node_load1', as: '1 m' }, { name: 'node_load5', as: '5 m' }, { name: 'node_load15', as: '15 m' }] },
  { title: 'Memory', note: 'of what the machine has', of: [{ name: 'node_memory_MemTotal_bytes', as: 'total' }, { name: 'node_memory_MemAvailable_bytes', as: 'available' }, { name: 'node_memory_Cached_bytes', as: 'cached' }, { name: 'node_memory_Dirty_bytes', as: 'dirty' }] },
  { title: 'Pressure', note: 'share of time somebody waited', of: [{ name: 'node_pressure_cpu_waiting_seconds_total', as: 'CPU' }, { name: 'node_pressure_memory_waiting_seconds_total', as: 'memory' }, { name: 'node_pressure_io_waiting_seconds_total', as: 'disk' }] },
  { title: 'Disk reads', note: 'by device', of: [{ name: 'node_disk_read_bytes_total' }], by: 'device' },
  { title: 'Disk writes', note: 'by device', of: [{ name: 'node_disk_written_bytes_total' }], by: 'device' },
  { title: 'Disk busy', note: 'share of time, by device', of: [{ name: 'node_disk_io_time_seconds_total' }], by: 'device' },
  { title: 'Free space', note: 'for those who are not root, by mount', of: [{ name: 'node_filesystem_avail_bytes' }], by: 'mountpoint' },
  { title: 'Network in', note: 'by device', of: [{ name: 'node_network_receive_bytes_total' }], by: 'device' },
  { title: 'Network out', note: 'by device', of: [{ name: 'node_network_transmit_bytes_total' }], by: 'device' },
];

const OWN: Plan[] = [
  { title: 'Accepted', note: 'records a second, by signal', of: [{ name: 'bulkhead_accepted_records_total' }], by: 'signal' },
  { title: 'Waiting', note: 'bytes not yet delivered, by destination', of: [{ name: 'bulkhead_waiting_bytes' }], by: 'destination' },
  { title: 'Commit', note: 'time of one write to the disk', of: [{ name: 'bulkhead_wal_commit_seconds_bucket' }] },
];

/** The sections whose names exist here; a plan keeps those of its names that do. */
export function curated(names: readonly SeriesName[]): Section[] {
  const known = new Set(names.map((row) => row.name));
  const present = (plans: Plan[]) => plans.map((plan) => ({ ...plan, of: plan.of.filter(({ name }) => known.has(name)) })).filter((plan) => plan.of.length > 0);
  const sections = [
    { title: 'This host', note: 'read from the kernel by the gateway', plans: present(HOST) },
    { title: 'This gateway', note: 'its own numbers', plans: present(OWN) },
  ];
  return sections.filter((section) => section.plans.length > 0);
}

/** The plan of one name, as it is drawn among all. */
export function planOf(row: SeriesName): Plan {
  return { title: row.name, note: row.help, of: [{ name: row.name }] };
}
