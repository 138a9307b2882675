/* few8_90.cuh - what a block of few8_90.cu shares, and its warps that do not multiply.
 *
 * The one idea: a tile's weights pass through shared memory once, for everybody.  A warpgroup multiplies them, in whatever order lines come, as sums are integers;
 * helping warps go through the outliers of activation rows at the same time, taking their weights from the same lines, and then make results of both; bringing warps ask for lines.
 */
#ifndef RV_KERNELS_CUDA_FEW8_90_CUH
#define RV_KERNELS_CUDA_FEW8_90_CUH
#include "kernels/cuda/few8.cuh"
#include "kernels/cuda/line90.cuh"

enum { GROUP = 128, LINE = DEPTH8, PAIRS = SLICES / 2, MOST_ROWS = 64, MOST_HELPERS = 16, MOST_RING = 12, MULTIPLIER_WARPS = GROUP / 32, ALL_BYTES = 227 * 1024 };

/* A tile: N rows of weights, ROWS of activations at most.  A helping warp has 32 rows of activations, and SLICED a slice of the columns and all of the tile's rows of weights: lines come
 * from all slices in turn, those of two neighbours in a stage.  Else it has all columns, whose lines come one after the other, and 32 rows of weights. */
template <int N_, int ROWS_> struct shape {
    enum { N = N_, ROWS = ROWS_, SLICED = N <= 48, LINES = SLICED ? 2 : 1, WIDE = SLICED ? N : 32, OF_ROWS = SLICED ? (int)SLICES : 4 /* warps that have the same rows */,
           HELPERS = OF_ROWS * (SLICED ? ROWS / 32 : 2), BRINGERS = SLICED ? (int)PAIRS : 2, LEAST_STAGES = PAIRS, BLOCK = GROUP + HELPERS * 32 + GROUP,
           READERS = MULTIPLIER_WARPS + (SLICED ? LINES * HELPERS / SLICES : HELPERS) /* warps that read a stage */,
           RESULT_PITCH = N + 8 /* words: eight rows' pairs do not meet in a bank */, SUM_PITCH = (SLICED ? N : 128) + 4 /* likewise, rows' fours */, SUM_ROOMS = SLICED ? (int)SLICES : 1,
           WEIGHT_BYTES = N * LINE,
           OF_MULTIPLIER = N > 48 ? 112 : HELPERS > 8 ? 72 : 80, OF_BRINGER = HELPERS > 8 ? 24 : 40, OF_HELPER = N > 48 ? 176 : HELPERS > 8 ? 96 : 192 };
    /* Registers that a launch has: as many for each warp as for all of a quarter of a multiprocessor. */
    static_assert(OF_MULTIPLIER + OF_BRINGER + HELPERS / 4 * OF_HELPER <= BLOCK / GROUP * (16384 / (BLOCK / GROUP) / 32 / 8 * 8), "registers are not there");
};

struct args8_90 {
    args8 g;
    int32_t box;                         /* rows of activations in a stage                      */
    int32_t stage_bytes, results_at, sums_at, beside_at;
    bool over_ring;                      /* results and sums lie where stages were: no block has a second tile */
};

/* What lies beside the ring, results and sums. */
struct alignas(16) beside8 {
    float scales[MOST_HELPERS][48];
    int8_row rows[MOST_ROWS];
    bool has[MOST_HELPERS];              /* whether a warp has left sums                        */
    uint64_t full[MOST_RING], empty[MOST_RING], results, taken;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- lines and stages ---- */

/* Lines of a row. */
static __device__ __forceinline__ int32_t steps_of(int32_t pitch) { return (pitch + LINE - 1) / LINE; }
/* A tile's stages: SLICED, number i has line i / PAIRS of the slices of pair i % PAIRS; a slice that is over has lines behind all columns, which read as zeros. */
template <class S> static __device__ __forceinline__ int32_t stages_of(int32_t pitch) {
    const int32_t steps = steps_of(pitch);
    return S::SLICED ? (steps + SLICES - 1) / SLICES * PAIRS : steps;
}

/* A place in the ring.  Nobody may wait for a phase of a barrier that is two away: the parity would be right.  SLICED, who passes over stages comes back to a stage every time that it is used, since
 * stages, a tile's and the ring's, are a multiple of as many.  Else readers pass over none, and a bringer, who may get the other one's stages in the next tile, has waited for one at most three
 * before: all stages until a ring before that have been read, in their order, if a ring has three. */
struct place8 {
    int32_t at = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next(int32_t stages) {
        if (++at == stages) at = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(int32_t n, int32_t stages) {
        for (at += n; at >= stages; at -= stages) parity ^= 1;
    }
};

/* Warp number `warp` of S::BRINGERS: of as many of a tile's stages each has one, again and again.  A lane has a line's weights or activations, and has nothing to find out when its turn comes.  Weights
 * depend on nothing before: those of the first stages are asked for at once. */
template <class S> struct bringer8 {
    const args8_90 &of;
    const CUtensorMap *map_w, *map_x;
    beside8 &room;
    const int32_t stages, count;
    int32_t warp, first, end, behind;    /* columns of the lane's first line, behind its last one, and behind all */
    uint32_t to;                         /* where its lines go in stage 0                       */
    bool weighs, brings;
    uint64_t policy;

    __device__ __forceinline__ bringer8(const args8_90 &of_, const CUtensorMap *w, const CUtensorMap *x, uint32_t ring, beside8 &room_, int32_t warp_)
        : of(of_), map_w(w), map_x(x), room(room_), stages(of_.g.a.stages), count(stages_of<S>(of_.g.pitch)), warp(warp_) {
        const int32_t lane = (int32_t)threadIdx.x % 32, line = lane % S::LINES, steps = steps_of(of.g.pitch), slice = 2 * warp + line;
        weighs = lane < S::LINES;
        brings = lane < 2 * S::LINES;
        first = (S::SLICED ? slice_start(steps, slice) : warp) * LINE;
        end = (S::SLICED ? slice_start(steps, slice + 1) : steps) * LINE;
        behind = steps * LINE;
        to = ring + (uint32_t)(weighs ? S::LINES * of.box * LINE + line * S::WEIGHT_BYTES : line * of.box * LINE);
        policy = read_once();
    }
    __device__ __forceinline__ void expect(int32_t at) const {
        if (threadIdx.x % 32 == 0) barrier_expect(&room.full[at], (uint32_t)of.stage_bytes);
        __syncwarp();
    }
    __device__ __forceinline__ void copy(int32_t at, int32_t tile, int32_t column) const {
        const uint32_t bar = shared_address(&room.full[at]), there = to + (uint32_t)(at * of.stage_bytes);
        if (column >= end) column = behind;
        if (weighs) copy_box_once_at(there, map_w, column, tile * S::N, bar, policy);
        else copy_box_at(there, map_x, column, 0, bar);
    }
    enum { APART = S::SLICED ? (int)LINE : S::BRINGERS * LINE };
    __device__ __forceinline__ void early() const {
        for (int32_t i = warp, column = first; i < count && i < stages; i += S::BRINGERS, column += APART) {
            expect(i);
            if (weighs) copy(i, (int32_t)blockIdx.x, column);
        }
    }
    __device__ __forceinline__ void all() const {
        place8 begun;
#pragma unroll 1
        for (int32_t tile = (int32_t)blockIdx.x, earlier = min(count, stages); tile < of.g.a.tiles; tile += (int32_t)gridDim.x, earlier = 0) {
            place8 p = begun;
            p.skip(warp, stages);
#pragma unroll 1
            for (int32_t i = warp, column = first; i < count; i += S::BRINGERS, column += APART) {
                if (i >= earlier) {
                    barrier_wait(&room.empty[p.at], p.parity ^ 1);
                    expect(p.at);
                }
                if (brings && (i >= earlier || !weighs)) copy(p.at, tile, column);
                __syncwarp();
                p.skip(S::BRINGERS, stages);
            }
            begun.skip(count, stages);
        }
    }
};

/* ---- outliers ---- */

/* What comes next of a row's outliers. */
struct row_outliers {
    enum { AHEAD = 4 };
    const uint32_t *list;                /* from its first entry in the warp's columns on       */
    uint32_t entry[AHEAD];
    int32_t at;
    __device__ __forceinline__ void ask() {
        static_assert((int)AHEAD <= (int)RV_CUDA_INT8_CLOSE, "room behind a list");
#pragma unroll
        for (int32_t i = 0; i < AHEAD; i++) entry[i] = __ldcg(list + i);
        at = AHEAD;
    }
    /* any: there is a list, which may begin with its closing entry.  Behind that, and where there is none, there is anything. */
    __device__ __forceinline__ void begin(bool any) {
#pragma unroll
        for (int32_t i = 0; i < AHEAD; i++)
            if (!any || (i && entry[i - 1] == ~0u)) entry[i] = ~0u;
    }
    __device__ __forceinline__ void next() {
#pragma unroll
        for (int32_t i = 0; i + 1 < AHEAD; i++) entry[i] = entry[i + 1];
        if (entry[AHEAD - 1] != ~0u) entry[AHEAD - 1] = __ldcg(list + at++);
    }
};

/* A warp's: in the order of columns, for each row from 0 on in each slice, then slice after slice, as few8.cuh's.  A lane has a row of activations, and in registers its sums for WIDE rows of
 * weights: so lanes have nothing to do with one another, and the weights of an entry come one after the other from the line. */
template <typename T, class S> struct outlier_warp {
    enum { SCALES = (S::WIDE + 31) / 32 };
    row_outliers row;
    float sum[S::WIDE], all[S::SLICED ? 1 : S::WIDE];         /* sum: of the slice; all: of those before it */
    float next_scale[SCALES], *scales;   /* of the warp's rows of weights, 0 beyond the last: the lane's of the tile to come; the tile's, in shared memory */
    int32_t part, r, slice;              /* which columns, or rows of weights; the row of activations */
    bool mine, here;                     /* whether the lane's row has outliers; any lane's, in the warp's columns */

    __device__ __forceinline__ outlier_warp(beside8 &room, int32_t warp) : scales(room.scales[warp]), part(warp % S::OF_ROWS), r(warp / S::OF_ROWS * 32 + (int32_t)threadIdx.x % 32) {}
    /* row0: of the next tile, its first row of weights: its scales, which are known without the launch before. */
    __device__ __forceinline__ void ask(const args8 &g, int32_t row0) {
#pragma unroll
        for (int32_t i = 0; i < SCALES; i++) {
            const int32_t w = i * 32 + (int32_t)threadIdx.x % 32, in_tile = (S::SLICED ? 0 : part * 32) + w;
            next_scale[i] = w < S::WIDE && in_tile < S::N && row0 + in_tile < g.a.rows ? __ldg(g.w_scale + row0 + in_tile) : 0.f;
        }
    }
    /* Nothing that is asked for waits for anything else, but a slice's entries for where they are. */
    __device__ __forceinline__ void begin(const args8 &g) {
        const int32_t row_there = min(r, g.a.n - 1), outliers = __ldcg(&g.rows[row_there].outliers);
        row.list = g.list + (int64_t)row_there * (g.pitch + RV_CUDA_INT8_CLOSE) + (S::SLICED ? first_entry(g, row_there) : 0);
        row.ask();
        mine = r < g.a.n && outliers;
        row.begin(mine);
        here = __any_sync(~0u, column_of(row.entry[0]) < (S::SLICED ? slice_start(steps_of(g.pitch), part + 1) * LINE : (int32_t)RV_CUDA_INT8_MOST));
    }
    /* Which of a row's entries is the slice's first: anything, where there are none. */
    __device__ __forceinline__ int32_t first_entry(const args8 &g, int32_t row) const { return min((int32_t)__ldcg(g.starts + row * SLICES + part), g.pitch); }
    /* The tile that was asked for.  again: not the first one. */
    __device__ __forceinline__ void start_tile(bool again) {
        if (!here) return;
        slice = 0;
        if (again) row.begin(mine);
        __syncwarp();                    /* those of the tile before have been read             */
#pragma unroll
        for (int32_t i = 0; i < SCALES; i++)
            if (i * 32 + (int32_t)threadIdx.x % 32 < S::WIDE) scales[i * 32 + threadIdx.x % 32] = next_scale[i];
        __syncwarp();
#pragma unroll
        for (int32_t w = 0; w < S::WIDE; w++) {
            sum[w] = 0;
            if (!S::SLICED) all[w] = 0;
        }
    }
    /* weights: of a line that ends before column `end`, the warp's first row. */
    __device__ __forceinline__ void line(const uint8_t *weights, int32_t end) {
#pragma unroll 1
        for (;;) {
            const uint32_t entry = row.entry[0];
            const bool mine = column_of(entry) < end;
            if (!__any_sync(~0u, mine)) break;
            if (!mine) continue;
            const float v = value_of<T>(entry);
            const uint8_t *at[8];        /* of eight rows, as a line is swizzled                */
#pragma unroll
            for (int32_t i = 0; i < 8; i++) at[i] = weights + (column_of(entry) % LINE ^ i * 16);
#pragma unroll
            for (int32_t w = 0; w < S::WIDE; w += 4) {
                if (!S::SLICED && w == S::N % 32 && part == S::N / 32) break;         /* of the last warp's rows, those beyond the tile */
                const float4 scale = *(const float4 *)(scales + w);
                const float of[4] = { scale.x, scale.y, scale.z, scale.w };
#pragma unroll
                for (int32_t i = 0; i < 4; i++) sum[w + i] = __fmaf_rn(v, to_f32(int8_weight<T>(code_of_bits(((uint32_t)at[(w + i) % 8][(w + i) * LINE] ^ 0x80u) | 0x4b000000u), of[i])), sum[w + i]);
            }
            row.next();
        }
    }
    /* Not SLICED: line number `line` of `steps` has been looked at. */
    __device__ __forceinline__ void end_of_line(int32_t steps, int32_t line) {
        while (slice_start(steps, slice + 1) <= line) slice++;
        if (slice_start(steps, slice + 1) != line + 1) return;
#pragma unroll
        for (int32_t w = 0; w < S::WIDE; w++) all[w] += sum[w], sum[w] = 0;
    }
    /* to: sums of all warps, [slice][row][SUM_PITCH]. */
    __device__ __forceinline__ void leave(float *to, int32_t n) const {
        if (!here || r >= n) return;
        to += ((S::SLICED ? part * n : 0) + r) * S::SUM_PITCH + (S::SLICED ? 0 : part * 32);
        const float(&of)[S::WIDE] = by_kind();
#pragma unroll
        for (int32_t w = 0; w < S::WIDE; w += 4) *(float4 *)(to + w) = make_float4(of[w], of[w + 1], of[w + 2], of[w + 3]);
    }
    __device__ __forceinline__ const float (&by_kind() const)[S::WIDE] {
        if constexpr (S::SLICED) return sum;
        else return all;
    }
};

static __device__ __forceinline__ void add_four(float4 &to, const float *v) {
    const float4 x = *(const float4 *)v;
    to.x += x.x, to.y += x.y, to.z += x.z, to.w += x.w;
}

/* What outliers add to four neighbours from column c of the tile on, of row r: slice after slice. */
template <class S> static __device__ __forceinline__ float4 outliers_of(const beside8 &room, const float *sums, int32_t n, int32_t r, int32_t c) {
    float4 all = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int32_t k = 0; k < S::SUM_ROOMS; k++)
        if (room.has[r / 32 * S::OF_ROWS + k]) add_four(all, sums + (k * n + r) * S::SUM_PITCH + c);
    return all;
}

/* ---- results ---- */

/* Four neighbours, rounded. */
static __device__ __forceinline__ void put_some(float *to, const float (&v)[4]) { *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]); }
template <typename O> static __device__ __forceinline__ void put_some(O *to, const float (&v)[4]) {
    uint32_t pairs[2];
    pack_counted<4>(pairs, v, O());
    *(uint2 *)to = make_uint2(pairs[0], pairs[1]);
}

/* Of a tile, by the helping warps' threads, of which this is number `me`: four neighbours at a time.  ready: waits for sums, and for what outliers add. */
template <typename T, typename O, int HOW, class S, typename R>
static __device__ __forceinline__ void finish_tile90(const args8_90 &of, const beside8 &room, const int32_t *results, const float *sums, int32_t row0, int32_t me, R ready) {
    constexpr bool GATES = HOW == rv_few::RV_FEW_SWIGLU, ADDS = HOW == rv_few::RV_FEW_ADD;
    enum { FOURS = (GATES ? S::N / 2 : S::N) / 4, HELPERS = S::HELPERS * 32, EACH = (S::ROWS * FOURS + HELPERS - 1) / HELPERS };
    const args8 &g = of.g;
    const args &a = g.a;
    enum { EARLY = ADDS && EACH <= 3 };  /* what is added to is asked for before results are there, if there are registers */
    float4 old[EARLY ? EACH : 1];
    auto row_of = [&](int32_t i) { return (me + i * HELPERS) / FOURS; };
    auto column_in = [&](int32_t i) {
        const int32_t f = (me + i * HELPERS) % FOURS;
        return GATES ? f / 2 * 2 * RV_CUDA_GATE_BLOCK + f % 2 * 4 : f * 4;
    };
    auto there = [&](int32_t i) { return row_of(i) < a.n && row0 + column_in(i) < a.rows; };
    auto ask = [&](int32_t i) { return __ldcg((const float4 *)((const float *)a.out + row_of(i) * a.out_ld + row0 + column_in(i))); };
    if (EARLY)
#pragma unroll
        for (int32_t i = 0; i < EACH; i++)
            if (there(i)) old[i] = ask(i);
    ready();
#pragma unroll
    for (int32_t i = 0; i < EACH; i++) {
        if (!there(i)) continue;
        const int32_t r = row_of(i), c = column_in(i), row = row0 + c;
        const int8_row x = room.rows[r];
        float y[2][4];
#pragma unroll
        for (int32_t p = 0; p < (GATES ? 2 : 1); p++) {
            const int32_t at = c + p * RV_CUDA_GATE_BLOCK;
            const int4 sum = *(const int4 *)(results + r * S::RESULT_PITCH + at);
            const int32_t w = row + p * RV_CUDA_GATE_BLOCK;
            const float4 scb = __ldg((const float4 *)(g.w_scale + w)), more = x.outliers ? outliers_of<S>(room, sums, a.n, r, at) : make_float4(0, 0, 0, 0);
            y[p][0] = finish_sum<T>(g, w, x, sum.x, scb.x, more.x);
            y[p][1] = finish_sum<T>(g, w + 1, x, sum.y, scb.y, more.y);
            y[p][2] = finish_sum<T>(g, w + 2, x, sum.z, scb.z, more.z);
            y[p][3] = finish_sum<T>(g, w + 3, x, sum.w, scb.w, more.w);
        }
        float v[4];
        bool adds = true;
        if (ADDS) {
            const float4 was = EARLY ? old[EARLY ? i : 0] : ask(i);
            const float by = a.row_scale ? a.row_scale[r] : 1.f, before[4] = { was.x, was.y, was.z, was.w };
            adds = by != 0.f;
#pragma unroll
            for (int32_t e = 0; e < 4; e++) v[e] = add_scaled(before[e], a.scale, by, y[0][e]);
        } else {
            /* Gates as few.cuh's: they and what they are for are of act already. */
#pragma unroll
            for (int32_t e = 0; e < 4; e++) v[e] = GATES ? silu(y[0][e]) * y[GATES][e] : HOW == rv_few::RV_FEW_GELU ? gelu(y[0][e]) : y[0][e];
        }
        if (adds) put_some((O *)a.out + r * a.out_ld + (GATES ? gated_column(row) : row), v);
    }
}
#endif
#endif
