/* detect.c - what this CPU can do, and which kernels that selects.
 *
 * The one idea: a feature counts only when the CPU has it and the system saves its registers
 * (XCR0; for AMX's tiles Linux also wants to be asked once a process).
 */
#include "kernels/cpu/cpu.h"
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XFEATURE_TILE_DATA = 18 };   /* asm/prctl.h; not in older headers */

static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool tiles_permitted(void) {
#if defined(__linux__)
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_TILE_DATA) == 0;
#else
    return false;
#endif
}

rv_cpu_features rv_cpu_detect(void) {
    rv_cpu_features f = { 0 };
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return f;           /* OSXSAVE */
    uint64_t saved = saved_registers();
    bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
    bool fma = c >> 12 & 1, f16c = c >> 29 & 1;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
    f.f16c = ymm && f16c;
    f.fma = ymm && fma;
    f.avx2 = ymm && (b >> 5 & 1);
    f.avx512 = zmm && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);   /* F, DQ, BW, VL */
    f.avx512_vbmi = f.avx512 && (c >> 1 & 1);
    f.avx512_vnni = f.avx512 && (c >> 11 & 1);
    if (tiles && (d >> 24 & 1) && tiles_permitted()) {
        f.amx_bf16 = d >> 22 & 1;
        f.amx_int8 = d >> 25 & 1;
    }
    uint32_t leaves = a;
    if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512_bf16 = f.avx512 && (a >> 5 & 1);
    return f;
}
#else
rv_cpu_features rv_cpu_detect(void) { return (rv_cpu_features){ 0 }; }
#endif

bool rv_cpu_has_level(rv_cpu_level level) {
    rv_cpu_features f = rv_cpu_detect();
    bool avx2 = f.avx2 && f.fma && f.f16c;
    switch (level) {
    case CPU_REFERENCE:
    case CPU_BASE: return true;
    case CPU_AVX2: return avx2;
    case CPU_AVX512: return avx2 && f.avx512;
    case CPU_AVX512_BF16: return avx2 && f.avx512_bf16 && f.avx512_vnni;
    case CPU_AMX: return avx2 && f.avx512_bf16 && f.avx512_vnni && f.avx512_vbmi && f.amx_bf16;
    default: return false;
    }
}
