/* rows.inl - operations on one row: part of kernels.inl. */

/* Calls f(..., RV_F32 | RV_BF16 | RV_F16) so that the type is a constant inside. */
#define BY_TYPE(type, f, ...)                                 \
    do {                                                      \
        if ((type) == RV_F32) f(__VA_ARGS__, RV_F32);         \
        else if ((type) == RV_BF16) f(__VA_ARGS__, RV_BF16);  \
        else f(__VA_ARGS__, RV_F16);                          \
    } while (0)

ALWAYS void convert_as(void *to, rv_dtype to_type, const void *from, int64_t n, rv_dtype type) {
    int64_t i = 0;
    for (; i + RV_LANES <= n; i += RV_LANES) vf_store_as(to, to_type, i, vf_load_as(from, type, i));
    if (i < n) vf_store_part(to, to_type, i, n - i, vf_load_part(from, type, i, n - i));
}

static void convert(void *to, rv_dtype to_type, const void *from, rv_dtype from_type, int64_t n) {
    if (to_type == from_type) memmove(to, from, (size_t)n * rv_dtype_size(to_type));
    else if (to_type == RV_F32) BY_TYPE(from_type, convert_as, to, RV_F32, from, n);
    else BY_TYPE(from_type, convert_as, to, RV_BF16, from, n);
}

/* Sum of (x - mean)^power over the row. */
ALWAYS float moment(const void *x, rv_dtype type, int64_t n, float mean, int power) {
    vf a = vf_set(0), b = vf_set(0), shift = vf_set(mean);
    int64_t i = 0;
    for (; i + 2 * RV_LANES <= n; i += 2 * RV_LANES) {
        vf u = vf_load_as(x, type, i) - shift, v = vf_load_as(x, type, i + RV_LANES) - shift;
        a += power == 2 ? u * u : u;
        b += power == 2 ? v * v : v;
    }
    float sum = vf_sum(a + b);
    for (; i < n; i++) {
        float u = rv_cpu_load(x, type, i) - mean;
        sum += power == 2 ? u * u : u;
    }
    return sum;
}

ALWAYS void norm_as(void *out, rv_dtype out_type, const void *x, const rv_norm *p, rv_dtype type) {
    int64_t n = p->width, i = 0;
    float mean = p->bias ? moment(x, type, n, 0, 1) / (float)n : 0;
    float inverse = 1.0f / sqrtf(moment(x, type, n, mean, 2) / (float)n + p->eps);
    vf shift = vf_set(mean), scale = vf_set(inverse);
    for (; i < n; i += RV_LANES) {
        int64_t left = n - i;
        bool full = left >= RV_LANES;
        vf v = full ? vf_load_as(x, type, i) : vf_load_part(x, type, i, left);
        vf w = full ? vf_load(p->weight + i) : vf_load_part(p->weight, RV_F32, i, left);
        v = (v - shift) * scale * w;
        if (p->bias) v += full ? vf_load(p->bias + i) : vf_load_part(p->bias, RV_F32, i, left);
        if (full) vf_store_as(out, out_type, i, v);
        else vf_store_part(out, out_type, i, left, v);
    }
}

static void norm(void *out, rv_dtype out_type, const void *x, rv_dtype x_type, const rv_norm *n) {
    if (out_type == RV_F32) BY_TYPE(x_type, norm_as, out, RV_F32, x, n);
    else BY_TYPE(x_type, norm_as, out, RV_BF16, x, n);
}

ALWAYS vf silu_times(vf g, vf u) { return g / (vf_exp(-g) + 1.0f) * u; }

ALWAYS void swiglu_as(void *out, rv_dtype out_type, const void *gate, const void *up, int64_t n, rv_dtype type) {
    int64_t i = 0;
    for (; i + RV_LANES <= n; i += RV_LANES)
        vf_store_as(out, out_type, i, silu_times(vf_load_as(gate, type, i), vf_load_as(up, type, i)));
    if (i < n)
        vf_store_part(out, out_type, i, n - i,
                      silu_times(vf_load_part(gate, type, i, n - i), vf_load_part(up, type, i, n - i)));
}

static void swiglu(void *out, rv_dtype out_type, const void *gate, const void *up, rv_dtype type, int64_t n) {
    if (out_type == RV_F32) BY_TYPE(type, swiglu_as, out, RV_F32, gate, up, n);
    else BY_TYPE(type, swiglu_as, out, RV_BF16, gate, up, n);
}

ALWAYS void rope_as(void *row, const float *cos_sin, int32_t heads, int32_t head_dim, rv_dtype type) {
    int32_t half = head_dim / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    for (int32_t h = 0; h < heads; h++) {
        int64_t at = (int64_t)h * head_dim;
        int32_t j = 0;
        for (; j + RV_LANES <= half; j += RV_LANES) {
            vf a = vf_load_as(row, type, at + j), b = vf_load_as(row, type, at + half + j);
            vf_store_as(row, type, at + j, a * vf_load(c + j) - b * vf_load(s + j));
            vf_store_as(row, type, at + half + j, b * vf_load(c + j) + a * vf_load(s + j));
        }
        for (; j < half; j++) {
            float a = rv_cpu_load(row, type, at + j), b = rv_cpu_load(row, type, at + half + j);
            rv_cpu_store(row, type, at + j, a * c[j] - b * s[j]);
            rv_cpu_store(row, type, at + half + j, b * c[j] + a * s[j]);
        }
    }
}

static void rope(void *row, rv_dtype type, const float *cos_sin, int32_t heads, int32_t head_dim) {
    if (type == RV_F32) rope_as(row, cos_sin, heads, head_dim, RV_F32);
    else rope_as(row, cos_sin, heads, head_dim, RV_BF16);
}

ALWAYS void add_scaled_as(float *x, const void *row, float scale, int64_t n, rv_dtype type) {
    int64_t i = 0;
    for (; i + RV_LANES <= n; i += RV_LANES) vf_store(x + i, vf_load(x + i) + vf_load_as(row, type, i) * scale);
    for (; i < n; i++) x[i] += rv_cpu_load(row, type, i) * scale;
}

static void add_scaled(float *x, const void *row, rv_dtype type, float scale, int64_t n) {
    BY_TYPE(type, add_scaled_as, x, row, scale, n);
}
