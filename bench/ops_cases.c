/* ops_cases.c - every case of `rvbench ops`: see ops.h. Bytes and FLOP are what the operation cannot do without. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "bench/ops.h"

enum { PAGE = 64, SQUARE = 2048 };

/* Begins a case; false when nobody asks for it. */
static bool begin(ops *o, op *c, const char *title, int32_t rows, const char *name, ...) __attribute__((format(printf, 5, 6)));
static bool begin(ops *o, op *c, const char *title, int32_t rows, const char *name, ...) {
    va_list args;
    *c = (op){ .copies = 1 };
    va_start(args, name);
    vsnprintf(c->name, sizeof c->name, name, args);
    va_end(args);
    snprintf(c->title, sizeof c->title, "%s, %d row%s", title, (int)rows, rows == 1 ? "" : "s");
    return o->status == RV_OK && ops_wanted(o, c->name);
}

static double size_of(const ops *o) { return (double)rv_dtype_size(o->be->act); }

static rv_norm plain_norm(ops *o, op *c, int32_t width, bool layer_norm) {
    return (rv_norm){ op_floats(o, c, width, 1), layer_norm ? op_floats(o, c, width, 0) : NULL, 1e-5f, width };
}

/* ---- products ----------------------------------------------------------------------------------- */

static void call_linear(ops *o, op *c, int32_t k) { rv_linear(o->be, c->out, c->x, c->w[k], c->bias, c->act); }
static void call_add(ops *o, op *c, int32_t k) { rv_linear_add(o->be, c->out, c->x, c->w[k], c->bias, 1e-6f, NULL); }

typedef struct product_shape {
    const char *name, *title;
    int32_t rows, cols;                          /* of the weight                                */
    rv_weight_use use;
    bool gate_up, add, f32_out, bias, gelu;
} product_shape;

static void product_in(ops *o, const char *prefix, int32_t n, const product_shape *p, rv_format format) {
    op c;
    bool plain = format == RV_FORMAT_PLAIN;
    if (!begin(o, &c, p->title, n, "%s_%d_%s%s%s", prefix, (int)n, p->name, plain ? "" : "_", plain ? "" : rv_format_name(format))) return;
    rv_dtype out = p->f32_out || p->add ? RV_F32 : o->be->act;
    double weight = (double)rv_codes_bytes(format, true, p->rows, p->cols);
    c.copies = op_copies(o, weight);
    c.x = op_matrix(o, &c, n, p->cols, o->be->act);
    c.out = op_room(o, &c, n, p->rows, out);
    if (p->bias) c.bias = op_floats(o, &c, p->rows, 0.5f);
    c.act = p->gelu ? RV_ACT_GELU : RV_ACT_NONE;
    for (int32_t k = 0; k < c.copies; k++) c.w[k] = op_weight(o, &c, p->rows, p->cols, p->use, p->gate_up, format, k);
    c.call = p->add ? call_add : call_linear;
    c.what = (need){ 2.0 * n * p->rows * p->cols, weight + n * (p->cols * size_of(o) + (double)p->rows * (double)rv_dtype_size(out) * (p->add ? 2 : 1)) };
    if (plain && n > RV_FEW_ROWS) {              /* rows that are no multiple take oneDNN many times as long */
        c.beside = (product_size){ n - n % RV_FEW_ROWS, p->rows, p->cols };
        c.beside_name = "here";
    }
    op_time(o, &c);
}

static void product(ops *o, const char *prefix, int32_t n, const product_shape *p) { product_in(o, prefix, n, p, RV_FORMAT_PLAIN); }

static void products(ops *o, const char *prefix, int32_t n, bool head) {
    const shape *s = o->s;
    int32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const product_shape all[] = {
        { "qkv", "q, k and v", q + 2 * kv, s->hidden, RV_USE_TEXT, .add = false },
        { "o", "o, added", s->hidden, q, RV_USE_TEXT, .add = true },
        { "gate_up", "gate and up", 2 * s->ffn, s->hidden, RV_USE_TEXT, .gate_up = true },
        { "down", "down, added", s->hidden, s->ffn, RV_USE_TEXT, .add = true },
        { "head", "head", s->vocab, s->hidden, RV_USE_TEXT, .f32_out = true },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all - !head; i++) product(o, prefix, n, &all[i]);
    for (rv_format format = RV_FORMAT_INT8; format <= RV_FORMAT_NF4; format++)
        for (size_t i = 0; i < sizeof all / sizeof *all - !(head && format == RV_FORMAT_INT8); i++) product_in(o, prefix, n, &all[i], format);
}

/* ---- attention ---------------------------------------------------------------------------------- */

static void call_attend(ops *o, op *c, int32_t k) {
    c->attention.kv = c->kv[k];
    rv_attend(o->be, &c->attention);
}

/* Many rows of attention are products too: oneDNN's best, or near it, beside them. */
static void beside_square(op *c, int32_t n) {
    if (n <= RV_FEW_ROWS) return;
    c->beside = (product_size){ SQUARE, SQUARE, SQUARE };
    c->beside_name = "on a square";
}

static rv_attention attention(ops *o, op *c, int32_t n, int32_t longest) {
    const shape *s = o->s;
    int32_t q = s->heads * s->head_dim;
    return (rv_attention){ .q = op_matrix(o, c, n, q, o->be->act), .out = op_room(o, c, n, q, o->be->act), .heads = s->heads,
                           .kv_heads = s->kv_heads, .longest = longest, .scale = (float)(1 / sqrt((double)s->head_dim)) };
}

static int32_t image_keys(const shape *s) {
    int32_t grid = s->tile / s->patch;
    return s->max_tiles * (grid * grid + 1);
}

/* Bytes of keys and values of so many keys. */
static double kv_bytes(const ops *o, double keys) { return keys * 2 * o->s->kv_heads * o->s->head_dim * size_of(o); }

/* Each row of another sequence, all as long. */
static void attend_self(ops *o, int32_t n) {
    op c;
    int32_t keys = o->s->self_keys, q = o->s->heads * o->s->head_dim;
    if (!begin(o, &c, "attention, own keys", n, "few_%d_attend_self_%d", (int)n, (int)keys)) return;
    c.copies = op_copies(o, kv_bytes(o, (double)n * keys));
    c.attention = attention(o, &c, n, o->s->context);
    c.attention.slot = op_counting(o, &c, n, 0, 1);
    c.attention.last = op_counting(o, &c, n, keys - 1, 0);
    for (int32_t k = 0; k < c.copies; k++) c.kv[k] = op_cache(o, &c, n, keys, PAGE, o->s->context);
    c.call = call_attend;
    c.what = (need){ 4.0 * n * keys * q, kv_bytes(o, (double)n * keys) + 2 * n * q * size_of(o) };
    op_time(o, &c);
}

/* All rows see one picture: its keys have to be read once. */
static void attend_image(ops *o, const char *prefix, int32_t n) {
    op c;
    int32_t keys = image_keys(o->s), q = o->s->heads * o->s->head_dim, page = keys / o->s->max_tiles;
    if (!begin(o, &c, "attention, image keys", n, "%s_%d_attend_image_%d", prefix, (int)n, (int)keys)) return;
    c.copies = op_copies(o, kv_bytes(o, keys));
    c.attention = attention(o, &c, n, keys);
    c.attention.last = op_counting(o, &c, n, keys - 1, 0);
    for (int32_t k = 0; k < c.copies; k++) {
        c.kv[k] = op_cache(o, &c, 1, keys, page, keys);
        c.kv[k].bias = op_floats(o, &c, keys, 0);
    }
    c.call = call_attend;
    c.what = (need){ 4.0 * n * keys * q, kv_bytes(o, keys) + 2 * n * q * size_of(o) };
    beside_square(&c, n);
    op_time(o, &c);
}

static void attend_causal(ops *o, int32_t n) {
    op c;
    int32_t q = o->s->heads * o->s->head_dim;
    if (!begin(o, &c, "attention, causal", n, "many_%d_attend_causal", (int)n)) return;
    c.attention = attention(o, &c, n, n);
    c.attention.last = op_counting(o, &c, n, 0, 1);
    c.kv[0] = op_cache(o, &c, 1, n, PAGE, n);
    c.call = call_attend;
    c.what = (need){ 2.0 * n * (n + 1.0) * q, kv_bytes(o, n) + 2 * n * q * size_of(o) };
    beside_square(&c, n);
    op_time(o, &c);
}

/* ---- rows --------------------------------------------------------------------------------------- */

static void call_norm(ops *o, op *c, int32_t k) {
    (void)k;
    rv_norm_rows(o->be, c->out, c->x, c->norm);
}
static void call_swiglu(ops *o, op *c, int32_t k) {
    (void)k;
    rv_swiglu(o->be, c->out, c->x);
}
static void call_rope(ops *o, op *c, int32_t k) {
    (void)k;
    rv_rope(o->be, c->x, c->cos_sin, c->pos, c->width);
}
static void call_store(ops *o, op *c, int32_t k) { rv_kv_store(o->be, c->kv[k], c->x, c->more, NULL, c->pos); }
static void call_best(ops *o, op *c, int32_t k) {
    (void)k;
    rv_best_rows(o->be, c->best, c->x);
}

static void norm(ops *o, const char *prefix, int32_t n, int32_t width, bool layer_norm) {
    op c;
    if (!begin(o, &c, layer_norm ? "LayerNorm" : "RMS norm", n, "%s_%d_norm", prefix, (int)n)) return;
    c.x = op_matrix(o, &c, n, width, RV_F32);
    c.out = op_room(o, &c, n, width, o->be->act);
    c.norm = plain_norm(o, &c, width, layer_norm);
    c.call = call_norm;
    c.what = (need){ 0, (double)n * width * (4 + size_of(o)) };
    op_time(o, &c);
}

static void swiglu(ops *o, int32_t n) {
    op c;
    if (!begin(o, &c, "SwiGLU", n, "many_%d_swiglu", (int)n)) return;
    c.x = op_matrix(o, &c, n, 2 * o->s->ffn, o->be->act);
    c.out = op_room(o, &c, n, o->s->ffn, o->be->act);
    c.call = call_swiglu;
    c.what = (need){ 0, 3.0 * n * o->s->ffn * size_of(o) };
    op_time(o, &c);
}

static void rope_and_store(ops *o, int32_t n) {
    const shape *s = o->s;
    int32_t kv = s->kv_heads * s->head_dim, width = (s->heads + s->kv_heads) * s->head_dim;
    op c;
    if (begin(o, &c, "rotation", n, "many_%d_rope", (int)n)) {
        c.x = op_matrix(o, &c, n, width, o->be->act);
        c.cos_sin = op_floats(o, &c, n * s->head_dim, 0.6f);
        c.pos = op_counting(o, &c, n, 0, 1);
        c.width = s->head_dim;
        c.call = call_rope;
        c.what = (need){ 0, 2.0 * n * width * size_of(o) };
        op_time(o, &c);
    }
    if (!begin(o, &c, "keys and values stored", n, "many_%d_kv_store", (int)n)) return;
    c.x = op_matrix(o, &c, n, kv, o->be->act);
    c.more = op_matrix(o, &c, n, kv, o->be->act);
    c.kv[0] = op_cache(o, &c, 1, n, PAGE, n);
    c.pos = op_counting(o, &c, n, 0, 1);
    c.call = call_store;
    c.what = (need){ 0, 2 * kv_bytes(o, n) };
    op_time(o, &c);
}

static void best(ops *o, int32_t n) {
    op c;
    if (!rv_can_run_ahead(o->be) || !begin(o, &c, "most likely token", n, "few_%d_best", (int)n)) return;
    c.x = op_matrix(o, &c, n, o->s->vocab, RV_F32);
    c.best = op_take(o, &c, (uint64_t)n * sizeof *c.best);
    c.call = call_best;
    c.what = (need){ 0, 4.0 * n * o->s->vocab };
    op_time(o, &c);
}

/* ---- whole layers ------------------------------------------------------------------------------- */

static void call_layer(ops *o, op *c, int32_t k) {
    if (!rv_decoder_layer(o->be, &c->block[k])) c->cannot = true;
}

/* Weights of four products for each copy, which are not in c->w: they are freed here. */
static void layer(ops *o, int32_t n, bool cross) {
    const shape *s = o->s;
    int32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, keys = cross ? image_keys(s) : s->self_keys;
    int32_t in = cross ? q : q + 2 * kv;
    rv_weight *owned[4 * MOST_COPIES] = { NULL };
    op c;
    if (!o->be->ops->decoder_block || !begin(o, &c, cross ? "decoder layer, image" : "decoder layer, self", n, "few_%d_layer_%s", (int)n, cross ? "image" : "self")) return;
    double weights = 2.0 * ((double)in * s->hidden + (double)s->hidden * q + 3.0 * s->ffn * s->hidden);
    c.copies = 2;
    rv_decoder_block b = { .x = op_matrix(o, &c, n, s->hidden, RV_F32), .h = op_room(o, &c, n, s->hidden, o->be->act),
                           .qkv = op_room(o, &c, n, q + 2 * kv, o->be->act), .ff = op_room(o, &c, n, s->ffn, o->be->act),
                           .norm1 = plain_norm(o, &c, s->hidden, false), .norm2 = plain_norm(o, &c, s->hidden, false),
                           .attn_gate = 1e-6f, .mlp_gate = 1e-6f };
    b.attention = attention(o, &c, n, cross ? keys : s->context);
    b.attention.q = rv_cols(b.qkv, 0, q);
    b.attention.last = op_counting(o, &c, n, keys - 1, 0);
    if (cross) b.q_norm = plain_norm(o, &c, s->head_dim, false);
    else {
        b.attention.slot = op_counting(o, &c, n, 0, 1);
        b.cos_sin = op_floats(o, &c, s->context * s->head_dim, 0.6f);
        b.pos = b.attention.last;
    }
    for (int32_t k = 0; k < c.copies; k++) {
        rv_weight **w = owned + 4 * k;
        c.block[k] = b;
        c.block[k].attention.kv = cross ? op_cache(o, &c, 1, keys, keys / s->max_tiles, keys) : op_cache(o, &c, n, keys, PAGE, s->context);
        if (cross) c.block[k].attention.kv.bias = op_floats(o, &c, keys, 0);
        c.block[k].in = w[0] = op_weight(o, &c, in, s->hidden, RV_USE_TEXT, false, RV_FORMAT_PLAIN, k);
        c.block[k].o = w[1] = op_weight(o, &c, s->hidden, q, RV_USE_TEXT, false, RV_FORMAT_PLAIN, k + 2);
        c.block[k].gate_up = w[2] = op_weight(o, &c, 2 * s->ffn, s->hidden, RV_USE_TEXT, true, RV_FORMAT_PLAIN, k);
        c.block[k].down = w[3] = op_weight(o, &c, s->hidden, s->ffn, RV_USE_TEXT, false, RV_FORMAT_PLAIN, k);
    }
    c.call = call_layer;
    c.what = (need){ n * weights + 4.0 * n * keys * q, weights + kv_bytes(o, cross ? keys : (double)n * keys) };
    op_time(o, &c);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) rv_weight_free(o->be, owned[i]);
}

/* ---- the lists ---------------------------------------------------------------------------------- */

void ops_few(ops *o, int32_t rows) {
    products(o, "few", rows, true);
    attend_self(o, rows);
    attend_image(o, "few", rows);
    norm(o, "few", rows, o->s->hidden, false);
    best(o, rows);
    layer(o, rows, false);
    layer(o, rows, true);
}

void ops_many(ops *o, int32_t rows) {
    products(o, "many", rows, false);
    attend_causal(o, rows);
    attend_image(o, "many", rows);
    norm(o, "many", rows, o->s->hidden, false);
    swiglu(o, rows);
    rope_and_store(o, rows);
}

static void call_patches(ops *o, op *c, int32_t k) {
    (void)k;
    rv_patches(o->be, c->out, c->x, NULL, 3, c->width);
}

/* Real tiles' rows, one padding tile where there is one, and the padding token: as the tower runs (engine/vision.h). */
void ops_vision(ops *o, int32_t tiles) {
    const shape *s = o->s;
    int32_t grid = s->tile / s->patch, tokens = grid * grid + 1, states = (tiles + (tiles < s->max_tiles)) * tokens, n = states + 1;
    int32_t d = s->v_hidden, kv = s->kv_heads * s->head_dim;
    const product_shape all[] = {
        { "qkv", "tower q, k and v", 3 * d, d, RV_USE_VISION, .add = false }, { "o", "tower o, added", d, d, RV_USE_VISION, .add = true },
        { "fc1", "tower fc1, bias, GELU", s->v_ffn, d, RV_USE_VISION, .bias = true, .gelu = true },
        { "fc2", "tower fc2, bias, added", d, s->v_ffn, RV_USE_VISION, .bias = true, .add = true },
    };
    const product_shape project = { "projector", "projector", s->hidden, s->v_out, RV_USE_VISION, .bias = true };
    const product_shape image_kv = { "kv", "image keys and values", 2 * kv, s->hidden, RV_USE_TEXT, .add = false };
    op c;
    if (begin(o, &c, "patches", tiles * grid * grid, "vision_%d_patches", (int)tiles)) {
        c.x = op_matrix(o, &c, tiles, 3 * s->tile * s->tile, RV_F32);
        c.out = op_room(o, &c, tiles * grid * grid, 3 * s->patch * s->patch, o->be->act);
        c.width = s->patch;
        c.call = call_patches;
        c.what = (need){ 0, (double)tiles * 3 * s->tile * s->tile * 4 + (double)tiles * grid * grid * 3 * s->patch * s->patch * size_of(o) };
        op_time(o, &c);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) product(o, "vision", n, &all[i]);
    if (begin(o, &c, "tower attention", n, "vision_%d_attend", (int)n)) {
        rv_mat qkv = op_matrix(o, &c, n, 3 * d, o->be->act);
        c.kv[0] = (rv_kv){ .k = rv_cols(qkv, d, d), .v = rv_cols(qkv, 2 * d, d), .bias = op_floats(o, &c, n, 0) };
        c.attention = (rv_attention){ .q = rv_cols(qkv, 0, d), .out = op_room(o, &c, n, d, o->be->act), .last = op_counting(o, &c, n, n - 1, 0),
                                      .heads = s->v_heads, .kv_heads = s->v_heads, .longest = n, .scale = (float)(1 / sqrt((double)d / s->v_heads)) };
        c.call = call_attend;
        c.what = (need){ 4.0 * n * n * d, 4.0 * n * d * size_of(o) };
        beside_square(&c, n);
        op_time(o, &c);
    }
    norm(o, "vision", n, d, true);
    product(o, "vision", states, &project);
    product(o, "vision", states, &image_kv);
}
