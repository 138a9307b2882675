/* line90.cuh - what a tile of an LLM.int8 product on Hopper is made of: lines' products.
 *
 * Only code under __CUDA_ARCH_FEAT_SM90_ALL may call these.
 */
#ifndef RV_KERNELS_CUDA_LINE90_CUH
#define RV_KERNELS_CUDA_LINE90_CUH
#include "kernels/cuda/hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* A whole line, four products, of operands in lower halves; N rows of b. */
template <int N> struct line_of {};
#define RV_LINE_STEP(WHAT, REGISTERS, A, B, BY, ADD, TAIL)                                                                                      \
    "add.u32 a, %" A ", " BY "; add.u32 b, %" B ", " BY "; mov.b64 da, {a, " RV_OPERAND_UPPER "}; mov.b64 db, {b, " RV_OPERAND_UPPER "};\n"     \
    "\twgmma.mma_async.sync.aligned." WHAT " {" REGISTERS "}, da, db, " ADD TAIL ";\n"
#define RV_LINE(N, D, T, WHAT, TAIL, REGISTERS, A, B, ADD, ...)                                                                                            \
    template <int SUMS> static __device__ __forceinline__ void line_product(D (&d)[SUMS], uint32_t a, uint32_t b, int32_t add, T, line_of<N>) {                     \
        asm volatile("{.reg .pred add, one; .reg .b32 a, b; .reg .b64 da, db; setp.ne.b32 add, %" ADD ", 0; setp.eq.u32 one, 0, 0;\n"         \
                     RV_LINE_STEP(WHAT, REGISTERS, A, B, "0", "add", TAIL) RV_LINE_STEP(WHAT, REGISTERS, A, B, "2", "one", TAIL)              \
                     RV_LINE_STEP(WHAT, REGISTERS, A, B, "4", "one", TAIL) RV_LINE_STEP(WHAT, REGISTERS, A, B, "6", "one", TAIL) "}"           \
                     : __VA_ARGS__ : "r"(a), "r"(b), "r"(add));                                                                               \
    }
#define RV_I8(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), "+r"(d[i + 7])
#define RV_I32(i) RV_I8(i), RV_I8(i + 8), RV_I8(i + 16), RV_I8(i + 24)
#define RV_LINES(N, ...)                                                                                      \
    RV_LINE(N, float, __nv_bfloat16, "m64n" #N "k16.f32.bf16.bf16", ", 1, 1, 0, 0", __VA_ARGS__)               \
    RV_LINE(N, float, __half, "m64n" #N "k16.f32.f16.f16", ", 1, 1, 0, 0", __VA_ARGS__)
#define RV_LINES_OF_CODES(N, ...) RV_LINE(N, int32_t, int8_t, "m64n" #N "k32.s32.s8.s8", "", __VA_ARGS__)
RV_LINES(128, RV_R64, "64", "65", "66", RV_D32(0), RV_D32(32))
RV_LINES(256, RV_R128, "128", "129", "130", RV_D32(0), RV_D32(32), RV_D32(64), RV_D32(96))
RV_LINES_OF_CODES(32, RV_R16, "16", "17", "18", RV_I8(0), RV_I8(8))
RV_LINES_OF_CODES(48, RV_R24, "24", "25", "26", RV_I8(0), RV_I8(8), RV_I8(16))
RV_LINES_OF_CODES(112, RV_R56, "56", "57", "58", RV_I32(0), RV_I8(32), RV_I8(40), RV_I8(48))
RV_LINES_OF_CODES(128, RV_R64, "64", "65", "66", RV_I32(0), RV_I32(32))
RV_LINES_OF_CODES(208, RV_R104, "104", "105", "106", RV_I32(0), RV_I32(32), RV_I32(64), RV_I8(96))
RV_LINES_OF_CODES(256, RV_R128, "128", "129", "130", RV_I32(0), RV_I32(32), RV_I32(64), RV_I32(96))

/* Whether the phase of a barrier is over, the same in all lanes. */
static __device__ __forceinline__ bool is_over_at(uint32_t bar, uint32_t parity) {
    uint32_t done;
    asm volatile("{.reg .pred done; mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2; selp.b32 %0, 1, 0, done;}" : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    return __all_sync(~0u, done);
}

/* To shared memory of another block, in the background; that block's barrier, which expects as many bytes, knows when they are there.  Both of peer_address. */
static __device__ __forceinline__ void send_to_peer(uint32_t there, int4 v, uint32_t bar) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.s32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(there), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(bar) : "memory");
}
#endif
#endif
