/* decode70.cuh - a warp's arithmetic in attention for few rows, with Volta's products of 8 x 8 x 4: part of decode.cuh, which explains
 * the rest.
 *
 * The one idea: scores are [heads x keys], a quad pair's 8 of the tile's 32 keys each, and so a lane's key is its own; sums of
 * values are [heads x columns], a quad pair's quarter of the columns each.  Between the two, weights go through shared memory.
 */
#ifndef RV_KERNELS_CUDA_DECODE70_CUH
#define RV_KERNELS_CUDA_DECODE70_CUH
#include "kernels/cuda/volta.cuh"

/* Of a lane's two heads (sum_row): values of D / 8 columns each. */
template <int D> struct decode_sums { float o[D / 32][8] = {}, m[2] = { minus_infinity(), minus_infinity() }, l[2] = { 0, 0 }; };

/* Of head sum_row(i) and key 8 pair + sum_column(i); a bias for each of four keys. */
typedef float decode_scores[8];
struct decode_by { float of[2]; };
enum { BIASES = 4 };
static __device__ __forceinline__ int32_t bias_key(int32_t lane, int32_t e) { return pair_of(lane) * 8 + sum_column(lane, e % 2 + e / 2 * 4); }

/* To where every lane reads the row of its seat. */
template <int D> static __device__ __forceinline__ void keep_queries(decode_room<D> &room, const uint4 (&q)[D / 32]) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++) room.q[decode_warp()][lane / 4][4 * c + lane % 4] = q[c];
    __syncwarp();
}

template <typename T, int D>
static __device__ __forceinline__ void score(const decode_room<D> &room, const typename decode_room<D>::tile &x, const uint4 (&)[D / 32], decode_scores &s) {
    const int32_t lane = (int32_t)threadIdx.x % 32, key = pair_of(lane) * 8 + seat_of(lane);
    const uint4 *q = room.q[decode_warp()][seat_of(lane)];
    float odd[8] = {};
#pragma unroll
    for (int32_t i = 0; i < 8; i++) s[i] = 0;
#pragma unroll
    for (int32_t c = 0; c < D / 8; c++) {
        const uint4 a = q[c], b = x.k[key][k_column(key, c)];
        mma4(s, a.x, a.y, b.x, b.y);
        mma4(odd, a.z, a.w, b.z, b.w);
    }
#pragma unroll
    for (int32_t i = 0; i < 8; i++) s[i] += odd[i];
}

/* s becomes exp2(scale s + bias - max) for the tile's keys first .. last, 0 for others; what o must be scaled by. */
template <int D>
static __device__ __forceinline__ decode_by weigh(float scale, const float (&bias)[BIASES], int32_t first, int32_t last, decode_sums<D> &f, decode_scores &s) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    decode_by by;
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float m = f.m[h], l = 0;
#pragma unroll
        for (int32_t e = 0; e < BIASES; e++) {
            const int32_t key = bias_key(lane, e);
            float &y = s[e % 2 + e / 2 * 4 + 2 * h];
            y = key >= first && key <= last ? fmaf(y, scale, bias[e]) : minus_infinity();
            m = fmaxf(m, y);
        }
#pragma unroll
        for (int32_t d = 2; d < 16; d *= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
        const float base = m == minus_infinity() ? 0.f : m;
        by.of[h] = exp2_fast(f.m[h] - base);
#pragma unroll
        for (int32_t e = 0; e < BIASES; e++) l += s[e % 2 + e / 2 * 4 + 2 * h] = exp2_fast(s[e % 2 + e / 2 * 4 + 2 * h] - base);
        f.m[h] = m;
        f.l[h] = fmaf(f.l[h], by.of[h], l);
    }
    return by;
}

template <typename T, int D>
static __device__ __forceinline__ void add_values(decode_room<D> &room, const typename decode_room<D>::tile &x, const decode_scores &s, const decode_by &by, decode_sums<D> &f) {
    const int32_t lane = (int32_t)threadIdx.x % 32, pair = pair_of(lane), warp = decode_warp();
#pragma unroll
    for (int32_t n = 0; n < D / 32; n++)
#pragma unroll
        for (int32_t i = 0; i < 8; i++) f.o[n][i] *= by.of[i / 2 % 2];
#pragma unroll
    for (int32_t i = 0; i < 8; i += 2) {   /* two neighbouring keys at a time                    */
        const int32_t key = pair * 8 + sum_column(lane, i);
        ((uint32_t *)room.weights[warp][sum_row(lane, i)])[key / 2] = pack2(s[i], s[i + 1], T());
    }
    __syncwarp();
#pragma unroll
    for (int32_t k = 0; k < DECODE_TILE / 4; k++) {
        const uint2 a = room.weights[warp][seat_of(lane)][k];
        const int32_t key = 4 * k + lane % 4;
#pragma unroll
        for (int32_t j = 0; j < D / 64; j++) {
            const uint4 b = x.v[key][v_column(key, pair * (D / 32) + 2 * j + lane / 16)];
            mma4_rows(f.o[2 * j], a.x, a.y, b.x, b.y);
            mma4_rows(f.o[2 * j + 1], a.x, a.y, b.z, b.w);
        }
    }
}

template <int D> static __device__ __forceinline__ void keep_sums(decode_room<D> &room, int32_t warp, const decode_sums<D> &f) {
    const int32_t lane = (int32_t)threadIdx.x % 32, pair = pair_of(lane);
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float l = f.l[h];
#pragma unroll
        for (int32_t d = 2; d < 16; d *= 2) l += __shfl_xor_sync(~0u, l, d);
        if ((lane & 14) == 0) {
            room.m[warp][sum_row(lane, 2 * h)] = f.m[h];
            room.l[warp][sum_row(lane, 2 * h)] = l;
        }
    }
    /* A product of rows has columns 4 n .. 4 n + 3 and 8 on of its 16 (flash70.cu's order). */
#pragma unroll
    for (int32_t n = 0; n < D / 32; n++)
#pragma unroll
        for (int32_t i = 0; i < 8; i++) {
            const int32_t c = sum_column(lane, i);
            room.warp[warp].sums.o[sum_row(lane, i)][pair * (D / 4) + n / 2 * 16 + n % 2 * 4 + c / 4 * 8 + c % 4] = f.o[n][i];
        }
}
#endif
