/* few4_90.cuh - what a block of few4_90.cu shares, and its warps that do not multiply.
 *
 * The one idea: two blocks of a cluster have a unit, 64 rows of weights, and four of its eight sums each; each finishes half of the rows, and is sent what the other has of
 * them.  Who multiplies leaves sums and goes on to the next unit: of four more warps one brings steps of weights and x, one finds out what is to be known of the next
 * unit's rows, two finish.
 */
#ifndef RV_KERNELS_CUDA_FEW4_90_CUH
#define RV_KERNELS_CUDA_FEW4_90_CUH
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/few4.cuh"
#include "kernels/cuda/hopper.cuh"

enum { GROUP = 128, LINE = 128, LINE_COLS = LINE / 2, LINES = RV_FOUR_COLS / LINE_COLS,
       CLUSTER = 2, ROWS = 64, TILES = ROWS / TILE, HALF = ROWS / CLUSTER,
       RECORDS = TILES * RV_FOUR_FLOAT_RECORD,
       PIECE = 192 /* a record is some of these */,
       ALL_BYTES = 227 * 1024, MOST_ROWS = 32 };

/* N: rows of x; GROUPS: warpgroups that multiply, as many as registers allow; EACH: sums of each.  A stage: a step's x and records of 64 rows.  Sums of two units: in the
 * table's gaps, side by side where there is room, else (APART) the second one's behind. */
template <int N_> struct shape {
    enum { N = N_, GROUPS = N <= 8 ? 4 : 2, EACH = WARPS / CLUSTER / GROUPS, MULTIPLYING = GROUPS * GROUP, BLOCK = MULTIPLYING + GROUP,
           REGISTERS = N <= 8 ? 104 : 216, OTHERS_REGISTERS = N <= 8 ? 64 : 72,
           X_BYTES = N * RV_FOUR_COLS * 2, STAGE = X_BYTES + RECORDS, BARS = 512, TOLD = 2 * ROWS * 16, APART = 2 * N * (int)sizeof(float) > GAP, MORE = APART ? GAPS * GAP : 0,
           FIT = (ALL_BYTES - PAIR_TABLE - MORE - MAPS_BYTES - 16 - BARS - TOLD) / (GROUPS * STAGE), STAGES = FIT < 6 ? FIT : 6,
           X_AT = PAIR_TABLE, CODES_AT = X_AT + GROUPS * STAGES * X_BYTES, MORE_AT = CODES_AT + GROUPS * STAGES * RECORDS, MAPS_AT = MORE_AT + MORE,
           TOLD_AT = (MAPS_AT + MAPS_BYTES + 15) / 16 * 16, BARS_AT = TOLD_AT + TOLD, BYTES = BARS_AT + BARS };
    static_assert((int)STAGES >= 2 && (int)BYTES <= (int)ALL_BYTES && X_BYTES % 1024 == 0 && (int)MULTIPLYING >= (int)THREADS, "room for two stages a group, on a product's lines");
};

static_assert(RV_FOUR_NESTED_RECORD % PIECE == 0 && RV_FOUR_FLOAT_RECORD % PIECE == 0, "boxes of a record");

/* x, in boxes of N rows by four lines; records, in boxes of four tiles' of a step. */
struct maps4 { CUtensorMap x, records; };
struct args4 {
    args a;
    rv_four q;
    bool arranges;                       /* out of SWIGLU                                       */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* Of every other unit, told: what is known of its rows is; landed: all sums are here; read: both blocks have read those that were. */
template <class S> struct barriers {
    uint64_t full[S::GROUPS][S::STAGES], empty[S::GROUPS][S::STAGES], told[2], landed[2], read[2];
    static_assert((2 * (int)S::GROUPS * (int)S::STAGES + 6) * sizeof(uint64_t) <= (int)S::BARS, "room");
};

/* ---- which steps ---- */

/* A group's, one after the other: those of its first sum, then those of the next one. */
template <class S> struct group_steps {
    int32_t first, steps;                /* the number of its first sum; of a row                */
    __device__ __forceinline__ group_steps(uint32_t rank, int32_t group, int32_t all) : first(((int32_t)rank * S::GROUPS + group) * S::EACH), steps(all) {}
    __device__ __forceinline__ int32_t of(int32_t sum) const { return (steps - first - sum + WARPS - 1) / WARPS; }
    __device__ __forceinline__ int32_t all() const { return S::EACH == 1 ? of(0) : of(0) + of(1); }
    __device__ __forceinline__ int32_t step(int32_t i) const {
        const int32_t before = of(0);
        return S::EACH == 1 || i < before ? first + i * WARPS : first + 1 + (i - before) * WARPS;
    }
};

/* A place in a group's ring. */
template <class S> struct stage_of {
    int32_t at;
    uint32_t parity;
    __device__ __forceinline__ stage_of(uint32_t n) : at((int32_t)(n % S::STAGES)), parity(n / S::STAGES % 2) {}
    __device__ __forceinline__ void next() {
        if (++at == S::STAGES) at = 0, parity ^= 1;
    }
};

/* Calls work(group, unit, step, n) for all of a block's stages in the order in which they are brought; n: of the group's, so far. */
template <class S, typename F> static __device__ __forceinline__ void each_stage(uint32_t rank, int32_t steps, int32_t unit, int32_t units, int32_t apart, F work) {
    const int32_t most = group_steps<S>(rank, 0, steps).all();
#pragma unroll 1
    for (int32_t u = 0; unit < units; unit += apart, u++)
#pragma unroll 1
        for (int32_t i = 0; i < most; i++)
#pragma unroll 1
            for (int32_t k = 0; k < S::GROUPS; k++) {
                const group_steps<S> of(rank, k, steps);
                if (i < of.all()) work(k, unit, of.step(i), (uint32_t)(u * of.all() + i));
            }
}

/* ---- stages on their way ---- */

template <class S> struct bringer {
    const maps4 &maps;
    char *memory;
    barriers<S> &bars;
    const int32_t bytes;                 /* of a stage                                          */
    const uint64_t policy;

    /* One lane. */
    __device__ __forceinline__ void bring_records(int32_t group, int32_t stage, int32_t unit, int32_t step) const {
        uint64_t *bar = &bars.full[group][stage];
        barrier_expect(bar, (uint32_t)bytes);
        asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %2, %3, %4}], [%5], %6;"
                     ::"r"(shared_address(memory) + (uint32_t)(S::CODES_AT + (group * S::STAGES + stage) * RECORDS)), "l"(&maps.records),
                     "r"(0), "r"(step), "r"(unit * TILES), "r"(shared_address(bar)), "l"(policy) : "memory");
    }
    __device__ __forceinline__ void bring_x(int32_t group, int32_t stage, int32_t step) const {
        asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %2, %3}], [%4];"
                     ::"r"(shared_address(memory) + (uint32_t)(S::X_AT + (group * S::STAGES + stage) * S::X_BYTES)), "l"(&maps.x),
                     "r"(0), "r"(step * LINES), "r"(shared_address(&bars.full[group][stage])) : "memory");
    }
};

/* Of a group's first unit, weights of as many stages as there are, which are older than the launches before. */
template <class S> static __device__ __forceinline__ int32_t early_stages(const group_steps<S> &of) { return min(of.all(), (int32_t)S::STAGES); }
template <class S> static __device__ __forceinline__ void bring_early(const bringer<S> &b, uint32_t rank, int32_t steps, int32_t unit) {
#pragma unroll 1
    for (int32_t k = 0; k < S::GROUPS; k++) {
        const group_steps<S> of(rank, k, steps);
#pragma unroll 1
        for (int32_t i = 0; i < early_stages(of); i++) b.bring_records(k, i, unit, of.step(i));
    }
}

/* One warp; what is brought early has been asked for. */
template <class S> static __device__ __forceinline__ void bring(const bringer<S> &b, uint32_t rank, int32_t steps, int32_t unit, int32_t units, int32_t apart) {
    wait_for_previous();
    each_stage<S>(rank, steps, unit, units, apart, [&](int32_t k, int32_t unit, int32_t step, uint32_t n) {
        const stage_of<S> stage(n);
        const bool early = (int32_t)n < early_stages(group_steps<S>(rank, k, steps));
        if (!early) barrier_wait(&b.bars.empty[k][stage.at], stage.parity ^ 1);
        if (elected()) {
            if (!early) b.bring_records(k, stage.at, unit, step);
            b.bring_x(k, stage.at, step);
        }
        __syncwarp();
    });
}

/* ---- nested absmaxes ---- */

/* A row's: scales of its first block and of its last one, the first block that has the latter, and whose map and offset. */
struct told_row {
    float low, high, offset;
    int32_t change_part;                 /* first block and part, in fours                      */
    __device__ __forceinline__ void find(const rv_four &q, int32_t row) {
        const part_row at = part_row_of(q, min(row, q.rows - 1));
        const float *scales = scales_of(q, at.part);
        const uint32_t block = (uint32_t)(at.row * q.blocks);
        low = __ldg(scales + block / RV_NESTED_BLOCK);
        high = __ldg(scales + (block + (uint32_t)q.blocks - 1) / RV_NESTED_BLOCK);
        offset = __ldg(head_of(q).offset + at.part);
        change_part = (int32_t)(RV_NESTED_BLOCK - block % RV_NESTED_BLOCK) * 4 + at.part;
    }
};
static_assert(RV_WEIGHT_PARTS <= 4, "a part in fours");

/* One warp of a block that has steps, a unit ahead: what all lanes that multiply would find out for themselves.  When both blocks have read a unit's sums, all warps that left
 * some have taken what was told of it. */
template <class S> static __device__ __forceinline__ void tell_rows(const rv_four &q, told_row *told, barriers<S> &bars, int32_t unit, int32_t units, int32_t apart) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    uint32_t room = 0, turn = 1;         /* of the unit before the last                         */
    told_row rows[2];
    auto find = [&](int32_t unit) {
#pragma unroll
        for (int32_t i = 0; i < 2; i++) rows[i].find(q, unit * ROWS + i * 32 + lane);
    };
    find(unit);
#pragma unroll 1
    for (int32_t u = 0; unit < units; unit += apart, u++, turn ^= room, room ^= 1) {
        if (u >= 2) barrier_wait(&bars.read[room], turn);
#pragma unroll
        for (int32_t i = 0; i < 2; i++) told[room * ROWS + i * 32 + lane] = rows[i];
        warp_arrive(&bars.told[room]);
        if (unit + apart < units) find(unit + apart);
    }
}

/* What a lane knows of one of its rows. */
struct lane_row {
    float low, high, offset;
    int32_t change;
    const float *map;
    __device__ __forceinline__ void take(const told_row &r, const float *maps) {
        low = r.low, high = r.high, offset = r.offset;
        change = r.change_part / 4;
        map = maps + r.change_part % 4 * 256;
    }
    __device__ __forceinline__ float absmax(int32_t block, uint8_t code) const { return nested_absmax(map[code], block < change ? low : high, offset); }
};

/* ---- sums ---- */

/* Of a room's sum k, row `row` of the block's half, row n of x: so that neither lanes that write nor lanes that read meet in a bank. */
static __device__ __forceinline__ int32_t turned(int32_t row) { return (row & 1) | (row >> 3 & 3) << 1 | (row >> 1 & 3) << 3; }
template <class S> static __device__ __forceinline__ uint32_t sum_at(uint32_t room, int32_t k, int32_t row, int32_t n) {
    const int32_t line = k * HALF + row, column = ((S::APART ? n : n + (int32_t)room * (GAP / 8)) ^ turned(row)) * (int32_t)sizeof(float);
    return (uint32_t)((S::APART && room ? S::MORE_AT + line * GAP : GAP + line * PAIR_STRIDE) + column);
}
static_assert(WARPS * HALF <= GAPS && MOST_ROWS * (int)sizeof(float) <= GAP, "room for all sums");

static __device__ __forceinline__ void send_pair(uint32_t there, float a, float b, uint32_t bar) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(there), "f"(a), "f"(b), "r"(bar) : "memory");
}

/* A warp's part of sum number k, to the block that finishes these rows. */
template <class S> static __device__ __forceinline__ void leave(const float (&sum)[S::N / 2], char *table, barriers<S> &bars, uint32_t room, int32_t k, uint32_t rank) {
    const int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
    const bool here = (uint32_t)warp / 2 == rank;
    const uint32_t at = shared_address(table), there = here ? at : peer_address(at, rank ^ 1), bar = here ? 0 : peer_address(shared_address(&bars.landed[room]), rank ^ 1);
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        const int32_t row = warp % 2 * TILE + h * 8 + g;
        const bool swapped = row & 1;
#pragma unroll
        for (int32_t j = 0; j < S::N / 8; j++) {
            const float a = sum[j * 4 + h * 2], b = sum[j * 4 + h * 2 + 1], low = swapped ? b : a, high = swapped ? a : b;
            const uint32_t to = sum_at<S>(room, k, row, j * 8 + t * 2) & ~7u;
            if (here) *(float2 *)(table + to) = make_float2(low, high);
            else send_pair(there + to, low, high, bar);
        }
    }
    if (here) warp_arrive(&bars.landed[room]);
}

/* FINISHING warps, number `me` this one: what becomes of the sums of the block's units. */
enum { FINISHING = 2 };
template <typename T, typename O, int HOW, class S>
static __device__ __forceinline__ void finish_units(const args4 &g, const char *table, barriers<S> &bars, uint32_t rank, int32_t me, int32_t unit, int32_t apart) {
    const args &a = g.a;
    constexpr bool gates = HOW == rv_few::RV_FEW_SWIGLU;
    enum { OUTPUTS = gates ? HALF / 2 : HALF, AT_ONCE = 32 / OUTPUTS, STEP = FINISHING * AT_ONCE, PER = S::N / STEP, SOME = PER < 8 ? PER : 8 };
    const int32_t lane = (int32_t)threadIdx.x % 32, n0 = me * AT_ONCE + lane / OUTPUTS, in_half = gates ? lane % OUTPUTS / 8 * TILE + lane % 8 : lane;
    auto expect = [&](uint32_t room) {
        if (me == 0 && lane == 0) barrier_expect(&bars.landed[room], WARPS / CLUSTER * HALF * S::N * sizeof(float));
    };
    expect(0);
    expect(1);
    wait_for_previous();
    uint32_t room = 0, turn = 0;
#pragma unroll 1
    for (; unit < a.tiles; unit += apart, turn ^= room, room ^= 1) {
        const int32_t row = unit * ROWS + (int32_t)rank * HALF + in_half;
#pragma unroll 1
        for (int32_t from = n0; from < S::N; from += SOME * STEP) {
            auto here = [&](int32_t e) { return row < a.rows && from + e * STEP < a.n; };
            float old[SOME] = {}, v[SOME], up[SOME];
            if (HOW == rv_few::RV_FEW_ADD)
#pragma unroll
                for (int32_t e = 0; e < SOME; e++)
                    if (here(e)) old[e] = __ldcg((const float *)a.out + (from + e * STEP) * a.out_ld + row);
            if (from == n0) barrier_wait_cluster(&bars.landed[room], turn);
#pragma unroll
            for (int32_t e = 0; e < SOME; e++) {
                v[e] = up[e] = 0;
#pragma unroll
                for (int32_t k = 0; k < WARPS; k++) {
                    v[e] += *(const float *)(table + sum_at<S>(room, k, in_half, from + e * STEP));
                    if (gates) up[e] += *(const float *)(table + sum_at<S>(room, k, in_half + RV_CUDA_GATE_BLOCK, from + e * STEP));
                }
            }
#pragma unroll
            for (int32_t e = 0; e < SOME; e++)
                if (here(e)) {
                    const int32_t n = from + e * STEP, column = gated_column(row);
                    if (gates) ((O *)a.out)[n * a.out_ld + (g.arranges ? arranged_column(column) : column)] = gated<T, O>(v[e], up[e]);
                    else finish_one<T, O, HOW>(a, row, n, v[e], up[e], old[e]);
                }
        }
        __syncwarp();
        if (unit + 2 * apart < a.tiles) {
            expect(room);
            if (WARP_ARRIVALS == 32 || lane == 0) {
                barrier_arrive(&bars.read[room]);
                arrive_at_peer(peer_address(shared_address(&bars.read[room]), rank ^ 1));
            }
        }
    }
}
#endif
#endif
