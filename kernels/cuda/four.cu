/* four.cu - how weights of 4 bits come to lie as four.h says: quantised, repacked or read back.
 *
 * The one idea: a warp has a block of 64 weights, a byte of codes a lane; whatever it computes follows engine/base/quant.c
 * operation for operation, so that codes, absmaxes and offsets are the same everywhere.
 */
#include "kernels/cuda/few4.cuh"
#include "kernels/cuda/launch.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

/* ---- places ---- */

/* Byte `i` of the codes of a row's block. */
static __device__ __forceinline__ char *code_at(const rv_four &q, int32_t row, int32_t block, int32_t i) {
    const int32_t in = row % RV_FOUR_ROWS, b = block % RV_FOUR_BLOCKS, lane = in % 8 * 4 + b;
    return record_of(q, row / RV_FOUR_ROWS, block / RV_FOUR_BLOCKS) + (in / 8 * 2 + i / 16) * 512 + lane * 16 + i % 16;
}
/* Its absmax. */
static __device__ __forceinline__ char *absmax_at(const rv_four &q, int32_t row, int32_t block) {
    const int32_t in = row % RV_FOUR_ROWS, i = (in % 8 * 4 + block % RV_FOUR_BLOCKS) * 2 + in / 8;
    return record_of(q, row / RV_FOUR_ROWS, block / RV_FOUR_BLOCKS) + RV_FOUR_CODES + (q.nested ? i : i * (int32_t)sizeof(float));
}

/* Calls work(row of the part, block of the row) for every block of rows [from, from + n), a warp each. */
template <typename F> static __device__ __forceinline__ void each_block(const rv_four &q, int32_t from, int32_t n, F work) {
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t i = (int32_t)blockIdx.x * WARPS + (int32_t)threadIdx.x / 32; i < n * q.blocks; i += warps) work(from + i / q.blocks, i % q.blocks);
}
static unsigned blocks_for(const rv_four *q, int32_t n) {
    const int64_t blocks = ((int64_t)n * q->blocks + WARPS - 1) / WARPS;
    return (unsigned)(blocks < 4096 ? blocks : 4096);
}

/* ---- quantising ---- */

static __device__ __forceinline__ float2 two_of(const float *in, int64_t at) { return make_float2(in[at], in[at + 1]); }
static __device__ __forceinline__ float2 two_of(const __half *in, int64_t at) { return make_float2(__half2float(in[at]), __half2float(in[at + 1])); }
static __device__ __forceinline__ float2 two_of(const __nv_bfloat16 *in, int64_t at) { return make_float2(__bfloat162float(in[at]), __bfloat162float(in[at + 1])); }

struct thresholds { float of[15]; };

static __device__ __forceinline__ uint32_t nf4_code(const thresholds &t, float x) {
    uint32_t code = 0;
#pragma unroll
    for (int32_t i = 0; i < 15; i++) code += x > t.of[i];                    /* NaN: 0 */
    return code;
}

template <typename I>
static __global__ void __launch_bounds__(THREADS) quantise_kernel(const __grid_constant__ rv_four q, int32_t part, const I *in,
                                        int32_t from, int32_t n, float *absmax,
                                                                  const __grid_constant__ thresholds t) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    each_block(q, from, n, [&](int32_t r, int32_t block) {
        const float2 v = two_of(in, (int64_t)(r - from) * q.cols + block * RV_BLOCK4 + lane * 2);
        float most = fmaxf(fmaxf(0.f, fabsf(v.x)), fabsf(v.y));              /* fmaxf ignores NaN */
        for (int32_t m = 16; m; m >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, m));
        const float by = __frcp_rn(most);
        const int32_t row = row_of_part(q, part, r);
        *code_at(q, row, block, lane) = (char)(nf4_code(t, __fmul_rn(v.x, by)) << 4 | nf4_code(t, __fmul_rn(v.y, by)));
        if (lane == 0) *(absmax ? absmax + (int64_t)r * q.blocks + block : (float *)absmax_at(q, row, block)) = most;
    });
}

cudaError_t rv_cuda_four_quantise(const rv_four *q, int32_t part, const void *in, rv_dtype type, int32_t from, int32_t n, float *absmax, cudaStream_t stream) {
    const unsigned grid = blocks_for(q, n);
    thresholds t;
    memcpy(t.of, rv_nf4_threshold, sizeof t.of);
    if (type == RV_F32) quantise_kernel<<<grid, THREADS, 0, stream>>>(*q, part, (const float *)in, from, n, absmax, t);
    else if (type == RV_F16) quantise_kernel<<<grid, THREADS, 0, stream>>>(*q, part, (const __half *)in, from, n, absmax, t);
    else quantise_kernel<<<grid, THREADS, 0, stream>>>(*q, part, (const __nv_bfloat16 *)in, from, n, absmax, t);
    return cudaGetLastError();
}

/* ---- absmaxes that are themselves quantised ---- */

struct nested_codes { float of[256]; };

/* The sum of each run of absmaxes, one after the other in f64. */
static __global__ void __launch_bounds__(RV_NESTED_BLOCK) sums_kernel(const float *absmax, int32_t n, double *sums) {
    __shared__ float run[RV_NESTED_BLOCK];
    const int32_t from = (int32_t)blockIdx.x * RV_NESTED_BLOCK, i = (int32_t)threadIdx.x;
    run[i] = from + i < n ? absmax[from + i] : 0.f;
    __syncthreads();
    if (i) return;
    double sum = 0;
    for (int32_t j = 0; j < RV_NESTED_BLOCK && from + j < n; j++) sum += (double)run[j];
    sums[blockIdx.x] = sum;
}

/* Their sum in order, and the mean. */
static __global__ void __launch_bounds__(THREADS) mean_kernel(const double *sums, int32_t runs, int32_t n, float *offset) {
    __shared__ double some[THREADS];
    double sum = 0;
    for (int32_t from = 0; from < runs; from += THREADS) {
        const int32_t i = from + (int32_t)threadIdx.x;
        __syncthreads();
        some[threadIdx.x] = i < runs ? sums[i] : 0;
        __syncthreads();
        if (threadIdx.x == 0)
            for (int32_t j = 0; j < THREADS && from + j < runs; j++) sum += some[j];
    }
    if (threadIdx.x == 0) *offset = (float)(sum / (double)n);
}

/* quant.c's nearest_nested. */
static __device__ __forceinline__ uint8_t nearest_nested(const float *map, float x) {
    int32_t pivot = 127, low = 0, high = 255;
    float value = map[pivot], below = -1.f, above = 1.f;
    for (int32_t step = 64; step > 0; step >>= 1) {
        if (x > value) low = pivot, below = value, pivot += step;
        else high = pivot, above = value, pivot -= step;
        value = map[pivot];
    }
    if (high == 255) above = map[255];
    if (low == 0) below = map[0];
    if (x > value) return (uint8_t)(x > __fmul_rn(__fadd_rn(above, value), 0.5f) ? high : pivot);
    return (uint8_t)(x < __fmul_rn(__fadd_rn(below, value), 0.5f) ? low : pivot);
}

/* A run: its scale, and its codes to their places. */
static __global__ void __launch_bounds__(RV_NESTED_BLOCK) nest_kernel(const __grid_constant__ rv_four q, int32_t part, const float *absmax,
                                        int32_t n, const __grid_constant__ nested_codes codes) {
    __shared__ float map[256], largest[RV_NESTED_BLOCK / 32];
    const int32_t i = (int32_t)threadIdx.x, at = (int32_t)blockIdx.x * RV_NESTED_BLOCK + i;
    map[i] = codes.of[i];
    const float d = at < n ? __fsub_rn(absmax[at], head_of(q).offset[part]) : 0.f;
    float most = fmaxf(0.f, fabsf(d));
    for (int32_t m = 16; m; m >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, m));
    if (i % 32 == 0) largest[i / 32] = most;
    __syncthreads();
    for (int32_t w = 0; w < RV_NESTED_BLOCK / 32; w++) most = fmaxf(most, largest[w]);
    if (i == 0) scales_of(q, part)[blockIdx.x] = most;
    if (at >= n) return;
    const uint8_t code = most > 0.f ? nearest_nested(map, __fmul_rn(d, __frcp_rn(most))) : 127;
    *(uint8_t *)absmax_at(q, row_of_part(q, part, at / q.blocks), at % q.blocks) = code;
}

cudaError_t rv_cuda_four_nest(const rv_four *q, int32_t part, const float *absmax, double *sums, cudaStream_t stream) {
    const int32_t n = q->part_rows[part] * q->blocks, runs = rv_four_runs(q, part);
    nested_codes codes;
    memcpy(codes.of, rv_nested_map, sizeof codes.of);
    sums_kernel<<<(unsigned)runs, RV_NESTED_BLOCK, 0, stream>>>(absmax, n, sums);
    mean_kernel<<<1, THREADS, 0, stream>>>(sums, runs, n, ((rv_four_head *)q->memory)->offset + part);
    nest_kernel<<<(unsigned)runs, RV_NESTED_BLOCK, 0, stream>>>(*q, part, absmax, n, codes);
    return cudaGetLastError();
}

/* ---- codes of a checkpoint ---- */

static __global__ void __launch_bounds__(THREADS) place_kernel(const __grid_constant__ rv_four q, int32_t part, const uint8_t *codes,
                                        const void *absmax, int32_t from, int32_t n) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    each_block(q, from, n, [&](int32_t r, int32_t block) {
        const int32_t row = row_of_part(q, part, r);
        const int64_t at = (int64_t)(r - from) * q.blocks + block;
        *code_at(q, row, block, lane) = (char)codes[at * (RV_BLOCK4 / 2) + lane];
        if (lane) return;
        if (q.nested) *(uint8_t *)absmax_at(q, row, block) = ((const uint8_t *)absmax)[at];
        else *(float *)absmax_at(q, row, block) = ((const float *)absmax)[at];
    });
}

cudaError_t rv_cuda_four_place(const rv_four *q, int32_t part, const void *codes, const void *absmax, int32_t from, int32_t n, cudaStream_t stream) {
    place_kernel<<<blocks_for(q, n), THREADS, 0, stream>>>(*q, part, (const uint8_t *)codes, absmax, from, n);
    return cudaGetLastError();
}

struct map4 { float of[16]; };

template <typename T>
static __global__ void __launch_bounds__(THREADS) unpack_kernel(const __grid_constant__ rv_four q, int32_t part, T *out,
                                        const uint8_t *codes, const float *absmax, const __grid_constant__ map4 given, int32_t from,
                                                                int32_t n) {
    __shared__ float map[16];
    if (threadIdx.x < 16) map[threadIdx.x] = given.of[threadIdx.x];
    __syncthreads();
    const int32_t lane = (int32_t)threadIdx.x % 32;
    each_block(q, from, n, [&](int32_t r, int32_t block) {
        const int64_t at = (int64_t)(r - from) * q.blocks + block;
        const uint8_t pair = codes[at * (RV_BLOCK4 / 2) + lane];
        *(uint32_t *)(out + (int64_t)row_of_part(q, part, r) * q.cols + block * RV_BLOCK4 + lane * 2) =
            pack2(__fmul_rn(map[pair >> 4], absmax[at]), __fmul_rn(map[pair & 15], absmax[at]), T());
    });
}

cudaError_t rv_cuda_four_unpack(const rv_four *q, int32_t part, void *out, rv_dtype act, const void *codes, const float *absmax, const float map[16],
                                int32_t from, int32_t n, cudaStream_t stream) {
    map4 given;
    memcpy(given.of, map, sizeof given.of);
    if (act == RV_BF16) unpack_kernel<<<blocks_for(q, n), THREADS, 0, stream>>>(*q, part, (__nv_bfloat16 *)out, (const uint8_t *)codes, absmax, given, from, n);
    else unpack_kernel<<<blocks_for(q, n), THREADS, 0, stream>>>(*q, part, (__half *)out, (const uint8_t *)codes, absmax, given, from, n);
    return cudaGetLastError();
}

/* ---- rows of activations ---- */

/* A thread has one of a record's 16 parts: 32 bytes. */
template <rv_four_order ORDER>
static __global__ void __launch_bounds__(THREADS) arrange_kernel(uint4 *out, const char *x, int64_t pitch, int32_t rows, int32_t blocks, int32_t steps) {
    const int32_t parts = steps * 16, all = rows * parts;
    wait_for_previous();
    let_next_start();
    for (int32_t i = (int32_t)(blockIdx.x * THREADS + threadIdx.x); i < all; i += (int32_t)gridDim.x * THREADS) {
        const int32_t row = i / parts, part = i % parts, first = part / 16 * RV_FOUR_BLOCKS, j = part % 16;
        const char *from = x + row * pitch + first * RV_BLOCK4 * 2;
        if constexpr (ORDER == RV_FOUR_BY_EIGHT) {
#pragma unroll
            for (int32_t k = 0; k < 2; k++) {
                const int32_t t = j % 2 * 2 + k;
                out[(int64_t)i * 2 + k] = first + t < blocks ? *(const uint4 *)(from + (t * RV_BLOCK4 + j / 2 * 8) * 2) : make_uint4(0, 0, 0, 0);
            }
        } else {
            uint2 of[RV_FOUR_BLOCKS];
#pragma unroll
            for (int32_t t = 0; t < RV_FOUR_BLOCKS; t++) of[t] = first + t < blocks ? *(const uint2 *)(from + (t * RV_BLOCK4 + j * 4) * 2) : make_uint2(0, 0);
            out[(int64_t)i * 2] = make_uint4(of[0].x, of[1].x, of[2].x, of[3].x);
            out[(int64_t)i * 2 + 1] = make_uint4(of[0].y, of[1].y, of[2].y, of[3].y);
        }
    }
}

cudaError_t rv_cuda_four_arrange(const rv_four *q, rv_mat x, void *to, rv_four_order order, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    const int64_t needed = ((int64_t)x.rows * q->steps * 16 + THREADS - 1) / THREADS, most = 8 * multiprocessors;
    return launch_kernel(order == RV_FOUR_BY_TWO ? arrange_kernel<RV_FOUR_BY_TWO> : arrange_kernel<RV_FOUR_BY_EIGHT>, dim3((unsigned)(needed < most ? needed : most)), THREADS, 0,
                         overlap, stream, (uint4 *)to, (const char *)x.data, (int64_t)x.ld * 2, x.rows, q->blocks, q->steps);
}

/* ---- back to 16 bit ---- */

/* The absmaxes of this lane's two rows in a record, for block t. */
static __device__ __forceinline__ void absmaxes_of(const rv_four &q, float (&absmax)[2], int32_t tile, int32_t step) {
    const int32_t lane = (int32_t)threadIdx.x % 32, block = step * RV_FOUR_BLOCKS + lane % 4, in_row = block < q.blocks ? block : q.blocks - 1;
    const char *at = record_of(q, tile, step) + RV_FOUR_CODES;
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        const int32_t row = tile * RV_FOUR_ROWS + h * 8 + lane / 4;
        const part_row in = part_row_of(q, row < q.rows ? row : q.rows - 1);
        if (!q.nested) absmax[h] = ((const float *)at)[lane * 2 + h];
        else
            absmax[h] = nested_absmax(head_of(q).nested_map[in.part][((const uint8_t *)at)[lane * 2 + h]],
                                      scales_of(q, in.part)[(in.row * q.blocks + in_row) / RV_NESTED_BLOCK], head_of(q).offset[in.part]);
    }
}

/* A warp reads a record after the other and writes rows [from, from + n) of it. */
template <typename T> static __global__ void __launch_bounds__(THREADS) read_kernel(const __grid_constant__ rv_four q, T *out, int32_t from, int32_t n) {
    extern __shared__ uint4 memory[];
    char *table = (char *)memory;
    const int32_t lane = (int32_t)threadIdx.x % 32, tiles = (n + RV_FOUR_ROWS - 1) / RV_FOUR_ROWS, warps = (int32_t)gridDim.x * WARPS;
    uint32_t copy = (uint32_t)(lane % PAIR_COPIES) * 8;
    check_table(table);
    fill_pairs(table, head_of(q).map);
    __syncthreads();
    asm volatile("" : "+r"(copy)::"memory");
    for (int32_t i = (int32_t)blockIdx.x * WARPS + (int32_t)threadIdx.x / 32; i < tiles * q.steps; i += warps) {
        const int32_t tile = from / RV_FOUR_ROWS + i / q.steps, step = i % q.steps;
        const uint4 *codes = (const uint4 *)record_of(q, tile, step) + lane;
        uint4 piece[4];
        float absmax[2];
#pragma unroll
        for (int32_t p = 0; p < 4; p++) piece[p] = __ldcs(codes + p * 32);
        absmaxes_of(q, absmax, tile, step);
#pragma unroll
        for (int32_t p = 0; p < 4; p++) {
            const int32_t row = tile * RV_FOUR_ROWS + p / 2 * 8 + lane / 4, block = step * RV_FOUR_BLOCKS + lane % 4;
            if (row >= from + n || block >= q.blocks) continue;
            uint4 *to = (uint4 *)(out + (int64_t)(row - from) * q.cols + block * RV_BLOCK4 + p % 2 * 32);
#pragma unroll
            for (int32_t u = 0; u < 4; u++) {
                uint32_t w[4];
                decode8<T>(w, table, copy, (&piece[p].x)[u], absmax[p / 2]);
                to[u] = make_uint4(w[0], w[1], w[2], w[3]);
            }
        }
    }
}

template <typename T> static cudaError_t read(const rv_four *q, T *out, int32_t from, int32_t n, int32_t multiprocessors, cudaStream_t stream) {
    const int32_t needed = ((n + RV_FOUR_ROWS - 1) / RV_FOUR_ROWS * q->steps + WARPS - 1) / WARPS, most = 3 * multiprocessors;
    cudaError_t e = cudaFuncSetAttribute(read_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, PAIR_TABLE);
    if (e) return e;
    read_kernel<T><<<(unsigned)(needed < most ? needed : most), THREADS, PAIR_TABLE, stream>>>(*q, out, from, n);
    return cudaGetLastError();
}

cudaError_t rv_cuda_four_read(const rv_four *q, void *out, rv_dtype act, int32_t from, int32_t n, int32_t multiprocessors, cudaStream_t stream) {
    return act == RV_BF16 ? read(q, (__nv_bfloat16 *)out, from, n, multiprocessors, stream) : read(q, (__half *)out, from, n, multiprocessors, stream);
}
