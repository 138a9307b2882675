/* pool.h - memory that is taken piece by piece and given back all at once.
 *
 * The one idea: a schema or a record is built once and dropped whole, so its texts and arrays need
 * one owner, not one each.  A pool that ran out of memory says so once, at the end (`failed`).
 */
#ifndef RV_EXTRACT_POOL_H
#define RV_EXTRACT_POOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise. */
typedef struct rv_pool { struct rv_pool_block *blocks; bool failed; } rv_pool;

/* Zeroed, aligned for anything; NULL when there is no memory (and `failed` is set). */
void *rv_pool_take(rv_pool *pool, size_t bytes);
/* A copy with a NUL behind it; NULL when there is no memory. */
char *rv_pool_text(rv_pool *pool, const char *text, size_t bytes);
void  rv_pool_free(rv_pool *pool);
#endif
