/* int8_many.cuh - what both ways of adding outliers to products of many rows have in common. */
#ifndef RV_KERNELS_CUDA_INT8_MANY_CUH
#define RV_KERNELS_CUDA_INT8_MANY_CUH
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/int8_many.h"

/* A block has read marks: how many had before.  By one thread, that has met those who read. */
static __device__ __forceinline__ int32_t arrive_at_marks(uint32_t *marks, int32_t pitch) {
    int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(marks + rv_cuda_int8_done_at(pitch)) : "memory");
    return before;
}

/* Two weights, rounded. */
static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __half) {
    const __half2 h = __floats2half2_rn(a, b);
    return *(const uint32_t *)&h;
}
static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __nv_bfloat16) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *(const uint32_t *)&h;
}
#endif
