/* What bpf/process.c reads of a task: parent, cgroups, file, users. Offsets are -D flags from BTF. */
#ifndef EBBFLOW_PROCESS_TASK_H
#define EBBFLOW_PROCESS_TASK_H

static inline u64 parent_of(u64 task)
{
	u64 parent = 0;

	READ(parent, task, OFFSET_TASK_PARENT);
	return leader_of(parent);
}

static inline u64 signal_of(u64 task)
{
	u64 signal = 0;

	READ(signal, task, OFFSET_TASK_SIGNAL);
	return signal;
}

static inline u64 cgroup_number(u64 cgroup)
{
	u64 node = 0, number = 0;

	READ(node, cgroup, OFFSET_CGROUP_NODE);
	READ(number, node, OFFSET_NODE_ID);
	return number;
}

/* Where a task is in the cgroups of version 2, and in one hierarchy of version 1. */
static inline void place_of(u64 task, u64 *cgroup_id, u64 *legacy_cgroup_id)
{
	u64 set = 0, cgroup = 0;

	READ(set, task, OFFSET_TASK_CGROUPS);
	READ(cgroup, set, OFFSET_SET_DEFAULT);
	*cgroup_id = cgroup_number(cgroup);
#if LEGACY_SUBSYSTEM >= 0
	u64 state = 0;

	READ(state, set, OFFSET_SET_SUBSYSTEMS + 8 * LEGACY_SUBSYSTEM);
	READ(cgroup, state, OFFSET_STATE_CGROUP);
	*legacy_cgroup_id = cgroup_number(cgroup);
#else
	*legacy_cgroup_id = 0;
#endif
}

static inline void file_of(u64 task, u64 *number, u32 *device)
{
	u64 mm = 0, file = 0, inode = 0, sb = 0;

	READ(mm, task, OFFSET_TASK_MM);
	READ(file, mm, OFFSET_MM_EXE_FILE);
	READ(inode, file, OFFSET_FILE_INODE);
	READ(*number, inode, OFFSET_INODE_NUMBER);
	READ(sb, inode, OFFSET_INODE_SB);
	READ(*device, sb, OFFSET_SB_DEV);
}

static inline void name_of(u64 task, char *comm)
{
	bpf_probe_read_kernel(comm, 16, (void *)(task + OFFSET_TASK_COMM));
}

static inline void flag_kernel_thread(struct event *event, u64 task)
{
	u32 flags = 0;

	READ(flags, task, OFFSET_TASK_FLAGS);
	if (flags & FLAG_KERNEL_THREAD)
		event->row.flags |= PROCESS_KERNEL_THREAD;
}

static inline void put_users(u64 task, u32 *uid, u32 *gid, u32 *effective_uid)
{
	u64 credentials = 0;

	READ(credentials, task, OFFSET_TASK_CREDENTIALS);
	READ(*uid, credentials, OFFSET_CREDENTIALS_UID);
	READ(*gid, credentials, OFFSET_CREDENTIALS_GID);
	READ(*effective_uid, credentials, OFFSET_CREDENTIALS_EUID);
}

#endif
