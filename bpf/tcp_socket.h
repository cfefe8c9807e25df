/* What bpf/tcp.c reads of the kernel's sockets: who it is, what went through. Every read is a call of some 20 ns, however
 * long: so what lies together is read at once, and taken apart here.
 *
 * Flags given by the loader: SOCK_BYTES, size of struct sock_common; TCP_AT and TCP_BYTES, where in struct tcp_sock all
 * that is wanted lies; OFFSET_*.
 */
#ifndef EBBFLOW_TCP_SOCKET_H
#define EBBFLOW_TCP_SOCKET_H

#include "kernel.h"
#include "tcp.h"

enum {
	FAMILY_INET = 2,
	FAMILY_INET6 = 10,
	PROTOCOL_TCP = 6,
	FLAG_FIN_RECEIVED = 1 << 1, /* SOCK_DONE of enum sock_flags */
	MODE_TYPE = 0170000,
	MODE_SOCKET = 0140000,
};

struct sock_copy {
	u8 bytes[SOCK_BYTES] __attribute__((aligned(8)));
};

struct tcp_copy {
	u8 bytes[TCP_BYTES] __attribute__((aligned(8)));
};

#define IN_SOCK(type, copy, offset) (*(type *)((copy).bytes + (offset)))
#define IN_TCP(type, copy, offset)  (*(type *)((copy)->bytes + (offset)-TCP_AT))

/* One that is read whole is too long for the stack. */
BPF_PERCPU_ARRAY(tcp_copies, struct tcp_copy, EVENT_SLOTS);

/* MPTCP's own sockets and SCTP share the tracepoints; MPTCP's subflows are TCP. */
static inline int is_tcp(u64 sk)
{
	u16 protocol = 0;

	READ(protocol, sk, OFFSET_SOCK_PROTOCOL);
	return protocol == PROTOCOL_TCP;
}

/* 0 for one that no file belongs to: not accepted yet, or closed by its process. */
static inline u64 inode_of(u64 sk)
{
	u64 socket = 0, number = 0;

	READ(socket, sk, OFFSET_SK_SOCKET);
	if (socket)
		READ(number, socket, OFFSET_SOCKET_INODE + OFFSET_INODE_NUMBER);
	return number;
}

static inline u64 file_of(u32 fd)
{
	struct {
		u32 max_fds, pad;
		u64 fds;
	} table = {};
	u64 files = 0, fdt = 0, file = 0;

	READ(files, bpf_get_current_task(), OFFSET_TASK_FILES);
	READ(fdt, files, OFFSET_FILES_FDT);
	READ(table, fdt, 0);
	if (fd < table.max_fds)
		READ(file, table.fds, 8 * (u64)fd);
	return file;
}

/* The sock behind a descriptor that is known to be a socket's, of the current process. */
static inline u64 sock_of_socket(u64 file)
{
	u64 socket = 0, sk = 0;

	READ(socket, file, OFFSET_FILE_PRIVATE);
	READ(sk, socket, OFFSET_SOCKET_SK);
	return sk;
}

/* The same of any descriptor; 0 when it is none. */
static inline u64 sock_of(u32 fd)
{
	u64 file = file_of(fd), inode = 0;
	u16 mode = 0;

	READ(inode, file, OFFSET_FILE_INODE);
	READ(mode, inode, OFFSET_INODE_MODE);
	return (mode & MODE_TYPE) == MODE_SOCKET ? sock_of_socket(file) : 0;
}

/* Of a sock, or of a request for a connection: both begin with struct sock_common. All but the local port. */
static inline void take_addresses(struct tcp_connection *is, struct sock_copy *copy)
{
	u64 net = IN_SOCK(u64, *copy, OFFSET_SOCK_NET);

	is->family = IN_SOCK(u16, *copy, OFFSET_SOCK_FAMILY);
	is->remote_port = ntohs(IN_SOCK(u16, *copy, OFFSET_SOCK_DPORT));
	if (is->family == FAMILY_INET6) {
		__builtin_memcpy(is->local_address, copy->bytes + OFFSET_SOCK_V6_RCV_SADDR, 16);
		__builtin_memcpy(is->remote_address, copy->bytes + OFFSET_SOCK_V6_DADDR, 16);
	} else {
		__builtin_memcpy(is->local_address, copy->bytes + OFFSET_SOCK_RCV_SADDR, 4);
		__builtin_memcpy(is->remote_address, copy->bytes + OFFSET_SOCK_DADDR, 4);
	}
	if (!is->netns)
		READ(is->netns, net, OFFSET_NET_INUM);
}

/* The local port of a sock that is closing stands only in inet_sport: the kernel has given skc_num back by then. Returns the state. */
static inline u8 read_connection(struct tcp_connection *is, u64 sk)
{
	struct sock_copy copy = {};
	u16 port = 0;

	READ(copy, sk, 0);
	take_addresses(is, &copy);
	READ(port, sk, OFFSET_INET_SPORT);
	is->local_port = ntohs(port);
	if (!is->inode)
		is->inode = inode_of(sk);
	return IN_SOCK(u8, copy, OFFSET_SOCK_STATE);
}

static inline u32 fin_received(u64 sk)
{
	u64 flags = 0;

	READ(flags, sk, OFFSET_SOCK_FLAGS);
	return !!(flags & FLAG_FIN_RECEIVED);
}

/* The kernel counts sequence numbers in bytes_acked and bytes_received, and SYN and FIN have one each; bytes_sent and
 * bytes_retrans are payload alone.
 */
static inline void read_traffic(int slot, struct tcp_traffic *traffic, u64 sk, u8 role, u32 fin)
{
	struct tcp_copy *tcp = tcp_copies.lookup(&slot);
	u64 sent, again, acked, received;

	if (!tcp)
		return;
	bpf_probe_read_kernel(tcp, sizeof(*tcp), (void *)(sk + TCP_AT));
	again = IN_TCP(u64, tcp, OFFSET_TCP_BYTES_RETRANS);
	sent = IN_TCP(u64, tcp, OFFSET_TCP_BYTES_SENT) - again;
	acked = IN_TCP(u64, tcp, OFFSET_TCP_BYTES_ACKED);
	received = IN_TCP(u64, tcp, OFFSET_TCP_BYTES_RECEIVED);
	if (role == TCP_ROLE_CLIENT && acked)
		acked--;
	traffic->sent_bytes = sent;
	traffic->acked_bytes = acked < sent ? acked : sent;
	traffic->received_bytes = received ? received - fin : 0;
	traffic->retransmitted_bytes = again;
	traffic->sent_segments = IN_TCP(u32, tcp, OFFSET_TCP_SEGS_OUT);
	traffic->received_segments = IN_TCP(u32, tcp, OFFSET_TCP_SEGS_IN);
	traffic->retransmits = IN_TCP(u32, tcp, OFFSET_TCP_TOTAL_RETRANS);
	traffic->srtt_us = IN_TCP(u32, tcp, OFFSET_TCP_SRTT) >> 3;
	traffic->rtt_variance_us = IN_TCP(u32, tcp, OFFSET_TCP_MDEV) >> 2;
	traffic->min_rtt_us = IN_TCP(u32, tcp, OFFSET_TCP_MIN_RTT + OFFSET_MINMAX_VALUE);
	if (traffic->min_rtt_us == ~0U)
		traffic->min_rtt_us = 0;
	traffic->congestion_window_segments = IN_TCP(u32, tcp, OFFSET_TCP_CWND);
	traffic->mss_bytes = IN_TCP(u32, tcp, OFFSET_TCP_MSS);
}

#endif
