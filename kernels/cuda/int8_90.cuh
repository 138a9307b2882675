/* int8_90.cuh - LLM.int8 products with many rows on Hopper: integer sums, and what becomes of them, in one kernel.
 *
 * The one idea: once the integer sums of a tile are whole, they are made the 16-bit results of the rules in the very registers.  Outliers that are
 * in a few columns are added there: meanwhile warps that have nothing else to do have brought those columns of activations and weights
 * to shared memory.  Where there are more, outliers90.cu adds them.  Sums are in few8.cuh's order, so a row's bits depend on no other row.
 *
 * Integer operands are consumed faster than the L2 cache has them: blocks of a cluster, with tiles of the same rows, copy parts of the
 * activations to all of them.  And few tiles would leave multiprocessors without work: then several of a cluster multiply parts of the columns of one
 * tile, and exchange integer sums.
 */
#ifndef RV_KERNELS_CUDA_INT8_90_CUH
#define RV_KERNELS_CUDA_INT8_90_CUH
#include "kernels/cuda/dense90.cuh"

#ifdef RV_STAMPS
#include <stdio.h>
static __device__ uint32_t stamps[160][16];
#define STAMP(i) do { if (threadIdx.x == GROUP && (i) < 16) stamps[blockIdx.x][i] = (uint32_t)clock64(); } while (0)
__attribute__((visibility("default"))) void rv_stamps_print();
void rv_stamps_print() {
    static uint32_t s[160][16];
    cudaDeviceSynchronize();
    cudaMemcpyFromSymbol(s, stamps, sizeof s);
    for (int b : { 0, 1, 40, 90 }) {
        printf("\n      block %d:", b);
        for (int i = 1; i < 12; i++) printf(" %d", (int)(s[b][i] - s[b][0]));
    }
    memset(s, 0, sizeof s);
    cudaMemcpyToSymbol(stamps, s, sizeof s);
}
#else
#define STAMP(i)
#endif
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

/* Columns with outliers of a tile's rows and weights, side by side, up to a multiple of AT_ONCE: zeros behind the last. */
enum { AT_ONCE = 8 };
template <typename T, class S> struct beside {
    float w[BESIDE][S::BN];
    alignas(16) T x[S::BM][BESIDE];
    uint64_t full, empty;
};

/* Both warpgroups multiply halves of a tile of 128 columns; room is left for `beside`, and for a block of the launch before. */
template <int ROWS64_> struct tiling8 : tiling<ROWS64_, 128, true, 1> {
    using base = tiling<ROWS64_, 128, true, 1>;
    static constexpr int STAGES = 192 * 1024 / base::STAGE_BYTES, RING = STAGES * base::STAGE_BYTES, SHARED_BYTES = 1024 + RING + (int)sizeof(beside<__half, base>);
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- d[64 x N] = (add ? d : 0) + a[64 x 32] b[N x 32]^T of bytes, both in shared memory ---- */

#define RV_I8(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), "+r"(d[i + 7])
#define RV_I32(i) RV_I8(i), RV_I8(i + 8), RV_I8(i + 16), RV_I8(i + 24)
#define RV_PRODUCT8(N, REGISTERS, A, B, ADD, ...)                                                                                             \
    static __device__ __forceinline__ void product8(int32_t (&d)[N / 2], uint64_t a, uint64_t b, int32_t add) {                               \
        asm volatile("{.reg .pred add; setp.ne.b32 add, %" ADD ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8"                     \
                     " {" REGISTERS "}, %" A ", %" B ", add;}" : __VA_ARGS__ : "l"(a), "l"(b), "r"(add));                                      \
    }
RV_PRODUCT8(128, RV_R64, "64", "65", "66", RV_I32(0), RV_I32(32))

static __device__ __forceinline__ void fetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

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
    /* Of a tile's rows, after wait_for_previous(). */
    template <class S> __device__ __forceinline__ bool any_dense(int32_t m) const {
        uint32_t any = 0;
#pragma unroll
        for (int i = 0; i < S::BM / 128; i++) {
            const uint4 v = __ldcg((const uint4 *)(g.dense + m / 32) + i);
            any |= v.x | v.y | v.z | v.w;
        }
        return any;
    }
};

static __device__ __forceinline__ int32_t dense_lines(const args8 &g) { return (g.pitch + HALF_LINE - 1) / HALF_LINE; }
/* A warpgroup's 64 rows after the other, as its integer sums lie. */
template <class S> static __device__ __forceinline__ void bring_outliers(const args8 &g, const ring<S> &r, uint32_t &at, const CUtensorMap *map, int32_t m) {
    for (int32_t i = 0; i < S::ROWS64; i++) bring_dense<S>(r, at, map, m + i * 64, S::ROWS64 * 64, dense_lines(g));
}

/* One thread.  Weights depend on nothing before: those of the first stages are asked for at once.  Returns the step after its last. */
template <class S> static __device__ __forceinline__ uint32_t produce(const args8 &g, const ring<S> &r, const CUtensorMap *map_a, const CUtensorMap *map_b, const CUtensorMap *map_o) {
    walk w(g);
    uint32_t at = 0;
    int32_t m, n, early = w.more() ? min(w.lines, (int32_t)S::STAGES) : 0;
    const int32_t rows = S::BM / g.share;
    const uint16_t others = (uint16_t)(((1 << g.share) - 1) << w.part * g.share);
    auto ask = [&](int32_t i) {
        barrier_expect(r.filled(at), S::STAGE_BYTES);
        copy_box(r.stage(at) + S::A_BYTES, map_b, (w.from + i) * LINE, n, r.filled(at));
    };
    fetch_map(map_a);
    w.tile<S>(&m, &n);
    for (int32_t i = 0; i < early; i++, at++) ask(i);
    wait_for_previous();
    at = 0;
    for (; w.more(); w.next()) {
        w.tile<S>(&m, &n);
        for (int32_t i = 0; i < w.lines; i++, at++) {
            if (early-- <= 0) {
                barrier_wait(r.free(at), r.parity(at) ^ 1);
                ask(i);
            }
            uint8_t *to = r.stage(at) + w.place * rows * LINE;
            if (g.share == 1) copy_box(to, map_a, (w.from + i) * LINE, m, r.filled(at));
            else copy_box_to_all(to, map_a, (w.from + i) * LINE, m + w.place * rows, r.filled(at), others);
        }
        if (g.split == 1 && w.any_dense<S>(m)) bring_outliers<S>(g, r, at, map_o, m);
    }
    if (g.split == 1) let_next_start();
    return at;
}

/* Where parts of the columns meet, the ring is theirs first. */
template <class S> static __device__ __forceinline__ void produce_later(const args8 &g, const ring<S> &r, uint32_t at, const CUtensorMap *map_o) {
    walk w(g);
    int32_t m, n;
    wait_for_previous();
    w.tile<S>(&m, &n);
    cluster_meet(), cluster_meet();      /* `hand_over`                                         */
    if (w.any_dense<S>(m)) {
        cluster_meet();                  /* `finish_dense`                                      */
        if (threadIdx.x == 0) bring_outliers<S>(g, r, at, map_o, m);
    }
    if (threadIdx.x == 0) let_next_start();
}

/* One warp has read what step `at` brought: to all whose copies may go there. */
template <class S> static __device__ __forceinline__ void release(const args8 &g, const walk &w, const ring<S> &r, uint32_t at) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    if (g.share == 1) {
        if (lane == 0) barrier_arrive(r.free(at));
    } else if (lane < g.share) barrier_arrive_at(r.free(at), (uint32_t)(w.part * g.share + lane));
}

template <class S> static __device__ __forceinline__ void multiply(const args8 &g, const walk &w, int32_t (&sums)[S::ROWS64][S::BN / 2], const ring<S> &r, uint32_t &at, int group) {
    const int half = group * S::ROWS64 * 64 * LINE;
    for (int32_t k = 0; k < w.lines; k++, at++) {
        barrier_wait(r.filled(at), r.parity(at));
        if (k == 0 && at == 0) STAMP(2);
        const uint64_t pa = operand(r.stage(at) + half), pb = operand(r.stage(at) + S::A_BYTES);
        product_begin();
#pragma unroll
        for (int piece = 0; piece < LINE / 32; piece++)
#pragma unroll
            for (int i = 0; i < S::ROWS64; i++) product8(sums[i], pa + (uint64_t)(i * 64 * LINE / 16 + piece * 2), pb + (uint64_t)(piece * 2), k | piece);
        product_commit();
        product_wait<1>();
        if (k) release<S>(g, w, r, at - 1);
    }
    product_wait<0>();
    release<S>(g, w, r, at - 1);
#pragma unroll
    for (int i = 0; i < S::ROWS64; i++)
#pragma unroll
        for (int j = 0; j < S::BN / 2; j++) asm volatile("" : "+r"(sums[i][j])::"memory");         /* read no sum before its wait */
}

/* ---- outliers in few columns ---- */

/* HELPERS threads: those columns of each of the block's tiles in turn. */
template <typename T, class S> static __device__ __forceinline__ void gather(const args8 &g, beside<T, S> &room) {
    walk w(g);
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns), first = (int32_t)threadIdx.x - 32;
    if (found == 0 || found > BESIDE) return;
    enum { PAIR = 2, OF_W = (S::BN + HELPERS - 1) / HELPERS, OF_X = (S::BM + HELPERS - 1) / HELPERS };         /* columns; a thread's of each */
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t m, n;
        w.tile<S>(&m, &n);
        barrier_wait(&room.empty, (turn & 1) ^ 1);
#pragma unroll 1
        for (int32_t o = 0; o < (found + AT_ONCE - 1) / AT_ONCE * AT_ONCE; o += PAIR) {
            int32_t column[PAIR], code[PAIR][OF_W];
            T x[PAIR][OF_X];
#pragma unroll
            for (int j = 0; j < PAIR; j++) column[j] = o + j < found ? (int32_t)__ldcg(g.columns + o + j) : -1;
#pragma unroll
            for (int j = 0; j < PAIR; j++) {
#pragma unroll
                for (int i = 0; i < OF_W; i++) {
                    const int32_t c = first + i * HELPERS;
                    code[j][i] = column[j] >= 0 && c < S::BN && n + c < g.a.cols ? __ldg(g.w + (int64_t)(n + c) * g.pitch + column[j]) : 0;
                }
#pragma unroll
                for (int i = 0; i < OF_X; i++) {
                    const int32_t r = first + i * HELPERS;
                    x[j][i] = column[j] >= 0 && r < S::BM && m + r < g.a.rows ? outlier_value<T>(g.x, g.x_ld, m + r, column[j], g.threshold) : T(0.f);
                }
            }
#pragma unroll
            for (int i = 0; i < OF_W; i++) {
                const int32_t c = first + i * HELPERS;
                const float scale = c < S::BN && n + c < g.a.cols ? __ldg(g.w_scale + n + c) : 0.f;
#pragma unroll
                for (int j = 0; j < PAIR; j++)
                    if (c < S::BN) room.w[o + j][c] = to_f32(int8_weight<T>((float)code[j][i], scale));
            }
#pragma unroll
            for (int i = 0; i < OF_X; i++)
#pragma unroll
                for (int j = 0; j < PAIR; j++)
                    if (first + i * HELPERS < S::BM) room.x[first + i * HELPERS][o + j] = x[j][i];
        }
        barrier_arrive(&room.full);
    }
}

/* ---- results ---- */

/* What the end of a tile needs from memory, asked for before its products: scales of the warp's rows g and g + 8 of each 16. */
template <class S> struct scales {
    int2 x[S::ROWS64][2];                /* an int8_row                                         */
    __device__ __forceinline__ void ask(const args8 &g, int32_t row0) {
        const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < S::ROWS64 * 2; i++) {
            const int32_t row = row0 + i / 2 * 64 + i % 2 * 8 + lane / 4;
            x[i / 2][i % 2] = row < g.a.rows ? __ldcg((const int2 *)(g.x_rows + row)) : make_int2(0, 0);
        }
    }
};

/* Two results without bias nor outliers, of which neither is beyond f16. */
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __half) {
    const __half2 h = __floats2half2_rn(a, b);
    return *(const uint32_t *)&h;
}
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __nv_bfloat16 t) {
    const float2 f = __half22float2(__floats2half2_rn(a, b));
    return pack2(f.x, f.y, t);
}

/* Between four lanes, of which this has number q: v[i] becomes lane i's v[q]. */
static __device__ __forceinline__ void transpose(uint32_t (&v)[4], unsigned q) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool high = q & (unsigned)bit;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(i & bit)) {
                uint32_t &low = v[i], &up = v[i + bit];
                const uint32_t got = __shfl_xor_sync(~0u, high ? low : up, bit);
                if (high) low = got;
                else up = got;
            }
    }
}

/* Adds to eight neighbours. */
template <typename T> static __device__ __forceinline__ void add_to(uint32_t (&y)[4], const float (&add)[8]) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 f = pair_of(y[i], T());
        v[2 * i] = f.x + add[2 * i], v[2 * i + 1] = f.y + add[2 * i + 1];
    }
    pack_counted(y, v, T());
}

/* A step of what becomes of a warp's sums: 16 of a thread's, rows g and g + 8 of 16, columns 2 t and 2 t + 1 of four blocks of 8.  Instructions are what the end of a
 * tile takes: results are pairs as soon as they can be, and what is seldom is looked for once among all of them. */
template <typename T> struct values {
    const args8 &g;
    int32_t col0, lane;                  /* of the 32 columns                                   */

    /* Two neighbours' of the lane's in block j. */
    __device__ __forceinline__ float2 pair_at(const float *from, int j) const {
        const int32_t col = col0 + j * 8 + lane % 4 * 2;
        return col < g.a.cols ? __ldg((const float2 *)(from + col)) : make_float2(0, 0);
    }
    /* y: pairs of a row's. */
    __device__ __forceinline__ void of_sums(uint32_t (&y)[2][4], const int32_t (&sums)[16], const int2 (&x)[2], int32_t &clamped) const {
        float v[16], most = 0;
        const float sca[2] = { __int_as_float(x[0].x), __int_as_float(x[1].x) };
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float2 scb = pair_at(g.w_scale, j);
#pragma unroll
            for (int e = 0; e < 4; e++) v[j * 4 + e] = __fmul_rn(__fmul_rn((float)sums[j * 4 + e], sca[e / 2]), e % 2 ? scb.y : scb.x);
        }
        if (g.bias) return of_biased(y, v, clamped);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            v[i] = std::is_same<T, __half>::value ? __fmaf_rn(v[i], RV_INT8_BOTH, 0.f) : __fmul_rn(v[i], RV_INT8_BOTH);
            most = fmaxf(most, fabsf(v[i]));
        }
        if (most > 65504.f)
#pragma unroll
            for (int i = 0; i < 16; i++) v[i] = clamp16(v[i], clamped);
#pragma unroll
        for (int i = 0; i < 8; i++) y[i % 2][i / 2] = pack_through16(v[2 * i], v[2 * i + 1], T());
    }
    __device__ __forceinline__ void of_biased(uint32_t (&y)[2][4], const float (&scaled)[16], int32_t &clamped) const {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 bias = pair_at(g.bias, i / 2);
            y[i % 2][i / 2] = pack2(int8_biased<T>(scaled[2 * i], bias.x, clamped), int8_biased<T>(scaled[2 * i + 1], bias.y, clamped), T());
        }
    }
    /* x, w: of the lane's first row and column.  In ascending order, as outliers90.cu adds them; what has no outliers stays as it is, -0 too. */
    template <class S>
    __device__ __forceinline__ void add_beside(uint32_t (&y)[2][4], const T *x, const float *w, const int2 (&rows)[2], int32_t found) const {
        float all[2][8] = {};
#pragma unroll 1
        for (int32_t o = 0; o < found; o += AT_ONCE) {
            uint4 xs[2];
#pragma unroll
            for (int h = 0; h < 2; h++) xs[h] = *(const uint4 *)(x + h * 8 * BESIDE + o);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                float of[2];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float2 two = pair_of(i / 2 == 0 ? xs[h].x : i / 2 == 1 ? xs[h].y : i / 2 == 2 ? xs[h].z : xs[h].w, T());
                    of[h] = i % 2 ? two.y : two.x;
                }
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float2 ws = *(const float2 *)(w + (o + i) * S::BN + j * 8);
#pragma unroll
                    for (int h = 0; h < 2; h++) all[h][2 * j] = __fmaf_rn(of[h], ws.x, all[h][2 * j]), all[h][2 * j + 1] = __fmaf_rn(of[h], ws.y, all[h][2 * j + 1]);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < 8; i++) all[h][i] = rows[h].y ? all[h][i] : -0.f;
            add_to<T>(y[h], all[h]);
        }
    }
};

static_assert(RV_CUDA_GATE_BLOCK == 8, "a lane has a block's outputs of gate or up, and its neighbour the other one's");
template <typename O> static __device__ __forceinline__ void finish_pair(const args &a, place p, const uint32_t (&y)[4], bool up) {
    uint32_t packed[4];
    float out[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 gates = pair_of(y[i], O()), ups = pair_of(__shfl_down_sync(~0u, y[i], 1), O());
        out[2 * i] = silu(gates.x) * ups.x, out[2 * i + 1] = silu(gates.y) * ups.y;
    }
    if (!p.inside || up) return;
    pack_counted(packed, out, O());
    *(uint4 *)((O *)a.out + p.row * a.out_ld + p.col / 2) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

/* Eight neighbours of a row, whole. */
template <typename T, typename O, int HOW> static __device__ __forceinline__ void finish_row(const args &a, place p, const uint32_t (&y)[4], const float (&old)[8], bool up) {
    if constexpr (HOW == rv_few::RV_FEW_SWIGLU) finish_pair<O>(a, p, y, up);
    else if constexpr (HOW == rv_few::RV_FEW_STORE && sizeof(O) == 2) {
        if (p.inside) *(uint4 *)((O *)a.out + p.row * a.out_ld + p.col) = make_uint4(y[0], y[1], y[2], y[3]);
    } else {
        float v[8];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 f = pair_of(y[i], T());
            v[2 * i] = f.x, v[2 * i + 1] = f.y;
        }
        finish<O, HOW>(a, p, v, old);
    }
}

/* A step's of what a thread has of each 64 rows.  Steps are numbers that the compiler knows: registers have no index, and a choice among all of them at every step
 * kept so many alive that they went to memory and back, four times the time of the products. */
template <int ROWS64, typename N, int OF_EACH, int COUNT> static __device__ __forceinline__ void take(N (&to)[OF_EACH], const N (&from)[ROWS64][COUNT], int step) {
#pragma unroll
    for (int i = 0; i < OF_EACH; i++) to[i] = from[step / 4][step % 4 * 16 + i];
}

/* Where block `from` of those that multiply parts of a tile's columns leaves its sums of a step for the block that finishes it: in that block's ring, which nobody
 * fills any more. */
template <class S> static __device__ __forceinline__ uint4 *slot(const args8 &g, uint8_t *data, int32_t from, int group, int step) {
    const int32_t each = S::BN / 32 / g.split;
    return (uint4 *)data + (((from * 2 + group) * S::ROWS64 + step / 4) * each + step % 4 % each) * 4 * GROUP + threadIdx.x % GROUP;
}
template <class S> static __device__ __forceinline__ void hand_over(const args8 &g, const walk &w, const int32_t (&sums)[S::ROWS64][S::BN / 2], uint8_t *data, int group) {
    cluster_meet();                      /* all have read their rings                           */
#pragma unroll
    for (int step = 0; step < 4 * S::ROWS64; step++) {
        const int32_t to = step % 4 * g.split / 4;
        if (to == w.part) continue;
        int32_t s[16];
        take(s, sums, step);
#pragma unroll
        for (int q = 0; q < 4; q++)
            store_at(slot<S>(g, data, w.part, group, step) + q * GROUP, (uint32_t)(to * g.share + w.place),
                     make_uint4((uint32_t)s[q * 4], (uint32_t)s[q * 4 + 1], (uint32_t)s[q * 4 + 2], (uint32_t)s[q * 4 + 3]));
    }
    cluster_meet();
}
template <class S> static __device__ __forceinline__ void add_parts(const args8 &g, const walk &w, int32_t (&s)[16], uint8_t *data, int group, int step) {
#pragma unroll 1
    for (int32_t from = 0; from < g.split; from++) {
        if (from == w.part) continue;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const uint4 v = slot<S>(g, data, from, group, step)[q * GROUP];
            s[q * 4] += (int32_t)v.x, s[q * 4 + 1] += (int32_t)v.y, s[q * 4 + 2] += (int32_t)v.z, s[q * 4 + 3] += (int32_t)v.w;
        }
    }
}

/* What becomes of a warp's sums: rows in_tile .. of each 64, a step after the other. */
template <typename T, typename O, class S, int HOW> struct ending {
    using E = epilogue<O, S, HOW>;
    const args8 &g;
    const walk &w;
    beside<T, S> &room;
    uint8_t *data;
    const scales<S> &of;
    int32_t m, n, group, in_tile, found;
    bool beside_them, before;
    int32_t clamped = 0;

    __device__ __forceinline__ int32_t lane() const { return (int32_t)threadIdx.x % 32; }
    __device__ __forceinline__ E places() const { return { g.a, m + in_tile, n, threadIdx.x % 32 }; }
    __device__ __forceinline__ bool mine(int step) const { return step % 4 * g.split / 4 == w.part && m + in_tile + step / 4 * 64 < g.a.rows; }

    __device__ __forceinline__ void make(int step, const int32_t (&sums)[S::ROWS64][S::BN / 2], uint32_t (&y)[2][4]) {
        const values<T> p = { g, n + step % 4 * 32, lane() };
        int32_t s[16];
        take(s, sums, step);
        if (g.split > 1) add_parts<S>(g, w, s, data, group, step);
        p.of_sums(y, s, of.x[step / 4], clamped);
        if (beside_them)
            p.template add_beside<S>(y, &room.x[in_tile + step / 4 * 64 + lane() / 4][0], &room.w[0][step % 4 * 32 + lane() % 4 * 2], of.x[step / 4], found);
    }
    __device__ __forceinline__ void complete(int step, uint32_t (&y)[2][4], const float (&old)[2][8]) {
        const E e = places();
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const place at = e.at(step, half);
            transpose(y[half], e.lane % 4);
            if (before && at.inside) {
                const float4 *more = (const float4 *)(g.more + (int64_t)at.row * g.a.cols + at.col), lo = __ldcg(more), hi = __ldcg(more + 1);
                const float add[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };
                add_to<T>(y[half], add);
            }
            finish_row<T, O, HOW>(g.a, at, y[half], old[half], e.lane % 2);
        }
    }
    /* What is added to is asked for a step ahead. */
    __device__ __forceinline__ void all(const int32_t (&sums)[S::ROWS64][S::BN / 2]) {
        float old[2][2][8];
        if (mine(0)) places().load_old(0, old[0]);
#pragma unroll
        for (int step = 0; step < E::ALL; step++) {
            uint32_t y[2][4];
            if (step + 1 < E::ALL && mine(step + 1)) places().load_old(step + 1, old[(step + 1) % 2]);
            if (!mine(step)) continue;
            make(step, sums, y);
            complete(step, y, old[step % 2]);
            asm volatile("" ::: "memory");          /* no load of a step further on: registers are full */
        }
        count_clamped(clamped);
    }
    /* Some rows are dense: once all results without outliers are made, and lie where sums were, registers are free for the outliers' product. */
    __device__ __forceinline__ void all_dense(int32_t (&sums)[S::ROWS64][S::BN / 2], const ring<S> &r, uint32_t &at) {
#pragma unroll
        for (int step = 0; step < E::ALL; step++) {
            uint32_t y[2][4];
            if (!mine(step)) continue;
            make(step, sums, y);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[step / 4][step % 4 * 16 + i] = (int32_t)y[i / 4][i % 4];
            asm volatile("" ::: "memory");
        }
        if (g.split > 1) cluster_meet();
#pragma unroll
        for (int i = 0; i < S::ROWS64; i++) {
            float more[1][S::BN / 2];
            multiply_dense<T, S>(more[0], made_weights<T>(g.w, g.w_scale, g.pitch, n, g.a.cols), r, at, dense_lines(g), group, [&](uint32_t step) { release<S>(g, w, r, step); });
#pragma unroll
            for (int step = i * 4; step < i * 4 + 4; step++) {
                if (mine(step)) complete_dense(step, sums, more);
                asm volatile("" ::: "memory");
            }
        }
        count_clamped(clamped);
    }
    __device__ __forceinline__ void complete_dense(int step, const int32_t (&sums)[S::ROWS64][S::BN / 2], const float (&more)[1][S::BN / 2]) {
        float old[2][8], v[16];
        uint32_t y[2][4];
        int32_t s[8];
        places().load_old(step, old);
        take(s, sums, step);
        take(v, more, step % 4);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int32_t row = m + in_tile + step / 4 * 64 + h * 8 + lane() / 4;
            float add[8];
#pragma unroll
            for (int i = 0; i < 4; i++) y[h][i] = (uint32_t)s[h * 4 + i], add[2 * i] = v[i * 4 + h * 2], add[2 * i + 1] = v[i * 4 + h * 2 + 1];
            if (row < g.a.rows && __ldcg(g.dense + row / 32) >> row % 32 & 1) add_to<T>(y[h], add);
        }
        complete(step, y, old);
    }
};

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void consume(const args8 &g, const ring<S> &r, beside<T, S> &room) {
    const int group = (int)threadIdx.x / GROUP - 1;
    const int32_t in_tile = group * S::ROWS64 * 64 + (int32_t)threadIdx.x % GROUP / 32 * 16;
    walk w(g);
    wait_for_previous();
    STAMP(1);
    const int32_t found = __ldcg(g.n_columns);
    const bool beside_them = found && found <= BESIDE, before = found > BESIDE && g.more && __ldcg(g.n_columns + 1);
    uint32_t at = 0;
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t sums[S::ROWS64][S::BN / 2], m, n;
        scales<S> of;
        w.tile<S>(&m, &n);
        of.ask(g, m + in_tile);
        const bool dense = w.any_dense<S>(m);
        multiply<S>(g, w, sums, r, at, group);
        STAMP(3 + 3 * turn);
        if (g.split > 1) hand_over<S>(g, w, sums, r.data, group);
        STAMP(4 + 3 * turn);
        if (beside_them) barrier_wait(&room.full, turn & 1);
        ending<T, O, S, HOW> end = { g, w, room, r.data, of, m, n, group, in_tile, found, beside_them, before };
        if (dense) end.all_dense(sums, r, at);
        else end.all(sums);
        STAMP(5 + 3 * turn);
        if (beside_them) {
            __syncwarp();
            if (threadIdx.x % 32 == 0) barrier_arrive(&room.empty);
        }
    }
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS, 1) int8_90_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                                                                          const __grid_constant__ CUtensorMap map_o, const args8 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    __shared__ alignas(8) uint64_t full[S::STAGES], empty[S::STAGES];
    const ring<S> r = { memory + (1024 - shared_address(memory) % 1024) % 1024, full, empty };
    beside<T, S> &room = *(beside<T, S> *)(r.data + S::RING);
    const bool cluster = g.share * g.split > 1;
    STAMP(0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) barrier_open(&full[i], 1), barrier_open(&empty[i], (uint32_t)(g.share * 2 * GROUP / 32));
        barrier_open(&room.full, HELPERS);
        barrier_open(&room.empty, 2 * GROUP / 32);
        barriers_opened();
    }
    if (cluster) cluster_meet();
    else __syncthreads();
    if (threadIdx.x < GROUP) {
        give_registers<56>();
        uint32_t at = 0;
        if (threadIdx.x == 0) at = produce<S>(g, r, &map_a, &map_b, &map_o);
        else if (threadIdx.x >= 32) gather<T, S>(g, room);
        __syncwarp();
        if (g.split > 1) produce_later<S>(g, r, at, &map_o);
    } else {
        take_registers<224>();
        consume<T, O, S, HOW>(g, r, room);
    }
    if (cluster) cluster_meet();                   /* nobody leaves while its shared memory is written or read */
#endif
}

/* ---- launching ---- */

template <typename T, typename O, class S, int HOW>
static cudaError_t launch(const rv_int8 *q, const rv_int8_many *room, args8 g, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const rv_int8_cut c = q->cut.rows == S::BM ? q->cut : rv_int8_cut{ S::BM, q->cut.share, 1 };
    const int32_t cluster = c.share * c.split;
    CUtensorMap map_x, map_w, map_o;
    cudaError_t e = describe_boxes(&map_x, RV_I8, room->codes, p->x.rows, q->pitch, q->pitch, S::BM / c.share, LINE);
    if (!e) e = describe_boxes(&map_w, RV_I8, p->w, p->rows, q->pitch, q->pitch, S::BN, LINE);
    if (!e) e = describe_boxes(&map_o, p->act, room->outliers, p->x.rows, q->pitch, q->pitch, 64, LINE);
    if (e) return e;
    g.share = c.share;
    g.split = c.split;
    g.a.tiles_m = parts(p->x.rows, S::BM);
    g.a.tiles_n = parts(p->rows, S::BN * c.share);
    int32_t blocks = g.a.tiles_m * g.a.tiles_n * cluster, most = rv_cuda_int8_blocks(p->multiprocessors, cluster);
    if (blocks > most) blocks = most;
    return launch_cluster(int8_90_kernel<T, O, S, HOW>, (unsigned)blocks, (unsigned)cluster, S::SHARED_BYTES, overlap, stream, map_x, map_w, map_o, g);
}

/* What the text's layers do also has tiles of 256 rows. */
template <typename T, typename O, int HOW>
cudaError_t launch_tiled(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    if constexpr (HOW == rv_few::RV_FEW_ADD || HOW == rv_few::RV_FEW_SWIGLU || (HOW == rv_few::RV_FEW_STORE && sizeof(O) == 2))
        if (q->cut.rows == 256) return launch<T, O, tiling8<2>, HOW>(q, room, g, overlap, stream);
    return launch<T, O, tiling8<1>, HOW>(q, room, g, overlap, stream);
}

template <typename T> cudaError_t launch_int8_90(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    switch (q->p.how) {
    case rv_few::RV_FEW_STORE:
        return q->p.out.type == RV_F32 ? launch_tiled<T, float, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream)
                                       : launch_tiled<T, T, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch_tiled<T, T, rv_few::RV_FEW_GELU>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_SWIGLU: return launch_tiled<T, T, rv_few::RV_FEW_SWIGLU>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch_tiled<T, float, rv_few::RV_FEW_ADD>(q, room, g, overlap, stream);
    default: return cudaErrorInvalidValue;
    }
}
#endif
