/* naive.cuh - the sums that a product on tensor cores is held against: one warp, 16-bit operands, columns ascending, nothing clever.
 *
 * The one idea: the matrix unit cuts off where an f32 loop rounds, so a kernel that uses it is compared with a loop that does too.
 */
#ifndef TESTS_GPU_NAIVE_CUH
#define TESTS_GPU_NAIVE_CUH
#include "kernels/cuda/act.cuh"

/* sums [rows x n] = x [rows x k] w^T, 16 rows x 8 columns a block of 32 threads: grid (n / 8, rows / 16), rounded up. */
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
#endif
