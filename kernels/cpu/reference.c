/* reference.c - the kernels as plain loops: what the others are compared with.
 *
 * The one idea: nothing clever.  Sums run in order, in f32; libm does the functions.
 */
#include <math.h>
#include "kernels/cpu/cpu.h"

static void convert(void *to, rv_dtype to_type, const void *from, rv_dtype from_type, int64_t n) {
    if (to_type == from_type) memmove(to, from, (size_t)n * rv_dtype_size(to_type));
    else for (int64_t i = 0; i < n; i++) rv_cpu_store(to, to_type, i, rv_cpu_load(from, from_type, i));
}

static void norm(void *out, rv_dtype out_type, const void *x, rv_dtype x_type, const rv_norm *p) {
    float mean = 0, square = 0, n = (float)p->width;
    for (int32_t i = 0; i < p->width && p->bias; i++) mean += rv_cpu_load(x, x_type, i);
    mean /= n;
    for (int32_t i = 0; i < p->width; i++) {
        float d = rv_cpu_load(x, x_type, i) - mean;
        square += d * d;
    }
    float scale = 1.0f / sqrtf(square / n + p->eps);
    for (int32_t i = 0; i < p->width; i++) {
        float v = (rv_cpu_load(x, x_type, i) - mean) * scale * p->weight[i];
        rv_cpu_store(out, out_type, i, p->bias ? v + p->bias[i] : v);
    }
}

static void swiglu(void *out, rv_dtype out_type, const void *gate, const void *up, rv_dtype type, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = rv_cpu_load(gate, type, i);
        rv_cpu_store(out, out_type, i, g / (1.0f + expf(-g)) * rv_cpu_load(up, type, i));
    }
}

static void rope(void *row, rv_dtype type, const float *cos_sin, int32_t heads, int32_t head_dim) {
    int32_t half = head_dim / 2;
    for (int32_t h = 0; h < heads; h++)
        for (int32_t j = 0; j < half; j++) {
            int64_t i = (int64_t)h * head_dim + j;
            float a = rv_cpu_load(row, type, i), b = rv_cpu_load(row, type, i + half);
            rv_cpu_store(row, type, i, a * cos_sin[j] - b * cos_sin[half + j]);
            rv_cpu_store(row, type, i + half, b * cos_sin[j] + a * cos_sin[half + j]);
        }
}

static void add_scaled(float *x, const void *row, rv_dtype type, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += scale * rv_cpu_load(row, type, i);
}

static void finish_row(const rv_cpu_product *p, int32_t row, int32_t from, int32_t n, float *sums) {
    for (int32_t i = 0; i < n; i++) {
        int32_t at = from + i;
        float v = sums[i] + (p->bias ? p->bias[at] : 0), by = p->row_scale ? p->row_scale[row] : 1.0f;
        if (p->act == RV_ACT_GELU) v = 0.5f * v * (1.0f + erff(v * 0.70710678f));
        if (p->add && by == 0.0f) continue;
        if (p->add) v = rv_cpu_load(rv_cpu_row(p->out, row), RV_F32, at) + p->scale * by * v;
        rv_cpu_store(rv_cpu_row(p->out, row), p->out.type, at, v);
    }
}

static void product_few(const rv_cpu_product *p, int32_t from, int32_t to) {
    for (int32_t o = from; o < to; o++) {
        rv_dtype type;
        const void *w = rv_cpu_weight_row(p->w, o, &type);
        for (int32_t r = 0; r < p->x.rows; r++) {
            const void *x = rv_cpu_row(p->x, r);
            float sum = 0;
            for (int32_t k = 0; k < p->x.cols; k++) sum += rv_cpu_load(x, p->x.type, k) * rv_cpu_load(w, type, k);
            finish_row(p, r, o, 1, &sum);
        }
    }
}

static float round_to(float f, rv_dtype type) {
    if (type == RV_BF16) return rv_bf16_to_f32(rv_f32_to_bf16(f));
    return type == RV_F16 ? rv_f16_to_f32(rv_f32_to_f16(f)) : f;
}

static void product4(const rv_cpu_product *p, int32_t from, int32_t to, void *room) {
    (void)room;
    for (int32_t at = from; at < to; at++) {
        int32_t o = at, part = rv_cpu_part_of(p->w, &o);
        for (int32_t r = 0; r < p->x.rows; r++) {
            float sum = 0, w;
            for (int32_t k = 0; k < p->x.cols; k++) {
                rv_codes_read(&w, &p->w->codes[part], p->x.cols, (int64_t)o * p->x.cols + k, 1);
                sum += rv_cpu_load(rv_cpu_row(p->x, r), p->x.type, k) * round_to(w, rv_cpu_decoded(p->x.type));
            }
            finish_row(p, r, at, 1, &sum);
        }
    }
}

static void product8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, int32_t from, int32_t to, void *room) {
    (void)room;
    int64_t cols = p->x.cols;
    for (int32_t at = from; at < to; at++) {
        int32_t o = at;
        const rv_codes *c = &p->w->codes[rv_cpu_part_of(p->w, &o)];
        const int8_t *codes = (const int8_t *)c->codes + o * cols;
        for (int32_t r = 0; r < p->x.rows; r++) {
            int32_t sum = 0;
            float more = 0, w;
            for (int64_t k = 0; k < cols; k++) sum += codes[k] * q->codes[r * cols + k];
            float y = round_to(rv_cpu_through_f16(rv_int8_scaled(sum, q->sca[r], rv_cpu_load(c->scale, RV_F32, o))), p->x.type);
            for (int32_t i = 0; i < q->outliers[r]; i++) {
                rv_codes_read(&w, c, cols, o * cols + q->column[r * cols + i], 1);
                more += q->value[r * cols + i] * round_to(w, p->x.type);
            }
            if (q->outliers[r]) y = round_to(y + more, p->x.type);
            finish_row(p, r, at, 1, &y);
        }
    }
}

static void attend_few(const rv_attention *a, int32_t r, int32_t head, int32_t n_heads, const int32_t *rows, int32_t n,
                       const rv_cpu_bring *next, rv_cpu_partial *out) {
    (void)next;
    int32_t head_dim = a->q.cols / a->heads, kv_head = head / (a->heads / a->kv_heads);
    for (int32_t h = 0; h < n_heads; h++) {
        float s[CPU_KEYS], m = -INFINITY;
        for (int32_t j = 0; j < n; j++) {
            s[j] = 0;
            for (int32_t c = 0; c < head_dim; c++)
                s[j] += rv_cpu_load(rv_cpu_row(a->q, r), a->q.type, (int64_t)(head + h) * head_dim + c) *
                        rv_cpu_load(rv_cpu_row(a->kv.k, rows[j]), a->kv.k.type, (int64_t)kv_head * head_dim + c);
            s[j] = s[j] * a->scale + (a->kv.bias ? a->kv.bias[rows[j]] : 0);
            m = s[j] > m ? s[j] : m;
        }
        out[h].m = m == -INFINITY ? 0 : m;
        out[h].l = 0;
        memset(out[h].o, 0, sizeof out[h].o);
        for (int32_t j = 0; j < n; j++) {
            float e = expf(s[j] - out[h].m);
            out[h].l += e;
            for (int32_t c = 0; c < head_dim; c++)
                out[h].o[c] += e * rv_cpu_load(rv_cpu_row(a->kv.v, rows[j]), a->kv.v.type, (int64_t)kv_head * head_dim + c);
        }
    }
}

const rv_cpu_kernels rv_cpu_reference = {
    .name = "reference", .convert = convert, .norm = norm, .swiglu = swiglu, .rope = rope, .add_scaled = add_scaled,
    .product_few = product_few, .finish_row = finish_row, .attend_few = attend_few, .panel = 1,
    .int8_weights = rv_int8_weights, .nf4_quantise = rv_nf4_quantise, .int8_row = rv_cpu_int8_row, .product8 = product8, .product4 = product4,
};
