/* stream90_tile.cuh - a warp's part of a tile: 16 rows of weights in shared memory times one or two rows of activations.
 *
 * The one idea: weights are the operand of eight columns and activations the one of sixteen rows, all of which are the same one or two.  So every word is loaded to the
 * register in which the product wants it; the other way round half of a step's instructions move words.  It is the same pairs, added up in the same order: few.cu's bits.
 */
#ifndef RV_KERNELS_CUDA_STREAM90_TILE_CUH
#define RV_KERNELS_CUDA_STREAM90_TILE_CUH
#include <type_traits>
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/hopper.cuh"

/* What the warps leave of a tile: of each, 16 rows of weights times both rows of activations. */
struct alignas(16) tile_sums {
    float2 of[WARPS][TILE];
    __device__ __forceinline__ float sum(int32_t row, int32_t n) const {
        float v = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) v += n ? of[k][row].y : of[k][row].x;
        return v;
    }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* The number of a warp among the eight that share a tile. */
static __device__ __forceinline__ int32_t multiplier() { return (int32_t)threadIdx.x / 32; }

/* Sums of floats with T = __half or __nv_bfloat16, of integers with int8_t.  A step is 128 bytes of each row of the warp's slice. */
template <typename T> struct tile_product {
    typedef typename std::conditional<std::is_same<T, int8_t>::value, int32_t, float>::type S;
    uint32_t x, apart;                   /* this lane's first word of the slice, of the first row of activations; bytes to the second row's, 0: there is none */
    uint32_t w;                          /* this lane's weights in a stage, of row g; of row g + 8 eight rows further */
    uint32_t a[4][4];                    /* of a step's products: rows 0 .. 7 are all the first row of activations, the others the second */
    S acc[2][4];                         /* of rows 0 .. 7 and 8 .. 15 of the tile              */

    /* rows: shared, the first row of activations, and bytes from there to the second one (0: none); slice: bytes of a slice. */
    __device__ __forceinline__ tile_product(const void *rows, int32_t to_second, int32_t slice) {
        const int32_t lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
        x = shared_address(rows) + (uint32_t)(multiplier() * slice + t * 16);
        apart = (uint32_t)to_second;
        w = (uint32_t)((multiplier() * TILE + g) * 128 + (t ^ g) * 16);
#pragma unroll
        for (int32_t m = 0; m < 4; m++)
#pragma unroll
            for (int32_t i = 1; i < 4; i += 2) asm volatile("mov.u32 %0, 0;" : "=r"(a[m][i]));      /* not known to be zero, so that each stays where it is */
    }
    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int32_t h = 0; h < 2; h++)
#pragma unroll
            for (int32_t i = 0; i < 4; i++) acc[h][i] = 0;
    }
    template <int ROW> __device__ __forceinline__ void load_row(uint32_t from) {
#pragma unroll
        for (int32_t m = 0; m < 4; m++)
#pragma unroll
            for (int32_t i = 0; i < 2; i++) a[m][i * 2 + ROW] = get_word(from + (uint32_t)(m / 2 * 64 + m % 2 * 8 + i * 4));
    }
    __device__ __forceinline__ void load(int32_t step) {
        load_row<0>(x + (uint32_t)step * 128);
        if (apart) load_row<1>(x + apart + (uint32_t)step * 128);
    }
    static __device__ __forceinline__ void multiply_words(S (&d)[4], const uint32_t (&a)[4], int32_t b0, int32_t b1) { mma(d, a[0], a[1], a[2], a[3], (uint32_t)b0, (uint32_t)b1, T()); }
    /* stage: shared, aligned to 1024.  read(): behind the loads of weights. */
    template <typename E> __device__ __forceinline__ void multiply(uint32_t stage, E read) {
        const uint32_t at = stage + w;
        int4 b[2][2];
#pragma unroll
        for (int32_t c = 0; c < 2; c++)
#pragma unroll
            for (int32_t h = 0; h < 2; h++) b[c][h] = get_four((c ? at ^ 64 : at) + (uint32_t)h * 1024);
        read();
#pragma unroll
        for (int32_t c = 0; c < 2; c++) {
#pragma unroll
            for (int32_t h = 0; h < 2; h++) multiply_words(acc[h], a[c * 2], b[c][h].x, b[c][h].y);
#pragma unroll
            for (int32_t h = 0; h < 2; h++) multiply_words(acc[h], a[c * 2 + 1], b[c][h].z, b[c][h].w);
        }
    }
    static __device__ __forceinline__ float bits(float v) { return v; }
    static __device__ __forceinline__ float bits(int32_t v) { return __int_as_float(v); }
    __device__ __forceinline__ void leave(tile_sums &to) const {
        const int32_t lane = (int32_t)threadIdx.x % 32;
        if (lane >= 4) return;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) *(float4 *)&to.of[multiplier()][h * 8 + lane * 2] = make_float4(bits(acc[h][0]), bits(acc[h][2]), bits(acc[h][1]), bits(acc[h][3]));
    }
};
#endif
#endif
