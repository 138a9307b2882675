/* cublaslt.c - cuBLASLt without a GPU: every product has one algorithm, which computes nothing. */
#include <cublasLt.h>
#include <string.h>

#include "tests/fake_gpu/made.h"

static cublasStatus_t make(void *out) {
    struct fake_made *m = fake_make(FAKE_CUBLASLT, 0, true);
    memcpy(out, &m, sizeof m);
    if (!m) cudaGetLastError();                          /* the library's own calls are none of the thread's */
    return m ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}
static cublasStatus_t end(void *what) { return fake_end(what, FAKE_CUBLASLT) ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) { return make(out); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return end(h); }
const char *cublasLtGetStatusString(cublasStatus_t s) { return s == CUBLAS_STATUS_ALLOC_FAILED ? "CUBLAS_STATUS_ALLOC_FAILED" : "a status of the fake cuBLASLt"; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale) { return (void)compute, (void)scale, make(out); }
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return end(d); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t which, const void *value, size_t bytes) {
    return (void)d, (void)which, (void)value, (void)bytes, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
    return (void)type, (void)rows, (void)cols, (void)ld, make(out);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return end(l); }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) { return make(out); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return end(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t which, const void *value, size_t bytes) {
    return (void)p, (void)which, (void)value, (void)bytes, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p, int wanted, cublasLtMatmulHeuristicResult_t results[], int *found) {
    (void)h, (void)d, (void)a, (void)b, (void)c, (void)out, (void)p;
    memset(results, 0, (size_t)(*found = wanted > 0) * sizeof *results);
    return CUBLAS_STATUS_SUCCESS;
}
/* Work on the stream, as far as the fake can tell. */
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha, const void *a, cublasLtMatrixLayout_t a_is, const void *b, cublasLtMatrixLayout_t b_is,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_is, void *d, cublasLtMatrixLayout_t d_is, const cublasLtMatmulAlgo_t *algo, void *room,
                              size_t bytes, cudaStream_t stream) {
    (void)h, (void)op, (void)alpha, (void)a, (void)a_is, (void)b, (void)b_is, (void)beta, (void)c, (void)c_is, (void)d_is, (void)algo, (void)bytes;
    (void)d;
    return cudaMemsetAsync(room, 0, 0, stream) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}
