/* flash90.cuh - attention with many rows on Hopper: what a block shares, and the warps of it that copy.
 *
 * The one idea: one warpgroup only copies, keys and values in tiles, the next items' too, and tells the workers (flash90.cu) by tile
 * what they must know of it.  Keys without pages come in bulk, asked for by one lane; others in pieces of 16 bytes.
 */
#ifndef RV_KERNELS_CUDA_FLASH90_CUH
#define RV_KERNELS_CUDA_FLASH90_CUH
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/parts.cuh"

enum { GROUP = 128,                        /* threads of a warpgroup                             */
       MOST_WORKERS = 3, Q_STAGES = 2,
       TURN = 1, MEET = TURN + MOST_WORKERS };     /* numbers of barriers, one per worker        */

/* What a block is: WORKERS warpgroups of 64 rows each, tiles of KEYS.  BULK: queries, keys and values are boxes of matrices, keys without
 * pages, which one lane asks for. */
template <int D_, int WORKERS_, int KEYS_, bool BULK_, int COPY_REGISTERS_, int WORK_REGISTERS_> struct flash_shape {
    enum { D = D_, WORKERS = WORKERS_, ROWS = 64 * WORKERS, KEYS = KEYS_, BULK = BULK_, THREADS = GROUP * (WORKERS + 1),
           COPY_REGISTERS = COPY_REGISTERS_, WORK_REGISTERS = WORK_REGISTERS_, STAGES = D == 128 ? 2 : 4 };
};

/* Where BULK: boxes of 64 columns, and of the 16 that are left. */
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
template <class S, typename T>
static __device__ __forceinline__ flash_place place_again(const attend_args<T> &a, const flash_plan &plan, int32_t round) {
    asm volatile("" : "+r"(round));
    return place_of(plan, item_of(round), a.rows, a.heads, S::ROWS);
}

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
template <class S>
static __device__ __forceinline__ void leave_step(flash_room<S> &room, int32_t stage, const flash_step &step, int32_t how, float bias, bool biased) {
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

template <class S, typename T>
static __device__ __forceinline__ void copy_queries(const attend_args<T> &a, const flash_place &p, flash_room<S> &room, int32_t stage) {
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
    flash_ring<S::STAGES> ring;
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
            int32_t s = ring.stage, v_row = row;
            uint32_t empty = ring.phase ^ 1;
            if (tiles) {
                barrier_wait(&room.k_empty[s], empty);
                if (S::KEYS == GROUP || at < S::KEYS) copy_rows(room.k[s], at, a.k + column, (uint32_t)(a.k_ld / 8), row);
                leave_step(room, s, step, more ? how : how | STEP_LAST, bias * unscale, a.bias != nullptr);
                barrier_arrive_after_copies(&room.k_full[s]);
            }
            if (tiles == 1 || !(tiles || more)) {
                int32_t q = round % Q_STAGES;
                barrier_wait(&room.q_empty[q], ((uint32_t)round / Q_STAGES + 1) % 2);
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
                ring.next();
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
template <class S, typename T>
static __device__ __forceinline__ void find_bias(const attend_args<T> &a, const flash_walk &w, int32_t lane, float (&bias)[4]) {
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        int32_t key = w.tile * S::KEYS + 32 * i + lane;
        bias[i] = 32 * i + lane < S::KEYS && key >= w.lowest && key <= w.highest ? a.bias[key] : 0.f;
    }
}

/* By the whole warp; whether any of them is not 0. */
template <class S>
static __device__ __forceinline__ bool leave_bias(flash_room<S> &room, int32_t stage, int32_t lane, const float (&bias)[4], float unscale) {
    bool any = false;
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        if (32 * i + lane < S::KEYS) room.bias[stage][32 * i + lane] = bias[i] * unscale;
        any = any || bias[i] != 0;
    }
    any = __any_sync(~0u, any);
    __syncwarp();                          /* lane 0 arrives for all                             */
    return any;
}

/* As copy_all.  Keys below `longest` are fetched whether a row sees them or not. */
template <class S, typename T>
static __device__ __forceinline__ void fetch_all(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, const flash_maps &maps) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    float unscale = 1.f / a.scale, bias[4] = { 0, 0, 0, 0 };
    flash_ring<S::STAGES> ring;
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
            int32_t s = ring.stage, row = step.key;
            uint32_t empty = ring.phase ^ 1;
            if (tiles) {
                barrier_wait(&room.k_empty[s], empty);
                if (a.bias && leave_bias(room, s, lane, bias, unscale)) how |= STEP_BIASED;
                if (lane == 0) {
                    room.step[s] = step;
                    room.how[s] = make_int4(more ? how : how | STEP_LAST, 0, 0, 0);
                    fetch(room.k[s], maps.k, column, row, &room.k_full[s]);
                }
            }
            if (tiles == 1 || !(tiles || more)) {
                int32_t q = round % Q_STAGES;
                barrier_wait(&room.q_empty[q], ((uint32_t)round / Q_STAGES + 1) % 2);
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
                ring.next();
            }
            if (!more) break;
        }
    }
}
#endif
#endif
