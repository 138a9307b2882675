/* flash90.cu - attention with many rows on Hopper (sm_90a): products of whole warpgroups.
 *
 * The one idea: a block stays on its multiprocessor and works through items (parts.cuh).  One warpgroup only copies, keys
 * and values in tiles of 128, the next items' too; each of two others owns 64 rows: while it weighs the scores of
 * one key tile, its products of the tile before and the other warpgroup's run.  Scores start from bias / scale, and from 0
 * where all of a tile's biases are 0.
 *
 * Rows of different sequences in one tile: the keys are walked once for each run of rows of one sequence, the others
 * masked.  Slow, and never the case in a prefill.
 */
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/parts.cuh"

enum { GROUP = 128,                        /* threads of a warpgroup                             */
       MOST_WORKERS = 3, Q_STAGES = 2,
       TURN = 1, MEET = TURN + MOST_WORKERS };     /* numbers of barriers, one per worker        */

/* What a block is: WORKERS warpgroups of 64 rows each, tiles of KEYS.  TURNS: products of one after those of another.  BULK: queries,
 * keys and values are boxes of matrices, keys without pages, which one lane asks for. */
template <int D_, int WORKERS_, int KEYS_, bool TURNS_, bool BULK_, int COPY_REGISTERS_, int WORK_REGISTERS_> struct flash_shape {
    enum { D = D_, WORKERS = WORKERS_, ROWS = 64 * WORKERS, KEYS = KEYS_, TURNS = TURNS_, BULK = BULK_, THREADS = GROUP * (WORKERS + 1),
           COPY_REGISTERS = COPY_REGISTERS_, WORK_REGISTERS = WORK_REGISTERS_, STAGES = D == 128 ? 2 : 4 };
};

/* Boxes of 64 columns, and of the 16 that are left, where BULK. */
struct flash_maps { CUtensorMap q[2], k[2], v[2]; };

/* The run of rows [row, row_to) of one sequence that is being walked, at key tile `tile`; full_from, full_to: keys that all
 * its rows see. */
struct flash_walk { int32_t row, row_to, slot, tile, tile_to, lowest, highest, full_from, full_to; };

/* A tile of keys as the workers need to know it: its first key; the run's rows. */
struct flash_step { int32_t key, row, row_to; };
enum { STEP_LAST = 1,                      /* of the item                                        */
       STEP_MASKED = 2,                    /* some row does not see all of it                    */
       STEP_BIASED = 4 };                  /* some bias is not 0                                 */

/* Queries, keys or values: panels of 64 columns, [row][128 bytes], and one of 16 for what is left, [row][32 bytes], each
 * row's pieces of 16 bytes swizzled (hopper.cuh), so that 8 lanes copy and products read whole lines. */
template <int D, int ROWS> struct __align__(1024) flash_tile {
    enum { WIDE = D / 64, NARROW = D % 64 / 16 };
    static_assert(D % 64 == 0 || D % 64 == 16, "one narrow panel");
    uint8_t bytes[ROWS * D * 2];

    __device__ __forceinline__ uint8_t *wide(int32_t panel, int32_t row) { return bytes + (panel * ROWS + row) * 128; }
    __device__ __forceinline__ uint8_t *narrow(int32_t row) { return bytes + WIDE * ROWS * 128 + row * 32; }
};
template <class S> struct flash_room {
    flash_tile<S::D, S::ROWS> q[Q_STAGES];
    flash_tile<S::D, S::KEYS> k[S::STAGES], v[S::STAGES];
    float bias[S::STAGES][S::KEYS];        /* / scale                                            */
    int4 how[S::STAGES];                   /* STEP_.., as each warp that copies knows it         */
    flash_step step[S::STAGES];
    uint64_t q_full[Q_STAGES], q_empty[Q_STAGES], k_full[S::STAGES], k_empty[S::STAGES], v_full[S::STAGES], v_empty[S::STAGES];
    int32_t sees[Q_STAGES];                /* whether the item has a key                         */
    int32_t merge[S::WORKERS];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* A block's item of a round, or beyond the last.  Every other round backwards: items get shorter under a causal mask. */
static __device__ __forceinline__ int32_t item_of(int32_t round) {
    int32_t b = (int32_t)blockIdx.x, n = (int32_t)gridDim.x;
    return round * n + (round % 2 ? n - 1 - b : b);
}

/* As place_of said when the round began: nothing has to be kept till here. */
template <class S, typename T> static __device__ __forceinline__ flash_place place_again(const attend_args<T> &a, const flash_plan &plan, int32_t round) {
    asm volatile("" : "+r"(round));
    return place_of(plan, item_of(round), a.rows, a.heads, S::ROWS);
}

/* Of the n-th that goes through a ring of N stages, a power of two: where, and the parity its full barrier is waited for with;
 * its empty one with the opposite. */
template <int N> static __device__ __forceinline__ uint32_t stage_of(uint32_t n) { return n % N; }
template <int N> static __device__ __forceinline__ uint32_t parity_of(uint32_t n) { return n / N & 1; }

/* A place in a ring of N stages.  Full barriers are waited for with `phase`, empty ones with its opposite. */
template <int N> struct flash_ring {
    int32_t stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next() {
        stage = stage + 1 == N ? 0 : stage + 1;
        phase ^= stage == 0;
    }
};

/* The run that begins at the item's row `from`, its key tiles within the item's.  By one warp. */
template <class S, typename T>
static __device__ __forceinline__ void find_run(const attend_args<T> &a, const flash_place &p, int32_t from, flash_walk &w) {
    int32_t lane = (int32_t)threadIdx.x % 32, big = 0x7fffffff, differs = p.rows;
    int32_t lowest = big, highest = -1, full_from = -1, full_to = big;
    w.slot = a.slot ? a.slot[p.row0 + from] : 0;
    if (a.slot) {
#pragma unroll 1
        for (int32_t j = S::ROWS / 32 - 1; j >= 0; j--) {
            int32_t r = lane + 32 * j;
            if (r >= from && r < p.rows && a.slot[p.row0 + r] != w.slot) differs = r;
        }
        differs = __reduce_min_sync(~0u, differs);
    }
#pragma unroll 1
    for (int32_t j = 0; j < S::ROWS / 32; j++) {
        int32_t r = lane + 32 * j;
        if (r < from || r >= differs) continue;
        int32_t first = a.first ? a.first[p.row0 + r] : 0, last = a.last[p.row0 + r];
        if (last < first) continue;
        lowest = min(lowest, first);
        full_from = max(full_from, first);
        highest = max(highest, last);
        full_to = min(full_to, last);
    }
    w.row = from;
    w.row_to = differs;
    w.lowest = __reduce_min_sync(~0u, lowest);
    w.highest = __reduce_max_sync(~0u, highest);
    w.full_from = __reduce_max_sync(~0u, full_from);
    w.full_to = __reduce_min_sync(~0u, full_to);
    w.tile = max(p.from, w.lowest / S::KEYS);
    w.tile_to = min(p.to, w.highest < 0 ? 0 : w.highest / S::KEYS + 1);
}

/* On to a run that has a tile left; false: there is none. */
template <class S, typename T>
static __device__ __forceinline__ bool settle(const attend_args<T> &a, const flash_place &p, flash_walk &w) {
#pragma unroll 1
    while (w.tile >= w.tile_to) {
        if (w.row_to >= p.rows) return false;
        find_run<S>(a, p, w.row_to, w);
    }
    return true;
}

/* ---- the warpgroup that copies ---- */

static constexpr uint32_t NO_ROW = 0xffffffff;

/* A warp's 32 rows of a panel, COLUMNS wide.  from_row: where lane's row begins, in pieces of 16 bytes, or NO_ROW for zeros. */
template <int COLUMNS, typename T> static __device__ __forceinline__ void copy_panel(void *panel, const T *from, uint32_t from_row) {
    enum { PIECES = COLUMNS / 8, BYTES = 2 * COLUMNS, AT_ONCE = 32 / PIECES, COPIES = 32 / AT_ONCE, TOGETHER = 4 < COPIES ? 4 : COPIES };
    int32_t lane = (int32_t)threadIdx.x % 32, r = lane / PIECES, c = lane % PIECES;
    uint32_t to = shared_address(panel) + (uint32_t)(r * BYTES + c * 16), x[TOGETHER];
    from += c * 8;
#pragma unroll
    for (int32_t j = 0; j < COPIES; j += TOGETHER) {
#pragma unroll
        for (int32_t i = 0; i < TOGETHER; i++) x[i] = __shfl_sync(~0u, from_row, (j + i) * AT_ONCE + r);
#pragma unroll
        for (int32_t i = 0; i < TOGETHER; i++) {
            bool valid = x[i] != NO_ROW;
            copy16(swizzled<BYTES>(to + (uint32_t)((j + i) * AT_ONCE * BYTES)), reinterpret_cast<const uint4 *>(from) + (valid ? x[i] : 0), valid);
        }
    }
}

/* A warp's 32 rows of a tile, from `at` on.  row: lane's physical row, or NO_KEY; ld16: from row to row, in pieces of 16 bytes. */
template <int D, int ROWS, typename T>
static __device__ __forceinline__ void copy_rows(flash_tile<D, ROWS> &tile, int32_t at, const T *from, uint32_t ld16, int32_t row) {
    typedef flash_tile<D, ROWS> type;
    uint32_t from_row = row < 0 ? NO_ROW : (uint32_t)row * ld16;
#pragma unroll
    for (int32_t i = 0; i < type::WIDE; i++) copy_panel<64>(tile.wide(i, at), from + 64 * i, from_row);
    if constexpr (type::NARROW) copy_panel<16>(tile.narrow(at), from + 64 * type::WIDE, from_row);
}

/* The physical row of the thread's key of the walk's tile, and its bias. */
template <class S, typename T> static __device__ __forceinline__ int32_t find_row(const attend_args<T> &a, const flash_walk &w, float &bias) {
    int32_t t = (int32_t)threadIdx.x % GROUP, key = w.tile * S::KEYS + t;
    int32_t row = key >= w.lowest && key <= w.highest && t < S::KEYS ? key_row(a, w.slot, key) : (int32_t)NO_KEY;
    bias = a.bias && row >= 0 ? a.bias[row] : 0.f;
    return row;
}

static __device__ __forceinline__ flash_step step_of(const flash_place &p, const flash_walk &w, int32_t keys, int32_t &how) {
    flash_step step = { w.tile * keys, w.row, w.row_to };
    how = w.row == 0 && w.row_to == p.rows && step.key >= w.full_from && step.key + keys - 1 <= w.full_to ? 0 : STEP_MASKED;
    return step;
}

/* Each warp for its 32 keys of a stage; its first lane arrives for all. */
template <class S> static __device__ __forceinline__ void leave_step(flash_room<S> &room, uint32_t stage, const flash_step &step, int32_t how, float bias, bool biased) {
    int32_t t = (int32_t)threadIdx.x % GROUP;
    if (biased && t < S::KEYS) room.bias[stage][t] = bias;
    if (__any_sync(~0u, bias != 0)) how |= STEP_BIASED;
    if (t == 0) room.step[stage] = step;
    __syncwarp();
    if (t % 32 == 0) {
        reinterpret_cast<int32_t *>(&room.how[stage])[t / 32] = how;
        barrier_arrive(&room.k_full[stage]);
    }
}

template <class S, typename T> static __device__ __forceinline__ void copy_queries(const attend_args<T> &a, const flash_place &p, flash_room<S> &room, uint32_t stage) {
    int32_t t = (int32_t)threadIdx.x % GROUP;
#pragma unroll 1
    for (int32_t at = t / 32 * 32; at < S::ROWS; at += GROUP) {
        int32_t row = at + t % 32;
        copy_rows(room.q[stage], at, a.q + (int64_t)p.row0 * a.q_ld + p.head * S::D, (uint32_t)(a.q_ld / 8), row < p.rows ? row : (int32_t)NO_KEY);
    }
    barrier_arrive_after_copies(&room.q_full[stage]);
}

template <class S, typename T> static __device__ __forceinline__ void copy_all(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room) {
    int32_t t = (int32_t)threadIdx.x % GROUP, at = t / 32 * 32;
    float unscale = 1.f / a.scale;
    uint32_t n = 0;
#pragma unroll 1
    for (int32_t round = 0; item_of(round) < plan.items; round++) {
        flash_place p = place_of(plan, item_of(round), a.rows, a.heads, S::ROWS);
        int32_t column = p.head / a.group * S::D, row = NO_KEY, how = 0;
        float bias = 0;
        flash_step step = { 0, 0, 0 };
        flash_walk w;
        w.row_to = w.tile = w.tile_to = 0;
        /* One tile behind the walk: what the last one is has to be known when its keys are copied. */
#pragma unroll 1
        for (int32_t tiles = 0;; tiles++) {
            bool more = settle<S>(a, p, w);
            uint32_t s = stage_of<S::STAGES>(n), empty = parity_of<S::STAGES>(n) ^ 1;
            int32_t v_row = row;
            if (tiles) {
                barrier_wait(&room.k_empty[s], empty);
                if (S::KEYS == GROUP || at < S::KEYS) copy_rows(room.k[s], at, a.k + column, (uint32_t)(a.k_ld / 8), row);
                leave_step(room, s, step, more ? how : how | STEP_LAST, bias * unscale, a.bias != nullptr);
                barrier_arrive_after_copies(&room.k_full[s]);
            }
            if (tiles == 1 || !(tiles || more)) {
                uint32_t q = stage_of<Q_STAGES>((uint32_t)round);
                barrier_wait(&room.q_empty[q], parity_of<Q_STAGES>((uint32_t)round) ^ 1);
                copy_queries(a, p, room, q);
                if (t == 0) {
                    room.sees[q] = tiles;
                    barrier_arrive(&room.q_full[q]);
                }
            }
            if (more) {                    /* looked up while the values are on their way      */
                row = find_row<S>(a, w, bias);
                step = step_of(p, w, S::KEYS, how);
                w.tile++;
            }
            if (tiles) {
                barrier_wait(&room.v_empty[s], empty);
                if (S::KEYS == GROUP || at < S::KEYS) copy_rows(room.v[s], at, a.v + column, (uint32_t)(a.v_ld / 8), v_row);
                barrier_arrive_after_copies(&room.v_full[s]);
                n++;
            }
            if (!more) break;
        }
    }
    copies_commit();
    copies_wait<0>();
}

/* ---- or one of its warps, where boxes are copied in bulk ---- */

template <int D, int ROWS>
static __device__ __forceinline__ void fetch(flash_tile<D, ROWS> &tile, const CUtensorMap (&map)[2], int32_t column, int32_t row, uint64_t *full) {
    typedef flash_tile<D, ROWS> type;
    barrier_expect(full, ROWS * D * 2);
#pragma unroll
    for (int32_t i = 0; i < type::WIDE; i++) copy_box(tile.wide(i, 0), &map[0], column + 64 * i, row, full);
    if constexpr (type::NARROW) copy_box(tile.narrow(0), &map[1], column + 64 * type::WIDE, row, full);
}

/* The bias of lane's keys of a tile, lane, 32 + lane and so on. */
template <class S, typename T> static __device__ __forceinline__ void find_bias(const attend_args<T> &a, const flash_walk &w, int32_t lane, float (&bias)[4]) {
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        int32_t key = w.tile * S::KEYS + 32 * i + lane;
        bias[i] = 32 * i + lane < S::KEYS && key >= w.lowest && key <= w.highest ? a.bias[key] : 0.f;
    }
}

template <class S, typename T> static __device__ __forceinline__ void fetch_all(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, const flash_maps &maps) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float unscale = 1.f / a.scale, bias[4] = { 0, 0, 0, 0 };
    uint32_t n = 0;
#pragma unroll 1
    for (int32_t round = 0; item_of(round) < plan.items; round++) {
        flash_place p = place_of(plan, item_of(round), a.rows, a.heads, S::ROWS);
        int32_t column = p.head / a.group * S::D, how = 0;
        flash_step step = { 0, 0, 0 };
        flash_walk w;
        w.row_to = w.tile = w.tile_to = 0;
#pragma unroll 1
        for (int32_t tiles = 0;; tiles++) {
            bool more = settle<S>(a, p, w);
            uint32_t s = stage_of<S::STAGES>(n), empty = parity_of<S::STAGES>(n) ^ 1;
            int32_t row = step.key;
            if (tiles) {
                barrier_wait(&room.k_empty[s], empty);
                if (a.bias) {
                    bool any = false;
#pragma unroll
                    for (int32_t i = 0; i < 4; i++) {
                        if (32 * i + lane < S::KEYS) room.bias[s][32 * i + lane] = bias[i] * unscale;
                        any = any || bias[i] != 0;
                    }
                    if (__any_sync(~0u, any)) how |= STEP_BIASED;
                    __syncwarp();
                }
                if (lane == 0) {
                    room.step[s] = step;
                    room.how[s] = make_int4(more ? how : how | STEP_LAST, 0, 0, 0);
                    fetch(room.k[s], maps.k, column, row, &room.k_full[s]);
                }
            }
            if (tiles == 1 || !(tiles || more)) {
                uint32_t q = stage_of<Q_STAGES>((uint32_t)round);
                barrier_wait(&room.q_empty[q], parity_of<Q_STAGES>((uint32_t)round) ^ 1);
                if (lane == 0) {
                    room.sees[q] = tiles;
                    fetch(room.q[q], maps.q, p.head * S::D, p.row0, &room.q_full[q]);
                }
            }
            if (more) {
                if (a.bias) find_bias<S>(a, w, lane, bias);
                step = step_of(p, w, S::KEYS, how);
                w.tile++;
            }
            if (tiles) {
                barrier_wait(&room.v_empty[s], empty);
                if (lane == 0) fetch(room.v[s], maps.v, column, row, &room.v_full[s]);
                n++;
            }
            if (!more) break;
        }
    }
}

/* ---- a warpgroup that works: 64 rows ---- */

/* Thread (warp, lane)'s rows are 16 warp + lane / 4, and 8 more; its columns 8 n + lane % 4 * 2, and the next:
 * element 4 n + 2 h + e is row h, column e of those.  Weights are exp2(scale (score - m)). */
template <int D> struct flash_sums { float o[D / 2], m[2], l[2]; };

/* The thread's first row of the item; found again by who needs it, so that no register holds it meanwhile. */
static __device__ __forceinline__ int32_t row_again() {
    int32_t t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    return t / 32 * 16 + t % 32 / 4;
}

/* The first and last key of a row of the item; none of rows that are not there. */
template <typename T> static __device__ __forceinline__ int2 range_of(const attend_args<T> &a, const flash_place &p, int32_t row) {
    if (row >= p.rows) return make_int2(0, -1);
    return make_int2(a.first ? a.first[p.row0 + row] : 0, a.last[p.row0 + row]);
}

/* STEP_.. of a stage.  Through a shuffle, so that the compiler knows it to be the same in all of the warp: what follows from it stays in
 * uniform registers, where products want their operands' addresses. */
template <class S> static __device__ __forceinline__ int32_t how_of(const flash_room<S> &room, uint32_t stage) {
    int4 by_warp = room.how[stage];
    return __shfl_sync(~0u, by_warp.x | by_warp.y | by_warp.z | by_warp.w, 0);
}

/* What scores start from; false: from 0. */
template <class S> static __device__ __forceinline__ bool begin_scores(flash_room<S> &room, uint32_t stage, int32_t how, float (&s)[S::KEYS / 2]) {
    if (!(how & STEP_BIASED)) return false;
#pragma unroll
    for (int32_t n = 0; n < S::KEYS / 8; n++) {
        float2 b = *reinterpret_cast<const float2 *>(&room.bias[stage][8 * n + (int32_t)threadIdx.x % 4 * 2]);
        s[4 * n] = s[4 * n + 2] = b.x;
        s[4 * n + 1] = s[4 * n + 3] = b.y;
    }
    return true;
}

/* s = (begun ? s : 0) + q k. */
template <class S, typename T>
static __device__ __forceinline__ void score(flash_room<S> &room, int32_t worker, uint32_t q_stage, uint32_t stage, bool begun, T, float (&s)[S::KEYS / 2]) {
    typedef flash_tile<S::D, S::KEYS> tile;
    flash_tile<S::D, S::ROWS> &q = room.q[q_stage];
    tile &k = room.k[stage];
    pin(s);
    product_begin();
#pragma unroll
    for (int32_t i = 0; i < tile::WIDE; i++)
#pragma unroll
        for (int32_t c = 0; c < 4; c++)
            product(s, operand(q.wide(i, 64 * worker)) + (uint64_t)(2 * c), operand(k.wide(i, 0)) + (uint64_t)(2 * c), i > 0 || c > 0 || begun, T());
    if constexpr (tile::NARROW) product(s, operand<32>(q.narrow(64 * worker)), operand<32>(k.narrow(0)), 1, T());
    product_commit();
}

template <class S, typename T>
static __device__ __forceinline__ void add_values(flash_room<S> &room, uint32_t stage, const uint32_t (&p)[S::KEYS / 16][4], T, flash_sums<S::D> &f) {
    enum { WIDE = S::D / 64 };
    uint64_t wide = operand(room.v[stage].wide(0, 0), S::KEYS * 128), narrow = operand<32>(room.v[stage].narrow(0));
    pin(f.o);
    product_begin();
#pragma unroll
    for (int32_t c = 0; c < S::KEYS / 16; c++) {
        product_weighted(reinterpret_cast<float (&)[WIDE * 32]>(f.o), p[c], wide + (uint64_t)(c * (16 * 128 / 16)), T());
        if constexpr (S::D % 64) product_weighted(reinterpret_cast<float (&)[8]>(f.o[WIDE * 32]), p[c], narrow + (uint64_t)(c * (16 * 32 / 16)), T());
    }
    product_commit();
}

static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __nv_bfloat16) { return pack2(a, b, __nv_bfloat16()); }
/* Within the range: nothing to clamp. */
static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __half) {
    __half2 v = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}

/* How far a tile's weights may add up, in a thread, before its row takes a new maximum. */
static __device__ __forceinline__ float most_weight(__nv_bfloat16) { return 0x1p32f; }
static __device__ __forceinline__ float most_weight(__half) { return 0x1p15f; }

/* Rarely: it looks up again what would take registers. */
template <class S, typename T>
static __device__ __forceinline__ void mask(const attend_args<T> &a, const flash_plan &plan, int32_t round, const flash_step &step, float (&s)[S::KEYS / 2]) {
    flash_place p = place_again<S>(a, plan, round);
    int32_t row = row_again();
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        bool in = row + 8 * h >= step.row && row + 8 * h < step.row_to;
        int2 range = range_of(a, p, row + 8 * h);
        int32_t base = step.key + (int32_t)threadIdx.x % 4 * 2, first = in ? range.x - base : 0, last = in ? range.y - base : -1;
#pragma unroll
        for (int32_t n = 0; n < S::KEYS / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++)
                if (8 * n + e < first || 8 * n + e > last) s[4 * n + 2 * h + e] = minus_infinity();
    }
}

/* s becomes exp2(scale s - shift), l their sums in the thread. */
template <int N> static __device__ __forceinline__ void weigh(float scale, const float (&shift)[2], float (&s)[N], float (&l)[2]) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float sum[2] = { 0, 0 };
#pragma unroll
        for (int32_t n = 0; n < N / 4; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++) {
                float &x = s[4 * n + 2 * h + e];
                x = exp2_fast(fmaf(x, scale, -shift[h]));
                sum[e] += x;
            }
        l[h] = sum[0] + sum[1];
    }
    pin(s);                                /* now, not after the products that run meanwhile     */
}

/* The rows `anew` take the maximum that they have come to; by: what sums so far must be scaled by. */
template <int D, int N>
static __device__ __forceinline__ void weigh_anew(flash_sums<D> &f, float scale, const bool (&anew)[2], float (&s)[N], float (&by)[2]) {
    float shift[2], l[2];
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float m = f.m[h], most[2] = { s[2 * h], s[2 * h + 1] };
#pragma unroll
        for (int32_t n = 1; n < N / 4; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++) most[e] = fmaxf(most[e], s[4 * n + 2 * h + e]);
        m = fmaxf(m, fmaxf(most[0], most[1]));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
        if (!anew[h]) m = f.m[h];
        shift[h] = m == minus_infinity() ? 0.f : __fmul_rn(m, scale);
        by[h] = anew[h] ? exp2_fast(__fmul_rn(f.m[h], scale) - shift[h]) : 1.f;
        f.m[h] = m;
    }
    weigh(scale, shift, s, l);
#pragma unroll
    for (int32_t h = 0; h < 2; h++) f.l[h] = fmaf(f.l[h], by[h], l[h]);
}

/* Whether a row is so, of which four lanes have a part each. */
static __device__ __forceinline__ void over_row(bool (&x)[2]) {
    int32_t both = x[0] + 2 * x[1];
    both |= __shfl_xor_sync(~0u, both, 1);
    both |= __shfl_xor_sync(~0u, both, 2);
    x[0] = both & 1;
    x[1] = both >> 1;
}

template <int N, typename T> static __device__ __forceinline__ void pack_all(const float (&s)[4 * N * 2], uint32_t (&p)[N][4], T) {
#pragma unroll
    for (int32_t i = 0; i < 4 * N; i++) p[i / 4][i % 4] = pack_weights(s[2 * i], s[2 * i + 1], T());
}

template <int D> static __device__ __forceinline__ void scale_sums(flash_sums<D> &f, const float (&by)[2]) {
#pragma unroll
    for (int32_t i = 0; i < D / 2; i++) f.o[i] *= by[i / 2 % 2];
}

/* ---- results ---- */

/* l: of the whole row. */
template <typename T, int D>
static __device__ __forceinline__ void store(const attend_args<T> &a, const flash_place &p, const flash_sums<D> &f, int32_t row, const float (&l)[2]) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        if (row + 8 * h >= p.rows) continue;
        int2 range = range_of(a, p, row + 8 * h);
        float by = l[h] == 0 || range.y < range.x ? 0.f : 1.f / l[h];
        T *to = a.out + (int64_t)(p.row0 + row + 8 * h) * a.out_ld + p.head * D + threadIdx.x % 4 * 2;
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++) {
            float x = by == 0 ? 0.f : f.o[4 * n + 2 * h] * by, y = by == 0 ? 0.f : f.o[4 * n + 2 * h + 1] * by;
            *reinterpret_cast<uint32_t *>(to + 8 * n) = pack2(x, y, T());
        }
    }
}

template <class S, typename T>
static __device__ __forceinline__ void finish(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, int32_t round,
                                              int32_t worker, flash_sums<S::D> &f) {
    enum { D = S::D, WORKERS = S::WORKERS };
    float l[2];
    flash_place p = place_again<S>(a, plan, round);
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        l[h] = f.l[h] + __shfl_xor_sync(~0u, f.l[h], 1);
        l[h] += __shfl_xor_sync(~0u, l[h], 2);
    }
    if (p.part >= 0) {
        int32_t t = (int32_t)threadIdx.x % GROUP, tile = p.part / plan.splits;
        leave_sums<D / 8>(part_of<D / 8>(plan, p.part, WORKERS, worker, t), f.o, f.m, l);
        group_sync(MEET + worker, GROUP);
        if (t == 0) room.merge[worker] = last_part(plan, tile * WORKERS + worker);
        group_sync(MEET + worker, GROUP);
        if (!room.merge[worker]) return;
        merge_sums<D / 8>(part_of<D / 8>(plan, tile * plan.splits, WORKERS, worker, t), (int64_t)WORKERS * (D / 8 + 1) * GROUP, plan.splits,
                          a.scale * RV_LOG2E, f.o, l);
    }
    store(a, place_again<S>(a, plan, round), f, row_again(), l);
}

/* ---- the walk ---- */

/* The fence is here, not where copies are made: there it would wait for all that are under way.  Bulk copies need none: they
 * and products are of one proxy. */
template <class S> static __device__ __forceinline__ void wait_for_copies(uint64_t &full, uint32_t phase) {
    barrier_wait(&full, phase);
    if (!S::BULK) make_visible_to_products();
}

/* One lane of each warp says that its products have read what the barrier guards. */
static __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) barrier_arrive(&empty);
}

/* Rows without keys have a maximum, so that nobody waits for their first. */
template <typename T, int D>
static __device__ __forceinline__ void begin_sums(const attend_args<T> &a, const flash_place &p, int32_t row, flash_sums<D> &f) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        int2 range = range_of(a, p, row + 8 * h);
        f.m[h] = range.y < range.x ? 0.f : minus_infinity();
        f.l[h] = 0;
    }
#pragma unroll
    for (int32_t i = 0; i < D / 2; i++) f.o[i] = 0;
}

template <class S> static __device__ __forceinline__ void await_turn(int32_t worker) {
    if (S::TURNS) group_sync(TURN + worker, 2 * GROUP);
}
template <class S> static __device__ __forceinline__ void pass_turn(int32_t worker) {
    if (S::TURNS) group_arrive(TURN + (worker + 1 == S::WORKERS ? 0 : worker + 1), 2 * GROUP);
}

template <class S, typename T>
static __device__ __forceinline__ void work(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, int32_t worker) {
    enum { D = S::D, KEYS = S::KEYS };
    flash_ring<S::STAGES> k_ring, v_ring;
    float scale = a.scale * RV_LOG2E, s[KEYS / 2], by[2];
    uint32_t weights[KEYS / 16][4];
#pragma unroll
    for (int32_t i = 0; i < KEYS / 2; i++) s[i] = 0;
    if (worker == S::WORKERS - 1) pass_turn<S>(worker);
#pragma unroll 1
    for (int32_t round = 0; item_of(round) < plan.items; round++) {
        flash_sums<D> f;
        begin_sums(a, place_again<S>(a, plan, round), row_again(), f);
        const uint32_t q = stage_of<Q_STAGES>((uint32_t)round);
        wait_for_copies<S>(room.q_full[q], parity_of<Q_STAGES>((uint32_t)round));
        if (__shfl_sync(~0u, room.sees[q], 0)) {
            wait_for_copies<S>(room.k_full[k_ring.stage], k_ring.phase);
            int32_t how = how_of(room, k_ring.stage);
            bool begun = begin_scores(room, k_ring.stage, how, s);
            await_turn<S>(worker);
            score(room, worker, q, k_ring.stage, begun, T(), s);
            pass_turn<S>(worker);
            product_wait<0>();
            pin(s);
            if (how & STEP_MASKED) mask<S>(a, plan, round, room.step[k_ring.stage], s);
            release(room.k_empty[k_ring.stage]);
            k_ring.next();
            const bool all[2] = { true, true };
            weigh_anew(f, scale, all, s, by);
            /* The loop's end lies where it does so that the compiler cannot move the wait up before the weighing. */
#pragma unroll 1
            for (bool later = false;; later = true) {
                product_wait<0>();
                pin(f.o);
                if (later) {
                    release(room.v_empty[v_ring.stage]);
                    v_ring.next();
                }
                pack_all(s, weights, T());
                if (how & STEP_LAST) break;
                barrier_wait(&room.v_full[v_ring.stage], v_ring.phase);      /* older than the keys: nothing to wait for */
                wait_for_copies<S>(room.k_full[k_ring.stage], k_ring.phase);
                how = how_of(room, k_ring.stage);
                begun = begin_scores(room, k_ring.stage, how, s);
                await_turn<S>(worker);
                score(room, worker, q, k_ring.stage, begun, T(), s);
                add_values(room, v_ring.stage, weights, T(), f);
                pass_turn<S>(worker);
                product_wait<1>();
                pin(s);
                if (how & STEP_MASKED) mask<S>(a, plan, round, room.step[k_ring.stage], s);
                float shift[2] = { __fmul_rn(f.m[0], scale), __fmul_rn(f.m[1], scale) }, l[2];
                weigh(scale, shift, s, l);
                bool anew[2] = { !(l[0] <= most_weight(T())), !(l[1] <= most_weight(T())) };
                if (__any_sync(~0u, group_any(MEET + worker, GROUP, anew[0] || anew[1]))) {
                    product_wait<0>();
                    pin(f.o);
                    begun = begin_scores(room, k_ring.stage, how, s);
                    score(room, worker, q, k_ring.stage, begun, T(), s);
                    product_wait<0>();
                    pin(s);
                    if (how & STEP_MASKED) mask<S>(a, plan, round, room.step[k_ring.stage], s);
                    over_row(anew);
                    weigh_anew(f, scale, anew, s, by);
                    scale_sums(f, by);
                } else {
                    f.l[0] += l[0];
                    f.l[1] += l[1];
                }
                release(room.k_empty[k_ring.stage]);
                k_ring.next();
            }
            wait_for_copies<S>(room.v_full[v_ring.stage], v_ring.phase);
            add_values(room, v_ring.stage, weights, T(), f);
            product_wait<0>();
            pin(f.o);
            release(room.v_empty[v_ring.stage]);
            v_ring.next();
        }
        release(room.q_empty[q]);
        finish(a, plan, room, round, worker, f);
    }
}

#endif

/* ---- the kernel ---- */

template <class S, typename T> static __global__ void __launch_bounds__(S::THREADS, 1) flash90_kernel(attend_args<T> a, flash_plan plan, const __grid_constant__ flash_maps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    flash_room<S> &room = *reinterpret_cast<flash_room<S> *>(memory);
    int32_t group = __shfl_sync(~0u, (int32_t)threadIdx.x / GROUP, 0);
    if (threadIdx.x == 0) {
        for (int32_t i = 0; i < Q_STAGES; i++) {
            barrier_open(&room.q_full[i], S::BULK ? 1 : GROUP + 1);
            barrier_open(&room.q_empty[i], 4 * S::WORKERS);
        }
        for (int32_t i = 0; i < S::STAGES; i++) {
            barrier_open(&room.k_full[i], S::BULK ? 1 : GROUP + GROUP / 32);
            barrier_open(&room.v_full[i], S::BULK ? 1 : GROUP);
            barrier_open(&room.k_empty[i], 4 * S::WORKERS);
            barrier_open(&room.v_empty[i], 4 * S::WORKERS);
        }
        barriers_opened();
    }
    __syncthreads();
    if (group == S::WORKERS) {
        give_registers<S::COPY_REGISTERS>();
        if (!S::BULK) copy_all(a, plan, room);
        else if (threadIdx.x % GROUP < 32) fetch_all(a, plan, room, maps);
    } else {
        take_registers<S::WORK_REGISTERS>();
        work(a, plan, room, group);
    }
#else
    (void)a;
    (void)plan;
    (void)maps;
    __trap();
#endif
}

/* Of columns 64 at a time, and of the last 16 of a head. */
static cudaError_t describe(CUtensorMap (&map)[2], rv_mat m, int32_t rows, int box_rows) {
    m.rows = m.rows < rows ? m.rows : rows;
    cudaError_t e = describe_boxes(&map[0], m.type, m.data, m.rows, m.cols, m.ld, box_rows, 128);
    return e ? e : describe_boxes(&map[1], m.type, m.data, m.rows, m.cols, m.ld, box_rows, 32);
}

template <class S, typename T>
static cudaError_t flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    int bytes = (int)sizeof(flash_room<S>);
    cudaError_t e = cudaFuncSetAttribute(flash90_kernel<S, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    flash_maps maps = {};
    if (S::BULK && !e) e = describe(maps.q, a->q, a->q.rows, S::ROWS);
    if (S::BULK && !e) e = describe(maps.k, a->kv.k, a->longest, S::KEYS);
    if (S::BULK && !e) e = describe(maps.v, a->kv.v, a->longest, S::KEYS);
    if (e) return e;
    flash_plan plan = plan_of(a, S::ROWS, S::KEYS, multiprocessors, partial);
    unsigned blocks = (unsigned)(plan.items < multiprocessors ? plan.items : multiprocessors);
    flash90_kernel<S, T><<<blocks, S::THREADS, (size_t)bytes, stream>>>(args_of<T>(a), plan, maps);
    return cudaGetLastError();
}

#ifndef VARIANT
#define VARIANT 13
#endif
#if VARIANT == 10
typedef flash_shape<80, 2, 128, true, true, 32, 232> bulk80;
#elif VARIANT == 11
typedef flash_shape<80, 3, 96, false, true, 56, 152> bulk80;
#elif VARIANT == 12
typedef flash_shape<80, 3, 96, true, true, 56, 152> bulk80;
#elif VARIANT == 13
typedef flash_shape<80, 3, 112, true, true, 32, 160> bulk80;
#elif VARIANT == 14
typedef flash_shape<80, 2, 128, false, true, 32, 232> bulk80;
#elif VARIANT == 15
typedef flash_shape<80, 3, 112, false, true, 32, 160> bulk80;
#endif

template <typename T> static cudaError_t flash90_of(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    switch (a->q.cols / a->heads) {
    case 64: return flash90<flash_shape<64, 2, 128, true, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    case 80:
        if (!a->kv.pages && a->longest > 0) return flash90<bulk80, T>(a, partial, multiprocessors, stream);
        return flash90<flash_shape<80, 2, 128, true, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    case 128: return flash90<flash_shape<128, 2, 128, true, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    default: return cudaErrorInvalidValue;
    }
}

cudaError_t rv_cuda_flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    return a->q.type == RV_F16 ? flash90_of<__half>(a, partial, multiprocessors, stream) : flash90_of<__nv_bfloat16>(a, partial, multiprocessors, stream);
}
