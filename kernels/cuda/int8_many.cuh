/* int8_many.cuh - marks, for whoever sets, reads or wipes them; what both ways of adding outliers to products of many rows have in common. */
#ifndef RV_KERNELS_CUDA_INT8_MANY_CUH
#define RV_KERNELS_CUDA_INT8_MANY_CUH
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/int8_many.h"

/* Words of marks that columns have. */
static __device__ __forceinline__ int32_t column_words(int32_t pitch) { return (pitch + 31) / 32; }

/* All blocks have read marks when the last one comes here, who wipes them for the next product: of n rows.  Called by `threads` of a block, of which this has number `me`, when they have met;
 * meet: lets them meet.  last: shared. */
template <typename M> static __device__ __forceinline__ void wipe_marks(uint32_t *marks, int32_t pitch, int32_t n, int32_t me, int32_t threads, int32_t *last, M meet) {
    const int32_t all = column_words(pitch) + RV_CUDA_MARKS_DENSE + (n + 31) / 32;
    if (me == 0) {
        int32_t before;
        asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(marks + column_words(pitch) + RV_CUDA_MARKS_DONE) : "memory");
        *last = before == (int32_t)gridDim.x - 1;
    }
    meet();
    if (*last)
        for (int32_t i = me; i < all; i += threads) marks[i] = 0;
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
