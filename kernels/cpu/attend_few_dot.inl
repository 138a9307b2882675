/* attend_few_dot.inl - attention of few rows by dot products of bf16: part of kernels.inl.
 *
 * The one idea: a vector of scores is 16 of (key, head): 16 sums over a head's columns, whose lanes are added together in four
 * steps of halving.  A weight e^(s - m) is two bf16 numbers (attend_runs.inl); values of two keys are put together column by
 * column on the way, so that one product weights both.
 *
 * A head of 128 takes, per key and four query heads, 16 products for scores and 32 for values, one a cycle.
 */
enum { FEW_STEPS = CPU_HEAD_DIM / CPU_TILE_STEP, FEW_RUN = 64 };

/* Rows of a matrix on their way to the cache, four lines at a time. */
typedef struct bringer { rv_mat m; const int32_t *row, *end; int64_t at; int32_t done, bytes; } bringer;

ALWAYS bringer bringer_of(rv_mat m, const rv_cpu_bring *next) {
    return (bringer){ m, next->rows, next->rows + next->n, 2 * (int64_t)next->column, 0, 2 * next->columns };
}

ALWAYS void bring_some(bringer *b) {
    enum { LINE = 64, LINES = 4 };
    if (b->row == b->end) return;
    const char *at = (const char *)rv_cpu_row(b->m, *b->row) + b->at + b->done;
#pragma GCC unroll 4
    for (int i = 0; i < LINES; i++) _mm_prefetch(at + i * LINE, _MM_HINT_T1);
    b->done += LINES * LINE;
    if (b->done < b->bytes) return;
    b->done = 0;
    b->row++;
}

/* Lane i is the sum of a[i]'s lanes. */
ALWAYS __m512 sums_by_lane(const __m512 *a) {
    __m512 b[8], c[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {                /* 2 of 16 */
        const int at = i / 2 * 4 + i % 2;
        b[i] = _mm512_unpacklo_ps(a[at], a[at + 2]) + _mm512_unpackhi_ps(a[at], a[at + 2]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)                  /* lanes: a[4 i], a[4 i + 1], .. of each quarter */
        c[i] = _mm512_unpacklo_ps(b[2 * i], b[2 * i + 1]) + _mm512_unpackhi_ps(b[2 * i], b[2 * i + 1]);
    const __m512 d = _mm512_shuffle_f32x4(c[0], c[1], 0x88) + _mm512_shuffle_f32x4(c[0], c[1], 0xdd);
    const __m512 e = _mm512_shuffle_f32x4(c[2], c[3], 0x88) + _mm512_shuffle_f32x4(c[2], c[3], 0xdd);
    return _mm512_shuffle_f32x4(d, e, 0x88) + _mm512_shuffle_f32x4(d, e, 0xdd);
}

ALWAYS __mmask32 columns_mask(int32_t left) { return left >= CPU_TILE_STEP ? 0xffffffffu : (1u << left) - 1; }

/* Scores of n keys, [key][H heads], -infinity up to a multiple of 16.  Returns their maxima by lane. */
ALWAYS __m512 few_scores(const rv_attention *a, const int32_t *rows, int32_t n, const __m512i *q, int64_t column, int32_t head_dim, const rv_cpu_bring *next,
                         float *scores, int H) {
    enum { LANES = 16 };
    const int G = LANES / H;
    const __m512i key_of = H == 1 ? _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
                                  : _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512 none = _mm512_set1_ps(-INFINITY);
    bringer keys = bringer_of(a->kv.k, next);
    __m512 top = none;
    for (int32_t j = 0; j < n; j += G) {
        const char *k[LANES];
        float bias[LANES] = { 0 };
        __m512 acc[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < G; i++) {
            const int32_t at = j + i < n ? j + i : n - 1;
            k[i] = (const char *)rv_cpu_row(a->kv.k, rows[at]) + 2 * column;
            if (a->kv.bias) bias[i] = a->kv.bias[rows[at]];
            bring_some(&keys);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) acc[i] = _mm512_setzero_ps();
        for (int32_t c = 0; c < head_dim; c += CPU_TILE_STEP) {
            const __mmask32 mask = columns_mask(head_dim - c);
            __m512bh of[CPU_GROUP];
#pragma GCC unroll 4
            for (int h = 0; h < H; h++) of[h] = (__m512bh)q[h * FEW_STEPS + c / CPU_TILE_STEP];
#pragma GCC unroll 16
            for (int i = 0; i < G; i++) {
                const __m512bh key = (__m512bh)_mm512_maskz_loadu_epi16(mask, k[i] + 2 * c);
#pragma GCC unroll 4
                for (int h = 0; h < H; h++) acc[i * H + h] = _mm512_dpbf16_ps(acc[i * H + h], of[h], key);
            }
        }
        __m512 s = sums_by_lane(acc) * _mm512_set1_ps(a->scale) + _mm512_permutexvar_ps(key_of, _mm512_loadu_ps(bias));
        if (j + G > n) s = _mm512_mask_mov_ps(none, (__mmask16)((1u << (n - j) * H) - 1), s);
        _mm512_store_ps(scores + j * H, s);
        top = _mm512_max_ps(top, s);
    }
    return top;
}

/* Lanes of one head: the largest, or the sum, in all of them. */
ALWAYS __m512 heads_top(__m512 v, int H) {
    if (H == 1) return _mm512_set1_ps(_mm512_reduce_max_ps(v));
    v = _mm512_max_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
    return _mm512_max_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
}
ALWAYS __m512 heads_sum(__m512 v, int H) {
    if (H == 1) return _mm512_set1_ps(vf_sum((vf)v));
    v = v + _mm512_shuffle_f32x4(v, v, 0x4e);
    return v + _mm512_shuffle_f32x4(v, v, 0xb1);
}

/* Scores into words of two keys' weights, [two keys][H heads]: what they are to 8 bits, and the rest.  Returns their sums by lane. */
ALWAYS __m512 few_weights(const float *scores, int32_t n, __m512 base, uint32_t *high, uint32_t *low, int H) {
    const __m512i half = _mm512_set1_epi32(0x8000), top = _mm512_set1_epi32((int32_t)0xffff0000);
    uint16_t from[32] = { 0 };                   /* upper words of lanes k H + h, k even and odd side by side */
    for (int i = 0; i < 16; i++) from[i] = (uint16_t)(2 * ((i / (2 * H) * 2 + i % 2) * H + i / 2 % H) + 1);
    const __m512i order = _mm512_loadu_si512(from);
    __m512 total = _mm512_setzero_ps();
    for (int32_t i = 0; i < n * H; i += 16) {
        const __m512 p = exp2_of((_mm512_load_ps(scores + i) - base) * _mm512_set1_ps(1.44269504f));
        const __m512i h = _mm512_and_si512(_mm512_add_epi32((__m512i)p, half), top);
        total += p;
        _mm256_store_si256((__m256i *)(high + i / 2), _mm512_castsi512_si256(_mm512_permutexvar_epi16(order, h)));
        _mm256_store_si256((__m256i *)(low + i / 2), _mm512_castsi512_si256(_mm512_permutexvar_epi16(order, (__m512i)(p - (__m512)h))));
    }
    return total;
}

/* Weighted values of two keys join acc[H][2 S vectors]: of 32 columns the first and last four of each eight. */
ALWAYS void few_two(__m512 *acc, const char *one, const char *other, int64_t at, const uint32_t *high, const uint32_t *low, const __mmask32 *mask, int H, int S) {
    __m512bh v[4];
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
        const __m512i a = _mm512_maskz_loadu_epi16(mask[s], one + at + s * 64);
        const __m512i b = other ? _mm512_maskz_loadu_epi16(mask[s], other + at + s * 64) : _mm512_setzero_si512();
        v[2 * s] = (__m512bh)_mm512_unpacklo_epi16(a, b);
        v[2 * s + 1] = (__m512bh)_mm512_unpackhi_epi16(a, b);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
        const __m512bh weight = (__m512bh)_mm512_set1_epi32((int32_t)high[h]), rest = (__m512bh)_mm512_set1_epi32((int32_t)low[h]);
#pragma GCC unroll 4
        for (int i = 0; i < 2 * S; i++) acc[h * 2 * S + i] = _mm512_dpbf16_ps(acc[h * 2 * S + i], weight, v[i]);
#pragma GCC unroll 4
        for (int i = 0; i < 2 * S; i++) acc[h * 2 * S + i] = _mm512_dpbf16_ps(acc[h * 2 * S + i], rest, v[i]);
    }
}

/* o[h][c .. c + 32 S) of `heads` partials. */
ALWAYS void few_values(const rv_attention *a, const int32_t *rows, int32_t n, int64_t column, int32_t c, int32_t head_dim, bringer *next,
                       const uint32_t *high, const uint32_t *low, rv_cpu_partial *out, int heads, int H, int S) {
    const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0), second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    const __mmask32 mask[2] = { columns_mask(head_dim - c), S == 1 ? 0 : columns_mask(head_dim - c - CPU_TILE_STEP) };
    __m512 acc[CPU_GROUP * 4];
#pragma GCC unroll 16
    for (int i = 0; i < H * 2 * S; i++) acc[i] = _mm512_setzero_ps();
    for (int32_t j = 0; j + 1 < n; j += 2, high += H, low += H) {
        bring_some(next);
        few_two(acc, rv_cpu_row(a->kv.v, rows[j]), rv_cpu_row(a->kv.v, rows[j + 1]), 2 * (column + c), high, low, mask, H, S);
    }
    if (n % 2) few_two(acc, rv_cpu_row(a->kv.v, rows[n - 1]), NULL, 2 * (column + c), high, low, mask, H, S);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
#pragma GCC unroll 2
        for (int s = 0; s < S && h < heads; s++) {
            const __m512 even = acc[(h * S + s) * 2], odd = acc[(h * S + s) * 2 + 1];
            _mm512_storeu_ps(out[h].o + c + s * CPU_TILE_STEP, _mm512_permutex2var_ps(even, first, odd));
            _mm512_storeu_ps(out[h].o + c + s * CPU_TILE_STEP + 16, _mm512_permutex2var_ps(even, second, odd));
        }
}

ALWAYS void few_dot_as(const rv_attention *a, int32_t r, int32_t head, int heads, const int32_t *rows, int32_t n, const rv_cpu_bring *next,
                       rv_cpu_partial *out, int H) {
    const int32_t head_dim = a->q.cols / a->heads;
    const int64_t column = (int64_t)(head / (a->heads / a->kv_heads)) * head_dim;
    __m512i q[CPU_GROUP * FEW_STEPS];
    float scores[CPU_KEYS * CPU_GROUP] __attribute__((aligned(64)));
    uint32_t high[CPU_KEYS / 2 * CPU_GROUP] __attribute__((aligned(64))), low[CPU_KEYS / 2 * CPU_GROUP] __attribute__((aligned(64)));
    for (int h = 0; h < H; h++)
        for (int32_t c = 0; c < head_dim; c += CPU_TILE_STEP)
            q[h * FEW_STEPS + c / CPU_TILE_STEP] = h >= heads ? _mm512_setzero_si512()
                : _mm512_maskz_loadu_epi16(columns_mask(head_dim - c), (const char *)rv_cpu_row(a->q, r) + 2 * ((int64_t)(head + h) * head_dim + c));
    __m512 top = heads_top(few_scores(a, rows, n, q, column, head_dim, next, scores, H), H);
    top = _mm512_mask_mov_ps(top, _mm512_cmp_ps_mask(top, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ), _mm512_setzero_ps());
    const __m512 sum = heads_sum(few_weights(scores, n, top, high, low, H), H);
    for (int h = 0; h < heads; h++) out[h].m = ((vf)top)[h], out[h].l = ((vf)sum)[h];
    bringer values = bringer_of(a->kv.v, next);
    for (int32_t c = 0; c < head_dim; c += 2 * CPU_TILE_STEP) {
        if (head_dim - c > CPU_TILE_STEP) few_values(a, rows, n, column, c, head_dim, &values, high, low, out, heads, H, 2);
        else few_values(a, rows, n, column, c, head_dim, &values, high, low, out, heads, H, 1);
    }
}

static __attribute__((noinline)) void few_dot_1(const rv_attention *a, int32_t r, int32_t head, const int32_t *rows, int32_t n,
                                                  const rv_cpu_bring *next, rv_cpu_partial *out) {
    few_dot_as(a, r, head, 1, rows, n, next, out, 1);
}

static __attribute__((noinline)) void few_dot_4(const rv_attention *a, int32_t r, int32_t head, int heads, const int32_t *rows, int32_t n,
                                                  const rv_cpu_bring *next, rv_cpu_partial *out) {
    few_dot_as(a, r, head, heads, rows, n, next, out, CPU_GROUP);
}
_Static_assert((int)CPU_GROUP == 4 && (int)CPU_TILE_STEP == 2 * (int)RV_LANES, "vectors of scores are four keys of four heads");
