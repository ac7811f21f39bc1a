// Takes disk space in one of the ways a guest can, until argv[3] is reached or the host says no.
//   write DIR N      one file, N MiB written
//   files DIR N      N MiB in files of 4 KiB
//   truncate DIR N   one file extended to N MiB without writing
//   mkdir DIR N      N empty directories
//   symlink DIR N    N symbolic links with long targets
//   link DIR N       N names for one empty file
//   pwrite DIR N     N MiB, each block at its own place in one sparse file
//   rewrite DIR N    N MiB written to the same 64 KiB
//   stdout DIR N     N MiB to standard output, which has been closed and opened again as a file
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

static int by_mkdir(const char *dir, long long count) {
    char path[4096];
    for (long long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/fill-dir-%lld", dir, i);
        if (mkdir(path, 0755) < 0) return stopped("directories", i);
    }
    printf("%lld directories\n", count);
    return 0;
}

static int by_symlink(const char *dir, long long count) {
    char path[4096], target[1000];
    memset(target, 't', sizeof target);
    target[sizeof target - 1] = 0;
    for (long long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/fill-link-%lld", dir, i);
        if (symlink(target, path) < 0) return stopped("links", i);
    }
    printf("%lld links\n", count);
    return 0;
}

static int by_link(const char *dir, long long count) {
    char first[4096], path[4096];
    snprintf(first, sizeof first, "%s/fill", dir);
    int fd = open(first, O_WRONLY | O_CREAT, 0644);
    if (fd < 0) return stopped("names", 0);
    for (long long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/fill-name-%lld", dir, i);
        if (link(first, path) < 0) return stopped("names", i);
    }
    printf("%lld names\n", count);
    return 0;
}

static int by_pwrite(const char *dir, long long bytes, long long stride) {
    char path[4096];
    snprintf(path, sizeof path, "%s/fill", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return stopped("bytes", 0);
    long long done = 0;
    for (long long at = 0; done < bytes; at += stride) {
        ssize_t n = pwrite(fd, block, sizeof block, at);
        if (n < 0) return stopped("bytes", done);
        done += n;
    }
    printf("%lld bytes\n", done);
    return 0;
}

// Preview 1 numbers a file as the lowest number that is free: the next one takes the place of stdout.
static int by_stdout(const char *dir, long long bytes) {
    char path[4096];
    long long done = 0;
    snprintf(path, sizeof path, "%s/fill", dir);
    close(1);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd != 1) {
        fprintf(stderr, "the file is not standard output but %d (%s)\n", fd, errno_name(errno));
        return 2;
    }
    while (done < bytes) {
        ssize_t n = write(1, block, sizeof block);
        if (n < 0) {
            fprintf(stderr, "%lld bytes, then %s\n", done, errno_name(errno));
            return 1;
        }
        done += n;
    }
    fprintf(stderr, "%lld bytes\n", done);
    return 0;
}

int main(int argc, char **argv) {
    memset(block, 'f', sizeof block);
    if (argc == 4) {
        long long amount = atoll(argv[3]);
        if (!strcmp(argv[1], "write")) return by_write(argv[2], amount << 20);
        if (!strcmp(argv[1], "files")) return by_files(argv[2], amount << 20);
        if (!strcmp(argv[1], "truncate")) return by_truncate(argv[2], amount << 20);
        if (!strcmp(argv[1], "mkdir")) return by_mkdir(argv[2], amount);
        if (!strcmp(argv[1], "symlink")) return by_symlink(argv[2], amount);
        if (!strcmp(argv[1], "link")) return by_link(argv[2], amount);
        if (!strcmp(argv[1], "pwrite")) return by_pwrite(argv[2], amount << 20, 1 << 20);
        if (!strcmp(argv[1], "rewrite")) return by_pwrite(argv[2], amount << 20, 0);
        if (!strcmp(argv[1], "stdout")) return by_stdout(argv[2], amount << 20);
    }
    fputs("usage: fill write|files|truncate|mkdir|symlink|link|pwrite|rewrite|stdout DIR AMOUNT\n", stderr);
    return 2;
}
