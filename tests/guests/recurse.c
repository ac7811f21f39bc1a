// Recurses four thousand million times, for ever as far as any stack is concerned. Nothing of it lives in linear memory,
// so what runs out is the wasm call stack.
#include <stdio.h>

static volatile unsigned depth, last = ~0u;

// The volatile reads keep the compiler from making a loop of it, or from seeing that it never ends.
__attribute__((noinline)) static unsigned down(unsigned n) {
    depth = n;
    if (n == last) return n;
    return down(n + 1) ^ depth;
}

int main(void) {
    puts("recursing");
    fflush(stdout);
    printf("%u\n", down(0));
    return 0;
}
