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
    int32_t share, stack, split;         /* a cluster: so many tiles side by side, and one below the other, of each so many parts of the columns */
    float threshold;                     /* 0: every row has all columns' values, whatever they are */
};

/* A block: a warpgroup of which one thread asks for lines and the other warps bring columns with outliers, two that multiply, two that make results of sums. */
enum { MULTIPLIERS = 2 * GROUP, ENDERS = 2 * GROUP, FIRST_ENDER = GROUP + MULTIPLIERS, THREADS8 = FIRST_ENDER + ENDERS,
       MULTIPLIER_WARPS = MULTIPLIERS / 32, ENDER_WARPS = ENDERS / 32, BESIDE = RV_CUDA_INT8_BESIDE, HELPERS = GROUP - 32 };

/* Both warpgroups multiply halves of a tile of 128 x 128.  As many lines are on their way as have room. */
struct tiling8 : tiling<1, 128, true, 1> {
    using base = tiling<1, 128, true, 1>;
    static constexpr int STAGES = 192 * 1024 / base::STAGE_BYTES, RING = STAGES * base::STAGE_BYTES;
};

/* What lies beside the ring.  w, x: columns with outliers of a tile's weights and rows, side by side, up to a multiple of AT_ONCE: zeros behind the last. */
enum { AT_ONCE = 8 };
template <typename T, class S> struct beside {
    float w[BESIDE][S::BN];
    alignas(16) T x[S::BM][BESIDE];
    uint64_t full, empty;                /* w and x                                             */
    uint64_t summed, taken;              /* sums, or what add_dense made of results, are in their stages; results are made of them */
    uint64_t valued;                     /* results of a tile with dense rows lie where its sums were, as f32 */
    uint64_t lines[3 * S::STAGES];       /* of the ring: filled; free; weights for dense rows made */
};
template <typename T> constexpr int shared_bytes8() { return 1024 + tiling8::RING + (int)sizeof(beside<T, tiling8>); }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static_assert(ENDERS == MAKERS, "who makes results makes weights of dense rows");

/* ---- which lines of which tiles ---- */

/* A block's tiles in turn, and which lines of the columns it multiplies. */
struct walk {
    const args8 &g;
    int32_t unit, units, apart, from, lines, place, level, part;
    __device__ __forceinline__ walk(const args8 &g_) : g(g_) {
        const int32_t blocks = g.share * g.stack * g.split, rank = blocks > 1 ? (int32_t)cluster_rank() : 0;
        place = rank % g.share;
        level = rank / g.share % g.stack;
        part = rank / (g.share * g.stack);
        unit = (int32_t)blockIdx.x / blocks;
        apart = (int32_t)gridDim.x / blocks;
        units = g.a.tiles_m * g.a.tiles_n;
        from = first_line(part);
        lines = lines_of(part);
    }
    /* Of a block of the cluster. */
    __device__ __forceinline__ uint32_t rank_of(int32_t part_, int32_t level_, int32_t place_) const { return (uint32_t)((part_ * g.stack + level_) * g.share + place_); }
    __device__ __forceinline__ int32_t first_line(int32_t of) const { return g.a.k_blocks * of / g.split; }
    __device__ __forceinline__ int32_t lines_of(int32_t of) const { return first_line(of + 1) - first_line(of); }
    __device__ __forceinline__ bool more() const { return unit < units; }
    __device__ __forceinline__ void next() { unit += apart; }
    template <class S> __device__ __forceinline__ void tile(int32_t *m, int32_t *n) const {
        const int32_t tm = g.a.n_first ? unit / g.a.tiles_n : unit % g.a.tiles_m, tn = g.a.n_first ? unit % g.a.tiles_n : unit / g.a.tiles_m;
        *m = (tm * g.stack + level) * S::BM;
        *n = (tn * g.share + place) * S::BN;
    }
    /* Of a tile's rows each part makes the results of so many, one part's below the other's. */
    template <class S> __device__ __forceinline__ int32_t own_rows() const { return S::BM / g.split; }
    /* Of the rows of the cluster's tiles, whose blocks go the same way: m is this one's first.  After wait_for_previous(). */
    template <class S> __device__ __forceinline__ bool any_dense(int32_t m) const {
        uint32_t any = 0;
        for (int32_t i = 0; i < g.stack; i++) {
            const int32_t row = m + (i - level) * S::BM;
            if (row >= g.a.rows) break;
            const uint4 v = __ldcg((const uint4 *)(g.dense + row / 32));
            any |= v.x | v.y | v.z | v.w;
        }
        return any;
    }
};

static __device__ __forceinline__ int32_t dense_lines(const args8 &g) { return (g.pitch + HALF_LINE - 1) / HALF_LINE; }

/* A place in the ring.  Everybody's goes the same way: a tile's lines, two stages without a line, which are room for its sums until results are made of them, and where rows
 * are dense their lines, meanwhile in the other stages. */
template <class S> struct cursor {
    uint32_t at = 0, odd = 0;            /* stage; a bit a stage: it was used an odd number of times before */
    __device__ __forceinline__ uint32_t parity() const { return odd >> at & 1; }
    __device__ __forceinline__ void next() {
        odd ^= 1u << at;
        at = at + 1 == S::STAGES ? 0 : at + 1;
    }
    __device__ __forceinline__ void next(uint32_t held) {
        next();
        while (held >> at & 1) at = at + 1 == S::STAGES ? 0 : at + 1;
    }
    __device__ __forceinline__ void skip(int32_t lines) {
        if (lines / S::STAGES & 1) odd ^= (1u << S::STAGES) - 1;
        for (int32_t i = lines % S::STAGES; i; i--) next();
    }
};
/* Addresses of stages and their barriers, found once: a line has no time for it.  The same in all threads, and known to be. */
template <class S> struct addresses {
    uint32_t data, bars, peers;          /* bars: what `full` and `empty` point to, one behind the other; peers: those of the block this lane tells that a stage is free */
    bool tells, alone;
    __device__ __forceinline__ addresses(const args8 &g, const walk &w, const ring<S> &r) {
        const int32_t lane = (int32_t)threadIdx.x % 32, side = lane < g.share ? lane : w.place, other = lane - g.share;      /* of a column's blocks, but this one */
        data = __shfl_sync(~0u, shared_address(r.data), 0);
        bars = __shfl_sync(~0u, shared_address(r.full), 0);
        alone = g.share * g.stack == 1;
        tells = lane < senders(g);
        peers = peer_address(bars, tells ? w.rank_of(w.part, lane < g.share ? w.level : other + (other >= w.level), side) : 0u);
    }
    /* Blocks that copy to one. */
    static __device__ __forceinline__ int32_t senders(const args8 &g) { return g.share + g.stack - 1; }
    __device__ __forceinline__ uint32_t filled(uint32_t stage) const { return bars + stage * 8; }
    __device__ __forceinline__ uint32_t free(uint32_t stage) const { return bars + (S::STAGES + stage) * 8; }
    __device__ __forceinline__ uint32_t made(uint32_t stage) const { return bars + (2 * S::STAGES + stage) * 8; }
    __device__ __forceinline__ uint32_t stage(uint32_t i) const { return data + i * S::STAGE_BYTES; }
    /* One warp has read what is in a stage: to all whose copies may go there. */
    __device__ __forceinline__ void release(uint32_t stage) const {
        if (!tells) return;
        if (alone) arrive_at(free(stage));
        else arrive_at_peer(peers + (S::STAGES + stage) * 8);
    }
};
/* A warpgroup: 64 rows times 128 of weights, line by line, to sums; its stages are free then.  held: stages that are not its.  made(stage): waits for what else is to be there. */
template <class S, typename D, typename M, typename T>
static __device__ __forceinline__ void multiply_lines(D (&sums)[64], const addresses<S> &a, cursor<S> &c, uint32_t held, int32_t lines, int group, M made, T) {
    const uint32_t pa = operand_at(a.data + (uint32_t)group * 64 * LINE), pb = operand_at(a.data + S::A_BYTES);
    uint32_t before = 0;
#pragma unroll 1
    for (int32_t i = 0; i < lines; i++, c.next(held)) {
        wait_at(a.filled(c.at), c.parity());
        made(c.at);
        product_begin();
        line_product(sums, pa + c.at * (S::STAGE_BYTES / 16), pb + c.at * (S::STAGE_BYTES / 16), i, T());
        product_commit();
        product_wait<1>();
        if (i) a.release(before);
        before = c.at;
    }
    product_wait<0>();
    a.release(before);
}
/* Where a tile's sums are: 64 rows in each of two stages, 16 bytes of them exchanged so that those of neighbouring rows do not meet in a bank. */
template <class S> struct sums_place {
    uint32_t stage[2];
    __device__ __forceinline__ void take(cursor<S> &c) {
        stage[0] = c.at, c.next();
        stage[1] = c.at, c.next();
    }
    __device__ __forceinline__ uint32_t held() const { return 1u << stage[0] | 1u << stage[1]; }
    __device__ __forceinline__ int32_t *row(const ring<S> &r, int32_t i) const { return (int32_t *)r.stage(i < 64 ? stage[0] : stage[1]) + i % 64 * S::BN; }
    /* Of four neighbours, which they are of a row. */
    static __device__ __forceinline__ int32_t exchanged(int32_t row, int32_t four) { return (four ^ (row & 3) * 2) * 4; }
};
#endif
#endif
