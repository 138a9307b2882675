/* kernels_amx.c - as kernels_avx512_bf16.c, with products and attention of many rows on AMX's tiles. */
#if defined(__x86_64__)
#define RV_KERNELS rv_cpu_amx
#define RV_KERNELS_NAME "amx"
#define RV_DOT_BF16
#define RV_TILES
#include "kernels/cpu/kernels.inl"
#else
typedef int rv_nothing;                          /* no x86: an empty file is no C                */
#endif
