/* naive.cuh - the sums that a product on tensor cores is held against: one warp, 16-bit operands, columns ascending, nothing clever.
 *
 * The one idea: the matrix unit cuts off where an f32 loop rounds, so a kernel that uses it is compared with a loop that does too.
 */
#ifndef TESTS_GPU_NAIVE_CUH
#define TESTS_GPU_NAIVE_CUH
#include <vector>
#include "kernels/cuda/act.cuh"
#include "tests/gpu/gpu.h"

/* sums [rows x n] = x [rows x k] w^T, 16 rows x 8 columns a block of 32 threads. */
template <typename T> static __global__ void naive_sums_kernel(float *sums, const T *x, int64_t x_ld, const T *w, int rows, int n, int k) {
    int lane = (int)threadIdx.x, g = lane / 4, q = lane % 4, r = (int)blockIdx.y * 16 + g, c = (int)blockIdx.x * 8;
    float d[4] = { 0, 0, 0, 0 };
#if __CUDA_ARCH__ >= 800
    auto two = [&](const T *p, int64_t ld, int row, int most, int col) {
        float lo = row < most && col < k ? to_f32(p[row * ld + col]) : 0.f;
        float hi = row < most && col + 1 < k ? to_f32(p[row * ld + col + 1]) : 0.f;
        return pack2(lo, hi, T());
    };
    for (int i = 0; i < k; i += 16)
        mma(d, two(x, x_ld, r, rows, i + 2 * q), two(x, x_ld, r + 8, rows, i + 2 * q), two(x, x_ld, r, rows, i + 8 + 2 * q), two(x, x_ld, r + 8, rows, i + 8 + 2 * q),
            two(w, k, c + g, n, i + 2 * q), two(w, k, c + g, n, i + 8 + 2 * q), T());
#else                                    /* Volta's products are others: f32 loops                */
    for (int i = 0; i < 4; i++) {
        int row = r + i / 2 * 8, col = c + 2 * q + i % 2;
        for (int j = 0; j < k && row < rows && col < n; j++) d[i] += to_f32(x[row * x_ld + j]) * to_f32(w[(int64_t)col * k + j]);
    }
#endif
    for (int i = 0; i < 4; i++) {
        int row = r + i / 2 * 8, col = c + 2 * q + i % 2;
        if (row < rows && col < n) sums[(int64_t)row * n + col] = d[i];
    }
}

/* The launch: sums is on the device; waits for nothing. */
template <typename T> static void naive_sums(float *sums, const T *x, int64_t x_ld, const T *w, int rows, int n, int k) {
    naive_sums_kernel<T><<<dim3((unsigned)(n + 7) / 8, (unsigned)(rows + 15) / 16), 32>>>(sums, x, x_ld, w, rows, n, k);
}

/* The same from and to the host: x [rows x k] and w [n x k] as 16 bits, tight. */
static inline std::vector<float> naive_sums(const std::vector<uint16_t> &x, const std::vector<uint16_t> &w, rv_dtype type, int rows, int n, int k) {
    const size_t bytes[] = { x.size() * 2, w.size() * 2, (size_t)rows * (size_t)n * 4 };
    std::vector<float> sums((size_t)rows * (size_t)n);
    void *device[3];
    for (int i = 0; i < 3; i++) MUST(cudaMalloc(&device[i], bytes[i]));
    MUST(put(device[0], x.data(), bytes[0]));
    MUST(put(device[1], w.data(), bytes[1]));
    if (type == RV_F16) naive_sums((float *)device[2], (const __half *)device[0], k, (const __half *)device[1], rows, n, k);
    else naive_sums((float *)device[2], (const __nv_bfloat16 *)device[0], k, (const __nv_bfloat16 *)device[1], rows, n, k);
    MUST(cudaMemcpy(sums.data(), device[2], bytes[2], cudaMemcpyDeviceToHost));
    for (void *d : device) MUST(cudaFree(d));
    return sums;
}
#endif
