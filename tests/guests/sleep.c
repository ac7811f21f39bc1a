// Sleeps argv[1] milliseconds in a host call.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
    long ms = argc > 1 ? atol(argv[1]) : 1000;
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    puts("sleeping");
    fflush(stdout);
    if (nanosleep(&wait, NULL) < 0) {
        perror("nanosleep");
        return 1;
    }
    printf("slept %ld ms\n", ms);
    return 0;
}
