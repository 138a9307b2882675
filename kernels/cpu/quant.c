/* quant.c - weights in bitsandbytes' formats: where their codes lie, and how they are made.
 *
 * The one idea: whatever a part comes from, kernels see an rv_codes. Codes that a checkpoint holds are read where they
 * are; the others are made while loading, by all threads, into the weight's memory: [codes | scales] part by part.
 */
#include <math.h>
#include <stdlib.h>
#include "kernels/cpu/cpu.h"

enum { ALIGN = 64, ITEM_WEIGHTS = 1 << 16 };

static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

/* ---- layout ---- */

/* Where what is made of one part lies in the weight's memory; sizes first, then pointers. */
typedef struct part_memory {
    uint64_t codes, scale, nested, nested_scale, all;
} part_memory;

static part_memory part_layout(const rv_weight_spec *s, int32_t i) {
    uint64_t n = (uint64_t)s->part[i].rows * (uint64_t)s->cols, blocks = n / RV_BLOCK4;
    part_memory m = { 0 };
    if (s->format == RV_FORMAT_PLAIN) {
        m.codes = s->part[i].codes ? aligned(n * 2) : 0;
    } else if (s->part[i].codes) {
        return m;
    } else if (s->format == RV_FORMAT_INT8) {
        m.codes = aligned(n);
        m.scale = aligned((uint64_t)s->part[i].rows * sizeof(float));
    } else {
        m.codes = aligned(n / 2);
        m.scale = s->nested ? 0 : aligned(blocks * sizeof(float));
        m.nested = s->nested ? aligned(blocks) : 0;
        m.nested_scale = s->nested ? aligned(((blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK + 1) * sizeof(float)) : 0;
    }
    m.all = m.codes + m.scale + m.nested + m.nested_scale;
    return m;
}

uint64_t rv_cpu_quant_bytes(rv_cpu *cpu, const rv_weight_spec *s) {
    uint64_t bytes = 0;
    for (int32_t i = 0; i < s->n_parts; i++) {
        if (s->format == RV_FORMAT_FP4 && !s->part[i].codes)
            rv_fail(&cpu->be.error, RV_ERR_UNSUPPORTED, "%s: weights are not quantised to fp4, only read (use nf4)", s->name);
        bytes += part_layout(s, i).all;
    }
    return cpu->be.error.code ? 0 : bytes;
}

typedef float four __attribute__((vector_size(16)));

void rv_cpu_absmaxes(const rv_codes *q, int64_t block, int64_t n, float *out) {
    if (!q->nested) {
        memcpy(out, (const char *)q->scale + (size_t)block * sizeof(float), (size_t)n * sizeof(float));
        return;
    }
    while (n > 0) {                              /* a run under one scale at a time                */
        const uint8_t *code = q->nested + block;
        int64_t run = RV_NESTED_BLOCK - block % RV_NESTED_BLOCK;
        float scale;
        memcpy(&scale, (const char *)q->nested_scale + (size_t)(block / RV_NESTED_BLOCK) * sizeof scale, sizeof scale);
        if (run > n) run = n;
        int64_t i = 0;
        for (; i + 4 <= run; i += 4) {
            four v = { q->nested_map[code[i]], q->nested_map[code[i + 1]], q->nested_map[code[i + 2]], q->nested_map[code[i + 3]] };
            v = v * scale + q->offset;
            memcpy(out + i, &v, sizeof v);
        }
        for (; i < run; i++) out[i] = q->nested_map[code[i]] * scale + q->offset;
        out += run, block += run, n -= run;
    }
}

/* ---- making ---- */

typedef struct quant_job {
    rv_cpu *cpu;
    const rv_weight_spec *spec;
    const rv_weight_part *part;
    const char *name;            /* of the part                                                */
    char *codes;
    float *scale;
    int32_t step;                /* rows of an item                                            */
    _Atomic bool bad;            /* a weight has no code                                       */
} quant_job;

static void quantise_rows(quant_job *j, int32_t row, int32_t end) {
    int64_t cols = j->spec->cols, at = row * cols, blocks = at / RV_BLOCK4;
    const char *data = (const char *)j->part->data + (uint64_t)at * rv_dtype_size(j->part->type);
    if (!rv_all_finite(data, j->part->type, (end - row) * cols)) atomic_store(&j->bad, true);
    if (j->spec->format == RV_FORMAT_INT8)
        for (int32_t r = row; r < end; r++, data += (uint64_t)cols * rv_dtype_size(j->part->type)) {
            j->scale[r] = j->cpu->kernels->int8_weights((int8_t *)j->codes + r * cols, data, j->part->type, cols);
            if (!isfinite(j->scale[r])) atomic_store(&j->bad, true);
        }
    else j->cpu->kernels->nf4_quantise((uint8_t *)j->codes + at / 2, j->scale + blocks, data, j->part->type, (end - row) * cols);
}

static void quantise_item(void *context, int32_t item, int32_t thread) {
    quant_job *j = context;
    int32_t row = item * j->step, left = j->part->rows - row;
    (void)thread;
    quantise_rows(j, row, row + (left < j->step ? left : j->step));
}

/* Rows of a quantised part as 16 bit. */
static void read_item(void *context, int32_t item, int32_t thread) {
    const quant_job *j = context;
    int32_t row = item * j->step, left = j->part->rows - row;
    int64_t cols = j->spec->cols, at = row * cols, end = at + (left < j->step ? left : j->step) * cols;
    rv_dtype type = rv_cpu_decoded(j->cpu->be.act);
    (void)thread;
    for (float run[256]; at < end; at += 256) {
        int64_t n = end - at < 256 ? end - at : 256;
        rv_codes_read(run, j->part->codes, cols, at, n);
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = type == RV_BF16 ? rv_f32_to_bf16(run[i]) : rv_f32_to_f16(run[i]);
            memcpy(j->codes + (at + i) * 2, &h, sizeof h);
        }
    }
}

static void run_rows(quant_job *j, rv_pool_work *work) {
    j->step = ITEM_WEIGHTS / j->spec->cols + 1;
    rv_pool_run(j->cpu->pool, (j->part->rows - 1) / j->step + 1, work, j);
}

static void check_item(void *context, int32_t item, int32_t thread) {
    quant_job *j = context;
    const int32_t row = item * j->step, left = j->part->rows - row;
    const int64_t cols = j->spec->cols, at = row * cols;
    (void)thread;
    if (!rv_all_finite((const char *)j->part->data + (uint64_t)at * rv_dtype_size(j->part->type), j->part->type, (left < j->step ? left : j->step) * cols))
        atomic_store(&j->bad, true);
}

bool rv_cpu_quant_check(rv_cpu *cpu, const rv_weight_spec *s) {
    for (int32_t i = 0; i < s->n_parts; i++) {
        quant_job j = { .cpu = cpu, .spec = s, .part = &s->part[i], .name = rv_part_name(s, i) };
        if (!j.part->data) continue;
        run_rows(&j, check_item);
        if (!atomic_load(&j.bad)) continue;
        rv_fail(&cpu->be.error, RV_ERR_FORMAT, "%s: holds NaN or Inf, which int8 products behind it would hide (rvengine inspect --check finds them)", j.name);
        return false;
    }
    return true;
}

/* Absmaxes of a part, in their final place or, nested, on the way there. */
static bool quantise_part(quant_job *j, rv_codes *q, const part_memory *m) {
    int64_t blocks = (int64_t)j->part->rows * j->spec->cols / RV_BLOCK4;
    float *room = NULL;
    if (m->nested && !(room = malloc((size_t)blocks * sizeof *room))) {
        rv_fail_memory(&j->cpu->be.error, j->spec->name);
        return false;
    }
    j->scale = room ? room : (float *)(uintptr_t)q->scale;
    run_rows(j, quantise_item);
    if (atomic_load(&j->bad))
        rv_fail(&j->cpu->be.error, RV_ERR_FORMAT, "%s: holds NaN, Inf%s: it cannot be quantised (rvengine inspect --check finds them)", j->name,
                j->spec->format == RV_FORMAT_INT8 ? ", or numbers beyond 65504" : "");
    else if (room) {
        float *scales = (float *)(uintptr_t)q->nested_scale;
        float offset = rv_nested_quantise((uint8_t *)(uintptr_t)q->nested, scales, room, blocks);
        scales[(blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK] = offset;       /* behind them: what `filled` finds */
    }
    free(room);
    return !atomic_load(&j->bad);
}

/* The codes of part i in memory, as their layout says; what is there only after they were made is not read. */
static void point_at(rv_codes *q, const rv_weight_spec *s, const part_memory *m, char *memory) {
    *q = (rv_codes){ .format = s->format, .codes = memory };
    memcpy(q->map, rv_nf4_map, sizeof q->map);
    memcpy(q->nested_map, rv_nested_map, sizeof q->nested_map);
    if (!m->nested) {
        q->scale = memory + m->codes;
        return;
    }
    q->nested = (const uint8_t *)memory + m->codes;
    q->nested_scale = memory + m->codes + m->nested;
}

static void read_offset(rv_codes *q, const rv_weight_spec *s, int32_t i) {
    uint64_t blocks = (uint64_t)s->part[i].rows * (uint64_t)s->cols / RV_BLOCK4;
    if (q->nested) memcpy(&q->offset, (const float *)q->nested_scale + (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK, sizeof q->offset);
}

bool rv_cpu_quant_make(rv_cpu *cpu, const rv_weight_spec *s, rv_weight *w, void *memory) {
    char *at = memory;
    if (s->format != RV_FORMAT_PLAIN && !rv_cpu_quant_grow(cpu, s->cols)) return false;
    for (int32_t i = 0; i < s->n_parts; i++) {
        part_memory m = part_layout(s, i);
        quant_job j = { .cpu = cpu, .spec = s, .part = &s->part[i], .name = rv_part_name(s, i), .codes = at };
        if (s->format == RV_FORMAT_PLAIN) {
            if (!s->part[i].codes) continue;
            w->part[i] = (rv_weight_part){ at, rv_cpu_decoded(cpu->be.act), s->part[i].rows, NULL };
            if (!s->filled) run_rows(&j, read_item);
        } else if (s->part[i].codes) {
            w->codes[i] = *s->part[i].codes;
        } else {
            point_at(&w->codes[i], s, &m, at);
            if (!s->filled && !quantise_part(&j, &w->codes[i], &m)) return false;
            read_offset(&w->codes[i], s, i);
        }
        at += m.all;
    }
    return true;
}

/* ---- activations ---- */

float rv_cpu_through_f16(float f) {
    if (fabsf(f) >= 65520.f) return copysignf(INFINITY, f);
    return rv_f16_to_f32(rv_f32_to_f16(f));
}

int32_t rv_cpu_int8_row(int8_t *codes, float *sca, int32_t *column, const void *x, rv_dtype type, int64_t n, float threshold) {
    float most = 0;
    int32_t outliers = 0;
    for (int64_t k = 0; k < n; k++) {
        float f = fabsf(rv_cpu_through_f16(rv_cpu_load(x, type, k)));
        if (threshold == 0 || f < threshold) most = fmaxf(most, f);
        else if (f >= threshold) column[outliers++] = (int32_t)k;
    }
    const float scale = 127.f / most;
    for (int64_t k = 0; k < n; k++) {
        float f = rv_cpu_through_f16(rv_cpu_load(x, type, k)), scaled = f * scale;
        codes[k] = (threshold == 0 || fabsf(f) < threshold) && !isnan(scaled) ? (int8_t)rintf(scaled) : 0;
    }
    *sca = most;
    return outliers;
}
