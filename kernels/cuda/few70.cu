/* few70.cu - f16 products with 1 to 64 rows for Volta, at the speed of the memory that holds the weights.
 *
 * The one idea: pairs of f16 are widened and multiplied in f32 by the ordinary units, which all GPUs have: up to some 16 rows, and a
 * V100 has no memory for more in f16, there are cycles enough (with 8 rows 10 of the 17 a weight that 900 GB/s leave).  A warp reads
 * 512 bytes of a row at a time; the 8 warps of a block share the depth in fixed slices, whose sums are added in order.  More than 8
 * rows take turns, the weights coming from the L2 cache again.
 *
 * The order of every sum depends on cols alone: within a lane ascending, over lanes by one tree, over warps in order.
 */
#include "kernels/cuda/few70.cuh"

enum { STRIDE = 256 };                   /* columns of a warp's step                            */

/* acc[r][n] += 8 columns of the weights' rows times those of the activations'. */
template <int R, int N> static __device__ __forceinline__ void multiply(float (&acc)[R * N], const uint4 (&w)[R], const uint4 (&x)[N]) {
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        float2 b[N];
#pragma unroll
        for (int32_t n = 0; n < N; n++) b[n] = two_floats((&x[n].x)[i]);
#pragma unroll
        for (int32_t r = 0; r < R; r++) {
            const float2 p = two_floats((&w[r].x)[i]);
#pragma unroll
            for (int32_t n = 0; n < N; n++) acc[r * N + n] = __fmaf_rn(p.y, b[n].y, __fmaf_rn(p.x, b[n].x, acc[r * N + n]));
        }
    }
}

/* N: activation rows at a time.  SHARED: x is normed into shared memory first. */
template <typename O, int HOW, int N, bool SHARED> static __global__ void __launch_bounds__(THREADS, 2) few70_kernel(const args a) {
    enum { R = N <= 2 ? 8 : 4 };         /* rows of weights at a time                           */
    extern __shared__ uint4 memory[];
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, steps = (a.cols + STRIDE - 1) / STRIDE;
    const int32_t from = steps * warp / WARPS, to = steps * (warp + 1) / WARPS;
    room70 *rooms = (room70 *)memory;
    __half *normed = (__half *)(rooms + 2);
    if (SHARED) norm_rows<__half>(a, normed, &rooms->of[0][0][0]);
    const __half *const x = SHARED ? normed : (const __half *)a.x;
    const int64_t x_ld = SHARED ? a.cols : a.x_ld;
    int32_t turn = 0;
    for (int32_t tile = (int32_t)blockIdx.x; tile < a.tiles; tile += (int32_t)gridDim.x)
        for (int32_t n0 = 0; n0 < a.n; n0 += N, turn ^= 1) {
#pragma unroll 1
            for (int32_t r0 = 0; r0 < TILE; r0 += R) {
                float acc[R * N] = {};
                const __half *const first = (const __half *)a.w + (int64_t)(tile * TILE + r0) * a.cols + lane * 8;
                uint4 next[R];
                auto load = [&](int32_t step) {        /* the weights of a step: while one is multiplied the next is on its way */
                    const bool in = step < to && step * STRIDE + lane * 8 < a.cols;
#pragma unroll
                    for (int32_t r = 0; r < R; r++)
                        next[r] = in && tile * TILE + r0 + r < a.rows ? load_passing(first + (int64_t)r * a.cols + step * STRIDE) : make_uint4(0, 0, 0, 0);
                };
                load(from);
#pragma unroll 1
                for (int32_t step = from; step < to; step++) {
                    const int32_t k = step * STRIDE + lane * 8;
                    uint4 w[R], v[N];
#pragma unroll
                    for (int32_t r = 0; r < R; r++) w[r] = next[r];
                    load(step + 1);
#pragma unroll
                    for (int32_t n = 0; n < N; n++) v[n] = k < a.cols && n0 + n < a.n ? *(const uint4 *)(x + (n0 + n) * x_ld + k) : make_uint4(0, 0, 0, 0);
                    multiply<R, N>(acc, w, v);
                }
                share_sums(acc);
                const int32_t i = shares<R * N>::first(lane);
                if (lane % shares<R * N>::SAME == 0) rooms[turn].of[warp][r0 + i / N][i % N] = acc[0];
            }
            finish70<O, HOW, N>(a, rooms[turn], tile, n0);
        }
}

/* ---- launching ---- */

template <typename O, int HOW, int N, bool SHARED> static cudaError_t launch(args a, int32_t multiprocessors, cudaStream_t stream) {
    auto kernel = few70_kernel<O, HOW, N, SHARED>;
    const int32_t bytes = 2 * (int32_t)sizeof(room70) + (SHARED ? a.n * a.cols * (int32_t)sizeof(__half) : 0);
    cudaError_t e = allow_all(kernel);
    a.tiles = (a.rows + TILE - 1) / TILE;
    const dim3 grid((unsigned)(a.tiles < 2 * multiprocessors ? a.tiles : 2 * multiprocessors));
    return e ? e : launch_kernel(kernel, grid, THREADS, (size_t)bytes, false, stream, a);
}

template <typename O, int HOW> static cudaError_t launch_rows(const args &a, int32_t multiprocessors, cudaStream_t stream) {
    if (a.norm) return a.n == 1 ? launch<O, HOW, 1, true>(a, multiprocessors, stream) : launch<O, HOW, 2, true>(a, multiprocessors, stream);
    if (a.n == 1) return launch<O, HOW, 1, false>(a, multiprocessors, stream);
    if (a.n == 2) return launch<O, HOW, 2, false>(a, multiprocessors, stream);
    if (a.n <= 4) return launch<O, HOW, 4, false>(a, multiprocessors, stream);
    return launch<O, HOW, 8, false>(a, multiprocessors, stream);
}

cudaError_t rv_cuda_few70(const rv_few *p, cudaStream_t stream) {
    const args a = { p->x.data, p->w, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, NULL };
    const int32_t m = p->multiprocessors;
    if (p->act != RV_F16 || (p->norm && (p->x.rows > RV_CUDA_NORM_ROWS || p->cols > RV_CUDA_NORM_MOST))) return cudaErrorInvalidValue;
    return by_results<__half>(p, [&](auto kind) { return launch_rows<typename decltype(kind)::O, decltype(kind)::HOW>(a, m, stream); });
}

RV_CUDA_CLAMPED(few70)
