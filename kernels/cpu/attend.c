/* attend.c - attention: how the work is cut.
 *
 * The one idea: the number of rows decides.  Up to RV_FEW_ROWS, an item is one row, one K/V head
 * and all its runs of CPU_KEYS keys (or a single run, when there are fewer rows and heads than
 * threads); runs are merged in order either way, so both give the same bits.  Above, an item is
 * a block of rows against one K/V head (attend.inl).
 */
#include <math.h>
#include <stdlib.h>
#include "kernels/cpu/cpu.h"

typedef struct attend_job {
    rv_cpu *cpu;
    const rv_attention *a;
    int32_t group;               /* query heads of one K/V head                                */
    int32_t subgroups;           /* .. in runs of CPU_GROUP                                    */
    int32_t block;               /* many rows: rows of an item                                 */
    int32_t run, wave;           /* few rows, waves: first run of this wave, runs of a wave    */
    bool pairs;                  /* many rows: by kernels for bf16                             */
    _Atomic bool outside;        /* a key outside the cache                                    */
} attend_job;

/* What one item of few rows works on. */
typedef struct few_part { int32_t row, head, n_heads, first, last; } few_part;

static few_part part_of(const attend_job *j, int32_t index) {
    const rv_attention *a = j->a;
    int32_t sub = index % j->subgroups, kv_head = index / j->subgroups % a->kv_heads;
    few_part p = { .row = index / (j->subgroups * a->kv_heads), .head = kv_head * j->group + sub * CPU_GROUP };
    int32_t left = j->group - sub * CPU_GROUP;
    p.n_heads = left < CPU_GROUP ? left : CPU_GROUP;
    p.first = a->first ? a->first[p.row] : 0;
    p.last = a->last[p.row];
    return p;
}

void rv_cpu_merge(rv_cpu_partial *into, const rv_cpu_partial *next, int32_t head_dim) {
    if (next->l == 0) return;
    if (into->l == 0) {
        *into = *next;
        return;
    }
    float m = into->m > next->m ? into->m : next->m, a = expf(into->m - m), b = expf(next->m - m);
    into->m = m;
    into->l = into->l * a + next->l * b;
    for (int32_t c = 0; c < head_dim; c++) into->o[c] = into->o[c] * a + next->o[c] * b;
}

/* One run of keys; what of it the row sees.  l = 0 when nothing. */
static void attend_run(attend_job *j, const few_part *p, int32_t run, rv_cpu_partial *out) {
    const rv_attention *a = j->a;
    int32_t rows[CPU_KEYS], key = run * CPU_KEYS, end = key + CPU_KEYS - 1;
    if (key < p->first) key = p->first;
    if (end > p->last) end = p->last;
    for (int32_t h = 0; h < p->n_heads; h++) out[h].l = 0;
    if (end < key) return;
    if (!rv_cpu_keys(&a->kv, a->slot ? a->slot[p->row] : 0, key, end - key + 1, rows)) {
        atomic_store(&j->outside, true);
        return;
    }
    j->cpu->kernels->attend_few(a, p->row, p->head, p->n_heads, rows, end - key + 1, out);
}

static void store_few(const attend_job *j, const few_part *p, rv_cpu_partial *sums) {
    const rv_attention *a = j->a;
    int32_t head_dim = a->q.cols / a->heads;
    for (int32_t h = 0; h < p->n_heads; h++) {
        float by = sums[h].l == 0 ? 0 : 1.0f / sums[h].l;
        void *out = rv_cpu_row(a->out, p->row);
        int64_t at = (int64_t)(p->head + h) * head_dim;
        for (int32_t c = 0; c < head_dim; c++) rv_cpu_store(out, a->out.type, at + c, by == 0 ? 0 : sums[h].o[c] * by);
    }
}

static void few_item(void *context, int32_t item, int32_t thread) {
    attend_job *j = context;
    rv_cpu_partial sums[CPU_GROUP], next[CPU_GROUP];
    few_part p = part_of(j, item);
    int32_t head_dim = j->a->q.cols / j->a->heads;
    (void)thread;
    for (int32_t h = 0; h < p.n_heads; h++) sums[h].l = 0;
    if (p.last >= p.first)
        for (int32_t run = p.first / CPU_KEYS; run <= p.last / CPU_KEYS; run++) {
            attend_run(j, &p, run, next);
            for (int32_t h = 0; h < p.n_heads; h++) rv_cpu_merge(&sums[h], &next[h], head_dim);
        }
    store_few(j, &p, sums);
}

/* Partials: CPU_GROUP running ones for each part, then CPU_GROUP for each part and run of a wave. */
static void wave_item(void *context, int32_t item, int32_t thread) {
    attend_job *j = context;
    int32_t parts = j->a->q.rows * j->a->kv_heads * j->subgroups;
    few_part p = part_of(j, item / j->wave);
    (void)thread;
    attend_run(j, &p, j->run + item % j->wave, j->cpu->partials + (int64_t)(parts + item) * CPU_GROUP);
}

static void merge_wave(attend_job *j, int32_t parts) {
    int32_t head_dim = j->a->q.cols / j->a->heads;
    for (int32_t i = 0; i < parts; i++)
        for (int32_t w = 0; w < j->wave; w++)
            for (int32_t h = 0; h < part_of(j, i).n_heads; h++)
                rv_cpu_merge(j->cpu->partials + (int64_t)i * CPU_GROUP + h,
                             j->cpu->partials + ((int64_t)parts + (int64_t)i * j->wave + w) * CPU_GROUP + h, head_dim);
}

static void run_few(attend_job *j) {
    int32_t parts = j->a->q.rows * j->a->kv_heads * j->subgroups, wanted = 4 * j->cpu->threads;
    int32_t runs = (j->a->longest + CPU_KEYS - 1) / CPU_KEYS;
    if (parts >= wanted || runs <= 1 || j->cpu->threads == 1) {
        rv_pool_run(j->cpu->pool, parts, few_item, j);
        return;
    }
    j->wave = (wanted + parts - 1) / parts;
    if (j->wave > runs) j->wave = runs;
    for (int32_t i = 0; i < parts * CPU_GROUP; i++) j->cpu->partials[i].l = 0;
    for (j->run = 0; j->run < runs; j->run += j->wave) {
        rv_pool_run(j->cpu->pool, parts * j->wave, wave_item, j);
        merge_wave(j, parts);
    }
    for (int32_t i = 0; i < parts; i++) {
        few_part p = part_of(j, i);
        store_few(j, &p, j->cpu->partials + (int64_t)i * CPU_GROUP);
    }
}

/* Rows at multiples of `block`, cut where the sequence changes. */
static void many_item(void *context, int32_t item, int32_t thread) {
    attend_job *j = context;
    const rv_attention *a = j->a;
    int32_t row = item / a->kv_heads * j->block, end = row + j->block;
    if (end > a->q.rows) end = a->q.rows;
    while (row < end) {
        rv_cpu_attend_item part = { .row = row, .n_rows = 1, .kv_head = item % a->kv_heads };
        while (row + part.n_rows < end && (!a->slot || a->slot[row + part.n_rows] == a->slot[row])) part.n_rows++;
        bool ok = j->pairs ? j->cpu->kernels->attend_pairs(a, &part, &j->cpu->tiles_room[thread])
                           : j->cpu->kernels->attend_many(a, &part, &j->cpu->attend_room[thread]);
        if (!ok) atomic_store(&j->outside, true);
        row += part.n_rows;
    }
}

void rv_cpu_attend(rv_backend *be, const rv_attention *a) {
    attend_job j = { .cpu = (rv_cpu *)be, .a = a, .group = a->heads / a->kv_heads };
    int32_t head_dim = a->q.cols / a->heads;
    if (head_dim > CPU_HEAD_DIM) {
        rv_fail(&be->error, RV_ERR_UNSUPPORTED, "attend: heads of %d columns, the CPU kernels take %d",
                (int)head_dim, CPU_HEAD_DIM);
        return;
    }
    for (int32_t r = 0; r < a->q.rows; r++) {
        int32_t first = a->first ? a->first[r] : 0;
        if (a->last[r] < first || (first >= 0 && a->last[r] < a->longest)) continue;
        rv_fail(&be->error, RV_ERR_INTERNAL, "attend: row %d sees keys %d..%d, but the call says below %d", (int)r,
                (int)first, (int)a->last[r], (int)a->longest);
        return;
    }
    j.subgroups = (j.group + CPU_GROUP - 1) / CPU_GROUP;
    if (a->q.rows <= RV_FEW_ROWS || !j.cpu->kernels->attend_many || j.group > CPU_PAIRS) {
        run_few(&j);
    } else {
        j.pairs = j.cpu->tiles_room && a->q.type == RV_BF16 && a->kv.k.type == RV_BF16 && a->kv.v.type == RV_BF16;
        j.block = (j.pairs ? CPU_TILE_PAIRS : CPU_PAIRS) / j.group;
        rv_pool_run(j.cpu->pool, ((a->q.rows - 1) / j.block + 1) * a->kv_heads, many_item, &j);
    }
    if (atomic_load(&j.outside))
        rv_fail(&be->error, RV_ERR_INTERNAL, "attend: a row sees keys outside the cache of %d rows", (int)a->kv.k.rows);
}

enum { ROOM_PAIRS = CPU_PAIRS + CPU_TILE_ROWS,
       ROOM_KEYS = (CPU_KEYS + CPU_PANEL) * CPU_HEAD_DIM,
       ROOM_VALUES = CPU_KEYS * (CPU_HEAD_DIM + CPU_PANEL),
       ROOM_QUERIES = ROOM_PAIRS * CPU_HEAD_DIM,
       ROOM_SUMS = ROOM_PAIRS * (CPU_HEAD_DIM + CPU_PANEL),
       ROOM_SCORES = CPU_TILE_ROWS * (CPU_KEYS + CPU_PANEL),
       ROOM_FLOATS = ROOM_KEYS + ROOM_VALUES + ROOM_QUERIES + ROOM_SUMS + ROOM_SCORES + 2 * ROOM_PAIRS + CPU_KEYS };

rv_status rv_cpu_attend_open(rv_cpu *cpu, rv_error *err) {
    size_t threads = (size_t)cpu->threads;
    cpu->attend_room = calloc(threads, sizeof *cpu->attend_room);
    cpu->partials = calloc(threads * CPU_PARTIALS, sizeof *cpu->partials);
    if (!cpu->attend_room || !cpu->partials) return rv_fail_memory(err, "attention");
    for (size_t t = 0; t < threads && cpu->kernels->attend_many; t++) {
        rv_cpu_attend_room *room = &cpu->attend_room[t];
        float *at = calloc(ROOM_FLOATS, sizeof *at);
        room->rows = calloc(CPU_KEYS, sizeof *room->rows);
        room->keys = at;
        if (!at || !room->rows) return rv_fail_memory(err, "attention");
        room->values = at += ROOM_KEYS;
        room->queries = at += ROOM_VALUES;
        room->sums = at += ROOM_QUERIES;
        room->scores = at += ROOM_SUMS;
        room->m = at += ROOM_SCORES;
        room->l = at += ROOM_PAIRS;
        room->bias = at + ROOM_PAIRS;
    }
    return RV_OK;
}

void rv_cpu_attend_close(rv_cpu *cpu) {
    for (int32_t t = 0; cpu->attend_room && t < cpu->threads; t++) {
        free(cpu->attend_room[t].keys);
        free(cpu->attend_room[t].rows);
    }
    free(cpu->attend_room);
    free(cpu->partials);
}
