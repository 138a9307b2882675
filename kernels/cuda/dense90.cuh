/* dense90.cuh - what outliers add to a tile of an LLM.int8 product on Hopper, where rows have so many that lists do not pay: image keys.
 *
 * The one idea: the 16-bit product over all columns, of rows that are zero where they have no outlier, on the tensor cores and into the registers that the integer
 * sums have left.  Its weights are made from the codes on the way to shared memory, each rounded as the rules say, by the warps that otherwise make results; columns come
 * in ascending order, so that a row's sum is its own, whatever the others are.
 */
#ifndef RV_KERNELS_CUDA_DENSE90_CUH
#define RV_KERNELS_CUDA_DENSE90_CUH
#include "kernels/cuda/gemm90.cuh"
#include "kernels/cuda/int8_many.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
enum { HALF_LINE = LINE / 2,             /* columns of 16 bit that a line has                   */
       MAKERS = 2 * GROUP,               /* threads: two have a row of weights                  */
       MADE = HALF_LINE / 2,             /* weights of a line that a thread makes               */
       AHEAD = 4 };

/* int8_weight of four codes. */
template <typename T> static __device__ __forceinline__ uint2 four_weights(uint32_t codes, float scale) {
    float w[4];
    codes ^= 0x80808080u;
#pragma unroll
    for (int i = 0; i < 4; i++)          /* 2^23 + 128 + the code */
        w[i] = __fmul_rn(__fmul_rn(__uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7540u + (uint32_t)i)) - 8388736.f, scale), RV_INT8_ONE);
    return make_uint2(pack_weights(w[0], w[1], T()), pack_weights(w[2], w[3], T()));
}

/* A thread's part of a line of a tile's weights, asked for AHEAD lines before it is made. */
template <typename T> struct made_weights {
    const int8_t *from;                  /* its row, or NULL beyond the last                    */
    int32_t column, pitch, row;
    float scale;
    uint4 next[AHEAD][2];

    __device__ __forceinline__ made_weights(const int8_t *w, const float *w_scale, int32_t pitch_, int32_t n, int32_t cols, int32_t thread) : pitch(pitch_) {
        row = thread / 2;
        column = thread % 2 * MADE;
        from = n + row < cols ? w + (int64_t)(n + row) * pitch : NULL;
        scale = from ? __ldg(w_scale + n + row) : 0.f;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) ask(i, i);
    }
    __device__ __forceinline__ void ask(int32_t line, int slot) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int32_t k = line * HALF_LINE + column + i * 16;
            next[slot][i] = from && k < pitch ? __ldg((const uint4 *)(from + k)) : make_uint4(0, 0, 0, 0);
        }
    }
    __device__ __forceinline__ void put(uint8_t *to, int slot) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 &v = next[slot][i / 2];
            const uint2 lo = four_weights<T>(i % 2 ? v.z : v.x, scale), hi = four_weights<T>(i % 2 ? v.w : v.y, scale);
            *(uint4 *)(to + swizzled<128>((uint32_t)(row * LINE + column * 2 + i * 16))) = make_uint4(lo.x, lo.y, hi.x, hi.y);
        }
    }
};

/* The producing thread: rows m .. m + 63 and m + apart .. m + apart + 63, of each warpgroup 64, line by line.  a: addresses of the ring; c: a place in it, of which `held` are not
 * to be used. */
template <class S, class A, class C> static __device__ __forceinline__ void bring_dense(const A &a, C &c, uint32_t held, const CUtensorMap *map, int32_t m, int32_t apart, int32_t lines) {
#pragma unroll 1
    for (int32_t i = 0; i < lines; i++, c.next(held)) {
        wait_at(a.free(c.at), c.parity() ^ 1);
        expect_at(a.filled(c.at), 2 * 64 * LINE);
        copy_box_at(a.stage(c.at), map, i * HALF_LINE, m, a.filled(c.at));
        copy_box_at(a.stage(c.at) + 64 * LINE, map, i * HALF_LINE, m + apart, a.filled(c.at));
    }
}

/* MAKERS: a tile's weights, line by line. */
template <typename T, class S, class A, class C>
static __device__ __forceinline__ void make_dense(made_weights<T> w, const ring<S> &r, const A &a, C &c, uint32_t held, int32_t lines) {
    static_assert(S::BN == MAKERS / 2, "two threads a row of weights");
#pragma unroll 1
    for (int32_t base = 0; base < lines; base += AHEAD)
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int32_t i = base + u;
            if (i >= lines) break;
            wait_at(a.free(c.at), c.parity() ^ 1);
            w.put(r.stage(c.at) + S::A_BYTES, u);
            w.ask(i + AHEAD, u);
            make_visible_to_products();
            __syncwarp();
            if (threadIdx.x % 32 == 0) arrive_at(a.made(c.at));
            c.next(held);
        }
}

/* Both warpgroups: sums of 64 rows each.  turns: a bit a stage, whether its weights were made an odd number of times. */
template <typename T, class S, class A, class C>
static __device__ __forceinline__ void multiply_dense(float (&sums)[S::BN / 2], const A &a, uint32_t &turns, C &c, uint32_t held, int32_t lines, int group) {
    multiply_lines(sums, a, c, held, lines, group, [&](uint32_t stage) {
        wait_at(a.made(stage), turns >> stage & 1);
        turns ^= 1u << stage;
    }, T());
    pin(sums);
}
#endif
#endif
