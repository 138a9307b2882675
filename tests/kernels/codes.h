/* codes.h - a product with quantised weights: its shape, its data, and the weight by the rules of engine/base/quant.h. */
#ifndef RV_TESTS_KERNELS_CODES_H
#define RV_TESTS_KERNELS_CODES_H
#include "tests/kernels/helpers.h"

typedef struct problem {
    int32_t rows, outs, cols, n_parts;
    rv_format format;
    bool nested, in_place, bias, gelu, add, by_call;
    float threshold;
    int32_t outliers;            /* a row, about                                               */
} problem;

typedef struct data {
    rv_mat x, out;
    rv_weight_part part[RV_WEIGHT_PARTS];
    rv_codes codes[RV_WEIGHT_PARTS];             /* by the rules                               */
    void *room[RV_WEIGHT_PARTS][4];
    float *bias;
    rv_weight_spec spec;
    void *memory;
    rv_weight *w;
} data;

static inline rv_backend *open_rules(setup s, int threads, float threshold, bool by_call) {
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options o = { .threads = threads, .act = s.act, .int8 = { threshold, by_call } };
    if (rv_cpu_open_level(&o, s.level, s.onednn, &be, &err)) fail_msg("%s", err.message);
    return be;
}

static inline void finish(rv_backend *be) {
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
}

/* The codes of part i by the rules; nothing aligned beyond its element. */
static inline void quantise_part(const problem *p, data *d, int i, int32_t rows) {
    int64_t n = (int64_t)rows * p->cols, blocks = n / RV_BLOCK4, runs = (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
    rv_dtype type = d->part[i].type;
    rv_codes *q = &d->codes[i];
    q->format = p->format;
    char *codes = odd_weights(n, RV_U8), *scale = odd_weights(p->format == RV_FORMAT_INT8 ? rows : blocks, RV_F32);
    q->codes = d->room[i][0] = codes;
    d->room[i][1] = scale;
    for (int32_t r = 0; r < rows && p->format == RV_FORMAT_INT8; r++) {
        float scb = rv_int8_weights((int8_t *)codes + (int64_t)r * p->cols,
            (const char *)d->part[i].data + (size_t)r * (size_t)p->cols * rv_dtype_size(type), type, p->cols);
        memcpy(scale + r * 4, &scb, 4);
    }
    q->scale = scale;
    if (p->format == RV_FORMAT_INT8) return;
    float *absmax = malloc((size_t)blocks * 4);
    rv_nf4_quantise((uint8_t *)codes, absmax, d->part[i].data, type, n);
    memcpy(scale, absmax, (size_t)blocks * 4);
    for (int c = 0; c < 16; c++) q->map[c] = p->format == RV_FORMAT_FP4 ? (float)(c * 5 % 16 - 7) / 9 : rv_nf4_map[c];
    if (p->nested) {
        float *scales = malloc((size_t)runs * 4);
        q->scale = NULL;
        q->nested = d->room[i][2] = odd_weights(blocks, RV_U8);
        q->nested_scale = d->room[i][3] = odd_weights(runs, RV_F32);
        memcpy(q->nested_map, rv_nested_map, sizeof q->nested_map);
        q->offset = rv_nested_quantise(d->room[i][2], scales, absmax, blocks);
        memcpy(d->room[i][3], scales, (size_t)runs * 4);
        free(scales);
    }
    free(absmax);
}

static const rv_dtype TYPES[] = { RV_BF16, RV_F16, RV_F32 };

static inline void make_weight(rv_backend *be, const problem *p, data *d) {
    int32_t left = p->outs;
    d->spec = (rv_weight_spec){ .name = "test", .rows = p->outs, .cols = p->cols, .n_parts = p->n_parts, .use = RV_USE_TEXT, .format = p->format,
        .nested = p->nested };
    for (int i = 0; i < p->n_parts; i++) {
        int32_t rows = i == p->n_parts - 1 ? left : p->outs / 3 + i;
        int64_t n = (int64_t)rows * p->cols;
        void *values = odd_weights(n, TYPES[i]);
        left -= rows;
        fill(values, TYPES[i], n, false, 10 + (uint32_t)i);
        d->part[i] = (rv_weight_part){ values, TYPES[i], rows, NULL };
        quantise_part(p, d, i, rows);
        d->spec.part[i] = p->in_place ? (rv_weight_part){ .rows = rows, .codes = &d->codes[i] } : d->part[i];
    }
    d->memory = rv_device_alloc(be, rv_weight_bytes(be, &d->spec));
    d->w = rv_weight_new(be, &d->spec, d->memory);
    finish(be);
}

static inline data make(rv_backend *be, const problem *p) {
    data d = { 0 };
    int32_t ld = p->cols + 3, out_ld = p->outs + 5;
    d.x = rv_mat_of(odd_memory((int64_t)p->rows * ld + 2, be->act), p->rows, p->cols, be->act);
    d.x.ld = ld;
    fill(d.x.data, be->act, (int64_t)p->rows * ld, false, 1);
    uint32_t random = 77;
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t i = 0; i < p->outliers + r % 2 && p->outliers; i++)
            put(d.x.data, be->act, r * d.x.ld + (int64_t)(next_random(&random) % (uint32_t)p->cols),
                random_float(&random) < 0 ? -6.f - (float)i : 6.f + (float)i);
    rv_dtype out = p->add ? RV_F32 : be->act;
    d.out = rv_mat_of(odd_memory((int64_t)p->rows * out_ld, out), p->rows, p->outs, out);
    d.out.ld = out_ld;
    fill(d.out.data, out, (int64_t)p->rows * out_ld, false, 2);
    d.bias = malloc((size_t)p->outs * sizeof(float));
    fill(d.bias, RV_F32, p->outs, false, 3);
    make_weight(be, p, &d);
    return d;
}

static inline void drop(rv_backend *be, data *d) {
    rv_weight_free(be, d->w);
    rv_device_release(be, d->memory);
    free_odd(d->x.data);
    free_odd(d->out.data);
    for (int i = 0; i < RV_WEIGHT_PARTS; i++) {
        free_weights((void *)(uintptr_t)d->part[i].data);
        for (int k = 0; k < 4; k++) free_weights(d->room[i][k]);
    }
    free(d->bias);
}

static inline void compute(rv_backend *be, const problem *p, data *d, rv_mat out, rv_mat x) {
    if (p->add) rv_linear_add(be, out, x, d->w, p->bias ? d->bias : NULL, 0.5f, NULL);
    else rv_linear(be, out, x, d->w, p->bias ? d->bias : NULL, p->gelu ? RV_ACT_GELU : RV_ACT_NONE);
    finish(be);
}

static float f16(float f) { return fabsf(f) >= 65520.f ? copysignf(INFINITY, f) : rv_f16_to_f32(rv_f32_to_f16(f)); }
static inline float as(rv_dtype type, float f) {
    if (type == RV_F32) return f;
    return type == RV_BF16 ? rv_bf16_to_f32(rv_f32_to_bf16(f)) : rv_f16_to_f32(rv_f32_to_f16(f));
}

/* Row o of the weight, by the rules, not yet rounded. */
static inline void weight_row(const problem *p, const data *d, int32_t o, float *out) {
    int i = 0;
    while (o >= d->part[i].rows) o -= d->part[i++].rows;
    rv_codes_read(out, &d->codes[i], p->cols, (int64_t)o * p->cols, p->cols);
}

static inline double after(const problem *p, const data *d, double sum, int32_t o, float before) {
    if (p->bias) sum += d->bias[o];
    if (p->gelu) sum = 0.5 * sum * (1 + erf(sum * 0.70710678118654752));
    return p->add ? before + 0.5 * sum : sum;
}

/* The same in plain f32. */
static inline float plain_after(const problem *p, const data *d, float sum, int32_t o, float before) {
    if (p->bias) sum += d->bias[o];
    if (p->gelu) sum = 0.5f * sum * (1 + erff(sum * 0.70710678f));
    return p->add ? before + 0.5f * sum : sum;
}
#endif
