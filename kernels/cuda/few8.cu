/* few8.cu - int8 products with 1 to 64 rows, at the speed of the memory that holds the codes.
 *
 * The one idea: few.cu's, with codes.  Up to a few rows every block makes the activations' codes itself while its first
 * weights are on their way; what a quantising launch would take is more than that.
 */
#include "kernels/cuda/few8.cuh"
#include "kernels/cuda/int8_held.cuh"

enum source { ASKED, WHOLE, HELD_ROWS, RING };        /* where codes come from: as few.cu's; WHOLE may make them; HELD_ROWS: the same of short rows */

static __device__ __forceinline__ uint32_t *far_list(const args8 &g, int32_t r) { return g.list + (int64_t)r * (g.pitch + RV_CUDA_INT8_CLOSE); }

/* ---- activations of up to HELD * THREADS columns ---- */

template <typename T> static __device__ __forceinline__ void share_short(const args8 &g, int8_t *codes, int8_row *rows, uint32_t *near, held_meeting &m) {
    const args &a = g.a;
    float weight[HELD];
    hold_weights<false>(a, weight);
    wait_for_previous();
#pragma unroll 1
    for (int32_t r = 0; r < a.n; r++) {
        uint32_t x[HELD / 2];
        if (a.norm) norm_held<T, false>(a, r, weight, x, m);
        else hold_row(a, r, x);
        const list_place place = { a.n <= 2 ? near + r * NEAR : NULL, far_list(g, r) };
        const int8_row row = quantise_held<T, false>(x, g.threshold, g.pitch, codes + r * g.shared_pitch, place, m, r);
        if (threadIdx.x == 0) rows[r] = row;
    }
    __syncthreads();
}

/* ---- of any number ---- */

/* x's codes and what is known of its rows into shared memory. */
template <typename T> static __device__ __forceinline__ void share_codes(const args8 &g, int8_t *codes, int8_row *rows, uint32_t *near, T *normed, float *room) {
    const args &a = g.a;
    if (a.norm) norm_rows<T>(a, normed, room);
    else wait_for_previous();
    if (g.fused) {
        const int8_limit limit = { g.threshold, NULL };
#pragma unroll 1
        for (int32_t r = 0; r < a.n; r++) {
            const T *x = a.norm ? normed + r * a.cols : (const T *)a.x + r * a.x_ld;
            auto piece = [&](int32_t p) {
                if (p * PIECE >= a.cols) return make_uint4(0, 0, 0, 0);
                return a.norm ? ((const uint4 *)x)[p] : __ldcg((const uint4 *)x + p);
            };
            auto value = [&](int32_t k) { return a.norm ? ((const uint16_t *)x)[k] : __ldcg((const uint16_t *)x + k); };
            const int8_row row = quantise_row<T>(piece, value, g.pitch, limit, codes + r * g.shared_pitch,
                                                 list_place{ a.n <= 2 ? near + r * NEAR : NULL, far_list(g, r) }, room);
            if (threadIdx.x == 0) rows[r] = row;
        }
    } else {
#pragma unroll 1
        for (int32_t r = 0; r < a.n; r++)
            for (int32_t p = (int32_t)threadIdx.x; p < g.pitch / 16; p += THREADS)
                ((uint4 *)(codes + r * g.shared_pitch))[p] = __ldcg((const uint4 *)(g.codes + (int64_t)r * g.pitch) + p);
        if ((int32_t)threadIdx.x < a.n) *(int2 *)(rows + threadIdx.x) = __ldcg((const int2 *)g.rows + threadIdx.x);
    }
    __syncthreads();
}

/* What a block keeps in shared memory beside the ring. */
template <int MT, int STAGE> struct shared8 {
    int32_t codes, rows, near, outliers, normed, queue, bytes;
    __host__ __device__ shared8(const args8 &g, source from, int32_t element) {
        const bool shared = from == WHOLE || from == HELD_ROWS;
        codes = 2 * (int32_t)sizeof(sums_room<MT>) + g.a.stages * WARPS * STAGE * 16;
        rows = codes + (shared ? g.a.n * g.shared_pitch : 0);
        near = rows + (shared ? (g.a.n + 1) / 2 * 16 : 0);
        outliers = near + (shared && g.fused && g.a.n <= 2 ? g.a.n * NEAR * 4 : 0);
        normed = outliers + (shared && g.a.n <= 2 ? 2 * 2 * WARPS * TILE * (int32_t)sizeof(float) : 0);
        queue = normed + (from == WHOLE && g.a.norm ? g.a.n * g.a.cols * element : 0);
        bytes = queue + (int32_t)sizeof(tile_queue8);
    }
};

static __device__ __forceinline__ bool any_outliers(const int8_row *rows, int32_t n) {
    int32_t all = 0;
    for (int32_t r = 0; r < n; r++) all |= rows[r].outliers;
    return all != 0;
}

/* N8: groups of 8 activation rows.  MT: a tile's 16-row operands.  FROM: where their codes come from. */
template <typename T, typename O, int HOW, int N8, int MT, source FROM>
static __global__ void __launch_bounds__(THREADS, N8 <= 4 && FROM != RING ? BLOCKS_AT_ONCE : 1) few8_kernel(const args8 g) {
    extern __shared__ uint4 memory[];
    let_next_start();
    constexpr bool SHARED = FROM == WHOLE || FROM == HELD_ROWS;
    typedef code_stream<MT, FROM == RING ? N8 * 8 : 0> weights;
    const args &a = g.a;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
    const shared8<MT, weights::STAGE> at(g, FROM, (int32_t)sizeof(T));
    sums_room<MT> *sums = (sums_room<MT> *)memory;
    uint4 *ring = memory + 2 * sizeof(sums_room<MT>) / 16;
    int8_row *rows = SHARED ? (int8_row *)((char *)memory + at.rows) : g.rows;
    tile_queue8 &tiles = *(tile_queue8 *)((char *)memory + at.queue);
    const bool takes = tile_queue::takes();
    weights w(g, tiles, ring, warp);
    const int32_t at_first = N8 > 1 && g.kept ? g.kept : a.stages;       /* stages, before it is known whether sums of outliers need the others */
#pragma unroll 1
    for (int32_t i = 0; i < at_first; i++) w.template fetch<true>(i);
    int32_t taken = 0;
    if (takes)
        for (int32_t i = 0; i <= g.ahead; i++) tiles.of[i] = tiles.take(g, i);

    uint32_t *near = (uint32_t *)((char *)memory + at.near);
    if (FROM == HELD_ROWS) share_short<T>(g, (int8_t *)memory + at.codes, rows, near, *(held_meeting *)sums);
    else if (FROM == WHOLE) share_codes<T>(g, (int8_t *)memory + at.codes, rows, near, (T *)((char *)memory + at.normed), &sums->of[0][0][0]);
    else {
        wait_for_previous();
        __syncthreads();
        if (FROM == RING)                /* of the steps whose weights have been asked for      */
#pragma unroll 1
            for (int32_t i = 0, step = w.from; i < at_first; i++) {
                if (w.from < w.to) w.fetch_x(i, step);
                if (++step >= w.to) step = w.from;
                copies_commit();
            }
    }
    outlier_merge<T, N8 * 8, weights::STAGE> merge = {};
    merged_sums merged = {};
    int32_t stages = a.stages;
    if (N8 > 1 && g.kept) {
        merge.begin(g, w.ring + g.kept * w.STAGE, warp, w.to);
        if (lane == 0) sums[1].of[warp][0][0] = merge.here;
        __syncthreads();
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) merged.warps |= (uint32_t)(sums[1].of[k][0][0] != 0) << k;
        if (seldom(merged.warps)) {
            stages = g.kept;
            merged.of = (const float *)(ring + stages * w.STAGE);
            merged.apart = a.stages * w.STAGE * 4;
        } else
#pragma unroll 1
            for (int32_t i = g.kept; i < a.stages; i++) w.template fetch<false>(i);
    }
    if (takes) taken = tiles.take(g, g.ahead + 1);     /* not while waiting: whoever comes in first would hoard tiles */
    const int32_t x_ld = SHARED ? g.shared_pitch : g.pitch;
    const int8_t *x = (SHARED ? (const int8_t *)memory + at.codes : g.codes) + lane / 4 * x_ld + lane % 4 * 16;

    /* Outliers of up to eight rows are multiplied with the codes in the ring, too.  Of more than two they take the second room for sums, whose first
     * then serves every tile. */
    const bool two = SHARED && MT == 1 && a.n <= 2, some = N8 == 1 && FROM != HELD_ROWS && a.n > 2 && !g.fused && any_outliers(rows, a.n);
    float *const of_two = (float *)((char *)memory + at.outliers), *const of_some = &sums[1].of[0][0][0];
    outlier_walk<T> walk = {};
    outlier_rows<T, MT> walks = {};
    if (two && seldom(any_outliers(rows, a.n))) {
        const int32_t r = walk.n(), all = r < a.n ? rows[r].outliers : 0;
        walk.begin(list_of(all, g.fused ? near + r * NEAR : NULL, far_list(g, r)), all, w.from, w.to);
    }
    if (seldom(some)) {
        const int32_t mine = lane % walks.ROWS, r = mine < a.n ? mine : 0, all = mine < a.n ? rows[r].outliers : 0;
        walks.begin(far_list(g, r), all, all ? __ldcg(g.starts + r * SLICES + warp) : 0, w.to);
    }
    uint4 b[2][N8];
    auto load_x = [&](int32_t step) {    /* activations of one step; from global memory a step ahead */
#pragma unroll
        for (int32_t c = 0; c < 2; c++) {
            const int32_t k = step * DEPTH8 + c * 64;
            const bool in = step < w.to && k + lane % 4 * 16 < g.pitch;
#pragma unroll
            for (int32_t j = 0; j < N8; j++) {
                b[c][j] = make_uint4(0, 0, 0, 0);
                if (in && j * 8 + lane / 4 < a.n) b[c][j] = *(const uint4 *)(x + j * 8 * x_ld + k);
            }
        }
    };
    auto load_ring = [&](int32_t stage) {
#pragma unroll
        for (int32_t c = 0; c < 2; c++)
#pragma unroll
            for (int32_t j = 0; j < N8; j++) b[c][j] = w.ring[stage * w.STAGE + w.X_AT + (j * 8 + lane / 4) * 8 + code_column(lane / 4, c * 4 + lane % 4)];
    };
    int32_t stage = 0, turn = 0;
    for (int32_t i = 0, tile = (int32_t)blockIdx.x; tile < a.tiles; tile = tiles.of[++i % tiles.OF]) {
        int32_t acc[N8][MT][4] = {};
        float scb[2] = {};
        mine8<HOW, MT>().scales(g, tile, scb);
        if (N8 > 1 && seldom(merge.here)) merge.start_tile(g, tile);
        if (two && seldom(walk.here)) walk.start_tile(g.w_scale + tile * TILE, tile * TILE + walk.row() < a.rows);
        if (seldom(some)) walks.start_tile(g.w_scale + tile * MT * TILE, tile * MT * TILE + walks.row() < a.rows);
        if (FROM == ASKED) load_x(w.from);
        for (int32_t step = w.from; step < w.to; step++) {
            wait_stage(stages);
            if (SHARED) load_x(step);
            if (FROM == RING) load_ring(stage);
            if (two && seldom(walk.here)) walk.step(w.ring + stage * w.STAGE, (step + 1) * DEPTH8, code_column);
            if (seldom(some) && walks.here) walks.step(w.ring + stage * w.STAGE, (step + 1) * DEPTH8, code_column);
            if (N8 > 1 && seldom(merge.here)) merge.step(w.ring + stage * w.STAGE, (step + 1) * DEPTH8);
            multiply_step<N8, MT>(acc, w.ring + stage * w.STAGE, b, [&] {
                w.template fetch<false>(stage);
                if (++stage == stages) stage = 0;
            });
            if (FROM == ASKED) load_x(step + 1);
        }
        if (takes) tiles.of[(i + g.ahead + 1) % tiles.OF] = taken;
        float *const more = of_two + turn * 2 * WARPS * TILE;
        if (two) more[(warp * 2 + walk.n()) * TILE + walk.row()] = walk.sum;
        if (seldom(some)) walks.leave(of_some + warp * walks.ROWS * walks.WIDE, a.n);
#pragma unroll
        for (int32_t j = 0; j < N8; j++, turn ^= !some)
            if (j * 8 < a.n) {
                if constexpr (N8 > 1) finish_tile8<T, O, HOW, MT>(g, sums[turn], acc[j], tile, j * 8, rows, scb, merged);
                else finish_tile8<T, O, HOW, MT>(g, sums[turn], acc[j], tile, j * 8, rows, scb,
                                                 two ? outlier_sums{ more, 2, TILE } : outlier_sums{ some ? of_some : NULL, walks.ROWS, walks.WIDE });
            }
        /* The next tile begins with a room that this one ended with: that for its sums, or for its outliers'. */
        if (some || (N8 > 1 && seldom(merged.warps)) || (N8 > 2 && (a.n + 7) / 8 % 2)) __syncthreads();
        if (takes) taken = tiles.take(g, i + g.ahead + 2);
    }
    tile_queue::done(a);
    copies_wait<0>();
}

/* ---- launching ---- */

template <typename T, typename O, int HOW, int N8, int MT, source FROM>
static cudaError_t launch(args8 g, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = few8_kernel<T, O, HOW, N8, MT, FROM>;
    args &a = g.a;
    typedef code_stream<MT, FROM == RING ? N8 * 8 : 0> weights;
    typedef outlier_merge<T, N8 * 8, weights::STAGE> merge;
    const int32_t stage = WARPS * weights::STAGE * 16, slice = (g.pitch + DEPTH8 - 1) / DEPTH8 / WARPS;
    const bool half = overlap && N8 <= 4 && FROM != RING && !(MT == 2 && FROM != ASKED);       /* with codes of rows beside them larger tiles want all of it */
    int32_t room = 0;
    cudaError_t e = room_of(half, &room);
    a.stages = 0;
    const int32_t fixed = shared8<MT, weights::STAGE>(g, FROM, (int32_t)sizeof(T)).bytes;
    a.tiles = (a.rows + MT * TILE - 1) / (MT * TILE);
    a.stages = (room - fixed) / stage < MOST_STAGES ? (room - fixed) / stage : MOST_STAGES;
    /* Where outliers' sums would leave a ring of one stage activations are asked for; of more than 32 rows that is no better. */
    const int32_t least = FROM == RING && N8 > 1 && N8 <= 4 && g.threshold != 0 ? (int32_t)merge::STAGES + (int32_t)LEAST_STAGES : (int32_t)LEAST_STAGES;
    if (!e && a.stages < least) {
        if constexpr (FROM == RING) return launch<T, O, HOW, N8, MT, ASKED>(g, multiprocessors, overlap, stream);
        if constexpr (MT == 2 && FROM == WHOLE) return launch<T, O, HOW, N8, 1, FROM>(g, multiprocessors, overlap, stream);       /* multiprocessors of 100 KB */
        e = cudaErrorInvalidValue;
    }
    if (N8 > 1 && g.threshold != 0 && a.stages > merge::STAGES) g.kept = a.stages - merge::STAGES;
    /* A warp asks for weights `stages` steps ahead, into tiles that must be known by then. */
    const int32_t blocks = blocks_of(a.tiles, a.n, half, multiprocessors);
    g.ahead = slice > 1 ? 1 + a.stages / slice : 1;
    if (slice <= 1 || a.tiles <= g.ahead * blocks) a.turn = NULL;
    const int32_t bytes = shared8<MT, weights::STAGE>(g, FROM, (int32_t)sizeof(T)).bytes;
    if (!e) e = allow_all(kernel);
    return e ? e : launch_kernel(kernel, dim3((unsigned)blocks), THREADS, (size_t)bytes, overlap, stream, g);
}

template <typename T, typename O, int HOW, int N8> static cudaError_t launch_from(const args8 &g, bool ring, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    return ring ? launch<T, O, HOW, N8, 2, RING>(g, multiprocessors, overlap, stream) : launch<T, O, HOW, N8, 2, ASKED>(g, multiprocessors, overlap, stream);
}

template <typename T, typename O, int HOW> static cudaError_t launch_rows(const args8 &g, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    if (g.fused && g.pitch <= SHORT) return launch<T, O, HOW, 1, 1, HELD_ROWS>(g, multiprocessors, overlap, stream);
    if (g.fused) return launch<T, O, HOW, 1, 1, WHOLE>(g, multiprocessors, overlap, stream);
    if (g.a.n <= 8 && g.a.n * g.pitch <= SHARED_X) {
        /* A tile of 16 such short rows is over before its end pays; fewer tiles than this are not shared out evenly.  (One or two rows have their outliers by tiles of 16.) */
        enum { LEAST = 4 };              /* a multiprocessor                                    */
        if constexpr (HOW == rv_few::RV_FEW_SWIGLU)
            if (g.a.n > RV_CUDA_NORM_ROWS && g.a.rows >= LEAST * 2 * TILE * multiprocessors) return launch<T, O, HOW, 1, 2, WHOLE>(g, multiprocessors, overlap, stream);
        return launch<T, O, HOW, 1, 1, WHOLE>(g, multiprocessors, overlap, stream);
    }
    /* Of 17 to 32 rows with outliers ends of tiles take so long that two blocks beside one another are better: measured where they have more than one tile. */
    const int32_t tiles = (g.a.rows + 2 * TILE - 1) / (2 * TILE);
    const bool ring = by_ring(g.a.n, tiles, multiprocessors) && (g.a.n <= 16 || g.a.n > 32 || tiles <= multiprocessors);
    if (g.a.n <= 8) return launch_from<T, O, HOW, 1>(g, ring, multiprocessors, overlap, stream);
    if (g.a.n <= 16) return launch_from<T, O, HOW, 2>(g, ring, multiprocessors, overlap, stream);
    if (g.a.n <= 32) return launch_from<T, O, HOW, 4>(g, ring, multiprocessors, overlap, stream);
    return launch_from<T, O, HOW, 8>(g, ring, multiprocessors, overlap, stream);
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args8 &g, bool overlap, cudaStream_t stream) {
    const int32_t m = p->multiprocessors;
    return by_results<T>(p, [&](auto kind) { return launch_rows<T, typename decltype(kind)::O, decltype(kind)::HOW>(g, m, overlap, stream); });
}

/* A row's pitch in shared memory: two rows' pieces that are read together lie half the banks apart. */
static int32_t shared_pitch(int32_t pitch) { return (pitch + 63) / 128 * 128 + 64; }

static bool is_aligned(rv_mat x) { return (uintptr_t)x.data % 16 == 0 && x.ld % 8 == 0 && x.cols % 8 == 0; }

cudaError_t rv_cuda_few8(const rv_int8 *q, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const int32_t n = p->x.rows;
    args8 g = args8_of(q);
    g.shared_pitch = shared_pitch(q->pitch);
    if (p->norm && p->cols > RV_CUDA_NORM_MOST) return cudaErrorInvalidValue;
    g.fused = n <= q->fused && n * q->pitch <= SHARED_X && (q->call.rows == 1 || !q->rules.by_call) && (p->norm ? p->cols % 8 == 0 : is_aligned(p->x));
    if (!g.fused) {
        cudaError_t e = rv_cuda_quantise(q, overlap, stream);
        if (e) return e;
        g.a.norm = NULL;
    }
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, g, overlap, stream) : launch_how<__half>(p, g, overlap, stream);
}

RV_CUDA_CLAMPED(few8)
