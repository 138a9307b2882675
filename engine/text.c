/* text.c - the decoder, once, for every backend. */
#include "engine/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static rv_mat take(rv_arena *arena, int32_t rows, int32_t cols, rv_dtype type) {
    return rv_mat_of(rv_arena_take(arena, (uint64_t)rows * (uint64_t)cols * rv_dtype_size(type)), rows, cols, type);
}

void rv_text_place_rows(rv_text_scratch *s, const rv_config *config, rv_dtype act, int32_t rows, rv_arena *arena) {
    const rv_text_config *t = &config->text;
    int32_t q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    s->x = take(arena, rows, t->hidden, RV_F32);
    s->h = take(arena, rows, t->hidden, act);
    s->qkv = take(arena, rows, q + 2 * kv, act);
    s->heads = take(arena, rows, q, act);
    s->gate_up = take(arena, rows, 2 * t->ffn, act);
    s->ff = take(arena, rows, t->ffn, act);
    s->rows = rv_arena_take(arena, (uint64_t)rows * RV_ROW_ARRAYS * sizeof(int32_t));
}

void rv_text_place(rv_text_scratch *s, const rv_config *config, rv_dtype act, int32_t rows, int32_t logit_rows,
                   int32_t context, rv_arena *arena) {
    const rv_text_config *t = &config->text;
    rv_text_place_rows(s, config, act, rows, arena);
    s->logits = take(arena, logit_rows, t->vocab, RV_F32);
    s->best = rv_arena_take(arena, (uint64_t)logit_rows * sizeof *s->best);
    s->cos_sin = rv_arena_take(arena, (uint64_t)context * (uint64_t)t->head_dim * sizeof(float));
}

rv_status rv_text_rows_new(rv_text_rows *rows, int32_t capacity, rv_error *err) {
    int32_t *block = calloc((size_t)capacity * RV_ROW_ARRAYS, sizeof *block);
    if (!block) return rv_fail_memory(err, "rows of a pass");
    size_t n = (size_t)capacity;
    *rows = (rv_text_rows){ .capacity = capacity, .ids = block, .pos = block + n, .slot = block + 2 * n,
                            .image_first = block + 3 * n, .image_last = block + 4 * n,
                            .row_on = (float *)(void *)(block + 5 * n) };
    return RV_OK;
}

void rv_text_rows_free(rv_text_rows *rows) {
    free(rows->ids);
    *rows = (rv_text_rows){ 0 };
}

/* HF computes these in f32; so do we, operation by operation. */
void rv_text_rotary(const rv_text_config *t, int32_t context, float *out) {
    const int32_t half = t->head_dim / 2;
    const float low = (float)(t->rope_original / t->rope_low), high = (float)(t->rope_original / t->rope_high);
    for (int32_t j = 0; j < half; j++) {
        float f = 1.0f / (float)pow(t->rope_theta, (double)((float)(2 * j) / (float)t->head_dim));
        if (t->rope_scaled) {
            float wavelength = 6.283185307179586f / f, divided = f / (float)t->rope_factor;
            float smooth = ((float)t->rope_original / wavelength - (float)t->rope_low) / (float)(t->rope_high - t->rope_low);
            if (wavelength > low) f = divided;
            else if (wavelength >= high) f = (1 - smooth) * divided + smooth * f;
        }
        for (int32_t pos = 0; pos < context; pos++) {
            float angle = (float)pos * f, *row = out + (size_t)pos * (size_t)t->head_dim;
            row[j] = (float)cos((double)angle);
            row[half + j] = (float)sin((double)angle);
        }
    }
}

/* ---- which images a token sees ---- */

/* An image is seen from its token on, up to the next image that does not stand right behind it; a
 * run of adjacent image tokens is one group, whose end they share. */
int32_t rv_text_sight(const int32_t *ids, int32_t n, int32_t image_token, rv_sight *out) {
    int32_t images = 0, first = 0;
    bool run = false;                                /* the token before was an image */
    for (int32_t i = 0; i < n; i++) {
        bool image = ids[i] == image_token;
        if (image && !run) first = images;
        images += image;
        run = image;
        out[i] = images ? (rv_sight){ first, images - 1 } : (rv_sight){ 0, -1 };
    }
    return images;
}

/* ---- the pass ---- */

typedef struct pass {                    /* device views of this pass's rows                    */
    const rv_text *t;
    rv_mat x, h;
    const int32_t *ids, *pos, *slot, *image_first, *image_last;
    const float *row_on;
    int32_t n, longest_self, longest_image;
    bool apart, images;
} pass;

static rv_norm rms(const pass *p, const float *weight, int32_t width) {
    return (rv_norm){ weight, NULL, p->t->config->text.norm_eps, width };
}

/* out = norm(x) w^T. */
static void linear_normed(const pass *p, rv_mat out, rv_norm norm, const rv_weight *w) {
    rv_backend *be = p->t->be;
    if (rv_linear_normed(be, out, p->x, norm, w, false)) return;
    rv_norm_rows(be, p->h, p->x, norm);
    rv_linear(be, out, p->h, w, NULL, RV_ACT_NONE);
}
static void mlp(const pass *p, const rv_text_layer *w, float gate, const float *row_on) {
    rv_backend *be = p->t->be;
    rv_mat gate_up = rv_rows(p->t->scratch->gate_up, 0, p->n), ff = rv_rows(p->t->scratch->ff, 0, p->n);
    const rv_norm norm = rms(p, w->norm2, p->x.cols);
    if (!rv_linear_normed(be, ff, p->x, norm, w->gate_up, true)) {
        linear_normed(p, gate_up, norm, w->gate_up);
        rv_swiglu(be, ff, gate_up);
    }
    rv_linear_add(be, p->x, ff, w->down, NULL, gate, row_on);
}

static rv_attention attention(const pass *p, rv_mat q, rv_kv kv) {
    const rv_text_config *c = &p->t->config->text;
    return (rv_attention){ .q = q, .out = rv_rows(p->t->scratch->heads, 0, p->n), .kv = kv, .slot = p->slot,
                           .heads = c->heads, .kv_heads = c->kv_heads, .scale = (float)(1 / sqrt((double)c->head_dim)) };
}

/* What a layer of either kind hands to the coarse entry. */
static rv_decoder_block block(const pass *p, const rv_text_layer *w, rv_attention a) {
    rv_text_scratch *s = p->t->scratch;
    int32_t hidden = p->x.cols;
    return (rv_decoder_block){ .x = p->x, .h = p->h, .qkv = rv_rows(s->qkv, 0, p->n), .ff = rv_rows(s->ff, 0, p->n), .in = w->qkv, .o = w->o,
                               .gate_up = w->gate_up, .down = w->down, .norm1 = rms(p, w->norm1, hidden), .norm2 = rms(p, w->norm2, hidden),
                               .attention = a, .attn_gate = 1, .mlp_gate = 1 };
}

static rv_mat queries(const pass *p) {
    return rv_cols(rv_rows(p->t->scratch->qkv, 0, p->n), 0, p->t->config->text.heads * p->t->config->text.head_dim);
}

static rv_decoder_block self_block(const pass *p, const rv_text_layer *w, rv_kv cache) {
    rv_attention a = attention(p, queries(p), cache);
    a.last = p->pos;
    a.longest = p->longest_self;
    rv_decoder_block b = block(p, w, a);
    b.cos_sin = p->t->scratch->cos_sin;
    b.pos = p->pos;
    return b;
}

static void self_layer(const pass *p, const rv_text_layer *w, rv_kv cache) {
    const rv_text_config *c = &p->t->config->text;
    rv_backend *be = p->t->be;
    int32_t q_width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim;
    rv_decoder_block b = self_block(p, w, cache);
    rv_attention a = b.attention;
    rv_mat qkv = b.qkv, k = rv_cols(qkv, q_width, kv_width), v = rv_cols(qkv, q_width + kv_width, kv_width);
    if (p->apart && rv_decoder_layer(be, &b)) return;

    linear_normed(p, qkv, rms(p, w->norm1, p->x.cols), w->qkv);
    rv_rope(be, rv_cols(qkv, 0, q_width + kv_width), p->t->scratch->cos_sin, p->pos, c->head_dim);
    rv_kv_store(be, cache, k, v, p->slot, p->pos);
    rv_attend(be, &a);
    rv_linear_add(be, p->x, a.out, w->o, NULL, 1, NULL);
    mlp(p, w, 1, NULL);
}

/* Text looks at the picture.  Its keys and values were computed once, when the image came in. */
static rv_decoder_block cross_block(const pass *p, const rv_text_layer *w, rv_kv images) {
    rv_attention a = attention(p, queries(p), images);
    a.first = p->image_first;
    a.last = p->image_last;
    a.longest = p->longest_image;
    rv_decoder_block b = block(p, w, a);
    b.q_norm = rms(p, w->q_norm, p->t->config->text.head_dim);
    b.attn_gate = w->attn_gate;
    b.mlp_gate = w->mlp_gate;
    b.row_on = p->row_on;
    return b;
}

static void cross_layer(const pass *p, const rv_text_layer *w, rv_kv images) {
    const rv_text_config *c = &p->t->config->text;
    rv_backend *be = p->t->be;
    rv_decoder_block b = cross_block(p, w, images);
    rv_attention a = b.attention;
    rv_mat q = a.q;
    if (p->apart && rv_decoder_layer(be, &b)) return;

    linear_normed(p, q, rms(p, w->norm1, p->x.cols), w->qkv);
    rv_norm_rows(be, q, q, rms(p, w->q_norm, c->head_dim));
    rv_attend(be, &a);
    rv_linear_add(be, p->x, a.out, w->o, NULL, w->attn_gate, NULL);
    mlp(p, w, w->mlp_gate, p->row_on);
}

static bool layer_runs(const pass *p, int32_t i) { return !p->t->config->text.cross[i] || p->images; }

/* As many layers from `first` on as a backend may take at once; *next: the one after them.  False: nothing was done. */
static bool many_layers(const pass *p, int32_t first, int32_t *next) {
    const rv_text *t = p->t;
    const rv_text_config *c = &t->config->text;
    rv_decoder_block blocks[RV_BLOCKS_AT_ONCE];
    int32_t n = 0, i = first;
    if (!p->apart || t->watch) return false;
    for (; i < c->layers && n < RV_BLOCKS_AT_ONCE && !rv_streams(t->streamed, i); i++) {
        const rv_text_layer *w = &t->weights->text[i];
        if (layer_runs(p, i)) blocks[n++] = c->cross[i] ? cross_block(p, w, t->cache->cross[i]) : self_block(p, w, t->cache->self[i]);
    }
    *next = i;
    return n > 0 && rv_decoder_layers(t->be, blocks, n);
}

/* The layer that gets this one's buffer next in a pass of this kind, or the first that had it: then for the next pass. */
static int32_t streamed_after(const pass *p, int32_t i) {
    const rv_streamed *s = p->t->streamed;
    for (int32_t k = i + RV_LANES; k < s->end; k += RV_LANES)
        if (layer_runs(p, k)) return k;
    for (int32_t k = s->first + (i - s->first) % RV_LANES; k < i; k += RV_LANES)
        if (layer_runs(p, k)) return k;
    return -1;
}

static void one_layer(const pass *p, int32_t i);

static void streamed_layer(const pass *p, int32_t i) {
    const rv_text *t = p->t;
    if (!layer_runs(p, i)) return;
    rv_streamed_use(t->streamed, t->be, i);
    one_layer(p, i);
    rv_streamed_used(t->streamed, t->be, i, streamed_after(p, i));
}

static void one_layer(const pass *p, int32_t i) {
    const rv_text *t = p->t;
    if (!t->config->text.cross[i]) self_layer(p, &t->weights->text[i], t->cache->self[i]);
    else if (p->images) cross_layer(p, &t->weights->text[i], t->cache->cross[i]);
    if (t->watch && i + 1 < t->config->text.layers) t->watch(t->watch_user, i + 1, p->x);
}

static int32_t *device_of(const rv_text *t, const rv_text_rows *rows) { return rows->device ? rows->device : t->scratch->rows; }

void rv_text_answering(const rv_text *t, const rv_text_rows *rows, int32_t from, rv_answering *out) {
    int32_t *d = device_of(t, rows) + from;
    out->ids = d;
    out->pos = d + rows->n;
    out->slot = d + 2 * (size_t)rows->n;
}

void rv_text_upload(const rv_text *t, const rv_text_rows *rows) {
    size_t n = (size_t)rows->n;
    const void *const arrays[RV_ROW_ARRAYS] = { rows->ids, rows->pos, rows->slot, rows->image_first, rows->image_last, rows->row_on };
    for (size_t i = 0; i < RV_ROW_ARRAYS; i++) rv_upload(t->be, device_of(t, rows) + i * n, arrays[i], n * sizeof(int32_t));
}

static pass pass_of(const rv_text *t, const rv_text_rows *rows) {
    const size_t n = (size_t)rows->n;
    const int32_t *d = device_of(t, rows);
    return (pass){ .t = t, .x = rv_rows(t->scratch->x, 0, rows->n), .h = rv_rows(t->scratch->h, 0, rows->n),
                   .ids = d, .pos = d + n, .slot = d + 2 * n, .image_first = d + 3 * n, .image_last = d + 4 * n,
                   .row_on = (const float *)(const void *)(d + 5 * n), .n = rows->n,
                   .longest_self = rows->longest_self, .longest_image = rows->longest_image, .apart = rows->apart, .images = rows->images };
}

void rv_text_run(const rv_text *t, const rv_text_rows *rows, int32_t logits_from, int32_t logits_n) {
    rv_text_upload(t, rows);
    rv_text_queue(t, rows, logits_from, logits_n);
}

void rv_text_queue(const rv_text *t, const rv_text_rows *rows, int32_t logits_from, int32_t logits_n) {
    const rv_text_config *c = &t->config->text;
    const rv_weights *w = t->weights;
    pass p = pass_of(t, rows);
    rv_embed(t->be, p.x, w->embed, p.ids);
    if (t->watch) t->watch(t->watch_user, 0, p.x);
    for (int32_t i = 0, next; i < c->layers; i = next)
        if (!many_layers(&p, i, &next)) {
            (rv_streams(t->streamed, i) ? streamed_layer : one_layer)(&p, i);
            next = i + 1;
        }
    if (logits_n == 0) return;
    const rv_mat x = rv_rows(p.x, logits_from, logits_n), h = rv_rows(p.h, logits_from, logits_n), logits = rv_rows(t->scratch->logits, 0, logits_n);
    const rv_norm norm = rms(&p, w->norm, c->hidden);
    if (!t->watch && rv_linear_normed(t->be, logits, x, norm, w->head, false)) return;
    rv_norm_rows(t->be, h, x, norm);
    if (t->watch) t->watch(t->watch_user, c->layers, h);
    rv_linear(t->be, logits, h, w->head, NULL, RV_ACT_NONE);
}
