/* cache.c - placing keys and values. */
#include "engine/cache.h"

static int64_t kv_width(const rv_config *config) { return (int64_t)config->text.kv_heads * config->text.head_dim; }

static rv_kv place_kv(const rv_config *config, rv_dtype type, rv_arena *arena, int64_t rows) {
    int64_t width = kv_width(config);
    uint64_t bytes = (uint64_t)rows * (uint64_t)width * rv_dtype_size(type);
    void *k = rv_arena_take(arena, bytes), *v = rv_arena_take(arena, bytes);
    return (rv_kv){ .k = rv_mat_of(k, (int32_t)rows, (int32_t)width, type), .v = rv_mat_of(v, (int32_t)rows, (int32_t)width, type) };
}

void rv_cache_place(rv_cache *c, const rv_config *config, rv_dtype type, rv_arena *arena) {
    const int32_t tokens = config->vision.tokens;
    c->self_max_pages = (c->context + RV_PAGE_TOKENS - 1) / RV_PAGE_TOKENS;
    c->tile_pages = c->images * config->vision.max_tiles;
    c->self_pages = rv_arena_take(arena, (uint64_t)c->slots * (uint64_t)c->self_max_pages * sizeof(int32_t));
    c->cross_pages = rv_arena_take(arena, (uint64_t)(c->slots + 1) * (uint64_t)c->tile_pages * sizeof(int32_t));
    c->cross_bias = rv_arena_take(arena, (uint64_t)c->tile_pages * (uint64_t)tokens * sizeof(float));
    for (int32_t i = 0; i < config->text.layers; i++)
        if (config->text.cross[i]) {
            c->cross[i] = place_kv(config, type, arena, (int64_t)c->tile_pages * tokens);
            c->cross[i].pages = c->cross_pages;
            c->cross[i].page_rows = tokens;
            c->cross[i].max_pages = c->tile_pages;
            c->cross[i].bias = c->cross_bias;
        } else {
            c->self[i] = place_kv(config, type, arena, (int64_t)c->slots * c->self_max_pages * RV_PAGE_TOKENS);
            c->self[i].pages = c->self_pages;
            c->self[i].page_rows = RV_PAGE_TOKENS;
            c->self[i].max_pages = c->self_max_pages;
        }
}

void rv_cache_start(rv_cache *c, rv_backend *be, int32_t *host_scratch) {
    int32_t n = c->slots * c->self_max_pages;
    for (int32_t i = 0; i < n; i++) host_scratch[i] = i;
    rv_upload(be, c->self_pages, host_scratch, (uint64_t)n * sizeof *host_scratch);
}

uint64_t rv_cache_bytes_per_token(const rv_config *config, rv_dtype type) {
    return (uint64_t)(config->text.layers - config->text.n_cross) * 2u * (uint64_t)kv_width(config) * rv_dtype_size(type);
}

uint64_t rv_cache_bytes_per_tile(const rv_config *config, rv_dtype type) {
    return (uint64_t)config->text.n_cross * 2u * (uint64_t)kv_width(config) * rv_dtype_size(type) * (uint64_t)config->vision.tokens;
}
