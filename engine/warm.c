/* warm.c - a model's first pass, made on empty memory while its weights are still being read.
 *
 * The one idea: a backend that loads code late (kernels, a library's choices for each shape) would make the first
 * picture and the first prompt wait for it.  So every kind of layer runs once, in the row counts to be expected, while
 * the loading thread has nothing else to do; what comes out means nothing and is thrown away.  Row counts that are rare
 * only run while weights are still being read: nobody waits for them.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"
#include "engine/text.h"
#include "engine/vision.h"

enum { PROMPT_STEP = 64 };               /* a backend's choices for a prompt may change every so many rows */

typedef struct warm {
    rv_config         config;            /* the model's, cut down to a layer of each kind        */
    rv_cache          cache;
    rv_vision_scratch vision_scratch;
    rv_text_scratch   text_scratch;
    rv_text_rows      rows;
    uint8_t          *tiles;
} warm;

static void cut_down(rv_config *config) {
    rv_vision_config *v = &config->vision;
    rv_text_config *t = &config->text;
    int32_t first = 0;
    while (first + 1 < t->layers && !t->cross[first]) first++;
    t->layers = first + 1;
    t->n_cross = t->cross[first];
    if (v->layers > 1) v->layers = 1;
    if (v->global_layers > 1) v->global_layers = 1;
    memset(v->taps, 0, sizeof v->taps);
}

static void place(warm *w, const rv_backend *be, rv_arena *arena) {
    w->cache = (rv_cache){ .slots = 1, .context = be->chunk_rows, .images = 1 };
    rv_cache_place(&w->cache, &w->config, be->act, arena);
    rv_vision_place(&w->vision_scratch, &w->config, be->act, arena);
    rv_text_place(&w->text_scratch, &w->config, be->act, be->chunk_rows, 1, be->chunk_rows, arena);
}

static bool take_host(warm *w, const rv_backend *be) {
    const rv_vision_config *v = &w->config.vision;
    size_t ints = rv_vision_host_ints(&w->config), pages = (size_t)w->cache.self_max_pages;
    w->vision_scratch.host = malloc((ints > pages ? ints : pages) * sizeof(int32_t));
    w->tiles = calloc((size_t)v->max_tiles * RV_CHANNELS * (size_t)v->tile, (size_t)v->tile);
    return w->vision_scratch.host && w->tiles && rv_text_rows_new(&w->rows, be->chunk_rows, NULL) == RV_OK;
}

/* A picture of each number of tiles. */
static void see(warm *w, const rv_model *m) {
    const rv_vision_config *c = &w->config.vision;
    rv_vision v = { .config = &w->config, .weights = &m->weights, .be = m->be, .scratch = &w->vision_scratch, .cache = &w->cache,
                    .taps = RV_TAPS_ENTERING, .reference = m->options.reference };
    int32_t pages[RV_MAX_TILES];
    bool seen[RV_MAX_TILES + 1] = { false };
    for (int32_t i = 0; i < RV_MAX_TILES; i++) pages[i] = i;
    for (int32_t i = 0; i < c->n_ratios; i++) {
        int32_t tiles = c->ratios[i][0] * c->ratios[i][1];
        if (seen[tiles]) continue;
        seen[tiles] = true;
        rv_vision_job job = { .layout = rv_vision_layout_of(c, tiles, i + 1, m->weights.pads_are_equal), .tiles = w->tiles, .pages = pages };
        rv_vision_run(&v, &job, rv_vision_steps(&w->config));
    }
}

static void read_rows(warm *w, const rv_model *m, int32_t n, bool apart) {
    rv_text t = { .config = &w->config, .weights = &m->weights, .be = m->be, .scratch = &w->text_scratch, .cache = &w->cache,
                  .reference = m->options.reference };
    rv_text_rows *rows = &w->rows;
    rows->n = rows->longest_self = n;
    rows->longest_image = w->cache.tile_pages * w->config.vision.tokens;
    rows->images = true;
    rows->apart = apart;
    for (int32_t r = 0; r < n; r++) {
        rows->ids[r] = rows->slot[r] = rows->image_first[r] = 0;
        rows->pos[r] = r;
        rows->image_last[r] = rows->longest_image - 1;
        rows->row_on[r] = 1;
    }
    rv_text_run(&t, rows, n - 1, 1);
    if (rv_can_run_ahead(m->be)) rv_best_rows(m->be, w->text_scratch.best, w->text_scratch.logits);
}

static void read_prompts(warm *w, const rv_model *m) {
    const int32_t first = RV_FEW_ROWS + PROMPT_STEP / 2, chunk = m->be->chunk_rows;
    for (int32_t n = first; n < chunk; n = 2 * n + PROMPT_STEP / 2) read_rows(w, m, n, false);
    read_rows(w, m, chunk, false);
    for (int32_t n = first; n < chunk && rv_loading(m->be); n += PROMPT_STEP) read_rows(w, m, n, false);
}

/* Whether that many bytes more are there to be had for a while. */
static bool fits(const rv_model *m, uint64_t bytes) {
    uint64_t counted = m->options.memory_limit ? m->memory_bytes + m->mapped_bytes + m->be->own_bytes : 0;
    return counted + bytes <= rv_load_available(&m->options);
}

void *rv_model_warm(rv_model *m) {
    rv_backend *be = m->be;
    rv_arena plan = { 0 };
    void *memory = NULL;
    if (!be->loads_late || be->error.code) return NULL;
    warm *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->config = m->files.config;
    cut_down(&w->config);
    place(w, be, &plan);
    if (fits(m, plan.used) && take_host(w, be)) {
        memory = rv_device_alloc(be, plan.used);
        if (!memory) be->error = (rv_error){ 0 };        /* somebody else was faster: loading goes on without */
    }
    if (memory) {
        rv_arena arena = { memory, 0, plan.used };
        place(w, be, &arena);
        rv_cache_start(&w->cache, be, w->vision_scratch.host);
        see(w, m);
        for (int32_t n = 1; n <= RV_FEW_ROWS && n <= be->chunk_rows; n *= 2)
            for (int apart = 0; apart < 2; apart++) read_rows(w, m, n, apart);
        read_prompts(w, m);
    }
    free(w->vision_scratch.host);
    free(w->tiles);
    rv_text_rows_free(&w->rows);
    free(w);
    return memory;
}
