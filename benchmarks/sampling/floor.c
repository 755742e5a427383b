/* The floor of reading counter files: descriptors kept open, pread into one buffer, strtoull over every number.
 *
 * usage: floor LIST; LIST holds one path a line. A path after "list " is a pid list: it is opened anew each time,
 * because cgroup v1 keeps the list of an open file, and its lines are counted.
 * Per line "ROUNDS" on stdin it reads all files ROUNDS times and answers "CPU-µs CHECKSUM".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct file { char *path; int fd; int is_list; };
static char buffer[65536];

static double cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static unsigned long long numbers(const char *at) {
    unsigned long long sum = 0;
    while (*at) {
        if (*at >= '0' && *at <= '9') { char *end; sum += strtoull(at, &end, 10); at = end; }
        else at++;
    }
    return sum;
}

static unsigned long long read_one(struct file *file) {
    int fd = file->is_list ? open(file->path, O_RDONLY | O_CLOEXEC) : file->fd;
    ssize_t size = pread(fd, buffer, sizeof buffer - 1, 0);
    unsigned long long value = 0;
    if (size < 0) { perror(file->path); exit(1); }
    buffer[size] = 0;
    if (file->is_list) { for (ssize_t i = 0; i < size; i++) value += buffer[i] == '\n'; close(fd); }
    else value = numbers(buffer);
    return value;
}

int main(int argc, char **argv) {
    FILE *list = argc == 2 ? fopen(argv[1], "r") : NULL;
    struct file *files = NULL;
    size_t count = 0, room = 0;
    char line[4096];
    if (!list) { fprintf(stderr, "usage: floor LIST\n"); return 2; }
    while (fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        if (count == room) files = realloc(files, (room = room ? 2 * room : 1024) * sizeof *files);
        files[count].is_list = !strncmp(line, "list ", 5);
        files[count].path = strdup(line + (files[count].is_list ? 5 : 0));
        files[count].fd = files[count].is_list ? -1 : open(files[count].path, O_RDONLY | O_CLOEXEC);
        if (!files[count].is_list && files[count].fd < 0) { perror(line); return 1; }
        count++;
    }
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long sum = 0;
        double before = cpu_us();
        for (long round = atol(line); round > 0; round--)
            for (size_t i = 0; i < count; i++) sum += read_one(&files[i]);
        printf("%.0f %llu\n", cpu_us() - before, sum);
        fflush(stdout);
    }
    return 0;
}
