/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Layouts shared with user space. The twin of this file is ebpf/abi/src/lib.rs; sizes and offsets are asserted on both
 * sides, so one cannot change alone.
 */
#ifndef BULKHEAD_ABI_H
#define BULKHEAD_ABI_H

#include "kernel.h"

#define ROWS_MAX (1u << 22)        /* unwind rows of all files together: 32 MiB */
#define MAPPINGS_MAX 256           /* executable mappings of one process */
#define PROCESSES_MAX 4096         /* processes with tables at one time */
#define KERNEL_FRAMES_MAX 127      /* kernel.perf_event_max_stack */
#define USER_FRAMES_MAX 127
#define KERNEL_NAMES_MAX 16384
#define KERNEL_NAME_BYTES 64

/* One rule of the unwind table: how to find the caller's frame from `pc` on, up to the next row's pc. */
struct row {
	__u32 pc;    /* virtual address as in the ELF file */
	__s16 cfa;   /* offset of the canonical frame address, in units of 8 bytes (ROW_PLT: the threshold within the slot) */
	__u8 kind;   /* enum row_kind */
	__u8 rbp;    /* the caller's rbp lies at CFA - 8 * rbp; 0: rbp is unchanged; RBP_* below */
};

enum row_kind {
	ROW_GAP = 0,          /* no rule is known here */
	ROW_RSP = 1,          /* CFA = rsp + 8 * cfa */
	ROW_RBP = 2,          /* CFA = rbp + 8 * cfa */
	ROW_PLT = 3,          /* CFA = rsp + 8, or rsp + 16 when (rip & 15) >= cfa: a procedure linkage slot has pushed its index */
	ROW_UNSUPPORTED = 4,  /* there is a rule, and it is beyond this table */
	ROW_SIGNAL = 5,       /* the kernel's signal frame: every register lies at a known place above rsp */
	ROW_RBP_DEREF = 6,    /* CFA = *(rbp + 8 * cfa): a function that realigned its stack */
	ROW_RSP_DEREF = 8,    /* CFA = *(rsp + 8 * cfa) + 8: cipher and hash loops that keep the old rsp in their frame */
	ROW_RSP_FAR = 16,     /* and the 15 after it: CFA = rsp + 8 * ((kind - ROW_RSP_FAR) * FAR_STEP + cfa): frames beyond 256 KiB */
	ROW_END = 7,          /* outermost frame: the return address is undefined on purpose */
};

#define FAR_STEP 32768
#define FAR_STEPS 16

enum {
	RBP_AT_RBP = 254,     /* the caller's rbp lies where rbp points */
	RBP_LOST = 255,       /* the caller's rbp cannot be found by this table */
};

struct mapping {
	__u64 start;     /* first address */
	__u64 end;       /* first address after it */
	__u64 bias;      /* run-time address minus ELF virtual address */
	__u32 first_row; /* index into rows */
	__u32 rows;      /* 0: no table (JIT, anonymous, refused) */
};

struct process {
	__u64 space;     /* which address space the mappings describe; see address_space() */
	__u32 count;     /* mappings in use, sorted by address */
	__u32 zero;
	struct mapping mappings[MAPPINGS_MAX];
};

/* Why the walk of the user stack stopped. The twin is ipc's stacks::End. */
enum end {
	END_COMPLETE = 0,
	END_NO_MAPPING = 1,
	END_GAP = 2,
	END_UNSUPPORTED = 3,
	END_READ_FAULT = 4,
	END_DEPTH = 5,
	END_BAD_PC = 6,
	END_FRAME_POINTER = 7,
	END_NO_TABLE = 8,
	END_KERNEL_ONLY = 9,
};

/* What goes over the ring: this header, then kernel frames, then user frames, leaf first. */
struct sample {
	__u32 tgid;
	__u32 tid;
	__u64 space;
	__u64 cgroup;    /* inode of the version 2 cgroup folder */
	__u64 time_ns;   /* CLOCK_MONOTONIC */
	__u32 cpu;
	__u16 kernel_frames;
	__u16 user_frames;
	__u16 end;       /* enum end */
	__u16 gaps;      /* frames that were stepped over by frame pointer, for want of a row */
	__u32 zero;
	char comm[16];   /* of the process (its first thread), not of the thread */
	__u64 frames[KERNEL_FRAMES_MAX + USER_FRAMES_MAX];
};

struct kernel_name {
	char text[KERNEL_NAME_BYTES];
};

/* Indices of the per-CPU counters. */
enum counter {
	COUNT_RUNS = 0,      /* times the clock fired on this CPU, idle included: rate times seconds when all is well */
	COUNT_IDLE = 1,      /* of those, in the idle task */
	COUNT_THINNED = 2,   /* of those, skipped on purpose because the reader asked for fewer */
	COUNT_SENT = 3,      /* of those, put into the ring */
	COUNT_LOST = 4,      /* of those, refused by a full ring */
	COUNTERS = 5,
};

/* Indices of the control array. */
enum control {
	CONTROL_KEEP_ONE_OF = 0, /* 1: keep every sample, 5: one in five, 0: none */
	CONTROLS = 1,
};

_Static_assert(sizeof(struct row) == 8, "twin: Row");
_Static_assert(sizeof(struct mapping) == 32, "twin: Mapping");
_Static_assert(sizeof(struct process) == 16 + 32 * MAPPINGS_MAX, "twin: PROCESS_BYTES");
_Static_assert(__builtin_offsetof(struct sample, frames) == 64, "twin: HEADER_BYTES");
_Static_assert(__builtin_offsetof(struct sample, cpu) == 32, "twin: Header");
_Static_assert(__builtin_offsetof(struct sample, comm) == 48, "twin: Header");

#endif
