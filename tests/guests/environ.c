// Prints the whole environment, so that a test sees what leaked as well as what was granted.
#include <stdio.h>

extern char **environ;

int main(void) {
    for (char **entry = environ; entry && *entry; entry++) puts(*entry);
    return 0;
}
