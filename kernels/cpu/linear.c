/* linear.c - products: which kernel, and how the work is cut.
 *
 * The one idea: the number of rows decides (it is the same for every row of a call): up to
 * RV_FEW_ROWS the weights are streamed once and each sum has one order; above, blocks.  Threads
 * share output columns or row blocks, never a sum.
 */
#include "kernels/cpu/cpu.h"

enum { ITEMS_PER_THREAD = 8, FEW_STEP = 8, FEW_ITEM_BYTES = 32768 };

typedef struct product_job { rv_cpu *cpu; const rv_cpu_product *p; int32_t step; } product_job;

uint64_t rv_cpu_product_floats(void) {
    return (uint64_t)CPU_DEPTH * CPU_PANEL + (uint64_t)CPU_DEPTH * CPU_TILE_ROWS +
           (uint64_t)(CPU_MANY_ROWS + CPU_TILE_ROWS) * CPU_PANEL;
}

static void few_item(void *context, int32_t item, int32_t thread) {
    product_job *j = context;
    (void)thread;
    int32_t from = item * j->step, left = j->p->out.cols - from;
    j->cpu->kernels->product_few(j->p, from, from + (left < j->step ? left : j->step));
}

static void run_few(rv_cpu *cpu, const rv_cpu_product *p) {
    int64_t row_bytes = (int64_t)p->x.cols * 2, least = FEW_ITEM_BYTES / row_bytes + 1;
    int64_t step = p->out.cols / (cpu->threads * ITEMS_PER_THREAD) + 1;
    if (step < least) step = least;
    product_job j = { cpu, p, (int32_t)((step + FEW_STEP - 1) / FEW_STEP * FEW_STEP) };
    rv_pool_run(cpu->pool, (p->out.cols - 1) / j.step + 1, few_item, &j);
}

static void many_item(void *context, int32_t item, int32_t thread) {
    product_job *j = context;
    const rv_cpu_product *p = j->p;
    int32_t panel = j->cpu->kernels->panel, chunks = (p->x.rows - 1) / CPU_MANY_ROWS + 1;
    int32_t from = item / chunks * panel, row = item % chunks * CPU_MANY_ROWS;
    int32_t n = p->out.cols - from, rows = p->x.rows - row;
    j->cpu->kernels->product_many(p, from, n < panel ? n : panel, row, rows < CPU_MANY_ROWS ? rows : CPU_MANY_ROWS,
                                  j->cpu->product_scratch + (uint64_t)thread * rv_cpu_product_floats());
}

void rv_cpu_product_panels(rv_cpu *cpu, const rv_cpu_product *p) {
    product_job j = { cpu, p, 0 };
    int32_t panels = (p->out.cols - 1) / cpu->kernels->panel + 1, chunks = (p->x.rows - 1) / CPU_MANY_ROWS + 1;
    rv_pool_run(cpu->pool, panels * chunks, many_item, &j);
}

/* Whether all of a plain weight is bf16, which tiles and oneDNN read in place. */
static bool all_bf16(const rv_weight *w) {
    for (int32_t i = 0; i < w->n_parts; i++)
        if (w->part[i].type != RV_BF16) return false;
    return true;
}

void rv_cpu_product_run(rv_cpu *cpu, const rv_cpu_product *p) {
    if (p->x.rows == 0) return;
    if (p->w->head.format != RV_FORMAT_PLAIN) {
        rv_cpu_product_codes(cpu, p);
        return;
    }
    if (p->x.rows <= RV_FEW_ROWS || !cpu->kernels->product_many) {
        run_few(cpu, p);
        return;
    }
    bool bf16 = p->x.type == RV_BF16 && (p->w->packed || all_bf16(p->w));
    if (cpu->tiles_room && cpu->kernels->product_tiles && bf16) {
        rv_cpu_product_tiles(cpu, p);
        return;
    }
#ifdef RV_ONEDNN
    if (cpu->onednn && bf16 && rv_onednn_product(cpu->onednn, p)) return;
#endif
    rv_cpu_product_panels(cpu, p);
}
