// Writes argv[1] numbered lines to standard output and as many to standard error, waits argv[2] milliseconds
// behind each pair, and exits with argv[3].
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
    long lines = argc > 1 ? atol(argv[1]) : 1, ms = argc > 2 ? atol(argv[2]) : 0;
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    for (long i = 1; i <= lines; i++) {
        printf("out %ld\n", i);
        fflush(stdout);
        fprintf(stderr, "err %ld\n", i);
        if (ms) nanosleep(&wait, NULL);
    }
    return argc > 3 ? atoi(argv[3]) : 0;
}
