/* vision.c - the vision tower, once, for every backend. */
#include "engine/vision.h"

#include <math.h>

rv_vision_layout rv_vision_layout_of(const rv_vision_config *v, int32_t tiles, int32_t aspect_ratio_id, bool pads_once) {
    rv_vision_layout l = { .tiles = tiles, .aspect_ratio_id = aspect_ratio_id };
    int32_t absent = v->max_tiles - tiles, pads_a_tile = v->padded_tokens - v->tokens;
    l.pad_tiles = pads_once ? absent > 0 : absent;
    l.pad_tile_copies = l.pad_tiles ? absent / l.pad_tiles : 0;
    /* Padding tokens are alike until the post-tile embedding makes them differ from tile to tile. */
    l.local_pads = pads_once ? 1 : v->max_tiles * pads_a_tile;
    l.global_pads = pads_once ? tiles + l.pad_tiles : v->max_tiles * pads_a_tile;
    l.real_rows = tiles * v->tokens;
    l.state_rows = (tiles + l.pad_tiles) * v->tokens;
    l.local_rows = l.state_rows + l.local_pads;
    l.global_rows = l.state_rows + l.global_pads;
    return l;
}

int32_t rv_vision_pages(const rv_vision_layout *l, rv_reference reference) {
    return l->tiles + (reference == RV_REFERENCE_HF ? l->pad_tiles : 0);
}

int32_t rv_vision_steps(const rv_config *config) {
    return config->vision.layers + config->vision.global_layers + 3;
}

/* ---- memory ---- */

static int32_t most_rows(const rv_config *config) { return config->vision.max_tiles * config->vision.padded_tokens; }

enum { ROW_TABLES = 10, VALUES = RV_CHANNELS * 256 };

size_t rv_vision_host_ints(const rv_config *config) { return (size_t)ROW_TABLES * (size_t)most_rows(config) + VALUES; }

/* The tables in a block of rv_vision_host_ints. */
static rv_vision_tables tables_in(const rv_config *config, int32_t *block) {
    size_t n = (size_t)most_rows(config);
    float *floats = block ? (float *)(void *)(block + 8 * n) : NULL;
    if (!block) return (rv_vision_tables){ 0 };
    return (rv_vision_tables){ block, block + n, block + 2 * n, block + 3 * n, block + 4 * n, block + 5 * n, block + 6 * n, block + 7 * n,
                               floats, floats + n, floats + 2 * n };
}

static rv_mat take(rv_arena *arena, int32_t rows, int32_t cols, rv_dtype type) {
    return rv_mat_of(rv_arena_take(arena, (uint64_t)rows * (uint64_t)cols * rv_dtype_size(type)), rows, cols, type);
}

/* What is placed next shares memory with what was placed since `from`; *end: where the longest of them ends. */
static void share(rv_arena *arena, uint64_t from, uint64_t *end) {
    if (arena->used > *end) *end = arena->used;
    arena->used = from;
}

void rv_vision_place(rv_vision_scratch *s, const rv_config *config, rv_dtype act, rv_arena *arena) {
    const rv_vision_config *v = &config->vision;
    int32_t rows = most_rows(config), states = v->max_tiles * v->tokens, kv = config->text.kv_heads * config->text.head_dim;
    s->block = rv_arena_take(arena, rv_vision_host_ints(config) * sizeof *s->block);
    s->tables = tables_in(config, s->block);
    s->x = take(arena, rows, v->hidden, RV_F32);

    uint64_t from = arena->used, end = from;
    s->pixels = take(arena, v->max_tiles, RV_CHANNELS * v->tile * v->tile, RV_F32);      /* dead when x has been made */
    s->patches = take(arena, v->max_tiles * v->grid * v->grid, RV_CHANNELS * v->patch * v->patch, act);
    share(arena, from, &end);
    s->h = take(arena, rows, v->hidden, act);
    uint64_t after_h = arena->used;
    s->qkv = take(arena, rows, 3 * v->hidden, act);                                      /* dead when attention has run */
    share(arena, after_h, &end);
    s->ff = take(arena, rows, v->ffn, act);
    share(arena, from, &end);
    s->features = take(arena, states, v->output_dim, act);                               /* made of x and taps, after all layers */
    share(arena, from, &end);
    arena->used = end;

    from = end;
    for (int32_t i = 0; i < v->n_taps; i++) s->taps[i] = take(arena, states, v->hidden, act);   /* dead once features are made */
    share(arena, from, &end);
    s->states = take(arena, states, config->text.hidden, act);
    s->kv = take(arena, states, 2 * kv, act);
    share(arena, from, &end);
    arena->used = end;
}

/* ---- tables of the layout ---- */

/* What row r stands for: a token 0..tokens-1 of a tile slot, or a padding token (token >= tokens). */
typedef struct place { int32_t slot, token; } place;

static place place_of(const rv_vision_config *v, const rv_vision_layout *l, int32_t r, bool global) {
    if (r < l->state_rows) return (place){ r / v->tokens, r % v->tokens };
    int32_t i = r - l->state_rows, n = global ? l->global_pads : l->local_pads;
    int32_t a_tile = n / (l->tiles + l->pad_tiles);
    return (place){ a_tile ? i / a_tile : 0, v->tokens };
}

typedef int32_t (*id_fn)(const rv_vision_config *v, const rv_vision_layout *l, place p);

static int32_t class_id(const rv_vision_config *v, const rv_vision_layout *l, place p) {
    (void)v, (void)l;
    return p.token == 0 ? 0 : -1;
}
static int32_t pre_id(const rv_vision_config *v, const rv_vision_layout *l, place p) {
    return p.token == 0 || p.token >= v->tokens ? -1 : l->aspect_ratio_id * v->max_tiles + p.slot;
}
static int32_t position_id(const rv_vision_config *v, const rv_vision_layout *l, place p) {
    (void)l;
    return p.token < v->tokens ? p.token : -1;
}
static int32_t tile_id(const rv_vision_config *v, const rv_vision_layout *l, place p) {
    return p.token < v->tokens ? (l->aspect_ratio_id * v->max_tiles + p.slot) * v->tokens + p.token : -1;
}
static int32_t post_id(const rv_vision_config *v, const rv_vision_layout *l, place p) {
    return l->aspect_ratio_id * v->max_tiles + p.slot;
}

static void fill_ids(const rv_vision_config *c, const rv_vision_layout *l, int32_t *to, id_fn id, bool global) {
    for (int32_t r = 0, n = global ? l->global_rows : l->local_rows; r < n; r++) to[r] = id(c, l, place_of(c, l, r, global));
}

/* Real rows see every key, padding rows the real keys. */
static void fill_ranges(const rv_vision_layout *l, int32_t rows, int32_t *to) {
    for (int32_t r = 0; r < rows; r++) to[r] = (r < l->real_rows ? rows : l->real_rows) - 1;
}

static void fill_bias(const rv_vision_config *c, const rv_vision_layout *l, bool global, float *to) {
    int32_t rows = global ? l->global_rows : l->local_rows, pads = global ? l->global_pads : l->local_pads;
    int32_t pad_tokens = c->max_tiles * (c->padded_tokens - c->tokens), a_tile = c->padded_tokens - c->tokens;
    for (int32_t r = 0; r < rows; r++) {
        double copies = 1;
        if (r >= l->real_rows && r < l->state_rows) copies = l->pad_tile_copies;
        else if (r >= l->state_rows && pads != pad_tokens) {
            int32_t slot = r - l->state_rows;
            copies = !global ? pad_tokens : slot < l->tiles ? a_tile : a_tile * l->pad_tile_copies;
        }
        to[r] = (float)log(copies);
    }
}

static void upload_tables(const rv_vision *v, const rv_vision_layout *l) {
    const rv_vision_config *c = &v->config->vision;
    rv_vision_tables t = tables_in(v->config, v->scratch->host);
    fill_ids(c, l, t.class_ids, class_id, false);
    fill_ids(c, l, t.pre_ids, pre_id, false);
    fill_ids(c, l, t.position_ids, position_id, false);
    fill_ids(c, l, t.tile_ids, tile_id, false);
    fill_ids(c, l, t.post_ids, post_id, true);
    fill_ranges(l, l->local_rows, t.last_local);
    fill_ranges(l, l->global_rows, t.last_global);
    for (int32_t r = 0; r < l->state_rows; r++) t.key_pos[r] = r;
    fill_bias(c, l, false, t.bias_local);
    fill_bias(c, l, true, t.bias_global);
    rv_image_values(&v->config->preprocess, (float (*)[256])t.values);
    rv_upload(v->be, v->scratch->block, v->scratch->host, rv_vision_host_ints(v->config) * sizeof *v->scratch->host);
}

/* ---- the tower ---- */

static void begin(const rv_vision *v, const rv_vision_job *job) {
    const rv_vision_config *c = &v->config->vision;
    const rv_vision_layout *l = &job->layout;
    const rv_weights *w = v->weights;
    rv_vision_scratch *s = v->scratch;
    rv_backend *be = v->be;
    const rv_vision_tables *t = &s->tables;
    int32_t patches = c->grid * c->grid;
    rv_mat pixels = rv_mat_of(s->pixels.data, l->tiles, s->pixels.cols, job->pixels ? RV_F32 : RV_U8);

    rv_upload(be, pixels.data, job->pixels ? (const void *)job->pixels : job->tiles,
              (uint64_t)l->tiles * (uint64_t)pixels.cols * rv_dtype_size(pixels.type));
    upload_tables(v, l);

    rv_mat x = rv_rows(s->x, 0, l->local_rows), states = rv_rows(s->x, 0, l->state_rows);
    rv_zero(be, x);                                       /* padding tiles' pixels are zero, and so their patches */
    rv_patches(be, rv_rows(s->patches, 0, l->tiles * patches), pixels, job->pixels ? NULL : t->values, RV_CHANNELS, c->patch);
    for (int32_t i = 0; i < l->tiles; i++)
        rv_linear(be, rv_rows(s->x, i * c->tokens + 1, patches), rv_rows(s->patches, i * patches, patches), w->patch, NULL, RV_ACT_NONE);
    rv_add_rows(be, states, w->pre_tile, t->pre_ids, w->pre_gate);
    rv_add_rows(be, states, w->class_row, t->class_ids, 1);
    rv_add_rows(be, states, w->position, t->position_ids, 1 - w->position_gate);
    rv_add_rows(be, states, w->tile_position, t->tile_ids, w->position_gate);
    rv_norm_rows(be, states, states, (rv_norm){ w->norm_pre, w->norm_pre_bias, c->norm_eps, c->hidden });
}

static void layer(const rv_vision *v, const rv_vision_layer *w, int32_t rows, const int32_t *last, const float *bias) {
    const rv_vision_config *c = &v->config->vision;
    rv_vision_scratch *s = v->scratch;
    int32_t d = c->hidden;
    rv_mat x = rv_rows(s->x, 0, rows), h = rv_rows(s->h, 0, rows), qkv = rv_rows(s->qkv, 0, rows), ff = rv_rows(s->ff, 0, rows);
    rv_attention a = { .q = rv_cols(qkv, 0, d), .out = h, .kv = { .k = rv_cols(qkv, d, d), .v = rv_cols(qkv, 2 * d, d), .bias = bias },
                       .last = last, .heads = c->heads, .kv_heads = c->heads, .longest = rows,
                       .scale = (float)(1 / sqrt((double)c->head_dim)) };
    rv_norm norm1 = { w->norm1, w->norm1_bias, c->norm_eps, d }, norm2 = { w->norm2, w->norm2_bias, c->norm_eps, d };
    const rv_vision_block b = { .x = x, .h = h, .qkv = qkv, .ff = ff, .in = w->qkv, .o = w->o, .fc1 = w->fc1, .fc2 = w->fc2,
                                .fc1_bias = w->fc1_bias, .fc2_bias = w->fc2_bias, .norm1 = norm1, .norm2 = norm2, .attention = a,
                                .attn_gate = w->attn_gate, .ffn_gate = w->ffn_gate };
    if (rv_tower_layer(v->be, &b)) return;

    rv_norm_rows(v->be, h, x, norm1);
    rv_linear(v->be, qkv, h, w->qkv, NULL, RV_ACT_NONE);
    rv_attend(v->be, &a);
    rv_linear_add(v->be, x, h, w->o, NULL, w->attn_gate, NULL);
    rv_norm_rows(v->be, h, x, norm2);
    rv_linear(v->be, ff, h, w->fc1, w->fc1_bias, RV_ACT_GELU);
    rv_linear_add(v->be, x, ff, w->fc2, w->fc2_bias, w->ffn_gate, NULL);
}

static void keep_taps(const rv_vision *v, const rv_vision_layout *l, int32_t index) {
    for (int32_t i = 0; i < v->config->vision.n_taps; i++)
        if (v->config->vision.taps[i] == index)
            rv_copy(v->be, rv_rows(v->scratch->taps[i], 0, l->state_rows), rv_rows(v->scratch->x, 0, l->state_rows));
}

static void local_layer(const rv_vision *v, const rv_vision_layout *l, int32_t i) {
    bool entering = v->taps == RV_TAPS_ENTERING;
    if (entering) keep_taps(v, l, i);
    layer(v, &v->weights->local[i], l->local_rows, v->scratch->tables.last_local, v->scratch->tables.bias_local);
    if (!entering) keep_taps(v, l, i);
    else if (i + 1 == v->config->vision.layers) keep_taps(v, l, i + 1);
}

static void between_stages(const rv_vision *v, const rv_vision_layout *l) {
    const rv_vision_config *c = &v->config->vision;
    rv_vision_scratch *s = v->scratch;
    int32_t more = l->global_rows - l->local_rows;           /* padding tokens were alike up to here */
    rv_mat x = rv_rows(s->x, 0, l->global_rows), token = rv_rows(s->x, l->state_rows, more);
    token.ld = 0;
    if (more) rv_copy(v->be, rv_rows(s->x, l->local_rows, more), token);
    rv_norm_rows(v->be, x, x, (rv_norm){ v->weights->norm_post, v->weights->norm_post_bias, c->norm_eps, c->hidden });
    rv_add_rows(v->be, x, v->weights->post_tile, s->tables.post_ids, v->weights->post_gate);
}

/* Rows that text may look at, as projected states: [pages * tokens x text hidden]. */
static void project(const rv_vision *v, const rv_vision_layout *l) {
    rv_vision_scratch *s = v->scratch;
    int32_t rows = rv_vision_pages(l, v->reference) * v->config->vision.tokens;
    rv_mat taps[RV_MAX_TAPS];
    for (int32_t i = 0; i < v->config->vision.n_taps; i++) taps[i] = rv_rows(s->taps[i], 0, rows);
    rv_concat_taps(v->be, rv_rows(s->features, 0, rows), rv_rows(s->x, 0, rows), taps, v->config->vision.n_taps);
    rv_mark_time(v->be, RV_MARK_TOWER);
    rv_linear(v->be, rv_rows(s->states, 0, rows), rv_rows(s->features, 0, rows), v->weights->projector,
              v->weights->projector_bias, RV_ACT_NONE);
}

static void cross_keys(const rv_vision *v, const rv_vision_job *job) {
    const rv_text_config *t = &v->config->text;
    rv_vision_scratch *s = v->scratch;
    rv_cache *cache = v->cache;
    int32_t tokens = v->config->vision.tokens, pages = rv_vision_pages(&job->layout, v->reference), rows = pages * tokens;
    int32_t width = t->kv_heads * t->head_dim, *own_pages = cache->cross_pages + (size_t)cache->slots * (size_t)cache->tile_pages;

    rv_upload(v->be, own_pages, job->pages, (uint64_t)pages * sizeof(int32_t));
    for (int32_t p = 0; p < pages; p++) {
        float *bias = (float *)(void *)s->host;
        for (int32_t i = 0; i < tokens; i++)
            bias[i] = p < job->layout.tiles ? 0 : (float)log((double)job->layout.pad_tile_copies);
        rv_upload(v->be, cache->cross_bias + (size_t)job->pages[p] * (size_t)tokens, bias, (uint64_t)tokens * sizeof *bias);
    }

    rv_mat states = rv_rows(s->states, 0, rows), kv = rv_rows(s->kv, 0, rows);
    rv_mat k = rv_cols(kv, 0, width), values = rv_cols(kv, width, width);
    for (int32_t i = 0; i < t->layers; i++) {
        if (!t->cross[i]) continue;
        rv_kv to = cache->cross[i];
        to.pages = own_pages;
        rv_linear(v->be, kv, states, v->weights->text[i].kv, NULL, RV_ACT_NONE);
        rv_norm_rows(v->be, k, k, (rv_norm){ v->weights->text[i].k_norm, NULL, t->norm_eps, t->head_dim });
        rv_kv_store(v->be, to, k, values, NULL, s->tables.key_pos);
    }
}

void rv_vision_run(const rv_vision *v, rv_vision_job *job, int32_t n) {
    const rv_vision_config *c = &v->config->vision;
    const rv_vision_layout *l = &job->layout;
    for (int32_t last = rv_vision_steps(v->config); n > 0 && job->step < last; n--, job->step++) {
        int32_t i = job->step - 1, g = i - c->layers;
        if (i < 0) begin(v, job);
        else if (i < c->layers) local_layer(v, l, i);
        else if (g == 0) between_stages(v, l);
        else if (g <= c->global_layers)
            layer(v, &v->weights->global[g - 1], l->global_rows, v->scratch->tables.last_global, v->scratch->tables.bias_global);
        if (job->step + 1 == last) {
            project(v, l);
            cross_keys(v, job);
        }
    }
}
