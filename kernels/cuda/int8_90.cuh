/* int8_90.cuh - LLM.int8 products with many rows on Hopper: integer sums, and what becomes of them, in one kernel.
 *
 * The one idea: nobody does two things.  One thread asks for lines of codes, two warpgroups multiply them, and leave a tile's integer sums in shared memory, where
 * other warps make results of them by the rules while the next tile is multiplied.  Outliers that are in a few columns are added there: still other warps have
 * brought those columns of activations and weights.  Where there are more, outliers90.cu has added up those of listed rows, and dense90.cuh adds those of rows of very
 * many.  The first two do it in the same order, and between them and the third a row's own number decides: its bits depend on no other row.
 *
 * Integer operands are consumed faster than the L2 cache has them: blocks of a cluster, with tiles of the same rows, copy parts of the activations to all of them, and
 * those with tiles of the same weights parts of those.  And few tiles would leave multiprocessors without work: then several of a cluster multiply parts of the columns of one
 * tile, and exchange integer sums.
 */
#ifndef RV_KERNELS_CUDA_INT8_90_CUH
#define RV_KERNELS_CUDA_INT8_90_CUH
#include "kernels/cuda/int8_end90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static __device__ __forceinline__ void fetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* ---- lines of tiles ---- */

/* One thread.  Weights depend on nothing before: those of the first stages are asked for at once. */
template <class S> static __device__ __forceinline__ void produce(const args8 &g, const addresses<S> &a, const CUtensorMap *map_a, const CUtensorMap *map_b, const CUtensorMap *map_o) {
    walk w(g);
    cursor<S> c;
    int32_t m, n, early = w.more() ? min(w.lines, (int32_t)S::STAGES) : 0;
    /* Of activations this block copies a part to all of its row, of weights to all of its column. */
    const int32_t rows = S::BM / g.share, weights = S::BN / g.stack;
    const uint16_t row_of_blocks = (uint16_t)(((1 << g.share) - 1) << w.rank_of(w.part, w.level, 0));
    uint16_t column_of_blocks = 0;
    for (int32_t i = 0; i < g.stack; i++) column_of_blocks |= (uint16_t)(1 << w.rank_of(w.part, i, w.place));
    auto ask = [&](uint32_t stage, int32_t i) {
        const uint32_t to = a.stage(stage) + S::A_BYTES + (uint32_t)(w.level * weights * LINE);
        expect_at(a.filled(stage), S::STAGE_BYTES);
        if (g.stack == 1) copy_box_at(to, map_b, (w.from + i) * LINE, n, a.filled(stage));
        else copy_box_to_all_at(to, map_b, (w.from + i) * LINE, n + w.level * weights, a.filled(stage), column_of_blocks);
    };
    fetch_map(map_a);
    w.tile<S>(&m, &n);
#pragma unroll 1
    for (int32_t i = 0; i < early; i++) ask((uint32_t)i, i);
    wait_for_previous();
    for (; w.more(); w.next()) {
        w.tile<S>(&m, &n);
#pragma unroll 1
        for (int32_t i = 0; i < w.lines; i++, c.next()) {
            if (early-- <= 0) {
                wait_at(a.free(c.at), c.parity() ^ 1);
                ask(c.at, i);
            }
            const uint32_t to = a.stage(c.at) + (uint32_t)(w.place * rows * LINE);
            if (g.share == 1) copy_box_at(to, map_a, (w.from + i) * LINE, m, a.filled(c.at));
            else copy_box_to_all_at(to, map_a, (w.from + i) * LINE, m + w.place * rows, a.filled(c.at), row_of_blocks);
        }
        uint32_t held = 0;
#pragma unroll 1
        for (int i = 0; i < 2; i++, c.next()) {
            wait_at(a.free(c.at), c.parity() ^ 1);
            arrive_at(a.filled(c.at));                       /* with nothing: room for sums         */
            held |= 1u << c.at;
        }
        if (w.any_dense<S>(m)) bring_dense<S>(a, c, held, map_o, m, 64, dense_lines(g));
    }
    let_next_start();
}

template <class S> static __device__ __forceinline__ void multiply(const walk &w, int32_t (&sums)[S::BN / 2], const addresses<S> &a, cursor<S> &c, int group) {
    multiply_lines(sums, a, c, 0, w.lines, group, [](uint32_t) {}, int8_t());
#pragma unroll
    for (int j = 0; j < S::BN / 2; j++) asm volatile("" : "+r"(sums[j])::"memory");    /* read no sum before its wait */
}

/* ---- outliers in few columns ---- */

/* HELPERS threads: those columns of each of the block's tiles in turn. */
template <typename T, class S> static __device__ __forceinline__ void gather(const args8 &g, beside<T, S> &room) {
    walk w(g);
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns), first = (int32_t)threadIdx.x - 32;
    if (found == 0 || found > BESIDE) return;
    enum { PAIR = 2, OF_W = (S::BN + HELPERS - 1) / HELPERS, OF_X = (S::BM + HELPERS - 1) / HELPERS };         /* columns; a thread's of each */
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t m, n;
        w.tile<S>(&m, &n);
        barrier_wait(&room.empty, (turn & 1) ^ 1);
#pragma unroll 1
        for (int32_t o = 0; o < (found + AT_ONCE - 1) / AT_ONCE * AT_ONCE; o += PAIR) {
            int32_t column[PAIR], code[PAIR][OF_W];
            T x[PAIR][OF_X];
#pragma unroll
            for (int j = 0; j < PAIR; j++) column[j] = o + j < found ? (int32_t)__ldcg(g.columns + o + j) : -1;
#pragma unroll
            for (int j = 0; j < PAIR; j++) {
#pragma unroll
                for (int i = 0; i < OF_W; i++) {
                    const int32_t c = first + i * HELPERS;
                    code[j][i] = column[j] >= 0 && c < S::BN && n + c < g.a.cols ? __ldg(g.w + (int64_t)(n + c) * g.pitch + column[j]) : 0;
                }
#pragma unroll
                for (int i = 0; i < OF_X; i++) {
                    const int32_t r = first + i * HELPERS;
                    x[j][i] = column[j] >= 0 && r < S::BM && m + r < g.a.rows ? outlier_value<T>(g.x, g.x_ld, m + r, column[j], g.threshold) : T(0.f);
                }
            }
#pragma unroll
            for (int i = 0; i < OF_W; i++) {
                const int32_t c = first + i * HELPERS;
                const float scale = c < S::BN && n + c < g.a.cols ? __ldg(g.w_scale + n + c) : 0.f;
#pragma unroll
                for (int j = 0; j < PAIR; j++)
                    if (c < S::BN) room.w[o + j][c] = to_f32(int8_weight<T>((float)code[j][i], scale));
            }
#pragma unroll
            for (int i = 0; i < OF_X; i++)
#pragma unroll
                for (int j = 0; j < PAIR; j++)
                    if (first + i * HELPERS < S::BM) room.x[first + i * HELPERS][o + j] = x[j][i];
        }
        barrier_arrive(&room.full);
    }
}

/* ---- the kernel ---- */

template <typename T, class S> static __device__ __forceinline__ void multiply_tiles(const args8 &g, const ring<S> &r, beside<T, S> &room) {
    const int group = __shfl_sync(~0u, (int)threadIdx.x / GROUP, 0) - 1;
    const int32_t in_tile = group * 64 + (int32_t)threadIdx.x % GROUP / 32 * 16;
    walk w(g);
    const addresses<S> a(g, w, r);
    cursor<S> c;
    uint32_t made = 0, valued = 0;
    wait_for_previous();
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t sums[S::BN / 2] = {}, m, n;
        sums_place<S> place;
        w.tile<S>(&m, &n);
        const bool dense = w.any_dense<S>(m);
        multiply<S>(w, sums, a, c, group);
#pragma unroll
        for (int i = 0; i < 2; i++, c.next()) {
            wait_at(a.filled(c.at), c.parity());
            place.stage[i] = c.at;
        }
        barrier_wait(&room.taken, (turn & 1) ^ 1);           /* short tiles: no one's sums are forgotten for the next one's */
        leave_sums<T, S>(w, r, room, place, sums, in_tile);
        if (!dense) continue;
        float of_outliers[S::BN / 2] = {};
        multiply_dense<T, S>(of_outliers, a, made, c, place.held(), dense_lines(g), group);
        barrier_wait(&room.valued, valued);
        valued ^= 1;
        add_dense<T, S>(w, r, room, place, of_outliers, m, in_tile);
    }
}

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void end_tiles(const args8 &g, const ring<S> &r, beside<T, S> &room) {
    using E = ending<T, O, S, HOW>;
    const bool first_lane = threadIdx.x % 32 == 0;
    walk w(g);
    const addresses<S> a(g, w, r);
    cursor<S> c;
    uint32_t summed = 0;
    wait_for_previous();
    E e(g, w, r, room);
    for (uint32_t turn = 0; w.more(); w.next(), turn++) {
        int32_t m, n;
        w.tile<S>(&m, &n);
        const bool dense = w.any_dense<S>(m);
        e.begin(m, n);
        c.skip(w.lines);
        e.place.take(c);
#pragma unroll 1
        for (int pass = dense ? 0 : 1; pass < 2; pass++) {
            const bool make = pass == 0 || !dense;
            if (pass) e.ask_first();
            barrier_wait_cluster(&room.summed, summed);
            summed ^= 1;
            if (make && e.beside_them) barrier_wait(&room.full, turn & 1);
            e.all(make, pass == 1);
            __syncwarp();
            if (pass) break;
            if (first_lane) barrier_arrive(&room.valued);
            make_dense<T, S>(made_weights<T>(g.w, g.w_scale, g.pitch, n, g.a.cols, (int32_t)threadIdx.x - FIRST_ENDER), r, a, c, e.place.held(), dense_lines(g));
        }
        a.release(e.place.stage[0]);
        a.release(e.place.stage[1]);
        if (first_lane) barrier_arrive(&room.taken);
        if (first_lane && e.beside_them) barrier_arrive(&room.empty);
    }
    count_clamped(e.clamped);
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS8, 1) int8_90_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                                                                           const __grid_constant__ CUtensorMap map_o, const args8 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    uint8_t *const data = memory + (1024 - shared_address(memory) % 1024) % 1024;
    beside<T, S> &room = *(beside<T, S> *)(data + S::RING);
    const ring<S> r = { data, room.lines, room.lines + S::STAGES };
    const bool cluster = g.share * g.stack * g.split > 1;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_open(&room.lines[i], 1);
            barrier_open(&room.lines[S::STAGES + i], (uint32_t)(addresses<S>::senders(g) * MULTIPLIER_WARPS));
            barrier_open(&room.lines[2 * S::STAGES + i], ENDER_WARPS);
        }
        barrier_open(&room.full, HELPERS);
        barrier_open(&room.empty, ENDER_WARPS);
        barrier_open(&room.summed, MULTIPLIER_WARPS);
        barrier_open(&room.taken, ENDER_WARPS);
        barrier_open(&room.valued, ENDER_WARPS);
        barriers_opened();
    }
    if (cluster) cluster_meet();
    else __syncthreads();
    /* All have met once more when those who multiply parts of a tile's columns have read their rings: sums go to others' then. */
    const bool multiplies = threadIdx.x >= GROUP && threadIdx.x < FIRST_ENDER;
    if (g.split > 1 && !multiplies) cluster_arrive();
    if (threadIdx.x < GROUP) {
        give_registers<56>();
        if (threadIdx.x < 32) {
            const addresses<S> a(g, walk(g), r);
            if (threadIdx.x == 0) produce<S>(g, a, &map_a, &map_b, &map_o);
        } else gather<T, S>(g, room);
        __syncwarp();
    } else if (multiplies) {
        multiply_tiles<T, S>(g, r, room);
    } else {
        take_registers<112>();
        end_tiles<T, O, S, HOW>(g, r, room);
    }
    if (g.split > 1 && !multiplies) cluster_wait();
    if (cluster) cluster_meet();                   /* nobody leaves while its shared memory is written or read */
#endif
}

/* ---- launching ---- */

template <typename T, typename O, int HOW>
cudaError_t launch_int8_90_tiles(const rv_int8 *q, const rv_int8_many *room, args8 g, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const rv_int8_cut c = q->cut;
    using S = tiling8;
    const int32_t stack = c.rows / S::BM, cluster = c.share * stack * c.split;
    CUtensorMap map_x, map_w, map_o;
    cudaError_t e = describe_boxes(&map_x, RV_I8, room->codes, p->x.rows, q->pitch, q->pitch, S::BM / c.share, LINE);
    if (!e) e = describe_boxes(&map_w, RV_I8, p->w, p->rows, q->pitch, q->pitch, S::BN / stack, LINE);
    if (!e) e = describe_boxes(&map_o, p->act, room->outliers, p->x.rows, q->pitch, q->pitch, 64, LINE);
    if (e) return e;
    g.share = c.share;
    g.stack = stack;
    g.split = c.split;
    g.a.tiles_m = parts(p->x.rows, c.rows);
    g.a.tiles_n = parts(p->rows, S::BN * c.share);
    int32_t blocks = g.a.tiles_m * g.a.tiles_n * cluster, most = rv_cuda_int8_blocks(p->multiprocessors, cluster);
    if (blocks > most) blocks = most;
    return launch_cluster(int8_90_kernel<T, O, S, HOW>, (unsigned)blocks, (unsigned)cluster, THREADS8, shared_bytes8<T>(), overlap, stream, map_x, map_w, map_o, g);
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
