/* few.cu - products with 1 to 64 rows, at the speed of the memory that holds the weights.
 *
 * The one idea: weights are the tensor core's 16-row operand, read straight from global memory in 16-byte
 * pieces; the activations' rows are its n8 columns, read with the very same pattern.  Because both
 * operands take their k from the same addresses, which k a register stands for does not matter, and no
 * shuffle, no shared memory and no special weight layout is needed.
 *
 * A block owns tiles of 16 output rows, one after the other; its 8 warps share the depth (cols) in 8 fixed
 * slices, whose sums are added in order.  That order depends on cols alone, so a row's result never depends
 * on how many rows are computed, nor on their neighbours.  While a tile's sums are added up, the next
 * tile's weights are already on their way.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

enum { WARPS = 8, TILE = 16, DEPTH = 32 /* k per step: 4 threads x 8 */, AHEAD = 4 /* steps in flight */ };

struct args {
    const void *x, *w;
    void *out;
    int64_t x_ld, out_ld;
    const float *bias, *row_scale, *norm;
    float scale, eps;
    int32_t n, rows, cols, tiles, multiprocessors;
};

/* Weights are read once: do not keep them in L1. */
static __device__ __forceinline__ uint4 stream16(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

static __device__ __forceinline__ float silu(float g) { return g / (1.f + expf(-g)); }
static __device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }

template <typename T, typename O, int HOW>
static __device__ void finish_one(const args &a, int32_t row, int32_t n, float v, float up) {
    if (n >= a.n) return;
    if (HOW == rv_few::RV_FEW_SWIGLU) {
        int32_t c = row / (2 * RV_CUDA_GATE_BLOCK) * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK;
        /* Rounded to act first, as the separate product and swiglu do. */
        float g = to_f32(to_act<T>(v)), u = to_f32(to_act<T>(up));
        ((O *)a.out)[n * a.out_ld + c] = to_act<O>(silu(g) * u);
        return;
    }
    if (a.bias) v += a.bias[row];
    O *to = (O *)a.out + n * a.out_ld + row;
    if (HOW == rv_few::RV_FEW_GELU) *to = to_act<O>(gelu(v));
    else if (HOW == rv_few::RV_FEW_STORE) *to = to_act<O>(v);
    else {
        float by = a.row_scale ? a.row_scale[n] : 1.f;
        if (by != 0.f) *(float *)to += a.scale * by * v;
    }
}

/* Rows of x, normed, as act in shared memory [n][cols]: the very operations of rows.cu's norm. */
template <typename T> static __device__ void norm_rows(const args &a, T *to, float *shared) {
    for (int32_t r = 0; r < a.n; r++) {
        const float *x = (const float *)a.x + r * a.x_ld;
        float square = 0;
        for (int32_t c = (int32_t)threadIdx.x; c < a.cols; c += WARPS * 32) {
            float v = x[c] - 0.f;
            square += v * v;
        }
        float scale = rsqrtf(block_sum(square, shared) / (float)a.cols + a.eps);
        for (int32_t c = (int32_t)threadIdx.x; c < a.cols; c += WARPS * 32) to[r * a.cols + c] = to_act<T>((x[c] - 0.f) * scale * a.norm[c]);
    }
    __syncthreads();
}

/* N8: groups of 8 activation rows.  NORM: x is normed into shared memory first. */
template <typename T, typename O, int HOW, int N8, bool NORM>
static __global__ void __launch_bounds__(WARPS * 32, N8 <= 2 ? 2 : 1) few_kernel(args a) {
    extern __shared__ uint4 normed[];
    __shared__ float sums[WARPS][TILE][N8 * 8 + 1];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int32_t steps = (a.cols + DEPTH - 1) / DEPTH;
    const int32_t from = (int32_t)((int64_t)steps * warp / WARPS), to = (int32_t)((int64_t)steps * (warp + 1) / WARPS);
    const T *x = NORM ? (const T *)normed + g * a.cols + t * 8 : (const T *)a.x + (int64_t)g * a.x_ld + t * 8;
    const int64_t x_ld = NORM ? a.cols : a.x_ld;
    const uint4 none = make_uint4(0, 0, 0, 0);
    uint4 wa[AHEAD][2], xa[AHEAD][N8];

    auto load_w = [&](int32_t tile, int32_t step, uint4 (&to_w)[2]) {
        int32_t row = tile * TILE + g;
        const T *w = (const T *)a.w + (int64_t)row * a.cols + t * 8 + (int64_t)step * DEPTH;
        bool in = tile < a.tiles && step < to && step * DEPTH + t * 8 < a.cols;
        to_w[0] = in && row < a.rows ? stream16(w) : none;
        to_w[1] = in && row + 8 < a.rows ? stream16(w + (int64_t)8 * a.cols) : none;
    };
    auto load_x = [&](int32_t step, uint4 (&to_x)[N8]) {
        bool in = step < to && step * DEPTH + t * 8 < a.cols;
#pragma unroll
        for (int j = 0; j < N8; j++)
            to_x[j] = in && j * 8 + g < a.n ? *(const uint4 *)(x + (int64_t)j * 8 * x_ld + (int64_t)step * DEPTH) : none;
    };
    /* Activations are fetched ahead like weights, unless they lie in shared memory or are too many for that. */
    constexpr bool x_ahead = !NORM && N8 <= 2;

#pragma unroll
    for (int i = 0; i < AHEAD; i++) load_w((int32_t)blockIdx.x, from + i, wa[i]);
    wait_for_previous();                 /* the weights never depend on the kernel before; all else does */
    let_next_start();
    if (NORM) norm_rows<T>(a, (T *)normed, &sums[0][0][0]);

    for (int32_t tile = (int32_t)blockIdx.x; tile < a.tiles; tile += (int32_t)gridDim.x) {
        float acc[N8][4] = {};
        if (x_ahead) {
#pragma unroll
            for (int i = 0; i < AHEAD; i++) load_x(from + i, xa[i]);
        }
        for (int32_t step = from; step < to; step += AHEAD) {
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                uint4 w[2] = { wa[i][0], wa[i][1] }, b[N8];
                if (x_ahead) {
#pragma unroll
                    for (int j = 0; j < N8; j++) b[j] = xa[i][j];
                    load_w(tile, step + i + AHEAD, wa[i]);
                    load_x(step + i + AHEAD, xa[i]);
                } else {
                    load_x(step + i, b);
                    load_w(tile, step + i + AHEAD, wa[i]);
                }
#pragma unroll
                for (int j = 0; j < N8; j++) {
                    mma(acc[j], w[0].x, w[1].x, w[0].y, w[1].y, b[j].x, b[j].y, T());
                    mma(acc[j], w[0].z, w[1].z, w[0].w, w[1].w, b[j].z, b[j].w, T());
                }
            }
        }
        const int32_t row0 = tile * TILE, next = tile + (int32_t)gridDim.x;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) load_w(next, from + i, wa[i]);

        __syncthreads();                 /* the tile before has been added up */
#pragma unroll
        for (int j = 0; j < N8; j++) {
            sums[warp][g][j * 8 + t * 2] = acc[j][0];
            sums[warp][g][j * 8 + t * 2 + 1] = acc[j][1];
            sums[warp][g + 8][j * 8 + t * 2] = acc[j][2];
            sums[warp][g + 8][j * 8 + t * 2 + 1] = acc[j][3];
        }
        __syncthreads();
        constexpr int outputs = HOW == rv_few::RV_FEW_SWIGLU ? TILE / 2 : TILE;
        for (int i = threadIdx.x; i < outputs * a.n; i += WARPS * 32) {
            int r = i % outputs, n = i / outputs;
            float v = 0, up = 0;
            for (int k = 0; k < WARPS; k++) v += sums[k][r][n];
            if (HOW == rv_few::RV_FEW_SWIGLU)
                for (int k = 0; k < WARPS; k++) up += sums[k][r + 8][n];
            if (row0 + r < a.rows) finish_one<T, O, HOW>(a, row0 + r, n, v, up);
        }
    }
}

/* As many blocks as run at once; each then walks over its tiles. */
static unsigned blocks_for(const args &a, int at_once) {
    int32_t most = at_once * a.multiprocessors;
    return (unsigned)(a.tiles < most ? a.tiles : most);
}

template <typename T, typename O, int HOW> static cudaError_t launch(const args &a, bool overlap, cudaStream_t stream) {
    if (a.norm) {
        size_t bytes = (size_t)a.n * (size_t)a.cols * sizeof(T);
        auto kernel = few_kernel<T, O, HOW, 1, true>;
        cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        return e ? e : launch_kernel(kernel, dim3(blocks_for(a, 2)), WARPS * 32, bytes, overlap, stream, a);
    }
    static void (*const kernels[])(args) = { few_kernel<T, O, HOW, 1, false>, few_kernel<T, O, HOW, 2, false>, few_kernel<T, O, HOW, 4, false>,
                                             few_kernel<T, O, HOW, 8, false> };
    int which = a.n <= 8 ? 0 : a.n <= 16 ? 1 : a.n <= 32 ? 2 : 3;
    return launch_kernel(kernels[which], dim3(blocks_for(a, which < 2 ? 2 : 1)), WARPS * 32, 0, overlap, stream, a);
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args &a, bool overlap, cudaStream_t stream) {
    bool f32 = p->out.type == RV_F32;
    switch (p->how) {
    case rv_few::RV_FEW_STORE:
        return f32 ? launch<T, float, rv_few::RV_FEW_STORE>(a, overlap, stream) : launch<T, T, rv_few::RV_FEW_STORE>(a, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch<T, T, rv_few::RV_FEW_GELU>(a, overlap, stream);
    case rv_few::RV_FEW_SWIGLU: return launch<T, T, rv_few::RV_FEW_SWIGLU>(a, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch<T, float, rv_few::RV_FEW_ADD>(a, overlap, stream);
    }
    return cudaErrorInvalidValue;
}

cudaError_t rv_cuda_few(const rv_few *p, bool overlap, cudaStream_t stream) {
    int32_t tiles = (p->rows + TILE - 1) / TILE;
    args a = { p->x.data, p->w, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, tiles, p->multiprocessors };
    if (p->norm && p->x.rows > RV_CUDA_NORM_ROWS) return cudaErrorInvalidValue;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, a, overlap, stream) : launch_how<__half>(p, a, overlap, stream);
}

RV_CUDA_CLAMPED(few)
