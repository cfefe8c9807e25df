/* Reading the kernel's structs: their offsets come from the running kernel's BTF as -D OFFSET_* flags. */
#ifndef EBBFLOW_KERNEL_H
#define EBBFLOW_KERNEL_H

#define READ(target, base, offset) bpf_probe_read_kernel(&(target), sizeof(target), (void *)((u64)(base) + (offset)))

/* The same where the verifier knows the struct, as that of bpf_get_current_task_btf(): one instruction, not a call. */
#define MEMBER(value, size, base, offset) \
	asm volatile("%0 = *(" size " *)(%1 + %2)" : "=r"(value) : "r"(base), "i"(offset))

/* Clang knows bounds that the verifier does not follow and drops the checks for them: this makes it forget. */
#define FORGET(value) asm volatile("" : "+r"(value))

/* The first thread of a task's process: what has the process's name and start. */
static inline u64 leader_of(u64 task)
{
	u64 leader = 0;

	READ(leader, task, OFFSET_TASK_LEADER);
	return leader;
}

#endif
