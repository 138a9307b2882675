/* decode.cu - attention for a few rows against many keys, for 8.0 and newer. */
#define RV_DECODE(name) rv_cuda_##name
#define RV_DECODE_KERNEL decode_kernel
#include "kernels/cuda/decode.inl"

uint64_t rv_cuda_decode_bytes(int32_t rows, int32_t heads, int32_t head_dim, int32_t longest) {
    if (splits_of(longest) > MOST_SPLITS) return UINT64_MAX;             /* no room in which to merge so many */
    uint64_t parts = (uint64_t)rows * (uint64_t)heads * (uint64_t)splits_of(longest);
    return COUNTERS * sizeof(int32_t) + parts * ((uint64_t)head_dim + 2) * sizeof(float);
}

RV_CUDA_CLAMPED(decode)
