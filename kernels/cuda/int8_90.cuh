/* int8_90.cuh - LLM.int8 products with many rows on Hopper: integer sums, and what becomes of them, in one kernel.
 *
 * The one idea: a tile is 128 rows of weights times as many rows of x as a product of a warpgroup takes, 256, so that shared memory is read and written no faster than it can
 * be while the tensor cores multiply; and a tile's results are made of integer sums where these are, in registers, by the rules.  Outliers that are in a few columns are
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
#include "kernels/cuda/results.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static __device__ __forceinline__ void fetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* ---- lines of tiles ---- */

/* One thread.  Weights depend on nothing before: those of the first stages are asked for at once. */
template <class S> static __device__ __forceinline__ void produce(const args8 &g, const addresses<S> &a, beside<S> &room, const CUtensorMap *map_w, const CUtensorMap *map_x, const CUtensorMap *map_o) {
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
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
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
        if (g.marks) barrier_wait(&room.full, turn & 1);     /* before multipliers go on, who let the next tile's come */
        const bool dense = g.marks && room.dense;
#pragma unroll 1
        for (int i = 0; i < 2; i++, c.next()) {
            wait_at(a.free(c.at), c.parity() ^ 1);
            arrive_at(a.filled(c.at));                       /* with nothing: room for results      */
            held |= 1u << c.at;
        }
        if (dense) bring_dense<S>(a, c, held, map_o, m, dense_lines(g));
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

/* One warp: columns that have outliers, from marks.  A lane has neighbouring words; where all lanes have them in registers, they are asked for once. */
template <class R> static __device__ __forceinline__ void find_columns(const args8 &g, R &room) {
    enum { HELD = 4 };
    const int32_t lane = (int32_t)threadIdx.x % 32, words = column_words(g.pitch), of_lane = (words + 31) / 32, from = lane * of_lane, end = min(from + of_lane, words);
    const bool listed = __ldcg(g.marks + words + RV_CUDA_MARKS_LISTED);
    uint32_t held[HELD];
    int32_t mine = 0;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) held[i] = from + i < end ? __ldcg(g.marks + from + i) : 0u;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) mine += __popc(held[i]);
#pragma unroll 8
    for (int32_t i = from + HELD; i < end; i++) mine += __popc(__ldcg(g.marks + i));
    int32_t before = mine;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const int32_t other = __shfl_up_sync(~0u, before, d);
        if (lane >= d) before += other;
    }
    const int32_t all = __shfl_sync(~0u, before, 31);
    before -= mine;
    auto put = [&](int32_t word, uint32_t bits) {
        for (; bits; bits &= bits - 1) room.columns[before++] = word * 32 + __ffs((int32_t)bits) - 1;
    };
    if (mine && all <= BESIDE) {
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) put(from + i, held[i]);
        for (int32_t i = from + HELD; i < end; i++) put(i, __ldcg(g.marks + i));
    }
    if (lane) return;
    room.found = all;
    room.before = all > BESIDE && g.more && listed;
}

/* HELPERS threads: what a tile's end needs of its rows, and those columns, of each of the block's tiles in turn, AT_ONCE at a time.  The first warp has the weights, the others the
 * activations: a thread has LOADED of one column, and of all that it loads nothing waits for anything else.  The first ones are asked for while results are still made of what is there of the
 * tile before. */
template <typename T, class S, bool ADDS> static __device__ __forceinline__ void gather(const args8 &g, beside<S> &room) {
    enum { LOADED = 32, OF_WEIGHTS = S::WEIGHTS / LOADED, OF_ROWS = S::MOST / LOADED, LOADED_ROWS = (S::MOST + HELPERS - 1) / HELPERS };
    static_assert(OF_WEIGHTS * AT_ONCE == 32 && OF_ROWS * AT_ONCE == HELPERS - 32, "a thread has a column of each AT_ONCE");
    walk w(g);
    const int32_t me = (int32_t)threadIdx.x - 32, mine = me % AT_ONCE;
    const bool weighs = me < 32;
    const int32_t first = (weighs ? me : me - 32) / AT_ONCE;
    if (me == 0) room.found = 0, room.before = room.dense = false;
    wait_for_previous();
    if (g.marks && weighs) find_columns(g, room);
    helpers_meet();
    const int32_t found = room.found, columns = found <= BESIDE ? (found + AT_ONCE - 1) / AT_ONCE * AT_ONCE : 0;
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t m, n;
        w.tile<S>(&m, &n);
        const int32_t weights = min((int32_t)S::WEIGHTS, g.a.cols - n), rows = min(g.wide, g.a.rows - m);
        if (ADDS) {                      /* what results are added to is far away               */
            const int32_t row0 = w.first_unit(w.part) * walk::UNIT, end_row = min(w.first_unit(w.part + 1) * walk::UNIT, rows), piece = me % 4 * 32;
            const float *const to = (const float *)g.a.out + m * g.a.out_ld + n + piece;
            if (piece < weights)
                for (int32_t row = row0 + me / 4; row < end_row; row += HELPERS / 4) fetch_far(to + row * g.a.out_ld);
        }
        uint32_t dense = 0;              /* a bit a row, a word a lane                          */
        if (found > BESIDE && me <= S::MOST / 32 && (m / 32 + me) * 32 < m + rows) dense = __ldcg(g.marks + column_words(g.pitch) + RV_CUDA_MARKS_DENSE + m / 32 + me);
        if (columns && weighs) {         /* scales lie beside the weights that they are of      */
            __syncwarp();                /* those of the tile before have been read             */
#pragma unroll
            for (int i = 0; i < S::WEIGHTS / 32; i++) room.w[me + i * 32][BESIDE] = me + i * 32 < weights ? __ldg(g.w_scale + n + me + i * 32) : 0.f;
        }
        int2 of_row[LOADED_ROWS];
#pragma unroll
        for (int i = 0; i < LOADED_ROWS; i++) of_row[i] = me + i * HELPERS < rows ? __ldcg((const int2 *)(g.x_rows + m + me + i * HELPERS)) : make_int2(0, 0);
        barrier_wait(&room.empty, (turn & 1) ^ 1);
#pragma unroll
        for (int i = 0; i < LOADED_ROWS; i++)
            if (me + i * HELPERS < S::MOST) room.rows[me + i * HELPERS] = of_row[i];
#pragma unroll 1
        for (int32_t o = mine; o < columns; o += AT_ONCE) {
            const int32_t column = o < found ? room.columns[o] : -1;
            const int32_t there = column < 0 ? 0 : weighs ? (weights - first + OF_WEIGHTS - 1) / OF_WEIGHTS : (rows - first + OF_ROWS - 1) / OF_ROWS;
            int32_t v[LOADED];
            __syncwarp();
            if (weighs) {
                const int8_t *p = g.w + (int64_t)(n + first) * g.pitch + column;
#pragma unroll
                for (int i = 0; i < LOADED; i++, p += OF_WEIGHTS * (int64_t)g.pitch) v[i] = i < there ? load_in_turn(p) : 0;
#pragma unroll
                for (int i = 0; i < LOADED; i++) {
                    float *const to = room.w[first + i * OF_WEIGHTS];
                    to[o] = to_f32(int8_weight<T>((float)v[i], to[BESIDE]));
                }
            } else {
                const uint16_t *p = (const uint16_t *)g.x + (m + first) * g.x_ld + column;
#pragma unroll
                for (int i = 0; i < LOADED; i++, p += OF_ROWS * g.x_ld) v[i] = i < there ? look(p) : 0;
#pragma unroll
                for (int i = 0; i < LOADED; i++) room.x[first + i * OF_ROWS][o] = to_f32(outlier_of<T>((uint16_t)v[i], g.threshold));
            }
        }
        if (weighs && found > BESIDE) {
            dense = __any_sync(~0u, dense != 0);
            if (me == 0) room.dense = dense;
        }
        barrier_arrive(&room.full);
        if (!w.last()) continue;
        barrier_wait(&room.empty, turn & 1);                 /* all of this block have read what they need of marks */
        if (g.wipes) wipe_marks(g.marks, g.pitch, g.a.rows, me, HELPERS, &room.found, helpers_meet);
    }
}

/* ---- the kernel ---- */

/* Registers of a thread.  Who takes more than a launch of so many threads has waits for ever. */
enum { OF_HELPER = 56, OF_MULTIPLIER = 224, OF_LAUNCH = 65536 / THREADS8 / 8 * 8 };
static_assert(OF_HELPER * GROUP + OF_MULTIPLIER * MULTIPLIERS <= OF_LAUNCH * THREADS8, "registers are not there");

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

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void multiply_tiles(const args8 &g, const ring<S> &r, beside<S> &room) {
    const int group = __shfl_sync(~0u, (int)threadIdx.x / GROUP, 0) - 1;
    walk w(g);
    const addresses<S> a(g, w, r);
    cursor<S> c;
    if (g.split > 1 && threadIdx.x == GROUP) barrier_expect(&room.summed, bytes_of_others(w));
    wait_for_previous();
    ending<T, O, S, HOW> e(g, room);
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t sums[S::MOST / 2] = {}, m, n;
        w.tile<S>(&m, &n);
        const int32_t in_tile = group * 64 + (int32_t)threadIdx.x % GROUP / 32 * 16;           /* the warp's first row of weights */
        e.begin(n, in_tile);
        multiply_wide<S>(g.wide, sums, a, c, 0, w.lines, group, [](int32_t, uint32_t) {}, int8_t());
#pragma unroll
        for (int j = 0; j < S::MOST / 2; j++) asm volatile("" : "+r"(sums[j])::"memory");      /* read no sum before its wait */
        e.place.take(a, c);
        const int32_t from = anew(w.first_unit(w.part)), end = anew(w.first_unit(w.part + 1));
        if (g.split > 1) {
            exchange_sums<S>(w, a, &room.freed, &room.summed, e.place, sums);
            multipliers_meet();          /* others' sums have been read: results go there       */
        }
        barrier_wait(&room.full, turn & 1);
        e.look();
        /* SwiGLU's from here on, if nothing is to be added before it. */
        const bool dense = room.dense, gated = HOW == rv_few::RV_FEW_SWIGLU && !dense && !e.before;
        if (gated && g.split == 1) {
            __syncwarp();                /* all lanes have seen that it is theirs               */
            a.release(e.place.stage[0]);
        }
        if (gated) e.template make<true>(sums, from, end, in_tile);
        else e.template make<false>(sums, from, end, in_tile);
        __syncwarp();
        if (threadIdx.x % 32 == 0 && !dense) barrier_arrive(&room.empty);
        multipliers_meet();
        if (dense) {
            float of_outliers[S::MOST / 2] = {};
            multiply_dense<T, S>(of_outliers, g, a, c, e.place.held(), n, group);
            pin(of_outliers);
            add_dense<T, S>(w, e.place, of_outliers, m, from, end, in_tile);
            __syncwarp();
            if (threadIdx.x % 32 == 0) barrier_arrive(&room.empty);              /* marks have been read, too */
            multipliers_meet();
        }
        if (gated) e.gated_out(m, n, from, end);
        else e.rows_out(m, n, from, end);
        __syncwarp();
        if (!gated || g.split > 1) a.release(e.place.stage[0]);
        a.release(e.place.stage[1]);
    }
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS8, 1) int8_90_kernel(const __grid_constant__ CUtensorMap map_w, const __grid_constant__ CUtensorMap map_x,
                                                                           const __grid_constant__ CUtensorMap map_o, const args8 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    uint8_t *const data = memory + (1024 - shared_address(memory) % 1024) % 1024;
    beside<S> &room = *(beside<S> *)(data + S::RING);
    const ring<S> r = { data, room.lines, room.lines + S::STAGES };
    const bool shared = g.share > 1;                /* what others copy to, and arrive at, must be there */
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_open(&room.lines[i], 1);
            barrier_open(&room.lines[S::STAGES + i], (uint32_t)(g.share * MULTIPLIER_WARPS));
        }
        barrier_open(&room.full, HELPERS);
        barrier_open(&room.empty, MULTIPLIER_WARPS);
        barrier_open(&room.freed, (uint32_t)(g.split > 1 ? g.split - 1 : 1));
        barrier_open(&room.summed, 1);
        barriers_opened();
    }
    if (shared) cluster_meet();
    else __syncthreads();
    const bool later = meets_later(g);
    if (later) cluster_arrive_relaxed();
    if (threadIdx.x < GROUP) {
        give_registers<OF_HELPER>();
        if (threadIdx.x < 32) {
            const addresses<S> a(g, walk(g), r);
            if (threadIdx.x == 0) produce<S>(g, a, room, &map_w, &map_x, &map_o);
        } else gather<T, S, HOW == rv_few::RV_FEW_ADD>(g, room);
        __syncwarp();
        if (later) cluster_wait();
    } else {
        take_registers<OF_MULTIPLIER>();
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
    g.by_split = reciprocal(c.split);
    g.box = parts(c.rows, 8 * c.share) * 8;        /* a swizzle is of 8 rows                  */
    g.a.tiles_m = parts(p->x.rows, c.rows);
    g.a.tiles_n = parts(p->rows, S::WEIGHTS * c.share);
    g.by_tiles = reciprocal(g.a.n_first ? g.a.tiles_n : g.a.tiles_m);
    cudaError_t e = describe_boxes(&map_x, RV_I8, room->codes, p->x.rows, q->pitch, q->pitch, g.box, LINE);
    if (!e) e = describe_boxes(&map_w, RV_I8, p->w, p->rows, q->pitch, q->pitch, S::WEIGHTS, LINE);
    if (!e) e = describe_boxes(&map_o, p->act, room->outliers, p->x.rows, q->pitch, q->pitch, S::MOST, LINE);
    if (e) return e;
    int32_t blocks = g.a.tiles_m * g.a.tiles_n * cluster, most = rv_cuda_int8_blocks(p->multiprocessors, cluster);
    if (blocks > most) blocks = most;
    return launch_cluster(int8_90_kernel<T, O, S, HOW>, (unsigned)blocks, (unsigned)cluster, THREADS8, SHARED_BYTES8, overlap, stream, map_w, map_x, map_o, g);
}

template <typename T> cudaError_t launch_int8_90(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    return by_results<T>(&q->p, [&](auto kind) { return launch_int8_90_tiles<T, typename decltype(kind)::O, decltype(kind)::HOW>(q, room, g, overlap, stream); });
}
#endif
