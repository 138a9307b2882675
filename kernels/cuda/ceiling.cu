/* ceiling.cu - kernels that only show what the memory can do; peak.c times them. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cuda.h"

enum { THREADS = 512, LOADS = 4 };

/* Bell-shaped values of both signs: a product of zeros takes less power, and runs faster, than any real one. */
static __global__ void fill_kernel(uint16_t *p, size_t n, bool half) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += step) {
        uint64_t z = i * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 27;
        float x = ((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f;
        if (half) reinterpret_cast<__half *>(p)[i] = __float2half_rn(x);
        else reinterpret_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(x);
    }
}

/* The sum decides whether something is written, so that no load can be left out. */
static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sink) {
    uint32_t s = 0;
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += LOADS * step)
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            if (i + (size_t)j * step < n) {
                uint4 x = p[i + (size_t)j * step];
                s ^= x.x ^ x.y ^ x.z ^ x.w;
            }
    if (s == 0x12345678u) *sink = s;
}

cudaError_t rv_cuda_fill_random(void *data, uint64_t bytes, rv_dtype act, cudaStream_t stream) {
    fill_kernel<<<1024, 256, 0, stream>>>((uint16_t *)data, bytes / 2, act == RV_F16);
    return cudaGetLastError();
}

cudaError_t rv_cuda_read_all(const void *data, uint64_t bytes, void *sink, int32_t blocks, cudaStream_t stream) {
    read_kernel<<<(unsigned)blocks, THREADS, 0, stream>>>((const uint4 *)data, bytes / sizeof(uint4), (uint32_t *)sink);
    return cudaGetLastError();
}
