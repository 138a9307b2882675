/* few4.cu - products with 1 to 64 rows and weights of 4 bits.
 *
 * The one idea: few.cu's, with records instead of rows: a warp's slice of a tile is a run of records, the next one on its way
 * to registers while few4.cuh makes operands of the last.  Shared memory's speed bounds it: a record takes 187 clocks of
 * it, of which the table's entries are 128, so nothing else goes through it that need not.
 */
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/few4.cuh"

struct args4 { args a; rv_four q; };

enum { MAPS = RV_WEIGHT_PARTS * 256 * (int)sizeof(float) };

/* Rows of activations in the gaps of the table: a pointer to E, as norm_rows and share_rows see it. */
template <typename E> struct gap_rows {
    char *table;
    int32_t first;
    __device__ __forceinline__ E &operator[](int32_t i) const {
        enum { EACH = GAP / (int)sizeof(E) };
        i += first;
        return *(E *)(table + GAP + i / EACH * PAIR_STRIDE + i % EACH * (int32_t)sizeof(E));
    }
    __device__ __forceinline__ void operator+=(int32_t n) { first += n; }
};

/* ---- a warp's records, on their way ---- */

/* The next record is on its way, in registers, while one is worked on: there are enough warps. */
struct record_stream {
    const args4 &g;
    const tile_queue &tiles;
    const int32_t from, to, lane;
    int32_t tile, step, count;           /* count: its tiles so far */
    const char *next;
    const float *scales[2];              /* nested: of this lane's two rows, and the number of their first block */
    int32_t block[2];
    raw4 raw;
    uint64_t policy;

    __device__ __forceinline__ record_stream(const args4 &args, const tile_queue &queue, int32_t warp)
        : g(args), tiles(queue), from(slice(args, warp)), to(slice(args, warp + 1)), lane((int32_t)threadIdx.x % 32), tile((int32_t)blockIdx.x), step(from),
          count(0), policy(read_once()) {
        start();
    }
    static __device__ __forceinline__ int32_t slice(const args4 &g, int32_t warp) { return g.q.steps * warp / WARPS; }

    __device__ __forceinline__ void start() {
        if (tile >= g.a.tiles) return;
        next = record_of(g.q, tile, from);
        if (!g.q.nested) return;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const int32_t row = tile * TILE + h * 8 + lane / 4;
            const part_row at = part_row_of(g.q, row < g.q.rows ? row : g.q.rows - 1);
            scales[h] = scales_of(g.q, at.part);
            block[h] = at.row * g.q.blocks;
        }
    }

    /* Loads the next record. The next tile is looked up when it is needed, in the last step of the one that is worked on. */
    __device__ __forceinline__ void fetch() {
        if (tile >= g.a.tiles || from == to) return;
        if (step == to) {
            step = from;
            tile = g.a.turn ? tiles.of[++count % 4] : tile + (int32_t)gridDim.x;
            start();
            if (tile >= g.a.tiles) return;
        }
        raw.load(next, policy);
        if (g.q.nested) {
            const int32_t b = step * RV_FOUR_BLOCKS + lane % 4, in_row = b < g.q.blocks ? b : g.q.blocks - 1;
            raw.nested = *(const uchar2 *)(next + RV_FOUR_CODES + lane * 2);
#pragma unroll
            for (int32_t h = 0; h < 2; h++) raw.absmax[h] = __ldg(scales[h] + (uint32_t)(block[h] + in_row) / RV_NESTED_BLOCK);
        } else {
            const float2 a = *(const float2 *)(next + RV_FOUR_CODES + lane * 8);
            raw.absmax[0] = a.x, raw.absmax[1] = a.y;
        }
        next += g.q.record;
        step++;
    }

    /* What has come. */
    __device__ __forceinline__ record4 take(const float *const (&map)[2], const float (&offset)[2]) const {
        record4 r;
#pragma unroll
        for (int32_t p = 0; p < 4; p++) r.codes[p] = raw.codes[p];
        r.absmax[0] = g.q.nested ? nested_absmax(map[0][raw.nested.x], raw.absmax[0], offset[0]) : raw.absmax[0];
        r.absmax[1] = g.q.nested ? nested_absmax(map[1][raw.nested.y], raw.absmax[1], offset[1]) : raw.absmax[1];
        return r;
    }
};

/* The nested maps of this lane's two rows and their offsets, in a tile. */
struct tile_maps {
    const float *map[2];
    float offset[2];
    __device__ __forceinline__ void look_up(const rv_four &q, const float *maps, int32_t tile) {
        if (!q.nested) return;
        const int32_t g = (int32_t)threadIdx.x % 32 / 4;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const int32_t row = tile * TILE + h * 8 + g, part = part_row_of(q, row < q.rows ? row : q.rows - 1).part;
            map[h] = maps + part * 256;
            offset[h] = head_of(q).offset[part];
        }
    }
};

/* ---- the kernel ---- */

/* N8: groups of 8 activation rows.  SHARED: x is normed or copied into shared memory first. */
template <typename T, typename O, int HOW, int N8, bool SHARED>
static __global__ void __launch_bounds__(THREADS, N8 <= 4 ? 2 : 1) few4_kernel(const __grid_constant__ args4 of) {
    enum { AHEAD = N8 <= 2 };            /* activations are loaded before the eight weights that go before theirs are decoded */
    extern __shared__ uint4 memory[];
    let_next_start();
    const args &a = of.a;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    char *table = (char *)memory;
    float *maps = (float *)(table + PAIR_TABLE);
    sums_room<1> *sums = (sums_room<1> *)(table + PAIR_TABLE + MAPS);
    tile_queue &tiles = *(tile_queue *)(sums + 2);
    record_stream w(of, tiles, warp);
    w.fetch();
    int32_t taken = 0;
    if (tiles.takes()) {
        tiles.of[0] = (int32_t)blockIdx.x;
        tiles.of[1] = tiles.take(a, 1);
    }
    fill_pairs(table, head_of(of.q).map);
    if (of.q.nested)
        for (int32_t i = 0; i < of.q.n_parts; i++) maps[i * 256 + (int32_t)threadIdx.x] = head_of(of.q).nested_map[i][threadIdx.x];

    if (!SHARED) {
        wait_for_previous();
        __syncthreads();
    } else if (a.norm) norm_rows<T>(a, gap_rows<T>{ table, 0 }, &sums->of[0][0][0]);
    else share_rows<T>(a, gap_rows<uint4>{ table, 0 });
    if (tiles.takes()) taken = tiles.take(a, 2);       /* not while waiting: whoever comes in first would hoard tiles */

    const char *shared_x = table + GAP + g * of.q.blocks * PAIR_STRIDE + t * 32;
    const T *far_x = (const T *)a.x + g * a.x_ld + t * 16;
    const uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8;
    auto load_x = [&](uint4 (&x)[N8], int32_t block, int32_t u) {
#pragma unroll
        for (int32_t j = 0; j < N8; j++) {
            x[j] = make_uint4(0, 0, 0, 0);
            if (block >= of.q.blocks || j * 8 + g >= a.n) continue;
            x[j] = SHARED ? *(const uint4 *)(shared_x + block * PAIR_STRIDE + u * 16) : *(const uint4 *)(far_x + j * 8 * a.x_ld + block * RV_BLOCK4 + u * 8);
        }
    };
    int32_t turn = 0;
    for (int32_t i = 0, tile = (int32_t)blockIdx.x; tile < a.tiles; tile = tiles.of[++i % 4]) {
        float acc[N8][1][4] = {};
        tile_maps m;
        m.look_up(of.q, maps, tile);
        for (int32_t step = w.from; step < w.to; step++) {
            uint4 x[AHEAD + 1][N8];
            if (AHEAD) load_x(x[0], step * RV_FOUR_BLOCKS, 0);
            const record4 r = w.take(m.map, m.offset);
            w.fetch();
#pragma unroll
            for (int32_t b = 0; b < RV_FOUR_BLOCKS; b++) {
                const float above = __shfl_sync(~0u, r.absmax[0], (lane & ~3) | b), below = __shfl_sync(~0u, r.absmax[1], (lane & ~3) | b);
#pragma unroll
                for (int32_t u = 0; u < 2; u++) {
                    if (!AHEAD) load_x(x[0], step * RV_FOUR_BLOCKS + b, u);
                    else if (b * 2 + u < 7) load_x(x[(u + 1) % 2 * AHEAD], step * RV_FOUR_BLOCKS + b + u, (u + 1) % 2);
                    r.multiply<T, N8>(acc, table, copy, b, u, above, below, x[u * AHEAD]);
                }
            }
        }
        if (tiles.takes()) tiles.of[(i + 2) % 4] = taken;
#pragma unroll
        for (int32_t j = 0; j < N8; j++, turn ^= 1)
            if (j * 8 < a.n) finish_tile<T, O, HOW, 1>(a, sums[turn], acc[j], tile, j * 8);
        if (N8 > 2 && (a.n + 7) / 8 % 2) __syncthreads();     /* the next tile begins with the room that this one ended with */
        if (tiles.takes()) taken = tiles.take(a, i + 3);
    }
    tiles.done(a);
}

/* ---- launching ---- */

template <typename T, typename O, int HOW, int N8, bool SHARED>
static cudaError_t launch(args4 of, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = few4_kernel<T, O, HOW, N8, SHARED>;
    args &a = of.a;
    const int32_t bytes = PAIR_TABLE + MAPS + 2 * (int32_t)sizeof(sums_room<1>) + (int32_t)sizeof(tile_queue), blocks = (N8 <= 4 ? 2 : 1) * multiprocessors;
    a.tiles = (a.rows + TILE - 1) / TILE;
    if (a.tiles <= blocks) a.turn = NULL;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    dim3 grid((unsigned)(a.tiles < blocks ? a.tiles : blocks));
    return e ? e : launch_kernel(kernel, grid, THREADS, (size_t)bytes, overlap, stream, of);
}

template <typename T, typename O, int HOW> static cudaError_t launch_rows(const args4 &of, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    const int32_t n = of.a.n;
    if (of.a.norm || (n <= 8 && n * of.a.cols <= 256 * RV_BLOCK4)) return launch<T, O, HOW, 1, true>(of, multiprocessors, overlap, stream);
    if (n <= 8) return launch<T, O, HOW, 1, false>(of, multiprocessors, overlap, stream);
    if (n <= 16) return launch<T, O, HOW, 2, false>(of, multiprocessors, overlap, stream);
    if (n <= 32) return launch<T, O, HOW, 4, false>(of, multiprocessors, overlap, stream);
    return launch<T, O, HOW, 8, false>(of, multiprocessors, overlap, stream);
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args4 &of, bool overlap, cudaStream_t stream) {
    const int32_t m = p->multiprocessors;
    bool f32 = p->out.type == RV_F32;
    switch (p->how) {
    case rv_few::RV_FEW_STORE:
        return f32 ? launch_rows<T, float, rv_few::RV_FEW_STORE>(of, m, overlap, stream) : launch_rows<T, T, rv_few::RV_FEW_STORE>(of, m, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch_rows<T, T, rv_few::RV_FEW_GELU>(of, m, overlap, stream);
    case rv_few::RV_FEW_SWIGLU: return launch_rows<T, T, rv_few::RV_FEW_SWIGLU>(of, m, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch_rows<T, float, rv_few::RV_FEW_ADD>(of, m, overlap, stream);
    }
    return cudaErrorInvalidValue;
}

cudaError_t rv_cuda_few4(const rv_few *p, const rv_four *q, bool overlap, cudaStream_t stream) {
    args4 of = { { p->x.data, NULL, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, p->turn },
                 *q };
    if (p->norm && (p->x.rows > RV_CUDA_NORM_ROWS || p->cols > RV_CUDA_NORM_MOST)) return cudaErrorInvalidValue;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, of, overlap, stream) : launch_how<__half>(p, of, overlap, stream);
}

RV_CUDA_CLAMPED(few4)
