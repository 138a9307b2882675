/* measure.c - what a device can do, and what a request asks of it: the two sides of a percentage.
 *
 * The one idea: floors are computed from the config and the table of tensors, as the forward pass of this
 * model runs (padding lanes, key ranges), never from a measurement of the engine itself.
 */
#include <stddef.h>

#include "engine/abi.h"
#include "engine/cache.h"
#include "engine/session.h"
#include "engine/vision.h"

/* ---- the device ---- */

static rv_status peak_of(rv_backend_id backend, rv_backend *be, uint64_t limit, rv_peak *out, rv_error *err) {
#ifdef RV_CUDA
    if (backend == RV_BACKEND_CUDA) return rv_cuda_peak(be, limit, out, err);
#endif
    (void)backend;
    return rv_cpu_peak(be, limit, out, err);
}

/* Pinned host memory to the device, as streamed layers go: the best of a few. 0 where the backend has no such copies. */
static double host_rate(rv_backend *be) {
    enum { BYTES = 256 << 20, COPIES = 4, TRIES = 3 };
    double best = 0;
    if (!rv_can_bring(be)) return 0;
    void *host = rv_host_alloc(be, BYTES), *device = rv_device_alloc(be, BYTES);
    for (int i = 0; i < TRIES && host && device; i++) {
        rv_finish(be, NULL);
        double start = rv_now_ms();
        for (int k = 0; k < COPIES; k++) rv_bring(be, 0, device, host, BYTES);
        rv_brought(be, 0);
        rv_finish(be, NULL);
        double rate = COPIES * (double)BYTES / (rv_now_ms() - start) * 1e3;
        if (rate > best) best = rate;
    }
    rv_device_release(be, device);
    rv_host_release(be, host);
    rv_forgive(be);                      /* a host with no memory to spare streams nothing       */
    return best;
}

rv_status rv_measure_ceilings(const rv_load_options *load, rv_ceilings *out, rv_error *err) {
    if (!out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_measure_ceilings: out is NULL");
    rv_load_options o;
    rv_backend *be = NULL;
    rv_peak peak = { 0 };
    rv_status st = RV_OK;
    TRY(rv_abi_read(&o, sizeof o, load, "rv_load_options", err));
    TRY(rv_load_resolve(NULL, &o, err));
    TRY(rv_load_backend(&o, false, &be, err));
    rv_enter(be);
    TRY(peak_of(o.backend, be, o.memory_limit, &peak, err));
    rv_ceilings c = { .backend = o.backend, .compute = o.compute, .read_bytes_s = peak.read, .copy_bytes_s = peak.copy,
                      .flop_s = peak.flop, .buffer_bytes = peak.bytes, .product_side = (uint32_t)peak.side, .host_bytes_s = host_rate(be) };
    st = rv_abi_write(out, &c, sizeof c, "rv_ceilings", err);
done:
    if (be) rv_leave(be);
    rv_backend_close(be);
    return st;
}

/* ---- bytes of weights ---- */

typedef struct sum {
    const rv_model *m;
    uint64_t self, cross, head;          /* read by every row of text; by rows with an image; by rows with logits */
    uint64_t image_keys, projector, tower;     /* read once an image                           */
} sum;

static rv_status add(void *user, const rv_tensor_want *want, rv_error *err) {
    sum *s = user;
    const rv_tensor_row *row = want->row;
    const rv_tensor *t = rv_checkpoint_find(s->m->files.checkpoint, want->name);
    uint64_t n = (uint64_t)want->elements, bytes = n * sizeof(float);
    (void)err;
    if (row->kind == RV_KIND_GATE || (row->kind == RV_KIND_WEIGHT && row->use == RV_USE_ROWS)) return RV_OK;
    /* The CPU reads weights as they lie in the files; a GPU holds them in its own 16-bit type. */
    if (row->kind == RV_KIND_WEIGHT) {
        const rv_weight *w = *(rv_weight *const *)(const void *)((const char *)&s->m->weights + want->destination);
        const rv_weight_head *head = (const rv_weight_head *)(const void *)w;
        const int64_t rows = want->shape[0];
        bytes = s->m->options.backend == RV_BACKEND_CPU && t ? t->bytes : n * 2;
        if (head && head->format != RV_FORMAT_PLAIN) bytes = rv_codes_bytes(head->format, !s->m->options.nf4_single, rows, want->elements / rows);
    }
    if (row->part == RV_IN_VISION) s->tower += bytes;
    else if (row->part == RV_IN_PROJECTOR) s->projector += bytes;
    else if (row->part == RV_IN_HEAD || want->layer < 0) s->head += bytes;
    else if (row->destination == offsetof(rv_weights, text[0].kv) || row->destination == offsetof(rv_weights, text[0].k_norm))
        s->image_keys += bytes;
    else if (s->m->files.config.text.cross[want->layer]) s->cross += bytes;
    else s->self += bytes;
    return RV_OK;
}

/* ---- arithmetic ---- */

static double product(double rows, double cols, double depth) { return 2 * rows * cols * depth; }

/* Scores and sums of values for `pairs` pairs of a row and a key it sees, over all heads. */
static double attention(double pairs, double width) { return 4 * pairs * width; }

/* Real rows see all keys, padding rows the real ones. */
static double vision_layer(const rv_vision_config *v, double rows, double real) {
    double d = v->hidden, pairs = real * rows + (rows - real) * real;
    return product(rows, 3 * d, d) + attention(pairs, d) + product(rows, d, d) + 2 * product(rows, v->ffn, d);
}

static double tower_flop(const rv_model *m, int32_t tiles) {
    const rv_vision_config *v = &m->files.config.vision;
    rv_vision_layout l = rv_vision_layout_of(v, tiles, 1, m->weights.pads_are_equal);
    return product((double)tiles * v->grid * v->grid, v->hidden, (double)RV_CHANNELS * v->patch * v->patch) +
           v->layers * vision_layer(v, l.local_rows, l.real_rows) + v->global_layers * vision_layer(v, l.global_rows, l.real_rows);
}

/* Projector and image keys. */
static double keys_flop(const rv_model *m, int32_t tiles) {
    const rv_vision_config *v = &m->files.config.vision;
    const rv_text_config *t = &m->files.config.text;
    rv_vision_layout l = rv_vision_layout_of(v, tiles, 1, m->weights.pads_are_equal);
    double states = (double)rv_vision_pages(&l, m->options.reference) * v->tokens, kv = (double)t->kv_heads * t->head_dim;
    return product(states, t->hidden, v->output_dim) + t->n_cross * product(states, 2 * kv, t->hidden);
}

/* `rows` rows that see `pairs` pairs of keys of their own, and `keys` image keys each; logits for the last. */
static double text_flop(const rv_text_config *t, double rows, double pairs, double keys) {
    double q = (double)t->heads * t->head_dim, kv = (double)t->kv_heads * t->head_dim, h = t->hidden;
    double mlp = 3 * product(rows, t->ffn, h), self = product(rows, q + 2 * kv, h) + attention(pairs, q) + product(rows, h, q) + mlp;
    double cross = product(rows, q, h) + attention(rows * keys, q) + product(rows, h, q) + mlp;
    return (t->layers - t->n_cross) * self + (keys > 0 ? t->n_cross * cross : 0) + product(1, t->vocab, h);
}

rv_status rv_model_cost(const rv_model *m, uint32_t tiles, uint32_t tokens, rv_cost *out, rv_error *err) {
    if (!m || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_cost: %s is NULL", m ? "out" : "model");
    const rv_config *c = &m->files.config;
    if (tiles > (uint32_t)c->vision.max_tiles)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_cost: tiles: must be at most %d, is %u", c->vision.max_tiles, tiles);
    sum s = { .m = m };
    rv_status st = rv_weights_each(c, add, &s, err);
    if (st) return st;
    double n = tokens, keys = (double)tiles * c->vision.tokens;
    uint64_t weights = s.self + s.head + (tiles ? s.cross : 0), image = tiles * rv_cache_bytes_per_tile(c, m->be->act);
    rv_cost cost = {
        .tower_flop = tiles ? tower_flop(m, (int32_t)tiles) : 0,
        .vision_flop = tiles ? tower_flop(m, (int32_t)tiles) + keys_flop(m, (int32_t)tiles) : 0,
        .prefill_flop = tokens ? text_flop(&c->text, n, n * (n + 1) / 2, keys) : 0,
        .decode_flop = text_flop(&c->text, 1, n + 1, keys),
        .vision_bytes = tiles ? s.tower + s.projector + s.image_keys : 0,
        .tower_bytes = tiles ? s.tower : 0,
        .prefill_bytes = tokens ? weights + image : 0,
        .decode_bytes = weights + image + tokens * rv_cache_bytes_per_token(c, m->be->act),
        .decode_weight_bytes = weights,
    };
    return rv_abi_write(out, &cost, sizeof cost, "rv_cost", err);
}
