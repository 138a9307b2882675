/* few4.cuh - how weights of 4 bits become operands of tensor cores.
 *
 * The one idea: a byte of codes is the number of a table's entry, the two map values it stands for; the table lies in
 * shared memory once for every two lanes, so that no two lanes of a half warp ever meet in a bank.  One byte permutation makes the
 * address (that is why entries are 256 bytes apart), one 8-byte load brings two weights, two multiplications by the
 * absmax and one conversion round them once: 2.5 instructions a weight, exactly rn(map * absmax).
 * What lies between two entries, 128 bytes, is free for others: rows of activations, a block's 64 columns each.
 */
#ifndef RV_KERNELS_CUDA_FEW4_CUH
#define RV_KERNELS_CUDA_FEW4_CUH
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"

enum { PAIR_STRIDE = 256, PAIR_COPIES = 16, PAIR_TABLE = 256 * PAIR_STRIDE, GAP = PAIR_STRIDE / 2 };

/* ---- places ---- */

struct part_row { int32_t part, row; };

/* Whose row a row of the weight is, and back. */
static __device__ __forceinline__ part_row part_row_of(const rv_four &q, int32_t row) {
    if (q.mixed) {
        const int32_t block = row / RV_CUDA_GATE_BLOCK;
        return { block % 2, block / 2 * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK };
    }
    part_row at = { 0, row };
#pragma unroll
    for (int32_t i = 0; i + 1 < RV_WEIGHT_PARTS; i++)
        if (at.part == i && i + 1 < q.n_parts && at.row >= q.part_rows[i]) at = { i + 1, at.row - q.part_rows[i] };
    return at;
}
static __device__ __forceinline__ int32_t row_of_part(const rv_four &q, int32_t part, int32_t row) {
    if (q.mixed) return (row / RV_CUDA_GATE_BLOCK * 2 + part) * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK;
#pragma unroll
    for (int32_t i = 0; i + 1 < RV_WEIGHT_PARTS; i++) row += i < part ? q.part_rows[i] : 0;
    return row;
}

static __device__ __forceinline__ char *record_of(const rv_four &q, int32_t tile, int32_t step) {
    return q.memory + q.records + ((int64_t)tile * q.steps + step) * q.record;
}
/* Numbers of a part are picked, not indexed: an index would put the whole description on the stack. */
static __device__ __forceinline__ float *scales_of(const rv_four &q, int32_t part) {
    int32_t at = q.scales[0];
#pragma unroll
    for (int32_t i = 1; i < RV_WEIGHT_PARTS; i++) at = part == i ? q.scales[i] : at;
    return (float *)(q.memory + at);
}
static __device__ __forceinline__ const rv_four_head &head_of(const rv_four &q) { return *(const rv_four_head *)q.memory; }

/* An absmax as quant.c's rv_codes_absmax makes it. */
static __device__ __forceinline__ float nested_absmax(float code, float scale, float offset) { return __fadd_rn(__fmul_rn(code, scale), offset); }

/* ---- the table ---- */

/* By all threads of a block of 256; a barrier must follow. */
static __device__ __forceinline__ void fill_pairs(char *table, const float *map) {
    const int32_t copy = (int32_t)threadIdx.x % PAIR_COPIES, low = (int32_t)threadIdx.x / PAIR_COPIES;
    const float odd = map[low];
#pragma unroll 4
    for (int32_t high = 0; high < 16; high++) *(float2 *)(table + (high * 16 + low) * PAIR_STRIDE + copy * 8) = make_float2(map[high], odd);
}

static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __nv_bfloat16) {
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}
/* Saturates, and keeps NaN, as rv_f32_to_f16. */
static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __half) {
#if __CUDA_ARCH__ < 800
    return pack2(a, b, __half());
#else
    uint32_t v;
#if __CUDACC_VER_MAJOR__ >= 13
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(b), "f"(a));
#else                                    /* 11.8 has no such conversion                          */
    asm("{ .reg .f32 x, y;\n"
        "min.NaN.f32 x, %1, 0f477fe000;\n"
        "max.NaN.f32 x, x, 0fc77fe000;\n"
        "min.NaN.f32 y, %2, 0f477fe000;\n"
        "max.NaN.f32 y, y, 0fc77fe000;\n"
        "cvt.rn.f16x2.f32 %0, x, y; }" : "=r"(v) : "f"(b), "f"(a));
#endif
    return v;
#endif
}

/* 8 weights of one block and row, columns in order.  at: this lane's copy, 8 bytes times its number. */
template <typename T> static __device__ __forceinline__ void decode8(uint32_t (&to)[4], const char *table, uint32_t at, uint32_t codes, float absmax) {
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const float2 pair = *(const float2 *)(table + __byte_perm(codes, at, 0x5504u | i << 4));
        to[i] = pack_weights(__fmul_rn(pair.x, absmax), __fmul_rn(pair.y, absmax), T());
    }
}

/* ---- a record, on its way and in registers ---- */

/* Weights are read once: they should drive nothing else out of the caches. */
static __device__ __forceinline__ uint4 load_once(const void *from, uint64_t policy) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from), "l"(policy));
    return v;
}

/* What a lane loads of a record, before it is looked at. */
struct raw4 {
    uint4 codes[4];
    float absmax[2];                     /* of rows g and g + 8, block t; nested: their scales   */
    uchar2 nested;

    __device__ __forceinline__ void load(const char *record, uint64_t policy) {
#pragma unroll
        for (int32_t p = 0; p < 4; p++) codes[p] = load_once(record + p * 512 + (int32_t)threadIdx.x % 32 * 16, policy);
    }
};

/* Operands of tensor cores, as they are needed. */
struct record4 {
    uint4 codes[4];
    float absmax[2];

    /* acc += of block b the columns 16 t + 8 u .. + 7, with x those columns of row g of each group of 8. */
    template <typename T, int N8>
    __device__ __forceinline__ void multiply(float (&acc)[N8][1][4], const char *table, uint32_t at, int32_t b, int32_t u, float above, float below,
                                             const uint4 (&x)[N8]) const {
        const uint32_t *high = &codes[b / 2].x, *low = &codes[2 + b / 2].x;
        uint32_t w[4], v[4];
        decode8<T>(w, table, at, high[b % 2 * 2 + u], above);
        decode8<T>(v, table, at, low[b % 2 * 2 + u], below);
#pragma unroll
        for (int32_t j = 0; j < N8; j++) {
            mma(acc[j][0], w[0], v[0], w[1], v[1], x[j].x, x[j].y, T());
            mma(acc[j][0], w[2], v[2], w[3], v[3], x[j].z, x[j].w, T());
        }
    }
};
#endif
