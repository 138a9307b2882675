/* gemm_time.cu - how fast the large products are: cuBLASLt's, with the passes they need after them, and ours with all of it inside.
 *
 * The one idea: a product is timed as a model runs it, in a captured chain whose weights are never in the L2 cache; beside
 * it stands its floor, the larger of its FLOP at the rate of an 8192^3 product and its bytes at the rate of a copy in the same run.
 *
 *     gemm_time           a table
 */
#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"

#define MUST(call)                                                                                \
    do {                                                                                          \
        int e_ = (int)(call);                                                                     \
        if (e_ != 0) {                                                                            \
            printf("FAILED %s:%d: %s: %d\n", __FILE__, __LINE__, #call, e_);                      \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { CHAIN = 12, CHOICES = 8, WORKSPACE = 32 << 20 };
static cudaStream_t stream;
static cudaEvent_t begun, ended;
static cublasLtHandle_t lt;
static void *workspace;
static double product_tflops, copy_gbs;
static int multiprocessors;
static bool hopper;

/* ---- device memory and clocks ---- */

static __global__ void fill_kernel(__nv_bfloat16 *p, size_t n, float scale, uint32_t salt) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + ((uint64_t)salt << 40)) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        p[i] = __float2bfloat16_rn(scale * (((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f));
    }
}
static void *random_device(size_t elements, float scale) {
    static uint32_t salt = 1;
    __nv_bfloat16 *p;
    MUST(cudaMalloc(&p, elements * 2));
    fill_kernel<<<1056, 256, 0, stream>>>(p, elements, scale, salt++);
    MUST(cudaGetLastError());
    return p;
}

/* Microseconds of one of CHAIN calls, captured: the median of 7 replays. */
template <typename F> static double chain_us(F call) {
    cudaGraph_t graph;
    cudaGraphExec_t run;
    call(0);
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < CHAIN; i++) call(i);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&run, graph, 0));
    std::vector<float> ms;
    for (int i = 0; i < 8; i++) {
        float x;
        MUST(cudaEventRecord(begun, stream));
        MUST(cudaGraphLaunch(run, stream));
        MUST(cudaEventRecord(ended, stream));
        MUST(cudaEventSynchronize(ended));
        MUST(cudaEventElapsedTime(&x, begun, ended));
        if (i) ms.push_back(x);
    }
    std::sort(ms.begin(), ms.end());
    MUST(cudaGraphExecDestroy(run));
    MUST(cudaGraphDestroy(graph));
    return ms[ms.size() / 2] * 1e3 / CHAIN;
}

/* ---- cuBLASLt ---- */

struct lt_product {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulHeuristicResult_t found[CHOICES];
    int n;
};

static lt_product lt_open(int rows, int n, int k, bool f32, const float *bias) {
    lt_product p;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t f32_type = CUDA_R_32F;
    const size_t most = WORKSPACE;
    cublasLtMatmulPreference_t wish;
    MUST(cublasLtMatmulDescCreate(&p.op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    MUST(cublasLtMatmulDescSetAttribute(p.op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose));
    if (bias) {
        MUST(cublasLtMatmulDescSetAttribute(p.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        MUST(cublasLtMatmulDescSetAttribute(p.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
        MUST(cublasLtMatmulDescSetAttribute(p.op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &f32_type, sizeof f32_type));
    }
    MUST(cublasLtMatrixLayoutCreate(&p.a, CUDA_R_16BF, (uint64_t)k, (uint64_t)n, k));
    MUST(cublasLtMatrixLayoutCreate(&p.b, CUDA_R_16BF, (uint64_t)k, (uint64_t)rows, k));
    MUST(cublasLtMatrixLayoutCreate(&p.d, f32 ? CUDA_R_32F : CUDA_R_16BF, (uint64_t)n, (uint64_t)rows, n));
    MUST(cublasLtMatmulPreferenceCreate(&wish));
    MUST(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
    p.n = 0;
    cublasLtMatmulAlgoGetHeuristic(lt, p.op, p.a, p.b, p.d, p.d, wish, CHOICES, p.found, &p.n);
    MUST(cublasLtMatmulPreferenceDestroy(wish));
    return p;
}
static bool lt_run(const lt_product &p, int choice, const void *w, const void *x, void *out, float beta) {
    const float one = 1;
    return cublasLtMatmul(lt, p.op, &one, w, p.a, x, p.b, &beta, out, p.d, out, p.d, &p.found[choice].algo, workspace, WORKSPACE, stream) == CUBLAS_STATUS_SUCCESS;
}
static void lt_close(lt_product &p) {
    cublasLtMatrixLayoutDestroy(p.d);
    cublasLtMatrixLayoutDestroy(p.b);
    cublasLtMatrixLayoutDestroy(p.a);
    cublasLtMatmulDescDestroy(p.op);
}
/* The first choice, and the best of all. */
static void lt_time(const lt_product &p, const std::vector<void *> &w, const void *x, void *out, float beta, double *first, double *best, int *which) {
    *first = *best = INFINITY;
    *which = -1;
    for (int c = 0; c < p.n; c++) {
        if (!lt_run(p, c, w[0], x, out, beta)) continue;
        double us = chain_us([&](int i) { lt_run(p, c, w[(size_t)i % w.size()], x, out, beta); });
        if (c == 0) *first = us;
        if (us < *best) *best = us, *which = c;
    }
}

/* ---- a shape ---- */

struct shape { const char *what; int rows, n, k; decltype(rv_few::how) how; bool bias; };

static __global__ void compare_kernel(const void *a, const void *b, size_t n, bool f32, float *out) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        float x = f32 ? ((const float *)a)[i] : __bfloat162float(((const __nv_bfloat16 *)a)[i]);
        float y = f32 ? ((const float *)b)[i] : __bfloat162float(((const __nv_bfloat16 *)b)[i]);
        float d = fabsf(x - y);
        if (!(d < 1e30f)) d = 1e30f;
        if (d > out[0]) atomicMax((int *)&out[0], __float_as_int(d));
        if (fabsf(y) > out[1]) atomicMax((int *)&out[1], __float_as_int(fabsf(y)));
    }
}
/* The largest difference over the largest value. */
static double compare(const void *a, const void *b, size_t n, bool f32) {
    float *d, h[2];
    MUST(cudaMalloc(&d, sizeof h));
    MUST(cudaMemsetAsync(d, 0, sizeof h, stream));
    compare_kernel<<<528, 256, 0, stream>>>(a, b, n, f32, d);
    MUST(cudaMemcpyAsync(h, d, sizeof h, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaFree(d));
    return h[0] / h[1];
}

/* What follows cuBLASLt's product: act or f32 sums in `sums`. */
static void pass(const shape &s, rv_mat sums, rv_mat out, const float *bias) {
    const rv_mat none = { NULL, s.rows, s.n, s.n, RV_F32 };
    if (s.how == rv_few::RV_FEW_SWIGLU) MUST(rv_cuda_swiglu(out, sums, false, stream));
    else if (s.how == rv_few::RV_FEW_GELU) MUST(rv_cuda_bias_act(out, sums, bias, RV_ACT_GELU, stream));
    else if (s.how == rv_few::RV_FEW_ADD && bias) MUST(rv_cuda_add_scaled(out, none, bias, 1, NULL, stream));
}

static void time_shape(const shape &s) {
    const bool add = s.how == rv_few::RV_FEW_ADD, fold = s.how == rv_few::RV_FEW_SWIGLU;
    const size_t elements = (size_t)s.rows * (size_t)s.n, weight = (size_t)s.n * (size_t)s.k;
    const int out_cols = fold ? s.n / 2 : s.n;
    std::vector<void *> w;
    for (size_t i = 0; i < std::min<size_t>(CHAIN, 1 + (240u << 20) / (weight * 2)); i++) w.push_back(random_device(weight, 1 / sqrtf((float)s.k)));
    void *x = random_device((size_t)s.rows * (size_t)s.k, 1);
    void *sums, *out, *ours;
    float *bias = nullptr;
    MUST(cudaMalloc(&sums, elements * 4));
    MUST(cudaMalloc(&out, elements * 4));
    MUST(cudaMalloc(&ours, elements * 4));
    MUST(cudaMalloc(&bias, (size_t)s.n * 4));
    MUST(cudaMemset(bias, 0, (size_t)s.n * 4));
    const rv_mat m_sums = rv_mat_of(sums, s.rows, s.n, add ? RV_F32 : RV_BF16), m_out = rv_mat_of(out, s.rows, out_cols, add ? RV_F32 : RV_BF16);
    double flop = 2.0 * s.rows * s.n * s.k, bytes = 2.0 * ((double)weight + (double)s.rows * s.k) + (add ? 8.0 : 2.0) * s.rows * out_cols;
    double floor = std::max(flop / product_tflops / 1e6, bytes / copy_gbs / 1e3), first, best, with_pass = 0, fused = 0;
    int which, which_fused = -1;
    lt_product p = lt_open(s.rows, s.n, s.k, add, NULL);
    lt_time(p, w, x, sums, add ? 1 : 0, &first, &best, &which);
    if (s.bias || fold) with_pass = chain_us([&](int) { pass(s, m_sums, m_out, s.bias ? bias : NULL); });
    if (s.bias) {
        double unused;
        lt_product q = lt_open(s.rows, s.n, s.k, add, bias);
        lt_time(q, w, x, sums, add ? 1 : 0, &unused, &fused, &which_fused);
        lt_close(q);
    }
    printf("%-16s %4d x %5d x %5d  floor %6.1f | Lt first %6.1f best %6.1f (#%d) bias inside %6.1f (#%d) pass %5.1f | "
           "today %6.1f: %3.0f %% of floor, %4.0f TFLOP/s\n", s.what, s.rows, s.n, s.k, floor,
           first, best, which, fused, which_fused, with_pass, first + with_pass, 100 * floor / (first + with_pass), flop / (first + with_pass) / 1e6);
    /* the same once more, for comparison */
    MUST(cudaMemsetAsync(sums, 0, elements * 4, stream));
    lt_run(p, 0, w[0], x, sums, 0);
    MUST(cudaMemsetAsync(out, 0, elements * 4, stream));
    pass(s, m_sums, m_out, s.bias ? bias : NULL);
    const void *expected = fold || s.how == rv_few::RV_FEW_GELU ? out : sums;
    rv_few f = {};
    f.x = rv_mat_of(x, s.rows, s.k, RV_BF16);
    f.act = RV_BF16;
    f.multiprocessors = multiprocessors;
    f.rows = s.n;
    f.cols = s.k;
    f.bias = s.bias ? bias : NULL;
    f.out = rv_mat_of(ours, s.rows, out_cols, add ? RV_F32 : RV_BF16);
    f.how = s.how;
    f.scale = 1;
    f.w = w[0];
    if (hopper && rv_cuda_gemm90_fits(&f)) {
        MUST(cudaMemsetAsync(ours, add ? 0 : 0xff, elements * 4, stream));
        MUST(rv_cuda_gemm90(&f, false, stream));
        double off = compare(ours, expected, (size_t)s.rows * (size_t)out_cols, add);
        double us = chain_us([&](int i) { f.w = w[(size_t)i % w.size()]; MUST(rv_cuda_gemm90(&f, true, stream)); });
        printf("%17sours %6.1f: %3.0f %% of floor, %4.0f TFLOP/s, %4.2f TB/s of weights; off by %.1e%s\n", "", us,
               100 * floor / us, flop / us / 1e6, (double)weight * 2 / us / 1e6, off, rv_cuda_gemm90_pays(&f) ? "" : " (not taken)");
    }
    lt_close(p);
    for (void *d : w) MUST(cudaFree(d));
    for (void *d : { x, sums, out, ours, (void *)bias }) MUST(cudaFree(d));
}

static void ceilings() {
    const size_t bytes = 1ull << 30;
    void *a = random_device(bytes / 2, 1), *b = random_device(bytes / 2, 1), *c = random_device(8192ull * 8192, 1);
    copy_gbs = 2.0 * (double)bytes / chain_us([&](int) { MUST(cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, stream)); }) / 1e3;
    lt_product p = lt_open(8192, 8192, 8192, false, NULL);
    double us = chain_us([&](int) { lt_run(p, 0, a, b, c, 0); });
    product_tflops = 2.0 * 8192 * 8192 * 8192 / us / 1e6;
    lt_close(p);
    for (void *d : { a, b, c }) MUST(cudaFree(d));
    printf("ceilings: copy %.0f GB/s (read + written), product 8192^3 bf16 %.0f TFLOP/s\n", copy_gbs, product_tflops);
}

int main(void) {
    cudaDeviceProp prop;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return puts("skipped: no GPU"), 77;
    MUST(cudaGetDeviceProperties(&prop, 0));
    multiprocessors = prop.multiProcessorCount;
    hopper = prop.major == 9 && prop.minor == 0;
    printf("%s, sm_%d%d, %d multiprocessors; microseconds\n", prop.name, prop.major, prop.minor, multiprocessors);
    MUST(cudaStreamCreate(&stream));
    MUST(cudaEventCreate(&begun));
    MUST(cudaEventCreate(&ended));
    MUST(cublasLtCreate(&lt));
    MUST(cudaMalloc(&workspace, WORKSPACE));
    ceilings();
    for (int rows : { 6405, 3203 }) {
        time_shape({ "vision qkv", rows, 3840, 1280, rv_few::RV_FEW_STORE, false });
        time_shape({ "vision o", rows, 1280, 1280, rv_few::RV_FEW_ADD, false });
        time_shape({ "vision fc1", rows, 5120, 1280, rv_few::RV_FEW_GELU, true });
        time_shape({ "vision fc2", rows, 1280, 5120, rv_few::RV_FEW_ADD, true });
    }
    for (int rows : { 202, 1024, 2048 }) {
        time_shape({ "prefill qkv", rows, 6144, 4096, rv_few::RV_FEW_STORE, false });
        time_shape({ "prefill o", rows, 4096, 4096, rv_few::RV_FEW_ADD, false });
        time_shape({ "prefill gate_up", rows, 28672, 4096, rv_few::RV_FEW_SWIGLU, false });
        time_shape({ "prefill down", rows, 4096, 14336, rv_few::RV_FEW_ADD, false });
    }
    time_shape({ "cross k, v", 6404, 2048, 4096, rv_few::RV_FEW_STORE, false });
    time_shape({ "projector", 6404, 4096, 7680, rv_few::RV_FEW_STORE, false });
    return 0;
}
