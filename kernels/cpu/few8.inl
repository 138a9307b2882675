/* few8.inl - LLM.int8: part of kernels.inl.
 *
 * The one idea: integer sums are exact in any order, so rows and outputs are tiled freely; what is left of a row, its
 * outliers, is summed apart: lane i takes outliers i modulo RV_LANES, the same whatever stands beside the row.
 */

/* ---- integer sums ---- */

#if RV_LANES >= 8
#if defined(__AVX512VNNI__)
typedef __m512i vbytes;
enum { BYTES = 64 };
ALWAYS vbytes bytes_load(const int8_t *p) { return _mm512_loadu_si512(p); }
/* The instruction takes one operand without sign: x + 128, and 128 times the weights' sum is taken off again. */
ALWAYS vbytes bytes_shift(vbytes x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char)0x80)); }
ALWAYS vi bytes_dot(vi acc, vbytes x, vbytes w) { return (vi)_mm512_dpbusd_epi32((__m512i)acc, x, w); }
ALWAYS vi bytes_excess(vi acc, vbytes w) { return bytes_dot(acc, _mm512_set1_epi8((char)0x80), w); }
#elif RV_LANES == 16
typedef __m512i vbytes;
enum { BYTES = 32 };
ALWAYS vbytes bytes_load(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
ALWAYS vi bytes_dot(vi acc, vbytes x, vbytes w) { return (vi)_mm512_add_epi32((__m512i)acc, _mm512_madd_epi16(x, w)); }
#else
typedef __m256i vbytes;
enum { BYTES = 16 };
ALWAYS vbytes bytes_load(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p)); }
ALWAYS vi bytes_dot(vi acc, vbytes x, vbytes w) { return (vi)_mm256_add_epi32((__m256i)acc, _mm256_madd_epi16(x, w)); }
#endif
#if !defined(__AVX512VNNI__)
ALWAYS vbytes bytes_shift(vbytes x) { return x; }
ALWAYS vi bytes_excess(vi acc, vbytes w) { return (void)w, acc; }
#endif

ALWAYS int32_t vi_sum(vi v) {
#if RV_LANES == 16
    return _mm512_reduce_add_epi32((__m512i)v);
#else
    int32_t sum = 0;
    for (int i = 0; i < RV_LANES; i++) sum += v[i];
    return sum;
#endif
}

/* One step of R rows and O outputs; the pointers are at it. */
ALWAYS void step8(const int8_t *const *x, const int8_t *const *w, int64_t k, int R, int O, vi *acc, vi *excess) {
    vbytes wv[FEW_OUTPUTS];
#pragma GCC unroll 8
    for (int o = 0; o < O; o++) {
        wv[o] = bytes_load(w[o] + k);
        excess[o] = bytes_excess(excess[o], wv[o]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        vbytes xv = bytes_shift(bytes_load(x[r] + k));
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) acc[r * O + o] = bytes_dot(acc[r * O + o], xv, wv[o]);
    }
}

/* sums[r * FEW_OUTPUTS + o] of R rows and O outputs. */
ALWAYS void tile8(const int8_t *const *x, const int8_t *const *w, int64_t cols, int R, int O, int32_t *sums) {
    vi acc[FEW_OUTPUTS * FEW_TILE_ROWS], excess[FEW_OUTPUTS];
    int64_t k = 0;
#pragma GCC unroll 32
    for (int i = 0; i < R * O; i++) acc[i] = (vi){ 0 };
#pragma GCC unroll 8
    for (int o = 0; o < O; o++) excess[o] = (vi){ 0 };
    for (; k + BYTES <= cols; k += BYTES) {
#pragma GCC unroll 8
        for (int o = 0; o < O && R <= 2; o++) _mm_prefetch((const char *)w[o] + FEW_OUTPUTS * cols + k, _MM_HINT_T1);      /* rows to come: see tile4 */
        step8(x, w, k, R, O, acc, excess);
    }
    if (k < cols) {
        int8_t room[FEW_TILE_ROWS + FEW_OUTPUTS][BYTES] = { { 0 } };
        const int8_t *last_x[FEW_TILE_ROWS], *last_w[FEW_OUTPUTS];
        for (int r = 0; r < R; r++) last_x[r] = memcpy(room[r], x[r] + k, (size_t)(cols - k));
        for (int o = 0; o < O; o++) last_w[o] = memcpy(room[R + o], w[o] + k, (size_t)(cols - k));
        step8(last_x, last_w, 0, R, O, acc, excess);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) sums[r * FEW_OUTPUTS + o] = vi_sum(acc[r * O + o] - excess[o]);
}
#else
/* sums[r * FEW_OUTPUTS + o] of R rows and O outputs. */
ALWAYS void tile8(const int8_t *const *x, const int8_t *const *w, int64_t cols, int R, int O, int32_t *sums) {
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++) {
            int32_t sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += x[r][k] * w[o][k];
            sums[r * FEW_OUTPUTS + o] = sum;
        }
}
#endif

/* ---- what becomes of them ---- */

/* Sum over a row's outliers of x times a weight row's value there, rounded to the operands' type. */
static float outlier_sum(const int32_t *column, const float *value, int32_t n, const int8_t *w, float scb, rv_dtype act) {
    vf sum = vf_set(0);
    for (int32_t i = 0; i < n; i += RV_LANES) {
        float code[RV_LANES] = { 0 }, x[RV_LANES] = { 0 };
        int32_t some = n - i < RV_LANES ? n - i : RV_LANES;
        for (int32_t k = 0; k < some; k++) code[k] = w[column[i + k]], x[k] = value[i + k];
        vf v = vf_load(code) * scb;
        v = v * RV_INT8_ONE;
        if (act == RV_BF16) v = vf_through_bf16(v);
        sum += vf_load(x) * v;
    }
    return vf_sum(sum);
}

ALWAYS vf codes_load(const int8_t *p) {
#if RV_LANES == 16
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
#elif RV_LANES == 8
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
#else
    vf v;
    for (int i = 0; i < RV_LANES; i++) v[i] = (float)p[i];
    return v;
#endif
}

/* A weight row as a row with many outliers takes it: rounded to the operands' type. */
static void decode8(void *out, const int8_t *w, float scb, int64_t cols, rv_dtype act) {
    int64_t k = 0;
    for (; k + RV_LANES <= cols; k += RV_LANES) {
        vf v = codes_load(w + k) * scb;
        v = v * RV_INT8_ONE;
        if (act == RV_BF16) vf_store_as(out, RV_BF16, k, v);
        else vf_store_as(out, RV_F32, k, v);
    }
    for (; k < cols; k++) {
        float v = (float)w[k] * scb;
        rv_cpu_store(out, act, k, v * RV_INT8_ONE);
    }
}

/* FEW_OUTPUTS weight rows of one part. */
typedef struct weights8 {
    const int8_t *codes[FEW_OUTPUTS];
    const void   *decoded[FEW_OUTPUTS];          /* where any row has many outliers            */
    float         scb[FEW_OUTPUTS];
} weights8;

static __attribute__((noinline)) void add_outliers(const rv_cpu_product *p, const rv_cpu_int8_rows *q, const weights8 *w, int32_t r, int32_t n, float *out) {
    float more[FEW_OUTPUTS];
    int64_t at = (int64_t)r * p->x.cols;
    const void *x = rv_cpu_row(q->spread, r);
    if (!rv_cpu_many_outliers(q->outliers[r], p->x.cols))
        for (int32_t i = 0; i < n; i++) more[i] = outlier_sum(q->column + at, q->value + at, q->outliers[r], w->codes[i], w->scb[i], p->x.type);
    else if (p->x.type == RV_BF16) tile(&x, RV_BF16, w->decoded, RV_BF16, p->x.cols, 1, FEW_OUTPUTS, more);
    else tile(&x, RV_F32, w->decoded, RV_F32, p->x.cols, 1, FEW_OUTPUTS, more);
    for (int32_t i = 0; i < n; i++) {
        out[i] += more[i];
        if (p->x.type == RV_BF16) out[i] = rv_bf16_to_f32(rv_f32_to_bf16(out[i]));
    }
}

static void finish8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, const weights8 *w, int32_t r, int32_t from, int32_t n, const int32_t *sums) {
    float out[FEW_OUTPUTS + RV_LANES];
    for (int32_t i = 0; i < FEW_OUTPUTS; i += RV_LANES) {
        float sum[RV_LANES] = { 0 }, by[RV_LANES] = { 0 };
        for (int32_t k = 0; k < RV_LANES && i + k < n; k++) sum[k] = (float)sums[i + k], by[k] = w->scb[i + k];
        vf v = vf_load(sum) * q->sca[r];
        v = v * vf_load(by);
        v = vf_through_f16(v * RV_INT8_BOTH);
        vf_store(out + i, p->x.type == RV_BF16 ? vf_through_bf16(v) : v);
    }
    if (q->outliers[r]) add_outliers(p, q, w, r, n, out);
    finish_row(p, r, from, n, out);
}

static void rows8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, const weights8 *w, int32_t from, int32_t n) {
    int64_t cols = p->x.cols;
    for (int32_t r = 0; r < p->x.rows;) {
        int32_t sums[FEW_TILE_ROWS * FEW_OUTPUTS], take = p->x.rows - r >= 4 && RV_LANES != 8 ? 4 : p->x.rows - r >= 2 ? 2 : 1;    /* AVX2: 16 registers */
        const int8_t *x[FEW_TILE_ROWS];
        for (int32_t i = 0; i < take; i++) x[i] = q->codes + (r + i) * cols;
        if (take == 4) {
            tile8(x, w->codes, cols, 4, 4, sums);
            if (n > 4) tile8(x, w->codes + 4, cols, 4, 4, sums + 4);
        } else if (take == 2) {
            tile8(x, w->codes, cols, 2, 4, sums);
            if (n > 4) tile8(x, w->codes + 4, cols, 2, 4, sums + 4);
        } else {
            tile8(x, w->codes, cols, 1, 8, sums);
        }
        for (int32_t i = 0; i < take; i++) finish8(p, q, w, r + i, from, n, sums + i * FEW_OUTPUTS);
        r += take;
    }
}

static void product8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, int32_t from, int32_t to, void *room) {
    int64_t cols = p->x.cols;
    bool many = false;
    for (int32_t r = 0; r < p->x.rows; r++) many |= rv_cpu_many_outliers(q->outliers[r], p->x.cols);
    while (from < to) {
        weights8 w = { 0 };
        int32_t o = from, part = rv_cpu_part_of(p->w, &o), n = p->w->part[part].rows - o;
        const rv_codes *c = &p->w->codes[part];
        if (n > FEW_OUTPUTS) n = FEW_OUTPUTS;
        if (n > to - from) n = to - from;
        memcpy(w.scb, (const char *)c->scale + (size_t)o * sizeof *w.scb, (size_t)n * sizeof *w.scb);
        for (int32_t i = 0; i < FEW_OUTPUTS; i++) {
            int32_t at = i < n ? i : 0;
            w.codes[i] = (const int8_t *)c->codes + (o + at) * cols;
            w.decoded[i] = (char *)room + at * cols * (int64_t)rv_dtype_size(p->x.type);
            if (many && i < n) decode8((char *)room + i * cols * (int64_t)rv_dtype_size(p->x.type), w.codes[i], w.scb[i], cols, p->x.type);
        }
        rows8(p, q, &w, from, n);
        from += n;
    }
}
