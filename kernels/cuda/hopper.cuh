/* hopper.cuh - sm_90a's own instructions behind plain names: mbarriers, bulk tensor copies, warpgroup products, clusters.
 *
 * Only code under __CUDA_ARCH_FEAT_SM90_ALL may call these.  A stage's barrier counts both arrivals and
 * bytes; `parity` is that of the phase waited for.
 */
#ifndef RV_KERNELS_CUDA_HOPPER_CUH
#define RV_KERNELS_CUDA_HOPPER_CUH
#include <cuda.h>                        /* CUtensorMap; nothing of libcuda is linked           */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/checked.cuh"
#include "kernels/cuda/cuda.h"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- mbarriers ---- */

static __device__ __forceinline__ void barrier_open(uint64_t *bar, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
}
/* After the last barrier_open, before the threads of the cluster meet. */
static __device__ __forceinline__ void barriers_opened() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/* One arrival, and `bytes` of copies to come.  .._at: by address, for loops that have no time to find out where things lie. */
static __device__ __forceinline__ void expect_at(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void barrier_expect(uint64_t *bar, uint32_t bytes) { expect_at(shared_address(bar), bytes); }
static __device__ __forceinline__ void arrive_at(uint32_t bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }
static __device__ __forceinline__ void barrier_arrive(uint64_t *bar) { arrive_at(shared_address(bar)); }
/* At the same barrier of block `rank` of the cluster. */
static __device__ __forceinline__ void barrier_arrive_at(uint64_t *bar, uint32_t rank) {
    asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there];}"
                 ::"r"(shared_address(bar)), "r"(rank) : "memory");
}
/* All lanes have read what the barrier guards, which counts WARP_ARRIVALS of each warp. */
static __device__ __forceinline__ void warp_arrive(uint64_t *bar) {
    __syncwarp();
    if (WARP_ARRIVALS == 32 || threadIdx.x % 32 == 0) barrier_arrive(bar);
}
static __device__ __forceinline__ void wait_at(uint32_t bar, uint32_t parity) {
    asm volatile("{.reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again;}" ::"r"(bar), "r"(parity) : "memory");
}
static __device__ __forceinline__ void barrier_wait(uint64_t *bar, uint32_t parity) { wait_at(shared_address(bar), parity); }

/* Arrives once this thread's copies of cp.async so far have landed; for a barrier that counts every such thread. */
static __device__ __forceinline__ void barrier_arrive_after_copies(uint64_t *bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(bar)) : "memory");
}
/* Between waiting for what other threads wrote and a product that reads it. */
static __device__ __forceinline__ void make_visible_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* At a barrier of another block of the cluster.  there: of peer_address. */
static __device__ __forceinline__ void arrive_at_peer(uint32_t there) { asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory"); }
static __device__ __forceinline__ uint32_t peer_address(uint32_t address, uint32_t rank) {
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

/* ---- shared memory by address ---- */

static __device__ __forceinline__ void put_four(uint32_t to, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
static __device__ __forceinline__ uint32_t get_word(uint32_t from) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
}
static __device__ __forceinline__ void get_pair(uint32_t (&v)[2], uint32_t from) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "r"(from) : "memory");
}
static __device__ __forceinline__ int4 get_four(uint32_t from) {
    int4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(from) : "memory");
    return v;
}
/* Four blocks of 8 x 8 of 16 bit, transposed: lane i has the address of a row of block i / 8. */
static __device__ __forceinline__ void get_transposed(uint32_t (&v)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(from) : "memory");
}
static __device__ __forceinline__ void put_transposed(uint32_t to, const uint32_t (&v)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]) : "memory");
}

/* Two: addresses of lanes 0 to 15. */
static __device__ __forceinline__ void put_two_transposed(uint32_t to, const uint32_t (&v)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(v[0]), "r"(v[1]) : "memory");
}

/* ---- barriers of some of a block's warps, by number ---- */

static __device__ __forceinline__ void group_sync(int32_t number, int32_t threads) {
    asm volatile(RV_BAR ".sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
static __device__ __forceinline__ void group_arrive(int32_t number, int32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
/* Whether x holds for any of them. */
static __device__ __forceinline__ bool group_any(int32_t number, int32_t threads, bool x) {
    int32_t any;
    asm volatile("{.reg .pred x, any; setp.ne.b32 x, %3, 0; " RV_BAR ".red.or.pred any, %1, %2, x; selp.b32 %0, 1, 0, any;}"
                 : "=r"(any) : "r"(number), "r"(threads), "r"((int32_t)x) : "memory");
    return any;
}

/* One lane of a warp that is there as a whole: what it alone does needs no loop over lanes for operands that are the same in all. */
static __device__ __forceinline__ bool elected() {
    uint32_t is;
    asm volatile("{.reg .pred one; elect.sync _|one, 0xffffffff; selp.b32 %0, 1, 0, one;}" : "=r"(is));
    return is != 0;
}

/* ---- clusters ---- */

/* Which of the grid's clusters this block is of, and how many there are: blocks without a cluster are one each. */
static __device__ __forceinline__ uint32_t cluster_number() {
    uint32_t n;
    asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(n));
    return n;
}
static __device__ __forceinline__ uint32_t clusters() {
    uint32_t n;
    asm volatile("mov.u32 %0, %%nclusterid.x;" : "=r"(n));
    return n;
}
static __device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
/* All threads of the cluster meet; what they wrote to shared memory is then seen by all. */
static __device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
/* Where nothing was written that others must see, but barriers behind barriers_opened: without the fence, for which a thread waits until all that it asked of memory is done. */
static __device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }
static __device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
static __device__ __forceinline__ void cluster_meet() {
    cluster_arrive();
    cluster_wait();
}
/* Sees what other blocks of the cluster stored before they arrived, or sent with as many bytes as it expects. */
static __device__ __forceinline__ void barrier_wait_cluster(uint64_t *bar, uint32_t parity) {
    asm volatile("{.reg .pred done; again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1; @!done bra again;}"
                 ::"r"(shared_address(bar)), "r"(parity) : "memory");
}

/* ---- copies: the box at (column, row) of a matrix that `map` describes ---- */

static __device__ __forceinline__ void copy_box_at(uint32_t to, const CUtensorMap *map, int32_t column, int32_t row, uint32_t bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar) : "memory");
}
static __device__ __forceinline__ void copy_box(void *to, const CUtensorMap *map, int32_t column, int32_t row, uint64_t *bar) {
    copy_box_at(shared_address(to), map, column, row, shared_address(bar));
}
/* policy: the L2 cache's. */
static __device__ __forceinline__ void copy_box_once_at(uint32_t to, const CUtensorMap *map, int32_t column, int32_t row, uint32_t bar, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;"
                 ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "l"(policy) : "memory");
}
/* To the same place of every block in `mask`, counted at each one's own barrier. */
static __device__ __forceinline__ void copy_box_to_all_at(uint32_t to, const CUtensorMap *map, int32_t column, int32_t row, uint32_t bar, uint16_t mask) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;"
                 ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "h"(mask) : "memory");
}
static __device__ __forceinline__ void copy_box_to_all(void *to, const CUtensorMap *map, int32_t column, int32_t row, uint64_t *bar, uint16_t mask) {
    copy_box_to_all_at(shared_address(to), map, column, row, shared_address(bar), mask);
}

/* Bytes that follow one another, 16 times something; to and from aligned as much. */
static __device__ __forceinline__ void copy_bytes(void *to, const void *from, int32_t bytes, uint64_t *bar, uint64_t policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
                 ::"r"(shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(bar)), "l"(policy) : "memory");
}

/* ---- registers: a warpgroup gives away what another takes ---- */

template <int N> static __device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> static __device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

/* ---- warpgroup products: d[64 x N] = (add ? d : 0) + a[64 x 16] b[N x 16]^T, both in shared memory ---- */

/* An operand of rows of BYTES (32 or 128: 16 or 64 columns), swizzled by as many, in groups of 8, the whole aligned to 1024;
 * + 2 moves on by 16 columns of 16 bit.  Where the columns are the product's N, it goes on with the next 64 of them
 * `leading` bytes further. */
template <int BYTES = 128> static __device__ __forceinline__ uint64_t operand(const void *p, uint32_t leading = 16) {
    static_assert(BYTES == 32 || BYTES == 128, "a swizzle that is not here");
    return (uint64_t)(shared_address(p) >> 4 & 0x3fff) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(8 * BYTES >> 4) << 32 |
           (BYTES == 128 ? 1ull : 3ull) << 62;
}
/* Where the 16 bytes at `at` of such rows lie. */
template <int BYTES> static __device__ __forceinline__ uint32_t swizzled(uint32_t at) { return at ^ (at >> 3 & (BYTES - 16)); }
/* The same of 128 bytes a row, its lower half; the upper half is the same for all, and lines further on are added to the lower one, in 16 bytes. */
static __device__ __forceinline__ uint32_t operand_at(uint32_t address) { return (address >> 4 & 0x3fff) | 1u << 16; }
#define RV_OPERAND_UPPER "0x40000040"
static __device__ __forceinline__ void product_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> static __device__ __forceinline__ void product_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }

/* Sums belong to a product from its issue to product_wait: the compiler moves no use of x over this. */
template <int N> static __device__ __forceinline__ void pin(float (&x)[N]) {
#pragma unroll
    for (int32_t i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

#define RV_R4 "%0,%1,%2,%3"
#define RV_R8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define RV_R16 RV_R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define RV_R24 RV_R16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define RV_R32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define RV_R56 RV_R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55"
#define RV_R64 RV_R32 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define RV_R96 RV_R64 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define RV_R104 RV_R96 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define RV_R128 RV_R96 \
    ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define RV_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RV_D8(i) RV_D4(i), RV_D4(i + 4)
#define RV_D32(i) RV_D8(i), RV_D8(i + 8), RV_D8(i + 16), RV_D8(i + 24)
#define RV_PRODUCT(N, T, NAME, REGISTERS, A, B, ADD, ...)                                                                                     \
    static __device__ __forceinline__ void product(float (&d)[N / 2], uint64_t a, uint64_t b, int32_t add, T) {                               \
        asm volatile("{.reg .pred add; setp.ne.b32 add, %" ADD ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME           \
                     " {" REGISTERS "}, %" A ", %" B ", add, 1, 1, 0, 0;}" : __VA_ARGS__ : "l"(a), "l"(b), "r"(add));                         \
    }
#define RV_PRODUCTS(N, ...) RV_PRODUCT(N, __nv_bfloat16, "bf16", __VA_ARGS__) RV_PRODUCT(N, __half, "f16", __VA_ARGS__)
RV_PRODUCTS(112, RV_R56, "56", "57", "58", RV_D32(0), RV_D8(32), RV_D8(40), RV_D8(48))
RV_PRODUCTS(128, RV_R64, "64", "65", "66", RV_D32(0), RV_D32(32))
RV_PRODUCTS(192, RV_R96, "96", "97", "98", RV_D32(0), RV_D32(32), RV_D32(64))
RV_PRODUCTS(256, RV_R128, "128", "129", "130", RV_D32(0), RV_D32(32), RV_D32(64), RV_D32(96))

/* ---- d[64 x N] += a[64 x 16], in registers, b in shared memory: [16 x N], N together (weighted), or [N x 16]^T (held) ---- */

#define RV_FROM_REGISTERS(WHAT, TRANSPOSED, N, T, NAME, REGISTERS, A0, A1, A2, A3, B, ...)                                                    \
    static __device__ __forceinline__ void WHAT(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, T) {                                   \
        asm volatile("{.reg .pred add; setp.eq.b32 add, 0, 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME                   \
                     " {" REGISTERS "}, {%" A0 ",%" A1 ",%" A2 ",%" A3 "}, %" B ", add, 1, 1, " TRANSPOSED ";}" : __VA_ARGS__                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                                   \
    }
#define RV_WEIGHTED_OF(N, ...)                                                                \
    RV_FROM_REGISTERS(product_weighted, "1", N, __nv_bfloat16, "bf16", __VA_ARGS__)            \
    RV_FROM_REGISTERS(product_weighted, "1", N, __half, "f16", __VA_ARGS__)
#define RV_HELD_OF(N, ...)                                                                    \
    RV_FROM_REGISTERS(product_held, "0", N, __nv_bfloat16, "bf16", __VA_ARGS__)                \
    RV_FROM_REGISTERS(product_held, "0", N, __half, "f16", __VA_ARGS__)
RV_WEIGHTED_OF(16, RV_R8, "8", "9", "10", "11", "12", RV_D8(0))
RV_WEIGHTED_OF(64, RV_R32, "32", "33", "34", "35", "36", RV_D32(0))
RV_WEIGHTED_OF(128, RV_R64, "64", "65", "66", "67", "68", RV_D32(0), RV_D32(32))
RV_HELD_OF(128, RV_R64, "64", "65", "66", "67", "68", RV_D32(0), RV_D32(32))
RV_HELD_OF(208, RV_R104, "104", "105", "106", "107", "108", RV_D32(0), RV_D32(32), RV_D32(64), RV_D8(96))
RV_HELD_OF(256, RV_R128, "128", "129", "130", "131", "132", RV_D32(0), RV_D32(32), RV_D32(64), RV_D32(96))

/* The same, b as in operand_at. */
#define RV_HELD_AT(N, T, NAME, REGISTERS, A0, A1, A2, A3, B, ...)                                                                             \
    static __device__ __forceinline__ void product_held_at(float (&d)[N / 2], const uint32_t (&a)[4], uint32_t b, T) {                        \
        asm volatile("{.reg .pred add; .reg .b64 db; setp.eq.b32 add, 0, 0; mov.b64 db, {%" B ", " RV_OPERAND_UPPER "};"                      \
                     " wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" REGISTERS "}, {%" A0 ",%" A1 ",%" A2 ",%" A3 "}, db, add, 1, 1, 0;}" \
                     : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));                                                     \
    }
#define RV_HELD_AT_OF(N, ...) RV_HELD_AT(N, __nv_bfloat16, "bf16", __VA_ARGS__) RV_HELD_AT(N, __half, "f16", __VA_ARGS__)
RV_HELD_AT_OF(8, RV_R4, "4", "5", "6", "7", "8", RV_D4(0))
RV_HELD_AT_OF(16, RV_R8, "8", "9", "10", "11", "12", RV_D8(0))
RV_HELD_AT_OF(32, RV_R16, "16", "17", "18", "19", "20", RV_D8(0), RV_D8(8))

/* Operands are computed by now, and not given away before. */
static __device__ __forceinline__ void hold(uint32_t (&a)[4]) {
#pragma unroll
    for (int32_t i = 0; i < 4; i++) asm volatile("" : "+r"(a[i])::"memory");
}
#endif

/* ---- host: what copy_box takes ---- */

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static inline cudaError_t find_encode(encode_function *encode) {
    void *found = NULL;
    cudaError_t e = rv_cuda_driver_entry("cuTensorMapEncodeTiled", &found);
    *encode = (encode_function)found;
    return e;
}

/* Boxes of box_rows by box_bytes, 128 or 32, of a matrix of f16, bf16 or i8, swizzled by their width (`operand`); what lies
 * outside reads as zero. */
static inline cudaError_t describe_boxes(CUtensorMap *map, rv_dtype type, const void *data, int32_t rows, int32_t cols, int64_t ld, int box_rows, int box_bytes) {
    encode_function encode;
    cudaError_t e = find_encode(&encode);
    if (e) return e;
    const cuuint64_t size[2] = { (cuuint64_t)cols, (cuuint64_t)rows }, stride[1] = { (cuuint64_t)ld * rv_dtype_size(type) };
    const cuuint32_t boxes[2] = { (cuuint32_t)(box_bytes / (int)rv_dtype_size(type)), (cuuint32_t)box_rows }, steps[2] = { 1, 1 };
    const CUtensorMapDataType is = type == RV_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : type == RV_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8;
    CUresult r = encode(map, is, 2, (void *)data, size, stride, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        box_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
#endif
