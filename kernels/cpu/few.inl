/* few.inl - products with few rows, straight from the weights as they lie in the file: part of
 * kernels.inl.
 *
 * The one idea: lane i of one vector sums the columns k = i modulo the step; then the lanes are
 * added in one fixed order.  A tile is R rows x O outputs of such sums; R and O only decide how
 * often memory is read.
 */

/* erf within 1.1e-7: an odd polynomial below 1, 1 - e^P(t) above, where P interpolates
 * log(erfc(t)) on [1, 4] at Chebyshev nodes. */
static vf erf_of(vf x) {
    static const float low[] = { 7.875874871388078e-05f, -8.01686430349946e-04f, 5.189087241888046e-03f,
                                 -2.685421146452427e-02f, 1.1283594369888306e-01f, -3.761262595653534e-01f,
                                 1.1283791065216064f };
    static const float high[] = { 1.6371513993362896e-06f, -1.3315014257386792e-05f, 7.729137723799795e-05f,
                                  -4.2012252379208803e-04f, 2.1653033655617714e-03f, -1.085854135453701e-02f,
                                  -9.438937306404114e-01f, -5.352680683135986f, -7.806815147399902f };
    vf t = (vf)((vi)x & 0x7fffffff), far = vf_set(4.0f);
    t = vf_select(t > far, far, t);
    vf s = t * t, u = t - 2.5f, p = vf_set(low[0]), q = vf_set(high[0]);
    for (int i = 1; i < 7; i++) p = p * s + low[i];
    for (int i = 1; i < 9; i++) q = q * u + high[i];
    vf e = vf_select(t < vf_set(1.0f), p * t, 1.0f - vf_exp(q));
    return (vf)((vi)e | ((vi)x & INT32_MIN));
}

static vf gelu_of(vf x) { return x * 0.5f * (erf_of(x * 0.70710678f) + 1.0f); }

/* As vf_to_bf16, but numbers below 2^-126 become zero where the CPU has an instruction for it: of results, not of weights. */
ALWAYS void store_result(void *p, int64_t i, vf v) {
#ifdef RV_DOT_BF16
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy((char *)p + 2 * i, &h, sizeof h);
#else
    vf_store_as(p, RV_BF16, i, v);
#endif
}

/* sums[0..n) of a row's output columns from.. : bias, activation, destination.  Room up to the
 * next multiple of RV_LANES belongs to sums. */
static __attribute__((noinline)) void finish_row(const rv_cpu_product *p, int32_t row, int32_t from, int32_t n,
                                                  float *sums) {
    float by = p->add ? p->scale * (p->row_scale ? p->row_scale[row] : 1.0f) : 1.0f;
    if (p->add && p->row_scale && p->row_scale[row] == 0.0f) return;
    void *out = rv_cpu_row(p->out, row);
    for (int32_t i = 0; i < n; i += RV_LANES) {
        int64_t left = n - i, at = from + i;
        bool full = left >= RV_LANES;
        vf v = full ? vf_load(sums + i) : vf_load_part(sums, RV_F32, i, left);
        if (p->bias) v += full ? vf_load(p->bias + at) : vf_load_part(p->bias, RV_F32, at, left);
        if (p->act == RV_ACT_GELU) v = gelu_of(v);
        if (p->add) v = (full ? vf_load_as(out, RV_F32, at) : vf_load_part(out, RV_F32, at, left)) + v * by;
        if (p->out.type == RV_F32) {
            if (full) vf_store_as(out, RV_F32, at, v);
            else vf_store_part(out, RV_F32, at, left, v);
        } else {
            if (full) store_result(out, at, v);
            else vf_store_part(out, RV_BF16, at, left, v);
        }
    }
}

enum { FEW_OUTPUTS = CPU_OUTPUTS, FEW_TILE_ROWS = 4 };

#ifdef RV_DOT_BF16
enum { DOT_STEP = 2 * RV_LANES };
typedef uint16_t vpairs __attribute__((vector_size(4 * RV_LANES)));

ALWAYS vpairs pairs_load(const void *p, int64_t k, int64_t n) {
    vpairs v = { 0 };
    if (n >= DOT_STEP) memcpy(&v, (const char *)p + 2 * k, sizeof v);
    else memcpy(&v, (const char *)p + 2 * k, (size_t)n * 2);
    return v;
}

ALWAYS void tile_pairs(const void *const *x, const void *const *w, int64_t cols, int R, int O, vf *acc) {
    int64_t k = 0;
    for (; k + DOT_STEP <= cols; k += DOT_STEP) {
        vpairs wv[FEW_OUTPUTS];
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) wv[o] = pairs_load(w[o], k, DOT_STEP);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vpairs xv = pairs_load(x[r], k, DOT_STEP);
#pragma GCC unroll 8
            for (int o = 0; o < O; o++)
                acc[r * O + o] = (vf)_mm512_dpbf16_ps((__m512)acc[r * O + o], (__m512bh)xv, (__m512bh)wv[o]);
        }
    }
    if (k == cols) return;
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++)
            acc[r * O + o] = (vf)_mm512_dpbf16_ps((__m512)acc[r * O + o], (__m512bh)pairs_load(x[r], k, cols - k),
                                                  (__m512bh)pairs_load(w[o], k, cols - k));
}
#endif

ALWAYS void tile_floats(const void *const *x, rv_dtype tx, const void *const *w, rv_dtype tw, int64_t cols, int R,
                        int O, vf *acc) {
    int64_t k = 0;
    for (; k + RV_LANES <= cols; k += RV_LANES) {
        vf wv[FEW_OUTPUTS];
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) wv[o] = vf_load_as(w[o], tw, k);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vf xv = vf_load_as(x[r], tx, k);
#pragma GCC unroll 8
            for (int o = 0; o < O; o++) acc[r * O + o] += xv * wv[o];
        }
    }
    if (k == cols) return;
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++)
            acc[r * O + o] += vf_load_part(x[r], tx, k, cols - k) * vf_load_part(w[o], tw, k, cols - k);
}

/* out[r * FEW_OUTPUTS + o] for R rows and O outputs. */
ALWAYS void tile(const void *const *x, rv_dtype tx, const void *const *w, rv_dtype tw, int64_t cols, int R, int O,
                 float *out) {
    vf acc[FEW_OUTPUTS * FEW_TILE_ROWS];
#pragma GCC unroll 32
    for (int i = 0; i < R * O; i++) acc[i] = vf_set(0);
#ifdef RV_DOT_BF16
    if (tx == RV_BF16 && tw == RV_BF16) tile_pairs(x, w, cols, R, O, acc);
    else
#endif
    tile_floats(x, tx, w, tw, cols, R, O, acc);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) out[r * FEW_OUTPUTS + o] = vf_sum(acc[r * O + o]);
}

/* All rows of x against FEW_OUTPUTS weight rows of one type. */
ALWAYS void few_as(const rv_cpu_product *p, const void *const *w, int32_t from, int32_t n, rv_dtype tx, rv_dtype tw) {
    int64_t cols = p->x.cols;
    int32_t rows = p->x.rows, r = 0;
    float out[FEW_TILE_ROWS * FEW_OUTPUTS + RV_LANES];
    const void *x[FEW_TILE_ROWS];
    while (r < rows) {
        int32_t take = rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
        for (int32_t i = 0; i < take; i++) x[i] = rv_cpu_row(p->x, r + i);
        if (take == 4) {                         /* 16 sums are what the registers hold            */
            tile(x, tx, w, tw, cols, 4, 4, out);
            if (n > 4) tile(x, tx, w + 4, tw, cols, 4, 4, out + 4);
        } else if (take == 2) {
            tile(x, tx, w, tw, cols, 2, 4, out);
            if (n > 4) tile(x, tx, w + 4, tw, cols, 2, 4, out + 4);
        } else {
            tile(x, tx, w, tw, cols, 1, 8, out);
        }
        for (int32_t i = 0; i < take; i++) finish_row(p, r + i, from, n, out + i * FEW_OUTPUTS);
        r += take;
    }
}

#define FEW(name, tx, tw)                                                                                       \
    static __attribute__((noinline)) void name(const rv_cpu_product *p, const void *const *w, int32_t from, int32_t n) { \
        few_as(p, w, from, n, tx, tw);                                                                          \
    }
FEW(few_f32_f32, RV_F32, RV_F32)
FEW(few_f32_f16, RV_F32, RV_F16)
FEW(few_f32_bf16, RV_F32, RV_BF16)
FEW(few_bf16_f32, RV_BF16, RV_F32)
FEW(few_bf16_f16, RV_BF16, RV_F16)
FEW(few_bf16_bf16, RV_BF16, RV_BF16)

static void product_few(const rv_cpu_product *p, int32_t from, int32_t to) {
    while (from < to) {
        const void *w[FEW_OUTPUTS];
        rv_dtype type, other;
        int32_t n = 1;
        w[0] = rv_cpu_weight_row(p->w, from, &type);
        for (; n < FEW_OUTPUTS && from + n < to; n++) {
            w[n] = rv_cpu_weight_row(p->w, from + n, &other);
            if (other != type) break;
        }
        for (int32_t i = n; i < FEW_OUTPUTS; i++) w[i] = w[0];
        if (p->x.type == RV_F32) {
            if (type == RV_F32) few_f32_f32(p, w, from, n);
            else if (type == RV_F16) few_f32_f16(p, w, from, n);
            else few_f32_bf16(p, w, from, n);
        } else {
            if (type == RV_F32) few_bf16_f32(p, w, from, n);
            else if (type == RV_F16) few_bf16_f16(p, w, from, n);
            else few_bf16_bf16(p, w, from, n);
        }
        from += n;
    }
}
