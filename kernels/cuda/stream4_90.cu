/* stream4_90.cu - decoder layers of one or two rows in one launch, their weights in 4 bits.
 *
 * The one idea: stream90.cuh's, with few4.cu's sums; a step is 8 records, side by side in memory.  Table and ring leave shared memory
 * nothing to spare, as decoding reads 128 bytes of it a clock: so rows of activations lie in the gaps of the table (what finds no room
 * there, where attention's keys lie at other times), a lane reads all that it multiplies a record with at once, the pieces of a block in columns of
 * their own, and two warps make a step's absmaxes, where they are nested, before those who multiply come to it.
 */
#include "kernels/cuda/few4.cuh"
#include "kernels/cuda/stream90_launch.cuh"

enum { RECORDS = WARPS, STEP_COLS = RECORDS * RV_FOUR_COLS, STEP_BLOCKS = STEP_COLS / RV_BLOCK4,
       MAKERS = 2 /* warps that make absmaxes */ };

/* Behind the table of pairs. */
struct alignas(128) four_room {
    float nested[MAKERS][RV_WEIGHT_PARTS][256];        /* maps of the parts of a product         */
    uint64_t ready[MOST_AHEAD];          /* a stage's absmaxes are made                         */
    float sums[WARPS];                   /* of a norm                                          */
    int32_t others;                      /* maps of the run's weights that are not the first one's */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* Pieces of a row by their blocks' gaps, from `first` on; round: after the last one comes the first. */
struct row_in_gaps {
    char *table;
    int32_t first, more;
    bool round;
    __device__ __forceinline__ uint4 &operator[](int32_t i) const {
        const int32_t block = round ? (i / 8 + first) % GAPS : i / 8 + first;
        return *(uint4 *)(table + gap_of(block, more) + (i % 8 * 16 ^ gap_column(block)));
    }
};

/* Rows of HELD * THREADS columns in gaps as a thread sees them whose columns are THREADS apart: then its gaps are, too. */
template <typename E> struct gap_lines {
    char *at;
    __device__ __forceinline__ void operator+=(int32_t first) {
        const int32_t block = first / RV_BLOCK4;
        at += gap_of(block, 0) + (first % RV_BLOCK4 * (int32_t)sizeof(E) ^ gap_column(block));
    }
    __device__ __forceinline__ E &operator[](int32_t i) const { return *(E *)(at + i / RV_BLOCK4 * PAIR_STRIDE); }
};
#endif

template <typename A> struct int4_format {
    typedef A T;
    typedef tile_sums sums;
    enum { STEP = RECORDS * (RV_FOUR_NESTED_RECORD + RV_FOUR_ABSMAXES * (int)sizeof(float)), BESIDE = 0, ASKED = 3, EARLY = 3, DRAWN = false, ROWS_FIRST = true, IN_PARTS = true,
           STEP_COLUMNS = STEP_COLS };
    static_assert((int)STEP >= RECORDS * (int)RV_FOUR_FLOAT_RECORD && STEP % 128 == 0, "room for absmaxes, made or not; rows behind the ring on lines of 128 bytes");
    struct weights {
        rv_four of[RV_STREAM_LAYERS][PRODUCTS];
        bool nested;
    };
    static int32_t narrow_bytes(int32_t, int32_t, int32_t, int32_t) { return PAIR_TABLE + (int32_t)sizeof(four_room); }
    static int32_t wide_bytes(int32_t n, int32_t ffn) {
        const int32_t blocks = n * (ffn / RV_BLOCK4);
        return blocks > GAPS ? (blocks - GAPS) * GAP : 0;
    }
    static cudaError_t describe(const rv_stream *p, stream_args<int4_format> &a) {
        for (int32_t i = 0; i < p->n * PRODUCTS; i++) a.weights.of[i / PRODUCTS][i % PRODUCTS] = *(const rv_four *)p->layer[i / PRODUCTS].w[i % PRODUCTS];
        a.weights.nested = a.weights.of[0][0].nested;
        return cudaSuccess;
    }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    static __device__ __forceinline__ int32_t steps(int32_t cols) { return cols / STEP_COLS; }
    static __device__ __forceinline__ void copy(const weights &w, int32_t layer, int32_t kind, int32_t tile, int32_t step, char *to, char *, uint64_t *bar, uint64_t policy) {
        const rv_four &q = w.of[layer][kind];
        barrier_expect(bar, (uint32_t)(RECORDS * q.record));
        copy_bytes(to, record_of(q, tile, step * RECORDS), RECORDS * q.record, bar, policy);
    }
    static __device__ __forceinline__ four_room &room(const stream_rooms<int4_format> &rooms) { return *(four_room *)((char *)rooms.narrow + PAIR_TABLE); }
    static __device__ __forceinline__ const float *map_of(const stream_args<int4_format> &a, int32_t i) { return head_of(a.weights.of[i / PRODUCTS][i % PRODUCTS]).map; }
    /* Where rows go on that fill all gaps. */
    static __device__ __forceinline__ int32_t more(const stream_rooms<int4_format> &rooms) { return (int32_t)((char *)rooms.wide - (char *)rooms.narrow); }

    /* Steps of `down` whose rows are brought while gate and up are still multiplied, and find room beside theirs: all but two, so that they are there in time, and the
     * others before these have been multiplied. */
    static __device__ __forceinline__ int32_t early_steps(const stream_args<int4_format> &a) {
        const int32_t most = a.ffn / STEP_COLS - 2, fit = (GAPS - narrow_blocks(a)) / STEP_BLOCKS;
        return a.n > 1 || a.ffn / RV_BLOCK4 > GAPS || fit < 0 || most < 0 ? 0 : most < fit ? most : fit;
    }
    static __device__ __forceinline__ int32_t narrow_blocks(const stream_args<int4_format> &a) { return (a.hidden > a.q_width ? a.hidden : a.q_width) / RV_BLOCK4; }
    /* The gap, or what follows them, of a block of a product's row: early ones of `down` lie behind the rows of gate and up, the last ones where those were. */
    static __device__ __forceinline__ int32_t first_gap(const stream_args<int4_format> &a, int32_t i) { return i % PRODUCTS == DOWN && early_steps(a) ? narrow_blocks(a) : 0; }

    /* By those who multiply; and pairs where the map is another. */
    template <typename R> static __device__ __forceinline__ void bring(const stream_args<int4_format> &a, int32_t i, const stream_rooms<int4_format> &rooms, R ready) {
        const args e = rows_of(a, i);
        char *table = (char *)rooms.narrow;
        if (e.norm && e.cols == HELD * THREADS) bring_normed<multipliers, true, T>(e, gap_lines<T>{ table }, room(rooms).sums, ready);
        else if (e.norm) bring_normed<multipliers, false, T>(e, gap_rows<T>{ table, 0, more(rooms) }, room(rooms).sums, ready);
        else ready();
#pragma unroll 1
        for (int32_t r = 0; r < a.n && !e.norm; r++)
            bring_pieces<multipliers>((const uint4 *)((const T *)e.x + r * e.x_ld), row_in_gaps{ table, r * (e.cols / RV_BLOCK4), more(rooms), false }, 0, e.cols / 8);
        meet();
        if (i && !room(rooms).others) return;
        fill_pairs(table, map_of(a, i));
        meet();
    }

    typedef float_finisher<int4_format> finisher;
#endif
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
template <typename A> static __device__ __forceinline__ void prepare(const stream_args<int4_format<A>> &a, const stream_rooms<int4_format<A>> &rooms) {
    typedef int4_format<A> F;
    four_room &room = F::room(rooms);
    check_table((const char *)rooms.narrow);
    if (threadIdx.x == 0) {
        for (int32_t s = 0; s < MOST_AHEAD; s++) barrier_open(&room.ready[s], 32);
        barriers_opened();
        room.others = 0;
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < a.layers * PRODUCTS * 16; i += ALL_THREADS)
        if (__float_as_int(F::map_of(a, i / 16)[i % 16]) != __float_as_int(F::map_of(a, 0)[i % 16])) atomicAdd(&room.others, 1);
}

/* ---- absmaxes ---- */

/* A lane's two rows of a tile. */
struct rows_absmaxes {
    const float *scales[2], *map[2];
    float offset[2];
    int32_t block[2];
    __device__ __forceinline__ rows_absmaxes(const rv_four &q, const float *maps, int32_t tile) {
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const part_row at = part_row_of(q, tile * TILE + h * 8 + (int32_t)threadIdx.x % 32 / 4);
            scales[h] = scales_of(q, at.part);
            map[h] = maps + at.part * 256;
            offset[h] = __ldg(head_of(q).offset + at.part);
            block[h] = at.row * q.blocks;
        }
    }
    /* Of a step's neighbouring blocks, 32, all have the same. */
    __device__ __forceinline__ float scale(int32_t h, int32_t step) const { return __ldg(scales[h] + (uint32_t)(block[h] + step * STEP_BLOCKS) / RV_NESTED_BLOCK); }
};

/* A step's, behind its records: in the order of lanes, as floats are in a record. */
static __device__ __forceinline__ void make_absmaxes(char *stage, const rows_absmaxes &rows, float above, float below) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t r = 0; r < RECORDS; r++) {
        const uchar2 code = *(const uchar2 *)(stage + r * RV_FOUR_NESTED_RECORD + RV_FOUR_CODES + lane * 2);
        *(float2 *)(stage + RECORDS * RV_FOUR_NESTED_RECORD + (r * RV_FOUR_ABSMAXES + lane * 2) * (int)sizeof(float)) =
            make_float2(nested_absmax(rows.map[0][code.x], above, rows.offset[0]), nested_absmax(rows.map[1][code.y], below, rows.offset[1]));
    }
}

/* Two warps, a step each in turn. */
template <typename A> static __device__ __forceinline__ void help(const stream_args<int4_format<A>> &a, char *ring, const stream_rooms<int4_format<A>> &rooms) {
    typedef int4_format<A> F;
    const int32_t lane = (int32_t)threadIdx.x % 32, me = (int32_t)threadIdx.x / 32 % MAKERS;
    hand &h = *rooms.h;
    four_room &room = F::room(rooms);
    float *maps = &room.nested[me][0][0];
    if (!a.weights.nested) return;
    int32_t first = 0, place = (int32_t)blockIdx.x;
    uint32_t turn = 0;
    round_robin stage;
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const work p = work_of(a, i);
        const rv_four &q = a.weights.of[i / PRODUCTS][i % PRODUCTS];
        const int32_t steps = F::steps(p.cols);
        __syncwarp();
#pragma unroll 1
        for (int32_t j = lane; j < q.n_parts * 64; j += 32) ((float4 *)maps)[j] = __ldg((const float4 *)&head_of(q).nested_map[0][0] + j);
        __syncwarp();
#pragma unroll 1
        for (; place - first < p.tiles; place += (int32_t)gridDim.x) {
            const rows_absmaxes rows(q, maps, place - first);
#pragma unroll 1
            for (int32_t step = 0; step < steps; step++, turn++, stage.next(a.stages)) {
                if (turn % MAKERS != (uint32_t)me) continue;
                const float above = rows.scale(0, step), below = rows.scale(1, step);
                barrier_wait(&h.full[stage.at], stage.parity);
                make_absmaxes(ring + stage.at * F::STEP, rows, above, below);
                barrier_arrive(&room.ready[stage.at]);
            }
        }
        first += p.tiles;
    }
}

/* ---- products ---- */

/* What a lane has of a record, and the rows that it multiplies it with: block t's pieces g / 2 and g / 2 + 4 of row g % 2 (or of the only one). */
struct record4 {
    uint4 piece[4], x[2];
    float2 absmax;
    __device__ __forceinline__ void load(const char *codes, const char *absmaxes) {
#pragma unroll
        for (int32_t c = 0; c < 4; c++) piece[c] = *(const uint4 *)(codes + c * 512);
        absmax = *(const float2 *)absmaxes;
    }
    __device__ __forceinline__ void load_x(const char *table, uint32_t at) {
        x[0] = *(const uint4 *)(table + at);
        x[1] = *(const uint4 *)(table + (at ^ 64));
    }
    __device__ __forceinline__ uint32_t word(int32_t h, int32_t u) const { return (&piece[h * 2 + u / 4].x)[u % 4]; }
};

struct looked_up : piece_values {
    template <typename T> __device__ __forceinline__ void multiply(float (&acc)[4], const uint4 &x, float2 absmax, T) const {
        uint32_t a[4], b[4];
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            a[i] = pack2(__fmul_rn(above[i].x, absmax.x), __fmul_rn(above[i].y, absmax.x), T());
            b[i] = pack2(__fmul_rn(below[i].x, absmax.y), __fmul_rn(below[i].y, absmax.y), T());
        }
        mma(acc, a[0], b[0], a[1], b[1], x.x, x.y, T());
        mma(acc, a[2], b[2], a[3], b[3], x.z, x.w, T());
    }
};

/* Sums of pieces v and v + 4 are those in columns 2 v and 2 v + 1, of lanes t = v; of rows g and g + 8, times either row of activations.  Of the four, each of four lanes adds
 * up one: odd ones have row g + 8, the last two the second row of activations. */
static __device__ __forceinline__ void leave_pieces(tile_sums &to, const float (&acc)[4][4]) {
    const int32_t lane = (int32_t)threadIdx.x % 32, t = lane % 4, below = t % 2, second = t / 2;
    float v[4], half[2];
#pragma unroll
    for (int32_t e = 0; e < 4; e++) v[e] = t == 0 ? acc[0][e] : t == 1 ? acc[1][e] : t == 2 ? acc[2][e] : acc[3][e];
#pragma unroll
    for (int32_t n = 0; n < 2; n++) half[n] = (below ? v[2 + n] : v[n]) + __shfl_xor_sync(~0u, below ? v[n] : v[2 + n], 1);
    const float sum = (second ? half[1] : half[0]) + __shfl_xor_sync(~0u, second ? half[0] : half[1], 2);
    (&to.of[multiplier()][lane / 4 + below * 8].x)[second] = sum;
}

/* Four warps, behind attention: rows of `down`, where there is room for most of them beside those of gate and up. */
template <typename A> static __device__ __forceinline__ void bring_wide(const stream_args<int4_format<A>> &a, const stream_rooms<int4_format<A>> &rooms, int32_t i, gate_keeper &early_gate) {
    typedef int4_format<A> F;
    const int32_t early = F::early_steps(a) * (STEP_COLS / 8);
    const args e = rows_of(a, i);
    const row_in_gaps to = { (char *)rooms.narrow, F::first_gap(a, i), 0, true };
    if (!early) return;
#pragma unroll 1
    for (int32_t part = 0; part < 2; part++) {
        if (part) await<PASS, PASS_THREADS>();
        else {
            if (decode_warp() == 0) early_gate.wait();
            decode_meet();
        }
        bring_pieces<attenders>((const uint4 *)e.x, to, part ? early : 0, part ? e.cols / 8 : early);
        if (part) arrive<REST, REST_THREADS>();
        else arrive<WIDE, WIDE_THREADS>();
    }
}

/* Eight warps. */
template <typename A> static __device__ __forceinline__ void multiply(const stream_args<int4_format<A>> &a, const char *ring, const char *, const stream_rooms<int4_format<A>> &rooms) {
    typedef int4_format<A> F;
    const int32_t warp = multiplier(), lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const bool nested = a.weights.nested;
    hand &h = *rooms.h;
    four_room &room4 = F::room(rooms);
    uint64_t *come = nested ? room4.ready : h.full;
    char *table = (char *)rooms.narrow;
    const char *codes = ring + warp * (nested ? (int)RV_FOUR_NESTED_RECORD : (int)RV_FOUR_FLOAT_RECORD) + lane * 16;
    const char *absmaxes = ring + (nested ? RECORDS * RV_FOUR_NESTED_RECORD + warp * RV_FOUR_ABSMAXES * (int)sizeof(float) : warp * RV_FOUR_FLOAT_RECORD + RV_FOUR_CODES) + lane * 8;
    const uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8, column = (uint32_t)(t ^ g / 2) * 16;
    int32_t first = 0, place = (int32_t)blockIdx.x;
    round_robin stage, room;
    record4 r;
    auto come_and_load = [&] {
        barrier_wait(&come[stage.at], stage.parity);
        r.load(codes + stage.at * F::STEP, absmaxes + stage.at * F::STEP);
        warp_arrive(&h.empty[stage.at]);
        stage.next(a.stages);
    };
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const work p = work_of(a, i);
        const int32_t steps = F::steps(p.cols), first_gap = F::first_gap(a, i);
        const int32_t my_block = (a.n == 2 ? g % 2 : 0) * (p.cols / RV_BLOCK4) + warp * RV_FOUR_BLOCKS + t + first_gap;
        int32_t rest = first_gap ? F::early_steps(a) : -1;       /* the step whose rows come last, until they are there */
        const bool beyond = !first_gap && a.n * (p.cols / RV_BLOCK4) > GAPS;       /* some rows are where gaps have ended */
        auto load_x = [&](int32_t block) {                       /* number t of four: columns as gap_column has them */
            uint32_t at = (uint32_t)block % GAPS * PAIR_STRIDE + GAP;
            if (beyond) at = (uint32_t)gap_of(block, F::more(rooms));
            r.load_x(table, at + (column | ((uint32_t)block & 64)));
        };
        if (!first_gap)
            F::bring(a, i, rooms, [i] {
                if (i % PRODUCTS == O) await<GO, GO_THREADS>();
                else if (i) await<DONE, DONE_THREADS>();
            });
        else {                           /* those who attend bring them */
            await<WIDE, WIDE_THREADS>();
            if (room4.others) {
                meet();
                fill_pairs(table, F::map_of(a, i));
                meet();
            }
        }
        make_absent(a, i);
        arrive<HERE, HERE_THREADS>();
#pragma unroll 1
        for (; place - first < p.tiles; place += (int32_t)gridDim.x) {
            float acc[4][4] = {};
            int32_t block = my_block;
#pragma unroll 1
            for (int32_t step = 0; step < steps; step++, block += STEP_BLOCKS) {
                if (step == rest) {
                    await<REST, REST_THREADS>();
                    rest = -1;
                }
                load_x(block);
                come_and_load();
                looked_up of[2];
                of[0].ask(r, copy, 0);
#pragma unroll
                for (int32_t u = 0; u < 8; u++) {
                    if (u < 7) of[(u + 1) % 2].ask(r, copy, u + 1);
                    of[u % 2].multiply(acc[u % 4], r.x[u / 4], r.absmax, A());
                }
            }
            barrier_wait(&h.taken[room.at], room.parity ^ 1);
            leave_pieces(rooms.sums[room.at], acc);
            warp_arrive(&h.left[room.at]);
            room.next(SUMS);
        }
        if (rest >= 0) await<REST, REST_THREADS>();
        first += p.tiles;
        if (i % PRODUCTS == DOWN && i + 1 < a.layers * PRODUCTS) arrive<FREE, FREE_THREADS>();
    }
}
#endif

/* Two rows of the 90B model find no room beside four steps. */
bool rv_cuda_stream4_takes(const rv_stream *p) {
    const rv_attention *a = p->self.q.rows ? &p->self : &p->cross;
    const int32_t narrow = p->x.cols > a->q.cols ? p->x.cols : a->q.cols;
    return p->x.rows * (narrow / RV_BLOCK4) <= GAPS && has_room<int4_format<__half>>(p);
}

cudaError_t rv_cuda_stream4(const rv_stream *p, cudaStream_t stream) {
    return p->qkv.type == RV_F16 ? launch_of<int4_format<__half>>(p, stream) : launch_of<int4_format<__nv_bfloat16>>(p, stream);
}

RV_CUDA_CLAMPED(stream4_90)
