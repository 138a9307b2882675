/* inject.h - a machine on which the n-th call of one kind fails.
 *
 * The one idea: the test program itself defines malloc, read and the rest, so that the calls of every library in the process
 * (libpng's, jansson's, the C library's own) come through here; each counts, and one of them fails.
 */
#ifndef RV_TESTS_INJECT_H
#define RV_TESTS_INJECT_H
#include <stdint.h>

typedef enum {
    INJECT_MALLOC, INJECT_CALLOC, INJECT_REALLOC, INJECT_ALIGNED, INJECT_STRDUP,      /* no memory            */
    INJECT_MMAP,                                                                      /* ENOMEM               */
    INJECT_READ, INJECT_PREAD, INJECT_OPEN, INJECT_FOPEN, INJECT_STAT,                /* EIO; EMFILE to open  */
    INJECT_SHORT, INJECT_INTERRUPTED,    /* read, pread, write and pwrite that do half, or nothing yet: no failures */
    INJECT_WRITE, INJECT_RENAME,                                                      /* ENOSPC, EIO          */
    INJECT_THREAD,                                                                    /* EAGAIN               */
    INJECT_KINDS
} inject_kind;

extern const char *const inject_names[INJECT_KINDS];

/* From here on calls count; the n-th of that kind fails (0: none does). */
void inject_begin(inject_kind kind, uint64_t n);
/* Until here. Returns how many calls of that kind there were, and says whether one was made to fail: INJECT_HIT, or
 * INJECT_HIT_ONEDNN where the call was oneDNN's, whose own losses are not ours. Left out are its aligned allocations, without which it
 * goes on with a null pointer (kernels/cpu/dnnl_calls.cpp says what is done about that), and all of libgomp's, without which that
 * ends the process. */
enum { INJECT_MISSED, INJECT_HIT, INJECT_HIT_ONEDNN };
uint64_t inject_end(int *failed);
/* Blocks of memory taken and not given back, of the whole process; means nothing under the address sanitizer, which looks
 * itself. */
int64_t inject_blocks(void);
#endif
