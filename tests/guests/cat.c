// Copies standard input to standard output until end of file.
#include <stdio.h>
#include <unistd.h>

#include "errno-name.h"

int main(void) {
    static char buffer[65536];
    ssize_t got;
    while ((got = read(0, buffer, sizeof buffer)) > 0) {
        for (ssize_t put = 0; put < got;) {
            ssize_t n = write(1, buffer + put, (size_t)(got - put));
            if (n < 0) {
                fprintf(stderr, "write: %s\n", errno_name(errno));
                return 1;
            }
            put += n;
        }
    }
    if (got < 0) {
        fprintf(stderr, "read: %s\n", errno_name(errno));
        return 1;
    }
    return 0;
}
