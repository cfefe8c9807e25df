/* Keeps the watched processes up to date: children inherit the reasons of their parent, a new executable gains or
 * loses one, a process that ends is forgotten. One program for all features; see bpf/watch.h.
 *
 * Forgetting is a function of its own because it must come last: a feature that tells the end of a process asks in the
 * same tracepoint whether it is watched, and programs run in the order in which they were attached.
 *
 * BCC dialect. Flags given by the loader: WATCH_ALL, WATCH_PORTS, HAS_GROUP_DEAD, OFFSET_*.
 */
#define WATCH_OWNER
#include "kernel.h"
#include "watch.h"

enum { CLONE_THREAD_FLAG = 0x10000 };

BPF_HASH(target_exes, struct exe_key, u8, 1024);
BPF_HASH(target_cgroups, u64, u8, 1024);
/* How often a process could not be noted for want of room. */
BPF_ARRAY(watch_lost, u64, 1);

static inline void note(u32 pid, u32 why)
{
	int zero = 0;
	u64 *lost;

	if (!watch_targets.update(&pid, &why))
		return;
	lost = watch_lost.lookup(&zero);
	if (lost)
		__sync_fetch_and_add(lost, 1);
}

TRACEPOINT_PROBE(task, task_newtask)
{
	u32 parent = bpf_get_current_pid_tgid() >> 32;
	u32 *why = watch_targets.lookup(&parent);

	if (why && !(args->clone_flags & CLONE_THREAD_FLAG))
		note(args->pid, *why);
	return 0;
}

/* A new executable keeps the reasons that are about the process, and gains or loses the one about the file. */
TRACEPOINT_PROBE(sched, sched_process_exec)
{
	u64 mm = 0, file = 0, inode = 0, sb = 0;
	u32 pid = bpf_get_current_pid_tgid() >> 32, device = 0;
	struct exe_key exe = {};
	u32 *old = watch_targets.lookup(&pid), why = old ? *old & ~WATCHED_EXE : 0;

	READ(mm, bpf_get_current_task(), OFFSET_TASK_MM);
	READ(file, mm, OFFSET_MM_EXE_FILE);
	READ(inode, file, OFFSET_FILE_INODE);
	READ(exe.inode, inode, OFFSET_INODE_NUMBER);
	READ(sb, inode, OFFSET_INODE_SB);
	READ(device, sb, OFFSET_SB_DEV);
	exe.device = device;
	if (target_exes.lookup(&exe))
		why |= WATCHED_EXE;
	if (why)
		note(pid, why);
	else if (old)
		watch_targets.delete(&pid);
	return 0;
}

TRACEPOINT_PROBE(cgroup, cgroup_attach_task)
{
	u64 cgroup = args->dst_id;
	u32 pid = args->pid, *old = watch_targets.lookup(&pid);

	if (target_cgroups.lookup(&cgroup))
		note(pid, WATCHED_CGROUP | (old ? *old : 0));
	return 0;
}

int watch_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_pid_tgid();
	u32 pid = task >> 32;

#if HAS_GROUP_DEAD
	if (!(u8)ctx->args[1])
		return 0;
#else
	/* Older kernels do not say; the leader ends last in all but odd programs. */
	if (pid != (u32)task)
		return 0;
#endif
	watch_targets.delete(&pid);
#if WATCH_ALL || WATCH_PORTS
	watch_excluded.delete(&pid);
#endif
	return 0;
}
