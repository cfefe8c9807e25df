/* What a row with a stack says of it in its flags, in every feature that has stacks: cpu, memory.
 *
 * Behind the head of such a row stand u64 addresses, leaf first: the kernel's, then the user's. The head says how many,
 * as kernel_frames and user_frames, or as frames where all are the user's. Other flags of a feature begin at bit 4.
 */
#ifndef EBBFLOW_STACK_H
#define EBBFLOW_STACK_H

enum stack_flags {
	STACK_ENDS_EARLY = 1, /* the outermost user frame is not where a thread starts: callers are missing */
	STACK_TRUNCATED = 2,  /* deeper than what is taken */
	STACK_LOST = 4,       /* there was one, but no room for it */
	STACK_UNRESOLVED = 8, /* left before its frames were known */
};

#endif
