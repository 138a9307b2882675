/* decode80.cuh - a warp's arithmetic in attention for few rows, with products of 16 x 8 x 16: part of decode.cuh, which explains it. */
#ifndef RV_KERNELS_CUDA_DECODE80_CUH
#define RV_KERNELS_CUDA_DECODE80_CUH

/* ---- one warp's sums over its tiles: scores of head g, values of heads 2t and 2t + 1 ---- */

template <int D> struct decode_sums { float o[D / 16][4] = {}, m = minus_infinity(), l = 0; };

/* Scores of head g and keys 8i + 2t, 8i + 2t + 1 (and two unused); a bias for each. */
typedef float decode_scores[DECODE_TILE / 8][4];
typedef float decode_by;
enum { BIASES = DECODE_TILE / 4 };
static __device__ __forceinline__ int32_t bias_key(int32_t lane, int32_t e) { return e / 2 * 8 + lane % 4 * 2 + e % 2; }

/* Queries are operands as they are. */
template <int D> static __device__ __forceinline__ void keep_queries(decode_room<D> &, const uint4 (&)[D / 32]) {}

template <typename T, int D>
static __device__ __forceinline__ void score(const decode_room<D> &, const typename decode_room<D>::tile &x, const uint4 (&q)[D / 32], decode_scores &s) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float odd[DECODE_TILE / 8][4];
#pragma unroll
    for (int32_t i = 0; i < DECODE_TILE / 8; i++)
#pragma unroll
        for (int32_t e = 0; e < 4; e++) s[i][e] = odd[i][e] = 0;
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++)
#pragma unroll
        for (int32_t i = 0; i < DECODE_TILE / 8; i++) {
            int32_t key = lane / 4 + 8 * i;
            uint4 k = x.k[key][k_column(key, 4 * c + lane % 4)];
            mma(s[i], q[c].x, 0u, q[c].y, 0u, k.x, k.y, T());
            mma(odd[i], q[c].z, 0u, q[c].w, 0u, k.z, k.w, T());
        }
#pragma unroll
    for (int32_t i = 0; i < DECODE_TILE / 8; i++) {
        s[i][0] += odd[i][0];
        s[i][1] += odd[i][1];
    }
}

/* s becomes exp2(scale s + bias - max) for the tile's keys first .. last, 0 for others; by: what o must be scaled by. */
template <int D>
static __device__ __forceinline__ decode_by weigh(float scale, const float (&bias)[BIASES], int32_t first, int32_t last, decode_sums<D> &f,
                                                  decode_scores &s) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float m = f.m;
#pragma unroll
    for (int32_t e = 0; e < DECODE_TILE / 4; e++) {
        int32_t key = bias_key(lane, e);
        float y = fmaf(s[e / 2][e % 2], scale, bias[e]);
        s[e / 2][e % 2] = key >= first && key <= last ? y : minus_infinity();
        m = fmaxf(m, s[e / 2][e % 2]);
    }
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
    float base = m == minus_infinity() ? 0.f : m, by = exp2_fast(f.m - base), l = 0;
#pragma unroll
    for (int32_t e = 0; e < DECODE_TILE / 4; e++) {
        s[e / 2][e % 2] = exp2_fast(s[e / 2][e % 2] - base);
        l += s[e / 2][e % 2];
    }
    f.m = m;
    f.l = fmaf(f.l, by, l);
    return by;
}

template <typename T, int D>
static __device__ __forceinline__ void add_values(decode_room<D> &, const typename decode_room<D>::tile &x, const decode_scores &s, decode_by by, decode_sums<D> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float by0 = __shfl_sync(~0u, by, lane % 4 * 8), by1 = __shfl_sync(~0u, by, lane % 4 * 8 + 4);
#pragma unroll
    for (int32_t n = 0; n < D / 16; n++)
#pragma unroll
        for (int32_t e = 0; e < 4; e++) f.o[n][e] *= e % 2 ? by1 : by0;
#pragma unroll
    for (int32_t k = 0; k < DECODE_TILE / 16; k++) {
        uint32_t p0 = pack2(s[2 * k][0], s[2 * k][1], T()), p1 = pack2(s[2 * k + 1][0], s[2 * k + 1][1], T());
        int32_t key = 16 * k + lane % 8 + lane / 16 * 8;
#pragma unroll
        for (int32_t n = 0; n < D / 16; n++) {
            uint32_t v[4];
            load_matrices_transposed(v, shared_address(&x.v[key][v_column(key, 2 * n + lane / 8 % 2)]));
            mma(f.o[n], v[0], v[1], v[2], v[3], p0, p1, T());
        }
    }
}

template <int D> static __device__ __forceinline__ void keep_sums(decode_room<D> &room, int32_t warp, const decode_sums<D> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float l = f.l;
    l += __shfl_xor_sync(~0u, l, 1);
    l += __shfl_xor_sync(~0u, l, 2);
    if (lane % 4 == 0) {
        room.m[warp][lane / 4] = f.m;
        room.l[warp][lane / 4] = l;
    }
#pragma unroll
    for (int32_t n = 0; n < D / 16; n++)
#pragma unroll
        for (int32_t e = 0; e < 4; e++)
            room.warp[warp].sums.o[lane % 4 * 2 + e % 2][16 * n + lane / 4 + e / 2 * 8] = f.o[n][e];
}
#endif
