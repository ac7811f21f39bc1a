// Counts the lines, words and bytes of files, like wc(1).
//
// Shows: volumes. The program sees the directories it was granted and nothing else of the host.
//
//     examples/build c
//     sbx run -v ./examples/data:/data:ro target/examples/wordcount.wasm /data/words.txt
//
// Without -v it cannot even name the file, whatever the rights of its user on the host.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int count(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "wordcount: %s: %s\n", path, strerror(errno));
        return 1;
    }
    unsigned long lines = 0, words = 0, bytes = 0;
    int c, inside = 0;
    while ((c = getc(file)) != EOF) {
        bytes++;
        lines += c == '\n';
        words += !inside && !isspace(c);
        inside = !isspace(c);
    }
    int failed = ferror(file);
    fclose(file);
    if (failed) {
        fprintf(stderr, "wordcount: %s: %s\n", path, strerror(errno));
        return 1;
    }
    printf("%lu %lu %lu %s\n", lines, words, bytes, path);
    return 0;
}

int main(int argc, char **argv) {
    int failed = argc < 2;
    if (failed) fputs("usage: wordcount FILE...\n", stderr);
    for (int i = 1; i < argc; i++) failed |= count(argv[i]);
    return failed;
}
