/* attend_few.c - attention of up to RV_FEW_ROWS rows: how the work is cut.
 *
 * The one idea: a row's keys are treated in runs at fixed multiples, runs are combined in order into segments of CPU_KEYS, segments in
 * order into the result.  So whatever an item is, some rows, some heads, all segments or one, gives the same bits; what it is decides
 * how memory is read: a row alone takes all heads of a run, so that rows of the cache are read whole, and brings the next run
 * meanwhile; rows of one sequence take a head's keys together.
 */
#include <math.h>
#include "kernels/cpu/cpu.h"

enum { ROWS_TOGETHER = 8, LEAST_ITEMS = 4, ITEM_PARTIALS = CPU_PARTIALS / 2 };

typedef struct few_job {
    rv_cpu *cpu;
    const rv_attention *a;
    int32_t head_dim, group;     /* query heads of one K/V head                                */
    int32_t subgroups, groups;   /* .. in runs of CPU_GROUP; of all K/V heads                  */
    int32_t run;                 /* keys                                                       */
    int32_t rows, heads;         /* of an item: rows, and groups of heads                      */
    int32_t row_items, head_items;
    int32_t segment, wave;       /* an item is one of these segments; wave 0: it is all        */
    _Atomic bool outside;        /* a key outside the cache                                    */
} few_job;

/* Rows [row, row_end), groups of heads [group, group_end), segments [segment, segment_end). */
typedef struct few_item { int32_t row, row_end, group, group_end, segment, segment_end; } few_item;

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t first_of(const rv_attention *a, int32_t r) { return a->first ? a->first[r] : 0; }
static int32_t slot_of(const rv_attention *a, int32_t r) { return a->slot ? a->slot[r] : 0; }

/* The heads of a group. */
static int32_t heads_of(const few_job *j, int32_t group, int32_t *head) {
    int32_t in = group % j->subgroups * CPU_GROUP;
    *head = group / j->subgroups * j->group + in;
    return least(j->group - in, CPU_GROUP);
}

/* into = both, in this order; exact when one of them is empty (l = 0). */
static void merge(rv_cpu_partial *restrict into, const rv_cpu_partial *restrict next, int32_t head_dim) {
    enum { STEP = 8 };                           /* written so that compilers make vectors of it   */
    if (next->l == 0) return;
    if (into->l == 0) {
        into->m = next->m;
        into->l = next->l;
        memcpy(into->o, next->o, (size_t)head_dim * sizeof *into->o);
        return;
    }
    float m = into->m > next->m ? into->m : next->m, a = expf(into->m - m), b = expf(next->m - m);
    into->m = m;
    into->l = into->l * a + next->l * b;
    int32_t c = 0;
    for (; c + STEP <= head_dim; c += STEP)
        for (int32_t i = 0; i < STEP; i++) into->o[c + i] = into->o[c + i] * a + next->o[c + i] * b;
    for (; c < head_dim; c++) into->o[c] = into->o[c] * a + next->o[c] * b;
}

/* What row r sees of the run at `key`: where these keys lie, and how many. */
static int32_t keys_of(few_job *j, int32_t r, int32_t key, int32_t *rows) {
    const rv_attention *a = j->a;
    int32_t from = key > first_of(a, r) ? key : first_of(a, r), end = least(key + j->run - 1, a->last[r]);
    if (end < from) return 0;
    if (rv_cpu_keys(&a->kv, slot_of(a, r), from, end - from + 1, rows)) return end - from + 1;
    atomic_store(&j->outside, true);
    return 0;
}

/* Row r's run at `key` joins sums[groups of the item x CPU_GROUP]; what it sees of the next run comes meanwhile, if `bring`. */
static void attend_run(few_job *j, const few_item *it, int32_t r, int32_t key, bool bring, rv_cpu_partial *sums) {
    int32_t rows[CPU_KEYS], ahead[CPU_KEYS], n = keys_of(j, r, key, rows), head, parts = it->group_end - it->group;
    int32_t n_ahead = bring && j->run < CPU_KEYS ? keys_of(j, r, key + j->run, ahead) : 0;
    int32_t kv = it->group / j->subgroups, kv_end = (it->group_end - 1) / j->subgroups + 1;
    rv_cpu_partial next[CPU_GROUP];
    for (int32_t g = 0; g < parts && n > 0; g++) {
        int32_t from = n_ahead * g / parts, heads = heads_of(j, it->group + g, &head);
        rv_cpu_bring more = { ahead + from, n_ahead * (g + 1) / parts - from, kv * j->head_dim, (kv_end - kv) * j->head_dim };
        j->cpu->kernels->attend_few(j->a, r, head, heads, rows, n, &more, next);
        for (int32_t h = 0; h < heads; h++) merge(&sums[g * CPU_GROUP + h], &next[h], j->head_dim);
    }
}

static void clear(rv_cpu_partial *p, int32_t n) {
    for (int32_t i = 0; i < n; i++) p[i].l = 0;
}

/* One segment of an item: sums[rows x groups x CPU_GROUP]. */
static void attend_segment(few_job *j, const few_item *it, int32_t segment, rv_cpu_partial *sums) {
    const int32_t each = (it->group_end - it->group) * CPU_GROUP;
    clear(sums, (it->row_end - it->row) * each);
    for (int32_t key = segment * CPU_KEYS; key < (segment + 1) * CPU_KEYS; key += j->run)
        for (int32_t r = it->row; r < it->row_end; r++) {
            bool own = r == it->row || slot_of(j->a, r) != slot_of(j->a, r - 1);
            attend_run(j, it, r, key, own, sums + (int64_t)(r - it->row) * each);
        }
}

static void store(const few_job *j, int32_t r, int32_t group, const rv_cpu_partial *sums) {
    int32_t head, heads = heads_of(j, group, &head);
    void *out = rv_cpu_row(j->a->out, r);
    for (int32_t h = 0; h < heads; h++) {
        float by = sums[h].l == 0 ? 0 : 1.0f / sums[h].l;
        int64_t at = (int64_t)(head + h) * j->head_dim;
        for (int32_t c = 0; c < j->head_dim; c++) rv_cpu_store(out, j->a->out.type, at + c, by == 0 ? 0 : sums[h].o[c] * by);
    }
}

static few_item item_of(const few_job *j, int32_t index) {
    few_item it = { .row = index / j->head_items * j->rows, .group = index % j->head_items * j->heads };
    it.row_end = least(it.row + j->rows, j->a->q.rows);
    it.group_end = least(it.group + j->heads, j->groups);
    return it;
}

/* All segments of an item. */
static void whole_item(void *context, int32_t index, int32_t thread) {
    few_job *j = context;
    few_item it = item_of(j, index);
    rv_cpu_partial *sums = j->cpu->partials + (int64_t)thread * CPU_PARTIALS, *segment = sums + ITEM_PARTIALS;
    const int32_t each = (it.group_end - it.group) * CPU_GROUP, n = (it.row_end - it.row) * each;
    int32_t from = INT32_MAX, last = -1;
    for (int32_t r = it.row; r < it.row_end; r++) {
        if (j->a->last[r] < first_of(j->a, r)) continue;
        from = least(from, first_of(j->a, r));
        if (j->a->last[r] > last) last = j->a->last[r];
    }
    clear(sums, n);
    for (int32_t s = from / CPU_KEYS; last >= 0 && s <= last / CPU_KEYS; s++) {
        attend_segment(j, &it, s, segment);
        for (int32_t i = 0; i < n; i++) merge(&sums[i], &segment[i], j->head_dim);
    }
    for (int32_t r = it.row; r < it.row_end; r++)
        for (int32_t g = it.group; g < it.group_end; g++)
            store(j, r, g, sums + (int64_t)(r - it.row) * each + (g - it.group) * CPU_GROUP);
}

/* One segment of an item.  Partials: of each row and group running ones, then those of each segment of the wave. */
static void wave_item(void *context, int32_t index, int32_t thread) {
    few_job *j = context;
    few_item it = item_of(j, index % (j->row_items * j->head_items));
    int32_t s = index / (j->row_items * j->head_items);
    (void)thread;
    attend_segment(j, &it, j->segment + s, j->cpu->partials + (((int64_t)s + 1) * j->a->q.rows * j->groups + (int64_t)it.row * j->groups + it.group) * CPU_GROUP);
}

/* Combines a wave for one row. */
static void merge_item(void *context, int32_t r, int32_t thread) {
    few_job *j = context;
    const int64_t all = (int64_t)j->a->q.rows * j->groups * CPU_GROUP, each = (int64_t)j->groups * CPU_GROUP;
    rv_cpu_partial *sums = j->cpu->partials + r * each;
    (void)thread;
    for (int32_t s = 0; s < j->wave; s++)
        for (int64_t i = 0; i < each; i++) merge(&sums[i], &sums[(s + 1) * all + i], j->head_dim);
}

static void run_waves(few_job *j, int32_t segments) {
    clear(j->cpu->partials, j->a->q.rows * j->groups * CPU_GROUP);
    for (int32_t most = j->wave; j->segment < segments; j->segment += j->wave) {
        j->wave = least(most, segments - j->segment);
        rv_pool_run(j->cpu->pool, j->wave * j->row_items * j->head_items, wave_item, j);
        rv_pool_run(j->cpu->pool, j->a->q.rows, merge_item, j);
    }
    for (int32_t r = 0; r < j->a->q.rows; r++)
        for (int32_t g = 0; g < j->groups; g++) store(j, r, g, j->cpu->partials + ((int64_t)r * j->groups + g) * CPU_GROUP);
}

static int32_t count_items(few_job *j) {
    j->row_items = (j->a->q.rows - 1) / j->rows + 1;
    j->head_items = (j->groups - 1) / j->heads + 1;
    return j->row_items * j->head_items;
}

/* Items for all threads, as large as that allows. */
static void cut(few_job *j, int32_t segments) {
    const int32_t wanted = j->cpu->threads == 1 ? 1 : LEAST_ITEMS * j->cpu->threads, rows = j->a->q.rows;
    const int64_t room = (int64_t)j->cpu->threads * CPU_PARTIALS / ((int64_t)rows * j->groups * CPU_GROUP);
    bool together = rows > 1;
    for (int32_t r = 1; r < rows; r++) together = together && slot_of(j->a, r) == slot_of(j->a, 0);
    j->rows = together ? least(rows, ROWS_TOGETHER) : 1;
    j->heads = together ? 1 : least(j->groups, ITEM_PARTIALS / CPU_GROUP);
    if (count_items(j) < wanted) j->rows = 1;
    if (count_items(j) < wanted && segments > 1 && room > 1) j->wave = least(segments, (int32_t)room - 1);
    while (count_items(j) * (j->wave ? j->wave : 1) < wanted && j->heads > 1) j->heads = (j->heads + 1) / 2;
}

bool rv_cpu_attend_few(rv_cpu *cpu, const rv_attention *a) {
    few_job j = { .cpu = cpu, .a = a, .head_dim = a->q.cols / a->heads, .group = a->heads / a->kv_heads, .run = CPU_KEYS };
    int32_t segments = a->longest > 0 ? (a->longest - 1) / CPU_KEYS + 1 : 1;
    if (a->q.rows == 0) return true;
    if (cpu->kernels->few_keys && a->q.type == RV_BF16 && a->kv.k.type == RV_BF16 && a->kv.v.type == RV_BF16) j.run = cpu->kernels->few_keys;
    j.subgroups = (j.group - 1) / CPU_GROUP + 1;
    j.groups = j.subgroups * a->kv_heads;
    cut(&j, segments);
    if (j.wave) run_waves(&j, segments);
    else rv_pool_run(cpu->pool, count_items(&j), whole_item, &j);
    return !atomic_load(&j.outside);
}
_Static_assert((int)ROWS_TOGETHER * (int)CPU_GROUP <= (int)ITEM_PARTIALS, "an item's partials");
