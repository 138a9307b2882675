/* many_tiles.inl - products with many rows on tiles: part of kernels.inl.
 *
 * The one idea: up to CPU_TILED_DEPTH columns of an item's rows stay in the second cache while its weights go by, read in order, 32
 * outputs at a time; and vectors finish a block's rows between the steps of the next one's products.  Weights are packed when they are
 * loaded (vision), or here, from the file as it lies (text).
 */

/* Outputs [from, from + n), n <= 32, columns [k, k + depth) of a weight of any type, as bf16. */
static void pack_panel(const rv_weight *w, int32_t from, int32_t n, int64_t k, int32_t depth, char *out) {
    uint16_t room[TILE][CPU_TILE_DEPTH];
    for (int32_t half = 0; half < 2; half++) {
        const void *rows[TILE] = { NULL };
        for (int32_t i = 0; i < TILE && half * TILE + i < n; i++) {
            rv_dtype type;
            rows[i] = (const char *)rv_cpu_weight_row(w, from + half * TILE + i, &type) ;
            rows[i] = (const char *)rows[i] + (uint64_t)k * rv_dtype_size(type);
            if (type == RV_BF16) continue;
            convert(room[i], RV_BF16, rows[i], type, depth);
            rows[i] = room[i];
        }
        pack_outputs(rows, depth, out + half * TILE_BYTES);
    }
}

static void tiles_pack(const rv_weight *w, int32_t from, char *out) {
    int32_t cols = w->head.cols, n = w->head.rows - from;
    for (int32_t k = 0; k < cols; k += CPU_TILE_DEPTH, out += CPU_TILE_DEPTH / CPU_TILE_STEP * STEP_BYTES)
        pack_panel(w, from, n < CPU_TILE_PANEL ? n : CPU_TILE_PANEL, k, cols - k < CPU_TILE_DEPTH ? cols - k : CPU_TILE_DEPTH, out);
}

/* Rows [row, row + n) of x, n <= 32, columns [k, k + depth): where they are, if tile loads can take them there; else a copy.
 * Rows 4 KB apart would meet in few places of the caches. */
static tile_rows left_rows(rv_mat x, int32_t row, int32_t n, int64_t k, int32_t depth, char *copy) {
    const char *at = (char *)rv_cpu_row(x, row) + 2 * k;
    const int64_t ld = 2 * x.ld;
    if (n == CPU_TILE_PANEL && depth % CPU_TILE_STEP == 0 && ld % TILE_LINE == 0 && ld % 4096 && (uintptr_t)at % TILE_LINE == 0)
        return (tile_rows){ at, ld, TILE * ld, TILE_LINE };
    for (int32_t i = 0; i < CPU_TILE_PANEL; i++) pack_row(i < n ? at + i * ld : NULL, depth, row_in_block(copy, i));
    return packed_rows(copy);
}

static const char *panel_of(const rv_cpu_product *p, int32_t from, int32_t n, int64_t k, int32_t depth, char *room) {
    if (p->w->packed)
        return (const char *)p->w->packed + (uint64_t)(from / CPU_TILE_PANEL) * rv_cpu_tiles_panel_bytes(p->x.cols) +
               (uint64_t)(k / CPU_TILE_STEP) * STEP_BYTES;
    pack_panel(p->w, from, n, k, depth, room);
    return room;
}

/* ---- what is wanted next, on its way to the second cache ---- */

ALWAYS void bring_lines(const char *at, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += TILE_LINE) _mm_prefetch(at + i, _MM_HINT_T1);
}

/* Part i of n of a panel's rows in the file: columns [k, k + depth) of outputs from.. (a packed panel comes by itself: it lies in order) */
static void bring_rows(const rv_cpu_product *p, int32_t from, int32_t width, int64_t k, int32_t depth, int32_t i, int32_t n) {
    const int32_t each = (CPU_TILE_PANEL - 1) / n + 1;
    for (int32_t o = i * each; o < (i + 1) * each && o < width; o++) {
        rv_dtype type = RV_BF16;
        bring_lines((const char *)rv_cpu_weight_row(p->w, from + o, &type) + 2 * k, 2 * depth);
    }
}

/* ---- an item ---- */

typedef struct tile_item {       /* outputs [from, from + n) of rows [row, row + n_rows)        */
    const rv_cpu_product *p;
    rv_cpu_tiles_room *room;
    int32_t from, n, row, n_rows, blocks;
    int32_t begin, end;          /* columns whose rows lie in the second cache                 */
    int64_t ld;                  /* of its sums                                                */
    bool    once;                /* a block's products are made all at once                    */
    tile_rows rows[CPU_TILED_ROWS / CPU_TILE_PANEL];
    struct { float *sums; int32_t row, end, from, width; } done;      /* rows [row, end) of x, not finished yet */
} tile_item;

static int32_t smaller_of(int32_t a, int32_t b) { return a < b ? a : b; }

static void item_rows(tile_item *t) {
    for (int32_t b = 0, r = 0; b < t->blocks; b++, r += CPU_TILE_PANEL)
        t->rows[b] = left_rows(t->p->x, t->row + r, smaller_of(t->n_rows - r, CPU_TILE_PANEL), t->begin, t->end - t->begin,
                               t->room->rows + (int64_t)b * (CPU_TILED_DEPTH / CPU_TILE_STEP) * STEP_BYTES);
}

/* Made at once, two blocks take turns: one is made, one finished. */
static float *sums_of(const tile_item *t, int32_t b, int32_t c) {
    if (t->once) return t->room->sums + (c / CPU_TILE_PANEL * t->blocks + b) % 2 * CPU_TILE_PANEL * CPU_TILE_PANEL;
    return t->room->sums + (int64_t)b * CPU_TILE_PANEL * t->ld + c;
}

ALWAYS void finish_next(tile_item *t) {
    if (t->done.row == t->done.end) return;
    finish_row(t->p, t->done.row++, t->done.from, t->done.width, t->done.sums);
    t->done.sums += t->ld;
}

/* sums [32 x 32] = or += left right.  Rows of the block before are finished between the steps, so that vectors work while tiles multiply. */
static __attribute__((noinline)) void multiply_block(tile_item *t, tile_rows left, const char *right, int32_t steps, float *sums, bool add) {
    FENCE();
    if (add) tiles_take((char *)sums, 4 * t->ld);
    else tiles_clear();
    for (int32_t s = 0; s < steps; s++, left.at += left.step, right += STEP_BYTES) {
        tiles_step(&left, right);
        finish_next(t);
    }
    tiles_give((char *)sums, 4 * t->ld);
    FENCE();
    while (t->done.row < t->done.end) finish_next(t);
}

/* What of the file is packed behind columns [k, k + depth) of outputs c..: part b of it on its way. */
static void bring_next(const tile_item *t, int32_t c, int32_t k, int32_t depth, int32_t b) {
    if (k + depth < t->end) k += depth;
    else k = t->begin, c += CPU_TILE_PANEL;
    if (c < t->n) bring_rows(t->p, t->from + c, smaller_of(t->n - c, CPU_TILE_PANEL), k, smaller_of(t->end - k, CPU_TILE_DEPTH), b, t->blocks);
}

/* Columns [k, k + depth) of outputs c.. of the item, up to 32, and of all of its rows. */
static void item_panel(tile_item *t, int32_t c, int32_t k, int32_t depth) {
    const int32_t width = smaller_of(t->n - c, CPU_TILE_PANEL), steps = (depth - 1) / CPU_TILE_STEP + 1;
    const char *w = panel_of(t->p, t->from + c, width, k, depth, t->room->panel);
    for (int32_t b = 0; b < t->blocks; b++) {
        tile_rows rows = t->rows[b];
        rows.at += (k - t->begin) / CPU_TILE_STEP * rows.step;
        if (!t->p->w->packed) bring_next(t, c, k, depth, b);
        multiply_block(t, rows, w, steps, sums_of(t, b, c), k > 0);
        if (k + depth < t->p->x.cols) continue;
        t->done.sums = sums_of(t, b, c);
        t->done.row = t->row + b * CPU_TILE_PANEL;
        t->done.end = t->row + smaller_of(t->n_rows, (b + 1) * CPU_TILE_PANEL);
        t->done.from = t->from + c;
        t->done.width = width;
    }
}

static void product_tiles(const rv_cpu_product *p, int32_t from, int32_t n, int32_t row, int32_t n_rows, rv_cpu_tiles_room *room) {
    const int32_t cols = p->x.cols, parts = (cols - 1) / CPU_TILED_DEPTH + 1, each = (cols - 1) / parts + 1;
    const int32_t depth = (each + CPU_TILE_STEP - 1) / CPU_TILE_STEP * CPU_TILE_STEP;
    tile_item t = { .p = p, .room = room, .from = from, .n = n, .row = row, .n_rows = n_rows, .blocks = (n_rows - 1) / CPU_TILE_PANEL + 1 };
    t.once = parts == 1 && p->w->packed;
    t.ld = t.once ? CPU_TILE_PANEL : ((n - 1) / CPU_TILE_PANEL + 1) * CPU_TILE_PANEL + TILE;     /* not a multiple of 4 KB */
    tiles_begin();
    for (; t.begin < cols; t.begin = t.end) {
        t.end = smaller_of(cols, t.begin + depth);
        item_rows(&t);
        const int32_t piece = p->w->packed ? depth : CPU_TILE_DEPTH;
        for (int32_t c = 0; c < n; c += CPU_TILE_PANEL)
            for (int32_t k = t.begin; k < t.end; k += piece) item_panel(&t, c, k, smaller_of(t.end - k, piece));
    }
    while (t.done.row < t.done.end) finish_next(&t);
    tiles_end();
}
