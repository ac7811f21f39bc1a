// The symbolic name of an errno, so that a test can tell "refused" from "not there" or "full".
#pragma once
#include <errno.h>
#include <stdio.h>

static inline const char *errno_name(int error) {
#define NAME(name) \
    case name:     \
        return #name;
    switch (error) {
        NAME(E2BIG)
        NAME(EACCES)
        NAME(EAGAIN)
        NAME(EBADF)
        NAME(EBUSY)
        NAME(EDQUOT)
        NAME(EEXIST)
        NAME(EFAULT)
        NAME(EFBIG)
        NAME(EILSEQ)
        NAME(EINTR)
        NAME(EINVAL)
        NAME(EIO)
        NAME(EISDIR)
        NAME(ELOOP)
        NAME(EMFILE)
        NAME(EMLINK)
        NAME(ENAMETOOLONG)
        NAME(ENFILE)
        NAME(ENODEV)
        NAME(ENOENT)
        NAME(ENOMEM)
        NAME(ENOSPC)
        NAME(ENOSYS)
#ifdef __wasi__
        NAME(ENOTCAPABLE)
#endif
        NAME(ENOTDIR)
        NAME(ENOTEMPTY)
        NAME(ENOTSUP)
        NAME(ENOTTY)
        NAME(ENXIO)
        NAME(EOVERFLOW)
        NAME(EPERM)
        NAME(EPIPE)
        NAME(EROFS)
        NAME(ESPIPE)
        NAME(ESTALE)
        NAME(ETXTBSY)
        NAME(EXDEV)
    }
#undef NAME
    static char number[24];
    snprintf(number, sizeof number, "errno %d", error);
    return number;
}
