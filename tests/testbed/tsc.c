/*
 * Prints the rate of this processor's time stamp counter in kHz. The nested machine's kernel must be told: the emulated
 * counter runs at the host's rate, and QEMU's microvm has nothing that Linux could measure it against.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

int main(void) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    unsigned long long first = __rdtsc();
    double elapsed;
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
        elapsed = (now.tv_sec - start.tv_sec) * 1e3 + (now.tv_nsec - start.tv_nsec) * 1e-6;
    } while (elapsed < 50);
    printf("%.0f\n", (__rdtsc() - first) / elapsed);
}
