// Tells which of the three standard streams the guest believes to be a terminal.
#include <stdio.h>
#include <unistd.h>

int main(void) {
    for (int fd = 0; fd < 3; fd++) printf("%d %s\n", fd, isatty(fd) ? "tty" : "not a tty");
    return 0;
}
