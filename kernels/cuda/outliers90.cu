/* outliers90.cu - what outliers add to an LLM.int8 product with many rows, where they are in many columns: `down` has some dozens a row, in other
 * columns each.
 *
 * The one idea: a list of outliers meets weights all over a row of weights, which memory could only bring one by one; but four whole rows of weights
 * fit into shared memory, as outliers take them and column by column, and then a thread follows its own row's list.  Weights are read
 * once, and sums are in few8.cuh's order.
 */
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"

enum { TOGETHER = 4,                     /* rows of weights a block has at a time               */
       STEP = 128,                       /* columns, of which slices have whole numbers         */
       AHEAD = 8 };                      /* entries asked for at once                           */

struct outlier_args {
    const int8_row *rows;
    const uint32_t *columns, *list;
    const int32_t *n_columns;
    const void *x;
    const int8_t *w;
    const float *w_scale;
    void *out;                           /* f32, or (after the product) act                     */
    int64_t x_ld, out_ld;
    int32_t n, w_rows, pitch, at_once;   /* at_once: slices in shared memory together           */
    float threshold;
    bool by_call;
};

/* Codes of four columns of a row of weights, as floats. */
static __device__ __forceinline__ float4 as_floats(uint32_t codes) {
    float f[4];
    codes ^= 0x80808080;
#pragma unroll
    for (int32_t i = 0; i < 4; i++) f[i] = __fadd_rn(__uint_as_float(__byte_perm(codes, 0x4b000000, 0x7440 | i)), -8388736.f);     /* 2^23 + code + 128 */
    return make_float4(f[0], f[1], f[2], f[3]);
}

/* Columns [from, to) of rows first .. first + 3. */
template <typename T> static __device__ __forceinline__ void bring(const outlier_args &g, int32_t first, int32_t from, int32_t to, uint2 *weights) {
    enum { AT_ONCE = 4 };
    float scale[TOGETHER];
#pragma unroll
    for (int32_t r = 0; r < TOGETHER; r++) scale[r] = __ldg(g.w_scale + first + r);
#pragma unroll 1
    for (int32_t k0 = from + (int32_t)threadIdx.x * 4; k0 < to; k0 += AT_ONCE * THREADS * 4) {
        uint32_t codes[AT_ONCE][TOGETHER];
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int32_t r = 0; r < TOGETHER; r++) {
                const int32_t k = k0 + i * THREADS * 4;
                codes[i][r] = k < to ? __ldg((const uint32_t *)(g.w + (int64_t)(first + r) * g.pitch + k)) : 0u;
            }
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++) {
            const int32_t k = k0 + i * THREADS * 4;
            if (k >= to) break;
            union { T of[4][TOGETHER]; uint4 whole[2]; } w;
#pragma unroll
            for (int32_t r = 0; r < TOGETHER; r++) {
                const float4 f = as_floats(codes[i][r]);
                w.of[0][r] = int8_weight<T>(f.x, scale[r]);
                w.of[1][r] = int8_weight<T>(f.y, scale[r]);
                w.of[2][r] = int8_weight<T>(f.z, scale[r]);
                w.of[3][r] = int8_weight<T>(f.w, scale[r]);
            }
            ((uint4 *)(weights + k - from))[0] = w.whole[0];
            ((uint4 *)(weights + k - from))[1] = w.whole[1];
        }
    }
}

/* The sums of one row of activations: of the slice at hand, and of those before. */
template <typename T> struct row_sums {
    const uint2 *weights;
    const int32_t steps, from, to;
    int32_t slice, end;
    float all[TOGETHER], part[TOGETHER];

    __device__ __forceinline__ row_sums(const uint2 *w, int32_t steps_, int32_t slice_, int32_t from_, int32_t to_)
        : weights(w), steps(steps_), from(from_), to(to_), slice(slice_), end(slice_start(steps_, slice_ + 1) * STEP), all{}, part{} {}
    __device__ __forceinline__ void next_slice() {
#pragma unroll
        for (int32_t r = 0; r < TOGETHER; r++) all[r] += part[r], part[r] = 0;
        end = slice_start(steps, ++slice + 1) * STEP;
    }
    __device__ __forceinline__ void take(int32_t column, float x) {
        if (column < from || column >= to) return;
        while (column >= end) next_slice();
        const uint2 w = weights[column - from];
        const float2 a = pair_of(w.x, T()), b = pair_of(w.y, T());
        part[0] = __fmaf_rn(x, a.x, part[0]);
        part[1] = __fmaf_rn(x, a.y, part[1]);
        part[2] = __fmaf_rn(x, b.x, part[2]);
        part[3] = __fmaf_rn(x, b.y, part[3]);
    }
    __device__ __forceinline__ void take_list(const outlier_args &g, int32_t row, int32_t outliers) {
#pragma unroll 1
        for (int32_t i = 0; i < outliers; i += AHEAD) {
            uint32_t entry[AHEAD];
#pragma unroll
            for (int32_t j = 0; j < AHEAD; j++) entry[j] = i + j < outliers ? __ldcg(g.list + (int64_t)(i + j) * g.n + row) : ~0u;
#pragma unroll
            for (int32_t j = 0; j < AHEAD; j++) take(column_of(entry[j]), value_of<T>(entry[j]));
        }
    }
    /* Where the row's outliers are not all listed, or all rows have the same: all rows' columns. */
    __device__ __forceinline__ void take_columns(const outlier_args &g, int32_t row, int32_t found) {
#pragma unroll 1
        for (int32_t i = 0; i < found; i++) {
            const int32_t column = (int32_t)__ldcg(g.columns + i);
            take(column, to_f32(outlier_value<T>(g.x, g.x_ld, row, column, g.threshold)));
        }
    }
};

/* AFTER: to results in out, which are stored without; else out is for the product to add. */
template <typename T, bool AFTER> static __global__ void __launch_bounds__(THREADS, 2) outliers_kernel(const outlier_args g) {
    extern __shared__ uint4 memory[];
    uint2 *weights = (uint2 *)memory;
    let_next_start();
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns), steps = (g.pitch + STEP - 1) / STEP;
    if (found <= RV_CUDA_INT8_BESIDE) return;
#pragma unroll 1
    for (int32_t first = (int32_t)blockIdx.x * TOGETHER; first < g.w_rows; first += (int32_t)gridDim.x * TOGETHER)
#pragma unroll 1
        for (int32_t slice = 0; slice < SLICES; slice += g.at_once) {
            const int32_t from = slice_start(steps, slice) * STEP, to = min(slice_start(steps, slice + g.at_once) * STEP, g.pitch);
            __syncthreads();
            bring<T>(g, first, from, to, weights);
            __syncthreads();
#pragma unroll 1
            for (int32_t row = (int32_t)threadIdx.x; row < g.n; row += THREADS) {
                const int32_t outliers = __ldcg(&g.rows[row].outliers);
                row_sums<T> sums(weights, steps, slice, from, to);
                float4 *more = (float4 *)((float *)g.out + row * g.out_ld + first);
                if (!AFTER && slice) {
                    const float4 before = *more;
                    sums.all[0] = before.x, sums.all[1] = before.y, sums.all[2] = before.z, sums.all[3] = before.w;
                }
                if (g.by_call || outliers > RV_CUDA_INT8_LISTED) sums.take_columns(g, row, found);
                else sums.take_list(g, row, outliers);
                sums.next_slice();
                const float (&v)[TOGETHER] = sums.all;
                if (!AFTER) *more = make_float4(v[0], v[1], v[2], v[3]);
                else if (g.by_call || outliers) {
                    uint2 *to_add = (uint2 *)((T *)g.out + row * g.out_ld + first), y = __ldcg(to_add);
                    const float2 a = pair_of(y.x, T()), b = pair_of(y.y, T());
                    const float with[TOGETHER] = { a.x + v[0], a.y + v[1], b.x + v[2], b.y + v[3] };
                    uint32_t packed[2];
                    pack_counted(packed, with, T());
                    *to_add = make_uint2(packed[0], packed[1]);
                }
            }
        }
}

/* ---- launching ---- */

template <typename T> static cudaError_t launch(outlier_args g, bool after, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = after ? outliers_kernel<T, true> : outliers_kernel<T, false>;
    const int32_t steps = (g.pitch + STEP - 1) / STEP;
    int32_t bytes = 0;
    for (g.at_once = SLICES; g.at_once; g.at_once /= 2) {
        int32_t most = 0;
        for (int32_t s = 0; s < SLICES; s += g.at_once) {
            const int32_t of = slice_start(steps, s + g.at_once) - slice_start(steps, s);
            if (of > most) most = of;
        }
        bytes = most * STEP * (int32_t)sizeof(uint2);
        if (bytes <= RV_CUDA_INT8_WHOLE * (int32_t)sizeof(uint2)) break;
    }
    cudaError_t e = g.at_once ? cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) : cudaErrorInvalidValue;
    const int32_t blocks = g.w_rows / TOGETHER < 2 * multiprocessors ? g.w_rows / TOGETHER : 2 * multiprocessors;
    return e ? e : launch_kernel(kernel, dim3((unsigned)blocks), THREADS, (size_t)bytes, overlap, stream, g);
}

bool rv_cuda_int8_before(const rv_int8 *q) { return q->p.how != rv_few::RV_FEW_STORE || q->p.out.type == RV_F32 || q->pitch > RV_CUDA_INT8_WHOLE; }

cudaError_t rv_cuda_outliers90(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool before = rv_cuda_int8_before(q), by_call = q->rules.by_call && q->call.rows > 1;
    const outlier_args g = { (const int8_row *)room->rows, room->columns, room->list, room->n_columns, room->h ? room->h : p->x.data, (const int8_t *)p->w, q->w_scale,
                             before ? (void *)room->more : p->out.data, room->h ? q->pitch : p->x.ld, before ? (int64_t)p->rows : p->out.ld, p->x.rows, p->rows, q->pitch, 0,
                             by_call ? 0.f : q->rules.threshold, by_call };
    return p->act == RV_BF16 ? launch<__nv_bfloat16>(g, !before, p->multiprocessors, overlap, stream) : launch<__half>(g, !before, p->multiprocessors, overlap, stream);
}

RV_CUDA_CLAMPED(outliers90)
