/* int8_90.cu - LLM.int8 products with many rows on Hopper: integer sums, what becomes of them and the outliers in one kernel.
 *
 * The one idea: once the integer sums of a tile are whole, they are made the 16-bit results of the rules in the very
 * registers, as f32, to which the outliers' product is added there, by tensor cores whose sums lie just so.  Its operands,
 * 16 bit, are gathered before: of activations and weights only columns in which some row has an outlier.
 */
#include "kernels/cuda/gemm90.cuh"
#include "kernels/cuda/int8.cuh"

struct args8 {
    args a;                              /* no bias                                             */
    const int8_row *x_rows;
    const float *w_scale, *bias;
    const int32_t *n_columns;            /* with outliers                                       */
    const uint32_t *columns;
    void *x_out, *w_out;                 /* the first `most` of them: act [x.rows x most], [w.rows x most] */
    int32_t most;
    /* for the others */
    const void *x;
    const int8_t *w;
    int64_t x_ld;
    int32_t pitch;
    float threshold;                     /* 0: every row has all columns' values, whatever they are */
};

/* ---- the outliers' columns, side by side ---- */

enum { GATHER_WARPS = 8, TOGETHER = 32 /* outliers a step of the product: a lane has 8 */ };

template <typename T> static __device__ __forceinline__ T outlier_value(const args8 &g, int32_t row, int32_t k) {
    const uint16_t bits = __ldcg((const uint16_t *)g.x + row * g.x_ld + k);
    const float f = through_f16((uint32_t)bits, T()).x;
    const uint16_t kept = g.threshold == 0.f || fabsf(f) >= g.threshold ? bits : (uint16_t)0;
    return *(const T *)&kept;
}

template <typename T> static __global__ void __launch_bounds__(GATHER_WARPS * 32) gather_kernel(const args8 g) {
    let_next_start();
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns), n = found < g.most ? found : g.most, padded = (n + TOGETHER - 1) / TOGETHER * TOGETHER;
    for (int32_t row = (int32_t)(blockIdx.x * GATHER_WARPS + threadIdx.x / 32); row < g.a.rows + g.a.cols; row += (int32_t)gridDim.x * GATHER_WARPS)
        for (int32_t o = (int32_t)threadIdx.x % 32; o < padded; o += 32) {
            const int32_t k = o < n ? (int32_t)__ldcg(g.columns + o) : 0, r = row - g.a.rows;
            if (r < 0) ((T *)g.x_out)[(int64_t)row * g.most + o] = o < n ? outlier_value<T>(g, row, k) : T(0.f);
            else ((T *)g.w_out)[(int64_t)r * g.most + o] = o < n ? int8_weight<T>(g.w[(int64_t)r * g.pitch + k], g.w_scale[r]) : T(0.f);
        }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- d[64 x N] = (add ? d : 0) + a[64 x 32] b[N x 32]^T of bytes, both in shared memory ---- */

#define RV_I8(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), "+r"(d[i + 7])
#define RV_I32(i) RV_I8(i), RV_I8(i + 8), RV_I8(i + 16), RV_I8(i + 24)
#define RV_PRODUCT8(N, REGISTERS, A, B, ADD, ...)                                                                                             \
    static __device__ __forceinline__ void product8(int32_t (&d)[N / 2], uint64_t a, uint64_t b, int32_t add) {                               \
        asm volatile("{.reg .pred add; setp.ne.b32 add, %" ADD ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8"                     \
                     " {" REGISTERS "}, %" A ", %" B ", add;}" : __VA_ARGS__ : "l"(a), "l"(b), "r"(add));                                      \
    }
RV_PRODUCT8(256, RV_R128, "128", "129", "130", RV_I32(0), RV_I32(32), RV_I32(64), RV_I32(96))
RV_PRODUCT8(128, RV_R64, "64", "65", "66", RV_I32(0), RV_I32(32))

template <class S>
static __device__ __forceinline__ void produce(const args8 &g, const ring<S> &r, const CUtensorMap *map_a, const CUtensorMap *map_b, uint32_t rank) {
    constexpr int PART = S::BN / S::SHARE;
    const args &a = g.a;
    uint32_t at = 0;
    for (int32_t unit = (int32_t)blockIdx.x / S::SHARE; unit < a.tiles_m * a.tiles_n; unit += (int32_t)gridDim.x / S::SHARE) {
        int32_t m, n;
        tile_at<S>(a, unit, rank, &m, &n);
        for (int32_t k = 0; k < a.k_blocks; k++, at++) {
            barrier_wait(r.free(at), r.parity(at) ^ 1);
            barrier_expect(r.filled(at), S::STAGE_BYTES);
            copy_box(r.stage(at), map_a, k * LINE, m, r.filled(at));
            uint8_t *b = r.stage(at) + S::A_BYTES;
            if (S::SHARE == 1) copy_box(b, map_b, k * LINE, n, r.filled(at));
            else copy_box_to_all(b + rank * PART * LINE, map_b, k * LINE, n + (int32_t)rank * PART, r.filled(at), (1 << S::SHARE) - 1);
        }
    }
    let_next_start();
}

/* pass: there is a next turn. */
template <class S>
static __device__ __forceinline__ void multiply(int32_t (&sums)[S::ROWS64][S::BN / 2], const ring<S> &r, uint32_t turn, int32_t k_blocks, int group, bool pass) {
    const int half = S::PAIRED ? group * S::ROWS64 * 64 * LINE : 0;
    uint32_t at = turn * (uint32_t)k_blocks;
    if (!S::PAIRED && turn) await_turn(turn);
    for (int32_t k = 0; k < k_blocks; k++, at++) {
        barrier_wait(r.filled(at), r.parity(at));
        const uint64_t pa = operand(r.stage(at) + half), pb = operand(r.stage(at) + S::A_BYTES);
        product_begin();
#pragma unroll
        for (int piece = 0; piece < LINE / 32; piece++)
#pragma unroll
            for (int i = 0; i < S::ROWS64; i++) product8(sums[i], pa + (uint64_t)(i * 64 * LINE / 16 + piece * 2), pb + (uint64_t)(piece * 2), k | piece);
        product_commit();
        product_wait<1>();
        if (k) r.release(at - 1);
    }
    if (!S::PAIRED && pass) pass_turn(turn);
    product_wait<0>();
    r.release(at - 1);
#pragma unroll
    for (int i = 0; i < S::ROWS64; i++)
#pragma unroll
        for (int j = 0; j < S::BN / 2; j++) asm volatile("" : "+r"(sums[i][j])::"memory");         /* read no sum before its wait */
}

/* A step of what becomes of a warp's sums: 16 of a thread's, rows g and g + 8 of 16, columns 2 t and 2 t + 1 of four blocks of 8.
 * Sums are taken where they lie, step by step: a copy of them all would not fit. */
template <typename T> struct values {
    const args8 &g;
    int32_t row0, col0, lane;            /* of the 16 rows and 32 columns                       */

    __device__ __forceinline__ int32_t row(int h) const { return row0 + h * 8 + lane / 4; }
    __device__ __forceinline__ void load(const float *from, float2 (&s)[4]) const {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int32_t col = col0 + j * 8 + lane % 4 * 2;
            s[j] = from && col < g.a.cols ? __ldg((const float2 *)(from + col)) : make_float2(0, 0);
        }
    }
    __device__ __forceinline__ void of_sums(float (&v)[4][4], const int32_t *sums, const float (&sca)[2], int32_t &clamped) const {
        float2 w[4], bias[4];
        load(g.w_scale, w);
        load(g.bias, bias);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) v[j][e] = int8_value<T>(sums[j * 4 + e], sca[e / 2], e % 2 ? w[j].y : w[j].x, e % 2 ? bias[j].y : bias[j].x, clamped);
    }
    /* The outliers that were gathered: both operands read in 16-byte pieces of the same pattern, as in few.cu. */
    __device__ __forceinline__ void add_outliers(float (&v)[4][4], int32_t n) const {
#pragma unroll 1
        for (int32_t o = lane % 4 * 8; o < n; o += TOGETHER) {
            uint4 x[2];
#pragma unroll
            for (int h = 0; h < 2; h++) x[h] = row(h) < g.a.rows ? __ldcg((const uint4 *)((const T *)g.x_out + (int64_t)row(h) * g.most + o)) : make_uint4(0, 0, 0, 0);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int32_t col = col0 + j * 8 + lane / 4;
                const uint4 w = col < g.a.cols ? __ldcg((const uint4 *)((const T *)g.w_out + (int64_t)col * g.most + o)) : make_uint4(0, 0, 0, 0);
                mma(v[j], x[0].x, x[1].x, x[0].y, x[1].y, w.x, w.y, T());
                mma(v[j], x[0].z, x[1].z, x[0].w, x[1].w, w.z, w.w, T());
            }
        }
    }
    /* Those of columns beyond, one by one. */
    __device__ __forceinline__ void add_the_rest(float (&v)[4][4], int32_t found) const {
#pragma unroll 1
        for (int32_t o = g.most; o < found; o++) {
            const int32_t k = (int32_t)__ldcg(g.columns + o);
            float x[2];
#pragma unroll
            for (int h = 0; h < 2; h++) x[h] = row(h) < g.a.rows ? to_f32(outlier_value<T>(g, row(h), k)) : 0.f;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int32_t col = col0 + i / 2 * 8 + lane % 4 * 2 + i % 2;
                const float w = col < g.a.cols ? to_f32(int8_weight<T>(g.w[(int64_t)col * g.pitch + k], g.w_scale[col])) : 0.f;
#pragma unroll
                for (int h = 0; h < 2; h++) v[i / 2][h * 2 + i % 2] = __fmaf_rn(x[h], w, v[i / 2][h * 2 + i % 2]);
            }
        }
    }
};

template <typename T, typename O, class S, int HOW>
static __device__ __forceinline__ void finish_sums(const args8 &g, const int32_t (&sums)[S::ROWS64][S::BN / 2], int32_t row0, int32_t col0, int32_t found) {
    using E = epilogue<O, S, HOW>;
    const E e = { g.a, row0, col0, threadIdx.x % 32 };
    auto part = [&](int step) { return values<T>{ g, row0 + step / E::STEPS * 64, col0 + step % E::STEPS * 32, (int32_t)e.lane }; };
    float sca[2] = { 0, 0 };
    int32_t clamped = 0;
#pragma unroll
    for (int step = 0; step < E::ALL; step++) {
        const values<T> p = part(step);
        if (step % E::STEPS == 0)
#pragma unroll
            for (int h = 0; h < 2; h++) sca[h] = p.row(h) < g.a.rows ? __ldcg(&g.x_rows[p.row(h)].scale) : 0.f;
        float v[4][4], old[2][8];
        e.load_old(step, old);
        p.of_sums(v, &sums[step / E::STEPS][step % E::STEPS * 16], sca, clamped);
        if (found) {
            const int32_t gathered = found < g.most ? found : g.most;
            p.add_outliers(v, (gathered + TOGETHER - 1) / TOGETHER * TOGETHER);
            if (found > g.most) p.add_the_rest(v, found);
            if (sizeof(O) == 4 || HOW == rv_few::RV_FEW_GELU)
#pragma unroll
                for (int i = 0; i < 16; i++) v[i / 4][i % 4] = to_f32(to_act<T>(v[i / 4][i % 4]));
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float out[8];
#pragma unroll
            for (int i = 0; i < 8; i++) out[i] = v[i / 2][half * 2 + i % 2];
            transpose(out, e.lane % 4);
            finish<O, HOW>(g.a, e.at(step, half), out, old[half]);
        }
        asm volatile("" ::: "memory");   /* no load of the next step before: registers are full */
    }
    count_clamped(clamped);
}

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void consume(const args8 &g, const ring<S> &r, uint32_t rank) {
    const args &a = g.a;
    const int group = (int)threadIdx.x / GROUP - 1;
    const int32_t units = a.tiles_m * a.tiles_n, apart = (int32_t)gridDim.x / S::SHARE, found = __ldcg(g.n_columns);
    uint32_t turn = 0;
    for (int32_t unit = (int32_t)blockIdx.x / S::SHARE; unit < units; unit += apart, turn++) {
        if (!S::PAIRED && turn % 2 != (uint32_t)group) continue;
        int32_t sums[S::ROWS64][S::BN / 2], m, n;
        multiply<S>(sums, r, turn, a.k_blocks, group, unit + apart < units);
        tile_at<S>(a, unit, rank, &m, &n);
        finish_sums<T, O, S, HOW>(g, sums, m + (S::PAIRED ? group * S::ROWS64 * 64 : 0) + (int32_t)threadIdx.x % GROUP / 32 * 16, n, found);
    }
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS, 1) int8_90_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args8 g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t memory[];
    __shared__ alignas(8) uint64_t full[S::STAGES], empty[S::STAGES];
    const ring<S> r = { memory + (1024 - shared_address(memory) % 1024) % 1024, full, empty };
    const uint32_t rank = S::SHARE > 1 ? cluster_rank() : 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) barrier_open(&full[i], 1), barrier_open(&empty[i], 4 * S::SHARE * (S::PAIRED ? 2 : 1));
        barriers_opened();
    }
    if (S::SHARE > 1) cluster_meet();
    else __syncthreads();
    wait_for_previous();
    if (threadIdx.x < GROUP) {
        give_registers<40>();
        if (threadIdx.x == 0) produce<S>(g, r, &map_a, &map_b, rank);
        __syncwarp();
    } else {
        take_registers<232>();
        consume<T, O, S, HOW>(g, r, rank);
    }
    if (S::SHARE > 1) cluster_meet();              /* nobody leaves while its shared memory is written or read */
#endif
}

/* ---- launching ---- */

template <typename T, typename O, class S, int HOW>
static cudaError_t launch(const rv_int8 *q, const rv_int8_many *room, args8 g, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    CUtensorMap map_x, map_w;
    cudaError_t e = describe_boxes(&map_x, RV_I8, room->codes, p->x.rows, q->pitch, q->pitch, S::BM, LINE);
    if (!e) e = describe_boxes(&map_w, RV_I8, p->w, p->rows, q->pitch, q->pitch, S::BN / S::SHARE, LINE);
    if (e) return e;
    g.a.tiles_m = parts(p->x.rows, S::BM * S::SHARE);
    g.a.tiles_n = parts(p->rows, S::BN);
    int32_t units = g.a.tiles_m * g.a.tiles_n, most = p->multiprocessors / S::SHARE;
    if (units > most) units = most;
    return launch_cluster(int8_90_kernel<T, O, S, HOW>, (unsigned)(units * S::SHARE), S::SHARE, S::SHARED_BYTES, overlap, stream, map_x, map_w, g);
}

/* What a tiling takes, in lines of its ring: its rounds of tiles, each with an end that shows where few follow it. */
template <class S> static int64_t cost(const rv_few *p) {
    const int64_t tiles = (int64_t)parts(p->x.rows, S::BM * S::SHARE) * parts(p->rows, S::BN), rounds = (tiles + p->multiprocessors / S::SHARE - 1) / (p->multiprocessors / S::SHARE);
    return rounds * (S::BM * S::BN) + S::BM * S::BN / 2;
}

template <typename T, typename O, int HOW>
static cudaError_t launch_tiled(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    using shared = tiling<2, 128, false, 2>;
    using apart = tiling<2, 128, false, 1>;
    using small = tiling<1, 128, false, 1>;
    using wide = tiling<1, 256, true, 2>;
    const rv_few *p = &q->p;
    int tile = q->tile;
    if (!tile) tile = cost<small>(p) * 5 / 4 < cost<apart>(p) ? 3 : cost<shared>(p) <= cost<apart>(p) ? 1 : 2;
    if (tile == 1) return launch<T, O, shared, HOW>(q, room, g, overlap, stream);
    if (tile == 4) return launch<T, O, wide, HOW>(q, room, g, overlap, stream);
    if (tile == 2) return launch<T, O, apart, HOW>(q, room, g, overlap, stream);
    return launch<T, O, small, HOW>(q, room, g, overlap, stream);
}

template <typename T> static cudaError_t launch_how(const rv_int8 *q, const rv_int8_many *room, const args8 &g, bool overlap, cudaStream_t stream) {
    switch (q->p.how) {
    case rv_few::RV_FEW_STORE:
        return q->p.out.type == RV_F32 ? launch_tiled<T, float, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream)
                                       : launch_tiled<T, T, rv_few::RV_FEW_STORE>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch_tiled<T, T, rv_few::RV_FEW_GELU>(q, room, g, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch_tiled<T, float, rv_few::RV_FEW_ADD>(q, room, g, overlap, stream);
    default: return cudaErrorInvalidValue;
    }
}

bool rv_cuda_int8_90_fits(const rv_int8 *q) {
    const rv_few *p = &q->p;
    const bool f32 = p->out.type == RV_F32;
    return !p->norm && p->x.rows > 0 && p->rows % 8 == 0 && in_pieces(p->w, q->pitch, 1) && in_pieces(p->out.data, p->out.ld, f32 ? 4 : 2) &&
           (uintptr_t)p->bias % 8 == 0 && (uintptr_t)q->w_scale % 8 == 0 && rv_cuda_int8_many(q->room, p->x.rows, p->rows, q->pitch).most >= 64 &&
           (p->how == rv_few::RV_FEW_STORE || (p->how == rv_few::RV_FEW_ADD && f32) || (p->how == rv_few::RV_FEW_GELU && !f32));
}

cudaError_t rv_cuda_int8_90(const rv_int8 *q, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const rv_int8_many room = rv_cuda_int8_many(q->room, p->x.rows, p->rows, q->pitch);
    args8 g;
    g.a = { p->out.data, NULL, p->row_scale, p->out.ld, p->x.rows, p->rows, parts(q->pitch, LINE), 0, 0, p->x.rows > p->rows, p->scale };
    g.x_rows = (const int8_row *)room.rows;
    g.w_scale = q->w_scale;
    g.bias = p->bias;
    g.n_columns = room.n_columns;
    g.x_out = room.x;
    g.w_out = room.w;
    g.most = room.most;
    g.columns = room.columns;
    g.x = p->x.data;
    g.w = (const int8_t *)p->w;
    g.x_ld = p->x.ld;
    g.pitch = q->pitch;
    g.threshold = q->rules.by_call && q->call.rows > 1 ? 0.f : q->rules.threshold;
    cudaError_t e = rv_cuda_quantise_many(q, &room, overlap, stream);
    const dim3 blocks((unsigned)(4 * p->multiprocessors));
    if (!e && q->rules.threshold != 0)
        e = p->act == RV_BF16 ? launch_kernel(gather_kernel<__nv_bfloat16>, blocks, GATHER_WARPS * 32, 0, overlap, stream, g)
                              : launch_kernel(gather_kernel<__half>, blocks, GATHER_WARPS * 32, 0, overlap, stream, g);
    if (e) return e;
    return p->act == RV_BF16 ? launch_how<__nv_bfloat16>(q, &room, g, overlap, stream) : launch_how<__half>(q, &room, g, overlap, stream);
}

RV_CUDA_CLAMPED(int8_90)
