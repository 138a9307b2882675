/* four90.cu - products with many rows and weights of 4 bits on Hopper: out = epilogue(x W^T).
 *
 * The one idea: weights become operands in registers, and x comes through a ring in shared memory, its columns arranged as lanes own
 * them.  A warpgroup has 64 rows of W and up to 256 of x; while tensor cores work on 64 columns it decodes the next ones, from
 * registers: shared memory is as busy as they are.  Where there are too few tiles, the blocks of a cluster split the columns, and add up their
 * sums in order through each other's shared memory; else they share x.
 */
#include "kernels/cuda/few4.cuh"
#include "kernels/cuda/gemm90.cuh"

enum { GROUPS = 2, MULTIPLYING = GROUPS * GROUP, TILE_ROWS = GROUPS * 64, STAGE_COLS = LINE / 2, STAGES_A_RECORD = RV_FOUR_COLS / STAGE_COLS,
       MOST_STAGES = 8, MOST_SPLITS = 3, BATCH = 64 /* rows of x whose sums are in shared memory at a time */,
       SUMS_BYTES = BATCH * TILE_ROWS * (int)sizeof(float), ALL_BYTES = 227 * 1024 };

/* N: rows of x a tile.  Without splits sums have a room of their own, since the next tile's x is on its way; with splits, all of the ring. */
template <int N_> struct shape {
    static constexpr int N = N_, STAGE_BYTES = N * LINE, FIXED = SUMS_BYTES + 2048 + MAPS_BYTES, FIT = (ALL_BYTES - FIXED) / STAGE_BYTES;
    static constexpr int STAGES = FIT < MOST_STAGES ? FIT : MOST_STAGES, SHARED_BYTES = FIXED + STAGES * STAGE_BYTES;
    static_assert(STAGES >= 4 && STAGES * STAGE_BYTES >= N * TILE_ROWS * (int)sizeof(float), "no room for a ring");
};

/* share: blocks of a cluster that have neighbouring tiles and share x; splits: that split the columns.  One of them is 1. */
struct args4 {
    args a;                              /* rows, cols of out; tiles_n: of W, clusters' where they share; tiles_m: of x  */
    rv_four q;
    int32_t share, splits;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- which work ---- */

struct unit { int32_t tile, m, from, to; };      /* tile of W; first row of x; records */

static __device__ __forceinline__ unit unit_of(const args4 &g, int32_t i, int32_t n, uint32_t rank) {
    const int32_t split = g.splits > 1 ? (int32_t)rank : 0;
    return { i % g.a.tiles_n * g.share + (g.share > 1 ? (int32_t)rank : 0), i / g.a.tiles_n * n,
             g.q.steps * split / g.splits, g.q.steps * (split + 1) / g.splits };
}

/* ---- x on its way ---- */

template <class S> struct ring4 {
    uint8_t *data;
    uint64_t *full, *empty;
    int32_t stage;
    uint32_t parity;
    __device__ __forceinline__ uint8_t *here() const { return data + stage * S::STAGE_BYTES; }
    __device__ __forceinline__ void next() {
        if (++stage == S::STAGES) stage = 0, parity ^= 1;
    }
};

template <class S> static __device__ __forceinline__ void produce(const args4 &g, ring4<S> &r, const CUtensorMap *map, const unit &u, uint32_t rank) {
    for (int32_t step = u.from * STAGES_A_RECORD; step < u.to * STAGES_A_RECORD; step++, r.next()) {
        barrier_wait(&r.empty[r.stage], r.parity ^ 1);
        barrier_expect(&r.full[r.stage], S::STAGE_BYTES);
        if (g.share == 1) copy_box(r.here(), map, step * STAGE_COLS, u.m, &r.full[r.stage]);
        else copy_box_to_all(r.here() + rank * (S::STAGE_BYTES / 2), map, step * STAGE_COLS, u.m + (int32_t)rank * (S::N / 2), &r.full[r.stage], 3);
    }
}

/* ---- products ---- */

/* A warp's rows of W, a record ahead. */
template <typename T, bool HOLD> struct warp_weights {
    const rv_four &q;
    const float4 *const map;
    const char *next;
    int32_t step;
    const int32_t to;
    lane_rows rows;
    lane_absmax absmax;
    lane_codes codes;
    products16 of[2];
    uint64_t policy;

    __device__ __forceinline__ warp_weights(const rv_four &weights, const float *maps, int32_t tile, int32_t from, int32_t end)
        : q(weights), map((const float4 *)(maps + MAP_CODES)), next(record_of(weights, tile, from)), step(from), to(end) {
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        rows.look_up(q, maps, tile);
        fetch(0);
        fetch(1);
        fetch_absmax();
    }
    __device__ __forceinline__ void fetch(int32_t half) {
        if (step < to) codes.load(next, half, policy);
    }
    __device__ __forceinline__ void fetch_absmax() {
        if (step < to) absmax.load(q, rows, next, step);
    }
    /* The products of the record that has come; the next one may be fetched. */
    __device__ __forceinline__ void begin() {
        float by[2];
        absmax.take(by, q, rows);
        of[0].make(map, by[0], T());
        of[1].make(map, by[1], T());
        next += q.record;
        step++;
        fetch_absmax();
    }
    /* Its words from `first` on, of both rows, as operands of two products each. */
    template <int PRODUCTS> __device__ __forceinline__ void decode(uint32_t (&operands)[PRODUCTS][4], int32_t first) {
#pragma unroll
        for (int32_t i = 0; i < PRODUCTS; i += 2) {
            const int32_t u = first + i / 2;
            uint32_t w[4], v[4];
            of[0].decode8(w, codes.word(0, u));
            of[1].decode8(v, codes.word(1, u));
#pragma unroll
            for (int32_t j = 0; j < 2; j++) {
                uint32_t(&a)[4] = operands[i + j];
                a[0] = w[j * 2], a[1] = v[j * 2], a[2] = w[j * 2 + 1], a[3] = v[j * 2 + 1];
                if (HOLD) hold(a);       /* before products are waited for; where sums leave few registers, as the compiler likes */
            }
            if (u % 4 == 3) fetch(u / 4);
        }
    }
};

template <typename T, class S>
static __device__ __forceinline__ void multiply(float (&acc)[S::N / 2], const args4 &g, ring4<S> &r, const float *maps, const unit &u) {
    const int32_t lane = (int32_t)threadIdx.x % 32, tiles = (g.q.rows + RV_FOUR_ROWS - 1) / RV_FOUR_ROWS;
    const int32_t mine = u.tile * (TILE_ROWS / RV_FOUR_ROWS) + (int32_t)threadIdx.x / 32;
    warp_weights<T, S::N <= 208> w(g.q, maps, mine < tiles ? mine : tiles - 1, u.from, u.to);
    uint32_t a[2][4][4];
    w.begin();
    w.decode(a[0], 0);
#pragma unroll
    for (int32_t i = 0; i < S::N / 2; i++) acc[i] = 0;
#pragma unroll 1
    for (int32_t step = u.from; step < u.to; step++)
#pragma unroll
        for (int32_t s = 0; s < STAGES_A_RECORD; s++) {
            barrier_wait(&r.full[r.stage], r.parity);
            const uint64_t x = operand(r.here());
            product_begin();
#pragma unroll
            for (int32_t j = 0; j < 4; j++) product_held(acc, a[s % 2][j], x + (uint64_t)(j * 2), T());
            product_commit();
            if (s + 1 < STAGES_A_RECORD) w.decode(a[(s + 1) % 2], (s + 1) * 2);
            else if (step + 1 < u.to) {
                w.begin();
                w.decode(a[0], 0);
            }
            product_wait<0>();
#pragma unroll
            for (int32_t j = 0; j < 4; j++) hold(a[s % 2][j]);          /* operands are the products' until here */
            if (lane < g.share) barrier_arrive_at(&r.empty[r.stage], g.share > 1 ? (uint32_t)lane : cluster_rank());
            r.next();
        }
    pin(acc);
}

/* ---- sums ---- */

/* Where 8 neighbouring rows of W (number `eight` of the tile) lie for row n of `all`: 32 bytes. */
static __device__ __forceinline__ uint32_t sums_at(int32_t eight, int32_t n, int32_t all) {
    return (uint32_t)(((eight / 8 * all + n) * 8 + (eight % 8 ^ (n / 2 & 3))) * 32);
}

static __device__ __forceinline__ float4 load_at(uint32_t address, uint32_t rank) {
    float4 v;
    asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %4, %5; ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address), "r"(rank) : "memory");
    return v;
}

/* 8 outputs of row from + row of the tile, from `sums` of this block, or of all that split, TOGETHER of them asked at once. */
template <typename O, int STRIDE, int HOW, int TOGETHER>
static __device__ __forceinline__ void finish_piece(const args4 &g, const unit &u, uint32_t sums, int32_t eight, int32_t from, int32_t row, uint32_t rank) {
    const place at = { u.m + from + row, u.tile * TILE_ROWS + eight * 8, u.m + from + row < g.a.rows && u.tile * TILE_ROWS + eight * 8 < g.a.cols };
    const uint32_t piece = sums + sums_at(eight, row, STRIDE);
    float v[8] = {}, old[8] = {};
    if (!at.inside) return;
    if (HOW == rv_few::RV_FEW_ADD) {
        const float4 *was = (const float4 *)((const float *)g.a.out + at.row * g.a.out_ld + at.col);
        const float4 a = was[0], b = was[1];
        old[0] = a.x, old[1] = a.y, old[2] = a.z, old[3] = a.w, old[4] = b.x, old[5] = b.y, old[6] = b.z, old[7] = b.w;
    }
    for (int32_t s = 0; s < g.splits; s += TOGETHER) {
        float4 lo[TOGETHER], hi[TOGETHER];
#pragma unroll
        for (int32_t k = 0; k < TOGETHER; k++)
            if (s + k < g.splits) {
                const uint32_t there = g.splits > 1 ? (uint32_t)(s + k) : rank;
                lo[k] = load_at(piece, there);
                hi[k] = load_at(piece + 16, there);
            }
#pragma unroll
        for (int32_t k = 0; k < TOGETHER; k++)
            if (s + k < g.splits) {
                v[0] += lo[k].x, v[1] += lo[k].y, v[2] += lo[k].z, v[3] += lo[k].w;
                v[4] += hi[k].x, v[5] += hi[k].y, v[6] += hi[k].z, v[7] += hi[k].w;
            }
    }
    finish<O, HOW>(g.a, at, v, old);
}

/* N rows' sums, from acc[from / 2] on, to `sums`. */
template <int N, int STRIDE, int ALL> static __device__ __forceinline__ void lay_down(const float (&acc)[ALL], uint8_t *sums, int32_t from) {
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t c = 0; c < N; c += 8)
#pragma unroll
        for (int32_t k = 0; k < 4; k++) *(float *)(sums + sums_at(warp * 2 + k / 2, c + lane % 4 * 2 + k % 2, STRIDE) + lane / 4 * 4) = acc[(from + c) / 2 + k];
}

template <typename O, class S, int HOW, int FROM = 0>
static __device__ __forceinline__ void finish_whole(const args4 &g, const float (&acc)[S::N / 2], uint8_t *sums, const unit &u, uint32_t rank) {
    constexpr int N = S::N - FROM < BATCH ? S::N - FROM : BATCH;
    const int32_t i = (int32_t)threadIdx.x, group = i / GROUP;
    lay_down<N, BATCH>(acc, sums, FROM);      /* warpgroups go on by themselves: each keeps to its half */
    group_sync(1 + group, GROUP);
#pragma unroll 1
    for (int32_t p = i % GROUP; p < N * 8; p += GROUP) finish_piece<O, BATCH, HOW, 1>(g, u, shared_address(sums), group * 8 + p % 8, FROM, p / 8, rank);
    group_sync(1 + group, GROUP);
    if constexpr (FROM + BATCH < S::N) finish_whole<O, S, HOW, FROM + BATCH>(g, acc, sums, u, rank);
}

/* Blocks share out the pieces of the tile that they have split. */
template <typename O, class S, int HOW>
static __device__ __forceinline__ void finish_split(const args4 &g, const float (&acc)[S::N / 2], uint8_t *ring, const unit &u, uint32_t rank) {
    group_sync(1, MULTIPLYING);          /* nobody reads x any more                              */
    lay_down<S::N, S::N>(acc, ring, 0);
    cluster_meet();
#pragma unroll 1
    for (int32_t p = (int32_t)threadIdx.x * g.splits + (int32_t)rank; p < S::N * 16; p += MULTIPLYING * g.splits)
        finish_piece<O, S::N, HOW, S::N <= 208 ? MOST_SPLITS : 1>(g, u, shared_address(ring), p % 16, 0, p / 16, rank);
    make_visible_to_products();          /* the next x comes to where sums lay                   */
    cluster_meet();
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS, 1) four90_kernel(const __grid_constant__ CUtensorMap map_x, const __grid_constant__ args4 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    __shared__ alignas(8) uint64_t full[S::STAGES], empty[S::STAGES];
    uint8_t *const data = memory + (1024 - shared_address(memory) % 1024) % 1024, *const sums = data + S::STAGES * S::STAGE_BYTES;
    float *const maps = (float *)(sums + SUMS_BYTES);
    ring4<S> r = { data, full, empty, 0, 0 };
    const uint32_t rank = cluster_rank();
    const int32_t units = g.a.tiles_n * g.a.tiles_m, cluster = g.share * g.splits, begin = (int32_t)blockIdx.x / cluster, apart = (int32_t)gridDim.x / cluster;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) barrier_open(&full[i], 1), barrier_open(&empty[i], (uint32_t)(MULTIPLYING / 32 * g.share));
        barriers_opened();
    }
    if (threadIdx.x < MULTIPLYING) fill_maps(maps, g.q);
    cluster_meet();
    wait_for_previous();
    if (threadIdx.x < MULTIPLYING) {
        take_registers<240>();
        for (int32_t i = begin; i < units; i += apart) {
            const unit u = unit_of(g, i, S::N, rank);
            float acc[S::N / 2];
            multiply<T, S>(acc, g, r, maps, u);
            if (g.splits > 1) finish_split<O, S, HOW>(g, acc, data, u, rank);
            else finish_whole<O, S, HOW>(g, acc, sums, u, rank);
        }
    } else {
        give_registers<24>();
        for (int32_t i = begin; i < units; i += apart) {
            if (threadIdx.x == MULTIPLYING) produce<S>(g, r, &map_x, unit_of(g, i, S::N, rank), rank);
            __syncwarp();
            if (g.splits > 1) cluster_meet(), cluster_meet();
        }
    }
    cluster_meet();                      /* nobody leaves while its shared memory is written or read */
#endif
}

/* ---- launching ---- */

/* Of clusters of more than two blocks a tenth does not find its place beside the others (measured: of 33 of four 30). */
static int32_t clusters_at_once(int32_t size, int32_t multiprocessors) {
    const int32_t all = multiprocessors / size;
    return size > 2 && all > 9 ? all * 9 / 10 : all;
}

template <typename T, typename O, class S, int HOW>
static cudaError_t launch(const rv_few *p, args4 g, const void *arranged, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    CUtensorMap map;
    const int32_t cols = g.q.steps * RV_FOUR_COLS, cluster = g.share * g.splits, clusters = clusters_at_once(cluster, multiprocessors);
    g.a.tiles_m = parts(p->x.rows, S::N);
    g.a.tiles_n = parts(parts(p->rows, TILE_ROWS), g.share);
    cudaError_t e = describe_boxes(&map, p->act, arranged, p->x.rows, cols, cols, S::N / g.share, LINE);
    if (e) return e;
    const int32_t units = g.a.tiles_m * g.a.tiles_n;
    return launch_cluster(four90_kernel<T, O, S, HOW>, (unsigned)((units < clusters ? units : clusters) * cluster), (unsigned)cluster, THREADS, S::SHARED_BYTES,
                          overlap, stream, map, g);
}

template <typename T, class S>
static cudaError_t launch_how(const rv_few *p, const args4 &g, const void *arranged, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    if (p->how == rv_few::RV_FEW_ADD) return launch<T, float, S, rv_few::RV_FEW_ADD>(p, g, arranged, multiprocessors, overlap, stream);
    if (p->out.type == RV_F32) return launch<T, float, S, rv_few::RV_FEW_STORE>(p, g, arranged, multiprocessors, overlap, stream);
    return launch<T, T, S, rv_few::RV_FEW_STORE>(p, g, arranged, multiprocessors, overlap, stream);
}

/* Into how many parts columns are cut, so that the clusters' rounds take least: in steps of 64 columns, and those that a tile's end is worth. */
static int32_t splits_for(int32_t tiles, int32_t rows_tiles, int32_t steps, int32_t multiprocessors) {
    enum { END = 4, END_SPLIT = 6 };
    int32_t best = 1, least = parts(parts(tiles, 2) * rows_tiles, multiprocessors / 2) * (steps + END);
    for (int32_t splits = 2; splits <= MOST_SPLITS && splits * STAGES_A_RECORD <= steps; splits++) {
        const int32_t took = parts(tiles * rows_tiles, clusters_at_once(splits, multiprocessors)) * (parts(steps, splits) + END_SPLIT);
        if (took < least) least = took, best = splits;
    }
    return best;
}

/* Rows of x a tile: the fewest that are there for nothing. */
static int32_t width_for(int32_t rows) {
    if (rows <= 128) return 128;
    return parts(rows, 208) * 208 < parts(rows, 256) * 256 ? 208 : 256;
}

template <typename T> static cudaError_t launch_any(const rv_few *p, const rv_four *q, const void *arranged, bool overlap, cudaStream_t stream) {
    const int32_t n = width_for(p->x.rows), m = p->multiprocessors;
    args4 g = { { p->out.data, p->bias, p->row_scale, p->out.ld, p->x.rows, p->rows, 0, 0, 0, false, p->scale }, *q, 1, 1 };
    g.splits = splits_for(parts(p->rows, TILE_ROWS), parts(p->x.rows, n), q->steps * STAGES_A_RECORD, m);
    g.share = g.splits == 1 ? 2 : 1;
    if (n == 128) return launch_how<T, shape<128>>(p, g, arranged, m, overlap, stream);
    return n == 208 ? launch_how<T, shape<208>>(p, g, arranged, m, overlap, stream) : launch_how<T, shape<256>>(p, g, arranged, m, overlap, stream);
}

bool rv_cuda_four90_fits(const rv_few *p) {
    const bool f32 = p->out.type == RV_F32;
    return !p->norm && p->rows % 8 == 0 && in_pieces(p->x.data, p->x.ld, 2) && in_pieces(p->out.data, p->out.ld, f32 ? 4 : 2) && (uintptr_t)p->bias % 16 == 0 &&
           p->multiprocessors >= 4 && (p->how == rv_few::RV_FEW_STORE || (p->how == rv_few::RV_FEW_ADD && f32));
}

cudaError_t rv_cuda_four90(const rv_few *p, const rv_four *q, void *room, uint64_t room_bytes, bool overlap, cudaStream_t stream) {
    const int64_t row = (int64_t)q->steps * RV_FOUR_COLS * 2, most = (int64_t)(room_bytes / (uint64_t)row) / 256 * 256;
    cudaError_t e = most ? cudaSuccess : cudaErrorInvalidValue;
    for (int32_t from = 0; from < p->x.rows && !e; from += (int32_t)most) {
        rv_few some = *p;
        const int32_t n = p->x.rows - from < most ? p->x.rows - from : (int32_t)most;
        some.x = rv_rows(p->x, from, n);
        some.out = rv_rows(p->out, from, n);
        if (p->row_scale) some.row_scale = p->row_scale + from;
        e = rv_cuda_four_arrange(q, some.x, room, RV_FOUR_BY_TWO, p->multiprocessors, overlap, stream);
        if (!e) e = p->act == RV_F16 ? launch_any<__half>(&some, q, room, overlap, stream) : launch_any<__nv_bfloat16>(&some, q, room, overlap, stream);
    }
    return e;
}

RV_CUDA_CLAMPED(four90)
