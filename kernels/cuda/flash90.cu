/* flash90.cu - attention with many rows on Hopper (sm_90a): products of whole warpgroups.
 *
 * The one idea: a block stays on its multiprocessor and works through items (parts.cuh).  One warpgroup copies (flash90.cuh); each of
 * two or three others owns 64 rows: while it weighs the scores of one key tile, its products of the tile before and the other warpgroups'
 * run.  Scores start from bias / scale, and from 0 where all of a tile's biases are 0.  Weights are relative to the largest score
 * of the row's first tile, and of later ones only where they would leave the range: then the tile is scored again.
 *
 * Rows of different sequences in one tile: the keys are walked once for each run of rows of one sequence, the others
 * masked.  Slow, and never the case in a prefill.
 */
#include "kernels/cuda/flash90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

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
template <class S> static __device__ __forceinline__ int32_t how_of(const flash_room<S> &room, int32_t stage) {
    int4 by_warp = room.how[stage];
    return __shfl_sync(~0u, by_warp.x | by_warp.y | by_warp.z | by_warp.w, 0);
}

/* What scores start from; false: from 0. */
template <class S>
static __device__ __forceinline__ bool begin_scores(flash_room<S> &room, int32_t stage, int32_t how, float (&s)[S::KEYS / 2]) {
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
static __device__ __forceinline__ void score(flash_room<S> &room, int32_t worker, int32_t q_stage, int32_t stage, bool begun, T,
                                             float (&s)[S::KEYS / 2]) {
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
static __device__ __forceinline__ void add_values(flash_room<S> &room, int32_t stage, const uint32_t (&p)[S::KEYS / 16][4], T, flash_sums<S::D> &f) {
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

/* Rarely: it looks up again what would take registers. */
template <class S, typename T>
static __device__ __forceinline__ void mask(const attend_args<T> &a, const flash_plan &plan, int32_t round, const flash_step &step,
                                            float (&s)[S::KEYS / 2]) {
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

template <class S> static __device__ __forceinline__ void await_turn(int32_t worker) { group_sync(TURN + worker, 2 * GROUP); }
template <class S> static __device__ __forceinline__ void pass_turn(int32_t worker) {
    group_arrive(TURN + (worker + 1 == S::WORKERS ? 0 : worker + 1), 2 * GROUP);
}

/* Where a worker is. */
template <class S> struct flash_at {
    int32_t worker, round, q;              /* q: the stage of the item's queries                 */
    flash_ring<S::STAGES> k, v;            /* the tiles whose scores, whose values come next     */
};

/* Scores tile at.k once more, for the rows `anew`, or any others of these 64. */
template <class S, typename T>
static __device__ __forceinline__ void take_again(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, const flash_at<S> &at,
                                                  int32_t how, bool (&anew)[2], float (&s)[S::KEYS / 2], flash_sums<S::D> &f) {
    float by[2];
    product_wait<0>();
    pin(f.o);
    bool begun = begin_scores(room, at.k.stage, how, s);
    score(room, at.worker, at.q, at.k.stage, begun, T(), s);
    product_wait<0>();
    pin(s);
    if (how & STEP_MASKED) mask<S>(a, plan, at.round, room.step[at.k.stage], s);
    over_row(anew);
    weigh_anew(f, a.scale * RV_LOG2E, anew, s, by);
    scale_sums(f, by);
}

/* Scores become weights, of tile at.k, and that is done with. */
template <class S, typename T>
static __device__ __forceinline__ void take_scores(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, flash_at<S> &at, int32_t how,
                                                   float (&s)[S::KEYS / 2], flash_sums<S::D> &f) {
    float scale = a.scale * RV_LOG2E, shift[2] = { __fmul_rn(f.m[0], scale), __fmul_rn(f.m[1], scale) }, l[2];
    pin(s);
    if (how & STEP_MASKED) mask<S>(a, plan, at.round, room.step[at.k.stage], s);
    weigh(scale, shift, s, l);
    bool anew[2] = { !(l[0] <= most_weight(T())), !(l[1] <= most_weight(T())) };
    if (__any_sync(~0u, group_any(MEET + at.worker, GROUP, anew[0] || anew[1]))) take_again(a, plan, room, at, how, anew, s, f);
    else {
        f.l[0] += l[0];
        f.l[1] += l[1];
    }
    warp_arrive(&room.k_empty[at.k.stage]);
    at.k.next();
}

/* The item's first tile; returns STEP_.. of it. */
template <class S, typename T>
static __device__ __forceinline__ int32_t take_first(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, flash_at<S> &at,
                                                     float (&s)[S::KEYS / 2], flash_sums<S::D> &f) {
    const bool all[2] = { true, true };
    float by[2];
    wait_for_copies<S>(room.k_full[at.k.stage], at.k.phase);
    int32_t how = how_of(room, at.k.stage);
    bool begun = begin_scores(room, at.k.stage, how, s);
    await_turn<S>(at.worker);
    score(room, at.worker, at.q, at.k.stage, begun, T(), s);
    pass_turn<S>(at.worker);
    product_wait<0>();
    pin(s);
    if (how & STEP_MASKED) mask<S>(a, plan, at.round, room.step[at.k.stage], s);
    warp_arrive(&room.k_empty[at.k.stage]);
    at.k.next();
    weigh_anew(f, a.scale * RV_LOG2E, all, s, by);
    return how;
}

/* All of an item's tiles. */
template <class S, typename T>
static __device__ __forceinline__ void take_all(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, flash_at<S> &at,
                                                float (&s)[S::KEYS / 2], flash_sums<S::D> &f) {
    uint32_t weights[S::KEYS / 16][4];
    int32_t how = take_first(a, plan, room, at, s, f);
    /* The loop's end lies where it does so that the compiler cannot move the wait up before the weighing. */
#pragma unroll 1
    for (bool later = false;; later = true) {
        product_wait<0>();
        pin(f.o);
        if (later) {
            warp_arrive(&room.v_empty[at.v.stage]);
            at.v.next();
        }
        pack_all(s, weights, T());
        if (how & STEP_LAST) break;
        barrier_wait(&room.v_full[at.v.stage], at.v.phase);      /* older than the keys: nothing to wait for */
        wait_for_copies<S>(room.k_full[at.k.stage], at.k.phase);
        how = how_of(room, at.k.stage);
        bool begun = begin_scores(room, at.k.stage, how, s);
        await_turn<S>(at.worker);
        score(room, at.worker, at.q, at.k.stage, begun, T(), s);
        add_values(room, at.v.stage, weights, T(), f);
        pass_turn<S>(at.worker);
        product_wait<1>();
        take_scores(a, plan, room, at, how, s, f);
    }
    wait_for_copies<S>(room.v_full[at.v.stage], at.v.phase);
    add_values(room, at.v.stage, weights, T(), f);
    product_wait<0>();
    pin(f.o);
    warp_arrive(&room.v_empty[at.v.stage]);
    at.v.next();
}

template <class S, typename T>
static __device__ __forceinline__ void work(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, int32_t worker) {
    flash_at<S> at;
    float s[S::KEYS / 2];
    at.worker = worker;
#pragma unroll
    for (int32_t i = 0; i < S::KEYS / 2; i++) s[i] = 0;
    if (worker == S::WORKERS - 1) pass_turn<S>(worker);
#pragma unroll 1
    for (at.round = 0; item_of(at.round) < plan.items; at.round++) {
        flash_sums<S::D> f;
        begin_sums(a, place_again<S>(a, plan, at.round), row_again(), f);
        at.q = at.round % Q_STAGES;
        wait_for_copies<S>(room.q_full[at.q], (uint32_t)at.round / Q_STAGES % 2);
        if (__shfl_sync(~0u, room.sees[at.q], 0)) take_all(a, plan, room, at, s, f);
        warp_arrive(&room.q_empty[at.q]);
        finish(a, plan, room, at.round, worker, f);
    }
}

#endif

/* ---- the kernel ---- */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
template <class S> static __device__ __forceinline__ void open_barriers(flash_room<S> &room) {
    for (int32_t i = 0; i < Q_STAGES; i++) {
        barrier_open(&room.q_full[i], S::BULK ? 1 : GROUP + 1);
        barrier_open(&room.q_empty[i], 4 * S::WORKERS * WARP_ARRIVALS);
    }
    for (int32_t i = 0; i < S::STAGES; i++) {
        barrier_open(&room.k_full[i], S::BULK ? 1 : GROUP + GROUP / 32);
        barrier_open(&room.v_full[i], S::BULK ? 1 : GROUP);
        barrier_open(&room.k_empty[i], 4 * S::WORKERS * WARP_ARRIVALS);
        barrier_open(&room.v_empty[i], 4 * S::WORKERS * WARP_ARRIVALS);
    }
    barriers_opened();
}

template <class S, typename T>
static __device__ __forceinline__ void run(const attend_args<T> &a, const flash_plan &plan, flash_room<S> &room, const flash_maps *maps) {
    int32_t group = __shfl_sync(~0u, (int32_t)threadIdx.x / GROUP, 0);
    if (threadIdx.x == 0) open_barriers(room);
    __syncthreads();
    if (group == S::WORKERS) {
        give_registers<S::COPY_REGISTERS>();
        if constexpr (!S::BULK) copy_all(a, plan, room);
        else if (threadIdx.x % GROUP < 32) fetch_all(a, plan, room, *maps);
    } else {
        take_registers<S::WORK_REGISTERS>();
        work(a, plan, room, group);
    }
}
#endif

template <class S, typename T> static __global__ void __launch_bounds__(S::THREADS, 1) flash90_kernel(attend_args<T> a, flash_plan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    run(a, plan, *reinterpret_cast<flash_room<S> *>(memory), NULL);
#else
    (void)a, (void)plan;
    __trap();
#endif
}
template <class S, typename T>
static __global__ void __launch_bounds__(S::THREADS, 1) flash90_bulk_kernel(attend_args<T> a, flash_plan plan, const __grid_constant__ flash_maps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    run(a, plan, *reinterpret_cast<flash_room<S> *>(memory), &maps);
#else
    (void)a, (void)plan, (void)maps;
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
    flash_plan plan = plan_of(a, S::ROWS, S::KEYS, multiprocessors, partial);
    unsigned blocks = (unsigned)(plan.items < multiprocessors ? plan.items : multiprocessors);
    if constexpr (S::BULK) {
        flash_maps maps;
        cudaError_t e = cudaFuncSetAttribute(flash90_bulk_kernel<S, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (!e) e = describe(maps.q, a->q, a->q.rows, S::ROWS);
        if (!e) e = describe(maps.k, a->kv.k, a->longest, S::KEYS);
        if (!e) e = describe(maps.v, a->kv.v, a->longest, S::KEYS);
        if (e) return e;
        flash90_bulk_kernel<S, T><<<blocks, S::THREADS, (size_t)bytes, stream>>>(args_of<T>(a), plan, maps);
    } else {
        cudaError_t e = cudaFuncSetAttribute(flash90_kernel<S, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (e) return e;
        flash90_kernel<S, T><<<blocks, S::THREADS, (size_t)bytes, stream>>>(args_of<T>(a), plan);
    }
    return cudaGetLastError();
}

template <typename T> static cudaError_t flash90_of(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    switch (a->q.cols / a->heads) {
    case 64: return flash90<flash_shape<64, 2, 128, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    case 80:                               /* the tower's                                        */
        if (!a->kv.pages && a->longest > 0) return flash90<flash_shape<80, 3, 112, true, 32, 160>, T>(a, partial, multiprocessors, stream);
        return flash90<flash_shape<80, 2, 128, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    case 128: return flash90<flash_shape<128, 2, 128, false, 88, 208>, T>(a, partial, multiprocessors, stream);
    default: return cudaErrorInvalidValue;
    }
}

cudaError_t rv_cuda_flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    return a->q.type == RV_F16 ? flash90_of<__half>(a, partial, multiprocessors, stream) : flash90_of<__nv_bfloat16>(a, partial, multiprocessors, stream);
}
