/* The inventory of bpf/process.c: what ran before it was watched, from the kernel's own list of processes. */
#ifndef EBBFLOW_PROCESS_INVENTORY_H
#define EBBFLOW_PROCESS_INVENTORY_H

/* Through the kernel's list of processes. */
struct walk {
	u64 first; /* list nodes: where it began, */
	u64 next;  /* and where it goes on; 0: it is through */
	u64 found[FOUND];
	u32 count;
};

struct inventory_order {
	u32 pid; /* the process that asks for an inventory by renaming its thread */
	u32 complete;
};

BPF_ARRAY(inventory_orders, struct inventory_order, 1);
BPF_PERCPU_ARRAY(walks, struct walk, 1);
BPF_PROG_ARRAY(tails, 2);

/* One that is watched and was not told of. */
static inline void list_process(u64 task, u16 flags)
{
	struct process_inventory *inventory;
	struct event *event;
	u64 signal, parent;
	u32 pid = 0, state = 0;

	READ(pid, task, OFFSET_TASK_TGID);
	if (!pid || !watched(pid) || !is_new(pid, start_of(task)))
		return;
	event = event_begin_bare(SLOT, PROCESS_INVENTORY);
	if (!event)
		return;
	event_about(event, leader_of(task));
	event->row.flags = flags;
	READ(event->row.since_ns, leader_of(task), OFFSET_TASK_START_TIME);
	flag_kernel_thread(event, task);
	READ(state, task, OFFSET_TASK_EXIT_STATE);
	signal = signal_of(task);
	inventory = (void *)event->payload;
	__builtin_memset(inventory, 0, sizeof(*inventory));
	READ(inventory->threads, signal, OFFSET_SIGNAL_LIVE);
	if (state & EXIT_IS_ZOMBIE && !inventory->threads)
		event->row.flags |= PROCESS_ZOMBIE;
	READ(inventory->cpu_ns, signal, OFFSET_SIGNAL_RUN);
	parent = parent_of(leader_of(task));
	READ(inventory->parent_pid, parent, OFFSET_TASK_TGID);
	inventory->parent_start_boottime_ns = start_of(parent);
	place_of(task, &inventory->cgroup_id, &inventory->legacy_cgroup_id);
	file_of(task, &inventory->exe_inode, &inventory->exe_device);
	put_users(task, &inventory->uid, &inventory->gid, &inventory->effective_uid);
	event_emit(event, sizeof(*inventory));
}

/* cgroup_attach_task(cgroup, path, task, whole process): bpf/watch.c, attached before, has noted it. */
int process_joined(struct bpf_raw_tracepoint_args *ctx)
{
	list_process(ctx->args[2], PROCESS_JOINED);
	return 0;
}

/* Find some that were not told. All tail calls of a walk are under one RCU lock: nothing on the list can be freed
 * meanwhile. Finding and telling are two programs because telling in a long loop is too much for the verifier.
 */
int process_found(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	struct walk *walk = walks.lookup(&zero);
	u64 node, task;

	if (!walk)
		return 0;
	node = walk->next;
	walk->count = 0; /* counted in memory: in a register, the verifier would try every number with every round */
	for (int i = 0; i < CHUNK && walk->count < FOUND; i++) {
		u32 pid = 0;

		if (!node || node == walk->first) {
			node = 0;
			break;
		}
		task = node - OFFSET_TASK_LIST;
		READ(node, node, 0);
		READ(pid, task, OFFSET_TASK_TGID);
		if (pid && watched(pid) && !life_of(pid, start_of(task)))
			walk->found[walk->count++ & (FOUND - 1)] = task;
	}
	walk->next = node;
	tails.call(ctx, node && !walk->count ? TAIL_FIND : TAIL_TELL);
	return 0;
}

int process_told(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	struct walk *walk = walks.lookup(&zero);
	struct inventory_order *order = inventory_orders.lookup(&zero);

	if (!walk || !order)
		return 0;
	for (int i = 0; i < FOUND; i++) {
		if (i >= walk->count)
			break;
		list_process(walk->found[i], 0);
	}
	if (walk->next)
		tails.call(ctx, TAIL_FIND);
	else
		order->complete = 1;
	return 0;
}

/* task_rename(task, new name): an exec begins with it; and the producer renames its thread to itself to ask for an
 * inventory, which must run in the kernel because /proc tells starts in clock ticks only.
 */
int process_renamed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], number = bpf_get_current_pid_tgid(), first;
	u32 pid = number >> 32;
	int zero = 0;
	struct walk *walk = walks.lookup(&zero);
	struct inventory_order *order = inventory_orders.lookup(&zero);
	struct life *life = lives.lookup(&pid);

	if (life && pid == (u32)number)
		name_of(task, life->old_comm);
	if (!order || order->pid != pid || !walk)
		return 0;
	first = leader_of(task) + OFFSET_TASK_LIST;
	walk->first = first;
	READ(walk->next, first, 0);
	tails.call(ctx, TAIL_FIND);
	return 0;
}

#endif
