// Tries to get out of the volume argv[1] of a machine, as the superuser of its Linux. argv[2] is a file beside
// the volume on the host, seen from inside it ("../secret"); argv[3] is the same file as an absolute path of
// the host. Prints "escaped: ..." for each way out that worked and exits 1 if there was one.
//
// "/" and ".." lead to the machine's own files here, which it may have: an escape is to read the secret, or to
// come to something of the host's that was not shared. What is changed of the host's files, the host sees.
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../errno-name.h"

static int tried, escaped;

static void check(int succeeded, const char *what, const char *path) {
    tried++;
    if (succeeded) {
        escaped++;
        printf("escaped: %s %s\n", what, path);
    }
}

// Whether the file, or one in the directory, holds what the host's secret does.
static int is_secret(int fd) {
    char content[6] = "";
    struct stat st;
    if (fstat(fd, &st)) return 0;
    if (!S_ISDIR(st.st_mode)) return read(fd, content, sizeof content) == 6 && !memcmp(content, "secret", 6);
    int file = openat(fd, "secret", O_RDONLY | O_NOFOLLOW), found = 0;
    if (file >= 0) {
        found = is_secret(file);
        close(file);
    }
    return found;
}

static void probe_at(int dir, const char *path, const char *what) {
    static const int flags[] = {O_RDONLY, O_RDONLY | O_NOFOLLOW, O_RDWR, O_RDONLY | O_DIRECTORY};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int fd = openat(dir, path, flags[i]);
        check(fd >= 0 && is_secret(fd), what, path);
        if (fd >= 0) close(fd);
    }
}

static void dots(int volume, const char *secret) {
    static const char *const prefixes[] = {"", "./", "sub/../", "sub/deep/../../", "sub/./..//", ".//./", "missing/../"};
    char path[4096];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        snprintf(path, sizeof path, "%s%s", prefixes[i], secret);
        probe_at(volume, path, "open");
    }
    static const char *const up[] = {"..", "../", "../.", "sub/../..", "../../../../../../../../../../.."};
    for (size_t i = 0; i < sizeof up / sizeof *up; i++) probe_at(volume, up[i], "open directory");
    int sub = openat(volume, "sub/deep", O_RDONLY | O_DIRECTORY);
    if (sub < 0) return;
    // The directory that was opened is now at another depth.
    renameat(volume, "sub/deep", volume, "deep");
    snprintf(path, sizeof path, "../%s", secret);
    probe_at(sub, path, "open from below");
    snprintf(path, sizeof path, "../../%s", secret);
    probe_at(sub, path, "open from below");
    renameat(volume, "deep", volume, "sub/deep");
    close(sub);
}

static void links(int volume, const char *secret, const char *absolute) {
    char target[4096];
    const char *targets[] = {secret, absolute, "..", "/", "sub/../../secret"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        unlinkat(volume, "link", 0);
        if (symlinkat(targets[i], volume, "link")) continue;
        probe_at(volume, "link", "open through link");
        probe_at(volume, "sub/../link", "open through link");
        // The link itself, not what it names, gets the second name.
        if (!linkat(volume, "link", volume, "hardlink", AT_SYMLINK_FOLLOW)) probe_at(volume, "hardlink", "hard link through link");
        unlinkat(volume, "hardlink", 0);
    }
    symlinkat("..", volume, "sub/up");
    snprintf(target, sizeof target, "sub/up/%s", secret);
    probe_at(volume, target, "open through links");
    // A link that is harmless where it is made, and leads out once it is moved up.
    if (!symlinkat(secret, volume, "sub/deep/moving")) {
        renameat(volume, "sub/deep/moving", volume, "moved");
        probe_at(volume, "moved", "open through link");
    }
    unlinkat(volume, "moved", 0);
    unlinkat(volume, "sub/up", 0);
    unlinkat(volume, "link", 0);
}

// Links that were in the volume before the guest came, made by the host or by another guest.
static void found_links(int volume) {
    DIR *stream = fdopendir(dup(volume));
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream));) probe_at(volume, entry->d_name, "read through what was there:");
    closedir(stream);
}

// The server's own numbers for files, as file handles show them: those of others are guessed.
static void handles(int volume) {
    union {
        struct file_handle head;
        unsigned char bytes[sizeof(struct file_handle) + 64];
    } handle;
    int mount_id;
    handle.head.handle_bytes = 64;
    if (name_to_handle_at(volume, "sub", &handle.head, &mount_id, 0) || handle.head.handle_bytes < 12) return;
    for (uint64_t node = 0; node < 64; node++) {
        char name[32];
        snprintf(name, sizeof name, "%llu", (unsigned long long)node);
        // Linux keeps the upper half of the number first (fs/fuse/inode.c, fuse_encode_fh).
        uint32_t halves[2] = {(uint32_t)(node >> 32), (uint32_t)node};
        memcpy(handle.head.f_handle, halves, sizeof halves);
        int fd = open_by_handle_at(volume, &handle.head, O_RDONLY);
        check(fd >= 0 && is_secret(fd), "open by number", name);
        if (fd >= 0) close(fd);
    }
}

// Shares that were not granted, by the names that they would have; and devices.
static void others(int volume) {
    static const char *const tags[] = {"root", "volume1", "volume2", "..", "/", "rootfs", "myfs"};
    mkdir("/other", 0755);
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        int failed = mount(tags[i], "/other", "virtiofs", 0, NULL);
        check(!failed, "another share,", tags[i]);
        if (!failed) umount("/other");
    }
    check(!mknodat(volume, "disk", S_IFBLK | 0600, makedev(254, 0)), "block device", "disk");
    check(!mknodat(volume, "memory", S_IFCHR | 0600, makedev(1, 1)), "character device", "memory");
}

// Changing what is outside, if only by name.
static void changes(int volume, const char *secret) {
    int fd = openat(volume, "own", O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) close(fd);
    check(!linkat(volume, secret, volume, "stolen", 0), "hard link", secret);
    check(!linkat(volume, "own", volume, "../planted", 0), "hard link to", "../planted");
    check(!renameat(volume, "own", volume, "../planted"), "rename to", "../planted");
    check(!renameat(volume, secret, volume, "stolen"), "rename", secret);
    fd = openat(volume, "../planted", O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) close(fd);
    fd = openat(volume, secret, O_WRONLY | O_TRUNC);
    check(fd >= 0, "truncate", secret);
    check(!unlinkat(volume, secret, 0), "unlink", secret);
    unlinkat(volume, "own", 0);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: escape VOLUME SECRET ABSOLUTE\n", stderr);
        return 2;
    }
    int volume = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (volume < 0) {
        fprintf(stderr, "no volume at %s: %s\n", argv[1], errno_name(errno));
        return 2;
    }
    mkdirat(volume, "sub", 0755);
    mkdirat(volume, "sub/deep", 0755);
    dots(volume, argv[2]);
    probe_at(volume, argv[3], "open");
    links(volume, argv[2], argv[3]);
    found_links(volume);
    handles(volume);
    others(volume);
    changes(volume, argv[2]);
    unlinkat(volume, "sub/deep", AT_REMOVEDIR);
    unlinkat(volume, "sub", AT_REMOVEDIR);
    printf("%d ways tried, %d escaped\n", tried, escaped);
    return escaped ? 1 : 0;
}
