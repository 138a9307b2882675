/* attend_runs.inl - attention of many bf16 rows: what its two kinds share, that on AMX's tiles (attend_tiles.inl) and that by dot
 * products of bf16 (attend_dot.inl); part of kernels.inl.
 *
 * The one idea: as attend.inl, in runs of CPU_TILE_KEYS keys at fixed multiples; 32 (row, head) pairs at a time get their scores
 * for a run, soften them, and add the run's values.  A weight e^(s - m) is multiplied as two bf16 numbers, what it is
 * to 8 bits and the rest, so that values are weighted to 16 bits and not to 8.  Exponents are of 2: scale and bias bring ln 2.
 */
typedef struct pair_run {        /* one run of keys, for all pairs of an item                  */
    const rv_attention *a;
    rv_cpu_tiles_room *room;
    int32_t head_dim, steps;     /* steps of 32 columns that a head takes                      */
    int32_t key, n;              /* keys [key, key + n), n <= CPU_TILE_KEYS                    */
    const int32_t *rows, *next_rows;             /* where they lie, and the n_next keys behind them */
    int32_t n_next;
    float   scale;               /* with log2 e                                                */
    bool    finite;              /* all of its V                                               */
    bool    biased;              /* scores are not ordered as products are: a key has a bias, or the scale is not above 0 */
} pair_run;

/* 2^x: 1.5e-7 of it wrong, 1 for 0; 0 below -126 (results that are no normal numbers take the CPU a hundred cycles), NaN for NaN. */
ALWAYS __m512 exp2_of(__m512 x) {
    enum { TO_BELOW = 1 };
    __m512 r = _mm512_reduce_ps(x, TO_BELOW);    /* x less the whole number below it              */
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.00186713005f), _mm512_set1_ps(0.00901703071f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0557999127f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240164444f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693151295f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126), _CMP_NLT_UQ), p, x);
}

static void visible_in(const pair_run *u, int32_t r, int32_t *lo, int32_t *hi) {
    int32_t first = u->a->first ? u->a->first[r] : 0, last = u->a->last[r];
    *lo = first > u->key ? first - u->key : 0;
    *hi = last - u->key + 1 < u->n ? last - u->key + 1 : u->n;
    if (*hi < *lo || *lo > u->n) *lo = *hi = 0;
}

/* What of a run the pairs of a block see: pair i keys [lo[i], hi[i]), all of them together whole blocks [from, to). */
typedef struct pair_sight {
    int32_t lo[CPU_TILE_PANEL], hi[CPU_TILE_PANEL], from, to;
    bool    all;                 /* each pair sees all of [from, to)                           */
    const float *scores;
} pair_sight;

/* What of the run pairs [first, first + 32) see; false: nothing. */
static bool look(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t first, int32_t pairs, pair_sight *g) {
    g->from = CPU_TILE_KEYS;
    g->to = 0;
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) {
        g->lo[i] = g->hi[i] = 0;
        if (first + i < pairs) visible_in(u, item->row + (first + i) / group, &g->lo[i], &g->hi[i]);
        if (g->lo[i] == g->hi[i]) continue;
        if (g->lo[i] < g->from) g->from = g->lo[i];
        if (g->hi[i] > g->to) g->to = g->hi[i];
    }
    g->from = g->from / CPU_TILE_STEP * CPU_TILE_STEP;
    g->to = (g->to + CPU_TILE_STEP - 1) / CPU_TILE_STEP * CPU_TILE_STEP;
    g->all = true;
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) g->all &= g->lo[i] <= g->from && g->hi[i] >= g->to;
    return g->from < g->to;
}

/* Some of the next run's keys and values on their way to the cache: rows [from, to) of it. */
static void bring(const pair_run *u, int64_t column, int32_t from, int32_t to) {
    enum { LINE = 64 };
    for (int32_t j = from; j < to && j < u->n_next; j++) {
        const char *k = (char *)rv_cpu_row(u->a->kv.k, u->next_rows[j]) + 2 * column, *v = (char *)rv_cpu_row(u->a->kv.v, u->next_rows[j]) + 2 * column;
        for (int32_t c = 0; c < 2 * u->head_dim; c += LINE) {
            _mm_prefetch(k + c, _MM_HINT_T1);
            _mm_prefetch(v + c, _MM_HINT_T1);
        }
    }
}

/* ---- what each kind has of its own ---- */
static void load_keys(const pair_run *u, int64_t column);
/* Keys outside [lo, hi) are zeros.  Returns whether all are finite. */
static bool load_values(const pair_run *u, int64_t column, int32_t lo, int32_t hi, char *out);
static void load_pair(const pair_run *u, const void *q, int32_t i);          /* NULL: zeros, and its weights' sum is 0 */
static float weights_of_pair(const pair_run *u, int32_t i);                  /* their sum                              */
/* One run of keys: scores, softmax, values, 32 pairs at a time. */
static void attend_run(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t pairs);

static void load_pairs(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t pairs) {
    rv_mat q = u->a->q;
    int32_t width = u->steps * CPU_TILE_STEP, end = (pairs + CPU_TILE_PANEL - 1) / CPU_TILE_PANEL * CPU_TILE_PANEL;
    memset(u->room->sums, 0, (size_t)end * (size_t)width * sizeof(float));
    for (int32_t i = 0; i < end; i++) {
        int64_t column = (int64_t)(item->kv_head * group + i % group) * u->head_dim;
        load_pair(u, i < pairs ? (char *)rv_cpu_row(q, item->row + i / group) + 2 * column : NULL, i);
        u->room->m[i] = -INFINITY;
    }
}

static void store_pairs(const pair_run *u, const rv_cpu_attend_item *item, int32_t group, int32_t pairs) {
    rv_mat out = u->a->out;
    for (int32_t i = 0; i < pairs; i++) {
        float *sums = u->room->sums + (int64_t)i * u->steps * CPU_TILE_STEP, l = weights_of_pair(u, i), by = l == 0 ? 0 : 1.0f / l;
        int64_t column = (int64_t)(item->kv_head * group + i % group) * u->head_dim;
        for (int32_t c = 0; c < u->head_dim; c += RV_LANES) vf_store(sums + c, vf_load(sums + c) * by);
        convert((char *)rv_cpu_row(out, item->row + i / group) + (size_t)column * rv_dtype_size(out.type), out.type, sums, RV_F32, u->head_dim);
    }
}

/* The first and last key that any row of the item sees. */
static void keys_of_item(const rv_attention *a, const rv_cpu_attend_item *item, int32_t *from, int32_t *last) {
    *from = INT32_MAX;
    *last = -1;
    for (int32_t r = item->row; r < item->row + item->n_rows; r++) {
        int32_t first = a->first ? a->first[r] : 0;
        if (a->last[r] < first) continue;
        if (first < *from) *from = first;
        if (a->last[r] > *last) *last = a->last[r];
    }
}

/* Keys of the run that begins at `key`, none behind `last`. */
static int32_t keys_left(int32_t last, int32_t key) {
    int32_t n = last + 1 - key;
    return n < 0 ? 0 : n < CPU_TILE_KEYS ? n : CPU_TILE_KEYS;
}

static bool attend_runs(const rv_attention *a, const rv_cpu_attend_item *item, rv_cpu_tiles_room *room) {
    int32_t group = a->heads / a->kv_heads, pairs = item->n_rows * group, from, last;
    pair_run u = { .a = a, .room = room, .head_dim = a->q.cols / a->heads, .scale = a->scale * 1.44269504f };
    u.steps = (u.head_dim - 1) / CPU_TILE_STEP + 1;
    int64_t column = (int64_t)item->kv_head * u.head_dim;
    int32_t *rows = room->key_rows, *next = rows + CPU_TILE_KEYS, *other, slot = a->slot ? a->slot[item->row] : 0;
    keys_of_item(a, item, &from, &last);
    load_pairs(&u, item, group, pairs);
    u.key = from / CPU_TILE_KEYS * CPU_TILE_KEYS;
    u.n_next = keys_left(last, u.key);
    bool ok = last < 0 || rv_cpu_keys(&a->kv, slot, u.key, u.n_next, next);
    for (; ok && u.key <= last; u.key += CPU_TILE_KEYS) {
        other = rows, rows = next, next = other;
        u.rows = rows, u.next_rows = next, u.n = u.n_next;
        u.n_next = keys_left(last, u.key + CPU_TILE_KEYS);
        if (!(ok = rv_cpu_keys(&a->kv, slot, u.key + CPU_TILE_KEYS, u.n_next, next))) break;
        u.biased = !(a->scale > 0);
        for (int32_t j = 0; j < CPU_TILE_KEYS; j++) {
            room->bias[j] = a->kv.bias && j < u.n ? a->kv.bias[rows[j]] * 1.44269504f : 0;
            u.biased |= !(room->bias[j] == 0);
        }
        load_keys(&u, column);
        u.finite = load_values(&u, column, 0, u.n, room->values);
        attend_run(&u, item, group, pairs);
    }
    if (ok) store_pairs(&u, item, group, pairs);
    return ok;
}
