/* Socket payload and lifecycle from one raw tracepoint, sys_exit.
 *
 * Why sys_exit alone: at the end of a system call the saved registers still hold its arguments, the buffer holds the
 * bytes, and the return value says how many. One program at one place costs less than a pair that passes the
 * arguments through a map, and no kprobe is needed.
 *
 * What a connection is: the inode number of the socket, within one process. The number comes from the descriptor
 * table at every event, so that dup, reuse of a descriptor, and descriptors received from elsewhere are right without
 * any bookkeeping; kernel struct offsets come from BTF as -D flags (ebbflow/producers never reads headers' structs).
 *
 * What may be lost is counted: the per-CPU sequence advances for every event, also for those that find no room. What
 * opens or ends a connection is not lost with the others: it waits in a map (`spilled`), because the numbers in it say
 * how much of the connection a loss has cost.
 *
 * BCC dialect. Flags given by the loader: PAYLOAD_LIMIT (power of two), PAYLOAD_BYTES, FIRST_PAYLOAD_BYTES,
 * MAX_CONNECTIONS, RING_PAGES, WATCH_ALL, WATCH_PORTS, HAS_GROUP_DEAD, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#include "kernel.h"
#include "sockets.h"
#include "watch.h"

/* System call numbers of x86-64, the only machine this knows. */
enum {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_CLOSE = 3,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_DUP = 32,
	NR_DUP2 = 33,
	NR_SENDFILE = 40,
	NR_CONNECT = 42,
	NR_ACCEPT = 43,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_SHUTDOWN = 48,
	NR_FCNTL = 72,
	NR_SPLICE = 275,
	NR_ACCEPT4 = 288,
	NR_DUP3 = 292,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
	NR_IO_URING_ENTER = 426,
};

enum {
	E_PIPE = 32,
	E_CONNRESET = 104,
	E_TIMEDOUT = 110,
	E_INPROGRESS = 115,
	MSG_OOB_FLAG = 0x1,
	MSG_PEEK_FLAG = 0x2,
	MSG_TRUNC_FLAG = 0x20,
	MSG_ERRQUEUE_FLAG = 0x2000,
	F_DUPFD_COMMAND = 0,
	F_DUPFD_CLOEXEC_COMMAND = 1030,
	MODE_TYPE = 0170000,
	MODE_SOCKET = 0140000,
	FAMILY_UNIX = 1,
	FAMILY_INET = 2,
	FAMILY_INET6 = 10,
	USER_CS_32 = 0x23,
	MAX_IOVECS = 8,
	MAX_MESSAGES = 16,
	MAX_MESSAGE_IOVECS = 2, /* the verifier walks every message with every buffer */
	MAX_SPILLED = 8192,
};

/* The part of struct pt_regs from r10 on: where a system call's arguments, number and code segment are. */
struct call {
	u64 r10, r9, r8, ax, cx, dx, si, di, number, ip, cs;
};

struct iovec_user {
	u64 base, length;
};

struct msghdr_user {
	u64 name, name_length, iovecs, iovec_count, control, control_length, flags;
};

struct mmsghdr_user {
	struct msghdr_user header;
	u32 length, pad;
};

enum { CONN_IGNORED = 1, CONN_ANNOUNCED = 2, CONN_BEFORE = 4, CONN_ENDED = 8 };

struct conn_key {
	u64 inode;
	u32 pid;
	u32 pad;
};

struct conn {
	u64 generation;
	u64 bytes[2];
	u32 events[2];
	s32 fd;
	u16 references;
	u8 flags;
	u8 role;
};

struct spilled_key {
	u64 generation;
	u32 pid;
	u32 kind;
};

/* As it would have been in the ring; what follows the row is as long as the row says. */
struct spilled_event {
	struct sockets_row row;
	struct sockets_open open;
};

/* One per CPU: the event under construction, and counters that only ever rise. */
struct cpu {
	u64 sequence;
	u64 ring_lost;
	u64 map_lost;
	u64 unreadable;
	u64 io_uring_calls;
	u64 compat_calls;
	u64 unseen_bytes;
	u64 last_generation;
	struct sockets_row row;
	u8 payload[3 * PAYLOAD_LIMIT];
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(cpus, struct cpu, 1);
BPF_TABLE("lru_hash", struct conn_key, struct conn, conns, MAX_CONNECTIONS);
BPF_TABLE("lru_hash", u64, u64, descriptors, MAX_CONNECTIONS);
BPF_PROG_ARRAY(tails, 1);
BPF_HASH(spilled, struct spilled_key, struct spilled_event, MAX_SPILLED);

/* Inode number of the socket behind a descriptor of the current process, 0 when it is none. */
static inline u64 socket_inode(u32 fd, u64 *file)
{
	struct {
		u32 max_fds, pad;
		u64 fds;
	} table = {};
	u64 files = 0, fdt = 0, inode = 0, number = 0;
	u16 mode = 0;

	READ(files, bpf_get_current_task(), OFFSET_TASK_FILES);
	READ(fdt, files, OFFSET_FILES_FDT);
	READ(table, fdt, 0);
	if (fd >= table.max_fds)
		return 0;
	READ(*file, table.fds, 8 * (u64)fd);
	READ(inode, *file, OFFSET_FILE_INODE);
	READ(mode, inode, OFFSET_INODE_MODE);
	if ((mode & MODE_TYPE) != MODE_SOCKET)
		return 0;
	READ(number, inode, OFFSET_INODE_NUMBER);
	return number;
}

/* Nanoseconds with the CPU in the low bits: two connections can open in the same nanosecond, not on the same CPU. */
static inline u64 new_generation(struct cpu *cpu)
{
	u64 generation = (bpf_ktime_get_ns() & ~1023ULL) | (bpf_get_smp_processor_id() & 1023);

	if (generation <= cpu->last_generation)
		generation = cpu->last_generation + 1024;
	cpu->last_generation = generation;
	return generation;
}

static inline void begin(struct cpu *cpu, u64 task, u8 kind)
{
	__builtin_memset(&cpu->row, 0, sizeof(cpu->row));
	cpu->row.time_ns = bpf_ktime_get_ns();
	cpu->row.pid = task >> 32;
	cpu->row.tid = task;
	cpu->row.kind = kind;
	cpu->row.cpu = bpf_get_smp_processor_id();
}

static inline int put(struct cpu *cpu, u64 captured)
{
	FORGET(captured);
	if (captured > PAYLOAD_LIMIT)
		captured = PAYLOAD_LIMIT;
	cpu->row.captured = captured;
	cpu->row.sequence = cpu->sequence++;
	/* A wake-up per event would cost more than the event. */
	return events.ringbuf_output(&cpu->row, sizeof(cpu->row) + captured, BPF_RB_NO_WAKEUP);
}

/* For what opens or ends something: where there is no room in the ring, there is some in a map. */
static inline int put_surely(struct cpu *cpu, u64 captured)
{
	struct spilled_key key = {.generation = cpu->row.generation, .pid = cpu->row.pid, .kind = cpu->row.kind};

	if (put(cpu, captured) && spilled.update(&key, (struct spilled_event *)&cpu->row)) {
		cpu->ring_lost++;
		return -1;
	}
	return 0;
}

/* An event of a connection that could not be announced says nothing to anyone: lost with the announcement. */
static inline int is_announced(struct cpu *cpu, struct conn *conn)
{
	if (conn->flags & CONN_ANNOUNCED)
		return 1;
	cpu->sequence++;
	cpu->ring_lost++;
	return 0;
}

static inline void deliver(struct cpu *cpu, struct conn *conn, u64 captured)
{
	if (is_announced(cpu, conn) && put(cpu, captured))
		cpu->ring_lost++;
}

static inline void describe_inet(struct sockets_open *open, u64 sk)
{
	u16 port = 0;

	READ(open->local_port, sk, OFFSET_SOCK_NUM);
	READ(port, sk, OFFSET_SOCK_DPORT);
	open->remote_port = ntohs(port);
	if (open->family == FAMILY_INET) {
		bpf_probe_read_kernel(open->local_address, 4, (void *)(sk + OFFSET_SOCK_RCV_SADDR));
		bpf_probe_read_kernel(open->remote_address, 4, (void *)(sk + OFFSET_SOCK_DADDR));
	} else {
		bpf_probe_read_kernel(open->local_address, 16, (void *)(sk + OFFSET_SOCK_V6_RCV_SADDR));
		bpf_probe_read_kernel(open->remote_address, 16, (void *)(sk + OFFSET_SOCK_V6_DADDR));
	}
}

/* A client has no name of its own: then it is the peer's, which is what it connected to. */
static inline void describe_unix(struct sockets_open *open, u64 sk)
{
	u64 address = 0, peer = 0, length;
	u32 size = 0;

	READ(address, sk, OFFSET_UNIX_ADDR);
	if (!address) {
		READ(peer, sk, OFFSET_UNIX_PEER);
		READ(address, peer, OFFSET_UNIX_ADDR);
	}
	if (!address)
		return;
	READ(size, address, OFFSET_UNIX_ADDRESS_LEN);
	length = (size - 2) & 127; /* without sun_family; never more than 108 */
	/* By its length: an abstract name has no end mark, and a NUL in front that is written as @ everywhere. */
	bpf_probe_read_kernel(open->unix_path, length, (void *)(address + OFFSET_UNIX_ADDRESS_NAME + 2));
	if (length && !open->unix_path[0])
		open->unix_path[0] = '@';
}

/* Fill the payload area with what is known of a socket. */
static inline struct sockets_open *describe(struct cpu *cpu, u64 file, u64 inode, u64 *sk)
{
	struct sockets_open *open = (struct sockets_open *)cpu->payload;
	u64 leader = leader_of(bpf_get_current_task()), socket = 0;
	u16 type = 0;

	__builtin_memset(open, 0, sizeof(*open));
	READ(socket, file, OFFSET_FILE_PRIVATE);
	READ(*sk, socket, OFFSET_SOCKET_SK);
	READ(type, socket, OFFSET_SOCKET_TYPE);
	READ(open->family, *sk, OFFSET_SOCK_FAMILY);
	READ(open->start_boottime_ns, leader, OFFSET_TASK_START);
	open->socket_type = type;
	open->inode = inode;
	open->cgroup_id = bpf_get_current_cgroup_id();
	bpf_probe_read_kernel(open->comm, sizeof(open->comm), (void *)(leader + OFFSET_TASK_COMM));
	if (open->family == FAMILY_UNIX)
		describe_unix(open, *sk);
	else if (open->family == FAMILY_INET || open->family == FAMILY_INET6)
		describe_inet(open, *sk);
	return open;
}

static inline int wanted(struct sockets_open *open, u32 why)
{
	if (open->family == FAMILY_UNIX)
		return why != WATCHED_MAYBE;
	if (open->family != FAMILY_INET && open->family != FAMILY_INET6)
		return 0;
	return wanted_ports(open->local_port, open->remote_port, why);
}

static inline void announce(struct cpu *cpu, u64 task, struct conn *conn, struct sockets_open *open)
{
	begin(cpu, task, SOCKETS_OPEN);
	cpu->row.generation = conn->generation;
	cpu->row.fd = conn->fd;
	open->role = conn->role;
	open->before = !!(conn->flags & CONN_BEFORE);
	if (!put_surely(cpu, sizeof(*open)))
		conn->flags |= CONN_ANNOUNCED;
}

/* One descriptor less; the last one ends the connection of this process. */
static inline void release(struct cpu *cpu, u64 task, struct conn_key *key)
{
	struct sockets_close *totals = (struct sockets_close *)cpu->payload;
	struct conn *conn = conns.lookup(key);

	if (!conn)
		return;
	if (conn->references > 1) {
		conn->references--;
		return;
	}
	if (!(conn->flags & CONN_IGNORED)) {
		begin(cpu, task, SOCKETS_CLOSE);
		cpu->row.generation = conn->generation;
		cpu->row.fd = conn->fd;
		totals->received = conn->bytes[SOCKETS_RECEIVE];
		totals->sent = conn->bytes[SOCKETS_SEND];
		totals->received_events = conn->events[SOCKETS_RECEIVE];
		totals->sent_events = conn->events[SOCKETS_SEND];
		if (is_announced(cpu, conn))
			put_surely(cpu, sizeof(*totals));
	}
	conns.delete(key);
}

/* Note which socket a descriptor is, and say whether that is news. If it was another one, that one was closed behind our back (dup2, or an accept
 * on another thread that overtook the close).
 */
static inline int remember(struct cpu *cpu, u64 task, u32 fd, u64 inode)
{
	u64 slot = (task >> 32 << 32) | fd;
	u64 *before = descriptors.lookup(&slot);

	if (!inode || (before && *before == inode))
		return 0;
	if (before) {
		struct conn_key key = {.inode = *before, .pid = task >> 32};

		release(cpu, task, &key);
	}
	descriptors.update(&slot, &inode);
	return 1;
}

static inline struct conn *track(struct cpu *cpu, u64 task, struct conn_key *key, s32 fd, u8 role, int seen)
{
	struct conn fresh = {.fd = fd, .references = 1, .role = role, .flags = seen ? 0 : CONN_BEFORE};
	struct conn *conn;

	fresh.generation = new_generation(cpu);
	conns.update(key, &fresh);
	conn = conns.lookup(key);
	if (!conn)
		cpu->map_lost++;
	return conn;
}

/* The connection behind a descriptor: known, or described and announced now. NULL when it is not to be watched. */
static inline struct conn *connection(struct cpu *cpu, u64 task, u32 fd, u32 why, u8 role, int seen)
{
	struct conn_key key = {.pid = task >> 32};
	struct sockets_open *open;
	struct conn *conn;
	u64 file = 0, sk = 0;

	key.inode = socket_inode(fd, &file);
	if (!key.inode)
		return NULL;
	conn = conns.lookup(&key);
	if (conn && (conn->flags & (CONN_ANNOUNCED | CONN_IGNORED)))
		return conn->flags & CONN_IGNORED ? NULL : conn;
	if (!conn) {
		remember(cpu, task, fd, key.inode);
		conn = track(cpu, task, &key, fd, role, seen);
		if (!conn)
			return NULL;
	}
	open = describe(cpu, file, key.inode, &sk);
	if (!wanted(open, why)) {
		conn->flags |= CONN_IGNORED;
		return NULL;
	}
	announce(cpu, task, conn, open);
	return conn;
}

/* Copy up to `want` bytes of several user buffers, one behind the other. */
static inline u64 copy_iovecs(struct cpu *cpu, u64 iovecs, u64 count, u64 want, u32 most)
{
	u64 offset = 0;

	for (u32 i = 0; i < most; i++) {
		struct iovec_user part = {};
		u64 length;

		if (i >= count || offset >= want)
			return offset;
		if (bpf_probe_read_user(&part, sizeof(part), (void *)(iovecs + i * sizeof(part))))
			break;
		length = part.length;
		if (length > want - offset)
			length = want - offset;
		/* The verifier does not relate offset and length: the buffer has room for both. Masks change nothing, but
		 * every verifier follows them, as it does not follow comparisons.
		 */
		FORGET(length);
		FORGET(offset);
		length &= 2 * PAYLOAD_LIMIT - 1;
		offset &= PAYLOAD_LIMIT - 1;
		if (length && bpf_probe_read_user(cpu->payload + offset, length, (void *)part.base)) {
			cpu->unreadable++;
			cpu->row.flags |= SOCKETS_UNREADABLE;
			return offset;
		}
		offset += length;
	}
	if (offset < want)
		cpu->row.flags |= SOCKETS_MORE_IOVECS;
	return offset;
}

static inline u64 copy_buffer(struct cpu *cpu, u64 buffer, u64 want)
{
	FORGET(want);
	want &= 2 * PAYLOAD_LIMIT - 1;
	if (want && bpf_probe_read_user(cpu->payload, want, (void *)buffer)) {
		cpu->unreadable++;
		cpu->row.flags |= SOCKETS_UNREADABLE;
		return 0;
	}
	return want;
}

/* Start a data row and move the stream on; says how many bytes are worth copying. */
static inline u64 begin_data(struct cpu *cpu, u64 task, struct conn *conn, u32 direction, u32 size, u32 fd, u32 number)
{
	u32 limit;

	begin(cpu, task, SOCKETS_DATA);
	direction &= 1;
	limit = conn->events[direction] ? PAYLOAD_BYTES : FIRST_PAYLOAD_BYTES;
	cpu->row.generation = conn->generation;
	cpu->row.fd = fd;
	cpu->row.aux = number;
	cpu->row.direction = direction;
	cpu->row.size = size;
	cpu->row.position = conn->bytes[direction];
	cpu->row.nth = conn->events[direction];
	conn->bytes[direction] += size;
	conn->events[direction]++;
	return size < limit ? size : limit;
}

static inline void mark(struct cpu *cpu, u64 task, struct conn *conn, u32 fd, u8 kind, u32 direction, s32 aux)
{
	begin(cpu, task, kind);
	direction &= 1;
	cpu->row.generation = conn->generation;
	cpu->row.fd = fd;
	cpu->row.aux = aux;
	cpu->row.direction = direction;
	cpu->row.position = conn->bytes[direction];
	cpu->row.nth = conn->events[direction];
	deliver(cpu, conn, 0);
}

/* How a system call moves bytes. */
enum { VIA_BUFFER, VIA_IOVECS, VIA_MSGHDR, VIA_KERNEL, VIA_NOTHING };

int sockets_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_pid_tgid();
	u32 why = watched_for_connections(task >> 32);
	s64 result = ctx->args[1];
	struct conn *conn;
	struct call call;
	struct cpu *cpu;
	u32 fd, direction = SOCKETS_RECEIVE, via = VIA_NOTHING, zero = 0;
	u64 file = 0, flags = 0, want;
	u8 role = 0;
	int seen = 0;

	if (!why)
		return 0;
	bpf_probe_read_kernel(&call, sizeof(call), (void *)(ctx->args[0] + OFFSET_REGS_R10));
	fd = call.di;
	switch (call.number) {
	case NR_READ:
	case NR_RECVFROM:
		via = VIA_BUFFER;
		flags = call.number == NR_RECVFROM ? call.r10 : 0;
		break;
	case NR_WRITE:
	case NR_SENDTO:
		via = VIA_BUFFER;
		direction = SOCKETS_SEND;
		flags = call.number == NR_SENDTO ? call.r10 : 0;
		break;
	case NR_READV:
		via = VIA_IOVECS;
		break;
	case NR_WRITEV:
		via = VIA_IOVECS;
		direction = SOCKETS_SEND;
		break;
	case NR_RECVMSG:
		via = VIA_MSGHDR;
		flags = call.dx;
		break;
	case NR_SENDMSG:
		via = VIA_MSGHDR;
		direction = SOCKETS_SEND;
		flags = call.dx;
		break;
	case NR_SENDFILE:
		via = VIA_KERNEL;
		direction = SOCKETS_SEND;
		break;
	case NR_SPLICE: /* one end is a pipe, the other may be a socket */
		via = VIA_KERNEL;
		if (!socket_inode(fd, &file)) {
			fd = call.dx;
			direction = SOCKETS_SEND;
		}
		break;
	case NR_ACCEPT:
	case NR_ACCEPT4:
		fd = result;
		role = 2;
		seen = 1;
		break;
	case NR_CONNECT:
		if (result == -E_INPROGRESS)
			result = 0;
		role = 1;
		seen = 1;
		break;
	case NR_FCNTL:
		if (call.si != F_DUPFD_COMMAND && call.si != F_DUPFD_CLOEXEC_COMMAND)
			return 0;
		break;
	case NR_DUP:
	case NR_DUP2:
	case NR_DUP3:
	case NR_CLOSE:
	case NR_SHUTDOWN:
		break;
	case NR_RECVMMSG:
	case NR_SENDMMSG:
		if (result > 0 && call.cs != USER_CS_32)
			tails.call(ctx, 0);
		return 0;
	case NR_IO_URING_ENTER:
		break;
	default:
		return 0;
	}
	cpu = cpus.lookup(&zero);
	if (!cpu)
		return 0;
	if (call.cs == USER_CS_32) { /* other numbers, other structs: not read, but said */
		cpu->compat_calls++;
		return 0;
	}
	if (call.number == NR_IO_URING_ENTER) {
		cpu->io_uring_calls++;
		return 0;
	}
	if (result < 0) {
		if (via == VIA_NOTHING || (result != -E_CONNRESET && result != -E_PIPE && result != -E_TIMEDOUT))
			return 0;
	} else if (call.number == NR_CLOSE) {
		u64 slot = (task >> 32 << 32) | fd;
		u64 *inode = descriptors.lookup(&slot);

		/* Taken again already: whoever took it has noted that. */
		if (inode && socket_inode(fd, &file) != *inode) {
			struct conn_key key = {.inode = *inode, .pid = task >> 32};

			release(cpu, task, &key);
			descriptors.delete(&slot);
		}
		return 0;
	}
	/* Neither consumes the stream: looking ahead, and what travels beside it. */
	if (flags & (MSG_PEEK_FLAG | MSG_OOB_FLAG | MSG_ERRQUEUE_FLAG))
		return 0;
	conn = connection(cpu, task, fd, why, role, seen);
	if (!conn)
		return 0;
	if (call.number == NR_DUP || call.number == NR_DUP2 || call.number == NR_DUP3 || call.number == NR_FCNTL) {
		if (fd != result && remember(cpu, task, result, socket_inode(result, &file)))
			conn->references++;
		return 0;
	}
	if (call.number == NR_SHUTDOWN) {
		mark(cpu, task, conn, fd, SOCKETS_SHUTDOWN, SOCKETS_SEND, call.si);
		return 0;
	}
	if (via == VIA_NOTHING)
		return 0;
	if (result < 0) {
		mark(cpu, task, conn, fd, SOCKETS_ERROR, direction, -result);
		return 0;
	}
	if (result == 0) { /* reading nothing into nothing is no end */
		if (direction == SOCKETS_RECEIVE && call.dx && !(conn->flags & CONN_ENDED)) {
			conn->flags |= CONN_ENDED;
			mark(cpu, task, conn, fd, SOCKETS_EOF, SOCKETS_RECEIVE, 0);
		}
		return 0;
	}
	want = begin_data(cpu, task, conn, direction, result, fd, call.number);
	if (via == VIA_KERNEL || (flags & MSG_TRUNC_FLAG && direction == SOCKETS_RECEIVE)) {
		cpu->row.flags |= SOCKETS_NO_PAYLOAD;
		cpu->unseen_bytes += result;
		want = 0;
	} else if (via == VIA_BUFFER) {
		want = copy_buffer(cpu, call.si, want);
	} else {
		struct msghdr_user header = {.iovecs = call.si, .iovec_count = call.dx};

		if (via == VIA_MSGHDR)
			bpf_probe_read_user(&header, sizeof(header), (void *)call.si);
		want = copy_iovecs(cpu, header.iovecs, header.iovec_count, want, MAX_IOVECS);
	}
	deliver(cpu, conn, want);
	return 0;
}

/* recvmmsg and sendmmsg: one event a message. A program of its own keeps the common one small. */
int sockets_messages(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_pid_tgid();
	s64 result = ctx->args[1];
	u32 direction, zero = 0, why = watched_for_connections(task >> 32);
	struct cpu *cpu = cpus.lookup(&zero);
	struct conn *conn;
	struct call call;

	bpf_probe_read_kernel(&call, sizeof(call), (void *)(ctx->args[0] + OFFSET_REGS_R10));
	if (!cpu || !why || (call.r10 & (MSG_PEEK_FLAG | MSG_OOB_FLAG | MSG_ERRQUEUE_FLAG)))
		return 0;
	direction = call.number == NR_SENDMMSG ? SOCKETS_SEND : SOCKETS_RECEIVE;
	conn = connection(cpu, task, call.di, why, 0, 0);
	if (!conn)
		return 0;
	for (u32 i = 0; i < MAX_MESSAGES; i++) {
		struct mmsghdr_user message = {};
		u64 want;

		if (i >= result)
			return 0;
		if (bpf_probe_read_user(&message, sizeof(message), (void *)(call.si + i * sizeof(message))))
			break;
		if (!message.length)
			continue;
		want = begin_data(cpu, task, conn, direction, message.length, call.di, call.number);
		want = copy_iovecs(cpu, message.header.iovecs, message.header.iovec_count, want, MAX_MESSAGE_IOVECS);
		deliver(cpu, conn, want);
	}
	if (result > MAX_MESSAGES) /* seen as a jump of nth and position by whoever reads the stream */
		conn->events[direction & 1] += result - MAX_MESSAGES;
	return 0;
}

TRACEPOINT_PROBE(sched, sched_process_exit)
{
	u64 task = bpf_get_current_pid_tgid();
	u32 pid = task >> 32, zero = 0;
	struct cpu *cpu;

#if HAS_GROUP_DEAD
	if (!args->group_dead)
		return 0;
#else
	/* Older kernels do not say; the leader ends last in all but odd programs. */
	if (pid != (u32)task)
		return 0;
#endif
	cpu = cpus.lookup(&zero);
	if (cpu && watched_for_connections(pid)) {
		begin(cpu, task, SOCKETS_EXIT);
		put_surely(cpu, 0);
	}
	return 0;
}
