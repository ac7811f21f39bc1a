// A reactor: a library whose exports the host calls by name. It has no _start, only _initialize.
#include <stdio.h>

__attribute__((export_name("add"))) int add(int a, int b) { return a + b; }

__attribute__((export_name("greet"))) void greet(void) {
    puts("hello from a reactor");
    fflush(stdout);
}
