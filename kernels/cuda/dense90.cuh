/* dense90.cuh - what outliers add to a tile of an LLM.int8 product on Hopper, where rows have so many that lists do not pay: image keys.
 *
 * The one idea: the 16-bit product over all columns, of rows that are zero where they have no outlier, on the tensor cores and into the registers that the integer
 * sums have left.  A warpgroup makes the next line of its weights from their codes, each rounded as the rules say, while the tensor cores multiply the one before; columns come
 * in ascending order, so that a row's sum is its own, whatever the others are.
 */
#ifndef RV_KERNELS_CUDA_DENSE90_CUH
#define RV_KERNELS_CUDA_DENSE90_CUH
#include "kernels/cuda/gemm90.cuh"
#include "kernels/cuda/int8_many.cuh"
#include "kernels/cuda/line90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
enum { HALF_LINE = LINE / 2,             /* columns of 16 bit that a line has                   */
       MADE = HALF_LINE / 2,             /* weights of a line that a thread makes: two have a row */
       AHEAD = 2 };

/* int8_weight of four codes. */
template <typename T> static __device__ __forceinline__ uint2 four_weights(uint32_t codes, float scale) {
    float w[4];
    codes ^= 0x80808080u;
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = __fmul_rn(__fmul_rn(code_of_bits(__byte_perm(codes, 0x4b000000u, 0x7540u + (uint32_t)i)), scale), RV_INT8_ONE);
    return make_uint2(pack_weights(w[0], w[1], T()), pack_weights(w[2], w[3], T()));
}

/* A thread's part of a line of a tile's weights, asked for AHEAD lines before it is made. */
template <typename T> struct made_weights {
    const int8_t *from;                  /* its row, or NULL beyond the last                    */
    int32_t column, pitch, row;          /* row: of the tile's                                  */
    float scale;
    uint4 next[AHEAD][MADE / 16];

    __device__ __forceinline__ made_weights(const int8_t *w, const float *w_scale, int32_t pitch_, int32_t n, int32_t rows, int32_t thread) : pitch(pitch_) {
        row = thread / 2;
        column = thread % 2 * MADE;
        from = n + row < rows ? w + (int64_t)(n + row) * pitch : NULL;
        scale = from ? __ldg(w_scale + n + row) : 0.f;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) ask(i, i);
    }
    __device__ __forceinline__ void ask(int32_t line, int slot) {
#pragma unroll
        for (int i = 0; i < MADE / 16; i++) {
            const int32_t k = line * HALF_LINE + column + i * 16;
            next[slot][i] = from && k < pitch ? __ldg((const uint4 *)(from + k)) : make_uint4(0, 0, 0, 0);
        }
    }
    __device__ __forceinline__ void put(uint32_t to, int slot) const {
#pragma unroll
        for (int i = 0; i < MADE / 8; i++) {
            const uint4 &v = next[slot][i / 2];
            const uint2 lo = four_weights<T>(i % 2 ? v.z : v.x, scale), hi = four_weights<T>(i % 2 ? v.w : v.y, scale);
            put_four(to + swizzled<128>((uint32_t)(row * LINE + column * 2 + i * 16)), make_uint4(lo.x, lo.y, hi.x, hi.y));
        }
    }
    /* Line i, and asks for a later one: lines come in turn. */
    __device__ __forceinline__ void make(int32_t i, uint32_t to) {
        static_assert(AHEAD == 2, "each by its name");
        if (i % 2) put(to, 1), ask(i + 2, 1);
        else put(to, 0), ask(i + 2, 0);
    }
};

/* The producing thread: rows from m on, as many as a line has room for.  a: addresses of the ring; c: a place in it, of which `held` are not to be used. */
template <class S, class A, class C> static __device__ __forceinline__ void bring_dense(const A &a, C &c, uint32_t held, const CUtensorMap *map, int32_t m, int32_t lines) {
#pragma unroll 1
    for (int32_t i = 0; i < lines; i++, c.next(held)) {
        wait_at(a.free(c.at), c.parity() ^ 1);
        expect_at(a.filled(c.at), S::STAGE_BYTES - S::A_BYTES);
        copy_box_at(a.stage(c.at) + S::A_BYTES, map, i * HALF_LINE, m, a.filled(c.at));
    }
}
#endif
#endif
