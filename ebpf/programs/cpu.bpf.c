/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The CPU profiler's kernel side: at every tick of a CPU's software clock, who runs, and through which calls did they get there?
 *
 * Image: a photograph of whoever stands at the counter, and then the trail of receipts in their pocket read backwards. Each
 * receipt says where the previous one lies; a table that user space prepared from the program's own `.eh_frame` says how to
 * read the receipts of each shop.
 *
 * Algorithm: kernel frames come from the kernel. User frames: find the mapping of the program counter (binary search among at
 * most 256), the row of the address (binary search among at most 2^22), compute the caller's frame, read the return address,
 * again. Where no row exists (code made at run time, hand-written assembly) one step goes by frame pointer and then the tables
 * are tried again. Every walk ends with a reason, which travels with the sample.
 *
 * Bounds: every loop is a bpf_loop with a constant; plain nested loops made the verifier take more than a minute. Every read of
 * user memory may fail and ends the walk. Rows that lie can only produce a wrong stack, never a wrong access.
 *
 * Weakness: the software clock is an interrupt, so code that runs with interrupts off is charged late. The first samples of a
 * process are taken before its tables exist and follow frame pointers only (END_NO_TABLE).
 *
 * Sources: the kernel's bpf-helpers(7) and uapi headers; System V psABI for x86-64, sections 3.4.1 and 3.7; DWARF 5, section 6.4.
 */
#include "abi.h"

#define MAPPING_STEPS 9            /* 2^9 > MAPPINGS_MAX */
#define ROW_STEPS 23               /* 2^23 > ROWS_MAX */
#define PAGE_ZERO 4096             /* nothing is ever mapped below: vm.mmap_min_addr */
#define NEW_NAMES_MAX 32           /* kernel names made in one sample; the rest follow with the next ones */

/* Signal frame (struct rt_sigframe without its return address): uc_flags, uc_link and uc_stack are 40 bytes, then the registers
 * of sigcontext; rbp is the eleventh of them, rsp and rip are six and seven places on. */
#define SIGNAL_RBP_OFFSET (40 + 10 * 8)
enum { SIGNAL_RBP = 0, SIGNAL_RSP = 5, SIGNAL_RIP = 6, SIGNAL_WORDS = 7 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ROWS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE); /* filled by a copy into shared memory: no system call, no capability */
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROCESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* 8 KiB each, paid for only when used; written by user space alone */
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* the loader sets max(1 MiB, 64 KiB x CPUs) */
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sample);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CONTROLS);
	__type(key, __u32);
	__type(value, __u64);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KERNEL_NAMES_MAX);
	__type(key, __u64);
	__type(value, struct kernel_name);
} kernel_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kernel_name);
} name_scratch SEC(".maps");

/* Hides where a number came from, so that the check that follows is made on the register that is used: clang would otherwise
 * check a copy and leave the verifier with an unbounded original. */
#define bounded(number) asm volatile("" : "+r"(number))

/* Each CPU has its own cell, and the program cannot interrupt itself: a plain add is exact. */
static __always_inline __u64 count(__u32 which)
{
	__u64 *cell = bpf_map_lookup_elem(&counters, &which);

	if (!cell)
		return 0;
	*cell += 1;
	return *cell;
}

static __always_inline long read_word(__u64 *to, __u64 address)
{
	return bpf_probe_read_user(to, sizeof(*to), (void *)address);
}

/* ---- kernel names ---- */

struct naming {
	__u32 count; /* kernel frames in the scratch sample */
	__u32 made;  /* new names so far */
};

/* Names one kernel frame, if nobody has before. %ps needs neither /proc/kallsyms nor CAP_SYSLOG and works with kptr_restrict=2. */
static long name_frame(__u32 i, struct naming *naming)
{
	static const char format[] = "%ps";
	__u32 zero = 0;
	struct sample *sample = bpf_map_lookup_elem(&scratch, &zero);
	struct kernel_name *name = bpf_map_lookup_elem(&name_scratch, &zero);
	__u64 address, arguments[1];

	if (!sample || !name || i >= naming->count || i >= KERNEL_FRAMES_MAX || naming->made >= NEW_NAMES_MAX)
		return 1;
	address = sample->frames[i];
	if (bpf_map_lookup_elem(&kernel_names, &address))
		return 0;
	naming->made += 1;
	/* A return address may be the first byte of the next function: name the call before it. */
	arguments[0] = i ? address - 1 : address;
	__builtin_memset(name, 0, sizeof(*name));
	bpf_snprintf(name->text, sizeof(name->text), format, arguments, sizeof(arguments));
	bpf_map_update_elem(&kernel_names, &address, name, 0);
	return 0;
}

static __always_inline void name_kernel_frames(__u32 frames)
{
	struct naming naming = { .count = frames };

	bpf_loop(KERNEL_FRAMES_MAX, name_frame, &naming, 0);
}

/* ---- user stack by table ---- */

struct search {
	__u32 low, high;  /* the answer lies in low..=high */
	__u32 tgid;
	__u32 relative;   /* ELF virtual address looked for */
	__u64 address;    /* run-time address looked for */
};

/* First mapping that ends after the address. */
static long search_mapping(__u32 i, struct search *s)
{
	__u32 middle = (s->low + s->high) >> 1, tgid = s->tgid;
	struct process *process;

	if (s->low >= s->high || middle >= MAPPINGS_MAX)
		return 1;
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process)
		return 1;
	if (process->mappings[middle].end <= s->address)
		s->low = middle + 1;
	else
		s->high = middle;
	return 0;
}

/* First row that begins after the address; its predecessor is the rule. */
static long search_row(__u32 i, struct search *s)
{
	__u32 middle = (s->low + s->high) >> 1;
	struct row *row;

	if (s->low >= s->high)
		return 1;
	row = bpf_map_lookup_elem(&rows, &middle);
	if (!row)
		return 1;
	if (row->pc <= s->relative)
		s->low = middle + 1;
	else
		s->high = middle;
	return 0;
}

struct walk {
	__u64 ip, sp, bp;
	__u32 tgid;
	__u32 kernel_frames; /* user frames are stored behind them */
	__u32 frames;
	__u32 end;
	__u32 done;
	__u32 exact;         /* ip is where execution stands, not a return address: look up ip itself, not the call before it */
	__u32 gaps;
	__u32 table;         /* the mapping of this frame has rows */
};

static __always_inline long stop(struct walk *w, __u32 end)
{
	w->end = end;
	w->done = 1;
	return 1;
}

/* One step by frame pointer, where no row is known. A zero rbp marks the outermost frame (psABI 3.4.1), but only in code that
 * keeps frame pointers: where a table exists and merely has a hole, or before the first step, zero may be any value. */
static __always_inline long step_by_frame_pointer(struct walk *w)
{
	__u64 frame = w->bp, caller, saved;

	if (!frame && !w->table && w->gaps)
		return stop(w, END_COMPLETE);
	w->gaps += 1;
	if (frame < w->sp || read_word(&caller, frame + 8) || read_word(&saved, frame))
		return stop(w, w->table ? END_GAP : END_FRAME_POINTER);
	w->bp = saved;
	w->sp = frame + 16;
	w->ip = caller;
	if (caller < PAGE_ZERO)
		return stop(w, caller ? END_BAD_PC : END_COMPLETE);
	return 0;
}

static __always_inline long step_over_signal(struct walk *w)
{
	__u64 saved[SIGNAL_WORDS];

	if (bpf_probe_read_user(saved, sizeof(saved), (void *)(w->sp + SIGNAL_RBP_OFFSET)))
		return stop(w, END_READ_FAULT);
	w->bp = saved[SIGNAL_RBP];
	w->sp = saved[SIGNAL_RSP];
	w->ip = saved[SIGNAL_RIP];
	w->exact = 1;
	return 0;
}

static __always_inline long step_by_row(struct walk *w, struct row *row)
{
	__s64 offset = (__s64)row->cfa * 8;
	__u64 cfa, caller, threshold;
	__u8 rbp = row->rbp;

	switch (row->kind) {
	case ROW_RSP:
		cfa = w->sp + offset;
		break;
	case ROW_RBP:
		cfa = w->bp + offset;
		break;
	case ROW_PLT:
		threshold = (__u64)(__u16)row->cfa;
		cfa = w->sp + 8 + ((w->ip & 15) >= threshold ? 8 : 0);
		break;
	case ROW_RBP_DEREF:
		if (read_word(&cfa, w->bp + offset))
			return stop(w, END_READ_FAULT);
		break;
	case ROW_RSP_DEREF:
		if (read_word(&cfa, w->sp + offset))
			return stop(w, END_READ_FAULT);
		cfa += 8;
		break;
	case ROW_SIGNAL:
		return step_over_signal(w);
	case ROW_END:
		return stop(w, END_COMPLETE);
	default:
		if (row->kind < ROW_RSP_FAR || row->kind >= ROW_RSP_FAR + FAR_STEPS)
			return stop(w, END_UNSUPPORTED);
		cfa = w->sp + 8 * ((__u64)(row->kind - ROW_RSP_FAR) * FAR_STEP + (__u16)row->cfa);
	}
	/* The stack grows down: a caller's frame that does not lie above ours is damage, and would let a walk run in a circle. */
	if (cfa <= w->sp)
		return stop(w, END_READ_FAULT);
	if (read_word(&caller, cfa - 8))
		return stop(w, END_READ_FAULT);
	if (rbp == RBP_LOST)
		w->bp = 0;
	else if (rbp == RBP_AT_RBP) {
		if (read_word(&w->bp, w->bp))
			return stop(w, END_READ_FAULT);
	} else if (rbp) {
		if (read_word(&w->bp, cfa - (__u64)rbp * 8))
			return stop(w, END_READ_FAULT);
	}
	w->sp = cfa;
	w->ip = caller;
	if (caller < PAGE_ZERO)
		return stop(w, caller ? END_BAD_PC : END_COMPLETE);
	return 0;
}

/* One frame: store it, find its rule, go to its caller. */
static long walk_frame(__u32 i, struct walk *w)
{
	__u32 zero = 0, tgid = w->tgid, slot, at;
	struct sample *sample = bpf_map_lookup_elem(&scratch, &zero);
	struct process *process = bpf_map_lookup_elem(&processes, &tgid);
	struct search s = {};
	struct mapping *mapping;
	struct row *row;

	if (!sample || !process)
		return stop(w, END_NO_TABLE);
	slot = w->kernel_frames + w->frames;
	if (slot >= KERNEL_FRAMES_MAX + USER_FRAMES_MAX)
		return stop(w, END_DEPTH);
	sample->frames[slot] = w->ip;
	w->frames += 1;

	/* A return address may be the first byte of the next function: what called lies one byte before. */
	s.address = w->ip - (w->exact ? 0 : 1);
	w->exact = 0;
	s.tgid = tgid;
	s.high = process->count;
	bpf_loop(MAPPING_STEPS, search_mapping, &s, 0);
	at = s.low;
	if (at >= process->count || at >= MAPPINGS_MAX)
		return stop(w, END_NO_MAPPING);
	mapping = &process->mappings[at];
	if (s.address < mapping->start)
		return stop(w, END_NO_MAPPING);

	w->table = mapping->rows != 0;
	if (!w->table)
		return step_by_frame_pointer(w);
	s.relative = (__u32)(s.address - mapping->bias);
	s.low = mapping->first_row;
	s.high = mapping->first_row + mapping->rows;
	at = s.low;
	bpf_loop(ROW_STEPS, search_row, &s, 0);
	if (s.low <= at)
		return step_by_frame_pointer(w);
	at = s.low - 1;
	row = bpf_map_lookup_elem(&rows, &at);
	if (!row || row->kind == ROW_GAP)
		return step_by_frame_pointer(w);
	return step_by_row(w, row);
}

static __always_inline void walk_user_stack(void *ctx, struct sample *sample)
{
	struct walk w = { .tgid = sample->tgid, .exact = 1, .kernel_frames = sample->kernel_frames };
	volatile __u64 *now = (volatile __u64 *)ctx;
	__u64 cs = now[REGS_CS];

	if ((cs & 3) == 3) {
		/* The clock interrupted user code: the context is the user's registers. */
		w.ip = now[REGS_IP];
		w.sp = now[REGS_SP];
		w.bp = now[REGS_BP];
	} else {
		/* It interrupted the kernel, which saved them on the way in. */
		struct pt_regs *saved = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

		w.ip = saved->ip;
		w.sp = saved->sp;
		w.bp = saved->bp;
	}
	bpf_loop(USER_FRAMES_MAX, walk_frame, &w, 0);
	sample->user_frames = w.frames;
	sample->end = w.done ? w.end : END_DEPTH;
	sample->gaps = w.gaps;
}

/* ---- the sample ---- */

static __always_inline void follow_frame_pointers(void *ctx, struct sample *sample)
{
	__u64 at = sample->kernel_frames;
	long bytes;

	sample->end = END_NO_TABLE;
	bounded(at);
	if (at > KERNEL_FRAMES_MAX)
		return;
	bytes = bpf_get_stack(ctx, &sample->frames[at], USER_FRAMES_MAX * 8, BPF_F_USER_STACK);
	if (bytes > 0 && bytes <= USER_FRAMES_MAX * 8)
		sample->user_frames = (__u64)bytes >> 3;
}

/* A number that changes when a process takes another program (exec) or its pid is reused: the address of its memory descriptor,
 * mixed with the start time so that the kernel address itself does not leave the kernel. */
static __always_inline __u64 address_space(struct mm_struct *mm, __u64 start)
{
	__u64 mixed = (__u64)mm ^ (start * 0x9e3779b97f4a7c15ull);

	mixed ^= mixed >> 32;
	mixed *= 0xd6e8feb86659fd93ull;
	return mixed ^ (mixed >> 32) ^ start;
}

static __always_inline int take_sample(void *ctx, int tables, int names)
{
	__u64 thread = bpf_get_current_pid_tgid(), runs = count(COUNT_RUNS), *keep, left;
	__u32 zero = 0, tgid = thread >> 32;
	__u64 frames;
	struct task_struct *task, *leader;
	struct process *process;
	struct sample *sample;
	struct mm_struct *mm;
	long bytes;

	if (!tgid) {
		count(COUNT_IDLE);
		return 0;
	}
	keep = bpf_map_lookup_elem(&control, &zero);
	left = keep ? *keep : 1;
	if (left != 1 && (!left || runs % left)) {
		count(COUNT_THINNED);
		return 0;
	}
	sample = bpf_map_lookup_elem(&scratch, &zero);
	if (!sample)
		return 0;

	task = (struct task_struct *)bpf_get_current_task();
	mm = BPF_CORE_READ(task, mm);
	leader = BPF_CORE_READ(task, group_leader);
	sample->tgid = tgid;
	sample->tid = (__u32)thread;
	sample->space = mm ? address_space(mm, BPF_CORE_READ(leader, start_boottime)) : 0;
	sample->cgroup = bpf_get_current_cgroup_id();
	sample->time_ns = bpf_ktime_get_ns();
	sample->cpu = bpf_get_smp_processor_id();
	sample->user_frames = 0;
	sample->gaps = 0;
	sample->zero = 0;
	sample->end = END_KERNEL_ONLY;
	BPF_CORE_READ_INTO(&sample->comm, leader, comm);

	bytes = bpf_get_stack(ctx, sample->frames, KERNEL_FRAMES_MAX * 8, 0);
	if (bytes < 0 || bytes > KERNEL_FRAMES_MAX * 8)
		bytes = 0;
	sample->kernel_frames = (__u64)bytes >> 3;
	if (names && sample->kernel_frames)
		name_kernel_frames(sample->kernel_frames);

	if (mm) {
		process = tables ? bpf_map_lookup_elem(&processes, &tgid) : 0;
		/* Mappings of the program that was here before exec would only mislead. */
		if (process && process->space == sample->space)
			walk_user_stack(ctx, sample);
		else
			follow_frame_pointers(ctx, sample);
	}

	frames = (__u32)sample->kernel_frames + sample->user_frames;
	bounded(frames);
	if (frames > KERNEL_FRAMES_MAX + USER_FRAMES_MAX)
		frames = KERNEL_FRAMES_MAX + USER_FRAMES_MAX;
	/* The reader looks every 50 ms; a wake-up for each sample would cost more than the sample. */
	if (bpf_ringbuf_output(&samples, sample, __builtin_offsetof(struct sample, frames) + frames * 8, BPF_RB_NO_WAKEUP))
		count(COUNT_LOST);
	else
		count(COUNT_SENT);
	return 0;
}

/* Kernel 5.17 and later: tables and names. */
SEC("perf_event")
int cpu_tables(struct bpf_perf_event_data *ctx)
{
	return take_sample(ctx, 1, 1);
}

/* Kernel 5.17 and later, asked to do without tables. */
SEC("perf_event")
int cpu_frame_pointers(struct bpf_perf_event_data *ctx)
{
	return take_sample(ctx, 0, 1);
}

/* Kernels from 5.8 on: no bpf_loop, no bpf_snprintf. */
SEC("perf_event")
int cpu_plain(struct bpf_perf_event_data *ctx)
{
	return take_sample(ctx, 0, 0);
}

/* The helpers used here are offered to GPL-compatible programs. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
