// Numbers that the kernel gives, in the words of its own headers. Pure.
import { shown } from '../dom/format';

/** Position is the bit; from include/uapi/linux/capability.h. */
const CAPABILITIES = [
  'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT',
  'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE',
];

/** Sixteen hexadecimal digits, as in /proc/PID/status. */
export function mask(bits: number): string {
  return BigInt(Math.max(0, Math.trunc(bits) || 0)).toString(16).padStart(16, '0');
}

/** Names of the bits that are set; a bit without a name here is shown by its number. */
export function capabilities(bits: number): string[] {
  const names: string[] = [];
  let rest = BigInt(Math.max(0, Math.trunc(bits) || 0));
  for (let bit = 0; rest > 0n; bit++, rest >>= 1n) if (rest & 1n) names.push(CAPABILITIES[bit] ?? `bit ${bit}`);
  return names;
}

export function seccompMode(mode: number): string {
  return ['0, off', '1, strict', '2, filter'][mode] ?? String(mode);
}

/** How a stack ended, in words; whole are those that reached the program's start. */
const ENDS: Record<string, [title: string, whole: boolean]> = {
  complete: ['complete', true],
  kernel_only: ['kernel thread, no user part', true],
  no_mapping: ['address in no mapped file', false],
  gap: ['no row for this address', false],
  unsupported: ['rule not supported', false],
  read_fault: ['stack could not be read', false],
  depth: ['deeper than the limit', false],
  bad_pc: ['address makes no sense', false],
  frame_pointer: ['frame pointer led nowhere', false],
  no_table: ['table not there yet', false],
};

export function endTitle(name: string): string {
  return ENDS[name]?.[0] ?? shown(name).replace(/_/g, ' ');
}

export function whole(name: string): boolean {
  return ENDS[name]?.[1] ?? false;
}
