/* Layout of the events of bpf/sockets.c: the only definition, in C and in Python.
 *
 * Restricted grammar (see ebbflow/kernel/layout.py): sized types, arrays, nested structs, enums; no pointers, no
 * bit-fields, no implicit holes.
 */
#ifndef EBBFLOW_SOCKETS_H
#define EBBFLOW_SOCKETS_H

enum sockets_kind {
	SOCKETS_DATA = 1,     /* bytes went through a socket; size > 0 */
	SOCKETS_OPEN = 2,     /* a connection became known; payload is struct sockets_open */
	SOCKETS_CLOSE = 3,    /* this process closed its last descriptor; payload is struct sockets_close */
	SOCKETS_SHUTDOWN = 4, /* shutdown(2); aux: SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2 */
	SOCKETS_EOF = 5,      /* a read returned 0: the peer will send no more */
	SOCKETS_ERROR = 6,    /* reset, broken pipe, time-out; aux: errno */
	SOCKETS_EXIT = 7,     /* the process ended; no connection: generation 0 */
};

enum sockets_direction {
	SOCKETS_RECEIVE = 0,
	SOCKETS_SEND = 1,
};

enum sockets_flags {
	SOCKETS_UNREADABLE = 1,  /* payload was there but user memory could not be read */
	SOCKETS_NO_PAYLOAD = 2,  /* sendfile, splice, MSG_TRUNC: bytes moved, none seen */
	SOCKETS_MORE_IOVECS = 4, /* more buffers than the program copies */
};

struct sockets_row {
	__u64 time_ns;    /* CLOCK_MONOTONIC at the end of the system call */
	__u64 sequence;   /* per CPU, counts every event, lost ones too */
	__u64 generation; /* connection, unique for this boot */
	__u64 position;   /* bytes of this direction before this event */
	__u32 pid;        /* process (tgid) */
	__u32 tid;        /* thread */
	__u32 size;       /* bytes the system call moved */
	__u32 captured;   /* bytes of payload that follow */
	__u32 nth;        /* events of this direction before this one: a gap shows how many were lost */
	__s32 fd;
	__s32 aux; /* by kind: number of the system call (data), errno, how */
	__u8 cpu;  /* low 8 bits */
	__u8 kind;
	__u8 direction;
	__u8 flags;
};

/* Payload of SOCKETS_OPEN. */
struct sockets_open {
	__u64 start_boottime_ns; /* of the process: with pid it is the upid */
	__u64 inode;             /* of the socket */
	__u64 cgroup_id;         /* cgroup v2 id, 0 or the root's on a v1 host */
	__u8 local_address[16];  /* first 4 bytes for IPv4 */
	__u8 remote_address[16];
	__u16 local_port; /* host byte order */
	__u16 remote_port;
	__u16 family;     /* AF_UNIX 1, AF_INET 2, AF_INET6 10 */
	__u8 socket_type; /* SOCK_STREAM 1, SOCK_DGRAM 2 */
	__u8 role;        /* 0 unknown, 1 client, 2 server */
	__u8 before;      /* 1: opened before the program was attached, or handed over */
	__u8 reserved[7];
	char comm[16];
	char unix_path[128];
};

/* Payload of SOCKETS_CLOSE: what went through in all, so that a loss before the end is seen too. */
struct sockets_close {
	__u64 received; /* bytes */
	__u64 sent;
	__u32 received_events;
	__u32 sent_events;
};

#endif
