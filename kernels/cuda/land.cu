/* land.cu - weights that come in another type than products take.
 *
 * The one idea: the bus is the slow part, so rows come as the file has them, and one thread makes eight neighbours of them. Looking for
 * numbers that are none costs a hundredth of what the bus takes, so all of them are looked at.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, BLOCKS_MOST = 1024 };

template <typename T, int N> struct alignas(sizeof(T) * N) piece { T of[N]; };

template <typename T> static __device__ __forceinline__ T weight_of(float x);
template <> __device__ __forceinline__ __half weight_of<__half>(float x) { return clamped_half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 weight_of<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

/* Rows of `cols` pieces. */
template <typename T, typename S, int N>
static __global__ void __launch_bounds__(THREADS) convert_kernel(piece<T, N> *to, int32_t block, int32_t stride, const piece<S, N> *staging, int32_t from, int32_t rows,
                                                                 int32_t cols) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < (int64_t)rows * cols; i += (int64_t)gridDim.x * THREADS) {
        const int32_t r = from + (int32_t)(i / cols);
        const int64_t row = block ? (int64_t)(r / block) * stride + r % block : r;
        const piece<S, N> in = staging[i];
        piece<T, N> out;
#pragma unroll
        for (int k = 0; k < N; k++) out.of[k] = weight_of<T>(to_f32(in.of[k]));
        to[row * cols + i % cols] = out;
    }
}

template <typename T, typename S, int N>
static cudaError_t convert(void *to, int32_t block, int32_t stride, const void *staging, int32_t from, int32_t rows, int32_t cols, cudaStream_t stream) {
    const int64_t blocks = ((int64_t)rows * cols / N + THREADS - 1) / THREADS;
    convert_kernel<T, S, N><<<(unsigned)(blocks < BLOCKS_MOST ? blocks : BLOCKS_MOST), THREADS, 0, stream>>>((piece<T, N> *)to, block, stride, (const piece<S, N> *)staging,
                                                                                                       from, rows, cols / N);
    return cudaGetLastError();
}

template <typename T, int N>
static cudaError_t convert_to(void *to, int32_t block, int32_t stride, const void *staging, rv_dtype type, int32_t from, int32_t rows, int32_t cols,
                              cudaStream_t stream) {
    if (type == RV_F32) return convert<T, float, N>(to, block, stride, staging, from, rows, cols, stream);
    if (type == RV_F16) return convert<T, __half, N>(to, block, stride, staging, from, rows, cols, stream);
    if (type == RV_BF16) return convert<T, __nv_bfloat16, N>(to, block, stride, staging, from, rows, cols, stream);
    return cudaErrorInvalidValue;
}

cudaError_t rv_cuda_convert(void *to, rv_dtype act, int32_t block, int32_t stride, const void *staging, rv_dtype type, int32_t from, int32_t rows, int32_t cols,
                            cudaStream_t stream) {
    const bool by_eight = cols % 8 == 0 && (uintptr_t)to % 16 == 0;
    if (act == RV_F16)
        return by_eight ? convert_to<__half, 8>(to, block, stride, staging, type, from, rows, cols, stream)
                        : convert_to<__half, 1>(to, block, stride, staging, type, from, rows, cols, stream);
    return by_eight ? convert_to<__nv_bfloat16, 8>(to, block, stride, staging, type, from, rows, cols, stream)
                    : convert_to<__nv_bfloat16, 1>(to, block, stride, staging, type, from, rows, cols, stream);
}

/* ---- NaN and infinity ---- */

/* The sign left out, a number is bad from these bits on. 65520 is the first that f16 rounds to infinity. */
static uint32_t bad_from(rv_dtype type, bool in_f16) {
    if (type == RV_F32) return in_f16 ? 0x477ff000u : 0x7f800000u;
    if (type == RV_F16) return 0x7c007c00u;
    return in_f16 ? 0x47804780u : 0x7f807f80u;
}

template <bool HALVES> static __device__ __forceinline__ uint32_t bad_in(uint32_t bits, uint32_t from) {
    return HALVES ? __vcmpgeu2(bits & 0x7fff7fffu, from) : (bits & 0x7fffffffu) >= from;
}
template <bool HALVES> static __device__ __forceinline__ uint32_t bad_in(uint4 v, uint32_t from) {
    return bad_in<HALVES>(v.x, from) | bad_in<HALVES>(v.y, from) | bad_in<HALVES>(v.z, from) | bad_in<HALVES>(v.w, from);
}

/* Runs of `cols` pieces, `pitch` of them apart. */
template <bool HALVES, typename P>
static __global__ void __launch_bounds__(THREADS) find_kernel(const P *data, int64_t rows, int64_t cols, int64_t pitch, uint32_t from, int32_t index, int32_t *first) {
    uint32_t bad = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < rows * cols; i += (int64_t)gridDim.x * THREADS)
        bad |= bad_in<HALVES>(data[i / cols * pitch + i % cols], from);
    if (bad) atomicMin(first, index);
}

template <bool HALVES, typename P>
static cudaError_t find_bad(const void *data, int64_t rows, int64_t cols, int64_t pitch, uint32_t from, int32_t index, int32_t *first, cudaStream_t stream) {
    const int64_t blocks = (rows * cols + THREADS - 1) / THREADS;
    find_kernel<HALVES, P><<<(unsigned)(blocks < BLOCKS_MOST ? blocks : BLOCKS_MOST), THREADS, 0, stream>>>((const P *)data, rows, cols, pitch, from, index, first);
    return cudaGetLastError();
}

cudaError_t rv_cuda_find_bad(const void *data, rv_dtype type, int64_t rows, int64_t cols, int64_t pitch, bool in_f16, int32_t index, int32_t *first, cudaStream_t stream) {
    const uint32_t from = bad_from(type, in_f16);
    const int64_t each = 16 / (int64_t)rv_dtype_size(type);
    const bool whole = cols % each == 0 && pitch % each == 0 && (uintptr_t)data % 16 == 0;
    if (type == RV_F32)
        return whole ? find_bad<false, uint4>(data, rows, cols / each, pitch / each, from, index, first, stream)
                     : find_bad<false, uint32_t>(data, rows, cols, pitch, from, index, first, stream);
    return whole ? find_bad<true, uint4>(data, rows, cols / each, pitch / each, from, index, first, stream)
                 : find_bad<true, uint16_t>(data, rows, cols, pitch, from, index, first, stream);
}
