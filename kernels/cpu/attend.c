/* attend.c - attention: how the work of many rows is cut, and everybody's memory.
 *
 * The one idea: the number of rows decides.  Up to RV_FEW_ROWS it is attend_few.c's; above, an item is a block of rows against one
 * K/V head (attend.inl; of bf16 attend_runs.inl).
 */
#include <stdlib.h>
#include "kernels/cpu/cpu.h"

typedef struct attend_job {
    rv_cpu *cpu;
    const rv_attention *a;
    int32_t group;               /* query heads of one K/V head                                */
    int32_t block;               /* rows of an item                                            */
    bool pairs;                  /* by kernels for bf16                                        */
    _Atomic bool outside;        /* a key outside the cache                                    */
} attend_job;

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
    if (a->q.rows <= RV_FEW_ROWS || !j.cpu->kernels->attend_many || j.group > CPU_PAIRS) {
        atomic_store(&j.outside, !rv_cpu_attend_few(j.cpu, a));
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
