/* plain.cu - attention by plain loops, on any GPU and for any head of up to 256 columns: what the fast kernels do not take, and
 * what they are compared with.
 *
 * The one idea: a block has one row of one head, and walks over its keys, a thread each.
 */
#include "kernels/cuda/attend.cuh"

enum { PLAIN_THREADS = 128, PLAIN_COLUMNS = 256 };

/* The block's result of a sum or a maximum, in an order fixed by the thread numbers. */
template <typename F> static __device__ float over_block(float x, float *room, F f) {
    for (int32_t d = 16; d > 0; d /= 2) x = f(x, __shfl_xor_sync(~0u, x, d));
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = f(f(room[0], room[1]), f(room[2], room[3]));
    __syncthreads();
    return x;
}

/* One block: one row of one head. */
template <typename T> static __global__ void plain_kernel(attend_args<T> a) {
    __shared__ float q[PLAIN_COLUMNS], p[PLAIN_THREADS], room[PLAIN_THREADS / 32];
    __shared__ int32_t key_rows[PLAIN_THREADS];
    int32_t r = (int32_t)blockIdx.x, head = (int32_t)blockIdx.y, t = (int32_t)threadIdx.x, d = a.head_dim;
    int32_t slot = a.slot ? a.slot[r] : 0, first = a.first ? a.first[r] : 0, last = a.last[r];
    int64_t column = (int64_t)(head / a.group) * d;
    float m = minus_infinity(), l = 0, o[2] = { 0, 0 };
    for (int32_t c = t; c < d; c += PLAIN_THREADS) q[c] = to_f32(a.q[(int64_t)r * a.q_ld + (int64_t)head * d + c]);
    for (int32_t key = first; key <= last; key += PLAIN_THREADS) {
        int32_t n = last - key + 1 < PLAIN_THREADS ? last - key + 1 : (int32_t)PLAIN_THREADS;
        float s = minus_infinity();
        __syncthreads();
        if (t < n) {
            int32_t row = key_rows[t] = key_row(a, slot, key + t);
            s = 0;
            for (int32_t c = 0; c < d; c++) s += q[c] * to_f32(a.k[row * a.k_ld + column + c]);
            s = s * a.scale + (a.bias ? a.bias[row] : 0.f);
        }
        float top = fmaxf(m, over_block(s, room, [](float x, float y) { return fmaxf(x, y); }));
        float base = top == minus_infinity() ? 0.f : top, by = expf(m - base);
        p[t] = expf(s - base);
        l = l * by + over_block(p[t], room, [](float x, float y) { return x + y; });
        m = top;
        for (int32_t c = t, i = 0; c < d; c += PLAIN_THREADS, i++) {
            o[i] *= by;
            for (int32_t j = 0; j < n; j++)
                o[i] += to_f32(to_act<T>(p[j])) * to_f32(a.v[key_rows[j] * a.v_ld + column + c]);
        }
    }
    for (int32_t c = t, i = 0; c < d; c += PLAIN_THREADS, i++)
        a.out[(int64_t)r * a.out_ld + (int64_t)head * d + c] = to_act<T>(l == 0 ? 0.f : o[i] / l);
}

cudaError_t rv_cuda_attend_plain(const rv_attention *a, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (a->q.cols / a->heads > PLAIN_COLUMNS) return cudaErrorInvalidValue;
    dim3 grid((unsigned)a->q.rows, (unsigned)a->heads);
    if (a->q.type == RV_F16) plain_kernel<__half><<<grid, PLAIN_THREADS, 0, stream>>>(args_of<__half>(a));
    else plain_kernel<__nv_bfloat16><<<grid, PLAIN_THREADS, 0, stream>>>(args_of<__nv_bfloat16>(a));
    return cudaGetLastError();
}
