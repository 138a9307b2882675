/* volta.cuh - what the sm70 set's kernels are made of: Volta's product of 8 x 8 x 4, loads, and sums over a warp.
 *
 * The one idea: one mma.m8n8k4 of a warp is four products, each of a quad pair: lanes 4 p .. 4 p + 3 and 16 + 4 p .. 16 + 4 p + 3
 * have pair p's operands and sums.  In a pair a lane is number `seat` of 8; it brings row `seat` of a and column `seat` of b,
 * four k each, and keeps 8 of the 64 sums.  Which k an operand's places stand for does not matter as long as both agree.
 */
#ifndef RV_KERNELS_CUDA_VOLTA_CUH
#define RV_KERNELS_CUDA_VOLTA_CUH
#include "kernels/cuda/act.cuh"

static __device__ __forceinline__ int32_t pair_of(int32_t lane) { return lane / 4 % 4; }
static __device__ __forceinline__ int32_t seat_of(int32_t lane) { return lane % 4 + lane / 16 * 4; }
/* Row and column of a lane's i-th sum. */
static __device__ __forceinline__ int32_t sum_row(int32_t lane, int32_t i) { return lane % 2 + lane / 16 * 4 + (i & 2); }
static __device__ __forceinline__ int32_t sum_column(int32_t lane, int32_t i) { return (i & 4) + (lane & 2) + (i & 1); }

/* d += a (8 x 4) * b (4 x 8), of every quad pair; f32 sums.  a: 4 k of row `seat`; b: 4 k of column `seat`. */
static __device__ __forceinline__ void mma4(float (&d)[8], uint32_t a0, uint32_t a1, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, {%0,%1,%2,%3,%4,%5,%6,%7};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
                 : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}
/* The same with b by rows: a lane brings columns 4 (seat / 4) .. + 3 of k = seat % 4. */
static __device__ __forceinline__ void mma4_rows(float (&d)[8], uint32_t a0, uint32_t a1, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m8n8k4.row.row.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, {%0,%1,%2,%3,%4,%5,%6,%7};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
                 : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}

/* Weights pass through once: they should drive nothing else out of the L1 cache. */
static __device__ __forceinline__ uint4 load_passing(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

static __device__ __forceinline__ float2 two_floats(uint32_t pair) { return __half22float2(*reinterpret_cast<const __half2 *>(&pair)); }

/* How many values a lane is left with, and the number of its first, where the lanes of a warp have added V values each.
 * With fewer than 32 several lanes have the same. */
template <int V> struct shares {
    static constexpr int MINE = V > 32 ? V / 32 : 1, SAME = V < 32 ? 32 / V : 1;
    static __device__ __forceinline__ int32_t first(int32_t lane) { return lane / SAME * MINE; }
};

/* Adds v over the warp's lanes; the sum of value shares<V>::first + j is left in v[j].  The tree over the lanes is the same for every
 * V, a power of two, so a sum's bits do not depend on how many are added together. */
template <int V, typename S> static __device__ __forceinline__ void share_sums(S (&v)[V]) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    int32_t left = V;
#pragma unroll
    for (int32_t m = 16; m; m /= 2) {
        if (left > 1) {
            left /= 2;
#pragma unroll
            for (int32_t i = 0; i < V / 2; i++) {
                if (i >= left) break;
                const S kept = lane & m ? v[i + left] : v[i], given = lane & m ? v[i] : v[i + left];
                v[i] = kept + __shfl_xor_sync(~0u, given, m);
            }
        } else v[0] += __shfl_xor_sync(~0u, v[0], m);
    }
}
#endif
