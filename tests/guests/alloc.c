// Takes argv[1] MiB of memory in steps of one MiB and touches every byte of it.
// Exits 3 when the allocator says no; being killed instead is the other way a memory limit can show.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cabi-realloc.h"

int main(int argc, char **argv) {
    long wanted = argc > 1 ? atol(argv[1]) : 64;
    for (long i = 1; i <= wanted; i++) {
        char *step = malloc(1 << 20);
        if (!step) {
            fprintf(stderr, "malloc failed after %ld MiB\n", i - 1);
            return 3;
        }
        memset(step, (int)i | 1, 1 << 20);
        // Without this the compiler may drop memory that nobody reads.
        __asm__ volatile("" : : "r"(step) : "memory");
        fprintf(stderr, "%ld MiB\n", i);
    }
    printf("ok %ld MiB\n", wanted);
    return 0;
}
