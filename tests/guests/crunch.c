// Compute-heavy and deterministic: integer mixing, scattered memory access and floating point.
// argv[1] scales the work (1 by default). Prints a checksum that is the same on every machine.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS = 1 << 19 };  // 4 MiB: past a second-level cache
static uint64_t table[WORDS];

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t scatter(uint64_t seed, long turns) {
    uint64_t x = seed;
    for (long i = 0; i < turns; i++) {
        x = mix(x + (uint64_t)i);
        uint64_t *slot = &table[x % WORDS];
        x ^= *slot;
        *slot += x;
    }
    return x;
}

static uint64_t mandelbrot(int size, int limit) {
    uint64_t total = 0;
    for (int row = 0; row < size; row++)
        for (int column = 0; column < size; column++) {
            double cr = 3.0 * column / size - 2.25, ci = 3.0 * row / size - 1.5, r = 0, i = 0;
            int n = 0;
            while (n < limit && r * r + i * i < 4.0) {
                double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                n++;
            }
            total += (uint64_t)n;
        }
    return total;
}

int main(int argc, char **argv) {
    long scale = argc > 1 ? atol(argv[1]) : 1;
    uint64_t sum = 0;
    for (long i = 0; i < scale; i++) {
        sum = mix(sum ^ scatter(sum + 1, 20000000));
        sum = mix(sum ^ mandelbrot(600, 500));
    }
    printf("%016" PRIx64 "\n", sum);
    return 0;
}
