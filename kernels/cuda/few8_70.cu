/* few8_70.cu - int8 products with 1 to 16 rows for Volta, at the speed of the memory that holds the codes.
 *
 * The one idea: four codes are multiplied and added to an integer by one dp4a.  Integer sums are exact in any order, so a warp has rows of
 * weights to itself, over their whole depth, and no barrier holds it up: while one adds up and finishes, the others read.
 *
 * One or two rows of activations are quantised by every block itself, while its first weights come; more before it (int8.cu).  By count
 * a V100 reads 7.4 codes a clock and multiprocessor and multiplies 256 in that time: the memory's speed up to some 25 rows.  More than
 * 16 go to many8_70.cu, whose tensor cores do twice as many.
 */
#include "kernels/cuda/few8_70.cuh"

enum { STRIDE = 512 };                   /* codes of a warp's step                              */

/* The i-th of a warp's R x N results: row r 8 + warp of the tile, activation row n; a gate's neighbour is its up. */
template <int R> struct spot70 {
    int32_t row, n;
    __device__ __forceinline__ spot70(int32_t tile, int32_t n0, int32_t i)
        : row((tile * R + i % R) * WARPS + (int32_t)threadIdx.x / 32), n(n0 + i / R) {}
};

/* acc: what this lane has of the warp's sums. */
template <typename O, int HOW, int R, int N>
static __device__ __forceinline__ void finish8_70(const args8_70 &g, const int8_row *rows, const int32_t (&acc)[R * N], const float (&scb)[shares<R * N>::MINE], int32_t tile, int32_t n0) {
    constexpr int MINE = shares<R * N>::MINE, SAME = shares<R * N>::SAME;
    constexpr bool pairs = HOW == rv_few::RV_FEW_SWIGLU;
    const int32_t lane = (int32_t)threadIdx.x % 32, i = shares<R * N>::first(lane);
    float y[MINE];
#pragma unroll
    for (int32_t j = 0; j < MINE; j++) {
        const spot70<R> at(tile, n0, i + j);
        const bool mine = lane % SAME == 0 && at.row < g.a.rows && at.n < g.a.n;
        y[j] = mine ? value70(g, rows, at.row, at.n, acc[j], scb[j]) : 0.f;
    }
    if (pairs && MINE == 1) __syncwarp();
#pragma unroll
    for (int32_t j = 0; j < MINE; j += pairs && MINE > 1 ? 2 : 1) {
        const spot70<R> at(tile, n0, i + j);
        float up = 0, old = 0;
        if (pairs) up = MINE > 1 ? y[(j + 1) % MINE] : __shfl_xor_sync(~0u, y[0], SAME % 32);
        if (lane % SAME || at.row >= g.a.rows || at.n >= g.a.n || (pairs && (i + j) % 2)) continue;
        if (HOW == rv_few::RV_FEW_ADD) old = ((const float *)g.a.out)[at.n * g.a.out_ld + at.row];
        finish_one<__half, O, HOW>(g.a, at.row, at.n, y[j], up, old);
    }
}

/* ---- activations ---- */

enum source { GLOBAL, COPIED, MADE };          /* where codes come from: read as they lie; copied to shared memory; made there, by every block */

/* What a block has in shared memory; offsets of what comes behind the codes. */
struct room8_70 {
    int32_t normed, scratch, rows, bytes;
    __host__ __device__ room8_70(const args8_70 &g, source from) {
        normed = from == GLOBAL ? 0 : g.a.n * g.shared_pitch;
        scratch = normed + (from == MADE && g.a.norm ? g.a.n * g.a.cols * (int32_t)sizeof(__half) : 0);
        rows = scratch + (from == MADE ? (int8_shared_bytes(g.pitch) + 15) / 16 * 16 : 0);
        bytes = rows + (from == MADE ? (int32_t)sizeof(int8_row) * 2 : 0);
    }
};

static __device__ __forceinline__ void copy_codes(const args8_70 &g, int8_t *codes) {
    for (int32_t r = 0; r < g.a.n; r++)
        for (int32_t i = (int32_t)threadIdx.x; i < g.pitch / 16; i += THREADS)
            ((uint4 *)(codes + r * g.shared_pitch))[i] = ((const uint4 *)(g.codes + (int64_t)r * g.pitch))[i];
    __syncthreads();
}

/* Asks the L2 cache for the rows that a warp begins with: they come while activations are made. */
template <int R> static __device__ __forceinline__ void fetch_first(const args8_70 &g) {
    const int32_t lines = g.pitch / 128;
#pragma unroll
    for (int32_t r = 0; r < R; r++) {
        const int32_t row = spot70<R>((int32_t)blockIdx.x, 0, r).row;
        if (row >= g.a.rows) continue;
        for (int32_t i = (int32_t)threadIdx.x % 32; i < lines; i += 32) fetch_far((const int8_t *)g.a.w + (int64_t)row * g.pitch + i * 128);
    }
}

/* One or two rows, by the whole block; the lists of their outliers, if any, are the same from every block. */
static __device__ __forceinline__ void make_codes(const args8_70 &g, int8_t *codes, __half *normed, void *scratch, int8_row *rows) {
    const args &a = g.a;
    const int8_limit limit = { g.threshold, NULL };
    if (a.norm) norm_rows<__half>(a, normed, (float *)scratch);
#pragma unroll 1
    for (int32_t r = 0; r < a.n; r++) {
        const __half *x = a.norm ? normed + r * a.cols : (const __half *)a.x + r * a.x_ld;
        auto piece = [&](int32_t p) { return p * PIECE < a.cols ? ((const uint4 *)x)[p] : make_uint4(0, 0, 0, 0); };
        auto value = [&](int32_t k) { return ((const uint16_t *)x)[k]; };
        const list_place place = { NULL, g.list + (int64_t)r * (g.pitch + RV_CUDA_INT8_CLOSE) };
        const int8_row row = quantise_row<__half>(piece, value, g.pitch, limit, codes + r * g.shared_pitch, place, scratch);
        if (threadIdx.x == 0) rows[r] = row;
    }
    __syncthreads();
}

/* ---- the kernel ---- */

/* R: rows of weights a warp has at a time; N: activation rows. */
template <typename O, int HOW, int R, int N, source FROM> static __global__ void __launch_bounds__(THREADS, 2) few8_70_kernel(const args8_70 g) {
    extern __shared__ uint4 memory[];
    constexpr bool SHARED = FROM != GLOBAL;
    const args &a = g.a;
    const room8_70 at(g, FROM);
    const int32_t lane = (int32_t)threadIdx.x % 32, steps = g.pitch / STRIDE;
    int8_t *shared = (int8_t *)memory;
    const int8_row *rows = FROM == MADE ? (const int8_row *)(shared + at.rows) : g.rows;
    if (FROM == COPIED) copy_codes(g, shared);
    if (FROM == MADE) {
        fetch_first<R>(g);
        make_codes(g, shared, (__half *)(shared + at.normed), shared + at.scratch, (int8_row *)(shared + at.rows));
    }
    const int8_t *const x = (SHARED ? shared : g.codes) + lane * 16;
    const int32_t x_ld = SHARED ? g.shared_pitch : g.pitch;
    for (int32_t tile = (int32_t)blockIdx.x; tile < a.tiles; tile += (int32_t)gridDim.x)
        for (int32_t n0 = 0; n0 < a.n; n0 += N) {
            int32_t acc[R * N] = {};
            float scb[shares<R * N>::MINE];
#pragma unroll
            for (int32_t j = 0; j < shares<R * N>::MINE; j++) {
                const spot70<R> at(tile, n0, shares<R * N>::first(lane) + j);
                scb[j] = at.row < a.rows ? __ldg(g.w_scale + at.row) : 0.f;
            }
            const int8_t *w[R];
#pragma unroll
            for (int32_t r = 0; r < R; r++) {
                const int32_t row = spot70<R>(tile, 0, r).row;
                w[r] = (const int8_t *)a.w + (int64_t)(row < a.rows ? row : a.rows - 1) * g.pitch + lane * 16;
            }
            auto multiply = [&](int32_t k) {
                uint4 p[R];
#pragma unroll
                for (int32_t r = 0; r < R; r++) p[r] = load_passing(w[r] + k);
#pragma unroll
                for (int32_t n = 0; n < N; n++) {
                    const uint4 v = n0 + n < a.n ? *(const uint4 *)(x + (n0 + n) * x_ld + k) : make_uint4(0, 0, 0, 0);
#pragma unroll
                    for (int32_t i = 0; i < 4; i++)
#pragma unroll
                        for (int32_t r = 0; r < R; r++) acc[n * R + r] = __dp4a((int32_t)(&p[r].x)[i], (int32_t)(&v.x)[i], acc[n * R + r]);
                }
            };
#pragma unroll(N <= 2 ? 8 : N <= 4 ? 4 : N <= 8 ? 2 : 1)
            for (int32_t step = 0; step < steps; step++) multiply(step * STRIDE);
            if (lane * 16 < g.pitch % STRIDE) multiply(steps * STRIDE);
            __syncwarp();
            share_sums(acc);
            finish8_70<O, HOW, R, N>(g, rows, acc, scb, tile, n0);
        }
}

/* ---- launching ---- */

template <typename O, int HOW, int R, int N, source FROM> static cudaError_t launch(args8_70 g, int32_t multiprocessors, cudaStream_t stream) {
    auto kernel = few8_70_kernel<O, HOW, R, N, FROM>;
    const int32_t bytes = room8_70(g, FROM).bytes;
    cudaError_t e = allow_all(kernel);
    g.a.tiles = (g.a.rows + WARPS * R - 1) / (WARPS * R);
    const dim3 grid((unsigned)(g.a.tiles < 2 * multiprocessors ? g.a.tiles : 2 * multiprocessors));
    return e ? e : launch_kernel(kernel, grid, THREADS, (size_t)bytes, false, stream, g);
}

template <typename O, int HOW, int N> static cudaError_t launch_from(const args8_70 &g, bool fused, int32_t multiprocessors, cudaStream_t stream) {
    if (N <= RV_CUDA_INT8_FUSED && fused) return launch<O, HOW, 2, N, N <= RV_CUDA_INT8_FUSED ? MADE : GLOBAL>(g, multiprocessors, stream);
    if (N <= 8 && g.a.n * g.shared_pitch <= SHARED_X) return launch<O, HOW, 2, N, N <= 8 ? COPIED : GLOBAL>(g, multiprocessors, stream);
    return launch<O, HOW, 2, N, GLOBAL>(g, multiprocessors, stream);
}

template <typename O, int HOW> static cudaError_t launch_rows(const args8_70 &g, bool fused, int32_t multiprocessors, cudaStream_t stream) {
    if (g.a.n == 1) return launch_from<O, HOW, 1>(g, fused, multiprocessors, stream);
    if (g.a.n == 2) return launch_from<O, HOW, 2>(g, fused, multiprocessors, stream);
    if (g.a.n <= 4) return launch_from<O, HOW, 4>(g, false, multiprocessors, stream);
    if (g.a.n <= 8) return launch_from<O, HOW, 8>(g, false, multiprocessors, stream);
    return launch_from<O, HOW, 16>(g, false, multiprocessors, stream);
}

cudaError_t rv_cuda_few8_70(const rv_int8 *q, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const int32_t n = p->x.rows, m = p->multiprocessors;
    const rv_int8_room room = rv_cuda_int8_room(q->room, n, q->pitch);
    args8_70 g = { { p->x.data, p->w, p->out.data, p->x.ld, p->out.ld, NULL, p->row_scale, p->norm, p->scale, p->eps, n, p->rows, p->cols, 0, 0, NULL },
                   q->w_scale, p->bias, room.codes, (int8_row *)room.rows, room.list, q->rules.threshold, q->pitch, q->pitch };
    const bool aligned = (uintptr_t)p->x.data % 16 == 0 && p->x.ld % PIECE == 0 && p->cols % PIECE == 0;
    const bool fused = n <= q->fused && n * q->pitch <= SHARED_X && (q->call.rows == 1 || !q->rules.by_call) && (p->norm ? p->cols % PIECE == 0 : aligned);
    if (p->act != RV_F16 || (p->norm && p->cols > RV_CUDA_NORM_MOST)) return cudaErrorInvalidValue;
    if (!fused) {
        cudaError_t e = rv_cuda_quantise(q, false, stream);
        if (e) return e;
    }
    if (n > 16) return many8_70(p, g, stream);
    return by_results<__half>(p, [&](auto kind) { return launch_rows<typename decltype(kind)::O, decltype(kind)::HOW>(g, fused, m, stream); });
}

RV_CUDA_CLAMPED(few8_70)
