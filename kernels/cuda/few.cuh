/* few.cuh - what products with 1 to 64 rows share, whatever their weights are kept as: how tiles are shared out, how
 * rows of activations come into shared memory, and what becomes of the sums.
 *
 * Source: few.cu explains the whole.
 */
#ifndef RV_KERNELS_CUDA_FEW_CUH
#define RV_KERNELS_CUDA_FEW_CUH
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/checked.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/results.cuh"

enum { WARPS = 8, THREADS = WARPS * 32, TILE = 16, DEPTH = 64 /* k a step: a row's 128 bytes, a memory line */,
       MOST_STAGES = 6, LEAST_STAGES = 2,
       HELD = 16,                                      /* of a row that is normed, a thread's in registers        */
       SHARED_X = 32 << 10 };                          /* bytes of activations worth room that weights could have */

/* Blocks that share a multiprocessor, where launches overlap. */
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 900
enum { BLOCKS_AT_ONCE = 1 };
#else
enum { BLOCKS_AT_ONCE = 2 };
#endif

struct args {
    const void *x, *w;
    void *out;
    int64_t x_ld, out_ld;
    const float *bias, *row_scale, *norm;
    float scale, eps;
    int32_t n, rows, cols, tiles, stages;
    int32_t *turn;                       /* tiles taken beyond the first round, blocks that are done; NULL: every block walks over its own */
};

/* Weights are read once: they should not drive anything else out of the L2 cache. */
static __device__ __forceinline__ uint64_t read_once() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
static __device__ __forceinline__ void copy16_once(uint32_t to, const void *from, bool valid, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0), "l"(policy) : "memory");
}

/* Where 16-byte column c of a row lies in its line, so that no two lanes meet in a bank. */
static __device__ __forceinline__ int32_t w_column(int32_t row, int32_t c) { return c ^ (row & 1) * 4; }

/* ---- which tiles ---- */

/* A block's tiles: the i-th is of[i % 4].  While the i-th is worked on, the next one is known, and the one after being
 * taken: by the block's last thread, since a whole tile hides how long that takes. */
struct tile_queue {
    int32_t of[4];
    static __device__ __forceinline__ bool takes() { return threadIdx.x == THREADS - 1; }
    static __device__ __forceinline__ int32_t take(const args &a, int32_t i) {
        return (int32_t)gridDim.x * (a.turn ? 1 : i) + (a.turn ? atomicAdd(a.turn, 1) : (int32_t)blockIdx.x);
    }
    /* The last block to be done leaves both counters zero. */
    static __device__ __forceinline__ void done(const args &a) {
        if (!a.turn || !takes()) return;
        __threadfence();
        if (atomicAdd(a.turn + 1, 1) == (int32_t)gridDim.x - 1) a.turn[0] = a.turn[1] = 0;
    }
};

/* Waits until of the groups copied so far all but the newest stages - 1 have come. */
static __device__ __forceinline__ void wait_stage(int32_t stages) {
    switch (stages) {
    case 1: copies_wait<0>(); break;
    case 2: copies_wait<1>(); break;
    case 3: copies_wait<2>(); break;
    case 4: copies_wait<3>(); break;
    case 5: copies_wait<4>(); break;
    default: copies_wait<MOST_STAGES - 1>();
    }
    __syncwarp();
}

/* ---- activations ---- */

/* Code is kept small here: it comes from memory again for every launch, as gigabytes of weights pass in between. */

/* The threads that multiply: the first ones of a block, whatever else it has. */
static __device__ __forceinline__ void meet() { asm volatile(RV_BAR ".sync 1, %0;" ::"n"((int)THREADS) : "memory"); }

/* Sum over them, as block_sum. */
static __device__ __forceinline__ float sum_of_all(float v, float *shared) {
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(~0u, v, m);
    meet();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    meet();
    v = 0;
    for (int32_t w = 0; w < WARPS; w++) v += shared[w];
    return v;
}

/* Rows of x, normed, as act in shared memory [n][cols]: the very operations of rows.cu's norm.
 * To: a pointer, or what looks like one.  ready: waits until x is there. */
template <typename T, typename To, typename R> static __device__ __forceinline__ void norm_rows(const args &a, To to, float *shared, R ready) {
    const int32_t first = (int32_t)threadIdx.x, left = a.cols - first, rest = first + HELD * THREADS;
    const float *const norm = a.norm + first;
    float weight[HELD];
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) weight[i] = i * THREADS < left ? norm[i * THREADS] : 0.f;
    ready();
#pragma unroll 1
    for (int32_t r = 0; r < a.n; r++) {
        const float *x = (const float *)a.x + r * a.x_ld, *const mine = x + first;
        To normed = to;
        normed += r * a.cols + first;
        float v[HELD], square = 0;
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) v[i] = i * THREADS < left ? __ldcg(mine + i * THREADS) - 0.f : 0.f;
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) square += v[i] * v[i];
#pragma unroll 1
        for (int32_t c = rest; c < a.cols; c += THREADS) square += __ldcg(x + c) * __ldcg(x + c);
        float scale = rsqrtf(sum_of_all(square, shared) / (float)a.cols + a.eps);
        T rounded[HELD];
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) v[i] = v[i] * scale * weight[i];
        round_counted(rounded, v);
#pragma unroll
        for (int32_t i = 0; i < HELD; i++)
            if (i * THREADS < left) normed[i * THREADS] = rounded[i];
#pragma unroll 1
        for (int32_t c = rest; c < a.cols; c += THREADS) to[r * a.cols + c] = to_act<T>(__ldcg(x + c) * scale * a.norm[c]);
    }
    meet();
}

/* Rows of x, as they are. */
template <typename T, typename To, typename R> static __device__ __forceinline__ void share_rows(const args &a, To to, R ready) {
    const int32_t pieces = a.cols / 8;
    ready();
#pragma unroll 1
    for (int32_t r = 0; r < a.n; r++, to += pieces) {
        const uint4 *from = (const uint4 *)((const T *)a.x + r * a.x_ld);
#pragma unroll 1
        for (int32_t first = (int32_t)threadIdx.x; first < pieces; first += HELD / 2 * THREADS) {
            uint4 v[HELD / 2];
#pragma unroll
            for (int32_t i = 0; i < HELD / 2; i++)
                if (first + i * THREADS < pieces) v[i] = __ldcg(from + first + i * THREADS);
#pragma unroll
            for (int32_t i = 0; i < HELD / 2; i++)
                if (first + i * THREADS < pieces) to[first + i * THREADS] = v[i];
        }
    }
    meet();
}

/* The same of a launch's first rows. */
template <typename T, typename To> static __device__ __forceinline__ void norm_rows(const args &a, To to, float *shared) { norm_rows<T>(a, to, shared, wait_for_previous); }
template <typename T, typename To> static __device__ __forceinline__ void share_rows(const args &a, To to) { share_rows<T>(a, to, wait_for_previous); }

/* ---- results ---- */

/* SwiGLU, and where it belongs.  Rounded to act first, as the separate product and swiglu do. */
template <typename T, typename O> static __device__ __forceinline__ O gated(float v, float up) {
    const float g = to_f32(to_act<T>(v)), u = to_f32(to_act<T>(up));
    return to_act<O>(silu(g) * u);
}
static __device__ __forceinline__ int32_t gated_column(int32_t row) { return row / (2 * RV_CUDA_GATE_BLOCK) * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK; }

/* Whoever adds, with the same bits. */
static __device__ __forceinline__ float add_scaled(float old, float scale, float by, float v) { return old + scale * by * v; }

template <typename T, typename O, int HOW>
static __device__ __forceinline__ void finish_one(const args &a, int32_t row, int32_t n, float v, float up, float old) {
    if (HOW == rv_few::RV_FEW_SWIGLU) {
        ((O *)a.out)[n * a.out_ld + gated_column(row)] = gated<T, O>(v, up);
        return;
    }
    if (a.bias) v += a.bias[row];
    O *to = (O *)a.out + n * a.out_ld + row;
    if (HOW == rv_few::RV_FEW_GELU) *to = to_act<O>(gelu(v));
    else if (HOW == rv_few::RV_FEW_STORE) *to = to_act<O>(v);
    else {
        float by = a.row_scale ? a.row_scale[n] : 1.f;
        if (by != 0.f) *(float *)to = add_scaled(old, a.scale, by, v);
    }
}

/* The warps' sums of 8 activation rows, two of these in turn: f32 [warp][row of the tile][8], pairs moved so that a
 * column's reads spread over the banks. */
template <int MT> struct sums_room {
    float of[WARPS][MT * TILE][8];
    static __device__ __forceinline__ int32_t pair(int32_t row, int32_t p) { return (p ^ (row / 4 & 3)) * 2; }
    __device__ __forceinline__ float sum(int32_t row, int32_t n) const {
        const int32_t c = pair(row, n / 2) + n % 2;
        float v = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) v += of[k][row][c];
        return v;
    }
};

/* Adds up the warps' sums of rows n0 .. n0 + 7 and writes what becomes of them. */
template <typename T, typename O, int HOW, int MT>
static __device__ __forceinline__ void finish_tile(const args &a, sums_room<MT> &room, const float (&acc)[MT][4], int32_t tile, int32_t n0) {
    constexpr bool pairs = HOW == rv_few::RV_FEW_SWIGLU;
    constexpr int32_t outputs = pairs ? MT * TILE / 2 : MT * TILE;
    const int32_t i = (int32_t)threadIdx.x, lane = i % 32, g = lane / 4, t = lane % 4, r = i % outputs, n = i / outputs;
    const int32_t in_tile = pairs ? r / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + r % RV_CUDA_GATE_BLOCK : r;
    const int32_t row = tile * MT * TILE + in_tile;
    const bool mine = i < outputs * 8 && n0 + n < a.n && row < a.rows;
#pragma unroll
    for (int32_t m = 0; m < MT; m++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t at = m * TILE + h * 8 + g;
            *(float2 *)&room.of[i / 32][at][room.pair(at, t)] = make_float2(acc[m][h * 2], acc[m][h * 2 + 1]);
        }
    float old = 0;
    if (HOW == rv_few::RV_FEW_ADD && mine) old = __ldcg((const float *)a.out + (n0 + n) * a.out_ld + row);
    __syncthreads();                     /* whoever still reads the other room has not come to its next barrier */
    if (!mine) return;
    float v = room.sum(in_tile, n), up = pairs ? room.sum(in_tile + RV_CUDA_GATE_BLOCK, n) : 0.f;
    finish_one<T, O, HOW>(a, row, n0 + n, v, up, old);
}

/* ---- launching ---- */

/* Blocks are as many as there are multiprocessors, and from three rows on, where their shared memory is half of one's, twice as many if there are tiles for them: the hardware puts
 * a launch's blocks where there is room first, two beside one another while other multiprocessors have none, and sixteen warps wait for less than eight. */
[[maybe_unused]] static int32_t blocks_of(int32_t tiles, int32_t n, bool half, int32_t multiprocessors) {
    const int32_t most = half && n > RV_CUDA_NORM_ROWS && tiles > multiprocessors ? 2 * multiprocessors : multiprocessors;
    return tiles < most ? tiles : most;
}

/* Whether n rows of activations come through the ring, as weights do, instead of being asked for a step ahead, which is less than they are on their way.  Then a block has all of a
 * multiprocessor's shared memory: so not where blocks would not have equally many tiles, unless one has all of it anyway.  One or two rows: the next launch's weights come in beside them. */
[[maybe_unused]] static bool by_ring(int32_t n, int32_t tiles, int32_t multiprocessors) {
    return n > RV_CUDA_NORM_ROWS && (n > 32 || tiles <= multiprocessors || tiles >= 4 * multiprocessors);
}

/* Shared memory that a block may take: half a multiprocessor's where the next launch comes in beside it, else all that a block can have. */
[[maybe_unused]] static cudaError_t room_of(bool half, int32_t *bytes) {
    int device = 0, all = 0, most = 0, reserved = 0;
    cudaError_t e = most_of_block(&most);
    if (!e) e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    if (!e) e = cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device);
    *bytes = half && all / 2 - reserved < most ? all / 2 - reserved : most;
    return e;
}
#endif
