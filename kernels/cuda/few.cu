/* few.cu - products with 1 to 64 rows, at the speed of the memory that holds the weights.
 *
 * The one idea: weights are the tensor core's 16-row operand and the activations' rows its n8 columns, both read in
 * 16-byte pieces of the very same pattern.  Because both operands take their k from the same places, which k a
 * register stands for does not matter: no shuffle and no special weight layout.
 *
 * A block owns tiles of output rows, one after the other; its 8 warps share the depth
 * (cols) in 8 fixed slices, whose sums are added in order.  That order depends on cols alone, so a row's result never
 * depends on how many rows are computed, nor on their neighbours.
 *
 * Every warp streams its weights through a ring of its own in shared memory, across tiles.  Of up to 32 rows a block takes less
 * than half a multiprocessor, if activations do not need the rest, so the next launch's blocks come in beside it and fill their rings (weights never
 * depend on the launch before): what is on its way then covers the end of this launch and the start of that one.
 * Where blocks come in is the hardware's choice, two on one multiprocessor and none on another: so after its first
 * tile a block takes whichever is next.
 *
 * Activations that do not lie in shared memory come from the L2 cache, which takes longer than a step.  Where that shows (by_ring) a block has a whole multiprocessor's
 * room, and they come through the ring, beside the weights that they are multiplied with.
 */
#include "kernels/cuda/few.cuh"

/* ---- a warp's weights, on their way ---- */

/* Where rows of activations come from: memory, a step before they are used; shared memory, to which they are normed or copied first; or through the ring, beside the weights. */
enum source { ASKED, WHOLE, RING };

/* The place up to which a warp has asked for weights: tile after tile, in each the steps of its slice.  X: rows of activations that come with them. */
template <typename T, int MT, int X> struct weight_stream {
    enum { ROWS = MT * TILE, X_AT = ROWS * DEPTH / 8, STAGE = X_AT + X * DEPTH / 8 /* uint4 */ };
    const args &a;
    const int32_t from, to, lane;
    const tile_queue &tiles;
    int32_t tile, step, count;           /* count: its tiles so far */
    const char *next;                    /* of this lane, in the tile's first 4 rows */
    uint4 *ring;
    uint64_t policy;

    __device__ __forceinline__ weight_stream(const args &g, const tile_queue &queue, uint4 *memory, int32_t warp)
        : a(g), from(slice(g, warp)), to(slice(g, warp + 1)), lane((int32_t)threadIdx.x % 32), tiles(queue), tile((int32_t)blockIdx.x), step(from), count(0),
          ring(memory + warp * g.stages * STAGE), policy(read_once()) {
        next = start();
    }
    static __device__ __forceinline__ int32_t slice(const args &g, int32_t warp) {
        return (g.cols + DEPTH - 1) / DEPTH * warp / WARPS;
    }
    __device__ __forceinline__ const char *start() const {
        return (const char *)a.w + ((int64_t)(tile * ROWS + lane / 8) * a.cols + from * DEPTH + lane % 8 * 8) * (int64_t)sizeof(T);
    }

    /* Starts the copies of a step's activations. */
    __device__ __forceinline__ void fetch_x(int32_t stage, int32_t of_step) {
        const int32_t c = lane % 8, r = lane / 8, k = of_step * DEPTH + c * 8;
        const uint4 *const lines = ring + stage * STAGE + X_AT + r * 8;
        const T *x = (const T *)a.x + r * a.x_ld + k;
#pragma unroll
        for (int32_t i = 0; i < X / 4; i++, x += 4 * a.x_ld) {
            const bool there = r + i * 4 < a.n && k < a.cols;
            copy16(shared_address(lines + i * 32 + w_column(r, c)), there ? x : (const T *)a.x, there);
        }
    }
    /* Starts the copies of the next step into a stage; a group even when there is none.  The first ones are asked for before there are activations. */
    template <bool FIRST> __device__ __forceinline__ void fetch(int32_t stage) {
        if (X && !FIRST && tile < a.tiles && from < to) fetch_x(stage, step);
        if (tile < a.tiles && from < to) {
            const int32_t c = lane % 8, r = lane / 8, rows = step * DEPTH + c * 8 < a.cols ? a.rows - tile * ROWS - r : 0;
            const int64_t four_rows = (int64_t)a.cols * (4 * (int64_t)sizeof(T));
            const uint32_t at = shared_address(ring + stage * STAGE + r * 8 + w_column(r, c));
            const char *w = next;
#pragma unroll
            for (int32_t i = 0; i < ROWS / 4; i++, w += four_rows)
                copy16_once(at + (uint32_t)i * 512, i * 4 < rows ? (const void *)w : a.w, i * 4 < rows, policy);
            next += DEPTH * sizeof(T);
            if (++step == to) {
                step = from;
                tile = a.turn ? tiles.of[++count % 4] : tile + (int32_t)gridDim.x;
                next = start();
            }
        }
        copies_commit();
    }
};

/* ---- the kernel ---- */

/* N8: groups of 8 activation rows.  MT: a tile's 16-row operands.  FROM: where activations come from. */
template <typename T, typename O, int HOW, int N8, int MT, source FROM>
static __global__ void __launch_bounds__(THREADS, N8 <= 4 && FROM != RING ? BLOCKS_AT_ONCE : 1) few_kernel(args a) {
    extern __shared__ uint4 memory[];
    let_next_start();
    constexpr bool SHARED = FROM == WHOLE;
    typedef weight_stream<T, MT, FROM == RING ? N8 * 8 : 0> weights;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    sums_room<MT> *sums = (sums_room<MT> *)memory;
    uint4 *ring = memory + 2 * sizeof(sums_room<MT>) / 16, *shared_x = ring + a.stages * WARPS * weights::STAGE;
    tile_queue &tiles = *(tile_queue *)(shared_x + (SHARED ? a.n * a.cols / 8 : 0));
    weights w(a, tiles, ring, warp);
#pragma unroll 1
    for (int32_t i = 0; i < a.stages; i++) w.template fetch<true>(i);
    int32_t taken = 0;
    if (tiles.takes()) {
        tiles.of[0] = (int32_t)blockIdx.x;
        tiles.of[1] = tiles.take(a, 1);
    }

    if (!SHARED) {
        wait_for_previous();
        __syncthreads();
        if (FROM == RING)                /* of the steps whose weights have been asked for      */
#pragma unroll 1
            for (int32_t i = 0, step = w.from; i < a.stages; i++) {
                if (w.from < w.to) w.fetch_x(i, step);
                if (++step >= w.to) step = w.from;
                copies_commit();
            }
    } else if (a.norm) norm_rows<T>(a, (T *)shared_x, &sums->of[0][0][0]);
    else share_rows<T>(a, shared_x);
    if (tiles.takes()) taken = tiles.take(a, 2);       /* not while waiting: whoever comes in first would hoard tiles */
    const int64_t x_ld = SHARED ? a.cols : a.x_ld;
    const T *x = (SHARED ? (const T *)shared_x : (const T *)a.x) + g * x_ld + t * 8;

    uint4 b[2][N8];
    auto load_ring = [&](int32_t c, int32_t stage) {
#pragma unroll
        for (int32_t j = 0; j < N8; j++) b[c][j] = w.ring[stage * w.STAGE + w.X_AT + (j * 8 + g) * 8 + w_column(g, c * 4 + t)];
    };
    auto load_x = [&](int32_t step) {    /* activations of one step; from global memory a step ahead */
#pragma unroll
        for (int32_t c = 0; c < 2; c++) {
            int32_t k = step * DEPTH + c * 32;
            bool in = step < w.to && k + t * 8 < a.cols;
#pragma unroll
            for (int32_t j = 0; j < N8; j++) {
                b[c][j] = make_uint4(0, 0, 0, 0);
                if (in && j * 8 + g < a.n) b[c][j] = *(const uint4 *)(x + j * 8 * x_ld + k);
            }
        }
    };
    int32_t stage = 0, turn = 0;
    for (int32_t i = 0, tile = (int32_t)blockIdx.x; tile < a.tiles; tile = tiles.of[++i % 4]) {
        float acc[N8][MT][4] = {};
        if (FROM == ASKED) load_x(w.from);
        for (int32_t step = w.from; step < w.to; step++) {
            wait_stage(a.stages);
            if (SHARED) load_x(step);
#pragma unroll
            for (int32_t c = 0; c < 2; c++) {
                uint4 p[MT][2];
#pragma unroll
                for (int32_t m = 0; m < MT; m++)
#pragma unroll
                    for (int32_t h = 0; h < 2; h++) p[m][h] = w.ring[stage * w.STAGE + (m * TILE + h * 8 + g) * 8 + w_column(g, c * 4 + t)];
                if (FROM == RING) load_ring(c, stage);
                if (c == 1) {
                    __syncwarp();        /* every lane has read the stage: fill it again */
                    w.template fetch<false>(stage);
                    if (++stage == a.stages) stage = 0;
                }
#pragma unroll
                for (int32_t j = 0; j < N8; j++)
#pragma unroll
                    for (int32_t m = 0; m < MT; m++) {
                        mma(acc[j][m], p[m][0].x, p[m][1].x, p[m][0].y, p[m][1].y, b[c][j].x, b[c][j].y, T());
                        mma(acc[j][m], p[m][0].z, p[m][1].z, p[m][0].w, p[m][1].w, b[c][j].z, b[c][j].w, T());
                    }
            }
            if (FROM == ASKED) load_x(step + 1);
        }
        if (tiles.takes()) tiles.of[(i + 2) % 4] = taken;
#pragma unroll
        for (int32_t j = 0; j < N8; j++, turn ^= 1)
            if (j * 8 < a.n) finish_tile<T, O, HOW, MT>(a, sums[turn], acc[j], tile, j * 8);
        if (N8 > 2 && (a.n + 7) / 8 % 2) __syncthreads();     /* the next tile begins with the room that this one ended with */
        if (tiles.takes()) taken = tiles.take(a, i + 3);
    }
    tiles.done(a);
    copies_wait<0>();
}

/* ---- launching ---- */

enum { LONG = 16 };                      /* tiles a multiprocessor, from which on a product is: logits' has 60 */

template <typename T, typename O, int HOW, int N8, int MT, source FROM>
static cudaError_t launch(args a, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = few_kernel<T, O, HOW, N8, MT, FROM>;
    const int32_t stage = WARPS * weight_stream<T, MT, FROM == RING ? N8 * 8 : 0>::STAGE * 16;
    const int32_t fixed = 2 * (int32_t)sizeof(sums_room<MT>) + (int32_t)sizeof(tile_queue) + (FROM == WHOLE ? a.n * a.cols * (int32_t)sizeof(T) : 0);
    const bool half = overlap && N8 <= 4 && FROM != RING;
    int32_t room = 0;
    cudaError_t e = room_of(half, &room);
    a.tiles = (a.rows + MT * TILE - 1) / (MT * TILE);
    a.stages = (room - fixed) / stage < MOST_STAGES ? (room - fixed) / stage : MOST_STAGES;
    if (!e && a.stages < LEAST_STAGES) {
        if constexpr (FROM == RING) return launch<T, O, HOW, N8, MT, ASKED>(a, multiprocessors, overlap, stream);
        e = cudaErrorInvalidValue;
    }
    /* A warp asks for weights `stages` steps ahead, and the tile after next is not known where tiles are taken. */
    const int32_t slice = (a.cols + DEPTH - 1) / DEPTH / WARPS;
    const int32_t blocks = blocks_of(a.tiles, a.n, half, multiprocessors);
    if (slice <= LEAST_STAGES || a.tiles <= blocks) a.turn = NULL;
    else if (a.turn && a.stages >= slice) a.stages = slice - 1;
    int32_t bytes = fixed + a.stages * stage;
    /* Of one or two rows a long product has nothing of blocks that wait beside others, and no two of its own may be on one multiprocessor while another has none.  (Logits in int8 and 4 bits have
     * kernels of their own, in which this has not been measured.) */
    if (half && blocks <= multiprocessors && a.tiles >= LONG * multiprocessors && bytes <= room) bytes = room + 128;
    if (!e) e = allow_all(kernel);
    return e ? e : launch_kernel(kernel, dim3((unsigned)blocks), THREADS, (size_t)bytes, overlap, stream, a);
}

template <typename T, typename O, int HOW, int N8> static cudaError_t launch_from(const args &a, bool ring, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    return ring ? launch<T, O, HOW, N8, 2, RING>(a, multiprocessors, overlap, stream) : launch<T, O, HOW, N8, 2, ASKED>(a, multiprocessors, overlap, stream);
}

template <typename T, typename O, int HOW> static cudaError_t launch_rows(const args &a, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    if (a.norm || (a.n <= 8 && (int64_t)a.n * a.cols * (int64_t)sizeof(T) <= SHARED_X))
        return launch<T, O, HOW, 1, 1, WHOLE>(a, multiprocessors, overlap, stream);
    const bool ring = by_ring(a.n, (a.rows + 2 * TILE - 1) / (2 * TILE), multiprocessors);
    if (a.n <= 8) return launch_from<T, O, HOW, 1>(a, ring, multiprocessors, overlap, stream);
    if (a.n <= 16) return launch_from<T, O, HOW, 2>(a, ring, multiprocessors, overlap, stream);
    if (a.n <= 32) return launch_from<T, O, HOW, 4>(a, ring, multiprocessors, overlap, stream);
    return launch_from<T, O, HOW, 8>(a, ring, multiprocessors, overlap, stream);
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args &a, bool overlap, cudaStream_t stream) {
    const int32_t m = p->multiprocessors;
    return by_results<T>(p, [&](auto kind) { return launch_rows<T, typename decltype(kind)::O, decltype(kind)::HOW>(a, m, overlap, stream); });
}

cudaError_t rv_cuda_few(const rv_few *p, bool overlap, cudaStream_t stream) {
    args a = { p->x.data, p->w, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, p->turn };
    if (p->norm && (p->x.rows > RV_CUDA_NORM_ROWS || p->cols > RV_CUDA_NORM_MOST)) return cudaErrorInvalidValue;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, a, overlap, stream) : launch_how<__half>(p, a, overlap, stream);
}

RV_CUDA_CLAMPED(few)
