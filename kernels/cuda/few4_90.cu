/* few4_90.cu - products with 3 to 64 rows and weights of 4 bits on Hopper: few4.cu's sums, faster.
 *
 * The one idea: shared memory bounds few4.cu, which reads map values of it for every two weights, and x for every 16 rows of them.  Here a warpgroup's product reads x once for
 * 64 rows of weights, which become operands in registers as there.  Its 16 columns at a time have the bits of few4.cu's products of 16 (seen on every input tried, and checked
 * by the tests), so sums are the same as long as they are added up in the same order: eight for each output, of every eighth step each, then one after the other.
 * few4_90.cuh has the rest: who brings, tells and finishes.
 */
#include "kernels/cuda/few4_90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- products ---- */

template <int N> static __device__ __forceinline__ void hold(uint32_t (&w)[N][4]) {
#pragma unroll
    for (int32_t j = 0; j < N; j++) hold(w[j]);
}

/* Two words of both rows of a record, as operands of four products. */
template <typename T> static __device__ __forceinline__ void decode(uint32_t (&w)[4][4], const char *table, uint32_t copy, const lane_codes &codes, int32_t first, const float (&absmax)[2]) {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
        uint32_t above[4], below[4];
        decode8<T>(above, table, copy, codes.word(0, first + i), absmax[0]);
        decode8<T>(below, table, copy, codes.word(1, first + i), absmax[1]);
#pragma unroll
        for (int32_t j = 0; j < 4; j++) w[i * 2 + j / 2][j % 2 * 2] = above[j], w[i * 2 + j / 2][j % 2 * 2 + 1] = below[j];
    }
    hold(w);
}

struct looked_up : piece_values {
    /* As operands of two products. */
    template <typename T> __device__ __forceinline__ void round(uint32_t (&w)[2][4], const float (&absmax)[2], T) const {
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            w[i / 2][i % 2 * 2] = pack2(__fmul_rn(above[i].x, absmax[0]), __fmul_rn(above[i].y, absmax[0]), T());
            w[i / 2][i % 2 * 2 + 1] = pack2(__fmul_rn(below[i].x, absmax[1]), __fmul_rn(below[i].y, absmax[1]), T());
        }
        hold(w);
    }
};

/* A warpgroup's sums of all of the block's units: `unit` and every `apart`-th behind it. */
template <typename T, class S>
static __device__ __forceinline__ void multiply_units(const args4 &g, char *table, barriers<S> &bars, const told_row *told, uint32_t rank, int32_t unit, int32_t apart) {
    enum { AHEAD = S::GROUPS == 2, PRODUCTS = AHEAD ? 2 : 4 };   /* few warps: map values are asked for while those before them are multiplied */
    const rv_four &q = g.q;
    const int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32 % 4, group = (int32_t)threadIdx.x / GROUP;
    const float *maps = (const float *)(table + S::MAPS_AT);
    const group_steps<S> mine(rank, group, q.steps);
    const int32_t units = (g.a.tiles - unit + apart - 1) / apart;
    const char *const my_records = table + S::CODES_AT + group * S::STAGES * RECORDS + warp * q.record;
    const uint32_t my_x = operand_at(shared_address(table) + (uint32_t)(S::X_AT + group * S::STAGES * S::X_BYTES));
    uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8 + (shared_address(table) - TABLE_AT), room = 0, turn = 0;
    asm volatile("" : "+r"(copy)::"memory");           /* no entry is read before the table is filled */
    stage_of<S> stage(0);
    lane_codes codes;
    looked_up of_two[2];
    lane_row rows[2];
    float absmax[2];
    uint32_t w[2][PRODUCTS][4] = {};
    int32_t block = 0;                   /* of the stage that comes                             */
    /* Its rows are those of the unit that is told of in `room`. */
    auto begin_unit = [&](uint32_t room, uint32_t turn) {
        block = mine.first * RV_FOUR_BLOCKS + lane % 4;
        if (!q.nested) return;
        barrier_wait(&bars.told[room], turn);
#pragma unroll
        for (int32_t h = 0; h < 2; h++) rows[h].take(told[room * ROWS + warp * TILE + h * 8 + lane / 4], maps);
    };
    /* The stage that comes, to registers. */
    auto open = [&](float (&next)[2]) {
        const char *record = my_records + stage.at * RECORDS;
        barrier_wait(&bars.full[group][stage.at], stage.parity);
#pragma unroll
        for (int32_t c = 0; c < 4; c++) codes.piece[c] = *(const uint4 *)(record + c * 512 + lane * 16);
        if (q.nested) {
            const uchar2 code = *(const uchar2 *)(record + RV_FOUR_CODES + lane * 2);
            next[0] = rows[0].absmax(block, code.x), next[1] = rows[1].absmax(block, code.y);
        } else {
            const float2 v = *(const float2 *)(record + RV_FOUR_CODES + lane * 8);
            next[0] = v.x, next[1] = v.y;
        }
        if (block >= q.blocks) next[0] = next[1] = 0;            /* beyond the last block memory holds anything */
        block += WARPS * RV_FOUR_BLOCKS;
    };
    if (mine.all()) {
        begin_unit(0, 0);
        open(absmax);
        if constexpr (AHEAD) of_two[0].ask(codes, copy, 0);
        else decode<T>(w[0], table, copy, codes, 0, absmax);
    }
#pragma unroll 1
    for (int32_t u = 0; u < units; u++, turn ^= room, room ^= 1)
#pragma unroll 1
        for (int32_t k = 0; k < S::EACH; k++) {
            float acc[4][S::N / 2] = {}, sum[S::N / 2];
#pragma unroll 1
            for (int32_t i = mine.of(k); i > 0; i--) {
                const int32_t here = stage.at;
                const uint32_t x = my_x + (uint32_t)(here * (S::X_BYTES / 16));
                bool more = i > 1;
                float next[2] = {};
                stage.next();
                if (!more && k + 1 < S::EACH && mine.of(k + 1)) {
                    more = true;
                    block = (mine.first + k + 1) * RV_FOUR_BLOCKS + lane % 4;
                } else if (!more && u + 1 < units) {
                    more = true;
                    begin_unit(room ^ 1, turn ^ room);
                }
                if constexpr (AHEAD) {
#pragma unroll
                    for (int32_t p = 0; p < 8; p++) {
                        if (p < 7) of_two[(p + 1) % 2].ask(codes, copy, p + 1);
                        else if (more) open(next);
                        of_two[p % 2].round(w[p % 2], absmax, T());
                        product_begin();
#pragma unroll
                        for (int32_t j = 0; j < 2; j++) product_held_at(acc[p % 4], w[p % 2][j], x + (uint32_t)(p / 2 * (S::N * LINE / 16) + p % 2 * 4 + j * 2), T());
                        product_commit();
                        if (p == 7 && more) of_two[0].ask(codes, copy, 0);
                        if (p < 7) product_wait<1>();
                        else product_wait<0>();
                        hold(w[(p + 1) % 2]);        /* operands are the products' until here */
                    }
                    hold(w[1]);
                } else
#pragma unroll
                    for (int32_t s = 0; s < LINES; s++) {
                        product_begin();
#pragma unroll
                        for (int32_t j = 0; j < 4; j++) product_held_at(acc[(s * 2 + j / 2) % 4], w[s % 2][j], x + (uint32_t)(s * (S::N * LINE / 16) + j * 2), T());
                        product_commit();
                        if (s + 1 < LINES) decode<T>(w[(s + 1) % 2], table, copy, codes, (s + 1) * 2, absmax);
                        else if (more) {
                            open(next);
                            decode<T>(w[0], table, copy, codes, 0, next);
                        }
                        product_wait<0>();
                        hold(w[s % 2]);
                    }
                absmax[0] = next[0], absmax[1] = next[1];
                warp_arrive(&bars.empty[group][here]);
            }
#pragma unroll
            for (int32_t e = 0; e < 4; e++) pin(acc[e]);
#pragma unroll
            for (int32_t e = 0; e < S::N / 2; e++) sum[e] = acc[0][e] + acc[1][e] + (acc[2][e] + acc[3][e]);
            barrier_wait(&bars.read[room], turn ^ 1);
            leave<S>(sum, table, bars, room, mine.first + k, rank);
        }
}
#endif

/* ---- the kernel ---- */

/* x is arranged by two (four.h); a.tiles: units of 64 rows. */
template <typename T, typename O, int HOW, class S>
static __global__ void __launch_bounds__(S::BLOCK, 1) few4_90_kernel(const __grid_constant__ maps4 tensors, const __grid_constant__ args4 of) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    let_next_start();
    const args &a = of.a;
    const rv_four &q = of.q;
    const uint32_t rank = cluster_rank();
    const int32_t apart = (int32_t)gridDim.x / CLUSTER;
    int32_t unit = (int32_t)blockIdx.x / CLUSTER;
    char *table = (char *)memory;
    float *maps = (float *)(table + S::MAPS_AT);
    told_row *told = (told_row *)(table + S::TOLD_AT);
    barriers<S> &bars = *(barriers<S> *)(table + S::BARS_AT);
    check_table(table);
    const int32_t warp = (int32_t)threadIdx.x / 32 % 4, group = (int32_t)threadIdx.x / GROUP;
    const bringer<S> b = { tensors, table, bars, TILES * q.record + S::X_BYTES, read_once() };
    if (threadIdx.x == S::MULTIPLYING) {
        for (int32_t i = 0; i < S::GROUPS * S::STAGES; i++) {
            barrier_open(&bars.full[0][0] + i, 1);
            barrier_open(&bars.empty[0][0] + i, 4 * WARP_ARRIVALS);
        }
        for (int32_t i = 0; i < 2; i++) {
            barrier_open(&bars.told[i], WARP_ARRIVALS);
            barrier_open(&bars.landed[i], 1 + WARPS / CLUSTER * 2 * WARP_ARRIVALS);
            barrier_open(&bars.read[i], CLUSTER * FINISHING * WARP_ARRIVALS);
        }
        barriers_opened();
        bring_early(b, rank, q.steps, unit);
    }
    cluster_arrive_relaxed();
    if (threadIdx.x < THREADS) {
        fill_maps(maps, q);
        fill_pairs(table, head_of(q).map);
    }
    __syncthreads();
    cluster_wait();                      /* the other's barriers are open                       */

    if (group == S::GROUPS) {
        give_registers<S::OTHERS_REGISTERS>();
        if (warp == 0) bring(b, rank, q.steps, unit, a.tiles, apart);
        else if (warp <= FINISHING) finish_units<T, O, HOW, S>(of, table, bars, rank, warp - 1, unit, apart);
        else if (q.nested && group_steps<S>(rank, 0, q.steps).all()) tell_rows<S>(q, told, bars, unit, a.tiles, apart);
        return;
    }
    take_registers<S::REGISTERS>();
    multiply_units<T>(of, table, bars, told, rank, unit, apart);
#endif
}

/* ---- launching ---- */

static cudaError_t describe(maps4 *maps, rv_dtype act, const args4 &of, int32_t n) {
    const rv_four &q = of.q;
    encode_function encode;
    cudaError_t e = find_encode(&encode);
    if (e) return e;
    const cuuint64_t line = LINE, row = (cuuint64_t)of.q.steps * RV_FOUR_COLS * 2, record = (cuuint64_t)q.record;
    const cuuint64_t x_size[3] = { LINE_COLS, (cuuint64_t)of.a.n, (cuuint64_t)q.steps * LINES }, x_stride[2] = { row, line };
    const cuuint64_t size[4] = { PIECE / 4, record / PIECE, (cuuint64_t)q.steps, (cuuint64_t)((q.rows + TILE - 1) / TILE) }, stride[3] = { PIECE, record, record * (cuuint64_t)q.steps };
    const cuuint32_t x_box[3] = { LINE_COLS, (cuuint32_t)n, LINES }, box[4] = { PIECE / 4, (cuuint32_t)(record / PIECE), 1, TILES }, steps[4] = { 1, 1, 1, 1 };
    CUresult r = encode(&maps->x, act == RV_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)of.a.x, x_size, x_stride, x_box, steps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r == CUDA_SUCCESS)
        r = encode(&maps->records, CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, q.memory + q.records, size, stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename T, typename O, int HOW, class S> static cudaError_t launch(args4 of, const rv_few *p, bool overlap, cudaStream_t stream) {
    const int32_t units = (of.a.rows + ROWS - 1) / ROWS, most = p->multiprocessors / CLUSTER;
    maps4 maps;
    of.a.tiles = units;
    cudaError_t e = describe(&maps, p->act, of, S::N);
    if (e) return e;
    return launch_cluster(few4_90_kernel<T, O, HOW, S>, (unsigned)((units < most ? units : most) * CLUSTER), CLUSTER, S::BLOCK, S::BYTES, overlap, stream, maps, of);
}

/* More rows than MOST_ROWS: as many at a time. */
template <typename T, typename O, int HOW> static cudaError_t launch_rows(const rv_few *p, args4 of, const void *arranged, bool overlap, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    for (int32_t from = 0; from < p->x.rows && !e; from += MOST_ROWS) {
        const int32_t n = p->x.rows - from < MOST_ROWS ? p->x.rows - from : (int32_t)MOST_ROWS;
        args4 some = of;
        some.a.x = (const T *)arranged + (int64_t)from * of.q.steps * RV_FOUR_COLS;
        some.a.out = (O *)of.a.out + from * of.a.out_ld;
        if (of.a.row_scale) some.a.row_scale = of.a.row_scale + from;
        some.a.n = n;
        e = n <= 8 ? launch<T, O, HOW, shape<8>>(some, p, overlap, stream) : n <= 16 ? launch<T, O, HOW, shape<16>>(some, p, overlap, stream)
                                                                                      : launch<T, O, HOW, shape<32>>(some, p, overlap, stream);
    }
    return e;
}

template <typename T> static cudaError_t launch_how(const rv_few *p, const args4 &of, const void *arranged, bool overlap, cudaStream_t stream) {
    return by_results<T>(p, [&](auto kind) { return launch_rows<T, typename decltype(kind)::O, decltype(kind)::HOW>(p, of, arranged, overlap, stream); });
}

bool rv_cuda_few4_90_takes(const rv_few *p, const rv_four *q) {
    return !p->norm && p->x.rows > RV_CUDA_NORM_ROWS && p->multiprocessors >= CLUSTER && (uintptr_t)q->memory % 16 == 0 && (!q->nested || q->blocks <= RV_NESTED_BLOCK);
}

cudaError_t rv_cuda_few4_90(const rv_few *p, const rv_four *q, void *room, bool arranged, bool arranges, bool overlap, cudaStream_t stream) {
    const args4 of = { { NULL, NULL, p->out.data, 0, p->out.ld, p->bias, p->row_scale, NULL, p->scale, 0, p->x.rows, p->rows, p->cols, 0, 0, NULL }, *q, arranges };
    cudaError_t e = arranged ? cudaSuccess : rv_cuda_four_arrange(q, p->x, room, RV_FOUR_BY_TWO, p->multiprocessors, overlap, stream);
    if (e) return e;
    const void *x = arranged ? p->x.data : room;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(p, of, x, overlap, stream) : launch_how<__half>(p, of, x, overlap, stream);
}

/* ---- rows that are normed first ---- */

/* A block has a row. */
template <typename T> static __global__ void __launch_bounds__(THREADS) arranging_norm_kernel(T *out, const float *x, int64_t x_ld, const float *weight, float eps, int32_t cols) {
    __shared__ float shared[WARPS];
    args a = {};
    a.x = x + blockIdx.x * x_ld;
    a.x_ld = x_ld;
    a.norm = weight;
    a.eps = eps;
    a.n = 1;
    a.cols = cols;
    let_next_start();
    norm_rows<T>(a, arranged_row<T>{ out + (int64_t)blockIdx.x * cols, 0 }, shared);
}

bool rv_cuda_four_norms(int32_t cols) { return cols % RV_FOUR_COLS == 0 && cols > RV_CUDA_NORM_THREADS && cols <= RV_CUDA_NORM_MOST; }
cudaError_t rv_cuda_four_norm(rv_mat x, const float *weight, float eps, rv_dtype act, void *to, bool overlap, cudaStream_t stream) {
    const dim3 rows((unsigned)x.rows);
    return act == RV_BF16 ? launch_kernel(arranging_norm_kernel<__nv_bfloat16>, rows, THREADS, 0, overlap, stream, (__nv_bfloat16 *)to, (const float *)x.data, x.ld, weight, eps, x.cols)
                          : launch_kernel(arranging_norm_kernel<__half>, rows, THREADS, 0, overlap, stream, (__half *)to, (const float *)x.data, x.ld, weight, eps, x.cols);
}

RV_CUDA_CLAMPED(few4_90)
