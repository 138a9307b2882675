/* check.h - what the checks of products on a GPU begin with: one opened backend, what was expected of it, numbers to and fro. */
#ifndef TESTS_GPU_CHECK_H
#define TESTS_GPU_CHECK_H
#include <algorithm>
#include <vector>
#include "kernels/cuda/open.h"
#include "tests/gpu/gpu.h"

static int failures = 0;
static rv_backend *be;
static rv_cuda *cuda;

/* The first forty are told. */
#define EXPECT(condition, ...)                                                                              \
    do {                                                                                                    \
        if (!(condition) && failures++ < 40) {                                                              \
            printf("FAILED %s:%d: ", __FILE__, __LINE__);                                                   \
            printf(__VA_ARGS__);                                                                            \
            printf("\n");                                                                                   \
        }                                                                                                   \
    } while (0)

static inline float random_normal() {
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)(random32() >> 8) / 16777216.f - 0.5f;
    return s * 1.7320508f;
}
static inline float unpack(uint16_t bits, rv_dtype type) { return type == RV_BF16 ? rv_bf16_to_f32(bits) : rv_f16_to_f32(bits); }

/* Behind what is queued. */
template <typename V> static std::vector<V> from_device(const void *p, size_t n) {
    std::vector<V> x(n);
    MUST(cudaStreamSynchronize(cuda->stream));
    MUST(cudaMemcpy(x.data(), p, n * sizeof(V), cudaMemcpyDeviceToHost));
    return x;
}
#endif
