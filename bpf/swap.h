/* Totals that are taken exactly while programs count on: two tables behind an array of maps of one slot.
 *
 * Whichever table stands in the slot is counted in. User space (Swapped in ebbflow/kernel/maps.py) puts the other one
 * there; the kernel's update of such an array waits until no program that may have found the old one still runs. From
 * then on the old table is nobody's: it is read and emptied, and no value pointer into it is left anywhere.
 *
 *     SWAPPED("percpu_hash", struct calls_key, struct calls_total, totals, 10240);
 *
 *     struct calls_total none = {}, *total;
 *     struct calls_key key = {};            (zeroed: what is between the members is part of the key)
 *     int zero = 0;
 *     ...
 *     total = find_or_add(totals.lookup(&zero), &key, &none);
 *     if (total)
 *             total->calls++;               (other kinds: __sync_fetch_and_add(&total->calls, 1))
 *     else
 *             event_lost_in_map();
 *
 * `totals.lookup` stands in the function itself: BCC does not rewrite it inside a macro. Not for LRU kinds, which evict
 * without telling.
 */
#ifndef EBBFLOW_SWAP_H
#define EBBFLOW_SWAP_H

#define SWAPPED(kind, key_type, value_type, name, entries)        \
	BPF_TABLE(kind, key_type, value_type, name##_0, entries); \
	BPF_TABLE(kind, key_type, value_type, name##_1, entries); \
	BPF_ARRAY_OF_MAPS(name, #name "_0", 1)

/* The value of a key, added when it is not there; NULL when the map is, or there is no room. Two CPUs may add at once:
 * one of them finds what the other one added.
 */
static inline void *find_or_add(void *map, void *key, void *none)
{
	void *value;

	if (!map)
		return NULL;
	value = bpf_map_lookup_elem(map, key);
	if (value)
		return value;
	bpf_map_update_elem(map, key, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

#endif
