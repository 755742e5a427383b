/* Stands before fsync(2) and fdatasync(2) (LD_PRELOAD): fails or delays those on files whose path holds FAULT_PATH.
 *
 * FAULT_KIND  once: the FAULT_NTH flush fails with EIO; always: that one and all later ones; delay: each takes
 *             FAULT_MS milliseconds longer.
 * FAULT_LOG   a line for each flush that was failed: seconds since 1970, a blank, the path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_long count;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value == NULL ? "" : value;
}

static void note(const char *path) {
    char line[PATH_MAX + 64];
    struct timespec now;
    int log = open(setting("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%ld.%09ld %s\n", (long)now.tv_sec, now.tv_nsec, path);
    if (write(log, line, (size_t)length) != length)
        abort();
    close(log);
}

/* 0 where the flush may go on, else -1 with errno set. */
static int meddle(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (strstr(path, setting("FAULT_PATH")) == NULL)
        return 0;
    const char *kind = setting("FAULT_KIND");
    if (strcmp(kind, "delay") == 0) {
        long milliseconds = atol(setting("FAULT_MS"));
        struct timespec delay = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&delay, NULL);
        return 0;
    }
    long number = atomic_fetch_add(&count, 1) + 1, nth = atol(setting("FAULT_NTH"));
    if (number == nth || (number > nth && strcmp(kind, "always") == 0)) {
        note(path);
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return meddle(descriptor) != 0 ? -1 : real(descriptor);
}

int fdatasync(int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return meddle(descriptor) != 0 ? -1 : real(descriptor);
}
