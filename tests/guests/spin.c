// Says that it started, then never calls the host again: only the host can end it.
#include <unistd.h>

int main(void) {
    (void)!write(1, "spinning\n", 9);
    for (volatile unsigned long turns = 0;; turns++) {
    }
}
