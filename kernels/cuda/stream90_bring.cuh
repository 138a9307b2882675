/* stream90_bring.cuh - rows of activations, brought to shared memory as they come: by those who multiply, or by the warps that attend where those have neither
 * registers nor time to spare.
 *
 * The one idea: norm_rows' and share_rows' very operations on values that tell whether they have come (absent.cuh).  Nobody looks before his own block has done its
 * part, which takes about as long in all of them: what is asked for in vain is in the way of weights.
 */
#ifndef RV_KERNELS_CUDA_STREAM90_BRING_CUH
#define RV_KERNELS_CUDA_STREAM90_BRING_CUH
#include "kernels/cuda/absent.cuh"
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/few.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* Who brings: all who multiply, or those who attend, half as many. */
struct multipliers {
    enum { N = THREADS };
    static __device__ __forceinline__ int32_t me() { return (int32_t)threadIdx.x; }
    static __device__ __forceinline__ void together() { meet(); }
};
struct attenders {
    enum { N = DECODE_THREADS };
    static __device__ __forceinline__ int32_t me() { return decode_thread(); }
    static __device__ __forceinline__ void together() { decode_meet(); }
};

/* norm_rows, a thread for EACH of its threads.  WHOLE: rows have HELD * THREADS columns, so that nobody asks for each value whether it is there.
 * shared: WARPS floats.  ready: waits until it is time to look.  The bringers must meet behind it. */
template <typename B, bool WHOLE, typename T, typename To, typename R> static __device__ __forceinline__ void bring_normed(const args &a, To to, float *shared, R ready) {
    enum { EACH = THREADS / B::N };
    const int32_t me = B::me(), left = WHOLE ? HELD * THREADS : a.cols - me;
    const float *const norm = a.norm + me;
    auto column = [](int32_t j) { return j / HELD * B::N + j % HELD * THREADS; };
    auto is = [&](int32_t j) { return WHOLE || column(j) < left; };
    float weight[EACH * HELD];
#pragma unroll
    for (int32_t j = 0; j < EACH * HELD; j++) weight[j] = is(j) ? norm[column(j)] : 0.f;
    ready();
#pragma unroll 1
    for (int32_t r = 0; r < a.n; r++) {
        const float *x = (const float *)a.x + r * a.x_ld + me;
        float v[EACH * HELD] = {}, square[EACH] = {}, sum = 0;
        take_when_come(v, [&](int32_t j) { return x + column(j); }, is);
#pragma unroll
        for (int32_t k = 0; k < EACH; k++) {
#pragma unroll
            for (int32_t i = 0; i < HELD; i++) {
                v[k * HELD + i] -= 0.f;
                square[k] += v[k * HELD + i] * v[k * HELD + i];
            }
#pragma unroll 1
            for (int32_t c = k * B::N + HELD * THREADS; !WHOLE && c < left; c += THREADS) {
                float more[1];
                take_when_come(more, [&](int32_t) { return x + c; }, [](int32_t) { return true; });
                square[k] += more[0] * more[0];
            }
            for (int m = 16; m; m >>= 1) square[k] += __shfl_xor_sync(~0u, square[k], m);
        }
        B::together();
        if (me % 32 == 0)
            for (int32_t k = 0; k < EACH; k++) shared[k * (B::N / 32) + me / 32] = square[k];
        B::together();
        for (int32_t w = 0; w < WARPS; w++) sum += shared[w];
        const float scale = rsqrtf(sum / (float)a.cols + a.eps);
        To normed = to;
        normed += r * a.cols + me;
        T rounded[EACH * HELD];
#pragma unroll
        for (int32_t j = 0; j < EACH * HELD; j++) v[j] = v[j] * scale * weight[j];
        round_counted(rounded, v);
#pragma unroll
        for (int32_t j = 0; j < EACH * HELD; j++)
            if (is(j)) normed[column(j)] = rounded[j];
#pragma unroll 1
        for (int32_t k = 0; k < EACH; k++)
#pragma unroll 1
            for (int32_t c = k * B::N + HELD * THREADS; !WHOLE && c < left; c += THREADS) normed[c] = to_act<T>(__ldcg(x + c) * scale * norm[c]);
    }
}

/* Pieces [from, until) of a row of 16 bit, as they are. */
template <typename B, typename To> static __device__ __forceinline__ void bring_pieces(const uint4 *row, To to, int32_t from, int32_t until) {
    enum { AT_ONCE = 6 };
#pragma unroll 1
    for (int32_t first = from + B::me(); first < until; first += AT_ONCE * B::N) {
        uint4 v[AT_ONCE] = {};
        auto is = [&](int32_t i) { return first + i * B::N < until; };
        take_when_come(v, [&](int32_t i) { return row + first + i * B::N; }, is);
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++)
            if (is(i)) to[first + i * B::N] = v[i];
    }
}
#endif
#endif
