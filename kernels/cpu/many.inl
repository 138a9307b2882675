/* many.inl - products with many rows: part of kernels.inl.
 *
 * The one idea: weights of any type become panels of f32, [k x panel], a run of CPU_DEPTH input
 * columns at a time; a micro-kernel then keeps TILE_ROWS x panel sums in registers.  Each sum
 * takes k in order, so it does not depend on the rows beside it.
 */
#if RV_LANES == 16
enum { TILE_ROWS = 8, PANEL_VECTORS = 3 };       /* 24 sums + 3 weights of 32 registers        */
#elif RV_LANES == 8
enum { TILE_ROWS = 4, PANEL_VECTORS = 3 };       /* 12 sums + 3 weights of 16                  */
#else
enum { TILE_ROWS = 4, PANEL_VECTORS = 2 };
#endif
enum { PANEL = PANEL_VECTORS * RV_LANES };
_Static_assert((int)CPU_DEPTH % (int)RV_BLOCK4 == 0, "panels hold whole blocks");
_Static_assert((int)PANEL <= (int)CPU_PANEL && (int)TILE_ROWS <= (int)CPU_TILE_ROWS, "scratch sizes");

/* c[i][j] += sum over k of a[i][k] * b[k][j], for TILE_ROWS rows and V vectors. */
ALWAYS void micro_as(const float *a, int64_t lda, const float *b, int32_t depth, float *c, int64_t ldc, int V) {
    vf acc[TILE_ROWS * PANEL_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < V; j++) acc[i * V + j] = vf_load(c + i * ldc + j * RV_LANES);
    for (int32_t k = 0; k < depth; k++, b += V * RV_LANES) {
        vf bv[PANEL_VECTORS];
#pragma GCC unroll 3
        for (int j = 0; j < V; j++) bv[j] = vf_load(b + j * RV_LANES);
#pragma GCC unroll 8
        for (int i = 0; i < TILE_ROWS; i++) {
            vf av = vf_set(a[i * lda + k]);
#pragma GCC unroll 3
            for (int j = 0; j < V; j++) acc[i * V + j] += av * bv[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < V; j++) vf_store(c + i * ldc + j * RV_LANES, acc[i * V + j]);
}

static __attribute__((noinline)) void micro(const float *a, int64_t lda, const float *b, int32_t depth, float *c,
                                            int64_t ldc, int32_t vectors) {
    if (vectors == 1) micro_as(a, lda, b, depth, c, ldc, 1);
    else if (vectors == 2) micro_as(a, lda, b, depth, c, ldc, 2);
    else micro_as(a, lda, b, depth, c, ldc, PANEL_VECTORS);
}

/* Column j of a panel `width` wide = elements k.. of a row: out[k * width + j]. */
ALWAYS void pack_column_as(const void *row, int64_t k, int32_t depth, int32_t width, float *out, rv_dtype type) {
    int32_t i = 0;
    for (; i + RV_LANES <= depth; i += RV_LANES) {
        float v[RV_LANES];
        vf_store(v, vf_load_as(row, type, k + i));
#pragma GCC unroll 16
        for (int j = 0; j < RV_LANES; j++) out[(i + j) * width] = v[j];
    }
    for (; i < depth; i++) out[i * width] = rv_cpu_load(row, type, k + i);
}

static void pack_column(const void *row, rv_dtype type, int64_t k, int32_t depth, int32_t width, float *out) {
    BY_TYPE(type, pack_column_as, row, k, depth, width, out);
}

/* The same of a 4-bit weight's row o; k is a multiple of RV_BLOCK4. */
static void pack_codes(const rv_weight *w, int32_t o, rv_dtype type, int64_t k, int32_t depth, int32_t width, float *out) {
    uint16_t halves[CPU_DEPTH];
    float absmax[CPU_DEPTH / RV_BLOCK4], values[RV_BLOCK4];
    const rv_codes *q = &w->codes[rv_cpu_part_of(w, &o)];
    int64_t from = (int64_t)o * w->head.cols + k, blocks = depth / RV_BLOCK4;
    rv_cpu_absmaxes(q, from / RV_BLOCK4, blocks, absmax);
    weight4(halves, type, (const uint8_t *)q->codes + from / 2, absmax, q->map, blocks);
    for (int64_t b = 0; b < blocks; b++) {
        convert(values, RV_F32, halves + b * RV_BLOCK4, type, RV_BLOCK4);
        for (int i = 0; i < RV_BLOCK4 / 2; i++, out += 2 * width) out[0] = values[i], out[width] = values[RV_BLOCK4 / 2 + i];
    }
}

static void pack_zero_column(int32_t depth, int32_t width, float *out) {
    for (int32_t i = 0; i < depth; i++) out[i * width] = 0;
}

/* Rows [row, row + TILE_ROWS) of x, columns k..: in place where that can be, else a copy in
 * `copy` with zero rows at the end. */
static const float *tile_rows_of(rv_mat x, int32_t row, int32_t end, int64_t k, int32_t depth, float *copy,
                                 int64_t *ld) {
    if (x.type == RV_F32 && row + TILE_ROWS <= end) {
        *ld = x.ld;
        return (const float *)rv_cpu_row(x, row) + k;
    }
    for (int32_t i = 0; i < TILE_ROWS; i++) {
        if (row + i >= end) memset(copy + i * CPU_DEPTH, 0, (size_t)depth * sizeof *copy);
        else convert(copy + i * CPU_DEPTH, RV_F32, (char *)rv_cpu_row(x, row + i) + (size_t)k * rv_dtype_size(x.type),
                     x.type, depth);
    }
    *ld = CPU_DEPTH;
    return copy;
}

static void product_many(const rv_cpu_product *p, int32_t from, int32_t n, int32_t row, int32_t n_rows,
                         float *scratch) {
    int32_t vectors = (n + RV_LANES - 1) / RV_LANES, width = vectors * RV_LANES, end = row + n_rows;
    float *panel = scratch, *copy = panel + CPU_DEPTH * CPU_PANEL, *sums = copy + CPU_DEPTH * CPU_TILE_ROWS;
    int64_t cols = p->x.cols;
    memset(sums, 0, (size_t)(n_rows + TILE_ROWS) * (size_t)width * sizeof *sums);
    for (int64_t k = 0; k < cols; k += CPU_DEPTH) {
        int32_t depth = cols - k < CPU_DEPTH ? (int32_t)(cols - k) : CPU_DEPTH;
        for (int32_t j = 0; j < width; j++) {
            rv_dtype type;
            if (j >= n) {
                pack_zero_column(depth, width, panel + j);
                continue;
            }
            if (p->w->head.format != RV_FORMAT_PLAIN) {
                pack_codes(p->w, from + j, rv_cpu_decoded(p->x.type), k, depth, width, panel + j);
                continue;
            }
            const void *w = rv_cpu_weight_row(p->w, from + j, &type);
            pack_column(w, type, k, depth, width, panel + j);
        }
        for (int32_t r = row; r < end; r += TILE_ROWS) {
            int64_t ld;
            const float *a = tile_rows_of(p->x, r, end, k, depth, copy, &ld);
            micro(a, ld, panel, depth, sums + (int64_t)(r - row) * width, width, vectors);
        }
    }
    for (int32_t r = 0; r < n_rows; r++) finish_row(p, row + r, from, n, sums + (int64_t)r * width);
}
