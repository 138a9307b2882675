/* attend_tiles.inl - attention of many bf16 rows on tiles: part of kernels.inl.
 *
 * The one idea: tiles multiply, vectors soften what they made, and the next block's scores are asked for in between.
 */
enum { KEY_STEPS = CPU_TILE_KEYS / CPU_TILE_STEP, TILE_SCORE_LD = CPU_TILE_KEYS + TILE };

static void load_keys(const pair_run *u, int64_t column) {
    rv_mat k = u->a->kv.k;
    for (int32_t j = 0; j < u->n; j += TILE) {
        const void *rows[TILE] = { NULL };
        for (int32_t i = 0; i < TILE && j + i < u->n; i++) rows[i] = (char *)rv_cpu_row(k, u->rows[j + i]) + 2 * column;
        pack_outputs(rows, u->head_dim, u->room->keys + (int64_t)(j / CPU_TILE_PANEL) * u->steps * STEP_BYTES + j / TILE % 2 * TILE_BYTES);
    }
    if ((u->n - 1) / TILE % 2 == 0) {            /* half of the last block of keys             */
        const void *none[TILE] = { NULL };
        pack_outputs(none, u->head_dim, u->room->keys + (int64_t)(u->n / CPU_TILE_PANEL) * u->steps * STEP_BYTES + TILE_BYTES);
    }
}

/* V as `right`, keys where columns were: blocks of 32 columns of V, each [KEY_STEPS].  Of 32 keys, the pairs are 0 and 16, 1 and 17, ..:
 * as weights come, 16 in a vector.  Keys outside [lo, hi) are zeros.  Returns whether all are finite. */
static bool load_values(const pair_run *u, int64_t column, int32_t lo, int32_t hi, char *out) {
    const __m256i exponent = _mm256_set1_epi16(0x7f80);
    __mmask16 wrong = 0;
    rv_mat v = u->a->kv.v;
    for (int32_t p = 0; p < (u->n + CPU_TILE_STEP - 1) / CPU_TILE_STEP * TILE; p++) {
        const char *row[2];
        for (int32_t i = 0, j = p / TILE * CPU_TILE_STEP + p % TILE; i < 2; i++, j += TILE)
            row[i] = j >= lo && j < hi ? (char *)rv_cpu_row(v, u->rows[j]) + 2 * column : NULL;
        char *to = out + p / TILE * STEP_BYTES + p % TILE * TILE_LINE;
        for (int32_t c = 0; c < u->steps * CPU_TILE_STEP; c += TILE) {
            int32_t left = u->head_dim - c;
            __mmask16 mask = (__mmask16)(left >= TILE ? 0xffffu : left <= 0 ? 0u : (1u << left) - 1);
            __m256i a = row[0] ? _mm256_maskz_loadu_epi16(mask, row[0] + 2 * c) : _mm256_setzero_si256();
            __m256i b = row[1] ? _mm256_maskz_loadu_epi16(mask, row[1] + 2 * c) : _mm256_setzero_si256();
            wrong |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(a, exponent), exponent);
            wrong |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(b, exponent), exponent);
            __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
            _mm512_store_si512(to + (int64_t)(c / CPU_TILE_STEP) * KEY_STEPS * STEP_BYTES + c / TILE % 2 * TILE_BYTES, pairs);
        }
    }
    return wrong == 0;
}

/* 32 weights as a row of `left`, a in the lower halves: their first 8 bits, and the next 8, rounded. */
ALWAYS void split_store(__m512 a, __m512 b, char *high, char *low) {
    const __m512i half = _mm512_set1_epi32(0x8000), top = _mm512_set1_epi32((int32_t)0xffff0000);
    __m512i ha = _mm512_and_si512((__m512i)a, top), hb = _mm512_and_si512((__m512i)b, top);
    __m512i la = _mm512_add_epi32((__m512i)(a - (__m512)ha), half), lb = _mm512_add_epi32((__m512i)(b - (__m512)hb), half);
    enum { B_OR_A_WHERE_TOP = 0xea };            /* (b and top) or a */
    _mm512_store_si512(high, _mm512_or_si512(hb, _mm512_srli_epi32(ha, 16)));
    _mm512_store_si512(low, _mm512_ternarylogic_epi32(lb, top, _mm512_srli_epi32(la, 16), B_OR_A_WHERE_TOP));
}

ALWAYS __mmask16 seen_of(int32_t j, int32_t lo, int32_t hi) {
    int32_t a = lo - j, b = hi - j;
    a = a < 0 ? 0 : a > TILE ? TILE : a;
    b = b < 0 ? 0 : b > TILE ? TILE : b;
    return (__mmask16)(((1u << b) - 1) & ~((1u << a) - 1));
}

enum { SEES_ALL = 1, BIASED = 2 };               /* what loops are compiled for                    */

ALWAYS __m512 seen_only(__m512 v, const pair_sight *g, int32_t i, int32_t j, int kind) {
    return kind & SEES_ALL ? v : _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen_of(j, g->lo[i], g->hi[i]), v);
}

/* Scores of pair i and keys j.. less a shift, -infinity where the pair does not see the key. */
ALWAYS __m512 score_of(const pair_run *u, const pair_sight *g, int32_t i, int32_t j, __m512 less, int kind) {
    __m512 add = _mm512_sub_ps(kind & BIASED ? _mm512_load_ps(u->room->bias + j) : _mm512_setzero_ps(), less);
    return seen_only(_mm512_fmadd_ps(_mm512_load_ps(g->scores + i * TILE_SCORE_LD + j), _mm512_set1_ps(u->scale), add), g, i, j, kind);
}

/* The largest score of pair i, of those before (m) and these.  Without biases it is that of the largest product. */
ALWAYS float top_as(const pair_run *u, const pair_sight *g, int32_t i, float m, int kind) {
    const __m512 zero = _mm512_setzero_ps();
    vf a = vf_set(-INFINITY), b = a;
    for (int32_t j = g->from; j < g->to; j += CPU_TILE_STEP) {
        if (kind & BIASED) {
            a = vf_max(a, (vf)score_of(u, g, i, j, zero, kind));
            b = vf_max(b, (vf)score_of(u, g, i, j + TILE, zero, kind));
        } else {
            const float *s = g->scores + i * TILE_SCORE_LD + j;
            a = vf_max(a, (vf)seen_only(_mm512_load_ps(s), g, i, j, kind));
            b = vf_max(b, (vf)seen_only(_mm512_load_ps(s + TILE), g, i, j + TILE, kind));
        }
    }
    float most = _mm512_reduce_max_ps((__m512)vf_max(a, b)) * (kind & BIASED ? 1.0f : u->scale);
    return most > m ? most : m;
}

/* Adds weights of pair i, which it makes, to `sum`. */
ALWAYS void weights_as(const pair_run *u, const pair_sight *g, int32_t i, float base, float keep, float *sum, int kind) {
    const __m512 less = _mm512_set1_ps(base);
    __m512 even = _mm512_setzero_ps(), odd = even;
    char *high = row_in_block(u->room->high, i), *low = row_in_block(u->room->low, i);
    for (int32_t j = g->from; j < g->to; j += CPU_TILE_STEP) {
        __m512 a = exp2_of(score_of(u, g, i, j, less, kind));
        __m512 b = exp2_of(score_of(u, g, i, j + TILE, less, kind));
        even += a;
        odd += b;
        split_store(a, b, high + j / CPU_TILE_STEP * STEP_BYTES, low + j / CPU_TILE_STEP * STEP_BYTES);
    }
    _mm512_store_ps(sum, _mm512_load_ps(sum) * _mm512_set1_ps(keep) + (even + odd));
}

/* The scores that a block still lacks: 32 keys at a time. */
typedef struct tile_ahead { const char *queries; float *scores; int32_t key, to; } tile_ahead;

static void score_some(const pair_run *u, tile_ahead *t) {
    if (t->key >= t->to) return;
    tiles_multiply(packed_rows(t->queries), u->room->keys + (int64_t)(t->key / CPU_TILE_PANEL) * u->steps * STEP_BYTES, u->steps,
                   t->scores + t->key, TILE_SCORE_LD);
    t->key += CPU_TILE_PANEL;
}

/* Scores of a block into weights, online: rescales sums.  All maxima first: a pair's own chain is long, and 32 run side by side.
 * The next block's scores are asked for in between, so that tiles multiply while vectors do this. */
ALWAYS void soften_as(const pair_run *u, const pair_sight *g, float *m, float *l, float *sums, tile_ahead *next, int kind) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
    float base[CPU_TILE_PANEL] __attribute__((aligned(64))), keep[CPU_TILE_PANEL] __attribute__((aligned(64)));
    __mmask16 changed = 0;
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) base[i] = top_as(u, g, i, m[i], kind);
    for (int32_t i = 0; i < CPU_TILE_PANEL; i += TILE) {
        __m512 before = _mm512_load_ps(m + i), top = _mm512_load_ps(base + i);
        __m512 shift = _mm512_mask_mov_ps(top, _mm512_cmp_ps_mask(top, none, _CMP_EQ_OQ), _mm512_setzero_ps());
        __m512 k = exp2_of(before - shift);
        changed |= _mm512_cmp_ps_mask(k, _mm512_set1_ps(1), _CMP_NEQ_UQ);
        _mm512_store_ps(m + i, top);
        _mm512_store_ps(base + i, shift);
        _mm512_store_ps(keep + i, k);
    }
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) {
        if (i % (CPU_TILE_PANEL / KEY_STEPS) == 0) score_some(u, next);
        weights_as(u, g, i, base[i], keep[i], l + i * TILE, kind);
    }
    for (int32_t i = 0, width = u->steps * CPU_TILE_STEP; changed && i < CPU_TILE_PANEL; i++)
        for (int32_t c = 0; c < u->head_dim; c += TILE)
            _mm512_store_ps(sums + i * width + c, _mm512_load_ps(sums + i * width + c) * _mm512_set1_ps(keep[i]));
}

static __attribute__((noinline)) void tiles_soften(const pair_run *u, const pair_sight *g, float *m, float *l, float *sums, tile_ahead *next) {
    int kind = u->biased ? BIASED : 0;
    if (g->all) kind |= SEES_ALL;
    switch (kind) {
    case SEES_ALL: soften_as(u, g, m, l, sums, next, SEES_ALL); break;
    case BIASED: soften_as(u, g, m, l, sums, next, BIASED); break;
    case SEES_ALL | BIASED: soften_as(u, g, m, l, sums, next, SEES_ALL | BIASED); break;
    default: soften_as(u, g, m, l, sums, next, 0); break;
    }
}

/* Tile c of the sums: its values by both weights, 5 and 6. */
#define WEIGH(c)                                                                                                     \
    if (tiles > (c)) {                                                                                               \
        _tile_loadd(7, right + (c) / 2 * (int64_t)(KEY_STEPS * STEP_BYTES) + (c) % 2 * TILE_BYTES, TILE_LINE);       \
        _tile_dpbf16ps(c, 5, 7);                                                                                     \
        _tile_dpbf16ps(c, 6, 7);                                                                                     \
    }
#define EACH_SUM(what)                    \
    what(0) what(1) what(2) what(3) what(4)
#define TAKE_SUM(c) if (tiles > (c)) _tile_loadd(c, sums + (c) * TILE_LINE, ld);
#define GIVE_SUM(c) if (tiles > (c)) _tile_stored(c, sums + (c) * TILE_LINE, ld);

/* sums [16 x 16 tiles] += (high + low) values, over `steps` steps of keys; up to 5 tiles. */
ALWAYS void weigh_as(const char *high, const char *low, const char *right, int32_t steps, char *sums, int64_t ld, int tiles) {
    EACH_SUM(TAKE_SUM)
    for (int32_t s = 0; s < steps; s++, high += STEP_BYTES, low += STEP_BYTES, right += STEP_BYTES) {
        _tile_loadd(5, high, TILE_LINE);
        _tile_loadd(6, low, TILE_LINE);
        EACH_SUM(WEIGH)
    }
    EACH_SUM(GIVE_SUM)
}

/* Adds the values of key blocks [from, to) to the sums of 32 pairs: of 16, 64 or (heads of 80) 80 columns at a time. */
static __attribute__((noinline)) void weigh(const pair_run *u, const char *values, int32_t from, int32_t to, float *sums) {
    int64_t at = (int64_t)(from / CPU_TILE_STEP) * STEP_BYTES, ld = 4 * (int64_t)u->steps * CPU_TILE_STEP;
    int32_t steps = (to - from) / CPU_TILE_STEP, all = (u->head_dim + TILE - 1) / TILE;
    FENCE();
    for (int32_t half = 0; half < 2; half++) {
        const char *high = u->room->high + at + half * TILE_BYTES, *low = u->room->low + at + half * TILE_BYTES;
        for (int32_t c = 0; c < all;) {
            const char *right = values + (int64_t)(c / 2) * KEY_STEPS * STEP_BYTES + at;
            char *to_sums = (char *)sums + half * TILE * ld + c * TILE_LINE;
            int32_t left = all - c;
            if (left == 5) weigh_as(high, low, right, steps, to_sums, ld, 5), c += 5;
            else if (left >= 4) weigh_as(high, low, right, steps, to_sums, ld, 4), c += 4;
            else if (left >= 2) weigh_as(high, low, right, steps, to_sums, ld, 2), c += 2;
            else weigh_as(high, low, right, steps, to_sums, ld, 1), c += 1;
        }
    }
    FENCE();
}

/* V of this run holds NaN or infinity: pair by pair, with zeros for keys that it does not see. */
static void weigh_one_by_one(const pair_run *u, int64_t column, const pair_sight *g, float *sums) {
    const int32_t width = u->steps * CPU_TILE_STEP;
    float *one = u->room->one;
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) {
        if (g->lo[i] == g->hi[i]) continue;
        load_values(u, column, g->lo[i], g->hi[i], u->room->some_values);
        memcpy(one, sums, (size_t)(CPU_TILE_PANEL * width) * sizeof *one);
        weigh(u, u->room->some_values, g->from, g->to, one);
        memcpy(sums + (int64_t)i * width, one + (int64_t)i * width, (size_t)width * sizeof *one);
    }
}

/* The first block from `first` on that sees something of the run, or one beyond the last pair; and its scores, not computed yet. */
static int32_t next_block(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t first, int32_t pairs, pair_sight *g,
                          float *scores, tile_ahead *ahead) {
    while (first < pairs && !look(u, item, group, first, pairs, g)) first += CPU_TILE_PANEL;
    *ahead = (tile_ahead){ 0 };
    if (first >= pairs) return first;
    *ahead = (tile_ahead){ u->room->rows + (int64_t)(first / CPU_TILE_PANEL) * u->steps * STEP_BYTES, scores, g->from, g->to };
    g->scores = scores;
    return first;
}

static void attend_run(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t pairs) {
    pair_sight sight[2], *now = &sight[0], *then = &sight[1], *other;
    float *const scores[2] = { u->room->scores, u->room->scores + CPU_TILE_PANEL * TILE_SCORE_LD };
    tile_ahead ahead;
    const int32_t brought = CPU_TILE_KEYS * CPU_TILE_PANEL / pairs + 1;
    int32_t turn = 0, block = next_block(u, item, group, 0, pairs, now, scores[0], &ahead);
    while (block < pairs) {
        while (ahead.key < ahead.to) score_some(u, &ahead);
        bring(u, (int64_t)item->kv_head * u->head_dim, block / CPU_TILE_PANEL * brought, (block / CPU_TILE_PANEL + 1) * brought);
        turn = !turn;
        int32_t next = next_block(u, item, group, block + CPU_TILE_PANEL, pairs, then, scores[turn], &ahead);
        float *sums = u->room->sums + (int64_t)block * u->steps * CPU_TILE_STEP;
        tiles_soften(u, now, u->room->m + block, u->room->l + (int64_t)block * TILE, sums, &ahead);
        if (u->finite) weigh(u, u->room->values, now->from, now->to, sums);
        else weigh_one_by_one(u, (int64_t)item->kv_head * u->head_dim, now, sums);
        other = now, now = then, then = other;
        block = next;
    }
}

static void load_pair(const pair_run *u, const void *q, int32_t i) {
    pack_row(q, u->head_dim, row_in_block(u->room->rows + (int64_t)(i / CPU_TILE_PANEL) * u->steps * STEP_BYTES, i % CPU_TILE_PANEL));
    _mm512_store_ps(u->room->l + i * TILE, _mm512_setzero_ps());
}

static float weights_of_pair(const pair_run *u, int32_t i) { return vf_sum(vf_load(u->room->l + i * TILE)); }

static bool attend_tiles(const rv_attention *a, const rv_cpu_attend_item *item, rv_cpu_tiles_room *room) {
    tiles_begin();
    bool ok = attend_runs(a, item, room);
    tiles_end();
    return ok;
}
