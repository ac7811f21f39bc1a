// Says hello. The program to measure a cold start with: almost all of its time is the sandbox's.
//
//     sbx run examples/c/hello.wasm
//     sbx run examples/c/hello-component.wasm     the same program as a WASI 0.2 component
//
// Both are committed. `examples/build c` makes them anew in target/examples:
//     clang --target=wasm32-wasi -Oz -s hello.c -o hello.wasm
//     wasm-tools component new hello.wasm --adapt wasi_snapshot_preview1=ADAPTER -o hello-component.wasm
#include <stdio.h>

int main(void) {
    puts("Hello from C!");
    return 0;
}
