/* kernels_avx512.c - the kernels for AVX-512 F, BW, DQ and VL (CMakeLists.txt sets the flags). */
#if defined(__x86_64__)
#define RV_KERNELS rv_cpu_avx512
#define RV_KERNELS_NAME "avx512"
#include "kernels/cpu/kernels.inl"
#else
typedef int rv_nothing;                          /* no x86: an empty file is no C                */
#endif
