/* Layout of what bpf/disk.c writes: the only definition, in C and in Python.
 *
 * Restricted grammar, see ebbflow/kernel/layout.py.
 */
#ifndef EBBFLOW_DISK_H
#define EBBFLOW_DISK_H

enum disk_kind {
	DISK_DEVICE = 1,  /* aggregate: one operation of one device in one interval, whoever asked for it */
	DISK_PROCESS = 2, /* the same, of what one watched process asked for */
	DISK_ERRORS = 3,  /* aggregate: one error of one operation of one device; pid 0: of nobody who is watched */
};

enum disk_operation {
	DISK_READ = 0,
	DISK_WRITE = 1,
	DISK_FLUSH = 2, /* the command to the device */
	DISK_DISCARD = 3,
	DISK_SYNC = 4,  /* a request that only asks for a flush: from asking until its flushes were done */
	DISK_OTHER = 5, /* zones, write zeroes, commands of drivers */
};

/* Queue time: from when the kernel accounts a request (before 6.5: from when it was first seen) until it is first given
 * to the driver. Device time: from when it was last given to the driver until it is complete.
 *
 * Slot i of the times counts [2^i, 2^(i+1)) us: slot 0 all below 2 us, the last all from 8.4 s on. Slot i of the sizes
 * counts [2^(i+9), 2^(i+10)) bytes: slot 0 all below 1 KiB, the last all from 16 MiB on; no size is counted for nothing.
 */
struct disk_io {
	__u64 requests; /* complete */
	__u64 bytes;    /* of these, and of parts of requests that are not complete */
	__u64 queue_ns;
	__u64 queue_max_ns;
	__u64 device_ns;
	__u64 device_max_ns;
	__u32 untimed; /* of the requests: their beginning or their end was not seen; in no slot of the device times */
	__u32 errors;  /* of the requests */
	__u32 unattributed; /* of the requests: of kernel threads, as write-back and journals, or of nobody known; 0 for a process */
	__u32 merged;    /* joined to another request: they are not among the requests */
	__u32 split;     /* cut in two: the parts are among the requests */
	__u32 requeued;  /* times that the driver gave one back */
	__s32 in_flight; /* with the driver at the end of the interval */
	__u16 operation;
	__u16 reserved;
	__u32 queue_slots[24];
	__u32 device_slots[24];
	__u32 size_slots[16];
	__u32 major; /* of the whole disk, never of a partition */
	__u32 minor;
	char disk[32]; /* its name, as vda */
};

struct disk_device {
	struct disk_io io;
};

struct disk_process {
	struct disk_io io;
};

struct disk_errors {
	__u64 requests;
	__u32 major;
	__u32 minor;
	__u16 operation;
	__u16 reserved;
	__u32 status; /* blk_status_t of the kernel: 10 is an input/output error; see docs/disk.md */
};

/* What stands in the program's maps. */
struct disk_key {
	__u64 start_boottime_ns; /* 0 with pid 0: of all */
	__u32 pid;
	__u32 major;
	__u32 minor;
	__u32 operation;
};

struct disk_error_key {
	__u64 start_boottime_ns;
	__u32 pid;
	__u32 major;
	__u32 minor;
	__u16 operation;
	__u16 status;
};

struct disk_under_way {
	__u64 start_ns; /* 0: it has ended */
	__u64 first_issue_ns;
	__u64 issue_ns; /* 0: not with the driver; what stands below up to the owner is not known then */
	__u64 disk;     /* address of its struct gendisk */
	__u32 major;
	__u32 minor;
	__u32 operation;
	__u32 whole_bytes;
	__u32 left_bytes;
	__u32 owner_pid; /* 0: of no watched process */
	__u64 owner_start_boottime_ns;
	__u64 is_attributed;
};

#endif
