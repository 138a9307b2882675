/* arena.h - one block of memory, measured first and filled after.
 *
 * The one idea: the code that places things runs twice, first on an arena without memory (which
 * only counts), then on the real one.  A plan made that way cannot disagree with what is taken.
 */
#ifndef RV_BASE_ARENA_H
#define RV_BASE_ARENA_H
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum { RV_ARENA_ALIGN = 256 };

typedef struct rv_arena { char *base; uint64_t used, capacity; } rv_arena;  /* base NULL: only measure */

/* 256-byte aligned (if base is); NULL while measuring.  Owned by the arena. */
static inline void *rv_arena_take(rv_arena *a, uint64_t bytes) {
    uint64_t at = (a->used + RV_ARENA_ALIGN - 1) & ~(uint64_t)(RV_ARENA_ALIGN - 1);
    a->used = at + bytes;
    if (!a->base) return NULL;
    assert(a->used <= a->capacity);                  /* the plan was wrong: a bug, not an error */
    return a->base + at;
}
#endif
