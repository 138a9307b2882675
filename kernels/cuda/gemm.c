/* gemm.c - large products through cuBLASLt: 16-bit operands, f32 sums.
 *
 * The one idea: asking cuBLASLt which kernel to use takes up to a millisecond, and the kernel is loaded when first used. So
 * a prompt's rows are asked about in steps, and a pass in advance (engine/warm.c) can have met every answer.
 */
#include <string.h>

#include "kernels/cuda/open.h"

enum { ROW_STEP = 64, STEPPED_ROWS = 1024 };     /* pictures have few shapes, and more rows       */

static cudaDataType_t type_of(rv_dtype type) { return type == RV_F32 ? CUDA_R_32F : type == RV_BF16 ? CUDA_R_16BF : CUDA_R_16F; }

static bool same_key(const rv_gemm_key *a, const rv_gemm_key *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->ldx == b->ldx && a->ldd == b->ldd && a->out == b->out && a->add == b->add &&
           a->bias == b->bias;
}

typedef struct layouts { cublasLtMatmulDesc_t op; cublasLtMatrixLayout_t a, b, d; } layouts;

static void drop(layouts *l) {
    if (l->d) cublasLtMatrixLayoutDestroy(l->d);
    if (l->b) cublasLtMatrixLayoutDestroy(l->b);
    if (l->a) cublasLtMatrixLayoutDestroy(l->a);
    if (l->op) cublasLtMatmulDescDestroy(l->op);
}

/* cuBLASLt counts columns first: D^T [n x m] = W [k x n]^T * x^T [k x m]. */
static cublasStatus_t describe(layouts *l, const rv_gemm_key *key, rv_dtype act, const float *bias) {
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = CUDA_R_32F;
    cublasStatus_t s = cublasLtMatmulDescCreate(&l->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s) s = cublasLtMatmulDescSetAttribute(l->op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    if (!s && bias) s = cublasLtMatmulDescSetAttribute(l->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!s && bias) s = cublasLtMatmulDescSetAttribute(l->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!s && bias) s = cublasLtMatmulDescSetAttribute(l->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type);
    if (!s) s = cublasLtMatrixLayoutCreate(&l->a, type_of(act), (uint64_t)key->k, (uint64_t)key->n, key->k);
    if (!s) s = cublasLtMatrixLayoutCreate(&l->b, type_of(act), (uint64_t)key->k, (uint64_t)key->m, key->ldx);
    if (!s) s = cublasLtMatrixLayoutCreate(&l->d, type_of(key->out), (uint64_t)key->n, (uint64_t)key->m, key->ldd);
    return s;
}

static cublasStatus_t choose(rv_cuda *c, const layouts *l, rv_gemm_plan *plan) {
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    const size_t workspace = RV_CUDA_WORKSPACE_BYTES;
    const uint32_t aligned = 16;
    int n = 0;
    cublasStatus_t s = cublasLtMatmulPreferenceCreate(&preference);
    if (s) return s;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &aligned, sizeof aligned);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &aligned, sizeof aligned);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &aligned, sizeof aligned);
    s = cublasLtMatmulAlgoGetHeuristic(c->lt, l->op, l->a, l->b, l->d, l->d, preference, 1, &found, &n);
    cublasLtMatmulPreferenceDestroy(preference);
    if (!s && n == 0) s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!s) plan->algo = found.algo;
    return s;
}

/* The plan of a product with so many rows. Within a step all have the same tiles; it is asked for with few of the last
 * tile's rows, for with all of them cuBLASLt takes larger tiles, which are slower (200 rows at 11B: 12.3 against 11.0 ms). */
static rv_gemm_plan *plan_of(rv_cuda *c, rv_gemm_key key, const float *bias, cublasStatus_t *s) {
    layouts l = { 0 };
    if (key.m <= STEPPED_ROWS && key.m % ROW_STEP) key.m = key.m / ROW_STEP * ROW_STEP + ROW_STEP / 8;
    for (int i = 0; i < RV_GEMM_CACHE; i++)
        if (c->plans[i].used && same_key(&c->plans[i].key, &key)) return &c->plans[i];
    rv_gemm_plan *plan = &c->plans[c->next_plan++ % RV_GEMM_CACHE];
    *plan = (rv_gemm_plan){ .key = key };
    *s = describe(&l, &key, c->be.act, bias);
    if (!*s) *s = choose(c, &l, plan);
    drop(&l);
    plan->used = *s == CUBLAS_STATUS_SUCCESS;
    return plan->used ? plan : NULL;
}

void rv_cuda_gemm(rv_cuda *c, rv_mat out, rv_mat x, const rv_weight *w, float alpha, bool add, const float *bias) {
    const rv_gemm_key key = { x.rows, w->head.rows, w->head.cols, x.ld, out.ld, out.type, add, bias != NULL };
    const float beta = add ? 1.f : 0.f;
    layouts l = { 0 };
    cublasStatus_t s = describe(&l, &key, c->be.act, bias);
    rv_gemm_plan *plan = s ? NULL : plan_of(c, key, bias, &s);
    if (plan)
        s = cublasLtMatmul(c->lt, l.op, &alpha, w->w.data, l.a, x.data, l.b, &beta, out.data, l.d, out.data, l.d, &plan->algo,
                           c->workspace, RV_CUDA_WORKSPACE_BYTES, c->stream);
    drop(&l);
    if (s == CUBLAS_STATUS_ALLOC_FAILED) rv_cuda_failed(c, cudaErrorMemoryAllocation, "a product by cuBLASLt");
    else if (s && !c->be.error.code)
        rv_fail(&c->be.error, RV_ERR_DEVICE, "cuBLASLt: product [%d x %d] x [%d x %d]: %s", key.m, key.k, key.k, key.n, cublasLtGetStatusString(s));
}
