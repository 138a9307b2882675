/* simd.h - vectors of RV_LANES floats, for kernels.inl, and for who else has a hundred thousand numbers (engine/sample.c).
 *
 * The one idea: GCC's and Clang's vector types give plain operators at any width; only what they
 * lack (f16, maximum, bf16 dot products) is written per instruction set, chosen by the flags the
 * including file is compiled with.
 */
#ifndef RV_KERNELS_CPU_SIMD_H
#define RV_KERNELS_CPU_SIMD_H
#include <stdint.h>
#include <string.h>
#include "engine/base/dtype.h"
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define RV_LANES 16
#elif defined(__AVX2__)
#define RV_LANES 8
#else
#define RV_LANES 4
#endif
#define ALWAYS static inline __attribute__((always_inline))

typedef float    vf __attribute__((vector_size(4 * RV_LANES)));
typedef int32_t  vi __attribute__((vector_size(4 * RV_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * RV_LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * RV_LANES)));
typedef float    vf4 __attribute__((vector_size(16)));

ALWAYS vf vf_set(float x) { return x - (vf){ 0 }; }
ALWAYS vf vf_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
ALWAYS void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
ALWAYS vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* b where either is NaN */
ALWAYS vf vf_max(vf a, vf b) {
#if RV_LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif RV_LANES == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vf_select(a > b, a, b);
#endif
}

ALWAYS vf vf_from_bf16(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }

/* Element i of p, in steps of RV_LANES.  `type` is a constant where this is inlined. */
ALWAYS vf vf_load_as(const void *p, rv_dtype type, int64_t i) {
    vf v;
    vh h;
    if (type == RV_F32) {
        memcpy(&v, (const char *)p + 4 * i, sizeof v);
        return v;
    }
    memcpy(&h, (const char *)p + 2 * i, sizeof h);
    if (type == RV_BF16) return vf_from_bf16(h);
#if RV_LANES == 16
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif RV_LANES == 8
    return (vf)_mm256_cvtph_ps((__m128i)h);
#else
    for (int j = 0; j < RV_LANES; j++) v[j] = rv_f16_to_f32(h[j]);
    return v;
#endif
}

/* Elements i .. i+n-1, n < RV_LANES, then zeros. */
ALWAYS vf vf_load_part(const void *p, rv_dtype type, int64_t i, int64_t n) {
    uint32_t room[RV_LANES] = { 0 };
    size_t size = type == RV_F32 ? 4 : 2;
    memcpy(room, (const char *)p + (size_t)i * size, (size_t)n * size);
    return vf_load_as(room, type, 0);
}

/* As rv_f32_to_bf16. */
ALWAYS vh vf_to_bf16(vf v) {
    vu bits = (vu)v, round = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
    vu nan = (vu)((bits & 0x7fffffffu) > 0x7f800000u);
    return __builtin_convertvector((nan & quiet) | (~nan & round), vh);
}

ALWAYS void vf_store_as(void *p, rv_dtype type, int64_t i, vf v) {
    if (type == RV_F32) {
        memcpy((char *)p + 4 * i, &v, sizeof v);
    } else {
        vh h = vf_to_bf16(v);
        memcpy((char *)p + 2 * i, &h, sizeof h);
    }
}

ALWAYS void vf_store_part(void *p, rv_dtype type, int64_t i, int64_t n, vf v) {
    uint32_t room[RV_LANES];
    size_t size = type == RV_F32 ? 4 : 2;
    vf_store_as(room, type, 0, v);
    memcpy((char *)p + (size_t)i * size, room, (size_t)n * size);
}

/* The sum of all lanes, in one fixed order. */
ALWAYS float vf_sum(vf v) {
    vf4 q[RV_LANES / 4], s;
    memcpy(q, &v, sizeof v);
#if RV_LANES == 16
    s = (q[0] + q[1]) + (q[2] + q[3]);
#elif RV_LANES == 8
    s = q[0] + q[1];
#else
    s = q[0];
#endif
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* The largest lane; NaNs do not count unless in the last lanes compared. */
ALWAYS float vf_largest(vf v) {
    float m = v[0];
    for (int i = 1; i < RV_LANES; i++) m = v[i] > m ? v[i] : m;
    return m;
}

/* e^x is the result times 2^e; -104 <= x <= 89. */
ALWAYS vf vf_exp_parts(vf x, vi *e) {
    const vf magic = vf_set(12582912.0f);        /* 1.5 * 2^23                                     */
    vf n = x * 1.44269504f + magic;
    *e = (vi)((vu)n - (vu)magic);
    n -= magic;
    vf r = x - n * 0.693145752f;                 /* ln 2 in two parts: the first has 12 zero bits  */
    r = r - n * 1.42860682e-6f;
    vf p = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
    p = p * r + (1.0f / 120.0f);
    p = p * r + (1.0f / 24.0f);
    p = p * r + (1.0f / 6.0f);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}

/* e^x, 1 ulp; 0 below -104, infinity above 89, NaN for NaN. */
ALWAYS vf vf_exp(vf x) {
    const vf low = vf_set(-104.0f), high = vf_set(89.0f);
    vi e;
    x = vf_select(x < low, low, x);
    x = vf_select(x > high, high, x);
    vf p = vf_exp_parts(x, &e);
    vi half = e >> 1;                            /* two factors: 2^e itself may not be a number    */
    p = p * (vf)(((vu)half + 127u) << 23);
    return p * (vf)(((vu)e - (vu)half + 127u) << 23);
}

/* The same of x whose exponential is a normal number, -87 <= x <= 88. */
ALWAYS vf vf_exp_normal(vf x) {
    vi e;
    vf p = vf_exp_parts(x, &e);
    return p * (vf)(((vu)e + 127u) << 23);
}
#endif
