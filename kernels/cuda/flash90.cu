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
       WORKERS = 2, ROWS = 64 * WORKERS, KEYS = 128,
       Q_STAGES = 2,
       TURN = 1, MERGE = TURN + WORKERS }; /* numbers of barriers, one per worker                */
static_assert(ROWS == KEYS, "one layout for all tiles");

/* The run of rows [row, row_to) of one sequence that is being walked, at key tile `tile`; full_from, full_to: keys that all
 * its rows see. */
struct flash_walk { int32_t row, row_to, slot, tile, tile_to, lowest, highest, full_from, full_to; };

/* Queries, keys or values: panels of 64 columns, [row][128 bytes], and one of 16 for what is left, [row][32 bytes], each
 * row's pieces of 16 bytes swizzled (hopper.cuh), so that 8 lanes copy and products read whole lines. */
template <int D> struct __align__(1024) flash_tile {
    enum { WIDE = D / 64, NARROW = D % 64 / 16 };
    static_assert(D % 64 == 0 || D % 64 == 16, "one narrow panel");
    uint8_t bytes[KEYS * D * 2];

    __device__ __forceinline__ uint8_t *wide(int32_t panel, int32_t row) { return bytes + (panel * KEYS + row) * 128; }
    __device__ __forceinline__ uint8_t *narrow(int32_t row) { return bytes + WIDE * KEYS * 128 + row * 32; }
};
template <int D> struct flash_room {
    enum { STAGES = D == 128 ? 2 : 3 };
    flash_tile<D> q[Q_STAGES], k[STAGES], v[STAGES];
    float bias[STAGES][KEYS];              /* / scale, where biased                              */
    int4 biased[STAGES];                   /* by warps that copy: whether any of their keys' bias is not 0 */
    uint64_t q_full[Q_STAGES], q_empty[Q_STAGES], k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    flash_walk walk[Q_STAGES];             /* where the item's walk begins                       */
    int32_t merge[WORKERS];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* A block's item of a round, or beyond the last.  Every other round backwards: items get shorter under a causal mask. */
static __device__ __forceinline__ int32_t item_of(int32_t round) {
    int32_t b = (int32_t)blockIdx.x, n = (int32_t)gridDim.x;
    return round * n + (round % 2 ? n - 1 - b : b);
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
template <typename T>
static __device__ __forceinline__ void find_run(const attend_args<T> &a, const flash_place &p, int32_t from, flash_walk &w) {
    int32_t lane = (int32_t)threadIdx.x % 32, big = 0x7fffffff, differs = p.rows;
    int32_t lowest = big, highest = -1, full_from = -1, full_to = big;
    w.slot = a.slot ? a.slot[p.row0 + from] : 0;
    if (a.slot) {
#pragma unroll
        for (int32_t j = ROWS / 32 - 1; j >= 0; j--) {
            int32_t r = lane + 32 * j;
            if (r >= from && r < p.rows && a.slot[p.row0 + r] != w.slot) differs = r;
        }
        differs = __reduce_min_sync(~0u, differs);
    }
#pragma unroll
    for (int32_t j = 0; j < ROWS / 32; j++) {
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
    w.tile = max(p.from, w.lowest / KEYS);
    w.tile_to = min(p.to, w.highest < 0 ? 0 : w.highest / KEYS + 1);
}

/* On to a run that has a tile left; false: there is none. */
template <typename T>
static __device__ __forceinline__ bool settle(const attend_args<T> &a, const flash_place &p, flash_walk &w) {
#pragma unroll 1
    while (w.tile >= w.tile_to) {
        if (w.row_to >= p.rows) return false;
        find_run(a, p, w.row_to, w);
    }
    return true;
}

/* ---- the warpgroup that copies ---- */

static constexpr uint32_t NO_ROW = 0xffffffff;

/* A warp's 32 rows of a panel, COLUMNS wide.  from_row: where lane's row begins, in pieces of 16 bytes, or NO_ROW for zeros. */
template <int COLUMNS, typename T> static __device__ __forceinline__ void copy_panel(void *panel, const T *from, uint32_t from_row) {
    enum { PIECES = COLUMNS / 8, BYTES = 2 * COLUMNS, AT_ONCE = 32 / PIECES, COPIES = 32 / AT_ONCE };
    int32_t lane = (int32_t)threadIdx.x % 32, r = lane / PIECES, c = lane % PIECES;
    uint32_t to = shared_address(panel) + (uint32_t)(((int32_t)threadIdx.x % GROUP / 32 * 32 + r) * BYTES + c * 16), x[COPIES];
    from += c * 8;
#pragma unroll
    for (int32_t i = 0; i < COPIES; i++) x[i] = __shfl_sync(~0u, from_row, i * AT_ONCE + r);
#pragma unroll
    for (int32_t i = 0; i < COPIES; i++) {
        bool valid = x[i] != NO_ROW;
        copy16(swizzled<BYTES>(to + (uint32_t)(i * AT_ONCE * BYTES)), reinterpret_cast<const uint4 *>(from) + (valid ? x[i] : 0), valid);
    }
}

/* A warp's 32 rows of a tile.  row: lane's physical row, or NO_KEY; ld16: from row to row, in pieces of 16 bytes. */
template <int D, typename T> static __device__ __forceinline__ void copy_rows(flash_tile<D> &tile, const T *from, uint32_t ld16, int32_t row) {
    uint32_t from_row = row < 0 ? NO_ROW : (uint32_t)row * ld16;
#pragma unroll
    for (int32_t i = 0; i < flash_tile<D>::WIDE; i++) copy_panel<64>(tile.wide(i, 0), from + 64 * i, from_row);
    if constexpr (flash_tile<D>::NARROW) copy_panel<16>(tile.narrow(0), from + 64 * flash_tile<D>::WIDE, from_row);
}

/* The physical row of the thread's key of the walk's tile, and its bias. */
template <typename T> static __device__ __forceinline__ int32_t find_row(const attend_args<T> &a, const flash_walk &w, float &bias) {
    int32_t key = w.tile * KEYS + (int32_t)threadIdx.x % GROUP;
    int32_t row = key >= w.lowest && key <= w.highest ? key_row(a, w.slot, key) : (int32_t)NO_KEY;
    bias = a.bias && row >= 0 ? a.bias[row] : 0.f;
    return row;
}

/* Each warp for its 32 keys of a stage; its first lane arrives for all. */
template <int D> static __device__ __forceinline__ void leave_bias(flash_room<D> &room, int32_t stage, float bias, float unscale) {
    int32_t t = (int32_t)threadIdx.x % GROUP;
    bool any = __any_sync(~0u, bias != 0);
    if (any) room.bias[stage][t] = bias * unscale;
    __syncwarp();
    if (t % 32 == 0) {
        reinterpret_cast<int32_t *>(&room.biased[stage])[t / 32] = any;
        barrier_arrive(&room.k_full[stage]);
    }
}

template <typename T, int D> static __device__ __forceinline__ void copy_all(const attend_args<T> &a, const flash_plan &plan, flash_room<D> &room) {
    enum { STAGES = flash_room<D>::STAGES };
    flash_ring<STAGES> ring;
    flash_ring<Q_STAGES> q_ring;
    int32_t t = (int32_t)threadIdx.x % GROUP;
    uint32_t k_ld = (uint32_t)(a.k_ld / 8), v_ld = (uint32_t)(a.v_ld / 8), q_ld = (uint32_t)(a.q_ld / 8);
#pragma unroll 1
    for (int32_t round = 0; item_of(round) < plan.items; round++) {
        flash_place p = place_of(plan, item_of(round), a.rows, a.heads, ROWS);
        const T *k = a.k + p.head / a.group * D, *v = a.v + p.head / a.group * D;
        flash_walk w;
        w.row_to = w.tile = w.tile_to = 0;
        bool more = settle(a, p, w);
        float bias = 0;
        int32_t row = more ? find_row(a, w, bias) : (int32_t)NO_KEY;
#pragma unroll 1
        for (bool first = true;; first = false) {
            int32_t s = ring.stage;
            if (more) {
                barrier_wait(&room.k_empty[s], ring.phase ^ 1);
                copy_rows(room.k[s], k, k_ld, row);
                leave_bias(room, s, bias, 1.f / a.scale);
                barrier_arrive_after_copies(&room.k_full[s]);
            }
            if (first) {
                barrier_wait(&room.q_empty[q_ring.stage], q_ring.phase ^ 1);
                copy_rows(room.q[q_ring.stage], a.q + (int64_t)p.row0 * a.q_ld + p.head * D, q_ld, t < p.rows ? t : (int32_t)NO_KEY);
                barrier_arrive_after_copies(&room.q_full[q_ring.stage]);
                if (t == 0) {
                    room.walk[q_ring.stage] = w;
                    barrier_arrive(&room.q_full[q_ring.stage]);
                }
                q_ring.next();
            }
            if (!more) break;
            int32_t v_row = row;
            w.tile++;
            more = settle(a, p, w);
            if (more) row = find_row(a, w, bias);    /* looked up while the values are on their way */
            barrier_wait(&room.v_empty[s], ring.phase ^ 1);
            copy_rows(room.v[s], v, v_ld, v_row);
            barrier_arrive_after_copies(&room.v_full[s]);
            ring.next();
        }
    }
    copies_commit();
    copies_wait<0>();
}

/* ---- a warpgroup that works: 64 rows ---- */

/* Thread (warp, lane)'s rows are 16 warp + lane / 4, and 8 more; its columns 8 n + lane % 4 * 2, and the next:
 * element 4 n + 2 h + e is row h, column e of those. */
template <int D> struct flash_sums {
    float o[D / 2], m[2], l[2];
    int32_t first[2], last[2];             /* what the rows see                                   */
};

/* What scores start from; false: from 0.  Warps without a bias have left none. */
template <int D> static __device__ __forceinline__ bool begin_scores(flash_room<D> &room, int32_t stage, int32_t column, float (&s)[KEYS / 2]) {
    int4 by_warp = room.biased[stage];
    int32_t biased[KEYS / 32] = { by_warp.x, by_warp.y, by_warp.z, by_warp.w };
    if (!(biased[0] | biased[1] | biased[2] | biased[3])) return false;
#pragma unroll
    for (int32_t n = 0; n < KEYS / 8; n++) {
        float2 b = make_float2(0, 0);
        if (biased[n / 4]) b = *reinterpret_cast<const float2 *>(&room.bias[stage][8 * n + column]);
        s[4 * n] = s[4 * n + 2] = b.x;
        s[4 * n + 1] = s[4 * n + 3] = b.y;
    }
    return true;
}

/* s = (begun ? s : 0) + q k. */
template <typename T, int D>
static __device__ __forceinline__ void score(flash_room<D> &room, int32_t worker, int32_t q_stage, int32_t stage, bool begun, T, float (&s)[KEYS / 2]) {
    typedef flash_tile<D> tile;
    tile &q = room.q[q_stage], &k = room.k[stage];
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

template <typename T, int D>
static __device__ __forceinline__ void add_values(flash_room<D> &room, int32_t stage, const uint32_t (&p)[KEYS / 16][4], T, flash_sums<D> &f) {
    enum { WIDE = flash_tile<D>::WIDE };
    uint64_t wide = operand(room.v[stage].wide(0, 0), KEYS * 128), narrow = operand<32>(room.v[stage].narrow(0));
    pin(f.o);
    product_begin();
#pragma unroll
    for (int32_t c = 0; c < KEYS / 16; c++) {
        product_weighted(reinterpret_cast<float (&)[WIDE * 32]>(f.o), p[c], wide + (uint64_t)(c * (16 * 128 / 16)), T());
        if constexpr (D % 64) product_weighted(reinterpret_cast<float (&)[8]>(f.o[WIDE * 32]), p[c], narrow + (uint64_t)(c * (16 * 32 / 16)), T());
    }
    product_commit();
}

static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __nv_bfloat16) { return pack2(a, b, __nv_bfloat16()); }
/* At most 1: nothing to clamp. */
static __device__ __forceinline__ uint32_t pack_weights(float a, float b, __half) {
    __half2 v = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}

template <int D> static __device__ __forceinline__ void mask(const flash_sums<D> &f, const flash_walk &w, int32_t row, float (&s)[KEYS / 2]) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        bool in = row + 8 * h >= w.row && row + 8 * h < w.row_to;
        int32_t base = w.tile * KEYS + (int32_t)threadIdx.x % 4 * 2, first = f.first[h] - base, last = in ? f.last[h] - base : -1;
        if (!in) first = 0;
#pragma unroll
        for (int32_t n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++)
                if (8 * n + e < first || 8 * n + e > last) s[4 * n + 2 * h + e] = minus_infinity();
    }
}

/* s becomes exp2(scale (s - max)); by: what sums so far must be scaled by. */
template <int D> static __device__ __forceinline__ void weigh(flash_sums<D> &f, float scale, float (&s)[KEYS / 2], float (&by)[2]) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float m = f.m[h], most[4] = { s[2 * h], s[2 * h + 1], s[2 * h + 4], s[2 * h + 5] };
#pragma unroll
        for (int32_t n = 2; n < KEYS / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++) most[n % 2 * 2 + e] = fmaxf(most[n % 2 * 2 + e], s[4 * n + 2 * h + e]);
        m = fmaxf(m, fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
        float scaled = m == minus_infinity() ? 0.f : __fmul_rn(m, scale), l[2] = { 0, 0 };
        by[h] = exp2_fast(__fmul_rn(f.m[h], scale) - scaled);
#pragma unroll
        for (int32_t n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 2; e++) {
                float &x = s[4 * n + 2 * h + e];
                x = exp2_fast(fmaf(x, scale, -scaled));
                l[e] += x;
            }
        f.m[h] = m;
        f.l[h] = fmaf(f.l[h], by[h], l[0] + l[1]);
    }
    pin(s);                                /* now, not after the products that run meanwhile     */
}

template <typename T> static __device__ __forceinline__ void pack_all(const float (&s)[KEYS / 2], uint32_t (&p)[KEYS / 16][4], T) {
#pragma unroll
    for (int32_t i = 0; i < KEYS / 4; i++) p[i / 4][i % 4] = pack_weights(s[2 * i], s[2 * i + 1], T());
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
        float by = l[h] == 0 || f.last[h] < f.first[h] ? 0.f : 1.f / l[h];
        T *to = a.out + (int64_t)(p.row0 + row + 8 * h) * a.out_ld + p.head * D + threadIdx.x % 4 * 2;
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++) {
            float x = by == 0 ? 0.f : f.o[4 * n + 2 * h] * by, y = by == 0 ? 0.f : f.o[4 * n + 2 * h + 1] * by;
            *reinterpret_cast<uint32_t *>(to + 8 * n) = pack2(x, y, T());
        }
    }
}

template <typename T, int D>
static __device__ __forceinline__ void finish(const attend_args<T> &a, const flash_plan &plan, flash_room<D> &room, const flash_place &p,
                                              int32_t worker, int32_t row, flash_sums<D> &f) {
    float l[2];
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        l[h] = f.l[h] + __shfl_xor_sync(~0u, f.l[h], 1);
        l[h] += __shfl_xor_sync(~0u, l[h], 2);
    }
    if (p.part >= 0) {
        int32_t t = (int32_t)threadIdx.x % GROUP, tile = p.part / plan.splits;
        leave_sums<D / 8>(part_of<D / 8>(plan, p.part, WORKERS, worker, t), f.o, f.m, l);
        group_sync(MERGE + worker, GROUP);
        if (t == 0) room.merge[worker] = last_part(plan, tile * WORKERS + worker);
        group_sync(MERGE + worker, GROUP);
        if (!room.merge[worker]) return;
        merge_sums<D / 8>(part_of<D / 8>(plan, tile * plan.splits, WORKERS, worker, t), (int64_t)WORKERS * (D / 8 + 1) * GROUP, plan.splits,
                          a.scale * RV_LOG2E, f.o, l);
    }
    store(a, p, f, row, l);
}

/* ---- the walk ---- */

/* Here, not where copies are made: there it would wait for all that are under way. */
static __device__ __forceinline__ void wait_for_copies(uint64_t &full, uint32_t phase) {
    barrier_wait(&full, phase);
    make_visible_to_products();
}

/* One lane of each warp says that its products have read what the barrier guards. */
static __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) barrier_arrive(&empty);
}

static __device__ __forceinline__ bool sees_all(const flash_place &p, const flash_walk &w) {
    return w.row == 0 && w.row_to == p.rows && w.tile * KEYS >= w.full_from && w.tile * KEYS + KEYS - 1 <= w.full_to;
}

template <typename T, int D>
static __device__ __forceinline__ void begin_sums(const attend_args<T> &a, const flash_place &p, int32_t row, flash_sums<D> &f) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        bool in = row + 8 * h < p.rows;
        f.first[h] = in && a.first ? a.first[p.row0 + row + 8 * h] : 0;
        f.last[h] = in ? a.last[p.row0 + row + 8 * h] : -1;
        f.m[h] = minus_infinity();
        f.l[h] = 0;
    }
#pragma unroll
    for (int32_t i = 0; i < D / 2; i++) f.o[i] = 0;
}

template <typename T, int D>
static __device__ __forceinline__ void work(const attend_args<T> &a, const flash_plan &plan, flash_room<D> &room, int32_t worker) {
    flash_ring<flash_room<D>::STAGES> k_ring, v_ring;
    flash_ring<Q_STAGES> q_ring;
    int32_t row = 64 * worker + (int32_t)threadIdx.x % GROUP / 32 * 16 + (int32_t)threadIdx.x % 32 / 4;
    int32_t column = (int32_t)threadIdx.x % 4 * 2, turn = TURN + worker, next_turn = TURN + (worker + 1) % WORKERS;
    float scale = a.scale * RV_LOG2E, s[KEYS / 2], by[2];
    bool bias = a.bias != nullptr;
    asm volatile("" : "+r"(column));       /* kept: made anew in the loop it would hold up a product */
    uint32_t weights[KEYS / 16][4];
#pragma unroll
    for (int32_t i = 0; i < KEYS / 2; i++) s[i] = 0;
    if (worker == WORKERS - 1) group_arrive(next_turn, 2 * GROUP);
#pragma unroll 1
    for (int32_t round = 0; item_of(round) < plan.items; round++) {
        flash_place p = place_of(plan, item_of(round), a.rows, a.heads, ROWS);
        flash_sums<D> f;
        begin_sums(a, p, row, f);
        wait_for_copies(room.q_full[q_ring.stage], q_ring.phase);
        flash_walk w = room.walk[q_ring.stage];
        if (w.tile < w.tile_to) {
            wait_for_copies(room.k_full[k_ring.stage], k_ring.phase);
            bool begun = bias && begin_scores(room, k_ring.stage, column, s);
            group_sync(turn, 2 * GROUP);
            score(room, worker, q_ring.stage, k_ring.stage, begun, T(), s);
            group_arrive(next_turn, 2 * GROUP);
            product_wait<0>();
            pin(s);
            release(room.k_empty[k_ring.stage]);
            k_ring.next();
            if (!sees_all(p, w)) mask(f, w, row, s);
            weigh(f, scale, s, by);
            /* The loop's end lies where it does so that the compiler cannot move the wait up before the weighing. */
#pragma unroll 1
            for (bool later = false;; later = true) {
                product_wait<0>();
                pin(f.o);
                if (later) {
                    release(room.v_empty[v_ring.stage]);
                    v_ring.next();
                }
                scale_sums(f, by);
                pack_all(s, weights, T());
                w.tile++;
                if (!settle(a, p, w)) break;
                barrier_wait(&room.v_full[v_ring.stage], v_ring.phase);      /* older than the keys: nothing to wait for */
                wait_for_copies(room.k_full[k_ring.stage], k_ring.phase);
                begun = bias && begin_scores(room, k_ring.stage, column, s);
                group_sync(turn, 2 * GROUP);
                score(room, worker, q_ring.stage, k_ring.stage, begun, T(), s);
                add_values(room, v_ring.stage, weights, T(), f);
                group_arrive(next_turn, 2 * GROUP);
                product_wait<1>();
                pin(s);
                release(room.k_empty[k_ring.stage]);
                k_ring.next();
                if (!sees_all(p, w)) mask(f, w, row, s);
                weigh(f, scale, s, by);
            }
            wait_for_copies(room.v_full[v_ring.stage], v_ring.phase);
            add_values(room, v_ring.stage, weights, T(), f);
            product_wait<0>();
            pin(f.o);
            release(room.v_empty[v_ring.stage]);
            v_ring.next();
        }
        release(room.q_empty[q_ring.stage]);
        q_ring.next();
        finish(a, plan, room, p, worker, row, f);
    }
}

#endif

/* ---- the kernel ---- */

template <typename T, int D> static __global__ void __launch_bounds__(GROUP * (WORKERS + 1), 1) flash90_kernel(attend_args<T> a, flash_plan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    flash_room<D> &room = *reinterpret_cast<flash_room<D> *>(memory);
    int32_t group = __shfl_sync(~0u, (int32_t)threadIdx.x / GROUP, 0);
    if (threadIdx.x == 0) {
        for (int32_t i = 0; i < Q_STAGES; i++) {
            barrier_open(&room.q_full[i], GROUP + 1);
            barrier_open(&room.q_empty[i], 4 * WORKERS);
        }
        for (int32_t i = 0; i < flash_room<D>::STAGES; i++) {
            barrier_open(&room.k_full[i], GROUP + GROUP / 32);
            barrier_open(&room.v_full[i], GROUP);
            barrier_open(&room.k_empty[i], 4 * WORKERS);
            barrier_open(&room.v_empty[i], 4 * WORKERS);
        }
    }
    __syncthreads();
    if (group == WORKERS) {
        give_registers<88>();
        copy_all(a, plan, room);
    } else {
        take_registers<208>();
        work(a, plan, room, group);
    }
#else
    (void)a;
    (void)plan;
    __trap();
#endif
}

template <typename T, int D>
static cudaError_t flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    int bytes = (int)sizeof(flash_room<D>);
    cudaError_t e = cudaFuncSetAttribute(flash90_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
    flash_plan plan = plan_of(a, ROWS, KEYS, multiprocessors, partial);
    unsigned blocks = (unsigned)(plan.items < multiprocessors ? plan.items : multiprocessors);
    flash90_kernel<T, D><<<blocks, GROUP * (WORKERS + 1), (size_t)bytes, stream>>>(args_of<T>(a), plan);
    return cudaGetLastError();
}

template <typename T> static cudaError_t flash90_of(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    switch (a->q.cols / a->heads) {
    case 64: return flash90<T, 64>(a, partial, multiprocessors, stream);
    case 80: return flash90<T, 80>(a, partial, multiprocessors, stream);
    case 128: return flash90<T, 128>(a, partial, multiprocessors, stream);
    default: return cudaErrorInvalidValue;
    }
}

cudaError_t rv_cuda_flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    return a->q.type == RV_F16 ? flash90_of<__half>(a, partial, multiprocessors, stream) : flash90_of<__nv_bfloat16>(a, partial, multiprocessors, stream);
}
