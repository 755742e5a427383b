/* Put before libc: a kernel whose clock nobody keeps, and a wall clock that is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/timex.h>
#include <time.h>

int adjtimex(struct timex *t) {
    const char *state = getenv("FAKE_CLOCK");
    if (state == NULL) {
        int (*real)(struct timex *) = dlsym(RTLD_NEXT, "adjtimex");
        return real(t);
    }
    t->status = atoi(state) == TIME_ERROR ? STA_UNSYNC : STA_PLL;
    t->maxerror = atol(getenv("FAKE_MAXERROR"));
    return atoi(state);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    const char *shift = getenv("FAKE_SHIFT");
    if (status == 0 && clock == CLOCK_REALTIME && shift != NULL) now->tv_sec += atol(shift);
    return status;
}
