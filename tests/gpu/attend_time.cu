/* attend_time.cu - how fast the attention kernels are, beside what this GPU's memory and matrix units reach in the same run.
 *
 * The one idea: a decode is timed in a captured chain, as a model runs it, over more caches than the L2 cache
 * holds; `cold` has 256 MB of other reading before each (a layer's weights), its time taken off again.
 *
 *     attend_time           a table
 *     attend_time flash     of the many-row kernels only
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "tests/gpu/gpu.h"

static int arch = 0, multiprocessors = 0;       /* kernel set */
static void *partial = nullptr;
static const uint64_t PARTIAL_BYTES = 64ull << 20;

static cudaStream_t stream;
static cudaEvent_t begun, ended;

/* Median milliseconds of one call of `work`. */
template <typename F> static double median_ms(int repeats, F work) {
    std::vector<float> ms;
    for (int i = 0; i < repeats + 2; i++) {
        float x;
        MUST(cudaEventRecord(begun, stream));
        work();
        MUST(cudaEventRecord(ended, stream));
        MUST(cudaEventSynchronize(ended));
        MUST(cudaEventElapsedTime(&x, begun, ended));
        if (i >= 2) ms.push_back(x);
    }
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
}

static __global__ void fill_kernel(uint16_t *p, size_t n, bool half, uint32_t salt) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + salt) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 27;
        float x = ((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f;
        if (half) reinterpret_cast<__half *>(p)[i] = __float2half_rn(x);
        else reinterpret_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(x);
    }
}
static void *random_device(size_t elements) {
    uint16_t *p;
    MUST(cudaMalloc(&p, elements * 2));
    fill_kernel<<<1024, 256, 0, stream>>>(p, elements, false, random32());
    MUST(cudaGetLastError());
    return p;
}

static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sink) {
    uint32_t s = 0;
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += 4 * step)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + (size_t)j * step < n) {
                uint4 x = p[i + (size_t)j * step];
                s ^= x.x ^ x.y ^ x.z ^ x.w;
            }
    if (s == 0x12345678) *sink = s;
}
static __global__ void empty_kernel() {}

static double read_gbs, gemm_tflops;
static const size_t SWEEP_BYTES = 256u << 20;
static void *sweep;

/* What the weights of a layer do to the caches between two attentions. */
static void sweep_caches() {
    read_kernel<<<1056, 512, 0, stream>>>((const uint4 *)sweep, SWEEP_BYTES / 16, (uint32_t *)partial);
    MUST(cudaGetLastError());
}


#ifdef RV_WITH_CUBLAS
#include <cublas_v2.h>
static double gemm_rate() {
    const int n = 8192;
    void *a = random_device((size_t)n * n), *b = random_device((size_t)n * n), *c = random_device((size_t)n * n);
    float one = 1, zero = 0;
    cublasHandle_t handle;
    if (cublasCreate(&handle) != CUBLAS_STATUS_SUCCESS || cublasSetStream(handle, stream) != CUBLAS_STATUS_SUCCESS) return 0;
    double ms = median_ms(10, [&] {
        if (cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16BF, n, b, CUDA_R_16BF, n, &zero, c, CUDA_R_16BF, n,
                           CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS) puts("gemm failed");
    });
    cublasDestroy(handle);
    for (void *p : { a, b, c }) MUST(cudaFree(p));
    return 2.0 * n * n * n / ms / 1e9;
}
#else
static double gemm_rate() { return 0; }
#endif

static void ceilings() {
    size_t bytes = 2ull << 30;
    char *a = (char *)random_device(bytes / 2), *b = (char *)random_device(bytes / 2);
    double copy = median_ms(5, [&] { MUST(cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, stream)); });
    double read = 1e9;
    for (int blocks : { 1056, 2112, 4224 })
        read = std::min(read, median_ms(5, [&] { read_kernel<<<(unsigned)blocks, 512, 0, stream>>>((const uint4 *)a, bytes / 16, (uint32_t *)b); }));
    read_gbs = (double)bytes / read / 1e6;
    MUST(cudaFree(a));
    MUST(cudaFree(b));
    gemm_tflops = gemm_rate();
    printf("ceilings: copy %.0f GB/s (read + written), read %.0f GB/s, gemm 8192^3 bf16 %.0f TFLOP/s\n", 2.0 * (double)bytes / copy / 1e6,
           read_gbs, gemm_tflops);
}

static rv_attention wide_call(int rows, int keys, int heads, int kv_heads, int d, bool causal, bool bias, std::vector<void *> &owned) {
    rv_attention a;
    memset(&a, 0, sizeof a);
    int width = (heads + 2 * kv_heads) * d;
    std::vector<int32_t> last((size_t)rows);
    for (int r = 0; r < rows; r++) last[(size_t)r] = causal ? keys - rows + r : keys - 1;
    rv_mat qkv = rv_mat_of(random_device((size_t)std::max(rows, keys) * (size_t)width), std::max(rows, keys), width, RV_BF16);
    a.q = rv_rows(rv_cols(qkv, 0, heads * d), 0, rows);
    a.kv.k = rv_cols(qkv, heads * d, kv_heads * d);
    a.kv.v = rv_cols(qkv, (heads + kv_heads) * d, kv_heads * d);
    a.out = rv_mat_of(random_device((size_t)rows * (size_t)(heads * d)), rows, heads * d, RV_BF16);
    a.last = to_device(last);
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.longest = keys;
    a.scale = 1.f / sqrtf((float)d);
    owned = { qkv.data, a.out.data, (void *)a.last };
    if (bias) {
        std::vector<float> b((size_t)keys, 0.f);
        for (int i = keys * 3 / 4; i < keys; i++) b[(size_t)i] = 1.0986f;
        a.kv.bias = to_device(b);
        owned.push_back((void *)a.kv.bias);
    }
    return a;
}

/* By the kernels of 8.0 and by the GPU's own; frees what the call owns. */
static void time_call(const char *what, const rv_attention &a, double seen, const std::vector<void *> &owned) {
    const int d = a.q.cols / a.heads;
    const double flop = 4.0 * a.heads * d * seen;
    for (int pass = 0; pass < 2; pass++) {
        int as = pass ? arch : 80;
        double ms = median_ms(15, [&] { MUST(rv_cuda_flash(&a, partial, multiprocessors, as, stream)); });
        printf("flash %-22s arch %d  %5d x %5d, %2d/%-2d x %-3d  %8.1f us  %6.1f TFLOP/s  %3.0f %% of gemm\n", what, as, a.q.rows, a.longest, a.heads,
               a.kv_heads, d, ms * 1e3, flop / ms / 1e9, gemm_tflops > 0 ? flop / ms / 1e7 / gemm_tflops : 0.0);
    }
    for (void *p : owned) MUST(cudaFree(p));
}

static void time_flash(const char *what, int rows, int keys, int heads, int kv_heads, int d, bool causal, bool bias) {
    std::vector<void *> owned;
    rv_attention a = wide_call(rows, keys, heads, kv_heads, d, causal, bias, owned);
    time_call(what, a, causal ? rows * (keys - rows / 2.0) : (double)rows * keys, owned);
}

/* As engine/vision.c has it: real rows see every key, others the real ones; a padding tile's keys and the padding token count as many. */
static void time_tower(const char *what, int tiles) {
    enum { TOKENS = 1601, MOST_TILES = 4 };
    const int real = tiles * TOKENS, states = tiles < MOST_TILES ? real + TOKENS : real, rows = states + 1;
    std::vector<void *> owned;
    std::vector<int32_t> last;
    std::vector<float> bias;
    rv_attention a = wide_call(rows, rows, 16, 16, 80, false, false, owned);
    for (int r = 0; r < rows; r++) {
        last.push_back((r < real ? rows : real) - 1);
        bias.push_back(r < real ? 0.f : r < states ? logf((float)(MOST_TILES - tiles)) : logf(28.f));
    }
    a.last = to_device(last);
    a.kv.bias = to_device(bias);
    owned.push_back((void *)a.last);
    owned.push_back((void *)a.kv.bias);
    time_call(what, a, (double)real * rows + (double)(rows - real) * real, owned);
}

static double sweep_us() {
    cudaGraph_t graph;
    cudaGraphExec_t run;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < 24; i++) sweep_caches();
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiateWithFlags(&run, graph, 0));
    double us = median_ms(9, [&] { MUST(cudaGraphLaunch(run, stream)); }) * 1e3 / 24;
    MUST(cudaGraphExecDestroy(run));
    MUST(cudaGraphDestroy(graph));
    return us;
}

/* A captured chain of 24 decodes, each with a cache of its own, so that the L2 cache cannot serve. */
static void time_decode(const char *what, int rows, int keys, int page_rows, int longest, bool fused, rv_cuda_order order, bool cold) {
    enum { CHAIN = 24 };
    const int heads = 32, kv_heads = 8, d = 128, width = (heads + 2 * kv_heads) * d, per = (longest - 1) / page_rows + 1;
    size_t cache_rows = (size_t)rows * (size_t)((keys - 1) / page_rows + 1) * (size_t)page_rows;
    size_t cache = cache_rows * (size_t)(kv_heads * d);
    int sets = (int)std::min<size_t>(CHAIN, std::max<size_t>(2, (6ull << 30) / (cache * 4)));
    std::vector<rv_attention> calls;
    std::vector<int32_t> pages((size_t)(rows * per), 0), last((size_t)rows, keys - 1), slot;
    std::vector<float> cos_sin((size_t)longest * (size_t)d, 0.7f);
    for (int r = 0, next = 0; r < rows; r++) {
        slot.push_back(r);
        for (int i = 0; i <= (keys - 1) / page_rows; i++) pages[(size_t)(r * per + i)] = next++;
    }
    rv_mat qkv = rv_mat_of(random_device((size_t)rows * (size_t)width), rows, width, RV_BF16);
    std::vector<void *> owned = { qkv.data };
    rv_attention a;
    memset(&a, 0, sizeof a);
    a.q = rv_cols(qkv, 0, heads * d);
    a.out = rv_mat_of(random_device((size_t)rows * (size_t)(heads * d)), rows, heads * d, RV_BF16);
    a.kv.pages = to_device(pages);
    a.kv.page_rows = page_rows;
    a.kv.max_pages = per;
    a.slot = to_device(slot);
    a.last = to_device(last);
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.longest = longest;
    a.scale = 0.088f;
    float *d_cs = to_device(cos_sin);
    for (void *p : { a.out.data, (void *)a.kv.pages, (void *)a.slot, (void *)a.last, (void *)d_cs }) owned.push_back(p);
    for (int i = 0; i < sets; i++) {
        a.kv.k = rv_mat_of(random_device(cache), (int)cache_rows, kv_heads * d, RV_BF16);
        a.kv.v = rv_mat_of(random_device(cache), (int)cache_rows, kv_heads * d, RV_BF16);
        owned.push_back(a.kv.k.data);
        owned.push_back(a.kv.v.data);
        calls.push_back(a);
    }
    cudaGraph_t graph;
    cudaGraphExec_t run;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < CHAIN; i++) {
        const rv_attention *c = &calls[(size_t)(i % sets)];
        if (cold) sweep_caches();
        if (fused)
            MUST(rv_cuda_decode_rope(c, rv_cols(qkv, heads * d, kv_heads * d), rv_cols(qkv, (heads + kv_heads) * d, kv_heads * d), d_cs,
                                     c->last, partial, order, stream));
        else MUST(rv_cuda_decode(c, partial, order, stream));
    }
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiateWithFlags(&run, graph, 0));
    double us = median_ms(9, [&] { MUST(cudaGraphLaunch(run, stream)); }) * 1e3 / CHAIN - (cold ? sweep_us() : 0);
    double bytes = 4.0 * rows * keys * kv_heads * d;
    printf("decode %-20s %2d rows x %4d keys (longest %5d)%s%s  %7.2f us  %6.0f GB/s  %3.0f %% of read\n", what, rows, keys, longest,
           fused ? " fused" : "", cold ? order == RV_CUDA_EARLY ? " cold early" : " cold" : order == RV_CUDA_EARLY ? " early" : order == RV_CUDA_OVERLAP ? " overlap" : "", us, bytes / us / 1e3, 100 * bytes / us / 1e3 / read_gbs);
    MUST(cudaGraphExecDestroy(run));
    MUST(cudaGraphDestroy(graph));
    for (void *p : owned) MUST(cudaFree(p));
}

static void time_empty() {
    cudaGraph_t graph;
    cudaGraphExec_t run;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < 100; i++) empty_kernel<<<104, 128, 0, stream>>>();
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiateWithFlags(&run, graph, 0));
    printf("an empty kernel in a captured chain: %.2f us\n", median_ms(9, [&] { MUST(cudaGraphLaunch(run, stream)); }) * 10);
    MUST(cudaGraphExecDestroy(run));
    MUST(cudaGraphDestroy(graph));
}

static void time_all(bool decodes) {
    MUST(cudaStreamCreate(&stream));
    MUST(cudaEventCreate(&begun));
    MUST(cudaEventCreate(&ended));
    ceilings();
    time_tower("the tower, 4 tiles", 4);
    time_tower("the tower, 1 tile", 1);
    time_flash("vision, 4 tiles", 6405, 6405, 16, 16, 80, false, true);
    time_flash("vision, no bias", 6405, 6405, 16, 16, 80, false, false);
    time_flash("vision, 1 tile", 3203, 3203, 16, 16, 80, false, true);
    time_flash("prefill, self", 200, 200, 32, 8, 128, true, false);
    time_flash("prefill, self", 2048, 2048, 32, 8, 128, true, false);
    time_flash("prefill, cross", 200, 6404, 32, 8, 128, false, false);
    time_flash("heads of 64", 2048, 2048, 32, 8, 64, true, false);
    if (!decodes) return;
    time_empty();
    for (int how = 0; how < 5; how++) {
        bool cold = how > 2;
        rv_cuda_order order = how == 1 ? RV_CUDA_OVERLAP : how % 2 == 0 && how ? RV_CUDA_EARLY : RV_CUDA_APART;
        if (order != RV_CUDA_APART && arch < 90) continue;
        time_decode("cross", 1, 6404, 1601, 6404, false, order, cold);
        time_decode("cross", 1, 1601, 1601, 6404, false, order, cold);
        time_decode("cross", 4, 6404, 1601, 6404, false, order, cold);
        time_decode("self", 1, 200, 64, 2048, true, order, cold);
        time_decode("self", 1, 700, 64, 2048, true, order, cold);
        time_decode("self", 1, 200, 64, 16384, true, order, cold);
        if (cold) continue;
        time_decode("cross", 16, 6404, 1601, 6404, false, order, cold);
        time_decode("self", 1, 200, 64, 2048, false, order, cold);
        time_decode("self", 16, 700, 64, 2048, true, order, cold);
        time_decode("self", 64, 700, 64, 2048, true, order, cold);
    }
}

int main(int argc, char **argv) {
    cudaDeviceProp prop;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return puts("skipped: no GPU"), 77;
    MUST(cudaGetDeviceProperties(&prop, 0));
    multiprocessors = prop.multiProcessorCount;
    rv_cuda_device_info info;
    rv_error err;
    if (rv_cuda_device(0, &info, &err)) return puts(err.message), 1;
    arch = info.arch;
    printf("%s, sm_%d, %d multiprocessors\n", prop.name, prop.major * 10 + prop.minor, multiprocessors);
    MUST(cudaMalloc(&partial, PARTIAL_BYTES));
    MUST(set(partial, 0, PARTIAL_BYTES));
    MUST(cudaMalloc(&sweep, SWEEP_BYTES));
    MUST(set(sweep, 1, SWEEP_BYTES));
    time_all(argc < 2 || strcmp(argv[1], "flash") != 0);
    MUST(cudaFree(sweep));
    MUST(cudaFree(partial));
    return 0;
}
