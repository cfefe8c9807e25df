/* Which processes and ports are watched: the same maps for every feature of one ebbflow process.
 *
 * bpf/watch.c owns them and keeps them up to date; ebbflow/kernel/watch.py fills them. Flags: WATCH_ALL, WATCH_PORTS.
 */
#ifndef EBBFLOW_WATCH_H
#define EBBFLOW_WATCH_H

/* Why a process is watched; a process stays while one reason holds. */
enum {
	WATCHED_PID = 1,
	WATCHED_EXE = 2,
	WATCHED_CGROUP = 4,
	WATCHED_MAYBE = 8, /* depends on the connection's port */
	WATCHED_PORT = 16, /* it listens on a watched port: for what has no connection */
};

enum { PORT_WATCHED = 1, PORT_EXCLUDED = 2 };

struct exe_key {
	u64 inode;
	u64 device;
};

#ifdef WATCH_OWNER
#define WATCH_TABLE(key, value, name, entries) BPF_TABLE_PUBLIC("hash", key, value, name, entries)
#else
#define WATCH_TABLE(key, value, name, entries) BPF_TABLE("extern", key, value, name, entries)
#endif

WATCH_TABLE(u32, u32, watch_targets, 16384);
WATCH_TABLE(u32, u8, watch_excluded, 16384);
WATCH_TABLE(u16, u8, watch_ports, 1024);

/* The reasons for which a process is watched as a whole; 0: it is not. */
static inline u32 watched(u32 pid)
{
	u32 *why;

#if WATCH_ALL || WATCH_PORTS
	if (watch_excluded.lookup(&pid))
		return 0;
#endif
	why = watch_targets.lookup(&pid);
	if (why)
		return *why;
	return WATCH_ALL ? WATCHED_PID : 0;
}

/* The same for what belongs to a connection, whose port may decide. */
static inline u32 watched_for_connections(u32 pid)
{
	u32 *why;

#if WATCH_ALL || WATCH_PORTS
	if (watch_excluded.lookup(&pid))
		return 0;
#endif
	why = watch_targets.lookup(&pid);
	if (why && *why & ~WATCHED_PORT)
		return *why;
	return WATCH_ALL ? WATCHED_PID : WATCH_PORTS ? WATCHED_MAYBE : 0;
}

/* Whether the filters want a connection of these ports (host byte order). An excluded port wins over everything. */
static inline int wanted_ports(u16 local, u16 remote, u32 why)
{
	u8 *at_local = watch_ports.lookup(&local), *at_remote = watch_ports.lookup(&remote);

	if ((at_local && *at_local == PORT_EXCLUDED) || (at_remote && *at_remote == PORT_EXCLUDED))
		return 0;
	return why != WATCHED_MAYBE || at_local || at_remote;
}

#endif
