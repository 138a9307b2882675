/* inject.c - see inject.h. */
#include "tests/failures/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const inject_names[INJECT_KINDS] = { "malloc", "calloc", "realloc", "aligned_alloc", "strdup", "mmap", "read", "pread", "open", "fopen", "fstat",
                                                 "short read or write", "interrupted read or write", "write", "rename, fsync", "pthread_create" };

static atomic_int       armed = -1;      /* the kind, while calls count                          */
static _Atomic uint64_t calls, wanted;
static atomic_int       hit;
static _Atomic int64_t  blocks;

void inject_begin(inject_kind kind, uint64_t n) {
    atomic_store(&calls, 0);
    atomic_store(&wanted, n);
    atomic_store(&hit, 0);
    atomic_store(&armed, (int)kind);
}

uint64_t inject_end(int *failed) {
    atomic_store(&armed, -1);
    *failed = atomic_load(&hit);
    return atomic_load(&calls);
}

int64_t inject_blocks(void) { return atomic_load(&blocks); }

/* Whether this call is the one. */
static bool fails(inject_kind kind) {
    if (atomic_load(&armed) != (int)kind || atomic_fetch_add(&calls, 1) + 1 != atomic_load(&wanted)) return false;
    atomic_store(&hit, 1);
    return true;
}

/* The function that would be called without us. */
#define REAL(name)                    \
    static __typeof__(name) *real;    \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)
#define SHOWN __attribute__((visibility("default")))

/* ---- memory ---- */

static void *counted(void *block) {
    if (block) atomic_fetch_add(&blocks, 1);
    return block;
}

static void *no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

SHOWN void *malloc(size_t bytes) {
    REAL(malloc);
    return fails(INJECT_MALLOC) ? no_memory() : counted(real(bytes));
}

SHOWN void *calloc(size_t n, size_t bytes) {
    REAL(calloc);
    return fails(INJECT_CALLOC) ? no_memory() : counted(real(n, bytes));
}

SHOWN void *realloc(void *old, size_t bytes) {
    REAL(realloc);
    if (fails(INJECT_REALLOC)) return no_memory();
    void *block = real(old, bytes);
    if (old && !bytes) atomic_fetch_sub(&blocks, 1);     /* it was freed                         */
    return old ? block : counted(block);
}

SHOWN void free(void *block) {
    REAL(free);
    if (block) atomic_fetch_sub(&blocks, 1);
    real(block);
}

SHOWN void *aligned_alloc(size_t alignment, size_t bytes) {
    REAL(aligned_alloc);
    return fails(INJECT_ALIGNED) ? no_memory() : counted(real(alignment, bytes));
}

SHOWN int posix_memalign(void **out, size_t alignment, size_t bytes) {
    REAL(posix_memalign);
    if (fails(INJECT_ALIGNED)) return ENOMEM;
    const int is = real(out, alignment, bytes);
    if (!is) counted(*out);
    return is;
}

/* Over our malloc, as the C library has it; written out because a sanitizer's own would pass it by. */
static char *duplicate(const char *text, size_t n) {
    char *copy = fails(INJECT_STRDUP) ? no_memory() : malloc(n + 1);
    if (copy) memcpy(copy, text, n), copy[n] = '\0';
    return copy;
}

SHOWN char *strdup(const char *text) { return duplicate(text, strlen(text)); }
SHOWN char *strndup(const char *text, size_t most) { return duplicate(text, strnlen(text, most)); }

/* ---- files ---- */

static int refused(int why) {
    errno = why;
    return -1;
}

SHOWN void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    REAL(mmap);
    if (!fails(INJECT_MMAP)) return real(at, bytes, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

/* 0: go on; else the answer is *n bytes, or -1. */
static bool disturbed(inject_kind kind, size_t *bytes) {
    if (fails(kind)) return errno = kind == INJECT_WRITE ? ENOSPC : EIO, true;
    if (fails(INJECT_INTERRUPTED)) return errno = EINTR, true;
    if (*bytes > 1 && fails(INJECT_SHORT)) *bytes /= 2;
    return false;
}

SHOWN ssize_t read(int fd, void *to, size_t bytes) {
    REAL(read);
    return disturbed(INJECT_READ, &bytes) ? -1 : real(fd, to, bytes);
}

SHOWN ssize_t pread(int fd, void *to, size_t bytes, off_t at) {
    REAL(pread);
    return disturbed(INJECT_PREAD, &bytes) ? -1 : real(fd, to, bytes, at);
}

SHOWN ssize_t write(int fd, const void *from, size_t bytes) {
    REAL(write);
    return disturbed(INJECT_WRITE, &bytes) ? -1 : real(fd, from, bytes);
}

SHOWN ssize_t pwrite(int fd, const void *from, size_t bytes, off_t at) {
    REAL(pwrite);
    return disturbed(INJECT_WRITE, &bytes) ? -1 : real(fd, from, bytes, at);
}

SHOWN int open(const char *path, int flags, ...) {
    REAL(open);
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(INJECT_OPEN) ? refused(EMFILE) : real(path, flags, mode);
}

SHOWN FILE *fopen(const char *path, const char *how) {
    REAL(fopen);
    if (fails(INJECT_FOPEN)) return errno = EMFILE, NULL;
    return real(path, how);
}

SHOWN int fstat(int fd, struct stat *out) {
    REAL(fstat);
    return fails(INJECT_STAT) ? refused(EIO) : real(fd, out);
}

SHOWN int fsync(int fd) {
    REAL(fsync);
    return fails(INJECT_RENAME) ? refused(EIO) : real(fd);
}

SHOWN int rename(const char *from, const char *to) {
    REAL(rename);
    return fails(INJECT_RENAME) ? refused(EIO) : real(from, to);
}

/* ---- threads ---- */

SHOWN int pthread_create(pthread_t *out, const pthread_attr_t *how, void *(*run)(void *), void *user) {
    REAL(pthread_create);
    return fails(INJECT_THREAD) ? EAGAIN : real(out, how, run, user);
}
