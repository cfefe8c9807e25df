/* Which connections bpf/tcp.c follows, and whose they are. */
#ifndef EBBFLOW_TCP_TRACK_H
#define EBBFLOW_TCP_TRACK_H

#include "emit.h"
#include "swap.h"
#include "tcp_socket.h"
#include "watch.h"

/* Of events and scratch: one for each program, none of which interrupts itself on a CPU. */
enum {
	SLOT_STATE,
	SLOT_SEGMENT,
	SLOT_RETRANSMIT,
	SLOT_SENT_RESET,
	SLOT_RECEIVED_RESET,
	SLOT_CALL,
	SLOT_FREED,
	SLOT_TOLD
};

enum {
	MAX_OTHERS = 16384,
	MAX_STARTS = 16384,
};

struct other {
	u64 established_ns;
	u32 handshake_us;
	u8 is_stranger;
	u8 is_accepted;
	u8 is_reset;
	u8 is_closed;
};

BPF_HASH(conns, u64, struct tcp_tracked, MAX_CONNECTIONS);
BPF_TABLE("lru_hash", u64, struct other, others, MAX_OTHERS);
BPF_TABLE("lru_hash", u64, struct tcp_owner, owners, MAX_CONNECTIONS);
BPF_HASH(starts, u32, u64, MAX_STARTS);
BPF_PERCPU_ARRAY(fresh, struct tcp_tracked, EVENT_SLOTS);
BPF_PERCPU_ARRAY(generations, u64, 1);
BPF_ARRAY(control, struct tcp_control, 1);
SWAPPED("hash", struct tcp_process_key, struct tcp_totals, totals, MAX_PROCESSES);

/* Counts from the time of the start on, slower than time does: no later run meets it. */
static inline u64 new_generation(void)
{
	int zero = 0;
	u64 *count = generations.lookup(&zero);
	struct tcp_control *set = control.lookup(&zero);

	if (!count || !set)
		return 0;
	return set->first_generation + (__sync_fetch_and_add(count, 1024) | (bpf_get_smp_processor_id() & 1023));
}

static inline void own(struct tcp_owner *owner)
{
	u64 task = bpf_get_current_task(), leader = leader_of(task), id = bpf_get_current_pid_tgid();

	owner->pid = id >> 32;
	owner->tid = id;
	READ(owner->start_boottime_ns, leader, OFFSET_TASK_START);
	bpf_probe_read_kernel(owner->comm, sizeof(owner->comm), (void *)(leader + OFFSET_TASK_COMM));
}

static inline struct tcp_totals *add_process(void *map, struct tcp_process_key *key, struct tcp_tracked *conn)
{
	struct tcp_totals none = {};

	__builtin_memcpy(none.comm, conn->owner.comm, sizeof(none.comm));
	return find_or_add(map, key, &none);
}

/* What the owner's connections did in this interval; NULL when nobody knows whose it is. */
static inline struct tcp_process *process_of(struct tcp_tracked *conn)
{
	struct tcp_process_key key = {.start_boottime_ns = conn->owner.start_boottime_ns, .pid = conn->owner.pid};
	struct tcp_totals *found = NULL;
	int zero = 0;
	void *map = totals.lookup(&zero);

	if (!key.pid)
		return NULL;
	if (map)
		found = bpf_map_lookup_elem(map, &key);
	if (!found)
		found = add_process(map, &key, conn);
	if (!found)
		event_lost_in_map();
	return found ? &found->is : NULL;
}

static inline void count(u32 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

/* A new connection, not in the map yet. */
static inline struct tcp_tracked *blank(int slot, u64 sk, u8 role)
{
	struct tcp_tracked *conn = fresh.lookup(&slot);

	if (!conn)
		return NULL;
	__builtin_memset(conn, 0, sizeof(*conn));
	conn->is.generation = new_generation();
	conn->is.role = role;
	conn->state = read_connection(&conn->is, sk);
	return conn;
}

static inline void ignore(u64 sk)
{
	struct other other = {.is_stranger = 1};

	others.update(&sk, &other);
}

static inline struct tcp_tracked *track(u64 sk, struct tcp_tracked *conn)
{
	if (conns.update(&sk, conn)) {
		event_lost_in_map();
		ignore(sk); /* or it would be lost again with every segment */
		return NULL;
	}
	return conns.lookup(&sk);
}

/* The owner as /proc had it when we came. */
static inline void own_as_found(struct tcp_tracked *conn)
{
	struct tcp_owner *owner = owners.lookup(&conn->is.inode);
	u64 *start;

	if (!owner || !conn->is.inode)
		return;
	conn->owner = *owner;
	start = starts.lookup(&conn->owner.pid);
	if (start && *start)
		conn->owner.start_boottime_ns = *start;
}

/* A sock that nobody has told us of. `is_ours`: the current process is the one that has it. */
static inline struct tcp_tracked *find(int slot, u64 sk, int is_ours)
{
	int zero = 0;
	struct tcp_control *set = control.lookup(&zero);
	struct other *other = others.lookup(&sk);
	struct tcp_tracked *conn;
	u32 why;

	if (!set || (other && (other->is_stranger || !is_ours)) || !is_tcp(sk))
		return NULL;
	conn = blank(slot, sk, other ? TCP_ROLE_SERVER : TCP_ROLE_UNKNOWN);
	if (!conn)
		return NULL;
	if (other) {
		conn->is.opened_ns = conn->is.established_ns = other->established_ns;
		other->is_accepted = 1;
	} else {
		conn->is.opened_ns = bpf_ktime_get_ns();
		conn->is.before = 1;
		own_as_found(conn);
	}
	if (!conn->owner.pid && is_ours)
		own(&conn->owner);
	if (conn->owner.pid)
		why = watched_for_connections(conn->owner.pid);
	else
		why = WATCH_ALL ? WATCHED_PID : WATCH_PORTS ? WATCHED_MAYBE : 0;
	if (why && wanted_ports(conn->is.local_port, conn->is.remote_port, why))
		return track(sk, conn);
	if (set->settled)
		ignore(sk);
	return NULL;
}

#endif
