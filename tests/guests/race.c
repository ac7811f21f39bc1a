// Opens argv[1] argv[2] times while the host swaps a directory on that path for a symbolic link that
// leads out of the volume. Whatever the moment, the file behind the link must not be read.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: race PATH COUNT\n", stderr);
        return 2;
    }
    long count = atol(argv[2]), read_ok = 0, refused = 0, escaped = 0;
    for (long i = 0; i < count; i++) {
        char content[16] = "";
        int fd = open(argv[1], O_RDONLY);
        if (fd < 0) {
            refused++;
            continue;
        }
        if (read(fd, content, sizeof content - 1) >= 0) read_ok++;
        if (!strncmp(content, "secret", 6)) escaped++;
        close(fd);
    }
    if (escaped) puts("ESCAPED");
    // Both counts above zero show that the host's swaps really met the guest's opens.
    printf("read %ld, refused %ld, escaped %ld\n", read_ok, refused, escaped);
    return escaped ? 1 : 0;
}
