/* many8_70.cu - int8 products with 17 to 64 rows for Volta.
 *
 * The one idea: Volta's tensor cores multiply f16 and add in f32, and with codes as f16 that is exact while sums stay below 2^24: 1,024
 * products of at most 127 * 127.  So every 1,024 columns the sums move to integers.
 *
 * A block has 64 rows of weights and all rows of activations; its 8 warps are two by rows (32 each, 8 a quad pair) and four by
 * columns, whose integers are added in any order.  Codes become f16 on their way to shared memory, a step ahead in registers.
 * By count: 9 loads of 16 bytes from shared memory for 16 products, 288 clocks of it beside 256 of the tensor cores.
 */
#include <algorithm>
#include "kernels/cuda/few8_70.cuh"

enum { ROWS = 64, COLS = 64 /* rows of activations */, STEP = 128, PITCH = STEP + 8 /* halves */, EXACT = 1024 / (STEP / 4) /* steps, of which a warp has a quarter of the columns */, SUM_PITCH = ROWS + 1,
       STAGE = (ROWS + COLS) * PITCH };

/* Four codes as f16: 1024 + 128 + code is a byte under 0x64, for a code whose sign is turned. */
static __device__ __forceinline__ uint2 widened(uint32_t codes) {
    const __half2 bias = __float2half2_rn(-1152.f);
    const uint32_t turned = codes ^ 0x80808080u, low = __byte_perm(turned, 0x64646464u, 0x4140), high = __byte_perm(turned, 0x64646464u, 0x4342);
    const __half2 a = __hadd2(*(const __half2 *)&low, bias), b = __hadd2(*(const __half2 *)&high, bias);
    return make_uint2(*(const uint32_t *)&a, *(const uint32_t *)&b);
}

static __device__ __forceinline__ void put(__half *to, uint4 codes) {
    const uint2 a = widened(codes.x), b = widened(codes.y), c = widened(codes.z), d = widened(codes.w);
    ((uint4 *)to)[0] = make_uint4(a.x, a.y, b.x, b.y);
    ((uint4 *)to)[1] = make_uint4(c.x, c.y, d.x, d.y);
}

/* A thread's share of a step, on its way: 32 codes of a row of weights, and of activations. */
struct share8 {
    uint4 w[2], x[2];
    const int8_t *from_w, *from_x;
    int32_t left;                        /* codes from its own on                               */
    __half *to;
    bool has_x;
    __device__ __forceinline__ share8(const args8_70 &g, int32_t row0, __half *stage) {
        const int32_t r = (int32_t)threadIdx.x / 4, c = (int32_t)threadIdx.x % 4 * 32, row = row0 + r < g.a.rows ? row0 + r : g.a.rows - 1;
        has_x = r < g.a.n;
        from_w = (const int8_t *)g.a.w + (int64_t)row * g.pitch + c;
        from_x = g.codes + (int64_t)(has_x ? r : 0) * g.pitch + c;
        left = g.pitch - c;
        to = stage + r * PITCH + c;
    }
    __device__ __forceinline__ void load() {
#pragma unroll
        for (int32_t i = 0; i < 2; i++) {
            const bool in = i * 16 < left;
            w[i] = in ? load_passing(from_w + i * 16) : make_uint4(0, 0, 0, 0);
            x[i] = in && has_x ? *(const uint4 *)(from_x + i * 16) : make_uint4(0, 0, 0, 0);
        }
        from_w += STEP;
        from_x += STEP;
        left -= STEP;
    }
    __device__ __forceinline__ void store() const {
#pragma unroll
        for (int32_t i = 0; i < 2; i++) {
            put(to + i * 16, w[i]);
            put(to + ROWS * PITCH + i * 16, x[i]);
        }
    }
};

/* Which of a warp's 32 rows a lane brings: so that no eight lanes that read together meet in a bank. */
static __device__ __forceinline__ int32_t row_of(int32_t pair, int32_t seat) { return seat % 4 + pair % 2 * 4 + seat / 4 * 8 + pair / 2 * 16; }

/* The block's sums, to memory[activation row][row of weights], integers. */
static __device__ __forceinline__ void add_sums(const int32_t (&sums)[COLS / 8][8], int32_t *to, int32_t first) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t j = 0; j < COLS / 8; j++)
#pragma unroll
        for (int32_t i = 0; i < 8; i++)
            atomicAdd(to + (8 * j + sum_column(lane, i)) * SUM_PITCH + first + row_of(pair_of(lane), sum_row(lane, i)), sums[j][i]);
}

template <typename O, int HOW> static __device__ __forceinline__ void finish_block(const args8_70 &g, const int32_t *sums, int32_t row0) {
    constexpr bool pairs = HOW == rv_few::RV_FEW_SWIGLU;
    constexpr int32_t outputs = pairs ? ROWS / 2 : ROWS;
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < outputs * g.a.n; i += THREADS) {
        const int32_t n = i / outputs, o = i % outputs, r = pairs ? o / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + o % RV_CUDA_GATE_BLOCK : o, row = row0 + r;
        if (row >= g.a.rows) continue;
        const float v = value70(g, g.rows, row, n, sums[n * SUM_PITCH + r], g.w_scale[row]);
        float up = 0, old = 0;
        if (pairs) up = value70(g, g.rows, row + RV_CUDA_GATE_BLOCK, n, sums[n * SUM_PITCH + r + RV_CUDA_GATE_BLOCK], g.w_scale[row + RV_CUDA_GATE_BLOCK]);
        if (HOW == rv_few::RV_FEW_ADD) old = ((const float *)g.a.out)[n * g.a.out_ld + row];
        finish_one<__half, O, HOW>(g.a, row, n, v, up, old);
    }
}

template <typename O, int HOW> static __global__ void __launch_bounds__(THREADS) many8_70_kernel(const args8_70 g) {
    extern __shared__ uint4 memory[];
    __half *const stage = (__half *)memory;
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, row0 = (int32_t)blockIdx.x * ROWS, steps = (g.pitch + STEP - 1) / STEP;
    const __half *const a = stage + (warp % 2 * 32 + row_of(pair_of(lane), seat_of(lane))) * PITCH + warp / 2 * (STEP / 4);
    const __half *const b = stage + (ROWS + seat_of(lane)) * PITCH + warp / 2 * (STEP / 4);
    int32_t sums[COLS / 8][8] = {};
    float acc[COLS / 8][8] = {};
    share8 share(g, row0, stage);
    share.load();
#pragma unroll 1
    for (int32_t step = 0; step < steps; step++) {
        __syncthreads();                 /* all have read the step before                       */
        share.store();
        __syncthreads();
        if (step + 1 < steps) share.load();
#pragma unroll
        for (int32_t c = 0; c < STEP / 4; c += 8) {
            const uint4 p = *(const uint4 *)(a + c);
#pragma unroll
            for (int32_t j = 0; j < COLS / 8; j++) {
                const uint4 x = *(const uint4 *)(b + 8 * j * PITCH + c);
                mma4(acc[j], p.x, p.y, x.x, x.y);
                mma4(acc[j], p.z, p.w, x.z, x.w);
            }
        }
        if ((step + 1) % EXACT && step + 1 < steps) continue;
#pragma unroll
        for (int32_t j = 0; j < COLS / 8; j++)
#pragma unroll
            for (int32_t i = 0; i < 8; i++) {
                sums[j][i] += __float2int_rn(acc[j][i]);
                acc[j][i] = 0;
            }
    }
    int32_t *const all = (int32_t *)memory;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < COLS * SUM_PITCH; i += THREADS) all[i] = 0;
    __syncthreads();
    add_sums(sums, all, warp % 2 * 32);
    __syncthreads();
    finish_block<O, HOW>(g, all, row0);
}

template <typename O, int HOW> static cudaError_t launch(const args8_70 &g, cudaStream_t stream) {
    const size_t bytes = std::max((size_t)STAGE * sizeof(__half), (size_t)COLS * SUM_PITCH * sizeof(int32_t));
    return launch_kernel(many8_70_kernel<O, HOW>, dim3((unsigned)((g.a.rows + ROWS - 1) / ROWS)), THREADS, bytes, false, stream, g);
}

cudaError_t many8_70(const rv_few *p, const args8_70 &g, cudaStream_t stream) {
    return by_results<__half>(p, [&](auto kind) { return launch<typename decltype(kind)::O, decltype(kind)::HOW>(g, stream); });
}

RV_CUDA_CLAMPED(many8_70)
