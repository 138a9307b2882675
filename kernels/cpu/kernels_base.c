/* kernels_base.c - the kernels in 16-byte vectors: any x86-64, and CPUs that are none. */
#define RV_KERNELS rv_cpu_base
#define RV_KERNELS_NAME "base"
#include "kernels/cpu/kernels.inl"
