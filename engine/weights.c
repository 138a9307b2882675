/* weights.c - walks the tensor table: names, shapes, checks, and placing in memory. */
#include "engine/weights.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/quant.h"
#include "engine/modules.h"
#include "loader/bnb.h"

#define SHAPE(a, b, c, d) { RV_##a, RV_##b, RV_##c, RV_##d }
#define ROW(part, each, name, shape, kind, use, order, to, split) \
    { RV_IN_##part, RV_EACH_##each, name, SHAPE shape, RV_KIND_##kind, RV_USE_##use, RV_ORDER_##order, \
      offsetof(rv_weights, to), RV_SPLIT_##split },
static const rv_tensor_row table[] = { RV_TENSOR_TABLE(ROW) };
enum { TABLE_ROWS = sizeof table / sizeof *table };

static int64_t size_of(const rv_config *config, rv_size size) {
    const rv_text_config *t = &config->text;
    const rv_vision_config *v = &config->vision;
    const int64_t sizes[RV_SIZES] = {
        [RV_1] = 1, [RV_HIDDEN] = t->hidden, [RV_Q] = (int64_t)t->heads * t->head_dim,
        [RV_KV] = (int64_t)t->kv_heads * t->head_dim, [RV_FFN] = t->ffn, [RV_EMBED_ROWS] = (int64_t)t->vocab + 8,
        [RV_VOCAB] = t->vocab, [RV_HEAD_DIM] = t->head_dim, [RV_V_HIDDEN] = v->hidden, [RV_V_FFN] = v->ffn,
        [RV_V_OUT] = v->output_dim, [RV_V_TOKENS] = v->tokens, [RV_PATCH] = v->patch, [RV_COLOURS] = RV_CHANNELS,
        [RV_RATIO_ROWS] = v->n_ratios + 1, [RV_TILES_HIDDEN] = (int64_t)v->max_tiles * v->hidden,
        [RV_TILES_TOKENS_HIDDEN] = (int64_t)v->max_tiles * v->tokens * v->hidden,
    };
    return sizes[size];
}

/* Where layers of one kind lie in rv_weights, how many there are, and what stands before their names. */
typedef struct layers { int32_t count; size_t stride; const char *prefix; } layers;

static layers layers_of(const rv_config *config, const rv_tensor_row *row) {
    static const char *const parts[RV_PARTS] = { "text.", "lm_head.", "vision.", "projector." };
    switch (row->each) {
    case RV_EACH_TEXT_LAYER:
    case RV_EACH_SELF:
    case RV_EACH_CROSS: return (layers){ config->text.layers, sizeof(rv_text_layer), "text.layers." };
    case RV_EACH_LOCAL: return (layers){ config->vision.layers, sizeof(rv_vision_layer), "vision.transformer.layers." };
    case RV_EACH_GLOBAL:
        return (layers){ config->vision.global_layers, sizeof(rv_vision_layer), "vision.global_transformer.layers." };
    case RV_EACH_ONCE: break;
    }
    return (layers){ 1, 0, parts[row->part] };
}

static bool layer_has(const rv_config *config, const rv_tensor_row *row, int32_t layer) {
    return (row->each != RV_EACH_SELF || !config->text.cross[layer]) &&
           (row->each != RV_EACH_CROSS || config->text.cross[layer]);
}

static rv_tensor_want want_of(const rv_config *config, const rv_tensor_row *row, layers in, int32_t layer) {
    rv_tensor_want w = { .row = row, .layer = row->each == RV_EACH_ONCE ? -1 : layer, .elements = 1,
                         .destination = row->destination + (size_t)layer * in.stride };
    if (w.layer < 0) snprintf(w.name, sizeof w.name, "%s%s", in.prefix, row->name);
    else snprintf(w.name, sizeof w.name, "%s%d.%s", in.prefix, layer, row->name);
    for (; w.n_dims < RV_SHAPE_DIMS && row->shape[w.n_dims]; w.n_dims++) {
        w.shape[w.n_dims] = size_of(config, row->shape[w.n_dims]);
        w.elements *= w.shape[w.n_dims];
    }
    return w;
}

/* Rows of one `each` that stand together are walked layer by layer: all of layer 0, then layer 1. */
rv_status rv_weights_each(const rv_config *config, rv_want_fn each, void *user, rv_error *err) {
    for (int32_t from = 0, to; from < TABLE_ROWS; from = to) {
        layers in = layers_of(config, &table[from]);
        for (to = from + 1; to < TABLE_ROWS; to++) {
            layers other = layers_of(config, &table[to]);
            if (strcmp(other.prefix, in.prefix) || !in.stride != !other.stride) break;
        }
        for (int32_t layer = 0; layer < in.count; layer++)
            for (int32_t i = from; i < to; i++) {
                if (!layer_has(config, &table[i], layer)) continue;
                rv_tensor_want want = want_of(config, &table[i], in, layer);
                rv_status st = each(user, &want, err);
                if (st) return st;
            }
    }
    return RV_OK;
}

/* ---- checking ---- */

static void shape_text(char *out, size_t n, const int64_t *shape, int32_t dims) {
    size_t at = (size_t)snprintf(out, n, "[");
    for (int32_t i = 0; i < dims && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%" PRId64, i ? ", " : "", shape[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

typedef struct check { const rv_checkpoint *c; uint8_t *seen; const rv_tensor *first; } check;

static rv_status check_one(void *user, const rv_tensor_want *want, rv_error *err) {
    check *k = user;
    const rv_tensor *t = rv_checkpoint_find(k->c, want->name);
    if (!t)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: missing: config.json asks for it, no file of the model has it (%s)",
                       want->name, k->first->file);
    k->seen[t - k->first] = 1;
    if (rv_modules_linear(want->name)) {
        rv_codes codes;
        rv_status st = rv_checkpoint_codes(k->c, t, want->shape[0], want->shape[1], &codes, err);
        if (st || codes.format != RV_FORMAT_PLAIN) return st;
    }
    bool same = t->n_dims == want->n_dims && !memcmp(t->shape, want->shape, (size_t)t->n_dims * sizeof *t->shape);
    if (!same) {
        char is[96], asked[96];
        shape_text(is, sizeof is, t->shape, t->n_dims);
        shape_text(asked, sizeof asked, want->shape, want->n_dims);
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: shape is %s, config.json asks for %s (%s)", t->file_name, is, asked, t->file);
    }
    if (!rv_dtype_is_float(t->type))
        return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: type %s is not read; BF16, F16 and F32 are (%s)", t->file_name, t->type_name, t->file);
    return RV_OK;
}

/* A tensor that the config does not ask for: all right if a quantised weight does, which can only be a linear layer's: whatever else
 * has a quant_state beside it would be taken for codes by who looks no further. */
static rv_status check_other(const rv_checkpoint *c, const rv_tensor *t, rv_error *err) {
    const rv_tensor *weight = NULL;
    if (!rv_checkpoint_companion(c, t, &weight))
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: unexpected: a model with this config.json has no such tensor; "
                       "merge adapters into the model first (%s)", t->file_name, t->file);
    if (!weight)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: unexpected: there is no weight that is quantised so that it needs this (%s)", t->file_name, t->file);
    if (!rv_modules_linear(weight->name))
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: unexpected: only weights of linear layers are quantised, %s is none (%s)", t->file_name,
                       weight->file_name, t->file);
    return RV_OK;
}

rv_status rv_weights_check(const rv_config *config, const rv_checkpoint *c, rv_error *err) {
    uint32_t n = rv_checkpoint_count(c);
    if (n == 0) return rv_fail(err, RV_ERR_FORMAT, "the model's safetensors files hold no tensors");
    check k = { c, calloc(n, 1), rv_checkpoint_at(c, 0) };
    if (!k.seen) return rv_fail_memory(err, "tensor table");
    rv_status st = rv_weights_each(config, check_one, &k, err);
    for (uint32_t i = 0; st == RV_OK && i < n; i++)
        if (!k.seen[i]) st = check_other(c, rv_checkpoint_at(c, i), err);
    free(k.seen);
    return st;
}

/* ---- placing ---- */

typedef struct place {
    const rv_config *config;
    const rv_checkpoint *c;
    rv_backend *be;
    rv_arena *arena;
    rv_weights *out;
    uint64_t mapped, done, total;
    const rv_placing *how;
    rv_weight_spec spec;                 /* the weight whose parts are being gathered           */
    rv_format format[RV_WEIGHT_PARTS];   /* what each would be, alone                           */
    size_t destination;
    bool finite;                         /* 16-bit and 32-bit numbers are looked at             */
    uint64_t spec_bytes;
    float *staging;                      /* f32 of the longest vector                           */
    char name[RV_NAME_BYTES];
} place;

/* Of the other tables a request reads every row, and they are small. */
bool rv_weights_large_table(const rv_tensor_row *row) {
    return row->destination == offsetof(rv_weights, embed) || row->destination == offsetof(rv_weights, tile_position);
}

static void read_f32(float *out, const rv_tensor *t, int64_t n) {
    const char *data = t->data;
    if (t->type == RV_F32) memcpy(out, data, (size_t)n * sizeof *out);
    else
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, data + i * 2, sizeof h);
            out[i] = t->type == RV_BF16 ? rv_bf16_to_f32(h) : rv_f16_to_f32(h);
        }
}

/* They are made into something else now: what they were made of need not count as this process' memory. */
static void forget_parts(const place *p) {
    for (int32_t i = 0; i < p->spec.n_parts; i++) {
        const rv_weight_part *part = &p->spec.part[i];
        if (part->data) rv_checkpoint_forget(p->c, part->data, (uint64_t)part->rows * (uint64_t)p->spec.cols * rv_dtype_size(part->type));
    }
}

/* Where the weight at p->destination goes on the device. */
static rv_arena *arena_of(place *p) {
    const size_t from = offsetof(rv_weights, text), layer = p->destination < from ? SIZE_MAX : (p->destination - from) / sizeof(rv_text_layer);
    if (layer >= RV_MAX_LAYERS || !rv_streams(p->how->streamed, (int32_t)layer)) return p->arena;
    const bool image_keys = p->destination == offsetof(rv_weights, text[0].kv) + layer * sizeof(rv_text_layer);
    return image_keys ? p->arena : rv_streamed_arena(p->how->streamed, p->be, (int32_t)layer);
}

static rv_status finish_weight(place *p, rv_error *err) {
    rv_weight_spec *s = &p->spec;
    if (s->n_parts == 0) return RV_OK;
    const rv_codes *first = s->part[0].codes;
    s->format = p->format[0];
    s->nested = first ? first->nested != NULL : p->how->nested;
    for (int32_t i = 1; i < s->n_parts; i++) {
        const rv_codes *codes = s->part[i].codes;
        if (p->format[i] != s->format || !codes != !first || (codes && !codes->nested != !first->nested)) s->format = RV_FORMAT_PLAIN;
    }
    uint64_t bytes = rv_weight_bytes(p->be, s);
    void *memory = rv_arena_take(s->on_host ? p->how->host : arena_of(p), bytes);
    if (bytes == 0) p->mapped += p->spec_bytes;
    if (p->arena->base) *(rv_weight **)(void *)((char *)p->out + p->destination) = rv_weight_new(p->be, s, memory);
    if (p->arena->base && bytes && !rv_loading(p->be)) forget_parts(p);
    p->done += p->spec_bytes;
    *s = (rv_weight_spec){ 0 };
    p->spec_bytes = 0;
    if (p->be->error.code) {
        if (err) *err = p->be->error;
        return p->be->error.code;
    }
    const rv_weights_progress *progress = &p->how->progress;
    if (p->arena->base && progress->call && progress->call(progress->user, (float)((double)p->done / (double)p->total)))
        return rv_fail(err, RV_ERR_CANCELLED, "loading was stopped by the progress callback");
    return RV_OK;
}

static rv_status fail_infinite(const rv_tensor *t, rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "tensor %s: holds NaN or Inf (%s)", t->file_name, t->file);
}

/* A matrix of the checkpoint, and what it becomes.  Codes are kept in out->codes, which has room for all there are. */
static rv_status read_part(place *p, const rv_tensor_want *want, const rv_tensor *t, int32_t rows, int32_t cols, rv_weight_part *part,
                           rv_format *format, rv_error *err) {
    const bool linear = want->row->use != RV_USE_ROWS && want->n_dims == 2;
    *part = (rv_weight_part){ p->arena->base ? t->data : NULL, t->type, rows, NULL };
    *format = RV_FORMAT_PLAIN;
    if (rv_checkpoint_format(p->c, t) != RV_FORMAT_PLAIN) {
        rv_codes *codes = &p->out->codes[p->out->n_codes++];
        rv_status st = rv_checkpoint_codes(p->c, t, rows, cols, codes, err);
        if (st == RV_OK && p->arena->base) st = rv_checkpoint_check_scales(t, codes, rows, cols, err);
        if (st) return st;
        *part = (rv_weight_part){ NULL, RV_U8, rows, codes };
        /* Blocks that cross the ends of rows suit no product: such weights are read as 16 bit. */
        if (p->how->as_stored && (codes->format < RV_FORMAT_NF4 || cols % RV_BLOCK4 == 0)) *format = codes->format;
    } else if (linear && p->how->format != RV_FORMAT_PLAIN) *format = rv_modules_format_of(p->how->modules, want, p->how->format);
    if (p->how->head_int8 && want->row->part == RV_IN_HEAD && !part->codes) *format = RV_FORMAT_INT8;
    return RV_OK;
}

static rv_status add_part(place *p, const rv_tensor_want *want, const rv_tensor *t, rv_error *err) {
    const rv_vision_config *v = &p->config->vision;
    int64_t cols = want->n_dims < 2 ? want->elements : want->elements / want->shape[0];
    /* Tile tables are looked up by (aspect ratio, tile[, token]): one vector a row. */
    if (want->row->use == RV_USE_ROWS && want->row->part == RV_IN_VISION) cols = v->hidden;
    rv_weight_spec *s = &p->spec;
    if (s->n_parts == 0) {
        memcpy(p->name, want->name, sizeof p->name);
        *s = (rv_weight_spec){ .name = p->name, .cols = (int32_t)cols, .use = want->row->use, .order = want->row->order,
                               .on_host = p->how->host && rv_weights_large_table(want->row) };
        s->filled = p->how->filled && !s->on_host;
        s->finite = p->finite;
        p->destination = want->destination;
    }
    int32_t rows = (int32_t)(want->elements / cols);
    rv_status st = read_part(p, want, t, rows, (int32_t)cols, &s->part[s->n_parts], &p->format[s->n_parts], err);
    s->part_name[s->n_parts] = t->file_name;
    s->n_parts++;
    s->rows += rows;
    p->spec_bytes += t->bytes;
    return st;
}

static rv_status place_one(void *user, const rv_tensor_want *want, rv_error *err) {
    place *p = user;
    const rv_tensor *t = rv_checkpoint_find(p->c, want->name);
    if (!t) return rv_fail(err, RV_ERR_INTERNAL, "tensor %s: not checked before placing", want->name);
    if (p->spec.n_parts && (want->row->kind != RV_KIND_WEIGHT || want->destination != p->destination)) {
        rv_status st = finish_weight(p, err);
        if (st) return st;
    }
    void *to = (char *)p->out + want->destination;
    if (want->row->kind == RV_KIND_WEIGHT) return add_part(p, want, t, err);
    if (want->row->kind == RV_KIND_VECTOR) {
        uint64_t bytes = (uint64_t)want->elements * sizeof(float);
        float *vector = rv_arena_take(p->arena, bytes);
        if (vector && !rv_all_finite(t->data, t->type, want->elements)) return fail_infinite(t, err);
        if (vector && !p->how->filled) {
            read_f32(p->staging, t, want->elements);
            rv_upload(p->be, vector, p->staging, bytes);
        }
        if (vector) *(float **)to = vector;
    } else if (p->arena->base) {
        float gate;
        read_f32(&gate, t, 1);
        *(float *)to = tanhf(gate);
    }
    return RV_OK;
}

static uint32_t count_coded(const rv_checkpoint *c) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) n += rv_checkpoint_format(c, rv_checkpoint_at(c, i)) != RV_FORMAT_PLAIN;
    return n;
}

/* Whether any weight will be int8, whose products drop NaN among activations as bitsandbytes does: NaN in what stays 16 bit would
 * become an answer like any other. */
static bool any_int8(const rv_checkpoint *c, const rv_placing *how) {
    if (how->head_int8) return true;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        const rv_tensor *t = rv_checkpoint_at(c, i);
        const rv_format stored = rv_checkpoint_format(c, t);
        if (stored == RV_FORMAT_INT8 && how->as_stored) return true;
        if (stored == RV_FORMAT_PLAIN && how->format != RV_FORMAT_PLAIN && rv_modules_format(how->modules, t->name, how->format) == RV_FORMAT_INT8) return true;
    }
    return false;
}

static uint64_t weight_bytes_in_files(const rv_checkpoint *c) {
    uint64_t bytes = 1;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) bytes += rv_checkpoint_at(c, i)->bytes;
    return bytes;
}

rv_status rv_weights_place(const rv_config *config, const rv_checkpoint *c, rv_backend *be, rv_arena *arena,
                           const rv_placing *how, rv_weights *out, uint64_t *mapped, rv_error *err) {
    int64_t longest = config->text.hidden;
    if (longest < config->vision.ffn) longest = config->vision.ffn;
    if (longest < config->vision.hidden) longest = config->vision.hidden;
    free(out->codes);
    memset(out, 0, sizeof *out);
    for (int32_t i = 0; i < RV_MAX_LAYERS; i++) out->local[i].attn_gate = out->local[i].ffn_gate = 1;
    place p = { .config = config, .c = c, .be = be, .arena = arena, .out = out, .how = how,
                .total = weight_bytes_in_files(c), .staging = malloc((size_t)longest * sizeof(float)) };
    out->codes = calloc(count_coded(c) + 1, sizeof *out->codes);
    if (!p.staging || !out->codes) {
        free(p.staging);
        return rv_fail_memory(err, "weights");
    }
    p.finite = arena->base && !how->filled && any_int8(c, how);
    rv_status st = rv_weights_each(config, place_one, &p, err);
    if (st == RV_OK) st = finish_weight(&p, err);
    if (how->streamed) rv_streamed_finish(how->streamed, be);
    if (st == RV_OK && be->error.code) {
        if (err) *err = be->error;
        st = be->error.code;
    }
    if (st == RV_OK && arena->base && !how->filled) out->pads_are_equal = rv_weights_pads_equal(config, c);
    *mapped = p.mapped;
    free(p.staging);
    return st;
}

static rv_status free_one(void *user, const rv_tensor_want *want, rv_error *err) {
    place *p = user;
    (void)err;
    if (want->row->kind != RV_KIND_WEIGHT) return RV_OK;
    rv_weight **w = (rv_weight **)(void *)((char *)p->out + want->destination);
    rv_weight_free(p->be, *w);
    *w = NULL;
    return RV_OK;
}

void rv_weights_free(const rv_config *config, rv_backend *be, rv_weights *w) {
    place p = { .be = be, .out = w };
    rv_weights_each(config, free_one, &p, NULL);
    free(w->codes);
    w->codes = NULL;
}

/* ---- padding tiles ---- */

/* -0 counts as zero: signs are masked.  Eight bytes at a time: these tables are a large part of a small vision tower. */
static bool all_zero(const char *data, size_t bytes, rv_dtype type) {
    const uint64_t mask = rv_dtype_size(type) == 4 ? UINT64_C(0x7fffffff7fffffff) : UINT64_C(0x7fff7fff7fff7fff);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, data + i, bytes - i < 8 ? bytes - i : 8);
        if (word & mask) return false;
    }
    return true;
}

bool rv_weights_pads_equal(const rv_config *config, const rv_checkpoint *c) {
    static const char *const tables[] = { "vision.gated_positional_embedding.tile_embedding.weight",
                                          "vision.pre_tile_positional_embedding.embedding.weight",
                                          "vision.post_tile_positional_embedding.embedding.weight" };
    const rv_vision_config *v = &config->vision;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        const rv_tensor *t = rv_checkpoint_find(c, tables[k]);
        if (!t || t->n_dims != 2) return false;
        size_t row = (size_t)t->shape[1] * rv_dtype_size(t->type), slot = row / (size_t)v->max_tiles;
        for (int32_t i = 0; i < v->n_ratios; i++) {
            size_t used = (size_t)(v->ratios[i][0] * v->ratios[i][1]) * slot;
            if (!all_zero((const char *)t->data + (size_t)(i + 1) * row + used, row - used, t->type)) return false;
        }
    }
    return true;
}
