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

size_t rv_vision_host_ints(const rv_config *config) { return (size_t)most_rows(config); }

size_t rv_vision_host_pixels(const rv_config *config) {
    const rv_vision_config *v = &config->vision;
    return (size_t)v->max_tiles * RV_CHANNELS * (size_t)v->tile * (size_t)v->tile;
}

static rv_mat take(rv_arena *arena, int32_t rows, int32_t cols, rv_dtype type) {
    return rv_mat_of(rv_arena_take(arena, (uint64_t)rows * (uint64_t)cols * rv_dtype_size(type)), rows, cols, type);
}

void rv_vision_place(rv_vision_scratch *s, const rv_config *config, rv_dtype act, rv_arena *arena) {
    const rv_vision_config *v = &config->vision;
    int32_t rows = most_rows(config), states = v->max_tiles * v->tokens, kv = config->text.kv_heads * config->text.head_dim;
    s->x = take(arena, rows, v->hidden, RV_F32);
    s->h = take(arena, rows, v->hidden, act);
    s->qkv = take(arena, rows, 3 * v->hidden, act);
    s->ff = take(arena, rows, v->ffn, act);
    for (int32_t i = 0; i < v->n_taps; i++) s->taps[i] = take(arena, states, v->hidden, act);
    s->features = take(arena, states, v->output_dim, act);
    s->states = take(arena, states, config->text.hidden, act);
    s->kv = take(arena, states, 2 * kv, act);
    s->pixels = take(arena, v->max_tiles, RV_CHANNELS * v->tile * v->tile, RV_F32);
    s->patches = take(arena, v->max_tiles * v->grid * v->grid, RV_CHANNELS * v->patch * v->patch, act);
    int32_t **const ints[] = { &s->class_ids, &s->pre_ids, &s->position_ids, &s->tile_ids, &s->post_ids,
                               &s->last_local, &s->last_global, &s->key_pos };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        *ints[i] = rv_arena_take(arena, (uint64_t)rows * sizeof(int32_t));
    s->bias_local = rv_arena_take(arena, (uint64_t)rows * sizeof(float));
    s->bias_global = rv_arena_take(arena, (uint64_t)rows * sizeof(float));
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

static void upload_ids(const rv_vision *v, const rv_vision_layout *l, int32_t *to, id_fn id, bool global) {
    int32_t n = global ? l->global_rows : l->local_rows, *host = v->scratch->host;
    for (int32_t r = 0; r < n; r++) host[r] = id(&v->config->vision, l, place_of(&v->config->vision, l, r, global));
    rv_upload(v->be, to, host, (uint64_t)n * sizeof *host);
}

/* Real rows see every key, padding rows the real keys. */
static void upload_ranges(const rv_vision *v, const rv_vision_layout *l, int32_t rows, int32_t *to) {
    int32_t *host = v->scratch->host;
    for (int32_t r = 0; r < rows; r++) host[r] = (r < l->real_rows ? rows : l->real_rows) - 1;
    rv_upload(v->be, to, host, (uint64_t)rows * sizeof *host);
}

static void upload_bias(const rv_vision *v, const rv_vision_layout *l, bool global, float *to) {
    const rv_vision_config *c = &v->config->vision;
    int32_t rows = global ? l->global_rows : l->local_rows, pads = global ? l->global_pads : l->local_pads;
    int32_t pad_tokens = c->max_tiles * (c->padded_tokens - c->tokens), a_tile = c->padded_tokens - c->tokens;
    float *host = (float *)(void *)v->scratch->host;
    for (int32_t r = 0; r < rows; r++) {
        double copies = 1;
        if (r >= l->real_rows && r < l->state_rows) copies = l->pad_tile_copies;
        else if (r >= l->state_rows && pads != pad_tokens) {
            int32_t slot = r - l->state_rows;
            copies = !global ? pad_tokens : slot < l->tiles ? a_tile : a_tile * l->pad_tile_copies;
        }
        host[r] = (float)log(copies);
    }
    rv_upload(v->be, to, host, (uint64_t)rows * sizeof *host);
}

/* ---- the tower ---- */

static void begin(const rv_vision *v, const rv_vision_job *job) {
    const rv_vision_config *c = &v->config->vision;
    const rv_vision_layout *l = &job->layout;
    const rv_weights *w = v->weights;
    rv_vision_scratch *s = v->scratch;
    rv_backend *be = v->be;
    int32_t patches = c->grid * c->grid;

    if (!job->pixels) rv_image_normalise(job->tiles, (size_t)l->tiles, c->tile, &v->config->preprocess, s->host_pixels);
    rv_upload(be, s->pixels.data, job->pixels ? job->pixels : s->host_pixels, (uint64_t)l->tiles * (uint64_t)s->pixels.cols * sizeof(float));
    upload_ids(v, l, s->class_ids, class_id, false);
    upload_ids(v, l, s->pre_ids, pre_id, false);
    upload_ids(v, l, s->position_ids, position_id, false);
    upload_ids(v, l, s->tile_ids, tile_id, false);
    upload_ids(v, l, s->post_ids, post_id, true);
    upload_ranges(v, l, l->local_rows, s->last_local);
    upload_ranges(v, l, l->global_rows, s->last_global);
    upload_bias(v, l, false, s->bias_local);
    upload_bias(v, l, true, s->bias_global);

    rv_mat x = rv_rows(s->x, 0, l->local_rows), states = rv_rows(s->x, 0, l->state_rows);
    rv_zero(be, x);                                       /* padding tiles' pixels are zero, and so their patches */
    rv_patches(be, rv_rows(s->patches, 0, l->tiles * patches), rv_rows(s->pixels, 0, l->tiles), RV_CHANNELS, c->patch);
    for (int32_t t = 0; t < l->tiles; t++)
        rv_linear(be, rv_rows(s->x, t * c->tokens + 1, patches), rv_rows(s->patches, t * patches, patches), w->patch, NULL, RV_ACT_NONE);
    rv_add_rows(be, states, w->pre_tile, s->pre_ids, w->pre_gate);
    rv_add_rows(be, states, w->class_row, s->class_ids, 1);
    rv_add_rows(be, states, w->position, s->position_ids, 1 - w->position_gate);
    rv_add_rows(be, states, w->tile_position, s->tile_ids, w->position_gate);
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
    rv_norm_rows(v->be, h, x, (rv_norm){ w->norm1, w->norm1_bias, c->norm_eps, d });
    rv_linear(v->be, qkv, h, w->qkv, NULL, RV_ACT_NONE);
    rv_attend(v->be, &a);
    rv_linear_add(v->be, x, h, w->o, NULL, w->attn_gate, NULL);
    rv_norm_rows(v->be, h, x, (rv_norm){ w->norm2, w->norm2_bias, c->norm_eps, d });
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
    layer(v, &v->weights->local[i], l->local_rows, v->scratch->last_local, v->scratch->bias_local);
    if (!entering) keep_taps(v, l, i);
    else if (i + 1 == v->config->vision.layers) keep_taps(v, l, i + 1);
}

static void between_stages(const rv_vision *v, const rv_vision_layout *l) {
    const rv_vision_config *c = &v->config->vision;
    rv_vision_scratch *s = v->scratch;
    for (int32_t r = l->local_rows; r < l->global_rows; r++)
        rv_copy(v->be, rv_rows(s->x, r, 1), rv_rows(s->x, l->state_rows, 1));
    rv_mat x = rv_rows(s->x, 0, l->global_rows);
    rv_norm_rows(v->be, x, x, (rv_norm){ v->weights->norm_post, v->weights->norm_post_bias, c->norm_eps, c->hidden });
    rv_add_rows(v->be, x, v->weights->post_tile, s->post_ids, v->weights->post_gate);
}

/* Rows that text may look at, as projected states: [pages * tokens x text hidden]. */
static void project(const rv_vision *v, const rv_vision_layout *l) {
    rv_vision_scratch *s = v->scratch;
    int32_t rows = rv_vision_pages(l, v->reference) * v->config->vision.tokens;
    rv_mat taps[RV_MAX_TAPS];
    for (int32_t i = 0; i < v->config->vision.n_taps; i++) taps[i] = rv_rows(s->taps[i], 0, rows);
    rv_mat last = rv_rows(s->h, 0, rows);
    rv_copy(v->be, last, rv_rows(s->x, 0, rows));
    rv_concat_taps(v->be, rv_rows(s->features, 0, rows), last, taps, v->config->vision.n_taps);
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
    for (int32_t r = 0; r < rows; r++) s->host[r] = r;
    rv_upload(v->be, s->key_pos, s->host, (uint64_t)rows * sizeof(int32_t));

    rv_mat states = rv_rows(s->states, 0, rows), kv = rv_rows(s->kv, 0, rows);
    rv_mat k = rv_cols(kv, 0, width), values = rv_cols(kv, width, width);
    for (int32_t i = 0; i < t->layers; i++) {
        if (!t->cross[i]) continue;
        rv_kv to = cache->cross[i];
        to.pages = own_pages;
        rv_linear(v->be, kv, states, v->weights->text[i].kv, NULL, RV_ACT_NONE);
        rv_norm_rows(v->be, k, k, (rv_norm){ v->weights->text[i].k_norm, NULL, t->norm_eps, t->head_dim });
        rv_kv_store(v->be, to, k, values, NULL, s->key_pos);
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
            layer(v, &v->weights->global[g - 1], l->global_rows, v->scratch->last_global, v->scratch->bias_global);
        if (job->step + 1 == last) {
            project(v, l);
            cross_keys(v, job);
        }
    }
}
