/* kernels_avx512_bf16.c - as kernels_avx512.c, with dot products of bf16 and of bytes (VNNI). */
#if defined(__x86_64__)
#define RV_KERNELS rv_cpu_avx512_bf16
#define RV_KERNELS_NAME "avx512-bf16"
#define RV_DOT_BF16
#include "kernels/cpu/kernels.inl"
#else
typedef int rv_nothing;                          /* no x86: an empty file is no C                */
#endif
