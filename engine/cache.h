/* cache.h - keys and values: pages of 64 tokens for the text, whole tiles for the images.
 *
 * The one idea: attention sees one list of keys per sequence whatever lies where; page tables
 * say where.  Self-attention pages belong to a slot for good (a running job cannot run out);
 * image tiles come from a pool and are shared by every request about the picture.
 */
#ifndef RV_ENGINE_CACHE_H
#define RV_ENGINE_CACHE_H
#include "engine/base/arena.h"
#include "engine/config.h"
#include "kernels/backend.h"

enum { RV_PAGE_TOKENS = 64 };

typedef struct rv_cache {
    int32_t  slots, context, images;     /* as resolved                                         */
    int32_t  self_max_pages;             /* pages of one slot                                   */
    int32_t  tile_pages;                 /* in the pool; a page is one tile of `tokens` keys     */
    rv_kv    self[RV_MAX_LAYERS];        /* by layer; unused entries of cross layers are zero    */
    rv_kv    cross[RV_MAX_LAYERS];       /* by layer, likewise                                   */
    int32_t *self_pages;                 /* device [slots x self_max_pages], filled once          */
    int32_t *cross_pages;                /* device [(slots + 1) x tile_pages]; the last row is the
                                            picture's that is being computed                     */
    float   *cross_bias;                 /* device [tile_pages * tokens]                         */
} rv_cache;

void rv_cache_place(rv_cache *c, const rv_config *config, rv_dtype type, rv_arena *arena);
/* Fills the fixed page tables; after placing for real. */
void rv_cache_start(rv_cache *c, rv_backend *be, int32_t *host_scratch);
uint64_t rv_cache_bytes_per_token(const rv_config *config, rv_dtype type);
uint64_t rv_cache_bytes_per_tile(const rv_config *config, rv_dtype type);
#endif
