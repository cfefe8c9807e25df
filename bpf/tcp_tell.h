/* Rows about connections. */
#ifndef EBBFLOW_TCP_TELL_H
#define EBBFLOW_TCP_TELL_H

#include "tcp_track.h"

static inline struct event *begin(int slot, u8 kind, struct tcp_tracked *conn, u64 since_ns)
{
	struct event *event = event_begin_bare(slot, kind);

	if (!event)
		return NULL;
	if (since_ns && since_ns < event->row.time_ns)
		event->row.since_ns = since_ns;
	event->row.pid = conn->owner.pid;
	event->row.start_boottime_ns = conn->owner.start_boottime_ns;
	__builtin_memcpy(event->row.comm, conn->owner.comm, sizeof(event->row.comm));
	*(struct tcp_connection *)event->payload = conn->is;
	return event;
}

static inline void tell_failed(int slot, u64 sk, struct tcp_tracked *conn, u32 error)
{
	struct event *event = begin(slot, TCP_FAILED, conn, conn->is.opened_ns);
	struct tcp_process *process = process_of(conn);
	struct tcp_failed *failed;

	conn->is_closed = 1;
	if (process)
		count(&process->failed);
	if (!event)
		return;
	failed = (struct tcp_failed *)event->payload;
	failed->error = error;
	failed->retransmits = 0;
	if (sk)
		READ(failed->retransmits, sk, OFFSET_TCP_TOTAL_RETRANS);
	event->row.tid = conn->owner.tid;
	event_emit(event, sizeof(*failed));
}

/* Of what was not seen to end: a FIN leaves its state; without one it was an abort, or something that left its errno. */
static inline u8 who_ended(u8 state, u32 error)
{
	if (state == TCP_STATE_CLOSE_WAIT || state == TCP_STATE_LAST_ACK)
		return TCP_ENDED_BY_PEER;
	return state == TCP_STATE_ESTABLISHED && error ? TCP_ENDED_BY_NET : TCP_ENDED_BY_US;
}

static inline void tell_close(int slot, u64 sk, struct tcp_tracked *conn, u8 flags)
{
	u64 since_ns = conn->is.established_ns ? conn->is.established_ns : conn->is.opened_ns;
	struct event *event = begin(slot, TCP_CLOSE, conn, since_ns);
	struct tcp_process *process = process_of(conn);
	struct tcp_close *close;
	u32 fin = fin_received(sk);

	conn->is_closed = 1;
	if (!event)
		return;
	close = (struct tcp_close *)event->payload;
	close->error = 0;
	READ(close->error, sk, OFFSET_SK_ERR);
	read_traffic(slot, &close->traffic, sk, conn->is.role, fin);
	close->rtt = conn->rtt;
	close->last_state = conn->state;
	close->ended_by = conn->ended_by;
	close->flags = flags | (fin ? TCP_FIN_RECEIVED : 0);
	close->flags |= conn->is_reset ? TCP_RESET_RECEIVED : 0;
	close->reserved = 0;
	if (!close->ended_by)
		close->ended_by = who_ended(conn->state, close->error);
	if (process) {
		count(&process->closes);
		__sync_fetch_and_add(&process->sent_bytes, close->traffic.sent_bytes);
		__sync_fetch_and_add(&process->received_bytes, close->traffic.received_bytes);
	}
	event_emit(event, sizeof(*close));
}

static inline void tell_connect(u64 sk, struct tcp_tracked *conn)
{
	struct tcp_process *process = process_of(conn);
	struct tcp_connect *connect;
	struct event *event;

	if (process)
		count(&process->connects);
	read_connection(&conn->is, sk); /* the port is chosen after SYN_SENT */
	event = begin(SLOT_STATE, TCP_CONNECT, conn, conn->is.opened_ns);
	if (!event)
		return;
	connect = (struct tcp_connect *)event->payload;
	conn->is.established_ns = connect->connection.established_ns = event->row.time_ns;
	READ(connect->srtt_us, sk, OFFSET_TCP_SRTT);
	READ(connect->retransmits, sk, OFFSET_TCP_TOTAL_RETRANS);
	connect->srtt_us >>= 3;
	event->row.tid = conn->owner.tid;
	event_emit(event, sizeof(*connect));
}

#if TELL_STATES
static inline void tell_state(struct tcp_tracked *conn, u32 before, u32 after)
{
	struct event *event = begin(SLOT_STATE, TCP_STATE, conn, conn->is.opened_ns);
	struct tcp_state *state;

	if (!event)
		return;
	state = (struct tcp_state *)event->payload;
	__builtin_memset(state->reserved, 0, sizeof(state->reserved));
	state->before = before;
	state->after = after;
	event_emit(event, sizeof(*state));
}
#endif

static inline void tell_reset(int slot, u64 sk, struct tcp_tracked *conn, u8 is_sent, u32 reason)
{
	struct tcp_process *process = process_of(conn);
	struct event *event = begin(slot, TCP_RESET, conn, 0);
	struct tcp_reset *reset;

	if (process)
		count(is_sent ? &process->resets_sent : &process->resets_received);
	if (!event)
		return;
	reset = (struct tcp_reset *)event->payload;
	__builtin_memset(&reset->reason, 0, sizeof(*reset) - sizeof(reset->connection));
	reset->reason = reason;
	reset->is_sent = is_sent;
	reset->state = conn->state;
	event_emit(event, sizeof(*reset));
}

#endif
