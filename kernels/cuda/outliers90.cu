/* outliers90.cu - what outliers add to an LLM.int8 product with many rows, where they are in many columns: `down` has some dozens a row, in other
 * columns each.
 *
 * The one idea: one row may have ten times as many as the next, so a warp takes a row's list as a whole, entry by entry, and each lane has a row of weights:
 * no lane waits for another.  A slice of 32 rows of weights lies in shared memory as codes, column by column, and comes from memory once for up to a thousand
 * rows; sums are in ascending order of columns, as int8_90.cuh adds those that are beside a tile.
 */
#include "kernels/cuda/int8_many.cuh"
#include "kernels/cuda/launch.cuh"

enum { WARPS = 32, THREADS = WARPS * 32,
       WIDE = 32,                        /* rows of weights at a time                           */
       FOURS = WIDE / 4,                 /* words of a column: codes of four of them            */
       STEP = 128,                       /* columns, of which slices have whole numbers         */
       AHEAD = 4,                        /* rows whose entries are asked for before their turn  */
       TILE_BYTES = 128 << 10,           /* of codes, at most                                   */
       MOST_BYTES = 227 << 10 };         /* of shared memory                                    */

struct outlier_args {
    const int8_row *rows;
    const uint32_t *columns, *list;
    const uint16_t *starts, *column_starts;
    const int32_t *n_columns;
    const void *x;
    const int8_t *w;
    const float *w_scale;
    void *out;                           /* f32, or (after the product) act                     */
    int64_t x_ld, out_ld;
    int32_t n, w_rows, pitch;
    int32_t listed;                      /* entries of a list, at most: rows of more are dense  */
    int32_t together;                    /* slices                                              */
    int32_t widest, at_once;             /* columns of so many slices, at most; rows of activations that have room together */
    float threshold;
    bool by_call;
};

/* ---- weights ---- */

/* Where codes of four rows lie in column k of the slice, so that neither columns that are written together nor rows that are read together all meet in a bank. */
static __device__ __forceinline__ int32_t word_of(int32_t k, int32_t four) { return k * FOURS + (four ^ (k >> 2 & (FOURS - 1))); }
/* That of its first row; of another, by an exclusive or with its number. */
static __device__ __forceinline__ int32_t byte_of(int32_t k) { return word_of(k, 0) * 4; }

/* Columns [from, to) of rows first .. first + 31. */
static __device__ __forceinline__ void bring(const outlier_args &g, int32_t first, int32_t from, int32_t to, uint32_t *tile) {
    enum { AT_ONCE = 8, APART = WARPS / FOURS * 32 };
    const int32_t warp = (int32_t)threadIdx.x / 32, four = warp % FOURS, pieces = (to - from) / 4;
    const int8_t *const w = g.w + (int64_t)(first + four * 4) * g.pitch + from;
    const bool there = first + four * 4 < g.w_rows;
#pragma unroll 1
    for (int32_t c0 = warp / FOURS * 32 + (int32_t)threadIdx.x % 32; c0 < pieces; c0 += AT_ONCE * APART) {
        uint32_t row[AT_ONCE][4];
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int32_t r = 0; r < 4; r++) row[i][r] = there && c0 + i * APART < pieces ? __ldg((const uint32_t *)(w + (int64_t)r * g.pitch) + c0 + i * APART) : 0u;
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++) {
            const int32_t k = (c0 + i * APART) * 4;
            if (k >= to - from) break;
            const uint32_t a = __byte_perm(row[i][0], row[i][1], 0x5140), b = __byte_perm(row[i][2], row[i][3], 0x5140), c = __byte_perm(row[i][0], row[i][1], 0x7362),
                           d = __byte_perm(row[i][2], row[i][3], 0x7362);
            tile[word_of(k, four)] = __byte_perm(a, b, 0x5410);
            tile[word_of(k + 1, four)] = __byte_perm(a, b, 0x7632);
            tile[word_of(k + 2, four)] = __byte_perm(c, d, 0x5410);
            tile[word_of(k + 3, four)] = __byte_perm(c, d, 0x7632);
        }
    }
}

/* Has the L2 cache bring them. */
static __device__ __forceinline__ void expect(const outlier_args &g, int32_t first, int32_t from, int32_t to) {
    for (int32_t i = (int32_t)threadIdx.x; i < WIDE * ((to - from + STEP - 1) / STEP); i += THREADS)
        if (first + i % WIDE < g.w_rows) fetch_far(g.w + (int64_t)(first + i % WIDE) * g.pitch + from + i / WIDE * STEP);
}

/* ---- rows of activations ---- */

static __device__ __forceinline__ bool is_listed(const outlier_args &g, int32_t row) { return (uint32_t)__ldcg(&g.rows[row].outliers) - 1 < (uint32_t)g.listed; }

/* Which entries of a row's list, or of that of all rows, are in slices [from, to): the first, the end << 16. */
static __device__ __forceinline__ uint32_t span_of(const outlier_args &g, int32_t row, bool valid, int32_t from, int32_t to, int32_t found) {
    if (!valid || !is_listed(g, row)) return 0;
    const uint16_t *starts = g.by_call ? g.column_starts : g.starts + (int64_t)row * SLICES;
    const uint32_t end = to < SLICES ? __ldcg(starts + to) : g.by_call ? (uint32_t)found : (uint32_t)__ldcg(&g.rows[row].outliers);
    return __ldcg(starts + from) | end << 16;
}

template <typename T> static __device__ __forceinline__ uint32_t entry_of(const outlier_args &g, int32_t row, int32_t i) {
    if (!g.by_call) return __ldcg(g.list + (int64_t)row * g.listed + i);
    const uint32_t column = __ldcg(g.columns + i);
    const T x = outlier_value<T>(g.x, g.x_ld, row, (int32_t)column, g.threshold);
    return column | (uint32_t)*(const uint16_t *)&x << 16;
}

/* Adds what entries [i, end) of a row do, whose codes are in the tile; now: the first 32 of them, one a lane.  near: room of the warp for as many.  Entries
 * behind the last are zeros, which add nothing. */
template <typename T>
static __device__ __forceinline__ float add_entries(const outlier_args &g, const uint32_t *tile, uint2 *near, float sum, int32_t row, int32_t i, int32_t end, uint32_t now, int32_t from, float scale) {
    enum { TOGETHER = 8 };
    const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll 1
    while (true) {
        const int32_t n = end - i < 32 ? end - i : 32;
        __syncwarp();                    /* all have read those of before                       */
        near[lane] = make_uint2(lane < n ? (uint32_t)byte_of(column_of(now) - from) : 0u, lane < n ? __float_as_uint(value_of<T>(now)) : 0u);
        __syncwarp();
#pragma unroll 1
        for (int32_t j = 0; j < n; j += TOGETHER) {
            float x[TOGETHER], w[TOGETHER];
#pragma unroll
            for (int32_t u = 0; u < TOGETHER; u += 2) {
                const uint4 two = *(const uint4 *)(near + j + u);
                x[u] = __uint_as_float(two.y), x[u + 1] = __uint_as_float(two.w);
                w[u] = __fmul_rn(__fmul_rn((float)((const int8_t *)tile)[two.x ^ (uint32_t)lane], scale), RV_INT8_ONE);
                w[u + 1] = __fmul_rn(__fmul_rn((float)((const int8_t *)tile)[two.z ^ (uint32_t)lane], scale), RV_INT8_ONE);
                const float2 rounded = pair_of(pack_weights(w[u], w[u + 1], T()), T());
                w[u] = rounded.x, w[u + 1] = rounded.y;
            }
#pragma unroll
            for (int32_t u = 0; u < TOGETHER; u++) sum = __fmaf_rn(x[u], w[u], sum);
        }
        if ((i += 32) >= end) return sum;
        now = i + lane < end ? entry_of<T>(g, row, i + lane) : 0u;
    }
}

/* Of 32 rows of which this lane has one, what must be known before their entries are added. */
template <typename T> struct row_lists {
    uint32_t spans, ahead[AHEAD];
    __device__ __forceinline__ uint32_t first_of(const outlier_args &g, int32_t row0, int32_t j) const {
        const uint32_t span = __shfl_sync(~0u, spans, j & 31);
        const int32_t i = (int32_t)(span & 0xffff) + (int32_t)threadIdx.x % 32;
        return j < 32 && i < (int32_t)(span >> 16) ? entry_of<T>(g, row0 + j, i) : 0u;
    }
    __device__ __forceinline__ void ask(const outlier_args &g, int32_t row0, int32_t rows, int32_t slice, int32_t found) {
        const int32_t lane = (int32_t)threadIdx.x % 32;
        spans = span_of(g, row0 + lane, lane < rows, slice, slice + g.together, found);
#pragma unroll
        for (int32_t u = 0; u < AHEAD; u++) ahead[u] = first_of(g, row0, u);
    }
};

/* A warp's rows [row0, row0 + rows).  lists: of the first 32; sums: of this lane's row of weights, WIDE apart. */
template <typename T>
static __device__ __forceinline__ void add_slices(const outlier_args &g, const uint32_t *tile, uint2 *near, float *sums, row_lists<T> lists, int32_t row0, int32_t rows, int32_t slice, int32_t from,
                                                  int32_t found, float scale) {
#pragma unroll 1
    for (int32_t base = 0; base < rows; base += 32) {
        if (base) lists.ask(g, row0 + base, rows - base, slice, found);
#pragma unroll 1
        for (int32_t j = 0; j < 32 && base + j < rows; j++) {
            const uint32_t now = lists.ahead[0], span = __shfl_sync(~0u, lists.spans, j);
            const int32_t begin = (int32_t)(span & 0xffff), end = (int32_t)(span >> 16);
#pragma unroll
            for (int32_t u = 1; u < AHEAD; u++) lists.ahead[u - 1] = lists.ahead[u];
            lists.ahead[AHEAD - 1] = lists.first_of(g, row0 + base, j + AHEAD);
            if (begin < end) sums[(base + j) * WIDE] = add_entries<T>(g, tile, near, sums[(base + j) * WIDE], row0 + base + j, begin, end, now, from, scale);
        }
    }
}

/* Where they go: to what the product adds, where a row without outliers has the one number that changes none; or to the product's results. */
template <typename T, bool AFTER> static __device__ __forceinline__ void leave(const outlier_args &g, const float *sums, int32_t row0, int32_t rows, int32_t first) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    const bool inside = first + lane < g.w_rows;
#pragma unroll 1
    for (int32_t base = 0; base < rows; base += 32) {
        const uint32_t some = __ballot_sync(~0u, base + lane < rows && is_listed(g, row0 + base + lane));
#pragma unroll 4
        for (int32_t j = 0; j < 32; j++) {
            if (base + j >= rows || !inside) continue;
            const bool has = some >> j & 1;
            const float sum = sums[(base + j) * WIDE];
            const int64_t at = (int64_t)(row0 + base + j) * g.out_ld + first + lane;
            if (!AFTER) ((float *)g.out)[at] = has ? sum : -0.f;
            else if (has) {
                const uint16_t y = __ldcg((const uint16_t *)g.out + at);
                ((T *)g.out)[at] = to_act<T>(to_f32(*(const T *)&y) + sum);
            }
        }
    }
}

/* AFTER: to results in out, which are stored without; else out is for the product to add. */
template <typename T, bool AFTER> static __global__ void __launch_bounds__(THREADS, 1) outliers_kernel(const outlier_args g) {
    extern __shared__ uint4 memory[];
    uint32_t *const tile = (uint32_t *)memory;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, steps = (g.pitch + STEP - 1) / STEP;
    uint2 *const near = (uint2 *)(tile + g.widest * FOURS) + warp * 32;
    float *const sums = (float *)(tile + g.widest * FOURS + WARPS * 64) + lane;
    let_next_start();
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns);
    if (found <= RV_CUDA_INT8_BESIDE || !__ldcg(g.n_columns + 1)) return;
    auto end_of = [&](int32_t slice) { return min(slice_start(steps, slice + g.together) * STEP, g.pitch); };
#pragma unroll 1
    for (int32_t first = (int32_t)blockIdx.x * WIDE; first < g.w_rows; first += (int32_t)gridDim.x * WIDE) {
        const float scale = first + lane < g.w_rows ? __ldg(g.w_scale + first + lane) : 0.f;
#pragma unroll 1
        for (int32_t row0 = 0; row0 < g.n; row0 += g.at_once) {
            const int32_t rows = min(g.at_once, g.n - row0), from_row = rows * warp / WARPS, mine = rows * (warp + 1) / WARPS - from_row;
            float *const my_sums = sums + from_row * WIDE;
            __syncthreads();             /* rows of before may have been other warps'           */
            for (int32_t r = 0; r < mine; r++) my_sums[r * WIDE] = 0;
#pragma unroll 1
            for (int32_t slice = 0; slice < SLICES; slice += g.together) {
                const int32_t from = slice_start(steps, slice) * STEP;
                row_lists<T> lists;
                lists.ask(g, row0 + from_row, mine, slice, found);
                __syncthreads();         /* all have read the slice before                      */
                bring(g, first, from, end_of(slice), tile);
                __syncthreads();
                if (slice + g.together < SLICES) expect(g, first, slice_start(steps, slice + g.together) * STEP, end_of(slice + g.together));
                add_slices<T>(g, tile, near, my_sums, lists, row0 + from_row, mine, slice, from, found, scale);
            }
            leave<T, AFTER>(g, my_sums, row0 + from_row, mine, first);
        }
    }
}

/* ---- launching ---- */

template <typename T> static cudaError_t launch(outlier_args g, bool after, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = after ? outliers_kernel<T, true> : outliers_kernel<T, false>;
    const int32_t steps = (g.pitch + STEP - 1) / STEP, blocks = (g.w_rows + WIDE - 1) / WIDE;
    for (g.together = SLICES; g.together > 1 && (steps * g.together + SLICES - 1) / SLICES * STEP * WIDE > TILE_BYTES; g.together /= 2) {}
    g.widest = (steps * g.together + SLICES - 1) / SLICES * STEP;
    const int32_t fixed = g.widest * WIDE + WARPS * 256, room = (MOST_BYTES - fixed) / (WIDE * (int32_t)sizeof(float));
    if (room <= 0) return cudaErrorInvalidValue;
    g.at_once = g.n < room ? g.n : room;
    const int32_t bytes = fixed + g.at_once * WIDE * (int32_t)sizeof(float), most = multiprocessors;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return e ? e : launch_kernel(kernel, dim3((unsigned)(blocks < most ? blocks : most)), THREADS, (size_t)bytes, overlap, stream, g);
}

bool rv_cuda_int8_before(const rv_int8 *q) { return q->p.how != rv_few::RV_FEW_STORE || q->p.out.type == RV_F32; }

cudaError_t rv_cuda_outliers90(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool before = rv_cuda_int8_before(q), by_call = q->rules.by_call && q->call.rows > 1;
    const outlier_args g = { (const int8_row *)room->rows, room->columns, room->list, room->starts, room->column_starts, room->n_columns, room->h ? room->h : p->x.data,
                             (const int8_t *)p->w, q->w_scale, before ? (void *)room->more : p->out.data, room->h ? q->pitch : p->x.ld,
                             before ? (int64_t)p->rows : p->out.ld, p->x.rows, p->rows, q->pitch, rv_cuda_int8_listed(q->pitch), 0, 0, 0, by_call ? 0.f : q->rules.threshold, by_call };
    return p->act == RV_BF16 ? launch<__nv_bfloat16>(g, !before, p->multiprocessors, overlap, stream) : launch<__half>(g, !before, p->multiprocessors, overlap, stream);
}

RV_CUDA_CLAMPED(outliers90)
