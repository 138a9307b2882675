/* int8_tile90.cuh - a tile of an LLM.int8 product on Hopper: what a launch is told, where things lie, and whose turn it is.
 *
 * The one idea: int8_90.cuh explains the whole.
 */
#ifndef RV_KERNELS_CUDA_INT8_TILE90_CUH
#define RV_KERNELS_CUDA_INT8_TILE90_CUH
#include "kernels/cuda/dense90.cuh"

struct args8 {
    args a;                              /* no bias                                             */
    const int8_row *x_rows;
    const float *w_scale, *bias;
    const int32_t *n_columns;            /* with outliers; whether there is a listed row        */
    const uint32_t *dense;               /* rows whose outliers' product is dense90.cuh's       */
    const uint32_t *columns;
    const float *more;                   /* or NULL: what they add, where they are more than BESIDE */
    const void *x;
    const int8_t *w;
    int64_t x_ld;
    int32_t pitch;
    int32_t share, split;                /* a cluster: so many tiles side by side, of each so many parts of the columns */
    float threshold;                     /* 0: every row has all columns' values, whatever they are */
};

enum { BESIDE = RV_CUDA_INT8_BESIDE /* an even number */, HELPERS = GROUP - 32 };

/* Columns with outliers of a tile's rows and weights, side by side, up to a multiple of AT_ONCE: zeros behind the last.  And for each warp the scales of the
 * tile's weights. */
enum { AT_ONCE = 8 };
template <typename T, class S> struct beside {
    float w[BESIDE][S::BN];
    alignas(16) T x[S::BM][BESIDE];
    float4 scale[2 * GROUP / 32][S::BN / 4];
    uint64_t full, empty;
};

/* Both warpgroups multiply halves of a tile of 128 x 128; room is left for `beside`, and for a block of the launch before.  (Tiles of 256 rows read less, and
 * are slower: their ends take all that, with registers for nothing else.) */
struct tiling8 : tiling<1, 128, true, 1> {
    using base = tiling<1, 128, true, 1>;
    static constexpr int STAGES = 192 * 1024 / base::STAGE_BYTES, RING = STAGES * base::STAGE_BYTES, SHARED_BYTES = 1024 + RING + (int)sizeof(beside<__half, base>);
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- which lines of which tiles ---- */

/* A block's tiles in turn, and which lines of the columns it multiplies. */
struct walk {
    const args8 &g;
    int32_t unit, units, apart, from, lines, place, part;
    __device__ __forceinline__ walk(const args8 &g_) : g(g_) {
        const int32_t blocks = g.share * g.split, rank = blocks > 1 ? (int32_t)cluster_rank() : 0;
        place = rank % g.share;
        part = rank / g.share;
        unit = (int32_t)blockIdx.x / blocks;
        apart = (int32_t)gridDim.x / blocks;
        units = g.a.tiles_m * g.a.tiles_n;
        from = g.a.k_blocks * part / g.split;
        lines = g.a.k_blocks * (part + 1) / g.split - from;
    }
    __device__ __forceinline__ bool more() const { return unit < units; }
    __device__ __forceinline__ void next() { unit += apart; }
    template <class S> __device__ __forceinline__ void tile(int32_t *m, int32_t *n) const {
        const int32_t tm = g.a.n_first ? unit / g.a.tiles_n : unit % g.a.tiles_m, tn = g.a.n_first ? unit % g.a.tiles_n : unit / g.a.tiles_m;
        *m = tm * S::BM;
        *n = (tn * g.share + place) * S::BN;
    }
    /* Which part ends a step of the tile, 32 of its weights. */
    __device__ __forceinline__ int32_t ender(int step) const { return step * g.split / 4; }
    __device__ __forceinline__ bool ends(int step) const { return ender(step) == part; }
    /* Of a tile's rows, after wait_for_previous(). */
    __device__ __forceinline__ bool any_dense(int32_t m) const {
        const uint4 v = __ldcg((const uint4 *)(g.dense + m / 32));
        return v.x | v.y | v.z | v.w;
    }
};

static __device__ __forceinline__ int32_t dense_lines(const args8 &g) { return (g.pitch + HALF_LINE - 1) / HALF_LINE; }

/* One warp has read what step `at` brought: to all whose copies may go there. */
template <class S> static __device__ __forceinline__ void release(const args8 &g, const walk &w, const ring<S> &r, uint32_t at) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    if (g.share == 1) {
        if (lane == 0) barrier_arrive(r.free(at));
    } else if (lane < g.share) barrier_arrive_at(r.free(at), (uint32_t)(w.part * g.share + lane));
}
#endif
#endif
