/* many_tiles.inl - products with many rows on tiles: part of kernels.inl.
 *
 * The one idea: 32 outputs x CPU_TILE_DEPTH columns of weights stay in the first cache while the rows of an item, packed once a
 * run of columns, go by.  Weights are packed when they are loaded (vision), or here, from the file as it lies (text).
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

static void product_tiles(const rv_cpu_product *p, int32_t from, int32_t n, int32_t row, int32_t n_rows, rv_cpu_tiles_room *room) {
    int32_t cols = p->x.cols, panels = (n - 1) / CPU_TILE_PANEL + 1, blocks = (n_rows - 1) / CPU_TILE_PANEL + 1;
    int64_t ld = panels * CPU_TILE_PANEL + TILE;             /* not a multiple of 4 KB             */
    tile_rows rows[CPU_TILED_ROWS / CPU_TILE_PANEL];
    tiles_begin();
    for (int32_t k = 0; k < cols; k += CPU_TILE_DEPTH) {
        int32_t depth = cols - k < CPU_TILE_DEPTH ? cols - k : CPU_TILE_DEPTH, steps = (depth - 1) / CPU_TILE_STEP + 1;
        for (int32_t b = 0, r = 0; b < blocks; b++, r += CPU_TILE_PANEL)
            rows[b] = left_rows(p->x, row + r, n_rows - r < CPU_TILE_PANEL ? n_rows - r : CPU_TILE_PANEL, k, depth,
                                room->rows + (int64_t)b * CPU_TILE_DEPTH / CPU_TILE_STEP * STEP_BYTES);
        for (int32_t c = 0; c < n; c += CPU_TILE_PANEL) {
            int32_t width = n - c < CPU_TILE_PANEL ? n - c : CPU_TILE_PANEL;
            const char *w = panel_of(p, from + c, width, k, depth, room->panel);
            for (int32_t b = 0; b < blocks; b++) {
                float *sums = room->sums + (int64_t)b * CPU_TILE_PANEL * ld + c;
                tiles_multiply(rows[b], w, steps, sums, ld, k > 0);
                for (int32_t r = b * CPU_TILE_PANEL, i = 0; k + depth == cols && i < CPU_TILE_PANEL && r + i < n_rows; i++)
                    finish_row(p, row + r + i, from + c, width, sums + i * ld);
            }
        }
    }
    tiles_end();
}
