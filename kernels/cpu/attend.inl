/* attend.inl - attention: part of kernels.inl.
 *
 * The one idea: keys are treated in runs of CPU_KEYS at fixed multiples, each run in one order;
 * runs are combined in order (online softmax).  Keys that a row does not see get the weight 0
 * exactly, so neither its neighbours nor the block it was computed in can change its result.
 */

enum { KEYS_AHEAD = 8 };

/* A row's piece for one head on its way to the cache: rows lie too far apart for the CPU to see what comes next. */
ALWAYS void bring_head(rv_mat m, int32_t row, int64_t column, int32_t head_dim) {
    enum { LINE = 64 };
    const char *at = (const char *)rv_cpu_row(m, row) + (size_t)column * rv_dtype_size(m.type);
    for (size_t i = 0, bytes = (size_t)head_dim * rv_dtype_size(m.type); i < bytes; i += LINE) __builtin_prefetch(at + i, 0, 2);
}

#ifdef RV_DOT_BF16
#include "kernels/cpu/attend_few_dot.inl"
#endif

/* scores[j] = scale * q.k[j] + bias[j]; q has zeros up to a multiple of RV_LANES. */
ALWAYS void scores_few(const rv_attention *a, const int32_t *rows, int32_t n, const float *q, int64_t column,
                       int32_t head_dim, float scores[][CPU_KEYS], int H, rv_dtype type) {
    int32_t full = head_dim / RV_LANES * RV_LANES, part = head_dim - full;
    for (int32_t j = 0; j < n; j++) {
        const char *k = (const char *)rv_cpu_row(a->kv.k, rows[j]) + (size_t)column * rv_dtype_size(type);
        if (j + KEYS_AHEAD < n) bring_head(a->kv.k, rows[j + KEYS_AHEAD], column, head_dim);
        bring_head(a->kv.v, rows[j], column, head_dim);      /* for values_few                             */
        vf acc[CPU_GROUP];
        for (int h = 0; h < H; h++) acc[h] = vf_set(0);
        for (int32_t c = 0; c < full; c += RV_LANES) {
            vf kv = vf_load_as(k, type, c);
            for (int h = 0; h < H; h++) acc[h] += kv * vf_load(q + h * CPU_HEAD_DIM + c);
        }
        if (part) {
            vf kv = vf_load_part(k, type, full, part);
            for (int h = 0; h < H; h++) acc[h] += kv * vf_load(q + h * CPU_HEAD_DIM + full);
        }
        float bias = a->kv.bias ? a->kv.bias[rows[j]] : 0;
        for (int h = 0; h < H; h++) scores[h][j] = vf_sum(acc[h]) * a->scale + bias;
    }
}

/* s[0..n) becomes e^(s - m), zeros up to the next multiple of RV_LANES.  Returns m (0 instead of
 * -infinity: then all are 0) and the sum. */
static float exp_row(float *s, int32_t n, float *sum) {
    int32_t end = (n + RV_LANES - 1) / RV_LANES * RV_LANES;
    for (int32_t j = n; j < end; j++) s[j] = -INFINITY;
    vf top = vf_set(-INFINITY), total = vf_set(0);
    for (int32_t j = 0; j < end; j += RV_LANES) top = vf_max(top, vf_load(s + j));
    float m = vf_largest(top);
    if (m == -INFINITY) m = 0;
    vf shift = vf_set(m);
    for (int32_t j = 0; j < end; j += RV_LANES) {
        vf e = vf_exp(vf_load(s + j) - shift);
        vf_store(s + j, e);
        total += e;
    }
    *sum = vf_sum(total);
    return m;
}

/* o[h][c..c+V lanes) = sum of p[h][j] * v[j]. */
ALWAYS void values_few(const rv_attention *a, const int32_t *rows, int32_t n, float p[][CPU_KEYS], int64_t column,
                       int32_t c, int32_t width, rv_cpu_partial *out, int heads, int H, rv_dtype type) {
    vf acc[CPU_GROUP];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) acc[h] = vf_set(0);
    for (int32_t j = 0; j < n; j++) {
        const char *v = (const char *)rv_cpu_row(a->kv.v, rows[j]) + (size_t)column * rv_dtype_size(type);
        vf x = width < RV_LANES ? vf_load_part(v, type, c, width) : vf_load_as(v, type, c);
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) acc[h] += x * p[h][j];
    }
    for (int h = 0; h < heads; h++) vf_store(out[h].o + c, acc[h]);
}

ALWAYS void attend_few_as(const rv_attention *a, int32_t r, int32_t head, int32_t heads, const int32_t *rows, int32_t n,
                          rv_cpu_partial *out, int H, rv_dtype type) {
    int32_t head_dim = a->q.cols / a->heads;
    int64_t column = (int64_t)(head / (a->heads / a->kv_heads)) * head_dim;
    float q[CPU_GROUP * CPU_HEAD_DIM] = { 0 }, scores[CPU_GROUP][CPU_KEYS];
    for (int32_t h = 0; h < heads; h++)
        convert(q + h * CPU_HEAD_DIM, RV_F32,
                (char *)rv_cpu_row(a->q, r) + (size_t)(head + h) * (size_t)head_dim * rv_dtype_size(a->q.type),
                a->q.type, head_dim);
    scores_few(a, rows, n, q, column, head_dim, scores, H, type);
    for (int32_t h = 0; h < heads; h++) out[h].m = exp_row(scores[h], n, &out[h].l);
    for (int32_t c = 0; c < head_dim; c += RV_LANES)
        values_few(a, rows, n, scores, column, c, head_dim - c, out, heads, H, type);
}

static void attend_few(const rv_attention *a, int32_t r, int32_t head, int32_t n_heads, const int32_t *rows, int32_t n,
                       const rv_cpu_bring *next, rv_cpu_partial *out) {
#ifdef RV_DOT_BF16
    if (a->q.type == RV_BF16 && a->kv.k.type == RV_BF16 && a->kv.v.type == RV_BF16) {
        if (n_heads == 1) few_dot_1(a, r, head, rows, n, next, out);
        else few_dot_4(a, r, head, n_heads, rows, n, next, out);
        return;
    }
#endif
    (void)next;
    if (a->kv.k.type == RV_F32) {
        if (n_heads == 1) attend_few_as(a, r, head, 1, rows, n, out, 1, RV_F32);
        else attend_few_as(a, r, head, n_heads, rows, n, out, CPU_GROUP, RV_F32);
    } else {
        if (n_heads == 1) attend_few_as(a, r, head, 1, rows, n, out, 1, RV_BF16);
        else attend_few_as(a, r, head, n_heads, rows, n, out, CPU_GROUP, RV_BF16);
    }
}

/* ---- many rows ---- */

typedef struct run {             /* one run of keys, for all pairs of an item                  */
    const rv_attention *a;
    rv_cpu_attend_room *room;
    int32_t head_dim, key, n;    /* keys [key, key + n), n <= CPU_KEYS, key a multiple of it   */
    bool finite;                 /* all of its V                                               */
} run;

enum { SCORE_LD = CPU_KEYS + CPU_PANEL, SUM_LD = CPU_HEAD_DIM + CPU_PANEL };

/* V vectors of the panel that begins at column c of `width`. */
static int32_t panel_vectors(int32_t c, int32_t width) {
    int32_t v = (width - c + RV_LANES - 1) / RV_LANES;
    return v < PANEL_VECTORS ? v : PANEL_VECTORS;
}

/* Key j at panel j / PANEL, column j % PANEL, panels [head_dim x their width] one after the other. */
static void pack_keys(const run *u, int64_t column) {
    for (int32_t c = 0; c < u->n; c += PANEL) {
        int32_t width = panel_vectors(c, u->n) * RV_LANES;
        for (int32_t j = 0; j < width; j++) {
            float *out = u->room->keys + (int64_t)c * u->head_dim + j;
            rv_mat k = u->a->kv.k;
            if (c + j < u->n)
                pack_column((char *)rv_cpu_row(k, u->room->rows[c + j]) + (size_t)column * rv_dtype_size(k.type), k.type,
                            0, u->head_dim, width, out);
            else pack_zero_column(u->head_dim, width, out);
        }
    }
}

/* Panels [CPU_KEYS x width] of V's columns.  Returns whether all are finite. */
static bool pack_values(const run *u, int64_t column) {
    vf check = vf_set(0);
    rv_mat v = u->a->kv.v;
    for (int32_t j = 0; j < u->n; j++) {
        float copy[CPU_HEAD_DIM + CPU_PANEL] = { 0 };
        convert(copy, RV_F32, (char *)rv_cpu_row(v, u->room->rows[j]) + (size_t)column * rv_dtype_size(v.type), v.type,
                u->head_dim);
        for (int32_t c = 0; c < u->head_dim; c += PANEL) {
            int32_t width = panel_vectors(c, u->head_dim) * RV_LANES;
            float *out = u->room->values + (int64_t)c * CPU_KEYS + (int64_t)j * width;
            for (int32_t i = 0; i < width; i += RV_LANES) {
                vf x = vf_load(copy + c + i);
                check += x * 0.0f;
                vf_store(out + i, x);
            }
        }
    }
    return vf_sum(check) == 0.0f;
}

/* The keys of this run that row r sees: [*lo, *hi) relative to the run. */
static void visible(const run *u, int32_t r, int32_t *lo, int32_t *hi) {
    int32_t first = u->a->first ? u->a->first[r] : 0, last = u->a->last[r];
    *lo = first > u->key ? first - u->key : 0;
    *hi = last - u->key + 1 < u->n ? last - u->key + 1 : u->n;
    if (*hi < *lo || *lo > u->n) *lo = *hi = 0;
}

/* Scores of one pair into weights, online: rescales its sums. */
static void soften(const run *u, float *s, int32_t lo, int32_t hi, float *m, float *l, float *sums) {
    int32_t from = lo / RV_LANES * RV_LANES, end = (hi + RV_LANES - 1) / RV_LANES * RV_LANES;
    vf top = vf_set(*m), total = vf_set(0), scale = vf_set(u->a->scale);
    for (int32_t j = from; j < end; j += RV_LANES) {
        vf v = vf_load(s + j) * scale;
        if (u->a->kv.bias) v += vf_load(u->room->bias + j);
        vf_store(s + j, v);
    }
    for (int32_t j = from; j < lo; j++) s[j] = -INFINITY;
    for (int32_t j = hi; j < end; j++) s[j] = -INFINITY;
    for (int32_t j = from; j < end; j += RV_LANES) top = vf_max(top, vf_load(s + j));
    float next = vf_largest(top), base = next == -INFINITY ? 0 : next;
    vf shift = vf_set(base);
    for (int32_t j = from; j < end; j += RV_LANES) {
        vf e = vf_exp(vf_load(s + j) - shift);
        vf_store(s + j, e);
        total += e;
    }
    float keep = vf_exp(vf_set(*m - base))[0];
    *l = *l * keep + vf_sum(total);
    *m = next;
    if (keep == 1.0f) return;
    for (int32_t c = 0; c < u->head_dim; c += RV_LANES) vf_store(sums + c, vf_load(sums + c) * keep);
}

/* V of this run may hold NaN or infinity in keys that a row does not see: each row takes its own. */
static void values_of_row(const run *u, const float *p, int32_t lo, int32_t hi, float *sums) {
    for (int32_t c = 0; c < u->head_dim; c += PANEL) {
        int32_t width = panel_vectors(c, u->head_dim) * RV_LANES;
        const float *v = u->room->values + (int64_t)c * CPU_KEYS;
        for (int32_t i = 0; i < width; i += RV_LANES) {
            vf acc = vf_load(sums + c + i);
            for (int32_t j = lo; j < hi; j++) acc += vf_load(v + (int64_t)j * width + i) * p[j];
            vf_store(sums + c + i, acc);
        }
    }
}

/* Pairs [first, first + TILE_ROWS): scores, softmax, values. */
static void tile_attend(const run *u, const rv_cpu_attend_item *item, int32_t group, int32_t first, int32_t pairs) {
    rv_cpu_attend_room *room = u->room;
    int32_t lo[TILE_ROWS], hi[TILE_ROWS], from = CPU_KEYS, to = 0, n = pairs - first;
    if (n > TILE_ROWS) n = TILE_ROWS;
    for (int32_t i = 0; i < n; i++) {
        visible(u, item->row + (first + i) / group, &lo[i], &hi[i]);
        if (lo[i] == hi[i]) continue;
        if (lo[i] < from) from = lo[i];
        if (hi[i] > to) to = hi[i];
    }
    if (from >= to) return;
    const float *q = room->queries + (int64_t)first * u->head_dim;
    for (int32_t c = from / PANEL * PANEL; c < to; c += PANEL) {
        int32_t vectors = panel_vectors(c, u->n);
        for (int32_t i = 0; i < TILE_ROWS; i++)
            memset(room->scores + i * SCORE_LD + c, 0, (size_t)vectors * sizeof(vf));
        micro(q, u->head_dim, room->keys + (int64_t)c * u->head_dim, u->head_dim, room->scores + c, SCORE_LD, vectors);
    }
    for (int32_t i = 0; i < TILE_ROWS; i++) {
        float *s = room->scores + i * SCORE_LD, *sums = room->sums + (int64_t)(first + i) * SUM_LD;
        if (i >= n || lo[i] == hi[i]) {
            memset(s + from, 0, (size_t)(to - from) * sizeof *s);
            continue;
        }
        soften(u, s, lo[i], hi[i], &room->m[first + i], &room->l[first + i], sums);
        for (int32_t j = from; j < lo[i]; j++) s[j] = 0;
        for (int32_t j = hi[i]; j < to; j++) s[j] = 0;
        if (!u->finite) values_of_row(u, s, lo[i], hi[i], sums);
    }
    if (!u->finite) return;
    for (int32_t c = 0; c < u->head_dim; c += PANEL) {
        int32_t vectors = panel_vectors(c, u->head_dim), width = vectors * RV_LANES;
        micro(room->scores + from, SCORE_LD, room->values + (int64_t)c * CPU_KEYS + (int64_t)from * width, to - from,
              room->sums + (int64_t)first * SUM_LD + c, SUM_LD, vectors);
    }
}

static void load_queries(const rv_attention *a, const rv_cpu_attend_item *item, int32_t group, int32_t pairs,
                         rv_cpu_attend_room *room) {
    int32_t head_dim = a->q.cols / a->heads, end = (pairs + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    for (int32_t i = 0; i < end; i++) {
        float *q = room->queries + (int64_t)i * head_dim, *sums = room->sums + (int64_t)i * SUM_LD;
        memset(sums, 0, SUM_LD * sizeof *sums);
        room->m[i] = -INFINITY;
        room->l[i] = 0;
        if (i >= pairs) {
            memset(q, 0, (size_t)head_dim * sizeof *q);
            continue;
        }
        int64_t column = (int64_t)(item->kv_head * group + i % group) * head_dim;
        convert(q, RV_F32, (char *)rv_cpu_row(a->q, item->row + i / group) + (size_t)column * rv_dtype_size(a->q.type),
                a->q.type, head_dim);
    }
}

static void store_sums(const rv_attention *a, const rv_cpu_attend_item *item, int32_t group, int32_t pairs,
                       rv_cpu_attend_room *room) {
    int32_t head_dim = a->q.cols / a->heads;
    for (int32_t i = 0; i < pairs; i++) {
        float *sums = room->sums + (int64_t)i * SUM_LD, by = room->l[i] == 0 ? 0 : 1.0f / room->l[i];
        for (int32_t c = 0; c < head_dim; c += RV_LANES) vf_store(sums + c, vf_load(sums + c) * by);
        int64_t column = (int64_t)(item->kv_head * group + i % group) * head_dim;
        convert((char *)rv_cpu_row(a->out, item->row + i / group) + (size_t)column * rv_dtype_size(a->out.type),
                a->out.type, sums, RV_F32, head_dim);
    }
}

static bool attend_many(const rv_attention *a, const rv_cpu_attend_item *item, rv_cpu_attend_room *room) {
    int32_t group = a->heads / a->kv_heads, pairs = item->n_rows * group, from = INT32_MAX, last = -1;
    run u = { .a = a, .room = room, .head_dim = a->q.cols / a->heads };
    int64_t column = (int64_t)item->kv_head * u.head_dim;
    for (int32_t r = item->row; r < item->row + item->n_rows; r++) {
        int32_t first = a->first ? a->first[r] : 0;
        if (a->last[r] < first) continue;
        if (first < from) from = first;
        if (a->last[r] > last) last = a->last[r];
    }
    load_queries(a, item, group, pairs, room);
    for (u.key = from / CPU_KEYS * CPU_KEYS; u.key <= last; u.key += CPU_KEYS) {
        u.n = last + 1 - u.key < CPU_KEYS ? last + 1 - u.key : CPU_KEYS;
        if (!rv_cpu_keys(&a->kv, a->slot ? a->slot[item->row] : 0, u.key, u.n, room->rows)) return false;
        if (a->kv.bias)
            for (int32_t j = 0; j < CPU_KEYS; j++) room->bias[j] = j < u.n ? a->kv.bias[room->rows[j]] : 0;
        pack_keys(&u, column);
        u.finite = pack_values(&u, column);
        for (int32_t i = 0; i < pairs; i += TILE_ROWS) tile_attend(&u, item, group, i, pairs);
    }
    store_sums(a, item, group, pairs, room);
    return true;
}
