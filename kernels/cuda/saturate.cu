/* saturate.cu - f16 values beyond +-65504: what products of many rows left, and how many there were. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/int8_many.h"

enum { THREADS = 256 };

template <int N> struct alignas(2 * N) piece { uint16_t of[N]; };

/* N neighbours a thread; written back only where something is clamped. */
template <int N> static __global__ void clamp_kernel(uint16_t *x, int32_t rows, int32_t cols, int64_t ld) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x) * N;
    if (c >= cols) return;
    for (int32_t r = (int32_t)blockIdx.y; r < rows; r += (int32_t)gridDim.y) {
        piece<N> *at = (piece<N> *)(x + r * ld + c), p = *at;
        unsigned clamped = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            if ((p.of[i] & 0x7fff) == 0x7c00) p.of[i]--, clamped++;        /* the number before infinity */
        if (!clamped) continue;
        count_clamped(clamped);
        *at = p;
    }
}

cudaError_t rv_cuda_clamp(rv_mat x, cudaStream_t stream) {
    bool by_eight = x.cols % 8 == 0 && x.ld % 8 == 0 && (uintptr_t)x.data % 16 == 0;
    int32_t pieces = by_eight ? x.cols / 8 : x.cols;
    dim3 grid((unsigned)((pieces + THREADS - 1) / THREADS), (unsigned)(x.rows < 65535 ? x.rows : 65535));
    if (by_eight) clamp_kernel<8><<<grid, THREADS, 0, stream>>>((uint16_t *)x.data, x.rows, x.cols, x.ld);
    else clamp_kernel<1><<<grid, THREADS, 0, stream>>>((uint16_t *)x.data, x.rows, x.cols, x.ld);
    return cudaGetLastError();
}

static RV_CUDA_CLAMPED(here)

/* Files that count, and whose set they are of: a set's code runs on its own GPUs and all newer ones, Hopper's on 9.0 alone. */
static const struct { int32_t set; void *(*counter)(void); } files[] = {
    { 70, rv_cuda_clamped_int8 }, { 70, rv_cuda_clamped_rows }, { 70, rv_cuda_clamped_here }, { 70, rv_cuda_clamped_few70 }, { 70, rv_cuda_clamped_few4_70 },
    { 70, rv_cuda_clamped_few8_70 }, { 70, rv_cuda_clamped_many8_70 }, { 70, rv_cuda_clamped_decode70 },
    { 80, rv_cuda_clamped_few }, { 80, rv_cuda_clamped_few4 }, { 80, rv_cuda_clamped_few8 }, { 80, rv_cuda_clamped_decode },
#if RV_CUDA_SM90
    { 90, rv_cuda_clamped_gemm90 }, { 90, rv_cuda_clamped_four90 }, { 90, rv_cuda_clamped_few4_90 }, { 90, rv_cuda_clamped_few8_90 }, { 90, rv_cuda_clamped_int8_90 }, { 90, rv_cuda_clamped_int8_f16_90 },
    { 90, rv_cuda_clamped_outliers90 }, { 90, rv_cuda_clamped_stream90 }, { 90, rv_cuda_clamped_stream8_90 }, { 90, rv_cuda_clamped_stream4_90 },
#endif
};

cudaError_t rv_cuda_clamped(uint64_t *sum, int32_t capability, cudaStream_t stream) {
    *sum = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (files[i].set == 90 ? capability != 90 : capability < files[i].set) continue;
        void *const counter = files[i].counter();
        uint64_t n = 0;
        if (!counter) return cudaErrorInvalidSymbol;
        cudaError_t e = cudaMemcpyAsync(&n, counter, sizeof n, cudaMemcpyDeviceToHost, stream);
        if (!e) e = cudaStreamSynchronize(stream);
        if (e) return e;
        *sum += n;
    }
    return cudaSuccess;
}
