/* few4_70.cu - products with 1 to 64 rows and weights of 4 bits for Volta.
 *
 * The one idea: a lane has whole blocks of 64 weights, so that the 16 products of the map with a block's absmax are made and rounded once
 * for all of them, and four byte permutations find those of four codes (few4.cuh).  They are operands of Volta's tensor cores as they
 * come: a quad pair has a block's columns, its eight seats as many rows of weights and of activations.
 *
 * By count a V100 has 8.7 clocks for 32 weights, of which this takes 5.8 of the integer units, the conversion of each by itself 8 of the
 * one that is slowest; the tensor cores take 2 for every 8 rows of activations.  More than 16 rows take turns.
 *
 * Sums are in an order fixed by cols alone: a pair's columns ascending, pairs by one tree, the 8 warps' slices in order.
 */
#include "kernels/cuda/few4.cuh"
#include "kernels/cuda/few70.cuh"

struct args4_70 { args a; rv_four q; };

/* A warp's activations of a record, 8 rows: blocks and rows lie so that no eight lanes meet in a bank. */
enum { BLOCK_PITCH = RV_BLOCK4 + 8, ROW_PITCH = RV_FOUR_BLOCKS * BLOCK_PITCH + 48, STAGED = 8 * ROW_PITCH /* halves */ };

/* What all warps have besides. */
struct maps70 { float map[16], nested[RV_WEIGHT_PARTS][256]; };

/* ---- a lane's weights ---- */

/* Where a lane's two rows of a tile, seat and 8 + seat, have their scales. */
struct rows70 {
    const float *scales[2], *nested[2];
    float offset[2];
    int32_t block[2];                    /* number of the row's first, in its part              */
    __device__ __forceinline__ void look_up(const rv_four &q, const maps70 &maps, int32_t tile) {
        if (!q.nested) return;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const int32_t row = tile * TILE + h * 8 + seat_of((int32_t)threadIdx.x % 32);
            const part_row at = part_row_of(q, row < q.rows ? row : q.rows - 1);
            scales[h] = scales_of(q, at.part);
            nested[h] = maps.nested[at.part];
            offset[h] = head_of(q).offset[at.part];
            block[h] = at.row * q.blocks;
        }
    }
};

/* A lane's block of a record, in both rows, on its way. */
struct raw70 {
    uint4 codes[2][2];                   /* 32 columns each                                     */
    float absmax[2];                     /* nested: what the code is scaled by                  */
    uchar2 code;
    __device__ __forceinline__ void load(const rv_four &q, const rows70 &rows, int32_t tile, int32_t step) {
        const int32_t lane = (int32_t)threadIdx.x % 32, seat = seat_of(lane), pair = pair_of(lane);
        const char *record = record_of(q, tile, step), *scale = record + RV_FOUR_CODES;
#pragma unroll
        for (int32_t h = 0; h < 2; h++)
#pragma unroll
            for (int32_t i = 0; i < 2; i++) codes[h][i] = __ldg((const uint4 *)(record + (h * 2 + i) * 512 + (seat * 4 + pair) * 16));
        if (!q.nested) {
            const float2 v = __ldg((const float2 *)scale + seat * 4 + pair);
            absmax[0] = v.x, absmax[1] = v.y;
            return;
        }
        const int32_t b = step * RV_FOUR_BLOCKS + pair, in_row = b < q.blocks ? b : q.blocks - 1;
        code = __ldg((const uchar2 *)scale + seat * 4 + pair);
#pragma unroll
        for (int32_t h = 0; h < 2; h++) absmax[h] = __ldg(rows.scales[h] + (uint32_t)(rows.block[h] + in_row) / RV_NESTED_BLOCK);
    }
    __device__ __forceinline__ float absmax_of(const rv_four &q, const rows70 &rows, int32_t h) const {
        return q.nested ? nested_absmax(rows.nested[h][h ? code.y : code.x], absmax[h], rows.offset[h]) : absmax[h];
    }
};

/* ---- activations ---- */

/* Rows n0 .. n0 + 7 of a record's columns to a warp's place. */
static __device__ __forceinline__ void stage_rows(const args &a, int32_t n0, int32_t step, __half *to) {
    const int32_t lane = (int32_t)threadIdx.x % 32, k = step * RV_FOUR_COLS + lane * 8;
    to += lane / 8 * BLOCK_PITCH + lane % 8 * 8;
#pragma unroll
    for (int32_t n = 0; n < 8; n++) {
        if (n0 + n >= a.n) break;
        *(uint4 *)(to + n * ROW_PITCH) = k < a.cols ? *(const uint4 *)((const __half *)a.x + (n0 + n) * a.x_ld + k) : make_uint4(0, 0, 0, 0);
    }
}

/* ---- the kernel ---- */

/* The pairs' sums of a tile, added up, to the warp's place. */
static __device__ __forceinline__ void leave(const float (&acc)[2][8], float (&to)[TILE][8]) {
    const int32_t lane = (int32_t)threadIdx.x % 32, upper = lane / 4 % 2, last = lane / 8 % 2;
    float half[8], mine[4];
#pragma unroll
    for (int32_t i = 0; i < 8; i++) half[i] = (upper ? acc[1][i] : acc[0][i]) + __shfl_xor_sync(~0u, upper ? acc[0][i] : acc[1][i], 4);
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        const float kept = last ? half[i + 4] : half[i], given = last ? half[i] : half[i + 4];
        mine[i] = kept + __shfl_xor_sync(~0u, given, 8);
        to[upper * 8 + sum_row(lane, i)][sum_column(lane, i) + last * 4] = mine[i];
    }
}

/* G: groups of 8 activation rows at a time.  SHARED: up to 8 rows, normed or copied into shared memory as a whole first. */
template <typename O, int HOW, int G, bool SHARED> static __global__ void __launch_bounds__(THREADS, G == 1 ? 2 : 1) few4_70_kernel(const __grid_constant__ args4_70 of) {
    extern __shared__ uint4 memory[];
    const args &a = of.a;
    const rv_four &q = of.q;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, seat = seat_of(lane), pair = pair_of(lane);
    const int32_t from = q.steps * warp / WARPS, to = q.steps * (warp + 1) / WARPS;
    room70 *rooms = (room70 *)memory;
    maps70 &maps = *(maps70 *)(rooms + 2);
    __half *x = (__half *)(&maps + 1), *staged = x + warp * G * STAGED;
    if (threadIdx.x < 16) maps.map[threadIdx.x] = head_of(q).map[threadIdx.x];
    if (q.nested)
        for (int32_t i = 0; i < q.n_parts; i++) maps.nested[i][threadIdx.x] = head_of(q).nested_map[i][threadIdx.x];
    if (SHARED && a.norm) norm_rows<__half>(a, x, &rooms->of[0][0][0]);
    else if (SHARED) share_rows<__half>(a, (uint4 *)x);
    __syncthreads();
    int32_t turn = 0;
    for (int32_t tile = (int32_t)blockIdx.x; tile < a.tiles; tile += (int32_t)gridDim.x) {
        rows70 rows;
        rows.look_up(q, maps, tile);
        for (int32_t n0 = 0; n0 < a.n; n0 += 8 * G) {
            float acc[G][2][8] = {};
            raw70 next;
            if (from < to) next.load(q, rows, tile, from);
#pragma unroll 1
            for (int32_t step = from; step < to; step++) {
                const bool in = step * RV_FOUR_BLOCKS + pair < q.blocks;
                if (!SHARED) {
                    __syncwarp();
#pragma unroll
                    for (int32_t g = 0; g < G; g++) stage_rows(a, n0 + 8 * g, step, staged + g * STAGED);
                    __syncwarp();
                }
                const raw70 raw = next;
                if (step + 1 < to) next.load(q, rows, tile, step + 1);
                products16 table[2];
#pragma unroll
                for (int32_t h = 0; h < 2; h++) table[h].make((const float4 *)maps.map, in ? raw.absmax_of(q, rows, h) : 0.f, __half());
#pragma unroll
                for (int32_t u = 0; u < 8; u++) {
                    uint32_t w[2][4];
#pragma unroll
                    for (int32_t h = 0; h < 2; h++) table[h].decode8(w[h], (&raw.codes[h][u / 4].x)[u % 4]);
#pragma unroll
                    for (int32_t g = 0; g < G; g++) {
                        uint4 b = make_uint4(0, 0, 0, 0);
                        if (!SHARED) b = *(const uint4 *)(staged + g * STAGED + seat * ROW_PITCH + pair * BLOCK_PITCH + u * 8);
                        else if (in && seat < a.n) b = *(const uint4 *)(x + seat * a.cols + step * RV_FOUR_COLS + pair * RV_BLOCK4 + u * 8);
#pragma unroll
                        for (int32_t h = 0; h < 2; h++) {
                            mma4(acc[g][h], w[h][0], w[h][1], b.x, b.y);
                            mma4(acc[g][h], w[h][2], w[h][3], b.z, b.w);
                        }
                    }
                }
            }
#pragma unroll
            for (int32_t g = 0; g < G; g++) {
                if (n0 + 8 * g >= a.n) break;
                leave(acc[g], rooms[turn].of[warp]);
                finish70<O, HOW, 8>(a, rooms[turn], tile, n0 + 8 * g);
                turn ^= 1;
            }
        }
    }
}

/* ---- launching ---- */

enum { FIXED = (int)(2 * sizeof(room70) + sizeof(maps70)) };

/* Whether a block may have what G groups take: 7.5 has 64 KB. */
template <int G> static bool has_room() {
    int most = 0;
    return !most_of_block(&most) && most >= FIXED + WARPS * G * STAGED * (int)sizeof(__half);
}

template <typename O, int HOW, int G, bool SHARED> static cudaError_t launch(args4_70 of, int32_t multiprocessors, cudaStream_t stream) {
    auto kernel = few4_70_kernel<O, HOW, G, SHARED>;
    const int32_t blocks = (G == 1 ? 2 : 1) * multiprocessors;
    const int32_t bytes = FIXED + (SHARED ? of.a.n * of.a.cols : WARPS * G * STAGED) * (int32_t)sizeof(__half);
    cudaError_t e = allow_all(kernel);
    of.a.tiles = (of.a.rows + TILE - 1) / TILE;
    const dim3 grid((unsigned)(of.a.tiles < blocks ? of.a.tiles : blocks));
    return e ? e : launch_kernel(kernel, grid, THREADS, (size_t)bytes, false, stream, of);
}

template <typename O, int HOW> static cudaError_t launch_rows(const args4_70 &of, int32_t multiprocessors, cudaStream_t stream) {
    const int32_t n = of.a.n;
    if (of.a.norm || (n <= 8 && n * of.a.cols * (int32_t)sizeof(__half) <= SHARED_X)) return launch<O, HOW, 1, true>(of, multiprocessors, stream);
    if (n <= 8 || !has_room<2>()) return launch<O, HOW, 1, false>(of, multiprocessors, stream);
    return launch<O, HOW, 2, false>(of, multiprocessors, stream);
}

cudaError_t rv_cuda_few4_70(const rv_few *p, const rv_four *q, cudaStream_t stream) {
    const args4_70 of = { { p->x.data, NULL, p->out.data, p->x.ld, p->out.ld, p->bias, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, NULL }, *q };
    const int32_t m = p->multiprocessors;
    if (p->act != RV_F16 || (p->norm && (p->x.rows > RV_CUDA_NORM_ROWS || p->cols > RV_CUDA_NORM_MOST))) return cudaErrorInvalidValue;
    return by_results<__half>(p, [&](auto kind) { return launch_rows<typename decltype(kind)::O, decltype(kind)::HOW>(of, m, stream); });
}

RV_CUDA_CLAMPED(few4_70)
