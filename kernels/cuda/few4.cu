/* few4.cu - products with 1 to 64 rows and weights of 4 bits.
 *
 * The one idea: few.cu's, with records instead of rows: a warp has every eighth record of a tile, the next one on its way
 * to registers while few4.cuh makes operands of the last.  Instructions bound it, and how long each takes: so records are not copied
 * in registers, and what a lane owns needs no exchange.  Each fourth of a block's pieces of 8 columns has sums of its own until the tile's end:
 * so stream4_90.cu has them.
 */
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/few4.cuh"

struct args4 { args a; rv_four q; };

/* Where a block's shared memory has what: from the table on. */
enum { SUMS_AT = PAIR_TABLE + MAPS_BYTES, QUEUE_AT = SUMS_AT + 2 * (int)sizeof(sums_room<1>),
       MORE_AT = (QUEUE_AT + (int)sizeof(tile_queue) + GAP - 1) / GAP * GAP };

/* ---- a warp's records, on their way ---- */

/* The next record comes into the registers of one that is worked on, as halves of it are done: there are enough warps. */
struct record_stream {
    const args4 &g;
    const tile_queue &tiles;
    const int32_t warp;
    int32_t tile, step, count;           /* of the next record; count: its tiles so far         */
    bool more;                           /* there is one                                         */
    const char *next;
    lane_rows rows;
    lane_absmax absmax;
    lane_codes codes;
    uint64_t policy;

    __device__ __forceinline__ record_stream(const args4 &args, const tile_queue &queue, int32_t warp)
        : g(args), tiles(queue), warp(warp), tile((int32_t)blockIdx.x), step(warp), count(0),
          more(warp < args.q.steps && tile < args.a.tiles), next(record_of(args.q, tile, warp)), policy(read_once()) {}

    __device__ __forceinline__ void fetch(int32_t half) {
        if (more) codes.load(next, half, policy);
    }
    __device__ __forceinline__ void fetch_absmax() {
        if (more) absmax.load(g.q, rows, next, step);
    }
    /* To the record after the next one.  A tile is looked up when it is needed, in the last step of the one that is worked on. */
    __device__ __forceinline__ void advance(const float *maps) {
        next += WARPS * g.q.record;
        step += WARPS;
        if (step < g.q.steps) return;
        step = warp;
        tile = g.a.turn ? tiles.of[++count % 4] : tile + (int32_t)gridDim.x;
        more = more && tile < g.a.tiles;
        if (!more) return;
        next = record_of(g.q, tile, warp);
        rows.look_up(g.q, maps, tile);
    }
};

/* ---- the kernel ---- */

/* Blocks a multiprocessor: sums of many rows need all registers. */
static constexpr int together(int n8) { return n8 <= 2 ? 2 : 1; }

/* N8: groups of 8 activation rows.  SHARED: x is normed or copied into shared memory first; else it is arranged (four.h). */
template <typename T, typename O, int HOW, int N8, bool SHARED>
static __global__ void __launch_bounds__(THREADS, together(N8)) few4_kernel(const __grid_constant__ args4 of) {
    enum { AHEAD = N8 <= 2 };            /* activations are loaded before the eight weights that go before theirs are decoded */
    extern __shared__ uint4 memory[];
    let_next_start();
    const args &a = of.a;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    char *table = (char *)memory;
    float *maps = (float *)(table + PAIR_TABLE);
    sums_room<1> *sums = (sums_room<1> *)(table + SUMS_AT);
    tile_queue &tiles = *(tile_queue *)(table + QUEUE_AT);
    record_stream w(of, tiles, warp);
    w.fetch(0);
    w.fetch(1);
    int32_t taken = 0;
    if (tiles.takes()) {
        tiles.of[0] = (int32_t)blockIdx.x;
        tiles.of[1] = tiles.take(a, 1);
    }
    check_table(table);
    fill_pairs(table, head_of(of.q).map);
    fill_maps(maps, of.q);

    if (!SHARED) {
        wait_for_previous();
        __syncthreads();
    } else if (a.norm) norm_rows<T>(a, gap_rows<T>{ table, 0, MORE_AT }, &sums->of[0][0][0]);
    else share_rows<T>(a, gap_rows<uint4>{ table, 0, MORE_AT });
    if (tiles.takes()) taken = tiles.take(a, 2);       /* not while waiting: whoever comes in first would hoard tiles */

    const char *far_x = (const char *)a.x + (g * a.x_ld + t * 8) * 2;
    uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8;
    asm volatile("" : "+r"(copy)::"memory");           /* no entry is read before the table is filled */
    uint4 x[AHEAD + 1][N8] = {};
    auto load_x = [&](uint4 (&x)[N8], int32_t n, int32_t step, uint32_t near, int32_t u) {
#pragma unroll
        for (int32_t j = 0; j < N8; j++)
            if (j * 8 + g < n)
                x[j] = *(const uint4 *)(SHARED ? table + (near ^ u * 16) : far_x + (j * 8 * a.x_ld + step * RV_FOUR_COLS + u * 32) * 2);
    };
    int32_t turn = 0;
    w.rows.look_up(of.q, maps, w.tile);
    w.fetch_absmax();
    for (int32_t i = 0, tile = (int32_t)blockIdx.x; tile < a.tiles; tile = tiles.of[++i % 4]) {
        float acc[4][N8][4] = {}, sum[N8][1][4];
#pragma unroll 1
        for (int32_t step = warp; step < of.q.steps; step += WARPS) {
            float absmax[2];
            const int32_t in_gap = g * of.q.blocks + step * RV_FOUR_BLOCKS + t;
            const uint32_t near = (uint32_t)(gap_of(in_gap, MORE_AT) + gap_column(in_gap));
            const int32_t n = !SHARED || w.absmax.inside ? a.n : 0;      /* outside weights are zero: any x will do, but no NaN */
            if (AHEAD) load_x(x[0], n, step, near, 0);
            w.absmax.take(absmax, of.q, w.rows);
            w.advance(maps);
            w.fetch_absmax();
#pragma unroll
            for (int32_t u = 0; u < 8; u++) {
                if (!AHEAD) load_x(x[0], n, step, near, u);
                else if (u < 7) load_x(x[(u + 1) % 2 * AHEAD], n, step, near, u + 1);
                uint32_t p[4], v[4];
                decode8<T>(p, table, copy, w.codes.word(0, u), absmax[0]);
                decode8<T>(v, table, copy, w.codes.word(1, u), absmax[1]);
                if (u % 4 == 3) w.fetch(u / 4);
#pragma unroll
                for (int32_t j = 0; j < N8; j++) {
                    const uint4 &of_x = x[u % 2 * AHEAD][j];
                    mma(acc[u % 4][j], p[0], v[0], p[1], v[1], of_x.x, of_x.y, T());
                    mma(acc[u % 4][j], p[2], v[2], p[3], v[3], of_x.z, of_x.w, T());
                }
            }
        }
        if (tiles.takes()) tiles.of[(i + 2) % 4] = taken;
#pragma unroll
        for (int32_t j = 0; j < N8; j++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) sum[j][0][e] = acc[0][j][e] + acc[1][j][e] + (acc[2][j][e] + acc[3][j][e]);
#pragma unroll
        for (int32_t j = 0; j < N8; j++, turn ^= 1)
            if (j * 8 < a.n) finish_tile<T, O, HOW, 1>(a, sums[turn], sum[j], tile, j * 8);
        if (N8 > 2 && (a.n + 7) / 8 % 2) __syncthreads();     /* the next tile begins with the room that this one ended with */
        if (tiles.takes()) taken = tiles.take(a, i + 3);
    }
    tiles.done(a);
}

/* ---- 17 to 64 rows: two tiles at a time ---- */

/* Every record is multiplied with all rows of x, which are up to 16 times its bytes and do not stay on the multiprocessor: they bound the kernel above.  So half the
 * warps have a tile each, and what two of them need of x comes once, through a ring.  A warp makes two of the tile's eight sums, one after the other, each as above: same bits. */
enum { PAIR = 2, APART = WARPS / PAIR, RING = 4 };
template <int N8> struct pair_room {
    sums_room<1> sums[PAIR][N8];
    uint4 x[APART][RING][N8 * 8][4];     /* 32 columns of all rows                                */
};
enum { PAIR_QUEUE_AT = SUMS_AT, PAIR_ROOM_AT = (PAIR_QUEUE_AT + (int)sizeof(tile_queue) + 127) / 128 * 128 };

/* A warp's records: of the steps that leave its number, then of those that leave APART more; then of the next pair's tile. */
struct pair_stream {
    const args4 &g;
    const tile_queue &pairs;
    const int32_t first, mine, tiles;
    int32_t pair, sum, step, count;      /* of the next record                                   */
    bool more;
    const char *next;
    lane_rows rows;
    lane_absmax absmax;
    lane_codes codes;
    uint64_t policy;

    __device__ __forceinline__ pair_stream(const args4 &args, const tile_queue &queue, int32_t first, int32_t mine)
        : g(args), pairs(queue), first(first), mine(mine), tiles((args.a.rows + TILE - 1) / TILE), pair((int32_t)blockIdx.x), sum(0), step(first), count(0),
          more(first < args.q.steps && pair < args.a.tiles), next(record_of(args.q, tile(), first)), policy(read_once()) {}
    /* The last pair may lack its second tile: then both have the same. */
    __device__ __forceinline__ int32_t tile() const { return min(pair * PAIR + mine, tiles - 1); }
    __device__ __forceinline__ void fetch(int32_t half) {
        if (more) codes.load(next, half, policy);
    }
    __device__ __forceinline__ void fetch_absmax() {
        if (more) absmax.load(g.q, rows, next, step);
    }
    __device__ __forceinline__ void advance(const float *maps) {
        next += WARPS * g.q.record;
        step += WARPS;
        if (step < g.q.steps) return;
        step = first + ++sum * APART;
        if (sum == PAIR || step >= g.q.steps) {
            sum = 0;
            step = first;
            pair = g.a.turn ? pairs.of[++count % 4] : pair + (int32_t)gridDim.x;
            more = more && pair < g.a.tiles;
            if (!more) return;
            rows.look_up(g.q, maps, tile());
        }
        next = record_of(g.q, tile(), step);
    }
};

/* What the two warps of the same steps need of x, in the order in which they need it, over and over; each brings half of it. */
template <int N8> struct pair_ring {
    const char *from;                    /* this lane's first 16 bytes, of step 0                */
    uint32_t to;
    int32_t row, n, steps, pitch;        /* pitch: bytes of 8 rows                               */
    int32_t first, sum, step, u, at;     /* of what is asked for next                            */

    __device__ __forceinline__ void ask() {
        if (first < steps) {
            const char *piece = from + (step * RV_FOUR_COLS + u * 32) * 2;
#pragma unroll
            for (int32_t k = 0; k < N8 / PAIR; k++) {
                const bool valid = row + k * 8 < n;
                copy16(to + (uint32_t)((at * N8 + k) * 512), valid ? piece + k * pitch : piece - row * (pitch / 8), valid);
            }
            at = (at + 1) % RING;
            if (++u == 8) {
                u = 0;
                step += WARPS;
                if (step >= steps) {
                    step = first + ++sum * APART;
                    if (sum == PAIR || step >= steps) sum = 0, step = first;
                }
            }
        }
        copies_commit();
    }
    /* The next 32 columns are there, for both; and both are done with those before. */
    __device__ __forceinline__ void wait() const {
        copies_wait<RING - 2>();
        asm volatile(RV_BAR ".sync %0, %1;" ::"r"(first + 2), "n"(32 * PAIR) : "memory");
    }
};

template <typename T, typename O, int HOW, int N8> static __device__ __forceinline__ void finish_pair(const args &a, const pair_room<N8> &room, int32_t pair) {
    constexpr bool gates = HOW == rv_few::RV_FEW_SWIGLU;
    constexpr int32_t outputs = gates ? TILE / 2 : TILE;
    const int32_t i = (int32_t)threadIdx.x % (outputs * 8), in_tile = i % outputs, n = i / outputs;
#pragma unroll
    for (int32_t c = 0; c < PAIR * N8; c += THREADS / (outputs * 8)) {
        const int32_t k = c + (int32_t)threadIdx.x / (outputs * 8), j = k % N8, row = (pair * PAIR + k / N8) * TILE + in_tile;
        if (j * 8 + n >= a.n || row >= a.rows) continue;
        const float old = HOW == rv_few::RV_FEW_ADD ? __ldcg((const float *)a.out + (j * 8 + n) * a.out_ld + row) : 0.f;
        const sums_room<1> &sums = room.sums[k / N8][j];
        finish_one<T, O, HOW>(a, row, j * 8 + n, sums.sum(in_tile, n), gates ? sums.sum(in_tile + RV_CUDA_GATE_BLOCK, n) : 0.f, old);
    }
}

/* x is arranged (four.h); a.tiles counts pairs. */
template <typename T, typename O, int HOW, int N8> static __global__ void __launch_bounds__(THREADS, 1) few4_pair_kernel(const __grid_constant__ args4 of) {
    extern __shared__ uint4 memory[];
    let_next_start();
    const args &a = of.a;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4, first = warp % APART, mine = warp / APART;
    char *table = (char *)memory;
    float *maps = (float *)(table + PAIR_TABLE);
    tile_queue &pairs = *(tile_queue *)(table + PAIR_QUEUE_AT);
    pair_room<N8> &room = *(pair_room<N8> *)(table + PAIR_ROOM_AT);
    pair_stream w(of, pairs, first, mine);
    w.fetch(0);
    w.fetch(1);
    int32_t taken = 0;
    if (pairs.takes()) {
        pairs.of[0] = (int32_t)blockIdx.x;
        pairs.of[1] = pairs.take(a, 1);
    }
    check_table(table);
    fill_pairs(table, head_of(of.q).map);
    fill_maps(maps, of.q);
    wait_for_previous();
    __syncthreads();
    if (pairs.takes()) taken = pairs.take(a, 2);

    const int32_t x_row = mine * N8 / PAIR * 8 + g;
    pair_ring<N8> ring = { (const char *)a.x + (x_row * a.x_ld + t * 8) * 2, shared_address(&room.x[first][0][x_row][t]), x_row, a.n, of.q.steps, (int32_t)a.x_ld * 16,
                           first, 0, first, 0, 0 };
#pragma unroll
    for (int32_t i = 0; i + 1 < RING; i++) ring.ask();
    uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8;
    asm volatile("" : "+r"(copy)::"memory");           /* no entry is read before the table is filled */
    w.rows.look_up(of.q, maps, w.tile());
    w.fetch_absmax();
    static_assert(8 % RING == 0, "a record begins where the ring does");
    for (int32_t i = 0, pair = (int32_t)blockIdx.x; pair < a.tiles; pair = pairs.of[++i % 4]) {
#pragma unroll 1
        for (int32_t s = 0; s < PAIR; s++) {
            float acc[4][N8][4] = {};
#pragma unroll 1
            for (int32_t step = first + s * APART; step < of.q.steps; step += WARPS) {
                float absmax[2];
                uint32_t p[2][4], v[2][4];             /* weights are decoded while those before them are multiplied */
                w.absmax.take(absmax, of.q, w.rows);
                w.advance(maps);
                w.fetch_absmax();
                decode8<T>(p[0], table, copy, w.codes.word(0, 0), absmax[0]);
                decode8<T>(v[0], table, copy, w.codes.word(1, 0), absmax[1]);
#pragma unroll
                for (int32_t u = 0; u < 8; u++) {
                    const int32_t now = u % 2, next = 1 - now;
                    uint4 x[N8];
                    ring.wait();
#pragma unroll
                    for (int32_t j = 0; j < N8; j++) x[j] = room.x[first][u % RING][j * 8 + g][t];
                    ring.ask();
                    if (u < 7) {
                        decode8<T>(p[next], table, copy, w.codes.word(0, u + 1), absmax[0]);
                        decode8<T>(v[next], table, copy, w.codes.word(1, u + 1), absmax[1]);
                        if (u % 4 == 2) w.fetch(u / 4);
                    }
#pragma unroll
                    for (int32_t j = 0; j < N8; j++) mma(acc[u % 4][j], p[now][0], v[now][0], p[now][1], v[now][1], x[j].x, x[j].y, T());
#pragma unroll
                    for (int32_t j = 0; j < N8; j++) mma(acc[u % 4][j], p[now][2], v[now][2], p[now][3], v[now][3], x[j].z, x[j].w, T());
                }
            }
#pragma unroll
            for (int32_t j = 0; j < N8; j++)
#pragma unroll
                for (int32_t h = 0; h < 2; h++) {
                    const int32_t at = h * 8 + g;
                    float *to = &room.sums[mine][j].of[first + s * APART][at][sums_room<1>::pair(at, t)];
                    *(float2 *)to = make_float2(acc[0][j][h * 2] + acc[1][j][h * 2] + (acc[2][j][h * 2] + acc[3][j][h * 2]),
                                                acc[0][j][h * 2 + 1] + acc[1][j][h * 2 + 1] + (acc[2][j][h * 2 + 1] + acc[3][j][h * 2 + 1]));
                }
        }
        if (pairs.takes()) pairs.of[(i + 2) % 4] = taken;
        __syncthreads();
        finish_pair<T, O, HOW, N8>(a, room, pair);
        __syncthreads();
        if (pairs.takes()) taken = pairs.take(a, i + 3);
    }
    copies_wait<0>();
    pairs.done(a);
}

/* ---- launching ---- */

template <typename T, typename O, int HOW, int N8, bool SHARED>
static cudaError_t launch(args4 of, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = few4_kernel<T, O, HOW, N8, SHARED>;
    args &a = of.a;
    const int32_t in_shared = SHARED ? a.n * of.q.blocks : 0, bytes = MORE_AT + (in_shared > GAPS ? (in_shared - GAPS) * GAP : 0);
    const int32_t blocks = together(N8) * multiprocessors;
    a.tiles = (a.rows + TILE - 1) / TILE;
    if (a.tiles <= blocks) a.turn = NULL;
    cudaError_t e = allow_all(kernel);
    dim3 grid((unsigned)(a.tiles < blocks ? a.tiles : blocks));
    return e ? e : launch_kernel(kernel, grid, THREADS, (size_t)bytes, overlap, stream, of);
}

/* Rows that are not brought into shared memory come arranged. */
template <typename T, typename O, int HOW, int N8> static cudaError_t launch_arranged(args4 of, const rv_few *p, void *room, bool overlap, cudaStream_t stream) {
    cudaError_t e = rv_cuda_four_arrange(&of.q, p->x, room, RV_FOUR_BY_EIGHT, p->multiprocessors, overlap, stream);
    of.a.x = room;
    of.a.x_ld = (int64_t)of.q.steps * RV_FOUR_COLS;
    return e ? e : launch<T, O, HOW, N8, false>(of, p->multiprocessors, overlap, stream);
}

/* Blocks of 64 columns that find room in shared memory, in gaps and, where two blocks share a multiprocessor, beyond. */
static cudaError_t shared_blocks(int32_t *blocks) {
    int32_t bytes = 0;
    cudaError_t e = room_of(true, &bytes);
    *blocks = GAPS + (bytes > MORE_AT ? (bytes - MORE_AT) / GAP : 0);
    return e;
}

/* Two tiles at a time, where a block can have so much shared memory. */
template <typename T, typename O, int HOW, int N8> static cudaError_t launch_pairs(args4 of, const rv_few *p, void *room, bool overlap, cudaStream_t stream) {
    auto kernel = few4_pair_kernel<T, O, HOW, N8>;
    const int32_t bytes = PAIR_ROOM_AT + (int32_t)sizeof(pair_room<N8>);
    int32_t most = 0;
    cudaError_t e = room_of(false, &most);
    if (!e && bytes > most) return launch_arranged<T, O, HOW, N8>(of, p, room, overlap, stream);
    if (!e) e = rv_cuda_four_arrange(&of.q, p->x, room, RV_FOUR_BY_EIGHT, p->multiprocessors, overlap, stream);
    if (!e) e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    args &a = of.a;
    a.x = room;
    a.x_ld = (int64_t)of.q.steps * RV_FOUR_COLS;
    a.tiles = ((a.rows + TILE - 1) / TILE + PAIR - 1) / PAIR;
    if (a.tiles <= p->multiprocessors) a.turn = NULL;
    return e ? e : launch_kernel(kernel, dim3((unsigned)(a.tiles < p->multiprocessors ? a.tiles : p->multiprocessors)), THREADS, (size_t)bytes, overlap, stream, of);
}

template <typename T, typename O, int HOW> static cudaError_t launch_rows(const rv_few *p, const args4 &of, void *room, bool overlap, cudaStream_t stream) {
    const int32_t n = of.a.n;
    int32_t room_for = 0;
    cudaError_t e = shared_blocks(&room_for);
    if (e) return e;
    if (of.a.norm || (n <= 8 && n * of.q.blocks <= room_for)) return launch<T, O, HOW, 1, true>(of, p->multiprocessors, overlap, stream);
    if (n <= 8) return launch_arranged<T, O, HOW, 1>(of, p, room, overlap, stream);
    if (n <= 16) return launch_arranged<T, O, HOW, 2>(of, p, room, overlap, stream);
    if (n <= 32) return launch_pairs<T, O, HOW, 4>(of, p, room, overlap, stream);
    return launch_pairs<T, O, HOW, 8>(of, p, room, overlap, stream);
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args4 &of, void *room, bool overlap, cudaStream_t stream) {
    return by_results<T>(p, [&](auto kind) { return launch_rows<T, typename decltype(kind)::O, decltype(kind)::HOW>(p, of, room, overlap, stream); });
}

cudaError_t rv_cuda_few4(const rv_few *p, const rv_four *q, void *room, bool overlap, cudaStream_t stream) {
    args4 of = { { p->x.data, NULL, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, p->turn },
                 *q };
    if (p->norm && (p->x.rows > RV_CUDA_NORM_ROWS || p->cols > RV_CUDA_NORM_MOST)) return cudaErrorInvalidValue;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, of, room, overlap, stream) : launch_how<__half>(p, of, room, overlap, stream);
}

RV_CUDA_CLAMPED(few4)
