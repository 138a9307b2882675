/* int8_many.cuh - what both ways of adding outliers to products of many rows have in common. */
#ifndef RV_KERNELS_CUDA_INT8_MANY_CUH
#define RV_KERNELS_CUDA_INT8_MANY_CUH
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/int8_many.h"

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
