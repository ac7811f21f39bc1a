// Answers SIGTERM and SIGINT itself: says which one came, and ends by itself with status 7.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    puts("waiting");
    fflush(stdout);
    sigwait(&set, &signal);
    printf("got signal %d\n", signal);
    return 7;
}
