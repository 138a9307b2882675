/* few8_90.cu - int8 products with 3 to 64 rows on Hopper: few8.cu's results, faster.
 *
 * The one idea: a block has so many rows of weights that all multiprocessors have one tile, or two, of equal size, and all columns of them.  Activations are the 64 rows of
 * a warpgroup's product, whatever their number (it is not what takes time), and weights its N columns.  few8_90.cuh has the rest: who brings, who adds what outliers
 * are, and what becomes of sums.
 */
#include "kernels/cuda/few8_90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* All who read stages have read the last one. */
template <class S> static __device__ __forceinline__ void all_read() { group_sync(2, GROUP + S::HELPERS * 32); }

/* A warpgroup: the integer sums of all of the block's tiles. */
template <class S> static __device__ __forceinline__ void multiply_tiles(const args8_90 &of, uint32_t ring, beside8 &room, int32_t *results) {
    const int32_t lane = (int32_t)threadIdx.x % 32, row = (int32_t)threadIdx.x / 32 * 16 + lane / 4, count = stages_of<S>(of.g.pitch), stages = of.g.a.stages;
    const uint32_t w_at = (uint32_t)(S::LINES * of.box * LINE);
    place8 p;
    uint32_t turn = 0;
    for (int32_t tile = (int32_t)blockIdx.x; tile < of.g.a.tiles; tile += (int32_t)gridDim.x, turn ^= 1) {
        int32_t sums[S::N / 2], before = -1;
#pragma unroll
        for (int32_t j = 0; j < S::N / 2; j++) sums[j] = 0;
#pragma unroll 1
        for (int32_t i = 0; i < count; i++) {
            const uint32_t x = ring + (uint32_t)(p.at * of.stage_bytes), w = x + w_at;
            barrier_wait(&room.full[p.at], p.parity);
            product_begin();
#pragma unroll
            for (int32_t l = 0; l < S::LINES; l++)
                line_product(sums, operand_at(x + (uint32_t)(l * of.box * LINE)), operand_at(w + (uint32_t)(l * S::WEIGHT_BYTES)), 1, int8_t(), line_of<S::N>());
            product_commit();
            if (before >= 0) {
                product_wait<1>();
                warp_arrive(&room.empty[before]);
            }
            before = p.at;
            p.next(stages);
        }
        product_wait<0>();
#pragma unroll
        for (int32_t j = 0; j < S::N / 2; j++) asm volatile("" : "+r"(sums[j])::"memory");      /* read no sum before its wait */
        warp_arrive(&room.empty[before]);
        if (of.over_ring) all_read<S>();
        else barrier_wait(&room.taken, turn ^ 1);
#pragma unroll
        for (int32_t h = 0; h < 2; h++)
            if (row + h * 8 < of.g.a.n)
#pragma unroll
                for (int32_t j = 0; j < S::N / 8; j++)
                    *(int2 *)(results + (row + h * 8) * S::RESULT_PITCH + j * 8 + lane % 4 * 2) = make_int2(sums[j * 4 + h * 2], sums[j * 4 + h * 2 + 1]);
        warp_arrive(&room.results);
    }
}

/* The helping warps: outliers of all of the block's tiles, and results. */
template <typename T, typename O, int HOW, class S>
static __device__ __forceinline__ void finish_tiles(const args8_90 &of, const uint8_t *ring, beside8 &room, const int32_t *results, float *sums) {
    const int32_t me = (int32_t)threadIdx.x - GROUP, warp = me / 32, lane = me % 32;
    const args8 &g = of.g;
    outlier_warp<T, S> outliers(room, warp);
    outliers.ask(g, (int32_t)blockIdx.x * S::N);
    wait_for_previous();
    if (me < g.a.n) *(int2 *)(room.rows + me) = __ldcg((const int2 *)g.rows + me);
    outliers.begin(g);
    if (lane == 0) room.has[warp] = outliers.here;
    /* The warp's first row of weights in a stage's lines. */
    const uint8_t *const lines = ring + S::LINES * of.box * LINE + (S::SLICED ? outliers.part % 2 * S::WEIGHT_BYTES : outliers.part * 32 * LINE);
    const int32_t count = stages_of<S>(g.pitch), steps = steps_of(g.pitch), stages = g.a.stages, first = S::SLICED ? outliers.part / 2 : 0, apart = S::SLICED ? (int)PAIRS : 1;
    place8 begun;
    uint32_t turn = 0;
    for (int32_t tile = (int32_t)blockIdx.x; tile < g.a.tiles; tile += (int32_t)gridDim.x, turn ^= 1) {
        place8 p = begun;
        outliers.start_tile(tile != (int32_t)blockIdx.x);
        p.skip(first, stages);
#pragma unroll 1
        for (int32_t i = first; i < count; i += apart) {
            /* Of a slice that is over, the next one's: nothing of that is due. */
            const int32_t line = S::SLICED ? slice_start(steps, outliers.part) + i / PAIRS : i, end = (S::SLICED ? min(line + 1, slice_start(steps, outliers.part + 1)) : line + 1) * LINE;
            barrier_wait(&room.full[p.at], p.parity);
            if (outliers.here) {
                outliers.line(lines + p.at * of.stage_bytes, end);
                if (!S::SLICED) outliers.end_of_line(steps, line);
            }
            warp_arrive(&room.empty[p.at]);
            p.skip(apart, stages);
        }
        begun.skip(count, stages);
        if (of.over_ring) all_read<S>();
        outliers.leave(sums, g.a.n);
        const bool last = tile + (int32_t)gridDim.x >= g.a.tiles;
        if (!last) outliers.ask(g, (tile + (int32_t)gridDim.x) * S::N), outliers.row.ask();
        finish_tile90<T, O, HOW, S>(of, room, results, sums, tile * S::N, me, [&] {
            barrier_wait(&room.results, turn);
            group_sync(1, S::HELPERS * 32);
        });
        if (last) break;
        group_sync(1, S::HELPERS * 32);
        warp_arrive(&room.taken);
    }
}
#endif

template <typename T, typename O, int HOW, class S>
static __global__ void __launch_bounds__(S::BLOCK, 1) few8_90_kernel(const __grid_constant__ CUtensorMap map_w, const __grid_constant__ CUtensorMap map_x, const __grid_constant__ args8_90 of) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t bytes[];
    let_next_start();
    uint8_t *const ring = bytes + (1024 - shared_address(bytes) % 1024) % 1024;
    beside8 &room = *(beside8 *)(ring + of.beside_at);
    int32_t *const results = (int32_t *)(ring + of.results_at);
    if (threadIdx.x == 0) {
        for (int32_t i = 0; i < of.g.a.stages; i++) {
            barrier_open(&room.full[i], 1);
            barrier_open(&room.empty[i], (uint32_t)(S::READERS * WARP_ARRIVALS));
        }
        barrier_open(&room.results, MULTIPLIER_WARPS * WARP_ARRIVALS);
        barrier_open(&room.taken, (uint32_t)(S::HELPERS * WARP_ARRIVALS));
        barriers_opened();
    }
    __syncthreads();
    const int32_t bringer = (int32_t)threadIdx.x / 32 - MULTIPLIER_WARPS - S::HELPERS;
    if (threadIdx.x < GROUP) {
        give_registers<S::OF_MULTIPLIER>();
        multiply_tiles<S>(of, shared_address(ring), room, results);
    } else if (bringer < 0) {
        take_registers<S::OF_HELPER>();
        finish_tiles<T, O, HOW, S>(of, ring, room, results, (float *)(ring + of.sums_at));
    } else {
        give_registers<S::OF_BRINGER>();
        if (bringer >= S::BRINGERS) return;
        const bringer8<S> b(of, &map_w, &map_x, shared_address(ring), room, bringer);
        b.early();
        wait_for_previous();
        b.all();
    }
#endif
}

/* ---- launching ---- */

template <typename T, typename O, int HOW, class S> static cudaError_t launch(args8_90 of, const rv_few *p, bool overlap, cudaStream_t stream) {
    args8 &g = of.g;
    const int32_t n = g.a.n;
    of.box = (n + 7) / 8 * 8;
    of.stage_bytes = S::LINES * (of.box * LINE + S::WEIGHT_BYTES);
    g.a.tiles = (g.a.rows + S::N - 1) / S::N;
    const int32_t blocks = g.a.tiles < p->multiprocessors ? g.a.tiles : p->multiprocessors;
    of.over_ring = blocks == g.a.tiles;
    const int32_t results = n * S::RESULT_PITCH * 4, sums = g.threshold != 0 ? S::SUM_ROOMS * n * S::SUM_PITCH * 4 : 0, rest = (int32_t)sizeof(beside8) + 1024 /* to align */;
    const int32_t stages = ((int32_t)ALL_BYTES - rest - (of.over_ring ? 0 : results + sums)) / of.stage_bytes;
    g.a.stages = (stages < MOST_RING ? stages : (int32_t)MOST_RING) / S::BRINGERS * S::BRINGERS;
    if (g.a.stages < S::LEAST_STAGES) return cudaErrorInvalidValue;
    const int32_t ring = g.a.stages * of.stage_bytes;
    of.results_at = of.over_ring ? 0 : ring;
    of.sums_at = of.results_at + results;
    of.beside_at = of.sums_at + sums > ring ? of.sums_at + sums : ring;
    CUtensorMap map_w, map_x;
    cudaError_t e = describe_boxes(&map_w, RV_I8, p->w, g.a.rows, g.pitch, g.pitch, S::N, LINE);
    if (!e) e = describe_boxes(&map_x, RV_I8, g.codes, n, g.pitch, g.pitch, of.box, LINE);
    if (!e) e = allow_all(few8_90_kernel<T, O, HOW, S>);
    return e ? e : launch_kernel(few8_90_kernel<T, O, HOW, S>, dim3((unsigned)blocks), S::BLOCK, (size_t)(of.beside_at + rest), overlap, stream, map_w, map_x, of);
}

/* What a block with the most tiles of `wide` rows of weights takes: in rows, an end counts as some. */
static int32_t cost_of(int32_t rows, int32_t wide, int32_t multiprocessors) {
    enum { END = 8 };
    const int32_t tiles = (rows + wide - 1) / wide;
    return (tiles + multiprocessors - 1) / multiprocessors * (wide + END);
}

/* Of more than 32 rows, sums and results of tiles of 48 have room where stages were; beside stages they leave four, of more than 59 none. */
static bool has_room(const rv_few *p, int32_t wide) { return wide != 48 || p->x.rows <= 32 || p->rows <= wide * p->multiprocessors; }

static int32_t width_of(const rv_few *p) {
    int32_t best = 32;
    for (int32_t wide : { 48, 112 })
        if (has_room(p, wide) && cost_of(p->rows, wide, p->multiprocessors) < cost_of(p->rows, best, p->multiprocessors)) best = wide;
    return best;
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args8_90 &of, int32_t wide, bool overlap, cudaStream_t stream) {
    return by_results<T>(p, [&](auto kind) {
        using K = decltype(kind);
        if (wide == 112) return launch<T, typename K::O, K::HOW, shape<112, 64>>(of, p, overlap, stream);
        if (p->x.rows > 32) return wide == 48 ? launch<T, typename K::O, K::HOW, shape<48, 64>>(of, p, overlap, stream) : launch<T, typename K::O, K::HOW, shape<32, 64>>(of, p, overlap, stream);
        return wide == 48 ? launch<T, typename K::O, K::HOW, shape<48, 32>>(of, p, overlap, stream) : launch<T, typename K::O, K::HOW, shape<32, 32>>(of, p, overlap, stream);
    });
}

bool rv_cuda_few8_90_takes(const rv_int8 *q) {
    const rv_few *p = &q->p;
    const int32_t size = p->out.type == RV_F32 ? 4 : 2;
    return p->x.rows > q->fused && p->x.rows <= MOST_ROWS && p->rows % (p->how == rv_few::RV_FEW_SWIGLU ? 2 * RV_CUDA_GATE_BLOCK : 8) == 0 &&
           (uintptr_t)p->w % 16 == 0 && (uintptr_t)q->w_scale % 16 == 0 && (uintptr_t)p->out.data % 16 == 0 && p->out.ld * size % 16 == 0;
}

cudaError_t rv_cuda_few8_90(const rv_int8 *q, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    args8_90 of = {};
    of.g = args8_of(q);
    const int32_t wide = q->cut.rows && has_room(p, q->cut.rows) ? q->cut.rows : width_of(p);
    cudaError_t e = rv_cuda_quantise(q, overlap, stream);
    if (e) return e;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, of, wide, overlap, stream) : launch_how<__half>(p, of, wide, overlap, stream);
}

RV_CUDA_CLAMPED(few8_90)
