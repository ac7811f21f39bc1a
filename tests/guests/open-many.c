// Opens the file argv[1] again and again without closing it, at most argv[2] times (65536).
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "errno-name.h"

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs("usage: open-many FILE [COUNT]\n", stderr);
        return 2;
    }
    long limit = argc > 2 ? atol(argv[2]) : 65536;
    for (long i = 0; i < limit; i++) {
        if (open(argv[1], O_RDONLY) < 0) {
            printf("opened %ld, then %s\n", i, errno_name(errno));
            return 1;
        }
    }
    printf("opened %ld\n", limit);
    return 0;
}
