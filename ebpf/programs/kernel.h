/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The few kernel types and constants our programs touch, written by hand.
 *
 * Image: a hand-drawn map of the three streets we walk, not the atlas. Each struct names only the fields that are read;
 * `preserve_access_index` makes clang record which field is meant, and the loader patches in the running kernel's offset
 * (CO-RE, from /sys/kernel/btf/vmlinux). Types and numbers come from the kernel's own headers (include/linux/sched.h,
 * include/uapi/linux/bpf.h, arch/x86/include/uapi/asm/ptrace.h).
 *
 * Weakness: a field that is renamed in some kernel is refused at load, by name, and profiling says so.
 */
#ifndef BULKHEAD_KERNEL_H
#define BULKHEAD_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* Values of enum bpf_map_type. */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

/* Flags of map creation, of bpf_get_stack and of bpf_ringbuf_output. */
enum {
	BPF_RB_NO_WAKEUP = 1u << 0,
	BPF_F_NO_PREALLOC = 1u << 0,
	BPF_F_USER_STACK = 1u << 8,
	BPF_F_MMAPABLE = 1u << 10,
};

#define CO_RE __attribute__((preserve_access_index))

struct mm_struct;

struct task_struct {
	struct mm_struct *mm;
	struct task_struct *group_leader;
	__u64 start_boottime;
	char comm[16];
} CO_RE;

/* What bpf_task_pt_regs points at: the registers saved when the thread last entered the kernel. */
struct pt_regs {
	unsigned long bp;
	unsigned long ip;
	unsigned long sp;
} CO_RE;

/* The context of a perf_event program is fixed ABI (uapi/linux/bpf_perf_event.h): user_regs of x86-64, in this order.
 * It is read as plain 8-byte words: the kernel's BTF calls `cs` two bytes wide, and a two-byte context load is refused. */
struct bpf_perf_event_data;
enum {
	REGS_BP = 4,
	REGS_IP = 16,
	REGS_CS = 17,
	REGS_SP = 19,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#endif
