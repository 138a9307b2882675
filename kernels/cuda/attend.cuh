/* attend.cuh - what the attention kernels share: their arguments, the way from a key's number to
 * its row, and single instructions by name.
 *
 * The one idea: a key is looked up once (key_row), the result, a physical row or NO_KEY, then
 * stands for it everywhere; a NO_KEY is loaded as zeros and scored -inf.
 */
#ifndef RV_KERNELS_CUDA_ATTEND_CUH
#define RV_KERNELS_CUDA_ATTEND_CUH
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"

enum { NO_KEY = -1 };

/* rv_attention with types and without what follows from it. */
template <typename T> struct attend_args {
    const T *q, *k, *v;
    T *out;
    int64_t q_ld, k_ld, v_ld, out_ld;
    const int32_t *pages;
    const float *bias;
    const int32_t *slot, *first, *last;
    int32_t page_rows, max_pages, rows, heads, group, head_dim;
    float scale;
};

template <typename T> static attend_args<T> args_of(const rv_attention *a) {
    attend_args<T> g;
    g.q = (const T *)a->q.data;
    g.k = (const T *)a->kv.k.data;
    g.v = (const T *)a->kv.v.data;
    g.out = (T *)a->out.data;
    g.q_ld = a->q.ld;
    g.k_ld = a->kv.k.ld;
    g.v_ld = a->kv.v.ld;
    g.out_ld = a->out.ld;
    g.pages = a->kv.pages;
    g.bias = a->kv.bias;
    g.slot = a->slot;
    g.first = a->first;
    g.last = a->last;
    g.page_rows = a->kv.page_rows;
    g.max_pages = a->kv.max_pages;
    g.rows = a->q.rows;
    g.heads = a->heads;
    g.group = a->heads / a->kv_heads;
    g.head_dim = a->q.cols / a->heads;
    g.scale = a->scale;
    return g;
}

/* Rows that 16-byte loads may be used on. */
static inline bool rows_are_aligned(rv_mat m) { return (uintptr_t)m.data % 16 == 0 && m.ld % 8 == 0; }

template <typename T> __device__ __forceinline__ int32_t key_row(const attend_args<T> &a, int32_t slot, int32_t key) {
    if (!a.pages) return key;
    int32_t page = key / a.page_rows;
    return a.pages[(int64_t)slot * a.max_pages + page] * a.page_rows + (key - page * a.page_rows);
}

__device__ __forceinline__ float minus_infinity() { return __int_as_float((int)0xff800000); }

/* 2^x; 0 at -inf. */
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* How far a row's weights of some keys may add up, in a thread, before the row takes a new maximum: each stays in T's range. */
__device__ __forceinline__ float most_weight(__nv_bfloat16) { return 0x1p32f; }
__device__ __forceinline__ float most_weight(__half) { return 0x1p15f; }

/* Copies in the background, zeros where !valid; done after copies_commit and copies_wait.  Volta has none: there they are done when
 * the thread goes on, and seen by others after the barrier that follows any wait. */
#ifdef RV_CUDA_VOLTA
__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool valid) {
    const uint4 v = valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ void copies_commit() {}
template <int N> __device__ __forceinline__ void copies_wait() {}
#else
__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy4(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#endif

/* Four 8 x 8 matrices of 16-bit elements, lane 8 i + r giving the address of row r of matrix i. */
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from));
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from));
}

/* The rotation of one pair, its roundings fixed: everything that rotates must give the same bits. */
__device__ __forceinline__ void rotate_pair(float &a, float &b, float c, float s) {
    float x = __fmaf_rn(a, c, -__fmul_rn(b, s)), y = __fmaf_rn(b, c, __fmul_rn(a, s));
    a = x;
    b = y;
}

/* Rotates 8 columns and the 8 half a head further; cos and sin of the first, 16-byte aligned. */
template <typename T> static __device__ __forceinline__ void rotate8(uint4 &low, uint4 &high, const float *cos, const float *sin) {
    T *a = reinterpret_cast<T *>(&low), *b = reinterpret_cast<T *>(&high);
#pragma unroll
    for (int32_t j = 0; j < 2; j++) {
        float4 cs = reinterpret_cast<const float4 *>(cos)[j], sn = reinterpret_cast<const float4 *>(sin)[j];
        const float c[4] = { cs.x, cs.y, cs.z, cs.w }, s[4] = { sn.x, sn.y, sn.z, sn.w };
        float turned[8];
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            turned[i] = to_f32(a[4 * j + i]), turned[4 + i] = to_f32(b[4 * j + i]);
            rotate_pair(turned[i], turned[4 + i], c[i], s[i]);
        }
        uint32_t pairs[4];
        pack_counted<8>(pairs, turned, T());
#pragma unroll
        for (int32_t i = 0; i < 2; i++) (&low.x)[2 * j + i] = pairs[i], (&high.x)[2 * j + i] = pairs[2 + i];
    }
}

/* The same of 2 columns. */
template <typename T> static __device__ __forceinline__ void rotate2(uint32_t &low, uint32_t &high, const float *cos, const float *sin) {
    const T *a = reinterpret_cast<const T *>(&low), *b = reinterpret_cast<const T *>(&high);
    float turned[4];
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
        turned[i] = to_f32(a[i]), turned[2 + i] = to_f32(b[i]);
        rotate_pair(turned[i], turned[2 + i], cos[i], sin[i]);
    }
    uint32_t pairs[2];
    pack_counted<4>(pairs, turned, T());
    low = pairs[0], high = pairs[1];
}

#define RV_LOG2E 1.4426950408889634f
#endif
