/* few70.cuh - how the sm70 set's products in f16 end: the warps' sums of a tile, and what becomes of them.
 *
 * Source: few.cuh has what all sets share; few70.cu and few4_70.cu explain the rest.
 */
#ifndef RV_KERNELS_CUDA_FEW70_CUH
#define RV_KERNELS_CUDA_FEW70_CUH
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/volta.cuh"

/* The warps' sums of up to 8 activation rows: two of these in turn, so that one barrier a tile is enough. */
struct room70 { float of[WARPS][TILE][8]; };

/* Adds up the warps' sums of rows n0 .. n0 + N - 1 and writes what becomes of them. */
template <typename O, int HOW, int N> static __device__ __forceinline__ void finish70(const args &a, const room70 &room, int32_t tile, int32_t n0) {
    constexpr bool pairs = HOW == rv_few::RV_FEW_SWIGLU;
    constexpr int32_t outputs = pairs ? TILE / 2 : TILE;
    const int32_t i = (int32_t)threadIdx.x, r = i % outputs, n = i / outputs, row = tile * TILE + r;
    const bool mine = n < N && n0 + n < a.n && row < a.rows;
    float old = 0;
    if (HOW == rv_few::RV_FEW_ADD && mine) old = ((const float *)a.out)[(n0 + n) * a.out_ld + row];
    __syncthreads();                     /* whoever still reads the other room has not come to its next barrier */
    if (!mine) return;
    float v = 0, up = 0;
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) v += room.of[w][r][n];
    if (pairs)
#pragma unroll
        for (int32_t w = 0; w < WARPS; w++) up += room.of[w][r + RV_CUDA_GATE_BLOCK][n];
    finish_one<__half, O, HOW>(a, row, n0 + n, v, up, old);
}
#endif
