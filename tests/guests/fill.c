// Takes disk space in one of the ways a guest can, until argv[3] is reached or the host says no.
//   write DIR N      one file, N MiB written
//   files DIR N      N MiB in files of 4 KiB
//   truncate DIR N   one file extended to N MiB without writing
//   holes DIR N      the same, and then its N MiB written, which no longer makes it longer
//   again DIR N      N MiB written over the same first MiB, which takes no more space than one
//   mkdir DIR N      N empty directories
// Prints how far it got and the errno it stopped at. Exits 1 when stopped.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errno-name.h"

static char block[65536];

static int stopped(const char *what, long long amount) {
    printf("%lld %s, then %s\n", amount, what, errno_name(errno));
    return 1;
}

static int by_write(const char *dir, long long bytes) {
    char path[4096];
    long long done = 0;
    snprintf(path, sizeof path, "%s/fill", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return stopped("bytes", done);
    while (done < bytes) {
        long long left = bytes - done;
        ssize_t n = write(fd, block, left < (long long)sizeof block ? (size_t)left : sizeof block);
        if (n < 0) return stopped("bytes", done);
        done += n;
    }
    printf("%lld bytes\n", done);
    return 0;
}

static int by_files(const char *dir, long long bytes) {
    char path[4096];
    long long done = 0;
    for (long i = 0; done < bytes; i++) {
        snprintf(path, sizeof path, "%s/fill-%ld", dir, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0) return stopped("bytes", done);
        ssize_t n = write(fd, block, 4096);
        if (n < 0) return stopped("bytes", done);
        done += n;
        close(fd);
    }
    printf("%lld bytes\n", done);
    return 0;
}

static int by_truncate(const char *dir, long long bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/fill", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return stopped("bytes", 0);
    for (long long size = 1 << 20; size <= bytes; size += 1 << 20)
        if (ftruncate(fd, size) < 0) return stopped("bytes", size - (1 << 20));
    printf("%lld bytes\n", bytes);
    return 0;
}

static int by_holes(const char *dir, long long bytes) {
    char path[4096];
    long long done = 0;
    snprintf(path, sizeof path, "%s/fill", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, bytes) < 0) return stopped("bytes", done);
    while (done < bytes) {
        ssize_t n = pwrite(fd, block, sizeof block, done);
        if (n < 0) return stopped("bytes", done);
        done += n;
    }
    printf("%lld bytes\n", done);
    return 0;
}

static int by_overwriting(const char *dir, long long bytes) {
    char path[4096];
    long long done = 0;
    snprintf(path, sizeof path, "%s/fill", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return stopped("bytes", done);
    while (done < bytes) {
        ssize_t n = pwrite(fd, block, sizeof block, done % (1 << 20));
        if (n < 0) return stopped("bytes", done);
        done += n;
    }
    printf("%lld bytes\n", done);
    return 0;
}

static int by_mkdir(const char *dir, long long count) {
    char path[4096];
    for (long long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/fill-dir-%lld", dir, i);
        if (mkdir(path, 0755) < 0) return stopped("directories", i);
    }
    printf("%lld directories\n", count);
    return 0;
}

int main(int argc, char **argv) {
    memset(block, 'f', sizeof block);
    if (argc == 4) {
        long long amount = atoll(argv[3]);
        if (!strcmp(argv[1], "write")) return by_write(argv[2], amount << 20);
        if (!strcmp(argv[1], "files")) return by_files(argv[2], amount << 20);
        if (!strcmp(argv[1], "truncate")) return by_truncate(argv[2], amount << 20);
        if (!strcmp(argv[1], "holes")) return by_holes(argv[2], amount << 20);
        if (!strcmp(argv[1], "again")) return by_overwriting(argv[2], amount << 20);
        if (!strcmp(argv[1], "mkdir")) return by_mkdir(argv[2], amount);
    }
    fputs("usage: fill write|files|truncate|holes|again|mkdir DIR AMOUNT\n", stderr);
    return 2;
}
