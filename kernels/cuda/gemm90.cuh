/* gemm90.cuh - what large products on Hopper share, whatever their operands are: tiles, the ring of lines they come through,
 * and what becomes of a sum.
 *
 * Source: gemm90.cu explains the whole.  A line is 128 bytes of a row, 64 columns of 16 bit or 128 of 8.
 */
#ifndef RV_KERNELS_CUDA_GEMM90_CUH
#define RV_KERNELS_CUDA_GEMM90_CUH
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"

enum { LINE = 128, GROUP = 128, THREADS = 3 * GROUP, RING_BYTES = 226 * 1024 };

/* PAIRED: both warpgroups multiply the two halves of one tile; else each has a tile of its own and writes it while
 * the other multiplies.  SHARE blocks of a cluster have tiles one below the other and copy their part of
 * the weights to all of them. */
template <int ROWS64_, int BN_, bool PAIRED_, int SHARE_> struct tiling {
    static constexpr int ROWS64 = ROWS64_, BN = BN_, SHARE = SHARE_;
    static constexpr bool PAIRED = PAIRED_;
    static constexpr int BM = 64 * ROWS64 * (PAIRED ? 2 : 1);
    static constexpr int A_BYTES = BM * LINE, B_BYTES = BN * LINE, STAGE_BYTES = A_BYTES + B_BYTES;
    static constexpr int STAGES = RING_BYTES / STAGE_BYTES < 8 ? RING_BYTES / STAGE_BYTES : 8;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + 1024;
};

struct args {
    void *out;
    const float *bias, *row_scale;
    int64_t out_ld;
    int32_t rows, cols;                  /* of out                                              */
    int32_t k_blocks, tiles_m, tiles_n;  /* tiles_m: of the whole cluster                       */
    bool n_first;                        /* neighbours in time share rows of x                  */
    float scale;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Between four lanes, of which this has number q: pair i of v becomes lane i's pair q. */
static __device__ __forceinline__ void transpose(float (&v)[8], unsigned q) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool high = q & (unsigned)bit;
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i / 2 & bit)) {
                float &low = v[i], &up = v[i + 2 * bit];
                float got = __shfl_xor_sync(~0u, high ? low : up, bit);
                if (high) low = got;
                else up = got;
            }
    }
}

struct place { int32_t row, col; bool inside; };

/* Eight neighbours of a row of out.  `old`: what ADD adds to. */
template <typename O, int HOW> static __device__ __forceinline__ void finish(const args &a, place p, float (&v)[8], const float (&old)[8]) {
    if (!p.inside) return;
    if (a.bias) {
        float4 b0 = __ldg((const float4 *)(a.bias + p.col)), b1 = __ldg((const float4 *)(a.bias + p.col) + 1);
        v[0] += b0.x, v[1] += b0.y, v[2] += b0.z, v[3] += b0.w, v[4] += b1.x, v[5] += b1.y, v[6] += b1.z, v[7] += b1.w;
    }
    O *to = (O *)a.out + p.row * a.out_ld + p.col;
    if constexpr (HOW == rv_few::RV_FEW_ADD) {
        float by = a.row_scale ? a.scale * a.row_scale[p.row] : a.scale;
        if (a.row_scale && a.row_scale[p.row] == 0.f) return;
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = old[i] + by * v[i];
    }
    if constexpr (HOW == rv_few::RV_FEW_GELU)
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = gelu(v[i]);
    if constexpr (sizeof(O) == 4) {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        uint32_t packed[4];
        pack_counted(packed, v, O());
        *(uint4 *)to = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
}

/* A step of the epilogue: 8 outputs of each of two rows a thread, from four blocks of 8 columns. */
template <typename O, class S, int HOW> struct epilogue {
    static constexpr int STEPS = S::BN / 32, ALL = S::ROWS64 * STEPS;
    const args &a;
    int32_t row0, col0;                  /* of the warp's sums                                  */
    unsigned lane;

    __device__ __forceinline__ place at(int step, int half) const {
        place p = { row0 + step / STEPS * 64 + half * 8 + (int32_t)(lane / 4), col0 + step % STEPS * 32 + (int32_t)(lane % 4) * 8, false };
        p.inside = p.row < a.rows && p.col < a.cols;
        return p;
    }
    __device__ __forceinline__ void load_old(int step, float (&old)[2][8]) const {
        if constexpr (HOW == rv_few::RV_FEW_ADD) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                place p = at(step, half);
                if (!p.inside) continue;
                const float4 *from = (const float4 *)((const float *)a.out + p.row * a.out_ld + p.col);
                float4 lo = from[0], hi = from[1];
                old[half][0] = lo.x, old[half][1] = lo.y, old[half][2] = lo.z, old[half][3] = lo.w;
                old[half][4] = hi.x, old[half][5] = hi.y, old[half][6] = hi.z, old[half][7] = hi.w;
            }
        }
    }
    /* Sum i of four of a block: row half i / 2, column 2 (lane % 4) + i % 2. */
    __device__ __forceinline__ void finish_step(int step, const float (&sums)[S::BN / 2], const float (&old)[2][8]) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = sums[(step % STEPS * 4 + i / 2) * 4 + half * 2 + i % 2];
            transpose(v, lane % 4);
            finish<O, HOW>(a, at(step, half), v, old[half]);
        }
    }
};

/* What a tile's place in the sequence says: its first row in x and in W. */
template <class S> static __device__ __forceinline__ void tile_at(const args &a, int32_t unit, uint32_t rank, int32_t *m, int32_t *n) {
    int32_t tm = a.n_first ? unit / a.tiles_n : unit % a.tiles_m, tn = a.n_first ? unit % a.tiles_n : unit / a.tiles_m;
    *m = (tm * S::SHARE + (S::SHARE > 1 ? (int32_t)rank : 0)) * S::BM;
    *n = tn * S::BN;
}

template <class S> struct ring {
    uint8_t *data;
    uint64_t *full, *empty;
    __device__ __forceinline__ uint8_t *stage(uint32_t at) const { return data + at % S::STAGES * S::STAGE_BYTES; }
    __device__ __forceinline__ uint32_t parity(uint32_t at) const { return at / S::STAGES & 1; }
    __device__ __forceinline__ uint64_t *filled(uint32_t at) const { return full + at % S::STAGES; }
    __device__ __forceinline__ uint64_t *free(uint32_t at) const { return empty + at % S::STAGES; }
    /* One warp has read what step `at` brought. */
    __device__ __forceinline__ void release(uint32_t at) const {
        if (S::SHARE == 1) {
            if (threadIdx.x % 32 == 0) barrier_arrive(free(at));
        } else if (threadIdx.x % 32 < S::SHARE) barrier_arrive_at(free(at), threadIdx.x % 32);
    }
};

/* The warpgroups of unpaired tiles read the ring by turns: a barrier's parity tells one step from the one before only,
 * so nobody may wait for a step before the other has seen all of his. */
static __device__ __forceinline__ void await_turn(uint32_t turn) { asm volatile(RV_BAR ".sync %0, %1;" ::"r"(2 + turn % 2), "n"(2 * GROUP) : "memory"); }
static __device__ __forceinline__ void pass_turn(uint32_t turn) { asm volatile("bar.arrive %0, %1;" ::"r"(2 + (turn + 1) % 2), "n"(2 * GROUP) : "memory"); }

#endif

/* ---- launching ---- */

static int32_t parts(int32_t n, int32_t of) { return (n + of - 1) / of; }

static bool in_pieces(const void *p, int64_t ld, size_t size) { return (uintptr_t)p % 16 == 0 && (size_t)ld * size % 16 == 0; }
#endif
