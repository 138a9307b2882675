/* bnb.c - see bnb.h. */
#include "loader/bnb.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/json_tree.h"

enum { NAME = 512, MOST_STATE = 4096 };
#define STATE ".quant_state.bitsandbytes__"

static const char *const state_tails[] = { STATE "nf4", STATE "fp4" };
static const rv_format   state_formats[] = { RV_FORMAT_NF4, RV_FORMAT_FP4 };

/* ---- finding ---- */

/* The tensor "weight's name + tail"; where there is none, and `wanted`, an error says so. */
static const rv_tensor *beside(const rv_checkpoint *c, const rv_tensor *weight, const char *tail, bool wanted, rv_error *err) {
    char name[NAME];
    const rv_tensor *t = NULL;
    if (snprintf(name, sizeof name, "%s%s", weight->name, tail) < (int)sizeof name) t = rv_checkpoint_find(c, name);
    if (!t && wanted)
        rv_fail(err, RV_ERR_FORMAT, "tensor %s%s: missing: the weight is quantised and cannot be read without it (%s)", weight->file_name, tail, weight->file);
    return t;
}

/* The same beside the module: X.SCB of X.weight. */
static const rv_tensor *beside_module(const rv_checkpoint *c, const rv_tensor *weight, const char *leaf) {
    const char *dot = strrchr(weight->name, '.');
    char name[NAME];
    if (!dot || strcmp(dot, ".weight") || snprintf(name, sizeof name, "%.*s.%s", (int)(dot - weight->name), weight->name, leaf) >= (int)sizeof name) return NULL;
    return rv_checkpoint_find(c, name);
}

static const rv_tensor *find_state(const rv_checkpoint *c, const rv_tensor *weight, rv_format *format, rv_error *err) {
    const rv_tensor *found = NULL;
    for (size_t i = 0; i < sizeof state_tails / sizeof *state_tails; i++) {
        const rv_tensor *t = beside(c, weight, state_tails[i], false, NULL);
        if (t && found) return rv_fail(err, RV_ERR_FORMAT, "tensor %s: has two quant_states, nf4 and fp4 (%s)", weight->file_name, weight->file), NULL;
        if (t) found = t, *format = state_formats[i];
    }
    return found;
}

static rv_status expect(const rv_tensor *t, rv_dtype type, const char *type_name, int64_t n, rv_error *err) {
    if (t->type != type)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: is %s, must be %s (%s)", t->file_name, t->type_name, type_name, t->file);
    if (t->bytes != (uint64_t)n * rv_dtype_size(type))
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: has %" PRIu64 " elements, its weight needs %" PRId64 " (%s)", t->file_name,
                       t->bytes / rv_dtype_size(type), n, t->file);
    return RV_OK;
}

/* ---- numbers ---- */

static float f32_at(const void *from, int64_t i) {
    float f;
    memcpy(&f, (const char *)from + i * 4, sizeof f);
    return f;
}

static rv_status read_map(const rv_tensor *t, float *to, int64_t n, rv_error *err) {
    rv_status st = expect(t, RV_F32, "F32", n, err);
    for (int64_t i = 0; st == RV_OK && i < n; i++) {
        to[i] = f32_at(t->data, i);
        if (!isfinite(to[i])) st = rv_fail(err, RV_ERR_FORMAT, "tensor %s: entry %" PRId64 " is not a finite number (%s)", t->file_name, i, t->file);
    }
    return st;
}

/* The largest that weights of 4 bits may be: in f32 and bf16 they stay finite whatever the rounding; casts to f16 saturate. */
#define MOST_WEIGHT 0x1.fep127
/* The largest SCB: bitsandbytes takes absmaxes of rows that it has rounded to f16, whatever type they had. */
#define MOST_SCB    65504.0

static rv_status check_scales(const rv_tensor *weight, const char *what, const void *scale, int64_t n, double most, rv_error *err) {
    const float limit = (float)most;
    uint32_t top, bits;
    memcpy(&top, &limit, sizeof top);
    /* As bits: numbers from +0 up are in their order, infinity and NaN behind them; -0 is let pass. */
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, (const char *)scale + i * 4, sizeof bits);
        if (bits <= top || bits == 0x80000000u) continue;
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: scale %" PRId64 " (%s) is %g, must be a number from 0 to %g: damaged? copy or download the "
                       "model again (%s)", weight->file_name, i, what, (double)f32_at(scale, i), most, weight->file);
    }
    return RV_OK;
}

static double largest_of(const float *map, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, fabs((double)map[i]));
    return most;
}

/* The scale of which `factor` times is `product`; any finite one where that is no limit. */
static double limit_of(double product, double factor) { return product < MOST_WEIGHT * factor ? product / factor : MOST_WEIGHT; }

rv_status rv_checkpoint_check_scales(const rv_tensor *weight, const rv_codes *q, int64_t rows, int64_t cols, rv_error *err) {
    const int64_t blocks = rows * cols / RV_BLOCK4;
    if (q->format == RV_FORMAT_INT8) return check_scales(weight, "SCB", q->scale, rows, MOST_SCB, err);
    const double absmax = limit_of(MOST_WEIGHT, largest_of(q->map, 16)), offset = fabs((double)q->offset);
    if (!q->nested) return check_scales(weight, "absmax", q->scale, blocks, absmax, err);
    if (offset > absmax)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: nested_offset is %g, must be a number from %g to %g: damaged? copy or download the "
                       "model again (%s)", weight->file_name, (double)q->offset, -absmax, absmax, weight->file);
    /* An absmax may come out a little below 0: that is what rounding to a code does to small ones. */
    return check_scales(weight, "nested_absmax", q->nested_scale, (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK,
                        limit_of(absmax - offset, largest_of(q->nested_map, 256)), err);
}

/* ---- int8 ---- */

static rv_status read_int8(const rv_checkpoint *c, const rv_tensor *weight, int64_t rows, int64_t cols, rv_codes *out, rv_error *err) {
    const rv_tensor *scb = beside_module(c, weight, "SCB"), *order = beside_module(c, weight, "weight_format");
    rv_status st = RV_OK;
    if (weight->n_dims != 2 || weight->shape[0] != rows || weight->shape[1] != cols)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: int8 codes of %d dimensions, %" PRIu64 " in all; config.json asks for [%" PRId64 ", %" PRId64 "] (%s)",
                       weight->file_name, weight->n_dims, weight->bytes, rows, cols, weight->file);
    if (!scb)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: is I8 but has no SCB (its rows' scales) beside it: not a bitsandbytes 8-bit weight, or incomplete (%s)",
                       weight->file_name, weight->file);
    TRY(expect(scb, RV_F32, "F32", rows, err));
    if (order) TRY(expect(order, RV_U8, "U8", 1, err));
    uint8_t is = order ? *(const uint8_t *)order->data : 0;
    if (is != 0)
        TRY(rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: is %u, codes in an order of older GPUs' own; only 0 (row by row) is read: save the model again with "
                    "bitsandbytes 0.45 or newer (%s)", order->file_name, is, order->file));
    *out = (rv_codes){ .format = RV_FORMAT_INT8, .codes = weight->data, .scale = scb->data };
done:
    return st;
}

/* ---- 4 bit: the JSON ---- */

typedef struct state { const rv_tensor *t; json_t *root; bool nested; float offset; } state;

static rv_status bad(const state *s, rv_status code, const char *key, const char *why, rv_error *err) {
    return rv_fail(err, code, "tensor %s: %s: %s (%s)", s->t->file_name, key, why, s->t->file);
}

static rv_status want_text(const state *s, const char *key, const char *const *allowed, size_t n, rv_error *err) {
    const char *is = json_string_value(json_object_get(s->root, key));
    char why[160];
    if (!is) return bad(s, RV_ERR_FORMAT, key, "must be a text", err);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(is, allowed[i])) return RV_OK;
    snprintf(why, sizeof why, "\"%.60s\" is not read; \"%s\" is", is, allowed[0]);
    return bad(s, RV_ERR_UNSUPPORTED, key, why, err);
}

static rv_status want_whole(const state *s, const char *key, json_int_t wanted, rv_error *err) {
    const json_t *is = json_object_get(s->root, key);
    char why[120];
    if (!json_is_integer(is)) return bad(s, RV_ERR_FORMAT, key, "must be a whole number", err);
    if (json_integer_value(is) == wanted) return RV_OK;
    snprintf(why, sizeof why, "is %lld; only %lld is read", (long long)json_integer_value(is), (long long)wanted);
    return bad(s, RV_ERR_UNSUPPORTED, key, why, err);
}

static rv_status want_shape(const state *s, int64_t rows, int64_t cols, rv_error *err) {
    const json_t *shape = json_object_get(s->root, "shape");
    char why[160];
    if (json_array_size(shape) != 2 || !json_is_integer(json_array_get(shape, 0)) || !json_is_integer(json_array_get(shape, 1)))
        return bad(s, RV_ERR_FORMAT, "shape", "must be a list of two whole numbers", err);
    json_int_t is[2] = { json_integer_value(json_array_get(shape, 0)), json_integer_value(json_array_get(shape, 1)) };
    if (is[0] == rows && is[1] == cols) return RV_OK;
    snprintf(why, sizeof why, "is [%lld, %lld], config.json asks for [%" PRId64 ", %" PRId64 "]", (long long)is[0], (long long)is[1], rows, cols);
    return bad(s, RV_ERR_FORMAT, "shape", why, err);
}

static rv_status read_nesting(state *s, rv_error *err) {
    static const char *const f32[] = { "float32" };
    const json_t *offset = json_object_get(s->root, "nested_offset");
    rv_status st = RV_OK;
    s->nested = json_object_get(s->root, "nested_blocksize") || json_object_get(s->root, "nested_dtype") || offset;
    if (!s->nested) return RV_OK;
    TRY(want_whole(s, "nested_blocksize", RV_NESTED_BLOCK, err));
    TRY(want_text(s, "nested_dtype", f32, 1, err));
    if (!json_is_number(offset)) TRY(bad(s, RV_ERR_FORMAT, "nested_offset", "must be a number", err));
    s->offset = (float)json_number_value(offset);
    if (!isfinite(s->offset)) TRY(bad(s, RV_ERR_FORMAT, "nested_offset", "is not a finite f32", err));
done:
    return st;
}

/* The caller frees s->root in any case. */
static rv_status read_state(state *s, rv_format format, int64_t rows, int64_t cols, rv_error *err) {
    static const char *const dtypes[] = { "bfloat16", "float16", "float32" };
    const char *const type = rv_format_name(format);
    json_error_t json;
    bool no_memory;
    char why[320];
    rv_status st = RV_OK;
    if (s->t->type != RV_U8) TRY(bad(s, RV_ERR_FORMAT, "type", "must be U8, the bytes of a JSON text", err));
    if (s->t->bytes > MOST_STATE) TRY(bad(s, RV_ERR_FORMAT, "JSON", "is longer than any quant_state", err));
    s->root = rv_json_load(s->t->data, (size_t)s->t->bytes, JSON_REJECT_DUPLICATES, &json, &no_memory);
    if (!s->root && no_memory) TRY(rv_fail_memory(err, s->t->file_name));
    if (!s->root) {
        snprintf(why, sizeof why, "not valid: %s at byte %d", json.text, json.position);
        TRY(bad(s, RV_ERR_FORMAT, "JSON", why, err));
    }
    if (!json_is_object(s->root)) TRY(bad(s, RV_ERR_FORMAT, "JSON", "must be an object", err));
    TRY(want_text(s, "quant_type", &type, 1, err));
    TRY(want_whole(s, "blocksize", RV_BLOCK4, err));
    TRY(want_text(s, "dtype", dtypes, sizeof dtypes / sizeof *dtypes, err));
    TRY(want_shape(s, rows, cols, err));
    TRY(read_nesting(s, err));
done:
    return st;
}

/* ---- 4 bit: the tensors ---- */

static rv_status read_4bit(const rv_checkpoint *c, const rv_tensor *weight, state *s, int64_t rows, int64_t cols, rv_codes *out, rv_error *err) {
    const int64_t n = rows * cols, blocks = n / RV_BLOCK4;
    const rv_tensor *absmax, *map, *nested_absmax, *nested_map;
    rv_status st = read_state(s, out->format, rows, cols, err);
    if (st) return st;
    if (n % RV_BLOCK4)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: %" PRId64 " weights are no multiple of the block of %d (%s)", weight->file_name, n, RV_BLOCK4, weight->file);
    if (weight->bytes != (uint64_t)n / 2)
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s: has %" PRIu64 " bytes of codes, [%" PRId64 ", %" PRId64 "] needs %" PRId64 " (%s)", weight->file_name,
                       weight->bytes, rows, cols, n / 2, weight->file);
    if (!(absmax = beside(c, weight, ".absmax", true, err)) || !(map = beside(c, weight, ".quant_map", true, err))) return RV_ERR_FORMAT;
    out->codes = weight->data;
    out->offset = s->offset;
    TRY(read_map(map, out->map, 16, err));
    if (!s->nested) {
        TRY(expect(absmax, RV_F32, "F32 (the quant_state has no nested_blocksize)", blocks, err));
        out->scale = absmax->data;
        return RV_OK;
    }
    TRY(expect(absmax, RV_U8, "U8 (the quant_state has a nested_blocksize)", blocks, err));
    if (!(nested_absmax = beside(c, weight, ".nested_absmax", true, err)) || !(nested_map = beside(c, weight, ".nested_quant_map", true, err)))
        return RV_ERR_FORMAT;
    TRY(expect(nested_absmax, RV_F32, "F32", (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK, err));
    TRY(read_map(nested_map, out->nested_map, 256, err));
    out->nested = absmax->data;
    out->nested_scale = nested_absmax->data;
done:
    return st;
}

rv_status rv_checkpoint_codes(const rv_checkpoint *c, const rv_tensor *weight, int64_t rows, int64_t cols, rv_codes *out, rv_error *err) {
    rv_error two = { 0 };
    *out = (rv_codes){ .format = RV_FORMAT_PLAIN };
    state s = { .t = find_state(c, weight, &out->format, &two) };
    if (two.code) {
        if (err) *err = two;
        return two.code;
    }
    if (s.t) {
        rv_status st = read_4bit(c, weight, &s, rows, cols, out, err);
        json_decref(s.root);
        return st;
    }
    if (weight->type == RV_I8) return read_int8(c, weight, rows, cols, out, err);
    if (weight->type == RV_U8 || beside(c, weight, ".quant_map", false, NULL))
        return rv_fail(err, RV_ERR_FORMAT, "tensor %s" STATE "nf4: missing: the weight is quantised and cannot be read without it (%s)", weight->file_name,
                       weight->file);
    return RV_OK;
}

rv_format rv_checkpoint_format(const rv_checkpoint *c, const rv_tensor *t) {
    rv_format format = RV_FORMAT_PLAIN;
    if (!find_state(c, t, &format, NULL) && format == RV_FORMAT_PLAIN && t->type == RV_I8) format = RV_FORMAT_INT8;
    return format;
}

/* ---- companions ---- */

static const rv_tensor *find_n(const rv_checkpoint *c, const char *head, size_t n, const char *tail) {
    char name[NAME];
    return snprintf(name, sizeof name, "%.*s%s", (int)n, head, tail) < (int)sizeof name ? rv_checkpoint_find(c, name) : NULL;
}

bool rv_checkpoint_companion(const rv_checkpoint *c, const rv_tensor *t, const rv_tensor **weight) {
    static const struct { const char *tail; bool int8, nested; } kinds[] = {
        { ".SCB", true, false }, { ".weight_format", true, false }, { ".absmax", false, false }, { ".quant_map", false, false },
        { ".nested_absmax", false, true }, { ".nested_quant_map", false, true }, { STATE "nf4", false, false }, { STATE "fp4", false, false } };
    const size_t n = strlen(t->name);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const size_t m = strlen(kinds[i].tail);
        rv_format format = RV_FORMAT_PLAIN;
        if (n <= m || strcmp(t->name + n - m, kinds[i].tail)) continue;
        *weight = find_n(c, t->name, n - m, kinds[i].int8 ? ".weight" : "");
        if (!*weight) return true;
        const rv_tensor *state_of = find_state(c, *weight, &format, NULL);
        bool asked = kinds[i].int8 ? !state_of && (*weight)->type == RV_I8 : state_of != NULL;
        /* The absmaxes' own type says whether there is a second level. */
        const rv_tensor *absmax = kinds[i].nested ? find_n(c, t->name, n - m, ".absmax") : NULL;
        if (!asked || (absmax && absmax->type != RV_U8)) *weight = NULL;
        return true;
    }
    return false;
}
