/* layer_weights.cuh - random weights and rows on the device, in each format, for programs that time layers. */
#ifndef RV_TESTS_GPU_LAYER_WEIGHTS_CUH
#define RV_TESTS_GPU_LAYER_WEIGHTS_CUH
#include <string.h>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"
#include "kernels/cuda/open.h"
#include "tests/gpu/gpu.h"

static rv_backend *be;
static rv_cuda *cuda;
static rv_dtype act = RV_BF16;

template <typename T> static __global__ void fill_kernel(T *p, size_t n, uint64_t salt, float scale) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + salt) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 27;
        float x = ((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f;
        p[i] = to_act<T>(x * scale);
    }
}
/* Codes of both signs alike: a mean would make outliers of everything, layer by layer. */
static __global__ void fill_codes_kernel(int8_t *p, size_t n) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + (size_t)p) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        p[i] = (int8_t)((int32_t)((z >> 32) % 255) - 127);
    }
}
static void *random_device(size_t elements, float scale) {
    static uint64_t salt = 1;
    void *p;
    MUST(cudaMalloc(&p, elements * 2));
    if (act == RV_F16) fill_kernel<<<2112, 256, 0, cuda->stream>>>((__half *)p, elements, salt += elements, scale);
    else fill_kernel<<<2112, 256, 0, cuda->stream>>>((__nv_bfloat16 *)p, elements, salt += elements, scale);
    MUST(cudaGetLastError());
    return p;
}

static bool int8, four;
static float code_scale = 0.02f;

/* Quantised from random numbers in two parts, as gate and up are. */
static rv_weight weight_of_four(int32_t rows, int32_t cols, rv_weight_order order) {
    rv_weight_spec s = {};
    rv_four_head head = {};
    void *memory, *scratch, *data = random_device((size_t)rows / 2 * (size_t)cols, 0.02f);
    s.rows = rows;
    s.cols = cols;
    s.n_parts = 2;
    s.part[0].rows = s.part[1].rows = rows / 2;
    s.order = order;
    s.format = RV_FORMAT_NF4;
    s.nested = s.filled = true;
    MUST(cudaMalloc(&memory, rv_weight_bytes(be, &s)));
    MUST(cudaMalloc(&scratch, (size_t)rows * (size_t)cols / 8));
    memcpy(head.map, rv_nf4_map, sizeof head.map);
    for (auto &map : head.nested_map) memcpy(map, rv_nested_map, sizeof map);
    MUST(cudaMemcpyAsync(memory, &head, sizeof head, cudaMemcpyHostToDevice, cuda->stream));
    rv_four q = rv_four_of(&s, memory);
    for (int32_t i = 0; i < 2; i++) {
        MUST(rv_cuda_four_quantise(&q, i, data, act, 0, rows / 2, (float *)scratch, cuda->stream));
        MUST(rv_cuda_four_nest(&q, i, (const float *)scratch, (double *)scratch + (size_t)rows / 2 * (size_t)cols / 64, cuda->stream));
    }
    MUST(cudaStreamSynchronize(cuda->stream));
    MUST(cudaFree(data));
    MUST(cudaFree(scratch));
    return *rv_weight_new(be, &s, memory);
}

static rv_weight weight(int32_t rows, int32_t cols, rv_weight_order order, bool plain) {
    if (int8 && !plain) {
        rv_weight c = { { rows, cols, RV_USE_TEXT, order, RV_FORMAT_INT8 } };
        MUST(cudaMalloc(&c.codes, (size_t)rows * (size_t)cols));
        fill_codes_kernel<<<2112, 256, 0, cuda->stream>>>(c.codes, (size_t)rows * (size_t)cols);
        MUST(cudaGetLastError());
        c.scale = to_device(std::vector<float>((size_t)rows, code_scale));
        c.pitch = cols;
        return c;
    }
    if (four && !plain) return weight_of_four(rows, cols, order);
    rv_weight w = { { rows, cols, RV_USE_TEXT, order }, rv_mat_of(random_device((size_t)rows * (size_t)cols, 0.02f), rows, cols, act) };
    return w;
}
#endif
