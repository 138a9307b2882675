/* kernels_avx2.c - the kernels for AVX2, FMA and F16C (CMakeLists.txt sets the flags). */
#if defined(__x86_64__)
#define RV_KERNELS rv_cpu_avx2
#define RV_KERNELS_NAME "avx2"
#include "kernels/cpu/kernels.inl"
#else
typedef int rv_nothing;                          /* no x86: an empty file is no C                */
#endif
