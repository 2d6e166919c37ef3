/* Stands in for NVIDIA's libcuda.so.1 where there is no GPU: the calls by which a process is checkpointed, with what is
 * true of the real ones as far as it concerns who calls them.
 *
 * - "GPU memory" is lost to the process while it is checkpointed, and devices are open that CRIU can't dump.
 * - Work waits while the process is locked.
 * - A thread of the process's own does and answers what another process asks for: it must run, or the call takes for
 *   ever. Which thread that is can be asked at any time.
 *
 * Processes meet at $FAKE_CUDA/PID, as numbered in their PID namespace; $FAKE_CUDA/device is what is opened, and
 * $FAKE_CUDA/fail-checkpoint, fail-restore, fail-lock make that call fail, hang-checkpoint makes it take for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RUNNING, LOCKED, CHECKPOINTED };
enum { NOTHING, LOOK, LOCK, CHECKPOINT, RESTORE, UNLOCK };
enum { OK = 0, NOT_INITIALIZED = 3, UNKNOWN = 999 };
enum { DEVICES = 3, CELLS = 1 << 16 };

struct meeting {
	volatile int state, thread, wanted, done;
};

static struct meeting *mine;
static unsigned long long *gpu, *aside;
static int devices[DEVICES];

static void pause_ms(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
	nanosleep(&t, NULL);
}

static char *path(const char *name)
{
	static __thread char text[4096];
	snprintf(text, sizeof text, "%s/%s", getenv("FAKE_CUDA"), name);
	return text;
}

static struct meeting *meet(int pid, int flags)
{
	char name[32];
	struct meeting *found;
	snprintf(name, sizeof name, "%d", pid);
	int fd = open(path(name), O_RDWR | O_CLOEXEC | flags, 0666);
	if (fd < 0)
		return NULL;
	if (flags && ftruncate(fd, sizeof *found) < 0)
		abort();
	found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return found;
}

static void open_devices(void)
{
	char node[4096] = { 0 };
	if (readlink(path("device"), node, sizeof node - 1) < 0)
		abort();
	for (int i = 0; i < DEVICES; i++)
		if ((devices[i] = open(node, O_RDONLY | O_CLOEXEC)) < 0)
			abort();
}

static void *serve(void *unused)
{
	mine->thread = syscall(SYS_gettid);
	for (;; pause_ms(1)) {
		if (mine->wanted == mine->done)
			continue;
		switch (mine->wanted) {
		case LOCK:
			mine->state = LOCKED;
			break;
		case CHECKPOINT:
			memcpy(aside, gpu, CELLS * sizeof *gpu);
			memset(gpu, 0, CELLS * sizeof *gpu);
			for (int i = 0; i < DEVICES; i++)
				close(devices[i]);
			mine->state = CHECKPOINTED;
			break;
		case RESTORE:
			open_devices();
			memcpy(gpu, aside, CELLS * sizeof *gpu);
			mine->state = LOCKED;
			break;
		case UNLOCK:
			mine->state = RUNNING;
			break;
		}
		mine->done = mine->wanted;
	}
	return unused;
}

int cuInit(unsigned flags)
{
	pthread_t thread;
	gpu = calloc(CELLS, sizeof *gpu);
	aside = calloc(CELLS, sizeof *aside);
	mine = meet(getpid(), O_CREAT | O_TRUNC);
	if (!gpu || !aside || !mine || flags)
		return UNKNOWN;
	open_devices();
	pthread_create(&thread, NULL, serve, NULL);
	while (!mine->thread)
		pause_ms(1);
	return OK;
}

/* A step of a training: changes all of the GPU memory and sums it up. */
unsigned long long fake_step(unsigned long long seed)
{
	unsigned long long sum = 0;
	while (mine->state != RUNNING)
		pause_ms(1);
	for (int i = 0; i < CELLS; i++) {
		gpu[i] = gpu[i] * 6364136223846793005ULL + seed + i;
		sum ^= gpu[i] >> 7;
	}
	return sum;
}

/* Has the process's own thread do it; waits for ever where that thread does not run. */
static int ask(int pid, int what, int before, const char *fail)
{
	struct meeting *other = meet(pid, 0);
	if (!other)
		return NOT_INITIALIZED;
	if (access(path(fail), F_OK) == 0)
		return UNKNOWN;
	while (what == CHECKPOINT && access(path("hang-checkpoint"), F_OK) == 0)
		pause_ms(10);
	if (what != LOOK && other->state != before)
		return UNKNOWN;
	other->done = NOTHING;
	for (other->wanted = what; other->done != what;)
		pause_ms(1);
	other->wanted = other->done = NOTHING;
	return OK;
}

int cuCheckpointProcessLock(int pid, void *arguments)
{
	return arguments ? ask(pid, LOCK, RUNNING, "fail-lock") : UNKNOWN;
}

int cuCheckpointProcessCheckpoint(int pid, void *arguments)
{
	return arguments ? ask(pid, CHECKPOINT, LOCKED, "fail-checkpoint") : UNKNOWN;
}

int cuCheckpointProcessRestore(int pid, void *arguments)
{
	return arguments ? ask(pid, RESTORE, CHECKPOINTED, "fail-restore") : UNKNOWN;
}

int cuCheckpointProcessUnlock(int pid, void *arguments)
{
	return arguments ? ask(pid, UNLOCK, LOCKED, "fail-unlock") : UNKNOWN;
}

int cuCheckpointProcessGetState(int pid, int *state)
{
	int code = ask(pid, LOOK, RUNNING, "fail-look");
	if (code == OK)
		*state = meet(pid, 0)->state;
	return code;
}

int cuCheckpointProcessGetRestoreThreadId(int pid, int *thread)
{
	struct meeting *other = meet(pid, 0);
	if (!other)
		return NOT_INITIALIZED;
	*thread = other->thread;
	return OK;
}

int cuGetErrorName(int code, const char **name)
{
	*name = code == NOT_INITIALIZED ? "CUDA_ERROR_NOT_INITIALIZED" : "CUDA_ERROR_UNKNOWN";
	return OK;
}
