// Lets the n-th call that writes into a folder fail, or all from the n-th on, whoever makes it: loaded by LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_long calls, first, last;

// Fails the calls numbered from `from` to `to`, counted from 1. An empty path: none.
void fail_calls(const char *path, long from, long to) {
    calls = 0, first = from, last = to;
    strncpy(folder, path, sizeof folder - 1);
}

long calls_so_far(void) { return calls; }

static int fails(const char *path, int error) {
    if (!folder[0] || strncmp(path, folder, strlen(folder))) return 0;
    long call = ++calls;
    if (call < first || call > last) return 0;
    errno = error;
    return 1;
}

static int fails_fd(int fd, int error) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = folder[0] ? readlink(link, path, sizeof path - 1) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path, error);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, error, parameters, arguments) \
    type name parameters { return fails_fd(fd, error) ? -1 : REAL(name) arguments; }
#define ON_PATH(name, error, parameters, arguments) \
    int name parameters { return fails(path, error) ? -1 : REAL(name) arguments; }

ON_FD(ssize_t, write, ENOSPC, (int fd, const void *from, size_t size), (fd, from, size))
ON_FD(ssize_t, pwrite, ENOSPC, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
ON_FD(ssize_t, pwrite64, ENOSPC, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
ON_FD(ssize_t, writev, ENOSPC, (int fd, const struct iovec *from, int count), (fd, from, count))
ON_FD(ssize_t, pwritev, ENOSPC, (int fd, const struct iovec *from, int count, off_t at), (fd, from, count, at))
ON_FD(int, fsync, EIO, (int fd), (fd))
ON_FD(int, fdatasync, EIO, (int fd), (fd))
ON_PATH(rename, EIO, (const char *path, const char *to), (path, to))
ON_PATH(renameat, EIO, (int from, const char *path, int into, const char *to), (from, path, into, to))
ON_PATH(mkdir, ENOSPC, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, ENOSPC, (int at, const char *path, mode_t mode), (at, path, mode))

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags) \
        return (flags & O_CREAT) && fails(path, ENOSPC) ? -1 : REAL(name)(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        MODE(flags) \
        return (flags & O_CREAT) && fails(path, ENOSPC) ? -1 : REAL(name)(at, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
