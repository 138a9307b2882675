/* int8.cuh - a row of activations as LLM.int8 codes, by a block of 256 threads: in a product's own prologue, or before it.
 *
 * The one idea: whoever quantises a row, these are the operations (engine/base/quant.h: rv_int8_activations), so a row's
 * codes never depend on who did it.  Outliers become a list of (column, value) in ascending order, whose place is found by
 * counting; where there are none, as for most rows, nothing is counted.
 */
#ifndef RV_KERNELS_CUDA_INT8_CUH
#define RV_KERNELS_CUDA_INT8_CUH
#include <type_traits>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/checked.cuh"
#include "kernels/cuda/cuda.h"

enum { QUANTISERS = 256,                 /* threads                                             */
       PIECE = 8,                        /* neighbours that one thread has                      */
       PIECES_HELD = 7,                  /* of a row, a thread's in registers: 14336 columns    */
       NEAR = 256,                       /* a list of fewer entries may lie in shared memory    */
       SLICES = RV_CUDA_INT8_SLICES };   /* of a row's columns, of each of which outliers are added up apart */

/* Barriers of the threads that quantise: the first of a block, whatever else it has. */
static __device__ __forceinline__ void quantisers_meet() { asm volatile(RV_BAR ".sync 1, %0;" ::"n"((int)QUANTISERS) : "memory"); }
static __device__ __forceinline__ bool quantisers_any(bool x) {
    int32_t any;
    asm volatile("{.reg .pred x, any; setp.ne.b32 x, %1, 0; " RV_BAR ".red.or.pred any, 1, %2, x; selp.b32 %0, 1, 0, any;}"
                 : "=r"(any) : "r"((int32_t)x), "n"((int)QUANTISERS) : "memory");
    return any;
}

/* Outliers of a row: entries column | value << 16 in ascending order, closed by ~0. */
static __device__ __forceinline__ int32_t column_of(uint32_t entry) { return (int32_t)(entry & 0xffff); }
template <typename T> static __device__ __forceinline__ float value_of(uint32_t entry) {
    const uint16_t bits = (uint16_t)(entry >> 16);
    return to_f32(*(const T *)&bits);
}
/* Where a list that the block itself wrote lies: in `near`, NEAR entries of shared memory, or NULL, while it fits there. */
static __device__ __forceinline__ uint32_t *list_of(int32_t outliers, uint32_t *near, uint32_t *far) { return near && outliers < NEAR ? near : far; }
struct list_place {
    uint32_t *near, *far;
    __device__ __forceinline__ uint32_t *operator()(int32_t all, int32_t i) const { return list_of(all, near, far) + i; }
};
/* Where slice s begins, in steps of 128 columns of `steps`. */
static __host__ __device__ __forceinline__ constexpr int32_t slice_start(int32_t steps, int32_t s) { return steps * s / SLICES; }

/* Two neighbours, cast to f16. */
static __device__ __forceinline__ float2 through_f16(uint32_t pair, __half) { return __half22float2(*(const __half2 *)&pair); }
static __device__ __forceinline__ float2 through_f16(uint32_t pair, __nv_bfloat16) {
    return __half22float2(__float22half2_rn(make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u))));
}

/* The same as two values of f16. */
static __device__ __forceinline__ uint32_t half_pair(uint32_t pair, __half) { return pair; }
static __device__ __forceinline__ uint32_t half_pair(uint32_t pair, __nv_bfloat16) {
    const __half2 h = __float22half2_rn(make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)));
    return *(const uint32_t *)&h;
}
/* The larger of either half's magnitudes; NaN is larger than all. */
static __device__ __forceinline__ uint32_t most_pair(uint32_t most, uint32_t pair) {
#if __CUDA_ARCH__ >= 800
    const __half2 m = __hmax2_nan(*(const __half2 *)&most, __habs2(*(const __half2 *)&pair));
    return *(const uint32_t *)&m;
#else
    return __vmaxu2(most, pair & 0x7fff7fff);
#endif
}

/* All ones in halves that are below the limit's in magnitude; NaN is not. */
static __device__ __forceinline__ uint32_t below_pair(uint32_t pair, uint32_t limit) {
    const __half2 magnitude = __habs2(*(const __half2 *)&pair);
    uint32_t below;
    asm("set.lt.u32.f16x2 %0, %1, %2;" : "=r"(below) : "r"(*(const uint32_t *)&magnitude), "r"(limit));
    return below;
}

/* Two neighbours of the act type. */
static __device__ __forceinline__ float2 pair_of(uint32_t bits, __half) { return __half22float2(*(const __half2 *)&bits); }
static __device__ __forceinline__ float2 pair_of(uint32_t bits, __nv_bfloat16) { return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)); }

/* Largest over the block, in every thread. */
static __device__ __forceinline__ float block_most(float v, float *shared) {
    for (int m = 16; m; m >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, m));
    quantisers_meet();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    quantisers_meet();
    v = shared[0];
    for (int w = 1; w < QUANTISERS / 32; w++) v = fmaxf(v, shared[w]);
    return v;
}

/* What counts as an outlier; 0: nothing does. */
struct int8_limit {
    float threshold;
    const uint8_t *by_call;              /* a bit a column: outliers of the whole call; NULL: each row's own */
    __device__ __forceinline__ bool counts(float magnitude) const { return threshold == 0.f || magnitude < threshold; }
    __device__ __forceinline__ bool outlier(float magnitude) const { return threshold != 0.f && magnitude >= threshold; }
};

/* The rounding of quant.c's rintf by an addition: exact for what codes can be. */
static __device__ __forceinline__ uint32_t code_bits(float x, float scale) { return __float_as_uint(__fadd_rn(__fmul_rn(x, scale), 12582912.f)) & 0xff; }

template <typename T> static __device__ __forceinline__ float piece_most(const int8_limit &l, uint4 v, float most) {
    const uint32_t pairs[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = through_f16(pairs[i], T());
        f.x = fabsf(f.x), f.y = fabsf(f.y);
        if (l.counts(f.x)) most = fmaxf(most, f.x);
        if (l.counts(f.y)) most = fmaxf(most, f.y);
    }
    return most;
}

/* Codes of a piece; *marks: a bit an outlier, given where the call decides. */
template <typename T> static __device__ __forceinline__ uint2 piece_codes(const int8_limit &l, uint4 v, float scale, uint32_t *marks) {
    const uint32_t pairs[4] = { v.x, v.y, v.z, v.w };
    const float limit = l.threshold == 0.f ? __int_as_float(0x7f800000) : l.threshold;
    uint32_t code[2] = { 0, 0 };
    uint32_t own = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float2 f = through_f16(pairs[i / 2], T());
        const float x = i % 2 ? f.y : f.x;
        own |= (uint32_t)l.outlier(fabsf(x)) << i;
        const bool coded = fabsf(x) < limit && !(l.by_call && *marks >> i & 1);      /* not NaN, nor infinite */
        code[i / 4] |= code_bits(coded ? x : 0.f, scale) << i % 4 * 8;
    }
    if (!l.by_call) *marks = own;
    return make_uint2(code[0], code[1]);
}

/* The block's outliers, whose bits are in shared memory, as a list; their number.  place(all, i): where entry i of so many goes, or NULL: nowhere.
 * value(column): its 16 bits. */
template <typename L, typename V>
static __device__ __forceinline__ int32_t write_list(const uint32_t *marks, int32_t words, L place, int32_t *shared, V value) {
    auto put = [&](int32_t all, int32_t i, uint32_t entry) {
        uint32_t *to = place(all, i);
        if (to) *to = entry;
    };
    const int32_t per = (words + QUANTISERS - 1) / QUANTISERS, from = (int32_t)threadIdx.x * per, lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    int32_t mine = 0;
    for (int32_t i = from; i < from + per && i < words; i++) mine += __popc(marks[i]);
    int32_t before = mine;
#pragma unroll
    for (int m = 1; m < 32; m *= 2) {
        int32_t other = __shfl_up_sync(~0u, before, m);
        if (lane >= m) before += other;
    }
    if (lane == 31) shared[warp] = before;
    quantisers_meet();
    int32_t all = 0;
    for (int w = 0; w < QUANTISERS / 32; w++) {
        if (w == warp) before += all;
        all += shared[w];
    }
    int32_t at = before - mine;
    for (int32_t i = from; i < from + per && i < words; i++)
        for (uint32_t bits = marks[i]; bits; bits &= bits - 1) {
            int32_t k = i * 32 + __ffs((int32_t)bits) - 1;
            put(all, at++, (uint32_t)k | (uint32_t)value(k) << 16);
        }
    if (threadIdx.x == 0) put(all, all, ~0u);
    return all;
}

struct int8_row { float scale; int32_t outliers; };

/* Bytes of shared memory that quantising a row takes; where in it the outliers' bits are. */
static __host__ __device__ constexpr int32_t int8_marks_at() { return 64; }
static __host__ __device__ constexpr int32_t int8_shared_bytes(int32_t pitch) { return int8_marks_at() + (pitch / PIECE + 15) / 16 * 16; }

/* piece(p): the row's columns 8 p .. 8 p + 7, zeros beyond its end; value(k): the 16 bits of column k.  codes: [pitch], its
 * end zeros.  place: write_list's.  room: shared, the outliers' bits in it at int8_marks_at().  What is written to shared memory is there after the caller's barrier. */
template <typename T, typename P, typename V, typename L>
static __device__ __forceinline__ int8_row quantise_row(P piece, V value, int32_t pitch, const int8_limit &l, int8_t *codes, L place, void *room) {
    float *shared = (float *)room;
    uint8_t *marks = (uint8_t *)room + int8_marks_at();
    const int32_t pieces = pitch / PIECE, first = (int32_t)threadIdx.x, rest = first + PIECES_HELD * QUANTISERS, words = (pieces + 3) / 4;
    uint4 held[PIECES_HELD];
    float most = 0;
#pragma unroll
    for (int32_t i = 0; i < PIECES_HELD; i++) held[i] = first + i * QUANTISERS < pieces ? piece(first + i * QUANTISERS) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int32_t i = 0; i < PIECES_HELD; i++)
        if (first + i * QUANTISERS < pieces) most = piece_most<T>(l, held[i], most);
    for (int32_t p = rest; p < pieces; p += QUANTISERS) most = piece_most<T>(l, piece(p), most);
    most = block_most(most, shared);
    const float scale = most > 0 ? __fdiv_rn(127.f, most) : 0.f;
    bool any = false;
    auto write = [&](int32_t p, uint4 v) {
        uint32_t bits = l.by_call ? __ldcg(l.by_call + p) : 0;
        *(uint2 *)(codes + p * PIECE) = piece_codes<T>(l, v, scale, &bits);
        marks[p] = (uint8_t)bits;
        if (bits) any = true;
    };
#pragma unroll
    for (int32_t i = 0; i < PIECES_HELD; i++)
        if (first + i * QUANTISERS < pieces) write(first + i * QUANTISERS, held[i]);
    for (int32_t p = rest; p < pieces; p += QUANTISERS) write(p, piece(p));
    if (first < words * 4 - pieces) marks[pieces + first] = 0;
    int32_t outliers = 0;
    if (quantisers_any(any)) outliers = write_list((const uint32_t *)marks, words, place, (int32_t *)shared, value);
    return { most, outliers };
}

/* Warp s tells how many of a row's outliers, whose bits are in shared memory, come before slice s. */
static __device__ __forceinline__ void tell_starts(const uint32_t *marks, int32_t steps, uint16_t *starts) {
    static_assert(QUANTISERS / 32 == SLICES, "a warp a slice");
    const int32_t slice = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, words = slice_start(steps, slice) * 4;
    int32_t n = 0;
    for (int32_t i = lane; i < words; i += 32) n += __popc(marks[i]);
    for (int m = 16; m; m >>= 1) n += __shfl_xor_sync(~0u, n, m);
    if (lane == 0) starts[slice] = (uint16_t)n;
}

/* To f16 and back, beyond +-65504 clamped and counted in `clamped`; NaN stays. */
static __device__ __forceinline__ float clamp16(float x, int32_t &clamped) {
    clamped += fabsf(x) > 65504.f;
#if __CUDA_ARCH__ >= 800
    asm("min.NaN.f32 %0, %0, 0f477fe000;\n\tmax.NaN.f32 %0, %0, 0fc77fe000;" : "+f"(x));
#else
    x = x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x;
#endif
    return __half2float(__float2half_rn(x));
}

/* y8 of a sum times both scales, rounded as bitsandbytes rounds it, in the act type.  bias: 0 where there is none. */
template <typename T> static __device__ __forceinline__ float int8_biased(float scaled, float bias, int32_t &clamped) {
    if constexpr (std::is_same<T, __half>::value) return clamp16(__fmaf_rn(scaled, RV_INT8_BOTH, bias), clamped);
    float y = clamp16(__fmul_rn(scaled, RV_INT8_BOTH), clamped);
    if (bias != 0.f) y = clamp16(__fadd_rn(y, bias), clamped);
    return to_f32(to_act<T>(y));
}
template <typename T> static __device__ __forceinline__ float int8_value(int32_t sum, float sca, float scb, float bias, int32_t &clamped) {
    return int8_biased<T>(__fmul_rn(__fmul_rn((float)sum, sca), scb), bias, clamped);
}

/* A code, as a float; bits: 0x4b000000 with the code's, of which the highest is turned, in the last eight: 2^23 + 128 + the code.  A conversion takes four times as long. */
static __device__ __forceinline__ float code_of_bits(uint32_t bits) { return __uint_as_float(bits) - 8388736.f; }

/* An int8 weight as the outliers' product takes it: never more than scb, which f16 holds. */
#if __CUDA_ARCH__ >= 800                /* two at once take a fifth of the time that one does   */
static __device__ __forceinline__ void round_weight(float w, __half *to) { *to = __low2half(__floats2half2_rn(w, 0.f)); }
static __device__ __forceinline__ void round_weight(float w, __nv_bfloat16 *to) { *to = __low2bfloat16(__floats2bfloat162_rn(w, 0.f)); }
#else
static __device__ __forceinline__ void round_weight(float w, __half *to) { *to = __float2half_rn(w); }
static __device__ __forceinline__ void round_weight(float w, __nv_bfloat16 *to) { *to = __float2bfloat16_rn(w); }
#endif
template <typename T> static __device__ __forceinline__ T int8_weight(float code, float scb) {
    T w;
    round_weight(__fmul_rn(__fmul_rn(code, scb), RV_INT8_ONE), &w);
    return w;
}

/* Of many rows: what a row's value in a column counts as, where a column of all rows' outliers is looked at.  threshold 0: all of them are. */
template <typename T> static __device__ __forceinline__ T outlier_of(uint16_t bits, float threshold) {
    const uint16_t kept = threshold == 0.f || fabsf(through_f16((uint32_t)bits, T()).x) >= threshold ? bits : (uint16_t)0;
    return *(const T *)&kept;
}
template <typename T> static __device__ __forceinline__ T outlier_value(const void *x, int64_t ld, int32_t row, int32_t column, float threshold) {
    return outlier_of<T>(__ldcg((const uint16_t *)x + row * ld + column), threshold);
}
#endif
