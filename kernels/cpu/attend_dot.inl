/* attend_dot.inl - attention of many bf16 rows by dot products of bf16 (AVX512-BF16 without tiles): part of kernels.inl.
 *
 * The one idea: lanes are pairs (row, head), so that nothing is ever summed or compared across lanes: two vectors of pairs take
 * scores of one key after the other, their maxima and sums are vectors, and a pair's weights of two keys are one word, which is
 * brought to all lanes when values (lanes are their columns) are multiplied.
 *
 * Of 16 pairs and a key a head of 80 takes 40 products for the score and, as a weight is two numbers, 80 for the values, one a
 * cycle; the softmax is some 20 instructions, most of them not where products are computed.
 */
enum { DOT_VECTORS = CPU_TILE_PANEL / RV_LANES,  /* of a block of pairs                          */
       DOT_KEYS = 8,                             /* whose scores are in registers                */
       DOT_ROWS = 4,                             /* pairs whose values are in registers, ..      */
       DOT_COLUMNS = 5 };                        /* .. this many vectors of them                 */

ALWAYS int32_t words_of(const pair_run *u) { return (u->head_dim + 1) / 2; }
ALWAYS int32_t columns_of(const pair_run *u) { return (u->head_dim + RV_LANES - 1) / RV_LANES; }      /* in vectors */

/* Rows [CPU_TILE_KEYS x words], as they are; zeros behind the last one, where scores are computed but not seen. */
static void load_keys(const pair_run *u, int64_t column) {
    const int32_t words = words_of(u), end = (u->n + CPU_TILE_STEP - 1) / CPU_TILE_STEP * CPU_TILE_STEP;
    for (int32_t j = 0; j < end; j++) {
        char *to = u->room->keys + (int64_t)j * words * 4;
        memset(to + (words - 1) * 4, 0, 4);
        if (j < u->n) memcpy(to, (const char *)rv_cpu_row(u->a->kv.k, u->rows[j]) + 2 * column, 2 * (size_t)u->head_dim);
        else memset(to, 0, 4 * (size_t)words);
    }
}

/* [CPU_TILE_KEYS / 2][columns] of 16 words: two keys of 16 columns. */
static bool load_values(const pair_run *u, int64_t column, int32_t lo, int32_t hi, char *out) {
    const __m256i exponent = _mm256_set1_epi16(0x7f80);
    __mmask16 wrong = 0;
    for (int32_t j = 0; j < (u->n + CPU_TILE_STEP - 1) / CPU_TILE_STEP * CPU_TILE_STEP; j += 2)
        for (int32_t c = 0; c < u->head_dim; c += RV_LANES, out += sizeof(vf)) {
            __mmask16 mask = (__mmask16)(u->head_dim - c >= RV_LANES ? 0xffffu : (1u << (u->head_dim - c)) - 1);
            __m256i of[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
            for (int i = 0; i < 2; i++) {
                if (j + i < lo || j + i >= hi) continue;
                of[i] = _mm256_maskz_loadu_epi16(mask, (const char *)rv_cpu_row(u->a->kv.v, u->rows[j + i]) + 2 * (column + c));
                wrong |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(of[i], exponent), exponent);
            }
            _mm512_store_si512(out, _mm512_or_si512(_mm512_cvtepu16_epi32(of[0]), _mm512_slli_epi32(_mm512_cvtepu16_epi32(of[1]), 16)));
        }
    return wrong == 0;
}

/* Queries: blocks [words][CPU_TILE_PANEL pairs] of two columns each. */
static void load_pair(const pair_run *u, const void *q, int32_t i) {
    const int32_t words = words_of(u);
    char *to = u->room->rows + ((int64_t)(i / CPU_TILE_PANEL) * words * CPU_TILE_PANEL + i % CPU_TILE_PANEL) * 4;
    for (int32_t w = 0; w < words; w++, to += CPU_TILE_PANEL * 4) {
        memset(to, 0, 4);
        if (q) memcpy(to, (const char *)q + 4 * w, 2 * w + 1 < u->head_dim ? 4 : 2);
    }
    u->room->l[i] = 0;
}

static float weights_of_pair(const pair_run *u, int32_t i) { return u->room->l[i]; }

/* Lanes whose pair does not see the key. */
ALWAYS __mmask16 blind_to(const pair_sight *g, int v, int32_t key) {
    const __m512i k = _mm512_set1_epi32(key);
    return _mm512_cmplt_epi32_mask(k, _mm512_loadu_si512(g->lo + v * RV_LANES)) | _mm512_cmpge_epi32_mask(k, _mm512_loadu_si512(g->hi + v * RV_LANES));
}

/* Scores of a block's pairs, [key][pair], times log2 e; -infinity where not `all` is seen.  Their maxima join `top`. */
ALWAYS void dot_scores_as(const pair_run *u, const pair_sight *g, const char *queries, float *scores, vf top[DOT_VECTORS], bool all) {
    const int32_t words = words_of(u);
    const int64_t ld = (int64_t)words * 4;
    const float *bias = u->room->bias;
    const vf scale = vf_set(u->scale);
    vf most[DOT_VECTORS] = { top[0], top[1] };
    for (int32_t j = g->from; j < g->to; j += DOT_KEYS) {
        const char *k = u->room->keys + j * ld, *q = queries;
        __m512 acc[DOT_KEYS * DOT_VECTORS];
#pragma GCC unroll 16
        for (int i = 0; i < DOT_KEYS * DOT_VECTORS; i++) acc[i] = _mm512_setzero_ps();
        for (int32_t w = 0; w < words; w++, k += 4, q += DOT_VECTORS * sizeof(vf)) {
            const __m512bh a = (__m512bh)_mm512_load_ps(q), b = (__m512bh)_mm512_load_ps(q + sizeof(vf));
#pragma GCC unroll 8
            for (int i = 0; i < DOT_KEYS; i++) {
                int32_t word;
                memcpy(&word, k + i * ld, sizeof word);
                const __m512bh key = (__m512bh)_mm512_set1_epi32(word);
                acc[i * DOT_VECTORS] = _mm512_dpbf16_ps(acc[i * DOT_VECTORS], key, a);
                acc[i * DOT_VECTORS + 1] = _mm512_dpbf16_ps(acc[i * DOT_VECTORS + 1], key, b);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < DOT_KEYS; i++)
#pragma GCC unroll 2
            for (int v = 0; v < DOT_VECTORS; v++) {
                vf s = (vf)acc[i * DOT_VECTORS + v] * scale + bias[j + i];
                if (!all) s = (vf)_mm512_mask_mov_ps((__m512)s, blind_to(g, v, j + i), _mm512_set1_ps(-INFINITY));
                vf_store(scores + (j + i) * CPU_TILE_PANEL + v * RV_LANES, s);
                most[v] = vf_max(most[v], s);
            }
    }
    top[0] = most[0];
    top[1] = most[1];
}

static __attribute__((noinline)) void dot_scores(const pair_run *u, const pair_sight *g, const char *queries, float *scores, vf top[DOT_VECTORS]) {
    dot_scores_as(u, g, queries, scores, top, true);
}

static __attribute__((noinline)) void dot_scores_of_some(const pair_run *u, const pair_sight *g, const char *queries, float *scores, vf top[DOT_VECTORS]) {
    dot_scores_as(u, g, queries, scores, top, false);
}

/* Scores of a block become words of weights: [two keys][what they are to 8 bits, the rest][pair].  Sums of weights join l, whose pairs'
 * maxima go from m to `top`; keep: what earlier sums are worth now. */
static __attribute__((noinline)) void dot_soften(const pair_sight *g, float *scores, const vf top[DOT_VECTORS], float *m, float *l, float *keep) {
    const __m512i half = _mm512_set1_epi32(0x8000), high = _mm512_set1_epi32((int32_t)0xffff0000);
    const __mmask32 odd = 0xaaaaaaaa;
    for (int v = 0; v < DOT_VECTORS; v++, m += RV_LANES, l += RV_LANES, keep += RV_LANES) {
        const __m512 base = _mm512_mask_mov_ps((__m512)top[v], _mm512_cmp_ps_mask((__m512)top[v], _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ), _mm512_setzero_ps());
        const __m512 kept = exp2_of((__m512)vf_load(m) - base);
        __m512 even_sum = _mm512_setzero_ps(), odd_sum = even_sum;
        float *at = scores + g->from * CPU_TILE_PANEL + v * RV_LANES;
        for (int32_t j = g->from; j < g->to; j += 2, at += 2 * CPU_TILE_PANEL) {
            const __m512 a = exp2_of(_mm512_load_ps(at) - base), b = exp2_of(_mm512_load_ps(at + CPU_TILE_PANEL) - base);
            even_sum += a;
            odd_sum += b;
            const __m512i ha = _mm512_add_epi32((__m512i)a, half), hb = _mm512_add_epi32((__m512i)b, half);
            const __m512i la = (__m512i)(a - (__m512)_mm512_and_si512(ha, high)), lb = (__m512i)(b - (__m512)_mm512_and_si512(hb, high));
            _mm512_store_si512(at, _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(ha, 16), hb));
            _mm512_store_si512(at + CPU_TILE_PANEL, _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(la, 16), lb));
        }
        vf_store(l, vf_load(l) * (vf)kept + (vf)(even_sum + odd_sum));
        vf_store(m, top[v]);
        vf_store(keep, (vf)kept);
    }
}

/* sums [DOT_ROWS x C vectors] = keep * sums + weights * values, over `twos` pairs of keys. */
ALWAYS void dot_values_as(const char *weights, const char *values, int64_t step, int32_t twos, const float *keep, float *sums, int64_t ld, int C) {
    __m512 acc[DOT_ROWS * DOT_COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < DOT_ROWS; r++)
#pragma GCC unroll 5
        for (int c = 0; c < C; c++) acc[r * C + c] = _mm512_load_ps(sums + r * ld + c * RV_LANES) * _mm512_set1_ps(keep[r]);
    for (int32_t i = 0; i < twos; i++, values += step, weights += 2 * CPU_TILE_PANEL * 4) {
        __m512bh v[DOT_COLUMNS];
#pragma GCC unroll 5
        for (int c = 0; c < C; c++) v[c] = (__m512bh)_mm512_load_ps(values + c * (int)sizeof(vf));
#pragma GCC unroll 4
        for (int r = 0; r < DOT_ROWS; r++) {
            int32_t high, low;
            memcpy(&high, weights + r * 4, 4);
            memcpy(&low, weights + (CPU_TILE_PANEL + r) * 4, 4);
            const __m512bh h = (__m512bh)_mm512_set1_epi32(high), l = (__m512bh)_mm512_set1_epi32(low);
#pragma GCC unroll 5
            for (int c = 0; c < C; c++) acc[r * C + c] = _mm512_dpbf16_ps(acc[r * C + c], h, v[c]);
#pragma GCC unroll 5
            for (int c = 0; c < C; c++) acc[r * C + c] = _mm512_dpbf16_ps(acc[r * C + c], l, v[c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < DOT_ROWS; r++)
#pragma GCC unroll 5
        for (int c = 0; c < C; c++) _mm512_store_ps(sums + r * ld + c * RV_LANES, acc[r * C + c]);
}

/* The same for all columns of DOT_ROWS pairs from pair `i` of the block on. */
static __attribute__((noinline)) void dot_values(const pair_run *u, const pair_sight *g, const char *values, int32_t i, const float *keep, float *sums) {
    const int32_t columns = columns_of(u), twos = (g->to - g->from) / 2;
    const int64_t step = columns * (int64_t)sizeof(vf), ld = (int64_t)u->steps * CPU_TILE_STEP;
    const char *weights = (const char *)(g->scores + g->from * CPU_TILE_PANEL + i);
    values += g->from / 2 * step;
    for (int32_t c = 0, left; (left = columns - c) > 0;) {
        const char *v = values + c * (int64_t)sizeof(vf);
        float *to = sums + c * RV_LANES;
        if (left == 5) dot_values_as(weights, v, step, twos, keep, to, ld, 5), c += 5;
        else if (left >= 4) dot_values_as(weights, v, step, twos, keep, to, ld, 4), c += 4;
        else if (left >= 2) dot_values_as(weights, v, step, twos, keep, to, ld, 2), c += 2;
        else dot_values_as(weights, v, step, twos, keep, to, ld, 1), c += 1;
    }
}

/* V of this run holds NaN or infinity: pair by pair, with zeros for keys that it does not see. */
static void dot_values_one_by_one(const pair_run *u, const pair_sight *g, int64_t column, const float *keep, float *sums) {
    const int32_t width = u->steps * CPU_TILE_STEP;
    float *one = u->room->one;
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) {
        if (g->lo[i] == g->hi[i]) continue;
        const int32_t first = i / DOT_ROWS * DOT_ROWS, at = i % DOT_ROWS * width;
        load_values(u, column, g->lo[i], g->hi[i], u->room->some_values);
        memcpy(one, sums + first * width, (size_t)(DOT_ROWS * width) * sizeof *one);
        dot_values(u, g, u->room->some_values, first, keep + first, one);
        memcpy(sums + i * width, one + at, (size_t)width * sizeof *one);
    }
}

static void attend_run(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t pairs) {
    const int32_t brought = CPU_TILE_KEYS * CPU_TILE_PANEL / pairs + 1, width = u->steps * CPU_TILE_STEP;
    const int64_t column = (int64_t)item->kv_head * u->head_dim;
    float keep[CPU_TILE_PANEL], *scores = u->room->scores;
    pair_sight g = { .scores = scores };
    for (int32_t block = 0, at = 0; block < pairs; block += CPU_TILE_PANEL, at += brought) {
        bring(u, column, at, at + brought);
        if (!look(u, item, group, block, pairs, &g)) continue;
        const int32_t n = pairs - block < CPU_TILE_PANEL ? pairs - block : CPU_TILE_PANEL;
        const char *queries = u->room->rows + (int64_t)block * words_of(u) * 4;
        float *m = u->room->m + block, *sums = u->room->sums + (int64_t)block * width;
        vf top[DOT_VECTORS] = { vf_load(m), vf_load(m + RV_LANES) };
        bool all = true;
        for (int32_t i = 0; i < n; i++) all = all && g.lo[i] <= g.from && g.hi[i] >= g.to;
        if (all) dot_scores(u, &g, queries, scores, top);
        else dot_scores_of_some(u, &g, queries, scores, top);
        dot_soften(&g, scores, top, m, u->room->l + block, keep);
        if (!u->finite) dot_values_one_by_one(u, &g, column, keep, sums);
        else for (int32_t i = 0; i < n; i += DOT_ROWS) dot_values(u, &g, u->room->values, i, keep + i, sums + i * width);
    }
}
_Static_assert((int)DOT_VECTORS == 2 && (int)CPU_TILE_STEP % (int)DOT_KEYS == 0 && (int)CPU_TILE_PANEL % (int)DOT_ROWS == 0, "blocks");
