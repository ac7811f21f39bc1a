// Writes to standard output without end, or argv[1] bytes of it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errno-name.h"

int main(int argc, char **argv) {
    static char block[65536];
    unsigned long long left = argc > 1 ? strtoull(argv[1], NULL, 10) : ~0ULL, written = 0;
    memset(block, 'x', sizeof block);
    for (size_t i = 63; i < sizeof block; i += 64) block[i] = '\n';
    while (left) {
        ssize_t n = write(1, block, left < sizeof block ? (size_t)left : sizeof block);
        if (n < 0) {
            fprintf(stderr, "write: %s after %llu bytes\n", errno_name(errno), written);
            return 1;
        }
        written += (unsigned long long)n;
        left -= (unsigned long long)n;
    }
    return 0;
}
