/* gpu.h - what the programs that look at kernels on a GPU share: calls that must work, random numbers, 16-bit types on the host. */
#ifndef TESTS_GPU_GPU_H
#define TESTS_GPU_GPU_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"

#define MUST(call)                                                                                          \
    do {                                                                                                    \
        cudaError_t e_ = (call);                                                                            \
        if (e_ != cudaSuccess) {                                                                            \
            printf("FAILED %s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_));            \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

/* Host to device and filling, done when they return: streams that do not wait for the legacy one could overtake what CUDA's
 * own calls only have begun (a pageable copy returns once it is staged, a fill at once). */
static inline cudaError_t put(void *to, const void *from, size_t bytes) {
    cudaError_t e = cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);
    return e ? e : cudaStreamSynchronize(cudaStreamLegacy);
}
static inline cudaError_t set(void *to, int value, size_t bytes) {
    cudaError_t e = cudaMemset(to, value, bytes);
    return e ? e : cudaStreamSynchronize(cudaStreamLegacy);
}
static inline cudaError_t set2d(void *to, size_t pitch, int value, size_t width, size_t height) {
    cudaError_t e = cudaMemset2D(to, pitch, value, width, height);
    return e ? e : cudaStreamSynchronize(cudaStreamLegacy);
}

/* To be given back with cudaFree. */
template <typename V> static V *to_device(const std::vector<V> &x) {
    V *p = nullptr;
    MUST(cudaMalloc(&p, std::max<size_t>(x.size(), 1) * sizeof(V)));
    MUST(put(p, x.data(), x.size() * sizeof(V)));
    return p;
}

/* The same numbers in every run. */
static inline uint32_t random32() {
    static uint64_t seed = 1;
    seed += 0x9e3779b97f4a7c15ull;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(z >> 32);
}

static inline uint16_t pack(float x, rv_dtype type) {
    uint16_t bits;
    if (type == RV_F16) {
        __half h = __float2half_rn(x);
        memcpy(&bits, &h, 2);
    } else {
        __nv_bfloat16 b = __float2bfloat16_rn(x);
        memcpy(&bits, &b, 2);
    }
    return bits;
}
#endif
