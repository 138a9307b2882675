/* flash.cu - attention with many rows: the tensor-core kernel for SM80 and newer.
 *
 * The one idea: a block of 128 threads owns an item (parts.cuh), 64 or 128 rows of one head, and walks the tiles of keys that any of
 * them sees, 16 keys a step.  A step adds the values of the 16 keys before, scores the 16 after, makes weights of
 * its own scores and copies part of a tile to come: four things that wait for nothing in each other, without a branch between, so that a warp's
 * instructions fill each other's latencies.  With two warps a scheduler, what is not in a step costs most: it is kept to once a tile.
 * Weights are relative to the largest score of the row's first step, and of later ones only where they would leave the range:
 * then the step is scored again.
 *
 * Rows of different sequences in one tile: the tile's keys are walked once for each run of rows of
 * one sequence, the others masked.  Slow, and never the case in a prefill.
 */
#include "kernels/cuda/flash80.cuh"

enum { BLOCKS = 2 };                       /* on a multiprocessor at a time                      */

/* ---- one warp's part: 16 MT rows ---- */

/* m: maxima times the scale.  v: of the values to be added next, what the first product takes. */
template <int D, int MT> struct flash_sums { float o[MT][D / 8][4], m[MT][2], l[MT][2]; uint32_t v[4]; };
/* Of a step's 16 keys, as products leave them; and weights as products take them. */
template <int MT> struct flash_scores { float s[MT][2][4]; };
template <int MT> struct flash_weights { uint32_t p[MT][4]; };
template <int D, int MT> struct flash_queries { uint32_t q[MT][D / 16][4]; };

/* Scores' products with columns 16 c on; at: the keys, the thread's part.  Sums begin with the keys' biases. */
template <int D, int MT, typename T>
static __device__ __forceinline__ void score_part(int32_t c, uint32_t at, const float4 (&bias)[2], const flash_queries<D, MT> &f, flash_scores<MT> &to, T) {
    uint32_t b[4];
    load_matrices(b, at + (uint32_t)(32 * c));
#pragma unroll
    for (int32_t t = 0; t < MT; t++) {
        const uint32_t(&q)[4] = f.q[t][c];
#pragma unroll
        for (int32_t n = 0; n < 2; n++) {
            float(&s)[4] = to.s[t][n];
            if (c == 0) s[0] = bias[n].x, s[1] = bias[n].y, s[2] = bias[n].z, s[3] = bias[n].w;
            mma(s, q[0], q[1], q[2], q[3], b[2 * n], b[2 * n + 1], T());
        }
    }
}

/* bias: the thread's first of the keys'. */
template <int D, int MT, typename T>
static __device__ __forceinline__ void score(uint32_t at, const float4 *bias, const flash_queries<D, MT> &q, flash_scores<MT> &to, T) {
    const float4 b[2] = { bias[0], bias[4] };
#pragma unroll
    for (int32_t c = 0; c < D / 16; c++) score_part(c, at, b, q, to, T());
}

/* Values' products for columns 16 n on; at: the values, the thread's part. */
template <int D, int MT, typename T>
static __device__ __forceinline__ void add_part(int32_t n, uint32_t at, const flash_weights<MT> &w, flash_sums<D, MT> &f, T) {
    uint32_t b[4] = { f.v[0], f.v[1], f.v[2], f.v[3] };
    if (n > 0) load_matrices_transposed(b, at + (uint32_t)(32 * n));
#pragma unroll
    for (int32_t t = 0; t < MT; t++) {
        const uint32_t(&p)[4] = w.p[t];
        mma(f.o[t][2 * n], p[0], p[1], p[2], p[3], b[0], b[1], T());
        mma(f.o[t][2 * n + 1], p[0], p[1], p[2], p[3], b[2], b[3], T());
    }
}

template <int D, int MT, typename T>
static __device__ __forceinline__ void add_values(uint32_t at, const flash_weights<MT> &w, flash_sums<D, MT> &f, T) {
#pragma unroll
    for (int32_t n = 0; n < D / 16; n++) add_part(n, at, w, f, T());
}

/* key: the step's first. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void mask(const flash_room<T, D, MT> &room, int32_t key, flash_scores<MT> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t r = (warp * MT + t) * 16 + 8 * h + lane / 4;
            bool in = r >= room.run.from && r < room.run.to;
            int32_t base = key + lane % 4 * 2, first = in ? room.first[r] - base : 0, last = in ? room.last[r] - base : -1;
#pragma unroll
            for (int32_t n = 0; n < 2; n++)
#pragma unroll
                for (int32_t e = 0; e < 2; e++)
                    if (8 * n + e < first || 8 * n + e > last) f.s[t][n][2 * h + e] = minus_infinity();
        }
}

/* exp2(scale s - shift) of row h of 16, to w; returns their sum in the thread. */
template <typename T>
static __device__ __forceinline__ float weigh(float scale, float shift, int32_t h, const float (&s)[2][4], uint32_t (&w)[4], T) {
    float x[4];
#pragma unroll
    for (int32_t i = 0; i < 4; i++) x[i] = exp2_fast(fmaf(s[i / 2][2 * h + i % 2], scale, -shift));
    w[h] = pack2(x[0], x[1], T());
    w[2 + h] = pack2(x[2], x[3], T());
    return (x[0] + x[2]) + (x[1] + x[3]);
}

/* The rows `anew` (in a thread that has a part of one) take the maximum they have come to; sums follow. */
template <int D, int MT, typename T>
static __device__ __forceinline__ void weigh_anew(flash_sums<D, MT> &f, float scale, const flash_scores<MT> &g, flash_weights<MT> &w, const bool (&anew)[MT][2],
                                                  T) {
#pragma unroll
    for (int32_t t = 0; t < MT; t++) {
        float by[2];
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            float m = minus_infinity();
            int32_t row_anew = anew[t][h];
            row_anew |= __shfl_xor_sync(~0u, row_anew, 1);
            row_anew |= __shfl_xor_sync(~0u, row_anew, 2);
#pragma unroll
            for (int32_t n = 0; n < 2; n++) m = fmaxf(m, fmaxf(g.s[t][n][2 * h], g.s[t][n][2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
            m = row_anew ? fmaxf(f.m[t][h], __fmul_rn(m, scale)) : f.m[t][h];
            float shift = m == minus_infinity() ? 0.f : m;
            by[h] = row_anew ? exp2_fast(f.m[t][h] - shift) : 1.f;
            f.m[t][h] = m;
            f.l[t][h] = fmaf(f.l[t][h], by[h], weigh(scale, shift, h, g.s[t], w.p[t], T()));
        }
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) f.o[t][n][e] *= by[e / 2];
    }
}

/* ---- a step ---- */

/* Where things are in shared memory, the thread's parts: the step's keys and values, values of the 16 keys before, keys of the 16 after;
 * biases of its keys and of those after; its first key, and whether a row does not see all; which of a tile's copies it takes. */
struct flash_step { uint32_t keys, values, before, after; const float4 *bias, *bias_after; int32_t key; bool masked; int32_t number; };

/* The four things of a step, g and w becoming `later` and `to`; false: a row wants a new maximum, and then weights and sums but the
 * values' are not to be used. */
template <typename T, int D, int MT>
static __device__ __forceinline__ bool blend(const flash_step &step, const flash_queries<D, MT> &q, float scale, const flash_scores<MT> &g,
                                             flash_scores<MT> &later, const flash_weights<MT> &w, flash_weights<MT> &to, flash_sums<D, MT> &f,
                                             bool (&anew)[MT][2], const flash_copier<T, D, MT> &copier) {
    enum { PARTS = D / 16, ROWS = 2 * MT, COPIES = 2 * flash_copier<T, D, MT>::COPIES, A_STEP = flash_copier<T, D, MT>::A_STEP };
    const float4 bias[2] = { step.bias_after[0], step.bias_after[4] };
    float l[ROWS];
    bool any = false;
    int32_t row = 0, copy = 0;
#pragma unroll
    for (int32_t i = 0; i < PARTS; i++) {
        add_part(i, step.before, w, f, T());
        score_part(i, step.after, bias, q, later, T());
#pragma unroll
        for (; copy * PARTS < (i + 1) * A_STEP; copy++)
            if (step.number * A_STEP + copy < COPIES) copier.copy(step.number * A_STEP + copy);
#pragma unroll
        for (; row * PARTS < (i + 1) * ROWS; row++)
            l[row] = weigh(scale, f.m[row / 2][row % 2], row % 2, g.s[row / 2], to.p[row / 2], T());
    }
    load_matrices_transposed(f.v, step.values);
#pragma unroll
    for (int32_t r = 0; r < ROWS; r++) {
        anew[r / 2][r % 2] = !(l[r] <= most_weight(T()));
        any = any || anew[r / 2][r % 2];
    }
    if (__any_sync(~0u, any)) return false;
#pragma unroll
    for (int32_t r = 0; r < ROWS; r++) f.l[r / 2][r % 2] += l[r];
    return true;
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void take_step(const attend_args<T> &a, flash_room<T, D, MT> &room, const flash_step &step, const flash_queries<D, MT> &q,
                                                 flash_scores<MT> &g, flash_scores<MT> &later, const flash_weights<MT> &w, flash_weights<MT> &to,
                                                 flash_sums<D, MT> &f, const flash_copier<T, D, MT> &copier) {
    bool anew[MT][2];
    if (step.masked) mask(room, step.key, g);
    if (blend(step, q, a.scale * RV_LOG2E, g, later, w, to, f, anew, copier)) return;
    score(step.keys, step.bias, q, g, T());
    if (step.masked) mask(room, step.key, g);
    weigh_anew(f, a.scale * RV_LOG2E, g, to, anew, T());
}

/* ---- the walk over keys ---- */

/* A tile that is walked: its first key, the thread's part of its keys in shared memory and of the tile's after it, and of their biases. */
struct flash_tile { int32_t key; uint32_t keys, next; const float4 *bias, *next_bias; bool masked; };

/* Steps FIRST and FIRST + 1 of a tile; values: how far a thread's part of values is from that of keys; before: of the tile before. */
template <int FIRST, typename T, int D, int MT>
static __device__ __forceinline__ void two_steps(const attend_args<T> &a, flash_room<T, D, MT> &room, const flash_tile &tile, uint32_t values, uint32_t before,
                                                 const flash_queries<D, MT> &q, flash_scores<MT> (&g)[2], flash_weights<MT> (&w)[2], flash_sums<D, MT> &f,
                                                 const flash_copier<T, D, MT> &copier) {
    enum { BYTES = STEP * flash_room<T, D, MT>::LD * 2, STEPS = flash_room<T, D, MT>::STEPS };
    const bool last = FIRST + 2 == STEPS;
    const uint32_t keys = tile.keys + FIRST * BYTES, keys2 = keys + BYTES;
    const float4 *bias = tile.bias + FIRST * (STEP / 2), *bias2 = bias + STEP / 2;
    const int32_t key = tile.key + FIRST * STEP, number = (FIRST + 2) % STEPS;      /* copies begin in a tile's last two steps */
    flash_step one = { keys, keys + values, FIRST == 0 ? before : keys - BYTES + values, keys2, bias, bias2, key, tile.masked, number };
    take_step(a, room, one, q, g[0], g[1], w[0], w[1], f, copier);
    flash_step two = { keys2, keys2 + values, keys + values, last ? tile.next : keys2 + BYTES, bias2, last ? tile.next_bias : bias2 + STEP / 2, key + STEP,
                       tile.masked, number + 1 };
    take_step(a, room, two, q, g[1], g[0], w[1], w[0], f, copier);
}

/* Has the copier take the tile from `key` on to stage `stage`, or copies it here and now; returns the thread's bias. */
template <typename T, int D, int MT>
static __device__ __forceinline__ float begin_copies(const attend_args<T> &a, flash_room<T, D, MT> &room, flash_copier<T, D, MT> &copier, int32_t kv_column,
                                                     int32_t at, int32_t key, int32_t to, int32_t in_order_to, int32_t stage) {
    bool in_order = key <= in_order_to;
    int32_t row0 = key, t = (int32_t)threadIdx.x;
    float bias = 0;
    if (in_order) {
        if (a.bias && t < room.KEYS) bias = a.bias[key + t];
    } else if (key < to) {
        bias = bias_of(a, room, at, key);
        if (a.pages) in_order = are_in_order(a, room, at, row0);
        if (!in_order) copy_any(a, room, kv_column, at, key, stage);
    }
    copier.begin(in_order, shared_address(&room.stage[stage]), row0);
    return bias;
}

/* The first two tiles, of which the first is there on return; returns the thread's bias in the second. */
template <typename T, int D, int MT>
static __device__ __forceinline__ float copy_two(const attend_args<T> &a, flash_room<T, D, MT> &room, int32_t kv_column, int32_t from) {
    look_up_rows(a, room, 0, from);
    look_up_rows(a, room, 1, from + room.KEYS);
    __syncthreads();
    copy_any(a, room, kv_column, 0, from, 0);
    copies_commit();
    copy_any(a, room, kv_column, 1, from + room.KEYS, 1);      /* zeros where there is no second tile */
    copies_commit();
    meet<1>(a, room, 0, bias_of(a, room, 0, from));
    return bias_of(a, room, 1, from + room.KEYS);
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void walk(const attend_args<T> &a, flash_room<T, D, MT> &room, const flash_place &p, bool whole, int32_t kv_column,
                                            const flash_queries<D, MT> &q, flash_sums<D, MT> &f) {
    typedef flash_room<T, D, MT> room_type;
    enum { KEYS = room_type::KEYS, STAGES = room_type::STAGES, STEPS = room_type::STEPS, ROW = room_type::LD * 2 };
    const flash_run &run = room.run;
    int32_t from = max(run.lowest / KEYS, p.from) * KEYS, to = min(run.highest / KEYS + 1, p.to) * KEYS, lane = (int32_t)threadIdx.x % 32;
    int32_t full_from = whole ? run.full_from : 0x7fffffff, full_to = run.full_to - (KEYS - 1);      /* tiles that begin there have no mask */
    int32_t in_order_to = a.pages ? -1 : min(run.highest - (KEYS - 1), to - 1);      /* nor, without pages, rows that are not in order */
    flash_scores<MT> g[2];
    flash_weights<MT> w[2] = {};
    if (from >= to) return;
    float bias = copy_two(a, room, kv_column, from);
    flash_copier<T, D, MT> copier(a, kv_column);
    uint32_t stage0 = shared_address(&room.stage[0]), part = (uint32_t)((lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 16), keys = stage0 + part;
    uint32_t values = (uint32_t)sizeof room.stage[0].k + (uint32_t)(lane % 16 * ROW + lane / 16 * 16) - part, before = keys + values;      /* of weights 0 */
    settle(part);
    settle(values);
    score(keys, &room.bias[0][lane % 4], q, g[0], T());
    load_matrices_transposed(f.v, before);
    int32_t now = 0, at = 0;
#pragma unroll 1
    for (int32_t key = from; key < to; key += KEYS, at ^= 1) {
        int32_t then = now + 1 < STAGES ? now + 1 : 0, ahead = key + 2 * KEYS;
        flash_tile tile = { key, keys, stage0 + part + (uint32_t)(then * (int32_t)sizeof room.stage[0]), &room.bias[now][lane % 4], &room.bias[then][lane % 4],
                            key < full_from || key > full_to };
        if constexpr ((int)STEPS > 2) {
            two_steps<0>(a, room, tile, values, before, q, g, w, f, copier);
            copies_commit();
        }
        if (ahead < to) look_up_rows(a, room, at, ahead);
        meet<0>(a, room, then, bias);      /* and nobody reads the tile before this one any more */
        bias = begin_copies(a, room, copier, kv_column, at, ahead, to, in_order_to, then + 1 < STAGES ? then + 1 : 0);
        two_steps<STEPS - 2>(a, room, tile, values, before, q, g, w, f, copier);      /* after the last tile of whatever lies there, for nothing */
        if constexpr ((int)STEPS == 2) copies_commit();
        before = keys + (KEYS - STEP) * ROW + values;
        keys = tile.next;
        now = then;
    }
    add_values(before, w[0], f, T());
}

/* ---- the kernel ---- */

/* f.l: of whole rows. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void store(const attend_args<T> &a, const flash_room<T, D, MT> &room, const flash_sums<D, MT> &f,
                                             const flash_place &p) {
    int32_t thread = thread_again(), lane = thread % 32, warp = thread / 32;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t r = (warp * MT + t) * 16 + 8 * h + lane / 4;
            float by = f.l[t][h] == 0 || room.last[r] < room.first[r] ? 0.f : 1.f / f.l[t][h];
            if (r >= p.rows) continue;
            T *to = a.out + (int64_t)(p.row0 + r) * a.out_ld + p.head * D + lane % 4 * 2;
#pragma unroll
            for (int32_t n = 0; n < D / 8; n++) {
                float x = by == 0 ? 0.f : f.o[t][n][2 * h] * by, y = by == 0 ? 0.f : f.o[t][n][2 * h + 1] * by;
                *reinterpret_cast<uint32_t *>(to + 8 * n) = pack2(x, y, T());
            }
        }
}

/* The block's item, found again by who needs it, so that no register holds it meanwhile. */
template <typename T> static __device__ __forceinline__ flash_place place_again(const attend_args<T> &a, const flash_plan &plan, int32_t tile_rows) {
    int32_t item;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(item));
    return place_of(plan, item, a.rows, a.heads, tile_rows);
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void finish(const attend_args<T> &a, const flash_plan &plan, flash_room<T, D, MT> &room, flash_sums<D, MT> &f) {
    flash_place p = place_again(a, plan, room.ROWS);
    int32_t thread = (int32_t)threadIdx.x, tile = p.part / plan.splits;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            f.l[t][h] += __shfl_xor_sync(~0u, f.l[t][h], 1);
            f.l[t][h] += __shfl_xor_sync(~0u, f.l[t][h], 2);
        }
    if (p.part >= 0) {
#pragma unroll
        for (int32_t t = 0; t < MT; t++) leave_sums<D / 8>(part_of<D / 8>(plan, p.part, MT, t, thread), f.o[t], f.m[t], f.l[t]);
        __syncthreads();
        if (thread == 0) room.merge = last_part(plan, tile);
        __syncthreads();
        if (!room.merge) return;
#pragma unroll
        for (int32_t t = 0; t < MT; t++)
            merge_sums<D / 8>(part_of<D / 8>(plan, tile * plan.splits, MT, t, thread), (int64_t)MT * (D / 8 + 1) * THREADS, plan.splits,
                              1.f, f.o[t], f.l[t]);
    }
    store(a, room, f, place_again(a, plan, room.ROWS));
}

template <typename T, int D, int MT> static __global__ void __launch_bounds__(THREADS, BLOCKS) flash_kernel(attend_args<T> a, flash_plan plan) {
    extern __shared__ uint4 memory[];
    typedef flash_room<T, D, MT> room_type;
    room_type &room = *reinterpret_cast<room_type *>(memory);
    flash_place p = place_of(plan, (int32_t)blockIdx.x, a.rows, a.heads, room_type::ROWS);
    int32_t row0 = p.row0, rows = p.rows, head = p.head, t = (int32_t)threadIdx.x, lane = t % 32, warp = t / 32;
    for (int32_t i = t; i < room_type::ROWS * (D / 8); i += THREADS) {
        int32_t r = i / (D / 8), c = i % (D / 8) * 8;
        copy16(shared_address(room.q(r) + c), a.q + (int64_t)(row0 + (r < rows ? r : 0)) * a.q_ld + head * D + c, r < rows);
    }
    copies_commit();
    if (!a.bias) clear_bias(room);
    if (t < room_type::ROWS) {
        int32_t row = row0 + t;
        room.first[t] = t < rows ? a.first ? a.first[row] : 0 : 0;
        room.last[t] = t < rows ? a.last[row] : -1;
        room.slot[t] = t < rows && a.slot ? a.slot[row] : 0;
    }
    copies_wait<0>();
    __syncthreads();

    flash_queries<D, MT> q;
    flash_sums<D, MT> f;
#pragma unroll
    for (int32_t m = 0; m < MT; m++) {
#pragma unroll
        for (int32_t c = 0; c < D / 16; c++)
            load_matrices(q.q[m][c], shared_address(room.q((warp * MT + m) * 16 + lane % 16) + 16 * c + lane / 16 * 8));
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) f.o[m][n][e] = 0;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {      /* rows without keys have a maximum: nobody waits for their first */
            int32_t r = (warp * MT + m) * 16 + 8 * h + lane / 4;
            f.m[m][h] = room.last[r] < room.first[r] ? 0.f : minus_infinity();
            f.l[m][h] = 0;
        }
    }
    for (int32_t from = 0; from < rows;) {
        int32_t to = next_run(room, a.slot != nullptr, from, rows);
        if (room.run.highest >= 0) walk(a, room, p, from == 0 && to == rows, head / a.group * D, q, f);
        from = to;
    }
    finish(a, plan, room, f);
}

template <typename T, int D, int MT>
static cudaError_t flash(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    int bytes = (int)sizeof(flash_room<T, D, MT>);
    cudaError_t e = cudaFuncSetAttribute(flash_kernel<T, D, MT>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
    flash_plan plan = plan_of(a, flash_room<T, D, MT>::ROWS, flash_room<T, D, MT>::KEYS, multiprocessors * BLOCKS, partial);
    flash_kernel<T, D, MT><<<(unsigned)plan.items, THREADS, (size_t)bytes, stream>>>(args_of<T>(a), plan);
    return cudaGetLastError();
}

template <typename T> static cudaError_t flash_of(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    switch (a->q.cols / a->heads) {
    case 64: return flash<T, 64, 2>(a, partial, multiprocessors, stream);
    case 80: return flash<T, 80, 2>(a, partial, multiprocessors, stream);
    case 128: return flash<T, 128, 1>(a, partial, multiprocessors, stream);
    default: return rv_cuda_attend_plain(a, stream);
    }
}

#if RV_CUDA_SM90
/* Whether flash90.cu takes the call: all heads it knows, for it has been the faster one at every number of rows and keys. */
static bool has_flash90(const rv_attention *a, int32_t arch) {
    int32_t d = a->q.cols / a->heads;
    return arch == 90 && (d == 64 || d == 80 || d == 128);
}
#endif

cudaError_t rv_cuda_flash(const rv_attention *a, void *partial, int32_t multiprocessors, int32_t arch, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    /* A scale of 0 or less would turn masks or the order of scores around. */
    if (!(a->scale > 0) || !rows_are_aligned(a->q) || !rows_are_aligned(a->kv.k) || !rows_are_aligned(a->kv.v) || a->out.ld % 2 != 0 ||
        (uintptr_t)a->out.data % 4 != 0)
        return rv_cuda_attend_plain(a, stream);
#if RV_CUDA_SM90
    if (has_flash90(a, arch)) return rv_cuda_flash90(a, partial, multiprocessors, stream);
#else
    (void)arch;
#endif
    return a->q.type == RV_F16 ? flash_of<__half>(a, partial, multiprocessors, stream)
                               : flash_of<__nv_bfloat16>(a, partial, multiprocessors, stream);
}
