/* Preloaded into a daemon under test: its clocks run ahead of the kernel's by as many seconds as the file AHEAD holds.
 *
 * Decisions go by the time since boot and timers by the monotonic clock, so both leap alike; the wall clock, which signs
 * requests, does not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int clock_reader(clockid_t, struct timespec *);

static clock_reader *kernel;
static volatile const int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    kernel = (clock_reader *)dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        ahead = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    /* Another library's constructor may ask before ours has run. */
    if (!kernel)
        begin();
    int failed = kernel(clock, now);
    int leaps = clock == CLOCK_BOOTTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE;
    if (!failed && leaps && ahead)
        now->tv_sec += *ahead;
    return failed;
}
