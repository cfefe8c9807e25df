/* Block requests: how long they waited, how long the device took, how large they were, which failed; by device and
 * operation, and for watched processes by process.
 *
 * A request is known by the address of its struct from when the kernel accounts it (block_io_start, in the process
 * that asks; Linux 6.5 and later) or first puts it anywhere, until it is complete. The kernel uses the struct again, so
 * one that was never seen to end is noticed, and counted, when its address comes back. What kernel threads ask for (write-back,
 * journals) belongs to no process any more: it is counted by device.
 *
 * Kernel's side: block/blk-mq.c, block/blk-flush.c. A write that asks for flushes is complete twice: with its bytes,
 * and with none when its flushes are done. One that asks for flushes alone is never given to the driver itself.
 *
 * BCC dialect. Flags given by the loader: RING_PAGES, WATCH_ALL, WATCH_PORTS, HAS_IO_START, MAX_REQUESTS,
 * HEAD_BYTES, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#define EVENT_PAYLOAD_BYTES sizeof(struct disk_io)
#define EVENT_SLOTS         1
#include "disk.h"
#include "emit.h"
#include "histogram.h"
#include "swap.h"
#include "watch.h"

/* Blind spots, in the order of DiskProducer.unseen. */
enum { UNSEEN_ISSUES, UNSEEN_COMPLETIONS };

enum {
	TIME_SLOTS = 24,
	SIZE_SLOTS = 16,
	FIRST_SIZE_POWER = 9,
	US = 1000,
	OPERATION_MASK = 0xff,
	KERNEL_THREAD = 0x200000, /* PF_KTHREAD */
	MAX_DEVICES = 1024,
	MAX_PROCESSES = 4096,
};

/* Of which device and operation something is. */
struct place {
	u64 disk;
	u32 major;
	u32 minor;
	u32 operation;
};

/* A request or a part of one that is complete. */
struct ending {
	u64 queue_ns;
	u64 device_ns;
	u64 bytes; /* of this part */
	u64 whole_bytes;
	u32 is_last;
	u32 is_timed;
	u32 is_queued;
	u32 is_attributed;
	u32 status;
};

/* The part of struct request from its beginning that has what is read of it: one call of the kernel for all. */
struct head {
	u8 bytes[HEAD_BYTES];
};

#define PART(type, head, offset) (*(type *)((head).bytes + (offset)))

BPF_HASH(requests, u64, struct disk_under_way, MAX_REQUESTS);
BPF_ARRAY(crowded, u32, 1); /* 1: there was no room for a request */
BPF_ARRAY(nothing, struct disk_io, 1);
SWAPPED("hash", struct disk_key, struct disk_io, devices, MAX_DEVICES);
SWAPPED("hash", struct disk_key, struct disk_io, processes, MAX_PROCESSES);
SWAPPED("hash", struct disk_error_key, u64, errors, MAX_DEVICES);

static inline void place_of(struct place *place, u64 disk, u32 flags)
{
	u32 operation = flags & OPERATION_MASK;

	place->disk = disk;
	READ(place->major, disk, OFFSET_DISK_MAJOR);
	READ(place->minor, disk, OFFSET_DISK_MINOR);
	place->operation = operation <= DISK_DISCARD ? operation : DISK_OTHER;
}

static inline void place_of_request(struct place *place, struct head *head)
{
	u64 disk = 0;

	READ(disk, PART(u64, *head, OFFSET_RQ_QUEUE), OFFSET_QUEUE_DISK);
	place_of(place, disk, PART(u32, *head, OFFSET_RQ_FLAGS));
}

static inline void place_of_bio(struct place *place, u64 bio)
{
	u64 device = 0, disk = 0;
	u32 flags = 0;

	READ(device, bio, OFFSET_BIO_DEVICE);
	READ(disk, device, OFFSET_DEVICE_DISK);
	READ(flags, bio, OFFSET_BIO_FLAGS);
	place_of(place, disk, flags);
}

/* Whether the current thread is a process's, and its process where that is watched. */
static inline void own(struct disk_under_way *way)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 flags, pid = bpf_get_current_pid_tgid() >> 32;

	MEMBER(flags, "u32", task, OFFSET_TASK_FLAGS);
	if (flags & KERNEL_THREAD || !pid)
		return;
	way->is_attributed = 1;
	if (!watched(pid))
		return;
	way->owner_pid = pid;
	way->owner_start_boottime_ns = start_of((u64)task);
}

/* The row of a device, or with an owner that of a process. */
static inline struct disk_io *row_of(struct place *place, struct disk_under_way *owner)
{
	struct disk_key key = {.major = place->major, .minor = place->minor, .operation = place->operation};
	struct disk_io *io, *none;
	int zero = 0;
	void *map;

	if (owner) {
		key.pid = owner->owner_pid;
		key.start_boottime_ns = owner->owner_start_boottime_ns;
		map = processes.lookup(&zero);
	} else {
		map = devices.lookup(&zero);
	}
	io = map ? bpf_map_lookup_elem(map, &key) : NULL;
	if (io)
		return io;
	none = nothing.lookup(&zero);
	io = none ? find_or_add(map, &key, none) : NULL;
	if (io)
		bpf_probe_read_kernel_str(io->disk, sizeof(io->disk), (void *)(place->disk + OFFSET_DISK_NAME));
	else
		event_lost_in_map();
	return io;
}

static inline void add_time(u64 *sum, u64 *max, u32 *slots, u64 time_ns)
{
	u32 slot = slot_of(time_ns / US, 0, TIME_SLOTS);

	__sync_fetch_and_add(sum, time_ns);
	if (time_ns > *max)
		*max = time_ns;
	if (slot < TIME_SLOTS)
		__sync_fetch_and_add(&slots[slot], 1);
}

static inline void add_ending(struct disk_io *io, struct ending *ending)
{
	u32 slot = slot_of(ending->whole_bytes, FIRST_SIZE_POWER, SIZE_SLOTS);

	if (!io)
		return;
	__sync_fetch_and_add(&io->bytes, ending->bytes);
	if (ending->status)
		__sync_fetch_and_add(&io->errors, 1);
	if (!ending->is_last)
		return;
	if (ending->whole_bytes && slot < SIZE_SLOTS)
		__sync_fetch_and_add(&io->size_slots[slot], 1);
	if (!ending->is_attributed)
		__sync_fetch_and_add(&io->unattributed, 1);
	if (ending->is_timed)
		add_time(&io->device_ns, &io->device_max_ns, io->device_slots, ending->device_ns);
	else
		__sync_fetch_and_add(&io->untimed, 1);
	if (ending->is_queued)
		add_time(&io->queue_ns, &io->queue_max_ns, io->queue_slots, ending->queue_ns);
}

static inline void add_error(struct place *place, struct disk_under_way *way, u32 status)
{
	struct disk_error_key key = {
		.major = place->major, .minor = place->minor, .operation = place->operation, .status = status};
	u64 none = 0, *count;
	int zero = 0;

	if (way) {
		key.pid = way->owner_pid;
		key.start_boottime_ns = way->owner_start_boottime_ns;
	}
	count = find_or_add(errors.lookup(&zero), &key, &none);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		event_lost_in_map();
}

/* What is known of a request that has not ended. */
static inline struct disk_under_way *known(u64 request)
{
	struct disk_under_way *way = requests.lookup(&request);

	return way && way->start_ns ? way : NULL;
}

/* A request that is seen for the first time; it is with nobody yet. */
static inline void meet(u64 request, u64 now, int is_asker)
{
	struct disk_under_way way = {.start_ns = now}, *old = requests.lookup(&request);
	u32 zero = 0, one = 1;

	if (is_asker)
		own(&way);
	if (old) {
		*old = way;
	} else if (requests.update(&request, &way)) {
		event_lost_in_map();
		crowded.update(&zero, &one);
	}
}

/* The kernel will use its memory again, and so do we, while there is room for all that it uses. */
static inline void forget(u64 request, struct disk_under_way *way)
{
	int zero = 0;
	u32 *is_crowded = crowded.lookup(&zero);

	way->start_ns = way->issue_ns = 0;
	if (is_crowded && *is_crowded)
		requests.delete(&request);
}

/* A request whose address is used again ended without being seen to: when is not known, nor with which error. */
static inline void end_unseen(struct disk_under_way *way)
{
	struct place place = {.disk = way->disk, .major = way->major, .minor = way->minor, .operation = way->operation};
	struct ending ending = {
		.bytes = way->left_bytes, .whole_bytes = way->whole_bytes, .is_last = 1, .is_queued = 1};

	event_unseen(UNSEEN_COMPLETIONS);
	if (!way->issue_ns)
		return;
	ending.queue_ns = way->first_issue_ns - way->start_ns;
	ending.is_attributed = way->is_attributed;
	add_ending(row_of(&place, NULL), &ending);
	if (way->owner_pid)
		add_ending(row_of(&place, way), &ending);
}

int disk_start(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0];
	struct disk_under_way *old = known(request);

	if (old)
		end_unseen(old);
	meet(request, bpf_ktime_get_ns(), 1);
	return 0;
}

int disk_insert(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0];

	if (!known(request))
		meet(request, bpf_ktime_get_ns(), !HAS_IO_START);
	return 0;
}

int disk_issue(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0], now = bpf_ktime_get_ns();
	struct disk_under_way *way = known(request);
	struct place place = {};
	struct head head;

	if (way && way->issue_ns)
		end_unseen(way);
	if (!way || way->issue_ns) {
		meet(request, now, !HAS_IO_START);
		way = known(request);
		if (!way)
			return 0;
	}
	READ(head, request, 0);
	place_of_request(&place, &head);
	way->disk = place.disk;
	way->major = place.major;
	way->minor = place.minor;
	way->operation = place.operation;
	way->left_bytes = way->whole_bytes = PART(u32, head, OFFSET_RQ_BYTES);
	way->issue_ns = now;
	if (!way->first_issue_ns)
		way->first_issue_ns = now;
	return 0;
}

int disk_requeue(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0];
	struct disk_under_way *way = known(request);
	struct place place = {};
	struct disk_io *io;
	struct head head;

	READ(head, request, 0);
	place_of_request(&place, &head);
	io = row_of(&place, NULL);
	if (io)
		__sync_fetch_and_add(&io->requeued, 1);
	if (!way)
		return 0;
	way->issue_ns = 0;
	io = way->owner_pid ? row_of(&place, way) : NULL;
	if (io)
		__sync_fetch_and_add(&io->requeued, 1);
	return 0;
}

/* The end of a request, or of a part of it, of which it was seen that it was given to the driver. */
static inline void end_of_issued(struct disk_under_way *way, struct place *place, struct ending *ending, u64 now)
{
	place->disk = way->disk;
	place->major = way->major;
	place->minor = way->minor;
	place->operation = way->operation;
	ending->is_timed = ending->is_queued = 1;
	ending->device_ns = now - way->issue_ns;
	ending->queue_ns = way->first_issue_ns - way->start_ns;
	ending->whole_bytes = way->whole_bytes;
	ending->is_last = ending->bytes >= way->left_bytes;
	way->left_bytes -= ending->bytes;
}

/* The same of any other. Says whether it is one: flushes after a write are not, that was complete before. */
static inline int end_of_unissued(u64 request, struct disk_under_way *way, struct place *place, struct ending *ending)
{
	struct head head;

	READ(head, request, 0);
	place_of_request(place, &head);
	ending->whole_bytes = PART(u32, head, OFFSET_RQ_BYTES);
	ending->is_last = ending->bytes >= ending->whole_bytes;
	if (way && !ending->whole_bytes) {
		place->operation = DISK_SYNC;
		ending->is_timed = 1;
		ending->device_ns = bpf_ktime_get_ns() - way->start_ns;
		return 1;
	}
	if (!ending->whole_bytes && place->operation != DISK_FLUSH)
		return 0;
	event_unseen(UNSEEN_ISSUES);
	return 1;
}

int disk_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0], now = bpf_ktime_get_ns();
	struct disk_under_way *way = known(request);
	struct ending ending = {.status = (u32)ctx->args[1], .bytes = (u32)ctx->args[2]};
	struct place place = {};

	if (way && way->issue_ns)
		end_of_issued(way, &place, &ending, now);
	else if (!end_of_unissued(request, way, &place, &ending))
		return 0;
	ending.is_attributed = way && way->is_attributed;
	add_ending(row_of(&place, NULL), &ending);
	if (way && way->owner_pid)
		add_ending(row_of(&place, way), &ending);
	if (ending.status)
		add_error(&place, way, ending.status);
	if (way && ending.is_last)
		forget(request, way);
	return 0;
}

/* What is counted for the current process and the device when a request is not made. */
enum { MERGED, SPLIT };

static inline void add_other(struct disk_io *io, int what)
{
	if (io)
		__sync_fetch_and_add(what == MERGED ? &io->merged : &io->split, 1);
}

static inline void count_bio(u64 bio, int what)
{
	struct disk_under_way asker = {};
	struct place place = {};

	place_of_bio(&place, bio);
	own(&asker);
	add_other(row_of(&place, NULL), what);
	if (asker.owner_pid)
		add_other(row_of(&place, &asker), what);
}

int disk_bio_merge(struct bpf_raw_tracepoint_args *ctx)
{
	count_bio(ctx->args[0], MERGED);
	return 0;
}

int disk_bio_split(struct bpf_raw_tracepoint_args *ctx)
{
	count_bio(ctx->args[0], SPLIT);
	return 0;
}

/* A request that becomes part of another one: it will not be complete by itself. */
int disk_merge(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[0];
	struct disk_under_way *way = known(request);
	struct place place = {};
	struct head head;

	READ(head, request, 0);
	place_of_request(&place, &head);
	add_other(row_of(&place, NULL), MERGED);
	if (!way)
		return 0;
	if (way->owner_pid)
		add_other(row_of(&place, way), MERGED);
	forget(request, way);
	return 0;
}
