// For guests that use their heap. Where this is exported, the adapter that makes a component of a guest
// takes its own memory from the guest's malloc. Otherwise it grows the memory before malloc has looked
// at its size, and an older wasi-libc then takes the adapter's pages for free ones.
#pragma once
#ifdef __wasi__
#include <stdlib.h>

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size;
    (void)align;  // Nothing asks for more than malloc aligns to.
    return realloc(old, size);
}
#endif
