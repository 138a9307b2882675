/* int8_f16_90.cu - products of int8_90.cuh in f16. */
#include "kernels/cuda/int8_90.cuh"

template cudaError_t launch_int8_90<__half>(const rv_int8 *, const rv_int8_many *, const args8 &, bool, cudaStream_t);
RV_CUDA_CLAMPED(int8_f16_90)
