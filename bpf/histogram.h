/* Slots of histograms by powers of two. */
#ifndef EBBFLOW_HISTOGRAM_H
#define EBBFLOW_HISTOGRAM_H

/* The power of two at or below a value; 0 for 0. Without a loop or a branch: it runs for every call. */
static inline u32 log2_of(u32 value)
{
	u32 power = (value > 0xffff) << 4, step;

	value >>= power;
	step = (value > 0xff) << 3;
	value >>= step;
	power |= step;
	step = (value > 0xf) << 2;
	value >>= step;
	power |= step;
	step = (value > 0x3) << 1;
	value >>= step;
	power |= step;
	return power | value >> 1;
}

/* Slot of a value: slot i counts [2^(i+first), 2^(i+first+1)); slot 0 what is less, too, and the last what is more. */
static inline u32 slot_of(u64 value, u32 first, u32 slots)
{
	u64 scaled = value >> first;

	return scaled >> slots ? slots - 1 : log2_of(scaled);
}

#endif
