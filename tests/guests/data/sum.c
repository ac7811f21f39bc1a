// Input for the AVR compiler, assembler and linker.
#include <stdint.h>

uint16_t sum(const uint8_t *bytes, uint8_t count) {
    uint16_t total = 0;
    while (count--) total += *bytes++;
    return total;
}

int main(void) {
    static const uint8_t numbers[] = {1, 2, 3, 4};
    return sum(numbers, sizeof numbers);
}
