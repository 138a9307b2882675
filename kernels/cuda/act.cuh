/* act.cuh - the two 16-bit types behind one set of names, for templates over T. */
#ifndef RV_KERNELS_CUDA_ACT_CUH
#define RV_KERNELS_CUDA_ACT_CUH
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* How many values this .cu file's kernels have clamped, in the life of the process; RV_CUDA_CLAMPED (saturate.cu) makes it
 * readable. A counter a file, because device code is compiled file by file; it costs f16 kernels a branch that is never
 * taken, and bf16 kernels nothing. */
static __device__ unsigned long long f16_clamped;

#define F16_INFINITE 65520.f             /* the least that rounds to infinity                    */

__device__ __forceinline__ __half clamped_half(float x) { return __float2half_rn(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x); }
static __device__ __forceinline__ void count_clamped(uint32_t n) {
    if (n) atomicAdd(&f16_clamped, (unsigned long long)n);
}

/* f32 -> T, round to nearest even; f16 saturates at +-65504 (NaN stays NaN), and counts what would have become infinite: a branch and some fifteen instructions
 * behind it wherever a value is rounded.  Of many values: round_counted or pack_counted. */
template <typename T> __device__ __forceinline__ T to_act(float x);
template <> __device__ __forceinline__ float to_act<float>(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 to_act<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ __half to_act<__half>(float x) {
    __half h = __float2half_rn(x);
    uint16_t bits = __half_as_ushort(h);
    if (__builtin_expect((bits & 0x7fff) == 0x7c00, 0)) {
        asm volatile("red.relaxed.gpu.global.add.u64 [%0], 1;" ::"l"(__cvta_generic_to_global(&f16_clamped)) : "memory");
        h = __ushort_as_half(--bits);    /* the number before infinity                           */
    }
    return h;
}
#define RV_CUDA_CLAMPED(name) \
    void *rv_cuda_clamped_##name(void) { \
        void *at = NULL; \
        return cudaGetSymbolAddress(&at, f16_clamped) == cudaSuccess ? at : NULL; \
    }
__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f32(__half x) { return __half2float(x); }

/* Two neighbours as the 32-bit register that tensor cores take: low half first; f16 saturates, and NaN stays. For decoded weights, as rv_f32_to_f16, and
 * for attention's weights and means, which cannot leave the range: nothing is counted. */
__device__ __forceinline__ uint32_t pack2(float a, float b, __nv_bfloat16) {
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&v);
}
__device__ __forceinline__ uint32_t pack2(float a, float b, __half) {
#if __CUDA_ARCH__ < 800
    __half2 v = __halves2half2(clamped_half(a), clamped_half(b));
    return *reinterpret_cast<uint32_t *>(&v);
#else
    uint32_t v;
#if __CUDACC_VER_MAJOR__ >= 13
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(b), "f"(a));
#else                                    /* 11.8 has no such conversion                          */
    asm("{ .reg .f32 x, y;\n"
        "min.NaN.f32 x, %1, 0f477fe000;\n"
        "max.NaN.f32 x, x, 0fc77fe000;\n"
        "min.NaN.f32 y, %2, 0f477fe000;\n"
        "max.NaN.f32 y, y, 0fc77fe000;\n"
        "cvt.rn.f16x2.f32 %0, x, y; }" : "=r"(v) : "f"(b), "f"(a));
#endif
    return v;
#endif
}

/* The same of N results, which may: what is too large for f16 is looked for once among all of them, then clamped and counted. */
template <int N> __device__ __forceinline__ void pack_counted(uint32_t (&to)[N / 2], const float (&v)[N], __nv_bfloat16 t) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) to[i] = pack2(v[2 * i], v[2 * i + 1], t);
}
template <int N> __device__ __forceinline__ void pack_counted(uint32_t (&to)[N / 2], const float (&v)[N], __half t) {
    __half2 most = __float2half2_rn(0.f);
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const __half2 pair = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
        to[i] = *reinterpret_cast<const uint32_t *>(&pair);
        most = __hmax2(most, __habs2(pair));                         /* the number, of that and NaN */
    }
    if (!((*reinterpret_cast<uint32_t *>(&most) + 0x04000400u) & 0x80008000u)) return;     /* neither half's exponent is full */
    unsigned clamped = 0;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        clamped += (fabsf(v[2 * i]) >= F16_INFINITE) + (fabsf(v[2 * i + 1]) >= F16_INFINITE);
        to[i] = pack2(v[2 * i], v[2 * i + 1], t);
    }
    count_clamped(clamped);
}
/* The same, one by one; f32 as they are. */
template <int N> __device__ __forceinline__ void round_counted(float (&to)[N], const float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = v[i];
}
template <int N, typename T> __device__ __forceinline__ void round_counted(T (&to)[N], const float (&v)[N]) {
    uint32_t pairs[N / 2];
    pack_counted<N>(pairs, v, T());
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint16_t bits = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
        to[i] = *reinterpret_cast<const T *>(&bits);
    }
}

/* d += a (16 x 16, row) * b (16 x 8, col), f32 accumulators. */
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                                    __nv_bfloat16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                                    __half) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* d += a (16 x 32, row) * b (32 x 8, col), exactly. */
__device__ __forceinline__ void mma(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, int8_t) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* What hangs on it is computed again, rather than kept in registers from one use to the next until there are none left. */
template <typename P> __device__ __forceinline__ P *anew(P *p) {
    asm volatile("" : "+l"(p));
    return p;
}

/* 5e-6 of its value off at most, of which 16 bits are kept; below -87, where that is less than 1e-36, anything between it and -0. */
static __device__ __forceinline__ float silu(float g) { return __fdividef(g, 1.f + __expf(-g)); }

/* GELU: x / 2 erfc(-x / sqrt 2), with log2 erfc(|x| / sqrt 2) as a polynomial (minimax, weighted by the error of the result): a third
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

/* Sum over the block (whole warps), the same in every thread, in an order fixed by the block's size. */
__device__ __forceinline__ float block_sum(float v, float *shared) {
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(~0u, v, m);
    if (blockDim.x == 32) return v;
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) v += shared[w];
    return v;
}

/* Programmatic dependent launch (sm_90): wait until what this kernel reads has been written; let the next
 * kernel start its prologue. No-ops elsewhere. */
__device__ __forceinline__ void wait_for_previous() {
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Asks the L2 cache for the memory line at p. */
__device__ __forceinline__ void fetch_far(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
#endif
