/* absent.cuh - values that tell by themselves whether they have come.
 *
 * The one idea: before it comes, all bits of a value are ones, a NaN that no arithmetic and no conversion leaves.  So who waits for values that other blocks of his launch
 * make asks for them at once, not first for a gate behind which he may ask, and nobody fences.
 */
#ifndef RV_KERNELS_CUDA_ABSENT_CUH
#define RV_KERNELS_CUDA_ABSENT_CUH
#include <stdint.h>

enum : uint32_t { ABSENT = ~0u };

static __device__ __forceinline__ float look(const float *p) {
    float v;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
}
static __device__ __forceinline__ uint16_t look(const uint16_t *p) {
    uint16_t v;
    asm volatile("ld.relaxed.gpu.global.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
}
static __device__ __forceinline__ uint32_t look(const uint32_t *p) {
    uint32_t v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
static __device__ __forceinline__ uint4 look(const uint4 *p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
static __device__ __forceinline__ bool is_absent(float v) { return __float_as_uint(v) == ABSENT; }
static __device__ __forceinline__ bool is_absent(uint16_t v) { return v == 0xffff; }
/* Any of two, of eight values of 16 bits. */
static __device__ __forceinline__ uint32_t absent_half(uint32_t w) { return (~w - 0x00010001u) & w & 0x80008000u; }
static __device__ __forceinline__ bool is_absent(uint32_t v) { return absent_half(v) != 0; }
static __device__ __forceinline__ bool is_absent(const uint4 &v) { return (absent_half(v.x) | absent_half(v.y) | absent_half(v.z) | absent_half(v.w)) != 0; }

static __device__ __forceinline__ void forget(float &v) { v = __uint_as_float(ABSENT); }
static __device__ __forceinline__ void forget(uint16_t &v) { v = 0xffff; }
static __device__ __forceinline__ void forget(uint4 &v) { v.x = ABSENT; }

/* The i-th of N: at(i), asked for again where it is absent so far. */
template <int N, typename V, typename A> static __device__ __forceinline__ void look_again(V (&v)[N], A at) {
#pragma unroll
    for (int32_t i = 0; i < N; i++)
        if (is_absent(v[i])) v[i] = look(at(i));
}
/* The i-th of N: at(i), once it has come, where it is absent so far.  All that are missing are asked for at once. */
template <int N, typename V, typename A> static __device__ __forceinline__ void take_missing(V (&v)[N], A at) {
    bool missing;
    do {
        missing = false;
        look_again(v, at);
#pragma unroll
        for (int32_t i = 0; i < N; i++) missing = missing || is_absent(v[i]);
    } while (missing);
}
/* The same where is(i). */
template <int N, typename V, typename A, typename I> static __device__ __forceinline__ void take_when_come(V (&v)[N], A at, I is) {
#pragma unroll
    for (int32_t i = 0; i < N; i++)
        if (is(i)) forget(v[i]);
    take_missing(v, at);
}
#endif
