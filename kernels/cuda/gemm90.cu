/* gemm90.cu - large products on Hopper whose bias, GELU or residual sum is inside: out = epilogue(x W^T).
 *
 * The one idea: one warpgroup copies blocks of 64 columns of x and W through a ring in shared memory, two multiply
 * them, and what becomes of a sum is decided while it still is in registers.  Every output is the sum over k
 * in ascending order, whatever the tile.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"

enum { K_BLOCK = 64, GROUP = 128, THREADS = 3 * GROUP, RING_BYTES = 226 * 1024 };

/* PAIRED: both warpgroups multiply the two halves of one tile; else each has a tile of its own and writes it while
 * the other multiplies.  SHARE blocks of a cluster have tiles one below the other and copy their part of
 * the weights to all of them. */
template <int ROWS64_, int BN_, bool PAIRED_, int SHARE_> struct tiling {
    static constexpr int ROWS64 = ROWS64_, BN = BN_, SHARE = SHARE_;
    static constexpr bool PAIRED = PAIRED_;
    static constexpr int BM = 64 * ROWS64 * (PAIRED ? 2 : 1);
    static constexpr int A_BYTES = BM * K_BLOCK * 2, B_BYTES = BN * K_BLOCK * 2, STAGE_BYTES = A_BYTES + B_BYTES;
    static constexpr int STAGES = RING_BYTES / STAGE_BYTES < 8 ? RING_BYTES / STAGE_BYTES : 8;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + 1024;
};

struct args {
    void *out;
    const float *bias, *row_scale;
    int64_t out_ld;
    int32_t rows, cols;                  /* of out                                              */
    int32_t k_blocks, tiles_m, tiles_n;  /* tiles_m: of the whole cluster                       */
    bool n_first;                        /* neighbours in time share rows of x                  */
    float scale;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* x / 2 erfc(-x / sqrt 2), with log2 erfc(|x| / sqrt 2) as a polynomial (minimax, weighted by the error of the result): a third
 * of erff's instructions.  Off by 1e-7 of the larger of 1 and |x| at most, and in the negative tail, where 1 + erff cancels, by 2e-4 of the value. */
static __device__ __forceinline__ float gelu(float x) {
    const float a = fabsf(x);
    float p = -2.824083594532567e-06f, r;
    p = fmaf(p, a, 3.926775752916001e-05f);
    p = fmaf(p, a, -0.00018574355635792017f);
    p = fmaf(p, a, -0.00013780276640318334f);
    p = fmaf(p, a, 0.00706432806327939f);
    p = fmaf(p, a, -0.052496664226055145f);
    p = fmaf(p, a, -0.45920807123184204f);
    p = fmaf(p, a, -1.1511051654815674f) * a;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(p));
    return 0.5f * x * (x < 0.f ? r : 2.f - r);
}

/* Between four lanes, of which this has number q: pair i of v becomes lane i's pair q. */
static __device__ __forceinline__ void transpose(float (&v)[8], unsigned q) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool high = q & (unsigned)bit;
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i / 2 & bit)) {
                float &low = v[i], &up = v[i + 2 * bit];
                float got = __shfl_xor_sync(~0u, high ? low : up, bit);
                if (high) low = got;
                else up = got;
            }
    }
}

struct place { int32_t row, col; bool inside; };

/* Eight neighbours of a row of out.  `old`: what ADD adds to. */
template <typename O, int HOW> static __device__ __forceinline__ void finish(const args &a, place p, float (&v)[8], const float (&old)[8]) {
    if (!p.inside) return;
    if (a.bias) {
        float4 b0 = __ldg((const float4 *)(a.bias + p.col)), b1 = __ldg((const float4 *)(a.bias + p.col) + 1);
        v[0] += b0.x, v[1] += b0.y, v[2] += b0.z, v[3] += b0.w, v[4] += b1.x, v[5] += b1.y, v[6] += b1.z, v[7] += b1.w;
    }
    O *to = (O *)a.out + p.row * a.out_ld + p.col;
    if constexpr (HOW == rv_few::RV_FEW_ADD) {
        float by = a.row_scale ? a.scale * a.row_scale[p.row] : a.scale;
        if (a.row_scale && a.row_scale[p.row] == 0.f) return;
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = old[i] + by * v[i];
    }
    if constexpr (HOW == rv_few::RV_FEW_GELU)
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = gelu(v[i]);
    if constexpr (sizeof(O) == 4) {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        *(uint4 *)to = make_uint4(pack2_counted(v[0], v[1], O()), pack2_counted(v[2], v[3], O()), pack2_counted(v[4], v[5], O()),
                                  pack2_counted(v[6], v[7], O()));
    }
}

/* A step of the epilogue: 8 outputs of each of two rows a thread, from four blocks of 8 columns. */
template <typename O, class S, int HOW> struct epilogue {
    static constexpr int STEPS = S::BN / 32, ALL = S::ROWS64 * STEPS;
    const args &a;
    int32_t row0, col0;                  /* of the warp's sums                                  */
    unsigned lane;

    __device__ __forceinline__ place at(int step, int half) const {
        place p = { row0 + step / STEPS * 64 + half * 8 + (int32_t)(lane / 4), col0 + step % STEPS * 32 + (int32_t)(lane % 4) * 8, false };
        p.inside = p.row < a.rows && p.col < a.cols;
        return p;
    }
    __device__ __forceinline__ void load_old(int step, float (&old)[2][8]) const {
        if constexpr (HOW == rv_few::RV_FEW_ADD) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                place p = at(step, half);
                if (!p.inside) continue;
                const float4 *from = (const float4 *)((const float *)a.out + p.row * a.out_ld + p.col);
                float4 lo = from[0], hi = from[1];
                old[half][0] = lo.x, old[half][1] = lo.y, old[half][2] = lo.z, old[half][3] = lo.w;
                old[half][4] = hi.x, old[half][5] = hi.y, old[half][6] = hi.z, old[half][7] = hi.w;
            }
        }
    }
    /* Sum i of four of a block: row half i / 2, column 2 (lane % 4) + i % 2. */
    __device__ __forceinline__ void finish_step(int step, const float (&sums)[S::BN / 2], const float (&old)[2][8]) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = sums[(step % STEPS * 4 + i / 2) * 4 + half * 2 + i % 2];
            transpose(v, lane % 4);
            finish<O, HOW>(a, at(step, half), v, old[half]);
        }
    }
};

/* What a tile's place in the sequence says: its first row in x and in W. */
template <class S> static __device__ __forceinline__ void tile_at(const args &a, int32_t unit, uint32_t rank, int32_t *m, int32_t *n) {
    int32_t tm = a.n_first ? unit / a.tiles_n : unit % a.tiles_m, tn = a.n_first ? unit % a.tiles_n : unit / a.tiles_m;
    *m = (tm * S::SHARE + (S::SHARE > 1 ? (int32_t)rank : 0)) * S::BM;
    *n = tn * S::BN;
}

template <class S> struct ring {
    uint8_t *data;
    uint64_t *full, *empty;
    __device__ __forceinline__ uint8_t *stage(uint32_t at) const { return data + at % S::STAGES * S::STAGE_BYTES; }
    __device__ __forceinline__ uint32_t parity(uint32_t at) const { return at / S::STAGES & 1; }
    __device__ __forceinline__ uint64_t *filled(uint32_t at) const { return full + at % S::STAGES; }
    __device__ __forceinline__ uint64_t *free(uint32_t at) const { return empty + at % S::STAGES; }
    /* One warp has read what step `at` brought. */
    __device__ __forceinline__ void release(uint32_t at) const {
        if (S::SHARE == 1) {
            if (threadIdx.x % 32 == 0) barrier_arrive(free(at));
        } else if (threadIdx.x % 32 < S::SHARE) barrier_arrive_at(free(at), threadIdx.x % 32);
    }
};

template <class S>
static __device__ __forceinline__ void produce(const args &a, const ring<S> &r, const CUtensorMap *map_a, const CUtensorMap *map_b, uint32_t rank) {
    constexpr int PART = S::BN / S::SHARE;
    uint32_t at = 0;
    for (int32_t unit = (int32_t)blockIdx.x / S::SHARE; unit < a.tiles_m * a.tiles_n; unit += (int32_t)gridDim.x / S::SHARE) {
        int32_t m, n;
        tile_at<S>(a, unit, rank, &m, &n);
        for (int32_t k = 0; k < a.k_blocks; k++, at++) {
            barrier_wait(r.free(at), r.parity(at) ^ 1);
            barrier_expect(r.filled(at), S::STAGE_BYTES);
            copy_box(r.stage(at), map_a, k * K_BLOCK, m, r.filled(at));
            uint8_t *b = r.stage(at) + S::A_BYTES;
            if (S::SHARE == 1) copy_box(b, map_b, k * K_BLOCK, n, r.filled(at));
            else copy_box_to_all(b + rank * PART * K_BLOCK * 2, map_b, k * K_BLOCK, n + (int32_t)rank * PART, r.filled(at), (1 << S::SHARE) - 1);
        }
    }
    let_next_start();
}

/* The warpgroups of unpaired tiles read the ring by turns: a barrier's parity tells one step from the one before only,
 * so nobody may wait for a step before the other has seen all of his. */
static __device__ __forceinline__ void await_turn(uint32_t turn) { asm volatile("bar.sync %0, %1;" ::"r"(2 + turn % 2), "n"(2 * GROUP) : "memory"); }
static __device__ __forceinline__ void pass_turn(uint32_t turn) { asm volatile("bar.arrive %0, %1;" ::"r"(2 + (turn + 1) % 2), "n"(2 * GROUP) : "memory"); }

/* pass: there is a next turn. */
template <typename T, class S>
static __device__ __forceinline__ void multiply(float (&acc)[S::ROWS64][S::BN / 2], const ring<S> &r, uint32_t turn, int32_t k_blocks, int group, bool pass) {
    const int half = S::PAIRED ? group * S::ROWS64 * 64 * K_BLOCK * 2 : 0;
    uint32_t at = turn * (uint32_t)k_blocks;
    if (!S::PAIRED && turn) await_turn(turn);
    for (int32_t k = 0; k < k_blocks; k++, at++) {
        barrier_wait(r.filled(at), r.parity(at));
        const uint64_t pa = operand(r.stage(at) + half), pb = operand(r.stage(at) + S::A_BYTES);
        product_begin();
#pragma unroll
        for (int k16 = 0; k16 < K_BLOCK / 16; k16++)
#pragma unroll
            for (int i = 0; i < S::ROWS64; i++)
                product(acc[i], pa + (uint64_t)(i * 64 * K_BLOCK * 2 / 16 + k16 * 2), pb + (uint64_t)(k16 * 2), k | k16, T());
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
        for (int j = 0; j < S::BN / 2; j++) asm volatile("" : "+f"(acc[i][j])::"memory");     /* read no sum before its wait */
}

template <typename T, typename O, class S, int HOW> static __device__ __forceinline__ void consume(const args &a, const ring<S> &r, uint32_t rank) {
    using E = epilogue<O, S, HOW>;
    const int group = (int)threadIdx.x / GROUP - 1;
    const int32_t units = a.tiles_m * a.tiles_n, apart = (int32_t)gridDim.x / S::SHARE;
    uint32_t turn = 0;
    for (int32_t unit = (int32_t)blockIdx.x / S::SHARE; unit < units; unit += apart, turn++) {
        if (!S::PAIRED && turn % 2 != (uint32_t)group) continue;
        float acc[S::ROWS64][S::BN / 2], old[2][2][8];
        int32_t m, n;
        multiply<T, S>(acc, r, turn, a.k_blocks, group, unit + apart < units);
        tile_at<S>(a, unit, rank, &m, &n);
        const E e = { a, m + (S::PAIRED ? group * S::ROWS64 * 64 : 0) + (int32_t)threadIdx.x % GROUP / 32 * 16, n, threadIdx.x % 32 };
        e.load_old(0, old[0]);
#pragma unroll
        for (int step = 0; step < E::ALL; step++) {
            if (step + 1 < E::ALL) e.load_old(step + 1, old[(step + 1) % 2]);      /* in flight while this one is finished */
            e.finish_step(step, acc[step / E::STEPS], old[step % 2]);
        }
    }
}
#endif

template <typename T, typename O, class S, int HOW>
static __global__ void __launch_bounds__(THREADS, 1)
gemm90_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args a) {
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
        if (threadIdx.x == 0) produce<S>(a, r, &map_a, &map_b, rank);
        __syncwarp();
    } else {
        take_registers<232>();
        consume<T, O, S, HOW>(a, r, rank);
    }
    if (S::SHARE > 1) cluster_meet();              /* nobody leaves while its shared memory is written or read */
#endif
}

/* ---- launching ---- */

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Boxes of `box` rows by 64 columns; what lies outside reads as zero. */
static cudaError_t describe(CUtensorMap *map, rv_dtype type, const void *data, int32_t rows, int32_t cols, int64_t ld, int box) {
    void *found = NULL;
    cudaDriverEntryPointQueryResult how;
#if CUDART_VERSION >= 12050
    cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &how);
#else
    cudaError_t e = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &how);
#endif
    if (e || !found) return e ? e : cudaErrorNotSupported;
    const cuuint64_t size[2] = { (cuuint64_t)cols, (cuuint64_t)rows }, stride[1] = { (cuuint64_t)ld * 2 };
    const cuuint32_t boxes[2] = { K_BLOCK, (cuuint32_t)box }, steps[2] = { 1, 1 };
    CUresult r = ((encode_function)found)(map, type == RV_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)data, size, stride,
                                          boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename... P, typename... A>
static cudaError_t launch_cluster(void (*kernel)(P...), unsigned blocks, unsigned cluster, int shared_bytes, bool overlap, cudaStream_t stream, const A &...given) {
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (e) return e;
    cudaLaunchAttribute wanted[2];
    wanted[0].id = cudaLaunchAttributeClusterDimension;
    wanted[0].val.clusterDim.x = cluster;
    wanted[0].val.clusterDim.y = wanted[0].val.clusterDim.z = 1;
    wanted[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    wanted[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = (size_t)shared_bytes;
    config.stream = stream;
    config.attrs = wanted;
    config.numAttrs = overlap ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, given...);
}

static int32_t parts(int32_t n, int32_t of) { return (n + of - 1) / of; }

template <typename T, typename O, class S, int HOW> static cudaError_t launch(const rv_few *p, bool overlap, cudaStream_t stream) {
    CUtensorMap map_x, map_w;
    cudaError_t e = describe(&map_x, p->act, p->x.data, p->x.rows, p->cols, p->x.ld, S::BM);
    if (!e) e = describe(&map_w, p->act, p->w, p->rows, p->cols, p->cols, S::BN / S::SHARE);
    if (e) return e;
    const args a = { p->out.data, p->bias, p->row_scale, p->out.ld, p->x.rows, p->rows, parts(p->cols, K_BLOCK), parts(p->x.rows, S::BM * S::SHARE),
                     parts(p->rows, S::BN), p->x.rows > p->rows, p->scale };
    int32_t units = a.tiles_m * a.tiles_n, most = p->multiprocessors / S::SHARE;
    if (units > most) units = most;
    return launch_cluster(gemm90_kernel<T, O, S, HOW>, (unsigned)(units * S::SHARE), S::SHARE, S::SHARED_BYTES, overlap, stream, map_x, map_w, a);
}

/* ---- the tile of an epilogue ---- */

/* Measured: a store or a GELU is best hidden behind the other warpgroup's tile, in registers that hold it; the residual, which must be
 * read as well, wants the fewest bytes from the L2 cache. */
template <typename T> static cudaError_t launch_any(const rv_few *p, bool overlap, cudaStream_t stream) {
    using wide = tiling<1, 256, true, 2>;
    using apart = tiling<2, 192, false, 1>;
    using apart_small = tiling<2, 128, false, 2>;
    switch (p->how) {
    case rv_few::RV_FEW_STORE:
        return p->out.type == RV_F32 ? launch<T, float, apart, rv_few::RV_FEW_STORE>(p, overlap, stream)
                                     : launch<T, T, apart, rv_few::RV_FEW_STORE>(p, overlap, stream);
    case rv_few::RV_FEW_GELU: return launch<T, T, apart_small, rv_few::RV_FEW_GELU>(p, overlap, stream);
    case rv_few::RV_FEW_ADD: return launch<T, float, wide, rv_few::RV_FEW_ADD>(p, overlap, stream);
    default: return cudaErrorInvalidValue;
    }
}

static bool in_pieces(const void *p, int64_t ld, size_t size) { return (uintptr_t)p % 16 == 0 && (size_t)ld * size % 16 == 0; }

bool rv_cuda_gemm90_fits(const rv_few *p) {
    const bool f32 = p->out.type == RV_F32;
    return !p->norm && p->x.rows > 0 && p->rows > 0 && p->cols > 0 && p->rows % 8 == 0 && p->cols % 8 == 0 &&
           in_pieces(p->x.data, p->x.ld, 2) && in_pieces(p->w, p->cols, 2) && in_pieces(p->out.data, p->out.ld, f32 ? 4 : 2) && (uintptr_t)p->bias % 16 == 0 &&
           (p->how == rv_few::RV_FEW_STORE || (p->how == rv_few::RV_FEW_ADD && f32) || (p->how == rv_few::RV_FEW_GELU && !f32));
}

/* Measured (bench/LOG.md): cuBLASLt streams weights for a few hundred rows and long sums faster; with a pass to follow or in short sums,
 * where the ends of tiles weigh, it loses. */
bool rv_cuda_gemm90_pays(const rv_few *p) {
    if (p->x.rows < 1024) return false;
    if (p->how == rv_few::RV_FEW_GELU) return true;
    if (p->bias || p->row_scale) return p->cols <= 5120;
    return p->cols <= 2048 && (p->how == rv_few::RV_FEW_STORE || p->x.rows >= 4096);
}

cudaError_t rv_cuda_gemm90(const rv_few *p, bool overlap, cudaStream_t stream) {
    return p->act == RV_F16 ? launch_any<__half>(p, overlap, stream) : launch_any<__nv_bfloat16>(p, overlap, stream);
}

RV_CUDA_CLAMPED(gemm90)
