/* pool.c - memory given back all at once: see pool.h. */
#include "extract/pool.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16384, ALIGN = 16 };

typedef struct rv_pool_block {
    struct rv_pool_block *next;
    size_t                used, capacity;
} rv_pool_block;

static const size_t HEAD = (sizeof(rv_pool_block) + ALIGN - 1) & ~(size_t)(ALIGN - 1);

static rv_pool_block *block_new(rv_pool *pool, size_t bytes) {
    size_t capacity = bytes > BLOCK_BYTES / 2 ? bytes : BLOCK_BYTES;
    rv_pool_block *block = calloc(1, HEAD + capacity);
    if (!block) return NULL;
    block->capacity = capacity;
    if (pool->blocks && capacity != BLOCK_BYTES) {         /* a large piece: the block in use stays in front */
        block->next = pool->blocks->next;
        pool->blocks->next = block;
    } else {
        block->next = pool->blocks;
        pool->blocks = block;
    }
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
