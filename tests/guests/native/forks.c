// Makes processes ("forks processes N") or threads ("forks threads N") that only wait, at most N of them.
// Prints how many it got, and the errno it stopped at. Exits 1 when stopped.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../errno-name.h"

// Nothing is ever written to it; it ends with the first process.
static int line[2];

static void *rest(void *nothing) {
    char byte;
    read(line[0], &byte, 1);
    return nothing;
}

static int make(int threads) {
    pthread_t thread;
    if (threads) return errno = pthread_create(&thread, NULL, rest, NULL);
    pid_t child = fork();
    if (!child) {
        close(line[1]);
        rest(NULL);
        _exit(0);
    }
    return child < 0;
}

int main(int argc, char **argv) {
    int threads = argc == 3 && !strcmp(argv[1], "threads");
    if (argc != 3 || (!threads && strcmp(argv[1], "processes"))) {
        fputs("usage: forks processes|threads COUNT\n", stderr);
        return 2;
    }
    if (pipe(line)) return 2;
    long made = 0, wanted = atol(argv[2]);
    while (made < wanted && !make(threads)) made++;
    int stopped = made < wanted;
    if (stopped) printf("made %ld, then %s\n", made, errno_name(errno));
    else printf("made %ld\n", made);
    return stopped;
}
