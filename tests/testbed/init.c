/*
 * init of the nested machine: PID 1 of the kernel that `run` starts under QEMU.
 *
 * It works in two halves, because `machine` saves the machine's state between them and `run` resumes from there:
 *   1. mounts /dev, /proc and /sys, loads the modules of the initramfs, opens its three virtio-serial ports, says
 *      "ready" on the port "ctl" and waits for a line there;
 *   2. the line is the time (seconds, nanoseconds). It sets the clock, starts the heart, mounts the host's files, runs
 *      the job, writes its exit status to the job's directory and ends the machine.
 * No share is mounted in the first half: QEMU saves no machine that has one mounted.
 *
 * The shares (9p):  root  the host's /, read-only; the job sees it under a tmpfs overlay
 *                   tree  the checkout, read-write at its own path
 *                   job   argv, env, cwd, tree (inputs, each NUL-terminated strings); status (the result)
 * The ports:        ctl, which carries the beats of the heart from then on; out and err, which carry the job's stdout
 *                   and stderr.
 *
 * What it does not do: no network beyond loopback, no stdin, no users, no logging.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* QEMU's isa-debug-exit: any write ends QEMU at once. */
#define EXIT_PORT 0x501

/* Seconds from one beat of the heart to the next; `run` gives a machine up after many times that. */
#define BEAT 2

/* Where the new root is put together. */
#define NEW "/root/new"

static void power_off(void) {
    sync();
    if (ioperm(EXIT_PORT, 1, 1) == 0)
        outb(0, EXIT_PORT);
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}

/* Says on the console what failed. `run` shows the console when there is no status. */
static void die(const char *format, ...) {
    int error = errno;
    va_list args;
    va_start(args, format);
    fputs("testbed init: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s\n", strerror(error));
    power_off();
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    mkdir(target, 0755);
    if (mount(source, target, type, flags, data))
        die("mount %s on %s", source, target);
}

static void mount_9p(const char *tag, const char *target, unsigned long flags, const char *cache) {
    char options[128];
    snprintf(options, sizeof options, "trans=virtio,version=9p2000.L,access=any,msize=512000,cache=%s", cache);
    mount_at(tag, target, "9p", flags, options);
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0)
            fprintf(stderr, "testbed init: %s: %s\n", path, strerror(errno));
        close(fd);
    }
}

/* The whole of a file, with a NUL after it. Its size is not asked: files of /sys and /proc have none. */
static char *read_file(const char *path, size_t *length) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 4096, n = 0;
    char *text = malloc(size);
    if (fd < 0)
        die("open %s", path);
    while (text) {
        ssize_t k = read(fd, text + n, size - 1 - n);
        if (k < 0)
            die("read %s", path);
        if (k == 0)
            break;
        n += k;
        if (n == size - 1)
            text = realloc(text, size *= 2);
    }
    if (!text)
        die("memory for %s", path);
    close(fd);
    text[n] = 0;
    if (length)
        *length = n;
    return text;
}

/* Splits NUL-terminated strings into a vector for exec. */
static char **read_vector(const char *path) {
    size_t length, count = 0;
    char *text = read_file(path, &length);
    for (size_t i = 0; i < length; i++)
        count += text[i] == 0;
    char **vector = calloc(count + 1, sizeof *vector);
    if (!vector)
        die("memory for %s", path);
    for (size_t i = 0; i < count; i++, text += strlen(text) + 1)
        vector[i] = text;
    return vector;
}

/* /modules: one file name a line, in the order in which they must be loaded, with parameters behind a space. */
static void load_modules(void) {
    char *list = read_file("/modules/order", NULL), *end;
    for (char *line = list; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end)
            break;
        *end = 0;
        char path[256], *parameters = strchr(line, ' ');
        if (parameters)
            *parameters++ = 0;
        snprintf(path, sizeof path, "/modules/%s", line);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, parameters ? parameters : "", 0))
            die("module %s", line);
        close(fd);
    }
    free(list);
}

/* Opens the virtio-serial port of that name; it may take a moment to appear. */
static int open_port(const char *name) {
    for (int attempt = 0; attempt < 2000; attempt++, usleep(2000)) {
        DIR *ports = opendir("/sys/class/virtio-ports");
        for (struct dirent *entry; ports && (entry = readdir(ports));) {
            char path[300], found[32] = "";
            snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                continue;
            ssize_t n = read(fd, found, sizeof found - 1);
            close(fd);
            if (n <= 0 || strcmp(strtok(found, "\n") ?: "", name))
                continue;
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd < 0)
                die("open port %s", name);
            closedir(ports);
            return fd;
        }
        if (ports)
            closedir(ports);
    }
    errno = ENODEV;
    die("port %s", name);
    return -1;
}

static void raise_loopback(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &request))
        die("loopback");
    close(s);
}

/* Waits for the line "SECONDS NANOSECONDS" and sets the clock: a resumed machine still has that of its saving. */
static void wait_for_job(int ctl) {
    char line[64];
    size_t n = 0;
    if (write(ctl, "ready\n", 6) != 6)
        die("ctl");
    while (n == 0 || line[n - 1] != '\n') {
        ssize_t k = read(ctl, line + n, sizeof line - 1 - n);
        if (k > 0)
            n += k;
        else
            usleep(1000);
    }
    line[n] = 0;
    struct timespec now = {0};
    if (sscanf(line, "%ld %ld", &now.tv_sec, &now.tv_nsec) != 2 || clock_settime(CLOCK_REALTIME, &now))
        die("clock");
}

struct heart {
    int ctl;
    long processors;
};

/*
 * Tells `run` that the machine still schedules: a line on ctl whenever this thread has been on every processor. One
 * that the job took offline, or into a partition of cpusets, refuses the thread and is passed over.
 */
static void *beat(void *argument) {
    struct heart *heart = argument;
    for (;; sleep(BEAT)) {
        for (long i = 0; i < heart->processors; i++) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(i, &one);
            sched_setaffinity(0, sizeof one, &one);
        }
        if (write(heart->ctl, "beat\n", 5) < 0)
            fprintf(stderr, "testbed init: beat: %s\n", strerror(errno));
    }
    return NULL;
}

/*
 * The heart has the highest real-time priority, so that a job that loads every processor does not starve it, and is a
 * thread of init, not a child, so that a job that kills everything spares it. A signal for init is not for the heart:
 * the heart would lose the SIGCHLD that run_job waits for.
 */
static void start_heart(int ctl) {
    static struct heart heart;
    heart = (struct heart){ctl, sysconf(_SC_NPROCESSORS_CONF)};
    struct sched_param highest = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
    pthread_attr_setschedparam(&attributes, &highest);
    sigprocmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&thread, &attributes, beat, &heart);
    if (errno)
        die("heart");
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* mkdir -p below the new root. */
static void make_directories(char *path) {
    for (char *slash = path + strlen(NEW) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0755);
    }
    mkdir(path, 0755);
}

static void assemble_root(const char *tree) {
    mount_at("scratch", "/root", "tmpfs", 0, "mode=755");
    mount_9p("root", "/root/lower", MS_RDONLY, "loose");
    mkdir("/root/upper", 0755);
    mkdir("/root/work", 0755);
    mount_at("root", NEW, "overlay", 0, "lowerdir=/root/lower,upperdir=/root/upper,workdir=/root/work");
    char target[4200];
    snprintf(target, sizeof target, "%s%s", NEW, tree);
    make_directories(target);
    mount_9p("tree", target, 0, "mmap");
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(target, sizeof target, "%s%s", NEW, moved[i]);
        mkdir(target, 0755);
        if (mount(moved[i], target, NULL, MS_MOVE, NULL))
            die("move %s", moved[i]);
    }
    mount_at("run", NEW "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    mkdir(NEW "/tmp", 01777);
}

/* What switch_root does: a mere chroot would forbid user namespaces to the job. */
static void enter_root(void) {
    if (chdir(NEW) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        die("switch root");
}

static void mount_kernel_files(void) {
    mount_at("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620");
    mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    char *controllers = read_file("/sys/fs/cgroup/cgroup.controllers", NULL);
    for (char *name = strtok(controllers, " \n"); name; name = strtok(NULL, " \n")) {
        char enable[64];
        snprintf(enable, sizeof enable, "+%s", name);
        write_file("/sys/fs/cgroup/cgroup.subtree_control", enable);
    }
    free(controllers);
    symlink("/proc/self/fd", "/dev/fd");
    symlink("/proc/self/fd/0", "/dev/stdin");
    symlink("/proc/self/fd/1", "/dev/stdout");
    symlink("/proc/self/fd/2", "/dev/stderr");
}

static void exec_job(char **argv, char **env, const char *cwd, int out, int err) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out, 1);
    dup2(err, 2);
    closefrom(3);
    /* What a login would have: the kernel's own hard limit of 4096 is less than many programs ask. */
    struct rlimit files = {.rlim_cur = 1024, .rlim_max = 524288};
    setrlimit(RLIMIT_NOFILE, &files);
    environ = env;
    if (chdir(cwd)) {
        fprintf(stderr, "testbed: %s: %s\n", cwd, strerror(errno));
        _exit(126);
    }
    execvp(argv[0], argv);
    int error = errno;
    fprintf(stderr, "testbed: %s: %s\n", argv[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}

/* Moves what a pipe holds to a port. False when the pipe is at its end. */
static int pump(int from, int to) {
    char buffer[32768];
    ssize_t n;
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0; done < n;) {
            ssize_t k = write(to, buffer + done, n - done);
            if (k > 0)
                done += k;
            else if (errno != EINTR && errno != EAGAIN)
                return 0;
        }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Runs the job, carries its output, reaps orphans. Returns its exit status, 128+n for a signal. */
static int run_job(char **argv, char **env, const char *cwd, const int ports[2]) {
    int pipes[2][2];
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    /* Pipes and not the ports themselves: a port can be opened once only, so /dev/stdout would be busy. */
    if (signals < 0 || pipe2(pipes[0], O_CLOEXEC) || pipe2(pipes[1], O_CLOEXEC))
        die("pipes");
    pid_t job = fork();
    if (job < 0)
        die("fork");
    if (job == 0)
        exec_job(argv, env, cwd, pipes[0][1], pipes[1][1]);
    struct pollfd events[3] = {{signals, POLLIN, 0}, {pipes[0][0], POLLIN, 0}, {pipes[1][0], POLLIN, 0}};
    for (int i = 0; i < 2; i++) {
        close(pipes[i][1]);
        fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
    }
    for (int status = -1; status < 0;) {
        poll(events, 3, -1);
        /* Children first: what the job wrote before its end is in the pipes then, and is moved below. */
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof info) > 0)
            ;
        int ended;
        for (pid_t pid; (pid = waitpid(-1, &ended, WNOHANG)) > 0;)
            if (pid == job)
                status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
        for (int i = 0; i < 2; i++)
            if (events[i + 1].fd >= 0 && !pump(pipes[i][0], ports[i]))
                events[i + 1].fd = -1;
        if (status >= 0)
            return status;
    }
    return 125;
}

int main(void) {
    mount_at("dev", "/dev", "devtmpfs", 0, NULL);
    mount_at("proc", "/proc", "proc", 0, NULL);
    mount_at("sys", "/sys", "sysfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    load_modules();
    raise_loopback();
    sethostname("testbed", 7);
    int ctl = open_port("ctl"), ports[2] = {open_port("out"), open_port("err")};
    wait_for_job(ctl);
    start_heart(ctl);

    mount_9p("job", "/job", 0, "none");
    char **argv = read_vector("/job/argv"), **env = read_vector("/job/env");
    char *cwd = read_file("/job/cwd", NULL), *tree = read_file("/job/tree", NULL);
    int result = open("/job/status", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (result < 0 || !argv[0])
        die("job");
    assemble_root(tree);
    enter_root();
    mount_kernel_files();
    dprintf(result, "%d\n", run_job(argv, env, cwd, ports));
    power_off();
}
