/* linear_quant.c - products with weights in codes: x made ready, then items.
 *
 * The one idea: rows of x are made ready once a call, RV_FEW_ROWS at a time: quantised for int8 weights (whose integer
 * sums are exact, so that any number of rows takes the same path), reordered for 4-bit ones (whose halves are decoded
 * apart).  Above RV_FEW_ROWS rows 4-bit weights become panels, as others do.
 */
#include <stdlib.h>
#include "kernels/cpu/cpu.h"

enum { ALIGN = 64, STEP = CPU_OUTPUTS, ITEMS_PER_THREAD = 8, ITEM_BYTES = 32768 };

/* ---- room ---- */

void rv_cpu_quant_close(rv_cpu *cpu) {
    free(cpu->quant.whole);
    cpu->quant = (rv_cpu_quant_room){ 0 };
}

static void *take(char **at, uint64_t bytes) {
    void *p = *at;
    if (*at) *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

bool rv_cpu_quant_grow(rv_cpu *cpu, int32_t cols) {
    uint64_t wide = (uint64_t)(cols + ALIGN - 1) / ALIGN * ALIGN, cells = wide * RV_FEW_ROWS;
    rv_cpu_quant_room q = { .cols = cols };
    if (cols <= cpu->quant.cols) return true;
    uint64_t decode = (rv_cpu_decode_bytes(cols) + ALIGN - 1) / ALIGN * ALIGN;
    uint64_t bytes = cells * (1 + 4 + 4 + 4) + wide + 2 * RV_FEW_ROWS * 4 + decode * (uint64_t)cpu->threads + 16 * ALIGN;
    if (!(q.whole = aligned_alloc(ALIGN, bytes / ALIGN * ALIGN))) {
        rv_fail_memory(&cpu->be.error, "products with quantised weights");
        return false;
    }
    char *at = q.whole;
    q.int8 = (rv_cpu_int8_rows){ .codes = take(&at, cells), .sca = take(&at, RV_FEW_ROWS * 4), .outliers = take(&at, RV_FEW_ROWS * 4),
                                 .column = take(&at, cells * 4), .value = take(&at, cells * 4) };
    q.x = take(&at, cells * 4);
    q.by_call = take(&at, wide);
    q.weights = take(&at, decode * (uint64_t)cpu->threads);
    rv_cpu_quant_close(cpu);
    cpu->quant = q;
    return true;
}

/* ---- items ---- */

typedef struct codes_job {
    rv_cpu *cpu;
    const rv_cpu_product *p;
    rv_mat ordered;              /* 4 bit: x in the order of weight4                           */
    bool by_call;
    bool tiles;                  /* 4 bit: x as pack4 puts it                                  */
    int32_t step;
} codes_job;

/* Output columns of an item: whole steps, some items a thread, and no less than keeps threads apart. */
static void cut(codes_job *j, double row_bytes) {
    const int64_t least = (int64_t)(ITEM_BYTES / row_bytes) + 1, multiple = j->tiles ? CPU_TILE_PANEL : STEP;
    int64_t step = (j->p->out.cols - 1) / (j->cpu->threads * ITEMS_PER_THREAD) + 1;
    if (step < least) step = least;
    j->step = (int32_t)((step + multiple - 1) / multiple * multiple);
}

static int32_t item_end(const codes_job *j, int32_t from) {
    int32_t left = j->p->out.cols - from;
    return from + (left < j->step ? left : j->step);
}

static void *room_of(const codes_job *j, int32_t thread) {
    return j->cpu->quant.weights + (uint64_t)thread * ((rv_cpu_decode_bytes(j->cpu->quant.cols) + ALIGN - 1) / ALIGN * ALIGN);
}

static void run_items(codes_job *j, rv_pool_work *work) { rv_pool_run(j->cpu->pool, (j->p->out.cols - 1) / j->step + 1, work, j); }

/* ---- int8 ---- */

/* A column that is an outlier in any row of the call: columns of an item, all rows. */
static void by_call_item(void *context, int32_t item, int32_t thread) {
    codes_job *j = context;
    rv_mat x = j->p->x;
    int32_t from = item * j->step, end = x.cols - from < j->step ? x.cols : from + j->step;
    (void)thread;
    memset(j->cpu->quant.by_call + from, 0, (size_t)(end - from));
    for (int32_t r = 0; r < x.rows; r++) {
        int8_t codes[256];
        int32_t column[256];
        float sca;
        const char *row = (const char *)rv_cpu_row(x, r) + (size_t)from * rv_dtype_size(x.type);
        int32_t n = j->cpu->kernels->int8_row(codes, &sca, column, row, x.type, end - from, j->cpu->int8.threshold);
        for (int32_t i = 0; i < n; i++) j->cpu->quant.by_call[from + column[i]] = 1;
    }
}

static void int8_row_item(void *context, int32_t r, int32_t thread) {
    codes_job *j = context;
    const rv_cpu_product *p = j->p;
    const rv_cpu_int8_rows *q = &j->cpu->quant.int8;
    int64_t cols = p->x.cols;
    int8_t *codes = q->codes + r * cols;
    int32_t *column = q->column + r * cols, n;
    (void)thread;
    n = j->cpu->kernels->int8_row(codes, &q->sca[r], column, rv_cpu_row(p->x, r), p->x.type, cols, j->cpu->int8.threshold);
    if (j->by_call) {
        n = 0;
        for (int32_t k = 0; k < cols; k++)
            if (j->cpu->quant.by_call[k]) codes[k] = 0, column[n++] = k;
    }
    for (int32_t i = 0; i < n; i++) q->value[r * cols + i] = rv_cpu_load(rv_cpu_row(p->x, r), p->x.type, column[i]);
    q->outliers[r] = n;
    if (!rv_cpu_many_outliers(n, p->x.cols)) return;
    void *spread = rv_cpu_row(q->spread, r);
    memset(spread, 0, (size_t)cols * rv_dtype_size(p->x.type));
    for (int32_t i = 0; i < n; i++) rv_cpu_store(spread, p->x.type, column[i], q->value[r * cols + i]);
}

static void product8_item(void *context, int32_t item, int32_t thread) {
    codes_job *j = context;
    j->cpu->kernels->product8(j->p, &j->cpu->quant.int8, item * j->step, item_end(j, item * j->step), room_of(j, thread));
}

static void run_int8(rv_cpu *cpu, const rv_cpu_product *p) {
    codes_job j = { .cpu = cpu, .p = p, .by_call = cpu->int8.by_call && cpu->int8.threshold > 0 && p->x.rows > 1, .step = 256 };
    if (j.by_call) rv_pool_run(cpu->pool, (p->x.cols - 1) / j.step + 1, by_call_item, &j);
    for (int32_t row = 0; row < p->x.rows; row += RV_FEW_ROWS) {
        int32_t n = p->x.rows - row < RV_FEW_ROWS ? p->x.rows - row : RV_FEW_ROWS;
        rv_cpu_product some = *p;
        some.x = rv_rows(p->x, row, n);
        some.out = rv_rows(p->out, row, n);
        if (p->row_scale) some.row_scale = p->row_scale + row;
        j.p = &some;
        cpu->quant.int8.spread = rv_mat_of(cpu->quant.x, n, p->x.cols, p->x.type);
        rv_pool_run(cpu->pool, n, int8_row_item, &j);
        cut(&j, p->x.cols);
        run_items(&j, product8_item);
    }
}

/* ---- 4 bit ---- */

static void order_item(void *context, int32_t r, int32_t thread) {
    codes_job *j = context;
    rv_mat x = j->p->x;
    (void)thread;
    if (j->tiles) j->cpu->kernels->pack4(j->ordered, x, r);
    else j->cpu->kernels->order4(rv_cpu_row(j->ordered, r), rv_cpu_row(x, r), x.type, x.cols / RV_BLOCK4);
}

static void product4_item(void *context, int32_t item, int32_t thread) {
    codes_job *j = context;
    void (*product)(const rv_cpu_product *, int32_t, int32_t, void *) = j->tiles ? j->cpu->kernels->product4_tiles : j->cpu->kernels->product4;
    product(j->p, item * j->step, item_end(j, item * j->step), room_of(j, thread));
}

static void run_few4(rv_cpu *cpu, const rv_cpu_product *p) {
    rv_cpu_product some = *p;
    codes_job j = { .cpu = cpu, .p = p, .ordered = rv_mat_of(cpu->quant.x, p->x.rows, p->x.cols, p->x.type),
                    .tiles = p->x.type == RV_BF16 && cpu->kernels->product4_tiles };
    if (j.tiles || cpu->kernels->order4) {
        rv_pool_run(cpu->pool, p->x.rows, order_item, &j);
        some.x = j.ordered;
    }
    j.p = &some;
    cut(&j, p->x.cols * 0.5625);
    run_items(&j, product4_item);
}

static void run_many4(rv_cpu *cpu, const rv_cpu_product *p) {
#ifdef RV_ONEDNN
    if (cpu->onednn && rv_onednn_product(cpu->onednn, p)) return;
#endif
    rv_cpu_product_panels(cpu, p);
}

void rv_cpu_product_codes(rv_cpu *cpu, const rv_cpu_product *p) {
    if (p->w->head.format == RV_FORMAT_INT8) run_int8(cpu, p);
    else if (p->x.rows <= RV_FEW_ROWS || !cpu->kernels->product_many) run_few4(cpu, p);
    else run_many4(cpu, p);
}
