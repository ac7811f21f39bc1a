// Input for the compiler and linker that run as WASI programs themselves.
#include <stdio.h>

int main(void) {
    printf("six times seven is %d\n", 6 * 7);
    return 0;
}
