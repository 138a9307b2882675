/* decode70.cu - attention for a few rows against many keys, for Volta. */
#define RV_CUDA_VOLTA 1
#define RV_DECODE(name) rv_cuda_##name##70
#define RV_DECODE_KERNEL decode70_kernel
#include "kernels/cuda/decode.inl"

RV_CUDA_CLAMPED(decode70)
