/* inject.c - see inject.h. */
#include "tests/failures/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
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

/* ---- whose call it is: of the libraries here only oneDNN is C++ ---- */

enum { RANGES = 4, LIBGOMP = 2, LIBC = 3 };
static struct { uintptr_t from, to; } ranges[RANGES];

static int find_range(struct dl_phdr_info *of, size_t size, void *user) {
    static const char *const names[RANGES] = { "libdnnl", "libstdc++", "libgomp", "libc.so" };
    (void)size, (void)user;
    for (int i = 0; i < RANGES; i++)
        for (int p = 0; p < of->dlpi_phnum && strstr(of->dlpi_name, names[i]); p++) {
            const ElfW(Phdr) *h = &of->dlpi_phdr[p];
            if (h->p_type != PT_LOAD || !(h->p_flags & PF_X)) continue;
            ranges[i].from = of->dlpi_addr + h->p_vaddr;
            ranges[i].to = ranges[i].from + h->p_memsz;
        }
    return 0;
}

static bool within(int i, const void *caller) { return (uintptr_t)caller >= ranges[i].from && (uintptr_t)caller < ranges[i].to; }

static bool of_onednn(const void *caller) {
    for (int i = 0; i < LIBC; i++)
        if (within(i, caller)) return true;
    return false;
}

/* libgomp, below oneDNN, ends the process when it gets no memory (216 bytes a thread); nothing above can do anything about it.
 * The address sanitizer asks the C library about every new thread, and takes no for a bug. */
static bool left_out(inject_kind kind, const void *caller) {
#ifdef __SANITIZE_ADDRESS__
    if (within(LIBC, caller)) return true;
#endif
    return within(LIBGOMP, caller) || (kind == INJECT_ALIGNED && of_onednn(caller));
}

/* ---- */

void inject_begin(inject_kind kind, uint64_t n) {
    if (!ranges[LIBC].from) dl_iterate_phdr(find_range, NULL);
    atomic_store(&calls, 0);
    atomic_store(&wanted, n);
    atomic_store(&hit, INJECT_MISSED);
    atomic_store(&armed, (int)kind);
}

uint64_t inject_end(int *failed) {
    atomic_store(&armed, -1);
    *failed = atomic_load(&hit);
    return atomic_load(&calls);
}

int64_t inject_blocks(void) { return atomic_load(&blocks); }

/* Whether this call is the one. */
static bool fails_for(inject_kind kind, const void *caller) {
    if (atomic_load(&armed) != (int)kind) return false;
    if (left_out(kind, caller) || atomic_fetch_add(&calls, 1) + 1 != atomic_load(&wanted)) return false;
    atomic_store(&hit, of_onednn(caller) ? INJECT_HIT_ONEDNN : INJECT_HIT);
    return true;
}

#define fails(kind) fails_for(kind, __builtin_return_address(0))

/* The function that would be called without us. */
#define REAL(name)                    \
    static __typeof__(name) *real;    \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)
#define SHOWN __attribute__((visibility("default")))

/* ---- memory: what is behind malloc has names of its own, which is as well, because dlsym calls it ---- */

#ifdef __SANITIZE_ADDRESS__
#define BEHIND(name) __interceptor_##name
#else
#define BEHIND(name) __libc_##name
#endif
void *BEHIND(memalign)(size_t alignment, size_t bytes);
void *BEHIND(malloc)(size_t bytes);
void *BEHIND(calloc)(size_t n, size_t bytes);
void *BEHIND(realloc)(void *old, size_t bytes);
void  BEHIND(free)(void *block);

static void *counted(void *block) {
    if (block) atomic_fetch_add(&blocks, 1);
    return block;
}

static void *no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

SHOWN void *malloc(size_t bytes) { return fails(INJECT_MALLOC) ? no_memory() : counted(BEHIND(malloc)(bytes)); }

SHOWN void *calloc(size_t n, size_t bytes) { return fails(INJECT_CALLOC) ? no_memory() : counted(BEHIND(calloc)(n, bytes)); }

SHOWN void *realloc(void *old, size_t bytes) {
    if (fails(INJECT_REALLOC)) return no_memory();
    void *block = BEHIND(realloc)(old, bytes);
    if (old && !bytes) atomic_fetch_sub(&blocks, 1);     /* it was freed                         */
    return old ? block : counted(block);
}

SHOWN void free(void *block) {
    if (block) atomic_fetch_sub(&blocks, 1);
    BEHIND(free)(block);
}

SHOWN void *aligned_alloc(size_t alignment, size_t bytes) { return fails(INJECT_ALIGNED) ? no_memory() : counted(BEHIND(memalign)(alignment, bytes)); }

SHOWN int posix_memalign(void **out, size_t alignment, size_t bytes) {
    if (fails(INJECT_ALIGNED)) return ENOMEM;
    void *block = BEHIND(memalign)(alignment, bytes);
    if (block) *out = counted(block);
    return block ? 0 : ENOMEM;
}

/* Over our malloc, as the C library has it; written out because a sanitizer's own would pass it by. */
static char *duplicate(const char *text, size_t n, bool failing) {
    char *copy = failing ? no_memory() : malloc(n + 1);
    if (copy) memcpy(copy, text, n), copy[n] = '\0';
    return copy;
}

SHOWN char *strdup(const char *text) { return duplicate(text, strlen(text), fails(INJECT_STRDUP)); }
SHOWN char *strndup(const char *text, size_t most) { return duplicate(text, strnlen(text, most), fails(INJECT_STRDUP)); }

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
