/* gemm90.cu - large products on Hopper whose bias, GELU or residual sum is inside: out = epilogue(x W^T).
 *
 * The one idea: one warpgroup copies blocks of 64 columns of x and W through a ring in shared memory, two multiply
 * them, and what becomes of a sum is decided while it still is in registers.  Every output is the sum over k
 * in ascending order, whatever the tile.
 */
#include "kernels/cuda/gemm90.cuh"

enum { K_BLOCK = LINE / 2 };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

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

template <typename T, typename O, class S, int HOW> static cudaError_t launch(const rv_few *p, bool overlap, cudaStream_t stream) {
    CUtensorMap map_x, map_w;
    cudaError_t e = describe_boxes(&map_x, p->act, p->x.data, p->x.rows, p->cols, p->x.ld, S::BM, LINE);
    if (!e) e = describe_boxes(&map_w, p->act, p->w, p->rows, p->cols, p->cols, S::BN / S::SHARE, LINE);
    if (e) return e;
    const args a = { p->out.data, p->bias, p->row_scale, p->out.ld, p->x.rows, p->rows, parts(p->cols, K_BLOCK), parts(p->x.rows, S::BM * S::SHARE),
                     parts(p->rows, S::BN), p->x.rows > p->rows, p->scale };
    int32_t units = a.tiles_m * a.tiles_n, most = p->multiprocessors / S::SHARE;
    if (units > most) units = most;
    return launch_cluster(gemm90_kernel<T, O, S, HOW>, (unsigned)(units * S::SHARE), S::SHARE, THREADS, S::SHARED_BYTES, overlap, stream, map_x, map_w, a);
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
