/* pool.h - the CPU backend's threads.
 *
 * The one idea: a region is a number of items at fixed bounds, and threads take items from one
 * counter until none is left.  Who computes an item never changes its result, and a thread that
 * wakes late finds nothing to do instead of being waited for.
 */
#ifndef RV_KERNELS_CPU_POOL_H
#define RV_KERNELS_CPU_POOL_H
#include <stdint.h>
#include "engine/base/status.h"

typedef struct rv_pool rv_pool;

/* Computes one item; `thread` is 0 (the caller) .. threads - 1. */
typedef void rv_pool_work(void *context, int32_t item, int32_t thread);

/* threads >= 1, the caller included.  RV_ERR_MEMORY, or RV_ERR_UNSUPPORTED when the system gives
 * no more threads. */
rv_status rv_pool_open(int32_t threads, rv_pool **out, rv_error *err);
void      rv_pool_close(rv_pool *pool);                              /* NULL is fine            */
int32_t   rv_pool_threads(const rv_pool *pool);

/* Runs items 0..n-1 and returns when all are done.  One caller at a time; never from an item. */
void rv_pool_run(rv_pool *pool, int32_t n, rv_pool_work *work, void *context);

/* The cores this process may use, at least 1. */
int32_t rv_pool_cores(void);
#endif
