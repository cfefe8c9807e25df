/* Does known work for tests of the cpu producer. Usage: cpu_work KIND, one of those in main.
 *
 * Says "ready", waits for a line, works, says what it did by its own clocks, waits for the end of its input.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NS = 1000000000, ROUNDS = 4, SLEEPS = 13, SHORT_SLEEPS = 101, DEEP = 200, SPINS = 500000 };

static volatile uint64_t sink;
static uint64_t spent_ns[3];

static uint64_t read_clock(clockid_t which)
{
	struct timespec now;

	clock_gettime(which, &now);
	return (uint64_t)now.tv_sec * NS + now.tv_nsec;
}

/* The loop stands in each function itself. The clock is read so rarely that what is sampled in it does not count. */
#define BUSY(name, which, ns)                                              \
	__attribute__((noinline)) static void name(void)                   \
	{                                                                  \
		uint64_t began = read_clock(CLOCK_THREAD_CPUTIME_ID), now; \
		do {                                                       \
			for (int i = 0; i < SPINS; i++)                    \
				sink = sink * 6364136223846793005u + 1;    \
			now = read_clock(CLOCK_THREAD_CPUTIME_ID);         \
		} while (now - began < (ns));                              \
		spent_ns[which] += now - began;                            \
	}

BUSY(seventy, 0, 700000000)
BUSY(twenty, 1, 200000000)
BUSY(ten, 2, 100000000)

/* The system call stands in the function itself: the C library's has no frame pointer and would hide its caller. */
static inline __attribute__((always_inline)) void nap(long ns)
{
	struct timespec wait = {0, ns};
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(35 /* nanosleep */), "D"(&wait), "S"(0)
			 : "rcx", "r11", "memory");
	if (result)
		exit(1);
}

#define ASLEEP(name, which, ns)                                         \
	__attribute__((noinline)) static void name(void)                \
	{                                                               \
		uint64_t began = read_clock(CLOCK_MONOTONIC);           \
		nap(ns);                                                \
		spent_ns[which] += read_clock(CLOCK_MONOTONIC) - began; \
	}

ASLEEP(sleep_seventy, 0, 70000000)
ASLEEP(sleep_twenty, 1, 20000000)
ASLEEP(sleep_ten, 2, 10000000)

static void burn(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		seventy();
		twenty();
		ten();
	}
}

static void burn_shortly(void)
{
	seventy();
	twenty();
	ten();
}

static void rest(void)
{
	for (int i = 0; i < SLEEPS; i++) {
		sleep_seventy();
		sleep_twenty();
		sleep_ten();
	}
}

static void rest_shortly(void)
{
	for (int i = 0; i < SHORT_SLEEPS; i++)
		usleep(50);
}

__attribute__((noinline)) static void deep(int levels)
{
	if (levels)
		deep(levels - 1);
	else
		seventy();
	sink++;
}

static void recurse(void)
{
	deep(DEEP);
}

/* Almost all of it is spent in the kernel. */
static void read_zeros(void)
{
	static char buffer[1 << 20];
	int file = open("/dev/zero", O_RDONLY);
	uint64_t began = read_clock(CLOCK_THREAD_CPUTIME_ID);

	while (read_clock(CLOCK_THREAD_CPUTIME_ID) - began < NS / 2)
		if (read(file, buffer, sizeof(buffer)) < 0)
			exit(1);
	close(file);
}

static void *spin(void *unused)
{
	seventy();
	return unused;
}

/* Two threads that never sleep, and one CPU for both. */
static void compete(void)
{
	cpu_set_t one;
	pthread_t threads[2];

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, spin, NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* A thread that another one wakes, 23 times by a pipe. */
static void *answer(void *ends)
{
	char byte;

	for (int i = 0; i < 23; i++) {
		usleep(2000);
		if (write(((int *)ends)[1], &byte, 1) != 1)
			exit(1);
	}
	return NULL;
}

static void be_woken(void)
{
	int ends[2];
	char byte;
	pthread_t other;

	if (pipe(ends))
		exit(1);
	pthread_create(&other, NULL, answer, ends);
	for (int i = 0; i < 23; i++)
		if (read(ends[0], &byte, 1) != 1)
			exit(1);
	pthread_join(other, NULL);
}

static const struct {
	const char *name;
	void (*run)(void);
} kinds[] = {
	{"burn", burn},       {"burn_shortly", burn_shortly}, {"rest", rest},       {"rest_shortly", rest_shortly},
	{"recurse", recurse}, {"read_zeros", read_zeros},     {"compete", compete}, {"be_woken", be_woken},
};

int main(int count, char **arguments)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	getchar();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (count > 1 && !strcmp(kinds[i].name, arguments[1]))
			kinds[i].run();
	printf("%llu %llu %llu\n", (unsigned long long)spent_ns[0], (unsigned long long)spent_ns[1],
	       (unsigned long long)spent_ns[2]);
	getchar();
	return 0;
}
