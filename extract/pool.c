/* pool.c - memory given back all at once: see pool.h. */
#include "extract/pool.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 4096, MOST_BYTES = 65536, ALIGN = 16 };      /* blocks double: most records need one or two */

typedef struct rv_pool_block {
    struct rv_pool_block *next;
    size_t                used, capacity;
} rv_pool_block;

static const size_t HEAD = (sizeof(rv_pool_block) + ALIGN - 1) & ~(size_t)(ALIGN - 1);

static rv_pool_block *block_new(rv_pool *pool, size_t bytes) {
    size_t usual = !pool->blocks ? FIRST_BYTES : pool->blocks->capacity < MOST_BYTES ? 2 * pool->blocks->capacity : MOST_BYTES;
    bool large = bytes > usual / 2;                        /* a block of its own, behind the one in use */
    rv_pool_block *block = calloc(1, HEAD + (large ? bytes : usual));
    if (!block) return NULL;
    block->capacity = large ? bytes : usual;
    rv_pool_block **at = large && pool->blocks ? &pool->blocks->next : &pool->blocks;
    block->next = *at;
    *at = block;
    return block;
}

void *rv_pool_take(rv_pool *pool, size_t bytes) {
    if (bytes > SIZE_MAX / 2) {
        pool->failed = true;
        return NULL;
    }
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (bytes == 0) bytes = ALIGN;
    rv_pool_block *block = pool->blocks;
    if (!block || block->capacity - block->used < bytes) block = block_new(pool, bytes);
    if (!block) {
        pool->failed = true;
        return NULL;
    }
    char *at = (char *)block + HEAD + block->used;
    block->used += bytes;
    return at;
}

char *rv_pool_text(rv_pool *pool, const char *text, size_t bytes) {
    char *copy = rv_pool_take(pool, bytes + 1);
    if (copy && bytes) memcpy(copy, text, bytes);
    return copy;
}

void rv_pool_free(rv_pool *pool) {
    for (rv_pool_block *block = pool->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *pool = (rv_pool){ 0 };
}
