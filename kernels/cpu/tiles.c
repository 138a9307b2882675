/* tiles.c - kernels on AMX's tiles: their memory, packed weights, and how a product is cut.
 *
 * The one idea: of an item's rows and its weights the larger part stays in the second cache while the other goes by.  Weights in the
 * file are packed on the way, once for as many rows.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "kernels/cpu/cpu.h"

enum { STAY_ROWS = 64, STAY_COLS = 256,
       FEW_ITEMS = 8 };          /* a thread: fewer are made even                              */

typedef struct tiles_job { rv_cpu *cpu; const rv_cpu_product *p; int32_t rows, cols, row_blocks; } tiles_job;

/* n in `parts` equal ones, multiples of a panel. */
static int32_t part_of(int32_t n, int32_t parts) {
    return ((n - 1) / parts / CPU_TILE_PANEL + 1) * CPU_TILE_PANEL;
}

static void product_item(void *context, int32_t item, int32_t thread) {
    tiles_job *j = context;
    int32_t row = item % j->row_blocks * j->rows, from = item / j->row_blocks * j->cols;
    int32_t rows = j->p->x.rows - row, n = j->p->out.cols - from;
    j->cpu->kernels->product_tiles(j->p, from, n < j->cols ? n : j->cols, row, rows < j->rows ? rows : j->rows, &j->cpu->tiles_room[thread]);
}

void rv_cpu_product_tiles(rv_cpu *cpu, const rv_cpu_product *p) {
    /* Packed weights of few columns stay from item to item: those of an item's rows come one after the other. */
    const bool stay = p->w->packed && p->x.cols <= CPU_TILED_DEPTH;
    const int32_t most_rows = stay ? STAY_ROWS : CPU_TILED_ROWS, most_cols = stay ? STAY_COLS : CPU_TILED_COLS, threads = cpu->threads;
    int32_t row_parts = (p->x.rows - 1) / most_rows + 1, col_parts = (p->out.cols - 1) / most_cols + 1;
    if (row_parts * col_parts < FEW_ITEMS * threads) {           /* as many for each thread */
        int32_t items = ((row_parts * col_parts - 1) / threads + 1) * threads;
        col_parts = (items - 1) / row_parts + 1;
    }
    tiles_job j = { cpu, p, part_of(p->x.rows, row_parts), part_of(p->out.cols, col_parts), 0 };
    j.row_blocks = (p->x.rows - 1) / j.rows + 1;
    rv_pool_run(cpu->pool, ((p->out.cols - 1) / j.cols + 1) * j.row_blocks, product_item, &j);
}

/* ---- packed weights: panels, one after the other ---- */

uint64_t rv_cpu_tiles_bytes(int32_t rows, int32_t cols) {
    return (uint64_t)((rows - 1) / CPU_TILE_PANEL + 1) * rv_cpu_tiles_panel_bytes(cols);
}

typedef struct pack_job { rv_cpu *cpu; const rv_weight *w; char *out; } pack_job;

static void pack_item(void *context, int32_t item, int32_t thread) {
    pack_job *j = context;
    (void)thread;
    j->cpu->kernels->tiles_pack(j->w, item * CPU_TILE_PANEL, j->out + (uint64_t)item * rv_cpu_tiles_panel_bytes(j->w->head.cols));
}

void rv_cpu_tiles_pack(rv_cpu *cpu, const rv_weight *w, void *memory) {
    pack_job j = { cpu, w, memory };
    rv_pool_run(cpu->pool, (w->head.rows - 1) / CPU_TILE_PANEL + 1, pack_item, &j);
}

/* ---- memory ---- */

enum { WIDE = CPU_HEAD_DIM, PAIRS = CPU_TILE_PANEL,
       ROWS_BYTES = CPU_TILED_ROWS * CPU_TILED_DEPTH * 2, PANEL_BYTES = CPU_TILE_PANEL * CPU_TILE_DEPTH * 2,
       SUMS_BYTES = CPU_TILED_ROWS * (CPU_TILED_COLS + 16) * 4, RUN_BYTES = CPU_TILE_KEYS * WIDE * 2,
       WEIGHT_BYTES = PAIRS * CPU_TILE_KEYS * 2, SCORE_BYTES = 2 * PAIRS * (CPU_TILE_KEYS + 16) * 4, ONE_BYTES = PAIRS * WIDE * 4,
       PAIR_BYTES = CPU_TILE_PAIRS * 4, KEY_BYTES = CPU_TILE_KEYS * 4 };
_Static_assert((int)CPU_TILE_PAIRS * (int)WIDE * 2 <= (int)ROWS_BYTES && (int)CPU_TILE_PAIRS * (int)WIDE * 4 <= (int)SUMS_BYTES,
               "attention's queries and sums lie where a product's rows and sums do");

static void *cut(char **from, size_t bytes) {
    char *at = *from;
    *from += bytes;
    return at;
}

rv_status rv_cpu_tiles_open(rv_cpu *cpu, rv_error *err) {
    const size_t bytes = ROWS_BYTES + PANEL_BYTES + SUMS_BYTES + 3 * (size_t)RUN_BYTES + 2 * (size_t)WEIGHT_BYTES + SCORE_BYTES + ONE_BYTES +
                         17 * (size_t)PAIR_BYTES + 3 * (size_t)KEY_BYTES;
    cpu->tiles_room = calloc((size_t)cpu->threads, sizeof *cpu->tiles_room);
    for (int32_t t = 0; t < cpu->threads && cpu->tiles_room; t++) {
        rv_cpu_tiles_room *room = &cpu->tiles_room[t];
        char *at = rv_cpu_huge(bytes, &room->taken);
        if (!at) return rv_fail_memory(err, "tiles");
        room->rows = cut(&at, ROWS_BYTES);
        room->panel = cut(&at, PANEL_BYTES);
        room->sums = cut(&at, SUMS_BYTES);
        room->keys = cut(&at, RUN_BYTES);
        room->values = cut(&at, RUN_BYTES);
        room->some_values = cut(&at, RUN_BYTES);
        room->high = cut(&at, WEIGHT_BYTES);
        room->low = cut(&at, WEIGHT_BYTES);
        room->scores = cut(&at, SCORE_BYTES);
        room->one = cut(&at, ONE_BYTES);
        room->m = cut(&at, PAIR_BYTES);
        room->l = cut(&at, 16 * PAIR_BYTES);
        room->bias = cut(&at, KEY_BYTES);
        room->key_rows = cut(&at, 2 * KEY_BYTES);
    }
    return cpu->tiles_room ? RV_OK : rv_fail_memory(err, "tiles");
}

void rv_cpu_tiles_close(rv_cpu *cpu) {
    for (int32_t t = 0; cpu->tiles_room && t < cpu->threads; t++)
        if (cpu->tiles_room[t].rows) munmap(cpu->tiles_room[t].rows, (size_t)cpu->tiles_room[t].taken);
    free(cpu->tiles_room);
}
