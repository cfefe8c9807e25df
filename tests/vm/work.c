/* What a watched process does where Python would do more of it than was asked for: `work COMMANDS ANSWERS`.
 *
 * Two file descriptors: it writes `r` when it is ready, reads a byte, works, writes `d`, and stays until there is nothing
 * more to read. Built by workloads.py.
 */
#include <stdlib.h>
#include <unistd.h>

enum { ALLOCATIONS = 1009, BYTES = 10007 };

static void *volatile kept[ALLOCATIONS];

static void allocate(void)
{
	for (int i = 0; i < ALLOCATIONS; i++)
		kept[i] = malloc(BYTES);
}

int main(int argc, char **argv)
{
	char byte = 'r';

	if (argc != 3)
		return 2;
	if (write(atoi(argv[2]), &byte, 1) != 1 || read(atoi(argv[1]), &byte, 1) != 1)
		return 1;
	allocate();
	byte = 'd';
	return write(atoi(argv[2]), &byte, 1) != 1 || read(atoi(argv[1]), &byte, 1) < 0;
}
