/* dtype.h - the number formats that cross a folder's border, and their 16-bit conversions. */
#ifndef RV_BASE_DTYPE_H
#define RV_BASE_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { RV_F32, RV_F16, RV_BF16, RV_I8, RV_U8, RV_I32, RV_I64, RV_DTYPE_COUNT } rv_dtype;

/* 0 for what is no type of these (RV_DTYPE_COUNT: what a file has and the engine does not compute with). */
static inline size_t rv_dtype_size(rv_dtype type) {
    static const uint8_t bytes[RV_DTYPE_COUNT] = { 4, 2, 2, 1, 1, 4, 8 };
    return (unsigned)type < RV_DTYPE_COUNT ? bytes[type] : 0;
}

/* Whether it is one of the three types that numbers of a model have. */
static inline bool rv_dtype_is_float(rv_dtype type) { return type == RV_F32 || type == RV_F16 || type == RV_BF16; }

static inline float rv_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; NaN stays NaN (quiet). */
static inline uint16_t rv_f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float rv_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, mantissa = h & 0x3ffu, bits;
    if (exponent == 0x1fu) bits = sign | 0x7f800000u | mantissa << 13;
    else if (exponent) bits = sign | (exponent + 112u) << 23 | mantissa << 13;
    else {                                             /* zero and subnormals: mantissa * 2^-24 */
        float f = (float)mantissa * 5.9604644775390625e-8f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; beyond +-65504 saturates (infinity too), NaN stays NaN. */
static inline uint16_t rv_f32_to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7bffu);          /* would round beyond 65504 */
    if (bits >= 0x38800000u)                                               /* normal in f16 */
        return (uint16_t)(sign | (((bits + 0xfffu + (bits >> 13 & 1u)) >> 13) - (112u << 10)));
    float magnitude, shifted;                                              /* subnormal: let the f32 adder round */
    memcpy(&magnitude, &bits, sizeof magnitude);
    shifted = magnitude + 0.5f;                                            /* one ulp of 0.5 is 2^-24 */
    memcpy(&bits, &shifted, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000u));
}
#endif
