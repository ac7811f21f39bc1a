// Does the file operations that it is told, with the word "then" between two of them: prints the result of
// each, or "ok", or the name of the errno it failed with. Exits 1 if one failed.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef __wasi__
#include <sys/mount.h>
#endif
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "errno-name.h"

static int copy_out(const char *path) {
    char buffer[4096];
    int fd = open(path, O_RDONLY);
    ssize_t n;
    if (fd < 0) return -1;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, (size_t)n, stdout);
    return n < 0 ? -1 : close(fd);
}

static int put(const char *path, int flags, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);
    size_t length = strlen(text);
    if (fd < 0) return -1;
    return write(fd, text, length) == (ssize_t)length ? close(fd) : -1;
}

static int list(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return -1;
    int failed;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        failed = errno;
        if (!entry) break;
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) puts(entry->d_name);
    }
    closedir(dir);
    errno = failed;
    return failed ? -1 : 0;
}

static int describe(const char *path) {
    struct stat st;
    if (lstat(path, &st) < 0) return -1;
    const char *kind = S_ISREG(st.st_mode)   ? "file"
                       : S_ISDIR(st.st_mode) ? "dir"
                       : S_ISLNK(st.st_mode) ? "symlink"
                                             : "other";
    printf("%s %lld bytes, mtime %lld\n", kind, (long long)st.st_size, (long long)st.st_mtime);
    return 0;
}

static int follow(const char *path) {
    char target[4096];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0) return -1;
    printf("%.*s\n", (int)n, target);
    return 0;
}

// Sets both times to one second past the epoch, a value no file gets by accident.
static int touch(const char *path) {
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    return utimensat(AT_FDCWD, path, times, 0);
}

// What the superuser of a system of its own can do about a volume that is read-only.
static int remount(const char *path) {
#ifdef __wasi__
    (void)path;
    errno = ENOSYS;
    return -1;
#else
    return mount(NULL, path, NULL, MS_REMOUNT, NULL);
#endif
}

// Does one operation. Returns the exit status.
static int operate(int argc, char **argv) {
    const char *op = argc > 0 ? argv[0] : "", *a = argc > 1 ? argv[1] : NULL, *b = argc > 2 ? argv[2] : NULL;
    int result, quiet = 0;
    if (a && !strcmp(op, "read")) result = copy_out(a), quiet = 1;
    else if (a && !strcmp(op, "ls")) result = list(a), quiet = 1;
    else if (a && !strcmp(op, "stat")) result = describe(a), quiet = 1;
    else if (a && !strcmp(op, "readlink")) result = follow(a), quiet = 1;
    else if (b && !strcmp(op, "write")) result = put(a, O_TRUNC, b);
    else if (b && !strcmp(op, "append")) result = put(a, O_APPEND, b);
    else if (a && !strcmp(op, "mkdir")) result = mkdir(a, 0755);
    else if (a && !strcmp(op, "rm")) result = unlink(a);
    else if (a && !strcmp(op, "rmdir")) result = rmdir(a);
    else if (b && !strcmp(op, "rename")) result = rename(a, b);
    else if (b && !strcmp(op, "symlink")) result = symlink(a, b);
    else if (b && !strcmp(op, "link")) result = link(a, b);
    else if (b && !strcmp(op, "truncate")) result = truncate(a, atoll(b));
    else if (a && !strcmp(op, "utimes")) result = touch(a);
    else if (a && !strcmp(op, "remount")) result = remount(a);
    else {
        fputs("usage: files read|ls|stat|readlink|mkdir|rm|rmdir|utimes|remount PATH\n"
              "       files write|append PATH TEXT | truncate PATH SIZE\n"
              "       files rename|link FROM TO | symlink TARGET PATH\n"
              "       files OPERATION then OPERATION...\n",
              stderr);
        return 2;
    }
    if (result < 0) {
        printf("%s\n", errno_name(errno));
        return 1;
    }
    if (!quiet) puts("ok");
    return 0;
}

int main(int argc, char **argv) {
    int status = 0;
    for (int from = 1, to; from <= argc; from = to + 1) {
        for (to = from; to < argc && strcmp(argv[to], "then"); to++) {
        }
        int one = operate(to - from, argv + from);
        if (one > status) status = one;
    }
    return status;
}
