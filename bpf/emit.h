/* How a feature's program writes events: rows of bpf/event.h with their payload into the ring `events`, every one
 * counted, also those that find no room.
 *
 * An event is built in a slot of per-CPU memory. A program that may interrupt another one of the same feature (a timer,
 * a soft interrupt) uses a slot of its own. Define before including: EVENT_PAYLOAD_BYTES, the longest payload, and
 * EVENT_SLOTS. Flags given by the loader: RING_PAGES.
 *
 *     struct event *event = event_begin(SLOT, TCP_CLOSE);
 *     struct tcp_close *close = (void *)event->payload;     (event may be NULL: the verifier wants it checked)
 *     ...
 *     event_emit(event, sizeof(*close));
 */
#ifndef EBBFLOW_EMIT_H
#define EBBFLOW_EMIT_H

#include "event.h"
#include "kernel.h"

struct event {
	struct event_row row;
	u8 payload[EVENT_PAYLOAD_BYTES];
};

enum { EVENT_UNSEEN = 8 };

/* One per CPU; only ever rise. */
struct event_counters {
	u64 sequence;             /* events, lost ones too */
	u64 ring_lost;            /* no room in the ring */
	u64 map_lost;             /* no room in a map: not aggregated, not tracked */
	u64 unseen[EVENT_UNSEEN]; /* blind spots, named by the producer */
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(counters, struct event_counters, 1);
BPF_PERCPU_ARRAY(slots, struct event, EVENT_SLOTS);

static inline void event_lost_in_map(void)
{
	int zero = 0;
	struct event_counters *counter = counters.lookup(&zero);

	if (counter)
		__sync_fetch_and_add(&counter->map_lost, 1);
}

static inline void event_unseen(u32 which)
{
	int zero = 0;
	struct event_counters *counter = counters.lookup(&zero);

	if (counter && which < EVENT_UNSEEN)
		__sync_fetch_and_add(&counter->unseen[which], 1);
}

static inline u64 start_of(u64 task)
{
	u64 start = 0;

	READ(start, leader_of(task), OFFSET_TASK_START);
	return start;
}

/* Say which process and thread the event is about: a task_struct. */
static inline void event_about(struct event *event, u64 task)
{
	u64 leader = leader_of(task);

	READ(event->row.pid, task, OFFSET_TASK_TGID);
	READ(event->row.tid, task, OFFSET_TASK_PID);
	READ(event->row.start_boottime_ns, leader, OFFSET_TASK_START);
	bpf_probe_read_kernel(event->row.comm, sizeof(event->row.comm), (void *)(leader + OFFSET_TASK_COMM));
}

/* A new event about no process, with the payload as the last event of the slot left it. */
static inline struct event *event_begin_bare(int slot, u8 kind)
{
	struct event *event = slots.lookup(&slot);

	if (!event)
		return NULL;
	__builtin_memset(&event->row, 0, sizeof(event->row));
	event->row.time_ns = event->row.since_ns = bpf_ktime_get_ns();
	event->row.kind = kind;
	event->row.cpu = bpf_get_smp_processor_id();
	return event;
}

/* A new event about the current process and thread. */
static inline struct event *event_begin(int slot, u8 kind)
{
	struct event *event = event_begin_bare(slot, kind);

	if (event)
		event_about(event, bpf_get_current_task());
	return event;
}

/* Into the ring. A wake-up per event would cost more than the event. Says whether it found room. */
static inline int event_emit(struct event *event, u64 captured)
{
	int zero = 0;
	struct event_counters *counter = counters.lookup(&zero);

	if (!counter)
		return 0;
	FORGET(captured);
	if (captured > EVENT_PAYLOAD_BYTES)
		captured = EVENT_PAYLOAD_BYTES;
	event->row.captured = captured;
	event->row.sequence = __sync_fetch_and_add(&counter->sequence, 1);
	if (!events.ringbuf_output(event, sizeof(event->row) + captured, BPF_RB_NO_WAKEUP))
		return 1;
	__sync_fetch_and_add(&counter->ring_lost, 1);
	return 0;
}

#endif
