/* int8_tile90.cuh - a tile of an LLM.int8 product on Hopper: what a launch is told, where things lie, and whose turn it is.
 *
 * The one idea: int8_90.cuh explains the whole.
 */
#ifndef RV_KERNELS_CUDA_INT8_TILE90_CUH
#define RV_KERNELS_CUDA_INT8_TILE90_CUH
#include "kernels/cuda/dense90.cuh"

struct args8 {
    args a;                              /* no bias; tiles_m: of rows of x, tiles_n: of rows of weights, of a whole cluster */
    const int8_row *x_rows;
    const float *w_scale, *bias;
    uint32_t *marks;                     /* int8_many.h's, or NULL: there are no outliers       */
    const float *more;                   /* or NULL: what they add, where they are in more columns than BESIDE */
    bool wipes;                          /* nobody reads marks after this launch                */
    const void *x;
    const int8_t *w;
    int64_t x_ld;
    int32_t pitch;
    int32_t wide;                        /* rows of x of a tile: 128, 208 or 256                */
    int32_t share, split;                /* a cluster: tiles of so many weights side by side, of each so many parts of the columns */
    uint32_t by_split, by_tiles;         /* reciprocals of split, and of the tiles that come one behind the other before the next row or column of them */
    int32_t box;                         /* rows of x that a block copies to all that share them */
    float threshold;                     /* 0: every row has all columns' values, whatever they are */
};

/* 2^32 / d, rounded up; 0 of 1: exact for what is less than 2^32 / d. */
static inline uint32_t reciprocal(int32_t d) { return d == 1 ? 0u : (uint32_t)(((UINT64_C(1) << 32) + (uint64_t)d - 1) / (uint64_t)d); }

/* A block: a warpgroup of which one thread asks for lines and the other warps bring columns with outliers, and two that multiply and make results of sums. */
enum { MULTIPLIERS = 2 * GROUP, THREADS8 = GROUP + MULTIPLIERS,
       MULTIPLIER_WARPS = MULTIPLIERS / 32, BESIDE = RV_CUDA_INT8_BESIDE, HELPERS = GROUP - 32 };

/* 128 rows of weights, of which a warpgroup has half, times up to 256 rows of x.  As many lines are on their way as have room. */
struct tiling8 {
    static constexpr int SHARE = 1, WEIGHTS = 128, MOST = 256, A_BYTES = WEIGHTS * LINE, STAGE_BYTES = A_BYTES + MOST * LINE;
    static constexpr int STAGES = 192 * 1024 / STAGE_BYTES, RING = STAGES * STAGE_BYTES;
};

/* What lies beside the ring.  rows: of a tile's rows of x, zeros behind the last.  w, x: columns with outliers of its weights and rows, side by side, up to a multiple of AT_ONCE:
 * zeros behind the last.  Rows of either are as far apart as lets eight neighbours, or every other one of eight, be read at once. */
enum { AT_ONCE = 8, APART = BESIDE + 4 };
template <class S> struct beside {
    alignas(16) float w[S::WEIGHTS][APART];
    alignas(16) float x[S::MOST][APART];
    alignas(16) int2 rows[S::MOST];      /* int8_row                                            */
    int32_t columns[BESIDE];
    int32_t found;                       /* so many columns have outliers: in `columns`, if they are no more than BESIDE */
    bool before, dense;                  /* whether `more` has something to be added; whether one of the tile's rows is dense */
    uint64_t full, empty;                /* all of this                                         */
    uint64_t freed, summed;              /* other parts have room for sums of this one; theirs are here */
    uint64_t lines[2 * S::STAGES];       /* of the ring: filled; free                           */
};
enum { SHARED_BYTES8 = 1024 + tiling8::RING + (int)sizeof(beside<tiling8>) };
static_assert(SHARED_BYTES8 <= 227 << 10, "a block has room");

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* A number that nothing is found from ahead of here: what a tile's end is made of would wait in registers while the tile is multiplied. */
static __device__ __forceinline__ int32_t anew(int32_t x) {
    asm volatile("" : "+r"(x)::"memory");
    return x;
}

/* ---- which lines of which tiles ---- */

/* A block's tiles in turn, and which lines of the columns it multiplies. */
struct walk {
    const args8 &g;
    int32_t unit, units, apart, from, lines, place, part;
    __device__ __forceinline__ walk(const args8 &g_) : g(g_) {
        const int32_t rank = (int32_t)cluster_rank();        /* share is 1 or 2: a mask, a shift    */
        place = rank & (g.share - 1);
        part = rank >> (g.share - 1);
        unit = (int32_t)cluster_number();
        apart = (int32_t)clusters();
        units = g.a.tiles_m * g.a.tiles_n;
        from = first_line(part);
        lines = lines_of(part);
    }
    /* Of a block of the cluster. */
    __device__ __forceinline__ uint32_t rank_of(int32_t part_, int32_t place_) const { return (uint32_t)(part_ * g.share + place_); }
    /* x / d, of `reciprocal`: a division takes its time, and these stand before the first line. */
    static __device__ __forceinline__ int32_t divided(int32_t x, uint32_t by) { return by ? (int32_t)__umulhi((uint32_t)x, by) : x; }
    __device__ __forceinline__ int32_t by_parts(int32_t x) const { return divided(x, g.by_split); }
    __device__ __forceinline__ int32_t first_line(int32_t of) const { return by_parts(g.a.k_blocks * of); }
    __device__ __forceinline__ int32_t lines_of(int32_t of) const { return first_line(of + 1) - first_line(of); }
    __device__ __forceinline__ bool more() const { return unit < units; }
    __device__ __forceinline__ void next() { unit += apart; }
    __device__ __forceinline__ bool last() const { return unit + apart >= units; }
    /* Its first row of x, and of weights. */
    template <class S> __device__ __forceinline__ void tile(int32_t *m, int32_t *n) const {
        const int32_t q = divided(unit, g.by_tiles), r = unit - q * (g.a.n_first ? g.a.tiles_n : g.a.tiles_m), tm = g.a.n_first ? q : r, tn = g.a.n_first ? r : q;
        *m = tm * g.wide;
        *n = (tn * g.share + place) * S::WEIGHTS;
    }
    /* Of a tile's rows of x, UNIT at a time, each part makes the results of some. */
    enum { UNIT = 16 };
    __device__ __forceinline__ int32_t first_unit(int32_t of) const { return by_parts(g.wide / UNIT * of); }
};

static __device__ __forceinline__ int32_t dense_lines(const args8 &g) { return (g.pitch + HALF_LINE - 1) / HALF_LINE; }

/* A place in the ring.  Everybody's goes the same way: a tile's lines, two stages without a line, which are room for its results until they are in memory, and where rows
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
        const int32_t lane = (int32_t)threadIdx.x % 32;
        data = __shfl_sync(~0u, shared_address(r.data), 0);
        bars = __shfl_sync(~0u, shared_address(r.full), 0);
        alone = g.share == 1;
        tells = lane < g.share;
        peers = peer_address(bars, w.rank_of(w.part, tells ? lane : 0));
    }
    __device__ __forceinline__ uint32_t filled(uint32_t stage) const { return bars + stage * 8; }
    __device__ __forceinline__ uint32_t free(uint32_t stage) const { return bars + (S::STAGES + stage) * 8; }
    __device__ __forceinline__ uint32_t stage(uint32_t i) const { return data + i * S::STAGE_BYTES; }
    /* One warp has read what is in a stage: to all whose copies may go there. */
    __device__ __forceinline__ void release(uint32_t stage) const {
        if (!tells) return;
        if (alone) arrive_at(free(stage));
        else arrive_at_peer(peers + (S::STAGES + stage) * 8);
    }
};
/* A warpgroup: 64 of weights times N rows of x, line by line, to sums; its stages are free then.  held: stages that are not its.  make(i, stage): makes what else line i is of. */
template <int N, class S, typename D, typename M, typename T>
static __device__ __forceinline__ void multiply_lines(D (&sums)[S::MOST / 2], const addresses<S> &a, cursor<S> &c, uint32_t held, int32_t lines, int group, M make, T) {
    const uint32_t pa = operand_at(a.data + (uint32_t)group * 64 * LINE), pb = operand_at(a.data + S::A_BYTES);
    uint32_t before = 0;
    int32_t released = 0;                /* lines whose stages are free                         */
#pragma unroll 1
    for (int32_t i = 0; i < lines; i++, c.next(held)) {
        make(i, c.at);
        if (!is_over_at(a.filled(c.at), c.parity())) {       /* nothing to multiply yet: let go of what was  */
            product_wait<0>();
            if (i > released) a.release(before), released = i;
            wait_at(a.filled(c.at), c.parity());
        }
        product_begin();
        line_product(sums, pa + c.at * (S::STAGE_BYTES / 16), pb + c.at * (S::STAGE_BYTES / 16), i, T(), line_of<N>());
        product_commit();
        product_wait<1>();
        if (i > released) a.release(before), released = i;
        before = c.at;
    }
    product_wait<0>();
    a.release(before);
}
template <class S, typename D, typename M, typename T>
static __device__ __forceinline__ void multiply_wide(int32_t wide, D (&sums)[S::MOST / 2], const addresses<S> &a, cursor<S> &c, uint32_t held, int32_t lines, int group, M make, T) {
    if (wide == 256) multiply_lines<256, S>(sums, a, c, held, lines, group, make, T());
    else if (wide == 208) multiply_lines<208, S>(sums, a, c, held, lines, group, make, T());
    else multiply_lines<128, S>(sums, a, c, held, lines, group, make, T());
}

/* ---- where a tile's results are: in the two stages that it holds ---- */

/* Rows of 16 bit of all its weights, 256 bytes each, a unit in one stage.  Neighbours of 16 bytes are exchanged so that rows do not meet in a bank. */
template <class S> struct results_place {
    enum { OF_ROW = S::WEIGHTS * 2, OF_UNIT = walk::UNIT * OF_ROW, IN_FIRST = S::STAGE_BYTES / OF_UNIT };
    uint32_t stage[2], at[2];            /* and their addresses                                 */
    __device__ __forceinline__ void take(const addresses<S> &a, cursor<S> &c) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            wait_at(a.filled(c.at), c.parity());
            stage[i] = c.at;
            at[i] = a.stage(c.at);
            c.next();
        }
    }
    __device__ __forceinline__ uint32_t held() const { return 1u << stage[0] | 1u << stage[1]; }
    __device__ __forceinline__ uint32_t unit(int32_t u) const { return u < IN_FIRST ? at[0] + (uint32_t)u * OF_UNIT : at[1] + (uint32_t)(u - IN_FIRST) * OF_UNIT; }
    /* Of a unit's row, eight neighbours. */
    static __device__ __forceinline__ uint32_t eight_of(int32_t row, int32_t eight) { return (uint32_t)(row * OF_ROW + (eight ^ row % 8) * 16); }
    /* SwiGLU's: half as many, and the second stage has room for all. */
    __device__ __forceinline__ uint32_t half_row(int32_t row, int32_t eight) const { return at[1] + (uint32_t)(row * (OF_ROW / 2) + (eight ^ row % 8) * 16); }
};
static_assert(results_place<tiling8>::IN_FIRST * 2 * walk::UNIT >= tiling8::MOST && tiling8::STAGE_BYTES >= tiling8::MOST * tiling8::WEIGHTS, "results have room");

/* ---- who meets ---- */

/* Whether a cluster's blocks only have to know of one another that barriers are open, when sums of parts go from block to block: who is waited for then has come long before. */
static __device__ __forceinline__ bool meets_later(const args8 &g) { return g.split > 1 && g.share == 1; }
/* The warps that multiply. */
static __device__ __forceinline__ void multipliers_meet() { group_sync(2, MULTIPLIERS); }
static __device__ __forceinline__ void helpers_meet() { group_sync(5, HELPERS); }
#endif
#endif
