/* peak.c - what this GPU can do at most: reading and copying its memory, and a large product.
 *
 * The one idea: the best of several ways and runs; what no kernel has reached cannot be asked of ours.
 */
#include "kernels/cuda/open.h"

enum { RUNS = 5, BURST = 8, ALGORITHMS = 8, MOST_SIDE = 8192, LEAST_SIDE = 512 };
static const uint64_t MOST_BYTES = UINT64_C(2) << 30, LEAST_BYTES = UINT64_C(64) << 20;

typedef struct bench {
    rv_cuda    *c;
    char       *data;
    uint64_t    bytes;
    int32_t     blocks, side;            /* of what is timed now                                 */
    cudaEvent_t start, end;
    cublasLtMatmulDesc_t   op;
    cublasLtMatrixLayout_t square;
    cublasLtMatmulAlgo_t   algo;
    cublasStatus_t         status;       /* cuBLASLt's last word                                 */
} bench;

typedef cudaError_t work_fn(bench *b);

static cudaError_t read_all(bench *b) { return rv_cuda_read_all(b->data, b->bytes, b->c->sums, b->blocks, b->c->stream); }

static cudaError_t copy_half(bench *b) {
    return cudaMemcpyAsync(b->data + b->bytes / 2, b->data, b->bytes / 2, cudaMemcpyDeviceToDevice, b->c->stream);
}

static cudaError_t multiply(bench *b) {
    const float one = 1, zero = 0;
    uint64_t each = (uint64_t)b->side * (uint64_t)b->side * 2;
    char *d = b->data + 2 * each;
    b->status = cublasLtMatmul(b->c->lt, b->op, &one, b->data, b->square, b->data + each, b->square, &zero, d, b->square, d, b->square,
                                &b->algo, b->c->workspace, RV_CUDA_WORKSPACE_BYTES, b->c->stream);
    return cudaSuccess;
}

/* Milliseconds of one of `burst` calls, the best of `runs` bursts behind one that warms up. */
static cudaError_t best_ms(bench *b, work_fn *work, int runs, int burst, float *out) {
    cudaError_t e = work(b);
    *out = 1e30f;
    for (int i = 0; !e && i < runs; i++) {
        float ms = 0;
        e = cudaEventRecord(b->start, b->c->stream);
        for (int k = 0; !e && k < burst; k++) e = work(b);
        if (!e) e = cudaEventRecord(b->end, b->c->stream);
        if (!e) e = cudaEventSynchronize(b->end);
        if (!e) e = cudaEventElapsedTime(&ms, b->start, b->end);
        if (!e && ms / (float)burst < *out) *out = ms / (float)burst;
    }
    return e;
}

static cudaError_t measure_memory(bench *b, rv_peak *out) {
    static const int32_t waves[] = { 8, 16, 32 };
    float ms;
    cudaError_t e = cudaSuccess;
    for (size_t i = 0; !e && i < sizeof waves / sizeof *waves; i++) {
        b->blocks = waves[i] * b->c->multiprocessors;
        e = best_ms(b, read_all, RUNS, 1, &ms);
        if (!e && (double)b->bytes / ms * 1e3 > out->read) out->read = (double)b->bytes / ms * 1e3;
    }
    if (!e) e = best_ms(b, copy_half, RUNS, 1, &ms);
    if (!e) out->copy = (double)b->bytes / ms * 1e3;       /* half of it read, half written */
    return e;
}

/* The fastest of what cuBLASLt offers for that side. */
static cudaError_t measure_products(bench *b, rv_peak *out) {
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found[ALGORITHMS];
    const size_t workspace = RV_CUDA_WORKSPACE_BYTES;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cudaDataType_t type = b->c->be.act == RV_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    int n = 0;
    float ms, best = 1e30f;
    cudaError_t e = cudaSuccess;
    b->status = cublasLtMatmulDescCreate(&b->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!b->status) b->status = cublasLtMatmulDescSetAttribute(b->op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    if (!b->status) b->status = cublasLtMatrixLayoutCreate(&b->square, type, (uint64_t)b->side, (uint64_t)b->side, b->side);
    if (!b->status) b->status = cublasLtMatmulPreferenceCreate(&preference);
    if (!b->status) b->status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (!b->status)
        b->status = cublasLtMatmulAlgoGetHeuristic(b->c->lt, b->op, b->square, b->square, b->square, b->square, preference, ALGORITHMS, found, &n);
    for (int i = 0, fastest = -1; !e && !b->status && i <= n; i++) {      /* each briefly, then the fastest for long */
        if (i == n && fastest < 0) b->status = CUBLAS_STATUS_NOT_SUPPORTED;
        if (b->status) break;
        b->algo = found[i < n ? i : fastest].algo;
        e = best_ms(b, multiply, i < n ? 1 : RUNS, i < n ? 2 : BURST, &ms);
        if (i < n && b->status) b->status = CUBLAS_STATUS_SUCCESS;       /* this one cannot; another may */
        else if (!e && ms < best) best = ms, fastest = i < n ? i : fastest;
    }
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    if (b->square) cublasLtMatrixLayoutDestroy(b->square);
    if (b->op) cublasLtMatmulDescDestroy(b->op);
    if (!e && !b->status) out->flop = 2.0 * b->side * b->side * b->side / (double)best * 1e3;
    return e;
}

static cudaError_t take(bench *b, uint64_t limit) {
    size_t unused = 0, total = 0;
    cudaError_t e = cudaMemGetInfo(&unused, &total);
    if (limit && limit < unused) unused = limit;
    b->bytes = unused / 2 < MOST_BYTES ? unused / 2 : MOST_BYTES;
    b->bytes -= b->bytes % 4096;
    if (!e && b->bytes < LEAST_BYTES) e = cudaErrorMemoryAllocation;
    if (!e) e = cudaMalloc((void **)&b->data, b->bytes);
    if (!e) e = rv_cuda_fill_random(b->data, b->bytes, b->c->be.act, b->c->stream);
    if (!e) e = cudaEventCreate(&b->start);
    if (!e) e = cudaEventCreate(&b->end);
    for (b->side = MOST_SIDE; b->side > LEAST_SIDE && 6 * (uint64_t)b->side * (uint64_t)b->side > b->bytes;) b->side /= 2;
    return e;
}

rv_status rv_cuda_peak(rv_backend *be, uint64_t limit, rv_peak *out, rv_error *err) {
    bench b = { .c = (rv_cuda *)be };
    rv_peak peak = { 0 };
    cudaError_t e = take(&b, limit);
    if (!e) e = measure_memory(&b, &peak);
    if (!e) e = measure_products(&b, &peak);
    cudaStreamSynchronize(b.c->stream);
    cudaFree(b.data);
    if (b.start) cudaEventDestroy(b.start);
    if (b.end) cudaEventDestroy(b.end);
    if (e) rv_cuda_failed(b.c, e, "measuring the device");
    else if (b.status && !be->error.code)
        rv_fail(&be->error, RV_ERR_DEVICE, "GPU %d: cuBLASLt: product of side %d: %s", b.c->device, b.side, cublasLtGetStatusString(b.status));
    if (be->error.code) {
        if (err) *err = be->error;
        return be->error.code;
    }
    peak.bytes = b.bytes;
    peak.side = b.side;
    *out = peak;
    return RV_OK;
}
