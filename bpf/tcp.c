/* TCP connections: how they begin, end and fail, what went through, retransmits, resets, round-trip times.
 *
 * Whose it is: changes of state run wherever a segment arrives, so the current process means nothing there, but for
 * three: a client's SYN is sent in its connect(2), a listener is made in its listen(2), and the descriptor that
 * accept(2) returns leads to the socket. So a connection is found by the address of its sock, and its owner is noted at
 * these. What was there before us has its owner from /proc: `owners`, by the socket's inode. A process that was not
 * seen to get a connection is still known when it is the first to send FIN.
 *
 * conns    connections of watched processes, from SYN, accept(2) or the first sight on, until the sock is freed:
 *          a reset that ends one is told after its end
 * others   what need not be looked at (again): strangers, and what is established and waits for accept(2)
 *
 * One sock is looked at by one program at a time, because its lock is held; only ends of accept(2) and connect(2), and
 * `tcp_tell`, come without it, and they write other members.
 *
 * BCC dialect. Flags given by the loader: RING_PAGES, WATCH_ALL, WATCH_PORTS, MAX_CONNECTIONS, MAX_PROCESSES,
 * TELL_STATES, HAS_TASK_REGISTERS, HAS_RESET_REASON, HAS_RETRANSMIT_ERROR, SOCK_BYTES, TCP_AT, TCP_BYTES, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#define EVENT_PAYLOAD_BYTES sizeof(struct tcp_close)
#define EVENT_SLOTS         8
#include "tcp.h"
#include "histogram.h"
#include "tcp_tell.h"

/* Blind spots, in the order of TcpProducer.unseen. */
enum { NEVER_ACCEPTED, RESETS_OF_NO_SOCKET };

enum {
	MAX_FAILING = 1024,
	RTT_SLOTS = 24,
	MAX_TASKS = 1024, /* of one walk: the verifier's patience */
	E_INTR = 4,
	E_BADF = 9,
	E_AGAIN = 11,
	E_FAULT = 14,
	E_INVAL = 22,
	E_NOTSOCK = 88,
	E_AFNOSUPPORT = 97,
	E_ISCONN = 106,
	E_ALREADY = 114,
	E_INPROGRESS = 115,
	E_RESTARTSYS = 512,
};

/* What the tracepoint of the end of one system call is given: stable since there is one. */
struct system_call_end {
	u64 common, number;
	s64 result;
};

struct sockaddr_user {
	u16 family, port;
	u32 v4; /* flow label for IPv6 */
	u8 v6[16];
};

/* By thread: the sock whose connect(2) came to nothing, and did not leave in it why; the call will say. */
BPF_TABLE("lru_hash", u32, u64, failing, MAX_FAILING);

static inline void count_in(struct tcp_rtt *rtt, u32 us)
{
	u32 slot = slot_of(us, 0, RTT_SLOTS);

	rtt->count++;
	rtt->sum_us += us;
	if (!rtt->min_us || us < rtt->min_us)
		rtt->min_us = us;
	if (us > rtt->max_us)
		rtt->max_us = us;
	FORGET(slot);
	if (slot < RTT_SLOTS)
		rtt->slots[slot]++;
}

static inline void count_in_shared(struct tcp_rtt *rtt, u32 us)
{
	u32 slot = slot_of(us, 0, RTT_SLOTS);

	__sync_fetch_and_add(&rtt->count, 1);
	__sync_fetch_and_add(&rtt->sum_us, us);
	if (!rtt->min_us || us < rtt->min_us)
		rtt->min_us = us;
	if (us > rtt->max_us)
		rtt->max_us = us;
	FORGET(slot);
	if (slot < RTT_SLOTS)
		__sync_fetch_and_add(&rtt->slots[slot], 1);
}

/* A segment for an established connection; the round-trip time is the one before it. */
int tcp_segment(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	struct tcp_tracked *conn = conns.lookup(&sk);
	struct tcp_process *process;
	u32 srtt = 0;

	if (!conn)
		conn = find(SLOT_SEGMENT, sk, 0);
	if (!conn)
		return 0;
	conn->segments++;
	READ(srtt, sk, OFFSET_TCP_SRTT);
	srtt >>= 3;
	if (!srtt)
		return 0;
	count_in(&conn->rtt, srtt);
	process = process_of(conn);
	if (process)
		count_in_shared(&process->rtt, srtt);
	return 0;
}

/* SYN is about to be sent: the current process is the client. Ports and address may be missing yet. */
static inline int begin_client(u64 sk)
{
	u32 why = watched_for_connections(bpf_get_current_pid_tgid() >> 32);
	struct tcp_tracked *conn;

	if (!is_tcp(sk))
		return 0;
	conn = why ? blank(SLOT_STATE, sk, TCP_ROLE_CLIENT) : NULL;
	if (!conn || !wanted_ports(conn->is.local_port, conn->is.remote_port, why)) {
		conns.delete(&sk);
		ignore(sk);
		return 0;
	}
	own(&conn->owner);
	conn->is.opened_ns = bpf_ktime_get_ns();
	conn->state = TCP_STATE_SYN_SENT;
	track(sk, conn);
	return 0;
}

/* A server's end; whose it will be, accept(2) says. */
static inline int begin_server(u64 sk)
{
	struct other other = {.established_ns = bpf_ktime_get_ns()};

	if (!is_tcp(sk))
		return 0;
	/* The kernel took the time from SYN-ACK to ACK as the first measure. */
	READ(other.handshake_us, sk, OFFSET_TCP_SRTT);
	other.handshake_us >>= 3;
	others.update(&sk, &other);
	return 0;
}

/* Whoever listens is told when its answers to SYN are sent again. */
static inline int begin_listener(u64 sk)
{
	struct tcp_owner owner = {};
	u64 inode = inode_of(sk);

	own(&owner);
	if (inode && watched_for_connections(owner.pid))
		owners.update(&inode, &owner);
	return 0;
}

static inline int end(u64 sk, struct tcp_tracked *conn)
{
	u32 error = 0, tid = bpf_get_current_pid_tgid();

	if (conn->is_closed)
		return 0;
	if (conn->is.established_ns || conn->is.role != TCP_ROLE_CLIENT) {
		tell_close(SLOT_STATE, sk, conn, 0);
		return 0;
	}
	read_connection(&conn->is, sk);
	READ(error, sk, OFFSET_SK_ERR);
	if (error || conn->owner.tid != tid) {
		tell_failed(SLOT_STATE, sk, conn, error);
		return 0;
	}
	/* connect(2) will say why, or it is a close(2): then the sock is freed at once. */
	conn->is_failing = 1;
	failing.update(&tid, &sk);
	return 0;
}

int tcp_state_changed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	u32 before = ctx->args[1], after = ctx->args[2];
	struct tcp_tracked *conn;
	struct other *other;

	if (after == TCP_STATE_SYN_SENT)
		return begin_client(sk);
	if (after == TCP_STATE_LISTEN)
		return begin_listener(sk);
	if (before == TCP_STATE_LISTEN || before == TCP_STATE_CLOSE)
		return 0;
	conn = conns.lookup(&sk);
	if (!conn && before == TCP_STATE_SYN_RECV)
		return after == TCP_STATE_ESTABLISHED ? begin_server(sk) : 0;
	if (!conn && after == TCP_STATE_CLOSE) {
		other = others.lookup(&sk);
		if (other)
			other->is_closed = 1;
	}
	if (!conn) /* these two are the doing of close(2) and shutdown(2) alone */
		conn = find(SLOT_STATE, sk, after == TCP_STATE_FIN_WAIT1 || after == TCP_STATE_LAST_ACK);
	if (!conn)
		return 0;
#if TELL_STATES
	tell_state(conn, before, after);
#endif
	if (after == TCP_STATE_ESTABLISHED && conn->is.role == TCP_ROLE_CLIENT)
		tell_connect(sk, conn);
	else if (after == TCP_STATE_ESTABLISHED)
		conn->is.established_ns = bpf_ktime_get_ns();
	if (!conn->ended_by && after == TCP_STATE_FIN_WAIT1)
		conn->ended_by = TCP_ENDED_BY_US;
	if (!conn->ended_by && (after == TCP_STATE_CLOSE_WAIT || before == TCP_STATE_CLOSE_WAIT))
		conn->ended_by = TCP_ENDED_BY_PEER;
	conn->state = before;
	if (after == TCP_STATE_CLOSE)
		return end(sk, conn);
	conn->state = after;
	return 0;
}

/* The sock is freed: its address may come back as another one's. */
int tcp_freed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	struct tcp_tracked *conn = conns.lookup(&sk);
	struct other *other;

	if (conn) {
		if (conn->is_failing)
			tell_failed(SLOT_FREED, sk, conn, 0);
		else if (!conn->is_closed)
			tell_close(SLOT_FREED, sk, conn, TCP_UNSEEN_CLOSE);
		conns.delete(&sk);
	}
	other = others.lookup(&sk);
	if (!other)
		return 0;
	if (!other->is_stranger && !other->is_accepted)
		event_unseen(NEVER_ACCEPTED);
	others.delete(&sk);
	return 0;
}

int tcp_retransmitted(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0], skb = ctx->args[1];
	struct tcp_tracked *conn = conns.lookup(&sk);
	struct tcp_retransmit *told;
	struct tcp_process *process;
	struct event *event;

	if (!conn)
		conn = find(SLOT_RETRANSMIT, sk, 0);
	if (!conn)
		return 0;
	process = process_of(conn);
	if (process)
		count(&process->retransmits);
	event = begin(SLOT_RETRANSMIT, TCP_RETRANSMIT, conn, 0);
	if (!event)
		return 0;
	told = (struct tcp_retransmit *)event->payload;
	__builtin_memset(&told->bytes, 0, sizeof(*told) - sizeof(told->connection));
	READ(told->total, sk, OFFSET_TCP_TOTAL_RETRANS);
	READ(told->state, sk, OFFSET_SOCK_STATE);
#if HAS_RETRANSMIT_ERROR
	told->error = ctx->args[2];
#endif
	if (skb)
		READ(told->bytes, skb, OFFSET_SKB_LEN);
	event_emit(event, sizeof(*told));
	return 0;
}

/* There is no connection yet, only the listener and the request. */
int tcp_answer_retransmitted(struct bpf_raw_tracepoint_args *ctx)
{
	u64 listener = ctx->args[0], request = ctx->args[1], inode = inode_of(listener);
	struct tcp_owner *owner = owners.lookup(&inode);
	struct sock_copy copy = {};
	int slot = SLOT_RETRANSMIT;
	struct tcp_tracked *conn = fresh.lookup(&slot);
	struct tcp_retransmit *told;
	struct tcp_process *process;
	struct event *event;
	u32 why;

	if (!owner || !conn)
		return 0;
	__builtin_memset(conn, 0, sizeof(*conn));
	conn->owner = *owner;
	conn->is.role = TCP_ROLE_SERVER;
	READ(copy, request, 0);
	take_addresses(&conn->is, &copy);
	conn->is.local_port = IN_SOCK(u16, copy, OFFSET_SOCK_NUM);
	why = watched_for_connections(owner->pid);
	if (!why || !wanted_ports(conn->is.local_port, conn->is.remote_port, why))
		return 0;
	process = process_of(conn);
	if (process)
		count(&process->retransmits);
	event = begin(SLOT_RETRANSMIT, TCP_RETRANSMIT, conn, 0);
	if (!event)
		return 0;
	told = (struct tcp_retransmit *)event->payload;
	__builtin_memset(&told->bytes, 0, sizeof(*told) - sizeof(told->connection));
	told->state = TCP_STATE_SYN_RECV;
	told->is_synack = 1;
	event_emit(event, sizeof(*told));
	return 0;
}

/* A socket that is aborted is closed first, and sends its reset then. */
int tcp_reset_sent(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	struct tcp_tracked *conn = conns.lookup(&sk);

	if (!sk)
		event_unseen(RESETS_OF_NO_SOCKET);
	if (conn)
		tell_reset(SLOT_SENT_RESET, sk, conn, 1, HAS_RESET_REASON ? ctx->args[2] : 0);
	return 0;
}

int tcp_reset_received(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	struct tcp_tracked *conn = conns.lookup(&sk);
	struct other *other;

	if (!conn) {
		other = others.lookup(&sk);
		if (other)
			other->is_reset = 1;
		conn = find(SLOT_RECEIVED_RESET, sk, 0);
	}
	if (!conn)
		return 0;
	if (!conn->ended_by)
		conn->ended_by = TCP_ENDED_BY_PEER;
	conn->is_reset = 1;
	if (!conn->is.local_port) /* SYN was refused */
		read_connection(&conn->is, sk);
	tell_reset(SLOT_RECEIVED_RESET, sk, conn, 0, 0);
	return 0;
}

/* The owner of a connection that was waiting for one. */
static inline struct tcp_tracked *adopt(u64 sk, struct other *other, u32 why)
{
	struct tcp_tracked *conn = conns.lookup(&sk);
	u64 established_ns = other ? other->established_ns : 0;

	if (!why) {
		if (other)
			other->is_stranger = 1;
		return NULL;
	}
	if (other)
		other->is_accepted = 1;
	if (!conn) {
		conn = blank(SLOT_CALL, sk, TCP_ROLE_SERVER);
		if (!conn)
			return NULL;
		conn->is.opened_ns = established_ns ? established_ns : bpf_ktime_get_ns();
		conn->is.established_ns = established_ns;
		if (!wanted_ports(conn->is.local_port, conn->is.remote_port, why)) {
			ignore(sk);
			return NULL;
		}
		own(&conn->owner);
		return track(sk, conn);
	}
	conn->is.role = TCP_ROLE_SERVER;
	conn->is.inode = inode_of(sk);
	own(&conn->owner);
	return conn;
}

static inline int accepted(s64 fd)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct tcp_accept *accept;
	struct tcp_process *process;
	struct tcp_tracked *conn;
	struct other *other;
	struct event *event;
	u64 sk;

	if (fd < 0)
		return 0;
	sk = sock_of_socket(file_of(fd));
	other = others.lookup(&sk);
	if (!other && !is_tcp(sk))
		return 0;
	conn = adopt(sk, other, watched_for_connections(pid));
	if (!conn)
		return 0;
	process = process_of(conn);
	if (process)
		count(&process->accepts);
	event = begin(SLOT_CALL, TCP_ACCEPT, conn, conn->is.established_ns);
	if (!event)
		return 0;
	accept = (struct tcp_accept *)event->payload;
	accept->handshake_us = other ? other->handshake_us : 0;
	accept->reserved = 0;
	event->row.tid = conn->owner.tid;
	event_emit(event, sizeof(*accept));
	if (!other || !other->is_closed)
		return 0;
	/* It ended while it waited. */
	if (other->is_reset) {
		conn->is_reset = 1;
		conn->ended_by = TCP_ENDED_BY_PEER;
		tell_reset(SLOT_CALL, sk, conn, 0, 0);
	}
	tell_close(SLOT_CALL, sk, conn, 0);
	return 0;
}

int tcp_accept_ended(struct system_call_end *ctx)
{
	return accepted(ctx->result);
}

int tcp_accept4_ended(struct system_call_end *ctx)
{
	return accepted(ctx->result);
}

static inline void *current_registers(void)
{
#if HAS_TASK_REGISTERS
	return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
#else
	return NULL;
#endif
}

/* Failures that are not about the network, and calls that go on. */
static inline int says_nothing(s64 result)
{
	switch (-result) {
	case E_INTR:
	case E_BADF:
	case E_AGAIN:
	case E_FAULT:
	case E_INVAL:
	case E_NOTSOCK:
	case E_AFNOSUPPORT:
	case E_ISCONN:
	case E_ALREADY:
	case E_INPROGRESS:
		return 1;
	}
	return result >= 0 || result <= -E_RESTARTSYS;
}

/* It failed before a SYN was sent, as without a route: the socket knows nothing of where to, but the call's arguments are
 * still in the saved registers.
 */
static inline void fail_early(u32 why, u32 error)
{
	struct {
		u64 length, address, fd; /* dx, si, di */
	} arguments = {};
	struct sockaddr_user to = {};
	struct tcp_tracked *conn;
	u64 sk;

	bpf_probe_read_kernel(&arguments, sizeof(arguments), current_registers() + OFFSET_REGS_DX);
	sk = sock_of(arguments.fd);
	conn = sk ? conns.lookup(&sk) : NULL;
	if (conn && conn->is_closed) { /* told already; the next connect(2) of this socket may fail otherwise */
		conns.delete(&sk);
		return;
	}
	if (!sk || conn || !is_tcp(sk))
		return;
	conn = blank(SLOT_CALL, sk, TCP_ROLE_CLIENT);
	if (!conn)
		return;
	bpf_probe_read_user(&to, arguments.length < sizeof(to) ? 8 : sizeof(to), (void *)arguments.address);
	conn->is.remote_port = ntohs(to.port);
	if (conn->is.family == FAMILY_INET)
		__builtin_memcpy(conn->is.remote_address, &to.v4, 4);
	else
		__builtin_memcpy(conn->is.remote_address, to.v6, 16);
	own(&conn->owner);
	if (wanted_ports(conn->is.local_port, conn->is.remote_port, why))
		tell_failed(SLOT_CALL, sk, conn, error);
}

int tcp_connect_ended(struct system_call_end *ctx)
{
	u64 task = bpf_get_current_pid_tgid(), *sk;
	u32 tid = task, why;
	struct tcp_tracked *conn;

	if (says_nothing(ctx->result))
		return 0;
	why = watched_for_connections(task >> 32);
	if (!why)
		return 0;
	sk = failing.lookup(&tid);
	conn = sk ? conns.lookup(sk) : NULL;
	if (!conn || !conn->is_failing) {
		fail_early(why, -ctx->result);
		return 0;
	}
	tell_failed(SLOT_CALL, *sk, conn, -ctx->result);
	conns.delete(sk);
	failing.delete(&tid);
	return 0;
}

/* Run by the producer for each connection that is open: what it has come to. */
int tcp_tell(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0], since_ns;
	struct tcp_tracked *conn = conns.lookup(&sk);
	struct tcp_alive *alive;
	struct event *event;

	if (!conn || conn->is_closed)
		return 0;
	since_ns = conn->is.established_ns ? conn->is.established_ns : conn->is.opened_ns;
	event = begin(SLOT_TOLD, TCP_ALIVE, conn, since_ns);
	if (!event)
		return 0;
	alive = (struct tcp_alive *)event->payload;
	__builtin_memset(alive->reserved, 0, sizeof(alive->reserved));
	conn->told = conn->segments;
	alive->rtt = conn->rtt;
	alive->state = conn->state;
	read_traffic(SLOT_TOLD, &alive->traffic, sk, conn->is.role, fin_received(sk));
	event_emit(event, sizeof(*alive));
	return 0;
}

/* Run by the producer: the exact starts of the processes in `starts`; /proc has them to 10 ms. From a task on, 0 for the
 * current one; says in `next_task` where to go on, 0 when it has come round.
 */
int tcp_read_starts(struct bpf_raw_tracepoint_args *ctx)
{
	u64 first = leader_of(bpf_get_current_task()), task = ctx->args[0] ? ctx->args[0] : first, *start;
	int zero = 0;
	struct tcp_control *set = control.lookup(&zero);
	u32 pid;

	if (!set)
		return 0;
	for (int i = 0; i < MAX_TASKS; i++) {
		pid = 0;
		READ(pid, task, OFFSET_TASK_TGID);
		start = starts.lookup(&pid);
		if (start)
			*start = start_of(task);
		READ(task, task, OFFSET_TASK_TASKS);
		task -= OFFSET_TASK_TASKS;
		if (task == first)
			break;
	}
	set->next_task = task == first ? 0 : task;
	return 0;
}
