/* What producers are measured on: `work KIND SECONDS [PATH]` begins with a line on its standard input and prints how often it
 * did its thing. Built by bench/overhead.py.
 *
 *     syscalls   getppid(2), the cheapest call there is: the worst case for whoever looks at every call
 *     tcp        a connection to itself over loopback, opened, used once and closed
 *     process    a child that runs /bin/true
 *     memory     malloc and free of 16 to 4096 bytes, 64 outstanding
 *     disk       4 KiB written straight to the file's device
 *     cpu        two threads that pass a byte to and fro, with some arithmetic in between
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

static void do_syscalls(void)
{
	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
}

static int listener = -1;
static struct sockaddr_in address;

static void do_tcp(void)
{
	char byte = 1;
	int client, server;

	if (listener < 0) {
		socklen_t length = sizeof(address);

		listener = socket(AF_INET, SOCK_STREAM, 0);
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		bind(listener, (struct sockaddr *)&address, sizeof(address));
		listen(listener, 128);
		getsockname(listener, (struct sockaddr *)&address, &length);
	}
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(client, (struct sockaddr *)&address, sizeof(address))) {
		perror("connect");
		exit(1);
	}
	server = accept(listener, NULL, NULL);
	if (write(client, &byte, 1) != 1 || read(server, &byte, 1) != 1)
		exit(1);
	/* The server closes with a reset: no socket is left in TIME_WAIT to run out of ports with. */
	setsockopt(server, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
	close(server);
	close(client);
}

static void do_process(void)
{
	char *const arguments[] = {"/bin/true", "--not-used", NULL};
	pid_t child;

	if (posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ))
		exit(1);
	waitpid(child, NULL, 0);
}

static void *volatile held[64];

static void do_memory(void)
{
	for (int i = 0; i < 1000; i++) {
		int slot = i & 63;

		free(held[slot]);
		held[slot] = malloc(16 + (i * 61) % 4080);
	}
}

static const char *path;

static void do_disk(void)
{
	static int file = -1;
	static void *block;
	static unsigned long count;

	if (file < 0) {
		file = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
		if (file < 0 || posix_memalign(&block, 4096, 4096) || posix_fallocate(file, 0, 16 << 20)) {
			perror(path);
			exit(1);
		}
		memset(block, 7, 4096);
	}
	if (pwrite(file, block, 4096, count++ % 4096 * 4096) != 4096) {
		perror("pwrite");
		exit(1);
	}
}

static int there[2], back[2];

static void *echo(void *unused)
{
	char byte;

	while (read(there[0], &byte, 1) == 1)
		if (write(back[1], &byte, 1) != 1)
			break;
	return unused;
}

static void do_cpu(void)
{
	static pthread_t thread;
	volatile unsigned sum = 0;
	char byte = 1;

	if (!thread && (pipe(there) || pipe(back) || pthread_create(&thread, NULL, echo, NULL)))
		exit(1);
	for (unsigned i = 0; i < 2000; i++)
		sum += i * i;
	if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
		exit(1);
}

int main(int count, char **words)
{
	static const struct {
		const char *name;
		void (*work)(void);
		int each;
	} kinds[] = {
		{"syscalls", do_syscalls, 1000}, {"tcp", do_tcp, 1},   {"process", do_process, 1},
		{"memory", do_memory, 1000},     {"disk", do_disk, 1}, {"cpu", do_cpu, 1},
	};
	char line[8];
	unsigned long done = 0;
	double end;

	path = count > 3 ? words[3] : "";
	for (unsigned i = 0; count > 2 && i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kinds[i].name, words[1]))
			continue;
		if (!fgets(line, sizeof(line), stdin))
			return 1;
		for (end = now_s() + atof(words[2]); now_s() < end; done += kinds[i].each)
			kinds[i].work();
		printf("%lu\n", done);
		return 0;
	}
	fprintf(stderr, "usage: work KIND SECONDS [PATH]\n");
	return 2;
}
