/* Layout of the events of bpf/tcp.c: the only definition, in C and in Python.
 *
 * Restricted grammar (see ebbflow/kernel/layout.py): sized types, arrays, nested structs, enums; no pointers, no
 * bit-fields, no implicit holes. Times are CLOCK_MONOTONIC.
 */
#ifndef EBBFLOW_TCP_H
#define EBBFLOW_TCP_H

enum tcp_kind {
	TCP_CONNECT = 1,    /* we reached somebody; since_ns: our SYN */
	TCP_ACCEPT = 2,     /* accept(2) handed a connection over; since_ns: established, from then on it waited */
	TCP_CLOSE = 3,      /* a connection that was established is no more; since_ns: established, or first seen */
	TCP_FAILED = 4,     /* a connect(2) came to nothing; since_ns: our SYN, or the call */
	TCP_STATE = 5,      /* a change of state (tcp.states); since_ns: of the connection */
	TCP_RETRANSMIT = 6, /* something was sent again */
	TCP_RESET = 7,      /* a reset was sent or received */
	TCP_ALIVE = 8,   /* a connection that is open, when segments came in the last interval; since_ns as in CLOSE */
	TCP_PROCESS = 9, /* aggregate: what a process's connections did in the interval */
};

enum tcp_role {
	TCP_ROLE_UNKNOWN = 0, /* it was there before us */
	TCP_ROLE_CLIENT = 1,
	TCP_ROLE_SERVER = 2,
};

/* As in the kernel's tcp_states.h, which they are read as. */
enum tcp_states {
	TCP_STATE_ESTABLISHED = 1,
	TCP_STATE_SYN_SENT = 2,
	TCP_STATE_SYN_RECV = 3,
	TCP_STATE_FIN_WAIT1 = 4,
	TCP_STATE_FIN_WAIT2 = 5,
	TCP_STATE_TIME_WAIT = 6,
	TCP_STATE_CLOSE = 7,
	TCP_STATE_CLOSE_WAIT = 8,
	TCP_STATE_LAST_ACK = 9,
	TCP_STATE_LISTEN = 10,
	TCP_STATE_CLOSING = 11,
};

enum tcp_ended_by {
	TCP_ENDED_UNKNOWN = 0,
	TCP_ENDED_BY_US = 1,   /* our FIN went first, or we aborted */
	TCP_ENDED_BY_PEER = 2, /* its FIN or its reset came first */
	TCP_ENDED_BY_NET = 3,  /* nobody's wish: a time-out, or an error of the network */
};

enum tcp_close_flags {
	TCP_RESET_RECEIVED = 1,
	TCP_FIN_RECEIVED = 2,
	TCP_UNSEEN_CLOSE =
		4, /* the change of state went by; told when the socket was freed, from what was left of it */
};

/* Which connection: the same in all rows of it. */
struct tcp_connection {
	__u64 generation;        /* unique for this boot */
	__u64 inode;             /* of the socket, as in sockets' rows; 0: nobody has accepted it */
	__u64 opened_ns;         /* SYN sent; of a server's end established; first seen */
	__u64 established_ns;    /* 0: not, or before we looked */
	__u8 local_address[16];  /* first 4 bytes for IPv4 */
	__u8 remote_address[16]; /* likewise */
	__u32 netns;             /* inode number of the network namespace */
	__u16 local_port;        /* host byte order; 0: none yet */
	__u16 remote_port;
	__u16 family; /* AF_INET 2, AF_INET6 10 */
	__u8 role;
	__u8 before; /* 1: it was there before us, or before its process was watched */
	__u32 reserved;
};

/* The kernel's smoothed round-trip time (RFC 6298), looked at with each segment that came in while established.
 * Slot i counts [2^i, 2^(i+1)) microseconds; slot 0 what is less, too, the last one what is more (8.4 s).
 */
struct tcp_rtt {
	__u64 count;
	__u64 sum_us;
	__u32 min_us; /* 0: none */
	__u32 max_us;
	__u32 slots[24];
};

/* What went through, from the socket's own counters, so also what was before us. */
struct tcp_traffic {
	__u64 sent_bytes;          /* payload that was transmitted, each byte once */
	__u64 acked_bytes;         /* of these, what the peer has acknowledged */
	__u64 received_bytes;      /* payload that came in order, each byte once, read or not */
	__u64 retransmitted_bytes; /* payload that was transmitted again */
	__u32 sent_segments;
	__u32 received_segments;
	__u32 retransmits; /* segments sent again, SYN and FIN too */
	__u32 srtt_us;     /* 0: never measured */
	__u32 rtt_variance_us;
	__u32 min_rtt_us; /* in the kernel's window (tcp_min_rtt_wlen); 0: never measured */
	__u32 congestion_window_segments;
	__u32 mss_bytes;
};

struct tcp_connect {
	struct tcp_connection connection;
	__u32 srtt_us;     /* the handshake as the kernel measured it; 0: SYN was sent again */
	__u32 retransmits; /* of SYN */
};

struct tcp_accept {
	struct tcp_connection connection;
	__u32 handshake_us; /* SYN-ACK sent to its ACK; 0: unknown (sent again, SYN cookie, before us) */
	__u32 reserved;
};

struct tcp_close {
	struct tcp_connection connection;
	struct tcp_traffic traffic;
	struct tcp_rtt rtt;
	__u32 error; /* errno that is left in the socket; 0: none */
	__u8 last_state;
	__u8 ended_by;
	__u8 flags;
	__u8 reserved;
};

struct tcp_failed {
	struct tcp_connection connection;
	__u32 error;       /* errno; 0: given up, the socket was closed before an answer came */
	__u32 retransmits; /* of SYN */
};

struct tcp_state {
	struct tcp_connection connection;
	__u8 before;
	__u8 after;
	__u8 reserved[6];
};

struct tcp_retransmit {
	struct tcp_connection connection; /* of a SYN-ACK there is none yet: generation 0 */
	__u32 bytes;                      /* of payload */
	__u32 total; /* segments the connection has sent again so far; of a SYN-ACK, this request's */
	__s32 error; /* 0, or why it could not be sent: -errno; since Linux 6.17 */
	__u8 state;
	__u8 is_synack;
	__u8 reserved[2];
};

struct tcp_reset {
	struct tcp_connection connection;
	__u32 reason; /* of one that was sent: the kernel's enum sk_rst_reason, since Linux 6.10; else 0 */
	__u8 state;
	__u8 is_sent; /* 0: received */
	__u8 reserved[2];
};

struct tcp_alive {
	struct tcp_connection connection;
	struct tcp_traffic traffic; /* so far */
	struct tcp_rtt rtt;         /* so far */
	__u8 state;
	__u8 reserved[7];
};

/* Bytes and segments are of the connections that ended in the interval; the rest is what happened in it. */
struct tcp_process {
	__u64 sent_bytes;
	__u64 received_bytes;
	__u32 connects;
	__u32 accepts;
	__u32 failed;
	__u32 closes;
	__u32 retransmits; /* events */
	__u32 resets_sent;
	__u32 resets_received;
	__u32 reserved;
	struct tcp_rtt rtt; /* min and max: two CPUs that meet may miss one */
};

/* Not in events: what the kernel program and the producer share in maps. */

struct tcp_process_key {
	__u64 start_boottime_ns;
	__u32 pid;
	__u32 reserved;
};

struct tcp_totals {
	struct tcp_process is;
	char comm[16];
};

struct tcp_owner {
	__u64 start_boottime_ns;
	__u32 pid;
	__u32 tid;
	char comm[16];
};

struct tcp_tracked {
	struct tcp_connection is;
	struct tcp_owner owner;
	struct tcp_rtt rtt;
	__u32 segments; /* that came in */
	__u32 told;     /* `segments` at the last TCP_ALIVE */
	__u8 state;
	__u8 ended_by;
	__u8 is_failing; /* connect(2) will say why */
	__u8 is_closed;  /* told; only resets are still to come */
	__u8 is_reset;   /* by the peer */
	__u8 reserved[3];
};

struct tcp_control {
	__u64 first_generation;
	__u64 settled;   /* 1: owners of what was there before are known, so who is not among them is a stranger */
	__u64 next_task; /* kernel address, for a walk of several steps; 0: it is done */
};

#endif
