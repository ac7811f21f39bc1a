// Tries to get out of the volume argv[1]. argv[2] is a file beside the volume, seen from inside it
// ("../secret"); argv[3], if given, is the same file as an absolute path of the host.
// Prints "escaped: ..." for each way out that worked and exits 1 if there was one.
//
// Every path goes to the host unchanged: wasi-libc would resolve or refuse some of them by itself,
// and a hostile guest does not ask its libc first.
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <wasi/api.h>

static int tried, escaped;

static void check(int succeeded, const char *what, const char *path) {
    tried++;
    if (succeeded) {
        escaped++;
        printf("escaped: %s %s\n", what, path);
    }
}

static int open_at(int dir, __wasi_lookupflags_t follow, const char *path, __wasi_oflags_t flags, __wasi_rights_t rights) {
    __wasi_fd_t fd;
    return __wasi_path_open(dir, follow, path, flags, rights, rights, 0, &fd) ? -1 : (int)fd;
}

static int is_secret(int fd) {
    unsigned char content[6] = "";
    __wasi_iovec_t vec = {content, sizeof content};
    __wasi_size_t n;
    return !__wasi_fd_read(fd, &vec, 1, &n) && n == 6 && !memcmp(content, "secret", 6);
}

// Reading, looking at, and opening as a directory, each with and without following links.
static void probe(int dir, const char *path) {
    for (__wasi_lookupflags_t follow = 0; follow < 2; follow++) {
        __wasi_filestat_t st;
        int fd = open_at(dir, follow, path, 0, __WASI_RIGHTS_FD_READ);
        check(fd >= 0, follow ? "open, following" : "open", path);
        if (fd >= 0) __wasi_fd_close(fd);
        check(!__wasi_path_filestat_get(dir, follow, path, &st), follow ? "stat, following" : "stat", path);
    }
}

// For a path whose last part is a link that lives inside: looking at the link itself is allowed.
static void probe_link(int dir, const char *path) {
    __wasi_filestat_t st;
    int fd = open_at(dir, 1, path, 0, __WASI_RIGHTS_FD_READ);
    check(fd >= 0, "open through link", path);
    if (fd >= 0) __wasi_fd_close(fd);
    check(!__wasi_path_filestat_get(dir, 1, path, &st), "stat through link", path);
    check(!__wasi_path_link(dir, 1, path, dir, "hardlink"), "hard link through link", path);
    check(!__wasi_path_filestat_set_times(dir, 1, path, 0, 0, __WASI_FSTFLAGS_MTIM), "utimes through link", path);
    fd = open_at(dir, 1, path, __WASI_OFLAGS_TRUNC, __WASI_RIGHTS_FD_WRITE);
    check(fd >= 0, "truncate through link", path);
    if (fd >= 0) __wasi_fd_close(fd);
}

static void dots(int dir, const char *secret) {
    static const char *const prefixes[] = {"", "./", "sub/../", "sub/deep/../../", "sub/./..//", ".//./", "missing/../"};
    char path[4096];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        snprintf(path, sizeof path, "%s%s", prefixes[i], secret);
        probe(dir, path);
    }
    snprintf(path, sizeof path, "sub/../%s/", secret);
    probe(dir, path);
    static const char *const up[] = {"..", "../", "../.", "sub/../..", "../../../../../../../../../../..", "/", "//", "/..", "/proc/self/root", "/proc/self/cwd", "/etc/passwd", "/dev/null"};
    for (size_t i = 0; i < sizeof up / sizeof *up; i++) {
        int fd = open_at(dir, 1, up[i], __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_PATH_OPEN | __WASI_RIGHTS_FD_READDIR);
        check(fd >= 0, "open directory", up[i]);
        if (fd >= 0) __wasi_fd_close(fd);
        probe(dir, up[i]);
    }
}

// A descriptor of a subdirectory is no better a starting point than the volume itself.
static void from_below(int dir, const char *secret) {
    char path[4096];
    int sub = open_at(dir, 0, "sub", __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_PATH_OPEN | __WASI_RIGHTS_FD_READ | __WASI_RIGHTS_PATH_FILESTAT_GET);
    if (sub < 0) return;
    snprintf(path, sizeof path, "../%s", secret);
    probe(sub, path);
    probe(sub, "..");
    __wasi_fd_close(sub);
}

static void links(int dir, const char *secret, const char *absolute) {
    char target[4096];
    const char *targets[] = {secret, absolute, "/etc/passwd", "/proc/self/environ", "..", "/"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (!targets[i]) continue;
        __wasi_path_unlink_file(dir, "link");
        if (__wasi_path_symlink(targets[i], dir, "link")) continue;
        probe_link(dir, "link");
        probe_link(dir, "sub/../link");
    }
    // A chain of links, each of which stays inside if taken alone.
    __wasi_path_symlink("..", dir, "sub/up");
    snprintf(target, sizeof target, "sub/up/%s", secret);
    probe(dir, target);
    __wasi_path_unlink_file(dir, "chain");
    if (!__wasi_path_symlink(target, dir, "chain")) probe_link(dir, "chain");
    // A link that is harmless where it is made, and leads out once it is moved up.
    if (!__wasi_path_symlink(secret, dir, "sub/deep/moving")) {
        __wasi_path_rename(dir, "sub/deep/moving", dir, "moved");
        probe_link(dir, "moved");
    }
    __wasi_path_unlink_file(dir, "moved");
    __wasi_path_unlink_file(dir, "chain");
    __wasi_path_unlink_file(dir, "sub/up");
    __wasi_path_unlink_file(dir, "link");
}

// Links that were in the volume before the guest came, made by the host or by another guest.
static void found_links(int dir, const char *volume) {
    DIR *stream = opendir(volume);
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream));) {
        int fd = open_at(dir, 1, entry->d_name, 0, __WASI_RIGHTS_FD_READ);
        if (fd < 0) continue;
        check(is_secret(fd), "read through what was there:", entry->d_name);
        __wasi_fd_close(fd);
    }
    closedir(stream);
}

// Changing what is outside. Last, because a success would spoil the other attempts.
static void changes(int dir, const char *secret) {
    int fd = open_at(dir, 0, "own", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE);
    if (fd >= 0) __wasi_fd_close(fd);
    check(!__wasi_path_link(dir, 0, secret, dir, "stolen"), "hard link", secret);
    check(!__wasi_path_link(dir, 0, "own", dir, "../planted"), "hard link to", "../planted");
    check(!__wasi_path_symlink("own", dir, "../planted"), "symlink at", "../planted");
    check(!__wasi_path_create_directory(dir, "../planted"), "mkdir", "../planted");
    check(!__wasi_path_remove_directory(dir, "../planted"), "rmdir", "../planted");
    fd = open_at(dir, 0, "../planted", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE);
    check(fd >= 0, "create", "../planted");
    check(!__wasi_path_rename(dir, "own", dir, "../planted"), "rename to", "../planted");
    check(!__wasi_path_filestat_set_times(dir, 0, secret, 0, 0, __WASI_FSTFLAGS_MTIM), "utimes", secret);
    fd = open_at(dir, 0, secret, __WASI_OFLAGS_TRUNC, __WASI_RIGHTS_FD_WRITE);
    check(fd >= 0, "truncate", secret);
    check(!__wasi_path_rename(dir, secret, dir, "stolen"), "rename", secret);
    check(!__wasi_path_unlink_file(dir, secret), "unlink", secret);
    __wasi_path_unlink_file(dir, "own");
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: escape VOLUME SECRET [ABSOLUTE]\n", stderr);
        return 2;
    }
    int volume = -1;
    // Descriptors from 3 on are the granted directories; nothing may be open that was not granted.
    for (int fd = 3; fd < 64; fd++) {
        __wasi_prestat_t grant;
        unsigned char name[4096];
        if (__wasi_fd_prestat_get(fd, &grant)) continue;
        __wasi_size_t length = grant.u.dir.pr_name_len;
        if (length >= sizeof name || __wasi_fd_prestat_dir_name(fd, name, length)) continue;
        name[length] = 0;
        if (!strcmp((char *)name, argv[1])) volume = fd;
        else check(1, "found another grant,", (char *)name);
    }
    if (volume < 0) {
        fprintf(stderr, "no volume is granted at %s\n", argv[1]);
        return 2;
    }
    __wasi_path_create_directory(volume, "sub");
    __wasi_path_create_directory(volume, "sub/deep");
    dots(volume, argv[2]);
    if (argc > 3) probe(volume, argv[3]);
    from_below(volume, argv[2]);
    links(volume, argv[2], argc > 3 ? argv[3] : NULL);
    found_links(volume, argv[1]);
    changes(volume, argv[2]);
    __wasi_path_remove_directory(volume, "sub/deep");
    __wasi_path_remove_directory(volume, "sub");
    printf("%d ways tried, %d escaped\n", tried, escaped);
    return escaped ? 1 : 0;
}
