/* parts.cuh - how attention with many rows is cut into items that fill a GPU evenly, and how parts of a tile are merged.
 *
 * The one idea: a tile of rows of one head is an item while tiles fill whole rounds of the GPU's blocks; the tiles left for
 * the last round are cut along the keys.  Parts leave (values, maximum, sum) in `partial`, and the last to finish
 * merges them in order.  What is cut where follows from shapes and the number of multiprocessors alone.
 */
#ifndef RV_KERNELS_CUDA_PARTS_CUH
#define RV_KERNELS_CUDA_PARTS_CUH
#include "kernels/cuda/attend.cuh"

enum { PART_COUNTERS = 1 << 14,            /* at the start of `partial`: left zeroed, as decode.cu's */
       PART_MOST = 32,                     /* parts of a tile                                    */
       PART_COST = 2,                      /* of leaving and merging one, in key tiles           */
       PART_THREADS = 128 };               /* that hold 64 rows' sums                            */

struct flash_plan {
    int32_t row_tiles, heads_first;        /* heads_first: one head's tiles after the other's     */
    int32_t whole, splits, items;          /* tiles that are items; parts of each other tile      */
    int32_t key_tiles;
    int32_t *counters;
    float4 *parts;
};

/* For tiles of `rows` (a multiple of 64) by `keys`, `slots` blocks at a time. */
static inline flash_plan plan_of(const rv_attention *a, int32_t rows, int32_t keys, int32_t slots, void *partial) {
    const int64_t cached = 16 << 20;       /* all heads' keys and values stay in the L2 cache below this */
    int32_t d = a->q.cols / a->heads;
    flash_plan p;
    p.row_tiles = (a->q.rows - 1) / rows + 1;
    p.heads_first = (int64_t)a->longest * a->kv_heads * d * 4 > cached;
    p.key_tiles = a->longest > 0 ? (a->longest - 1) / keys + 1 : 1;
    p.counters = (int32_t *)partial;
    p.parts = (float4 *)(p.counters + PART_COUNTERS);
    int64_t part_bytes = (int64_t)rows / 64 * PART_THREADS * (d / 8 + 1) * (int64_t)sizeof(float4);
    int64_t most = ((int64_t)RV_CUDA_PARTIAL_BYTES - PART_COUNTERS * 4) / part_bytes;
    int32_t tiles = p.row_tiles * a->heads, best = (tiles - 1) / slots * p.key_tiles + p.key_tiles;      /* rounds, in key tiles */
    p.whole = p.items = tiles;
    p.splits = 1;
    for (int32_t rounds = 0; rounds < 2; rounds++) {
        int32_t tail = tiles % slots + rounds * slots;
        if (tail == 0 || tail > tiles || tail * (rows / 64) > PART_COUNTERS) continue;
        for (int32_t s = 2; s <= PART_MOST && s <= p.key_tiles && (int64_t)tail * s <= most; s++) {
            int32_t cost = (tiles - tail) / slots * p.key_tiles + ((tail * s - 1) / slots + 1) * ((p.key_tiles - 1) / s + 1 + PART_COST);
            if (cost >= best) continue;
            best = cost;
            p.splits = s;
            p.whole = tiles - tail;
            p.items = p.whole + tail * s;
        }
    }
    return p;
}

/* An item: rows row0 .. row0 + rows - 1 of a head against key tiles from .. to - 1; part: its number among the
 * parts of all cut tiles, or -1. */
struct flash_place { int32_t row0, rows, head, from, to, part; };

static __device__ __forceinline__ flash_place place_of(const flash_plan &plan, int32_t item, int32_t all_rows, int32_t heads, int32_t tile_rows) {
    flash_place p;
    int32_t tile = item, split = 0;
    p.from = 0;
    p.to = plan.key_tiles;
    p.part = item < plan.whole ? -1 : item - plan.whole;
    if (p.part >= 0) {
        tile = plan.whole + p.part / plan.splits;
        split = p.part % plan.splits;
        p.from = plan.key_tiles * split / plan.splits;
        p.to = plan.key_tiles * (split + 1) / plan.splits;
    }
    /* Last rows first: under a causal mask they are the longest. */
    int32_t from_end = plan.heads_first ? tile % plan.row_tiles : tile / heads;
    p.head = plan.heads_first ? tile / plan.row_tiles : tile % heads;
    p.row0 = (plan.row_tiles - 1 - from_end) * tile_rows;
    p.rows = all_rows - p.row0 < tile_rows ? all_rows - p.row0 : tile_rows;
    return p;
}

/* Where thread t of the 128 that hold 64 rows (number `of` of a tile's `sets`) leaves its sums: 4 N values, then maxima and sums. */
template <int N>
static __device__ __forceinline__ float4 *part_of(const flash_plan &plan, int32_t part, int32_t sets, int32_t of, int32_t t) {
    return plan.parts + ((int64_t)part * sets + of) * (N + 1) * PART_THREADS + t;
}

/* A thread's sums, flat or in fours. */
template <int M> static __device__ __forceinline__ float &sum_at(float (&o)[M], int32_t i) { return o[i]; }
template <int M> static __device__ __forceinline__ float &sum_at(float (&o)[M][4], int32_t i) { return o[i / 4][i % 4]; }

/* Sum 4 i + 2 h + e: row h of two, as the accumulators of products lie; l: of the whole row. */
template <int N, typename O> static __device__ __forceinline__ void leave_sums(float4 *to, O &o, const float (&m)[2], const float (&l)[2]) {
#pragma unroll
    for (int32_t i = 0; i < N; i++)
        __stcg(to + i * PART_THREADS, make_float4(sum_at(o, 4 * i), sum_at(o, 4 * i + 1), sum_at(o, 4 * i + 2), sum_at(o, 4 * i + 3)));
    __stcg(to + N * PART_THREADS, make_float4(m[0], m[1], l[0], l[1]));
}

/* By one thread once the sums of all that count together are left: whether they were the tile's last. */
static __device__ __forceinline__ bool last_part(const flash_plan &plan, int32_t counter) {
    __threadfence();
    bool last = atomicAdd(plan.counters + counter, 1) == plan.splits - 1;
    if (last) plan.counters[counter] = 0;  /* ready for the next launch                           */
    __threadfence();
    return last;
}

/* from: the thread's place in the tile's first part; step: to the next one's. */
template <int N, typename O>
static __device__ __forceinline__ void merge_sums(const float4 *from, int64_t step, int32_t splits, float scale, O &o, float (&l)[2]) {
    float top[2] = { minus_infinity(), minus_infinity() };
    for (int32_t i = 0; i < splits; i++) {
        float4 x = __ldcg(from + i * step + N * PART_THREADS);
        top[0] = fmaxf(top[0], x.x);
        top[1] = fmaxf(top[1], x.y);
    }
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        top[h] = top[h] == minus_infinity() ? 0.f : __fmul_rn(top[h], scale);
        l[h] = 0;
    }
#pragma unroll
    for (int32_t i = 0; i < 4 * N; i++) sum_at(o, i) = 0;
#pragma unroll 1
    for (int32_t i = 0; i < splits; i++, from += step) {
        float4 x = __ldcg(from + N * PART_THREADS);
        float by[2] = { exp2_fast(__fmul_rn(x.x, scale) - top[0]), exp2_fast(__fmul_rn(x.y, scale) - top[1]) };
        l[0] = fmaf(by[0], x.z, l[0]);
        l[1] = fmaf(by[1], x.w, l[1]);
#pragma unroll
        for (int32_t n = 0; n < N; n++) {
            float4 y = __ldcg(from + n * PART_THREADS);
            sum_at(o, 4 * n) = fmaf(by[0], y.x, sum_at(o, 4 * n));
            sum_at(o, 4 * n + 1) = fmaf(by[0], y.y, sum_at(o, 4 * n + 1));
            sum_at(o, 4 * n + 2) = fmaf(by[1], y.z, sum_at(o, 4 * n + 2));
            sum_at(o, 4 * n + 3) = fmaf(by[1], y.w, sum_at(o, 4 * n + 3));
        }
    }
}
#endif
