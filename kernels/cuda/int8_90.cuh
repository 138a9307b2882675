/* int8_90.cuh - LLM.int8 products with many rows on Hopper: integer sums, and what becomes of them, in one kernel.
 *
 * The one idea: a tile is 128 rows of weights times as many rows of x as a product of a warpgroup takes, 256, so that shared memory is read and written no faster than it can
 * be while the tensor cores multiply; and a tile's results are made row by row of x from integer sums that lie in shared memory, by the rules.  Outliers that are in a few columns are
 * added there: other warps have brought those columns of activations and weights.  Where there are more, outliers90.cu has added up those of listed rows, and dense90.cuh adds those
 * of rows of very many.  The first two do it in the same order, and between them and the third a row's own number decides: its bits depend on no other row.
 *
 * Integer operands are consumed faster than the L2 cache has them: blocks of a cluster, with tiles of the same rows of x, copy parts of those to all of them.
 * And few tiles would leave multiprocessors without work: then several of a cluster multiply parts of the columns of one tile, and exchange integer sums.
 */
#ifndef RV_KERNELS_CUDA_INT8_90_CUH
#define RV_KERNELS_CUDA_INT8_90_CUH
#include "kernels/cuda/absent.cuh"
#include "kernels/cuda/int8_end90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static __device__ __forceinline__ void fetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* ---- lines of tiles ---- */

/* One thread.  Weights depend on nothing before: those of the first stages are asked for at once. */
template <class S> static __device__ __forceinline__ void produce(const args8 &g, const addresses<S> &a, const CUtensorMap *map_w, const CUtensorMap *map_x, const CUtensorMap *map_o) {
    walk w(g);
    cursor<S> c;
    int32_t m, n, early = w.more() ? min(w.lines, (int32_t)S::STAGES) : 0;
    const uint32_t bytes = S::A_BYTES + (uint32_t)(g.share * g.box * LINE), own = S::A_BYTES + (uint32_t)(w.place * g.box * LINE);
    const uint16_t all = (uint16_t)(((1 << g.share) - 1) << w.rank_of(w.part, 0));
    auto ask = [&](uint32_t stage, int32_t i) {
        expect_at(a.filled(stage), bytes);
        copy_box_at(a.stage(stage), map_w, (w.from + i) * LINE, n, a.filled(stage));
    };
    fetch_map(map_x);
    w.tile<S>(&m, &n);
#pragma unroll 1
    for (int32_t i = 0; i < early; i++) ask((uint32_t)i, i);
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns);
    for (; w.more(); w.next()) {
        w.tile<S>(&m, &n);
#pragma unroll 1
        for (int32_t i = 0; i < w.lines; i++, c.next()) {
            if (early-- <= 0) {
                wait_at(a.free(c.at), c.parity() ^ 1);
                ask(c.at, i);
            }
            if (g.share == 1) copy_box_at(a.stage(c.at) + own, map_x, (w.from + i) * LINE, m, a.filled(c.at));
            else copy_box_to_all_at(a.stage(c.at) + own, map_x, (w.from + i) * LINE, m + w.place * g.box, a.filled(c.at), all);
        }
        uint32_t held = 0;
#pragma unroll 1
        for (int i = 0; i < 2; i++, c.next()) {
            wait_at(a.free(c.at), c.parity() ^ 1);
            arrive_at(a.filled(c.at));                       /* with nothing: room for sums         */
            held |= 1u << c.at;
        }
        if (w.any_dense<S>(m, found)) bring_dense<S>(a, c, held, map_o, m, dense_lines(g));
    }
    let_next_start();
}

/* ---- outliers in few columns ---- */

/* As look(): loads that are asked for one after the other, so that an address is no more than the one before and a step. */
static __device__ __forceinline__ int32_t load_in_turn(const int8_t *p) {
    int32_t v;
    asm volatile("ld.global.nc.s8 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

/* HELPERS threads: those columns of each of the block's tiles in turn, AT_ONCE at a time: a thread has one of them, and of all that it loads nothing waits for anything
 * else.  The first ones are asked for while results are still made of what is there of the tile before. */
template <typename T, class S> static __device__ __forceinline__ void gather(const args8 &g, beside<T, S> &room) {
    enum { APART = HELPERS / AT_ONCE, OF_W = (S::WEIGHTS + APART - 1) / APART, OF_X = (S::MOST + 2 * APART - 1) / (2 * APART) };      /* a thread's weights, and half of its activations */
    walk w(g);
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns), me = (int32_t)threadIdx.x - 32, mine = me % AT_ONCE, first = me / AT_ONCE;
    if (found == 0 || found > BESIDE) return;
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t m, n;
        w.tile<S>(&m, &n);
        const int32_t weights = (min((int32_t)S::WEIGHTS, g.a.cols - n) - first + APART - 1) / APART, rows = (min(g.wide, g.a.rows - m) - first + APART - 1) / APART;      /* this thread's */
#pragma unroll 1
        for (int32_t o = mine; o < (found + AT_ONCE - 1) / AT_ONCE * AT_ONCE; o += AT_ONCE) {
            const int32_t column = o < found ? (int32_t)__ldcg(g.columns + o) : -1;
            int32_t v[OF_W > OF_X ? OF_W : OF_X];
            const int8_t *of_w = g.w + (int64_t)(n + first) * g.pitch + column;
#pragma unroll
            for (int i = 0; i < OF_W; i++, of_w += APART * (int64_t)g.pitch) v[i] = column >= 0 && i < weights ? load_in_turn(of_w) : 0;
            if (o == mine) barrier_wait(&room.empty, (turn & 1) ^ 1);
#pragma unroll
            for (int i = 0; i < OF_W; i++)
                if (first + i * APART < S::WEIGHTS) room.w[o][first + i * APART] = to_f32(int8_weight<T>((float)v[i], i < weights ? __ldg(g.w_scale + n + first + i * APART) : 0.f));
            const uint16_t *of_x = (const uint16_t *)g.x + (m + first) * g.x_ld + column;
#pragma unroll 1
            for (int32_t from = 0; from * APART + first < S::MOST; from += OF_X) {
#pragma unroll
                for (int i = 0; i < OF_X; i++, of_x += APART * g.x_ld) v[i] = column >= 0 && from + i < rows ? look(of_x) : 0;
#pragma unroll
                for (int i = 0; i < OF_X; i++)
                    if (first + (from + i) * APART < S::MOST) room.x[first + (from + i) * APART][o] = outlier_of<T>((uint16_t)v[i], g.threshold);
            }
        }
        barrier_arrive(&room.full);
    }
}
static_assert(HELPERS % AT_ONCE == 0 && BESIDE % AT_ONCE == 0, "a thread has a column of each AT_ONCE");

/* ---- the kernel ---- */

/* The product of dense rows' outliers: weights of a line are made in the stage that its rows come to. */
template <typename T, class S>
static __device__ __forceinline__ void multiply_dense(float (&sums)[S::MOST / 2], const args8 &g, const addresses<S> &a, cursor<S> &c, uint32_t held, int32_t n, int group) {
    made_weights<T> w(g.w, g.w_scale, g.pitch, n, g.a.cols, (int32_t)threadIdx.x - GROUP);
    auto make = [&](int32_t i, uint32_t stage) {
        w.make(i, a.stage(stage));
        make_visible_to_products();
        group_sync(3 + group, GROUP);
    };
    if (g.wide == 128) multiply_lines<128, S>(sums, a, c, held, dense_lines(g), group, make, T());
    else multiply_lines<S::MOST, S>(sums, a, c, held, dense_lines(g), group, make, T());
    pin(sums);
}

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void multiply_tiles(const args8 &g, const ring<S> &r, beside<T, S> &room) {
    const int group = __shfl_sync(~0u, (int)threadIdx.x / GROUP, 0) - 1;
    walk w(g);
    const addresses<S> a(g, w, r);
    cursor<S> c;
    wait_for_previous();
    ending<T, O, S, HOW> e(g, w, room);
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t sums[S::MOST / 2] = {}, m, n;
        w.tile<S>(&m, &n);
        const bool dense = w.any_dense<S>(m, e.found);
        multiply_wide<S>(g.wide, sums, a, c, 0, w.lines, group, [](int32_t, uint32_t) {}, int8_t());
#pragma unroll
        for (int j = 0; j < S::MOST / 2; j++) asm volatile("" : "+r"(sums[j])::"memory");      /* read no sum before its wait */
        e.place.take(a, c);
        e.begin(n);
        const int32_t from = anew(w.first_unit(w.part)), end = anew(w.first_unit(w.part + 1)), in_tile = anew(group * 64 + (int32_t)threadIdx.x % GROUP / 32 * 16);
        if (g.split > 1) exchange_sums<S>(w, a, &room.summed, e.place, sums);
        if (e.beside_them) barrier_wait(&room.full, turn & 1);
#pragma unroll 1
        for (int32_t u = from; u < end; u += e.place.UNITS) {
            const int32_t last = min(u + e.place.UNITS, end);
            e.begin_rows(m, u, last);
            if (!dense) e.ask_first();
            multipliers_meet();          /* others' sums have been read, and those of the half before */
            if (g.split > 1) leave_sums<S, S::MOST / walk::UNIT>(e.place, sums, u, last, in_tile);
            else leave_sums<S, e.place.UNITS>(e.place, sums, 0, last - u, in_tile);
            multipliers_meet();
            e.all(true, !dense, u > from);
#pragma unroll
            for (int j = 0; j < S::MOST / 4; j++) sums[j] = sums[j + S::MOST / 4];             /* the second half's: the first one's registers are free meanwhile */
        }
        if (dense) {
            float of_outliers[S::MOST / 2] = {};
            multiply_dense<T, S>(of_outliers, g, a, c, e.place.held(), n, group);
            pin(of_outliers);
            multipliers_meet();
            add_dense<T, S>(w, e.place, of_outliers, m, from, end, in_tile);
            multipliers_meet();
#pragma unroll 1
            for (int32_t u = from; u < end; u += e.place.UNITS) {
                e.begin_rows(m, u, min(u + e.place.UNITS, end));
                e.ask_first();
                e.all(false, true, u > from);
            }
        }
        __syncwarp();
        a.release(e.place.stage[0]);
        a.release(e.place.stage[1]);
        if (threadIdx.x % 32 == 0 && e.beside_them) barrier_arrive(&room.empty);
    }
    count_clamped(e.clamped);
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS8, 1) int8_90_kernel(const __grid_constant__ CUtensorMap map_w, const __grid_constant__ CUtensorMap map_x,
                                                                           const __grid_constant__ CUtensorMap map_o, const args8 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    uint8_t *const data = memory + (1024 - shared_address(memory) % 1024) % 1024;
    beside<T, S> &room = *(beside<T, S> *)(data + S::RING);
    const ring<S> r = { data, room.lines, room.lines + S::STAGES };
    const bool shared = g.share > 1;                /* what others copy to, and arrive at, must be there */
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_open(&room.lines[i], 1);
            barrier_open(&room.lines[S::STAGES + i], (uint32_t)(g.share * MULTIPLIER_WARPS));
        }
        barrier_open(&room.full, HELPERS);
        barrier_open(&room.empty, MULTIPLIER_WARPS);
        barrier_open(&room.summed, (uint32_t)((g.split > 1 ? g.split - 1 : 1) * MULTIPLIER_WARPS));
        barriers_opened();
    }
    if (shared) cluster_meet();
    else __syncthreads();
    /* All have met once more when those who multiply parts of a tile's columns have read their rings: sums go to others' then. */
    if (g.split > 1 && threadIdx.x < GROUP) cluster_arrive();
    if (threadIdx.x < GROUP) {
        give_registers<40>();
        if (threadIdx.x < 32) {
            const addresses<S> a(g, walk(g), r);
            if (threadIdx.x == 0) produce<S>(g, a, &map_w, &map_x, &map_o);
        } else gather<T, S>(g, room);
        __syncwarp();
        if (g.split > 1) cluster_wait();
    } else {
        take_registers<232>();
        multiply_tiles<T, O, S, HOW>(g, r, room);
    }
    if (shared) cluster_meet();                    /* nobody leaves while its shared memory is written to */
#endif
}

/* ---- launching ---- */

template <typename T, typename O, int HOW>
cudaError_t launch_int8_90_tiles(const rv_int8 *q, const rv_int8_many *room, args8 g, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const rv_int8_cut c = q->cut;
    using S = tiling8;
    const int32_t cluster = c.share * c.split;
    CUtensorMap map_x, map_w, map_o;
    g.wide = c.rows;
    g.share = c.share;
    g.split = c.split;
    g.box = parts(c.rows, 8 * c.share) * 8;        /* a swizzle is of 8 rows                  */
    g.a.tiles_m = parts(p->x.rows, c.rows);
    g.a.tiles_n = parts(p->rows, S::WEIGHTS * c.share);
    cudaError_t e = describe_boxes(&map_x, RV_I8, room->codes, p->x.rows, q->pitch, q->pitch, g.box, LINE);
    if (!e) e = describe_boxes(&map_w, RV_I8, p->w, p->rows, q->pitch, q->pitch, S::WEIGHTS, LINE);
    if (!e) e = describe_boxes(&map_o, p->act, room->outliers, p->x.rows, q->pitch, q->pitch, S::MOST, LINE);
    if (e) return e;
    int32_t blocks = g.a.tiles_m * g.a.tiles_n * cluster, most = rv_cuda_int8_blocks(p->multiprocessors, cluster);
    if (blocks > most) blocks = most;
    return launch_cluster(int8_90_kernel<T, O, S, HOW>, (unsigned)blocks, (unsigned)cluster, THREADS8, shared_bytes8<T>(), overlap, stream, map_w, map_x, map_o, g);
}

template <typename T> cudaError_t launch_int8_90(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    switch (q->p.how) {
    case rv_few::RV_FEW_STORE:
        return q->p.out.type == RV_F32 ? launch_int8_90_tiles<T, float, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream)
                                       : launch_int8_90_tiles<T, T, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch_int8_90_tiles<T, T, rv_few::RV_FEW_GELU>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_SWIGLU: return launch_int8_90_tiles<T, T, rv_few::RV_FEW_SWIGLU>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch_int8_90_tiles<T, float, rv_few::RV_FEW_ADD>(q, room, g, overlap, stream);
    default: return cudaErrorInvalidValue;
    }
}
#endif
